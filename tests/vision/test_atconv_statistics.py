"""Statistics of kernels: closed forms on made kernels, what inhibition and static kernels must do to them."""

import math

import pytest
import torch
from torch import nn

from interplay.vision.atconv import ATConv2d, ATConvTokens, kernel_statistics
from interplay.vision.atconv.statistics import dc_share, effective_rank, mean_absolute_cosine, routing_variance


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_dc_share_of_a_blur_an_edge_and_a_single_tap():
    blur, edge, tap = torch.ones(3, 3), torch.tensor([[1.0, 0, -1]] * 3), torch.zeros(3, 3)
    tap[1, 1] = 2
    shares = dc_share(torch.stack([blur, -2 * blur, edge, tap])[None])
    assert torch.allclose(shares, torch.tensor([[1, 1, 0, 1 / 9]]))


def test_cosine_and_rank_of_orthogonal_equal_and_mixed_kernels():
    taps = torch.eye(9, dtype=torch.float64).view(1, 9, 3, 3)
    assert mean_absolute_cosine(taps).item() == pytest.approx(0, abs=1e-12)
    assert effective_rank(taps).item() == pytest.approx(9)
    same = taps[:, :1].expand(1, 4, 3, 3) * torch.tensor([1.0, -2, 3, 4]).view(4, 1, 1)
    assert mean_absolute_cosine(same).item() == pytest.approx(1)
    assert effective_rank(same).item() == pytest.approx(1)
    pair = torch.stack([taps[0, 0], (taps[0, 0] + math.sqrt(3) * taps[0, 1]) / 2])[None]
    assert mean_absolute_cosine(pair).item() == pytest.approx(0.5)
    values = torch.tensor([1.5, 0.5]).sqrt()  # of unit vectors 60 degrees apart
    shares = values / values.sum()
    assert effective_rank(pair).item() == pytest.approx(float((-(shares * shares.log()).sum()).exp()))
    assert math.isnan(mean_absolute_cosine(taps[:, :1]))


def test_routing_variance_tells_images_from_channels():
    by_channel = drawn(1, 5, 3, 3).expand(4, 5, 3, 3)
    by_image = drawn(4, 1, 3, 3).expand(4, 5, 3, 3)
    assert routing_variance(by_channel).item() == pytest.approx(0, abs=1e-12)
    assert routing_variance(by_image).item() == pytest.approx(1)
    # For sums of both, variances add.
    parts = [part.var(dim, correction=0).sum() for part, dim in ((by_image[:, 0], 0), (by_channel[0], 0))]
    assert routing_variance(by_channel + by_image).item() == pytest.approx(float(parts[0] / sum(parts)))
    assert math.isnan(routing_variance(by_image[:1]))


def test_every_layer_of_a_model_is_reported_and_hooks_are_gone():
    torch.manual_seed(0)
    model = nn.Sequential(ATConv2d(6), nn.GELU(), ATConv2d(6, kernel_source="static")).double()
    nn.init.normal_(model[0].gate)
    x = drawn(4, 6, 8, 8)
    before = model(x)
    found = kernel_statistics(model, x)
    assert list(found) == ["0", "2"]
    assert torch.equal(model(x), before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert found["0"].routing_variance > 0.01
    assert found["2"].routing_variance == pytest.approx(0, abs=1e-12)
    kernels = model[0].kernels(x).detach()
    assert found["0"].dc_share == pytest.approx(float(dc_share(kernels).mean()))
    assert torch.equal(found["0"].strength, torch.sigmoid(model[0].gate))
    assert found["0"].dc_share < found["0"].raw_dc_share


def test_inhibition_lowers_the_dc_share_as_the_closed_form_says():
    torch.manual_seed(1)
    layer, x = ATConvTokens(5).double(), drawn(3, 16, 5)
    nn.init.normal_(layer.gate)
    share = dc_share(layer.raw_kernels(x))
    f = torch.sigmoid(layer.gate)
    expected = (1 - f) ** 2 * share / (1 - (2 * f - f**2) * share)
    assert torch.allclose(dc_share(layer.kernels(x)), expected)
    full = ATConvTokens(5, inhibition="full").double()
    assert kernel_statistics(full, x)[""].dc_share == pytest.approx(0, abs=1e-12)


def test_a_model_without_the_layer_is_refused():
    with pytest.raises(ValueError, match="calls no attentive convolution; it has 0"):
        kernel_statistics(nn.Linear(3, 3), torch.zeros(2, 3))
