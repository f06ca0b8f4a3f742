"""The race of pathways for a mode: the exact reduction of a balanced network to one number a pathway and mode.

With all layers of pathway i at the value p_i of a mode with singular value S,

(1)  K_i = p_i^D,  p_i' = p_i^(D-1) (S - sum_j K_j),  p_i' = 0 while pathway i is frozen.

Time is steps times step size. As all pathways that learn share one bracket, dp_i / p_i^(D-1) is the same for all, so

(2)  p_i^(2-D) - p_j^(2-D) is constant for D other than 2, and p_i / p_j for D = 2:

the pathways run along a curve on which one of them says where all others are. That leaves one root for where the race
ends, sum_j K_j = S, and one integral over the curve for where it is at a given time. From (2), a pathway that has
fallen behind by C = p_b^(2-D) - p_a^(2-D) stays below C^(-1 / (D-2)) however large S is.

Starts with unequal layers, for which the official code has q^2 - p^2 = c between layers, follow

(3)  K_i = p_i (p_i^2 + c)^((D-1)/2),  p_i' = (p_i^2 + c)^((D-1)/2) (S - sum_j K_j).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

__all__ = ["final_share", "pathway_race"]

Array = NDArray[np.float64]
Windows = Mapping[int, tuple[float, float]]
"""By pathway the times from and until which it is frozen."""
NODES, WEIGHTS = np.polynomial.legendre.leggauss(96)
LATEST = 25.0
"""Logit of the leader's progress from which on it counts as arrived, 1e-11 of the way before the end."""
SHORTEST = 1e-30
"""Part of the whole time in which nothing happens; the integrator cannot divide intervals much shorter."""


def pathway_race(
    singular_values: ArrayLike,
    depth: int,
    p0: ArrayLike,
    times: ArrayLike,
    deficit: Windows | None = None,
    *,
    dt: float | None = None,
    unbalance: float = 0.0,
) -> Array:
    """K of each pathway and mode over time, equations (1) and (3).

    Parameters
    ----------
    singular_values
        S, (modes,).
    depth
        D, 1 or more.
    p0
        (paths, modes): where each pathway starts, the D-th root of its K if balanced.
    times
        (times,), rising, from 0 on: steps times step size. Times far beyond the end of learning are slow to reach;
        `final_share` is there at once.
    deficit
        Windows in which pathways are frozen.
    dt
        If given, Euler steps of this length, which is what gradient descent of step size dt does to a balanced network;
        else the flow, to a relative accuracy of 1e-11 a step.
    unbalance
        c of equation (3), 0 or more.

    Returns
    -------
    array
        (times, paths, modes).

    Raises
    ------
    ValueError
        Starts that are not positive, times that fall, or what does not fit.
    """
    values, start = _checked(singular_values, depth, p0)
    if unbalance < 0:
        raise ValueError(f"unbalance is a constant of motion q^2 - p^2, 0 or more; got {unbalance}")
    moments = np.asarray(times, dtype=np.float64)
    if moments.ndim != 1 or len(moments) == 0 or moments[0] < 0 or (np.diff(moments) < 0).any():
        raise ValueError("times must be a rising sequence of numbers from 0 on")
    windows = _checked_windows(deficit, len(start))

    def speed(p: Array, learning: Array) -> Array:
        factor = (p**2 + unbalance) ** ((depth - 1) / 2)
        return np.asarray(factor * (values - (p * factor).sum(0)) * learning[:, None])

    path = _flow(start, moments, windows, speed) if dt is None else _euler(start, moments, windows, dt, speed)
    return np.asarray(path * (path**2 + unbalance) ** ((depth - 1) / 2))


