"""Static aggregates against closed forms and choix, and the sensitivity analyses against what they must show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from interplay.games.swiss_rounds import (
    SwissRounds,
    WinTensor,
    baselines,
    bradley_terry,
    elo,
    failure_sensitivity,
    order_sensitivity,
    outlier_probe,
    win_tensor,
)
from interplay.games.swiss_rounds.aggregates import elo_pass

# choix 0.4.1, ilsr_pairwise(8, data, alpha=0, max_iter=10000, tol=1e-12), minus its mean, on `counts` below.
CHOIX = [
    0.68017226329377,
    0.3831670041417734,
    0.3475917857601333,
    0.07618437424005109,
    -0.08112126077255291,
    -0.3288607982439763,
    -0.42671503090533647,
    -0.6504183375138621,
]

# evalica 0.4.2, elo(first, second, winners, initial=1000, base=10, scale=400, k=32), on the meetings of the test.
EVALICA = [
    986.3659302927505,
    1002.1302798825105,
    993.6438486548269,
    1001.9345583601375,
    1010.9588774962294,
    1002.541430112245,
    1002.4250752013002,
]


def wins_of_counts() -> WinTensor:
    """Eight models; i beats j on as many benchmarks as a formula says, and both sit out the others."""
    counts = [[0 if i == j else 1 + (3 * i + 5 * j) % 7 + 4 * (i < j) for j in range(8)] for i in range(8)]
    meetings = [(i, j) for i in range(8) for j in range(8) for _ in range(counts[i][j])]
    outcomes, present = np.full((8, 8, len(meetings)), 2), np.zeros((8, len(meetings)), bool)
    for k, (winner, loser) in enumerate(meetings):
        outcomes[winner, loser, k], outcomes[loser, winner, k] = 1, 0
        present[[winner, loser], k] = True
    return WinTensor(outcomes, present)


def test_bradley_terry_agrees_with_choix():
    np.testing.assert_allclose(bradley_terry(wins_of_counts()), CHOIX, atol=1e-6)


def test_bradley_terry_of_two_models_is_the_log_odds():
    wins = win_tensor(np.array([[1.0, 1, 1, 0], [0, 0, 0, 1]]))
    np.testing.assert_allclose(bradley_terry(wins), [np.log(3) / 2, -np.log(3) / 2])
    unbeaten = win_tensor(np.array([[1.0, 1], [0, 0]]))
    with pytest.raises(ValueError, match=r"pass prior=0\.5"):
        bradley_terry(unbeaten)
    np.testing.assert_allclose(bradley_terry(unbeaten, prior=0.5), [np.log(5) / 2, -np.log(5) / 2])


@settings(max_examples=20, deadline=None)
@given(models=st.integers(2, 7), benchmarks=st.integers(1, 6), seed=st.integers(0, 999))
def test_aggregates_are_what_loops_say(models, benchmarks, seed):
    scores = np.random.default_rng(seed).integers(0, 4, (models, benchmarks)).astype(float)
    table = baselines(scores)
    beaten = np.array(
        [[sum((a > b) + 0.5 * (a == b) for a, b in zip(x, y, strict=True)) for y in scores] for x in scores]
    )
    np.fill_diagonal(beaten, 0)
    np.testing.assert_allclose(table["Borda"], beaten.sum(1))
    np.testing.assert_allclose(table["mean win rate"], beaten.sum(1) / (benchmarks * (models - 1)))
    np.testing.assert_allclose(
        table["Copeland"], [sum(np.sign(row - col)) for row, col in zip(beaten, beaten.T, strict=True)]
    )
    np.testing.assert_allclose(table["mean"], scores.mean(1))
    np.testing.assert_allclose(table["Elo"].mean(), 1000)


def test_elo_of_one_meeting_is_the_textbook_update():
    np.testing.assert_allclose(elo(win_tensor(np.array([[1.0], [0.0]])), shuffles=1), [1016, 984])
    with pytest.raises(ValueError, match="shuffles"):
        elo(wins_of_counts(), shuffles=0)


def test_elo_agrees_with_evalica_meeting_by_meeting():
    meetings = np.array([[(3 * n) % 7, (3 * n + 1 + n % 6) % 7] for n in range(40)])
    results = np.array([(1.0, 0.5, 0.0)[n * n % 3 if n % 4 else 1] for n in range(40)])
    np.testing.assert_allclose(elo_pass(meetings, results, np.full(7, 1000.0), 32.0), EVALICA, rtol=1e-12)


def test_rescaling_benchmarks_changes_nothing():
    scores = np.random.default_rng(0).normal(size=(9, 6))
    scaled = np.column_stack([np.exp(scores[:, :2]), 3 * scores[:, 2:4] - 7, scores[:, 4:] ** 3])
    one, other = (SwissRounds(n_sims=2000, random_state=1).fit(table) for table in (scores, scaled))
    np.testing.assert_array_equal(one.wins_.outcomes, other.wins_.outcomes)
    np.testing.assert_array_equal(one.expected_wins_, other.expected_wins_)


def test_sensitivity_begins_at_the_plain_tournament_and_falls():
    scores = np.random.default_rng(1).normal(size=(8, 6)) + np.linspace(2, -2, 8)[:, None]
    report = failure_sensitivity(scores, (0, 1, 2), n_sims=4000, random_state=0)
    plain = SwissRounds(n_sims=4000, random_state=5).fit(scores)
    np.testing.assert_allclose(report.expected_wins[0], plain.expected_wins_, atol=6 * plain.stderr_.max())
    assert (report.expected_wins[2] <= report.expected_wins[0] + 0.1).all()
    np.testing.assert_allclose(report.retention[0], 1)
    profile = report.profile()
    np.testing.assert_allclose(profile["retention"], report.retention[1])
    assert (profile["low"] <= profile["retention"]).all()
    np.testing.assert_allclose(profile["residual"].mean(), 0, atol=1e-9)
    for grid in ((0,), (1, 2), (0, 0)):
        with pytest.raises(ValueError, match="T_grid"):
            failure_sensitivity(scores, grid)
    with pytest.raises(ValueError, match="leave it out"):
        failure_sensitivity(scores, (0, 1), eliminate=1)


def test_orders_do_not_matter_where_one_model_wins_everything_and_do_elsewhere():
    report = order_sensitivity(np.random.default_rng(2).normal(size=(6, 5)), 12, n_sims=800)
    assert report.ranks.shape == (12, 6)
    assert report.summary()["rank_sd"].max() > 0
    two = order_sensitivity(np.array([[1.0, 1, 1], [0, 0, 0]]), 3, n_sims=200)
    assert two.ranks.tolist() == [[1, 2]] * 3
    with pytest.raises(ValueError, match="n_orders"):
        order_sensitivity(np.eye(3), 1)


def test_the_probe_breaks_one_model_and_ranks_it_again():
    scores = np.random.default_rng(3).uniform(1, 2, size=(7, 5)) + np.linspace(1, 0, 7)[:, None]
    table = outlier_probe(scores, 0, 5, draws=2, n_sims=300)
    means = table[table["method"] == "mean"]
    assert means["before"].iloc[0] == rankdata(-scores.mean(1))[0]
    assert (means["after"] == 7).all()
    assert set(table["method"]) == {"Swiss rounds", *baselines(scores).columns}
    with pytest.raises(ValueError, match="n_zero must be from 1 to the 5"):
        outlier_probe(scores, 0, 6)
    with pytest.raises(ValueError, match="has no meaning for all methods"):
        outlier_probe(scores, 0, 1, missing="loss")
