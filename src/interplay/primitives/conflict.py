"""How much two learning signals, representations or predictions agree, and what one of them lacks of the other.

Two rules that move the same parameters agree as far as their updates point the same way; two networks that see the same
samples agree as far as their responses have the same geometry, and two predictions as far as they put their probability
on the same classes; and of what a network that had one input to itself has learned, a network that had to share its
learning holds as much as a linear map finds there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "CompetitionStrength",
    "competition_strength",
    "jensen_shannon_divergence",
    "linear_cka",
    "update_cosine",
]


def update_cosine(
    updates: Tensor | Iterable[Tensor | None], gradients: Tensor | Iterable[Tensor | None]
) -> Float[Tensor, ""]:
    """Cosine between an update and a gradient over a set of parameters, each set taken as one long vector.

    The signs are those of the arguments: a step of gradient descent, -eta grad, has cosine -1 with the gradient that it
    follows, and the direction that is handed to an optimiser has cosine 1. Any shape of parameter will do, a complex
    one excepted; it works under `torch.func.vmap`, for many networks at once.

    Parameters
    ----------
    updates, gradients
        A tensor or as many tensors, shape by shape the same. None stands for zeros, as in `Parameter.grad`.

    Returns
    -------
    Tensor
        Between -1 and 1, without gradient; NaN where one of the two is zero everywhere. Products are summed in float32
        at least.

    Raises
    ------
    ValueError
        Different numbers of tensors, shapes that differ, or nothing but None.
    """
    left, right = _as_list(updates), _as_list(gradients)
    if len(left) != len(right):
        raise ValueError(f"updates and gradients must be as many tensors; got {len(left)} and {len(right)}")
    product: Tensor | None = None
    squares: list[Tensor | None] = [None, None]
    for position, (update, gradient) in enumerate(zip(left, right, strict=True)):
        if update is not None and gradient is not None:
            if update.shape != gradient.shape:
                raise ValueError(
                    f"updates and gradients must have the same shapes; at position {position} they are "
                    f"{tuple(update.shape)} and {tuple(gradient.shape)}"
                )
            product = _plus(product, (_at_least_single(update) * _at_least_single(gradient)).sum())
        for side, tensor in enumerate((update, gradient)):
            if tensor is not None:
                squares[side] = _plus(squares[side], _at_least_single(tensor).square().sum())
    known = [square for square in squares if square is not None]
    if not known:
        raise ValueError("updates and gradients hold no tensor at all; run a backward pass first")
    zero = torch.zeros_like(known[0])
    first, second = (zero if square is None else square for square in squares)
    cosine = (zero if product is None else product) / (first.sqrt() * second.sqrt())
    return cosine.clamp(-1.0, 1.0).detach()


def linear_cka(first: Float[Tensor, "..."], second: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Linear centred kernel alignment of two representations of the same samples (Kornblith et al. 2019, equation 3).

    ||Y'X||^2 / (||X'X|| ||Y'Y||) with centred columns and Frobenius norms: 1 where one representation is a rotated,
    shifted and evenly scaled copy of the other, 0 where no feature of one correlates with any of the other.

    Parameters
    ----------
    first, second
        (sample, features) and (sample, other features): responses to the same samples in the same order.

    Returns
    -------
    Tensor
        Between 0 and 1; NaN where one representation does not depend on the sample. Differentiable.

    Raises
    ------
    ValueError
        Other than two dimensions, or different numbers of samples, or a single one.
    """
    if first.ndim != 2 or second.ndim != 2 or len(first) != len(second):
        raise ValueError(
            "representations must be (sample, features) of the same samples; got "
            f"{tuple(first.shape)} and {tuple(second.shape)}: use flatten(1) for maps"
        )
    if len(first) < 2:
        raise ValueError("representations of one sample have no geometry; give two samples or more")
    left, right = (x - x.mean(0) for x in (_at_least_single(first), _at_least_single(second)))
    # <XX', YY'> = ||Y'X||^2: whichever of the two products is the smaller matrix.
    if len(left) < max(left.shape[1], right.shape[1]):
        grams = (left @ left.T, right @ right.T)
        return (grams[0] * grams[1]).sum() / (_norm(grams[0]) * _norm(grams[1]))
    return (right.T @ left).square().sum() / (_norm(left.T @ left) * _norm(right.T @ right))


