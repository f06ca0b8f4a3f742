"""Series with what is asked about them, and what a reservoir's states score: trained, chosen and tested apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from interplay.assets import time_series
from interplay.reservoirs.adaptive_reservoir import Reservoir, fit_readouts
from interplay.reservoirs.adaptive_reservoir.metrics import nrmse, squared_correlation

if TYPE_CHECKING:
    from interplay.studies.adaptive_reservoir import Config

MEMORY = "memory capacity"
NARMA = "NARMA-10 NRMSE"


@dataclass(frozen=True)
class Series:
    """An input series and what is asked at each step, by metric: columns of its outputs."""

    inputs: Float[np.ndarray, "time input"]
    outputs: Mapping[str, Float[np.ndarray, "time output"]]
    input_scaling: float


@dataclass(frozen=True)
class Found:
    """What a setting reached on the steps that choose and on the steps that are reported, in the metric's unit."""

    validation: float
    test: float


def all_series(config: Config, seed: int) -> dict[str, Series]:
    """The series of the config, by name, each from its own branch of the seed."""
    makers = {"memory": _memory, "narma": _narma, "mackey-glass": _mackey_glass, "lorenz": _lorenz}
    return {
        name: makers[name](config, np.random.default_rng([seed, 1, list(makers).index(name)])) for name in config.series
    }


def score(metric: str, value: float) -> float:
    """What a value is worth, more is better: memory capacity itself, 1 / NRMSE of the other tasks."""
    return value if metric == MEMORY else 1 / value


def evaluate(config: Config, reservoir: Reservoir, series: Series) -> dict[str, Found]:
    """Run a frozen reservoir along a series, train readouts, choose the ridge on validation, for each metric."""
    states = reservoir.run(series.inputs)
    train, validation, test = segments(config)
    found = {}
    metrics, columns = list(series.outputs), np.cumsum([0] + [each.shape[1] for each in series.outputs.values()])
    outputs = np.hstack(list(series.outputs.values()))
    readouts = fit_readouts(states[train], outputs[train], config.ridges)
    for metric, first, last in zip(metrics, columns[:-1], columns[1:], strict=True):
        measure = _capacity if metric == MEMORY else nrmse

        def value(readout, steps, measure=measure, asked=slice(first, last)) -> float:
            return measure(outputs[steps, asked], readout.predict(states[steps])[:, asked])

        chosen = {value(readout, validation): readout for readout in readouts}
        best = max(chosen, key=lambda reached, metric=metric: score(metric, reached))
        found[metric] = Found(best, value(chosen[best], test))
    return found


def segments(config: Config) -> tuple[slice, slice, slice]:
    """Steps that train, that choose, and that are reported."""
    first = config.washout
    second = first + config.train_steps
    third = second + config.validation_steps
    return slice(first, second), slice(second, third), slice(third, third + config.test_steps)


def steps_in_all(config: Config) -> int:
    return config.washout + config.train_steps + config.validation_steps + config.test_steps


def _capacity(actual: Float[np.ndarray, "time lag"], recalled: Float[np.ndarray, "time lag"]) -> float:
    return float(squared_correlation(actual, recalled).sum())


def _memory(config: Config, generator: np.random.Generator) -> Series:
    task = time_series.memory(steps_in_all(config), config.max_lag, generator=generator)
    return Series(task.inputs, {MEMORY: task.outputs}, input_scaling=0.5)


def _narma(config: Config, generator: np.random.Generator) -> Series:
    task = time_series.narma(steps_in_all(config), generator=generator)
    return Series(task.inputs - 0.25, {NARMA: task.outputs}, input_scaling=1.0)


def _mackey_glass(config: Config, generator: np.random.Generator) -> Series:
    values = time_series.mackey_glass(steps_in_all(config) + 84, generator=generator)
    return _ahead(config, values, {"Mackey-Glass NRMSE, 1 step": 1, "Mackey-Glass NRMSE, 84 steps": 84})


def _lorenz(config: Config, generator: np.random.Generator) -> Series:
    values = time_series.lorenz(steps_in_all(config) + 20, generator=generator)[:, :1]
    return _ahead(config, values, {"Lorenz NRMSE, 1 step": 1, "Lorenz NRMSE, 20 steps": 20})


def _ahead(config: Config, values: Float[np.ndarray, "time 1"], horizons: Mapping[str, int]) -> Series:
    """A series scaled to unit variance by its training steps, and its own future."""
    train, steps = segments(config)[0], steps_in_all(config)
    values = (values - values[train].mean()) / values[train].std()
    return Series(values[:steps], {metric: values[h : steps + h] for metric, h in horizons.items()}, input_scaling=0.5)
