"""AV-mini: what is paired with what, that nothing is used twice, and repeatability."""

import random

import numpy as np
import pytest
import torch

from interplay.assets import av_mini, mnist_5k


def draw(seed: int = 0, **settings):
    sizes = {"train": 200, "validation": 50, "test": 100}
    return av_mini(generator=np.random.default_rng(seed), **(sizes | settings))


def test_sets_have_their_sizes_and_equally_many_of_each_class():
    for part, size in zip(draw(), (200, 50, 100), strict=True):
        assert part.inputs["audio"].shape == (size, 1, 40)
        assert part.inputs["visual"].shape == (size, 1, 28, 28)
        assert all(values.dtype == torch.float32 for values in part.inputs.values())
        assert part.labels.bincount(minlength=10).tolist() == [size // 10] * 10


def test_images_are_real_digits_of_the_class_each_used_once():
    found = draw(noise=0.0)
    every = mnist_5k()
    images = torch.cat([part.inputs["visual"] for part in found]).flatten(1).double()
    labels = torch.cat([part.labels for part in found])
    pixels = every.images.flatten(1).double()
    # What is missing is one image, the mean of the training set; every pixel is empty in at least one of 350 digits.
    mean = -images.amin(0)
    distance, nearest = torch.cdist(images + mean, pixels, compute_mode="use_mm_for_euclid_dist").min(1)
    assert distance.max() < 1e-3
    assert len(set(nearest.tolist())) == 350
    assert torch.equal(every.labels[nearest], labels)
    assert torch.allclose(pixels[nearest[:200]].mean(0), mean, atol=1e-5)


def test_signals_tell_the_class_of_their_image():
    train, _, test = draw(train=2000, test=500)
    spectra = [torch.fft.rfft(part.inputs["audio"][:, 0]).abs() for part in (train, test)]
    nearest = torch.cdist(spectra[1], spectra[0]).argmin(1)
    right = (train.labels[nearest] == test.labels).double().mean()
    assert right > 0.2  # of ten classes; shuffled pairs give 0.1 with a standard error of 0.013


def test_inputs_are_centred_and_the_noise_has_its_size():
    train = draw(train=2000, noise=1.5).train
    assert train.inputs["audio"].mean().abs() < 0.02
    assert train.inputs["audio"].std() == pytest.approx(1.0, abs=0.02)
    assert train.inputs["visual"].mean().abs() < 0.02
    assert train.inputs["visual"][..., 0, 0].std() == pytest.approx(1.5, rel=0.05)  # a corner that is always empty


def test_the_seed_decides_and_global_generators_are_left_alone():
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = draw(), draw(), draw(seed=1)
    for modality in ("audio", "visual"):
        assert torch.equal(one.train.inputs[modality], same.train.inputs[modality])
        assert not torch.equal(one.train.inputs[modality], other.train.inputs[modality])
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


def test_take_keeps_modalities_and_labels_together():
    test = draw().test
    some = test.take(torch.tensor([3, 1]))
    assert torch.equal(some.inputs["audio"], test.inputs["audio"][[3, 1]])
    assert torch.equal(some.labels, test.labels[[3, 1]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 205}, "train must be a multiple of 10"),
        ({"test": 0}, "test must be a multiple of 10"),
        ({"train": 5000}, "at most 5000"),
        ({"noise": -1.0}, "noise must be 0 or more"),
    ],
)
def test_impossible_requests_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        draw(**settings)
