"""Measures of order, of detours, of clustering, and of the compromise between opposite goals."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float64, Int, Int64, Shaped
from numpy.typing import ArrayLike

from interplay.primitives.stochastic import compiled

if TYPE_CHECKING:
    from interplay.kinetics.self_sorting.trace import SortTrace

__all__ = [
    "AggregationPeaks",
    "Equilibrium",
    "aggregation",
    "aggregation_curve",
    "aggregation_peaks",
    "conflict_equilibrium",
    "delayed_gratification",
    "inversions",
    "monotonicity_error",
    "sortedness",
]


def monotonicity_error(values: Shaped[ArrayLike, "*batch n"], direction: int = 1) -> Int[np.ndarray, "*batch"]:
    """Neighbours that are out of order: how many i have v[i + 1] < v[i], or v[i + 1] > v[i] for direction -1."""
    given = np.asarray(values)
    if direction not in (-1, 1):
        raise ValueError(f"direction must be +1 (increasing) or -1 (decreasing); got {direction!r}")
    if given.ndim == 0 or given.shape[-1] < 1:
        raise ValueError(f"values must hold one or more numbers in their last dimension; got shape {given.shape}")
    left, right = given[..., :-1], given[..., 1:]
    return np.asarray((right < left if direction == 1 else right > left).sum(axis=-1))


def sortedness(values: Shaped[ArrayLike, "*batch n"], direction: int = 1) -> Float64[np.ndarray, "*batch"]:
    """100 (n - monotonicity error) / n in percent: 100 where sorted, about 50 for random order."""
    size = np.shape(values)[-1] if np.ndim(values) else 0
    return np.asarray(100.0 * (size - monotonicity_error(values, direction)) / size)


@compiled
def _count_inversions(rank, levels):
    """Pairs i < j with rank[i] > rank[j], by a Fenwick tree over the ranks seen so far."""
    tree = np.zeros(levels + 1, np.int64)
    total = 0
    for seen in range(rank.shape[0]):
        below = 0
        index = rank[seen] + 1
        while index > 0:
            below += tree[index]
            index -= index & -index
        total += seen - below
        index = rank[seen] + 1
        while index <= levels:
            tree[index] += 1
            index += index & -index
    return total


def inversions(values: Shaped[ArrayLike, " n"]) -> int:
    """Pairs that are out of increasing order, in O(n log n): the swaps of neighbours that sorting takes at least."""
    levels, rank = np.unique(np.asarray(values), return_inverse=True)
    return int(_count_inversions(rank.astype(np.int64).ravel(), len(levels)))


def delayed_gratification(me: Int[ArrayLike, " swap"], official: bool = False, minus_one: bool = True) -> float:
    """How much more is gained after a setback than was lost in it, on average over the setbacks of a run.

    The monotonicity error after every swap is read as alternating rises and falls, from the first rise on. A rise by a
    and the fall by b that follows it count (b - a) / a.

    Parameters
    ----------
    me
        (T,) monotonicity error after every swap.
    official
        The released code does not divide by the number of setbacks where a run ends on a rise.
    minus_one
        The released code reports (b - a) / a, the paper's text b / a: without subtracting one.

    Returns
    -------
    The mean; 0 where the error never rises and falls again; NaN, with a warning, for fewer than two records.
    """
    errors = np.asarray(me, dtype=np.int64)
    if errors.ndim != 1:
        raise ValueError(f"me must have one dimension, the error after every swap; got shape {errors.shape}")
    if len(errors) < 2:
        warnings.warn(
            f"delayed gratification needs two or more records; got {len(errors)}", RuntimeWarning, stacklevel=2
        )
        return float("nan")
    changes = np.diff(errors)
    changes = changes[changes != 0]
    turns = np.flatnonzero(np.diff(np.sign(changes))) + 1
    runs = np.add.reduceat(changes, np.concatenate([[0], turns])) if len(changes) else changes
    if len(runs) and runs[0] < 0:
        runs = runs[1:]
    rises, falls = runs[0::2], -runs[1::2]
    setbacks = len(falls)
    if setbacks == 0:
        return 0.0
    ratios = falls / rises[:setbacks] - (1.0 if minus_one else 0.0)
    return float(ratios.sum() if official and len(rises) > setbacks else ratios.mean())


def aggregation(types: Int[ArrayLike, "*batch n"]) -> Float64[np.ndarray, "*batch"]:
    """Share of positions whose right neighbour has the same type; the last position counts as having none.

    Random halves give about (n - 1) / n times the chance that two cells are alike, a little below one half.

    Raises
    ------
    ValueError
        All types are equal, so that there is nothing to cluster.
    """
    given = np.asarray(types)
    if given.ndim == 0 or given.shape[-1] < 2:
        raise ValueError(f"types must hold two or more cells in the last dimension; got shape {given.shape}")
    if (given == given.flat[0]).all():
        raise ValueError(f"types must hold two or more types; all {given.shape[-1]} cells are {given.flat[0]!r}")
    return np.asarray((given[..., 1:] == given[..., :-1]).sum(axis=-1) / given.shape[-1])


def aggregation_curve(trace: SortTrace, points: int = 101) -> Float64[np.ndarray, " points"]:
    """Aggregation at evenly spaced moments of a run, from its first recorded swap to its last."""
    if points < 2:
        raise ValueError(f"points must be 2 or more; got {points}")
    if not len(trace.aggregation):
        raise ValueError("the trace recorded no swap: run with record='metrics' on an array that is not at rest")
    _check_groups(trace)
    rows = np.rint(np.linspace(0, len(trace.aggregation) - 1, points)).astype(np.int64)
    return trace.aggregation[rows]


class AggregationPeaks(NamedTuple):
    """Highest aggregation over a set of runs, by the two conventions.

    `of_mean` is the top of the mean curve, at the share `at` of the run. `per_run` is the mean of every run's own
    maximum over all its swaps, which is biased upwards: compare it only with the same of a control.
    """

    of_mean: float
    at: float
    per_run: float


def aggregation_peaks(traces: Iterable[SortTrace], points: int = 101) -> AggregationPeaks:
    """Both conventions of the peak of aggregation over runs."""
    runs = list(traces)
    if not runs:
        raise ValueError("traces must hold one or more runs; got none")
    mean = np.mean([aggregation_curve(trace, points) for trace in runs], axis=0)
    top = int(mean.argmax())
    own = np.mean([trace.aggregation.max() for trace in runs])
    return AggregationPeaks(float(mean[top]), top / (points - 1), float(own))


class Equilibrium(NamedTuple):
    """Where cells with opposite goals end up.

    `sortedness` is that after the last swap, in percent. `level`, `spread` and `drift` are mean, standard deviation
    and change from beginning to end (by a straight line) of the tail of the run; `settled` says whether no cell could
    move any more.
    """

    sortedness: float
    level: float
    spread: float
    drift: float
    settled: bool


def conflict_equilibrium(trace: SortTrace, tail: float = 0.2) -> Equilibrium:
    """Read the compromise off the last `tail` (a share) of a run's swaps."""
    if not 0 < tail <= 1:
        raise ValueError(f"tail must be a share above 0 and up to 1; got {tail}")
    if not len(trace.me):
        raise ValueError("the trace recorded no swap: run with record='metrics' on an array that is not at rest")
    late: Float64[np.ndarray, " tail"] = trace.sortedness[-max(1, round(tail * len(trace.me))) :]
    time: Int64[np.ndarray, " tail"] = np.arange(len(late))
    slope = np.polyfit(time, late, 1)[0] if len(late) > 1 else 0.0
    return Equilibrium(
        float(late[-1]),
        float(late.mean()),
        float(late.std()),
        float(slope * (len(late) - 1)),
        trace.stopped_because == "quiescent",
    )


def _check_groups(trace: SortTrace) -> None:
    if (trace.groups == trace.groups[0]).all():
        raise ValueError(
            f"aggregation needs two or more groups; all cells are {trace.kinds[trace.groups[0]]!r}: mix algotypes, or "
            "pass labels for a control"
        )
