"""What a cell does when its turn comes: the three published algotypes and rules of the user, as compiled functions.

A rule looks at the array through the eyes of one cell and names the position that it wants to swap with, or nowhere.
With v the cell's value, p its position, d = +1 where it wants increasing order and -1 where decreasing::

    bubble     a side s = -1 or +1, drawn each time: swap with p + s if s d (v - v[p + s]) > 0                       (1)
    insertion  swap with p - 1 if positions 0 .. p - 1 are in order and d (v[p - 1] - v) > 0                         (2)
    selection  a private target q, at first 0 (n - 1 where d = -1): at q = p rest; if the cell at q is frozen or     (3)
               v >= v[q], look one further next time, q <- q + d; else swap p and q

A frozen cell never acts. In the prefix of (2) it is passed over, and the order starts anew behind it. Movable frozen
cells are partners like any other for (1) and (2); (3) moves q on past them, and swaps with them if their value is
larger. Every swap with an immovable one is denied. Values enter as ranks, so that comparisons are exact for any number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from interplay.primitives.stochastic import compiled

__all__ = [
    "CELL",
    "CUSTOM",
    "INSERTION",
    "NOWHERE",
    "RULE_SIGNATURE",
    "SELECTION",
    "STATE",
    "can_move",
    "chain_length",
    "choose",
    "may_swap",
]

RULE_SIGNATURE = types.int64(types.int64, types.float64, types.float64[::1], types.int64)
"""A user's rule in machine terms: (position, value, window, side) -> target."""

NOWHERE = -1
BUBBLE, INSERTION, SELECTION, CUSTOM = range(4)

# Records keep the state in two buffers: passing a dozen arrays to each of these small functions costs more than what
# the functions do.
CELL = np.dtype(
    [
        ("position", np.int32),
        ("rank", np.int32),  # of its value among the distinct values
        ("target", np.int32),  # q of the selection rule
        ("label", np.int32),  # the group that counts for aggregation
        ("kind", np.int8),
        ("direction", np.int8),
        ("frozen", np.bool_),
        ("value", np.float64),  # for rules of the user
        ("occupant", np.int32),  # of the position of this index: the inverse of `position`
        ("listed", np.int32),  # the active cells first, then the frozen ones
        ("turn", np.int32),  # the active cells in the order of the schedule
    ],
    align=True,
)
"""One row an index i: what cell i is, then what place i holds."""

STATE = np.dtype(
    [
        ("active", np.int64),  # cells that are not frozen
        ("movable", np.bool_),  # whether frozen cells can be displaced
        ("sense", np.int64),  # +1 or -1: the order against which errors are counted
        ("radius", np.int64),  # how far the user's rule sees
        ("rising", np.int64),  # first position out of increasing order with those before it, frozen ones passed over
        ("falling", np.int64),  # the same for decreasing order
        ("needs_rising", np.bool_),  # whether an insertion cell asks for it
        ("needs_falling", np.bool_),
        ("errors", np.int64),
        ("neighbours_alike", np.int64),
        ("activations", np.int64),
        ("swaps", np.int64),
        ("comparisons", np.int64),
        ("reads", np.int64),
        ("faulty_cell", np.int64),  # whose rule named a position that does not exist
        ("faulty_target", np.int64),
        ("actor", np.int64),  # the schedule: the cell that acts,
        ("remaining", np.int64),  # activations left in its burst,
        ("next_turn", np.int64),  # and the next entry of `turn`
        ("witness", np.int64),  # entry of `listed` that was last seen to have an enabled move
    ],
    align=True,
)
"""Everything else about an array, in one record."""


@compiled
def may_swap(cells: NDArray[np.void], state: np.void, there: int) -> Any:
    """Whether the cell at a position can be displaced."""
    return state.movable or not cells[cells[there].occupant].frozen


@compiled
def chain_length(cells: NDArray[np.void], direction: int) -> int:
    """First position that is out of order with the positions before it, n if there is none; frozen cells break the
    chain and are passed over."""
    previous = -1
    for place in range(cells.shape[0]):
        cell = cells[place].occupant
        if cells[cell].frozen:
            previous = -1
            continue
        if previous >= 0 and direction * (cells[cell].rank - cells[previous].rank) < 0:
            return place
        previous = cell
    return int(cells.shape[0])


@compiled
def _out_of_order(cells, cell, side, there):
    other = cells[there].occupant
    return side * cells[cell].direction * (cells[cell].rank - cells[other].rank) > 0


@compiled
def _wants(cells, cell, side):
    """Whether a neighbour that is not frozen is out of order with the cell."""
    there = cells[cell].position + side
    if there < 0 or there >= cells.shape[0] or cells[cells[there].occupant].frozen:
        return False
    return _out_of_order(cells, cell, side, there)


