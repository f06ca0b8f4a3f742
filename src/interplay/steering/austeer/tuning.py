"""Choose site, k and alpha on validation pairs: never on those that a result is reported for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from torch import nn

from interplay.steering.austeer.momentum import Ranking
from interplay.steering.austeer.patch import UnitPatch
from interplay.steering.austeer.units import UnitSite

__all__ = ["Tuned", "tune"]

Scorer = Callable[[UnitPatch, Sequence[float]], Sequence[float]]
"""From a patch with alpha 1 and several strengths to a score for each, larger is better."""


class Tuned(NamedTuple):
    """What was chosen.

    Attributes
    ----------
    patch
        With the best setting; its gains hold alpha.
    table
        One row a setting: site, k, alpha, score.
    """

    patch: UnitPatch
    table: pd.DataFrame


def tune(
    model: nn.Module,
    rankings: Mapping[UnitSite, Ranking],
    scorer: Scorer,
    *,
    ks: Sequence[int],
    alphas: Sequence[float],
) -> Tuned:
    """Try every site, k and alpha; of equal scores the fewest units win, then the smallest alpha.

    Parameters
    ----------
    model
        A Hugging Face decoder.
    rankings
        Of each site to be tried.
    scorer
        Scores one patch at all alphas at once, so that they can share batches; on validation pairs.
    ks, alphas
        What is tried; a k above the number of units is left out.

    Raises
    ------
    ValueError
        Nothing to try.
    """
    rows = []
    for site, ranking in rankings.items():
        for k in sorted(k for k in ks if k <= len(ranking)):
            patch = UnitPatch.of_ranking(model, site, ranking, k, 1.0)
            scores = scorer(patch, sorted(alphas))
            rows += [(site, k, alpha, float(score)) for alpha, score in zip(sorted(alphas), scores, strict=True)]
    if not rows:
        raise ValueError("there is nothing to try: rankings, ks and alphas must each hold one or more")
    table = pd.DataFrame(rows, columns=["site", "k", "alpha", "score"])
    best = table.sort_values(["score", "k", "alpha"], ascending=[False, True, True], kind="stable").iloc[0]
    patch = UnitPatch.of_ranking(model, best["site"], rankings[best["site"]], int(best["k"]), float(best["alpha"]))
    return Tuned(patch, table)