def final_share(singular_values: ArrayLike, depth: int, p0: ArrayLike, deficit: Windows | None = None) -> Array:
    """Share of each pathway in each mode when training is over, without following it.

    Parameters
    ----------
    singular_values, depth, p0, deficit
        As for `pathway_race`, balanced.

    Returns
    -------
    array
        (paths, modes), K_i / S; sums to 1 over pathways.

    Raises
    ------
    ValueError
        As for `pathway_race`; starts that already exceed S.

    Examples
    --------
    The same short deficit of the second pathway costs it more in deeper networks:

    >>> for depth in (2, 3, 4):
    ...     print(round(float(final_share([10.0], depth, [[0.3], [0.3]], {1: (0.0, 0.05)})[1, 0]), 3))
    0.274
    0.107
    0.057
    """
    values, p = _checked(singular_values, depth, p0)
    if (excess := (p**depth).sum(0) - values).max() >= 0:
        mode = int(excess.argmax())
        raise ValueError(f"p0^{depth} sums to S or more in mode {mode}, where S = {values[mode]:g}: nothing to learn")
    windows = _checked_windows(deficit, len(p))
    edges = [0.0, *sorted({edge for window in windows.values() for edge in window if edge > 0})]
    for begin, end in pairwise(edges):
        learning = _learning(windows, begin, len(p))
        if learning.any():
            p[learning] = _Curve(values, depth, p, learning).after(end - begin)
    p = _Curve(values, depth, p, np.ones(len(p), dtype=bool)).end()
    carried = p**depth
    return np.asarray(carried / carried.sum(0))


class _Curve:
    """Equation (2): where all pathways that learn are, as a function of where the leader of each mode is."""

    def __init__(self, values: Array, depth: int, p: Array, learning: NDArray[np.bool_]) -> None:
        self.depth = depth
        self.open = values - (p[~learning] ** depth).sum(0)  # S minus what frozen pathways carry
        self.start = p[learning]
        self.leader = self.start.max(0)
        if depth == 2:
            self.offset = self.start / self.leader
        else:
            self.offset = self.start ** (2.0 - depth) - self.leader ** (2.0 - depth)
        self.goal = self._goal()

    def positions(self, leader: Array) -> Array:
        """(paths, ...) for the leader's position (...), whose last axis is the modes."""
        offset = self.offset.reshape(len(self.offset), *[1] * (leader.ndim - 1), -1)
        if self.depth == 2:
            return np.asarray(offset * leader)
        return np.asarray((leader ** (2.0 - self.depth) + offset) ** (1 / (2.0 - self.depth)))

    def end(self) -> Array:
        """Where the race ends."""
        return self.positions(self.goal)

    def after(self, duration: float) -> Array:
        """Where the pathways are some time later: the root of an integral over the curve."""
        first = np.log(self.leader / np.maximum(self.goal - self.leader, 1e-12 * self.goal))
        low, high = first, np.full_like(first, LATEST)
        arrived = (first >= LATEST) | (self._time(first, high) <= duration)
        logit = first
        for _ in range(100):
            late = self._time(first, logit) - duration
            low, high = np.where(late <= 0, logit, low), np.where(late > 0, logit, high)
            newton = logit - late / self._density(logit)
            proposal = np.where((newton > low) & (newton < high), newton, (low + high) / 2)
            if np.abs(proposal - logit)[~arrived].max(initial=0) < 1e-12:
                break
            logit = proposal
        return self.positions(np.where(arrived, self.goal, self.goal / (1 + np.exp(-logit))))

    def _goal(self) -> Array:
        """Position of the leader at which K sums to S: Newton's method, kept inside a bracket."""
        low, high = self.leader, self.open ** (1 / self.depth)
        leader = high
        for _ in range(100):
            p = self.positions(leader)
            excess = (p**self.depth).sum(0) - self.open
            low, high = np.where(excess <= 0, leader, low), np.where(excess > 0, leader, high)
            slope = self.depth * (p ** (2 * self.depth - 2)).sum(0) / leader ** (self.depth - 1)
            newton = leader - excess / slope
            proposal = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
            if (np.abs(proposal - leader) <= 1e-15 * leader).all():
                break
            leader = proposal
        return leader

    def _density(self, logit: Array) -> Array:
        """Time per unit of y = log(q / (goal - q)), where q is the leader's position; smooth and bounded in y."""
        leader = self.goal / (1 + np.exp(-logit))
        remaining = self.open - (self.positions(leader) ** self.depth).sum(0)
        # At the latest positions rounding may leave nothing; time is then long, and where it ends is known.
        remaining = np.maximum(remaining, 1e-16 * self.open)
        return np.asarray(1 / (1 + np.exp(logit)) / (leader ** (self.depth - 2.0) * remaining))

    def _time(self, first: Array, last: Array) -> Array:
        """Integral of the density: Gauss-Legendre."""
        half = (last - first) / 2
        logits = first + half * (1 + NODES[:, None])
        return np.asarray(half * (WEIGHTS[:, None] * self._density(logits)).sum(0))


