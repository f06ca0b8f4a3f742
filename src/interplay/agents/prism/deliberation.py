"""Fast judgement everywhere, slow judgement where it can change the action, and a record of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interplay.agents.prism.gate import CostGate
from interplay.agents.prism.passes import Batch, Judgement, as_pass, count_rows, take_rows
from interplay.agents.prism.validation import Flags, Probabilities, as_numpy

__all__ = ["Calibrator", "DualProcessGate", "GateDecision"]

EventProbabilities = Float[np.ndarray, " events"] | Float[Tensor, " events"]
EventFlags = Bool[np.ndarray, " events"] | Bool[Tensor, " events"]


class Calibrator(Protocol):
    """Maps both probabilities to calibrated ones, such as a fitted `PairCalibrator`."""

    def transform(self, p_need: Probabilities, p_acc: Probabilities) -> tuple[Probabilities, Probabilities]: ...


@dataclass(frozen=True)
class GateDecision:
    """What the gate decided about a batch, and all that led to it.

    Attributes
    ----------
    speak
        (events,) whether to make the offer.
    routed
        (events,) whether the slow pass was called.
    fast
        The calibrated judgement of the fast pass on all events.
    rows, slow
        The routed rows, and the calibrated judgement of the slow pass on them; None if it was not called.
    gate, delta_slow
        The costs and the half-width of the margin at the time.
    """

    speak: EventFlags
    routed: EventFlags
    fast: Judgement
    rows: Int[np.ndarray, " routed"] | Int[Tensor, " routed"]
    slow: Judgement | None
    gate: CostGate
    delta_slow: float

    def __len__(self) -> int:
        return len(self.speak)

    @property
    def n_slow(self) -> int:
        """How many events the slow pass saw."""
        return len(self.rows)

    @cached_property
    def p_need(self) -> EventProbabilities:
        """(events,) the probability that was acted upon: the slow pass's where it was called."""
        return self.fast.p_need if self.slow is None else _replaced(self.fast.p_need, self.rows, self.slow.p_need)

    @cached_property
    def p_acc(self) -> EventProbabilities:
        """(events,) the probability that was acted upon: the slow pass's where it was called."""
        return self.fast.p_acc if self.slow is None else _replaced(self.fast.p_acc, self.rows, self.slow.p_acc)

    @cached_property
    def tau(self) -> EventProbabilities:
        """(events,) the threshold that `p_acc` was held against."""
        return self.gate.threshold(self.p_need)

    @property
    def margin(self) -> EventProbabilities:
        """(events,) p_acc - tau: the decision speaks where it is 0 or more."""
        return self.p_acc - self.tau

    @cached_property
    def proposal(self) -> Any:
        """(events,) what would be offered, from the pass that was acted upon; None where the passes propose nothing."""
        if self.slow is None or self.slow.proposal is None:
            return self.fast.proposal
        proposals = [None] * len(self) if self.fast.proposal is None else list(self.fast.proposal)
        for row, proposal in zip(self.rows.tolist(), self.slow.proposal, strict=True):
            proposals[row] = proposal
        return proposals

    def audit(self, events: Sequence[Any] | None = None) -> pd.DataFrame:
        """One row an event, from which the decision can be replayed.

        Parameters
        ----------
        events
            Names of the events, such as their keys in a log; their positions if left out.

        Returns
        -------
        Columns event, speak, p_need, p_acc, tau, margin, routed, fast_p_need, fast_p_acc, fast_margin (on which the
        routing rests), cost_speak and cost_silent (expected), c_fa, c_fn, delta_slow.
        """
        if events is not None and len(events) != len(self):
            raise ValueError(f"events must name each of the {len(self)} events; got {len(events)} names")
        p_need, p_acc = as_numpy(self.p_need), as_numpy(self.p_acc)
        fast_p_need, fast_p_acc = as_numpy(self.fast.p_need), as_numpy(self.fast.p_acc)
        everyone = np.ones(len(self), dtype=bool)
        return pd.DataFrame(
            {
                "event": np.arange(len(self)) if events is None else list(events),
                "speak": as_numpy(self.speak),
                "p_need": p_need,
                "p_acc": p_acc,
                "tau": as_numpy(self.tau),
                "margin": as_numpy(self.margin),
                "routed": as_numpy(self.routed),
                "fast_p_need": fast_p_need,
                "fast_p_acc": fast_p_acc,
                "fast_margin": self.gate.margin(fast_p_need, fast_p_acc),
                "cost_speak": self.gate.expected_cost(everyone, p_need, p_acc),
                "cost_silent": self.gate.expected_cost(~everyone, p_need, p_acc),
                "c_fa": float(self.gate.c_fa),
                "c_fn": float(self.gate.c_fn),
                "delta_slow": float(self.delta_slow),
            }
        )

    def append_audit(self, path: str | Path, events: Sequence[Any] | None = None) -> None:
        """Append the audit rows to a file of JSON lines, made if it is not there."""
        with Path(path).open("a", encoding="utf-8") as file:
            self.audit(events).to_json(file, orient="records", lines=True, double_precision=15)


