"""The environment passes Gymnasium's checker, and a scheduler that only asks who can move sorts in so many steps."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import interplay.environments  # noqa: F401  enters the environment in the registry
from interplay.kinetics.self_sorting import SelfSortingEnv, inversions, mix


@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
def test_gymnasium_finds_no_fault(render_mode):
    environment = gymnasium.make(
        "Interplay/SelfSorting-v0",
        n=8,
        algotype=mix("bubble", "insertion", "selection"),
        frozen=1,
        render_mode=render_mode,
    )
    check_env(environment.unwrapped)


def test_asking_only_those_who_can_move_costs_a_swap_a_step_with_insertion():
    environment = SelfSortingEnv(n=12, algotype="insertion")
    observation, info = environment.reset(seed=3)
    start = environment.array.values
    total, steps, terminated = 0.0, 0, False
    while not terminated:
        observation, reward, terminated, truncated, info = environment.step(info["movable"][0])
        total, steps = total + reward, steps + 1
        assert not truncated
    assert steps == info["swaps"] == inversions(start)
    assert (np.diff(observation["values"]) > 0).all()
    assert total == pytest.approx(np.count_nonzero(np.diff(start) < 0) - 0.01 * steps)
    assert info["me"] == 0
    assert len(info["movable"]) == 0


def test_episodes_are_cut_off_and_frozen_cells_do_nothing():
    environment = SelfSortingEnv(n=6, frozen=1, max_activations=3)
    observation, _ = environment.reset(seed=0)
    broken = int(np.flatnonzero(observation["frozen"])[0])
    for step in range(3):
        again, reward, _, truncated, _ = environment.step(broken)
        assert truncated == (step == 2)
        assert reward == pytest.approx(-0.01)
        assert (again["values"] == observation["values"]).all()


def test_values_can_be_given_and_bad_input_is_refused():
    environment = SelfSortingEnv(n=4)
    observation, _ = environment.reset(seed=0, options={"values": [9, 3, 5, 3]})
    assert observation["values"].tolist() == pytest.approx([2 / 3, 0, 1 / 3, 0])
    with pytest.raises(ValueError, match="must hold 4 numbers"):
        environment.reset(options={"values": [1, 2]})
    with pytest.raises(ValueError, match="action must be a position"):
        environment.step(4)
    for arguments, message in (
        ({"n": 1}, "n must be"),
        ({"max_activations": 0}, "max_activations"),
        ({"render_mode": "human"}, "render_mode"),
        ({"algotype": "merge"}, "unknown algotype"),
    ):
        with pytest.raises(ValueError, match=message):
            SelfSortingEnv(**arguments)
