"""Series on which recurrent networks are tried: computed, not downloaded, and the same on every machine of one kind.

Each function returns inputs and what is to be said about them at the same step, so that row t of both belongs together.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["SeriesTask", "lorenz", "mackey_glass", "memory", "narma", "white_noise"]


class SeriesTask(NamedTuple):
    """A supervised task on a series.

    Attributes
    ----------
    inputs
        (time, channel).
    outputs
        (time, output); what is asked for when the network has seen the inputs up to and including that row.
    """

    inputs: Float[np.ndarray, "time input"]
    outputs: Float[np.ndarray, "time output"]


def white_noise(steps: int, *, generator: np.random.Generator) -> Float[np.ndarray, "time 1"]:
    """Independent draws from U(-1, 1), the input on which memory is measured."""
    return generator.uniform(-1, 1, size=(_checked_steps(steps), 1))


def memory(steps: int, max_lag: int = 60, *, generator: np.random.Generator) -> SeriesTask:
    """White noise u(t), and u(t - 1) ... u(t - max_lag) to be recalled."""
    if max_lag < 1:
        raise ValueError(f"max_lag must be 1 or more, got {max_lag}")
    noise = white_noise(_checked_steps(steps) + max_lag, generator=generator)
    windows = np.lib.stride_tricks.sliding_window_view(noise[:-1, 0], max_lag)
    return SeriesTask(noise[max_lag:], windows[:, ::-1].copy())


def narma(steps: int, order: int = 10, *, generator: np.random.Generator) -> SeriesTask:
    """Nonlinear autoregressive moving average of order 10 or 20 (Atiya and Parlos 2000), from u ~ U(0, 0.5).

    Order 10: y(t+1) = 0.3 y + 0.05 y sum_{i<10} y(t-i) + 1.5 u(t-9) u(t) + 0.1. Order 20 puts the right side with 0.01
    instead of 0.1 through tanh. After input row u(t), y(t+1) is asked for. Order 10 diverges for some inputs, about one
    series of 4,000 steps in forty: such inputs are drawn anew.

    Raises
    ------
    ValueError
        Another order, or so many steps that none of a hundred draws stays finite.
    """
    if order not in (10, 20):
        raise ValueError(f"order must be 10 or 20, got {order}")
    settle = 10 * order
    for _ in range(100):
        u = generator.uniform(0, 0.5, size=settle + _checked_steps(steps)).tolist()
        y = _narma_response(u, order)
        if y is not None:
            return SeriesTask(np.array(u[settle:])[:, None], np.array(y[settle + 1 :])[:, None])
    raise ValueError(f"steps: NARMA-10 diverges before {steps} steps for nearly all inputs; take fewer")


def mackey_glass(
    steps: int,
    tau: float = 17.0,
    *,
    sampling: float = 1.0,
    rk4_step: float = 0.1,
    settle: float = 500.0,
    generator: np.random.Generator,
) -> Float[np.ndarray, "time 1"]:
    """x' = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x (Mackey and Glass 1977), chaotic at tau = 17.

    Integrated by the Runge-Kutta method of fourth order; the delayed value at half steps is interpolated by a cubic.
    The past is constant, 1.2 with a random offset from U(-0.1, 0.1), and the first `settle` units of time are left out.

    Parameters
    ----------
    sampling
        Time between two rows, a multiple of `rk4_step`.
    """
    stride, lag = _multiple("sampling", sampling, rk4_step), _multiple("tau", tau, rk4_step)
    if lag < 3:
        raise ValueError(f"tau must be at least three times rk4_step, got {tau} and {rk4_step}")
    first = _multiple("settle", settle, rk4_step)
    x = [1.2 + float(generator.uniform(-0.1, 0.1))] * (lag + 1)
    for k in range(lag, lag + first + stride * (_checked_steps(steps) - 1)):
        # Delayed values at the start, middle and end of the step; the middle from its four neighbours.
        start, end = x[k - lag], x[k - lag + 1]
        middle = (9 * (start + end) - x[max(k - lag - 1, 0)] - x[k - lag + 2]) / 16
        one = _mackey_glass_slope(x[k], start)
        two = _mackey_glass_slope(x[k] + rk4_step / 2 * one, middle)
        three = _mackey_glass_slope(x[k] + rk4_step / 2 * two, middle)
        four = _mackey_glass_slope(x[k] + rk4_step * three, end)
        x.append(x[k] + rk4_step / 6 * (one + 2 * two + 2 * three + four))
    return np.array(x[lag + first :: stride])[:, None]


def lorenz(
    steps: int, *, sampling: float = 0.02, rk4_step: float = 0.01, settle: float = 20.0, generator: np.random.Generator
) -> Float[np.ndarray, "time 3"]:
    """Lorenz's (1963) x, y, z at sigma = 10, rho = 28, beta = 8/3, by the Runge-Kutta method of fourth order.

    The start is (1, 1, 20) with random offsets from U(-1, 1), and the first `settle` units of time are left out.

    Parameters
    ----------
    sampling
        Time between two rows, a multiple of `rk4_step`.
    """
    stride, first = _multiple("sampling", sampling, rk4_step), _multiple("settle", settle, rk4_step)
    state = tuple((np.array([1.0, 1.0, 20.0]) + generator.uniform(-1, 1, size=3)).tolist())
    rows = []
    for k in range(first + stride * (_checked_steps(steps) - 1) + 1):
        if k >= first and (k - first) % stride == 0:
            rows.append(state)
        one = _lorenz_slope(*state)
        two = _lorenz_slope(*_moved(state, one, rk4_step / 2))
        three = _lorenz_slope(*_moved(state, two, rk4_step / 2))
        four = _lorenz_slope(*_moved(state, three, rk4_step))
        mean_slope = tuple((a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(one, two, three, four, strict=True))
        state = _moved(state, mean_slope, rk4_step)
    return np.array(rows)


def _narma_response(u: list[float], order: int) -> list[float] | None:
    """y(0) ... y(len(u)) from rest; None where it diverges."""
    y = [0.0] * (len(u) + 1)
    for t in range(order - 1, len(u)):
        past = math.fsum(y[t - order + 1 : t + 1])
        moved = 0.3 * y[t] + 0.05 * y[t] * past + 1.5 * u[t - order + 1] * u[t]
        y[t + 1] = moved + 0.1 if order == 10 else math.tanh(moved + 0.01)
        if y[t + 1] > 10:  # beyond about 1.5, the square wins over the decay
            return None
    return y


def _mackey_glass_slope(x: float, past: float) -> float:
    return 0.2 * past / (1 + past**10) - 0.1 * x


def _lorenz_slope(x: float, y: float, z: float) -> tuple[float, float, float]:
    return 10.0 * (y - x), x * (28.0 - z) - y, x * y - 8.0 / 3.0 * z


def _moved(state: tuple[float, ...], slope: tuple[float, ...], by: float) -> tuple[float, ...]:
    return tuple(value + by * change for value, change in zip(state, slope, strict=True))


def _multiple(name: str, duration: float, step: float) -> int:
    count = round(duration / step)
    if count < 0 or not math.isclose(count * step, duration, abs_tol=1e-9):
        raise ValueError(f"{name} must be a multiple of rk4_step {step}, got {duration}")
    return count


def _checked_steps(steps: int) -> int:
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, got {steps}")
    return steps
