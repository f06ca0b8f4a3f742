"""Ten corruptions of images at five severities: what a classifier meets when the world drifts from its training set.

After the families of ImageNet-C (Hendrycks and Dietterich, 2019), in pure PyTorch, for batches of small or large
images. Strengths are chosen for images of about 28 pixels; lengths are in pixels.

==========  ===========================================================  ============================
name        what it does                                                 the five severities
==========  ===========================================================  ============================
noise       adds Gaussian noise                                          standard deviation .12 to .6
shot        Poisson noise of so many photons at full brightness          25, 12, 6, 3, 2
impulse     sets this share of pixels to black or white                  .05 to .4
blur        Gaussian blur                                                standard deviation .4 to 2
motion      smears along a line, one direction an image                  length 3 to 11
contrast    shrinks the distance to the image's mean                     factor .75 to .15
brightness  adds a constant                                              .1 to .5
fog         adds a cloud of 1/f noise, then fits it back into the range  depth .4 to 2
pixelate    averages over blocks                                         share of resolution .7 to .25
rotate      turns counter-clockwise                                      6 to 30 degrees
==========  ===========================================================  ============================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["CORRUPTIONS", "corrupt"]

Images = Float[Tensor, "batch channel height width"]


def corrupt(images: Images, name: str, severity: int, generator: torch.Generator) -> Images:
    """Corrupt a batch of images.

    Parameters
    ----------
    images
        (batch, channel, height, width), floating point in [0, 1].
    name
        One of `CORRUPTIONS`.
    severity
        1 (mild) to 5 (severe).
    generator
        Source of the randomness, on the device of the images. The same state gives the same result.

    Returns
    -------
    Tensor
        New images of the same shape and type, in [0, 1].

    Raises
    ------
    ValueError
        Unknown name or severity, wrong shape, or values outside [0, 1].
    TypeError
        Images that are not floating point.
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"name must be one of {', '.join(CORRUPTIONS)}; got {name!r}")
    corruption = CORRUPTIONS[name]
    if isinstance(severity, bool) or severity not in range(1, 6):
        raise ValueError(f"severity must be an integer from 1 to 5, got {severity!r}")
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point in [0, 1], got {images.dtype}; divide by 255 first")
    if images.ndim != 4:
        raise ValueError(f"images must be (batch, channel, height, width), got shape {tuple(images.shape)}")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images must lie in [0, 1], got {images.min():g} to {images.max():g}; undo the normalisation first"
        )
    if not len(images):
        return images.clone()
    return corruption.apply(images, corruption.strengths[severity - 1], generator).clamp(0, 1)


def _noise(images: Images, deviation: float, generator: torch.Generator) -> Images:
    return images + deviation * _normal(images.shape, images, generator)


def _shot(images: Images, photons: float, generator: torch.Generator) -> Images:
    return torch.poisson(images * photons, generator=generator) / photons


def _impulse(images: Images, share: float, generator: torch.Generator) -> Images:
    draw = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images.masked_fill(draw < share / 2, 0.0).masked_fill(draw > 1 - share / 2, 1.0)


def _blur(images: Images, deviation: float, generator: torch.Generator) -> Images:
    reach = math.ceil(3 * deviation)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (offsets / deviation) ** 2).exp()
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, 1, -1)
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = functional.conv2d(padded, kernel, groups=images.shape[1])
    return functional.conv2d(across, kernel.transpose(2, 3), groups=images.shape[1])


def _motion(images: Images, length: float, generator: torch.Generator) -> Images:
    batch, channels, height, width = images.shape
    angles = math.pi * torch.rand(batch, 1, 1, generator=generator, device=images.device, dtype=images.dtype)
    reach = int(length) // 2
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    along = offsets * angles.cos() + offsets.view(-1, 1) * angles.sin()
    across = offsets.view(-1, 1) * angles.cos() - offsets * angles.sin()
    # A line one pixel wide with linear edges, so that every direction smears by the same length.
    kernels = (1 - across.abs()).clamp_min(0) * (reach + 1 - along.abs()).clamp(0, 1)
    kernels = kernels / kernels.sum((1, 2), keepdim=True)
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    smeared = functional.conv2d(
        padded.reshape(1, batch * channels, height + 2 * reach, width + 2 * reach),
        kernels.repeat_interleave(channels, 0).unsqueeze(1),
        groups=batch * channels,
    )
    return smeared.view_as(images)


def _contrast(images: Images, factor: float, generator: torch.Generator) -> Images:
    means = images.mean((2, 3), keepdim=True)
    return means + factor * (images - means)


def _brightness(images: Images, added: float, generator: torch.Generator) -> Images:
    return images + added


def _fog(images: Images, depth: float, generator: torch.Generator) -> Images:
    batch, _, height, width = images.shape
    cloud = images.new_zeros(batch, 1, height, width)
    cells, amplitude = 1, 1.0
    while cells < max(height, width):
        octave = _normal((batch, 1, cells + 1, cells + 1), images, generator)
        cloud = cloud + amplitude * functional.interpolate(octave, (height, width), mode="bilinear", align_corners=True)
        cells, amplitude = 2 * cells, amplitude / 2
    low, high = cloud.amin((2, 3), keepdim=True), cloud.amax((2, 3), keepdim=True)
    cloud = (cloud - low) / (high - low).clamp_min(torch.finfo(images.dtype).eps)
    brightest = images.amax((1, 2, 3), keepdim=True)
    return (images + depth * cloud) * brightest / (brightest + depth)


def _pixelate(images: Images, resolution: float, generator: torch.Generator) -> Images:
    size = images.shape[2:]
    coarse = [max(1, round(side * resolution)) for side in size]
    return functional.interpolate(functional.adaptive_avg_pool2d(images, coarse), size, mode="nearest")


def _rotate(images: Images, degrees: float, generator: torch.Generator) -> Images:
    _, _, height, width = images.shape
    angle = math.radians(degrees)
    # affine_grid's coordinates are in half image sides, hence the ratios of an image that is not square.
    turn = [
        [math.cos(angle), -math.sin(angle) * height / width, 0.0],
        [math.sin(angle) * width / height, math.cos(angle), 0.0],
    ]
    grid = functional.affine_grid(images.new_tensor(turn).expand(len(images), 2, 3), images.shape, align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)


class _Corruption(NamedTuple):
    apply: Callable[[Images, float, torch.Generator], Images]
    strengths: tuple[float, float, float, float, float]


CORRUPTIONS = MappingProxyType(
    {
        "noise": _Corruption(_noise, (0.12, 0.24, 0.36, 0.48, 0.6)),
        "shot": _Corruption(_shot, (25, 12, 6, 3, 2)),
        "impulse": _Corruption(_impulse, (0.05, 0.1, 0.17, 0.27, 0.4)),
        "blur": _Corruption(_blur, (0.4, 0.8, 1.2, 1.6, 2.0)),
        "motion": _Corruption(_motion, (3, 5, 7, 9, 11)),
        "contrast": _Corruption(_contrast, (0.75, 0.6, 0.45, 0.3, 0.15)),
        "brightness": _Corruption(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
        "fog": _Corruption(_fog, (0.4, 0.8, 1.2, 1.6, 2.0)),
        "pixelate": _Corruption(_pixelate, (0.7, 0.55, 0.45, 0.35, 0.25)),
        "rotate": _Corruption(_rotate, (6, 12, 18, 24, 30)),
    }
)
"""What each corruption does and its strength at severities 1 to 5."""
