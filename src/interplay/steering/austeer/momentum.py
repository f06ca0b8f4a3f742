"""Activation momentum: how consistently a unit's value differs between two sides of a contrast."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Momentum", "Ranking", "Score", "TieBreak", "expected_chance_ties", "momentum", "rank_units"]

Score = Literal["momentum", "mean_diff", "sadi", "random"]
"""By what units are ranked: consistency of sign; mean difference, with the signs of the momentum (mean_diff) or all
gains positive (sadi, Wang et al., 2025); or chance, with the signs of the momentum."""

TieBreak = Literal["effect", "official"]
"""Among equal scores: the larger |mean| / standard deviation of the difference first, or the lowest layer and unit."""

FEW_PAIRS = 20


class Momentum:
    """Counts of signs, sums and squares of differences, over any number of batches.

    Attributes
    ----------
    n_pos, n_neg : Tensor
        Pairs in which the positive side is larger, and smaller, [layer, unit].
    pairs : int
        How many in all.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self.n_pos: Int[Tensor, "layer unit"] = torch.zeros(0, dtype=torch.long)
        self.n_neg: Int[Tensor, "layer unit"] = torch.zeros(0, dtype=torch.long)
        self._sum = self._squares = torch.zeros(0, dtype=torch.float64)

    def update(self, pos: Float[Tensor, "pair layer unit"], neg: Float[Tensor, "pair layer unit"]) -> Momentum:
        """Add pairs.

        Raises
        ------
        ValueError
            Activations of different shapes, none, or ones that are not finite; the message names layer and sample.
        """
        if pos.shape != neg.shape or pos.ndim != 3 or not len(pos):
            raise ValueError(
                "pos and neg must be [pair, layer, unit] of the same shape with one pair or more; "
                f"got {list(pos.shape)} and {list(neg.shape)}"
            )
        if self.pairs and pos.shape[1:] != self.n_pos.shape:
            raise ValueError(f"pos has {list(pos.shape[1:])} units, earlier batches had {list(self.n_pos.shape)}")
        for name, values in (("pos", pos), ("neg", neg)):
            if not bool(values.isfinite().all()):
                pair, layer, _ = (~values.isfinite()).nonzero()[0].tolist()
                raise ValueError(f"{name} is not finite in layer {layer} of sample {pair}")
        if not self.pairs:
            shape = pos.shape[1:]
            self.n_pos, self.n_neg = (torch.zeros(shape, dtype=torch.long, device=pos.device) for _ in range(2))
            self._sum, self._squares = (torch.zeros(shape, dtype=torch.float64, device=pos.device) for _ in range(2))
        difference = pos - neg
        self.n_pos += (difference > 0).sum(0)
        self.n_neg += (difference < 0).sum(0)
        self._sum += difference.double().sum(0)
        self._squares += difference.double().square().sum(0)
        self.pairs += len(pos)
        return self

    @property
    def beta(self) -> Float[Tensor, "layer unit"]:
        """max(n_pos, n_neg) / pairs, with the sign of the larger count; positive where they are equal."""
        self._check()
        larger = torch.maximum(self.n_pos, self.n_neg).double() / self.pairs
        return torch.where(self.n_pos >= self.n_neg, larger, -larger).float()

    @property
    def mean(self) -> Float[Tensor, "layer unit"]:
        """Mean difference."""
        self._check()
        return (self._sum / self.pairs).float()

    @property
    def effect(self) -> Float[Tensor, "layer unit"]:
        """Mean over standard deviation of the difference; 0 where it never differs, infinite where it never varies."""
        self._check()
        mean = self._sum / self.pairs
        deviation = (self._squares / self.pairs - mean.square()).clamp(min=0).sqrt()
        return torch.where(mean == 0, 0.0, mean / deviation).float()

    def _check(self) -> None:
        if not self.pairs:
            raise LookupError("no pairs were counted yet; call update first")


def momentum(pos: Float[Tensor, "pair layer unit"], neg: Float[Tensor, "pair layer unit"]) -> Momentum:
    """The momentum of pairs that are all there at once."""
    return Momentum().update(pos, neg)


def momentum_of_classes(pos: Float[Tensor, "one layer unit"], neg: Float[Tensor, "other layer unit"]) -> Momentum:
    """The momentum over all pairs of two sets of any sizes, when nothing pairs their members."""
    found = Momentum()
    for row in pos:
        found.update(row.expand_as(neg), neg)
    return found


@dataclass(frozen=True)
class Ranking:
    """Units from the first to the last.

    Attributes
    ----------
    layers, units
        Of every unit of the model, in order.
    gains
        What alpha is multiplied with, in order: beta, or 1 for the score "sadi".
    scores
        By which they were ranked, in order.
    """

    layers: Int[Tensor, " rank"]
    units: Int[Tensor, " rank"]
    gains: Float[Tensor, " rank"]
    scores: Float[Tensor, " rank"]

    def ties(self, k: int) -> int:
        """How many units share the score of the k-th: with more than fit, the tie rule decides who is chosen."""
        return int((self.scores == self.scores[k - 1]).sum())

    def __len__(self) -> int:
        return len(self.layers)


def rank_units(
    found: Momentum,
    score: Score = "momentum",
    *,
    tie_break: TieBreak = "effect",
    generator: torch.Generator | None = None,
) -> Ranking:
    """All units of all layers in one order.

    Parameters
    ----------
    found
        Counted pairs.
    score
        By what.
    tie_break
        Which of equal ones come first.
    generator
        For the score "random", which needs one.

    Raises
    ------
    ValueError
        An unknown score or tie rule, or no generator for "random".
    """
    if score not in get_args(Score) or tie_break not in get_args(TieBreak):
        raise ValueError(
            f"score must be one of {', '.join(get_args(Score))} and tie_break one of "
            f"{', '.join(get_args(TieBreak))}; got {score!r} and {tie_break!r}"
        )
    beta = found.beta.cpu()
    if score == "random":
        if generator is None:
            raise ValueError("score='random' needs a generator")
        values = torch.rand(beta.shape, generator=generator)
    else:
        values = beta.abs() if score == "momentum" else found.mean.cpu().abs()
    flat = values.flatten()
    # The last sort is the first key; both are stable, so what is left equal keeps the order of layers and units.
    order = torch.arange(len(flat))
    if tie_break == "effect":
        order = order[found.effect.cpu().abs().flatten().sort(descending=True, stable=True).indices]
    order = order[flat[order].sort(descending=True, stable=True).indices]
    gains = torch.ones_like(beta) if score == "sadi" else beta
    width = beta.shape[1]
    return Ranking(order // width, order % width, gains.flatten()[order], flat[order])


def expected_chance_ties(pairs: int, units: int) -> float:
    """How many of these units have |beta| = 1 by chance alone."""
    return units * 2.0 ** (1 - pairs)


def warn_of_few(pairs: int, units: int, stacklevel: int = 3) -> None:
    """Warn where chance makes many units perfectly consistent."""
    if pairs < FEW_PAIRS:
        warnings.warn(
            f"{pairs} pairs are few: {expected_chance_ties(pairs, units):.2g} of {units} units are expected to differ "
            "in the same direction in all pairs by chance alone",
            stacklevel=stacklevel,
        )
