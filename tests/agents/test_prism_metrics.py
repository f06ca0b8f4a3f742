"""ProactiveBench's counting on recorded traces, calibration errors by loops, and the area by hand.

`prism_proactivebench.json` holds what `calculate_scores` of thunlp/ProactiveAgent (eval/calculate_agent_performance.py,
commit 86383616ee) returns for 233 events made by the formulas of `trace`, with silence judged right where no
acceptable offer existed.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_score, recall_score

from interplay.agents.prism import CostGate, audbc, burden_curve, proactive_metrics, reliability

OFFICIAL = json.loads((Path(__file__).parent / "prism_proactivebench.json").read_text(encoding="utf-8"))


def trace(a, b, c):
    index = np.arange(233)
    return (index**2 + index) % a == 0, (index * 3 + 1) % b < 2, (index * 5 + 2) % c < 3


@pytest.mark.parametrize("name", list(OFFICIAL))
def test_agrees_with_the_benchmarks_own_code(name):
    official = OFFICIAL[name]["scores"]
    metrics = proactive_metrics(*trace(*OFFICIAL[name]["moduli"]))
    for ours, theirs in (
        (metrics.recall, "Recall"),
        (metrics.precision, "Precision"),
        (metrics.accuracy, "Accuracy"),
        (metrics.false_alarm, "False-Alarm"),
        (metrics.f1, "F1-Score"),
    ):
        assert ours == pytest.approx(official[theirs], abs=1e-6)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_agrees_with_scikit_learn_and_false_alarm_is_not_the_false_positive_rate(rows):
    speak, need, accept = np.array(rows).T
    judged = need & accept
    metrics = proactive_metrics(speak, need, accept)
    assert metrics.true_positives + metrics.false_positives == speak.sum()
    assert metrics.true_positives + metrics.false_negatives == judged.sum()
    if speak.any():
        assert metrics.precision == pytest.approx(precision_score(judged, speak))
        assert metrics.false_alarm == pytest.approx(1 - metrics.precision)
    else:
        assert np.isnan(metrics.precision)
        assert np.isnan(metrics.false_alarm)
    if judged.any():
        assert metrics.recall == pytest.approx(recall_score(judged, speak))
    if judged.any() or speak.any():
        assert metrics.f1 == pytest.approx(f1_score(judged, speak))
    else:
        assert np.isnan(metrics.f1)


def test_tensors_count_alike():
    labels = trace(3, 5, 7)
    assert proactive_metrics(*map(torch.tensor, labels)) == proactive_metrics(*labels)


def test_reliability_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    p = np.append(rng.random(500), [0.0, 1.0])
    y = np.append(rng.random(500) < p[:500] ** 2, [False, True])
    bins = reliability(p, y)
    error = 0.0
    for index in range(15):
        inside = [k for k in range(502) if min(int(p[k] * 15), 14) == index]
        assert bins.count[index] == len(inside)
        assert bins.predicted[index] == pytest.approx(p[inside].mean())
        assert bins.observed[index] == pytest.approx(y[inside].mean())
        error += len(inside) / 502 * abs(p[inside].mean() - y[inside].mean())
    assert bins.expected_calibration_error == pytest.approx(error)


def test_empty_bins_are_undefined_and_count_for_nothing():
    bins = reliability([0.9, 0.9], [1, 0], bins=4)
    assert np.isnan(bins.observed[:3]).all()
    assert bins.expected_calibration_error == pytest.approx(0.4)


def test_area_of_staircases_drawn_by_hand():
    # up to .5 at a quarter of the width, up to 1 at a half, where a dominated point does not matter
    burden, benefit = np.array([0.2, 0.1, 0.15]), np.array([1.0, 0.5, 0.2])
    assert audbc(burden, benefit, 0.4) == pytest.approx(0.25 * 0.5 + 0.5 * 1.0)
    assert audbc(np.array([0.0]), np.array([1.0]), 0.3) == pytest.approx(1.0)
    assert audbc(np.array([0.3]), np.array([1.0]), 0.3) == pytest.approx(0.0)
    # of two points at the same burden the better counts
    assert audbc(np.array([0.1, 0.1]), np.array([0.2, 0.8]), 0.2) == pytest.approx(0.4)


def test_the_curve_sweeps_the_costs_of_the_gate():
    rng = np.random.default_rng(0)
    p_need, p_acc = rng.random(3000), rng.random(3000)
    need, accept = rng.random(3000) < p_need, rng.random(3000) < p_acc
    curve = burden_curve(p_need, p_acc, need, accept)
    assert len(curve.ratios) == 33
    assert (curve.ratios[0], curve.ratios[16], curve.ratios[-1]) == (1 / 16, 1, 16)
    speak = CostGate(1.0, 2.0).decide(p_need, p_acc)
    where = int(np.flatnonzero(np.isclose(curve.ratios, 2.0))[0])
    assert curve.burden[where] == pytest.approx((speak & ~accept).mean())
    assert curve.benefit[where] == pytest.approx(proactive_metrics(speak, need, accept).recall)
    assert curve.speak_rate[where] == pytest.approx(speak.mean())
    assert curve.always_burden == pytest.approx((~accept).mean())
    assert (np.diff(curve.speak_rate) > 0).all()
    blind = burden_curve(rng.permutation(p_need), rng.permutation(p_acc), need, accept)
    assert curve.audbc > blind.audbc + 0.1
    need_only = burden_curve(p_need, p_acc, need, accept, rule=lambda gate, p, _: p >= gate.threshold(1.0))
    assert curve.audbc > need_only.audbc


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: proactive_metrics([1, 2], [0, 1], [0, 1]), "speak must be labels 0 or 1; got 2 at index 1"),
        (lambda: proactive_metrics([1], [0, 1], [0, 1]), r"speak \(1,\), y_need \(2,\)"),
        (lambda: reliability([1.5], [1]), "p must be probabilities"),
        (lambda: reliability([0.5], [1], bins=0), "bins must be 1 or more"),
        (lambda: audbc(np.zeros(1), np.ones(1), 0.0), "always_burden must be above 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
