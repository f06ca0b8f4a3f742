"""The textbook sorts, run from above on the same arrays with the same broken cells: what cells are compared with.

| sort | procedure |
| --- | --- |
| bubble | passes over a shrinking range until a pass swaps nothing |
| insertion | every element is brought to its place by swaps with its left neighbour |
| selection | the smallest of the rest is searched for and swapped to its place |

The procedure does not know which cells are broken. Its command to swap fails silently where the initiator (bubble: the
left element, insertion: the one that is brought to its place, selection: the smallest) is frozen or the partner
immovable. Insertion then leaves its element there; the others go on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import ArrayLike

from interplay.kinetics.self_sorting.algotypes import Algotype, kind_of
from interplay.kinetics.self_sorting.array import FrozenKind, SelfSortingArray
from interplay.kinetics.self_sorting.kernels import LOG, exchange
from interplay.kinetics.self_sorting.measures import inversions
from interplay.kinetics.self_sorting.policies import may_swap
from interplay.kinetics.self_sorting.trace import SortTrace
from interplay.primitives.stochastic import compiled

__all__ = ["classical_sort"]


@compiled
def _out_of_order(cells, state, left, right):
    """Compare two positions."""
    state.comparisons += 1
    a, b = cells[left].occupant, cells[right].occupant
    return state.sense * (cells[a].rank - cells[b].rank) > 0


@compiled
def _command(cells, state, initiator, partner, log, row):
    """Tell a position to swap with another; returns the next row of the log, the same one if nothing happened."""
    if cells[cells[initiator].occupant].frozen or not may_swap(cells, state, partner):
        return row
    return exchange(cells, state, initiator, partner, log, row)


@compiled
def _bubble_sort(cells, state, log):
    row = 0
    for end in range(cells.shape[0] - 1, 0, -1):
        before = row
        for left in range(end):
            if _out_of_order(cells, state, left, left + 1):
                row = _command(cells, state, left, left + 1, log, row)
        if row == before:
            break
    return row


@compiled
def _insertion_sort(cells, state, log):
    row = 0
    for first in range(1, cells.shape[0]):
        place = first
        while place > 0 and _out_of_order(cells, state, place - 1, place):
            before = row
            row = _command(cells, state, place, place - 1, log, row)
            if row == before:
                break
            place -= 1
    return row


@compiled
def _selection_sort(cells, state, log):
    row = 0
    for place in range(cells.shape[0] - 1):
        smallest = place
        for other in range(place + 1, cells.shape[0]):
            if _out_of_order(cells, state, smallest, other):
                smallest = other
        if smallest != place:
            row = _command(cells, state, smallest, place, log, row)
    return row


_SORTS = {
    Algotype.BUBBLE: _bubble_sort,
    Algotype.INSERTION: _insertion_sort,
    Algotype.SELECTION: _selection_sort,
}


def classical_sort(
    values: Shaped[ArrayLike, " n"],
    kind: Any = "bubble",
    frozen: int | Bool[ArrayLike, " n"] | None = None,
    frozen_kind: FrozenKind = "movable",
    *,
    direction: int = 1,
    seed: int | np.random.SeedSequence | None = None,
) -> SortTrace:
    """Sort top-down, with a record after every swap.

    Parameters
    ----------
    values, frozen, frozen_kind, seed
        As for `SelfSortingArray`: the same seed breaks the same cells.
    kind
        "bubble", "insertion" or "selection".
    direction
        +1 for increasing, -1 for decreasing order.

    Returns
    -------
    A trace without activations, whose `comparisons` and `reads` are the comparisons of the procedure: each looks at one
    value besides the one in hand.
    """
    if (chosen := kind_of(kind)) not in _SORTS:
        raise ValueError(f"kind must be one of {', '.join(repr(sort.name.lower()) for sort in _SORTS)}; got {kind!r}")
    if direction not in (-1, 1):
        raise ValueError(f"direction must be +1 (increasing) or -1 (decreasing); got {direction!r}")
    array = SelfSortingArray(values, chosen, direction, frozen, frozen_kind, seed=seed)
    cells, state = array._cells, array._state
    start, before = array.arrangement, state.copy()
    # A swap of neighbours undoes one inversion; a swap of selection fills one place for good.
    most = len(array) if chosen == Algotype.SELECTION else inversions(direction * cells["rank"])
    log = np.empty(most, LOG)
    rows = _SORTS[chosen](cells, state, log)
    trace = array._trace(start, before, [log[:rows]], "quiescent", snapshots=False)
    return replace(trace, reads=trace.comparisons, top_down=True)
