"""Folders of images: every image once, labels by name of the folder, order by the generator alone."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from interplay.assets.image_folders import ImageFolder


def grey_level(image: Image.Image) -> Tensor:
    assert image.mode == "RGB"
    return torch.tensor(image.getpixel((0, 0))).view(3, 1, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class b holds grey levels 0 to 4, class a 5 to 6, and a file that is no image."""
    for level in range(7):
        path = tmp_path / ("b" if level < 5 else "a") / f"{level}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (2, 2), level).save(path)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    return tmp_path


def test_sorted_by_class_without_a_generator(root: Path) -> None:
    folder = ImageFolder(root, grey_level, batch_size=3)
    assert len(folder) == 3
    images, labels = zip(*folder, strict=True)
    assert [len(batch) for batch in images] == [3, 3, 1]
    assert torch.cat(images)[:, 0].flatten().tolist() == [5, 6, 0, 1, 2, 3, 4]
    assert torch.cat(labels).tolist() == [0, 0, 1, 1, 1, 1, 1]


def test_shuffled_streams_are_the_same_for_the_same_seed_and_on_each_reading(root: Path) -> None:
    def levels(seed: int) -> list[list[int]]:
        folder = ImageFolder(root, grey_level, batch_size=7, shuffle=torch.Generator().manual_seed(seed))
        readings = [next(iter(folder)) for _ in range(2)]
        for images, labels in readings:
            assert torch.equal(labels, (images[:, 0].flatten() < 5).long())
        return [images[:, 0].flatten().tolist() for images, _ in readings]

    first, again = levels(0)
    assert first == again == levels(0)[0]
    assert sorted(first) == list(range(7))
    assert levels(1)[0] != first


def test_folders_without_images_are_refused(root: Path) -> None:
    for missing in (root / "c", root / "a"):
        with pytest.raises(FileNotFoundError, match="holds no images; expected"):
            ImageFolder(missing, grey_level, batch_size=2)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        ImageFolder(root, grey_level, batch_size=0)
