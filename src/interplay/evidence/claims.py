"""Claims: an estimator over measurements and a threshold, judged with a 95 % confidence interval.

Every estimator reduces the measurements to one number a *unit* (a seed, or a seed and an item), pairs the conditions by
unit, and puts a 95 % interval on the outcome: Student's t on the values, paired differences or paired log-ratios, or
Clopper-Pearson on proportions. A threshold is attached with `above`, `below`, `between`, `outside` or `at_least`::

    difference("error", "NHL", "source", unit=("seed", "item")).below(-0.05)

Coordinates: `where` filters rows, `{"item": "blur"}` by equality, `{"x": (30, 1000)}` by a closed range. Where `step`
varies and `where` does not name it, the last step counts. What is left within a unit is averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import pandas as pd
from scipy import stats

Label = Literal["trained-in", "emergent"]
Where = Mapping[str, Any]
Unit = Sequence[str]
CONFIDENCE = 0.95


class Verdict(StrEnum):
    """What the interval says about the threshold."""

    HOLDS = "holds"
    FAILS = "fails"
    INCONCLUSIVE = "inconclusive"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Estimate:
    """A measured figure.

    Attributes
    ----------
    effect, low, high
        The figure and its 95 % interval; NaN where undefined.
    units
        Number of independent units (seeds, or seeds x items, or Bernoulli trials) behind it.
    kind
        How the figure was reduced, in words.
    reason
        Why it is undefined, if it is.
    """

    effect: float
    low: float
    high: float
    units: int
    kind: str
    reason: str = ""

    def __str__(self) -> str:
        if math.isnan(self.effect):
            return "n/a"
        if math.isnan(self.low):
            return f"{self.effect:.4g}"
        return f"{self.effect:.4g} [{self.low:.4g}, {self.high:.4g}]"


@dataclass(frozen=True)
class ClaimTest:
    """An estimator with a region in which the claim is true. Made by the functions below, then bounded."""

    kind: str
    description: str
    estimate: Callable[[pd.DataFrame], Estimate] = field(repr=False)
    low: float = -math.inf
    high: float = math.inf
    complement: bool = False
    count: bool = False

    def above(self, threshold: float) -> ClaimTest:
        """The claim holds where the figure is above the threshold."""
        return self._bounded(low=threshold)

    def at_least(self, count: int) -> ClaimTest:
        """The claim holds where an exact count is `count` or more."""
        return replace(self._bounded(low=count), count=True)

    def below(self, threshold: float) -> ClaimTest:
        """The claim holds where the figure is below the threshold."""
        return self._bounded(high=threshold)

    def between(self, low: float, high: float) -> ClaimTest:
        """The claim holds where the figure lies within [low, high]."""
        return self._bounded(low=low, high=high)

    def outside(self, low: float, high: float) -> ClaimTest:
        """The claim holds where the figure lies outside [low, high]; `outside(0, 0)` reads "differs from zero"."""
        return self._bounded(low=low, high=high, complement=True)

    @property
    def bounded(self) -> bool:
        """Whether a threshold is attached: a test without one could never fail."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    @property
    def threshold(self) -> str:
        """The region in symbols."""
        if self.complement:
            return f"≠ {self.low:g}" if self.low == self.high else f"outside [{self.low:g}, {self.high:g}]"
        if math.isinf(self.low):
            return f"< {self.high:g}"
        if math.isinf(self.high):
            return f"{'≥' if self.count else '>'} {self.low:g}"
        return f"in [{self.low:g}, {self.high:g}]"

    @property
    def regions(self) -> tuple[tuple[float, float], ...]:
        """The intervals in which the claim is true, infinite ends included."""
        if self.complement:
            return (-math.inf, self.low), (self.high, math.inf)
        return ((self.low, self.high),)

    def judge(self, measurements: pd.DataFrame) -> list[Finding]:
        """Estimate and compare: one finding (several for `all_of`)."""
        estimate = self.estimate(measurements)
        return [Finding(self.description, self.threshold, self.regions, estimate, self._verdict(estimate))]

    def _bounded(self, low: float = -math.inf, high: float = math.inf, complement: bool = False) -> ClaimTest:
        if self.bounded:
            raise ValueError(f"the test {self.description!r} has a threshold already: {self.threshold}")
        if not low <= high or math.isnan(low) or math.isnan(high):
            raise ValueError(f"thresholds must be ordered numbers; got low={low}, high={high}")
        return replace(self, low=low, high=high, complement=complement)

    def _verdict(self, estimate: Estimate) -> Verdict:
        if math.isnan(estimate.low) or math.isnan(estimate.high):
            return Verdict.INCONCLUSIVE
        inside = self.low <= estimate.low and estimate.high <= self.high
        apart = estimate.high < self.low or estimate.low > self.high
        if self.complement:
            inside, apart = apart, inside
        return Verdict.HOLDS if inside else Verdict.FAILS if apart else Verdict.INCONCLUSIVE


