"""What is measured on configurations, time series and records of lattice models.

A configuration is an array with the lattice's shape that holds codes (0 empty, i + 1 for species i) or occupation
numbers; boundaries are periodic. `species` is a code; None means any particle.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interplay.kinetics.reaction_kinetics.lattice import LatticeRuns

__all__ = [
    "FrontProfile",
    "SpectralPeak",
    "Spread",
    "StructureFactor",
    "autocorrelation",
    "correlation_length",
    "density",
    "front_gaps",
    "front_positions",
    "front_profile",
    "interparticle_gaps",
    "pair_correlation",
    "segregation_index",
    "spectral_peak",
    "spread",
    "structure_factor",
    "survival",
]

Configuration = NDArray[Any]


class StructureFactor(NamedTuple):
    """Wave numbers k (2 pi / L times 1, 2, ...) and S(k) = <|n_k|^2> / N averaged over shells."""

    wave_number: NDArray[np.float64]
    power: NDArray[np.float64]


class Spread(NamedTuple):
    """Spreading from a seed, each (K,).

    `number` N(t) averages over all runs, extinct ones included; `survival` P(t) is the share still alive;
    `radius_squared` R2(t) averages the squared displacement over all particles of all runs (NaN once none is left).
    """

    number: NDArray[np.float64]
    survival: NDArray[np.float64]
    radius_squared: NDArray[np.float64]


class FrontProfile(NamedTuple):
    """Mean position, standard deviation and number of the reactions in each time window."""

    centre: NDArray[np.float64]
    width: NDArray[np.float64]
    reactions: NDArray[np.int64]


class SpectralPeak(NamedTuple):
    """Angular frequency and height of the highest peak, the plateau below it, and the smoothed spectrum."""

    frequency: float
    height: float
    plateau: float
    frequencies: NDArray[np.float64]
    power: NDArray[np.float64]

    @property
    def ratio(self) -> float:
        """Peak over plateau: above one where the system oscillates, one where it only forgets."""
        return self.height / self.plateau


def density(configuration: Configuration, species: int | None = None) -> float:
    """Particles a site."""
    return float(_occupied(configuration, species).mean())


def pair_correlation(configuration: Configuration, r: int, species: int | None = None) -> NDArray[np.float64]:
    """g(0..r) along the axes: <n(x) n(x + r)> / <n>^2; one where particles ignore each other (NaN if there is none)."""
    occupied = _occupied(configuration, species)
    if not 0 < r <= min(occupied.shape) // 2:
        raise ValueError(f"r must lie between 1 and half the shortest side, {min(occupied.shape) // 2}; got {r}")
    mean = occupied.mean()
    if mean == 0:
        return np.full(r + 1, np.nan)
    return _axis_correlation(occupied)[: r + 1] / mean**2


def structure_factor(configuration: Configuration, species: int | None = None) -> StructureFactor:
    """S(k), averaged over shells of width 2 pi / L around the origin of reciprocal space; k = 0 is left out."""
    occupied = _occupied(configuration, species)
    power = np.abs(np.fft.fftn(occupied - occupied.mean())) ** 2 / occupied.size
    grids = np.meshgrid(*[np.fft.fftfreq(side) for side in occupied.shape], indexing="ij")
    side = max(occupied.shape)
    shell = np.rint(side * np.sqrt(sum(grid**2 for grid in grids))).astype(int).ravel()
    members = np.bincount(shell, minlength=side // 2 + 1)[1 : side // 2 + 1]
    summed = np.bincount(shell, power.ravel(), minlength=side // 2 + 1)[1 : side // 2 + 1]
    return StructureFactor(2 * np.pi * np.arange(1, side // 2 + 1) / side, summed / np.maximum(members, 1))


def correlation_length(
    configuration: Configuration, kind: Literal["1/e", "second_moment"] = "1/e", species: int | None = None
) -> float:
    """Length over which the density is correlated, in lattice constants.

    Parameters
    ----------
    configuration
        Codes or occupation numbers.
    kind
        "1/e": distance at which C(r) / C(0) along the axes first falls to 1/e (linear interpolation; NaN if it never
        does). "second_moment": (sqrt(S(k1) / S(k2) - 1)) / (2 sin(k1 / 2)) corrected for k2, from the two smallest wave
        numbers; NaN where S(k) does not fall.
    species
        Code, or None for any particle.
    """
    if kind == "1/e":
        occupied = _occupied(configuration, species)
        correlation = _axis_correlation(occupied) - occupied.mean() ** 2
        if correlation[0] <= 0:
            return float("nan")
        correlation /= correlation[0]
        below = np.flatnonzero(correlation < np.exp(-1))
        if below.size == 0:
            return float("nan")
        right = int(below[0])
        drop = correlation[right - 1] - correlation[right]
        return float(right - 1 + (correlation[right - 1] - np.exp(-1)) / drop)
    if kind != "second_moment":
        raise ValueError(f"kind must be '1/e' or 'second_moment'; got {kind!r}")
    k, power = structure_factor(configuration, species)
    first, second = 4 * np.sin(k[0] / 2) ** 2, 4 * np.sin(k[1] / 2) ** 2
    # Ornstein-Zernike, S = S0 / (1 + xi^2 q^2), solved from the two points.
    numerator, denominator = power[0] - power[1], power[1] * second - power[0] * first
    return float(np.sqrt(numerator / denominator)) if numerator > 0 and denominator > 0 else float("nan")


def survival(counts: ArrayLike) -> NDArray[np.float64]:
    """Fraction of runs with particles left, (runs, K, ...) -> (K,)."""
    counts = np.asarray(counts)
    return (counts.reshape(*counts.shape[:2], -1).sum(axis=2) > 0).mean(axis=0)


def spread(runs: LatticeRuns) -> Spread:
    """N(t), P(t), R2(t) of the first species of runs that started from a seed."""
    if runs.moments is None:
        raise ValueError("spread needs runs that started from initial='seed'")
    number = runs.counts[:, :, 0]
    total = number.sum(axis=0)
    radius_squared = np.divide(runs.moments.sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)
    return Spread(number.mean(axis=0), (number > 0).mean(axis=0), radius_squared)


def segregation_index(configuration: Configuration) -> float:
    """(same - other) / (same + other) over pairs of consecutive particles along all lattice lines.

    Zero for a random mixture of two equally dense species, one for complete segregation, whatever the density: empty
    sites between the two particles of a pair do not count. NaN with fewer than two particles on every line.
    """
    same = other = 0
    for axis in range(configuration.ndim):
        lines = np.moveaxis(configuration, axis, -1).reshape(-1, configuration.shape[axis])
        line, place = np.nonzero(lines)
        if line.size < 2:
            continue
        kind = lines[line, place]
        first = np.concatenate(([True], line[1:] != line[:-1]))
        start = np.flatnonzero(first)
        # The last particle of a line is followed by its first one, across the boundary.
        following = np.arange(1, len(line) + 1)
        following[np.append(start[1:], len(line)) - 1] = start
        alone = following == np.arange(len(line))
        equal = (kind == kind[following])[~alone]
        same += int(equal.sum())
        other += int((~equal).sum())
    return (same - other) / (same + other) if same + other else float("nan")


def front_gaps(configuration: Configuration) -> NDArray[np.float64]:
    """Distances between the last A and the first B at the two fronts of a ring that started `separated`, (2,).

    The gap is the front's own width, without the wandering of its centre. NaN where a species is gone.
    """
    if configuration.ndim != 1:
        raise ValueError(f"gaps are defined in one dimension; got a configuration of shape {configuration.shape}")
    # A quarter turn puts the half of A into the middle, away from the boundary.
    turned = np.roll(configuration, len(configuration) // 4)
    a, b = np.flatnonzero(turned == 1), np.flatnonzero(turned == 2)
    if a.size == 0 or b.size == 0 or b[0] > a[0] or b[-1] < a[-1]:
        return np.full(2, np.nan)
    return np.array([a[0] - b[b < a[0]][-1], b[b > a[-1]][0] - a[-1]], dtype=np.float64)


def front_positions(reactions: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Signed distances of reactions from the initial interface of a ring that started `separated`, (events,).

    `reactions` (events, 3) as recorded by a run; a reaction sits half-way between its sites, and the front at 0 is
    folded onto the one in the middle.
    """
    step = (reactions[:, 2] - reactions[:, 1] + side / 2) % side - side / 2
    half = side / 2
    return (reactions[:, 1] + 0.5 * step + 0.5 + half / 2) % half - half / 2


