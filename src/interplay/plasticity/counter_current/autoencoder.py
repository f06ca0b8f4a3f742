"""The convolutional autoencoder, whose feedback network is an autoencoder too, from the other end."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from interplay.plasticity.counter_current.mirror import WEIGHTED
from interplay.plasticity.counter_current.network import CounterCurrentNet

__all__ = ["convolutional_autoencoder", "initialize_autoencoder"]


def convolutional_autoencoder(channels: Sequence[int]) -> nn.Sequential:
    """The published forward network: 3 x 3 convolutions with stride 2 down, nearest neighbours and convolutions up.

    Batch normalisation and ReLU follow every convolution but the last. For images of a side divisible by
    2^(len(channels) - 1).

    Parameters
    ----------
    channels
        Of the images and of each level of the encoder; the decoder has the same in reverse. The published one has (3,
        128, 256, 1024, 2048).
    """
    if len(channels) < 2:
        raise ValueError(f"channels must be those of the images and of one level or more, got {tuple(channels)}")
    encoder = [
        module
        for inputs, outputs in itertools.pairwise(channels)
        for module in (nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())
    ]
    decoder = [
        module
        for inputs, outputs in itertools.pairwise(channels[::-1])
        for module in (
            *(nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, 1, 1)),
            *(nn.BatchNorm2d(outputs), nn.ReLU()),
        )
    ]
    return nn.Sequential(*encoder, *decoder[:-2])


@torch.no_grad()
def initialize_autoencoder(net: CounterCurrentNet, bottleneck: int) -> CounterCurrentNet:
    """The published start of an autoencoder's two networks; returns the same net.

    All weights are orthogonal, over the larger number of channels; forward biases are zero. The halves that generate
    (the forward network behind the bottleneck, the feedback network below it) are scaled by 1e-3, and the two layers
    that put out images are zero.

    Parameters
    ----------
    net
        The two networks, changed in place.
    bottleneck
        Level of the code, 1 to L - 1: the number of layers of the encoder.
    """
    if not 1 <= bottleneck < len(net.pairs):
        raise ValueError(f"bottleneck must be a level from 1 to {len(net.pairs) - 1}, got {bottleneck}")
    for level, pair in enumerate(net.pairs, 1):
        generates = pair.forward_module if level > bottleneck else pair.feedback_module
        for side in (pair.forward_module, pair.feedback_module):
            for part in side.modules():
                if isinstance(part, WEIGHTED):
                    _make_orthogonal(part.weight, 1e-3 if side is generates else 1.0)
                    if part.bias is not None and side is pair.forward_module:
                        part.bias.zero_()
    for side in (net.pairs[-1].forward_module, net.pairs[0].feedback_module):
        for part in side.modules():
            if isinstance(part, WEIGHTED):
                part.weight.zero_()
    return net


def _make_orthogonal(weight: Tensor, gain: float) -> None:
    larger_first = weight if weight.shape[0] >= weight.shape[1] else weight.transpose(0, 1)
    larger_first.copy_(nn.init.orthogonal_(larger_first.new_empty(larger_first.shape), gain))
