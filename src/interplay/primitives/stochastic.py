"""Exact stochastic simulation: random streams, event selection, lattices and active lists for compiled kernels.

Every kernel draws from its own xoshiro256++ stream (Blackman and Vigna, 2021), a `uint64[4]` array seeded from a
spawned `numpy.random.SeedSequence`. Realisation `i` of seed `s` is therefore the same whichever worker computes it, and
no global generator is touched. The compiled functions are small: called from a compiled kernel they are inlined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "compiled",
    "exponential",
    "first_event",
    "insert_site",
    "move_site",
    "neighbour",
    "neighbour_table",
    "next_uint64",
    "poisson",
    "random_stream",
    "remove_site",
    "spawn_seeds",
    "uniform",
]

Stream = NDArray[np.uint64]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_DOUBLE_STEP = 2.0**-53
_FIRST_TAIL = 10.0  # mean at which Hoermann's transformed rejection takes over from multiplication of uniforms


def compiled(function: _Function) -> _Function:
    """Compile a kernel with numba: cached on disk, without the interpreter lock, division as in NumPy."""
    return cast(_Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def spawn_seeds(seed: int | np.random.SeedSequence, count: int) -> list[np.random.SeedSequence]:
    """One independent seed for each of `count` realisations.

    Parameters
    ----------
    seed
        A non-negative integer, or a `SeedSequence` (it is not advanced: the same call gives the same children).
    count
        Number of realisations.

    Raises
    ------
    TypeError
        `seed` is neither an integer nor a `SeedSequence`.
    ValueError
        `seed` is negative, or `count` is not positive.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"count must be a positive integer; got {count!r}")
    if isinstance(seed, np.random.SeedSequence):
        # `SeedSequence.spawn` remembers how many children it gave; a fresh copy keeps this function pure.
        root = np.random.SeedSequence(entropy=seed.entropy, spawn_key=seed.spawn_key, pool_size=seed.pool_size)
        return root.spawn(int(count))
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed must be an int or a numpy.random.SeedSequence; got {type(seed).__name__}: {seed!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative; got {seed}")
    return np.random.SeedSequence(int(seed)).spawn(int(count))


def random_stream(seed: np.random.SeedSequence) -> Stream:
    """State `uint64[4]` of a xoshiro256++ generator."""
    return seed.generate_state(4, np.uint64).astype(np.uint64)


@compiled
def next_uint64(stream: Stream) -> Any:
    """Draw 64 random bits and advance the stream (xoshiro256++)."""
    s0, s1, s2, s3 = stream[0], stream[1], stream[2], stream[3]
    mixed = s0 + s3
    result = ((mixed << np.uint64(23)) | (mixed >> np.uint64(41))) + s0
    shifted = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    s3 = (s3 << np.uint64(45)) | (s3 >> np.uint64(19))
    stream[0], stream[1], stream[2], stream[3] = s0, s1, s2, s3
    return result


@compiled
def uniform(stream: Stream) -> float:
    """Draw from the uniform distribution on [0, 1) with 53 random bits."""
    return float(next_uint64(stream) >> np.uint64(11)) * _DOUBLE_STEP


@compiled
def exponential(stream: Stream) -> float:
    """Draw from the exponential distribution with mean one."""
    return -math.log(1.0 - uniform(stream))


@compiled
def poisson(stream: Stream, mean: float) -> int:
    """Draw from the Poisson distribution (products of uniforms, then Hoermann's PTRS of 1993 from mean 10 on)."""
    if mean <= 0.0:
        return 0
    if mean < _FIRST_TAIL:
        limit = math.exp(-mean)
        count = 0
        product = uniform(stream)
        while product > limit:
            count += 1
            product *= uniform(stream)
        return count
    log_mean = math.log(mean)
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse_alpha = 1.1239 + 1.1328 / (b - 3.4)
    squeeze = 0.9277 - 3.6224 / (b - 2.0)
    while True:
        u = uniform(stream) - 0.5
        v = uniform(stream)
        us = 0.5 - abs(u)
        if us <= 0.0:
            continue
        candidate = math.floor((2.0 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= squeeze:
            return int(candidate)
        if candidate < 0 or (us < 0.013 and v > us) or v <= 0.0:
            continue
        log_ratio = candidate * log_mean - mean - math.lgamma(candidate + 1.0)
        if math.log(v * inverse_alpha / (a / (us * us) + b)) <= log_ratio:
            return int(candidate)


@compiled
def first_event(rates: NDArray[np.float64], threshold: float) -> int:
    """Index of the event that a Gillespie draw selects: the first whose cumulated rate exceeds `threshold`.

    `threshold` is uniform on [0, sum of rates). Where rounding carries it beyond the sum, the last event with a
    positive rate is taken, so that an impossible event is never chosen.
    """
    last = -1
    for event in range(rates.shape[0]):
        if rates[event] > 0.0:
            last = event
            threshold -= rates[event]
            if threshold < 0.0:
                return event
    return last


def neighbour_table(shape: Sequence[int]) -> NDArray[np.int32]:
    """Nearest neighbours of each site of a periodic hypercubic lattice.

    Parameters
    ----------
    shape
        Side lengths, each at least 3 (with two, left and right neighbour would be one site).

    Returns
    -------
    int32 array (sites, 2 * dimensions); sites are numbered in C order, columns are +, - along each axis.
    """
    if not shape or any(side < 3 for side in shape):
        raise ValueError(f"shape must hold lattice sides of at least 3; got {tuple(shape)}")
    sites = np.arange(math.prod(shape), dtype=np.int32).reshape(tuple(shape))
    columns = [np.roll(sites, -step, axis).ravel() for axis in range(len(shape)) for step in (1, -1)]
    return np.ascontiguousarray(np.stack(columns, axis=1))


@compiled
def neighbour(table: NDArray[np.int32], site: int, direction: int) -> int:
    """Neighbour of a site from its `neighbour_table`; on a ring it is computed, which spares a fetch from memory."""
    if table.shape[1] == 2:
        sites = table.shape[0]
        target = site + 1 - 2 * direction
        if target == sites:
            return 0
        return target if target >= 0 else sites - 1
    return int(table[site, direction])


@compiled
def insert_site(active: NDArray[np.int32], slot: NDArray[np.int32], count: int, site: int) -> int:
    """Append `site` to the first `count` entries of `active`; returns the new count. `slot[site]` finds it again."""
    active[count] = site
    slot[site] = count
    return count + 1


@compiled
def remove_site(active: NDArray[np.int32], slot: NDArray[np.int32], count: int, site: int) -> int:
    """Remove `site` from the list by putting the last entry in its place; returns the new count."""
    index = slot[site]
    last = active[count - 1]
    active[index] = last
    slot[last] = index
    return count - 1


@compiled
def move_site(active: NDArray[np.int32], slot: NDArray[np.int32], site: int, target: int) -> None:
    """Let the entry of `site` point to `target`, as when a particle hops."""
    index = slot[site]
    active[index] = target
    slot[target] = index
