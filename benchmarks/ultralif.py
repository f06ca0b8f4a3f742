"""UltraLIF and UltraDLIF against snnTorch's Leaky and SpikingJelly's LIFNode: time and memory, forward and backward."""

from __future__ import annotations

import argparse
import copy
import importlib
from collections.abc import Callable
from functools import partial
from importlib import metadata
from itertools import product

import torch
from measure import HEADER, compare, peak_megabytes
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from interplay.primitives.neurons import MultiStep, SpikingNeuron
from interplay.spiking.ultralif import UltraDLIF, UltraLIF, soft_lif

Run = Callable[[Tensor], Tensor]


def over_time(neuron: nn.Module) -> Run:
    """A neuron called as `spikes, state = neuron(current, state)`, looped over time as in snnTorch's tutorials."""

    def run(current: Tensor) -> Tensor:
        state, spikes = torch.zeros_like(current[0]), []
        for now in current:
            fired, state = neuron(now, state)
            spikes.append(fired)
        return torch.stack(spikes)

    return run


def at_once(neuron: SpikingNeuron) -> Run:
    return lambda current: neuron.sequence(current)[0]


def peers() -> dict[str, Run]:
    """LIF of the other libraries that are installed, with the settings of the paper's LIF."""
    found: dict[str, Run] = {}
    try:
        snntorch = importlib.import_module("snntorch")
    except ModuleNotFoundError:
        print("snntorch is not installed: left out")
    else:
        leaky = snntorch.Leaky(beta=0.9, threshold=0.5, reset_mechanism="zero")
        found[f"snnTorch {metadata.version('snntorch')} Leaky"] = over_time(leaky)
    try:
        jelly = importlib.import_module("spikingjelly.activation_based.neuron")
        functional = importlib.import_module("spikingjelly.activation_based.functional")
    except ModuleNotFoundError as error:
        print(f"spikingjelly is not installed ({error}): left out")
    else:
        node = jelly.LIFNode(tau=10.0, decay_input=False, v_threshold=0.5, step_mode="m")

        def run(current: Tensor) -> Tensor:
            functional.reset_net(node)
            return node(current)

        found[f"SpikingJelly {metadata.version('spikingjelly')} LIFNode"] = run
    return found


def both_ways(run: Run, current: Tensor) -> None:
    """Forward and backward."""
    current.grad = None
    run(current).sum().backward()


def all_seeds(
    make: Callable[[], nn.Module], seeds: int, inputs: Tensor
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Gradients of several networks at once, and one after the other."""
    networks = [make() for _ in range(seeds)]
    parameters, buffers = stack_module_state(networks)
    template = copy.deepcopy(networks[0]).to("meta")

    def together() -> None:
        outputs = vmap(lambda p, b: functional_call(template, (p, b), (inputs,)))(parameters, buffers)
        torch.autograd.grad(outputs.sum(), list(parameters.values()))

    def in_turn() -> None:
        for network in networks:
            torch.autograd.grad(network(inputs).sum(), list(network.parameters()))

    return together, in_turn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    others = peers()
    timed, memory = [HEADER], ["| work | alternative | peak MB |", "| --- | --- | --- |"]

    for steps, batch, units in ((10, 128, 256), *product((4, 25, 100), (64,), (1024,))):
        work = f"{steps} steps, batch {batch}, {units} units"
        current = torch.randn(steps, batch, units, requires_grad=True)
        ours = {"UltraLIF": at_once(UltraLIF()), "UltraDLIF": at_once(UltraDLIF(units))}
        loops = {"UltraLIF": {"UltraLIF, step by step": over_time(UltraLIF())}, "UltraDLIF": {}}
        lif = {"interplay LIF": at_once(soft_lif(smooth=False))}
        for name, run in ours.items():
            alternatives = {name: run, **others, **lif, **loops[name]}
            timed += compare(
                work,
                {key: partial(both_ways, value, current) for key, value in alternatives.items()},
                repeats=max(3, arguments.repeats // (1 + steps // 50)),
                warm_up=2,
            ).rows()
        for name, run in {**ours, **others, **lif, **loops["UltraLIF"]}.items():
            memory.append(f"| {work} | {name} | {peak_megabytes(partial(both_ways, run, current)):.1f} |")

    for steps in (1, 10):
        inputs = torch.rand(steps, 64, 140)
        together, in_turn = all_seeds(
            lambda: nn.Sequential(MultiStep(nn.Linear(140, 64)), MultiStep(UltraLIF()), MultiStep(nn.Linear(64, 20))),
            5,
            inputs,
        )
        timed += compare(
            f"gradients of five networks 140-64-20, {steps} steps, batch 64",
            {"at once by vmap": together, "one by one": in_turn},
            repeats=arguments.repeats,
            warm_up=2,
        ).rows()
    print("\n".join([*timed, "", *memory]))


if __name__ == "__main__":
    main()
