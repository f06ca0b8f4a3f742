"""A task that needs routing: the brightness of a noise image says which of four filters is to be applied to the noise.

A mixer with fixed kernels can apply one mixture of the filters to all images; one whose kernels follow the image can
apply the right filter to each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.primitives.randomness import generator_of, initialised_from
from interplay.studies.atconv.mixers import mixer_of

__all__ = ["CuedFiltering", "Curve", "learn_filtering"]

WEIGHTS, IMAGES, TEST, FILTERS = 1, 2, 3, 4
OFFSETS = (-1.5, -0.5, 0.5, 1.5)


class CuedFiltering:
    """Draws pairs of image and target.

    Parameters
    ----------
    seed
        Decides on the four filters, 3 x 3 with independent normal taps and unit norm, so that targets have unit
        variance but at the border.
    side
        Height and width of images.
    """

    def __init__(self, seed: int, side: int) -> None:
        filters = torch.randn(len(OFFSETS), 1, 3, 3, generator=generator_of(seed, FILTERS))
        self.filters = filters / filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        self.side = side

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "image 1 height width"], Float[Tensor, "image 1 height width"]]:
        """Noise plus one of four offsets, and the noise alone filtered by the filter of that offset."""
        noise = torch.randn(count, 1, self.side, self.side, generator=generator)
        cue = torch.randint(len(OFFSETS), (count,), generator=generator)
        filtered = functional.conv2d(noise, self.filters, padding=1)
        target = filtered.gather(1, cue.view(-1, 1, 1, 1).expand(-1, 1, self.side, self.side))
        return noise + torch.tensor(OFFSETS)[cue].view(-1, 1, 1, 1), target


class Curve(NamedTuple):
    """What one condition learned.

    Attributes
    ----------
    network
        After training.
    steps, errors
        Test errors along the way, divided by the variance of the targets.
    """

    network: nn.Module
    steps: list[int]
    errors: list[float]


def learn_filtering(
    seed: int, condition: str, *, dim: int, side: int, steps: int, batch_size: int, rate: float, test: int, looks: int
) -> Curve:
    """One mixer between two 1 x 1 convolutions, by Adam; every condition of a seed sees the same images."""
    task = CuedFiltering(seed, side)
    with initialised_from(generator_of(seed, WEIGHTS)):
        network = nn.Sequential(nn.Conv2d(1, dim, 1), mixer_of(condition, dim, side), nn.Conv2d(dim, 1, 1))
    images, targets = task.draw(test, generator_of(seed, TEST))
    generator = generator_of(seed, IMAGES)
    optimizer = torch.optim.Adam(network.parameters(), rate, fused=True)
    when = {max(1, round(steps * (look + 1) / looks)) for look in range(looks)}
    curve = Curve(network, [], [])
    for step in range(1, steps + 1):
        x, y = task.draw(batch_size, generator)
        optimizer.zero_grad()
        functional.mse_loss(network(x), y).backward()
        optimizer.step()
        if step in when:
            with torch.no_grad():
                error = (network(images) - targets).square().mean() / targets.var(correction=0)
            curve.steps.append(step)
            curve.errors.append(float(error))
    return curve
