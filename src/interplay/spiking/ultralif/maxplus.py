"""Max-plus algebra at a temperature: soft maxima, how far they are from hard ones, and what follows for a neuron.

Where ordinary arithmetic adds, max-plus arithmetic takes the maximum, and where it multiplies, it adds. The soft
maximum at temperature eps stands between the two::

    LSE_eps(a_1, ..., a_n) = eps log(sum_i exp(a_i / eps)),     max(a) <= LSE_eps(a) <= max(a) + eps log n

Its gradient is the softmax of a / eps: every weight lies in (0, 1) and they sum to one, so a soft maximum never moves
further than its arguments do.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "error_bound",
    "hard_maximum",
    "rate_floor",
    "ring_soft_maximum",
    "soft_maximum",
    "soft_maximum_of_two",
    "steepest_spike",
]

_WORST_RESET = 0.2784645427610738  # max of y / (1 + exp(y)) over y: Lambert's W at 1/e


def soft_maximum(x: Float[Tensor, "..."], eps: float | Tensor, dim: int = -1) -> Float[Tensor, "..."]:
    """Log-sum-exp at temperature `eps` along a dimension, with the maximum subtracted first.

    Parameters
    ----------
    x
        Floating point, any shape; half precision is computed in single.
    eps
        Temperature, > 0.
    dim
        Dimension that is reduced.

    Returns
    -------
    Tensor
        `x` without the dimension, between its maximum and that plus `eps` log n.
    """
    _check_temperature(eps)
    return (eps * torch.logsumexp(_at_least_single(x) / eps, dim)).to(x.dtype)


def hard_maximum(x: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """The limit of `soft_maximum` at temperature zero."""
    return x.amax(dim)


def soft_maximum_of_two(
    one: Float[Tensor, "..."], other: Float[Tensor, "..."], eps: float | Tensor
) -> Float[Tensor, "..."]:
    """`soft_maximum` of two tensors, element by element; shapes broadcast."""
    result = torch.logaddexp(_at_least_single(one) / eps, _at_least_single(other) / eps) * eps
    return result.to(torch.result_type(one, other))


def ring_soft_maximum(x: Float[Tensor, "... unit"], eps: float | Tensor) -> Float[Tensor, "... unit"]:
    """Soft maximum of every unit with its two neighbours on a ring along the last dimension.

    Raises
    ------
    ValueError
        The ring has fewer than three units: a neighbour would count twice.
    """
    if x.shape[-1] < 3:
        raise ValueError(f"a ring needs three units or more along the last dimension, got shape {tuple(x.shape)}")
    wide = _at_least_single(x) / eps
    left, right = torch.cat((wide[..., -1:], wide[..., :-1]), -1), torch.cat((wide[..., 1:], wide[..., :1]), -1)
    return (torch.logaddexp(torch.logaddexp(left, right), wide) * eps).to(x.dtype)


def error_bound(terms: int, eps: float, steps: int = 1, *, reset: bool = False) -> float:
    """How far the membrane potential can be from its hard max-plus limit.

    A soft maximum of n terms exceeds the hard one by `eps` log n at most, and does not enlarge the errors of its terms;
    over T steps that adds up to T `eps` log n. A soft reset at threshold zero, V (1 - sigmoid(V / eps)), differs from
    the hard one, min(V, 0), by `eps` W(1/e) at most (Lambert's W), and min(V, 0) does not enlarge errors either.
    The neuron coupled along a ring is another case: its reset of one unit depends on others, so that the hard
    limit jumps, and the bound holds for one step from the same state.

    Parameters
    ----------
    terms
        n, the number of terms of each soft maximum: 2 along time, 3 on a ring.
    eps
        Temperature, >= 0.
    steps
        T, steps from a common state.
    reset
        Whether the potential is reset at every step (at threshold 0).

    Returns
    -------
    float
        Bound on the largest absolute error, in units of the membrane potential.
    """
    if terms < 1 or steps < 1:
        raise ValueError(f"terms and steps must be positive integers, got {terms} and {steps}")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps must be a number >= 0, got {eps!r}")
    # The last step is seen before its reset.
    return steps * eps * math.log(terms) + (steps - 1) * eps * _WORST_RESET * reset


def steepest_spike(eps: float) -> float:
    """Largest slope of sigmoid(V / eps): 1 / (4 eps), at V = 0."""
    _check_temperature(eps)
    return 0.25 / eps


def rate_floor(decay: float, eps: float) -> float:
    """Spike value of an UltraLIF neuron one step after rest, as its input goes to minus infinity.

    c / (1 + c) with c = decay^(1 / eps): the soft maximum keeps log(decay) in play whatever the input, so that the
    neuron is never silent, least of all at a high temperature.
    """
    _check_temperature(eps)
    if not 0 < decay < 1:
        raise ValueError(f"decay must lie in (0, 1), got {decay!r}")
    kept = decay ** (1 / eps)
    return kept / (1 + kept)


def _at_least_single(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _check_temperature(eps: float | Tensor) -> None:
    # A learned temperature is positive by construction, and looking at a tensor would stall a GPU.
    if not isinstance(eps, Tensor) and not (math.isfinite(eps) and eps > 0):
        raise ValueError(f"eps must be a positive number, got {eps!r}")
