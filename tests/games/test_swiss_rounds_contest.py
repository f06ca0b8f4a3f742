"""Single contests: pairings, byes, eliminations, against loops that a reader can check by eye and against fractions."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest

from interplay.games.swiss_rounds import SwissRounds, WinTensor
from interplay.testing import check_same_seed


def plain_contest(scores, eliminate, bye, ties, draw):
    """One contest as the paper tells it, with Python's own lists and shuffles."""
    models, benchmarks = scores.shape
    points = dict.fromkeys(range(models), Fraction(0))
    active = set(points)
    for k in range(benchmarks):
        gained = dict.fromkeys(active, Fraction(0))
        groups = [
            sorted(m for m in active if points[m] == s) for s in sorted({points[m] for m in active}, reverse=True)
        ]
        floater = None
        for members in groups:
            group = draw.sample(members, len(members))
            pairs = []
            if floater is not None:
                pairs.append((floater, group.pop()))
                floater = None
            if len(group) % 2:
                odd = group.pop()
                if bye == "float":
                    floater = odd
                else:
                    gained[odd] += {"zero": Fraction(0), "half": Fraction(1, 2), "win": Fraction(1)}[bye]
            pairs += [(group.pop(), group.pop()) for _ in range(len(group) // 2)]
            for one, other in pairs:
                if scores[one, k] == scores[other, k] and ties == "half":
                    gained[one] += Fraction(1, 2)
                    gained[other] += Fraction(1, 2)
                elif scores[one, k] == scores[other, k]:
                    gained[draw.choice([one, other])] += 1
                else:
                    gained[one if scores[one, k] > scores[other, k] else other] += 1
        for m, gain in gained.items():
            points[m] += gain
        if eliminate and active:
            lowest = min(points[m] for m in active)
            group = sorted(m for m in active if points[m] == lowest)
            active -= set(draw.sample(group, min(eliminate, len(group))))
    return [float(points[m]) for m in range(models)]


CASES = [
    (5, 4, 0, "zero", "coin"),
    (7, 4, 1, "zero", "coin"),
    (6, 4, 2, "float", "half"),
    (7, 3, 0, "half", "coin"),
    (5, 4, 1, "win", "half"),
    (7, 4, 0, "float", "coin"),
]


@pytest.mark.parametrize(("models", "benchmarks", "eliminate", "bye", "ties"), CASES)
def test_simulation_exact_solver_and_plain_loops_agree(models, benchmarks, eliminate, bye, ties):
    scores = np.random.default_rng(models).integers(0, 5, size=(models, benchmarks)).astype(float)
    played = SwissRounds(100_000, eliminate=eliminate, bye=bye, ties=ties, random_state=0).fit(scores)
    exact = np.array([float(value) for value in played.exact()])
    assert (np.abs(played.expected_wins_ - exact) <= 5 * played.stderr_ + 1e-12).all()
    draw = random.Random(1)
    contests = np.array([plain_contest(scores, eliminate, bye, ties, draw) for _ in range(3000)])
    errors = contests.std(axis=0, ddof=1) / np.sqrt(len(contests))
    assert (np.abs(contests.mean(axis=0) - exact) <= 5 * errors + 1e-12).all()
    # The standard error is that of single contests, not of something else.
    assert played.stderr_ * np.sqrt(100_000) == pytest.approx(contests.std(axis=0, ddof=1), rel=0.15, abs=1e-9)


def test_larger_fields_agree_with_plain_loops():
    scores = np.random.default_rng(3).normal(size=(15, 9)) + np.linspace(1, -1, 15)[:, None]
    for eliminate in (0, 2):
        played = SwissRounds(50_000, eliminate=eliminate, random_state=0).fit(scores)
        draw = random.Random(2)
        contests = np.array([plain_contest(scores, eliminate, "zero", "coin", draw) for _ in range(4000)])
        errors = np.hypot(contests.std(axis=0) / np.sqrt(len(contests)), played.stderr_)
        assert (np.abs(contests.mean(axis=0) - played.expected_wins_) <= 5 * errors).all()


def by_enumeration(scores):
    """Expected points over every shuffle of every group in every round, odd last members getting nothing."""
    models, benchmarks = scores.shape
    states = {(Fraction(0),) * models: Fraction(1)}
    for k in range(benchmarks):
        after = {}
        for points, probability in states.items():
            groups = [[m for m in range(models) if points[m] == s] for s in set(points)]
            ways = list(itertools.product(*(list(itertools.permutations(group)) for group in groups)))
            for way in ways:
                reached = list(points)
                for group in way:
                    for one, other in zip(group[::2], group[1::2], strict=False):
                        reached[one if scores[one, k] > scores[other, k] else other] += 1
                after[tuple(reached)] = after.get(tuple(reached), 0) + probability / len(ways)
        states = after
    return [sum(points[m] * probability for points, probability in states.items()) for m in range(models)]


def test_the_exact_solver_agrees_with_enumeration():
    for models in (3, 4, 5):
        scores = np.random.default_rng(models).permuted(np.tile(np.arange(models), (3, 1)), axis=1).T.astype(float)
        assert SwissRounds(100, random_state=0).fit(scores).exact() == by_enumeration(scores)


def test_full_dominance_ties_the_first_two_of_four_models():
    """The leader sits out once it is alone, and the second catches up."""
    exact = SwissRounds(100, random_state=0).fit(np.arange(4)[::-1, None] * np.ones((1, 3))).exact()
    assert exact[0] == exact[1] > exact[2] > exact[3] == 0


def test_pairing_inside_a_group_is_uniform_and_so_is_the_bye():
    """Model 0 wins every meeting on the first benchmark; who has lost afterwards says whom it met."""
    models, contests = 5, 60_000
    # A cycle: on benchmark 0, i beats j where (j - i) mod 5 is 1 or 2. After one round the two losers have no points,
    # nor has the one who sat out.
    i, j = np.meshgrid(range(models), range(models), indexing="ij")
    outcomes = np.where((j - i) % models <= 2, 1, 0).astype(np.uint8)[:, :, None]
    played = SwissRounds(contests, random_state=0).fit(WinTensor(outcomes))
    assert played.bye_share_ == pytest.approx(np.full(models, 1 / models), abs=5 * np.sqrt(0.16 / contests))
    assert played.expected_wins_ == pytest.approx(np.full(models, 2 / models), abs=5 * np.sqrt(0.24 / contests))
    # All 15 matchings of five (bye, pair, pair) have distinct winners here or share them in a known way.
    points = played.single_contests(contests)
    winners = {}
    for bye in range(models):
        rest = [m for m in range(models) if m != bye]
        for partner in rest[1:]:
            pair = (rest[0], partner)
            others = tuple(m for m in rest[1:] if m != partner)
            key = tuple(sorted(one if outcomes[one, other, 0] else other for one, other in (pair, others)))
            winners[key] = winners.get(key, 0) + 1
    for key, ways in winners.items():
        share = float((np.flatnonzero(points[:, list(key)].all(axis=1)).size) / contests)
        expected = ways / 15
        assert share == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / contests)), key
    assert sum(winners.values()) == 15


