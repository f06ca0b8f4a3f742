"""The user's world: its probabilities against all hidden paths, its statistics, its reproducibility."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from interplay.agents.prism import UserWorld, reliability
from interplay.agents.prism.world import (
    NEED_OF_STATE,
    NEED_START,
    NEED_STEP,
    RECEPTIVITY_START,
    RECEPTIVITY_STEP,
)
from interplay.testing import check_same_seed


def world_of(kind="coupled", seed=0):
    return UserWorld.draw(kind, generator=np.random.default_rng(seed))


def posterior(start, step, emission, tokens):
    """Of the last state, by summing over all paths; -1 is an event not looked at."""
    weights = np.zeros(len(start))
    for path in itertools.product(range(len(start)), repeat=len(tokens)):
        weight = start[path[0]]
        for here, there in itertools.pairwise(path):
            weight *= step[here, there]
        for state, token in zip(path, tokens, strict=True):
            weight *= 1 if token < 0 else emission[state, token]
        weights[path[-1]] += weight
    return weights / weights.sum()


@pytest.mark.parametrize("kind", ["coupled", "independent", "control"])
@pytest.mark.parametrize("last", [None, 1, 2, 9])
def test_probabilities_are_those_of_all_hidden_paths(kind, last):
    world = world_of(kind)
    tokens = world.sample(6, 4, generator=np.random.default_rng(1)).tokens
    p_need, p_acc = world.judge(tokens, last)
    for row, stream in enumerate(tokens):
        seen = np.where(np.arange(4)[:, None] < 4 - (last or 4), -1, stream)
        need = posterior(NEED_START, NEED_STEP, world.need_emission, seen[:, 0])
        receptive = posterior(RECEPTIVITY_START, RECEPTIVITY_STEP, world.receptivity_emission, seen[:, 1])
        needed = sum(need[state] * NEED_OF_STATE[state] for state in range(4))
        accepted = sum(
            need[state] * receptive[mood] * (NEED_OF_STATE[state] if y else 1 - NEED_OF_STATE[state])
            * world.acceptance[y, mood]
            for state in range(4)
            for mood in range(2)
            for y in range(2)
        )  # fmt: skip
        assert p_need[row] == pytest.approx(needed)
        assert p_acc[row] == pytest.approx(accepted)


@pytest.mark.parametrize("kind", ["coupled", "independent", "control"])
def test_probabilities_are_calibrated_to_what_happens(kind):
    world = world_of(kind, seed=2)
    episodes = world.sample(60_000, generator=np.random.default_rng(3))
    for p, y in zip(world.judge(episodes.tokens), (episodes.y_need, episodes.y_accept), strict=True):
        bins = reliability(p, y[:, -1])
        filled = bins.count > 50
        error = np.sqrt(bins.predicted * (1 - bins.predicted) / bins.count)[filled]
        assert (np.abs(bins.predicted - bins.observed)[filled] < 4.5 * error + 1e-3).all()


def test_more_events_tell_more():
    world = world_of()
    episodes = world.sample(20_000, generator=np.random.default_rng(1))
    areas = [roc_auc_score(episodes.y_need[:, -1], world.judge(episodes.tokens, last)[0]) for last in (1, 3, None)]
    assert areas[0] + 0.01 < areas[1] < areas[2]
    assert 0.87 < areas[2] < 0.98


def test_states_and_labels_have_their_rates():
    episodes = world_of().sample(100_000, 3, generator=np.random.default_rng(4))
    for event in range(3):
        need = NEED_START @ np.linalg.matrix_power(NEED_STEP, event) @ NEED_OF_STATE
        open_ = (RECEPTIVITY_START @ np.linalg.matrix_power(RECEPTIVITY_STEP, event))[1]
        accept = need * (0.30 * (1 - open_) + 0.97 * open_) + (1 - need) * (0.06 * (1 - open_) + 0.55 * open_)
        assert episodes.y_need[:, event].mean() == pytest.approx(need, abs=0.007)
        assert episodes.y_accept[:, event].mean() == pytest.approx(accept, abs=0.007)


def test_in_the_control_world_acceptance_is_need():
    world = world_of("control")
    episodes = world.sample(500, generator=np.random.default_rng(5))
    assert (episodes.y_need == episodes.y_accept).all()
    p_need, p_acc = world.judge(episodes.tokens)
    assert np.allclose(p_need, p_acc)


def test_in_the_independent_world_acceptance_says_nothing_about_need():
    world = world_of("independent")
    episodes = world.sample(100_000, generator=np.random.default_rng(6))
    need, accept = episodes.y_need[:, -1], episodes.y_accept[:, -1]
    assert accept[need].mean() == pytest.approx(accept[~need].mean(), abs=0.01)


def test_seeds_reproduce_and_kinds_share_their_emissions():
    check_same_seed(lambda seed: world_of(seed=seed).need_emission)
    world = world_of()
    check_same_seed(lambda seed: world.sample(20, generator=np.random.default_rng(seed)).tokens)
    assert (world_of("coupled").acceptance != world_of("control").acceptance).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: world_of("polite"), ValueError, "kind must be one of coupled, independent, control"),
        (
            lambda: UserWorld.draw(generator=np.random.default_rng(0), attempts=0),
            RuntimeError,
            "none of 0 worlds",
        ),
        (lambda: world_of().sample(0, generator=np.random.default_rng(0)), ValueError, "episodes must be 1 or more"),
        (lambda: world_of().sample(1, 0, generator=np.random.default_rng(0)), ValueError, "events must be 1 or more"),
        (lambda: world_of().judge(np.zeros((3, 2), int)), ValueError, r"got \(3, 2\)"),
        (lambda: world_of().judge(np.zeros((3, 2, 2), int), last=0), ValueError, "last must be 1 or more"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
