"""The reservoir of excitatory and inhibitory units, and its adaptation."""

from __future__ import annotations

import copy
import math
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from interplay.reservoirs.adaptive_reservoir.adaptation import (
    Adapted,
    AdaptReport,
    one_step_design,
    regulate,
    warn_if_not_converged,
)
from interplay.reservoirs.adaptive_reservoir.dynamics import Activation, CompressedRows, Weights
from interplay.reservoirs.adaptive_reservoir.reservoir import Reservoir
from interplay.reservoirs.adaptive_reservoir.weights import (
    as_weights,
    at_unit_radius,
    draw_balanced,
    inhibitory_ratio,
    spectral_radius_of,
)

__all__ = ["EIReservoir"]

ONLINE_RATE = 0.01 / 4  # of the gain, for each unit of rate and step


class EIReservoir(Reservoir):
    """A reservoir whose units are excitatory or inhibitory (Dale's law), and whose rates can be set.

    Equation (1): r_i(t+1) = Sig(sum_j A_ij r_j(t) + Win_i u(t) - threshold_i), with a leak where asked for. The first
    `excitatory_fraction` of the units excite, the others inhibit. Strengths are drawn from U(0, 1) at random places
    without self-loops, and inhibitory ones are multiplied by the ratio of excitatory to inhibitory units, so that
    rows sum to about zero. That balanced matrix is scaled to spectral radius `gain`, and then its inhibition
    is multiplied by `balance`.

    Parameters
    ----------
    units
        Number of units, N.
    input_dim
        Number of input channels.
    excitatory_fraction
        Share of units that excite, in (0, 1).
    connectivity
        Share of links that exist, in (0, 1]; ReservoirPy's `rc_connectivity`.
    gain
        g, the spectral radius of the balanced matrix. A sigmoid's slope is at most 1/4, so the useful range is about
        1 to 8, with the edge of chaos near gain x mean slope = 1.
    balance
        b, the factor of all inhibition: 1 is balanced, more is over-inhibited.
    spectral_radius
        Instead of `gain`: the spectral radius of the matrix after `balance`; ReservoirPy's `sr`.
    input_scaling
        Input weights are drawn from U(-input_scaling, input_scaling).
    threshold, activation, leak_rate
        As in `Reservoir`.
    dtype
        numpy.float64 or numpy.float32.
    seed
        An int or a generator; draws the links, then the input weights.

    Attributes
    ----------
    excitatory
        Which units excite, (units,) bool.
    gain, balance
        Of the reservoir before adaptation.

    Raises
    ------
    ValueError
        Numbers out of range, no excitatory or no inhibitory unit, or no closed loop of links.
    """

    excitatory: Bool[np.ndarray, " unit"]
    gain: float
    balance: float
    _shift: float | NDArray[np.floating] = 0.0  # what adaptation has added to the threshold

    def __init__(
        self,
        units: int = 500,
        input_dim: int = 1,
        *,
        excitatory_fraction: float = 0.8,
        connectivity: float = 0.1,
        gain: float = 4.0,
        balance: float = 1.0,
        spectral_radius: float | None = None,
        input_scaling: float = 0.5,
        threshold: ArrayLike = 0.0,
        activation: Activation = "sigmoid",
        leak_rate: ArrayLike = 1.0,
        dtype: type[np.floating] = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        for name, number in (("units", units), ("input_dim", input_dim)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more, got {number!r}")
        for name, share in (("excitatory_fraction", excitatory_fraction), ("connectivity", connectivity)):
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share!r}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
        _check_positive("input_scaling", input_scaling)
        excitatory = np.arange(units) < round(excitatory_fraction * units)
        generator = np.random.default_rng(seed)
        balanced = draw_balanced(excitatory, connectivity, generator)
        input_weights = generator.uniform(-input_scaling, input_scaling, size=(units, input_dim)).astype(dtype)
        self._set_up(balanced.astype(dtype), excitatory, gain, balance, spectral_radius)
        super().__init__(self.weights, input_weights, threshold=threshold, activation=activation, leak_rate=leak_rate)

    @classmethod
    def from_weights(
        cls,
        weights: ArrayLike | Weights,
        input_weights: ArrayLike,
        *,
        excitatory: Bool[np.ndarray, " unit"] | None = None,
        threshold: ArrayLike = 0.0,
        activation: Activation = "sigmoid",
        leak_rate: ArrayLike = 1.0,
    ) -> EIReservoir:
        """A reservoir of given signed weights, every column of one sign, units in any order.

        Parameters
        ----------
        excitatory
            Which units excite; None: those whose column is not negative.

        Raises
        ------
        ValueError
            A column of both signs, or of another sign than `excitatory` says: that unit breaks Dale's law.
        """
        signed = sparse.csr_array(as_weights(weights))
        low, high = signed.min(axis=0).toarray().ravel(), signed.max(axis=0).toarray().ravel()
        excitatory = low >= 0 if excitatory is None else np.asarray(excitatory, dtype=bool)
        if excitatory.shape != low.shape:
            raise ValueError(f"excitatory must have shape {low.shape}, got {excitatory.shape}")
        if (broken := np.flatnonzero(np.where(excitatory, low < 0, high > 0))).size:
            raise ValueError(
                f"weights: column {broken[0]} ({broken.size} in all) has links of the wrong sign or of both signs, so "
                "that unit would both excite and inhibit"
            )
        made = cls.__new__(cls)
        made._set_up(signed, excitatory, spectral_radius_of(signed), 1.0, None)
        Reservoir.__init__(
            made, made.weights, input_weights, threshold=threshold, activation=activation, leak_rate=leak_rate
        )
        return made

    def _set_up(
        self,
        balanced: sparse.csr_array,
        excitatory: Bool[np.ndarray, " unit"],
        gain: float,
        balance: float,
        spectral_radius: float | None,
    ) -> None:
        """Keep the balanced matrix at spectral radius one, then scale it."""
        inhibitory_ratio(excitatory)
        self.excitatory = excitatory
        self._unit_balanced = at_unit_radius(balanced)
        self._scale(gain, balance, spectral_radius)

    def _scale(self, gain: float, balance: float, spectral_radius: float | None) -> None:
        for name, number in (("gain", gain), ("balance", balance)):
            _check_positive(name, number)
        signed = self._unit_balanced.copy()
        signed.data[~self.excitatory[signed.indices]] *= balance
        if spectral_radius is not None:
            _check_positive("spectral_radius", spectral_radius)
            gain = spectral_radius / spectral_radius_of(signed)
        signed.data *= gain
        self.gain, self.balance = float(gain), float(balance)
        self._set_signed(signed)

    def _multiply_inhibition(self, factors: Float[np.ndarray, " unit"]) -> None:
        signed = self._signed.copy()
        inhibitory = ~self.excitatory[signed.indices]
        signed.data[inhibitory] *= np.repeat(factors, np.diff(signed.indptr))[inhibitory]
        self._set_signed(signed)

    def _set_signed(self, signed: sparse.csr_array) -> None:
        # The CSR matrix keeps links whose strength has come to zero: they exist, and can grow again.
        self._signed = signed
        self.weights = as_weights(signed)

    def rescaled(
        self, *, gain: float | None = None, balance: float | None = None, spectral_radius: float | None = None
    ) -> EIReservoir:
        """A copy with the same links and input weights, not adapted, at another gain, balance or spectral radius.

        It starts from strengths and thresholds before any adaptation: rescaling adapted weights would undo their rates.
        """
        made = copy.copy(self)
        made.threshold, made._shift = self.threshold - self._shift, 0.0
        made._scale(self.gain if gain is None else gain, self.balance if balance is None else balance, spectral_radius)
        return made

    def links(self) -> sparse.csr_array:
        """The signed weights A as CSR, a copy; links whose strength has come to zero are stored as zeros."""
        return self._signed.copy()

    def with_inhibition(self, factors: Float[np.ndarray, " unit"]) -> EIReservoir:
        """A copy whose units receive so many times the inhibition that they receive now; factors are not negative."""
        factors = np.asarray(factors, dtype=np.float64)
        if factors.shape != (self.units,) or not (np.isfinite(factors) & (factors >= 0)).all():
            raise ValueError(f"factors must be {self.units} numbers of at least 0, got shape {factors.shape}")
        made = copy.copy(self)
        made._multiply_inhibition(factors)
        return made

    def incoming_inhibition(self) -> Float[np.ndarray, " unit"]:
        """Sum of the strengths of each unit's inhibitory links."""
        return abs(self._signed).astype(np.float64) @ ~self.excitatory

    def balance_per_node(self) -> Float[np.ndarray, " unit"]:
        """Inhibition over excitation of each unit's incoming strength; NaN where nothing excites it."""
        excitation, inhibition = abs(self._signed).astype(np.float64) @ self.excitatory, self.incoming_inhibition()
        return np.divide(inhibition, excitation, out=np.full(self.units, math.nan), where=excitation > 0)

    def adapt(
        self,
        inputs: Float[np.ndarray, "time input"],
        targets: float | Float[np.ndarray, " unit"],
        *,
        mode: Literal["online", "one_step"] = "online",
        rate: float | None = None,
        tolerance: float = 0.02,
        max_steps: int = 3000,
        window: int = 200,
    ) -> AdaptReport:
        """Change inhibitory strengths, in place, until the rates meet their targets; afterwards they are frozen.

        Use the series that the readout is trained on, never the one that it is tested on.

        Parameters
        ----------
        inputs
            (time, input_dim); the online rule repeats it where it is shorter than `max_steps`.
        targets
            Target rate of all units, or one for each, in (0, 1).
        mode
            "online": equation (2), one step of the local rule for each time step while the input drives the reservoir.
            "one_step": equation (3), from the targets and the mean input, without simulation.
        rate
            delta, change of a strength for each unit of excess rate and step; None: 0.01 gain / 4.
        tolerance
            Online: stop where the mean rate error of a window is below.
        max_steps
            Online: stop after so many steps in any case.
        window
            Steps over which rates are averaged.

        Raises
        ------
        ValueError
            Targets outside (0, 1), another activation than the sigmoid, numbers out of range.

        Warns
        -----
        ConvergenceWarning
            The online rule did not meet its tolerance; the message says how far it is and what to do.
        """
        if mode not in ("online", "one_step"):
            raise ValueError(f"mode must be 'online' or 'one_step', got {mode!r}")
        if mode == "online":
            return self._adapt_online(inputs, targets, "inhibition", rate, tolerance, max_steps, window)
        inputs, targets = self._checked(inputs, targets)
        strengths = abs(self._signed).astype(np.float64)
        current = self.current(inputs.mean(axis=0, keepdims=True))[0].astype(np.float64)
        design = one_step_design(
            strengths @ (targets * self.excitatory), strengths @ (targets * ~self.excitatory), current, targets
        )
        self._multiply_inhibition(design.factors)
        rates = self._rates_after(inputs, window)
        return AdaptReport(
            "one_step", 0, float(np.abs(rates - targets).mean()), rates, targets, int(design.infeasible.sum())
        )

    def adapt_threshold(
        self,
        inputs: Float[np.ndarray, "time input"],
        targets: float | Float[np.ndarray, " unit"],
        *,
        rate: float | None = None,
        tolerance: float = 0.02,
        max_steps: int = 3000,
        window: int = 200,
    ) -> AdaptReport:
        """The control: equation (4) moves each unit's threshold instead, to the same targets; see `adapt`."""
        return self._adapt_online(inputs, targets, "threshold", rate, tolerance, max_steps, window)

    def _adapt_online(
        self,
        inputs: NDArray[np.floating],
        targets: float | NDArray[np.floating],
        adapted: Adapted,
        rate: float | None,
        tolerance: float,
        max_steps: int,
        window: int,
    ) -> AdaptReport:
        inputs, targets = self._checked(inputs, targets)
        rate = ONLINE_RATE * self.gain if rate is None else rate
        for name, number in (("rate", rate), ("tolerance", tolerance), ("max_steps", max_steps), ("window", window)):
            _check_positive(name, number)
        rows = CompressedRows.of(self._signed)
        regulated = regulate(
            rows,
            ~self.excitatory,
            self.current(inputs),
            targets,
            adapted=adapted,
            rate=rate,
            leak_rate=self.leak_rate,
            window=window,
            tolerance=tolerance,
            max_steps=max_steps,
        )
        self.threshold = self.threshold + regulated.threshold
        self._shift = self._shift + regulated.threshold
        self._set_signed(
            sparse.csr_array((regulated.values, self._signed.indices, self._signed.indptr), shape=self._signed.shape)
        )
        infeasible = self._without_inhibition() & (regulated.last_rates[1] < targets) | self._without_inhibitory_links()
        n_infeasible = int(infeasible.sum()) if adapted == "inhibition" else 0
        advice = f"raise max_steps or rate ({n_infeasible} units cannot meet their target by inhibition)"
        converged = warn_if_not_converged(regulated, targets, tolerance, advice)
        rates = self._rates_after(inputs, window)
        return AdaptReport(
            "online" if adapted == "inhibition" else "threshold",
            regulated.steps,
            float(np.abs(rates - targets).mean()),
            rates,
            targets,
            n_infeasible,
            converged,
            regulated.history,
            min(window, max_steps),
        )

    def _without_inhibition(self) -> Bool[np.ndarray, " unit"]:
        return self.incoming_inhibition() == 0

    def _without_inhibitory_links(self) -> Bool[np.ndarray, " unit"]:
        inhibitory = ~self.excitatory[self._signed.indices]
        per_unit = np.add.reduceat(np.r_[inhibitory, False], self._signed.indptr[:-1], dtype=int)
        return (per_unit == 0) | (np.diff(self._signed.indptr) == 0)

    def _rates_after(self, inputs: NDArray[np.floating], window: int) -> Float[np.ndarray, " unit"]:
        return self.rates(inputs, washout=min(window, len(inputs) // 2))

    def _checked(
        self, inputs: ArrayLike, targets: ArrayLike
    ) -> tuple[Float[np.ndarray, "time input"], Float[np.ndarray, " unit"]]:
        inputs, single = self.checked_inputs(inputs)
        if not single:
            raise ValueError(f"adaptation takes one series (time, {self.input_dim}), got shape {inputs.shape}")
        if self.activation != "sigmoid":
            raise ValueError(f"target rates belong to activation='sigmoid', got {self.activation!r}")
        targets = np.asarray(targets, dtype=np.float64)
        if targets.shape not in ((), (self.units,)):
            raise ValueError(f"targets must be one rate or one for each of the {self.units} units, got {targets.shape}")
        if not ((targets > 0) & (targets < 1)).all():
            raise ValueError(
                f"targets must be in (0, 1), the range of a sigmoid, got {targets.min()} to {targets.max()}"
            )
        return inputs[:, 0], np.broadcast_to(targets, self.units).copy()


def _check_positive(name: str, number: float) -> None:
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a positive number, got {number!r}")
