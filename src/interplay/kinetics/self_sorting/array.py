"""An array that sorts itself: every element a cell with a rule of its own, and nobody in charge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int, Int8, Int32, Shaped
from numpy.typing import ArrayLike, NDArray

from interplay.kinetics.self_sorting.algotypes import Kind, Mix, Rule, code_of, idle_rule, kind_of, kinds_of, title
from interplay.kinetics.self_sorting.kernels import (
    LOG,
    LOG_FULL,
    SCHEDULES,
    STOP_REASONS,
    activate_each,
    advance,
    find_witness,
    take_stock,
)
from interplay.kinetics.self_sorting.measures import inversions
from interplay.kinetics.self_sorting.policies import CELL, INSERTION, NOWHERE, STATE, can_move
from interplay.kinetics.self_sorting.trace import SortTrace
from interplay.primitives.stochastic import random_stream, spawn_seeds

__all__ = ["FrozenKind", "Record", "Schedule", "SelfSortingArray", "draw_frozen"]

Schedule = Literal["burst", "sweep", "round_robin", "synchronous"]
FrozenKind = Literal["movable", "immovable"]
Record = Literal["metrics", "snapshots"]

LARGEST_SNAPSHOTS = 2 * 10**9
_LONGEST_LOG = 1 << 20


def draw_frozen(
    cells: int, count: int, generator: np.random.Generator, *, replace: bool = False
) -> Bool[np.ndarray, " cell"]:
    """Which cells are broken.

    Parameters
    ----------
    cells, count
        Number of cells, and how often one is drawn; at least one cell must be left.
    generator
        Draws them.
    replace
        The released code draws with replacement, so that there may be fewer broken cells than `count`.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or not 0 <= count < cells:
        raise ValueError(f"frozen must be a number of cells from 0 to {cells - 1}, or a mask; got {count!r}")
    frozen = np.zeros(cells, np.bool_)
    frozen[generator.choice(cells, int(count), replace=replace)] = True
    return frozen


