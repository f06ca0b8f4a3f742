"""Gates on the learning signal: the forward pass goes through untouched, the gradient is scaled on its way back.

One operator serves several systems: 0 freezes what lies behind it for as long as the gate is shut, numbers between 0
and 1 slow it down, numbers above 1 speed it up, negative ones let it learn the opposite of what the loss asks for.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["scale_gradient"]


def scale_gradient(values: Float[Tensor, "..."], factor: float | Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The same values; the gradient that comes back through them is multiplied by `factor`.

    Works under `torch.func.vmap`, with a factor for each network, and under double backward. Unlike `detach`, a factor
    of 0 leaves zeros in `Parameter.grad`, so that momentum and weight decay of an optimiser go on.

    Parameters
    ----------
    values
        Any shape, floating point.
    factor
        A number, or a tensor that broadcasts to the shape of `values`; no gradient reaches it.

    Raises
    ------
    TypeError
        Values that are not floating point.
    ValueError
        A factor that does not broadcast to the shape of `values`.
    """
    if not values.is_floating_point():
        raise TypeError(f"values must be floating point to have a gradient, got {values.dtype}")
    if not isinstance(factor, Tensor):
        factor = torch.as_tensor(factor, dtype=values.dtype, device=values.device)
    try:
        broadcast = torch.broadcast_shapes(values.shape, factor.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        broadcast = None
    if broadcast != values.shape:
        raise ValueError(f"factor of shape {tuple(factor.shape)} does not broadcast to values of {tuple(values.shape)}")
    scaled: Tensor = _ScaledGradient.apply(values, factor.detach())  # type: ignore[no-untyped-call]
    return scaled


class _ScaledGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(values: Tensor, factor: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradients[0] * factor.to(gradients[0].dtype), None
