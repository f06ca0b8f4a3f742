"""Counter-current learning: a training step against its official code, a plain loop and backpropagation.

The environment variable CCL_OFFICIAL names a checkout of https://github.com/IandRover/CCL-NeurIPS24; without it, the
official code is left out.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace

import torch
from measure import HEADER, compare
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from interplay.plasticity.counter_current import (
    Backpropagation,
    CounterCurrent,
    CounterCurrentNet,
    CounterCurrentObjective,
    CounterCurrentTrainer,
    CreditRule,
    DifferenceTargetPropagation,
)

Step = Callable[[], object]


def perceptron(widths: list[int]) -> nn.Sequential:
    """As published: ELU, no biases."""
    layers = [layer for i, o in itertools.pairwise(widths) for layer in (nn.Linear(i, o, bias=False), nn.ELU())]
    return nn.Sequential(*layers[:-1])


def plain_loop(widths: list[int], x: Tensor, labels: Tensor) -> Step:
    """The published rule as one would write it for these layers alone."""
    shapes = list(itertools.pairwise(widths))
    forward = [nn.Linear(i, o, bias=False) for i, o in shapes]
    feedback = [nn.Linear(o, i, bias=False) for i, o in shapes]
    sides = [[layer.weight for layer in side] for side in (forward, feedback)]
    optimizers = [torch.optim.SGD(side, lr=1.0) for side in sides]
    top = len(shapes) - 1

    def step() -> None:
        activities, codes = [x], [torch.eye(widths[-1])]
        for position, layer in enumerate(forward):
            drive = layer(activities[-1].detach())
            activities.append(drive if position == top else functional.elu(drive))
        for position, layer in enumerate(reversed(feedback)):
            drive = layer(codes[0].detach())
            codes.insert(0, drive if position == top else functional.elu(drive))
        loss = functional.cross_entropy(activities[-1], labels)
        member = functional.one_hot(labels, widths[-1]).float()
        for activity, code in zip(activities[:-1], codes[:-1], strict=True):
            loss = loss + 128 / activity.shape[1] * functional.mse_loss(activity @ code.T, member)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for side, optimizer in zip(sides, optimizers, strict=True):
            nn.utils.clip_grad_norm_(side, 1.0)
            optimizer.step()

    return step


def official(directory: str, widths: list[int], x: Tensor, labels: Tensor) -> Step:
    """The training step of the authors' script, with their layers in these widths."""
    if directory not in sys.path:
        sys.path.insert(0, directory)
    layers, losses = importlib.import_module("models.layers"), importlib.import_module("utils.loss")
    models = importlib.import_module("models.models")
    settings = SimpleNamespace(
        **{"act_F": "elu", "act_B": "elu", "fw_bn": 0, "bw_bn": 0, "bias_init": "zero", "method": "CCL"},
        **{"filter_target": 0, "loss_scale_C": 0.5, "T10": torch.arange(10)},
    )
    model = models.LinearModel_MNIST(settings)
    names = ["enc1", "enc2", "enc3", "enc4", "enc5", "output"]
    for name, (inputs, outputs) in zip(names, itertools.pairwise(widths), strict=True):
        setattr(model, name, layers.C2Linear(settings, inputs, outputs))
    sides = [
        [getattr(getattr(model, name), f"{side}_layer").weight for name in names] for side in ("forward", "backward")
    ]
    optimizers = [torch.optim.SGD(side, lr=1.0) for side in sides]
    criterion = losses.C2Loss_Classification(settings)

    def step() -> None:
        activities = model(x, detach_grad=True)
        loss, _ = criterion(activities, model.reverse(settings.T10, detach_grad=True), labels, method="local")
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for side, optimizer in zip(sides, optimizers, strict=True):
            nn.utils.clip_grad_norm_(side, 1.0)
            optimizer.step()

    return step


def backpropagation(widths: list[int], x: Tensor, labels: Tensor) -> Step:
    """The same forward network."""
    model = perceptron(widths)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def seeds_at_once(widths: list[int], x: Tensor, labels: Tensor, seeds: int) -> dict[str, Step]:
    """Gradients and plain steps of several networks: one `vmap`, or one network after the other."""
    objectives = [CounterCurrentObjective(CounterCurrentNet.from_sequential(perceptron(widths))) for _ in range(seeds)]
    parameters, buffers = stack_module_state(objectives)
    parameters = {name: tensor.detach() for name, tensor in parameters.items()}
    skeleton = copy.deepcopy(objectives[0]).to("meta")
    gradient = vmap(grad(lambda weights: functional_call(skeleton, (weights, buffers), (x, labels)).total))

    def together() -> None:
        for name, slope in gradient(parameters).items():
            parameters[name].sub_(slope, alpha=0.01)

    optimizers = [torch.optim.SGD(objective.parameters(), lr=0.01) for objective in objectives]

    def one_by_one() -> None:
        for objective, optimizer in zip(objectives, optimizers, strict=True):
            optimizer.zero_grad()
            objective(x, labels).total.backward()
            optimizer.step()

    return {"vmap over the seeds": together, "seed after seed": one_by_one}


def operations(rule: CreditRule, x: Tensor, labels: Tensor) -> float:
    """Floating-point operations of a step's matrix products, a sample."""
    counter = FlopCounterMode(display=False)
    with counter:
        rule(x, labels).backward()
    return counter.get_total_flops() / len(x)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows, counts = [HEADER], ["| work | rule | operations a sample | to backpropagation |", "| --- | --- | --- | --- |"]
    directory = os.environ.get("CCL_OFFICIAL")
    for widths, size in (([784, *[256] * 5, 10], 256), ([784, *[128] * 5, 10], 32)):
        work = f"a step, 784-{widths[1]}x5-10, batch of {size}"
        x, labels = torch.randn(size, 784), torch.randint(0, 10, (size,))
        net = CounterCurrentNet.from_sequential(perceptron(widths))
        trainer = CounterCurrentTrainer(net)
        alternatives: dict[str, Step] = {"CounterCurrentTrainer": lambda t=trainer, x=x, y=labels: t.step(x, y)}
        if directory:
            alternatives["official code"] = official(directory, widths, x, labels)
        alternatives["plain PyTorch loop"] = plain_loop(widths, x, labels)
        alternatives["backpropagation"] = backpropagation(widths, x, labels)
        rows += compare(work, alternatives, repeats=60, warm_up=5).rows()
        rules = {
            "backpropagation": Backpropagation(net),
            "counter-current": CounterCurrent(net),
            "difference target propagation": DifferenceTargetPropagation(
                net, generator=torch.Generator().manual_seed(0)
            ),
        }
        base = operations(rules["backpropagation"], x, labels)
        for name, rule in rules.items():
            count = operations(rule, x, labels)
            counts.append(f"| {work} | {name} | {count:,.0f} | {count / base:.3g} |")
    for widths, size, seeds in (([784, *[128] * 5, 10], 32, 4), ([64, *[32] * 3, 10], 32, 16)):
        x, labels = torch.randn(size, widths[0]), torch.randint(0, 10, (size,))
        work = f"{seeds} seeds, {widths[0]}-{widths[1]}x{len(widths) - 2}-10, batch of {size}"
        rows += compare(work, seeds_at_once(widths, x, labels, seeds), repeats=40, warm_up=5).rows()
    if not directory:
        print("CCL_OFFICIAL is not set: the official code is left out.\n")
    print("\n".join([*rows, "", *counts]))


if __name__ == "__main__":
    main()
