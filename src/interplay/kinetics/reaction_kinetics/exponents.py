"""Exponents: local slopes, power-law fits in a window, critical points from straightness, data collapse.

Averages over runs are taken before logarithms, always: the mean of log-densities is not the log of the mean density.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "DIRECTED_PERCOLATION",
    "Collapse",
    "CriticalPoint",
    "PowerLaw",
    "collapse",
    "curvature",
    "fit_power_law",
    "local_slope",
    "scan_critical",
]

Window = tuple[float, float]

DIRECTED_PERCOLATION: dict[int, dict[str, float]] = {
    1: {"beta": 0.2765, "nu_perp": 1.0969, "nu_par": 1.7338, "delta": 0.15946, "theta": 0.31369, "z": 1.5807},
    2: {"beta": 0.584, "nu_perp": 0.734, "nu_par": 1.295, "delta": 0.4505, "theta": 0.2295, "z": 1.766},
    3: {"beta": 0.81, "nu_perp": 0.581, "nu_par": 1.105, "delta": 0.73, "theta": 0.12, "z": 1.89},
    4: {"beta": 1.0, "nu_perp": 0.5, "nu_par": 1.0, "delta": 1.0, "theta": 0.0, "z": 2.0},
}
"""Exponents of directed percolation by spatial dimension; from four on those of mean field."""


class PowerLaw(NamedTuple):
    """Exponent with a 95 % interval (NaN without bootstrap) and amplitude of y = amplitude * t^exponent."""

    value: float
    ci: tuple[float, float]
    amplitude: float


class CriticalPoint(NamedTuple):
    """Parameter at which the curvature vanishes, its standard error, and the curvatures that were scanned."""

    value: float
    error: float
    curvatures: dict[float, float]


class Collapse(NamedTuple):
    """Rescaled curves by parameter and their mean squared vertical distance in log-log."""

    curves: dict[float, tuple[NDArray[np.float64], NDArray[np.float64]]]
    spread: float


def local_slope(t: ArrayLike, y: ArrayLike, factor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Effective exponent ln[y(t f) / y(t)] / ln f at the geometric mean of the two times.

    Parameters
    ----------
    t, y
        (K,) positive; y(t f) is interpolated linearly in log-log.
    factor
        The ratio f of the two times, above one.
    """
    if not factor > 1:
        raise ValueError(f"factor must be above 1; got {factor}")
    log_t, log_y = _logarithms(t, y)
    keep = log_t + np.log(factor) <= log_t[-1] + 1e-12
    later = np.interp(log_t[keep] + np.log(factor), log_t, log_y)
    return np.exp(log_t[keep] + 0.5 * np.log(factor)), (later - log_y[keep]) / np.log(factor)


def fit_power_law(t: ArrayLike, y: ArrayLike, window: Window, bootstrap: int = 0, seed: int = 0) -> PowerLaw:
    """Least squares in log-log within a closed window of times.

    Parameters
    ----------
    t
        (K,) positive times; log-spaced ones weigh every decade alike.
    y
        (K,), or (runs, K), which is averaged over runs before the logarithm.
    window
        First and last time of the fit.
    bootstrap
        Number of resamples of whole runs for the percentile interval; needs (runs, K).
    seed
        Of the resampling.
    """
    times, values = np.asarray(t, dtype=np.float64), np.asarray(y, dtype=np.float64)
    inside = _window(times, window)
    if bootstrap and values.ndim != 2:
        raise ValueError("bootstrap resamples runs and needs y of shape (runs, times)")

    def fit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        mean = rows.mean(axis=0) if rows.ndim == 2 else rows
        return np.polyfit(*_logarithms(times[inside], mean[inside]), 1)

    exponent, intercept = fit(values)
    interval = (float("nan"), float("nan"))
    if bootstrap:
        generator = np.random.default_rng(seed)
        picks = generator.integers(len(values), size=(bootstrap, len(values)))
        low, high = np.quantile([fit(values[pick])[0] for pick in picks], [0.025, 0.975])
        interval = (float(low), float(high))
    return PowerLaw(float(exponent), interval, float(np.exp(intercept)))


def curvature(t: ArrayLike, y: ArrayLike, window: Window) -> float:
    """Quadratic coefficient of ln y against ln t in a window: zero for a power law, positive where y bends upwards."""
    times, values = np.asarray(t, dtype=np.float64), np.asarray(y, dtype=np.float64)
    inside = _window(times, window)
    return float(np.polyfit(*_logarithms(times[inside], values[inside]), 2)[0])