def front_profile(
    times: ArrayLike, positions: ArrayLike, edges: ArrayLike, group: ArrayLike | None = None
) -> FrontProfile:
    """Where reactions happen, window by window.

    Parameters
    ----------
    times, positions
        (events,) time and signed distance from the initial interface, pooled over runs.
    edges
        (W + 1,) edges of the time windows.
    group
        Left out, the width is that of the pooled profile, wandering of the front included. (events,) labels of runs:
        the width within a run, averaged over runs (windows with fewer than two reactions of a run do not count).
    """
    times, positions, edges = (np.asarray(a, dtype=np.float64) for a in (times, positions, edges))
    window = np.searchsorted(edges, times, side="right") - 1
    inside = (window >= 0) & (window < len(edges) - 1)
    window, positions = window[inside], positions[inside]
    bins = len(edges) - 1

    def variance(label: NDArray[np.int64], size: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        number = np.bincount(label, minlength=size)
        weight = np.maximum(number, 1)
        centre = np.bincount(label, positions, minlength=size) / weight
        squares = np.bincount(label, (positions - centre[label]) ** 2, minlength=size)
        return number, centre, np.divide(squares, number - 1, out=np.full(size, np.nan), where=number > 1)

    number, centre, squared = variance(window, bins)
    if group is not None:
        _, label = np.unique(np.asarray(group)[inside], return_inverse=True)
        runs = int(label.max(initial=0)) + 1
        within = variance(label * bins + window, runs * bins)[2].reshape(runs, bins)
        known = np.isfinite(within).any(axis=0)
        squared = np.full(bins, np.nan)
        squared[known] = np.nanmean(within[:, known], axis=0)
    return FrontProfile(np.where(number > 0, centre, np.nan), np.sqrt(squared), number)


def interparticle_gaps(configuration: Configuration) -> NDArray[np.int64]:
    """Distances between consecutive particles on a ring.

    For coagulation x = gap * density tends to the distribution (pi x / 2) exp(-pi x^2 / 4).
    """
    if configuration.ndim != 1:
        raise ValueError(f"gaps are defined in one dimension; got a configuration of shape {configuration.shape}")
    places = np.flatnonzero(configuration)
    return np.diff(places, append=places[:1] + len(configuration))


def autocorrelation(series: ArrayLike) -> NDArray[np.float64]:
    """Normalised autocorrelation at lags 0..K-1 of (..., K) series, averaged over the leading axes."""
    x = np.atleast_2d(np.asarray(series, dtype=np.float64))
    x = (x - x.mean(axis=-1, keepdims=True)).reshape(-1, x.shape[-1])
    size = x.shape[-1]
    transformed = np.fft.rfft(x, 2 * size)
    products = np.fft.irfft(np.abs(transformed) ** 2)[:, :size].mean(axis=0) / np.arange(size, 0, -1)
    return products / products[0]


def spectral_peak(series: ArrayLike, interval: float, smoothing: int = 1) -> SpectralPeak:
    """Highest peak of the power spectrum.

    Parameters
    ----------
    series
        (K,) or (runs, K) values at equal intervals; the periodograms of the runs are averaged.
    interval
        Time between two values.
    smoothing
        Half-width, in frequency bins, of the moving average.

    Notes
    -----
    The plateau is the mean power below a third of the peak's frequency (NaN where no bin lies there).
    """
    x = np.atleast_2d(np.asarray(series, dtype=np.float64))
    x = x - x.mean(axis=-1, keepdims=True)
    size = x.shape[-1]
    raw = (np.abs(np.fft.rfft(x)) ** 2).mean(axis=0)[1:] * interval / size
    frequencies = 2 * np.pi * np.fft.rfftfreq(size, interval)[1:]
    kernel = np.ones(2 * smoothing + 1)
    power = np.convolve(raw, kernel, mode="same") / np.convolve(np.ones_like(raw), kernel, mode="same")
    top = int(np.argmax(power))
    low = frequencies < frequencies[top] / 3
    plateau = float(raw[low].mean()) if low.any() else float("nan")
    return SpectralPeak(float(frequencies[top]), float(power[top]), plateau, frequencies, power)


def _occupied(configuration: Configuration, species: int | None) -> NDArray[np.float64]:
    chosen = configuration if species is None else configuration == species
    if species is None and configuration.dtype == np.int8:
        chosen = configuration > 0  # codes of a restricted lattice; wider integers are occupation numbers
    return np.asarray(chosen, dtype=np.float64)


def _axis_correlation(occupied: NDArray[np.float64]) -> NDArray[np.float64]:
    """<n(x) n(x + r)> for r = 0 .. shortest side / 2, averaged over the axes."""
    reach = min(occupied.shape) // 2 + 1
    total = np.zeros(reach)
    for axis, side in enumerate(occupied.shape):
        transformed = np.fft.rfft(occupied, axis=axis)
        products = np.fft.irfft(np.abs(transformed) ** 2, side, axis=axis) / side
        total += np.moveaxis(products, axis, -1).reshape(-1, side).mean(axis=0)[:reach]
    return total / occupied.ndim
