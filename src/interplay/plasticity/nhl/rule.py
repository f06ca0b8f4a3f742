"""The feed-forward half of NHL: soft Hebbian learning of one layer, equations (1) and (2)."""

from __future__ import annotations

import itertools
import math
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from interplay.primitives.competition import hard_winner_take_all, soft_winner_take_all
from interplay.primitives.plasticity import (
    activity_decay,
    hebbian_correlation,
    max_normalised,
    rescaled_rows,
    row_norms,
)

__all__ = ["HEBBIAN_LAYERS", "SoftHebb", "soft_hebbian_delta", "soft_hebbian_free_energy"]

Competition = Literal["softmax", "hard", "kwta"]
Normalisation = Literal["max", "mean", "none"]
Sizes = int | tuple[int, ...]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
HEBBIAN_LAYERS = (*CONVOLUTIONS, nn.Linear)
_CONVOLVE = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


class _Response(NamedTuple):
    """What the layer does with a batch: padded input x, drive u, activity y, and the dimension of the channels."""

    pre: Tensor
    drive: Tensor
    post: Tensor
    channel_dim: int


@torch.no_grad()
def soft_hebbian_delta(
    weight: Float[Tensor, "out ..."],
    x: Float[Tensor, "..."],
    *,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    tau: float = 1.0,
    competition: Competition = "softmax",
    winners: int | None = None,
    reduction: Literal["sum", "mean"] = "sum",
) -> Float[Tensor, "out ..."]:
    """Equation (2) before the step: the sum over samples and locations of y_k (x_p - u_k w_k).

    Parameters
    ----------
    weight
        (out, in / groups, *kernel) of a convolution in one to three dimensions, or (out, in) of a linear layer.
    x
        The layer's input: (batch, in, *space), or (..., in). Half precision is raised to float32 first.
    stride, padding, dilation, groups
        Geometry of the convolution (`padding` may be "same" or "valid"); without effect for a linear layer.
    tau
        Temperature of the competition.
    competition
        "softmax" is the paper's; "hard" gives all activity to the strongest channel; "kwta" shares it among the
        `winners` strongest.
    winners
        Number of winners, for "kwta" only.
    reduction
        "sum", or "mean" over samples and locations.

    Returns
    -------
    Tensor
        Of the shape of `weight`, float32 (float64 for float64 input); no gradient runs through it.

    Raises
    ------
    ValueError
        Shapes that do not fit, unknown options, or a group of one channel: nobody to compete with.
    """
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}")
    weight = _at_least_single(weight)
    with torch.autocast(x.device.type, enabled=False):
        response = _respond(weight, x, stride, padding, dilation, groups, tau, competition, winners)
        correlation = hebbian_correlation(
            response.pre,
            response.post,
            weight.shape,
            stride=stride,
            padding=0 if isinstance(padding, str) else padding,
            dilation=dilation,
            groups=groups,
        )
        delta = correlation - activity_decay(weight, correlation)
    return delta if reduction == "sum" else delta * (weight.shape[0] / response.drive.numel())


@torch.no_grad()
def soft_hebbian_free_energy(
    weight: Float[Tensor, "out ..."],
    x: Float[Tensor, "..."],
    *,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    tau: float = 1.0,
) -> Float[Tensor, ""]:
    """Free energy E_y[-log p(x, k)] - H(y) of the mixture that the layer stands for, in nats a patch, up to a constant.

    Component k of the mixture is p(x | k) ~ exp(w_k . x / (|w_k| tau)) with equal priors: the direction of a filter
    counts and its length does not, or the energy would fall by mere growth. The activity y of equation (1) is the
    approximate posterior (E-step), exact where |w_k| = 1; the Hebbian step is a stochastic M-step. For groups, the
    energies of the groups are averaged.
    """
    weight = _at_least_single(weight)
    with torch.autocast(x.device.type, enabled=False):
        response = _respond(weight, x, stride, padding, dilation, groups, tau, "softmax", None)
        lengths = row_norms(weight).clamp_min(torch.finfo(weight.dtype).tiny)
        shape = [1] * response.drive.ndim
        shape[response.channel_dim] = -1
        scores = response.drive / (lengths.view(shape) * tau)
        energy = torch.xlogy(response.post, response.post) - response.post * scores
        return energy.sum(response.channel_dim).mean() / groups