class DualProcessGate:
    """A cost gate around a cheap model, with an expensive one for events near the threshold.

    Where the fast pass lands within `delta_slow` of the threshold, |p_acc - tau(p_need)| <= delta_slow, the slow pass
    is called, once a batch, with those events alone. Its pair replaces the fast pair, and the same gate decides.

    Parameters
    ----------
    gate
        The costs.
    fast, slow
        What gives the two probabilities: callables, torch modules, scikit-learn classifiers; see `as_pass`. `slow` may
        be None where `delta_slow` is 0.
    delta_slow
        Half-width of the margin around the threshold; 0 or more. The paper reports 0.1 as the best; 1 sends all events.
    calibrator
        A fitted `PairCalibrator` of the fast pass.
    slow_calibrator
        That of the slow pass. A temperature belongs to the model that it was fitted on, so each pass has its own.

    Raises
    ------
    ValueError
        A negative `delta_slow`, or one above 0 without a slow model; when called, probabilities outside [0, 1].
    RuntimeError
        When called, if a pass returns another number of rows than it was given.

    Examples
    --------
    >>> fast = lambda events: (0.9 * events, events)
    >>> slow = lambda events: (0.9 * events, events > 0.5)
    >>> decision = DualProcessGate(CostGate(1.0, 2.0), fast, slow)(np.array([0.1, 0.48, 0.52, 0.9]))
    >>> decision.routed.tolist(), decision.speak.tolist(), decision.n_slow
    ([False, True, True, False], [False, False, True, True], 2)
    """

    def __init__(
        self,
        gate: CostGate,
        fast: Any,
        slow: Any = None,
        delta_slow: float = 0.1,
        calibrator: Calibrator | None = None,
        *,
        slow_calibrator: Calibrator | None = None,
    ) -> None:
        if not delta_slow >= 0 or math.isinf(delta_slow):
            raise ValueError(f"delta_slow must be 0 or more; got {delta_slow}; 1 sends all events to the slow model")
        if delta_slow > 0 and slow is None:
            raise ValueError(f"delta_slow>0 needs a slow model; got {delta_slow}: pass slow=..., or delta_slow=0")
        self.gate = gate
        self.delta_slow = delta_slow
        self.calibrator = calibrator
        self.slow_calibrator = slow_calibrator
        self._fast = as_pass(fast)
        self._slow = None if slow is None else as_pass(slow)

    def __call__(self, batch: Batch) -> GateDecision:
        """Decide about every event of a batch: an array, tensor, DataFrame or list, or a mapping of these."""
        fast = _calibrated(self._fast(batch), self.calibrator)
        _check_count("fast", len(fast.p_need), count_rows(batch))
        speak, near = self.gate.route(fast.p_need, fast.p_acc, self.delta_slow)
        routed = near if self._slow is not None else near & ~near  # nobody
        rows = routed.nonzero()[0] if isinstance(routed, np.ndarray) else routed.nonzero()[:, 0]
        slow = None
        if self._slow is not None and len(rows):
            slow = _calibrated(self._slow(take_rows(batch, rows)), self.slow_calibrator)
            _check_count("slow", len(slow.p_need), len(rows))
            speak = _replaced(speak, rows, self.gate.decide(slow.p_need, slow.p_acc))
        return GateDecision(speak, routed, fast, rows, slow, self.gate, self.delta_slow)

    def __repr__(self) -> str:
        return f"DualProcessGate({self.gate}, delta_slow={self.delta_slow})"


def _calibrated(judgement: Judgement, calibrator: Calibrator | None) -> Judgement:
    if calibrator is None:
        return judgement
    p_need, p_acc = calibrator.transform(judgement.p_need, judgement.p_acc)
    return judgement._replace(p_need=p_need, p_acc=p_acc)


def _check_count(name: str, returned: int, given: int) -> None:
    if returned != given:
        raise RuntimeError(f"the {name} model was given {given} rows and returned {returned}; it must return one a row")


def _replaced(values: Probabilities, rows: Flags, new: Probabilities) -> Probabilities:
    """A copy with some rows replaced, of the kind and type of the old values."""
    if isinstance(values, Tensor):
        return values.index_copy(0, rows, torch.as_tensor(new, dtype=values.dtype, device=values.device))
    values = values.copy()
    values[rows] = as_numpy(new)
    return values
