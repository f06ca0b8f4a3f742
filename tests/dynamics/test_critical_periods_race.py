"""The race of pathways: closed forms, invariants, the end against following it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.dynamics.critical_periods import final_share, pathway_race

VALUES = np.array([3.8, 2.0, 1.0])
STARTS = np.array([[0.3, 0.2, 0.25], [0.28, 0.31, 0.2], [0.1, 0.2, 0.3]])
WINDOWS = {1: (0.4, 1.2), 2: (0.1, 0.6)}


def published_euler(depth, value, p0, first, last, dt, steps):
    """The reduction as one reads it in the paper: two pathways, the second one frozen on steps [first, last)."""
    a, b = p0
    records = []
    for step in range(steps + 1):
        records.append((a**depth, b**depth))
        rest = value - a**depth - b**depth
        a, b = a + dt * a ** (depth - 1) * rest, b + (0 if first <= step < last else dt * b ** (depth - 1) * rest)
    return np.array(records)


@pytest.mark.parametrize("depth", [1, 2, 4, 7])
def test_euler_steps_are_those_of_a_plain_loop(depth):
    expected = published_euler(depth, 2.0, (0.5, 0.45), 20, 90, 0.01, 300)
    race = pathway_race([2.0], depth, [[0.5], [0.45]], 0.01 * np.arange(301), {1: (0.2, 0.9)}, dt=0.01)
    np.testing.assert_allclose(race[:, :, 0], expected, rtol=1e-12)


def test_one_pathway_of_depth_two_is_the_logistic_curve():
    times = np.linspace(0, 3, 50)
    expected = VALUES / (1 + (VALUES / 0.01 - 1) * np.exp(-2 * VALUES * times[:, None]))
    race = pathway_race(VALUES, 2, np.full((1, 3), 0.1), times)
    np.testing.assert_allclose(race[:, 0], expected, rtol=1e-7)


def test_depth_one_relaxes_exponentially_and_splits_what_is_left():
    times = np.linspace(0, 2, 20)
    race = pathway_race([2.0], 1, [[0.3], [0.1]], times)
    left = 1.6 * np.exp(-2 * times)
    np.testing.assert_allclose(2 - race.sum(1)[:, 0], left, rtol=1e-6)
    np.testing.assert_allclose(final_share([2.0], 1, [[0.3], [0.1]])[:, 0], [1.1 / 2, 0.9 / 2])


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_after_the_deficit_the_difference_stays(depth):
    race = pathway_race(VALUES, depth, STARTS, np.linspace(1.2, 30, 100), WINDOWS) ** (1 / depth)
    kept = race[:, 0] / race[:, 1] if depth == 2 else race[:, 0] ** (2 - depth) - race[:, 1] ** (2 - depth)
    np.testing.assert_allclose(kept, np.broadcast_to(kept[0], kept.shape), rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("windows", [None, WINDOWS, {0: (0.0, 0.3)}, {0: (0.2, 0.5), 1: (0.2, 0.5), 2: (0.2, 0.5)}])
def test_the_end_is_where_following_leads(depth, windows):
    followed = pathway_race(VALUES, depth, STARTS, [0.0, 200.0], windows)[-1]
    np.testing.assert_allclose(followed.sum(0), VALUES, rtol=1e-6)
    np.testing.assert_allclose(final_share(VALUES, depth, STARTS, windows), followed / VALUES, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    depth=st.integers(1, 8),
    value=st.floats(0.5, 10),
    starts=st.lists(st.floats(0.15, 0.65), min_size=2, max_size=3),
    begin=st.floats(0, 3),
    length=st.floats(0, 4),
)
def test_the_end_is_where_following_leads_from_anywhere(depth, value, starts, begin, length):
    p0 = np.array(starts)[:, None] * min(1.0, (value / 4) ** (1 / depth))
    deficit = {1: (begin, begin + length)}
    shares = final_share([value], depth, p0, deficit)
    assert shares.sum() == pytest.approx(1)
    carried = pathway_race([value], depth, p0, [0.0, begin, begin + length], deficit)[-1]
    if carried.sum() < value * (1 - 1e-7):
        np.testing.assert_allclose(shares, final_share([value], depth, carried ** (1 / depth)), atol=1e-6)
    else:
        np.testing.assert_allclose(shares, carried / value, atol=1e-6)


def test_a_deprived_pathway_has_a_ceiling_below_which_it_stays():
    for depth in (3, 4, 6):
        p_a, p_b = 0.6, 0.3
        ceiling = (p_b ** (2.0 - depth) - p_a ** (2.0 - depth)) ** (-1 / (depth - 2))
        reached = [(final_share([s], depth, [[p_a], [p_b]])[1, 0] * s) ** (1 / depth) for s in (5.0, 50.0, 5e4, 5e9)]
        assert (np.diff(reached) > 0).all()
        assert reached[-1] < ceiling
        assert reached[-1] == pytest.approx(ceiling, rel=1e-2)


def test_shares_after_the_same_deficit_are_those_integrated_by_hand():
    shares = [final_share([10.0], depth, [[0.3], [0.3]], {1: (0.0, 0.05)})[1, 0] for depth in (2, 3, 4, 6)]
    np.testing.assert_allclose(shares, [0.274, 0.107, 0.057, 0.030], atol=1e-3)
    alike = [final_share([3.0], d, np.full((2, 1), 0.01 ** (1 / d)), {1: (0.0, 0.2)})[1, 0] for d in (2, 3, 4, 6)]
    np.testing.assert_allclose(alike, [0.234, 0.143, 0.103, 0.068], atol=1e-3)
    for depth, share in zip((2, 3, 4, 6), shares, strict=True):
        steps = published_euler(depth, 10.0, (0.3, 0.3), 0, 50_000, 1e-6, 50_000)[-1] ** (1 / depth)
        rest = published_euler(depth, 10.0, steps, 0, 0, 1e-4, 60_000)[-1]
        assert rest[1] / rest.sum() == pytest.approx(share, abs=2e-4)


def test_pathways_alike_stay_alike():
    p0 = np.full((2, 3), 0.2)
    np.testing.assert_allclose(final_share(VALUES, 4, p0), 0.5)
    race = pathway_race(VALUES, 4, p0, [0.0, 1.0, 5.0], {0: (1.0, 2.0), 1: (1.0, 2.0)})
    np.testing.assert_allclose(race[:, 0], race[:, 1])


def test_unequal_layers_keep_their_constant_of_motion():
    """A chain of two scalars with q^2 - p^2 = c, integrated as such, is equation (3) for depth 2."""
    c, p, q, dt = 1.0, np.array([0.01, 0.02]), np.sqrt(1.0 + np.array([0.01, 0.02]) ** 2), 1e-4
    for _ in range(10_000):
        rest = 3.0 - (p * q).sum()
        p, q = p + dt * q * rest, q + dt * p * rest
    race = pathway_race([3.0], 2, [[0.01], [0.02]], [0.0, 1.0], unbalance=c)
    np.testing.assert_allclose(race[-1, :, 0], p * q, rtol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: final_share([1.0], 2, [[0.0], [0.1]]), "saddle for depth >= 2"),
        (lambda: pathway_race([1.0], 3, [[-0.1], [0.1]], [0.0]), "p0 must be positive"),
        (lambda: final_share([1.0], 0, [[0.1]]), "depth must be 1 or more"),
        (lambda: final_share([0.0], 2, [[0.1]]), "singular values must be positive"),
        (lambda: final_share([1.0, 2.0], 2, [[0.1]]), r"shape \(paths, 2\)"),
        (lambda: final_share([0.1], 2, [[0.3], [0.3]]), "nothing to learn"),
        (lambda: final_share([1.0], 2, [[0.1]], {1: (0.0, 1.0)}), "names pathway 1; there are 1"),
        (lambda: final_share([1.0], 2, [[0.1]], {0: (2.0, 1.0)}), "got 2.0, 1.0"),
        (lambda: pathway_race([1.0], 2, [[0.1]], [1.0, 0.0]), "times must be a rising sequence"),
        (lambda: pathway_race([1.0], 2, [[0.1]], [0.0, 0.15], dt=0.1), "multiples"),
        (lambda: pathway_race([1.0], 2, [[0.1]], [0.0], unbalance=-1.0), "unbalance"),
        (lambda: pathway_race([1.0], 2, [[0.1]], [0.0], dt=0.0), "dt must be positive"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
