"""What is special about the study of adaptive reservoirs: equal grids, steps kept apart, controls that are controls."""

import numpy as np
import pytest

from interplay.evidence.study import StudyError
from interplay.reservoirs.adaptive_reservoir.metrics import nrmse
from interplay.studies.adaptive_reservoir import study
from interplay.studies.adaptive_reservoir.conditions import Condition, Grid, Networks
from interplay.studies.adaptive_reservoir.scoring import (
    MEMORY,
    NARMA,
    Found,
    Series,
    all_series,
    evaluate,
    segments,
    steps_in_all,
)

CONFIG = study.configure("smoke")


@pytest.fixture(scope="module")
def networks():
    return Networks(CONFIG, 0)


@pytest.fixture(scope="module")
def memory():
    return all_series(CONFIG, 0)["memory"]


@pytest.mark.parametrize("preset", ["smoke", "cpu", "paper"])
def test_every_condition_tries_as_many_settings(preset):
    config = study.configure(preset)
    conditions = Networks(config.model_copy(update={"units": 40}), 0).conditions()
    assert len({len(condition.first) * len(condition.second) for condition in conditions}) == 1


def test_segments_do_not_overlap_and_fill_the_series(memory):
    train, validation, test = segments(CONFIG)
    assert (train.start, train.stop, validation.stop) == (CONFIG.washout, validation.start, test.start)
    assert test.stop == len(memory.inputs) == steps_in_all(CONFIG)
    outputs = all_series(study.configure("cpu", {"series": ("mackey-glass", "lorenz")}), 0)
    for series in outputs.values():
        for wanted in series.outputs.values():
            assert len(wanted) == len(series.inputs)


def test_forecasts_ask_for_the_future():
    config = study.configure("smoke", {"series": ("mackey-glass", "lorenz")})
    for series in all_series(config, 0).values():
        for metric, wanted in series.outputs.items():
            ahead = int(metric.split(", ")[1].split()[0])
            np.testing.assert_array_equal(wanted[:-ahead], series.inputs[ahead:])


def test_adaptation_never_sees_validation_or_test(networks, memory):
    seen = segments(CONFIG)[0].stop
    other = memory.inputs.copy()
    other[seen:] = 5.0
    changed = Series(other, memory.outputs, memory.input_scaling)
    for mode in ("online", "one_step", "threshold"):
        one, two = (networks.adapted(series, 2.0, 0.4, mode)[0] for series in (memory, changed))
        np.testing.assert_array_equal(one.links().toarray(), two.links().toarray())
        np.testing.assert_array_equal(one.threshold, two.threshold)


def test_the_readout_never_sees_validation_or_test(networks, memory):
    """Where training targets are noise, nothing is recalled of the test, however well it could be."""
    train = segments(CONFIG)[0]
    wanted = memory.outputs[MEMORY].copy()
    wanted[train] = np.random.default_rng(1).normal(size=wanted[train].shape)
    reservoir = networks.static(memory, 2.0, 1.0)
    blind = evaluate(CONFIG, reservoir, Series(memory.inputs, {MEMORY: wanted}, memory.input_scaling))[MEMORY]
    seeing = evaluate(CONFIG, reservoir, memory)[MEMORY]
    assert blind.test < 1 < seeing.test


def test_values_are_those_of_the_test_steps(networks):
    series = all_series(CONFIG, 0)["narma"]
    config = CONFIG.model_copy(update={"ridges": (1e-5,)})
    reservoir = networks.static(series, 2.0, 1.0)
    states, (train, _, test) = reservoir.run(series.inputs), segments(config)
    wanted = series.outputs[NARMA]
    design = np.c_[states[train] - states[train].mean(0)]
    weights = np.linalg.solve(design.T @ design + 1e-5 * np.eye(len(design.T)), design.T @ (wanted[train]))
    predicted = (states[test] - states[train].mean(0)) @ weights + wanted[train].mean()
    assert evaluate(config, reservoir, series)[NARMA].test == pytest.approx(nrmse(wanted[test], predicted), rel=1e-4)


def test_validation_chooses_and_test_is_reported():
    found = {
        (1.0, 1.0): {MEMORY: Found(5.0, 1.0), NARMA: Found(0.5, 0.1)},
        (2.0, 1.0): {MEMORY: Found(4.0, 9.0), NARMA: Found(0.4, 0.9)},
    }
    grid = Grid(Condition("static", lambda *_: None, (1.0, 2.0), (1.0,)), found)
    assert grid.best(MEMORY) == (1.0, 1.0)
    assert grid.test(MEMORY, grid.best(MEMORY)) == 1.0
    assert grid.best(NARMA) == (2.0, 1.0)  # errors are better small
    assert grid.best(NARMA, 1.0) == (2.0, 1.0)


def test_conditions_share_links_and_input_weights(networks, memory):
    adapted = networks.adapted(memory, 2.0, 0.4, "online")[0]
    for other in (
        networks.static(memory, 4.0, 1.4),
        networks.shuffled(memory, 2.0, 0.4),
        networks.pooled(memory, 2.0, 0.4),
    ):
        np.testing.assert_array_equal(other.links().indices, adapted.links().indices)
        np.testing.assert_array_equal(other.input_weights, adapted.input_weights)


def test_controls_keep_what_they_claim_to_keep(networks, memory):
    adapted = networks.adapted(memory, 2.0, 0.4, "online")[0]
    pooled, shuffled = networks.pooled(memory, 2.0, 0.4), networks.shuffled(memory, 2.0, 0.4)
    assert pooled.incoming_inhibition().sum() == pytest.approx(adapted.incoming_inhibition().sum())
    start = networks.base.rescaled(gain=2.0).incoming_inhibition()
    linked = start > 0

    def factors(reservoir):
        return reservoir.incoming_inhibition()[linked] / start[linked]

    assert np.ptp(factors(pooled)) < 1e-9
    assert not np.allclose(factors(shuffled), factors(adapted))
    assert set(factors(shuffled).round(9)) <= set(factors(adapted).round(9)) | {1.0}


def test_the_radius_is_restored_where_it_should_be(networks, memory):
    for balance in CONFIG.balances:
        matrix = networks.refixed(memory, 3.0, balance).links().toarray()
        assert np.abs(np.linalg.eigvals(matrix)).max() == pytest.approx(3.0)


def test_balances_must_span_what_the_claim_compares():
    with pytest.raises(StudyError, match="balances must hold one up to"):
        study.configure("cpu", {"balances": (1.0, 1.4)})


def test_gains_over_the_static_network_are_those_of_the_scores():
    table = study.run_trial(CONFIG, 0)
    value = table.set_index(["condition", "metric"])["value"]
    gain = table[(table["metric"] == "gain over static / %") & (table["item"] == NARMA)].set_index("condition")["value"]
    expected = 100 * (value["static", NARMA] / value["adapted", NARMA] - 1)
    assert gain["adapted"] == pytest.approx(expected)
    tried = table[table["metric"] == "settings tried"]
    assert len(tried) == 8
    assert tried["value"].nunique() == 1
