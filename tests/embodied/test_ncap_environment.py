"""The task against dm_control's own loop, Gymnasium's checker and Gymnasium's vector environment."""

import math
import sys

import gymnasium
import numpy as np
import pytest
from dm_control import suite
from dm_control.rl import control
from dm_control.suite import swimmer
from dm_control.utils import rewards
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import interplay.environments  # noqa: F401
from interplay.embodied.ncap import NCAPSwimmer, SwimEnv, SwimVecEnv
from interplay.embodied.ncap.body import SwimmerBody, SwimmerModel, check_mujoco_version
from interplay.embodied.ncap.camera import Camera

ARGUMENTS = [{}, {"n_links": 3, "include_time": True}, {"n_links": 12, "render_mode": "rgb_array", "time_limit": 0.3}]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_gymnasium_finds_nothing_to_complain_about(arguments):
    env = gymnasium.make("Interplay/Swim-v0", **arguments)
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize("n_links", [3, 6, 15])
def test_it_moves_and_is_rewarded_as_in_dm_control(n_links):
    """The same actions from the same state, through dm_control's environment with its own step of the physics."""
    env = SwimEnv(n_links)
    observation, _ = env.reset(seed=n_links)
    direct = swimmer.swimmer(n_links, time_limit=30)
    direct.reset()
    with direct.physics.reset_context():
        direct.physics.data.qpos[:] = env.body.data.qpos
    velocities = direct.physics.body_velocities()
    np.testing.assert_allclose(observation, np.concatenate((direct.physics.joints(), velocities)), rtol=0, atol=1e-9)
    generator = np.random.default_rng(0)
    for step in range(1000):
        action = generator.uniform(-1.5, 1.5, n_links - 1)
        observation, reward, terminated, truncated, _ = env.step(action)
        timestep = direct.step(action)
        if step % 50 and step < 990:
            continue
        np.testing.assert_allclose(env.body.data.qpos, direct.physics.data.qpos, rtol=0, atol=1e-9)
        expected = np.concatenate((timestep.observation["joints"], timestep.observation["body_velocities"]))
        np.testing.assert_allclose(observation, expected, rtol=0, atol=1e-9)
        forward = -direct.physics.named.data.sensordata["head_vel"][1]
        tolerance = {"bounds": (0.1, math.inf), "margin": 0.1, "value_at_margin": 0.0, "sigmoid": "linear"}
        assert reward == pytest.approx(rewards.tolerance(forward, **tolerance), abs=1e-9)
        assert truncated == timestep.last() == (step == 999)
        assert not terminated


def test_start_poses_are_distributed_as_in_dm_control():
    env = SwimEnv()
    ours = np.array([env.reset(seed=seed)[0][:5] for seed in range(300)])
    limit = math.pi / 3
    assert np.abs(ours).max() <= limit
    np.testing.assert_allclose(ours.mean(0), 0, atol=0.12)
    np.testing.assert_allclose(ours.std(0), limit / math.sqrt(3), rtol=0.1)
    headings = np.array([env.reset(seed=seed) and env.body.data.qpos[2] for seed in range(300)])
    assert -math.pi <= headings.min() < -3
    assert 3 < headings.max() <= math.pi
    direct = suite.load("swimmer", "swimmer6", task_kwargs={"random": 0})
    theirs = np.array([direct.reset().observation["joints"] for _ in range(300)])
    np.testing.assert_allclose(np.quantile(ours, [0.1, 0.5, 0.9]), np.quantile(theirs, [0.1, 0.5, 0.9]), atol=0.08)
    assert isinstance(direct, control.Environment)


def test_the_untrained_circuit_swims_and_its_mirror_image_backwards():
    env = SwimEnv(time_limit=15)
    circuit = NCAPSwimmer(5).numpy()

    def mean_reward(reverse: bool) -> float:
        observation, _ = env.reset(seed=0)
        total = 0.0
        for step in range(500):
            angles = observation[:5] / (math.pi / 3)
            torques = circuit(angles[::-1] if reverse else angles, step)
            observation, reward, *_ = env.step(torques[::-1] if reverse else torques)
            total += reward
        return total / 500

    assert mean_reward(reverse=False) > 0.7
    assert mean_reward(reverse=True) < 0.1


