"""Independent streams of random numbers from one seed, and layers that are drawn from a stream of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["generator_of", "initialised_from"]


def generator_of(seed: int, *purpose: int) -> torch.Generator:
    """A generator for one use of a seed; other purposes of the same seed are independent of it.

    Parameters
    ----------
    seed
        Zero or more.
    *purpose
        Numbers, zero or more, that name the use: (WEIGHTS,), (DATA, index of a condition).
    """
    # A spawn key and not a longer entropy: that is padded with zeros, so that (seed, 1) and (seed, 1, 0) would agree.
    (state,) = np.random.SeedSequence(seed, spawn_key=purpose).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


@contextmanager
def initialised_from(generator: torch.Generator) -> Iterator[None]:
    """Let layers that are made inside draw their weights from the seed of `generator`.

    PyTorch initialises layers from its global generator alone; this one is put back afterwards. The state of
    `generator` is neither used nor changed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        yield
