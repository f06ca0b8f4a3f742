"""Winner-take-all: against the softmax written out, the sort, and what competition means."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from interplay.primitives.competition import hard_winner_take_all, k_winners_take_all, soft_winner_take_all


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
