"""Series against closed forms, an independent integrator, and their own recursions."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from interplay.assets import time_series


def generator(seed=0):
    return np.random.default_rng(seed)


def test_memory_asks_for_the_past():
    task = time_series.memory(50, 7, generator=generator())
    assert task.inputs.shape == (50, 1)
    assert task.outputs.shape == (50, 7)
    for k in range(1, 8):
        np.testing.assert_array_equal(task.outputs[k:, k - 1], task.inputs[:-k, 0])
    assert np.abs(time_series.white_noise(10_000, generator=generator())).max() <= 1


@pytest.mark.parametrize("order", [10, 20])
def test_narma_obeys_its_recursion(order):
    task = time_series.narma(300, order, generator=generator())
    u, y = task.inputs[:, 0], np.r_[np.nan, task.outputs[:, 0]]  # y[t + 1] is asked for with u[t]
    for t in range(order, 300):
        moved = 0.3 * y[t] + 0.05 * y[t] * y[t - order + 1 : t + 1].sum() + 1.5 * u[t - order + 1] * u[t]
        assert y[t + 1] == pytest.approx(moved + 0.1 if order == 10 else np.tanh(moved + 0.01))
    assert (u.min() >= 0) & (u.max() <= 0.5)


def test_narma_never_diverges():
    # Of these seeds, several draw inputs first for which the recursion of order 10 diverges.
    heights = [time_series.narma(4000, generator=generator(seed)).outputs.max() for seed in range(60)]
    assert max(heights) < 2


def test_mackey_glass_solves_its_equation_in_closed_form_at_first():
    # The past is constant, c, so x' = a - 0.1 x until tau, with a = 0.2 c / (1 + c^10).
    series = time_series.mackey_glass(18, settle=0.0, generator=generator())[:, 0]
    c = series[0]
    rest = 0.2 * c / (1 + c**10) / 0.1
    # The last step before tau sees the corner of the past in its interpolation.
    np.testing.assert_allclose(series[:17], rest + (c - rest) * np.exp(-0.1 * np.arange(17)), atol=1e-9)


def test_mackey_glass_converges_and_is_chaotic_where_it_should_be():
    coarse, fine = (
        time_series.mackey_glass(40, settle=60.0, rk4_step=step, generator=generator()) for step in (0.1, 0.025)
    )
    np.testing.assert_allclose(coarse, fine, atol=1e-4)
    series = time_series.mackey_glass(3000, generator=generator())
    assert series.mean() == pytest.approx(0.93, abs=0.02)
    assert series.std() == pytest.approx(0.225, abs=0.01)
    short_delay = time_series.mackey_glass(500, tau=4.0, settle=3000.0, generator=generator())
    np.testing.assert_allclose(short_delay, 1.0, atol=1e-6)  # the fixed point is stable at short delays


def test_lorenz_agrees_with_an_adaptive_integrator():
    series = time_series.lorenz(100, settle=0.0, rk4_step=0.0025, generator=generator())

    def slope(_, state):
        x, y, z = state
        return 10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z

    times = 0.02 * np.arange(100)
    expected = solve_ivp(slope, (0, 2), series[0], t_eval=times, rtol=1e-11, atol=1e-11).y.T
    np.testing.assert_allclose(series, expected, atol=1e-4)


def test_lorenz_settles_on_its_attractor():
    series = time_series.lorenz(10_000, generator=generator())
    assert series[:, 2].mean() == pytest.approx(23.55, abs=0.5)
    assert 7 < series[:, 0].std() < 9


@pytest.mark.parametrize(
    "make",
    [
        lambda g: time_series.memory(20, 5, generator=g).inputs,
        lambda g: time_series.narma(20, generator=g).outputs,
        lambda g: time_series.mackey_glass(20, settle=50.0, generator=g),
        lambda g: time_series.lorenz(20, generator=g),
    ],
)
def test_the_generator_decides(make):
    np.testing.assert_array_equal(make(generator(3)), make(generator(3)))
    assert not np.array_equal(make(generator(3)), make(generator(4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: time_series.narma(10, 5, generator=generator()), "order must be 10 or 20"),
        (lambda: time_series.narma(0, generator=generator()), "steps must be 1 or more"),
        (lambda: time_series.memory(10, 0, generator=generator()), "max_lag must be 1"),
        (lambda: time_series.mackey_glass(10, tau=17.03, generator=generator()), "tau must be a multiple"),
        (lambda: time_series.mackey_glass(10, tau=0.2, generator=generator()), "at least three times"),
        (lambda: time_series.lorenz(10, sampling=0.015, generator=generator()), "sampling must be a multiple"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
