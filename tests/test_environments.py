"""Every environment is found by name, passes Gymnasium's own check, and repeats an episode from its seed."""

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence

import interplay.environments  # enters the environments  # noqa: F401

NAMES = [name for name in gymnasium.registry if name.startswith("Interplay/")]


def episode(name: str, seed: int, steps: int = 20) -> list[object]:
    environment = gymnasium.make(f"interplay.environments:{name}")
    environment.action_space.seed(seed)
    seen: list[object] = [environment.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
        seen += [observation, reward]
        if terminated or truncated:
            break
    environment.close()
    return seen


def test_the_environments_are_registered():
    assert NAMES == ["Interplay/Swim-v0", "Interplay/ProactiveWorld-v0", "Interplay/SelfSorting-v0"]


@pytest.mark.parametrize("name", NAMES)
def test_gymnasium_accepts_it(name):
    environment = gymnasium.make(name)
    check_env(environment.unwrapped)
    environment.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_its_episode(name):
    first, second, other = episode(name, 3), episode(name, 3), episode(name, 4)
    assert data_equivalence(first, second)
    assert not data_equivalence(first, other)
