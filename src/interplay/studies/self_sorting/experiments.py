"""The experiments of the study, each a function of the settings and a seed that yields means over runs.

All draw from the same seed, so that every condition starts from the same arrays and breaks the same cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from interplay.evidence import Measurement
from interplay.kinetics.self_sorting import (
    SortTrace,
    aggregation_curve,
    batch_traces,
    conflict_equilibrium,
    delayed_gratification,
    inversions,
    mix,
)

if TYPE_CHECKING:
    from interplay.studies.self_sorting import Config

Seed = np.random.SeedSequence

PURE = ("bubble", "insertion", "selection")
PAIRS = ("bubble + selection", "bubble + insertion", "selection + insertion")
THREE = "bubble + insertion + selection"
ALL = (*PURE, *PAIRS, THREE)
POINTS = 101
"""Moments at which curves are averaged over runs, evenly spaced in swaps."""

_ACCOUNTINGS = {"paper": "paper", "symmetric": "symmetric", "all_reads": "all reads"}
_OPPOSITE = {
    "bubble down, selection up": {"bubble": -1, "selection": 1},
    "bubble up, insertion down": {"bubble": 1, "insertion": -1},
    "selection down, insertion up": {"selection": -1, "insertion": 1},
}


class Run(NamedTuple):
    """What is kept of one run."""

    swaps: int
    steps: tuple[int, ...]
    errors: int
    inversions: int
    detours: float
    order: NDArray[np.float64]
    clusters: NDArray[np.float64]
    peak: float


def keep(trace: SortTrace) -> Run:
    """Reduce a trace; curves are NaN where there is nothing to average."""
    nothing = np.full(POINTS, np.nan)
    grouped = trace.swaps > 0 and len(trace.kinds) > 1
    at = np.rint(np.linspace(0, trace.swaps - 1, POINTS)).astype(int)
    return Run(
        trace.swaps,
        tuple(trace.steps(accounting) for accounting in ("paper", "symmetric", "all_reads")),
        trace.final_me,
        inversions(trace.start),
        delayed_gratification(trace.me) if trace.swaps > 1 else np.nan,
        trace.sortedness[at] if trace.swaps else nothing,
        aggregation_curve(trace, POINTS) if grouped else nothing,
        float(trace.aggregation.max()) if grouped else np.nan,
    )


def runs_of(config: Config, seed: Seed, spec: Mapping[str, Any]) -> list[Run]:
    """All runs of one condition on one seed."""
    settings: dict[str, Any] = {"n": config.cells, "burst": config.burst, **spec}
    if "classical" in spec:
        del settings["burst"]
    runs: list[Run] = batch_traces(settings, config.runs, seed=seed, reduce=keep)
    return runs


def sorting(config: Config, seed: Seed) -> Iterator[Measurement]:
    """Z1, Z2, Z3, Z7, Z10: every algotype and mixture, at the judged burst and one by one; the textbook sorts."""
    for burst, suffix in ((config.burst, ""), (1, ", burst 1")):
        highest: dict[str, float] = {}
        for name in ALL:
            members = name.split(" + ")
            # Labels change no run: cells of one algotype serve as the control of clustering on the way.
            spec = {"algotype": name, "labels": mix(0, 1)} if len(members) == 1 else {"algotype": mix(*members)}
            runs = runs_of(config, seed, {**spec, "burst": burst})
            yield from _totals(name + suffix, runs)
            highest[name] = _mean(runs, "peak")
            yield from _clusters(name + suffix, runs)
            if not suffix and len(members) == 1:
                yield from _fan(name, runs)
        for pair in PAIRS:
            control = max(highest[member] for member in pair.split(" + "))
            yield Measurement(f"{pair}, higher control{suffix}", "peak aggregation", control)
    for name in PURE:
        yield from _totals(f"classical {name}", runs_of(config, seed, {"classical": name}))
        runs = runs_of(config, seed, {"algotype": name, "labels": mix(0, 1, 2)})
        yield Measurement(f"{name}, three labels", "peak aggregation", _mean(runs, "peak"))


def damage(config: Config, seed: Seed) -> Iterator[Measurement]:
    """Z4, Z5, Z6: errors and detours by the number of broken cells, movable and immovable, against top-down."""
    for name in PURE:
        for kind in ("movable", "immovable"):
            cells = _broken(config, seed, {"algotype": name, "frozen_kind": kind})
            top_down = _broken(config, seed, {"classical": name, "frozen_kind": kind})
            for condition, groups in ((name, cells), (f"classical {name}", top_down)):
                for count, runs in enumerate(groups):
                    yield Measurement(condition, "monotonicity error", _mean(runs, "errors"), x=count, item=kind)
                    if kind == "immovable":
                        yield Measurement(condition, "delayed gratification", _mean(runs, "detours"), x=count)
            if kind == "immovable":
                yield from _rises(name, np.array([_mean(runs, "detours") for runs in cells]))
                pairs = [pair for groups in zip(cells, top_down, strict=True) for pair in zip(*groups, strict=True)]
                differs = any(ours.errors != theirs.errors for ours, theirs in pairs)
                yield Measurement(name, "some run has other errors than top-down", float(differs))
        one_by_one = _broken(config, seed, {"algotype": name, "frozen_kind": "immovable", "burst": 1})
        for count, runs in enumerate(one_by_one):
            yield Measurement(f"{name}, burst 1", "delayed gratification", _mean(runs, "detours"), x=count)


def bursts(config: Config, seed: Seed) -> Iterator[Measurement]:
    """How the burst moves the numbers of the paper; not judged."""
    for burst in config.bursts:
        runs = runs_of(config, seed, {"algotype": "bubble", "burst": burst})
        yield Measurement("bubble", "delayed gratification by burst", _mean(runs, "detours"), x=burst)
        runs = runs_of(config, seed, {"algotype": mix("bubble", "selection"), "burst": burst})
        yield Measurement("bubble + selection", "peak aggregation by burst", _mean(runs, "peak"), x=burst)


def duplicates(config: Config, seed: Seed) -> Iterator[Measurement]:
    """Z8: values that several cells share."""
    values = np.arange(config.cells) // config.copies
    for pair in PAIRS:
        for burst, suffix in ((config.burst, ""), (1, ", burst 1")):
            runs = runs_of(config, seed, {"algotype": mix(*pair.split(" + ")), "values": values, "burst": burst})
            yield from _clusters(f"{pair}, duplicates{suffix}", runs)


def opposite_goals(config: Config, seed: Seed) -> Iterator[Measurement]:
    """Z9: two algotypes that want opposite orders."""
    for condition, goals in _OPPOSITE.items():
        for burst, suffix in ((config.burst, ""), (1, ", burst 1")):
            spec = {"algotype": mix(*goals), "direction": goals, "burst": burst, "max_swaps": config.most_swaps}
            ends = batch_traces({"n": config.cells, **spec}, config.runs, seed=seed, reduce=_end_of_conflict)
            name = condition + suffix
            for metric, column in (("final sortedness", 0), ("late sortedness", 1), ("share settled", 4)):
                yield Measurement(name, metric, float(np.mean([end[column] for end, _ in ends])))
            if not suffix:
                yield from _curve(name, "sortedness", np.mean([curve for _, curve in ends], axis=0))


def sizes(config: Config, seed: Seed) -> Iterator[Measurement]:
    """Swaps and activations of other numbers of cells; not judged."""
    for size in config.sizes:
        for name in PURE:
            spec = {"n": size, "algotype": name, "burst": config.burst}
            traces: Sequence[SortTrace] = batch_traces(spec, config.runs_of_sizes, seed=seed)
            for metric in ("swaps", "activations"):
                value = float(np.mean([getattr(trace, metric) for trace in traces]))
                yield Measurement(name, f"{metric} by cells", value, x=size)


def _broken(config: Config, seed: Seed, spec: Mapping[str, Any]) -> list[list[Run]]:
    """Runs with none, one, two, ... broken cells."""
    return [runs_of(config, seed, {**spec, "frozen": count}) for count in range(config.frozen + 1)]


def _end_of_conflict(trace: SortTrace) -> tuple[tuple[float, ...], NDArray[np.float64]]:
    at = np.rint(np.linspace(0, trace.swaps - 1, POINTS)).astype(int)
    return tuple(map(float, conflict_equilibrium(trace))), trace.sortedness[at]


def _mean(runs: Sequence[Run], field: str) -> float:
    values = np.array([getattr(run, field) for run in runs], dtype=np.float64)
    return float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else float("nan")


def _totals(condition: str, runs: Sequence[Run]) -> Iterator[Measurement]:
    yield Measurement(condition, "swaps", _mean(runs, "swaps"))
    for column, accounting in enumerate(_ACCOUNTINGS.values()):
        yield Measurement(condition, f"steps, {accounting}", float(np.mean([run.steps[column] for run in runs])))
    yield Measurement(condition, "some run ends unsorted", float(any(run.errors for run in runs)))
    other = any(run.swaps != run.inversions for run in runs)
    yield Measurement(condition, "some run takes other swaps than inversions", float(other))


def _clusters(condition: str, runs: Sequence[Run]) -> Iterator[Measurement]:
    curve = np.mean([run.clusters for run in runs], axis=0)
    yield from _curve(condition, "aggregation", curve)
    yield Measurement(condition, "peak aggregation", _mean(runs, "peak"))
    yield Measurement(condition, "peak of mean aggregation", float(curve.max()))
    yield Measurement(condition, "moment of the peak", 100.0 * int(curve.argmax()) / (POINTS - 1))
    yield Measurement(condition, "aggregation at the start", float(curve[0]))
    yield Measurement(condition, "aggregation at the end", float(curve[-1]))


def _fan(condition: str, runs: Sequence[Run]) -> Iterator[Measurement]:
    curves = np.array([run.order for run in runs])
    for level in (10, 50, 90):
        yield from _curve(condition, f"sortedness, {level} % of runs", np.percentile(curves, level, axis=0))


def _rises(condition: str, detours: NDArray[np.float64]) -> Iterator[Measurement]:
    for count, rise in enumerate(np.diff(detours), start=1):
        yield Measurement(condition, "rise of delayed gratification", float(rise), x=count)
    yield Measurement(condition, "rise of delayed gratification, first to last", float(detours[-1] - detours[0]))
    slope = np.polyfit(np.arange(len(detours)), detours, 1)[0]
    yield Measurement(condition, "slope of delayed gratification", float(slope))


def _curve(condition: str, metric: str, values: NDArray[np.float64]) -> Iterator[Measurement]:
    for moment, value in zip(np.linspace(0, 100, POINTS), values, strict=True):
        yield Measurement(condition, metric, float(value), x=float(moment))


IN_ORDER: tuple[Callable[[Config, Seed], Iterator[Measurement]], ...] = (
    sorting,
    damage,
    bursts,
    duplicates,
    opposite_goals,
    sizes,
)
