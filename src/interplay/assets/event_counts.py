"""Synthetic event counts: recordings of many channels in which rate and time tell the class, as from a silicon cochlea.

Binned recordings of event sensors (SHD, N-MNIST, DVS-Gesture) are counts: heavy-tailed, of very different size from one
channel and one recording to the next, and not normalised. This generator has these properties and needs no download.
A class is a profile of rates over channels and four bumps in time; a recording varies it by a factor for each channel,
a gain and a shift in time, and draws Poisson counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

__all__ = ["EventCounts", "event_counts"]

BUMPS = np.array([0.2, 0.4, 0.6, 0.8])  # centres in time, a recording lasting from 0 to 1
BUMP_WIDTH = 0.1  # standard deviation in time
BASE_SHAPE = 0.7  # of the gamma distribution of base rates: many quiet channels, a few loud ones
CLASS_SPREAD = 0.35  # standard deviation of the class's factor, log scale
CHANNEL_SPREAD = 1.0  # standard deviation of a recording's factor for each channel, log scale
GAIN_SPREAD = 0.4  # standard deviation of a recording's gain, log scale
JITTER = 0.08  # standard deviation of a recording's shift in time


@dataclass(frozen=True)
class EventCounts:
    """Labelled recordings.

    Parameters
    ----------
    counts
        Events in each time bin and channel, whole numbers.
    labels
        The class of each recording.
    """

    counts: Float32[Tensor, "sample time channel"]
    labels: Int64[Tensor, " sample"]

    def __len__(self) -> int:
        return len(self.labels)


def event_counts(
    samples: int, *, generator: np.random.Generator, classes: int = 20, channels: int = 140, bins: int = 10
) -> EventCounts:
    """Recordings of classes whose profiles are drawn as well; classes follow one another at random.

    Draw all recordings of an experiment in one call and split them: another call has other classes.

    Parameters
    ----------
    samples, classes, channels
        Numbers of recordings, of classes and of channels, one or more each.
    generator
        Source of the randomness.
    bins
        Time bins; the rates are those of ten bins, so that more bins hold more events.

    Raises
    ------
    ValueError
        A number below one.
    """
    for name, number in (("samples", samples), ("classes", classes), ("channels", channels), ("bins", bins)):
        if number < 1:
            raise ValueError(f"{name} must be 1 or more; got {number}")
    base = generator.gamma(BASE_SHAPE, 1.0, (channels, len(BUMPS)))
    profiles = base * np.exp(CLASS_SPREAD * generator.standard_normal((classes, channels, len(BUMPS))))
    labels = generator.integers(classes, size=samples)
    channel = np.exp(CHANNEL_SPREAD * generator.standard_normal((samples, channels)))
    gain = np.exp(GAIN_SPREAD * generator.standard_normal((samples, 1)))
    shift = JITTER * generator.standard_normal((samples, 1, 1))
    centres = (np.arange(bins)[:, None] + 0.5) / bins
    course = np.exp(-0.5 * ((centres - BUMPS - shift) / BUMP_WIDTH) ** 2)
    rates = np.einsum("sbm,scm->sbc", course, profiles[labels], optimize=True) * (channel * gain)[:, None]
    counts = generator.poisson(rates).astype(np.float32)
    return EventCounts(torch.from_numpy(counts), torch.from_numpy(labels.astype(np.int64)))
