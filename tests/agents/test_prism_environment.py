"""The world as Gymnasium sees it: its checker, its rewards, and that nothing leaks."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from interplay.agents.prism import CostGate, ProactiveWorld

ID = "interplay.environments:Interplay/ProactiveWorld-v0"


@pytest.mark.parametrize("settings", [{}, {"kind": "independent", "events": 3, "history": 5}, {"render_mode": "ansi"}])
def test_gymnasium_finds_nothing_wrong(settings):
    check_env(gymnasium.make(ID, **settings).unwrapped)


def test_an_episode_is_the_worlds():
    env = ProactiveWorld(c_fa=1.5, c_fn=4.0, world_seed=3)
    observation, info = env.reset(seed=11)
    episode = env.world.sample(1, 12, generator=np.random.Generator(np.random.PCG64(11)))
    total = 0.0
    for event in range(12):
        p_need, p_acc = env.world.judge(episode.tokens[:, : event + 1])
        assert (info["p_need"], info["p_acc"]) == (p_need[0], p_acc[0])
        assert (observation[-event - 1 :] == episode.tokens[0, : event + 1]).all()
        assert (observation[: -event - 1] == -1).all()
        action = event % 2
        observation, reward, terminated, truncated, info = env.step(action)
        needed, welcome = episode.y_need[0, event], episode.y_accept[0, event]
        assert (info["y_need"], info["y_accept"]) == (needed, welcome)
        assert reward == -(1.5 * (action and not welcome) + 4.0 * (not action and needed and welcome))
        assert info["cost"] == -reward
        assert (terminated, truncated) == (event == 11, False)
        total += reward
    assert total < 0


def test_labels_are_told_only_after_the_decision():
    _, info = ProactiveWorld().reset(seed=0)
    assert set(info) == {"p_need", "p_acc"}


def test_the_gate_on_exact_probabilities_earns_more_than_either_habit():
    env = ProactiveWorld(kind="independent")
    gate = CostGate(1.0, 2.0)
    earned = dict.fromkeys(("gate", "silent", "speak"), 0.0)
    for name in earned:
        for seed in range(60):
            _, info = env.reset(seed=seed)
            done = False
            while not done:
                action = {"gate": int(gate.decide(info["p_need"], info["p_acc"])), "silent": 0, "speak": 1}[name]
                _, reward, done, _, info = env.step(action)
                earned[name] += reward
    assert earned["gate"] > max(earned["silent"], earned["speak"]) + 60


def test_a_history_shorter_than_the_stream_is_a_window():
    env = ProactiveWorld(history=2)
    whole = ProactiveWorld()
    env.reset(seed=4)
    whole.reset(seed=4)
    for _ in range(11):
        short, *_ = env.step(0)
        long, *_ = whole.step(0)
        assert (short == long[-2:]).all()


def test_rendering_says_what_happened():
    env = ProactiveWorld(render_mode="ansi")
    env.reset(seed=0)
    assert env.render().startswith("event 0: tokens ")
    env.step(1)
    assert "speak, cost" in env.render()
    silent = ProactiveWorld()
    silent.reset(seed=0)
    assert silent.render() is None


def test_the_mechanism_needs_no_gymnasium():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import interplay.agents.prism as prism\n"
        "prism.CostGate(1, 2), prism.UserWorld\n"
        "try:\n    prism.ProactiveWorld\n"
        "except ImportError as error:\n    assert \"pip install 'interplay[rl]'\" in str(error), error\n"
        "else:\n    raise SystemExit('imported')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ProactiveWorld(events=0), ValueError, "events must be 1 or more"),
        (lambda: ProactiveWorld(history=0), ValueError, "history must be 1 or more"),
        (lambda: ProactiveWorld(c_fa=0), ValueError, "c_fa"),
        (lambda: ProactiveWorld(render_mode="human"), ValueError, "render_mode must be None or 'ansi'"),
        (lambda: ProactiveWorld("polite"), ValueError, "kind must be one of"),
        (lambda: ProactiveWorld().step(0), RuntimeError, "call reset"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_bad_actions_and_steps_past_the_end_are_refused():
    env = ProactiveWorld(events=1)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="action must be 0"):
        env.step(2)
    env.step(0)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(0)
