"""Measures by closed forms and slow references; classical sorts; batches; the environment."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.kinetics.self_sorting import (
    SelfSortingArray,
    aggregation,
    aggregation_curve,
    aggregation_peaks,
    batch_run,
    batch_traces,
    classical_sort,
    conflict_equilibrium,
    delayed_gratification,
    inversions,
    mix,
    monotonicity_error,
    sortedness,
)

KINDS = ("bubble", "insertion", "selection")
opposed = {"algotype": mix("bubble", "selection"), "direction": {"bubble": 1, "selection": -1}}


def test_sortedness_by_hand():
    assert sortedness([1, 2, 3, 4]) == 100
    assert sortedness([4, 3, 2, 1]) == 25
    assert sortedness([4, 3, 2, 1], -1) == 100
    assert sortedness([1, 1, 0, 0, 2]) == 80
    assert sortedness([[1, 2], [2, 1]]).tolist() == [100, 50]
    assert sortedness(np.array([0, 255, 1], np.uint8)) == pytest.approx(200 / 3)


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=30))
def test_inversions_are_those_of_all_pairs(values):
    expected = sum(values[i] > values[j] for i in range(len(values)) for j in range(i + 1, len(values)))
    assert inversions(values) == expected


def events(me):
    """Setbacks of a run as (rise, fall) by walking through it; None for a fall that did not come."""
    found, rise, fall = [], 0, 0
    for change in np.diff(me):
        if change > 0 and fall:
            found.append((rise, fall))
            rise, fall = 0, 0
        if change > 0:
            rise += change
        elif change < 0 and rise:
            fall -= change
    if rise:
        found.append((rise, fall or None))
    return found


@settings(max_examples=200)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=30))
def test_delayed_gratification_is_the_mean_over_setbacks(me):
    all_events = events(me)
    whole = [(fall - rise) / rise for rise, fall in all_events if fall]
    assert delayed_gratification(me) == pytest.approx(np.mean(whole) if whole else 0.0)
    text = [fall / rise for rise, fall in all_events if fall]
    assert delayed_gratification(me, minus_one=False) == pytest.approx(np.mean(text) if text else 0.0)
    quirk = sum(whole) if all_events and all_events[-1][1] is None else np.mean(whole) if whole else 0.0
    assert delayed_gratification(me, official=True) == pytest.approx(quirk)


def test_delayed_gratification_by_hand():
    assert delayed_gratification([9, 5, 5, 7, 7, 3, 4, 3]) == pytest.approx((1.0 + 0.0) / 2)
    assert delayed_gratification([5, 4, 3]) == 0
    for short in ([], [3]):
        with pytest.warns(RuntimeWarning, match="two or more records"):
            assert np.isnan(delayed_gratification(short))


def test_aggregation_by_hand_and_by_chance():
    assert aggregation([0, 0, 1, 1, 1]) == pytest.approx(3 / 5)
    assert aggregation([0, 1, 0, 1]) == 0
    halves = np.repeat([0, 1], 50)
    generator = np.random.default_rng(0)
    shuffled = aggregation(np.stack([generator.permutation(halves) for _ in range(4000)]))
    assert shuffled.mean() == pytest.approx(49 / 100, abs=4 * shuffled.std() / np.sqrt(4000))
    with pytest.raises(ValueError, match="two or more types"):
        aggregation([1, 1, 1])


def test_curves_and_peaks_of_aggregation():
    traces = batch_traces({"algotype": mix("bubble", "selection"), "n": 30}, 10)
    curve = aggregation_curve(traces[0], 101)
    assert curve[0] == traces[0].aggregation[0]
    assert curve[-1] == traces[0].aggregation[-1]
    assert len(curve) == 101
    peaks = aggregation_peaks(traces)
    mean = np.mean([aggregation_curve(trace) for trace in traces], axis=0)
    assert peaks.of_mean == mean.max() == mean[round(100 * peaks.at)]
    assert peaks.per_run == pytest.approx(np.mean([trace.aggregation.max() for trace in traces]))
    assert peaks.per_run >= peaks.of_mean
    for points, size in ((1, 30), (101, 2)):
        with pytest.raises(ValueError, match=r"points must be|no swap"):
            aggregation_curve(SelfSortingArray(range(size), mix("bubble", "selection"), seed=0).run(), points)
    alone = SelfSortingArray(range(9, -1, -1), "bubble", seed=0).run()
    assert np.isnan(alone.aggregation).all()
    with pytest.raises(ValueError, match="two or more groups; all cells are 'bubble'"):
        aggregation_curve(alone)


def test_labels_without_meaning_change_no_run():
    values = np.random.default_rng(0).permutation(40)
    plain = SelfSortingArray(values, "bubble", seed=3).run()
    labelled = SelfSortingArray(values, "bubble", labels=mix("left", "right"), seed=3).run()
    assert (plain.places == labelled.places).all()
    assert np.bincount(labelled.groups).tolist() == [20, 20]
    assert labelled.kinds == ("left", "right")
    assert (labelled.aggregation == aggregation(labelled.groups[labelled.arrangements()])).all()


def test_the_equilibrium_of_opposite_goals_is_read_off_the_tail():
    trace = batch_traces({**opposed, "n": 40, "max_swaps": 2000}, 1)[0]
    found = conflict_equilibrium(trace, tail=0.25)
    late = trace.sortedness[-500:]
    assert found.sortedness == late[-1] == trace.final_sortedness
    assert (found.level, found.spread) == (late.mean(), late.std())
    line = np.polynomial.Polynomial.fit(np.arange(500), late, 1)
    assert found.drift == pytest.approx(line(499) - line(0))
    assert found.settled == (trace.stopped_because == "quiescent")
    with pytest.raises(ValueError, match="tail must be"):
        conflict_equilibrium(trace, tail=0)


def slow_sort(values, kind, frozen, movable):
    """The textbook procedures as lists, with commands that fail; returns comparisons and states after each swap."""
    items = [(value, bool(broken)) for value, broken in zip(values, frozen, strict=True)]
    n, comparisons, states = len(items), 0, []

    def command(initiator, partner):
        if items[initiator][1] or (items[partner][1] and not movable):
            return False
        items[initiator], items[partner] = items[partner], items[initiator]
        states.append([value for value, _ in items])
        return True

    if kind == "bubble":
        for done in range(n - 1):
            swapped = False
            for j in range(n - 1 - done):
                comparisons += 1
                if items[j][0] > items[j + 1][0]:
                    swapped |= command(j, j + 1)
            if not swapped:
                break
    elif kind == "insertion":
        for i in range(1, n):
            for j in range(i, 0, -1):
                comparisons += 1
                if items[j - 1][0] <= items[j][0] or not command(j, j - 1):
                    break
    else:
        for i in range(n - 1):
            smallest = i
            for j in range(i + 1, n):
                comparisons += 1
                if items[j][0] < items[smallest][0]:
                    smallest = j
            if smallest != i:
                command(smallest, i)
    return comparisons, states


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=14),
    st.sampled_from(KINDS),
    st.sampled_from(["movable", "immovable"]),
)
def test_classical_sorts_are_the_textbook_procedures(items, kind, frozen_kind):
    values, frozen = [value for value, _ in items], [broken for _, broken in items]
    frozen[0] = False
    trace = classical_sort(values, kind, np.array(frozen), frozen_kind)
    comparisons, states = slow_sort(values, kind, frozen, frozen_kind == "movable")
    assert trace.comparisons == trace.reads == comparisons
    assert trace.start[trace.arrangements()].tolist() == states
    assert trace.me.tolist() == [monotonicity_error(state) for state in states]
    if not any(frozen):
        assert trace.final.tolist() == sorted(values)


def test_classical_sorts_go_down_too_and_refuse_what_they_do_not_know():
    assert classical_sort([3, 1, 2], "insertion", direction=-1).final.tolist() == [3, 2, 1]
    with pytest.raises(ValueError, match="unknown algotype"):
        classical_sort([1, 2], "quick")
    with pytest.raises(ValueError, match="direction must be"):
        classical_sort([1, 2], "bubble", direction=2)


@pytest.mark.parametrize("seed", range(5))
def test_insertion_cells_make_the_swaps_of_the_textbook_in_its_order(seed):
    values = np.random.default_rng(seed).integers(0, 20, 30)
    cells, top_down = SelfSortingArray(values, "insertion", seed=seed).run(), classical_sort(values, "insertion")
    assert (cells.places == top_down.places).all()


def test_accountings_differ_as_they_say():
    values = np.random.default_rng(0).permutation(30)
    cells, top_down = SelfSortingArray(values, "insertion", seed=1).run(), classical_sort(values, "insertion")
    assert cells.steps("paper") == cells.comparisons == inversions(values)
    assert cells.steps("symmetric") == 2 * inversions(values)
    assert top_down.steps("paper") == top_down.steps("symmetric") == top_down.comparisons + top_down.swaps
    assert top_down.steps("all_reads") == top_down.comparisons
    assert cells.steps("all_reads") == cells.reads > 10 * top_down.reads
    with pytest.raises(ValueError, match="accounting must be"):
        cells.steps("honest")


def test_reads_count_every_value_looked_at():
    array = SelfSortingArray([0, 1, 2, 5, 4], "insertion", frozen=np.array([False, True, False, False, False]))
    # The cell at 4 looks at 0, 2 and 5 and passes the frozen one; that at 0 has nothing to look at.
    assert array.activate([4]).reads == 3
    assert array.activate([0]).reads == 0
    bubble = SelfSortingArray([0, 1, 2], "bubble")
    assert [bubble.activate([0], side).reads for side in (-1, 1)] == [0, 1]
    selection = SelfSortingArray([0, 1, 2], "selection")
    assert [selection.activate([2]).reads for _ in range(4)] == [1, 1, 0, 0]


def test_a_batch_does_not_depend_on_its_workers_and_pairs_its_runs():
    spec = {"algotype": "bubble", "n": 20, "frozen": 3, "frozen_kind": "immovable"}
    one, two = (batch_run(spec, n_runs=6, n_jobs=jobs, seed=4) for jobs in (1, 2))
    pd.testing.assert_frame_equal(one, two)
    assert batch_run(spec, 3, seed=4).equals(one[:3])
    assert not batch_run(spec, 6, seed=5).equals(one)
    other = batch_traces({**spec, "algotype": "selection", "burst": 1}, 6, seed=4)
    classical = batch_traces({"classical": "bubble", "n": 20, "frozen": 3, "frozen_kind": "immovable"}, 6, seed=4)
    for cells, top_down in zip(other, classical, strict=True):
        assert (cells.start == top_down.start).all()
    # Broken in place: the classical sort and the cells are walled in by the same cells.
    bubbles = batch_traces(spec, 6, seed=4)
    assert [trace.final.tolist() for trace in bubbles] == [trace.final.tolist() for trace in classical]


def test_a_row_of_a_batch_is_the_run():
    values = np.repeat(np.arange(5), 4)
    row = batch_run({"algotype": mix("bubble", "selection"), "values": values, "burst": 2}, 1, seed=1).iloc[0]
    trace = batch_traces({"algotype": mix("bubble", "selection"), "values": values, "burst": 2}, 1, seed=1)[0]
    assert sorted(trace.start) == values.tolist()
    assert row["swaps"] == trace.swaps
    assert row["aggregation_peak"] == trace.aggregation.max()
    assert trace.aggregation[round(row["aggregation_peak_at"] * trace.swaps) - 1] == row["aggregation_peak"]
    assert row["delayed_gratification"] == delayed_gratification(trace.me)
    still = batch_run({"n": 10, "values": lambda generator: np.arange(10)}, 1).iloc[0]
    assert (still["swaps"], still["stopped_because"]) == (0, "quiescent")
    assert np.isnan(still["delayed_gratification"])
    with pytest.raises(ValueError, match="spec names algotipe"):
        batch_run({"algotipe": "bubble"}, 1)
    with pytest.raises(ValueError, match="spec names burst"):
        batch_run({"classical": "bubble", "burst": 1}, 1)


def test_a_trace_speaks_for_itself():
    trace = SelfSortingArray([2, 0, 1], mix("bubble", "selection"), seed=0).run(record="snapshots")
    assert repr(trace).startswith("SortTrace(3 cells, ")
    frame = trace.to_frame()
    assert list(frame) == ["swap", "left", "right", "activations", "me", "sortedness", "aggregation"]
    assert len(frame) == trace.swaps
    fields = trace.to_dict()
    assert fields["swaps"] == trace.swaps
    assert (fields["values"][-1] == trace.final).all()
    assert trace.arrangements([0]).tolist() == [[0, 1, 2]]
    for bad in ([-1], [trace.swaps + 1], [1, 0]):
        with pytest.raises(ValueError, match="after must increase"):
            trace.arrangements(bad)


def test_to_xarray_has_the_record_or_says_what_to_install(monkeypatch):
    trace = SelfSortingArray([2, 0, 1], "bubble", seed=0).run(record="snapshots")
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match="pip install xarray"):
        trace.to_xarray()


def test_the_environment_is_lazy_and_names_its_extra():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import interplay.kinetics.self_sorting as package\n"
        "try: package.SelfSortingEnv\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'interplay[rl]'" in done.stdout