@dataclass(frozen=True)
class AllOf(ClaimTest):
    """A claim with several parts: it holds when all parts hold and fails when one fails."""

    parts: tuple[ClaimTest, ...] = ()

    @property
    def bounded(self) -> bool:
        return all(part.bounded for part in self.parts)

    @property
    def threshold(self) -> str:
        return "; ".join(part.threshold for part in self.parts)

    def judge(self, measurements: pd.DataFrame) -> list[Finding]:
        return [finding for part in self.parts for finding in part.judge(measurements)]


@dataclass(frozen=True)
class Finding:
    """One judged part of a claim."""

    description: str
    threshold: str
    regions: tuple[tuple[float, float], ...]
    estimate: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """A sentence from the paper, what the paper reports, and the test that can refute it."""

    id: str
    sentence: str
    paper: str
    test: ClaimTest
    label: Label | None = None

    def __post_init__(self) -> None:
        if not self.test.bounded:
            raise ValueError(
                f"claim {self.id!r} has no threshold and could never fail; add above, below, between or outside"
            )

    def judge(self, measurements: pd.DataFrame) -> tuple[Verdict, list[Finding]]:
        """The verdict and the findings behind it."""
        findings = self.test.judge(measurements)
        verdicts = {finding.verdict for finding in findings}
        if Verdict.FAILS in verdicts:
            return Verdict.FAILS, findings
        return (Verdict.HOLDS if verdicts == {Verdict.HOLDS} else Verdict.INCONCLUSIVE), findings


def mean(metric: str, condition: str, *, where: Where | None = None, unit: Unit = ("seed",)) -> ClaimTest:
    """Mean of a metric over units, with a t-interval."""

    def estimate(measurements: pd.DataFrame) -> Estimate:
        return _t_interval(_per_unit(measurements, metric, condition, where, unit), "mean")

    return ClaimTest("mean", f"{metric}: {condition}{_coordinates(where)}", estimate)


def difference(
    metric: str, condition: str, baseline: str, *, where: Where | None = None, unit: Unit = ("seed",)
) -> ClaimTest:
    """Mean of the paired differences `condition - baseline`, with a t-interval."""

    def estimate(measurements: pd.DataFrame) -> Estimate:
        left, right = _paired(measurements, metric, condition, baseline, where, unit)
        return _t_interval(left - right, "paired difference")

    return ClaimTest("difference", f"{metric}: {condition} - {baseline}{_coordinates(where)}", estimate)


def ratio(
    metric: str, condition: str, baseline: str, *, where: Where | None = None, unit: Unit = ("seed",)
) -> ClaimTest:
    """Geometric mean of the paired ratios `condition / baseline`, with a t-interval on the log-ratios."""

    def estimate(measurements: pd.DataFrame) -> Estimate:
        left, right = _paired(measurements, metric, condition, baseline, where, unit)
        if (left <= 0).any() or (right <= 0).any():
            return _undefined("paired ratio", len(left), "a ratio needs positive values")
        log = _t_interval((left / right).map(math.log), "paired ratio")
        return Estimate(math.exp(log.effect), math.exp(log.low), math.exp(log.high), log.units, log.kind, log.reason)

    return ClaimTest("ratio", f"{metric}: {condition} / {baseline}{_coordinates(where)}", estimate)


