"""What the studies of multimodal training share: the networks on AV-mini, one loop for every method, and accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from interplay.assets.audio_visual import AudioVisual, PairedSamples, av_mini
from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.training import TrainingMethod
from interplay.primitives.randomness import initialised_from

__all__ = [
    "CLASSES",
    "FEATURES",
    "Optimisation",
    "accuracy",
    "audio_visual_encoders",
    "draw_audio_visual",
    "fusion_net",
    "shuffled_batches",
    "train",
    "unimodal_net",
]

CLASSES = 10
FEATURES = 64  # width of each modality's latent
EARLY_WIDTH = 128  # hidden units of the intermediate-fusion head
DATA = 0  # names of the streams of randomness of a seed; studies take higher numbers


@dataclass(frozen=True)
class Optimisation:
    """Plain SGD, the same for every method of a comparison.

    Parameters
    ----------
    epochs
        Passes over the training set.
    lr, momentum, weight_decay
        Of SGD.
    batch_size
        Samples of a step; the last ones of an epoch that do not fill a batch are left out.
    clip
        Largest norm of the whole gradient, applied after the method has adjusted it.
    """

    epochs: int = 25
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    batch_size: int = 64
    clip: float = 1.0


def draw_audio_visual(seed: int, train: int, validation: int, test: int, noise: float) -> AudioVisual:
    """The AV-mini of a seed: the same for every study that asks for the same sizes and noise."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(DATA,))))
    return av_mini(train, validation, test, noise=noise, generator=generator)


def audio_visual_encoders() -> dict[str, nn.Module]:
    """An encoder each: convolutions over the signal, a perceptron over the image; both end in 64 rectified features."""
    return {
        "audio": nn.Sequential(
            nn.Conv1d(1, 25, 5, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(25, 25, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(25, 25, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(125, FEATURES),
            nn.ReLU(),
        ),
        "visual": nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, FEATURES), nn.ReLU()),
    }


def fusion_net(kind: str, generator: torch.Generator, *, unimodal_heads: bool = False) -> FusionNet:
    """An untrained network of both modalities.

    Parameters
    ----------
    kind
        "late": the sum of a linear read-out each; "early": a hidden layer sees both latents.
    generator
        Its seed decides the weights; the encoders are the same for both kinds.
    unimodal_heads
        Whether each modality gets a linear read-out of its own beside the head.

    Raises
    ------
    ValueError
        Another kind.
    """
    if kind not in ("late", "early"):
        raise ValueError(f"kind must be late or early, got {kind!r}")
    with initialised_from(generator):
        encoders = audio_visual_encoders()
        if kind == "late":
            head: nn.Module = LinearFusion([FEATURES] * len(encoders), CLASSES)
        else:
            hidden = nn.Linear(FEATURES * len(encoders), EARLY_WIDTH)
            head = ConcatenationFusion(nn.Sequential(hidden, nn.ReLU(), nn.Linear(EARLY_WIDTH, CLASSES)))
        heads = {name: nn.Linear(FEATURES, CLASSES) for name in encoders} if unimodal_heads else None
    return FusionNet(encoders, head, heads)


def unimodal_net(modality: str, generator: torch.Generator) -> nn.Sequential:
    """An untrained network of one modality: the same encoder, and a linear read-out.

    With the seed of a `fusion_net`, the encoder begins with the same weights.
    """
    with initialised_from(generator):
        encoder = audio_visual_encoders()[modality]
        return nn.Sequential(encoder, nn.Linear(FEATURES, CLASSES))


def shuffled_batches(samples: int, batch_size: int, generator: torch.Generator) -> Iterator[Int64[Tensor, " batch"]]:
    """Indices of one epoch in a new random order, full batches only."""
    order = torch.randperm(samples, generator=generator)
    batch_size = min(batch_size, samples)
    for start in range(0, samples - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


def train(
    method: TrainingMethod,
    samples: PairedSamples,
    optimisation: Optimisation,
    generator: torch.Generator,
    *,
    each_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train what a method wraps, in place.

    Parameters
    ----------
    generator
        Source of the order of the samples.
    each_epoch
        Called with the number of epochs that are done, after each; this is where `TrainingMethod.end_epoch` gets what
        was measured on held-out data. None: `method.end_epoch()`.
    """
    optimizer = torch.optim.SGD(
        method.parameters(),
        lr=optimisation.lr,
        momentum=optimisation.momentum,
        weight_decay=optimisation.weight_decay,
    )
    parameters = list(method.parameters())
    for epoch in range(optimisation.epochs):
        method.train()
        method.start_epoch(epoch)
        for batch in shuffled_batches(len(samples.labels), optimisation.batch_size, generator):
            inputs, labels = samples.take(batch)
            optimizer.zero_grad()
            method.loss(inputs, labels).backward()
            method.adjust_gradients()
            nn.utils.clip_grad_norm_(parameters, optimisation.clip)
            optimizer.step()
        method.eval()
        if each_epoch is None:
            method.end_epoch()
        else:
            each_epoch(epoch + 1)


def accuracy(logits: Float[Tensor, "sample class"], labels: Int64[Tensor, " sample"]) -> float:
    """Share of samples whose largest logit is that of the label."""
    return (logits.argmax(1) == labels).double().mean().item()
