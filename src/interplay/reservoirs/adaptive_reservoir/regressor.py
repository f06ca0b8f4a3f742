"""The reservoir with its readout as a scikit-learn regressor."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from interplay.reservoirs.adaptive_reservoir import targets
from interplay.reservoirs.adaptive_reservoir.adaptation import AdaptReport
from interplay.reservoirs.adaptive_reservoir.balanced import EIReservoir
from interplay.reservoirs.adaptive_reservoir.dynamics import Activation
from interplay.reservoirs.adaptive_reservoir.readout import Readout, fit_readout

__all__ = ["EIReservoirRegressor"]


class EIReservoirRegressor(RegressorMixin, BaseEstimator):
    """Predict one series from another: an adapted reservoir, frozen, and a ridge regression on its states.

    Rows are time steps: X is one series (time, features), and y says what to predict at each step, for instance the
    next value. `fit` draws the reservoir, adapts it to X (without y), freezes it, and trains the readout.

    Parameters
    ----------
    units, excitatory_fraction, connectivity, gain, balance, spectral_radius, input_scaling
        The reservoir's weights, see `EIReservoir`. Inputs are not scaled: put a `StandardScaler` in front.
    threshold, activation, leak_rate, dtype
        The reservoir's dynamics, see `EIReservoir`. Adaptation needs the sigmoid.
    adaptation
        "one_step" or "online": how inhibition is set, see `EIReservoir.adapt`; None leaves it as `balance` says.
    target_rate
        Target of the mean rates, in (0, 1).
    concentration
        Spread of targets over units: they are drawn from a Beta distribution of this concentration; None: all the same.
    adaptation_rate, tolerance, max_steps
        Of the online rule.
    ridge
        Penalty of the readout, as in ReservoirPy added to the sums of squares.
    washout
        Steps at the start that do not train the readout; None: a tenth of the series, 100 at most.
    input_to_readout
        Whether the readout also sees the input.
    initial_state
        Where `predict` starts: "after_fit", in the state after the last step of fit, for series that go on from there
        (the folds of `TimeSeriesSplit` do); or at "rest".
    random_state
        An int, or a `numpy.random.Generator`; None draws another reservoir each time.

    Attributes
    ----------
    reservoir_
        The frozen `EIReservoir`.
    adapt_report_
        What adaptation did (`AdaptReport`); None without.
    readout_
        Coefficients and intercept.
    n_features_in_
        Number of input channels.

    Examples
    --------
    >>> import numpy as np
    >>> from interplay.reservoirs.adaptive_reservoir import EIReservoirRegressor
    >>> series = np.sin(0.3 * np.arange(600))[:, None]
    >>> model = EIReservoirRegressor(units=50, random_state=0).fit(series[:400], series[1:401])
    >>> bool(model.score(series[400:-1], series[401:]) > 0.99)
    True
    """

    def __init__(
        self,
        units: int = 200,
        *,
        excitatory_fraction: float = 0.8,
        connectivity: float = 0.1,
        gain: float = 2.0,
        balance: float = 1.0,
        spectral_radius: float | None = None,
        input_scaling: float = 0.5,
        threshold: ArrayLike = 0.0,
        activation: Activation = "sigmoid",
        leak_rate: ArrayLike = 1.0,
        dtype: type[np.floating] = np.float64,
        adaptation: Literal["one_step", "online"] | None = "one_step",
        target_rate: float = 0.4,
        concentration: float | None = None,
        adaptation_rate: float | None = None,
        tolerance: float = 0.02,
        max_steps: int = 3000,
        ridge: float = 1e-7,
        washout: int | None = None,
        input_to_readout: bool = False,
        initial_state: Literal["after_fit", "rest"] = "after_fit",
        random_state: int | np.random.Generator | None = None,
    ) -> None:
        self.units = units
        self.excitatory_fraction = excitatory_fraction
        self.connectivity = connectivity
        self.gain = gain
        self.balance = balance
        self.spectral_radius = spectral_radius
        self.input_scaling = input_scaling
        self.threshold = threshold
        self.activation = activation
        self.leak_rate = leak_rate
        self.dtype = dtype
        self.adaptation = adaptation
        self.target_rate = target_rate
        self.concentration = concentration
        self.adaptation_rate = adaptation_rate
        self.tolerance = tolerance
        self.max_steps = max_steps
        self.ridge = ridge
        self.washout = washout
        self.input_to_readout = input_to_readout
        self.initial_state = initial_state
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> EIReservoirRegressor:
        """Draw, adapt and freeze the reservoir, then train the readout.

        Parameters
        ----------
        X
            (time, features).
        y
            (time,) or (time, outputs).

        Raises
        ------
        ValueError
            Too few steps (with the number that is needed), values that are not finite, settings out of range.
        """
        X, y = validate_data(self, X, y, multi_output=True, y_numeric=True, dtype=np.float64)
        if self.initial_state not in ("after_fit", "rest"):
            raise ValueError(f"initial_state must be 'after_fit' or 'rest', got {self.initial_state!r}")
        washout = min(100, len(X) // 10) if self.washout is None else self.washout
        if washout < 0 or len(X) < washout + 2:
            raise ValueError(
                f"n_samples={len(X)} is too short: washout {washout} and at least two steps of training need "
                f"{max(washout, 0) + 2}"
            )
        generator = np.random.default_rng(self.random_state)
        self.reservoir_ = EIReservoir(
            self.units,
            X.shape[1],
            excitatory_fraction=self.excitatory_fraction,
            connectivity=self.connectivity,
            gain=self.gain,
            balance=self.balance,
            spectral_radius=self.spectral_radius,
            input_scaling=self.input_scaling,
            threshold=self.threshold,
            activation=self.activation,
            leak_rate=self.leak_rate,
            dtype=self.dtype,
            seed=generator,
        )
        self.adapt_report_ = self._adapt(X, generator) if self.adaptation else None
        states = self.reservoir_.run(X)
        self._state_after_fit = states[-1].copy()
        outputs = y.reshape(len(y), -1)
        self.readout_: Readout = fit_readout(self._features(states, X)[washout:], outputs[washout:], self.ridge)
        self._single_output = y.ndim == 1
        return self

    def predict(self, X: ArrayLike) -> Float[np.ndarray, "time ..."]:
        """What the readout says at each step of a series: (time,) or (time, outputs), as y was."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        state = self._state_after_fit if self.initial_state == "after_fit" else None
        predicted = self.readout_.predict(self._features(self.reservoir_.run(X, state), X))
        return predicted[:, 0] if self._single_output else predicted

    def generate(self, steps: int, warm_up: ArrayLike | None = None) -> Float[np.ndarray, "time output"]:
        """Forecast freely: each prediction is the next input.

        Parameters
        ----------
        steps
            Length of the forecast.
        warm_up
            Series (time, features) that the forecast goes on from, started at rest; None: the series of fit.

        Raises
        ------
        ValueError
            The model was not trained to predict its own inputs, one output for each feature.
        """
        check_is_fitted(self)
        if len(self.readout_.intercept) != self.n_features_in_:
            raise ValueError(
                f"generate feeds predictions back as inputs: it needs as many outputs as the {self.n_features_in_} "
                f"features, got {len(self.readout_.intercept)}"
            )
        if self.input_to_readout:
            raise ValueError("generate needs a readout of the states alone; set input_to_readout=False")
        state = self._state_after_fit
        if warm_up is not None:
            state = self.reservoir_.run(validate_data(self, warm_up, reset=False, dtype=np.float64))[-1]
        forecast = np.empty((steps, self.n_features_in_))
        for t in range(steps):
            forecast[t] = self.readout_.predict(state)
            state = self.reservoir_.step(forecast[t], state)
        return forecast

    def _adapt(self, X: NDArray[np.float64], generator: np.random.Generator) -> AdaptReport:
        if self.concentration is None:
            rates = targets.homogeneous(self.units, self.target_rate)
        else:
            rates = targets.beta(self.units, self.target_rate, self.concentration, generator=generator)
        return self.reservoir_.adapt(
            X,
            rates,
            mode=self.adaptation,
            rate=self.adaptation_rate,
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )

    def _features(self, states: NDArray[np.floating], X: NDArray[np.float64]) -> NDArray[np.floating]:
        return np.hstack([states, X]) if self.input_to_readout else states