class SelfSortingArray:
    """Cells that hold values, see a little of the array, and swap places by rules of their own.

    Parameters
    ----------
    values
        (n,) numbers, two or more, no NaN. Equal values are never out of order.
    algotype
        "bubble", "insertion", "selection", a rule made by `local_policy`, one of these a cell, or a `mix`.
    direction
        +1 where a cell wants increasing order, -1 for decreasing: one for all, one a cell, or by algotype's name.
    frozen
        Broken cells, which never act: a number drawn at random, or a mask. They belong to cells, not to places.
    frozen_kind
        "movable" ones can be displaced by others, "immovable" ones cannot.
    labels
        Group of each cell for `aggregation`, as whole numbers or a `mix`: by default the algotype. Labels that
        mean nothing to the rules give a control.
    schedule
        Whose turn it is. "burst": a cell drawn at random acts `burst` times in a row, like a thread that holds on to
        its processor; "sweep": all once, in an order drawn anew each time; "round_robin": all once, always in the same
        order; "synchronous": all decide on the same state, then swap unless another swap touched their places.
    burst
        Consecutive activations of the cell drawn. Seven reproduces the published numbers, one is the plain
        asynchronous update.
    seed
        Whole number or `SeedSequence`; the same seed gives the same run.

    Raises
    ------
    ValueError
        Lengths that differ, fewer than two values, NaN, unknown names, all cells frozen, a burst below one.
    TypeError
        Values that are not real numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from interplay.kinetics.self_sorting import SelfSortingArray, mix
    >>> array = SelfSortingArray(np.random.default_rng(0).permutation(100), mix("bubble", "selection"), seed=0)
    >>> trace = array.run()
    >>> trace.stopped_because, bool((array.values == np.arange(100)).all())
    ('quiescent', True)
    """

    def __init__(
        self,
        values: Shaped[ArrayLike, " n"],
        algotype: Any = "bubble",
        direction: int | ArrayLike | Mapping[Any, int] = 1,
        frozen: int | Bool[ArrayLike, " n"] | None = None,
        frozen_kind: FrozenKind = "movable",
        *,
        labels: Mix | Int[ArrayLike, " n"] | None = None,
        schedule: Schedule = "burst",
        burst: int = 7,
        seed: int | np.random.SeedSequence | None = None,
    ) -> None:
        given = checked_values(values)
        size = len(given)
        deal_seed, frozen_seed, label_seed, stream_seed = spawn_seeds(
            np.random.SeedSequence() if seed is None else seed, 4
        )
        _one_of("frozen_kind", frozen_kind, get_args(FrozenKind))
        _one_of("schedule", schedule, SCHEDULES)
        if isinstance(burst, bool) or not isinstance(burst, int | np.integer) or burst < 1:
            raise ValueError(f"burst must be a whole number of activations, 1 or more; got {burst!r}")
        members, kinds = kinds_of(algotype, size, np.random.default_rng(deal_seed))
        directions = _directions(direction, members, kinds)
        broken = _frozen(frozen, size, np.random.default_rng(frozen_seed))
        rank = np.unique(given, return_inverse=True)[1]
        codes = np.array([code_of(kind) for kind in kinds], np.int8)[members]

        self.kinds = tuple(title(kind) for kind in kinds)
        self.schedule, self.burst, self.frozen_kind = schedule, int(burst), frozen_kind
        self._given, self._members = given, members
        self._rule = next((kind for kind in kinds if isinstance(kind, Rule)), idle_rule())
        grouping, self._groups = _labels(labels, size, members, self.kinds, np.random.default_rng(label_seed))
        active = np.flatnonzero(~broken)
        inserting = codes == INSERTION

        self._cells = np.zeros(size, CELL)
        self._cells["position"] = self._cells["occupant"] = np.arange(size)
        self._cells["rank"], self._cells["value"] = rank, given
        self._cells["kind"], self._cells["direction"], self._cells["frozen"] = codes, directions, broken
        self._cells["target"] = np.where(directions > 0, 0, size - 1)
        self._cells["label"] = grouping
        self._cells["listed"] = self._cells["turn"] = np.concatenate([active, np.flatnonzero(broken)])
        self._state = np.zeros(1, STATE)[0]
        self._state["active"] = len(active)
        self._state["movable"] = frozen_kind == "movable"
        self._state["sense"] = -1 if (directions < 0).all() else 1
        self._state["radius"] = self._rule.radius
        self._state["needs_rising"] = (inserting & (directions > 0)).any()
        self._state["needs_falling"] = (inserting & (directions < 0)).any()
        self._state["faulty_cell"] = NOWHERE
        self._stream = random_stream(stream_seed)
        take_stock(self._cells, self._state)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return (
            f"SelfSortingArray({len(self)} cells, {' + '.join(self.kinds)}, {int(self.frozen.sum())} frozen "
            f"{self.frozen_kind}, {self.schedule}, {self.swaps} swaps so far)"
        )

    @property
    def values(self) -> Shaped[np.ndarray, " n"]:
        """Values by position."""
        return self._given[self._cells["occupant"]]

    @property
    def arrangement(self) -> Int32[np.ndarray, " n"]:
        """Cells by position; a cell is known by the position at which it started."""
        return self._cells["occupant"].copy()

    @property
    def algotypes(self) -> Int[np.ndarray, " n"]:
        """Index into `kinds` by position."""
        return self._members[self._cells["occupant"]]

    @property
    def frozen(self) -> Bool[np.ndarray, " n"]:
        """Which positions hold a broken cell."""
        return self._cells["frozen"][self._cells["occupant"]]

    @property
    def directions(self) -> Int8[np.ndarray, " n"]:
        """What the cell at each position wants, +1 increasing or -1 decreasing."""
        return self._cells["direction"][self._cells["occupant"]]

    @property
    def me(self) -> int:
        """Monotonicity error: neighbours out of increasing order, or of decreasing where all cells want that."""
        return int(self._state["errors"])

    @property
    def aggregation(self) -> float:
        """Share of positions whose right neighbour is of the same group, the last having none; NaN for one group."""
        return float(self._state["neighbours_alike"]) / (len(self) if len(self._groups) > 1 else np.nan)

    @property
    def swaps(self) -> int:
        """Swaps so far."""
        return int(self._state["swaps"])

    @property
    def activations(self) -> int:
        """Activations so far."""
        return int(self._state["activations"])

    @property
    def is_quiescent(self) -> bool:
        """Whether no active cell has an enabled move, now or after moving its private target on: exact, not a guess."""
        return not find_witness(self._cells, self._state, self._rule.compiled)

    def movable_cells(self) -> Int32[np.ndarray, " movable"]:
        """Positions of the cells that have an enabled move, now or after moving their private target on."""
        cells, state, rule = self._cells, self._state, self._rule.compiled
        able = [
            cells["position"][cell] for cell in np.flatnonzero(~cells["frozen"]) if can_move(cells, state, rule, cell)
        ]
        return np.sort(np.array(able, dtype=np.int32))

    def step(self, n_activations: int = 1) -> int:
        """Go on for so many activations or to rest; returns the swaps that happened.

        A synchronous round is not divided: it goes on to the end of the round.
        """
        if isinstance(n_activations, bool) or not isinstance(n_activations, int | np.integer) or n_activations < 1:
            raise ValueError(f"n_activations must be a whole number, 1 or more; got {n_activations!r}")
        before = self.swaps
        self._advance(self.activations + int(n_activations), None, np.empty(0, LOG), recording=False)
        return self.swaps - before

    def activate(self, cells: Int[ArrayLike, " turn"], sides: Int[ArrayLike, " turn"] | int = 0) -> SortTrace:
        """Let chosen cells act one after the other, instead of those of the schedule.

        Parameters
        ----------
        cells
            (k,) cells, known by the positions at which they started; frozen ones do nothing.
        sides
            The side to which a bubble cell looks, -1 or +1, one for all or (k,); 0 tosses the coin.
        """
        chosen = np.atleast_1d(np.asarray(cells))
        looks = np.broadcast_to(np.asarray(sides), chosen.shape)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise TypeError(f"cells must be whole numbers in one dimension; got {chosen.dtype} of shape {chosen.shape}")
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"cells must lie within 0 and {len(self) - 1}; got {chosen.min()} to {chosen.max()}")
        if not np.isin(looks, (-1, 0, 1)).all():
            raise ValueError("sides must be -1, 1, or 0 for a coin")
        start, before = self._cells["occupant"].copy(), self._state.copy()
        log = np.empty(len(chosen), LOG)
        turns, looks = chosen.astype(np.int32), looks.astype(np.int8)
        rows = activate_each(self._cells, self._state, self._rule.compiled, self._stream, turns, looks, log)
        self._refuse_faults()
        reason = "quiescent" if self.is_quiescent else "max_activations"
        return self._trace(start, before, [log[:rows]], reason, snapshots=False)

    def run(
        self,
        max_activations: int = 10_000_000,
        max_swaps: int | None = None,
        record: Record | None = "metrics",
    ) -> SortTrace:
        """Go on until no cell can move any more, or to a limit.

        Parameters
        ----------
        max_activations, max_swaps
            Limits of this run. Cells that want opposite orders may never come to rest; the released experiments
            stop them at 15,000 swaps.
        record
            "metrics" keeps each swap with monotonicity error and aggregation after it, "snapshots" the array after
            each swap too, None only the outcome.

        Raises
        ------
        MemoryError
            Snapshots would take more than 2 GB; the message holds the estimate.
        IndexError
            A rule of the user named a position that does not exist.
        """
        if record is not None:
            _one_of("record", record, get_args(Record))
        for name, limit in (("max_activations", max_activations), ("max_swaps", max_swaps)):
            if limit is not None and (isinstance(limit, bool) or int(limit) != limit or limit < 1):
                raise ValueError(f"{name} must be a whole number, 1 or more; got {limit!r}")
        if record == "snapshots":
            self._check_room(self._swaps_ahead(max_activations, max_swaps))
        start, before = self._cells["occupant"].copy(), self._state.copy()
        until = self.activations + int(max_activations)
        most = None if max_swaps is None else self.swaps + int(max_swaps)
        capacity = 0 if record is None else max(1024, 2 * len(self))
        pieces: list[NDArray[np.void]] = []
        while True:
            log = np.empty(capacity, LOG)
            reason, rows = self._advance(until, most, log, recording=record is not None)
            pieces.append(log[:rows])
            if reason != LOG_FULL:
                break
            capacity = min(2 * capacity, _LONGEST_LOG)
        if record == "snapshots":
            self._check_room(self.swaps - int(before["swaps"]))
        return self._trace(start, before, pieces, STOP_REASONS[reason], snapshots=record == "snapshots")

    def _advance(self, until: int, most: int | None, log: NDArray[np.void], *, recording: bool) -> tuple[int, int]:
        limit = np.iinfo(np.int64).max if most is None else most
        schedule = SCHEDULES.index(self.schedule)
        cells, state, rule = self._cells, self._state, self._rule.compiled
        reason, rows = advance(cells, state, rule, self._stream, schedule, self.burst, until, limit, log, recording)
        self._refuse_faults()
        return int(reason), int(rows)

    def _refuse_faults(self) -> None:
        cell, target = int(self._state["faulty_cell"]), int(self._state["faulty_target"])
        if cell != NOWHERE:
            self._state["faulty_cell"] = NOWHERE
            raise IndexError(
                f"rule {self._rule.name!r} of cell {cell}, at position {self._cells['position'][cell]}, named position "
                f"{target} in step {self.activations}; allowed are 0 to {len(self) - 1}, and -1 to stay"
            )

    def _swaps_ahead(self, max_activations: int, max_swaps: int | None) -> int:
        """Estimate: inversions where all want one order (exact for bubble and insertion), else the limit."""
        if (self._cells["direction"] != int(self._state["sense"])).any():
            return int(min(max_activations, max_swaps or max_activations))
        ahead = inversions(int(self._state["sense"]) * self._cells["rank"][self._cells["occupant"]])
        return min(ahead, max_swaps or ahead)

    def _check_room(self, rows: int) -> None:
        needed = rows * len(self) * self._given.itemsize
        if needed > LARGEST_SNAPSHOTS:
            raise MemoryError(
                f"snapshots of {rows:,} swaps of {len(self):,} cells would take {needed / 1e9:.1f} GB, more than 2 GB; "
                "lower max_swaps, or record='metrics' and take single ones by trace.arrangements(after)"
            )

    def _trace(
        self, start: NDArray[np.int32], before: np.void, pieces: list[NDArray[np.void]], reason: str, *, snapshots: bool
    ) -> SortTrace:
        log = np.concatenate(pieces)
        counted = {
            name: int(self._state[name] - before[name]) for name in ("swaps", "comparisons", "reads", "activations")
        }
        trace = SortTrace(
            start=self._given[start],
            final=self.values,
            groups=self._cells["label"][start],
            kinds=self._groups,
            places=np.stack([log["left"], log["right"]], axis=1),
            me=log["errors"].copy(),
            aggregation=log["neighbours_alike"] / (len(self) if len(self._groups) > 1 else np.nan),
            activations_at=log["activations"] - before["activations"],
            values=None,
            **counted,
            stopped_because=reason,
            sense=int(self._state["sense"]),
        )
        if snapshots:
            object.__setattr__(trace, "values", trace.start[trace.arrangements()])
        return trace


