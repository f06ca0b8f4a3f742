"""The corruptions: what each promises, and that severity, seeds and bad input mean what they say."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from interplay.assets.corruptions import CORRUPTIONS, corrupt
from interplay.testing import check_same_seed

NAMES = tuple(CORRUPTIONS)
RANDOM = ("noise", "shot", "impulse", "motion", "fog")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Smooth blobs off the centre, in three unequal channels, not square."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 24), torch.linspace(-1, 1, 32), indexing="ij")
    centres = torch.rand(16, 2, 1, 1, generator=generator()) - 0.5
    blob = (-((x - centres[:, 0]) ** 2 + (y - centres[:, 1]) ** 2) / 0.1).exp()
    return torch.stack([blob, 0.6 * blob, 0.2 + 0.3 * blob], 1)


@pytest.mark.parametrize("name", NAMES)
def test_severity_grows_and_nothing_else_changes(images: Tensor, name: str) -> None:
    before = images.clone()
    damage = []
    for severity in range(1, 6):
        corrupted = corrupt(images, name, severity, generator())
        assert corrupted.shape == images.shape
        assert corrupted.dtype == images.dtype
        assert 0 <= corrupted.min() <= corrupted.max() <= 1
        damage.append((corrupted - images).square().mean().item())
    assert torch.equal(images, before)
    assert damage[0] > 1e-7
    assert damage == sorted(damage)


@pytest.mark.parametrize("name", NAMES)
def test_the_generator_is_the_only_randomness(images: Tensor, name: str) -> None:
    if name in RANDOM:
        check_same_seed(lambda seed: corrupt(images, name, 3, generator(seed)))
    else:
        assert torch.equal(corrupt(images, name, 3, generator(0)), corrupt(images, name, 3, generator(1)))


@pytest.mark.parametrize("name", NAMES)
def test_single_channels_small_images_double_precision_and_empty_batches(name: str) -> None:
    corrupted = corrupt(torch.rand(1, 1, 9, 7, dtype=torch.float64), name, 5, generator())
    assert corrupted.shape == (1, 1, 9, 7)
    assert corrupted.dtype == torch.float64
    assert corrupted.isfinite().all()
    assert corrupt(torch.rand(0, 1, 9, 7), name, 5, generator()).shape == (0, 1, 9, 7)


def test_noise_has_its_standard_deviation() -> None:
    change = corrupt(torch.full((8, 1, 64, 64), 0.5), "noise", 1, generator()) - 0.5
    assert change.std().item() == pytest.approx(0.12, rel=0.02)


def test_shot_noise_has_the_variance_of_photon_counts() -> None:
    change = corrupt(torch.full((8, 1, 64, 64), 0.2), "shot", 1, generator())
    assert change.mean().item() == pytest.approx(0.2, rel=0.02)
    assert change.var().item() == pytest.approx(0.2 / 25, rel=0.05)


def test_impulse_hits_its_share_of_pixels_equally_black_and_white() -> None:
    corrupted = corrupt(torch.full((8, 1, 64, 64), 0.5), "impulse", 5, generator())
    assert (corrupted == 0).double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (corrupted == 1).double().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (corrupted == 0.5).double().mean().item() == pytest.approx(0.6, abs=0.01)


def test_blur_spreads_a_point_with_its_standard_deviation() -> None:
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    spread = corrupt(point, "blur", 5, generator())[0, 0]
    offsets = torch.arange(31.0) - 15
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    for axis in (0, 1):
        assert (spread.sum(axis) * offsets**2).sum().sqrt().item() == pytest.approx(2.0, rel=0.02)


def test_motion_smears_a_point_along_one_line_of_its_length_in_each_image() -> None:
    point = torch.zeros(200, 1, 31, 31)
    point[..., 15, 15] = 1
    smeared = corrupt(point, "motion", 5, generator())[:, 0]
    assert_close(smeared.sum((1, 2)), torch.ones(200), atol=1e-5, rtol=0)
    offsets = torch.arange(31.0) - 15
    moments = torch.stack(
        [
            torch.einsum("bij,j,j->b", smeared, offsets, offsets),
            torch.einsum("bij,i,j->b", smeared, offsets, offsets),
            torch.einsum("bij,i,j->b", smeared, offsets, offsets),
            torch.einsum("bij,i,i->b", smeared, offsets, offsets),
        ],
        1,
    ).view(-1, 2, 2)
    lengths = torch.linalg.eigvalsh(moments).sqrt()
    # A uniform line of 11 pixels has the standard deviation 11 / sqrt(12); across it is about a pixel.
    assert_close(lengths[:, 1], torch.full((200,), 11 / 12**0.5), atol=0.25, rtol=0)
    assert (lengths[:, 0] < 0.7).all()
    assert smeared[0].sub(smeared[1]).abs().max() > 0.01


def test_contrast_keeps_each_channel_s_mean_and_shrinks_its_spread(images: Tensor) -> None:
    corrupted = corrupt(images, "contrast", 5, generator())
    assert_close(corrupted.mean((2, 3)), images.mean((2, 3)))
    assert_close(corrupted.std((2, 3)), 0.15 * images.std((2, 3)))


def test_brightness_adds_until_white() -> None:
    corrupted = corrupt(torch.tensor([0.0, 0.3, 0.8]).view(1, 1, 1, 3), "brightness", 5, generator())
    assert_close(corrupted.flatten(), torch.tensor([0.5, 0.8, 1.0]))


def test_fog_is_smoother_than_noise_and_keeps_the_brightest_value_in_range() -> None:
    black = torch.zeros(4, 1, 32, 32)
    black[..., 0, 0] = 1
    fog = corrupt(black, "fog", 5, generator())[..., 1:, 1:]
    neighbours = (fog[..., 1:] - fog[..., :-1]).std()
    assert neighbours < 0.5 * fog.std()
    assert fog.amax() <= 2 / 3 + 1e-6


def test_pixelate_leaves_blocks_with_the_mean_of_what_they_cover() -> None:
    image = torch.rand(1, 1, 16, 16, generator=generator())
    blocks = corrupt(image, "pixelate", 5, generator()).unfold(2, 4, 4).unfold(3, 4, 4)
    assert_close(blocks, image.unfold(2, 4, 4).unfold(3, 4, 4).mean((4, 5), keepdim=True).expand_as(blocks))


def test_rotate_turns_counter_clockwise_about_the_centre(images: Tensor) -> None:
    y, x = torch.meshgrid(torch.arange(41.0), torch.arange(61.0), indexing="ij")
    spot = (-((x - 42) ** 2 + (y - 20) ** 2) / 8).exp()[None, None]
    turned = corrupt(spot, "rotate", 5, generator())[0, 0]
    angle = torch.tensor(torch.pi / 6)
    assert (turned * x).sum().item() / turned.sum().item() == pytest.approx(30 + 12 * angle.cos().item(), abs=0.1)
    assert (turned * y).sum().item() / turned.sum().item() == pytest.approx(20 - 12 * angle.sin().item(), abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.rand(1, 1, 8, 8), "snow", 1), ValueError, "name must be one of noise, .*; got 'snow'"),
        ((torch.rand(1, 1, 8, 8), "noise", 0), ValueError, "severity must be an integer from 1 to 5, got 0"),
        ((torch.rand(1, 1, 8, 8), "noise", 2.5), ValueError, "severity must be an integer"),
        ((torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "noise", 1), TypeError, "divide by 255"),
        ((torch.rand(8, 8), "noise", 1), ValueError, "must be \\(batch, channel, height, width\\)"),
        ((torch.full((1, 1, 8, 8), 2.0), "noise", 1), ValueError, "must lie in \\[0, 1\\]"),
        ((torch.full((1, 1, 8, 8), torch.nan), "noise", 1), ValueError, "must lie in \\[0, 1\\]"),
    ],
)
def test_bad_input_is_refused(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        corrupt(*arguments, generator())