def test_the_paper_size_under_a_total_order_is_made_of_byes():
    scores = np.arange(29)[::-1, None] * np.ones((1, 38))
    played = SwissRounds(5_000, random_state=0).fit(scores)
    assert played.expected_wins_[0] == pytest.approx(21, abs=0.2)
    assert played.expected_wins_[0] - played.expected_wins_[1] == pytest.approx(0, abs=0.2)
    assert played.bye_rate_ * 29 * 38 == pytest.approx(380, abs=4)
    assert any("byes" in note for note in played.notes_)


def test_floating_members_meet_the_next_group():
    """An even field: with floating byes nobody ever sits out, and the best of a total order wins every round."""
    scores = np.arange(6)[::-1, None] * np.ones((1, 5))
    floating = SwissRounds(1000, bye="float", random_state=0).fit(scores)
    assert floating.bye_rate_ == 0
    assert floating.expected_wins_[0] == 5
    assert floating.expected_wins_.sum() == pytest.approx(15)
    assert SwissRounds(1000, bye="zero", random_state=0).fit(scores).bye_rate_ > 0.2


def test_eliminations_come_from_the_lowest_group_after_scoring():
    """Two models: the loser of the first round leaves, and nobody is left to beat."""
    played = SwissRounds(200, eliminate=1, random_state=0).fit([[2.0, 2.0, 2.0], [1.0, 1.0, 1.0]])
    assert played.expected_wins_.tolist() == [1.0, 0.0]
    assert played.survival_.tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    # The winner is then alone and lowest: it leaves after the second round, in which it sat out.
    assert played.bye_share_.tolist() == [0.5, 0.0]


def test_eliminations_are_uniform_in_the_lowest_group():
    """On the first benchmark all tie for half a point: everyone is as likely to leave."""
    contests = 40_000
    played = SwissRounds(contests, eliminate=(2, 0), ties="half", random_state=0).fit(np.ones((6, 2)))
    assert played.survival_ == pytest.approx(np.full((6, 2), 4 / 6), abs=5 * np.sqrt(2 / 9 / contests))


def test_the_same_seed_gives_the_same_results_whatever_the_number_of_threads():
    scores = np.random.default_rng(0).normal(size=(9, 7))
    one = SwissRounds(4_500, eliminate=1, n_jobs=1, random_state=4).fit(scores)
    two = SwissRounds(4_500, eliminate=1, n_jobs=2, random_state=4).fit(scores)
    for name in ("expected_wins_", "stderr_", "covariance_", "bye_share_", "survival_"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    check_same_seed(lambda seed: SwissRounds(500, random_state=seed).fit(scores).expected_wins_)
    check_same_seed(lambda seed: SwissRounds(500, random_state=seed).fit(scores).single_contests(20))


def test_the_covariance_is_that_of_single_contests():
    scores = np.random.default_rng(5).normal(size=(6, 5))
    played = SwissRounds(50_000, bye="half", random_state=0).fit(scores)
    points = played.single_contests(50_000)
    assert played.covariance_ * 50_000 == pytest.approx(np.cov(points.T), abs=0.03)
    assert points.mean(axis=0) == pytest.approx(played.expected_wins_, abs=0.03)
    assert np.array_equal(played.covariance_, played.covariance_.T)
