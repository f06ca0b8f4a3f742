"""Exact statements about shares of seeds."""

from __future__ import annotations

import math

from pandas import DataFrame, Series
from scipy import stats

from interplay.evidence.claims import ClaimTest, Estimate


def share(metric: str, condition: str) -> ClaimTest:
    """Share of seeds on which a 0/1 metric is one, as an exact count: a point without an interval."""

    def estimate(measurements: DataFrame) -> Estimate:
        values = _by_seed(measurements, metric, condition)
        value = float(values.mean()) if len(values) else math.nan
        return Estimate(value, value, value, len(values), "share of seeds")

    return ClaimTest("share", f"share of seeds, {metric}: {condition}", estimate)


def fisher_exact(metric: str, condition: str, baseline: str) -> ClaimTest:
    """p of Fisher's exact test, two-sided, that a 0/1 metric is one on as many seeds in both conditions."""

    def estimate(measurements: DataFrame) -> Estimate:
        left, right = (_by_seed(measurements, metric, name) for name in (condition, baseline))
        units = len(left) + len(right)
        if left.empty or right.empty:
            return Estimate(math.nan, math.nan, math.nan, units, "Fisher's exact p", "no measurements")
        table = [[int(values.sum()), int(len(values) - values.sum())] for values in (left, right)]
        p = float(stats.fisher_exact(table).pvalue)
        return Estimate(p, p, p, units, "Fisher's exact p")

    return ClaimTest("fisher", f"p, {metric}: {condition} against {baseline}", estimate)


def _by_seed(measurements: DataFrame, metric: str, condition: str) -> Series[float]:
    chosen = (measurements["metric"] == metric) & (measurements["condition"] == condition)
    return measurements[chosen].set_index("seed")["value"]
