"""What is special about the study of reaction kinetics: experiments draw from branches of the seed and report
baselines."""

import numpy as np
import pandas as pd
import pytest

from interplay.evidence.study import tabulate
from interplay.studies.reaction_kinetics import experiments, study

CONFIG = study.configure("smoke")


@pytest.fixture(scope="module")
def table():
    return study.run_trial(CONFIG, 0)


def test_every_experiment_is_repeatable_on_its_own(table):
    rows = []
    for number, experiment in enumerate(experiments.IN_ORDER):
        rows += experiment(CONFIG, np.random.SeedSequence([0, number]))
    pd.testing.assert_frame_equal(tabulate(rows, 0), table, check_exact=True)


@pytest.mark.parametrize(
    ("condition", "metric"),
    [
        ("well-mixed SSA", "delta"),
        ("well-mixed SSA", "decay exponent"),
        ("well-mixed SSA", "spectrum"),
        ("rate equation", "predator density"),
        ("mean field", "width exponent"),
        ("RockPaperScissors, exchange 1", "correlation length"),
    ],
)
def test_baselines_are_measured(table, condition, metric):
    assert ((table["condition"] == condition) & (table["metric"] == metric)).any()


def test_all_mobilities_have_all_their_runs(table):
    lost = table[table["metric"] == "species lost"]
    assert lost.groupby("condition")["item"].nunique().eq(CONFIG.diversity_runs).all()
    assert lost["condition"].nunique() == len(CONFIG.mobilities)


def test_baselines_say_what_mean_field_says(table):
    slope = table[(table["condition"] == "well-mixed SSA") & (table["metric"] == "decay exponent")]["value"].item()
    assert slope == pytest.approx(-1, abs=0.1)
    predators = table[(table["condition"] == "rate equation") & (table["metric"] == "predators")]["value"].to_numpy()
    assert predators[-1] == pytest.approx(0.4, abs=0.01)  # spirals into (1 - death / predation) / (predation + 1)


def test_the_light_cone_is_never_crossed():
    # Ten standard deviations of critical spreading, R2 ~ 2 t^(2/z), fit on either side of the seed.
    for time in (61.0, 400.0, 1000.0, 10_000.0):
        assert experiments._light_cone(time) / 2 > 5 * np.sqrt(2 * time**1.2652)
