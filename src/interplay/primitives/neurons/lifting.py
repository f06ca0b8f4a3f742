"""What a vmap rule of a sequence needs: every tensor with the copies in the place where they broadcast."""

from __future__ import annotations

from torch import Tensor

__all__ = ["lifted", "lifted_parameter"]


def lifted(tensor: Tensor, dim: int | None, copies: int, to: int) -> Tensor:
    """Bring the dimension of the copies to position `to`, and make one where there is none."""
    if dim is None:
        return tensor.unsqueeze(to).expand(*tensor.shape[:to], copies, *tensor.shape[to:])
    return tensor.movedim(dim, to)


def lifted_parameter(parameter: Tensor, dim: int | None, ndim: int) -> Tensor:
    """Let a parameter for each copy broadcast to (copies, batch, ...), which has `ndim` dimensions.

    One that all copies share, with `dim` None, stays as it is.
    """
    if dim is None:
        return parameter
    parameter = parameter.movedim(dim, 0)
    return parameter.reshape(len(parameter), *[1] * (ndim - parameter.ndim), *parameter.shape[1:])
