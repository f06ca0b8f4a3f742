"""Spikes with surrogate gradients: a step forward, the derivative of a smooth function backward."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = [
    "ATanSurrogate",
    "FastSigmoidSurrogate",
    "SigmoidSurrogate",
    "Surrogate",
    "TriangleSurrogate",
    "spike",
]


@dataclass(frozen=True)
class Surrogate(ABC):
    """A smooth stand-in for the step function H; hashable, without parameters to train."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} of {type(self).__name__} must be a positive number, got {value!r}")

    @abstractmethod
    def smooth(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The function whose derivative is used."""

    @abstractmethod
    def derivative(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The derivative of `smooth`."""

    def pull_back_(self, gradient: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`gradient` times the derivative at `x`; `x` may be overwritten."""
        return self.derivative(x).mul_(gradient)


@dataclass(frozen=True)
class SigmoidSurrogate(Surrogate):
    """sigmoid(slope x); SpikingJelly's `Sigmoid(alpha)`, its default with slope 4."""

    slope: float = 4.0

    def smooth(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Sigmoid of slope x."""
        return torch.sigmoid(self.slope * x)

    def derivative(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Slope y (1 - y), where y is `smooth(x)`."""
        y = self.smooth(x)
        return (y * (1 - y)).mul_(self.slope)

    def pull_back_(self, gradient: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`gradient` times the derivative at `x`, by PyTorch's own kernel for it; `x` is overwritten."""
        y = x.mul_(self.slope).sigmoid_()
        product: Tensor = torch.ops.aten.sigmoid_backward.grad_input(gradient, y, grad_input=x)
        return product.mul_(self.slope)


@dataclass(frozen=True)
class ATanSurrogate(Surrogate):
    """1/2 + arctan(pi/2 slope x) / pi; SpikingJelly's and snnTorch's `ATan(alpha)`, their default with slope 2."""

    slope: float = 2.0

    def smooth(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Arc tangent, scaled to run from 0 to 1."""
        return 0.5 + torch.atan(math.pi / 2 * self.slope * x) / math.pi

    def derivative(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Slope / 2 / (1 + (pi/2 slope x)^2)."""
        return (math.pi / 2 * self.slope * x).square_().add_(1).reciprocal_().mul_(self.slope / 2)

    def pull_back_(self, gradient: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """`gradient` times the derivative at `x`, gradient / (2/slope + pi^2 slope x^2 / 2); `x` is overwritten."""
        offset = torch.full((), 2 / self.slope, dtype=x.dtype, device=x.device)
        torch.addcmul(offset, x, x, value=math.pi**2 * self.slope / 2, out=x)
        return torch.div(gradient, x, out=x)


@dataclass(frozen=True)
class FastSigmoidSurrogate(Surrogate):
    """1/2 + x / (1 + slope |x|), from 1/2 - 1/slope to 1/2 + 1/slope; snnTorch's `fast_sigmoid(slope)` (Zenke 2018)."""

    slope: float = 25.0

    def smooth(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The fast sigmoid; its height is 2/slope, as its derivative at 0 is 1."""
        return 0.5 + x / (1 + self.slope * x.abs())

    def derivative(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """1 / (1 + slope |x|)^2."""
        return (self.slope * x).abs_().add_(1).square_().reciprocal_()


@dataclass(frozen=True)
class TriangleSurrogate(Surrogate):
    """Triangle of height 1/width over [-width, width]; SpikingJelly's `PiecewiseQuadratic(1 / width)`."""

    width: float = 1.0

    def smooth(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Two parabolas from 0 to 1."""
        scaled = (x / self.width).clamp(-1, 1)
        return 0.5 + scaled - 0.5 * scaled * scaled.abs()

    def derivative(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """max(0, 1 - |x| / width) / width."""
        return (x / self.width).abs_().neg_().add_(1).clamp_(min=0).div_(self.width)


class _Spike(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, surrogate: Surrogate) -> Tensor:
        return (x >= 0).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Surrogate], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.surrogate = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * ctx.surrogate.derivative(x), None


def spike(x: Float[Tensor, "..."], surrogate: Surrogate) -> Float[Tensor, "..."]:
    """Fire where `x >= 0`; the gradient is that of the surrogate.

    Parameters
    ----------
    x
        Membrane potential minus threshold, any shape.
    surrogate
        Whose derivative replaces that of the step.

    Returns
    -------
    Tensor
        Zeros and ones of the shape and dtype of `x`.
    """
    spikes: Tensor = _Spike.apply(x, surrogate)  # type: ignore[no-untyped-call]
    return spikes
