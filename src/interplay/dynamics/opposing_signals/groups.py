"""Name the groups of samples whose losses see-saw, or say that there are none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = ["LEVEL", "OPPOSITION", "OpposingGroups", "find_opposing_groups"]

Array = NDArray[np.float64]
OPPOSITION = -0.5
"""Correlation that the two groups must at least reach to be called opposing."""
LEVEL = 0.01
"""Significance that opposition and alternation must reach against shuffled time."""


@dataclass(frozen=True)
class OpposingGroups:
    """Two groups of samples, and how far their losses move against each other.

    Attributes
    ----------
    index_a, index_b
        The samples, those with the largest changes first; A is the group that changes more in total. Both are given
        whether or not the groups are opposing; see `found`.
    score
        (N,) mean absolute change of every sample.
    opposition
        Correlation over time of the mean changes of A and B; -1 is perfect opposition, NaN with an empty group.
    alternation
        Fraction of consecutive steps on which the mean change of A changes its sign.
    share
        Part of all absolute changes that A and B carry.
    pc1_explained
        Part of the outliers' variance over time along the direction that splits them.
    opposition_p, alternation_p
        How often shuffled time gives as much, at least 1 / (shuffles + 1).
    """

    index_a: NDArray[np.int64]
    index_b: NDArray[np.int64]
    score: Array
    opposition: float
    alternation: float
    share: float
    pc1_explained: float
    opposition_p: float
    alternation_p: float

    @property
    def found(self) -> bool:
        """Whether opposing groups were found: `why` names what is missing otherwise."""
        return not self._missing()

    @property
    def why(self) -> str:
        """The finding in words."""
        if missing := self._missing():
            return f"no opposing groups: {missing}"
        return (
            f"opposing groups of {len(self.index_a)} and {len(self.index_b)} samples: their losses move with "
            f"correlation {self.opposition:.2f}, turn on {self.alternation:.0%} of the steps and make up "
            f"{self.share:.0%} of all loss changes"
        )

    def _missing(self) -> str:
        if min(len(self.index_a), len(self.index_b)) < 2:
            return "the samples that change most all move together"
        if not self.opposition <= OPPOSITION:
            return f"the losses of the two halves are correlated by {self.opposition:.2f}, not below {OPPOSITION}"
        if not self.opposition_p <= LEVEL:
            return f"shuffled samples oppose each other as much (p = {self.opposition_p:.2g})"
        if not self.alternation_p <= LEVEL:
            return (
                f"the groups drift apart but do not see-saw: a turn on {self.alternation:.0%} of the steps "
                f"(p = {self.alternation_p:.2g})"
            )
        return ""


def find_opposing_groups(
    delta: Tensor | ArrayLike, top: float = 0.02, *, shuffles: int = 199, seed: int = 0
) -> OpposingGroups:
    """Split the samples whose losses change most into two groups that move against each other.

    The score of a sample is mean_t |delta_ti|. The `top` samples by score are the outliers; the sign of their loading
    on the first right singular vector of their changes (each less its mean over time) splits them into A and B.

    A split by sign finds *some* opposition in anything, also in noise. The groups count as found only if all of these
    hold: both have two samples or more; their opposition is -0.5 or less; it is beyond that of 99 % of the same
    procedure on outliers whose changes are shuffled in time one by one, which keeps every score; and A turns more often
    than when its steps are shuffled, at the same level. The last excludes groups that drift apart steadily, as before
    the edge of stability. In the test of noise alone, the whole procedure reports groups in at most 1 % of cases.

    Parameters
    ----------
    delta
        (W, N) changes of the losses; W consecutive steps (or every k-th with k odd), a fixed set of N samples.
    top
        Fraction of samples that are taken for outliers, in (0, 0.5]; at least four samples are.
    shuffles
        Number of shuffles for each test; 99 is the least that can reach the level of 1 %.
    seed
        Of the shuffles.

    Raises
    ------
    ValueError
        Fewer than two steps or four samples, changes that are not finite, `top` or `shuffles` out of range.
    """
    changes = delta.detach().cpu().double().numpy() if isinstance(delta, Tensor) else np.asarray(delta, dtype=float)
    if changes.ndim != 2:
        raise ValueError(f"delta must be (steps, samples); got shape {changes.shape}")
    steps, samples = changes.shape
    if steps < 2 or samples < 4:
        raise ValueError(f"delta must hold 2 steps and 4 samples or more; got {steps} and {samples}: record longer")
    if not np.isfinite(changes).all():
        missing = int((~np.isfinite(changes)).any(axis=0).sum())
        raise ValueError(
            f"delta is not finite for {missing} of {samples} samples; record whole passes over a fixed set of samples, "
            "and leave out the first row if the run began in the midst of one"
        )
    if not 0 < top <= 0.5:
        raise ValueError(f"top must lie in (0, 0.5]; got {top}")
    if shuffles < 99:
        raise ValueError(f"shuffles must be 99 or more to reach a level of 1 %; got {shuffles}")

    size = np.abs(changes)
    score = size.mean(axis=0)
    outliers = np.argsort(-score, kind="stable")[: max(4, round(top * samples))]
    series = changes[:, outliers]
    in_a, explained = _split(series)
    opposition = _opposition(series, in_a)
    alternation, opposition_p, alternation_p = float("nan"), 1.0, 1.0
    if in_a.any():
        random = np.random.default_rng(seed)
        leader = series[:, in_a].mean(axis=1)
        alternation = float(_alternation(leader))
        turns = _alternation(random.permuted(np.tile(leader, (shuffles, 1)), axis=1))
        alternation_p = _p_value(turns >= alternation)
        if np.isfinite(opposition):
            shuffled = (random.permuted(series, axis=0) for _ in range(shuffles))
            null = np.array([_opposition(columns, _split(columns)[0]) for columns in shuffled])
            opposition_p = _p_value(null <= opposition)
    index_a, index_b = outliers[in_a], outliers[~in_a]
    total = size.sum()
    return OpposingGroups(
        index_a=index_a,
        index_b=index_b,
        score=score,
        opposition=opposition,
        alternation=alternation,
        share=float(size[:, outliers].sum() / total) if total else 0.0,
        pc1_explained=explained,
        opposition_p=opposition_p,
        alternation_p=alternation_p,
    )


def _split(series: Array) -> tuple[NDArray[np.bool_], float]:
    """Which columns belong to A, and the part of the variance along the direction that says so."""
    centred = series - series.mean(axis=0)
    # The smaller of the two Gram matrices has the same spectrum as the series and is faster than their SVD.
    if len(centred) < centred.shape[1]:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        loading = vectors[:, -1] @ centred
    else:
        values, vectors = np.linalg.eigh(centred.T @ centred)
        loading = vectors[:, -1]
    positive = loading >= 0
    size = np.abs(series).sum(axis=0)
    in_a = positive if size[positive].sum() >= size[~positive].sum() else ~positive
    total = values.clip(0).sum()
    return in_a, float(values[-1] / total) if total > 0 else 0.0


def _opposition(series: Array, in_a: NDArray[np.bool_]) -> float:
    if in_a.all() or not in_a.any():
        return float("nan")
    a, b = (half - half.mean() for half in (series[:, in_a].mean(axis=1), series[:, ~in_a].mean(axis=1)))
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else float("nan")


def _alternation(series: Array) -> Array:
    turns = np.signbit(series[..., 1:]) != np.signbit(series[..., :-1])
    return np.asarray(turns.mean(axis=-1))


def _p_value(as_extreme: NDArray[np.bool_]) -> float:
    return float((1 + as_extreme.sum()) / (1 + len(as_extreme)))
