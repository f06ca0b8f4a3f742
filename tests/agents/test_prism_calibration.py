"""Temperatures: scikit-learn's on other routes, known ones, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from interplay.agents.prism import PairCalibrator, TemperatureScaler


def inflated(temperature, count=4000, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=count) * 1.5
    return expit(logits * temperature), rng.random(count) < expit(logits)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5, 6.0])
def test_the_temperature_is_the_root_of_the_slope_of_the_log_loss(temperature):
    p, y = inflated(temperature)
    logits = logit(p)

    def slope(inverse):
        return float(np.mean((expit(inverse * logits) - y) * logits))

    assert TemperatureScaler().fit(p, y).temperature_ == pytest.approx(1 / brentq(slope, 1e-3, 1e3), abs=1e-3)
    assert TemperatureScaler().fit(p, y).temperature_ == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("model", [GaussianNB(), LogisticRegression(C=100.0)])
def test_agrees_with_scikit_learn_around_a_real_classifier(model):
    X, y = make_classification(3000, 20, n_informative=4, n_redundant=10, flip_y=0.1, random_state=0)
    model.fit(X[:1000], y[:1000])
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(X[1000:2000], y[1000:2000])
    ours = TemperatureScaler().fit(model.predict_proba(X[1000:2000])[:, 1], y[1000:2000])
    (calibrated,) = theirs.calibrated_classifiers_
    # A linear model's decision function d stands for two-class logits (-d, d), whose difference is 2 d.
    scale = 2 if hasattr(model, "decision_function") else 1
    assert ours.temperature_ == pytest.approx(1 / (scale * float(calibrated.calibrators[0].beta_)), abs=1e-3)
    expected = theirs.predict_proba(X[2000:])[:, 1]
    assert np.allclose(ours.transform(model.predict_proba(X[2000:])[:, 1]), expected, atol=1e-3)


def test_calibration_keeps_order_ends_and_type():
    p, y = inflated(3.0)
    scaler = TemperatureScaler().fit(p, y)
    grid = np.linspace(0, 1, 101, dtype=np.float32)
    scaled = scaler.transform(grid)
    assert scaled.dtype == np.float32
    assert (np.diff(scaled) > 0).all()
    assert (scaled[0], scaled[50], scaled[-1]) == (0, 0.5, 1)
    tensor = torch.tensor(grid[1:-1], requires_grad=True)
    output = scaler.transform(tensor)
    assert torch.allclose(output, torch.tensor(scaled[1:-1]), atol=1e-6)
    output.sum().backward()
    assert (tensor.grad > 0).all()


def test_each_head_has_a_temperature_of_its_own():
    need, acceptance = inflated(3.0, seed=1), inflated(0.5, seed=2)
    pair = PairCalibrator().fit(need[0], acceptance[0], need[1], acceptance[1])
    assert pair.need_.temperature_ == TemperatureScaler().fit(*need).temperature_
    assert pair.acceptance_.temperature_ == TemperatureScaler().fit(*acceptance).temperature_
    assert pair.need_.temperature_ / pair.acceptance_.temperature_ > 4
    p_need, p_acc = pair.transform(need[0], acceptance[0])
    assert np.allclose(p_need, pair.need_.transform(need[0]))
    assert np.allclose(p_acc, pair.acceptance_.transform(acceptance[0]))
    assert not hasattr(clone(pair), "need_")


def test_acceptance_is_read_only_where_an_offer_was_made():
    need, (p, y) = inflated(2.0, seed=1), inflated(2.0, seed=2)
    spoke = np.random.default_rng(3).random(len(p)) < 0.4
    seen = np.where(spoke, y.astype(float), np.nan)
    pair = PairCalibrator().fit(need[0], p, need[1], seen, spoke)
    assert pair.acceptance_.temperature_ == TemperatureScaler().fit(p[spoke], y[spoke]).temperature_
    with pytest.raises(ValueError, match="y must be labels 0 or 1; got nan"):
        PairCalibrator().fit(need[0], p, need[1], seen)


def test_labels_without_a_best_temperature_are_warned_of():
    with pytest.warns(ConvergenceWarning, match="best temperature is 0, since the probabilities separate"):
        TemperatureScaler().fit([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1])
    with pytest.warns(ConvergenceWarning, match="infinite.*or the opposite"):
        TemperatureScaler().fit([0.1, 0.2, 0.8, 0.9, 0.0, 1.0], [0, 1, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TemperatureScaler().fit([0.1, 0.2], [1, 1]), ValueError, "label 1 alone.*temperature is undefined"),
        (lambda: TemperatureScaler().fit([0.1, 0.2], [0, 0]), ValueError, "label 0 alone"),
        (lambda: TemperatureScaler().fit([0.1, 1.2], [0, 1]), ValueError, "p must be probabilities.*index 1"),
        (lambda: TemperatureScaler().fit([0.1, 0.2], [0, 3]), ValueError, "y must be labels 0 or 1; got 3 at index 1"),
        (lambda: TemperatureScaler().fit([0.1, 0.2], [0, 1, 1]), ValueError, r"p \(2,\), y \(3,\)"),
        (lambda: TemperatureScaler().fit([[0.1], [0.2]], [[0], [1]]), ValueError, r"shape \(events,\)"),
        (lambda: TemperatureScaler().fit([], []), ValueError, "one event or more"),
        (lambda: TemperatureScaler().transform([0.1]), NotFittedError, "not fitted"),
        (lambda: PairCalibrator().transform([0.1], [0.1]), NotFittedError, "not fitted"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
