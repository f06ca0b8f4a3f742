"""Compiled event loops of the lattice models, one function a model.

All asynchronous loops share one clock: each of the `n` acting sites attempts events at rate `R`, so that the time to
the next attempt is Exp(1)/(n R), and an attempt picks an acting site, one of its neighbours and an event in proportion
to the rates; what the configuration does not allow is a null event. Attempts with null events make the process exact
without any search for what is possible.

A loop fills one row of the record per requested time: `counts` (time, species), and where given `moments` (time) with
the summed squared displacements from the origin and `snapshots` (time, site). It returns the time of absorption (NaN if
it did not happen) and the number of events that changed the configuration.
"""

from __future__ import annotations

import math

import numpy as np

from interplay.primitives.stochastic import (
    compiled,
    exponential,
    insert_site,
    move_site,
    neighbour,
    remove_site,
    uniform,
)

_EMPTY = 0


@compiled
def _squared_distance(site, origin, shape):
    """Squared minimum-image distance of two sites of a periodic lattice."""
    total = 0
    for axis in range(shape.shape[0] - 1, -1, -1):
        side = shape[axis]
        distance = abs(site % side - origin % side)
        distance = min(distance, side - distance)
        total += distance * distance
        site //= side
        origin //= side
    return total


@compiled
def _record(row, present, counts, state, snapshots, acting, n, marked, origin, shape, moments):
    """Write one row of the record; `marked` is the code of the particles whose displacements count."""
    for species in range(present.shape[0]):
        counts[row, species] = present[species]
    if snapshots.shape[0] > 0:
        snapshots[row, :] = state
    if moments.shape[0] > 0:
        total = 0
        for index in range(n):
            if state[acting[index]] == marked:
                total += _squared_distance(acting[index], origin, shape)
        moments[row] = total


@compiled
def contact_process(rates, neighbours, state, times, stream, counts, snapshots, origin, shape, moments):
    """A -> 0 at rate `rates[0]`; A -> 2A onto a random neighbour at rate `rates[1]`, if that is empty."""
    death, total_rate = rates[0], rates[0] + rates[1]
    degree = neighbours.shape[1]
    active = np.empty(state.shape[0], np.int32)
    slot = np.empty(state.shape[0], np.int32)
    n = 0
    for site in range(state.shape[0]):
        if state[site] != _EMPTY:
            n = insert_site(active, slot, n, site)
    present = np.zeros(1, np.int64)
    time, row, events, absorbed = 0.0, 0, 0, math.nan
    while True:
        next_time = math.inf
        if n > 0 and total_rate > 0.0:
            next_time = time + exponential(stream) / (n * total_rate)
        elif math.isnan(absorbed):
            absorbed = time
        while row < times.shape[0] and times[row] < next_time:
            present[0] = n
            _record(row, present, counts, state, snapshots, active, n, 1, origin, shape, moments)
            row += 1
        if row == times.shape[0]:
            return absorbed, events
        time = next_time
        draw = uniform(stream) * n
        index = int(draw)
        site = active[index]
        if uniform(stream) * total_rate < death:
            state[site] = _EMPTY
            n = remove_site(active, slot, n, site)
            events += 1
        else:
            target = neighbour(neighbours, site, int((draw - index) * degree))
            if state[target] == _EMPTY:
                state[target] = 1
                n = insert_site(active, slot, n, target)
                events += 1


@compiled
def bond_percolation(rates, neighbours, state, times, stream, counts, snapshots, origin, shape, moments):
    """Synchronous bond directed percolation: each active site activates each neighbour with probability `rates[0]`."""
    probability = rates[0]
    degree = neighbours.shape[1]
    active = np.empty(state.shape[0], np.int32)
    following = np.empty(state.shape[0], np.int32)
    reached = np.full(state.shape[0], -1, np.int64)
    n = 0
    for site in range(state.shape[0]):
        if state[site] != _EMPTY:
            active[n] = site
            n += 1
    present = np.zeros(1, np.int64)
    generation, row, events, absorbed = 0, 0, 0, math.nan
    while True:
        if n == 0 and math.isnan(absorbed):
            absorbed = float(generation)
        while row < times.shape[0] and (times[row] < generation + 1 or n == 0):
            present[0] = n
            _record(row, present, counts, state, snapshots, active, n, 1, origin, shape, moments)
            row += 1
        if row == times.shape[0]:
            return absorbed, events
        generation += 1
        m = 0
        for index in range(n):
            site = active[index]
            state[site] = _EMPTY
            for direction in range(degree):
                target = neighbour(neighbours, site, direction)
                if reached[target] != generation and uniform(stream) < probability:
                    reached[target] = generation
                    following[m] = target
                    m += 1
        for index in range(m):
            state[following[index]] = 1
        events += m
        active, following = following, active
        n = m


