"""A small classifier and batches given by formulas, so that recorded numbers do not hang on any random generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 5


def wave(*shape: int, frequency: float, scale: float) -> Tensor:
    """Numbers between -scale and scale without a visible pattern: a chirp, in float64."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return scale * torch.sin(frequency * index * (1 + index / 997)).view(shape)


def classifier() -> nn.Sequential:
    """Two convolutions with batch normalisation and a linear layer, on images of 1 x 12 x 12."""
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, CLASSES),
    ).double()
    with torch.no_grad():
        for position, parameter in enumerate(network.parameters()):
            parameter.copy_(wave(*parameter.shape, frequency=1.3 + position / 7, scale=0.3))
        for norm in (network[1], network[5]):
            norm.weight.add_(1.0)
            norm.running_mean.copy_(wave(*norm.running_mean.shape, frequency=2.1, scale=0.1))
            norm.running_var.copy_(0.5 + wave(*norm.running_var.shape, frequency=2.7, scale=0.2))
    return network.eval()


def batches(count: int = 10, size: int = 8) -> list[Tensor]:
    """Images in [0, 1], float64, (size, 1, 12, 12) each."""
    return list(((1 + wave(count, size, 1, 12, 12, frequency=0.9, scale=1.0)) / 2).unbind())
