"""The parts that AttNet is built of: a mixer of positions and a gated mixer of channels, each on a residual branch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.vision.atconv.layers import ATConv2d

__all__ = ["AttNetBlock", "ChannelLayerNorm", "ChannelRMSNorm", "ConvBN", "DropPath", "GatedChannelMixer", "LayerScale"]

Map = Float[Tensor, "batch channel height width"]
Mixer = Callable[[int], nn.Module]


class ConvBN(nn.Sequential):
    """A convolution without bias, by default 3 x 3 at stride 2, and its BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 2) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of every pixel."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__(dim, eps=eps)

    def forward(self, input: Map) -> Map:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ChannelRMSNorm(nn.Module):
    """Division of every pixel by the root mean square of its channels, and a weight a channel."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Map) -> Map:
        return functional.rms_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.eps).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """A learned factor for every channel of a residual branch, small at the start."""

    def __init__(self, dim: int, initial: float = 1e-6) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((dim,), initial))

    def forward(self, x: Map) -> Map:
        return x * self.factor.view(-1, 1, 1)


class DropPath(nn.Module):
    """Stochastic depth: in training, a residual branch is left out for some images, and scaled up for the others."""

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of stochastic depth must lie in [0, 1); got {rate}")
        self.rate = rate

    def forward(self, x: Map) -> Map:
        if self.rate == 0 or not self.training:
            return x
        kept = torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"{self.rate:g}"


class GatedChannelMixer(nn.Module):
    """Channels mixed at every pixel: (a, b) = W1 x, then W2 norm(GELU(depthwise(a)) * b).

    Parameters
    ----------
    dim
        C, channels in and out.
    expansion
        e; there are h = int(2 int(C e) / 3) hidden channels, as many operations as e C without a gate.
    depthwise
        Whether a 3 x 3 depthwise convolution acts on a.
    norm
        Whether the product is normalised by its root mean square.
    """

    def __init__(self, dim: int, expansion: float, *, depthwise: bool = True, norm: bool = False) -> None:
        super().__init__()
        hidden = int(2 * int(dim * expansion) / 3)
        self.expand = nn.Conv2d(dim, 2 * hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) if depthwise else nn.Identity()
        self.norm = ChannelRMSNorm(hidden) if norm else nn.Identity()
        self.contract = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Map) -> Map:
        gated, gate = self.expand(x).chunk(2, 1)
        return self.contract(self.norm(functional.gelu(self.depthwise(gated)) * gate))


class AttNetBlock(nn.Module):
    """x + mix_positions(norm(x)), then x + mix_channels(norm(x)).

    Parameters
    ----------
    dim
        C.
    expansion, depthwise, norm
        Of the `GatedChannelMixer`.
    layer_scale
        Whether both branches have a `LayerScale`.
    drop_path
        Rate of stochastic depth of both.
    mixer
        Makes the mixer of positions from C; default `ATConv2d`.
    """

    def __init__(
        self,
        dim: int,
        expansion: float,
        *,
        depthwise: bool = True,
        norm: bool = False,
        layer_scale: bool = False,
        drop_path: float = 0.0,
        mixer: Mixer = ATConv2d,
    ) -> None:
        super().__init__()
        self.position_norm = ChannelLayerNorm(dim)
        self.position_mixer = mixer(dim)
        self.position_scale = LayerScale(dim) if layer_scale else nn.Identity()
        self.channel_norm = ChannelLayerNorm(dim)
        self.channel_mixer = GatedChannelMixer(dim, expansion, depthwise=depthwise, norm=norm)
        self.channel_scale = LayerScale(dim) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Map) -> Map:
        x = x + self.drop_path(self.position_scale(self.position_mixer(self.position_norm(x))))
        return x + self.drop_path(self.channel_scale(self.channel_mixer(self.channel_norm(x))))