def checked_values(values: Any) -> Shaped[np.ndarray, " n"]:
    """A copy of the values as a one-dimensional array of real numbers without NaN."""
    given = np.array(values)
    if given.dtype.kind not in "iuf":
        raise TypeError(f"values must be real numbers; got {given.dtype}")
    if given.ndim != 1 or len(given) < 2:
        raise ValueError(f"values must hold two or more numbers in one dimension; got shape {given.shape}")
    if given.dtype.kind == "f" and np.isnan(given).any():
        raise ValueError(f"values must not be NaN; {int(np.isnan(given).sum())} of {len(given)} are: fill or drop them")
    return given


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}")


def _directions(direction: Any, members: Int[np.ndarray, " n"], kinds: tuple[Kind, ...]) -> Int8[np.ndarray, " n"]:
    if isinstance(direction, Mapping):
        wanted = {title(kind_of(name)): value for name, value in direction.items()}
        if missing := [title(kind) for kind in kinds if title(kind) not in wanted]:
            raise ValueError(f"direction must name every algotype that takes part; it lacks {', '.join(missing)}")
        direction = np.array([wanted[title(kind)] for kind in kinds])[members]
    each = np.asarray(direction)
    if each.ndim > 0 and each.shape != members.shape:
        raise ValueError(f"direction must be one, or one a cell ({len(members)}); got shape {each.shape}")
    if not np.isin(each, (-1, 1)).all():
        raise ValueError(f"direction must be +1 (increasing) or -1 (decreasing); got {direction!r}")
    return np.broadcast_to(each, members.shape).astype(np.int8)


