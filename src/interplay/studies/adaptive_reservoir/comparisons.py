"""What is measured once all grids are searched, each a function that yields measurements."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from interplay.evidence import Measurement
from interplay.studies.adaptive_reservoir.conditions import Grid, Networks
from interplay.studies.adaptive_reservoir.scoring import MEMORY, Series, evaluate, score, segments

if TYPE_CHECKING:
    from interplay.studies.adaptive_reservoir import Config

DESIGN_GAINS, DESIGN_RATES = (1.0, 2.0, 4.0), (0.3, 0.5)
UNDER, BALANCED = 0.7, (0.9, 1.8)


def tuned(grids: dict[str, Grid], metrics: list[str]) -> Iterator[Measurement]:
    """Each condition where validation puts it, and how much better than the tuned static network it is."""
    for name, grid in grids.items():
        gains = {}
        for metric in metrics:
            reached = grid.test(metric, grid.best(metric))
            baseline = grids["static"].test(metric, grids["static"].best(metric))
            gains[metric] = 100 * (score(metric, reached) / score(metric, baseline) - 1)
            yield Measurement(name, metric, reached)
            yield Measurement(name, "gain over static / %", gains[metric], item=metric)
            for knob, value in zip(("first", "second"), grid.best(metric), strict=True):
                yield Measurement(name, f"chosen {knob} setting", value, item=metric)
        yield Measurement(name, "largest gain over static / %", max(gains.values()))


def balance_curve(config: Config, grid: Grid, metrics: list[str]) -> Iterator[Measurement]:
    """Score of each balance at its best gain, relative to the best; and whether the claimed shape is there."""
    name = grid.condition.name
    for metric in metrics:
        curve = {b: score(metric, grid.test(metric, grid.best(metric, b))) for b in config.balances}
        peak = max(curve, key=curve.__getitem__)
        under = max(value for b, value in curve.items() if b <= UNDER)
        for b, value in curve.items():
            yield Measurement(name, "relative score by balance", value / curve[peak], x=b, item=metric)
        claimed = BALANCED[0] <= peak <= BALANCED[1] and under <= 0.9 * curve[peak]
        yield Measurement(name, "peak is balanced", float(claimed), item=metric)


def one_for_all(alike: Grid, different: Grid, metrics: list[str]) -> Iterator[Measurement]:
    """One setting for all tasks, the one whose worst task is least bad on validation; scores relative to the best."""
    grids = (alike, different)

    def relative(grid: Grid, setting: tuple[float, float], kind: str) -> list[float]:
        return [score(metric, getattr(grid.found[setting][metric], kind)) / best[kind][metric] for metric in metrics]

    best = {
        kind: {
            metric: max(
                score(metric, getattr(reached[metric], kind)) for grid in grids for reached in grid.found.values()
            )
            for metric in metrics
        }
        for kind in ("validation", "test")
    }
    for grid in grids:
        chosen = max(grid.found, key=lambda setting, grid=grid: min(relative(grid, setting, "validation")))
        worst = [min(relative(grid, setting, "test")) for setting in grid.found]
        yield Measurement(grid.condition.name, "least relative score", min(relative(grid, chosen, "test")))
        yield Measurement(grid.condition.name, "least relative score, mean of settings", float(np.mean(worst)))


def gain_curves(config: Config, networks: Networks, series: dict[str, Series]) -> Iterator[Measurement]:
    """Test scores over the gain with all else fixed, and how flat they are: the mean over the best."""
    makers = {
        "static": (networks.static, 1.0),
        "adapted": (networks.adapting("online"), config.curve_rate),
        "adapted, heterogeneous": (networks.adapting("online", True), config.curve_rate),
        "one-step, heterogeneous": (networks.adapting("one_step", True), config.curve_rate),
    }
    gains = np.geomspace(1, 8, config.curve_gains).tolist()
    for name, (make, second) in makers.items():
        for one in series.values():
            curve = [evaluate(config, make(one, gain, second), one) for gain in gains]
            for metric in one.outputs:
                for gain, found in zip(gains, curve, strict=True):
                    yield Measurement(name, f"{metric} by gain", found[metric].test, x=gain)
                scores = [score(metric, found[metric].test) for found in curve]
                yield Measurement(name, "mean / best over gain", float(np.mean(scores)) / max(scores), item=metric)


def one_step_beside_adaptation(config: Config, networks: Networks, series: Series) -> Iterator[Measurement]:
    """Rate error on unseen steps, and memory, of both ways to the same targets."""
    unseen = segments(config)[2]
    for gain in DESIGN_GAINS:
        for rate in DESIGN_RATES:
            item = f"rate {rate:g}"
            for name, mode in (("one-step", "one_step"), ("adapted", "online")):
                reservoir, report = networks.adapted(series, gain, rate, mode)
                rates = reservoir.run(series.inputs)[unseen].mean(axis=0)
                error = float(np.abs(rates - report.targets).mean())
                yield Measurement(name, "rate error", error, x=gain, item=item)
                yield Measurement(name, "units out of reach", report.n_infeasible, x=gain, item=item)
                found = evaluate(config, reservoir, series)[MEMORY]
                yield Measurement(name, "memory at the design's settings", found.test, x=gain, item=item)


def controls(config: Config, networks: Networks, series: dict[str, Series], adapted: Grid) -> Iterator[Measurement]:
    """Adaptation's inhibition dealt out by lot, and pooled, at the settings that validation chose for adaptation."""
    for one in series.values():
        for metric in one.outputs:
            setting = adapted.best(metric)
            for name, make in (("shuffled", networks.shuffled), ("pooled", networks.pooled)):
                yield Measurement(name, metric, evaluate(config, make(one, *setting), one)[metric].test)


def look_inside(networks: Networks, series: Series) -> Iterator[Measurement]:
    """Rates, balance and the course of adaptation at gain 4 and a target rate of 0.4."""
    seen = segments(networks.config)[0]
    reservoirs = {"static": networks.static(series, 4.0, 1.0)}
    for name, heterogeneous in (("adapted", False), ("adapted, heterogeneous", True)):
        reservoirs[name], report = networks.adapted(series, 4.0, 0.4, "online", heterogeneous)
        for window, error in enumerate(report.history):
            yield Measurement(name, "rate error while adapting", float(error), step=(window + 1) * report.window)
    for name, reservoir in reservoirs.items():
        for unit, rate in enumerate(reservoir.run(series.inputs)[seen].mean(axis=0)):
            yield Measurement(name, "rate of a unit", float(rate), x=unit)
        for unit, balance in enumerate(reservoir.balance_per_node()):
            yield Measurement(name, "balance of a unit", float(balance), x=unit)
