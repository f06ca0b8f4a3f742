"""The circuit as a Stable-Baselines3 policy: it trains, it is saved and loaded, and it is the circuit."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from interplay.embodied.ncap import NCAPPolicy, NCAPSwimmer, SwimEnv


def ppo(**policy_kwargs):
    env = SwimEnv(include_time=True)
    return PPO(NCAPPolicy, env, policy_kwargs=policy_kwargs, n_steps=128, batch_size=64, seed=0, device="cpu")


def test_before_training_it_is_the_circuit_and_swims():
    model = ppo()
    returns, _ = evaluate_policy(model, Monitor(SwimEnv(include_time=True)), n_eval_episodes=1, deterministic=True)
    assert returns > 700
    observations = np.random.default_rng(0).uniform(-1, 1, (7, 24))
    actions, _ = model.predict(observations, deterministic=True)
    joints = torch.from_numpy(observations[:, :5]).float() / (np.pi / 3)
    steps = torch.from_numpy(np.round((observations[:, -1] + 1) * 500))
    expected = NCAPSwimmer(5)(joints, timestep=steps).detach().numpy()
    np.testing.assert_allclose(actions, expected, atol=1e-6)


def test_its_noise_is_fixed():
    model = ppo(action_noise=0.3, circuit={"init": "uniform"})
    observations = torch.rand(2000, 24, generator=torch.Generator().manual_seed(0))
    actions, values, log_probability = model.policy(observations)
    assert values.shape == (2000, 1)
    mean = model.policy.action_net(observations)
    residual = (actions - mean).detach()
    assert residual.std().item() == pytest.approx(0.3, rel=0.05)
    expected = torch.distributions.Normal(mean, 0.3).log_prob(actions).sum(-1)
    torch.testing.assert_close(log_probability, expected)
    model.learn(256)
    assert model.policy.log_std.exp().tolist() == pytest.approx([0.3] * 5)


def test_training_moves_the_weights_and_survives_a_file(tmp_path):
    model = ppo(circuit={"init": "uniform", "share_weights": False}, critic=(16,))
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(256)
    after = model.policy.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"action_net.circuit.proprioception.raw", "action_net.circuit.muscles.ipsilateral.raw"} <= moved
    assert sum(parameter.numel() for parameter in model.policy.action_net.parameters()) == 30
    model.save(tmp_path / "swimmer")
    loaded = PPO.load(tmp_path / "swimmer", device="cpu")
    observations = np.random.default_rng(0).uniform(-1, 1, (9, 24))
    expected, _ = model.predict(observations, deterministic=True)
    np.testing.assert_array_equal(loaded.predict(observations, deterministic=True)[0], expected)
    model.policy.save(str(tmp_path / "policy"))
    alone = NCAPPolicy.load(str(tmp_path / "policy"), device="cpu")
    np.testing.assert_array_equal(alone.predict(observations, deterministic=True)[0], expected)
    loaded.set_env(SwimEnv(include_time=True))
    loaded.learn(128)


def test_its_policy_gradient_is_that_of_the_expected_reward():
    """Reward -sum(a^2): the score-function estimate must agree with the derivative of the expectation -sum(mean^2)."""
    policy = ppo(circuit={"init": "uniform"}).policy
    observations = torch.empty(20_000, 24).uniform_(-1, 1, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    weights = [parameter for name, parameter in policy.action_net.named_parameters() if "contralateral" not in name]
    mean = policy.action_net(observations)
    exact = torch.autograd.grad(-mean.square().sum(-1).mean(), weights)
    noise = 0.1 * torch.randn(20_000, 5, generator=torch.Generator().manual_seed(1))
    actions = (mean + torch.cat((noise, -noise))).detach()
    _, log_probability, _ = policy.evaluate_actions(observations, actions)
    advantage = (mean.square() - actions.square()).sum(-1).detach()
    estimate = torch.autograd.grad((advantage * log_probability).mean(), weights)
    for one, other in zip(estimate, exact, strict=True):
        assert other < 0
        torch.testing.assert_close(one, other, rtol=0.2, atol=0)  # four standard errors


REFUSED = {
    "observations must have 6 entries": (spaces.Box(-1, 1, (5,)), spaces.Box(-1, 1, (5,)), {}),
    "actions must be a Box": (spaces.Box(-1, 1, (5,)), spaces.Discrete(3), {}),
    "observations must be a flat Box": (spaces.Box(-1, 1, (5, 2)), spaces.Box(-1, 1, (5,)), {}),
    "net_arch: the actor is the circuit": (spaces.Box(-1, 1, (9,)), spaces.Box(-1, 1, (5,)), {"net_arch": [64]}),
    "use_sde must be False": (spaces.Box(-1, 1, (9,)), spaces.Box(-1, 1, (5,)), {"use_sde": True}),
    "action_noise must be a positive": (spaces.Box(-1, 1, (9,)), spaces.Box(-1, 1, (5,)), {"action_noise": 0.0}),
}


@pytest.mark.parametrize("message", REFUSED)
def test_spaces_and_settings_that_do_not_fit_are_refused(message):
    observations, actions, settings = REFUSED[message]
    with pytest.raises(ValueError, match=message):
        NCAPPolicy(observations, actions, lambda progress: 1e-3, **settings)
