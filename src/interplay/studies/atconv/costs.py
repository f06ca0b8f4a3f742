"""What networks and mixers cost, counted: exact, so every trial finds the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import torch

from interplay.evidence import Measurement
from interplay.primitives.randomness import generator_of, initialised_from
from interplay.studies.atconv.mixers import MIXERS
from interplay.vision.atconv import attnet, attnet_macs, count_macs, count_parameters

__all__ = ["PUBLISHED_PARAMETERS", "costs_by_side", "sizes_of_networks"]

PUBLISHED_PARAMETERS = {
    "xxs": 2_853_556,
    "xs": 5_554_902,
    "s": 7_681_316,
    "t1": 13_714_900,
    "t2": 27_010_782,
    "t3": 49_175_682,
    "t4": 87_320_214,
}
"""As the authors' code makes them with 1,000 classes."""
WEIGHTS, IMAGE = 40, 41


@cache
def counts(size: str) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of an image of 224 x 224."""
    with torch.device("meta"):
        network, image = attnet(size), torch.empty(1, 3, 224, 224)
    return count_parameters(network), count_macs(network, image, as_published=True)


def sizes_of_networks(seed: int, computed: Sequence[str]) -> Iterator[Measurement]:
    """Parameters and operations of every published size, and whether those in `computed` classify an image of 224^2."""
    right = 0
    for size, published in PUBLISHED_PARAMETERS.items():
        parameters, operations = counts(size)
        right += parameters == published and operations == attnet_macs(size)
        yield Measurement(f"attnet-{size}", "parameters / million", parameters / 1e6)
        yield Measurement(f"attnet-{size}", "operations at 224 x 224 / billion", operations / 1e9)
    yield Measurement("attnet", "sizes with the published counts", right)
    for size in computed:
        with initialised_from(generator_of(seed, WEIGHTS)):
            network = attnet(size).eval()
        with torch.no_grad():
            logits = network(torch.randn(1, 3, 224, 224, generator=generator_of(seed, IMAGE)))
        works = logits.shape == (1, 1000) and bool(logits.isfinite().all())
        yield Measurement("attnet", "forward at 224 x 224 works", float(works), item=size)


def costs_by_side(sides: Sequence[int], dim: int) -> Iterator[Measurement]:
    """Operations of one mixer on maps of growing side, and the log-log slope against pixels over the upper half."""
    for condition in ("atconv", "static", "attention"):
        counts = []
        for side in sides:
            with torch.device("meta"):
                mixer, x = MIXERS[condition](dim, side), torch.empty(1, dim, side, side)
            counts.append(count_macs(mixer, x))
            yield Measurement(condition, "operations / million", counts[-1] / 1e6, x=float(side**2))
        upper = len(sides) // 2
        pixels = torch.tensor([float(side**2) for side in sides[upper:]], dtype=torch.float64).log()
        costs = torch.tensor(counts[upper:], dtype=torch.float64).log()
        pixels, costs = pixels - pixels.mean(), costs - costs.mean()
        yield Measurement(condition, "slope of operations", float((pixels * costs).sum() / pixels.square().sum()))
