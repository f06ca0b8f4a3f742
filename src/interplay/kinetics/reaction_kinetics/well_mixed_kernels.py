"""Compiled loops of the well-mixed solvers: Gillespie's direct method and tau-leaping.

A network is handed over in flat arrays (`compile_network`), so that an event touches only the reactants of the
reactions that it influences.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interplay.kinetics.reaction_kinetics.network import ReactionNetwork
from interplay.primitives.stochastic import compiled, exponential, first_event, poisson, uniform

__all__ = ["FlatNetwork", "compile_network", "direct_method", "tau_leaping"]

_SSA_BURST = 100  # exact steps taken where leaping does not pay (Cao, Gillespie and Petzold 2006)
_LEAP_WORTH = 10.0  # a leap must span that many expected events
_FEW = 10  # below that many particles of a reactant, leaping is not trusted


class FlatNetwork(NamedTuple):
    """A network in compressed rows: entries `start[r]:start[r + 1]` belong to reaction r."""

    constants: NDArray[np.float64]
    reactant_start: NDArray[np.int64]
    reactant: NDArray[np.int64]
    multiplicity: NDArray[np.int64]
    change_start: NDArray[np.int64]
    changed: NDArray[np.int64]
    change: NDArray[np.int64]
    dependent_start: NDArray[np.int64]
    dependent: NDArray[np.int64]


def compile_network(network: ReactionNetwork) -> FlatNetwork:
    """The flat arrays of a network, with the list of propensities that each reaction changes."""
    consumed, changes = network.reactants, network.stoichiometry
    influences = (changes != 0).astype(np.int64) @ (consumed > 0).astype(np.int64).T

    def rows(matrix: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        row, column = np.nonzero(matrix)
        start = np.searchsorted(row, np.arange(len(matrix) + 1)).astype(np.int64)
        return start, column.astype(np.int64), matrix[row, column]

    dependent_start, dependent, _ = rows(influences)
    return FlatNetwork(network.constants, *rows(consumed), *rows(changes), dependent_start, dependent)


@compiled
def _propensity(network, reaction, n):
    rate = network.constants[reaction]
    for entry in range(network.reactant_start[reaction], network.reactant_start[reaction + 1]):
        available = n[network.reactant[entry]]
        for used in range(network.multiplicity[entry]):
            rate *= max(available - used, 0)
    return rate


@compiled
def _total(propensities):
    total = 0.0
    for reaction in range(propensities.shape[0]):
        total += propensities[reaction]
    return total


@compiled
def _exact_step(network, n, propensities, total, stream):
    """Fire one reaction, chosen in proportion to its propensity, and update what depends on it."""
    chosen = first_event(propensities, uniform(stream) * total)
    for entry in range(network.change_start[chosen], network.change_start[chosen + 1]):
        n[network.changed[entry]] += network.change[entry]
    for entry in range(network.dependent_start[chosen], network.dependent_start[chosen + 1]):
        propensities[network.dependent[entry]] = _propensity(network, network.dependent[entry], n)


@compiled
def direct_method(network, n0, times, streams, counts, absorbed_at, events):
    """Gillespie's direct method: path p draws from `streams[p]` and fills `counts[p]` (time, species)."""
    reactions = network.constants.shape[0]
    propensities = np.empty(reactions)
    n = np.empty_like(n0)
    for path in range(streams.shape[0]):
        n[:] = n0
        for reaction in range(reactions):
            propensities[reaction] = _propensity(network, reaction, n)
        time, row, fired = 0.0, 0, 0
        absorbed_at[path] = math.nan
        while True:
            # The sum is taken afresh at every event: a running total would drift and never reach zero.
            total = _total(propensities)
            next_time = math.inf
            if total > 0.0:
                next_time = time + exponential(streams[path]) / total
            elif math.isnan(absorbed_at[path]):
                absorbed_at[path] = time
            while row < times.shape[0] and times[row] < next_time:
                counts[path, row, :] = n
                row += 1
            if row == times.shape[0]:
                break
            time = next_time
            _exact_step(network, n, propensities, total, streams[path])
            fired += 1
        events[path] = fired


