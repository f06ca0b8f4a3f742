"""LIF over a sequence, forward and backward, against snnTorch, SpikingJelly and Norse: time and peak memory.

All neurons decay by 0.9 a step, subtract their threshold at a spike, and see the same currents. A neuron of this
package is added to `ours`.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from importlib import metadata

import torch
from measure import HEADER, compare, peak_megabytes
from torch import Tensor

from interplay.primitives.neurons import LIF, ATanSurrogate, SpikingNeuron

Run = Callable[[Tensor], Tensor]
DECAY = 0.9


def sequence(neuron: SpikingNeuron) -> Run:
    return lambda current: neuron.sequence(current)[0]


def ours() -> dict[str, Run]:
    """Neurons of this package; the first is compared with the peers."""
    return {
        "LIF": sequence(LIF(DECAY, surrogate=ATanSurrogate(2.0))),
        "LIF, decay learned": sequence(LIF(DECAY, surrogate=ATanSurrogate(2.0), learn_decay=True)),
    }


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

    mine, theirs = ours(), peers()
    timed, memory = [HEADER], ["| work | neuron | peak MB |", "| --- | --- | --- |"]
    for steps in arguments.steps:
        current = torch.randn(steps, 64, 1024, generator=generator).add_(0.2).requires_grad_()
        weight = torch.randn(steps, 64, 1024, generator=generator)
        works = {name: partial(forward_and_backward, run, current, weight) for name, run in {**mine, **theirs}.items()}
        work = f"{steps} steps, batch 64, 1,024 neurons, forward and backward"
        timed += compare(work, works, repeats=arguments.repeats, warm_up=3).rows()
        memory += [f"| {work} | {name} | {peak_megabytes(function):.1f} |" for name, function in works.items()]
    print("\n".join([*timed, "", *memory]))


if __name__ == "__main__":
    main()