@compiled
def _bubble(cells, state, cell, side):
    there = cells[cell].position + side
    if _wants(cells, cell, -1) or _wants(cells, cell, 1):
        state.comparisons += 1
    if there < 0 or there >= cells.shape[0]:
        return NOWHERE
    state.reads += 1
    return there if _out_of_order(cells, cell, side, there) else NOWHERE


@compiled
def _insertion(cells, state, cell):
    here = cells[cell].position
    chain = state.rising if cells[cell].direction > 0 else state.falling
    scanned = min(here, chain + 1)
    state.reads += scanned
    for index in range(state.active, cells.shape[0]):
        if cells[cells[index].listed].position < scanned:
            state.reads -= 1
    if here == 0 or here > chain:
        return NOWHERE
    if cells[cells[here - 1].occupant].frozen:
        state.reads += 1
    if not _out_of_order(cells, cell, -1, here - 1):
        return NOWHERE
    if not cells[cells[here - 1].occupant].frozen:
        state.comparisons += 1
    return here - 1


@compiled
def _selection(cells, state, cell):
    there = cells[cell].target
    if there < 0 or there >= cells.shape[0] or there == cells[cell].position:
        return NOWHERE
    state.comparisons += 1
    state.reads += 1
    other = cells[there].occupant
    smaller = cells[cell].rank < cells[other].rank
    if cells[other].frozen or not smaller:
        cells[cell].target += cells[cell].direction
    return there if smaller else NOWHERE


@compiled
def _ask(cells, state, rule, cell, side):
    """Ask the user's rule; its answer may be anything. To name one's own position is to stay."""
    here = cells[cell].position
    window = np.full(2 * state.radius + 1, np.nan)
    for index in range(window.shape[0]):
        there = here - state.radius + index
        if 0 <= there < cells.shape[0]:
            window[index] = cells[cells[there].occupant].value
    there = rule(here, cells[cell].value, window, side)
    return NOWHERE if there == here else there


@compiled
def _custom(cells, state, rule, cell, side):
    here, size = cells[cell].position, cells.shape[0]
    state.reads += min(here + state.radius, size - 1) - max(here - state.radius, 0)
    there = _ask(cells, state, rule, cell, side)
    if there < NOWHERE or there >= size:
        state.faulty_cell = cell
        state.faulty_target = there
        return NOWHERE
    if there == NOWHERE:
        return NOWHERE
    if not cells[cells[there].occupant].frozen:
        state.comparisons += 1
    return there


@compiled
def choose(cells: NDArray[np.void], state: np.void, rule: Any, cell: int, side: int) -> int:
    """One activation up to its swap: the position that the cell swaps with, or `NOWHERE`.

    It advances the private target, and counts. `side` is the coin of rules that toss one.
    """
    state.activations += 1
    kind = cells[cell].kind
    if kind == BUBBLE:
        there = _bubble(cells, state, cell, side)
    elif kind == INSERTION:
        there = _insertion(cells, state, cell)
    elif kind == SELECTION:
        there = _selection(cells, state, cell)
    else:
        there = _custom(cells, state, rule, cell, side)
    return there if there != NOWHERE and may_swap(cells, state, there) else NOWHERE


@compiled
def _selection_can_move(cells, state, cell):
    there = cells[cell].target
    while 0 <= there < cells.shape[0] and there != cells[cell].position:
        if cells[cell].rank < cells[cells[there].occupant].rank and may_swap(cells, state, there):
            return True
        there += cells[cell].direction
    return False


@compiled
def can_move(cells: NDArray[np.void], state: np.void, rule: Any, cell: int) -> bool:
    """Whether the cell has an enabled move, now or after moving its private target on; nothing is counted or changed.

    As long as nobody swaps the answer stays the same, so that an array in which no active cell can move is at rest for
    ever.
    """
    if cells[cell].frozen:
        return False
    kind = cells[cell].kind
    if kind == SELECTION:
        return bool(_selection_can_move(cells, state, cell))
    here, size = cells[cell].position, cells.shape[0]
    if kind == INSERTION:
        if here == 0 or here > (state.rising if cells[cell].direction > 0 else state.falling):
            return False
        return bool(_out_of_order(cells, cell, -1, here - 1) and may_swap(cells, state, here - 1))
    for side in (-1, 1):
        there = here + side
        if kind == CUSTOM:
            there = _ask(cells, state, rule, cell, side)
            if there < NOWHERE or there >= size:
                return True  # so that the cell is asked in its turn, where the fault is reported
            if there != NOWHERE and may_swap(cells, state, there):
                return True
        elif 0 <= there < size and _out_of_order(cells, cell, side, there) and may_swap(cells, state, there):
            return True
    return False
