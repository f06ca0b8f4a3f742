"""A small diffusion transformer on digits, with attention or with attentive convolution in every block.

The network (SiT: adaptive layer norm from time and class, which starts at zero) learns the velocity of straight paths

(1)  x_t = (1 - t) x + t noise,    dx_t / dt = noise - x,

and samples follow it from noise at t = 1 back to t = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy import linalg
from torch import Tensor, nn
from torch.nn import functional

from interplay.assets.images import ImageSet, mnist_5k
from interplay.primitives.randomness import generator_of, initialised_from
from interplay.studies.atconv.classification import Design, Recipe, accuracy, trained_classifier
from interplay.vision.atconv import count_macs, replace_attention

__all__ = [
    "Generated",
    "Judge",
    "MicroSiT",
    "Schedule",
    "digit_sets",
    "frechet_distance",
    "generate",
    "train_generator",
]

WEIGHTS, TRAINING, NOISE, SPLIT, SAMPLES = 20, 21, 22, 23, 24
CLASSES = 10
Images = Float[Tensor, "batch 1 side side"]


@dataclass(frozen=True)
class Schedule:
    """Size of the network, its training by Adam, and sampling by Euler's method."""

    width: int = 64
    depth: int = 4
    heads: int = 4
    patch: int = 4
    steps: int = 300
    batch_size: int = 32
    rate: float = 2e-3
    samples: int = 400
    sampling_steps: int = 16


class SelfAttention(nn.Module):
    """Multi-head self-attention of tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        parts = self.inputs(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.output(functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a two-layer network on residual branches, scaled, shifted and gated by the condition."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attention = SelfAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def forward(
        self, tokens: Float[Tensor, "batch token width"], condition: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch token width"]:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition).unsqueeze(1).chunk(6, -1)
        tokens = tokens + gate1 * self.attention(self.norm(tokens) * (1 + scale1) + shift1)
        return tokens + gate2 * self.mlp(self.norm(tokens) * (1 + scale2) + shift2)


class MicroSiT(nn.Module):
    """Velocity of noisy images at a time, for a class.

    Parameters
    ----------
    condition
        "attention", or "atconv", which takes its place in every block, without position embedding, as published.
    side
        Height and width of images.
    """

    def __init__(self, condition: str, side: int, schedule: Schedule) -> None:
        super().__init__()
        width, self.patch, self.rows = schedule.width, schedule.patch, side // schedule.patch
        self.embed = nn.Linear(self.patch**2, width)
        self.register_buffer("pos_embed", _sines(self.rows, width))
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(CLASSES, width)
        nn.init.normal_(self.label.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(width, schedule.heads) for _ in range(schedule.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.output = nn.Linear(width, self.patch**2)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        if condition == "atconv":
            replace_attention(self, drop_position_embedding=True)

    def forward(self, images: Images, times: Float[Tensor, " batch"], labels: Int64[Tensor, " batch"]) -> Images:
        tokens = functional.pixel_unshuffle(images, self.patch).flatten(2).mT
        tokens = self.embed(tokens) + self.pos_embed
        condition = self.time(_waves(1000 * times, self.label.embedding_dim)) + self.label(labels)
        for block in self.blocks:
            tokens = block(tokens, condition)
        velocity = self.output(self.norm(tokens)).mT.unflatten(2, (self.rows, self.rows))
        return functional.pixel_shuffle(velocity, self.patch)


class Generated(NamedTuple):
    """What one condition learned to draw.

    Attributes
    ----------
    loss
        Velocity loss on digits held out, at fixed times and noise.
    images
        Samples, pixels nominally from -1 to 1.
    labels
        The classes that were asked for.
    operations
        Multiply-accumulates of one sample.
    """

    loss: float
    images: Tensor
    labels: Tensor
    operations: int


def digit_sets(seed: int, train: int, test: int) -> tuple[ImageSet, ImageSet]:
    """Digits padded to 32 x 32, to learn from and held out."""
    every = mnist_5k()
    images = functional.pad(every.images, (2, 2, 2, 2))
    order = torch.randperm(len(every), generator=generator_of(seed, SPLIT))
    parts = order[:train], order[-test:]
    return tuple(ImageSet(images[part], every.labels[part]) for part in parts)  # type: ignore[return-value]


def train_generator(seed: int, condition: str, train: ImageSet, test: ImageSet, schedule: Schedule) -> Generated:
    """Train and sample; both conditions of a seed see the same images, times and noise."""
    side = train.images.shape[-1]
    with initialised_from(generator_of(seed, WEIGHTS)):
        network = MicroSiT(condition, side, schedule)
    generator = generator_of(seed, TRAINING)
    optimizer = torch.optim.Adam(
        [parameter for parameter in network.parameters() if parameter.requires_grad], schedule.rate, fused=True
    )
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.steps)
    for _ in range(schedule.steps):
        chosen = torch.randint(len(train), (schedule.batch_size,), generator=generator)
        optimizer.zero_grad()
        _velocity_loss(network, train.images[chosen], train.labels[chosen], generator).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay.step()
    network.eval()
    with torch.no_grad():
        loss = float(_velocity_loss(network, test.images, test.labels, generator_of(seed, NOISE)))
    labels = torch.arange(schedule.samples) % CLASSES
    noise = torch.randn(schedule.samples, 1, side, side, generator=generator_of(seed, SAMPLES))
    images = generate(network, noise, labels, schedule.sampling_steps)
    operations = schedule.sampling_steps * count_macs(network, noise[:1], torch.zeros(1), labels[:1])
    return Generated(loss, images, labels, operations)


@torch.no_grad()
def generate(network: nn.Module, noise: Images, labels: Int64[Tensor, " batch"], steps: int) -> Images:
    """Follow the velocity from t = 1 to 0 by Euler's method."""
    parts = []
    for x, label in zip(noise.split(100), labels.split(100), strict=True):
        for step in range(steps):
            x = x - network(x, torch.full((len(x),), 1 - step / steps), label) / steps
        parts.append(x)
    return torch.cat(parts)