class SoftHebb:
    """Soft Hebbian learning of one layer's weight, in place and without gradient.

    Parameters
    ----------
    layer
        `Conv1d`, `Conv2d`, `Conv3d` or `Linear`; its weight is changed by `step`, its bias is left alone.
    lr
        Step size eta: with `normalize="max"` the change of the entry that changes most, per batch. 1e-2 is destructive
        on trained networks.
    tau, competition, winners
        As in `soft_hebbian_delta`.
    normalize
        "max" divides the batch's sum by its largest entry, "mean" by the number of samples and locations, "none"
        leaves the sum.
    preserve_norm
        Rescale each filter to the length it had at construction. "auto": unless a batch or instance normalisation
        follows the layer in `within`.
    within
        The network around the layer, for "auto"; modules are taken in the order in which they are registered.
    """

    def __init__(
        self,
        layer: nn.Module,
        lr: float = 1e-3,
        tau: float = 1.0,
        *,
        normalize: Normalisation = "max",
        preserve_norm: bool | Literal["auto"] = "auto",
        competition: Competition = "softmax",
        winners: int | None = None,
        within: nn.Module | None = None,
    ) -> None:
        if not isinstance(layer, HEBBIAN_LAYERS):
            allowed = ", ".join(kind.__name__ for kind in HEBBIAN_LAYERS)
            raise TypeError(f"layer must be one of {allowed}, got {type(layer).__name__}")
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError(
                "layer has a parametrised weight, which a local step cannot change; call remove_parametrizations first"
            )
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr must be a number of at least 0, got {lr!r}")
        if normalize not in get_args(Normalisation):
            raise ValueError(f"normalize must be one of {', '.join(get_args(Normalisation))}, got {normalize!r}")
        if preserve_norm not in (True, False, "auto"):
            raise ValueError(f"preserve_norm must be True, False or 'auto', got {preserve_norm!r}")
        _check_competition(layer.weight.shape[0], getattr(layer, "groups", 1), tau, competition, winners)
        self.layer = layer
        self.lr = lr
        self.tau = tau
        self.normalize = normalize
        self.competition = competition
        self.winners = winners
        if preserve_norm == "auto":
            preserve_norm = within is None or not _channel_normalisation_follows(within, layer)
        self.preserve_norm = preserve_norm
        self._source_norms = row_norms(layer.weight.detach()).clone()

    def delta(self, x: Float[Tensor, "..."]) -> Float[Tensor, "out ..."]:
        """The batch's update before the step size: `soft_hebbian_delta` of the layer, normalised."""
        reduction = "mean" if self.normalize == "mean" else "sum"
        geometry = {}
        if isinstance(self.layer, CONVOLUTIONS):
            x, padding = _padded_as_layer(self.layer, x)
            geometry = {
                "stride": self.layer.stride,
                "padding": padding,
                "dilation": self.layer.dilation,
                "groups": self.layer.groups,
            }
        delta = soft_hebbian_delta(
            self.layer.weight,
            x,
            tau=self.tau,
            competition=self.competition,
            winners=self.winners,
            reduction=reduction,
            **geometry,
        )
        return max_normalised(delta) if self.normalize == "max" else delta

    @torch.no_grad()
    def step(self, x: Float[Tensor, "..."]) -> bool:
        """Learn from one batch of the layer's input; says whether it could (an update must be finite)."""
        delta = self.delta(x)
        if not delta.isfinite().all():
            return False
        weight = self.layer.weight + self.lr * delta.to(self.layer.weight.dtype)
        if self.preserve_norm:
            weight = rescaled_rows(weight, self._source_norms.to(weight))
        self.layer.weight.copy_(weight)
        return True


