"""A network and a set of samples made from a closed formula, so that other programs can be asked about the same."""

import functools
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

cross_entropy = functools.partial(functional.cross_entropy, reduction="none")


def closed_form_network(*widths: int, scale: float = 1.0) -> nn.Sequential:
    """A tanh network whose n-th number, in the order of `parameters()`, is scale sin(1 + 0.7 n^1.1) / sqrt(fan in)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    network = nn.Sequential(*layers[:-1]).double()
    first = 0
    with torch.no_grad():
        for parameter in network.parameters():
            count = torch.arange(first, first + parameter.numel(), dtype=torch.float64)
            first += parameter.numel()
            fan_in = parameter.shape[-1]
            parameter.copy_(scale * torch.sin(1 + 0.7 * count**1.1).view_as(parameter) / fan_in**0.5)
    return network


def closed_form_samples(samples: int, inputs: int, classes: int) -> tuple[Tensor, Tensor]:
    """Inputs 1.5 sin(2 + 0.3 k^1.2) for the k-th number, row by row, and labels that follow the sum of a row."""
    count = torch.arange(samples * inputs, dtype=torch.float64)
    x = 1.5 * torch.sin(2 + 0.3 * count**1.2).view(samples, inputs)
    return x, (x.sum(1) * 3).floor().long() % classes


def descend(network: nn.Module, x: Tensor, y: Tensor, steps: int, lr: float) -> None:
    """Full-batch gradient descent."""
    optimizer = torch.optim.SGD(network.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(network(x), y).mean().backward()
        optimizer.step()
