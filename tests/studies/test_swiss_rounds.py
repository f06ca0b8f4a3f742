"""What only the study has: the fields that it makes, the table that it ships, and what would refute the claims."""

import numpy as np
import pandas as pd
import pytest

from interplay.assets.estimator_scores import compute_scores, estimator_scores
from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.games.swiss_rounds import baselines
from interplay.studies.swiss_rounds import study
from interplay.studies.swiss_rounds.experiments import (
    auc,
    discordant,
    equal_field,
    estimator_table,
    synthetic_table,
    tau,
)


def test_the_shipped_table_is_what_training_gives():
    shipped = estimator_scores()
    assert shipped.shape == (26, 24)
    assert shipped.notna().all().all()
    names = ["Gaussian naive Bayes", "nearest centroid", "tree depth 2", "1 neighbour", "majority class"]
    tables = ["iris", "wine", "digits few", "moons noise 0.3"]
    again = compute_scores(names, tables)
    # Another linear algebra library may round a sample or two to the other side.
    pd.testing.assert_frame_equal(again, shipped.loc[names, tables], check_names=False, rtol=0, atol=0.01)
    with pytest.raises(KeyError):
        compute_scores(["no such classifier"], tables)


def test_a_table_of_the_user_takes_its_place(tmp_path):
    estimator_scores().iloc[:5, :4].to_csv(tmp_path / "mine.csv")
    assert estimator_table(str(tmp_path / "mine.csv"), False).scores.shape == (5, 4)
    assert estimator_table("", False).scores.shape == (26, 24)


def test_specialists_are_as_strong_as_generalists():
    field = equal_field(0, 15, 14, 38)
    np.testing.assert_allclose(field.scores.mean(1), 0, atol=1e-12)
    rates = baselines(field.scores)["mean win rate"].to_numpy()
    assert abs(rates[field.generalist].mean() - rates[~field.generalist].mean()) < 0.05
    assert auc(field, -field.scores.std(1)) > 0.95
    assert field.generalist.sum() == 15


def test_synthetic_abilities_order_the_mean():
    table, ability = synthetic_table(0, 29, 38)
    assert table.scores.shape == (29, 38)
    assert tau(table.scores.mean(1), ability) > 0.7
    assert discordant(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == 1


def test_claims_can_fail():
    rows = [
        Measurement("single orders", "AUC", 0.5),
        *(Measurement(name, "AUC at least 0.75", 0.0) for name in ("random orders", "fixed order")),
        *(Measurement(name, "median drop less half of the mean's", 3.0) for name in ("estimators", "synthetic")),
    ]
    table = pd.concat([tabulate(rows, seed) for seed in range(5)])
    for name in ("robust-to-broken-scores", "elimination-profiles", "elimination-profiles-fixed-order"):
        assert study.claims[name].judge(table)[0] == Verdict.FAILS, name
