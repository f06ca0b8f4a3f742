"""The pieces of local rules: against sums over samples and locations written out."""

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from interplay.primitives.plasticity import (
    activity_decay,
    frobenius_norms,
    hebbian_correlation,
    max_normalised,
    neuron_gains,
    rescaled_rows,
    rescaled_to_norms,
    row_norms,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_correlation_of_a_linear_layer_is_the_sum_of_outer_products() -> None:
    pre, post = randn(4, 6, 3), randn(4, 6, 2, seed=1)
    expected = sum(torch.outer(post[b, t], pre[b, t]) for b in range(4) for t in range(6))
    assert_close(hebbian_correlation(pre, post, (2, 3)), expected)


def test_correlation_of_a_convolution_is_the_sum_over_patches() -> None:
    pre, post = randn(2, 3, 9), randn(2, 4, 4, seed=1)
    expected = torch.zeros(4, 3, 3, dtype=torch.float64)
    for sample in range(2):
        for location in range(4):
            patch = pre[sample, :, 2 * location : 2 * location + 3]
            expected += post[sample, :, location].view(-1, 1, 1) * patch
    assert_close(hebbian_correlation(pre, post, (4, 3, 3), stride=2), expected)


@pytest.mark.parametrize(
    ("convolve", "space"), [(functional.conv1d, (9,)), (functional.conv2d, (9, 8)), (functional.conv3d, (7, 6, 5))]
)
def test_correlation_is_the_gradient_of_what_the_activity_weighs(convolve, space) -> None:
    weight = randn(4, 2, *[3] * len(space)).requires_grad_()
    pre = randn(2, 4, *space, seed=1)
    geometry = {"stride": 2, "padding": 1, "dilation": 1, "groups": 2}
    response = convolve(pre, weight, None, *geometry.values())
    post = randn(*response.shape, seed=2)
    (expected,) = torch.autograd.grad((post * response).sum(), weight)
    assert_close(hebbian_correlation(pre, post, weight.shape, **geometry), expected)


def test_correlation_refuses_weights_of_no_layer() -> None:
    with pytest.raises(ValueError, match="2 \\(linear\\) or 3 to 5 dimensions"):
        hebbian_correlation(randn(2, 3), randn(2, 3), (3,))


def test_decay_is_the_sum_of_activity_times_drive() -> None:
    weight, pre, post = randn(4, 2, 3), randn(2, 4, 7, seed=1), randn(2, 4, 5, seed=2)
    drive = functional.conv1d(pre, weight, groups=2)
    expected = torch.stack([(post[:, k] * drive[:, k]).sum() * weight[k] for k in range(4)])
    assert_close(activity_decay(weight, hebbian_correlation(pre, post, weight.shape, groups=2)), expected)


def test_correlation_less_decay_pulls_oja_s_unit_to_the_first_principal_component() -> None:
    inputs = randn(400, 3) * torch.tensor([2.0, 1.0, 0.5])
    weight = randn(1, 3, seed=1)
    for _ in range(300):
        correlation = hebbian_correlation(inputs, inputs @ weight.T, weight.shape)
        weight = weight + 0.05 * (correlation - activity_decay(weight, correlation)) / len(inputs)
    axis = torch.linalg.eigh(inputs.T @ inputs).eigenvectors[:, -1]
    assert_close(row_norms(weight), torch.ones(1, dtype=torch.float64), atol=1e-6, rtol=0)
    assert_close((weight[0] @ axis).abs(), torch.tensor(1.0, dtype=torch.float64), atol=1e-6, rtol=0)


def test_max_normalised_updates_have_a_largest_entry_of_one() -> None:
    assert_close(max_normalised(torch.tensor([0.5, -4.0, 1.0])), torch.tensor([0.125, -1.0, 0.25]))
    assert torch.equal(max_normalised(torch.zeros(3)), torch.zeros(3))


def test_rescaled_rows_keep_their_direction() -> None:
    weight, norms = randn(3, 2, 2), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    rescaled = rescaled_rows(weight, norms)
    assert_close(row_norms(rescaled), norms)
    assert_close(functional.cosine_similarity(rescaled.flatten(1), weight.flatten(1)), torch.ones_like(norms))
    assert torch.equal(rescaled_rows(torch.zeros(2, 3), torch.ones(2)), torch.zeros(2, 3))


def test_gains_of_neurons_are_products_with_diagonal_matrices() -> None:
    update, senders, receivers = randn(5, 2, 3), randn(5, 3, seed=1), randn(5, 2, seed=2)
    assert_close(update * neuron_gains(senders, "pre"), update @ torch.diag_embed(senders))
    assert_close(update * neuron_gains(receivers, "post"), torch.diag_embed(receivers) @ update)


def test_a_single_vector_of_gains_serves_one_matrix() -> None:
    update, gains = randn(2, 3), torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    changed = update * neuron_gains(gains, "pre")
    assert torch.equal(changed, torch.stack([update[:, 0], -update[:, 1], 0 * update[:, 2]], 1))


def test_norms_are_those_of_each_matrix() -> None:
    weight = randn(4, 2, 3)
    expected = [torch.linalg.matrix_norm(matrix).item() for matrix in weight]
    assert frobenius_norms(weight).flatten().tolist() == pytest.approx(expected)
    assert frobenius_norms(weight).shape == (4, 1, 1)


def test_rescaling_keeps_each_matrix_direction_and_leaves_zeros() -> None:
    weight, norms = randn(3, 2, 5), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).view(3, 1, 1)
    weight[2] = 0
    rescaled = rescaled_to_norms(weight, norms)
    assert_close(frobenius_norms(rescaled), norms * torch.tensor([1.0, 1.0, 0.0]).view(3, 1, 1).double())
    for matrix, original in zip(rescaled[:2], weight[:2], strict=True):
        assert torch.nn.functional.cosine_similarity(matrix.flatten(), original.flatten(), 0).item() == pytest.approx(1)
