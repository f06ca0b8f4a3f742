"""What only the study has: what is kept of a run, pairing, the exact claims, and that the sizes of presets are used."""

import numpy as np
import pandas as pd
import pytest

from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.kinetics.self_sorting import SelfSortingArray, delayed_gratification, inversions, mix
from interplay.studies.self_sorting import study
from interplay.studies.self_sorting.experiments import ALL, POINTS, damage, keep, runs_of, sorting

SMALL = study.configure("smoke", {"cells": 12, "runs": 4})
SEED = np.random.SeedSequence(3)


def test_what_is_kept_of_a_run_is_the_run():
    values = np.random.default_rng(0).permutation(30)
    trace = SelfSortingArray(values, "bubble", labels=mix(0, 1), seed=1).run()
    run = keep(trace)
    assert (run.swaps, run.inversions, run.errors) == (trace.swaps, inversions(values), 0)
    assert run.steps == (trace.comparisons, trace.comparisons + trace.swaps, trace.reads)
    assert run.detours == delayed_gratification(trace.me)
    assert run.peak == trace.aggregation.max()
    for curve, record in ((run.order, trace.sortedness), (run.clusters, trace.aggregation)):
        assert len(curve) == POINTS
        assert (curve[0], curve[-1]) == (record[0], record[-1])


def test_conditions_start_from_the_same_arrays():
    runs = {name: runs_of(SMALL, SEED, spec) for name, spec in CONDITIONS.items()}
    assert len({tuple(run.inversions for run in group) for group in runs.values()}) == 1
    assert len({run.inversions for run in runs["cells"]}) > 1


CONDITIONS = {
    "cells": {"algotype": "bubble"},
    "one by one": {"algotype": "selection", "burst": 1},
    "mixed": {"algotype": mix("bubble", "insertion")},
    "broken": {"algotype": "bubble", "frozen": 2, "frozen_kind": "immovable"},
    "classical": {"classical": "insertion"},
}


def test_errors_without_broken_cells_are_none_and_top_down_is_there():
    table = tabulate(damage(SMALL, SEED), 0)
    errors = table[table["metric"] == "monotonicity error"]
    assert set(errors["condition"]) == {f"{way}{sort}" for way in ("", "classical ") for sort in ALL[:3]}
    assert (errors.loc[errors["x"] == 0, "value"] == 0).all()
    assert (errors.loc[(errors["x"] == 3) & (errors["item"] == "immovable"), "value"] > 0).all()
    rises = table[(table["metric"] == "rise of delayed gratification") & (table["condition"] == "bubble")]
    detours = table[(table["metric"] == "delayed gratification") & (table["condition"] == "bubble")]
    assert rises["value"].tolist() == pytest.approx(np.diff(detours["value"]).tolist())


def test_the_control_is_the_higher_one_of_the_two_algotypes():
    table = tabulate(sorting(SMALL, SEED), 0)
    peaks = table[table["metric"] == "peak aggregation"].set_index("condition")["value"]
    assert peaks["bubble + selection, higher control"] == max(peaks["bubble"], peaks["selection"])


@pytest.mark.parametrize(
    ("claim", "metric"), [("Z1", "some run ends unsorted"), ("Z4-ties", "some run has other errors than top-down")]
)
def test_one_run_of_one_seed_refutes_what_is_said_of_every_run(claim, metric):
    conditions = ALL if claim == "Z1" else ALL[:2]

    def verdict(bad: float) -> Verdict:
        rows = [
            tabulate([Measurement(name, metric, bad if (seed, name) == (4, "insertion") else 0.0)], seed)
            for seed in range(5)
            for name in conditions
        ]
        return study.claims[claim].judge(pd.concat(rows, ignore_index=True))[0]

    assert verdict(0.0) is Verdict.HOLDS
    assert verdict(1.0) is Verdict.FAILS
