"""The feedback half of NHL: which gains the entropy may move, and what it asks of them, equations (3) and (4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ChannelAffine", "entropy", "entropy_objective", "norm_layers", "pseudo_label_objective"]

Modulator = Literal["bn", "first", "inserted"]

_NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


class ChannelAffine(nn.Module):
    """Gain and offset per channel, z' = gamma z + beta, identity at first.

    Parameters
    ----------
    num_channels
        Number of channels.
    dim
        Dimension of the channels: 1 after a convolution, -1 after a linear layer.
    device, dtype
        Of the parameters.
    """

    def __init__(
        self,
        num_channels: int,
        dim: int = 1,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_channels < 1:
            raise ValueError(f"num_channels must be at least 1, got {num_channels}")
        self.num_channels = num_channels
        self.dim = dim
        self.weight = nn.Parameter(torch.ones(num_channels, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_channels, device=device, dtype=dtype))

    def forward(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Modulate z, whose dimension `dim` has `num_channels` entries."""
        if not -z.ndim <= self.dim < z.ndim or z.shape[self.dim] != self.num_channels:
            raise ValueError(f"dimension {self.dim} must have {self.num_channels} channels, got shape {tuple(z.shape)}")
        shape = [1] * z.ndim
        shape[self.dim] = -1
        return z * self.weight.view(shape) + self.bias.view(shape)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, dim={self.dim}"


def entropy(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, " batch"]:
    """Equation (3) before the mean: entropy of each prediction in nats."""
    log_p = logits.log_softmax(1)
    return -(log_p.exp() * log_p).sum(1)


def entropy_objective(
    logits: Float[Tensor, "batch classes"], *, threshold: float | None = None, diversity: float = 0.0
) -> Float[Tensor, ""]:
    """Mean entropy, equation (3), with two options of later methods that are off by default.

    Parameters
    ----------
    threshold
        Predictions of more than this share of the largest possible entropy, ln C, are left out (0.4 is usual). With
        none left, the value is zero and moves nothing.
    diversity
        Weight of the entropy of the mean prediction, which is rewarded: against the collapse onto one class.
    """
    entropies = entropy(logits)
    if threshold is not None:
        # A prediction that is not finite must not pass for one that is merely uncertain.
        kept = ~(entropies.detach() > threshold * math.log(logits.shape[1]))
        value = entropies[kept].mean() if kept.any() else logits.new_zeros(())
    else:
        value = entropies.mean()
    if diversity:
        mean_p = logits.softmax(1).mean(0)
        value = value + diversity * torch.xlogy(mean_p, mean_p).sum()
    return value


def pseudo_label_objective(logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
    """Cross-entropy against the model's own most likely class."""
    return functional.cross_entropy(logits, logits.detach().argmax(1))


def norm_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Normalisation layers with trainable gains, by name, in the order in which they are registered."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _NORM_LAYERS) and getattr(module, "weight", None) is not None
    ]


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The layers whose output depends on the rest of the batch."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def checked_modulators(modulator: Modulator | Sequence[Modulator]) -> tuple[Modulator, ...]:
    """One or several modulators as a tuple."""
    chosen = (modulator,) if isinstance(modulator, str) else tuple(modulator)
    if not chosen or not set(chosen) <= set(get_args(Modulator)):
        raise ValueError(f"modulator must be one or several of {', '.join(get_args(Modulator))}, got {modulator!r}")
    return chosen


def modulated_norms(model: nn.Module, layer: nn.Module | None, modulators: Sequence[Modulator]) -> dict[str, nn.Module]:
    """The normalisation layers that `modulators` stand for, by name.

    Raises
    ------
    ValueError
        There are none; the message suggests the inserted modulator.
    """
    norms = norm_layers(model)
    if "first" in modulators and "bn" not in modulators:
        order = {id(module): position for position, module in enumerate(model.modules())}
        after = order.get(id(layer), -1)
        norms = [(name, module) for name, module in norms if order[id(module)] > after][:1]
    elif "bn" not in modulators:
        return {}
    if not norms:
        raise ValueError(
            f"modulator={'/'.join(modulators)!r} needs a normalisation layer with affine parameters and "
            f"{type(model).__name__} has none; use NHL with modulator='inserted', which adds gains behind its layer"
        )
    return dict(norms)
