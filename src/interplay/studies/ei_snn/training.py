"""Images in three parts, and the training that all conditions share."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from interplay.assets import mnist_5k
from interplay.assets.image_folders import ImageFolder
from interplay.primitives.randomness import generator_of
from interplay.spiking.ei_snn import constrain
from interplay.studies.ei_snn.networks import ei_layers

SPLIT, WEIGHTS, ORDER = range(3)


class Part(NamedTuple):
    """Images with pixels in [0, 1], and their classes."""

    images: Float[Tensor, "image channels height width"]
    labels: Int64[Tensor, " image"]


class Data(NamedTuple):
    """Disjoint parts: the second chooses learning rates, the third is reported."""

    train: Part
    validation: Part
    test: Part


@cache
def digits(train: int, validation: int, test: int) -> Data:
    """MNIST-5k, split by class, always the same way."""
    pool = mnist_5k()
    if train + validation + test > len(pool):
        raise ValueError(f"train + validation + test must be at most {len(pool)} images")
    generator = generator_of(0, SPLIT)
    # Column by column, the rows of one class after another: any stretch of it has all classes alike.
    by_class = torch.stack(
        [(pool.labels == label).nonzero().flatten()[torch.randperm(500, generator=generator)] for label in range(10)]
    )
    order = by_class.t().flatten()
    parts = order[: train + validation + test].split((train, validation, test))
    return Data(*(Part(pool.images[part], pool.labels[part]) for part in parts))


@cache
def folders(root: Path, validation: int, device: str) -> Data:
    """Images in root/train/CLASS and root/test/CLASS; `validation` of the training images choose learning rates."""

    def read(part: str) -> Part:
        def prepare(image: Image.Image) -> Tensor:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)

        batches = list(ImageFolder(root / part, prepare, batch_size=512, shuffle=generator_of(0, SPLIT)))
        return Part(*(torch.cat(tensors).to(device) for tensors in zip(*batches, strict=True)))

    train, test = read("train"), read("test")
    if not 0 < validation < len(train.labels):
        raise ValueError(f"validation must leave some of the {len(train.labels)} training images, got {validation}")
    return Data(
        Part(train.images[validation:], train.labels[validation:]),
        Part(train.images[:validation], train.labels[:validation]),
        test,
    )


def rate_factor(step: int, steps: int, warm_up: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine down to zero."""
    warm = max(1, round(warm_up * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def train(
    network: nn.Module,
    part: Part,
    *,
    rate: float,
    epochs: int,
    batch_size: int,
    warm_up: float,
    momentum: float,
    weight_decay: float,
    augment: bool,
    generator: torch.Generator,
    after_epoch: Callable[[], None] = lambda: None,
) -> None:
    """SGD on the cross-entropy; E-I layers are constrained."""
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=weight_decay)
    if ei_layers(network):
        constrain(optimizer, network)
    steps = epochs * -(-len(part.labels) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, warm_up))
    for _ in range(epochs):
        network.train()
        for chosen in torch.randperm(len(part.labels), generator=generator).split(batch_size):
            images = shifted_and_mirrored(part.images[chosen], generator) if augment else part.images[chosen]
            optimizer.zero_grad()
            functional.cross_entropy(network(images), part.labels[chosen]).backward()
            optimizer.step()
            schedule.step()
        after_epoch()


def shifted_and_mirrored(images: Tensor, generator: torch.Generator, margin: int = 4, hole: int = 8) -> Tensor:
    """Each image moved by up to `margin` pixels, mirrored half of the time, with one square hole cut out."""
    batch, _, height, width = images.shape
    padded = functional.pad(images, (margin,) * 4)
    draws = torch.rand(batch, 5, generator=generator)
    rows, columns = (draws[:, :2] * (2 * margin + 1)).long().unbind(1)
    holes = (draws[:, 2:4] * torch.tensor([height - hole + 1, width - hole + 1])).long()
    made = torch.empty_like(images)
    for index in range(batch):
        row, column = int(rows[index]), int(columns[index])
        made[index] = padded[index, :, row : row + height, column : column + width]
        top, left = holes[index].tolist()
        made[index, :, top : top + hole, left : left + hole] = 0
    mirrored = (draws[:, 4] < 0.5).to(images.device)[:, None, None, None]
    return torch.where(mirrored, made.flip(-1), made)


@torch.no_grad()
def accuracy(network: nn.Module, part: Part, batch_size: int = 500) -> float:
    """Share of images whose class has the largest logit; NaN logits are wrong."""
    network.eval()
    right = 0
    for images, labels in zip(part.images.split(batch_size), part.labels.split(batch_size), strict=True):
        logits = network(images)
        right += int(((logits.argmax(1) == labels) & logits.isfinite().all(1)).sum())
    return right / len(part.labels)
