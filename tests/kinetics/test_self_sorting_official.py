"""Agreement with the official code, Zhangtaining/cell_research at commit 1fd2bd5, swap by swap.

How `self_sorting_official.json` was made: the released cell objects were built as its scripts build them, without
starting their threads; `move()` was called on one cell at a time, in the order of `turns` below, with `random.random`
replaced so that bubble cells look to the side given there. Immovable cells restore the condition that is commented out
in its `swap`. A decreasing insertion cell resets its scan to -1 behind a frozen cell; with negative values (`offset`)
that is the mirror of what increasing cells do. Every swap was noted as [turn, left, right]. The measures are outputs of
its analysis functions on the lists that stand beside them.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from interplay.kinetics.self_sorting import (
    SelfSortingArray,
    aggregation,
    delayed_gratification,
    monotonicity_error,
)

RECORD = json.loads(Path(__file__).with_name("self_sorting_official.json").read_text(encoding="utf-8"))


def turns(cells: int, count: int, seed: int) -> np.ndarray:
    """Cell and side of each turn, by a linear congruential generator."""
    rows = []
    for _ in range(count):
        seed = (1103515245 * seed + 12345) % 2**31
        rows.append(((seed >> 8) % cells, 1 if (seed >> 20) & 1 else -1))
    return np.array(rows)


def name(case: dict) -> str:
    return f"{'+'.join(case['kinds'])}, {case['directions']}, {len(case['frozen'])} {case['frozen_kind']}"


@pytest.mark.parametrize("case", RECORD["cases"], ids=name)
def test_every_swap_is_that_of_the_official_cells(case):
    n = case["n"]
    array = SelfSortingArray(
        [(7 * i + 3) % n // case["copies"] + case["offset"] for i in range(n)],
        [case["kinds"][i % len(case["kinds"])] for i in range(n)],
        np.resize(case["directions"], n),
        np.isin(np.arange(n), case["frozen"]),
        case["frozen_kind"],
    )
    order = turns(n, case["turns"], case["seed"])
    trace = array.activate(order[:, 0], order[:, 1])
    acting = np.cumsum(~np.isin(order[:, 0], case["frozen"]))
    expected = np.array(case["swaps"])
    assert trace.places.tolist() == expected[:, 1:].tolist()
    assert trace.activations_at.tolist() == acting[expected[:, 0]].tolist()
    assert array.arrangement.tolist() == case["final"]
    assert trace.comparisons == case["comparisons"]


def test_the_record_covers_every_rule_direction_and_kind_of_frozen_cell():
    pure = {
        (case["kinds"][0], tuple(set(case["directions"])), case["frozen_kind"] if case["frozen"] else "none")
        for case in RECORD["cases"]
        if len(set(case["kinds"])) == 1
    }
    expected = {
        (kind, direction, frozen)
        for kind in ("bubble", "insertion", "selection")
        for direction in ((1,), (-1,))
        for frozen in ("none", "movable", "immovable")
    }
    assert expected <= pure


@pytest.mark.parametrize(("me", "expected"), RECORD["delayed_gratification"])
def test_delayed_gratification_is_the_official_number(me, expected):
    assert delayed_gratification(me, official=True) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("types", "expected"), RECORD["aggregation"])
def test_aggregation_is_the_official_number(types, expected):
    assert aggregation(types) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("values", "expected"), RECORD["monotonicity"])
def test_monotonicity_error_is_the_official_number(values, expected):
    assert monotonicity_error(values) == expected