def scan_critical(
    run: Callable[[float], tuple[ArrayLike, ArrayLike]], parameters: ArrayLike, window: Window
) -> CriticalPoint:
    """Critical point as the parameter at which y(t) is straight in log-log, whatever its slope.

    Below the transition y(t) bends down, above it bends up; a straight line through the curvatures gives the zero. No
    exponent enters, so that the exponents measured at the result are not put in by hand.

    Parameters
    ----------
    run
        parameter -> (t, y), y averaged over runs.
    parameters
        At least three values around the transition, close enough for the curvature to be linear.
    window
        Times that count.

    Raises
    ------
    ValueError
        The curvatures do not change sign, so that the transition is not bracketed.
    """
    values = np.asarray(parameters, dtype=np.float64)
    if values.size < 3:
        raise ValueError(f"parameters must hold at least three values; got {values.size}")
    bends = np.array([curvature(*run(float(value)), window) for value in values])
    centre = values.mean()
    if bends.min() > 0 or bends.max() < 0:
        raise ValueError(
            f"the curvature keeps its sign over parameters {values.min():g} to {values.max():g} "
            f"({bends.min():.3g} to {bends.max():.3g}); move the range {'down' if bends.min() > 0 else 'up'}"
        )
    # Errors of the two coefficients come from the scatter around the line.
    (slope, offset), residuals, *_ = np.polyfit(values - centre, bends, 1, full=True)
    zero = -offset / slope
    scatter = np.sqrt(float(residuals.sum()) / max(values.size - 2, 1))
    variance = 1 / values.size + zero**2 / float(((values - centre) ** 2).sum())
    error = scatter * np.sqrt(variance) / abs(slope)
    return CriticalPoint(float(centre + zero), float(error), dict(zip(values.tolist(), bends.tolist(), strict=True)))


def collapse(
    curves: Mapping[float, tuple[ArrayLike, ArrayLike]], critical: float, decay: float, nu_par: float
) -> Collapse:
    """Rescale y(t) at several distances from the transition: y t^decay against t |p - p_c|^nu_par.

    Parameters
    ----------
    curves
        parameter -> (t, y); parameters on one side of the transition.
    critical
        p_c.
    decay
        Exponent of y ~ t^-decay at p_c.
    nu_par
        Exponent of the correlation time.

    Returns
    -------
    The rescaled curves and, where at least two overlap, their mean squared distance in ln y (NaN otherwise).
    """
    distances = {parameter: parameter - critical for parameter in curves}
    if 0.0 in distances.values() or len({distance > 0 for distance in distances.values()}) != 1:
        raise ValueError(f"parameters must all lie on one side of critical = {critical}; got {sorted(curves)}")
    rescaled = {}
    for parameter, (t, y) in curves.items():
        times, values = np.asarray(t, dtype=np.float64), np.asarray(y, dtype=np.float64)
        rescaled[parameter] = (times * abs(distances[parameter]) ** nu_par, values * times**decay)
    logs = [_logarithms(x, y) for x, y in rescaled.values()]
    low, high = max(x[0] for x, _ in logs), min(x[-1] for x, _ in logs)
    if len(logs) < 2 or low >= high:
        return Collapse(rescaled, float("nan"))
    grid = np.linspace(low, high, 64)
    stacked = np.stack([np.interp(grid, x, y) for x, y in logs])
    return Collapse(rescaled, float(stacked.var(axis=0).mean()))


def _window(times: NDArray[np.float64], window: Window) -> NDArray[np.bool_]:
    inside = (times >= window[0] * (1 - 1e-12)) & (times <= window[1] * (1 + 1e-12))
    if inside.sum() < 3:
        raise ValueError(f"window {window} must hold at least three of the times; it holds {int(inside.sum())}")
    return inside


def _logarithms(t: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    times, values = np.asarray(t, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if times.shape != values.shape or times.ndim != 1:
        raise ValueError(f"t and y must be one-dimensional and of equal length; got {times.shape} and {values.shape}")
    if not ((times > 0).all() and (values > 0).all()):
        raise ValueError("t and y must be positive to be taken to logarithms; shorten the window or add runs")
    return np.log(times), np.log(values)
