"""Competition between units along one dimension: winner-take-all and inhibition.

Soft competition shares one unit of activity among the competitors, y_k = exp(u_k / T) / sum_j exp(u_j / T); hard
competition gives it to the strongest; k-winners-take-all silences all but the k strongest.

Inhibitory units h act on the excitatory drive u through weights W in two ways: subtraction, u - W h, sets how much
drive a unit needs, and division (shunting), u / W h, sets the gain of its response.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

__all__ = [
    "divisive_inhibition",
    "hard_winner_take_all",
    "k_winners_take_all",
    "pooled_inhibition",
    "soft_winner_take_all",
    "straight_through_nonzero",
    "subtractive_inhibition",
]


def soft_winner_take_all(
    drive: Float[Tensor, "..."], *, temperature: float = 1.0, dim: int = -1, winners: int | None = None
) -> Float[Tensor, "..."]:
    """Share one unit of activity among the competitors by a softmax of their drive.

    Parameters
    ----------
    drive
        Input of the competitors, floating point, any shape.
    temperature
        T > 0: low is close to winner-take-all, high is close to an even share.
    dim
        Dimension along which units compete.
    winners
        Only this many strongest units share; the others are silent. None: all share.

    Returns
    -------
    Tensor
        Activity of the shape of `drive`, not negative, summing to one along `dim`.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be a positive number, got {temperature!r}")
    if winners is not None:
        drive = drive.masked_fill(~k_winners_take_all(drive, winners, dim=dim), -math.inf)
    return (drive if temperature == 1 else drive / temperature).softmax(dim)


def hard_winner_take_all(drive: Float[Tensor, "..."], *, dim: int = -1) -> Float[Tensor, "..."]:
    """Give one unit of activity to the strongest competitor along `dim`; of equals, exactly one wins."""
    return k_winners_take_all(drive, 1, dim=dim).to(drive.dtype)


def k_winners_take_all(drive: Float[Tensor, "..."], winners: int, *, dim: int = -1) -> Bool[Tensor, "..."]:
    """Mark the `winners` strongest competitors along `dim`; always exactly that many, also among equals.

    Raises
    ------
    ValueError
        `winners` is not between 1 and the number of competitors.
    """
    competitors = drive.shape[dim]
    if not 1 <= winners <= competitors:
        raise ValueError(f"winners must be between 1 and the {competitors} competitors along dim {dim}, got {winners}")
    strongest = drive.topk(winners, dim=dim, sorted=False).indices if winners > 1 else drive.argmax(dim, keepdim=True)
    return drive.new_zeros(drive.shape, dtype=torch.bool).scatter_(dim, strongest, True)


def pooled_inhibition(
    inhibition: Float[Tensor, "..."], weight: Float[Tensor, "unit inhibitor"], *, dim: int = -1
) -> Float[Tensor, "..."]:
    """What reaches every unit from the inhibitory ones: W h along `dim`, at all other coordinates alike.

    Parameters
    ----------
    inhibition
        Activity h of the inhibitory units, which lie along `dim`.
    weight
        W, from inhibitory units to those that they inhibit.
    dim
        Dimension along which units lie: -1 for features, -3 for the channels of images.

    Returns
    -------
    Tensor
        The shape of `inhibition`, with as many entries along `dim` as `weight` has rows.

    Raises
    ------
    ValueError
        `weight` does not have one column an inhibitory unit.
    """
    if inhibition.shape[dim] != weight.shape[1]:
        raise ValueError(
            f"weight must have one column for each of the {inhibition.shape[dim]} inhibitory units along dim {dim}; "
            f"got {weight.shape[1]} columns"
        )
    before, after = inhibition.shape[: dim % inhibition.dim()], inhibition.shape[dim % inhibition.dim() + 1 :]
    if not after:
        return functional.linear(inhibition, weight)
    # One matrix product over all positions: moving the units to the end would copy both the operand and the result.
    return (weight @ inhibition.flatten(-len(after))).reshape(*before, len(weight), *after)


def subtractive_inhibition(
    drive: Float[Tensor, "..."],
    inhibition: Float[Tensor, "..."],
    weight: Float[Tensor, "unit inhibitor"],
    *,
    dim: int = -1,
) -> Float[Tensor, "..."]:
    """Take the pooled inhibition from the drive of every unit: u - W h. See `pooled_inhibition` for the arguments."""
    return drive - pooled_inhibition(inhibition, weight, dim=dim)


def divisive_inhibition(
    drive: Float[Tensor, "..."],
    inhibition: Float[Tensor, "..."],
    weight: Float[Tensor, "unit inhibitor"],
    *,
    dim: int = -1,
    sample_dims: Sequence[int] | None = None,
) -> Float[Tensor, "..."]:
    """Divide the drive of every unit by its pooled inhibition: u / W h, shunting inhibition.

    Where W h is zero it is replaced by `straight_through_nonzero`, so no constant is added to the denominator, which
    would change the gain and its gradient everywhere.

    Parameters
    ----------
    drive, inhibition, weight, dim
        As for `subtractive_inhibition`.
    sample_dims
        Dimensions that belong to one sample. None: those from `dim` on.
    """
    denominator = pooled_inhibition(inhibition, weight, dim=dim)
    if sample_dims is None:
        sample_dims = range(dim % drive.dim(), drive.dim())
    return drive / straight_through_nonzero(denominator, sample_dims)


def straight_through_nonzero(
    denominator: Float[Tensor, "..."], sample_dims: Sequence[int] = (-1,)
) -> Float[Tensor, "..."]:
    """Replace zeros of a non-negative denominator by the smallest non-zero entry of the same sample.

    A sample without any gets infinity, so that the quotient is zero. The gradient passes straight through, as if
    nothing had been replaced: the inhibition that vanished is told that it should not have.

    Parameters
    ----------
    denominator
        Non-negative, any shape.
    sample_dims
        Dimensions that belong to one sample.
    """
    replaced: Tensor = _StraightThroughNonzero.apply(denominator, tuple(sample_dims))  # type: ignore[no-untyped-call]
    return replaced


class _StraightThroughNonzero(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(denominator: Tensor, sample_dims: tuple[int, ...]) -> Tensor:
        smallest = functional.threshold(denominator, 0.0, math.inf).amin(sample_dims, keepdim=True)
        return torch.maximum(denominator, smallest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Nothing is needed for the backward pass."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
