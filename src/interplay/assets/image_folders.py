"""Labelled images in folders, one folder a class, read batch by batch: for sets too large to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

__all__ = ["ImageFolder"]

_SUFFIXES = {".jpeg", ".jpg", ".png", ".webp", ".bmp"}


class ImageFolder:
    """Batches of the images under a folder; can be read many times.

    Parameters
    ----------
    root
        Folder with one folder a class, `root/class/image`. Classes count from zero in the order of their names.
    prepare
        Makes the classifier's input (channel, height, width) from an RGB image.
    batch_size
        Images in a batch; the last may be smaller.
    shuffle
        Source of the order of arrival; None: sorted by class.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or no image in it.
    """

    def __init__(
        self,
        root: Path,
        prepare: Callable[[Image.Image], Float[Tensor, "channel height width"]],
        *,
        batch_size: int,
        shuffle: torch.Generator | None = None,
    ) -> None:
        classes = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        self.labelled = [
            (path, label)
            for label, name in enumerate(classes)
            for path in sorted((root / name).iterdir())
            if path.suffix.lower() in _SUFFIXES
        ]
        if not self.labelled:
            raise FileNotFoundError(f"{root} holds no images; expected {root}/CLASS/IMAGE, such as n01440764/a.jpeg")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.prepare = prepare
        self.batch_size = batch_size
        if shuffle is not None:
            order = torch.randperm(len(self.labelled), generator=shuffle).tolist()
            self.labelled = [self.labelled[position] for position in order]

    def __iter__(self) -> Iterator[tuple[Float[Tensor, "batch channel height width"], Tensor]]:
        for start in range(0, len(self.labelled), self.batch_size):
            batch = self.labelled[start : start + self.batch_size]
            yield torch.stack([self._read(path) for path, _ in batch]), torch.tensor([label for _, label in batch])

    def __len__(self) -> int:
        return -(-len(self.labelled) // self.batch_size)

    def _read(self, path: Path) -> Tensor:
        with Image.open(path) as image:
            return self.prepare(image.convert("RGB"))