def frechet_distance(one: Float[Tensor, "image feature"], other: Float[Tensor, "image feature"]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) between the normal distributions of two sets of features."""
    first, second = (features.double().numpy() for features in (one, other))
    cov1, cov2 = np.cov(first.T), np.cov(second.T)
    # The product of two positive semi-definite matrices has real eigenvalues of zero or more.
    root = np.sqrt(np.maximum(linalg.eigvals(cov1 @ cov2).real, 0)).sum()
    return float(np.square(first.mean(0) - second.mean(0)).sum() + np.trace(cov1) + np.trace(cov2) - 2 * root)


class Judge:
    """A classifier of clean digits, whose features Fréchet distances are measured in.

    Its mixer is the identity, so that it favours neither condition.
    """

    def __init__(self, seed: int, train: ImageSet, epochs: int) -> None:
        self.network = trained_classifier(seed, "identity", train, Design(), Recipe(epochs=epochs))

    def accuracy(self, images: ImageSet) -> float:
        return accuracy(self.network, images)

    @torch.no_grad()
    def features(self, images: Images) -> Float[Tensor, "image feature"]:
        """What the classifier's head reads."""
        return torch.cat([self.network.features(part) for part in images.split(500)])


def _velocity_loss(
    network: nn.Module, images: Images, labels: Int64[Tensor, " batch"], generator: torch.Generator
) -> Tensor:
    images = 2 * images - 1
    noise = torch.randn(images.shape, generator=generator)
    times = torch.rand(len(images), generator=generator)
    t = times.view(-1, 1, 1, 1)
    return functional.mse_loss(network((1 - t) * images + t * noise, times, labels), noise - images)


def _waves(values: Float[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    frequencies = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = values[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def _sines(rows: int, width: int) -> Float[Tensor, "token width"]:
    """Position embedding of a square grid: half of the features tell the row, half the column."""
    places = torch.arange(rows, dtype=torch.float32)
    one = _waves(places, width // 2)
    return torch.cat([one.repeat_interleave(rows, 0), one.repeat(rows, 1)], -1)