def _respond(
    weight: Tensor,
    x: Tensor,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
    tau: float,
    competition: Competition,
    winners: int | None,
) -> _Response:
    """Equation (1)."""
    if not (weight.is_floating_point() and x.is_floating_point()):
        raise TypeError(f"weight and x must be floating point, got {weight.dtype} and {x.dtype}")
    groups = 1 if weight.ndim == 2 else groups
    _check_competition(weight.shape[0], groups, tau, competition, winners)
    x = x.to(weight.dtype)
    if weight.ndim == 2:
        if x.shape[-1] != weight.shape[1]:
            raise ValueError(f"x must end in {weight.shape[1]} features, got shape {tuple(x.shape)}")
        drive, channel_dim = functional.linear(x, weight), -1
    elif weight.ndim in _CONVOLVE:
        channels = weight.shape[1] * groups
        if x.ndim != weight.ndim or x.shape[1] != channels:
            raise ValueError(
                f"x must have {weight.ndim} dimensions and {channels} channels, got shape {tuple(x.shape)}"
            )
        if isinstance(padding, str):
            x, padding = _padded(x, _padding_of(padding, weight.shape[2:], dilation)), 0
        drive = _CONVOLVE[weight.ndim](x, weight, None, stride, padding, dilation, groups)
        channel_dim = 1
    else:
        raise ValueError(f"weight must have 2 to 5 dimensions, got shape {tuple(weight.shape)}")
    rivals, rival_dim = (drive, channel_dim) if groups == 1 else (drive.unflatten(1, (groups, -1)), 2)
    if competition == "hard":
        post = hard_winner_take_all(rivals, dim=rival_dim)
    else:
        post = soft_winner_take_all(rivals, temperature=tau, dim=rival_dim, winners=winners)
    return _Response(x, drive, post.view_as(drive), channel_dim)


def _check_competition(channels: int, groups: int, tau: float, competition: Competition, winners: int | None) -> None:
    if competition not in get_args(Competition):
        raise ValueError(f"competition must be one of {', '.join(get_args(Competition))}, got {competition!r}")
    if not (math.isfinite(tau) and tau > 0):
        raise ValueError(f"tau must be a positive number, got {tau!r}")
    if (competition == "kwta") != (winners is not None):
        raise ValueError(f"winners belongs to competition='kwta' and must be given there, got {winners!r}")
    if groups < 1 or channels % groups:
        raise ValueError(f"groups must divide the {channels} output channels, got {groups}")
    if channels // groups < 2:
        raise ValueError(
            "channels compete with those that see the same patch, and here each sees its own (depthwise or "
            "single-channel layer); choose a layer with at least two output channels per group"
        )


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _padding_of(padding: str, kernel: torch.Size, dilation: Sizes) -> list[tuple[int, int]]:
    """Zeros before and after, for each dimension of space, that a name stands for (an odd one comes after)."""
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be numbers, 'same' or 'valid', got {padding!r}")
    dilations = (dilation,) * len(kernel) if isinstance(dilation, int) else dilation
    totals = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilations, kernel, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def _padded(x: Tensor, sides: list[tuple[int, int]], mode: str = "constant") -> Tensor:
    flat = [amount for side in reversed(sides) for amount in side]
    return functional.pad(x, flat, mode=mode) if any(flat) else x


def _padded_as_layer(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> tuple[Tensor, Sizes | str]:
    """The input as the layer's filters see it, and the zero padding that is left to do."""
    if layer.padding_mode == "zeros":
        return x, layer.padding
    if isinstance(layer.padding, str):
        sides = _padding_of(layer.padding, layer.weight.shape[2:], layer.dilation)
    else:
        sides = [(amount, amount) for amount in layer.padding]
    return _padded(x, sides, layer.padding_mode), 0


def _channel_normalisation_follows(model: nn.Module, layer: nn.Module) -> bool:
    leaves = [module for module in model.modules() if not any(module.children())]
    following = next((after for before, after in itertools.pairwise(leaves) if before is layer), None)
    # Batch and instance normalisation divide out each channel's scale; layer and group normalisation do not.
    return isinstance(following, nn.modules.batchnorm._NormBase)
