"""Chains of layers without biases, many networks at once: forward, and one step of gradient descent in place.

The gradient of a linear chain is so short that it is written out: the update of each layer is one fused matrix product
into its weight, where automatic differentiation first writes a gradient and then adds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Nonlinearity", "activities_of", "apply_nonlinearity", "descend"]

Nonlinearity = Literal["linear", "tanh", "relu"]


def activities_of(
    weights: Sequence[Float[Tensor, "network receivers senders"]],
    x: Float[Tensor, "network inputs points"] | None,
    nonlinearity: Nonlinearity = "linear",
) -> list[Tensor | None]:
    """The inputs and what every layer makes of them; inputs of None stand for the identity matrix."""
    activity = x
    activities = [x]
    for weight in weights:
        activity = apply_nonlinearity(weight if activity is None else weight @ activity, nonlinearity)
        activities.append(activity)
    return activities


def descend(
    weights: Sequence[Float[Tensor, "network receivers senders"]],
    activities: Sequence[Tensor | None],
    step: Float[Tensor, "network outputs points"],
    nonlinearity: Nonlinearity = "linear",
) -> None:
    """Change all weights, in place, by a step of gradient descent on the outputs.

    Parameters
    ----------
    weights, activities
        Of one chain, from the inputs on.
    step
        Minus the step size times the gradient of the loss with respect to the outputs. It may differ from network to
        network: where it is zero, nothing is learned.
    """
    for layer in range(len(weights) - 1, -1, -1):
        activity = activities[layer + 1]
        assert activity is not None  # only inputs can be missing
        step = _times_slope(step, activity, nonlinearity)
        before = activities[layer]
        weight = weights[layer]
        returned = torch.bmm(weight.mT, step) if layer else step
        if before is None:
            weight.add_(step)
        else:
            weight.baddbmm_(step, before.mT)
        step = returned


def apply_nonlinearity(drive: Tensor, nonlinearity: Nonlinearity) -> Tensor:
    """The activity of a layer for its drive."""
    if nonlinearity == "linear":
        return drive
    return drive.tanh() if nonlinearity == "tanh" else drive.relu()


def _times_slope(signal: Tensor, activity: Tensor, nonlinearity: Nonlinearity) -> Tensor:
    if nonlinearity == "linear":
        return signal
    if nonlinearity == "tanh":
        return torch.ops.aten.tanh_backward(signal, activity)
    return torch.ops.aten.threshold_backward(signal, activity, 0)