@compiled
def pair_annihilation(rates, neighbours, state, times, stream, counts, snapshots, origin, shape, moments):
    """A + A -> 0 (`rates[2] == 0`) or A + A -> A (`rates[2] == 1`) with hop rate `rates[0]`.

    `rates[1]` is the reaction rate of a pair of neighbours; infinite means reaction on encounter, when a particle hops
    onto another one. With a finite rate, hops onto occupied sites are blocked.
    """
    hop, coagulate = rates[0], rates[2] == 1.0
    on_encounter = math.isinf(rates[1])
    degree = neighbours.shape[1]
    # A pair is attempted by both partners, each choosing it with probability 1/degree.
    total_rate = hop if on_encounter else hop + 0.5 * degree * rates[1]
    active = np.empty(state.shape[0], np.int32)
    slot = np.empty(state.shape[0], np.int32)
    n = 0
    for site in range(state.shape[0]):
        if state[site] != _EMPTY:
            n = insert_site(active, slot, n, site)
    present = np.zeros(1, np.int64)
    time, row, events, absorbed = 0.0, 0, 0, math.nan
    while True:
        next_time = math.inf
        if n > 0 and total_rate > 0.0:
            next_time = time + exponential(stream) / (n * total_rate)
        elif math.isnan(absorbed):
            absorbed = time
        while row < times.shape[0] and times[row] < next_time:
            present[0] = n
            _record(row, present, counts, state, snapshots, active, n, 1, origin, shape, moments)
            row += 1
        if row == times.shape[0]:
            return absorbed, events
        time = next_time
        draw = uniform(stream) * n
        index = int(draw)
        site = active[index]
        target = neighbour(neighbours, site, int((draw - index) * degree))
        hops = on_encounter or uniform(stream) * total_rate < hop
        if state[target] == _EMPTY:
            if hops:
                state[site] = _EMPTY
                state[target] = 1
                move_site(active, slot, site, target)
                events += 1
        elif on_encounter or not hops:
            state[site] = _EMPTY
            n = remove_site(active, slot, n, site)
            if not coagulate:
                state[target] = _EMPTY
                n = remove_site(active, slot, n, target)
            events += 1


@compiled
def two_species_annihilation(rates, neighbours, state, times, stream, counts, snapshots, origin, shape, moments, pairs):
    """A + B -> 0 on encounter; A hops at rate `rates[0]`, B at `rates[1]`; hops onto the own species are blocked.

    `pairs` (event, 3) receives time and the two sites of each reaction, as far as its length goes.
    """
    total_rate = max(rates[0], rates[1])
    equal = rates[0] == rates[1]
    degree = neighbours.shape[1]
    active = np.empty(state.shape[0], np.int32)
    slot = np.empty(state.shape[0], np.int32)
    present = np.zeros(2, np.int64)
    n = 0
    for site in range(state.shape[0]):
        if state[site] != _EMPTY:
            n = insert_site(active, slot, n, site)
            present[state[site] - 1] += 1
    time, row, events, reactions, absorbed = 0.0, 0, 0, 0, math.nan
    while True:
        next_time = math.inf
        if n > 0 and total_rate > 0.0:
            next_time = time + exponential(stream) / (n * total_rate)
        if math.isnan(absorbed) and (math.isinf(next_time) or present[0] == 0 or present[1] == 0):
            absorbed = time
        while row < times.shape[0] and times[row] < next_time:
            _record(row, present, counts, state, snapshots, active, n, 1, origin, shape, moments)
            row += 1
        if row == times.shape[0]:
            return absorbed, events
        time = next_time
        draw = uniform(stream) * n
        index = int(draw)
        site = active[index]
        kind = state[site]
        if not equal and uniform(stream) * total_rate >= rates[kind - 1]:
            continue
        target = neighbour(neighbours, site, int((draw - index) * degree))
        if state[target] == _EMPTY:
            state[site] = _EMPTY
            state[target] = kind
            move_site(active, slot, site, target)
            events += 1
        elif state[target] != kind:
            state[site] = _EMPTY
            state[target] = _EMPTY
            n = remove_site(active, slot, n, site)
            n = remove_site(active, slot, n, target)
            present[0] -= 1
            present[1] -= 1
            if reactions < pairs.shape[0]:
                pairs[reactions, 0] = time
                pairs[reactions, 1] = site
                pairs[reactions, 2] = target
            reactions += 1
            events += 1


