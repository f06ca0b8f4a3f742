"""Readout, metrics and the scikit-learn estimator: against scikit-learn, closed forms and its own battery."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from interplay.assets import time_series
from interplay.reservoirs.adaptive_reservoir import (
    EIReservoir,
    EIReservoirRegressor,
    Reservoir,
    fit_readout,
    fit_readouts,
    metrics,
)

ORDER_MATTERS = {
    "check_methods_sample_order_invariance": "rows are time steps",
    "check_methods_subset_invariance": "rows are time steps",
}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.sampled_from([1e-6, 1e-2, 10.0]))
def test_the_readout_is_scikit_learns_ridge(seed, ridge):
    rng = np.random.default_rng(seed)
    states, outputs = rng.normal(size=(50, 8)) + 3, rng.normal(size=(50, 2))
    expected = Ridge(alpha=ridge).fit(states, outputs)
    readout = fit_readout(states, outputs, ridge)
    np.testing.assert_allclose(readout.coefficients.T, expected.coef_, atol=1e-8)
    np.testing.assert_allclose(readout.predict(states), expected.predict(states), atol=1e-8)


def test_many_ridges_at_once_are_each_alone():
    rng = np.random.default_rng(0)
    states, outputs = rng.normal(size=(50, 8)), rng.normal(size=(50, 2))
    for ridge, readout in zip((1e-9, 1.0), fit_readouts(states, outputs, (1e-9, 1.0)), strict=True):
        np.testing.assert_allclose(readout.coefficients, fit_readout(states, outputs, ridge).coefficients)


def test_states_that_repeat_one_another_do_not_break_the_readout():
    rng = np.random.default_rng(0)
    states = np.repeat(rng.normal(size=(50, 3)), 4, axis=1)
    outputs = states[:, :1] - 2 * states[:, 4:5]
    np.testing.assert_allclose(fit_readout(states, outputs, 0.0).predict(states), outputs, atol=1e-9)


def test_memory_capacity_is_that_of_the_population():
    """A linear reservoir's memory of white noise in closed form: MC = sum over k of m_k' C^-1 m_k / <u^2>.

    States are x(t) = sum_k W^k w u(t - k), so C and the correlations m_k with past inputs are sums of powers of W.
    """
    rng = np.random.default_rng(0)
    units, lags = 12, 20
    weights = rng.normal(size=(units, units))
    weights *= 0.8 / np.abs(np.linalg.eigvals(weights)).max()
    drive = rng.normal(size=units)
    powers = [np.linalg.matrix_power(weights, k) @ drive for k in range(300)]
    covariance = sum(np.outer(p, p) for p in powers)
    expected = sum(p @ np.linalg.solve(covariance, p) for p in powers[1 : lags + 1])
    u = rng.uniform(-1, 1, size=60_000)
    states = np.zeros((len(u), units))
    for t in range(1, len(u)):
        states[t] = weights @ states[t - 1] + drive * u[t]
    found = metrics.memory_capacity(states, u, max_lag=lags, train_steps=40_000, ridge=1e-9)
    assert found == pytest.approx(expected, abs=0.05)
    assert found < units


def test_memory_is_not_the_fit_of_noise():
    # As many states as training steps, and nothing in them: in sample every lag would be recalled perfectly.
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, size=5000)
    states = rng.normal(size=(5000, 150))
    assert metrics.memory_capacity(states, u, max_lag=20, train_steps=160, washout=20) < 1


def test_a_delay_line_remembers_its_length():
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, size=3000)
    states = np.stack([np.roll(u, k) for k in range(11)], axis=1)  # u(t) ... u(t - 10)
    found = metrics.memory_capacity(states, u, max_lag=30, train_steps=1500)
    assert found == pytest.approx(10, abs=0.3)


def test_delayed_inputs():
    wanted = metrics.delayed(np.arange(10.0), 3)
    np.testing.assert_array_equal(wanted, [[t - 1, t - 2, t - 3] for t in range(3, 10)])


def test_errors_in_closed_form():
    actual = np.array([[0.0, 1.0], [2.0, 5.0]])
    assert metrics.nrmse(actual, actual + np.array([1.0, 2.0])) == pytest.approx(1.0)
    assert metrics.nrmse(actual, np.broadcast_to(actual.mean(axis=0), (2, 2))) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 100, 3))
    expected = [np.corrcoef(x[:, c], y[:, c])[0, 1] ** 2 for c in range(3)]
    np.testing.assert_allclose(metrics.squared_correlation(x, y), expected)
    assert metrics.squared_correlation(x, np.ones_like(x)).tolist() == [0, 0, 0]


def test_effective_rank_counts_equal_directions():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(30, 30)))[0][:, :7]
    scores = np.linalg.qr(rng.normal(size=(200, 8)))[0]
    scores -= scores.mean(axis=0)
    scores = np.linalg.qr(scores)[0][:, :7]
    assert metrics.effective_rank(scores @ axes.T) == pytest.approx(7)
    two = scores[:, :2] * [3.0, 1.0] @ axes[:, :2].T
    assert metrics.effective_rank(two) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_valid_time_is_the_first_step_that_is_off():
    actual = np.sin(np.arange(100.0))[:, None]
    drifting = actual + 0.004 * np.arange(100.0)[:, None]
    first = int(np.argmax(0.004 * np.arange(100) > 0.4 * actual.std()))
    assert metrics.valid_time(actual, drifting, dt=0.5) == pytest.approx(0.5 * first)
    assert metrics.valid_time(actual, actual) == 100
    assert metrics.valid_time(actual, np.full_like(actual, np.nan)) == 0


def test_scikit_learns_battery():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # the array API is not installed here
        results = check_estimator(
            EIReservoirRegressor(), expected_failed_checks=ORDER_MATTERS, on_skip=None, on_fail="raise"
        )
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(ORDER_MATTERS)
    assert sum(result["status"] == "passed" for result in results) > 40


def sine(steps):
    return np.sin(0.3 * np.arange(steps + 1.0))[:, None]


def test_grid_search_over_folds_in_time():
    series = sine(600)
    model = make_pipeline(StandardScaler(), EIReservoirRegressor(units=40, random_state=0))
    grid = {"eireservoirregressor__gain": [1.0, 2.0], "eireservoirregressor__target_rate": [0.3, 0.5]}
    search = GridSearchCV(model, grid, cv=TimeSeriesSplit(3), error_score="raise").fit(series[:-1], series[1:])
    assert search.best_score_ > 0.99
    assert len(search.cv_results_["params"]) == 4


def test_predictions_go_on_from_where_fit_stopped():
    series = sine(400)
    model = EIReservoirRegressor(units=40, random_state=0, washout=20, dtype=np.float64)
    model.fit(series[:300], series[1:301])
    states = model.reservoir_.run(series[:-1])
    np.testing.assert_allclose(model.predict(series[300:-1]), model.readout_.predict(states[300:]), atol=1e-9)
    rest = clone(model).set_params(initial_state="rest").fit(series[:300], series[1:301])
    expected = rest.readout_.predict(rest.reservoir_.run(series[300:-1]))
    np.testing.assert_allclose(rest.predict(series[300:-1]), expected, atol=1e-12)


def test_adaptation_sees_the_series_of_fit_alone_and_is_frozen():
    series = sine(400)
    model = EIReservoirRegressor(units=60, random_state=0, concentration=20).fit(series[:300], series[1:301])
    by_hand = EIReservoir(60, gain=model.gain, seed=np.random.default_rng(0))
    by_hand.adapt(series[:300], model.adapt_report_.targets, mode="one_step")
    np.testing.assert_array_equal(model.reservoir_.links().toarray(), by_hand.links().toarray())
    frozen = model.reservoir_.links().data
    first = model.predict(series[300:-1])
    np.testing.assert_array_equal(model.predict(series[300:-1]), first)
    np.testing.assert_array_equal(model.reservoir_.links().data, frozen)
    assert np.ptp(model.adapt_report_.targets) > 0.1


def test_settings_reach_what_they_name():
    series = sine(300)
    fit = {"X": series[:-1], "y": series[1:]}
    plain = EIReservoirRegressor(units=40, adaptation=None, balance=1.3, random_state=0).fit(**fit)
    assert plain.adapt_report_ is None
    assert plain.reservoir_.balance == 1.3
    assert plain.readout_.coefficients.shape == (40, 1)
    fixed = EIReservoirRegressor(units=40, adaptation=None, spectral_radius=0.9, random_state=0).fit(**fit)
    radius = np.abs(np.linalg.eigvals(fixed.reservoir_.links().toarray())).max()
    assert radius == pytest.approx(0.9)
    seen = EIReservoirRegressor(units=40, input_to_readout=True, dtype=np.float32, random_state=0).fit(**fit)
    assert seen.readout_.coefficients.shape == (41, 1)
    assert seen.reservoir_.dtype == np.float32
    assert seen.predict(series).shape == series.shape
    online = EIReservoirRegressor(units=40, adaptation="online", tolerance=0.3, target_rate=0.5, random_state=0).fit(
        **fit
    )
    assert online.adapt_report_.mode == "online"


def test_a_sine_is_generated_freely():
    series = sine(1500)
    model = EIReservoirRegressor(units=100, random_state=0, ridge=1e-6).fit(series[:1000], series[1:1001])
    forecast = model.generate(100)
    assert metrics.nrmse(series[1000:1100], forecast) < 0.1
    # The forecast is what predicting one step at a time and feeding back gives.
    state = model.reservoir_.run(series[:1000])[-1]
    for expected in forecast[:3]:
        np.testing.assert_allclose(model.readout_.predict(state), expected, atol=1e-9)
        state = model.reservoir_.step(expected, state)
    warmed = model.generate(50, warm_up=series[200:1000])
    np.testing.assert_allclose(warmed, forecast[:50], atol=1e-3)


def test_a_harder_series_is_predicted_better_than_by_the_last_value():
    series = time_series.mackey_glass(1600, generator=np.random.default_rng(0))
    model = EIReservoirRegressor(units=100, random_state=0).fit(series[:1000], series[10:1010])
    predicted = model.predict(series[1000:1500])
    assert metrics.nrmse(series[1010:1510], predicted) < 0.5 * metrics.nrmse(series[1010:1510], series[1000:1500])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: EIReservoirRegressor().predict(sine(5)), NotFittedError, "not fitted"),
        (lambda: EIReservoirRegressor(washout=50).fit(sine(30), sine(30)), ValueError, "n_samples=31.* need 52"),
        (lambda: EIReservoirRegressor(initial_state="zero").fit(sine(30), sine(30)), ValueError, "initial_state must"),
        (lambda: EIReservoirRegressor(target_rate=1.2).fit(sine(30), sine(30)), ValueError, r"must be in \(0, 1\)"),
        (lambda: EIReservoirRegressor(ridge=-1.0).fit(sine(30), sine(30)), ValueError, "ridge must be"),
        (lambda: EIReservoirRegressor(adaptation="none").fit(sine(30), sine(30)), ValueError, "mode must be"),
        (
            lambda: EIReservoirRegressor(units=30).fit(sine(30), np.hstack([sine(30)] * 2)).generate(3),
            ValueError,
            "as many outputs as the 1 features",
        ),
        (
            lambda: EIReservoirRegressor(units=30, input_to_readout=True).fit(sine(30), sine(30)).generate(3),
            ValueError,
            "input_to_readout=False",
        ),
        (lambda: metrics.memory_capacity(np.zeros((100, 3)), np.zeros(100)), ValueError, "at least 2260 steps"),
        (lambda: metrics.delayed(np.zeros(5), 5), ValueError, "longer than the 5 lags"),
        (lambda: metrics.nrmse(np.zeros((5, 1)), np.zeros((5, 1))), ValueError, "actual must vary"),
        (lambda: metrics.nrmse(np.zeros((5, 1)), np.zeros(5)), ValueError, "one shape"),
        (lambda: metrics.valid_time(np.zeros(5), np.zeros(5)), ValueError, r"must be \(time, output\)"),
        (lambda: metrics.effective_rank(np.zeros((5, 2))), ValueError, "states must vary"),
        (lambda: fit_readout(np.zeros((5, 2)), np.zeros((4, 1))), ValueError, "equal, positive length"),
        (lambda: Reservoir.random(5, connectivity=0.01, seed=0), ValueError, "no closed loop"),
    ],
)
def test_bad_calls_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
