"""What only the study has: how cells are decided, what racers share, what would refute the claims."""

import numpy as np
import pandas as pd
import pytest
import torch

from interplay.dynamics.curl_descent import (
    TwoLayerTeacherStudent,
    critical_fraction_readout_flips,
    critical_ratio_input_flips,
    stability_matrix,
)
from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.primitives.randomness import generator_of
from interplay.studies.curl_descent import study
from interplay.studies.curl_descent.experiments import (
    MARGIN,
    Points,
    Race,
    beyond_the_curve,
    both_gains,
    gains_of,
    race,
    size_of,
    stays_on_the_manifold,
    sweeps,
)

POPULATION = Points(0, 0, 0.1)
TRACK = Race(seed=3, inputs=12, hidden=4, points=40, lr=0.1, horizon=60)


def test_sizes_have_the_ratio_and_never_lose_a_layer():
    assert size_of(120, 1.0) == (60, 60)
    assert size_of(120, 0.2) == (20, 100)
    assert size_of(10, 1e-6) == (1, 9)
    assert size_of(10, 1e6) == (9, 1)


def test_gains_flip_or_freeze_so_many():
    assert gains_of(4, [0.0, 0.5, 1.0]).tolist() == [[1, 1, 1, 1], [-1, -1, 1, 1], [-1, -1, -1, -1]]
    assert gains_of(4, [0.25], gain=0.0).tolist() == [[0, 1, 1, 1]]
    inputs, hidden = both_gains("readout", 3, 2, [0.0, 0.5])
    assert inputs.tolist() == [[1, 1, 1]] * 2
    assert hidden.tolist() == [[1, 1], [-1, 1]]


def test_distance_from_the_curve_is_zero_on_it_and_positive_where_unstable():
    edge = critical_ratio_input_flips(0.3)
    assert beyond_the_curve("input", edge, 0.3) == pytest.approx(0)
    assert beyond_the_curve("input", edge * MARGIN, 0.3) == pytest.approx(np.log(MARGIN))
    edge = critical_fraction_readout_flips(2.0)
    assert beyond_the_curve("readout", 2.0, edge / MARGIN) == pytest.approx(-np.log(MARGIN))
    assert beyond_the_curve("input", 9.0, 0.0) == -np.inf


@pytest.mark.parametrize("layer", ["input", "readout"])
def test_networks_stay_on_the_manifold_where_their_matrix_is_positive(layer):
    fractions = [0.0, 0.1, 0.3, 0.6, 1.0]
    for inputs, hidden in ((6, 30), (18, 18), (30, 10)):
        generator = generator_of(0, inputs)
        network = TwoLayerTeacherStudent.draw(inputs, hidden, batch=5, generator=generator).at_teacher()
        gains = both_gains(layer, inputs, hidden, fractions)
        smallest = torch.linalg.eigvalsh(stability_matrix(network.teacher_weight1, network.teacher_weight2, *gains))[
            :, 0
        ]
        clear = smallest.abs() > 0.05 * smallest[0]  # the nearer to the edge, the longer an error takes to decide
        assert clear.sum() >= 4
        before = network.weight1.detach().clone()
        stays = stays_on_the_manifold(network, POPULATION, generator, gains, 6000)
        assert stays[clear].tolist() == (smallest[clear] > 0).tolist()
        # Later stretches train copies, the first one the networks themselves.
        assert (network.weight1 - before).abs().max() > 0


def test_racers_start_from_the_same_weights_and_points():
    run = TRACK.run([2.0, 2.0, 1.0], [0, 1, 0])
    again = TRACK.run([1.0], [0])
    assert run.loss[0, 0] == run.loss[0, 1]
    assert torch.equal(run.loss[:, 2], again.loss[:, 0])
    assert not torch.equal(run.loss[:, 0], run.loss[:, 1])
    other = Race(seed=4, inputs=12, hidden=4, points=40, lr=0.1, horizon=60).run([1.0], [0])
    assert not torch.equal(again.loss, other.loss)


def test_frozen_and_noisy_racers_are_neither_plain_nor_flipped():
    run = TRACK.run([2.0] * 4, [0, 1, 1, 1], frozen=[False, False, True, False], noisy=[False, False, False, True])
    assert (run.loss[0] == run.loss[0, 0]).all()
    assert len(set(run.loss[-1].tolist())) == 4


def test_the_sweeps_begin_with_the_race():
    rows = [*race(TRACK, [2.0], 2.0, [1e-2], 2), *sweeps(TRACK, 2.0, [2], [20])]
    table = tabulate(rows, 0)
    first = table[(table["metric"] == "steps to 0.001") & (table["item"] == "draw 0")]
    steps = first.set_index("condition")["value"]
    flipped = table[table["metric"] == "steps to 0.001 by flipped neurons"].set_index("x")["value"]
    points = table[table["metric"] == "steps to 0.001 by points"].set_index(["condition", "x"])["value"]
    assert flipped[0] == steps["GD"] == points["GD", 40]
    assert flipped[1] == steps["curl"] == points["curl", 40]
    assert set(flipped.index) == {0, 1, 2}
    assert set(points.index.get_level_values("x")) == {20, 40}


def judged(claim: str, value: float, changes: dict[int, float]) -> Verdict:
    """The verdict on `claim` if every measurement of it were `value` but those of some seeds."""
    rows = []
    for part in study.claims[claim].test.parts:
        metric, _, condition = part.description.removeprefix("seeds with ").partition(": ")
        rows += [tabulate([Measurement(condition, metric, changes.get(seed, value))], seed) for seed in range(8)]
    return study.claims[claim].judge(pd.concat(rows, ignore_index=True))[0]


def test_one_seed_that_ends_high_refutes_that_all_end_low():
    assert judged("small-curl-harmless", 0.0, {}) is Verdict.HOLDS
    assert judged("small-curl-harmless", 0.0, {5: 1.0}) is Verdict.FAILS
