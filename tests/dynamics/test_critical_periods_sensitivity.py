"""Sweeps: the table against networks one by one, and the window of made-up sensitivities."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from interplay.dynamics.critical_periods import (
    DeficitSchedule,
    TwoPathwayLinear,
    completion_sweep,
    critical_window,
    hierarchy,
    pathway_sweep,
    sensitivity,
    target_modes,
    train_pathways,
)

NOISE = {0: 0.3, 1: -0.1, 2: 0.5}


def made_up(schedules, seeds):
    """A loss of 1 and the seed's noise, plus harm that falls with the onset, differently for each seed."""
    return [
        1
        + NOISE[seed]
        + (0 if schedule is None else schedule.length * math.exp(-schedule.start / 10) * (1 + seed / 10))
        for schedule, seed in zip(schedules, seeds, strict=True)
    ]


def test_differences_are_paired_by_seed():
    table = sensitivity(made_up, [0, 10, 20], [5, 9], [0, 1, 2], steps=29)
    assert len(table) == 6
    row = table[(table["onset"] == 10) & (table["length"] == 9)].iloc[0]
    harms = 9 * math.exp(-1) * np.array([1.0, 1.1, 1.2])
    assert row["difference"] == pytest.approx(harms.mean())
    low, high = stats.t.interval(0.95, 2, loc=harms.mean(), scale=stats.sem(harms))
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    values = 1 + np.array([0.3, -0.1, 0.5]) + harms
    assert row["mean"] == pytest.approx(values.mean())
    assert row["median"] == pytest.approx(np.median(values))
    assert row["upper_quartile"] == pytest.approx(np.quantile(values, 0.75))
    alone = sensitivity(made_up, [0], [5], [1])
    assert alone[["low", "high"]].isna().all(axis=None)


def test_schedules_are_made_as_asked():
    seen = []

    def train(schedules, seeds):
        seen.extend(schedules)
        return [0.0] * len(seeds)

    sensitivity(train, [3], [4], [0, 1], make=lambda onset, length: DeficitSchedule(onset, length, "bernoulli", 0.9))
    assert seen[:2] == [None, None]
    assert seen[2:] == [DeficitSchedule(3, 4, "bernoulli", 0.9)] * 2


def test_the_window_closes_where_the_harm_has_fallen_to_the_fraction():
    onsets = [0, 10, 20, 30, 40]
    table = pd.DataFrame({"onset": onsets, "length": 5, "difference": [-0.6, -1.0, -0.8, -0.2, 0.0]})
    table = table.assign(low=table["difference"] - 0.1, high=table["difference"] + 0.1)
    window = critical_window(table, 0.5).iloc[0]
    assert (window["peak"], window["change"], window["opens"]) == (10, -1.0, 0)
    assert window["closes"] == pytest.approx(25)
    assert critical_window(table, 0.7).iloc[0]["opens"] == pytest.approx(2.5)
    assert critical_window(table[table["onset"] < 25]).iloc[0]["closes"] == math.inf
    unsure = table.assign(low=table["difference"] - 2, high=table["difference"] + 2)
    assert critical_window(unsure)[["opens", "closes"]].isna().all(axis=None)


def test_the_window_of_a_race_closes_when_the_mode_is_learned():
    x, y = hierarchy()
    modes = target_modes(x, y)

    def train(schedules, seeds):
        network = TwoPathwayLinear.balanced(modes, depth=2, seeds=seeds, width=10)
        deficits = [{} if schedule is None else {1: schedule} for schedule in schedules]
        run = train_pathways(network, x, y, steps=400, lr=0.02, deficits=deficits, record_every=400)
        return run.share[-1, :, 1, 0].tolist()

    table = sensitivity(train, range(0, 200, 20), [50], [0, 1, 2], steps=400)
    window = critical_window(table).iloc[0]
    learned = math.log(3.87 / 2 / 0.01) / (2 * 3.87 * 0.02)  # when the logistic curve of two alike is half-way
    assert window["opens"] == 0
    assert learned - 40 < window["closes"] < learned + 20


def test_the_pathway_sweep_is_made_of_single_networks():
    table = pathway_sweep([2, 3], [None, 10], 30, [4, 9], steps=80, width=12)
    assert len(table) == 2 * 2 * 2 * 8
    x, y = hierarchy()
    network = TwoPathwayLinear.balanced(target_modes(x, y), depth=3, seeds=[9], width=12)
    run = train_pathways(network, x, y, steps=80, lr=0.01, deficits=[{1: DeficitSchedule(10, 30)}])
    rows = table.query("depth == 3 and onset == 10 and seed == 9").sort_values("mode")
    np.testing.assert_allclose(rows["second"], run.modes[-1, 0, 1], rtol=1e-4)
    np.testing.assert_allclose(rows["share"], run.share[-1, 0, 1], rtol=1e-4)
    free = table[table["onset"].isna()]
    np.testing.assert_allclose(free["share"], 0.5, rtol=1e-5)


def test_the_completion_sweep_is_made_of_single_runs():
    settings = {"n": 10, "ranks": (3, 2), "entries": 60, "further": 30, "lr": 1.0, "scale": 0.1}
    table = completion_sweep([1, 2], [0, 20], [3, 5], **settings)
    assert len(table) == 8
    alone = completion_sweep([2], [20], [5], **settings)
    row = table.query("depth == 2 and switch == 20 and seed == 5")
    np.testing.assert_allclose(row["error"], alone["error"], rtol=1e-4)
    np.testing.assert_allclose(row["train_loss"], alone["train_loss"], rtol=1e-4)
    assert table["error"].nunique() == 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sensitivity(made_up, [], [5], [0]), "onsets must have one entry"),
        (lambda: sensitivity(made_up, [0], [5], []), "seeds must have one entry"),
        (lambda: sensitivity(made_up, [90], [20], [0], steps=100), "ends at step 110"),
        (lambda: sensitivity(made_up, [-1], [20], [0]), "start=-1"),
        (lambda: sensitivity(lambda schedules, seeds: [1.0], [0], [5], [0]), "one number for each of 2 runs"),
        (lambda: critical_window(pd.DataFrame(), 0.5), "table lacks difference"),
        (lambda: critical_window(pd.DataFrame(), 1.5), "fraction must lie between 0 and 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
