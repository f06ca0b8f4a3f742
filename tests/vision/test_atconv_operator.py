"""The operator against loops over pixels, closed forms, finite differences, and in every format and precision."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.vision.atconv import ATConv2d, attentive_conv2d, differential_kernel, pooled_context


def drawn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_loops(values: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Every output pixel as a sum over taps that lie inside the image."""
    out = np.zeros_like(values)
    rows, columns = kernels.shape[-2:]
    for (image, channel, y, x), _ in np.ndenumerate(values):
        for i in range(rows):
            for j in range(columns):
                row, column = y + i - rows // 2, x + j - columns // 2
                if 0 <= row < values.shape[2] and 0 <= column < values.shape[3]:
                    out[image, channel, y, x] += kernels[image, channel, i, j] * values[image, channel, row, column]
    return out


@pytest.mark.parametrize(("size", "kernel"), [((4, 5), (3, 3)), ((1, 1), (3, 3)), ((6, 3), (5, 5)), ((5, 4), (1, 3))])
def test_agrees_with_loops_over_pixels_and_taps(size, kernel):
    values, kernels = drawn(2, 3, *size), drawn(2, 3, *kernel, seed=1)
    expected = by_loops(values.numpy(), kernels.numpy())
    np.testing.assert_allclose(attentive_conv2d(values, kernels), expected, atol=1e-12)


def test_gradients_of_first_and_second_order_agree_with_finite_differences():
    values, kernels = drawn(2, 2, 3, 4).requires_grad_(), drawn(2, 2, 3, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(attentive_conv2d, (values, kernels))
    assert torch.autograd.gradgradcheck(attentive_conv2d, (values, kernels))


def test_memory_format_of_the_values_is_kept_and_changes_no_number():
    values, kernels = drawn(2, 4, 6, 5), drawn(2, 4, 3, 3, seed=1)
    plain = attentive_conv2d(values, kernels)
    last = attentive_conv2d(values.contiguous(memory_format=torch.channels_last), kernels)
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(plain, last, atol=1e-12)


def test_an_empty_batch_stays_empty_and_has_gradients():
    values, kernels = torch.zeros(0, 3, 4, 5, requires_grad=True), torch.zeros(0, 3, 3, 3, requires_grad=True)
    mixed = attentive_conv2d(values, kernels)
    assert mixed.shape == (0, 3, 4, 5)
    mixed.sum().backward()
    assert values.grad.shape == values.shape


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 3, 5]), st.floats(0, 1), st.integers(0, 2**16))
def test_inhibition_scales_the_mean_and_keeps_the_contrast(channels, size, strength, seed):
    kernels = drawn(2, channels, size, size, seed=seed)
    strengths = torch.full((channels,), strength, dtype=torch.float64)
    strengths[0] = 0.3
    after = differential_kernel(kernels, strengths)
    mean, mean_after = (part.mean((-2, -1)) for part in (kernels, after))
    assert torch.allclose(mean_after, (1 - strengths) * mean, atol=1e-12)
    assert torch.allclose(after - mean_after[..., None, None], kernels - mean[..., None, None], atol=1e-12)
    # The share of energy in the mean follows in closed form: each term of D = M / (M + V) by (1 - f)^2 on M.
    share, share_after = (
        part.sum((-2, -1)) ** 2 / (size**2 * part.square().sum((-2, -1))) for part in (kernels, after)
    )
    expected = (1 - strengths) ** 2 * share / (1 - (2 * strengths - strengths**2) * share)
    assert torch.allclose(share_after, expected, atol=1e-9, equal_nan=True) or size == 1


