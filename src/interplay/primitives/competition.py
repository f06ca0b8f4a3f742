"""Winner-take-all competition between units along one dimension.

Soft competition shares one unit of activity among the competitors, y_k = exp(u_k / T) / sum_j exp(u_j / T); hard
competition gives it to the strongest; k-winners-take-all silences all but the k strongest.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["hard_winner_take_all", "k_winners_take_all", "soft_winner_take_all"]


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
