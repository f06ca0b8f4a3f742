"""Competition: against the softmax and the sums written out, the sort, and what competition means."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from interplay.primitives.competition import (
    divisive_inhibition,
    hard_winner_take_all,
    k_winners_take_all,
    pooled_inhibition,
    soft_winner_take_all,
    straight_through_nonzero,
    subtractive_inhibition,
)


def drives(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_soft_competition_is_the_softmax_written_out() -> None:
    drive = drives(2, 4)
    expected = [[math.exp(u / 0.7) / sum(math.exp(v / 0.7) for v in row) for u in row] for row in drive.tolist()]
    assert_close(soft_winner_take_all(drive, temperature=0.7), torch.tensor(expected, dtype=torch.float64))


@settings(deadline=None)
@given(dim=st.integers(-3, 2), temperature=st.floats(0.05, 20.0), seed=st.integers(0, 99))
def test_one_unit_of_activity_is_shared_along_the_dimension(dim: int, temperature: float, seed: int) -> None:
    drive = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    activity = soft_winner_take_all(drive, temperature=temperature, dim=dim)
    assert (activity >= 0).all()
    assert_close(activity.sum(dim), torch.ones_like(activity.sum(dim)))
    assert torch.equal(activity.argmax(dim), drive.argmax(dim))


def test_cold_competition_is_hard_and_hot_competition_is_even() -> None:
    drive = drives(6, 5)
    assert_close(soft_winner_take_all(drive, temperature=1e-4), hard_winner_take_all(drive))
    assert_close(soft_winner_take_all(drive, temperature=1e9), torch.full_like(drive, 1 / 5))


def test_raising_one_drive_takes_from_all_others() -> None:
    drive = drives(4)
    raised = drive.clone()
    raised[1] += 0.5
    change = soft_winner_take_all(raised) - soft_winner_take_all(drive)
    assert change[1] > 0
    assert (change[[0, 2, 3]] < 0).all()


@settings(deadline=None)
@given(winners=st.integers(1, 5), seed=st.integers(0, 99), dim=st.sampled_from([0, 1, -1]))
def test_k_winners_are_the_k_largest(winners: int, seed: int, dim: int) -> None:
    drive = torch.randn(5, 5, generator=torch.Generator().manual_seed(seed))
    mask = k_winners_take_all(drive, winners, dim=dim)
    threshold = drive.sort(dim, descending=True).values.select(dim, winners - 1).unsqueeze(dim)
    assert torch.equal(mask, drive >= threshold)


def test_among_equals_exactly_k_win() -> None:
    assert k_winners_take_all(torch.zeros(3, 7), 2).sum(-1).tolist() == [2, 2, 2]
    assert hard_winner_take_all(torch.zeros(3, 7)).sum(-1).tolist() == [1, 1, 1]


def test_winners_share_and_losers_are_silent() -> None:
    drive = torch.tensor([3.0, 1.0, 2.0, -1.0])
    expected = torch.tensor([math.e / (1 + math.e), 0.0, 1 / (1 + math.e), 0.0])
    assert_close(soft_winner_take_all(drive, winners=2), expected)
    assert_close(soft_winner_take_all(drive, winners=4), soft_winner_take_all(drive))
    assert_close(soft_winner_take_all(drive, winners=1), hard_winner_take_all(drive))


def test_gradients_reach_the_drive() -> None:
    drive = drives(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda u: soft_winner_take_all(u, temperature=0.5, winners=3), drive)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a positive number"):
        soft_winner_take_all(torch.zeros(3), temperature=temperature)


@pytest.mark.parametrize("winners", [0, 4, -1])
def test_there_are_as_many_winners_as_competitors_at_most(winners: int) -> None:
    with pytest.raises(ValueError, match="winners must be between 1 and the 3 competitors"):
        k_winners_take_all(torch.zeros(2, 3), winners)


def activity(*shape: int, seed: int = 0) -> torch.Tensor:
    """Not negative, a third of it zero."""
    values = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1 / 3
    return values.clamp(min=0)


@settings(deadline=None, max_examples=30)
@given(dim=st.integers(-3, 2), shape=st.tuples(*[st.integers(1, 4)] * 3), units=st.integers(1, 5))
def test_inhibition_is_the_weighted_sum_over_inhibitors(dim: int, shape: tuple[int, int, int], units: int) -> None:
    inhibition = activity(*shape)
    weight = activity(units, shape[dim], seed=1)
    expected = torch.stack(
        [sum(weight[unit, j] * inhibition.select(dim, j) for j in range(shape[dim])) for unit in range(units)], dim
    )
    assert_close(pooled_inhibition(inhibition, weight, dim=dim), expected)
    drive = torch.ones_like(expected)
    assert_close(subtractive_inhibition(drive, inhibition, weight, dim=dim), drive - expected)


def test_division_by_hand() -> None:
    drive = torch.tensor([[6.0, 4.0, 3.0], [5.0, 5.0, 5.0]])
    inhibition = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    weight = torch.tensor([[1.0, 1.0], [0.0, 0.5], [0.0, 0.0]])  # denominators 3, 1, 0 -> 1; then all 0 -> infinity
    assert divisive_inhibition(drive, inhibition, weight).tolist() == [[2.0, 4.0, 3.0], [0.0, 0.0, 0.0]]


def test_a_sample_of_images_shares_one_smallest_denominator() -> None:
    inhibition = torch.tensor([[[[0.0, 4.0]]], [[[0.0, 8.0]]]])  # (batch, channels, height, width) = (2, 1, 1, 2)
    quotient = divisive_inhibition(torch.full((2, 2, 1, 2), 8.0), inhibition, torch.tensor([[1.0], [0.5]]), dim=1)
    assert quotient.flatten(1).tolist() == [[4.0, 2.0, 4.0, 4.0], [2.0, 1.0, 2.0, 2.0]]


def test_division_responds_to_contrast_and_not_to_scale() -> None:
    inhibition, weight = activity(5, 4) + 0.1, activity(6, 4, seed=1) + 0.1
    drive = activity(5, 6, seed=2)
    assert_close(divisive_inhibition(7 * drive, 7 * inhibition, weight), divisive_inhibition(drive, inhibition, weight))


@settings(deadline=None)
@given(seed=st.integers(0, 99), share=st.floats(0, 1))
def test_only_zeros_are_replaced_and_by_the_smallest_of_their_sample(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    denominator = torch.rand(4, 6, generator=generator) + 0.01
    denominator *= torch.rand(4, 6, generator=generator) >= share
    for row, replaced in zip(denominator.tolist(), straight_through_nonzero(denominator).tolist(), strict=True):
        smallest = min((value for value in row if value), default=math.inf)
        assert replaced == [value or smallest for value in row]


def test_the_gradient_passes_straight_through_replaced_zeros() -> None:
    denominator = torch.tensor([[2.0, 0.0, 0.5], [1.0, 1.0, 4.0]], requires_grad=True)
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    (straight_through_nonzero(denominator) * weight).sum().backward()
    assert torch.equal(denominator.grad, weight)


def test_without_zeros_the_gradients_of_inhibition_are_the_derivatives() -> None:
    drive, inhibition, weight = activity(3, 5) + 0.1, activity(3, 2, seed=1) + 0.1, activity(5, 2, seed=2) + 0.1
    inputs = tuple(tensor.requires_grad_() for tensor in (drive, inhibition, weight))
    assert torch.autograd.gradcheck(divisive_inhibition, inputs)
    assert torch.autograd.gradcheck(subtractive_inhibition, inputs)


def test_inhibition_of_many_networks_at_once_is_that_of_each() -> None:
    drive, inhibition, weight = activity(4, 3, 5), activity(4, 3, 2, seed=1), activity(4, 5, 2, seed=2)
    together = torch.func.vmap(divisive_inhibition)(drive, inhibition, weight)
    alone = [divisive_inhibition(*one) for one in zip(drive, inhibition, weight, strict=True)]
    assert_close(together, torch.stack(alone))


def test_weights_fit_the_inhibitors() -> None:
    with pytest.raises(ValueError, match="one column for each of the 3 inhibitory units along dim -1; got 2 columns"):
        subtractive_inhibition(torch.zeros(4, 5), torch.zeros(4, 3), torch.zeros(5, 2))
