"""Many runs of one specification, one row each; the result does not depend on the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import joblib
import numpy as np
import pandas as pd

from interplay.kinetics.self_sorting.array import SelfSortingArray
from interplay.kinetics.self_sorting.classical import classical_sort
from interplay.kinetics.self_sorting.measures import delayed_gratification
from interplay.kinetics.self_sorting.trace import SortTrace
from interplay.primitives.stochastic import spawn_seeds

__all__ = ["batch_run", "batch_traces", "run_seeds"]

_RUN = ("max_activations", "max_swaps", "record")
_ARRAY = tuple(name for name in signature(SelfSortingArray).parameters if name not in ("values", "seed"))
_CLASSICAL = ("frozen", "frozen_kind", "direction")
_OWN = ("n", "values", "classical")


def batch_run(
    spec: Mapping[str, Any], n_runs: int, n_jobs: int = 1, seed: int | np.random.SeedSequence = 0
) -> pd.DataFrame:
    """Run one specification many times on shuffled values.

    Parameters
    ----------
    spec
        Arguments of `SelfSortingArray` and of its `run`, and `values`, an array that is shuffled anew for every run
        or a function of a `numpy.random.Generator`, or `n` for the values 0 .. n - 1 (default 100).
        `classical="bubble"` (or another sort) runs `classical_sort` instead.
    n_runs, seed
        Run i depends on the seed and on i alone. Specifications that differ in anything but the values start from the
        same arrays, and break the same cells: compare them run by run.
    n_jobs
        Worker processes.

    Returns
    -------
    One row a run: run, swaps, activations, comparisons, reads, final_me, final_sortedness, delayed_gratification,
    aggregation_start, aggregation_peak, aggregation_peak_at (share of the swaps), aggregation_end, stopped_because.
    """
    traces = batch_traces(spec, n_runs, n_jobs, seed, summarise)
    return pd.DataFrame([{"run": run, **row} for run, row in enumerate(traces)])


def batch_traces(
    spec: Mapping[str, Any],
    n_runs: int,
    n_jobs: int = 1,
    seed: int | np.random.SeedSequence = 0,
    reduce: Callable[[SortTrace], Any] | None = None,
) -> list[Any]:
    """The traces behind `batch_run`, or what `reduce` makes of each."""
    allowed = (*_OWN, *_CLASSICAL) if "classical" in spec else (*_OWN, *_ARRAY, *_RUN)
    if unknown := [name for name in spec if name not in allowed]:
        raise ValueError(f"spec names {', '.join(unknown)}; allowed are {', '.join(allowed)}")
    seeds = spawn_seeds(seed, n_runs)
    if n_jobs == 1:
        return [_one(spec, child, reduce) for child in seeds]
    return list(joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(_one)(spec, child, reduce) for child in seeds))


def run_seeds(seed: np.random.SeedSequence) -> tuple[np.random.Generator, np.random.SeedSequence]:
    """What one run draws from: the generator that shuffles its values, and the seed of its array."""
    values_seed, array_seed = spawn_seeds(seed, 2)
    return np.random.default_rng(values_seed), array_seed


def summarise(trace: SortTrace) -> dict[str, Any]:
    """The row of one run."""
    row: dict[str, Any] = {
        name: getattr(trace, name)
        for name in ("swaps", "activations", "comparisons", "reads", "final_me", "final_sortedness")
    }
    recorded = len(trace.me)
    row["delayed_gratification"] = delayed_gratification(trace.me) if recorded > 1 else np.nan
    grouped = recorded > 0 and (trace.groups != trace.groups[0]).any()
    at = int(trace.aggregation.argmax()) if grouped else -1
    row["aggregation_start"] = trace.aggregation[0] if grouped else np.nan
    row["aggregation_peak"] = trace.aggregation[at] if grouped else np.nan
    row["aggregation_peak_at"] = (at + 1) / recorded if grouped else np.nan
    row["aggregation_end"] = trace.aggregation[-1] if grouped else np.nan
    row["stopped_because"] = trace.stopped_because
    return row


def _one(spec: Mapping[str, Any], seed: np.random.SeedSequence, reduce: Callable[[SortTrace], Any] | None) -> Any:
    generator, array_seed = run_seeds(seed)
    options = {name: value for name, value in spec.items() if name not in (*_OWN, *_RUN)}
    values = spec.get("values", spec.get("n", 100))
    values = values(generator) if callable(values) else generator.permutation(values)
    if "classical" in spec:
        trace = classical_sort(values, spec["classical"], **options, seed=array_seed)
    else:
        array = SelfSortingArray(values, **options, seed=array_seed)
        trace = array.run(**{name: spec[name] for name in _RUN if name in spec})
    return trace if reduce is None else reduce(trace)
