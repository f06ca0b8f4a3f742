"""What is compared: reservoirs made from two settings each, a gain or its like and a second knob, on equal grids."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from interplay.evidence import Measurement
from interplay.reservoirs.adaptive_reservoir import AdaptReport, EIReservoir, Reservoir, targets
from interplay.studies.adaptive_reservoir.scoring import Found, Series, evaluate, score, segments

if TYPE_CHECKING:
    from interplay.studies.adaptive_reservoir import Config

Mode = Literal["online", "one_step", "threshold"]
Make = Callable[[Series, float, float], Reservoir]


@dataclass(frozen=True)
class Condition:
    """A way to make a reservoir for a series from two settings."""

    name: str
    make: Make
    first: tuple[float, ...]
    second: tuple[float, ...]


@dataclass(frozen=True)
class Grid:
    """What a condition found at all settings: by (first, second), then by metric."""

    condition: Condition
    found: dict[tuple[float, float], dict[str, Found]]

    def best(self, metric: str, second: float | None = None) -> tuple[float, float]:
        """The settings that validation chooses, of all or with the second knob fixed."""
        settings = [setting for setting in self.found if second is None or setting[1] == second]
        return max(settings, key=lambda setting: score(metric, self.found[setting][metric].validation))

    def test(self, metric: str, setting: tuple[float, float]) -> float:
        """The reported value at a setting."""
        return self.found[setting][metric].test

    def rows(self) -> Iterator[Measurement]:
        """Everything, as measurements."""
        for (first, second), metrics in self.found.items():
            for metric, found in metrics.items():
                yield Measurement(self.condition.name, f"{metric} on the grid", found.test, x=first, item=f"{second:g}")


class Networks:
    """One draw of links and input weights, from which all conditions are made."""

    def __init__(self, config: Config, seed: int) -> None:
        self.config, self.seed = config, seed
        self.base = EIReservoir(
            config.units, connectivity=config.connectivity, input_scaling=1.0, seed=np.random.default_rng([seed, 0])
        )
        self._refixed: dict[float, EIReservoir] = {}

    def conditions(self) -> list[Condition]:
        """The compared ones, each with as many settings as any other."""
        config = self.config
        gains, rates = config.adapted_gains, config.rates
        return [
            Condition("static", self.static, config.gains, config.balances),
            Condition("static, radius fixed", self.refixed, config.gains, config.balances),
            Condition("adapted", self.adapting("online"), gains, rates),
            Condition("adapted, heterogeneous", self.adapting("online", True), gains, rates),
            Condition("one-step", self.adapting("one_step"), gains, rates),
            Condition("one-step, heterogeneous", self.adapting("one_step", True), gains, rates),
            Condition("threshold", self.adapting("threshold"), gains, rates),
            Condition("tanh ESN", self.plain, config.input_scalings, config.spectral_radii),
        ]

    def static(self, series: Series, gain: float, balance: float) -> EIReservoir:
        """Inhibition tuned globally."""
        return driven_by(series, self.base.rescaled(gain=gain, balance=balance))

    def refixed(self, series: Series, radius: float, balance: float) -> EIReservoir:
        """The same, with the spectral radius restored after inhibition was scaled."""
        if balance not in self._refixed:
            self._refixed[balance] = self.base.rescaled(balance=balance, spectral_radius=1.0)
        unit = self._refixed[balance]
        return driven_by(series, unit.rescaled(gain=unit.gain * radius))

    def plain(self, series: Series, input_scaling: float, radius: float) -> Reservoir:
        """The usual echo state network: tanh, links of either sign, a bias as from a constant input of one."""
        return Reservoir.random(
            self.config.units,
            spectral_radius=radius,
            connectivity=self.config.connectivity,
            input_scaling=input_scaling,
            bias_scaling=input_scaling,
            seed=np.random.default_rng([self.seed, 2]),
        )

    def adapting(self, mode: Mode, heterogeneous: bool = False) -> Make:
        """Local adaptation to target rates on the series' steps before validation, frozen afterwards."""

        def make(series: Series, gain: float, rate: float) -> EIReservoir:
            return self.adapted(series, gain, rate, mode, heterogeneous)[0]

        return make

    def adapted(
        self, series: Series, gain: float, rate: float, mode: Mode, heterogeneous: bool = False
    ) -> tuple[EIReservoir, AdaptReport]:
        config = self.config
        rates = targets.homogeneous(config.units, rate)
        if heterogeneous:
            generator = np.random.default_rng([self.seed, 3])
            rates = targets.beta(config.units, rate, config.concentration, generator=generator)
        reservoir = driven_by(series, self.base.rescaled(gain=gain))
        seen = series.inputs[: segments(config)[0].stop]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the rate error is measured
            if mode == "threshold":
                report = reservoir.adapt_threshold(seen, rates, max_steps=config.adaptation_steps)
            else:
                report = reservoir.adapt(seen, rates, mode=mode, max_steps=config.adaptation_steps)
        return reservoir, report

    def shuffled(self, series: Series, gain: float, rate: float) -> EIReservoir:
        """Control: what adaptation multiplied each unit's inhibition by, dealt out among the units by lot."""
        factors = self._inhibition_factors(series, gain, rate)
        return driven_by(
            series,
            self.base.rescaled(gain=gain).with_inhibition(np.random.default_rng([self.seed, 4]).permutation(factors)),
        )

    def pooled(self, series: Series, gain: float, rate: float) -> EIReservoir:
        """Control: static, with as much inhibition in all as adaptation arrived at."""
        before, after = self.base.rescaled(gain=gain), self.adapted(series, gain, rate, "online")[0]
        share = after.incoming_inhibition().sum() / before.incoming_inhibition().sum()
        return driven_by(series, self.base.rescaled(gain=gain, balance=float(share)))

    def _inhibition_factors(self, series: Series, gain: float, rate: float) -> np.ndarray:
        before = self.base.rescaled(gain=gain).incoming_inhibition()
        after = self.adapted(series, gain, rate, "online")[0].incoming_inhibition()
        return np.divide(after, before, out=np.ones_like(before), where=before > 0)


def driven_by(series: Series, reservoir: EIReservoir) -> EIReservoir:
    """The reservoir (drawn at input scaling one) at the input scaling of the series."""
    reservoir.input_weights = reservoir.input_weights * series.input_scaling
    return reservoir


def search(config: Config, condition: Condition, series: dict[str, Series]) -> Grid:
    """A condition at all its settings, on all series."""
    found = {}
    for first in condition.first:
        for second in condition.second:
            found[first, second] = {
                metric: reached
                for one in series.values()
                for metric, reached in evaluate(config, condition.make(one, first, second), one).items()
            }
    return Grid(condition, found)
