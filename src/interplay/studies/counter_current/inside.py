"""What is measured on the networks beside how well they do."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from interplay.evidence import Measurement
from interplay.plasticity.counter_current import (
    CounterCurrentNet,
    CreditRule,
    alignment,
    update_cosine_to_backpropagation,
)
from interplay.primitives.conflict import linear_cka
from interplay.studies.counter_current.experiments import Data, Split

PROBE = 256


@torch.no_grad()
def look_inside(data: Data, rule: CreditRule, step: int) -> Iterator[Measurement]:
    """How far the two networks agree, level by level, and the updates with those of backpropagation."""
    net = rule.net
    inputs, labels = data.validation
    activities = net.activations(inputs)
    codes = net.signals(torch.eye(activities[-1].shape[1]))
    for level, (activity, code) in enumerate(zip(activities, codes, strict=True)):
        kernel_alignment = linear_cka(activity.flatten(1), code[labels].flatten(1))
        yield Measurement("CCL", "CKA by step", float(kernel_alignment), step=step, x=level)
    probe, targets = (part[:PROBE] for part in data.train)
    with torch.enable_grad():
        cosines = update_cosine_to_backpropagation(net, probe, targets)
    for level, (weights, updates) in enumerate(zip(alignment(net).tolist(), cosines.tolist(), strict=True), 1):
        yield Measurement("CCL", "weight cosine by step", weights, step=step, x=level)
        yield Measurement("CCL", "update cosine by step", updates, step=step, x=level)


def agreement(rows: list[Measurement]) -> Iterator[Measurement]:
    """What the claims ask of the levels: the top, the least of them, and the least gain."""
    value = {(row.metric, row.step, row.x): row.value for row in rows}
    last = max(row.step for row in rows)
    levels = sorted({row.x for row in rows if row.metric == "weight cosine by step"})
    cosines = [value["weight cosine by step", last, level] for level in levels]
    yield Measurement("CCL", "weight cosine at the top", cosines[-1])
    yield Measurement("CCL", "smallest weight cosine", min(cosines))
    gains = [value["CKA by step", last, level] - value["CKA by step", 0, level] for level in levels[:-1]]
    yield Measurement("CCL", "smallest gain of CKA", min(gains))


def templates(net: CounterCurrentNet, classes: int) -> Iterator[Measurement]:
    for digit, image in enumerate(net.generate(torch.eye(classes)).mean(1).flatten(1).tolist()):
        for pixel, value in enumerate(image):
            yield Measurement("CCL", "class template", value, step=pixel, x=digit)


def operations(rule: CreditRule, split: Split, batch_size: int) -> float:
    """Floating-point operations of one training step's matrix products, a sample."""
    counter = FlopCounterMode(display=False)
    with counter:
        rule(split.inputs[:batch_size], split.targets[:batch_size]).backward()
    return counter.get_total_flops() / batch_size


def spectral_centroid(kernels: Tensor, size: int = 32) -> float:
    """Mean spatial frequency of kernels, weighted by power, in cycles a pixel: low for smooth ones."""
    power = torch.fft.fft2(kernels.detach().double(), s=(size, size)).abs().square()
    along = torch.fft.fftfreq(size, dtype=torch.float64)
    frequency = (along[:, None].square() + along[None].square()).sqrt()
    return float(((power * frequency).sum((-2, -1)) / power.sum((-2, -1))).mean())
