"""The engine against a slow reference, invariants of every run, schedules, limits, rules of the user, bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.kinetics.self_sorting import (
    Algotype,
    SelfSortingArray,
    aggregation,
    draw_frozen,
    inversions,
    local_policy,
    mix,
    monotonicity_error,
)
from interplay.kinetics.self_sorting import array as array_module
from interplay.testing import check_refused, check_same_seed

KINDS = ("bubble", "insertion", "selection")
SCHEDULES = ("burst", "sweep", "round_robin", "synchronous")


@local_policy(radius=2)
def second_neighbour(position, value, window, side):
    """Swap two places to the right where that cell is smaller."""
    return position + 2 if window[4] < value else -1


@local_policy()
def coin_bubble(position, value, window, side):
    """Bubble again, as a user would write it."""
    neighbour = window[1 + side]
    return position + side if side * (value - neighbour) > 0 else -1


@st.composite
def arrays(draw, directions=(1, -1), frozen=True):
    n = draw(st.integers(2, 14))
    values = draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=n, max_size=n))
    goals = draw(st.lists(st.sampled_from(directions), min_size=n, max_size=n))
    broken = draw(st.lists(st.booleans(), min_size=n, max_size=n)) if frozen else [False] * n
    broken[draw(st.integers(0, n - 1))] = False
    return SelfSortingArray(
        values,
        kinds,
        goals,
        np.array(broken),
        draw(st.sampled_from(["movable", "immovable"])),
        schedule=draw(st.sampled_from(SCHEDULES)),
        burst=draw(st.integers(1, 8)),
        seed=draw(st.integers(0, 2**32)),
    )


def moves(values, cells, kinds, goals, frozen, movable, targets, cell):
    """What a cell can do, from the rules in words: the positions it may swap with now or after moving its target on."""
    n, here = len(cells), cells.index(cell)
    value, goal = values[cell], goals[cell]
    free = lambda place: movable or not frozen[cells[place]]  # noqa: E731
    if frozen[cell]:
        return []
    if kinds[cell] == "bubble":
        sides = [side for side in (-1, 1) if 0 <= here + side < n]
        return [here + s for s in sides if s * goal * (value - values[cells[here + s]]) > 0 and free(here + s)]
    if kinds[cell] == "insertion":
        chain = []
        for place in range(here):
            chain = [] if frozen[cells[place]] else [*chain, goal * values[cells[place]]]
            if len(chain) > 1 and chain[-1] < chain[-2]:
                return []
        able = here > 0 and goal * value < goal * values[cells[here - 1]] and free(here - 1)
        return [here - 1] if able else []
    place, found = targets[cell], []
    while 0 <= place < n and place != here:
        if value < values[cells[place]]:
            if free(place):
                found.append(place)
            if not frozen[cells[place]]:
                break
        place += goal
    return found[:1]


def can_move_by_the_rules(array):
    table, state = array._cells, array._state
    kinds = [Algotype(int(code)).name.lower() for code in table["kind"]]
    return [
        place
        for place, cell in enumerate(array.arrangement.tolist())
        if moves(
            table["value"].tolist(),
            array.arrangement.tolist(),
            kinds,
            table["direction"].tolist(),
            table["frozen"].tolist(),
            bool(state["movable"]),
            table["target"].tolist(),
            cell,
        )
    ]


@settings(max_examples=150, deadline=None)
@given(arrays(), st.integers(1, 40))
def test_who_can_move_is_what_the_rules_say(array, activations):
    array.step(activations)
    assert array.movable_cells().tolist() == can_move_by_the_rules(array)


@settings(max_examples=150, deadline=None)
@given(arrays())
def test_a_run_that_ends_quiescent_leaves_no_enabled_move(array):
    trace = array.run(max_activations=20_000, max_swaps=500)
    moving = can_move_by_the_rules(array)
    assert (trace.stopped_because == "quiescent") == (not moving)
    assert array.is_quiescent == (not moving)
    if not moving:
        before = array.arrangement
        assert array.step(200) == 0
        assert (array.arrangement == before).all()


@settings(max_examples=150, deadline=None)
@given(arrays())
def test_what_is_kept_and_recorded_is_what_is_there(array):
    start, frozen = array.values, np.flatnonzero(array.frozen)
    groups = array.algotypes
    trace = array.run(max_activations=5000, max_swaps=200, record="snapshots")
    assert sorted(array.values) == sorted(start)
    if array.frozen_kind == "immovable":
        assert (np.flatnonzero(array.frozen) == frozen).all()
        assert np.isin(trace.places, frozen).sum() == 0
    cells = trace.arrangements()
    assert (trace.values == start[cells]).all()
    assert (trace.me == monotonicity_error(trace.values, trace.sense)).all()
    assert array.me == trace.final_me == monotonicity_error(array.values, trace.sense)
    assert (np.sort(cells, axis=1) == np.arange(len(array))).all()
    assert len(trace.me) == trace.swaps
    assert (np.diff(trace.activations_at) >= 0).all()
    assert trace.activations_at.max(initial=0) <= trace.activations
    if len(set(groups)) > 1 and trace.swaps:
        assert trace.aggregation == pytest.approx(aggregation(groups[cells]))
        assert array.aggregation == trace.aggregation[-1]


@settings(max_examples=100, deadline=None)
@given(arrays(directions=(1,), frozen=False))
def test_all_increasing_cells_sort_and_neighbour_swaps_equal_the_inversions(array):
    start = array.values
    trace = array.run()
    assert trace.stopped_because == "quiescent"
    assert (array.values == np.sort(start)).all()
    if "selection" not in array.kinds:
        assert trace.swaps == inversions(start)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_decreasing_cells_sort_downwards(kind, schedule):
    values = np.random.default_rng(1).permutation(30)
    array = SelfSortingArray(values, kind, -1, schedule=schedule, seed=2)
    assert array.run().sense == -1
    assert array.values.tolist() == list(range(29, -1, -1))
    assert array.me == 0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_add_up_to_a_run(schedule):
    make = lambda: SelfSortingArray(  # noqa: E731
        np.random.default_rng(3).permutation(25), mix(*KINDS), frozen=3, schedule=schedule, burst=4, seed=5
    )
    whole, parts = make(), make()
    trace = whole.run(max_activations=1000)
    while parts.activations < whole.activations:
        parts.step(7 if parts.activations + 7 <= whole.activations else 1)
    assert (whole.arrangement == parts.arrangement).all()
    assert trace.swaps == parts.swaps == whole.swaps


def test_bursts_are_consecutive_turns_of_one_cell():
    chain = SelfSortingArray([5, 4, 3, 2, 1, 0], "insertion", burst=3, seed=0)
    trace = chain.run()
    # Only one insertion cell is enabled at a time: its swaps lie in bursts of three at most.
    turns = (trace.activations_at - 1) // 3
    cells = np.vstack([np.arange(6), trace.arrangements()[:-1]])
    acting = cells[np.arange(trace.swaps), trace.places[:, 1]]
    for turn in np.unique(turns):
        assert len(set(acting[turns == turn])) == 1


def test_a_sweep_activates_every_active_cell_once():
    @local_policy()
    def never(position, value, window, side):
        return -1

    for schedule in ("sweep", "round_robin"):
        array = SelfSortingArray([3, 2, 1, 0], ["bubble", never, never, never], schedule=schedule, seed=1)
        trace = array.run(max_activations=400)
        turns = (trace.activations_at - 1) // 4
        assert len(set(turns)) == len(turns) == 3  # one swap a sweep at most


def test_a_synchronous_round_swaps_disjoint_pairs_of_the_state_it_saw():
    array = SelfSortingArray(np.arange(40)[::-1], "bubble", schedule="synchronous", seed=4)
    before = array.values
    array.step(1)
    assert array.activations == 40
    moved = np.flatnonzero(array.values != before)
    assert len(moved) == 2 * array.swaps > 2
    left = [
        p for p in moved if p + 1 in moved and array.values[p] == before[p + 1] and array.values[p + 1] == before[p]
    ]
    assert len(left) == array.swaps


def test_a_user_rule_like_bubble_is_bubble():
    values = np.random.default_rng(0).permutation(40)
    ours = SelfSortingArray(values, "bubble", seed=9).run()
    theirs = SelfSortingArray(values, coin_bubble, seed=9).run()
    assert (ours.places == theirs.places).all()
    assert theirs.kinds == ("coin_bubble",)


def test_a_user_rule_joins_a_mix_and_rests_where_it_says():
    values = np.random.default_rng(0).permutation(31)
    alone = SelfSortingArray(values, second_neighbour, seed=1)
    assert alone.run().stopped_because == "quiescent"
    assert (alone.values[0::2] == np.sort(values[0::2])).all()
    assert (alone.values[1::2] == np.sort(values[1::2])).all()
    joined = SelfSortingArray(values, mix("bubble", second_neighbour), seed=1)
    assert joined.run().stopped_because == "quiescent"
    for place in np.flatnonzero(joined.algotypes == joined.kinds.index("bubble")):
        around = joined.values[max(place - 1, 0) : place + 2]
        assert (around == np.sort(around)).all()


def test_frozen_belongs_to_cells_and_selection_passes_them():
    mask = np.array([False, True, False, False])
    array = SelfSortingArray([3, 0, 2, 1], "bubble", frozen=mask, frozen_kind="movable", seed=0)
    array.run()
    assert array.values.tolist() == [0, 1, 2, 3]
    assert array.frozen.tolist() == [True, False, False, False]
    array = SelfSortingArray([3, 0, 2, 1], "selection", frozen=mask, frozen_kind="immovable", seed=0)
    array.run()
    assert array.values.tolist() == [1, 0, 2, 3]


def test_limits_stop_a_run_where_they_say():
    goals = {"bubble": 1, "selection": -1}
    make = lambda: SelfSortingArray(np.arange(20), mix("bubble", "selection"), goals, seed=3)  # noqa: E731
    trace = make().run(max_swaps=50)
    assert (trace.swaps, trace.stopped_because) == (50, "max_swaps")
    trace = make().run(max_activations=77)
    assert (trace.activations, trace.stopped_because) == (77, "max_activations")
    again = make()
    again.run(max_swaps=20, record=None)
    assert again.run(max_swaps=30).swaps == 30
    assert again.swaps == 50
    straight = make()
    straight.run(max_swaps=50)
    assert (again.arrangement == straight.arrangement).all()


def test_recording_changes_nothing_and_long_logs_grow():
    values = np.random.default_rng(0).permutation(120)
    runs = [SelfSortingArray(values, "bubble", seed=1).run(record=record) for record in ("metrics", "snapshots", None)]
    assert len({run.swaps for run in runs}) == len({run.reads for run in runs}) == 1
    assert runs[0].swaps > 2048
    assert (runs[0].me == runs[1].me).all()
    assert len(runs[2].me) == 0
    assert runs[2].values is None


def test_the_same_seed_gives_the_same_run():
    values = np.random.default_rng(0).permutation(30)
    for schedule in SCHEDULES:
        check_same_seed(
            lambda seed, schedule=schedule: (
                SelfSortingArray(values, mix(*KINDS), frozen=2, schedule=schedule, seed=seed).run().places
            )
        )


def test_values_are_taken_as_they_are_and_not_changed():
    values = np.array([2.5, -np.inf, 0.1, 1e300])
    array = SelfSortingArray(values, "selection", seed=0)
    array.run()
    assert array.values.tolist() == [-np.inf, 0.1, 2.5, 1e300]
    assert values.tolist() == [2.5, -np.inf, 0.1, 1e300]
    big = SelfSortingArray(np.array([2**63 + 2, 2**63 + 1, 2**63], np.uint64), "bubble", seed=0)
    big.run()
    assert big.values.tolist() == [2**63, 2**63 + 1, 2**63 + 2]


def test_frozen_cells_are_drawn_in_number_or_with_replacement():
    generator = np.random.default_rng(0)
    assert {int(draw_frozen(10, 9, generator).sum()) for _ in range(20)} == {9}
    assert min(int(draw_frozen(10, 9, generator, replace=True).sum()) for _ in range(50)) < 9
    assert SelfSortingArray(range(10), frozen=4, seed=1).frozen.sum() == 4


def test_a_mix_deals_its_shares():
    array = SelfSortingArray(range(100), mix("bubble", "selection", shares=[3, 1]), seed=0)
    assert np.bincount(array.algotypes).tolist() == [75, 25]
    assert np.bincount(SelfSortingArray(range(100), mix(*KINDS), seed=0).algotypes).tolist() == [34, 33, 33]


@local_policy()
def astray(position, value, window, side):
    return position - 5


VALUES = np.arange(6)
BAD = {
    "two lengths": (lambda: SelfSortingArray(VALUES, ["bubble"] * 5), ValueError, "one a cell"),
    "direction of another length": (lambda: SelfSortingArray(VALUES, direction=[1] * 5), ValueError, "shape"),
    "mask of another length": (lambda: SelfSortingArray(VALUES, frozen=np.zeros(5, bool)), ValueError, "shape"),
    "labels of another length": (lambda: SelfSortingArray(VALUES, labels=[0, 1]), ValueError, "labels"),
    "one value": (lambda: SelfSortingArray([1]), ValueError, "two or more"),
    "a table": (lambda: SelfSortingArray(np.eye(3)), ValueError, "one dimension"),
    "NaN": (lambda: SelfSortingArray([1.0, np.nan]), ValueError, "NaN"),
    "words": (lambda: SelfSortingArray(["b", "a"]), TypeError, "real numbers"),
    "unknown algotype": (lambda: SelfSortingArray(VALUES, "merge"), ValueError, "'bubble', 'insertion', 'selection'"),
    "unknown schedule": (
        lambda: SelfSortingArray(VALUES, schedule="left to right"),
        ValueError,
        "'burst', 'sweep', 'round_robin', 'synchronous'",
    ),
    "unknown kind of frozen": (lambda: SelfSortingArray(VALUES, frozen_kind="stuck"), ValueError, "'movable'"),
    "no burst": (lambda: SelfSortingArray(VALUES, burst=0), ValueError, "burst must be"),
    "all frozen": (lambda: SelfSortingArray(VALUES, frozen=6), ValueError, "from 0 to 5"),
    "a mask of all": (lambda: SelfSortingArray(VALUES, frozen=np.ones(6, bool)), ValueError, "nobody would act"),
    "indices for a mask": (lambda: SelfSortingArray(VALUES, frozen=[1, 2]), TypeError, "mask of bool"),
    "direction 0": (lambda: SelfSortingArray(VALUES, direction=0), ValueError, "direction must be"),
    "a direction missing": (
        lambda: SelfSortingArray(VALUES, mix("bubble", "selection"), {"bubble": 1}),
        ValueError,
        "lacks selection",
    ),
    "mix of one": (lambda: mix("bubble"), ValueError, "two or more"),
    "mix of equals": (lambda: SelfSortingArray(VALUES, mix("bubble", 0)), ValueError, "another algotype"),
    "shares": (lambda: mix("bubble", "selection", shares=[1, -1]), ValueError, "positive"),
    "two user rules": (
        lambda: SelfSortingArray(VALUES, mix(coin_bubble, second_neighbour)),
        ValueError,
        "at most one rule",
    ),
    "radius": (lambda: local_policy(radius=0), ValueError, "radius must be"),
    "record": (lambda: SelfSortingArray(VALUES).run(record="everything"), ValueError, "'metrics', 'snapshots'"),
    "no swaps": (lambda: SelfSortingArray(VALUES).run(max_swaps=0), ValueError, "max_swaps"),
    "no steps": (lambda: SelfSortingArray(VALUES).step(0), ValueError, "n_activations"),
    "cell out of range": (lambda: SelfSortingArray(VALUES).activate([6]), IndexError, "0 and 5"),
    "negative seed": (lambda: SelfSortingArray(VALUES, seed=-1), ValueError, "negative"),
    "rule that goes astray": (
        lambda: SelfSortingArray(VALUES, astray, seed=0).run(),
        IndexError,
        r"'astray' of cell \d, at position \d, named position -\d in step \d+",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(call, error, message):
    check_refused(call, "bad input", errors=(error,))
    with pytest.raises(error, match=message):
        call()


def test_snapshots_beyond_two_gigabytes_are_refused_before_the_run(monkeypatch):
    array = SelfSortingArray(np.arange(3000)[::-1], "bubble", seed=0)
    with pytest.raises(MemoryError, match=r"4,498,500 swaps of 3,000 cells would take 108\.0 GB"):
        array.run(record="snapshots")
    assert array.activations == 0
    opposed = SelfSortingArray(range(100), mix("bubble", "selection"), {"bubble": 1, "selection": -1}, seed=0)
    with pytest.raises(MemoryError, match="lower max_swaps"):
        opposed.run(record="snapshots")
    monkeypatch.setattr(array_module, "LARGEST_SNAPSHOTS", 1000)
    with pytest.raises(MemoryError):
        SelfSortingArray(np.arange(20)[::-1], "bubble", seed=0).run(record="snapshots")


def test_a_fault_of_a_rule_leaves_the_array_usable():
    array = SelfSortingArray(VALUES[::-1], ["bubble"] * 5 + [astray], seed=0)
    with pytest.raises(IndexError):
        array.run()
    assert sorted(array.values) == VALUES.tolist()
    with pytest.raises(IndexError):
        array.run()
