"""The gate: two costs and two probabilities in, an offer or silence out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from interplay.agents.prism.validation import (
    Flags,
    Probabilities,
    as_floating,
    as_labels,
    as_probabilities,
    check_same_shape,
)

__all__ = ["CostGate"]

BLOCK = 1 << 14  # events whose intermediate numbers stay in the cache


@dataclass(frozen=True)
class CostGate:
    """Speak iff p_acc >= tau(p_need), with tau(p) = c_fa / (c_fa + p c_fn). Equality speaks.

    The threshold is that of least risk where need and acceptance are independent given what was observed: an offer
    costs c_fa if it is not accepted, silence costs c_fn if help was needed and would have been accepted,

    (1)  risk(speak)  = c_fa (1 - p_acc)
    (2)  risk(silent) = c_fn p_need p_acc

    and (1) <= (2) rearranges to the rule. Only the ratio c_fn / c_fa matters to the decision. An accepted offer that
    nobody needed costs nothing under this risk, while F1 counts it as a false alarm: report both.

    Every method takes NumPy arrays, tensors (gradients flow) or numbers, any shape, and gives back the same.

    Parameters
    ----------
    c_fa
        Cost of an offer that is not accepted, above 0.
    c_fn
        Cost of a missed offer, 0 or more, in the same unit.

    Raises
    ------
    ValueError
        A cost out of its range; probabilities outside [0, 1] or NaN, with the first index; shapes that differ.
    TypeError
        A cost that is no number; a mixture of arrays and tensors.

    Examples
    --------
    >>> gate = CostGate(c_fa=1.0, c_fn=2.0)
    >>> gate.threshold([0.0, 0.5, 1.0]).round(3).tolist()
    [1.0, 0.5, 0.333]
    >>> gate.decide([0.1, 0.5, 1.0], [0.5, 0.5, 0.3]).tolist()
    [False, True, False]
    """

    c_fa: float
    c_fn: float

    def __post_init__(self) -> None:
        for name, cost in (("c_fa", self.c_fa), ("c_fn", self.c_fn)):
            if not isinstance(cost, Real):
                raise TypeError(f"{name} must be a number; got {cost!r}")
            if not math.isfinite(cost):
                raise ValueError(f"{name} must be finite; got {cost}")
        if self.c_fa <= 0:
            raise ValueError(f"c_fa, the cost of an offer that is not accepted, must be above 0; got {self.c_fa}")
        if self.c_fn < 0:
            raise ValueError(f"c_fn, the cost of a missed offer, must be 0 or more; got {self.c_fn}")

    def threshold(self, p_need: Probabilities) -> Probabilities:
        """tau(p_need), falling from 1 at p_need = 0 to c_fa / (c_fa + c_fn) at p_need = 1."""
        return self._threshold(as_probabilities("p_need", p_need))

    def decide(self, p_need: Probabilities, p_acc: Probabilities) -> Flags:
        """Whether to speak."""
        p_need, p_acc = _pair(p_need, p_acc)
        return p_acc >= self._threshold(p_need)

    def margin(self, p_need: Probabilities, p_acc: Probabilities) -> Probabilities:
        """p_acc - tau(p_need), in [-1, 1]: how far from the threshold, positive on the side of speaking."""
        p_need, p_acc = _pair(p_need, p_acc)
        tau = self._threshold(p_need)
        if isinstance(tau, np.ndarray) and tau.dtype == p_acc.dtype:
            return np.subtract(p_acc, tau, out=tau)
        return p_acc - tau

    def route(self, p_need: Probabilities, p_acc: Probabilities, delta_slow: float) -> tuple[Flags, Flags]:
        """Whether to speak, and whether the margin is within `delta_slow`; one pass over memory for large arrays."""
        p_need, p_acc = as_floating("p_need", p_need), as_floating("p_acc", p_acc)
        check_same_shape(p_need=p_need, p_acc=p_acc)
        if isinstance(p_need, Tensor) or p_need.ndim != 1:
            margin = self.margin(p_need, p_acc)
            return margin >= 0, abs(margin) <= delta_slow
        speak, near = np.empty(len(p_need), dtype=bool), np.empty(len(p_need), dtype=bool)
        for start in range(0, len(p_need), BLOCK):
            block = slice(start, start + BLOCK)
            try:
                margin = self.margin(p_need[block], p_acc[block])
            except ValueError:
                _pair(p_need, p_acc)  # says where in the whole
                raise
            np.greater_equal(margin, 0, out=speak[block])
            np.less_equal(np.abs(margin, out=margin), delta_slow, out=near[block])
        return speak, near

    def expected_cost(self, speak: Flags, p_need: Probabilities, p_acc: Probabilities) -> Probabilities:
        """Risk of the given decisions, equations (1) and (2), in the unit of the costs."""
        p_need, p_acc = _pair(p_need, p_acc)
        speak = as_labels("speak", speak)
        check_same_shape(speak=speak, p_need=p_need, p_acc=p_acc)
        return _choose(speak, self.c_fa * (1 - p_acc), self.c_fn * p_need * p_acc)

    def realised_cost(self, speak: Flags, y_need: Flags, y_accept: Flags) -> Probabilities:
        """Cost of each decision once it is known whether help was needed and an offer was (or would be) accepted."""
        speak, y_need, y_accept = (
            as_labels(name, values) for name, values in (("speak", speak), ("y_need", y_need), ("y_accept", y_accept))
        )
        check_same_shape(speak=speak, y_need=y_need, y_accept=y_accept)
        refused, missed = speak & ~y_accept, ~speak & y_need & y_accept
        return self.c_fa * _as_numbers(refused) + self.c_fn * _as_numbers(missed)

    def _threshold(self, p_need: Probabilities) -> Probabilities:
        if isinstance(p_need, Tensor) or p_need.ndim == 0:
            return self.c_fa / (self.c_fa + p_need * self.c_fn)
        tau = p_need * self.c_fn
        tau += self.c_fa
        return np.divide(self.c_fa, tau, out=tau)  # in one array: a million events are bound by memory


def _pair(p_need: Probabilities, p_acc: Probabilities) -> tuple[Probabilities, Probabilities]:
    p_need, p_acc = as_probabilities("p_need", p_need), as_probabilities("p_acc", p_acc)
    check_same_shape(p_need=p_need, p_acc=p_acc)
    return p_need, p_acc


def _choose(which: Flags, yes: Probabilities, no: Probabilities) -> Probabilities:
    return torch.where(which, yes, no) if isinstance(which, Tensor) else np.where(which, yes, no)


def _as_numbers(flags: Flags) -> Probabilities:
    return flags.to(torch.get_default_dtype()) if isinstance(flags, Tensor) else np.asarray(flags, dtype=np.float64)