@compiled
def lotka_volterra(rates, neighbours, state, times, stream, counts, snapshots, origin, shape, moments):
    """Predators (1) die at `rates[0]` and eat neighbouring prey (2) at `rates[1]`; prey breed at `rates[2]`.

    Prey breed into empty sites. `rates[3]` is the rate at which each site exchanges its content with a random
    neighbour. The acting sites are predators and empty sites: an empty site that is filled by a random neighbour, if
    that is prey, is the birth seen from its other end, and prey in the midst of prey cost nothing.
    """
    death, predation, birth = rates[0], rates[1], rates[2]
    reaction_rate = max(death + predation, birth)
    # An exchange with prey, which do not act, must be attempted by the acting partner for both.
    total_rate = reaction_rate + 2.0 * rates[3]
    degree = neighbours.shape[1]
    active = np.empty(state.shape[0], np.int32)
    slot = np.empty(state.shape[0], np.int32)
    present = np.zeros(2, np.int64)
    n = 0
    for site in range(state.shape[0]):
        if state[site] != _EMPTY:
            present[state[site] - 1] += 1
        if state[site] != 2:
            n = insert_site(active, slot, n, site)
    time, row, events, absorbed = 0.0, 0, 0, math.nan
    while True:
        next_time = math.inf
        vacancies = n - present[0]
        if total_rate > 0.0 and (present[0] > 0 or (present[1] > 0 and vacancies > 0)):
            next_time = time + exponential(stream) / (n * total_rate)
        elif math.isnan(absorbed):
            absorbed = time
        while row < times.shape[0] and times[row] < next_time:
            _record(row, present, counts, state, snapshots, active, n, 1, origin, shape, moments)
            row += 1
        if row == times.shape[0]:
            return absorbed, events
        time = next_time
        draw = uniform(stream) * n
        index = int(draw)
        site = active[index]
        target = neighbour(neighbours, site, int((draw - index) * degree))
        event = uniform(stream) * total_rate
        if event >= reaction_rate:
            here, there = state[site], state[target]
            if there == 2:
                state[site], state[target] = there, here
                move_site(active, slot, site, target)
                events += 1
            elif here != there and event < reaction_rate + rates[3]:
                state[site], state[target] = there, here
                events += 1
        elif state[site] == 1:
            if event < death:
                state[site] = _EMPTY
                present[0] -= 1
                events += 1
            elif event < death + predation and state[target] == 2:
                state[target] = 1
                n = insert_site(active, slot, n, target)
                present[0] += 1
                present[1] -= 1
                events += 1
        elif event < birth and state[target] == 2:
            state[site] = 2
            n = remove_site(active, slot, n, site)
            present[1] += 1
            events += 1


@compiled
def _decided(present, sites, conserving):
    """Whether no reaction can happen any more: one species alone (and nowhere left to breed), or none."""
    return present.max() == (present.sum() if conserving else sites) or present.sum() == 0


