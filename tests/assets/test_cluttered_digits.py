"""Cluttered digits: what is on the canvas, that nothing is used twice, and repeatability."""

import numpy as np
import pytest
import torch

from interplay.assets import mnist_5k
from interplay.assets.cluttered_digits import cluttered_digits


def draw(seed=0, **settings):
    return cluttered_digits(**{"train": 200, "test": 100, **settings}, generator=np.random.default_rng(seed))


def test_sets_have_their_sizes_and_equally_many_of_each_class():
    for part, size in zip(draw(), (200, 100), strict=True):
        assert part.images.shape == (size, 1, 32, 32)
        assert part.images.dtype == torch.float32
        assert part.images.min() == 0
        assert part.images.max() <= 1
        assert part.labels.bincount(minlength=10).tolist() == [size // 10] * 10


def test_without_clutter_images_are_digits_of_their_class_each_used_once():
    every = mnist_5k()
    found = draw(pieces=0, side=28)
    flat = torch.cat([part.images for part in found]).flatten(1)
    labels = torch.cat([part.labels for part in found])
    distance, nearest = torch.cdist(flat, every.images.flatten(1)).min(1)
    assert distance.max() < 1e-2
    assert len(set(nearest.tolist())) == 300
    assert torch.equal(every.labels[nearest], labels)


def test_clutter_is_pieces_of_other_digits_over_the_same_digit_at_the_same_place():
    plain, cluttered = draw(pieces=0), draw(pieces=8)
    # The canvas is drawn before the clutter: the first set is the same but for what was put over it.
    extra = cluttered.train.images - plain.train.images
    assert torch.equal(plain.train.labels, cluttered.train.labels)
    assert extra.min() >= 0
    touched = (extra > 0).flatten(1).sum(1)
    assert (touched > 0).float().mean() > 0.95
    assert touched.max() <= 8 * 64
    places = {tuple(image[0].nonzero().amin(0).tolist()) for image in plain.train.images}
    assert len(places) > 30  # digits are not always at the same place


def test_one_piece_is_cut_from_another_digit_of_the_same_set():
    plain, cluttered = draw(pieces=0, train=20), draw(pieces=1, train=20)
    every = plain.train.images[:, 0]
    for index in range(20):
        extra = (cluttered.train.images[index] - plain.train.images[index])[0]
        if not extra.any():
            continue
        rows, columns = extra.nonzero().unbind(1)
        assert rows.max() - rows.min() < 8
        assert columns.max() - columns.min() < 8
        box = cluttered.train.images[index, 0][rows, columns]
        offsets = rows - rows.min(), columns - columns.min()
        others = torch.cat([every[:index], every[index + 1 :]])
        height, width = int(offsets[0].max()) + 1, int(offsets[1].max()) + 1
        windows = others.unfold(1, height, 1).unfold(2, width, 1)
        assert (windows[..., offsets[0], offsets[1]] == box).all(-1).any()


def test_the_seed_decides():
    one, same, other = draw(), draw(), draw(seed=1)
    assert torch.equal(one.train.images, same.train.images)
    assert torch.equal(one.test.images, same.test.images)
    assert not torch.equal(one.train.images, other.train.images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 205}, "train must be a multiple of 10"),
        ({"test": 0}, "test must be a multiple of 10"),
        ({"train": 4500, "test": 1000}, "at most 5000"),
        ({"side": 20}, "the canvas must hold a digit"),
        ({"piece_side": 40}, "a digit a piece"),
        ({"pieces": -1}, "0 or more"),
    ],
)
def test_impossible_requests_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        draw(**settings)
