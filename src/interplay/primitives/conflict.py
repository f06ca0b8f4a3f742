"""How much two learning signals, two representations or two predictions agree.

Two rules that move the same parameters agree as far as their updates point the same way; two networks that see the same
samples agree as far as their responses have the same geometry; two predictions differ by the divergence of their
distributions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["jensen_shannon_divergence", "linear_cka", "update_cosine"]


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


def _norm(matrix: Tensor) -> Tensor:
    return matrix.square().sum().sqrt()


def _as_list(tensors: Tensor | Iterable[Tensor | None]) -> list[Tensor | None]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term
