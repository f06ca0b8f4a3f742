"""Agreement of updates, representations and predictions: against NumPy, SciPy, closed forms and invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch.testing import assert_close

from interplay.primitives.conflict import jensen_shannon_divergence, linear_cka, update_cosine


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one(value: float = 1.0) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


# --- updates --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(shapes=st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_cosine_is_that_of_the_two_long_vectors(shapes, seed) -> None:
    updates = [randn(*shape, seed=seed + i) for i, shape in enumerate(shapes)]
    gradients = [randn(*shape, seed=seed + 50 + i) for i, shape in enumerate(shapes)]
    u, g = (np.concatenate([t.numpy().ravel() for t in tensors]) for tensors in (updates, gradients))
    expected = u @ g / np.linalg.norm(u) / np.linalg.norm(g)
    assert update_cosine(updates, gradients).item() == pytest.approx(expected, abs=1e-12)


def test_cosine_has_the_signs_of_its_arguments_and_ignores_step_sizes() -> None:
    gradients = [randn(3, 2), randn(4, seed=1)]
    assert_close(update_cosine(gradients, gradients), one())
    assert_close(update_cosine([-0.01 * gradient for gradient in gradients], gradients), one(-1.0))
    assert_close(update_cosine(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])), torch.tensor(0.5).sqrt())


def test_missing_gradients_are_zeros() -> None:
    a, b = randn(3), randn(4, seed=1)
    zeros = torch.zeros(4, dtype=torch.float64)
    assert_close(update_cosine([a, None], [a, b]), update_cosine([a, zeros], [a, b]))
    assert_close(update_cosine([a, None], [None, b]), one(0.0))
    assert update_cosine([zeros], [b]).isnan()
    assert update_cosine([None], [b]).isnan()


def test_cosine_of_many_networks_at_once_and_of_half_precision() -> None:
    updates, gradients = randn(5, 3, 2), randn(5, 3, 2, seed=1)
    together = torch.func.vmap(lambda u, g: update_cosine([u], [g]))(updates, gradients)
    assert_close(together, torch.stack([update_cosine(u, g) for u, g in zip(updates, gradients, strict=True)]))
    large = torch.full((1000,), 300.0, dtype=torch.float16)
    assert update_cosine(large, large).item() == pytest.approx(1.0, abs=1e-6)


def test_sets_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="as many tensors; got 1 and 2"):
        update_cosine([randn(2)], [randn(2), randn(3)])
    with pytest.raises(ValueError, match=r"position 1 they are \(3,\) and \(4,\)"):
        update_cosine([randn(2), randn(3)], [randn(2), randn(4)])
    with pytest.raises(ValueError, match="no tensor at all"):
        update_cosine([None], [None])


# --- representations ------------------------------------------------------------------------------------------------


def cka_by_independence_criterion(x: np.ndarray, y: np.ndarray) -> float:
    """The definition: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with linear kernels and the centring matrix."""
    count = len(x)
    centring = np.eye(count) - 1 / count
    hsic = lambda k, l: np.trace(k @ centring @ l @ centring)  # noqa: E731, E741
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))


@pytest.mark.parametrize(("samples", "features", "others"), [(40, 3, 5), (6, 30, 4), (5, 5, 5), (2, 3, 7)])
def test_cka_is_the_normalised_independence_criterion(samples, features, others) -> None:
    x, y = randn(samples, features) + 3, randn(samples, others, seed=1)
    y[:, 0] += x[:, 0]
    expected = cka_by_independence_criterion(x.numpy(), y.numpy())
    assert linear_cka(x, y).item() == pytest.approx(expected, abs=1e-10)
    assert linear_cka(y, x).item() == pytest.approx(expected, abs=1e-10)


def test_cka_ignores_rotations_shifts_and_even_scales_but_not_uneven_ones() -> None:
    x = randn(20, 4)
    rotation = torch.linalg.qr(randn(4, 4, seed=1)).Q
    assert_close(linear_cka(x, 7 * x @ rotation + 2), one())
    assert linear_cka(x, x * torch.tensor([1.0, 1.0, 1.0, 10.0])) < 0.95


def test_cka_of_uncorrelated_features_is_zero_and_of_constants_undefined() -> None:
    x = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    y = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    assert_close(linear_cka(x, y), torch.tensor(0.0))
    assert linear_cka(x, torch.ones(4, 2)).isnan()


def test_cka_is_differentiable_and_works_for_many_networks_at_once() -> None:
    x, y = randn(6, 3).requires_grad_(), randn(6, 2, seed=1)
    assert torch.autograd.gradcheck(linear_cka, (x, y))
    xs, ys = randn(4, 6, 3), randn(4, 6, 9, seed=1)
    together = torch.func.vmap(linear_cka)(xs, ys)
    assert_close(together, torch.stack([linear_cka(a, b) for a, b in zip(xs, ys, strict=True)]))


def test_representations_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got \(3, 2\) and \(4, 2\)"):
        linear_cka(randn(3, 2), randn(4, 2))
    with pytest.raises(ValueError, match="use flatten"):
        linear_cka(randn(3, 2, 2), randn(3, 2))
    with pytest.raises(ValueError, match="two samples or more"):
        linear_cka(randn(1, 2), randn(1, 2))


# --- predictions ----------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(classes=st.integers(2, 6), scale=st.floats(0, 30), seed=st.integers(0, 999))
def test_divergence_is_that_of_scipy_symmetric_and_bounded(classes, scale, seed) -> None:
    first, second = scale * randn(4, classes, seed=seed), scale * randn(4, classes, seed=seed + 1)
    found = jensen_shannon_divergence(first, second)
    expected = jensenshannon(first.softmax(1).numpy(), second.softmax(1).numpy(), axis=1) ** 2
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)
    assert_close(found, jensen_shannon_divergence(second, first))
    assert (found <= np.log(2) + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_divergence_of_certain_predictions_is_0_or_ln_2_and_its_gradient_finite(dtype) -> None:
    logits = torch.tensor([[300.0, -300.0, 0.0], [-300.0, 300.0, 0.0]], dtype=dtype, requires_grad=True)
    found = jensen_shannon_divergence(logits, logits.detach()[:1])
    found.sum().backward()
    assert found.dtype == dtype
    assert found.tolist() == pytest.approx([0, np.log(2)], abs=1e-2 if dtype.itemsize == 2 else 1e-6)
    assert logits.grad.isfinite().all()


def test_divergence_has_the_gradient_of_finite_differences() -> None:
    first, second = randn(3, 4).requires_grad_(), randn(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(jensen_shannon_divergence, (first, second))


@pytest.mark.parametrize(("first", "second"), [((3, 4), (3, 1)), ((3, 4), (2, 4)), ((), ())])
def test_divergence_refuses_other_shapes(first, second) -> None:
    with pytest.raises(ValueError, match="logits of the same predictions"):
        jensen_shannon_divergence(torch.zeros(first), torch.zeros(second))
