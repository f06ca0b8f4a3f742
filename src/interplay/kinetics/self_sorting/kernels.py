"""The engine: whose turn it is, the swap and what it changes, and the exact test that nobody can move any more.

Only a swap can bring the array to rest. So after each one, and only then, the engine looks whether a *witness*, the
last cell that was seen to have an enabled move, still has one, and goes on to the next cell if not; when no cell is
left the run is over, at the very swap after which nothing can happen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interplay.kinetics.self_sorting.policies import INSERTION, NOWHERE, SELECTION, can_move, chain_length, choose
from interplay.primitives.stochastic import compiled, next_uint64, uniform

__all__ = [
    "LOG",
    "LOG_FULL",
    "SCHEDULES",
    "STOP_REASONS",
    "activate_each",
    "advance",
    "exchange",
    "find_witness",
    "replay",
    "take_stock",
]

SCHEDULES = ("burst", "sweep", "round_robin", "synchronous")
_BURST, _SWEEP, _ROUND_ROBIN, _SYNCHRONOUS = range(4)

STOP_REASONS = ("quiescent", "max_swaps", "max_activations", "log full", "faulty rule")
_QUIESCENT, _MAX_SWAPS, _MAX_ACTIVATIONS, LOG_FULL, _FAULTY = range(5)

LOG = np.dtype(
    [
        ("left", np.int32),
        ("right", np.int32),
        ("errors", np.int32),
        ("neighbours_alike", np.int32),
        ("activations", np.int64),
    ],
    align=True,
)
"""One row a swap: the two positions, then errors, like neighbours and activations after it."""


@compiled
def _pair(cells, state, left, sign):
    """Add (or take away) what the pair (left, left + 1) contributes to errors and like neighbours."""
    if left < 0 or left + 1 >= cells.shape[0]:
        return
    a, b = cells[left].occupant, cells[left + 1].occupant
    if state.sense * (cells[b].rank - cells[a].rank) < 0:
        state.errors += sign
    if cells[a].label == cells[b].label:
        state.neighbours_alike += sign


@compiled
def _pairs_around(cells, state, left, right, sign):
    _pair(cells, state, left - 1, sign)
    _pair(cells, state, left, sign)
    if right - 1 > left:
        _pair(cells, state, right - 1, sign)
    _pair(cells, state, right, sign)


@compiled
def take_stock(cells: NDArray[np.void], state: np.void) -> None:
    """Count errors and like neighbours, and measure the chains, from nothing."""
    state.errors = 0
    state.neighbours_alike = 0
    for left in range(cells.shape[0] - 1):
        _pair(cells, state, left, 1)
    state.rising = chain_length(cells, 1)
    state.falling = chain_length(cells, -1)


@compiled
def exchange(cells: NDArray[np.void], state: np.void, here: int, there: int, log: NDArray[np.void], row: int) -> int:
    """Swap two positions, keep the counts, and write the row of the log if there is room; returns the next row."""
    left, right = min(here, there), max(here, there)
    _pairs_around(cells, state, left, right, -1)
    a, b = cells[left].occupant, cells[right].occupant
    cells[left].occupant, cells[right].occupant = b, a
    cells[a].position, cells[b].position = right, left
    _pairs_around(cells, state, left, right, 1)
    # A chain that ends before the swap is as it was.
    if state.needs_rising and left <= state.rising:
        state.rising = chain_length(cells, 1)
    if state.needs_falling and left <= state.falling:
        state.falling = chain_length(cells, -1)
    state.swaps += 1
    if row >= log.shape[0]:
        return row
    log[row].left = left
    log[row].right = right
    log[row].errors = state.errors
    log[row].neighbours_alike = state.neighbours_alike
    log[row].activations = state.activations
    return row + 1


@compiled
def find_witness(cells: NDArray[np.void], state: np.void, rule: Any) -> bool:
    """Whether some cell can move; the search starts at the last one that could."""
    start = state.witness
    for offset in range(state.active):
        index = (start + offset) % state.active
        if can_move(cells, state, rule, cells[index].listed):
            state.witness = index
            return True
    return False


@compiled
def _shuffle(cells, state, stream):
    for last in range(state.active - 1, 0, -1):
        other = int(uniform(stream) * (last + 1))
        cells[last].turn, cells[other].turn = cells[other].turn, cells[last].turn


@compiled
def _whose_turn(cells, state, stream, schedule, burst):
    size = state.active
    if schedule == _BURST:
        if state.remaining == 0:
            state.actor = cells[int(uniform(stream) * size)].turn
            state.remaining = burst
        state.remaining -= 1
        return state.actor
    if schedule == _SWEEP and state.next_turn == 0:
        _shuffle(cells, state, stream)
    state.actor = cells[state.next_turn].turn
    state.next_turn = (state.next_turn + 1) % size
    return state.actor


@compiled
def _coin(cells, cell, stream):
    """A side for the rules that toss a coin; the others do without."""
    if cells[cell].kind == INSERTION or cells[cell].kind == SELECTION:
        return 0
    return 1 if next_uint64(stream) >> np.uint64(63) else -1


@compiled
def _round(cells, state, stream, rule, log, row, max_swaps):
    """All cells decide on the same state; their swaps happen in random order unless a place was touched before."""
    _shuffle(cells, state, stream)
    size = state.active
    wishes = np.empty(size, np.int64)
    for index in range(size):
        wishes[index] = choose(cells, state, rule, cells[index].turn, _coin(cells, cells[index].turn, stream))
    touched = np.zeros(cells.shape[0], np.bool_)
    for index in range(size):
        here, there = cells[cells[index].turn].position, wishes[index]
        if there == NOWHERE or touched[here] or touched[there] or state.swaps >= max_swaps:
            continue
        touched[here] = touched[there] = True
        row = exchange(cells, state, here, there, log, row)
    return row


@compiled
def advance(
    cells: NDArray[np.void],
    state: np.void,
    rule: Any,
    stream: NDArray[np.uint64],
    schedule: int,
    burst: int,
    max_activations: int,
    max_swaps: int,
    log: NDArray[np.void],
    recording: bool,
) -> Any:
    """Activate cells until one of the limits, which are totals since the beginning; returns (stop reason, rows)."""
    row = 0
    if not find_witness(cells, state, rule):
        return _QUIESCENT, row
    room = cells.shape[0] if schedule == _SYNCHRONOUS else 1
    while True:
        if state.swaps >= max_swaps:
            return _MAX_SWAPS, row
        if state.activations >= max_activations:
            return _MAX_ACTIVATIONS, row
        if recording and row + room > log.shape[0]:
            return LOG_FULL, row
        before = state.swaps
        if schedule == _SYNCHRONOUS:
            row = _round(cells, state, stream, rule, log, row, max_swaps)
        else:
            cell = _whose_turn(cells, state, stream, schedule, burst)
            there = choose(cells, state, rule, cell, _coin(cells, cell, stream))
            if there != NOWHERE:
                row = exchange(cells, state, cells[cell].position, there, log, row)
        if state.faulty_cell != NOWHERE:
            return _FAULTY, row
        if state.swaps > before and not find_witness(cells, state, rule):
            return _QUIESCENT, row


@compiled
def activate_each(
    cells: NDArray[np.void],
    state: np.void,
    rule: Any,
    stream: NDArray[np.uint64],
    chosen: NDArray[np.int32],
    sides: NDArray[np.int8],
    log: NDArray[np.void],
) -> int:
    """Activate the chosen cells one after the other, with the sides given (0: toss a coin); returns rows logged."""
    row = 0
    for index in range(chosen.shape[0]):
        cell = chosen[index]
        if cells[cell].frozen:
            continue
        side = sides[index]
        there = choose(cells, state, rule, cell, _coin(cells, cell, stream) if side == 0 else side)
        if state.faulty_cell != NOWHERE:
            break
        if there != NOWHERE:
            row = exchange(cells, state, cells[cell].position, there, log, row)
    return row


@compiled
def replay(start: NDArray[np.int32], places: NDArray[np.int32], rows: NDArray[np.int64]) -> NDArray[np.int32]:
    """Cells by position after so many swaps: `rows` increases, 0 is the start; returns (rows, n)."""
    now = start.copy()
    pictures = np.empty((rows.shape[0], start.shape[0]), np.int32)
    done = 0
    for picture in range(rows.shape[0]):
        while done < rows[picture]:
            left, right = places[done, 0], places[done, 1]
            now[left], now[right] = now[right], now[left]
            done += 1
        pictures[picture] = now
    return pictures
