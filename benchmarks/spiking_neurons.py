"""Neurons and layers over a sequence, forward and backward, against snnTorch, SpikingJelly, Norse: time, peak memory.

All neurons decay by 0.9 a step and see the same currents; LIF neurons subtract their threshold at a spike. The layers
are E-I layers with LIF, and in the peers' place `Linear`, batch normalisation and their LIF.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from importlib import metadata

import torch
from measure import HEADER, Comparison, compare, peak_megabytes
from torch import Tensor, nn

from interplay.primitives.neurons import LIF, ATanSurrogate, MultiStep, SpikingNeuron
from interplay.spiking.ei_snn import EILinear
from interplay.spiking.ultralif import UltraDLIF, UltraLIF

Run = Callable[[Tensor], Tensor]
DECAY = 0.9
BATCH, NEURONS, UNITS = 64, 1024, 256


def sequence(neuron: SpikingNeuron) -> Run:
    return lambda current: neuron.sequence(current)[0]


def ours() -> dict[str, Run]:
    """Neurons of this package."""
    return {
        "LIF": sequence(LIF(DECAY, surrogate=ATanSurrogate(2.0))),
        "LIF, decay learned": sequence(LIF(DECAY, surrogate=ATanSurrogate(2.0), learn_decay=True)),
        "UltraLIF": sequence(UltraLIF(DECAY)),
        "UltraDLIF": sequence(UltraDLIF(NEURONS, DECAY)),
    }


def layered(run: Run) -> Run:
    """A layer of a network with batch normalisation, with somebody's neuron."""
    layer = MultiStep(nn.Sequential(nn.Linear(UNITS, UNITS, bias=False), nn.BatchNorm1d(UNITS)))
    return lambda inputs: run(layer(inputs))


def inhibited() -> Run:
    """The E-I layer with LIF."""
    layer, neuron = MultiStep(EILinear(UNITS, UNITS)), ours()["LIF"]
    return lambda inputs: neuron(layer(inputs))


def snntorch() -> Run:
    package = importlib.import_module("snntorch")
    surrogate = importlib.import_module("snntorch.surrogate")
    leaky = package.Leaky(beta=DECAY, spike_grad=surrogate.atan(), reset_mechanism="subtract", reset_delay=False)

    def run(current: Tensor) -> Tensor:
        potential, spikes = leaky.init_leaky(), []
        for now in current:
            fired, potential = leaky(now, potential)
            spikes.append(fired)
        return torch.stack(spikes)

    return run


def spikingjelly() -> Run:
    neuron = importlib.import_module("spikingjelly.activation_based.neuron")
    surrogate = importlib.import_module("spikingjelly.activation_based.surrogate")
    functional = importlib.import_module("spikingjelly.activation_based.functional")
    node = neuron.LIFNode(
        tau=1 / (1 - DECAY),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.ATan(),
        detach_reset=True,
        step_mode="m",
    )

    def run(current: Tensor) -> Tensor:
        functional.reset_net(node)
        return node(current)

    return run


def norse() -> Run:
    package = importlib.import_module("norse.torch")
    parameters = package.LIFBoxParameters(tau_mem_inv=torch.tensor(1000 * (1 - DECAY)))
    cell = package.LIFBoxCell(p=parameters, dt=0.001)

    def run(current: Tensor) -> Tensor:
        state, spikes = None, []
        for now in current:
            fired, state = cell(now, state)
            spikes.append(fired)
        return torch.stack(spikes)

    return run


PEERS = {"snntorch": snntorch, "spikingjelly": spikingjelly, "norse": norse}


def peers() -> dict[str, Run]:
    found = {}
    for name, make in PEERS.items():
        try:
            found[f"{name} {metadata.version(name)}"] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}\n")
    return found


def forward_and_backward(run: Run, current: Tensor, weight: Tensor) -> None:
    current.grad = None
    run(current).backward(weight)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=(4, 25, 100))
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    theirs = peers()
    timed, memory = [HEADER], ["| work | alternative | peak MB |", "| --- | --- | --- |"]
    for steps in arguments.steps:
        for width, mine, others in (
            (NEURONS, ours(), theirs),
            (UNITS, {"E-I layer": inhibited()}, {name: layered(run) for name, run in theirs.items()}),
        ):
            inputs = torch.rand(steps, BATCH, width, generator=generator).requires_grad_()
            weight = torch.randn(steps, BATCH, width, generator=generator)
            works = {
                name: partial(forward_and_backward, run, inputs, weight) for name, run in {**mine, **others}.items()
            }
            work = f"{steps} steps, batch {BATCH}, {width} {'neurons' if width == NEURONS else 'inputs and units'}"
            whole = compare(work, works, repeats=arguments.repeats, warm_up=3)
            for name in mine:
                against = {one: whole.seconds[one] for one in (name, *others)}
                timed += Comparison(work, against).rows()
            memory += [f"| {work} | {name} | {peak_megabytes(function):.1f} |" for name, function in works.items()]
    print("\n".join([*timed, "", *memory]))


if __name__ == "__main__":
    main()
