"""Take groups of samples out of training, or turn them down: the test of a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset, Subset

from interplay.dynamics.opposing_signals.groups import OpposingGroups

__all__ = ["drop_groups", "reweight"]

Groups = OpposingGroups | ArrayLike


def drop_groups(dataset: Dataset[Any], groups: Groups) -> Subset[Any]:
    """The data set without the samples of both groups (or of an array of indices), in the same order.

    Raises
    ------
    ValueError
        Indices that the data set does not have, or nothing left.
    """
    samples = len(dataset)  # type: ignore[arg-type]
    kept = reweight(samples, groups, 0.0).nonzero().flatten().tolist()
    if not kept:
        raise ValueError(f"the groups hold all {samples} samples; nothing would be left")
    return Subset(dataset, kept)


def reweight(samples: int, groups: Groups, factor: float) -> Tensor:
    """(N,) weights of the samples' losses: `factor` for those of the groups, 1 for all others.

    Train on (weights[index] * losses).mean().

    Raises
    ------
    ValueError
        Indices out of range, or a negative or infinite factor.
    """
    if not (factor >= 0 and np.isfinite(factor)):
        raise ValueError(f"factor must be a finite number, zero or more; got {factor}")
    members: Iterable[Any] = (
        np.concatenate([groups.index_a, groups.index_b]) if isinstance(groups, OpposingGroups) else groups  # type: ignore[assignment]
    )
    index = torch.as_tensor(np.asarray(members, dtype=np.int64)).flatten()
    if len(index) and (int(index.min()) < 0 or int(index.max()) >= samples):
        raise ValueError(f"groups must lie in [0, {samples - 1}]; got {int(index.min())} to {int(index.max())}")
    return torch.ones(samples).index_fill_(0, index, factor)