@compiled
def cyclic_competition(rates, neighbours, state, times, stream, counts, snapshots, origin, shape, moments):
    """Three species, each the predator of the next: A beats B, B beats C, C beats A.

    `rates` = (selection, reproduction, exchange, conserving). Conserving: the loser's site goes to the winner.
    Otherwise it becomes empty, and a neighbour reproduces into it. Every site, also an empty one, attempts exchanges
    with a random neighbour, so that every pair of neighbours is exchanged at the same rate whatever it holds: all sites
    act.
    """
    selection, reproduction = rates[0], rates[0] + rates[1]
    total_rate = reproduction + rates[2]
    conserving = rates[3] == 1.0
    degree = neighbours.shape[1]
    n = state.shape[0]
    sites = np.empty(0, np.int32)
    present = np.zeros(3, np.int64)
    for site in range(n):
        if state[site] != _EMPTY:
            present[state[site] - 1] += 1
    finished = total_rate == 0.0 or _decided(present, n, conserving)
    time, row, events, absorbed = 0.0, 0, 0, math.nan
    while True:
        next_time = math.inf
        if not finished:
            next_time = time + exponential(stream) / (n * total_rate)
        elif math.isnan(absorbed):
            absorbed = time
        while row < times.shape[0] and times[row] < next_time:
            _record(row, present, counts, state, snapshots, sites, 0, 1, origin, shape, moments)
            row += 1
        if row == times.shape[0]:
            return absorbed, events
        time = next_time
        draw = uniform(stream) * n
        site = int(draw)
        target = neighbour(neighbours, site, int((draw - site) * degree))
        here, there = state[site], state[target]
        if here == there:
            continue
        event = uniform(stream) * total_rate
        if event >= reproduction:
            state[site], state[target] = there, here
            events += 1
        elif here == _EMPTY:
            continue
        elif event < selection:
            if there == here % 3 + 1:
                present[there - 1] -= 1
                if conserving:
                    present[here - 1] += 1
                    state[target] = here
                else:
                    state[target] = _EMPTY
                finished = _decided(present, n, conserving)
                events += 1
        elif there == _EMPTY:
            state[target] = here
            present[here - 1] += 1
            finished = _decided(present, n, conserving)
            events += 1


@compiled
def birth_death_coagulation(rates, neighbours, state, times, stream, counts, snapshots, origin, shape, moments):
    """A -> 2A, A -> 0, 2A -> A on occupation numbers, with hopping; `rates` = (death, birth, coagulation, hop).

    Offspring stay on the parent's site; one particle is removed from a site of n at rate coagulation * n (n - 1). The
    pair to coagulate is found by rejection under the largest occupation seen.
    """
    death, birth, coagulation = rates[0], rates[1], rates[2]
    linear = death + birth + rates[3]
    degree = neighbours.shape[1]
    n = 0
    pairs = 0  # ordered pairs of particles that share a site
    largest = 2
    for site in range(state.shape[0]):
        n += state[site]
        pairs += state[site] * (state[site] - 1)
        largest = max(largest, state[site])
    particles = np.empty(max(1024, 2 * n), np.int32)
    index = 0
    for site in range(state.shape[0]):
        for _ in range(state[site]):
            particles[index] = site
            index += 1
    present = np.zeros(1, np.int64)
    time, row, events, absorbed = 0.0, 0, 0, math.nan
    while True:
        total_rate = n * linear + pairs * coagulation
        next_time = math.inf
        if total_rate > 0.0:
            next_time = time + exponential(stream) / total_rate
        elif math.isnan(absorbed):
            absorbed = time
        while row < times.shape[0] and times[row] < next_time:
            present[0] = n
            _record(row, present, counts, state, snapshots, particles, 0, 1, origin, shape, moments)
            if moments.shape[0] > 0:
                total = 0
                for index in range(n):
                    total += _squared_distance(particles[index], origin, shape)
                moments[row] = total
            row += 1
        if row == times.shape[0]:
            return absorbed, events
        time = next_time
        events += 1
        event = uniform(stream) * total_rate
        draw = uniform(stream) * n
        index = int(draw)
        site = particles[index]
        if event < n * birth:
            if n == particles.shape[0]:
                particles = np.concatenate((particles, np.empty(n, np.int32)))
            particles[n] = site
            n += 1
            pairs += 2 * state[site]
            state[site] += 1
            largest = max(largest, state[site])
        elif event < n * (birth + rates[3]):
            target = neighbour(neighbours, site, int((draw - index) * degree))
            particles[index] = target
            state[site] -= 1
            pairs += 2 * (state[target] - state[site])
            state[target] += 1
            largest = max(largest, state[target])
        else:
            if event >= n * linear:
                while uniform(stream) * (largest - 1) >= state[site] - 1:
                    index = int(uniform(stream) * n)
                    site = particles[index]
            n -= 1
            particles[index] = particles[n]
            state[site] -= 1
            pairs -= 2 * state[site]
