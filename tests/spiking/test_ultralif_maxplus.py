"""Max-plus algebra at a temperature: between its bounds, exact where it can be, and safe at extremes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import lambertw
from torch.testing import assert_close

from interplay.spiking.ultralif import (
    UltraDLIF,
    UltraLIF,
    error_bound,
    hard_maximum,
    rate_floor,
    ring_soft_maximum,
    soft_maximum,
    soft_maximum_of_two,
    steepest_spike,
)

temperatures = st.floats(0.01, 20.0)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(terms=st.integers(1, 7), eps=temperatures, seed=st.integers(0, 1000))
def test_the_soft_maximum_lies_between_its_bounds_and_moves_no_further_than_its_arguments(terms, eps, seed):
    x, moved = randn(terms, 20, seed=seed), randn(terms, 20, seed=seed + 1)
    soft, hard = soft_maximum(x, eps, 0), hard_maximum(x, 0)
    assert (soft >= hard - 1e-12).all()
    assert (soft <= hard + error_bound(terms, eps) + 1e-12).all()
    furthest = (moved - x).abs().amax(0)
    assert ((soft_maximum(moved, eps, 0) - soft).abs() <= furthest + 1e-12).all()


def test_equal_terms_reach_the_upper_bound():
    for terms in (1, 2, 3, 10):
        assert_close(soft_maximum(torch.zeros(terms), 0.7), torch.tensor(0.7 * math.log(terms)))
        assert error_bound(terms, 0.7) == pytest.approx(0.7 * math.log(terms))


def test_it_is_the_logarithm_of_a_sum_of_exponentials():
    x = randn(4, 5)
    assert_close(soft_maximum(x, 0.5, 1), 0.5 * torch.log(sum(torch.exp(x[:, i] / 0.5) for i in range(5))))
    assert_close(soft_maximum_of_two(x, -x, 2.0), soft_maximum(torch.stack((x, -x)), 2.0, 0))
    ring = torch.stack([soft_maximum(x[:, [(i - 1) % 5, i, (i + 1) % 5]], 0.3) for i in range(5)], 1)
    assert_close(ring_soft_maximum(x, 0.3), ring)
    assert_close(ring_soft_maximum(x[0], 0.3), ring[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_counts_of_thousands_at_a_low_temperature_do_not_overflow(dtype):
    x = torch.tensor([[5000.0, -5000.0, 0.0, 5000.0]], dtype=dtype, requires_grad=True)
    for soft in (soft_maximum(x, 0.1), soft_maximum_of_two(x, -x, 0.1), ring_soft_maximum(x, 0.1)):
        assert soft.dtype == dtype
        assert soft.isfinite().all()
        (gradient,) = torch.autograd.grad(soft.sum(), x)
        assert gradient.isfinite().all()
    # The two units that hold 5000 are neighbours on the ring; each of the others sees one of them.
    expected = torch.tensor([[5000 + 0.1 * math.log(2), 5000, 5000, 5000 + 0.1 * math.log(2)]], dtype=dtype)
    assert_close(ring_soft_maximum(x, 0.1).detach(), expected)


def test_the_gradient_is_the_softmax():
    x = randn(3, 6).requires_grad_()
    (gradient,) = torch.autograd.grad(soft_maximum(x, 0.4).sum(), x)
    assert_close(gradient, (x / 0.4).softmax(-1))
    assert torch.autograd.gradcheck(lambda x: ring_soft_maximum(x, 0.4), (x,))


@settings(max_examples=40, deadline=None)
@given(eps=temperatures, decay=st.floats(0.05, 0.95), scale=st.floats(0.1, 30.0), seed=st.integers(0, 1000))
def test_the_membrane_of_ultralif_stays_within_the_bound_of_the_hard_one(eps, decay, scale, seed):
    steps = 12
    current = scale * randn(steps, 1, 50, seed=seed)
    neuron = UltraLIF(decay, eps, learn_eps=False).double()
    soft, hard = torch.zeros(1, 50, dtype=torch.float64), torch.zeros(1, 50, dtype=torch.float64)
    for step, now in enumerate(current, start=1):
        charged = soft_maximum_of_two(soft + math.log(decay), now, eps)
        hard = torch.maximum(hard + math.log(decay), now)
        assert ((charged - hard).abs() <= error_bound(2, eps, step, reset=True) * (1 + 1e-9)).all()
        spikes, soft = neuron(now, soft)
        hard = torch.where(hard >= 0, 0.0, hard)
        # Far from the threshold the graded spike is the hard one.
        sure = charged.abs() >= 10 * eps
        assert ((spikes - (charged >= 0).double()).abs()[sure] <= math.exp(-10)).all()


def test_without_reset_errors_add_up_no_faster_than_the_bound():
    current, eps = randn(30, 200), 0.5
    soft, hard = torch.zeros(200).double(), torch.zeros(200).double()
    for step, now in enumerate(current, start=1):
        soft, hard = soft_maximum_of_two(soft - 0.1, now, eps), torch.maximum(hard - 0.1, now)
        assert (soft >= hard).all()
        assert (soft - hard).max() <= error_bound(2, eps, step)


def test_the_worst_reset_is_lambert_w_of_one_over_e():
    assert error_bound(1, 1.0, 2, reset=True) == pytest.approx(lambertw(1 / math.e).real, abs=1e-15)
    potential = torch.linspace(-5, 5, 100_001, dtype=torch.float64)
    error = (potential * (1 - torch.sigmoid(potential)) - potential.clamp(max=0)).abs()
    assert error.max().item() == pytest.approx(error_bound(1, 1.0, 2, reset=True), abs=1e-8)


@pytest.mark.parametrize("eps", [0.1, 1.0, 5.0])
def test_the_slope_of_the_spike_is_bounded_and_reaches_its_bound_at_the_threshold(eps):
    potential = torch.linspace(-30 * eps, 30 * eps, 2001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(UltraLIF(eps=eps, learn_eps=False).graded(potential).sum(), potential)
    assert (slope > 0).all()
    assert slope.max().item() == pytest.approx(steepest_spike(eps))


@pytest.mark.parametrize(("decay", "eps"), [(0.9, 1.0), (0.5, 0.2), (0.2, 3.0)])
def test_ultralif_is_never_silent_at_the_first_step(decay, eps):
    neuron = UltraLIF(decay, eps, learn_eps=False).double()
    current = torch.tensor([[-1e4, -1.0, 0.5]], dtype=torch.float64)
    spikes, _ = neuron(current)
    assert spikes[0, 0].item() == pytest.approx(rate_floor(decay, eps))
    kept, arriving = decay ** (1 / eps), (current / eps).exp()
    assert_close(spikes, (kept + arriving) / (1 + kept + arriving))
    assert rate_floor(0.9, 1.0) == pytest.approx(0.474, abs=5e-4)


def test_one_step_of_the_ring_stays_within_the_bound_of_three_terms():
    neuron, potential = UltraDLIF(50, eps=0.3, learn_eps=False).double(), randn(20, 50)
    hard = torch.stack((potential.roll(1, -1), potential, potential.roll(-1, -1))).amax(0)
    error = neuron.coupled(potential) - hard
    assert (error >= 0).all()
    assert error.max() <= error_bound(3, 0.3)


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_that_are_not_positive_are_refused(eps):
    for call in (lambda: soft_maximum(torch.zeros(2), eps), lambda: steepest_spike(eps), lambda: rate_floor(0.9, eps)):
        with pytest.raises(ValueError, match="eps must be a positive number"):
            call()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="three units or more along the last dimension"):
        ring_soft_maximum(torch.zeros(3, 2), 1.0)
    with pytest.raises(ValueError, match="terms and steps must be positive"):
        error_bound(0, 1.0)
    with pytest.raises(ValueError, match="eps must be a number >= 0"):
        error_bound(2, -1.0)
    with pytest.raises(ValueError, match="decay must lie in"):
        rate_floor(1.0, 1.0)
