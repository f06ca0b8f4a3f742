"""What sets the rates: the local rule (2), the one-step design (3), and thresholds as a control (4)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from interplay.reservoirs.adaptive_reservoir.dynamics import CompressedRows
from interplay.reservoirs.adaptive_reservoir.kernels import regulate_rates

__all__ = ["AdaptReport", "Adapted", "Design", "one_step_design", "regulate", "warn_if_not_converged"]

Adapted = Literal["inhibition", "threshold"]


@dataclass(frozen=True)
class AdaptReport:
    """What an adaptation did.

    Attributes
    ----------
    mode
        "online", "one_step" or "threshold".
    steps
        Time steps of adaptation; 0 for the one-step design.
    rate_error
        Mean over units of |rate - target| after adaptation, with everything frozen, on the series that it was given.
    rates, targets
        Those rates, and what was asked for; (units,).
    n_infeasible
        Units that cannot meet their target by inhibition: it asks for less than none, or they receive none.
    converged
        Whether the rate error of the last window of the online rule was below its tolerance; None for the one-step
        design, which has no steps to converge.
    history
        Online: the rate error of each window, while adaptation ran.
    window
        Steps in a window.
    """

    mode: Literal["online", "one_step", "threshold"]
    steps: int
    rate_error: float
    rates: Float[np.ndarray, " unit"] = field(repr=False)
    targets: Float[np.ndarray, " unit"] = field(repr=False)
    n_infeasible: int
    converged: bool | None = None
    history: Float[np.ndarray, " window"] = field(default_factory=lambda: np.empty(0), repr=False)
    window: int = 0


class Design(NamedTuple):
    """The one-step design: what to multiply each unit's inhibition by, and where that cannot meet the target."""

    factors: Float[np.ndarray, " unit"]
    infeasible: Bool[np.ndarray, " unit"]


class Regulated(NamedTuple):
    """Where the online rule ended."""

    values: NDArray[np.floating]
    threshold: Float[np.ndarray, " unit"]
    steps: int
    history: Float[np.ndarray, " window"]
    last_rates: Float[np.ndarray, "2 unit"]


def one_step_design(
    excitation: Float[np.ndarray, " unit"],
    inhibition: Float[np.ndarray, " unit"],
    current: Float[np.ndarray, " unit"],
    targets: Float[np.ndarray, " unit"],
) -> Design:
    """Equation (3): the factors Omega at which the mean-field input of every unit gives its target.

    Parameters
    ----------
    excitation, inhibition
        Sum over excitatory, and over inhibitory, links of |A_ij| targets_j; neither is negative.
    current
        Mean of the input's part of the drive, Win <u> - threshold.
    targets
        Target rates in (0, 1).

    Returns
    -------
    Design
        Factors of at least zero. A unit is infeasible where the formula asks for less than no inhibition, or where
        there are no inhibitory links to scale (its factor is then 1).
    """
    wanted = excitation + current - np.log(targets / (1 - targets))
    linked = inhibition > 0
    factors = np.divide(wanted, inhibition, out=np.ones_like(wanted), where=linked)
    return Design(factors.clip(min=0), ~linked | (wanted < 0))


def regulate(
    rows: CompressedRows,
    inhibitory: Bool[np.ndarray, " unit"],
    current: Float[np.ndarray, "time unit"],
    targets: Float[np.ndarray, " unit"],
    *,
    adapted: Adapted,
    rate: float,
    leak_rate: Float[np.ndarray, " unit"],
    window: int,
    tolerance: float,
    max_steps: int,
) -> Regulated:
    """Equation (2), or (4), while the current drives the reservoir; the series is repeated where it is too short.

    After each window of steps, the mean rates of the window are compared with the targets; the rule stops where they
    agree to the tolerance.
    """
    entries = np.flatnonzero(inhibitory[rows.columns]).astype(np.uint32)
    entry_starts = np.searchsorted(entries, rows.row_starts).astype(np.uint32)
    window = min(window, max_steps)
    history, last_rates = np.empty(max_steps // window), np.zeros((2, len(targets)))
    values, shift = rows.values.copy(), np.zeros(len(targets))
    steps = regulate_rates(
        rows._replace(values=values),
        entry_starts,
        entries,
        current.astype(np.float64),
        targets,
        adapted == "threshold",
        rate,
        leak_rate,
        shift,
        window,
        tolerance,
        history,
        last_rates,
    )
    return Regulated(values, shift, steps, history[: steps // window], last_rates)


def warn_if_not_converged(regulated: Regulated, targets: NDArray[np.floating], tolerance: float, advice: str) -> bool:
    """Whether the rule met its tolerance; a ConvergenceWarning with what to do where it did not."""
    error = float(regulated.history[-1])
    if error < tolerance:
        return True
    before, after = regulated.last_rates - targets
    far = (np.abs(before) > tolerance) & (np.abs(after) > tolerance)
    if len(regulated.history) > 1 and far.any() and (before[far] * after[far] < 0).mean() > 0.5:
        advice = "the rates oscillate around their targets: lower rate"
    warnings.warn(
        f"adaptation stopped after {regulated.steps} steps with a mean rate error of {error:.3g}, above the tolerance "
        f"of {tolerance:g}; {advice}",
        ConvergenceWarning,
        stacklevel=4,
    )
    return False