def test_options_fix_the_pose_and_the_time_feature_counts():
    env = SwimEnv(include_time=True, time_limit=0.3)
    joints = np.linspace(-0.5, 0.5, 5)
    observation, _ = env.reset(options={"heading": 1.0, "joints": joints})
    assert observation[:5].tolist() == joints.tolist()
    assert observation[-1] == -1
    times = [env.step(np.zeros(5))[0][-1] for _ in range(10)]
    np.testing.assert_allclose(times, np.arange(1, 11) / 5 - 1)
    for options in ({"heading": 1.0}, {"pose": 1}, {"heading": 1.0, "joints": joints[:3]}):
        with pytest.raises(ValueError, match=r"options must be|action must have shape"):
            env.reset(options=options)


def test_the_outline_is_the_body():
    model = SwimmerModel(6)
    body = SwimmerBody(model)
    body.place(0.0, np.zeros(5))
    straight = body.outline()
    assert straight.shape == (7, 2)
    np.testing.assert_allclose(straight, np.stack((np.zeros(7), np.linspace(-0.05, 0.55, 7)), 1), atol=1e-12)
    body.place(math.pi / 2, np.array([0.0, 0.3, -0.2, 0.4, 0.1]))
    bent = body.outline()
    np.testing.assert_allclose(np.linalg.norm(np.diff(bent, axis=0), axis=1), 0.1, atol=1e-12)
    along = np.diff(bent, axis=0)
    angles = np.diff(np.unwrap(np.arctan2(along[:, 1], along[:, 0])))
    np.testing.assert_allclose(angles, [0.0, 0.3, -0.2, 0.4, 0.1], atol=1e-12)


def test_pictures_are_drawn_where_there_is_no_opengl(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    env = SwimEnv(render_mode="rgb_array", width=200, height=120)
    env.reset(seed=0)
    first = env.render()
    assert first.shape == (120, 200, 3)
    assert first.dtype == np.uint8
    for _ in range(30):
        env.step(np.ones(5))
    assert (env.render() != first).any(axis=-1).mean() > 0.01, "the body has moved"
    blue = (np.abs(first.astype(int) - (0, 0x72, 0xB2)).sum(-1) < 60).mean()
    assert 0.003 < blue < 0.3
    assert SwimEnv().render() is None


def test_pictures_are_rendered_where_there_is(monkeypatch):
    calls = []

    class Renderer:
        def __init__(self, model, height, width):
            self.picture = np.zeros((height, width, 3), dtype=np.uint8)

        def update_scene(self, data, camera):
            calls.append(camera)

        def render(self):
            return self.picture

        def close(self):
            calls.append("closed")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr("mujoco.Renderer", Renderer, raising=False)
    camera = Camera(40, 30)
    assert camera.picture(SwimmerBody(SwimmerModel(3))).shape == (30, 40, 3)
    assert camera.renders
    camera.close()
    assert calls == ["tracking1", "closed"]

    def refuse(*arguments):
        raise RuntimeError("no driver")

    monkeypatch.setattr("mujoco.Renderer", refuse, raising=False)
    assert camera.picture(SwimmerBody(SwimmerModel(3))).any()
    assert camera.renders is False


@pytest.mark.parametrize("threads", [1, 3])
def test_many_swimmers_are_gymnasiums_vector_of_single_ones(threads):
    arguments = {"n_links": 4, "include_time": True, "time_limit": 0.3}
    ours = SwimVecEnv(4, threads=threads, **arguments)
    theirs = SyncVectorEnv([lambda: SwimEnv(**arguments)] * 4)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] == theirs.metadata["autoreset_mode"]
    generator = np.random.default_rng(0)
    for seed in (5, None, [9, None, 3, 4]):
        left, right = ours.reset(seed=seed), theirs.reset(seed=seed)
        np.testing.assert_array_equal(left[0], right[0])
        for _ in range(25):
            actions = generator.uniform(-1, 1, (4, 3)).astype(np.float32)
            for one, other in zip(ours.step(actions)[:4], theirs.step(actions)[:4], strict=True):
                np.testing.assert_array_equal(one, other)
                assert one.dtype == other.dtype
    ours.close()


