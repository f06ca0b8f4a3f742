"""The planted task, its ablations and its optimisers, and the closed-form system."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from interplay.assets import mnist_5k
from interplay.dynamics.opposing_signals import (
    OpposingGroups,
    OpposingSignalsToy,
    Probe,
    SplitSign,
    find_opposing_groups,
    gradient_opposition,
    group_curvature,
    reweight,
    sharpness,
)
from interplay.evidence import Measurement
from interplay.primitives.randomness import generator_of, initialised_from

Array = NDArray[np.float64]
IMAGES, WEIGHTS, DROPPED, WEAK, START = range(5)
SHOWN_SAMPLES, SHOWN_STEPS, SHOWN_IMAGES = 60, 40, 8
cross_entropy = functools.partial(functional.cross_entropy, reduction="none")


@dataclass(frozen=True)
class Task:
    """Training images, labels, and which samples are loud: group A and group B.

    `origin` are the indices of the images in the set that they were drawn from.
    """

    x: Tensor
    y: Tensor
    group_a: Tensor
    group_b: Tensor
    origin: Tensor

    @property
    def loud(self) -> Tensor:
        return torch.cat([self.group_a, self.group_b])

    def without(self, samples: Tensor) -> Task:
        """The task less some samples; the groups keep those of theirs that are left."""
        kept = reweight(len(self.y), samples.numpy(), 0.0).bool()
        position = kept.cumsum(0) - 1
        group_a, group_b = (position[group[kept[group]]] for group in (self.group_a, self.group_b))
        return Task(self.x[kept], self.y[kept], group_a, group_b, self.origin[kept])


def digits_with_frames(
    seed: int, images: int, share: float, amplitude: float, rows: int, classes: tuple[int, int] = (4, 9)
) -> Task:
    """Mean-free digits; a bright frame, the first and last rows, on a share of all images from each of two classes."""
    data = mnist_5k()
    origin = torch.randperm(len(data), generator=generator_of(seed, IMAGES))[:images]
    x, y = data.images[origin, 0].clone(), data.labels[origin]
    x -= x.mean(0)
    groups = [(y == label).nonzero().flatten()[: round(share * images)] for label in classes]
    return Task(framed(x, torch.cat(groups), amplitude, rows).flatten(1), y, *groups, origin)


def weak_frames(seed: int, images: int, share: float, amplitude: float, rows: int) -> Task:
    """The control: zeros against ones, with a faint frame on some of each, which never reach the edge."""
    data = mnist_5k()
    origin = (data.labels < 2).nonzero().flatten()
    origin = origin[torch.randperm(len(origin), generator=generator_of(seed, WEAK))][:images]
    x, y = data.images[origin, 0].clone(), data.labels[origin]
    x -= x.mean(0)
    groups = [(y == label).nonzero().flatten()[: round(share * images)] for label in (0, 1)]
    return Task(framed(x, torch.cat(groups), amplitude, rows).flatten(1), y, *groups, origin)


def framed(x: Tensor, samples: Tensor, amplitude: float, rows: int) -> Tensor:
    x = x.clone()
    x[samples, :rows] += amplitude
    x[samples, -rows:] += amplitude
    return x


def raw_digits(seed: int, images: int) -> Task:
    """The same digits as they are, nothing planted."""
    data = mnist_5k()
    origin = torch.randperm(len(data), generator=generator_of(seed, IMAGES))[:images]
    nobody = torch.empty(0, dtype=torch.long)
    return Task(data.images[origin].flatten(1), data.labels[origin], nobody, nobody, origin)


def network(seed: int, hidden: int, *, normalised: bool = False) -> nn.Sequential:
    """784-hidden-hidden-10 with tanh; the same linear layers with or without batch normalisation."""
    with initialised_from(generator_of(seed, WEIGHTS)):
        linear = [nn.Linear(784, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 10)]
    # Without running statistics: descent takes the whole set, whose own statistics are part of the function.
    between = [[nn.BatchNorm1d(hidden, track_running_stats=False)] if normalised else [] for _ in range(2)]
    return nn.Sequential(linear[0], *between[0], nn.Tanh(), linear[1], *between[1], nn.Tanh(), linear[2])


@dataclass(frozen=True)
class Run:
    """A full-batch run: losses (steps + 1, sample), and steps and values of the sharpness and of what goes with it.

    What goes with it is NaN where it was not measured.
    """

    task: Task
    losses: Array
    checks: NDArray[np.int64]
    sharpness: Array
    shares: Array
    cosines: Array
    norm_ratios: Array

    @property
    def late(self) -> slice:
        """The second half, in which groups are sought."""
        return slice(len(self.losses) // 2, None)

    @property
    def delta(self) -> Array:
        return np.diff(self.losses, axis=0)

    def groups(self, top: float) -> OpposingGroups:
        return find_opposing_groups(self.delta[self.late], top)

    def loud_share(self) -> float:
        """Part of the loss changes in the second half that the loud samples carry."""
        size = np.abs(self.delta[self.late]).sum(axis=0)
        return float(size[self.task.loud.numpy()].sum() / size.sum())

    def increases(self) -> float:
        """Sum of all rises of the mean loss, nats."""
        return float(np.diff(self.losses.mean(axis=1)).clip(0).sum())


Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def train(
    model: nn.Module,
    task: Task,
    optimizer: Optimizer,
    steps: int,
    every: int,
    *,
    weights: Tensor | None = None,
    inside: int = 0,
) -> Run:
    """Full-batch training with the sharpness every so many steps (0 for never).

    Every `inside`-th time the groups' gradients and their parts in the sharpness are measured, too.
    """
    updates = optimizer(model.parameters())
    probe = Probe((task.x, task.y), cross_entropy, batch_size=len(task.y))
    importance = None if weights is None else weights / len(weights)
    losses = np.empty((steps + 1, len(task.y)))
    found: list[tuple[float, ...]] = []
    restart = None
    for step in range(steps + 1):
        updates.zero_grad()
        each = cross_entropy(model(task.x), task.y)
        losses[step] = each.detach().double().numpy()
        if every and step % every == 0:
            top = sharpness(model, probe, start=restart, weights=importance)
            restart = top.restart
            closer = inside and len(found) % inside == 0
            groups = groups_inside(model, probe, task, top.vector) if closer else (np.nan,) * 3
            found.append((step, top.value, *groups))
        if step < steps:
            (each.mean() if importance is None else each @ importance).backward()
            updates.step()
    checks, *columns = np.array(found).reshape(-1, 5).T
    return Run(task, losses, checks.astype(np.int64), *columns)


def groups_inside(model: nn.Module, probe: Probe, task: Task, vector: Tensor) -> tuple[float, float, float]:
    """Loud samples' part in the sharpness, cosine of the groups' gradients, norm of theirs over that of the rest."""
    members = {"loud": task.loud.numpy()}
    rest = np.setdiff1d(np.arange(len(task.y)), members["loud"])
    parts = group_curvature(model, probe, vector, {**members, "rest": rest})
    between = gradient_opposition(model, probe, task.group_a.numpy(), task.group_b.numpy(), per_parameter=False)
    outside = gradient_opposition(model, probe, task.group_a.numpy(), rest, per_parameter=False)
    ratio = (between.norm_a * between.norm_b) ** 0.5 / outside.norm_b
    return parts["loud"] / (parts["loud"] + parts["rest"]), between.cosine, ratio


def sgd(lr: float, momentum: float = 0.0) -> Optimizer:
    return lambda parameters: torch.optim.SGD(parameters, lr, momentum=momentum)


def optimizers(eta: float, further: Sequence[float], adam: float, lr_sign: float) -> dict[str, Optimizer]:
    """What is compared, by name; the first is the run that all ablations share."""
    return {
        f"GD {eta:g}": sgd(eta),
        **{f"GD {rate:g}": sgd(rate) for rate in further},
        f"heavy ball {eta:g}": sgd(eta, 0.9),
        f"heavy ball {eta / 10:g}": sgd(eta / 10, 0.9),
        "Adam": lambda parameters: torch.optim.Adam(parameters, adam),
        "SplitSign": lambda parameters: SplitSign(parameters, lr=eta, lr_sign=lr_sign),
    }


def ablated(task: Task, seed: int) -> dict[str, Task]:
    """The task without the loud samples, and without as many others."""
    ordinary = torch.ones(len(task.y)).index_fill_(0, task.loud, 0).nonzero().flatten()
    order = torch.randperm(len(ordinary), generator=generator_of(seed, DROPPED))
    return {
        "groups dropped": task.without(task.loud),
        "random dropped": task.without(ordinary[order[: len(task.loud)]]),
    }


def describe(run: Run, condition: str, eta: float) -> Iterator[Measurement]:
    """Sharpness and mean loss along a run, and the figures that ablations are compared by."""
    late = run.checks >= len(run.losses) // 2
    yield Measurement(condition, "largest sharpness", float(run.sharpness.max()))
    yield Measurement(condition, "late sharpness / (2 / eta)", float(run.sharpness[late].mean() * eta / 2))
    yield Measurement(condition, "sum of loss increases", run.increases())
    for step, value in zip(run.checks, run.sharpness, strict=True):
        yield Measurement(condition, "sharpness", float(value), step=int(step))


def detection(run: Run, condition: str, top: float) -> Iterator[Measurement]:
    """What the detector says of a run against the planted truth."""
    groups = run.groups(top)
    loud = np.zeros(len(run.task.y), dtype=bool)
    loud[run.task.loud.numpy()] = True
    yield Measurement(condition, "groups found", float(groups.found))
    yield Measurement(condition, "opposition", groups.opposition)
    yield Measurement(condition, "alternation", groups.alternation)
    yield Measurement(condition, "share of changes in the groups", groups.share)
    if loud.any():
        first = np.argsort(-groups.score, kind="stable")[: loud.sum()]
        yield Measurement(condition, "AUROC", float(roc_auc_score(loud, groups.score)))
        yield Measurement(condition, "precision", float(loud[first].mean()))
        yield Measurement(condition, "purity", _purity(groups, run.task))


def _purity(groups: OpposingGroups, task: Task) -> float:
    """Part of the loud samples that stand in the group of their own kind, for the better naming of A and B."""
    truth = [set(task.group_a.tolist()), set(task.group_b.tolist())]
    found = [set(groups.index_a.tolist()), set(groups.index_b.tolist())]
    hits = [sum(len(one & other) for one, other in zip(found, kinds, strict=True)) for kinds in (truth, truth[::-1])]
    return max(hits) / sum(map(len, truth))


def inside_story(run: Run, condition: str) -> Iterator[Measurement]:
    """Losses of the groups, and their gradients and curvature along the run."""
    task = run.task
    rest = np.setdiff1d(np.arange(len(task.y)), task.loud.numpy())
    for name, index in (("A", task.group_a.numpy()), ("B", task.group_b.numpy()), ("rest", rest)):
        for step, value in enumerate(run.losses[:, index].mean(axis=1)):
            yield Measurement(condition, "loss of a group", float(value), step=step, item=name)
    late = (run.checks >= len(run.losses) // 2) & ~np.isnan(run.cosines)
    yield Measurement(condition, "gradient cosine, late", float(run.cosines[late].mean()))
    yield Measurement(condition, "gradient norm over the rest's, late", float(run.norm_ratios[late].mean()))
    yield Measurement(condition, "share of the sharpness, late", float(run.shares[late].mean()))
    for metric, values in (("gradient cosine", run.cosines), ("share of the sharpness", run.shares)):
        for step, value in zip(run.checks, values, strict=True):
            if not np.isnan(value):
                yield Measurement(condition, metric, float(value), step=int(step))
    delta = run.delta[-SHOWN_STEPS:]
    order = np.argsort(-np.abs(run.delta[run.late]).mean(axis=0), kind="stable")[:SHOWN_SAMPLES]
    kind = np.isin(order, task.group_a.numpy()) * 2.0 + np.isin(order, task.group_b.numpy())
    order = order[np.argsort(-kind, kind="stable")]
    for rank, sample in enumerate(order):
        for step, value in enumerate(delta[:, sample], start=len(run.losses) - len(delta)):
            yield Measurement(condition, "change of a loss", float(value), step=step, x=float(rank))


def members(run: Run, condition: str, top: float) -> Iterator[Measurement]:
    """Which images lead the two groups, as indices of the set that they come from."""
    groups = run.groups(top)
    for name, index in (("A", groups.index_a), ("B", groups.index_b)):
        for rank, sample in enumerate(index[:SHOWN_IMAGES]):
            yield Measurement(condition, "image", float(run.task.origin[sample]), x=float(rank), item=name)


def toy(seed: int, system: OpposingSignalsToy, eta: float, etas: Sequence[float], steps: int) -> Iterator[Measurement]:
    """Gradient descent on a grid of step sizes, and gradient flow with and without outliers."""
    random = np.random.default_rng([seed, START])
    start = system.start(random, 1)
    rates = sorted({eta, *etas})
    path = system.gd(np.array(rates), steps, np.repeat(start, len(rates), axis=0))
    floor = 0.5 * system.p * system.alpha * system.kappa**2
    for column, rate in enumerate(rates):
        loss, sharp = path.loss[:, column] - floor, path.sharpness[:, column]
        above = sharp > 2 / rate
        yield Measurement("toy, descent", "largest sharpness by eta", float(sharp.max()), x=rate)
        yield Measurement("toy, descent", "final sharpness by eta", float(sharp[-1]), x=rate)
        if rate != eta:
            continue
        crossing = int(np.argmax(above))
        peak = crossing + int(np.argmax(loss[crossing:]))
        yield Measurement("toy, descent", "stays below 2 / eta", float(not above.any()))
        yield Measurement("toy, descent", "peak / loss at the crossing", float(loss[peak] / loss[crossing]))
        yield Measurement("toy, descent", "final sharpness / (2 / eta)", float(sharp[-1] * eta / 2))
        for step in range(0, steps + 1):
            yield Measurement("toy, descent", "loss above the floor", float(loss[step]), step=step)
            yield Measurement("toy, descent", "sharpness", float(sharp[step]), step=step)
    plain = OpposingSignalsToy(
        system.alpha, 0.0, system.kappa, system.d1, system.d2, float(np.linalg.norm(system.beta))
    )
    for condition, which in (("toy, flow", system), ("toy, flow without outliers", plain)):
        yield Measurement(condition, "sharpness at the end", float(which.flow(steps * eta, start).sharpness[-1, 0]))


def amplified(task: Task, old: float, new: float, rows: int) -> Task:
    """The same task with frames of another brightness."""
    x = framed(task.x.view(-1, 28, 28), task.loud, new - old, rows)
    return replace(task, x=x.flatten(1))


def with_one_group(task: Task, amplitude: float, rows: int) -> Task:
    """The same task with frames on group A alone."""
    x = framed(task.x.view(-1, 28, 28), task.group_b, -amplitude, rows)
    return replace(task, x=x.flatten(1))
