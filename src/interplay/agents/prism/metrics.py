"""What proactivity is worth and what it costs the user: ProactiveBench's counting, calibration, benefit over burden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from interplay.agents.prism.gate import CostGate
from interplay.agents.prism.validation import (
    Flags,
    Probabilities,
    as_labels,
    as_numpy,
    as_probabilities,
    check_same_shape,
)

__all__ = [
    "RATIOS",
    "BurdenCurve",
    "ProactiveMetrics",
    "Reliability",
    "audbc",
    "burden_curve",
    "proactive_metrics",
    "reliability",
]

RATIOS: tuple[float, ...] = tuple((2.0 ** np.linspace(-4, 4, 33)).tolist())
"""The values of c_fn / c_fa over which benefit and burden are swept."""


@dataclass(frozen=True)
class ProactiveMetrics:
    """Counts of the four outcomes, and ProactiveBench's rates of them. A rate of nothing is NaN.

    Attributes
    ----------
    true_positives
        Offers that were judged accepted.
    false_positives
        Offers that were not.
    false_negatives
        Silence although an offer would have been judged accepted.
    true_negatives
        Rightful silence.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def recall(self) -> float:
        """Share of acceptable offers that were made."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def precision(self) -> float:
        """Share of offers that were accepted."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def false_alarm(self) -> float:
        """Share of offers that were not accepted: 1 - precision, and not the share of quiet events disturbed."""
        return _share(self.false_positives, self.true_positives + self.false_positives)

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision; 0 where no offer was accepted although some would have been."""
        wrong = self.false_positives + self.false_negatives
        return _share(2 * self.true_positives, 2 * self.true_positives + wrong)

    @property
    def accuracy(self) -> float:
        """Share of events handled rightly."""
        right, wrong = self.true_positives + self.true_negatives, self.false_positives + self.false_negatives
        return _share(right, right + wrong)


def proactive_metrics(speak: Flags, y_need: Flags, y_accept: Flags) -> ProactiveMetrics:
    """ProactiveBench's counting; an offer is judged accepted where it was needed and accepted.

    Parameters
    ----------
    speak, y_need, y_accept
        (events,) whether an offer was made, was needed, and was (or would have been) accepted. With verdicts of a judge
        on whole offers in place of the two labels, pass them as both.

    Raises
    ------
    ValueError
        What is no label, with its first index; shapes that differ.

    Examples
    --------
    >>> metrics = proactive_metrics(speak=[1, 1, 1, 0, 0], y_need=[1, 0, 1, 1, 0], y_accept=[1, 1, 0, 1, 0])
    >>> round(metrics.recall, 3), round(metrics.false_alarm, 3), round(metrics.f1, 3)
    (0.5, 0.667, 0.4)
    """
    speak, y_need, y_accept = _labels(speak=speak, y_need=y_need, y_accept=y_accept)
    judged = y_need & y_accept
    return ProactiveMetrics(
        true_positives=int(np.count_nonzero(speak & judged)),
        false_positives=int(np.count_nonzero(speak & ~judged)),
        false_negatives=int(np.count_nonzero(~speak & judged)),
        true_negatives=int(np.count_nonzero(~speak & ~judged)),
    )


class Reliability(NamedTuple):
    """What was predicted and what came, in bins of equal width; NaN where a bin is empty."""

    predicted: Float[np.ndarray, " bins"]
    observed: Float[np.ndarray, " bins"]
    count: Int[np.ndarray, " bins"]

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of prediction and outcome, weighted by the events in a bin."""
        filled = self.count > 0
        gaps = np.abs(self.predicted - self.observed)[filled]
        return float(np.average(gaps, weights=self.count[filled])) if filled.any() else float("nan")


def reliability(p: Probabilities, y: Flags, bins: int = 15) -> Reliability:
    """Calibration of one probability, bin by bin.

    Parameters
    ----------
    p, y
        (events,) probabilities and labels.
    bins
        Number of bins of equal width over [0, 1]; 1 belongs to the last.
    """
    if bins < 1:
        raise ValueError(f"bins must be 1 or more; got {bins}")
    p, y = as_numpy(as_probabilities("p", p)), as_numpy(as_labels("y", y))
    check_same_shape(p=p, y=y)
    where = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore"):
        predicted, observed = (np.bincount(where, weights=values, minlength=bins) / count for values in (p, y))
    return Reliability(predicted, observed, count)


@dataclass(frozen=True)
class BurdenCurve:
    """Benefit over burden as the ratio of the costs is swept.

    Attributes
    ----------
    ratios
        (points,) c_fn / c_fa.
    burden
        (points,) offers that were not accepted, per event.
    benefit
        (points,) recall, as in `ProactiveMetrics`.
    speak_rate
        (points,) offers per event.
    always_burden
        The burden of speaking always.
    audbc
        Area under the upper-left staircase of the points, see `audbc`.
    """

    ratios: Float[np.ndarray, " points"]
    burden: Float[np.ndarray, " points"]
    benefit: Float[np.ndarray, " points"]
    speak_rate: Float[np.ndarray, " points"]
    always_burden: float

    @property
    def audbc(self) -> float:
        return audbc(self.burden, self.benefit, self.always_burden)


def burden_curve(
    p_need: Probabilities,
    p_acc: Probabilities,
    y_need: Flags,
    y_accept: Flags,
    *,
    ratios: Sequence[float] = RATIOS,
    rule: Callable[[CostGate, Probabilities, Probabilities], Flags] = CostGate.decide,
) -> BurdenCurve:
    """Sweep the costs of a gate over its probabilities; nothing is trained anew.

    Parameters
    ----------
    p_need, p_acc, y_need, y_accept
        (events,) probabilities and labels; without a needed and acceptable offer among them the benefit is NaN.
    ratios
        Values of c_fn / c_fa.
    rule
        (gate, p_need, p_acc) to decisions; another rule than the gate's own for comparison.
    """
    p_need, p_acc = as_probabilities("p_need", p_need), as_probabilities("p_acc", p_acc)
    needed, accepted = _labels(y_need=y_need, y_accept=y_accept)
    points = []
    for ratio in ratios:
        speak = as_numpy(rule(CostGate(1.0, float(ratio)), p_need, p_acc))
        benefit = proactive_metrics(speak, needed, accepted).recall
        points.append((float((speak & ~accepted).mean()), benefit, float(speak.mean())))
    burden, benefit, speak_rate = np.array(points).T
    return BurdenCurve(np.array(ratios), burden, benefit, speak_rate, float((~accepted).mean()))


def audbc(burden: Float[np.ndarray, " points"], benefit: Float[np.ndarray, " points"], always_burden: float) -> float:
    """Area under the benefit-burden curve, in [0, 1].

    The paper reports a figure of this name without a definition that is known to us. Ours: at a burden x the benefit is
    the highest that any point of burden x or less has, 0 left of all points; its mean over x from 0 to the burden of
    speaking always.

    Raises
    ------
    ValueError
        An `always_burden` that is not positive, which leaves nothing to integrate over.
    """
    if not always_burden > 0:
        raise ValueError(f"always_burden must be above 0: every offer was accepted; got {always_burden}")
    order = np.lexsort((-benefit, burden))
    edges = np.append(np.minimum(burden[order], always_burden), always_burden)
    return float(np.sum(np.maximum.accumulate(benefit[order]) * np.diff(edges)) / always_burden)


def _labels(**given: Flags) -> list[Flags]:
    labels = {name: as_numpy(as_labels(name, values)) for name, values in given.items()}
    check_same_shape(**labels)
    return list(labels.values())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
