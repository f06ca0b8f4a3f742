"""Well-mixed solvers of a reaction network: exact paths, tau-leaping, rate equation, linear noise, master equation.

| method | what is solved |
| --- | --- |
| "ssa" | paths of Gillespie's direct method |
| "tau" | explicit tau-leaping, relative change of propensities bounded by `epsilon`, exact steps below ten particles |
| "ode" | dn/dt = sum_r v_r a_r(n) |
| "lna" | the same, with dC/dt = J C + C J^T + sum_r v_r v_r^T a_r |
| "master" | dP/dt of every state in a box, by Krylov exponentials; probability that leaves the box is reported |
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import expm_multiply

from interplay.kinetics.reaction_kinetics.network import ReactionNetwork, checked_times
from interplay.kinetics.reaction_kinetics.trajectories import Distribution, Moments, Trajectories
from interplay.kinetics.reaction_kinetics.well_mixed_kernels import compile_network, direct_method, tau_leaping
from interplay.primitives.stochastic import random_stream, spawn_seeds

__all__ = ["Method", "noise_spectrum", "simulate"]

Method = Literal["ssa", "tau", "ode", "lna", "master"]

_PATHS_PER_CHUNK = 256
_LEAK_WARNING = 1e-6
_MOST_STATES = 4_000_000


def simulate(
    network: ReactionNetwork,
    n0: ArrayLike | Mapping[str, int],
    t: ArrayLike,
    method: Method = "ssa",
    n_paths: int = 1,
    seed: int | np.random.SeedSequence = 0,
    *,
    epsilon: float = 0.03,
    box: Sequence[int] | None = None,
    workers: int = 1,
) -> Trajectories | Moments | Distribution:
    """Solve a well-mixed network from fixed initial counts.

    Parameters
    ----------
    network
        The reactions.
    n0
        (S,) whole numbers, or a mapping species -> count.
    t
        (K,) increasing times at which to report, from 0 on (the clock starts at 0).
    method
        See the module.
    n_paths, seed, workers
        For "ssa" and "tau": number of paths, seed (path i depends on it and on i alone) and number of processes.
    epsilon
        For "tau": bound of the relative change of a propensity within a leap.
    box
        For "master": largest count of each species. Default: ten standard deviations of the linear noise approximation
        above the largest mean, and at least twice the initial counts plus twenty.

    Returns
    -------
    `Trajectories` for "ssa" and "tau", `Moments` for "ode" and "lna", `Distribution` for "master".

    Raises
    ------
    ValueError, TypeError
        Unknown method, times that do not increase, counts that are negative or not whole, a box of too many states.

    Warns
    -----
    RuntimeWarning
        More than 1e-6 of the probability left the box of "master"; the message suggests a larger one.
    """
    if not isinstance(network, ReactionNetwork):
        raise TypeError(f"network must be a ReactionNetwork; got {type(network).__name__}")
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}")
    counts, times = network.counts(n0), checked_times(t)
    if method == "master":
        return _master(network, counts, times, box)
    if method in ("ode", "lna"):
        return _moments(network, counts, times, noise=method == "lna")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie between 0 and 1; got {epsilon}")
    seeds = spawn_seeds(seed, n_paths)
    chunks = [seeds[start : start + _PATHS_PER_CHUNK] for start in range(0, len(seeds), _PATHS_PER_CHUNK)]
    leap = epsilon if method == "tau" else None
    if workers == 1:
        parts = [_paths(network, counts, times, chunk, leap) for chunk in chunks]
    else:
        parts = joblib.Parallel(n_jobs=workers)(
            joblib.delayed(_paths)(network, counts, times, chunk, leap) for chunk in chunks
        )
    paths, absorbed_at, diagnostics = (np.concatenate(part) for part in zip(*parts, strict=True))
    names = ("events",) if method == "ssa" else ("leaps", "exact_steps", "rejected")
    info = {name: diagnostics[:, column] for column, name in enumerate(names)}
    return Trajectories(times, paths, network.species, absorbed_at, info)


def noise_spectrum(network: ReactionNetwork, n: ArrayLike, frequencies: ArrayLike) -> NDArray[np.float64]:
    """Stationary power spectrum of the linear noise approximation around a fixed point n, (F, S).

    S(w) = diagonal of (J - i w)^-1 D (J^T + i w)^-1 at angular frequencies w.
    """
    jacobian, strength = network.jacobian(n), network.diffusion(n)
    w = np.atleast_1d(np.asarray(frequencies, dtype=np.float64))
    inverse = np.linalg.inv(jacobian - 1j * w[:, None, None] * np.eye(len(jacobian)))
    return np.einsum("fij,jk,fik->fi", inverse, strength, inverse.conj()).real


def _paths(
    network: ReactionNetwork,
    n0: NDArray[np.int64],
    times: NDArray[np.float64],
    seeds: Sequence[np.random.SeedSequence],
    epsilon: float | None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    flat = compile_network(network)
    counts = np.empty((len(seeds), len(times), len(n0)), np.int64)
    absorbed_at = np.empty(len(seeds))
    diagnostics = np.empty((len(seeds), 1 if epsilon is None else 3), np.int64)
    streams = np.stack([random_stream(seed) for seed in seeds])
    if epsilon is None:
        direct_method(flat, n0, times, streams, counts, absorbed_at, diagnostics[:, 0])
    else:
        for path, stream in enumerate(streams):
            absorbed_at[path], *diagnostics[path] = tau_leaping(flat, n0.copy(), times, stream, counts[path], epsilon)
    return counts, absorbed_at, diagnostics


def _moments(network: ReactionNetwork, n0: NDArray[np.int64], times: NDArray[np.float64], *, noise: bool) -> Moments:
    size = len(n0)
    mean_field = network.rate_equation()

    def right_hand_side(t: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        n, covariance = y[:size], y[size:].reshape(size, size)
        growth = network.jacobian(n) @ covariance
        return np.concatenate([mean_field(t, n), (growth + growth.T + network.diffusion(n)).ravel()])

    start = np.concatenate([n0.astype(np.float64), np.zeros(size * size)]) if noise else n0.astype(np.float64)
    moments = np.tile(start, (len(times), 1))
    if times[-1] > 0:
        solution = solve_ivp(
            right_hand_side if noise else mean_field,
            (0.0, times[-1]),
            start,
            t_eval=times,
            method="LSODA",
            rtol=1e-8,
            atol=1e-8 * max(1.0, float(n0.max())),
        )
        if not solution.success:
            raise ValueError(f"the rate equation could not be solved up to t = {times[-1]:g}: {solution.message}")
        moments = solution.y.T
    covariances = moments[:, size:].reshape(-1, size, size) if noise else np.zeros((len(times), size, size))
    return Moments(times, moments[:, :size], covariances, network.species)


def _master(
    network: ReactionNetwork, n0: NDArray[np.int64], times: NDArray[np.float64], box: Sequence[int] | None
) -> Distribution:
    limits = _default_box(network, n0, times) if box is None else np.asarray(box)
    if limits.shape != n0.shape or (limits < n0).any():
        raise ValueError(f"box must hold a largest count of at least n0 for each species; got {list(limits)} for {n0}")
    shape = tuple(int(limit) + 1 for limit in limits)
    if math.prod(shape) > _MOST_STATES:
        raise ValueError(
            f"a box of {shape} has {math.prod(shape):,} states, more than {_MOST_STATES:,}; pass a smaller box, or "
            "sample with method='ssa'"
        )
    generator = _generator(network, shape)
    current = np.zeros(math.prod(shape))
    current[np.ravel_multi_index(tuple(n0), shape)] = 1.0
    probabilities, now = [], 0.0
    for time in times:
        if time > now:
            current = np.maximum(expm_multiply(generator * (time - now), current), 0.0)
            now = time
        probabilities.append(current)
    solution = np.stack(probabilities)
    leaked = np.maximum(1.0 - solution.sum(axis=1), 0.0)
    if leaked[-1] > _LEAK_WARNING:
        warnings.warn(
            f"{leaked[-1]:.2g} of the probability left the box {[side - 1 for side in shape]} by t = {times[-1]:g}; "
            f"pass a larger one, for example box={[2 * side for side in shape]}",
            RuntimeWarning,
            stacklevel=3,
        )
    return Distribution(times, solution.reshape(-1, *shape), network.species, leaked)


def _generator(network: ReactionNetwork, shape: tuple[int, ...]) -> sparse.csr_array:
    """Sparse generator Q with dP/dt = Q P; transitions out of the box only lose probability."""
    states = np.indices(shape).reshape(len(shape), -1).T
    numbers = np.arange(len(states))
    propensities = network.propensities(states)
    matrix = sparse.csr_array((len(states), len(states)))
    for reaction, change in enumerate(network.stoichiometry):
        targets = states + change
        inside = ((targets >= 0) & (targets < np.array(shape))).all(axis=1) & (propensities[:, reaction] > 0)
        rows = np.ravel_multi_index(tuple(targets[inside].T), shape)
        flow = propensities[inside, reaction]
        matrix = matrix + sparse.csr_array((flow, (rows, numbers[inside])), shape=matrix.shape)
    return (matrix - sparse.diags_array(propensities.sum(axis=1))).tocsr()


def _default_box(network: ReactionNetwork, n0: NDArray[np.int64], times: NDArray[np.float64]) -> NDArray[np.int64]:
    grid = np.linspace(0.0, times[-1], 65)[1:] if times[-1] > 0 else times
    moments = _moments(network, n0, grid, noise=True)
    deviations = np.sqrt(np.maximum(np.einsum("kii->ki", moments.cov()), 0.0))
    reach = np.ceil((moments.mean() + 10.0 * deviations).max(axis=0))
    return np.maximum(reach, 2 * n0 + 20).astype(np.int64)
