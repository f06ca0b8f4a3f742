"""Set-point regulation: a strength that grows while an activity is above its target and shrinks while it is below.

Plain arithmetic, so that numbers, NumPy arrays and tensors all serve, on any device and with gradients where there are
some. Every argument broadcasts against the others.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

__all__ = ["regulated_offset", "regulated_strength"]

Quantity = TypeVar("Quantity", float, Float[np.ndarray, "..."], Float[Tensor, "..."])


def regulated_offset(offset: Quantity, activity: Quantity, target: Quantity, rate: float) -> Quantity:
    """One step of an offset that works against its own activity: offset + rate (activity - target).

    The offset (a threshold, a bias with its sign reversed) may take either sign. At rest, activity = target.

    Parameters
    ----------
    offset
        What is regulated, in the units of the drive that it is subtracted from.
    activity, target
        Present and wanted activity, in the same units.
    rate
        Change of the offset for each unit of excess activity and step.
    """
    moved: Quantity = offset + rate * (activity - target)
    return moved


def regulated_strength(strength: Quantity, activity: Quantity, target: Quantity, rate: float) -> Quantity:
    """One step of an inhibitory strength: as `regulated_offset`, and never below zero.

    A synapse keeps its sign (Dale's law): where the target asks for less than no inhibition, the strength stays zero,
    and the activity stays below its target.
    """
    moved = regulated_offset(strength, activity, target, rate)
    rectified: Quantity = moved * (moved > 0)
    return rectified
