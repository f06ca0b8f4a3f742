"""Which sample lends its latent to which: the pairs over which the influence of a modality is measured."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["LatentPairs", "Selection", "latent_permutations"]

Selection = Literal["rand", "rsi", "rsl", "samelabel", "difflabel", "alllabel"]
"""How pairs are chosen, by the names of the official code; see `latent_permutations`."""


class LatentPairs(NamedTuple):
    """Pair p: sample `rows[p]` keeps everything but one modality, whose latent it takes from sample `sources[p]`."""

    rows: Int[Tensor, " pair"]
    sources: Int[Tensor, " pair"]


def latent_permutations(
    samples: int,
    permutations: int,
    target: Int[Tensor, " sample"] | None = None,
    selection: Selection = "rsl",
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> LatentPairs:
    """Pairs of samples from random permutations of a batch, one after another.

    Parameters
    ----------
    samples
        Size of the batch, two or more.
    permutations
        How many random permutations; the selections that list pairs do not draw any.
    target
        Labels, for the selections that look at them. The pairs lie on their device.
    selection
        "rand" keeps all pairs of each permutation; "rsi" drops samples that meet themselves, which would dilute the
        influence by 1 / samples; "rsl" keeps only pairs of different labels. "samelabel", "difflabel" and "alllabel"
        list every ordered pair of different samples with the same label, with different labels, or with any.
    generator
        Where the permutations come from. None: PyTorch's global generator.
    device
        Where the pairs lie, if there is no target.

    Returns
    -------
    LatentPairs
        Two vectors of indices of the same length.

    Raises
    ------
    ValueError
        A batch of one; no permutation; an unknown selection; a selection by label without labels, or with labels that
        are no integers; a batch in which no pair can be chosen, because all labels are equal or all are different.
    """
    if samples < 2:
        raise ValueError(f"a batch of {samples} has no other sample to take a latent from; give batches of two or more")
    if permutations < 1:
        raise ValueError(f"permutations must be 1 or more, got {permutations}")
    if selection not in get_args(Selection):
        raise ValueError(f"selection must be one of {list(get_args(Selection))}, got {selection!r}")
    labels = None if selection in ("rand", "rsi", "alllabel") else _labels(target, samples, selection)
    device = target.device if target is not None else torch.device(device or "cpu")
    if selection in ("rand", "rsi", "rsl"):
        drawn_on = torch.device("cpu") if generator is None else generator.device
        draws = torch.rand(permutations, samples, generator=generator, device=drawn_on)
        rows = torch.arange(samples, device=device).repeat(permutations)
        pairs = LatentPairs(rows, draws.argsort(dim=1).flatten().to(device))
        if selection == "rand":
            return pairs
        chosen = _of_different(pairs, labels)
        if not len(chosen.rows):
            # Chance alone, in a small batch: all met their like. A step along a cycle, sorted by label, does not.
            order = torch.arange(samples, device=device) if labels is None else labels.argsort(stable=True)
            chosen = _of_different(LatentPairs(order, order.roll(1)), labels)
    else:
        every = LatentPairs(*(~torch.eye(samples, dtype=torch.bool, device=device)).nonzero().unbind(1))
        if labels is None:
            return every
        chosen = _of_different(every, labels) if selection == "difflabel" else _of_one(every, labels)
    if not len(chosen.rows):
        which = "one label" if selection == "samelabel" else "different labels"
        raise ValueError(
            f"selection {selection!r} finds no two samples of {which} in this batch of {samples}: "
            "take a larger or a shuffled batch, or selection 'rsi'"
        )
    return chosen


def _of_different(pairs: LatentPairs, labels: Tensor | None) -> LatentPairs:
    kept = pairs.rows != pairs.sources if labels is None else labels[pairs.rows] != labels[pairs.sources]
    return LatentPairs(pairs.rows[kept], pairs.sources[kept])


def _of_one(pairs: LatentPairs, labels: Tensor) -> LatentPairs:
    kept = labels[pairs.rows] == labels[pairs.sources]
    return LatentPairs(pairs.rows[kept], pairs.sources[kept])


def _labels(target: Tensor | None, samples: int, selection: str) -> Tensor:
    if target is None:
        raise ValueError(f"selection {selection!r} looks at labels: give a target, or take selection 'rsi'")
    if target.is_floating_point() or target.ndim != 1:
        raise ValueError(
            f"selection {selection!r} needs class labels, one integer a sample; got {target.dtype} of shape "
            f"{tuple(target.shape)}: for regression take selection 'rsi'"
        )
    if len(target) != samples:
        raise ValueError(f"target must have one label for each of the {samples} samples, got {len(target)}")
    return target