def _euler(start: Array, times: Array, windows: Windows, dt: float, speed: Callable[[Array, Array], Array]) -> Array:
    if not dt > 0:
        raise ValueError(f"dt must be positive; got {dt}")
    made = np.rint(times / dt).astype(int)
    if not np.allclose(made * dt, times, rtol=1e-9, atol=1e-9 * dt):
        raise ValueError(f"with dt={dt} times must be multiples of it")
    frozen = {path: (round(begin / dt), round(end / dt)) for path, (begin, end) in windows.items()}
    records = np.empty((len(times), *start.shape))
    p, record = start, 0
    for step in range(made[-1] + 1):
        while record < len(made) and made[record] == step:
            records[record] = p
            record += 1
        p = p + dt * speed(p, _learning(frozen, step, len(p)))
    return records


def _flow(start: Array, times: Array, windows: Windows, speed: Callable[[Array, Array], Array]) -> Array:
    last = times[-1]
    edges = sorted({0.0, last, *(edge for window in windows.values() for edge in window if 0 < edge < last)})
    records = np.empty((len(times), *start.shape))
    records[times == 0] = start
    p = start
    for begin, end in pairwise(edges):
        learning = _learning(windows, begin, len(p))
        inside = (times > begin) & (times <= end)
        if end - begin < SHORTEST * last:
            records[inside] = p
            continue
        solution = solve_ivp(
            lambda _, flat, learning=learning: speed(flat.reshape(start.shape), learning).ravel(),
            (begin, end),
            p.ravel(),
            method="DOP853",
            t_eval=np.unique([*times[inside], end]),
            rtol=1e-11,
            atol=1e-14,
        )
        if not solution.success:
            raise RuntimeError(f"the race could not be integrated from {begin} to {end}: {solution.message}")
        path = solution.y.T.reshape(-1, *start.shape)
        records[inside] = path[np.searchsorted(solution.t, times[inside])]
        p = path[-1]
    return records


def _learning(windows: Mapping[int, tuple[float, float]], time: float, paths: int) -> NDArray[np.bool_]:
    """(paths,): who learns at a time."""
    learning = np.ones(paths, dtype=bool)
    for path, (begin, end) in windows.items():
        learning[path] = not begin <= time < end
    return learning


def _checked(singular_values: ArrayLike, depth: int, p0: ArrayLike) -> tuple[Array, Array]:
    values = np.atleast_1d(np.asarray(singular_values, dtype=np.float64))
    start = np.array(p0, dtype=np.float64)
    if depth < 1:
        raise ValueError(f"depth must be 1 or more; got {depth}")
    if values.ndim != 1 or start.ndim != 2 or start.shape[1] != len(values):
        raise ValueError(f"p0 must have shape (paths, {len(values)}), a column a singular value; got {start.shape}")
    if not (values > 0).all():
        raise ValueError(f"singular values must be positive; the smallest is {values.min():g}")
    if not (start > 0).all():
        raise ValueError(
            f"p0 must be positive; the smallest is {start.min():g}. At 0 a pathway is on a saddle for depth >= 2 and "
            "never starts to learn"
        )
    return values, start


def _checked_windows(deficit: Windows | None, paths: int) -> Windows:
    for path, (begin, end) in (deficit or {}).items():
        if not 0 <= path < paths:
            raise ValueError(f"deficit names pathway {path!r}; there are {paths}, from 0")
        if not 0 <= begin <= end:
            raise ValueError(f"the deficit of pathway {path} must begin at 0 or later and then end; got {begin}, {end}")
    return deficit or {}
