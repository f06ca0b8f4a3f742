"""Evaluation mode for a while: what it switches off, and that every part gets its own mode back."""

import pytest
import torch
from torch import nn

from interplay.primitives.modes import evaluating


def test_dropout_and_batch_statistics_are_off_and_come_back():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)) + 5
    with evaluating(net):
        torch.testing.assert_close(net(inputs), inputs / (1 + 1e-5) ** 0.5)  # mean 0 and variance 1, as they began
    assert net[0].num_batches_tracked == 0
    assert net.training
    net(inputs)
    assert net[0].num_batches_tracked == 1


def test_parts_with_a_mode_of_their_own_keep_it_even_after_an_error():
    frozen, other = nn.Linear(1, 1).eval(), nn.Linear(1, 1).eval()
    net = nn.Sequential(frozen, nn.Linear(1, 1))

    def fail() -> None:
        with evaluating(net, other):
            raise RuntimeError(f"within: {any(part.training for part in net.modules())}")

    with pytest.raises(RuntimeError, match="within: False"):
        fail()
    assert [part.training for part in (net, *net, other)] == [True, False, True, False]
