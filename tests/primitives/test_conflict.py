"""Agreement of updates, representations and predictions, and what one lacks: NumPy, SciPy, closed forms."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch.testing import assert_close

from interplay.primitives.conflict import (
    competition_strength,
    jensen_shannon_divergence,
    linear_cka,
    update_cosine,
)


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
    with np.errstate(invalid="ignore"):  # SciPy takes roots of rounding errors below zero
        expected = np.nan_to_num(jensenshannon(first.softmax(1).numpy(), second.softmax(1).numpy(), axis=1)) ** 2
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


def fused_features_and_concepts(samples, start):
    """Features and two concepts by a closed formula, as in the recording of the official code."""
    i = np.arange(samples)[:, None]
    features = np.sin(i * np.arange(1, 7) * 0.37 + start) * np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.0])
    i = i[:, 0]
    audio = [features[:, 0] - features[:, 1] + 0.3 * np.cos(5.1 * i), features[:, 2] * 2]
    visual = [np.cos(3.3 * i), np.cos(2.9 * i + 1) + 0.5 * features[:, 5], features[:, 4]]
    return features, {
        "audio": np.stack([*audio, features[:, 3] + 0.1 * features[:, 4]], 1),
        "visual": np.stack(visual, 1),
    }


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_competition_strength_is_that_of_the_official_evaluation(kind, modality):
    recorded = json.loads((Path(__file__).parents[1] / "multimodal/data/agm_official.json").read_text())["competition"]
    fit, fit_concepts = fused_features_and_concepts(40, 0.0)
    test, test_concepts = fused_features_and_concepts(30, 2.0)
    arrays = [kind(values) for values in (fit, fit_concepts[modality], test, test_concepts[modality])]
    found = competition_strength(*arrays, standardise=False, resamples=0)
    assert found.strength == pytest.approx(recorded[modality], abs=1e-8)
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_competition_strength_agrees_with_a_ridge_and_an_inverse_by_hand():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    fit, test = rng.standard_normal((60, 8)), rng.standard_normal((50, 8))
    mixing = rng.standard_normal((8, 3))
    concepts = [features @ mixing + rng.standard_normal((len(features), 3)) for features in (fit, test)]
    scale = np.sqrt(fit.var(0).mean())
    residual = Ridge(alpha=7.0).fit(fit / scale, concepts[0]).predict(test / scale) - concepts[1]
    by_hand = np.trace(residual.T @ residual @ np.linalg.inv(np.cov(concepts[1].T))) / (50 * 3)
    found = competition_strength(fit, concepts[0], test, concepts[1], ridge=7.0, resamples=0)
    assert found.strength == pytest.approx(by_hand, rel=1e-10)
    larger = competition_strength(100 * fit, concepts[0], 100 * test, concepts[1], ridge=7.0, resamples=0)
    assert larger.strength == pytest.approx(by_hand, rel=1e-10)


def test_competition_strength_is_calibrated_and_sees_no_units():
    rng = np.random.default_rng(1)
    fit, test = rng.standard_normal((400, 5)), rng.standard_normal((4000, 5))
    turn = rng.standard_normal((5, 5))
    here = competition_strength(fit, fit @ turn, test, test @ turn, ridge=0.0, resamples=0)
    assert here.strength == pytest.approx(0.0, abs=1e-12)
    noise = rng.standard_normal((4400, 2))
    gone = competition_strength(fit, noise[:400], test, noise[400:], ridge=0.0, resamples=0)
    # Nothing to find: 1, and what five useless coefficients add, 5 / 400.
    assert gone.strength == pytest.approx(1 + 5 / 400, abs=0.02)
    half = np.column_stack([fit[:, 0], noise[:400, 0]]), np.column_stack([test[:, 0], noise[400:, 0]])
    halved = competition_strength(fit, half[0], test, half[1], ridge=0.0, resamples=0)
    assert halved.strength == pytest.approx(0.5, abs=0.02)
    units = np.array([[3.0, 1.0], [-0.5, 200.0]])
    turned = competition_strength(fit, half[0] @ units, test, half[1] @ units, ridge=0.0, resamples=0)
    assert turned.strength == pytest.approx(halved.strength, rel=1e-8)


def test_the_bootstrap_interval_covers_the_limit_about_as_often_as_it_says():
    covered = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        fit, test = rng.standard_normal((2000, 1)), rng.standard_normal((150, 1))
        concepts = [features + rng.standard_normal((len(features), 1)) for features in (fit, test)]
        found = competition_strength(fit, concepts[0], test, concepts[1], resamples=200, generator=rng)
        assert found.low < found.strength < found.high
        covered += found.low < 0.5 < found.high
    assert 104 <= covered <= 119  # 95 % of 120, and 4 standard errors below


def test_a_concept_that_spans_less_than_its_outputs_is_measured_where_it_varies():
    rng = np.random.default_rng(2)
    fit, test = rng.standard_normal((300, 4)), rng.standard_normal((300, 4))
    # Centred logits: the third is minus the sum of the others.
    thin = np.array([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]])
    noise = rng.standard_normal((600, 2)) @ thin + 5.0
    found = competition_strength(fit, noise[:300], test, noise[300:], ridge=0.0, resamples=0)
    assert found.strength == pytest.approx(2 / 3, abs=0.1)  # two of three outputs are missing


def test_competition_strength_refuses_what_it_cannot_measure():
    rng = np.random.default_rng(3)
    fit, test, concept = rng.standard_normal((9, 2)), rng.standard_normal((8, 2)), rng.standard_normal((9, 3))
    good = (fit, concept, test, concept[:8])
    competition_strength(*good, resamples=0)
    bad = {
        "the same for all test samples": {"concept_test": np.full((8, 3), 0.3)},
        "of the same samples": {"concept_fit": concept[:8]},
        "same features and outputs": {"features_test": test[:, :1]},
        r"must be \(sample, number\)": {"features_fit": fit[0]},
        "not finite": {"concept_fit": concept * np.nan},
        "ridge must be 0 or more": {"ridge": -1.0},
        "needs a generator": {"resamples": 10},
    }
    names = ("features_fit", "concept_fit", "features_test", "concept_test")
    for message, change in bad.items():
        arguments = dict(zip(names, good, strict=True)) | {"resamples": 0} | change
        with pytest.raises(ValueError, match=message):
            competition_strength(**arguments)
    with pytest.raises(ValueError, match="two samples or more"):
        competition_strength(fit[:1], concept[:1], test, concept[:8], resamples=0)