def _frozen(frozen: Any, size: int, generator: np.random.Generator) -> Bool[np.ndarray, " n"]:
    if frozen is None:
        return np.zeros(size, np.bool_)
    mask = np.array(frozen)
    if mask.ndim == 0:
        return draw_frozen(size, mask.item(), generator)
    if mask.dtype != np.bool_:
        raise TypeError(f"frozen must be a number of cells or a mask of bool; got an array of {mask.dtype}")
    if mask.shape != (size,):
        raise ValueError(f"a mask of frozen cells must have shape ({size},); got {mask.shape}")
    if mask.all():
        raise ValueError(f"at most {size - 1} of {size} cells can be frozen; got all: nobody would act")
    return mask


def _labels(
    labels: Any, size: int, members: Int[np.ndarray, " n"], kinds: tuple[str, ...], generator: np.random.Generator
) -> tuple[Int32[np.ndarray, " n"], tuple[str, ...]]:
    if labels is None:
        return members.astype(np.int32), kinds
    if isinstance(labels, Mix):
        return labels.deal(size, generator).astype(np.int32), tuple(str(member) for member in labels.members)
    groups = np.asarray(labels)
    if groups.shape != (size,):
        raise ValueError(f"labels must be one a cell ({size}), or a mix; got shape {groups.shape}")
    names, codes = np.unique(groups, return_inverse=True)
    return codes.astype(np.int32), tuple(str(name) for name in names)
