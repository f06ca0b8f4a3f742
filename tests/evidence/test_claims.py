"""Claims against scipy's own tests and exact intervals, and the rules of the verdict."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from interplay.evidence import Measurement, Verdict, all_of, difference, mean, proportion, ratio, tally
from interplay.evidence.claims import Claim
from interplay.evidence.study import tabulate

values = st.lists(st.floats(0.1, 100), min_size=3, max_size=12).filter(lambda v: np.std(v) > 1e-3)


def table(**conditions: list[float]) -> pd.DataFrame:
    """One value a seed for each condition, all of metric m."""
    count = max(len(column) for column in conditions.values())
    return pd.concat(
        tabulate(
            [Measurement(name, "m", column[seed]) for name, column in conditions.items() if seed < len(column)], seed
        )
        for seed in range(count)
    )


def only(test, rows):
    [finding] = test.judge(rows)
    return finding


@given(values)
def test_mean_interval_is_students(column):
    estimate = only(mean("m", "a").above(0), table(a=column)).estimate
    expected = stats.ttest_1samp(column, 0).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
    assert estimate.units == len(column)


@given(values, st.randoms(use_true_random=False))
def test_difference_is_the_paired_t_test(column, random):
    other = [value * random.uniform(0.5, 2) + random.random() for value in column]
    estimate = only(difference("m", "a", "b").above(0), table(a=column, b=other)).estimate
    expected = stats.ttest_rel(column, other).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@given(values, st.floats(0.1, 10))
def test_ratio_of_proportional_columns_is_the_factor(column, factor):
    estimate = only(ratio("m", "a", "b").above(0), table(a=[factor * v for v in column], b=column)).estimate
    assert (estimate.effect, estimate.low, estimate.high) == pytest.approx((factor, factor, factor))


def test_ratio_pairs_logarithms():
    a, b = [1.0, 2.0, 4.0], [2.0, 3.0, 9.0]
    estimate = only(ratio("m", "a", "b").below(1), table(a=a, b=b)).estimate
    expected = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))


def test_proportion_is_clopper_pearson():
    estimate = only(proportion("m", "a").above(0.5), table(a=[1.0] * 9 + [0.0])).estimate
    assert estimate.low == pytest.approx(stats.beta.ppf(0.025, 9, 2))
    assert estimate.high == pytest.approx(stats.beta.ppf(0.975, 10, 1))


def test_all_heads_have_a_bounded_interval():
    estimate = only(proportion("m", "a").above(0.5), table(a=[1.0] * 4)).estimate
    assert (estimate.low, estimate.high) == pytest.approx((0.025 ** (1 / 4), 1.0))


@pytest.mark.parametrize(
    ("column", "threshold", "verdict"),
    [
        ([2.0, 2.1, 1.9], 1.0, Verdict.HOLDS),
        ([2.0, 2.1, 1.9], 3.0, Verdict.FAILS),
        ([2.0, 2.1, 1.9], 2.05, Verdict.INCONCLUSIVE),
        ([2.0], 1.0, Verdict.INCONCLUSIVE),
        ([2.0, math.nan, 2.0], 1.0, Verdict.INCONCLUSIVE),
    ],
)
def test_verdict_follows_the_whole_interval(column, threshold, verdict):
    assert only(mean("m", "a").above(threshold), table(a=column)).verdict is verdict


def test_regions():
    rows = table(a=[2.0, 2.1, 1.9])
    assert only(mean("m", "a").between(1, 3), rows).verdict is Verdict.HOLDS
    assert only(mean("m", "a").between(3, 4), rows).verdict is Verdict.FAILS
    assert only(mean("m", "a").between(2, 4), rows).verdict is Verdict.INCONCLUSIVE
    assert only(mean("m", "a").outside(0, 0), rows).verdict is Verdict.HOLDS
    assert only(mean("m", "a").outside(1, 3), rows).verdict is Verdict.FAILS
    assert only(mean("m", "a").outside(2, 2), rows).verdict is Verdict.INCONCLUSIVE


def test_a_seed_missing_on_one_side_is_not_dropped_silently():
    finding = only(difference("m", "a", "b").above(0), table(a=[1.0, 2.0, 3.0], b=[0.0, 1.1]))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "1 of 3 units" in finding.estimate.reason


def test_missing_measurements_are_said():
    finding = only(mean("m", "typo").above(0), table(a=[1.0, 2.0]))
    assert finding.estimate.reason == "no measurements"
    assert finding.verdict is Verdict.INCONCLUSIVE


def test_coordinates_filter_and_the_last_step_counts():
    rows = pd.concat(
        tabulate([Measurement("a", "m", step + seed / 10, step=step, x=x) for step in (1, 5) for x in (0.0, 9.0)], seed)
        for seed in range(3)
    )
    assert only(mean("m", "a").above(0), rows).estimate.effect == pytest.approx(5.1)
    assert only(mean("m", "a", where={"step": 1}).above(0), rows).estimate.effect == pytest.approx(1.1)
    assert only(mean("m", "a", where={"x": (1, 10)}).above(0), rows).estimate.effect == pytest.approx(5.1)
    assert only(mean("m", "a", where={"x": (10, 20)}).above(0), rows).estimate.units == 0


def test_units_may_be_seeds_times_items():
    rows = pd.concat(
        tabulate([Measurement("a", "m", seed + (item == "blur"), item=item) for item in ("blur", "fog")], seed)
        for seed in range(3)
    )
    assert only(mean("m", "a", unit=("seed", "item")).above(0), rows).estimate.units == 6
    assert only(mean("m", "a", where={"item": "blur"}).above(0), rows).estimate.effect == pytest.approx(2)


def test_tally_counts_seeds():
    finding = only(tally("m", "a").at_least(2), table(a=[1.0, 0.0, 1.0]))
    assert (finding.estimate.effect, finding.verdict) == (2, Verdict.HOLDS)
    assert finding.threshold == "≥ 2"
    assert only(tally("m", "a").at_least(2), table(a=[0.0, 0.0, 1.0])).verdict is Verdict.FAILS


@pytest.mark.parametrize("kind", [proportion, tally])
def test_counts_refuse_other_values(kind):
    assert "0 " in only(kind("m", "a").above(0.5), table(a=[1.0, 0.5])).estimate.reason


def test_ratio_refuses_zero():
    assert "positive" in only(ratio("m", "a", "b").above(1), table(a=[1.0, 2.0], b=[0.0, 1.0])).estimate.reason


def test_all_of_fails_with_one_part_and_holds_with_all():
    rows = table(a=[2.0, 2.1, 1.9])

    def verdict(*thresholds):
        parts = [mean("m", "a").above(threshold) for threshold in thresholds]
        return Claim("c", "s", "p", all_of(*parts)).judge(rows)[0]

    assert verdict(1, 1.5) is Verdict.HOLDS
    assert verdict(1, 2.05) is Verdict.INCONCLUSIVE
    assert verdict(1, 2.05, 3) is Verdict.FAILS


def test_a_claim_that_cannot_fail_is_refused():
    with pytest.raises(ValueError, match="could never fail"):
        Claim("c", "s", "p", mean("m", "a"))
    with pytest.raises(ValueError, match="could never fail"):
        Claim("c", "s", "p", all_of(mean("m", "a").above(1), mean("m", "a")))


def test_thresholds_are_set_once_and_ordered():
    with pytest.raises(ValueError, match="has a threshold already"):
        mean("m", "a").above(1).below(2)
    with pytest.raises(ValueError, match="ordered"):
        mean("m", "a").between(2, 1)
    with pytest.raises(ValueError, match="two or more"):
        all_of(mean("m", "a").above(1))


@given(values)
def test_shuffled_rows_give_the_same_verdict(column):
    rows = table(a=column, b=[v + 1 for v in column])
    test = difference("m", "a", "b").below(0)
    left, right = only(test, rows), only(test, rows.sample(frac=1, random_state=1))
    assert (left.estimate.low, left.estimate.high) == pytest.approx((right.estimate.low, right.estimate.high))
