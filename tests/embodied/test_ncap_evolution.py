"""The evolution strategy against its own equations, written out."""

import numpy as np
import pytest

from interplay.embodied.ncap import EvolutionStrategy
from interplay.embodied.ncap.evolution import centred_ranks
from interplay.testing import check_same_seed


def bowl(parameters, seed):
    return -float(((parameters - 1) ** 2).sum())


def noisy(parameters, seed):
    return bowl(parameters, seed) + float(np.random.default_rng(seed).normal())


def strategy(seed=0, **settings):
    settings = {"population": 6, "sigma": 0.1, "lr": 0.05} | settings
    return EvolutionStrategy(np.linspace(-1, 1, 5), generator=np.random.default_rng(seed), **settings)


def test_ranks_are_centred():
    assert centred_ranks([-123, -50, 3, -5, 20, 10, 100]) == pytest.approx(
        [-1 / 2, -1 / 3, 0, -1 / 6, 1 / 3, 1 / 6, 1 / 2]
    )
    assert centred_ranks([4.0, 4.0, 1.0]).tolist() == [0.25, 0.25, -0.5]
    assert centred_ranks([0.0, np.nan, -np.inf, 5.0]).tolist() == pytest.approx([1 / 6, -1 / 3, -1 / 3, 1 / 2])
    assert centred_ranks([0.0, np.nan, 2.0])[1] == -0.5


def test_steps_are_those_of_the_equations():
    """Antithetic members, centred ranks, a clamped gradient and Adam with decay, in plain NumPy."""
    ours = strategy(sigma=0.3, weight_decay=0.1)
    generator = np.random.default_rng(0)
    theta = np.linspace(-1, 1, 5)
    first, second = np.zeros(5), np.zeros(5)
    for step in range(1, 30):
        half = generator.normal(0, 0.3, (3, 5))
        noise = np.concatenate((half, -half))
        members = ours.ask()
        np.testing.assert_allclose(members, theta + noise, atol=1e-12)
        values = np.array([bowl(member, 0) for member in members])
        ranks = np.argsort(np.argsort(values)) / 5 - 0.5
        gradient = np.clip((ranks[:, None] * noise).sum(0) / (6 * 0.3), -1, 1)
        descent = -gradient + 0.1 * theta
        first = 0.9 * first + 0.1 * descent
        second = 0.999 * second + 0.001 * descent**2
        theta = theta - 0.05 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        ours.tell(values)
        np.testing.assert_allclose(ours.parameters, theta, atol=1e-12)
    assert ours.generation == 29


def test_it_climbs():
    ours = strategy(population=20)
    history = ours.run(bowl, 200)
    assert np.abs(ours.parameters - 1).max() < 0.2
    assert history[-1].values.mean() > history[0].values.mean()


def test_workers_do_not_change_the_result():
    alone, together = strategy(), strategy()
    left, right = alone.run(noisy, 3), together.run(noisy, 3, jobs=2)
    assert np.array_equal(alone.parameters, together.parameters)
    for one, other in zip(left, right, strict=True):
        assert np.array_equal(one.values, other.values)
    assert len({value for generation in left for value in generation.values}) == 18, "seeds are new for every member"


def test_the_seed_decides():
    def end(seed):
        ours = strategy(seed)
        ours.run(noisy, 5)
        return ours.parameters

    check_same_seed(end)


def test_members_that_fail_are_worst_and_counted():
    """An objective that fails on one side of a plane is climbed away from it."""
    ours = strategy(population=10)
    history = ours.run(lambda parameters, seed: float("nan") if parameters[0] < -1 else 0.0, 5)
    assert ours.failed == sum(generation.failed for generation in history) > 0
    assert history[0].failed == 5, "the plane divides every pair of the first generation"
    assert ours.parameters[0] > -1


REFUSED = {
    "population must be an even number": {"population": 7},
    "population must be an even number of 4": {"population": 2},
    "sigma must be a positive": {"sigma": 0.0},
    "lr must be a positive": {"lr": float("nan")},
    "weight_decay must be a non-negative": {"weight_decay": -1.0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_settings_are_refused(message):
    with pytest.raises(ValueError, match=message):
        strategy(**REFUSED[message])


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="initial must be a vector of finite"):
        EvolutionStrategy([0.0, np.nan], generator=np.random.default_rng(0))
    with pytest.raises(RuntimeError, match="call ask first"):
        strategy().tell(np.zeros(6))
    ours = strategy()
    ours.ask()
    with pytest.raises(ValueError, match="one number for each of 6 members"):
        ours.tell(np.zeros(5))
    with pytest.raises(ValueError, match="two or more members"):
        centred_ranks([1.0])
