"""Synthetic event counts: their statistics, what tells the classes, and repeatability."""

import numpy as np
import pytest
import torch

from interplay.assets.event_counts import event_counts


def draw(samples: int = 2000, seed: int = 0, **settings):
    return event_counts(samples, generator=np.random.default_rng(seed), **settings)


def test_counts_are_those_of_binned_recordings():
    data = draw(4000)
    assert data.counts.shape == (4000, 10, 140)
    assert (data.counts >= 0).all()
    assert torch.equal(data.counts, data.counts.round())
    sums = data.counts.sum(1)
    assert 9 < sums.mean() < 17
    assert 800 < sums.max() < 10_000
    assert sums.median() < sums.mean() / 2
    assert len(data) == 4000
    assert data.labels.bincount(minlength=20).min() > 120


def test_channels_tell_the_class_and_their_course_tells_more():
    data = draw(6000, classes=3, channels=30)
    logs, right = torch.log1p(data.counts), []
    for features in (logs.sum(1), logs.flatten(1)):
        means = torch.stack([features[:3000][data.labels[:3000] == label].mean(0) for label in range(3)])
        scale = features[:3000].std(0)
        nearest = torch.cdist(features[3000:] / scale, means / scale).argmin(1)
        right.append((nearest == data.labels[3000:]).double().mean())
    assert right[0] > 0.45
    assert right[1] > right[0] + 0.02


def test_the_seed_decides():
    one, same, other = draw(50), draw(50), draw(50, seed=1)
    assert torch.equal(one.counts, same.counts)
    assert torch.equal(one.labels, same.labels)
    assert not torch.equal(one.counts, other.counts)


def test_more_bins_are_a_finer_course():
    assert draw(300, bins=40).counts.shape == (300, 40, 140)
    assert draw(300, bins=40).counts.sum().item() == pytest.approx(4 * draw(300).counts.sum().item(), rel=0.4)


@pytest.mark.parametrize("setting", ["classes", "channels", "bins"])
def test_numbers_below_one_are_refused(setting):
    with pytest.raises(ValueError, match=f"{setting} must be 1 or more; got 0"):
        draw(**{setting: 0})
    with pytest.raises(ValueError, match="samples must be 1 or more"):
        draw(0)
