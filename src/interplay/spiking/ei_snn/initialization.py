"""E-I Init: what a layer reads off its first batch, and the weights that follow from it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["InitialMoments", "moments"]


class InitialMoments(NamedTuple):
    """Moments of a layer's input on the batch that initialises it.

    Attributes
    ----------
    mean
        Mean of all entries.
    variance
        Variance over the batch (unbiased), then averaged over features, channels and positions. Not the variance of all
        entries: features that are constant over the batch, such as the border of an image, carry nothing.
    second_moment
        Mean of the squares.
    fan_in
        d, the number of inputs of a unit.
    """

    mean: float
    variance: float
    second_moment: float
    fan_in: int

    @property
    def scale(self) -> float:
        """Mean of the exponentially distributed weights, equation (5)."""
        return math.sqrt(self.variance / (self.fan_in * (self.second_moment + self.variance)))

    @property
    def inhibitory_gain(self) -> float:
        """g_I, equation (6)."""
        return math.sqrt((self.second_moment + self.variance) / self.fan_in) / self.mean


def moments(x: Float[Tensor, "batch ..."], fan_in: int, layer: str) -> InitialMoments:
    """Moments of a batch from which `layer` can be initialised.

    Raises
    ------
    ValueError
        The batch has negative entries, NaN or infinity, no variance, or is silent.
    """
    if len(x) < 2:
        raise ValueError(
            f"cannot initialise {layer}: a variance needs a batch of two or more (time included), got {len(x)}"
        )
    x = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    if not bool(x.isfinite().all()):
        raise ValueError(f"cannot initialise {layer}: its input has NaN or infinite entries")
    if (lowest := x.min().item()) < 0:
        raise ValueError(
            f"cannot initialise {layer}: its input must not be negative, got {lowest:.4g}; "
            "scale pixels to [0, 1] instead of standardising them, and put a spiking or rectified layer below"
        )
    variance = x.var(dim=0).mean().item()
    if variance == 0:
        raise ValueError(
            f"cannot initialise {layer}: the batch variance of its input is 0 "
            "(constant input, or did the layer below fall silent?)"
        )
    return InitialMoments(x.mean().item(), variance, x.square().mean().item(), fan_in)
