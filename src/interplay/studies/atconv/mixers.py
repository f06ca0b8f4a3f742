"""What is compared as mixer of positions, each made from the number of channels and the side of its map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.vision.atconv import ATConv2d

__all__ = ["MIXERS", "AttentionMixer", "PoolingMixer", "mixer_of"]

Map = Float[Tensor, "batch channel height width"]
HEAD_WIDTH = 8


class AttentionMixer(nn.Module):
    """Multi-head self-attention among all positions, with a learned embedding of positions, which it cannot do without.

    Parameters
    ----------
    dim
        C; heads are 8 wide, better than 16 in a pilot.
    side
        Height and width of the map. Embeddings start at unit variance, as large as normalised inputs: from 0.02
        attention learns nothing on that task.
    """

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.heads = max(1, dim // HEAD_WIDTH)
        self.positions = nn.Parameter(torch.randn(dim, side, side))
        self.inputs = nn.Conv2d(dim, 3 * dim, 1)
        self.output = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Map) -> Map:
        parts = self.inputs(x + self.positions).flatten(2).unflatten(1, (3, self.heads, -1)).mT.unbind(1)
        mixed = functional.scaled_dot_product_attention(*(part.contiguous() for part in parts))
        return self.output(mixed.mT.flatten(1, 2).unflatten(2, x.shape[2:]))


class PoolingMixer(nn.Module):
    """The mean over 3 x 3 neighbours minus the position itself: no parameters (PoolFormer's mixer)."""

    def forward(self, x: Map) -> Map:
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x


MIXERS: dict[str, Callable[[int, int], nn.Module]] = {
    "atconv": lambda dim, side: ATConv2d(dim),
    "atconv without inhibition": lambda dim, side: ATConv2d(dim, inhibition="none"),
    "atconv with full inhibition": lambda dim, side: ATConv2d(dim, inhibition="full"),
    "atconv with softmax": lambda dim, side: ATConv2d(dim, inhibition="softmax"),
    "atconv on a grid": lambda dim, side: ATConv2d(dim, pool="grid"),
    "static": lambda dim, side: ATConv2d(dim, kernel_source="static", inhibition="none"),
    "static with inhibition": lambda dim, side: ATConv2d(dim, kernel_source="static"),
    "attention": AttentionMixer,
    "full convolution": lambda dim, side: nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), nn.GELU()),
    "pooling": lambda dim, side: PoolingMixer(),
    "identity": lambda dim, side: nn.Identity(),
}


def mixer_of(condition: str, dim: int, side: int) -> nn.Module:
    """The mixer that a condition of the study is named after."""
    return MIXERS[condition](dim, side)
