"""Small AttNets on cluttered digits that differ in their mixer of positions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.assets.images import ImageSet
from interplay.primitives.randomness import generator_of, initialised_from
from interplay.studies.atconv.mixers import mixer_of
from interplay.vision.atconv import AttNetBlock, ConvBN, parameter_groups

__all__ = ["Design", "MicroAttNet", "Recipe", "accuracy", "trained_classifier"]

WEIGHTS, ORDER = 10, 11


@dataclass(frozen=True)
class Design:
    """The network around the mixers.

    Attributes
    ----------
    dims, depths
        Channels and blocks of every stage.
    expansion
        Of the channel mixer.
    depthwise
        Whether the channel mixer has its own depthwise convolution, as the published one does; it then mixes positions
        too, whatever the mixer is.
    """

    dims: Sequence[int] = (16, 32, 48)
    depths: Sequence[int] = (1, 2, 1)
    expansion: float = 3.0
    depthwise: bool = False


@dataclass(frozen=True)
class Recipe:
    """How it is trained: AdamW on one cycle of the learning rate."""

    epochs: int = 6
    batch_size: int = 100
    rate: float = 4e-3
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    clip: float = 1.0


class MicroAttNet(nn.Module):
    """AttNet's blocks, a strided ConvBN before each stage; no LayerScale, which short training cannot lift."""

    def __init__(self, condition: str, side: int, design: Design, classes: int = 10) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        before = 1
        for dim, depth in zip(design.dims, design.depths, strict=True):
            side = -(-side // 2)
            parts.append(ConvBN(before, dim))
            parts += [
                AttNetBlock(
                    dim,
                    design.expansion,
                    depthwise=design.depthwise,
                    mixer=lambda dim, side=side: mixer_of(condition, dim, side),
                )
                for _ in range(depth)
            ]
            before = dim
        self.stages = nn.Sequential(*parts)
        self.norm = nn.LayerNorm(before)
        self.head = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch feature"]:
        """Pooled and normalised, what the head reads."""
        return self.norm(self.stages(images).mean((-2, -1)))

    def forward(self, images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch label"]:
        return self.head(self.features(images))


def trained_classifier(seed: int, condition: str, data: ImageSet, design: Design, recipe: Recipe) -> MicroAttNet:
    """A network of one condition; the same seed gives every condition the same order of images."""
    with initialised_from(generator_of(seed, WEIGHTS)):
        network = MicroAttNet(condition, data.images.shape[-1], design)
    network = network.to(memory_format=torch.channels_last)  # a fifth faster: layer norms need no copy
    order = generator_of(seed, ORDER)
    optimizer = torch.optim.AdamW(parameter_groups(network, recipe.weight_decay), lr=recipe.rate, fused=True)
    steps = recipe.epochs * -(-len(data) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=max(2, steps))
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(data), generator=order).split(recipe.batch_size):
            optimizer.zero_grad()
            loss = functional.cross_entropy(
                network(data.images[chosen]), data.labels[chosen], label_smoothing=recipe.label_smoothing
            )
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, data: ImageSet) -> float:
    """Share of images whose class has the largest logit."""
    logits = torch.cat([network(images) for images in data.images.split(500)])
    return float((logits.argmax(1) == data.labels).double().mean())
