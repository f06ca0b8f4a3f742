"""The closed-form system against autograd, finite samples, dense eigenvalues and what the theory says of its limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.dynamics.opposing_signals import OpposingSignalsToy

TOY = OpposingSignalsToy(alpha=40.0, p=0.25, kappa=0.7, d1=3, d2=4, beta_norm=2.0)


def written_out(theta: torch.Tensor) -> torch.Tensor:
    """The population loss from the model's definition: a Gaussian part and two groups of outliers."""
    b_s, b_o, c = theta[:3], theta[3:7], theta[7]
    beta = torch.tensor([2.0, 0, 0]).double()
    total = 0.5 * (c * b_s - beta).square().sum()
    for sign in (1.0, -1.0):
        x_o = sign * (40.0 / 4) ** 0.5 * torch.ones(4).double()
        residual = c * (b_o @ x_o) - 0.7 * x_o.sum().abs() / 4**0.5
        total = total + 0.25 / 2 * 0.5 * residual**2
    return total


@settings(deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=8, max_size=8))
def test_loss_gradient_and_hessian_are_those_of_autograd(numbers):
    theta = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    loss = written_out(theta)
    (gradient,) = torch.autograd.grad(loss, theta)
    hessian = torch.autograd.functional.hessian(written_out, theta.detach()).numpy()
    point = theta.detach().numpy()
    assert TOY.loss(point) == pytest.approx(loss.item(), rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(TOY.gradient(point), gradient.numpy(), atol=1e-10)
    np.testing.assert_allclose(TOY.hessian(point), hessian, atol=1e-10)
    assert TOY.sharpness(point) == pytest.approx(float(np.linalg.eigvalsh(hessian)[-1]), abs=1e-9)


def test_the_loss_is_that_of_many_samples():
    random = np.random.default_rng(0)
    theta = random.normal(size=8)
    x_s = random.normal(size=(400_000, 3))
    sign = random.choice([1.0, -1.0, 0.0], p=[0.125, 0.125, 0.75], size=400_000)
    x_o = sign[:, None] * np.sqrt(40 / 4) * np.ones(4)
    target = x_s @ TOY.beta + 0.7 * np.abs(x_o.sum(1)) / 2
    losses = 0.5 * (theta[7] * (x_s @ theta[:3] + x_o @ theta[3:7]) - target) ** 2
    assert losses.mean() == pytest.approx(float(TOY.loss(theta)), abs=5 * losses.std() / np.sqrt(len(losses)))
    plus, minus = TOY.group_losses(theta)
    for value, group in ((1, plus), (-1, minus)):
        # A group's loss leaves out the regular part, which is independent of it and of mean zero.
        regular = 0.5 * ((theta[7] * theta[:3] - TOY.beta) ** 2).sum()
        chosen = losses[sign == value]
        assert chosen.mean() - regular == pytest.approx(float(group), abs=5 * chosen.std() / np.sqrt(len(chosen)))


def test_runs_at_once_equal_runs_one_by_one():
    start = TOY.start(np.random.default_rng(1), 3)
    rates = [0.01, 0.05, 0.12]
    together = TOY.gd(rates, 50, start)
    for run, rate in enumerate(rates):
        alone = TOY.gd(rate, 50, start[run])
        for ours, theirs in zip(together[1:], alone[1:], strict=True):
            np.testing.assert_array_equal(ours[:, run], theirs)


def test_gradient_flow_sharpens_to_the_limit_that_the_outliers_set():
    for p, limit in ((0.1, 30.0), (0.0, 6.0)):
        toy = OpposingSignalsToy(alpha=100.0, p=p, beta_norm=3.0)
        path = toy.flow(40.0, toy.start(np.random.default_rng(0), 2))
        np.testing.assert_allclose(path.sharpness[-1], limit, rtol=0.01)
        assert (path.sharpness[-1] > 5 * path.sharpness[0]).all() or p == 0


def test_small_steps_of_descent_follow_the_flow():
    start = TOY.start(np.random.default_rng(3), 1)
    flow = TOY.flow(2.0, start, points=3)
    descent = TOY.gd(1e-4, 20_000, start)
    np.testing.assert_allclose(descent.parameters[[0, 10_000, 20_000]], flow.parameters, rtol=2e-3, atol=2e-3)


def test_past_the_edge_groups_swing_in_opposition_and_the_spike_ends_below_it():
    toy = OpposingSignalsToy(alpha=100.0, p=0.1, beta_norm=3.0)
    start = toy.start(np.random.default_rng(0), 1)
    path = toy.gd(0.08, 400, start)
    crossing = int(np.argmax(path.sharpness[:, 0] > 25))
    assert path.sharpness[crossing, 0] > 25
    assert path.sharpness[-1, 0] < 25
    base = path.loss[:, 0] - 5 * toy.kappa**2
    peak = crossing + int(np.argmax(base[crossing:]))
    swings = path.outlier_weight[peak - 3 : peak + 3, 0]
    assert (np.sign(swings[1:]) != np.sign(swings[:-1])).all()
    change_plus, change_minus = np.diff(path.loss_plus[:, 0]), np.diff(path.loss_minus[:, 0])
    assert (change_plus[peak - 3 : peak] * change_minus[peak - 3 : peak] < 0).all()


def test_a_stable_step_never_crosses():
    toy = OpposingSignalsToy(alpha=100.0, p=0.1, beta_norm=3.0)
    path = toy.gd(0.05, 400, toy.start(np.random.default_rng(0), 1))
    assert path.sharpness.max() < 2 / 0.05
    assert (np.diff(path.loss[:, 0]) < 1e-12).all()


def test_bad_input_is_refused():
    for options, message in (
        ({"p": 1.5}, "p must be a probability"),
        ({"alpha": -1.0}, "alpha must be a finite number, zero or more; got -1"),
        ({"d2": 0}, "d2 must be 1 or more; got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            OpposingSignalsToy(**options)
    with pytest.raises(ValueError, match=r"parameters must be .* = \(\.\.\., 8\); got shape \(3,\)"):
        TOY.loss(np.zeros(3))
    with pytest.raises(ValueError, match="eta above 0"):
        TOY.gd(0.0, 10, np.zeros(8))
    with pytest.raises(ValueError, match="duration must be above 0"):
        TOY.flow(0.0, np.zeros(8))
