"""Run studies: trials in parallel, every finished one kept, claims judged at the end."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple, get_args

import joblib
import pandas as pd
from threadpoolctl import threadpool_limits

from interplay.evidence.figures import figure_style
from interplay.evidence.fingerprint import fingerprint
from interplay.evidence.ledger import Ledger, RunFolder
from interplay.evidence.outcome import Environment, Failure, Outcome, conclude
from interplay.evidence.study import PRESETS, Preset, Study, StudyConfig, StudyError, tabulate

Backend = Literal["loky", "ray", "dask"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


class Progress(NamedTuple):
    """How far the trials are, over all studies that run; `reused` of the `finished` ones are from an earlier run."""

    slug: str
    finished: int
    total: int
    reused: int


class Run(NamedTuple):
    """A concluded run: what it showed and where it is kept."""

    outcome: Outcome
    folder: RunFolder


class _TrialResult(NamedTuple):
    seed: int
    table: pd.DataFrame | None
    failure: Failure | None
    seconds: float


def run(
    study: Study,
    ledger: Ledger,
    *,
    preset: str = "cpu",
    overrides: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    backend: Backend = "loky",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Run:
    """Run what is missing of a study, judge its claims, draw its figure.

    Parameters
    ----------
    study
        What to run.
    ledger
        Where finished trials are looked up and kept.
    preset
        smoke, cpu or paper.
    overrides
        Settings on top of the preset.
    seeds
        Number of trials; the preset's number if None.
    jobs
        Trials at a time; one a core if None. A trial computes with one thread, so its numbers do not depend on `jobs`.
    backend
        joblib's backend: loky on this machine; ray and dask on a cluster.
    on_progress
        Called before the first and after every trial.

    Raises
    ------
    StudyError
        Unknown preset or setting, or a number of seeds or jobs below one.
    LedgerError
        The ledger cannot be written.
    """
    planned = [(study, overrides or {})]
    return next(
        run_all(planned, ledger, preset=preset, seeds=seeds, jobs=jobs, backend=backend, on_progress=on_progress)
    )


def run_all(
    planned: Iterable[tuple[Study, Mapping[str, Any]]],
    ledger: Ledger,
    *,
    preset: str = "cpu",
    seeds: int | None = None,
    jobs: int | None = None,
    backend: Backend = "loky",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Run]:
    """Run several studies, each with its overrides, on one pool of workers: no core waits for the end of a study.

    Parameters and errors are those of `run`; wrong calls are refused before anything is computed. A study is yielded
    as soon as its last trial is in.
    """
    if jobs is not None and jobs < 1:
        raise StudyError(f"jobs must be 1 or more; got {jobs}")
    ongoing = [_Ongoing(study, ledger, preset, overrides, seeds) for study, overrides in planned]
    total = sum(each.total for each in ongoing)
    reused = finished = sum(len(each.tables) for each in ongoing)
    on_progress(Progress(ongoing[0].study.slug if ongoing else "", finished, total, reused))
    tasks = [(index, seed) for index, each in enumerate(ongoing) for seed in each.missing]
    yield from (each.conclude() for each in ongoing if not each.missing)
    for index, result in _results(ongoing, tasks, jobs or os.cpu_count() or 1, backend):
        ongoing[index].keep(result)
        finished += 1
        on_progress(Progress(ongoing[index].study.slug, finished, total, reused))
        if not ongoing[index].missing:
            yield ongoing[index].conclude()


class _Ongoing:
    """A study while its trials come in."""

    def __init__(
        self, study: Study, ledger: Ledger, preset: str, overrides: Mapping[str, Any], seeds: int | None
    ) -> None:
        self.study = study
        self.config = _resolve_device(study.configure(preset, overrides))
        self.preset = _as_preset(preset)
        self.total = study.seeds[self.preset] if seeds is None else seeds
        if self.total < 1:
            raise StudyError(f"seeds must be 1 or more; got {self.total}")
        self.fingerprint, self.environment = fingerprint(study), Environment.here()
        self.folder = ledger.open(study.slug, self.preset, self.config, self.fingerprint, self.environment)
        self.tables = {seed: table for seed, table in self.folder.finished_trials().items() if seed < self.total}
        self.failures: dict[int, Failure] = {}

    @property
    def missing(self) -> list[int]:
        """Seeds of which neither a table nor a failure is there."""
        return [seed for seed in range(self.total) if seed not in self.tables and seed not in self.failures]

    def keep(self, result: _TrialResult) -> None:
        """Write down what a trial brought."""
        if result.failure is not None:
            self.folder.write_failure(result.failure)
            self.failures[result.seed] = result.failure
        elif result.table is not None:
            self.folder.write_trial(result.seed, result.table, result.seconds)
            self.tables[result.seed] = result.table

    def conclude(self) -> Run:
        """Judge and draw."""
        ordered = [self.tables[seed] for seed in sorted(self.tables)]
        seconds = sum(float(table.attrs.get("seconds", 0.0)) for table in ordered)
        for table in ordered:
            table.attrs = {}
        measurements = pd.concat(ordered, ignore_index=True) if ordered else tabulate((), 0)
        self.folder.write_measurements(measurements)
        failures = [self.failures[seed] for seed in sorted(self.failures)]
        if ordered and (failure := _draw(self.study, measurements, self.folder)):
            self.folder.write_failure(failure)
            failures.append(failure)
        outcome = conclude(
            self.study,
            self.config,
            self.preset,
            measurements,
            seeds=self.total,
            failures=failures,
            environment=self.environment,
            fingerprint=self.fingerprint,
            trial_seconds=seconds,
        )
        self.folder.write_outcome(outcome)
        return Run(outcome, self.folder)


def _as_preset(name: str) -> Preset:
    return next(preset for preset in PRESETS if preset == name)


def _resolve_device(config: StudyConfig) -> StudyConfig:
    """Replace the device `auto` by the one that is there, so that the ledger says where numbers come from."""
    if getattr(config, "device", None) != "auto":
        return config
    import torch

    return config.model_copy(update={"device": "cuda" if torch.cuda.is_available() else "cpu"})


def _results(
    ongoing: Sequence[_Ongoing], tasks: list[tuple[int, int]], jobs: int, backend: Backend
) -> Iterator[tuple[int, _TrialResult]]:
    """Results of the tasks (index of the study, seed) as they come in."""
    if not tasks:
        return
    calls = [(index, ongoing[index].study, ongoing[index].config, seed) for index, seed in tasks]
    if jobs == 1 and backend == "loky":
        yield from (_run_task(*call) for call in calls)
        return
    waiting = set(tasks)
    try:
        with _parallel(backend, min(jobs, len(tasks))) as parallel:
            for index, result in parallel(joblib.delayed(_run_task)(*call) for call in calls):
                waiting.discard((index, result.seed))
                yield index, result
    except _worker_deaths() as error:
        # A worker that was killed (memory, a crash below Python) takes its trial along; finished trials are kept.
        for index, seed in sorted(waiting):
            failure = Failure(seed=seed, error=f"worker died: {error}", traceback="")
            yield index, _TrialResult(seed, None, failure, 0.0)


@contextmanager
def _parallel(backend: Backend, jobs: int) -> Iterator[joblib.Parallel]:
    with ExitStack() as stack:
        if backend == "ray":
            _require("ray", backend)
            from ray.util.joblib import register_ray

            register_ray()  # type: ignore[no-untyped-call]
        elif backend == "dask":
            _require("distributed", backend)
            from distributed import Client, get_client

            try:
                get_client()
            except ValueError:
                address = os.environ.get("DASK_SCHEDULER_ADDRESS")
                cluster = {"address": address} if address else {"n_workers": jobs, "threads_per_worker": 1}
                stack.enter_context(Client(**cluster))  # type: ignore[no-untyped-call]
        threads = {"inner_max_num_threads": 1} if backend == "loky" else {}
        stack.enter_context(joblib.parallel_config(backend=backend, n_jobs=jobs, **threads))
        yield joblib.Parallel(return_as="list" if backend == "ray" else "generator_unordered")


def _require(module: str, backend: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise StudyError(f"the backend {backend} needs the extra {backend!r}: pip install 'interplay[{backend}]'")


def _worker_deaths() -> tuple[type[BaseException], ...]:
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    return (TerminatedWorkerError,)


def _run_task(index: int, study: Study, config: StudyConfig, seed: int) -> tuple[int, _TrialResult]:
    return index, _run_trial(study, config, seed)


def _run_trial(study: Study, config: StudyConfig, seed: int) -> _TrialResult:
    start = time.perf_counter()
    try:
        with _one_thread():
            table = study.run_trial(config, seed)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        failure = Failure(seed=seed, error=message, traceback=traceback.format_exc())
        return _TrialResult(seed, None, failure, time.perf_counter() - start)
    return _TrialResult(seed, table, None, time.perf_counter() - start)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for every numeric library: sums depend on how they are split, and busy pools fight for the cores."""
    torch, numba = sys.modules.get("torch"), sys.modules.get("numba")
    before = (torch.get_num_threads() if torch else None, numba.get_num_threads() if numba else None)
    with threadpool_limits(1):
        if torch:
            torch.set_num_threads(1)
        if numba:
            numba.set_num_threads(1)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before[0])
            if numba:
                numba.set_num_threads(before[1])


def _draw(study: Study, measurements: pd.DataFrame, folder: RunFolder) -> Failure | None:
    try:
        with figure_style():
            folder.write_figure(study.draw(measurements))
    except Exception as error:
        return Failure(seed=None, error=f"figure: {type(error).__name__}: {error}", traceback=traceback.format_exc())
    return None