def test_some_swimmers_begin_anew_with_phases_of_their_own():
    envs = SwimVecEnv(3, include_time=True, time_limit=0.3, autoreset_mode=AutoresetMode.DISABLED, threads=1)
    envs.reset(seed=0)
    for _ in range(4):
        envs.step(np.zeros((3, 5)))
    mask = np.array([False, True, False])
    observations, _ = envs.reset(options={"reset_mask": mask}, seed=7)
    assert observations[:, -1].tolist() == pytest.approx([-0.2, -1, -0.2])
    single = SwimEnv(include_time=True).reset(seed=8)[0]
    assert observations[1].tolist() == single.tolist()
    for _ in range(6):
        *_, truncated, _ = envs.step(np.zeros((3, 5)))
    assert truncated.tolist() == [True, False, True]
    with pytest.raises(ResetNeeded, match=r"environments \[0, 2\] are over"):
        envs.step(np.zeros((3, 5)))


def test_misuse_is_refused():
    with pytest.raises(ResetNeeded, match="call reset"):
        SwimEnv().step(np.zeros(5))
    with pytest.raises(ResetNeeded, match="call reset"):
        SwimVecEnv(1).step(np.zeros((1, 5)))
    env = SwimEnv()
    env.reset(seed=0)
    for action, message in ((np.zeros(6), r"shape \(5,\).*got \(6,\)"), (np.full(5, np.nan), "must be finite")):
        with pytest.raises(ValueError, match=message):
            env.step(action)
    for arguments, message in (
        ({"n_links": 2}, "n_links must be an integer of 3 or more"),
        ({"desired_speed": 0.0}, "desired_speed must be a positive"),
        ({"time_limit": math.inf}, "time_limit must be a positive"),
        ({"render_mode": "human"}, "render_mode must be None or 'rgb_array'"),
        ({"width": 0}, "width and height must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            SwimEnv(**arguments)
    for arguments, message in (
        ({"num_envs": 0}, "num_envs must be"),
        ({"num_envs": 2, "threads": 0}, "threads must be"),
        ({"num_envs": 2, "autoreset_mode": AutoresetMode.SAME_STEP}, "NEXT_STEP or DISABLED"),
    ):
        with pytest.raises(ValueError, match=message):
            SwimVecEnv(**arguments)
    envs = SwimVecEnv(2)
    for options in ({"mask": 1}, {"reset_mask": [True, False]}, {"reset_mask": np.zeros(2, dtype=bool)}):
        with pytest.raises(ValueError, match="reset_mask"):
            envs.reset(options=options)
    with pytest.raises(ValueError, match="one entry for each of 2"):
        envs.reset(seed=[1])


def test_mujoco_4_is_refused_with_the_pin():
    check_mujoco_version("3.17.0")
    with pytest.raises(ImportError, match=r"pip install 'mujoco>=3\.3,<4'"):
        check_mujoco_version("4.0.0")


def test_a_missing_extra_names_the_install_command(monkeypatch):
    for module in ("mujoco", "interplay.embodied.ncap.body", "interplay.embodied.ncap.environment"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "mujoco", None)
    import interplay.embodied.ncap as package

    with pytest.raises(ImportError, match=r"SwimEnv needs mujoco: pip install 'interplay\[rl\]'"):
        package.SwimEnv  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Fish'"):
        package.Fish  # noqa: B018
