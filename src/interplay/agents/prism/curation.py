"""Which of a teacher's traces to learn from: the decision-consistent score and what its ranking does to the classes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from interplay.agents.prism.validation import (
    Flags,
    Probabilities,
    as_labels,
    as_numpy,
    as_probabilities,
    check_same_shape,
)

__all__ = ["RDCSelector", "rdc_score"]

COLUMNS = ("q_need", "q_acc", "y_need", "y_accept")


def rdc_score(
    q_need: Probabilities, q_acc: Probabilities, y_need: Flags, y_accept: Flags, need_cut: float = 0.5
) -> Float[np.ndarray, " traces"]:
    """How consistent a teacher's probabilities are with what happened, in [-2, 1]; high is good.

    R = y_accept - (q_need - y_need)^2 - [q_need >= need_cut] (q_acc - y_accept)^2

    Parameters
    ----------
    q_need, q_acc
        (traces,) the teacher's probabilities.
    y_need, y_accept
        (traces,) labels 0 or 1.
    need_cut
        From where on the teacher counts as predicting need. The paper does not say; 0.5 is ours.

    Raises
    ------
    ValueError
        What is no probability or label, with its first index; shapes that differ.
    """
    if not 0 <= need_cut <= 1:
        raise ValueError(f"need_cut must lie in [0, 1]; got {need_cut}")
    q_need, q_acc = (as_numpy(as_probabilities(name, q)) for name, q in (("q_need", q_need), ("q_acc", q_acc)))
    y_need, y_accept = (as_numpy(as_labels(name, y)) for name, y in (("y_need", y_need), ("y_accept", y_accept)))
    check_same_shape(q_need=q_need, q_acc=q_acc, y_need=y_need, y_accept=y_accept)
    predicted = q_need >= need_cut
    return y_accept - (q_need - y_need) ** 2 - predicted * (q_acc - y_accept) ** 2


class RDCSelector(BaseEstimator):
    """Keep the traces of highest decision-consistent score.

    The term y_accept leads the published score and nearly separates the classes: as long as fewer traces are kept than
    were accepted, those kept are accepted ones only. That does no harm where text is imitated and ruins
    heads that learn probabilities. `class_balance_` shows it after every selection.

    Parameters
    ----------
    stratify
        False: the published ranking. True: ranked within the four cells of (y_need, y_accept), which keep their shares;
        a variant of ours.
    need_cut
        As for `rdc_score`.

    Attributes
    ----------
    score_
        (traces,) the scores.
    class_balance_
        After `select`: for each cell (y_need, y_accept) its share of all traces and of those kept.

    Examples
    --------
    >>> traces = {"q_need": [0.9, 0.2, 0.8, 0.1], "q_acc": [0.9, 0.1, 0.7, 0.2],
    ...           "y_need": [1, 0, 1, 0], "y_accept": [1, 0, 1, 0]}
    >>> RDCSelector().fit(traces).select(2).tolist()
    [0, 2]
    >>> RDCSelector(stratify=True).fit(traces).select(2).tolist()
    [0, 3]
    """

    def __init__(self, stratify: bool = False, need_cut: float = 0.5) -> None:
        self.stratify = stratify
        self.need_cut = need_cut

    def fit(self, traces: pd.DataFrame | Mapping[str, Any]) -> RDCSelector:
        """Score all traces.

        Parameters
        ----------
        traces
            DataFrame or mapping with the columns q_need, q_acc, y_need and y_accept; others are not read.

        Raises
        ------
        KeyError
            A column is missing.
        ValueError
            As for `rdc_score`.
        """
        if missing := [name for name in COLUMNS if name not in traces]:
            raise KeyError(f"traces must have the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}")
        columns = [np.asarray(as_numpy(traces[name])) for name in COLUMNS]
        self.score_ = rdc_score(*columns, need_cut=self.need_cut)
        self._cell = 2 * as_numpy(as_labels("y_need", columns[2])).astype(int) + as_labels("y_accept", columns[3])
        return self

    def select(self, k: int | float) -> Int[np.ndarray, " kept"]:
        """Indices of the traces to keep, best first, ties by index.

        Parameters
        ----------
        k
            How many (int), or which fraction of all (float in [0, 1], rounded down).

        Raises
        ------
        ValueError
            More than there are, or less than none.
        """
        check_is_fitted(self, "score_")
        count = self._count(k)
        order = np.argsort(-self.score_, kind="stable")
        if self.stratify:
            order = self._best_of_each_cell(order, count)
        chosen = order[:count]
        cells = pd.MultiIndex.from_product([(0, 1), (0, 1)], names=["y_need", "y_accept"])
        shares = {
            "share of all": np.bincount(self._cell, minlength=4) / max(len(self._cell), 1),
            "share of kept": np.bincount(self._cell[chosen], minlength=4) / max(count, 1),
        }
        self.class_balance_ = pd.DataFrame(shares, index=cells)
        return chosen

    def _count(self, k: int | float) -> int:
        total = len(self.score_)
        if isinstance(k, bool) or not isinstance(k, int | float | np.integer | np.floating):
            raise TypeError(f"k must be a number of traces or a fraction of them; got {k!r}")
        if isinstance(k, float | np.floating):
            if not 0 <= k <= 1:
                raise ValueError(f"k as a fraction must lie in [0, 1]; got {k}; give a number of traces as an int")
            return math.floor(k * total)
        if not 0 <= k <= total:
            raise ValueError(f"k must lie in 0 to {total}, the number of traces; got {k}")
        return int(k)

    def _best_of_each_cell(self, order: Int[np.ndarray, " traces"], count: int) -> Int[np.ndarray, " kept"]:
        """The best of each cell, as many as its share of `count`, rounded by largest remainder."""
        sizes = np.bincount(self._cell, minlength=4)
        exact = count * sizes / max(sizes.sum(), 1)
        quota = np.floor(exact).astype(int)
        quota[np.argsort(quota - exact, kind="stable")[: count - quota.sum()]] += 1
        ordered = self._cell[order]
        kept = np.zeros(len(order), dtype=bool)
        for cell, number in enumerate(quota.tolist()):
            kept[np.flatnonzero(ordered == cell)[:number]] = True
        return order[kept]