def proportion(metric: str, condition: str, *, where: Where | None = None) -> ClaimTest:
    """Share of ones among all rows of a 0/1 metric, with a Clopper-Pearson interval."""

    def estimate(measurements: pd.DataFrame) -> Estimate:
        values = _select(measurements, metric, condition, where)["value"]
        if not values.isin([0.0, 1.0]).all():
            return _undefined("proportion", len(values), "a proportion needs values 0 and 1")
        if values.empty:
            return _undefined("proportion", 0, "no measurements")
        test = stats.binomtest(int(values.sum()), len(values))
        interval = test.proportion_ci(CONFIDENCE, method="exact")
        return Estimate(float(values.mean()), float(interval.low), float(interval.high), len(values), "proportion")

    return ClaimTest("proportion", f"{metric}: {condition}{_coordinates(where)}", estimate)


def tally(metric: str, condition: str, *, where: Where | None = None) -> ClaimTest:
    """Number of seeds on which a 0/1 metric is one. The count is exact ("on at least two of three seeds"): a point."""

    def estimate(measurements: pd.DataFrame) -> Estimate:
        values = _per_unit(measurements, metric, condition, where, ("seed",))
        if not values.isin([0.0, 1.0]).all():
            return _undefined("count of seeds", len(values), "a tally needs one value, 0 or 1, a seed")
        if values.empty:
            return _undefined("count of seeds", 0, "no measurements")
        count = float(values.sum())
        return Estimate(count, count, count, len(values), "count of seeds")

    return ClaimTest("tally", f"seeds with {metric}: {condition}{_coordinates(where)}", estimate)


def all_of(*parts: ClaimTest) -> AllOf:
    """Several bounded tests of which all must hold."""
    if len(parts) < 2:
        raise ValueError(f"all_of joins two or more tests; got {len(parts)}")
    return AllOf("all of", "; ".join(part.description for part in parts), _no_single_estimate, parts=parts)


def _no_single_estimate(measurements: pd.DataFrame) -> Estimate:
    raise TypeError("all_of has one estimate a part; judge it instead")


def _coordinates(where: Where | None) -> str:
    return "".join(
        f", {name} {value[0]:g} to {value[1]:g}" if isinstance(value, tuple) else f", {name} {value}"
        for name, value in (where or {}).items()
    )


def _select(measurements: pd.DataFrame, metric: str, condition: str, where: Where | None) -> pd.DataFrame:
    rows = measurements[(measurements["metric"] == metric) & (measurements["condition"] == condition)]
    for name, value in (where or {}).items():
        rows = rows[rows[name].between(*value) if isinstance(value, tuple) else rows[name] == value]
    if "step" not in (where or {}) and rows["step"].notna().any():
        coordinates = [rows[name] for name in ("seed", "x", "item")]
        rows = rows[rows["step"] == rows.groupby(coordinates, dropna=False)["step"].transform("max")]
    return rows


def _per_unit(
    measurements: pd.DataFrame, metric: str, condition: str, where: Where | None, unit: Unit
) -> pd.Series[float]:
    rows = _select(measurements, metric, condition, where)
    # A unit with an undefined value stays undefined: dropping it would report on the units that happened to work.
    return rows.groupby(list(unit))["value"].agg(lambda values: values.mean(skipna=False))


def _paired(
    measurements: pd.DataFrame, metric: str, condition: str, baseline: str, where: Where | None, unit: Unit
) -> tuple[pd.Series[float], pd.Series[float]]:
    left = _per_unit(measurements, metric, condition, where, unit)
    right = _per_unit(measurements, metric, baseline, where, unit)
    return left.align(right, join="outer")  # a unit that lacks one side becomes undefined, not unseen


def _undefined(kind: str, units: int, reason: str) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, units, kind, reason)


def _t_interval(values: pd.Series[float], kind: str) -> Estimate:
    """Student's t-interval of the mean of independent values."""
    units = len(values)
    if units == 0:
        return _undefined(kind, 0, "no measurements")
    if values.isna().any():
        return _undefined(kind, units, f"{int(values.isna().sum())} of {units} units are undefined")
    centre = float(values.mean())
    if units == 1:
        return Estimate(centre, math.nan, math.nan, 1, kind, "one unit has no interval")
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, units - 1) * values.std(ddof=1) / math.sqrt(units))
    return Estimate(centre, centre - half, centre + half, units, kind)