def test_inhibition_is_within_a_kernel_and_none_at_zero():
    kernels = drawn(2, 4, 3, 3)
    assert torch.equal(differential_kernel(kernels, 0.0), kernels)
    changed = kernels.clone()
    changed[0, 1] += 5
    before, after = differential_kernel(kernels, 1.0), differential_kernel(changed, 1.0)
    assert torch.allclose(before, after, atol=1e-12)  # a constant on all taps is what full inhibition removes
    assert after.sum((-2, -1)).abs().max() < 1e-12


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 5), (2, 3), (1, 1), (1, 4), (13, 9)])
def test_strips_average_runs_of_pixels_in_rows(height, width):
    x, bins = drawn(2, 3, height, width), 9
    flat, count = x.flatten(2).numpy(), height * width
    expected = np.stack(
        [flat[..., i * count // bins : math.ceil((i + 1) * count / bins)].mean(-1) for i in range(bins)], -1
    )
    np.testing.assert_allclose(pooled_context(x, 3), expected, atol=1e-12)


def test_strips_are_not_cells_of_a_grid():
    columns = torch.arange(6.0).expand(1, 1, 6, 6)  # brightness depends on the column alone
    strips, grid = (pooled_context(columns, 3, pool) for pool in ("strip", "grid"))
    assert grid.view(3, 3).tolist() == [[0.5, 2.5, 4.5]] * 3
    assert strips.flatten()[:3].tolist() == [1.5, 2.5, 3.5]  # four pixels of a row of six, then its end and the next's
    rows = columns.mT
    assert torch.equal(pooled_context(rows, 3, "grid").view(3, 3), grid.view(3, 3).T)
    assert not torch.equal(pooled_context(rows, 3).view(3, 3), strips.view(3, 3).T)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_pools_in_float32(dtype):
    # 2,049 ones cannot be counted in half precision: sums stop at 2,048 and at 256.
    x = torch.ones(1, 1, 200, 200, dtype=dtype)
    x[..., ::2] = 3
    pooled = pooled_context(x, 1)
    assert pooled.dtype == dtype
    assert pooled.item() == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_layer_runs_in_half_precision_near_its_float32_self(dtype):
    torch.manual_seed(0)
    layer, x = ATConv2d(8), drawn(2, 8, 10, 9, dtype=torch.float32)
    half = ATConv2d(8, dtype=dtype)
    half.load_state_dict(layer.state_dict())
    mixed = half(x.to(dtype))
    assert mixed.dtype == dtype
    assert (mixed.float() - layer(x)).abs().max() < 0.03 * layer(x).abs().max()


def test_autocast_gives_its_dtype_and_gradients_in_float32():
    torch.manual_seed(0)
    layer, x = ATConv2d(8), drawn(2, 8, 10, 9, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
    assert mixed.dtype == torch.bfloat16
    assert (mixed.float() - layer(x)).abs().max() < 0.03 * layer(x).abs().max()
    mixed.float().square().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in layer.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_compiles_into_one_graph_with_the_same_numbers(training):
    torch.manual_seed(0)
    layer, x = ATConv2d(6).double(), drawn(2, 6, 7, 5).requires_grad_(training)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    ours, theirs = layer(x), compiled(x)
    assert torch.allclose(ours, theirs, atol=1e-12)
    if training:
        gradients = [torch.autograd.grad(y.square().sum(), [x, layer.gate]) for y in (ours, theirs)]
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("values", "kernels", "message"),
    [
        ((2, 3, 4, 4), (2, 4, 3, 3), "of the same batch and channels"),
        ((2, 3, 4, 4), (1, 3, 3, 3), "of the same batch and channels"),
        ((3, 4, 4), (3, 3, 3), "values must have shape"),
        ((2, 3, 4, 4), (2, 3, 2, 3), "odd sides"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(values, kernels, message):
    with pytest.raises(ValueError, match=message):
        attentive_conv2d(torch.zeros(values), torch.zeros(kernels))


def test_bad_inhibition_and_pooling_are_refused():
    with pytest.raises(ValueError, match="one for each of the 4 channels"):
        differential_kernel(torch.zeros(2, 4, 3, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="channel, height, width"):
        differential_kernel(torch.zeros(3, 3), 0.5)
    with pytest.raises(ValueError, match="pool must be one of strip, grid; got 'global'"):
        pooled_context(torch.zeros(1, 1, 3, 3), 3, "global")
    with pytest.raises(ValueError, match="at least one pixel"):
        pooled_context(torch.zeros(1, 1, 0, 3), 3)