@compiled
def _leap(network, n, propensities, epsilon):
    """Largest leap that changes no propensity by more than about `epsilon` of itself (Cao, Gillespie, Petzold 2006).

    Zero where a reactant of a possible reaction has fewer than ten particles: exact steps must be taken.
    """
    species = n.shape[0]
    drift = np.zeros(species)
    spread = np.zeros(species)
    for reaction in range(propensities.shape[0]):
        for entry in range(network.change_start[reaction], network.change_start[reaction + 1]):
            change = network.change[entry]
            drift[network.changed[entry]] += change * propensities[reaction]
            spread[network.changed[entry]] += change * change * propensities[reaction]
    leap = math.inf
    for reaction in range(propensities.shape[0]):
        order = 0
        for entry in range(network.reactant_start[reaction], network.reactant_start[reaction + 1]):
            order += network.multiplicity[entry]
        for entry in range(network.reactant_start[reaction], network.reactant_start[reaction + 1]):
            kind = network.reactant[entry]
            if n[kind] < _FEW:
                if propensities[reaction] > 0.0:
                    return 0.0
                continue
            # g_i of the paper: a propensity of order m in n changes by a relative m dn/n, a little more at small n.
            sensitivity = float(order)
            for used in range(1, network.multiplicity[entry]):
                sensitivity += used / (n[kind] - used)
            bound = max(epsilon * n[kind] / sensitivity, 1.0)
            if drift[kind] != 0.0:
                leap = min(leap, bound / abs(drift[kind]))
            if spread[kind] > 0.0:
                leap = min(leap, bound * bound / spread[kind])
    return leap


@compiled
def tau_leaping(network, n, times, stream, counts, epsilon):
    """Explicit tau-leaping, with exact steps where it does not pay.

    Returns (absorbed at, leaps, exact steps, rejected leaps).
    """
    reactions = network.constants.shape[0]
    propensities = np.empty(reactions)
    fired = np.empty(reactions, np.int64)
    after = np.empty_like(n)
    time, row, leaps, exact, rejected, absorbed = 0.0, 0, 0, 0, 0, math.nan
    while True:
        for reaction in range(reactions):
            propensities[reaction] = _propensity(network, reaction, n)
        total = _total(propensities)
        if total == 0.0:
            while row < times.shape[0]:
                counts[row, :] = n
                row += 1
            return time if math.isnan(absorbed) else absorbed, leaps, exact, rejected
        leap = _leap(network, n, propensities, epsilon)
        if leap * total < _LEAP_WORTH:
            for _ in range(_SSA_BURST):
                total = _total(propensities)
                if total == 0.0:
                    break
                next_time = time + exponential(stream) / total
                while row < times.shape[0] and times[row] < next_time:
                    counts[row, :] = n
                    row += 1
                if row == times.shape[0]:
                    return absorbed, leaps, exact, rejected
                time = next_time
                _exact_step(network, n, propensities, total, stream)
                exact += 1
            continue
        while True:
            # A leap stops at the next requested time, so that counts are recorded where they were asked for.
            step = min(leap, times[row] - time)
            after[:] = n
            for reaction in range(reactions):
                fired[reaction] = poisson(stream, propensities[reaction] * step)
                for entry in range(network.change_start[reaction], network.change_start[reaction + 1]):
                    after[network.changed[entry]] += fired[reaction] * network.change[entry]
            if after.min() >= 0:
                break
            leap = 0.5 * step
            rejected += 1
        n[:] = after
        leaps += 1
        if step == times[row] - time:
            time = times[row]
            counts[row, :] = n
            row += 1
            if row == times.shape[0]:
                return absorbed, leaps, exact, rejected
        else:
            time += step