def jensen_shannon_divergence(first: Float[Tensor, "..."], second: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Jensen-Shannon divergence of two predictions, KL(p || m) / 2 + KL(q || m) / 2 with m = (p + q) / 2, in nats.

    Symmetric, and bounded where the Kullback-Leibler divergence is not: 0 for equal predictions, ln 2 for predictions
    that share no class. Computed from log-probabilities throughout, so that classes of probability zero within the
    precision of the type do no harm.

    Parameters
    ----------
    first, second
        Logits, (..., class), of the same shape or of leading shapes that broadcast.

    Returns
    -------
    Tensor
        One number a prediction, in [0, ln 2] up to rounding. Differentiable in both.

    Raises
    ------
    ValueError
        Different numbers of classes, or leading shapes that do not broadcast.
    """
    try:
        torch.broadcast_shapes(first.shape, second.shape)  # type: ignore[no-untyped-call]
        known = first.shape[-1] == second.shape[-1]
    except (RuntimeError, IndexError):
        known = False
    if not known:
        raise ValueError(
            "first and second must be logits of the same predictions, (..., class); got shapes "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    log_p, log_q = _at_least_single(first).log_softmax(-1), _at_least_single(second).log_softmax(-1)
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    both = log_p.exp() * (log_p - log_mean) + log_q.exp() * (log_q - log_mean)
    return 0.5 * both.sum(-1).to(first.dtype)


class CompetitionStrength(NamedTuple):
    """How much of a concept is missing from fused features.

    Attributes
    ----------
    strength
        0: the concept is there in full; about 1: nothing linear of it; above 1: predicted worse than by its mean.
    low, high
        95 % percentile bootstrap interval over the test samples; NaN where none was asked for.
    """

    strength: float
    low: float
    high: float


def competition_strength(
    features_fit: Float[np.ndarray | Tensor, "..."],
    concept_fit: Float[np.ndarray | Tensor, "..."],
    features_test: Float[np.ndarray | Tensor, "..."],
    concept_test: Float[np.ndarray | Tensor, "..."],
    *,
    ridge: float = 120.0,
    standardise: bool = True,
    resamples: int = 1000,
    generator: np.random.Generator | None = None,
) -> CompetitionStrength:
    """How strongly a modality is suppressed in fused features: what they lack of what it would learn alone.

    A ridge regression from the features to the concept is fitted on samples of its own. On the test samples, with
    residuals E and the concept's covariance S, the strength is tr(E'E S^+) / (n K): the mean over the concept's K
    outputs of the residual in units of what varies there (Li et al. 2023, "competition strength").

    Parameters
    ----------
    features_fit, features_test
        (sample, feature): fused features of a multimodal network, NumPy or PyTorch, on two sets of samples.
    concept_fit, concept_test
        (sample, output): what a network of this modality alone says of the same samples, in the same order.
    ridge
        Penalty on the squared coefficients, against the sum of squared residuals over the samples of the fit; the
        intercept is free. 120 is the official value, for about 7,000 samples; 120 n / 7,000 is as strict for n.
    standardise
        Scale all features by one number, to a mean variance of 1 on the samples of the fit, so that the penalty does
        not favour networks with large features. The official code does not; False gives its numbers.
    resamples
        Bootstrap samples of the test set, with the regression kept; 0 for no interval.
    generator
        Their randomness; needed where `resamples` is above 0.

    Raises
    ------
    ValueError
        Arrays whose shapes do not go together, that are not finite, or that hold too few samples; a negative ridge; a
        concept that is the same for all test samples, which nothing can lack; resamples without a generator.
    """
    arrays = {
        "features_fit": _as_matrix("features_fit", features_fit),
        "concept_fit": _as_matrix("concept_fit", concept_fit),
        "features_test": _as_matrix("features_test", features_test),
        "concept_test": _as_matrix("concept_test", concept_test),
    }
    h_fit, c_fit, h_test, c_test = arrays.values()
    if len(h_fit) != len(c_fit) or len(h_test) != len(c_test):
        raise ValueError(f"features and concept must be of the same samples; the shapes are {_shapes(arrays)}")
    if h_fit.shape[1] != h_test.shape[1] or c_fit.shape[1] != c_test.shape[1]:
        raise ValueError(f"fit and test must have the same features and outputs; the shapes are {_shapes(arrays)}")
    if len(h_fit) < 2 or len(h_test) < 2:
        raise ValueError(f"two samples or more are needed to fit and to test; the shapes are {_shapes(arrays)}")
    if not ridge >= 0:
        raise ValueError(f"ridge must be 0 or more, got {ridge}")
    if resamples < 0 or (resamples > 0 and generator is None):
        raise ValueError(f"resamples={resamples} needs a generator for the bootstrap; give one, or resamples=0")
    residual = _ridge_prediction(h_fit, c_fit, h_test, ridge, standardise) - c_test
    strength = float(_whitened(residual, c_test, np.ones((1, len(c_test))))[0])
    if generator is None or resamples == 0:
        return CompetitionStrength(strength, float("nan"), float("nan"))
    counts = generator.multinomial(len(c_test), np.full(len(c_test), 1 / len(c_test)), size=resamples)
    low, high = np.quantile(_whitened(residual, c_test, counts.astype(np.float64)), [0.025, 0.975])
    return CompetitionStrength(strength, float(low), float(high))


def _as_matrix(name: str, values: np.ndarray | Tensor) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must be (sample, number), got {array.shape}; flatten what is larger")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return array


def _shapes(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items())


def _ridge_prediction(
    features: np.ndarray, outputs: np.ndarray, others: np.ndarray, ridge: float, standardise: bool
) -> np.ndarray:
    """Predict the outputs of other samples by ridge regression with a free intercept."""
    centre, offset = features.mean(0), outputs.mean(0)
    # One scale for all: a unit that is nearly always off, scaled by itself, would be blown up where it is on for once.
    spread = float(np.sqrt(features.var(0).mean())) if standardise else 1.0
    scale = spread if spread > 0 else 1.0
    left, right = (features - centre) / scale, (others - centre) / scale
    # Through the singular values: a penalty of 0 with more features than samples is then the shortest solution.
    u, singular, vt = np.linalg.svd(left, full_matrices=False)
    found = singular > singular.max(initial=0.0) * max(left.shape) * np.finfo(np.float64).eps
    shrunk = np.where(found, singular, 0.0) / np.where(found, singular**2 + ridge, 1.0)
    predicted: np.ndarray = (right @ vt.T) * shrunk @ (u.T @ (outputs - offset)) + offset
    return predicted


def _whitened(residual: np.ndarray, concept: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """tr(E'E S^+) / (n K) with each sample taken so many times: one number a row of `counts`."""
    samples = counts.sum(1)[:, None, None]
    mean = counts @ concept / counts.sum(1, keepdims=True)
    second = _weighted_products(concept, counts)
    covariance = (second - samples * mean[:, :, None] * mean[:, None, :]) / (samples - 1)
    values, vectors = np.linalg.eigh(covariance)
    # Below this, a variance is what rounding leaves of a concept that does not vary there.
    size = np.trace(second, axis1=1, axis2=2) / samples[:, 0, 0]
    varies = values > size[:, None] * concept.shape[1] * np.finfo(np.float64).eps * 16
    if not varies.any(1).all():
        raise ValueError("the concept is the same for all test samples; there is nothing that could be missing")
    errors = np.einsum("rik,rij,rjk->rk", vectors, _weighted_products(residual, counts), vectors)
    whitened = np.where(varies, errors / np.where(varies, values, 1.0), 0.0).sum(1)
    strength: np.ndarray = whitened / (samples[:, 0, 0] * concept.shape[1])
    return strength


def _weighted_products(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """X' diag(counts) X for each row of counts."""
    width = rows.shape[1]
    pairs = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), width * width)
    products: np.ndarray = (counts @ pairs).reshape(len(counts), width, width)
    return products


def _norm(matrix: Tensor) -> Tensor:
    return matrix.square().sum().sqrt()


def _as_list(tensors: Tensor | Iterable[Tensor | None]) -> list[Tensor | None]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term
