"""A reservoir of any weights: the plain echo state network, and what the balanced one inherits."""

from __future__ import annotations

from typing import get_args

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from interplay.reservoirs.adaptive_reservoir.dynamics import Activation, Weights, input_current, run_series
from interplay.reservoirs.adaptive_reservoir.weights import as_weights, at_unit_radius

__all__ = ["Reservoir"]


class Reservoir:
    """A recurrent network with fixed weights, driven by an input.

    x(t+1) = (1 - leak_rate) x(t) + leak_rate f(W x(t) + Win u(t) - threshold), f a sigmoid or tanh. Row t of a series'
    states is the state that input row t leads to.

    Parameters
    ----------
    weights
        W, (units, units), from column to row: an array or any SciPy sparse matrix. Weights of which fewer than a
        quarter are not zero are kept as CSR. float32 stays float32; all else becomes float64.
    input_weights
        Win, (units, input_dim).
    threshold
        What is subtracted from the drive, one number or one for each unit; ReservoirPy's `bias` with its sign reversed.
    activation
        "sigmoid" or "tanh".
    leak_rate
        In (0, 1], one number or one for each unit; ReservoirPy's `lr`.

    Attributes
    ----------
    weights, input_weights, threshold, leak_rate
        As given, checked; `threshold` and `leak_rate` with one number for each unit.

    Raises
    ------
    ValueError
        Shapes that do not fit, numbers out of range or not finite.
    """

    def __init__(
        self,
        weights: ArrayLike | Weights,
        input_weights: ArrayLike,
        *,
        threshold: ArrayLike = 0.0,
        activation: Activation = "tanh",
        leak_rate: ArrayLike = 1.0,
    ) -> None:
        self.weights = as_weights(weights)
        units = self.weights.shape[0]
        self.input_weights = np.array(input_weights, dtype=self.dtype)
        if self.input_weights.ndim != 2 or len(self.input_weights) != units:
            raise ValueError(
                f"input_weights must be (units, input_dim) with {units} units, got shape {self.input_weights.shape}"
            )
        if activation not in get_args(Activation):
            raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}")
        self.activation = activation
        self.threshold = _for_each_unit("threshold", threshold, units)
        self.leak_rate = _for_each_unit("leak_rate", leak_rate, units)
        if not ((self.leak_rate > 0) & (self.leak_rate <= 1)).all():
            raise ValueError(f"leak_rate must be in (0, 1], got {leak_rate!r}")
        for name, array in (("input_weights", self.input_weights), ("threshold", self.threshold)):
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")

    @classmethod
    def random(
        cls,
        units: int = 500,
        input_dim: int = 1,
        *,
        spectral_radius: float = 0.9,
        connectivity: float = 0.1,
        input_scaling: float = 0.5,
        bias_scaling: float = 0.0,
        activation: Activation = "tanh",
        leak_rate: ArrayLike = 1.0,
        dtype: type[np.floating] = np.float64,
        seed: int | np.random.Generator | None = None,
    ) -> Reservoir:
        """A plain echo state network: Gaussian weights of either sign, at random places.

        Input weights are drawn from U(-input_scaling, input_scaling), thresholds likewise with `bias_scaling`; all else
        is as in ReservoirPy.

        Raises
        ------
        ValueError
            No closed loop of links: the spectral radius cannot be set.
        """
        generator = np.random.default_rng(seed)
        weights = sparse.random_array(
            (units, units), density=connectivity, format="csr", rng=generator, data_sampler=generator.standard_normal
        )
        weights = at_unit_radius(weights) * spectral_radius
        input_weights = input_scaling * generator.uniform(-1, 1, size=(units, input_dim))
        threshold = bias_scaling * generator.uniform(-1, 1, size=units)
        return cls(
            weights.astype(dtype), input_weights, threshold=threshold, activation=activation, leak_rate=leak_rate
        )

    @property
    def units(self) -> int:
        """Number of units."""
        return int(self.weights.shape[0])

    @property
    def input_dim(self) -> int:
        """Number of input channels."""
        return int(self.input_weights.shape[1])

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Precision of the weights and of the states."""
        return self.weights.dtype

    def run(
        self,
        inputs: Float[np.ndarray, "time input"] | Float[np.ndarray, "time batch input"],
        state: Float[np.ndarray, " unit"] | Float[np.ndarray, "batch unit"] | None = None,
    ) -> Float[np.ndarray, "time unit"] | Float[np.ndarray, "time batch unit"]:
        """States of one series (time, input_dim), or of several at once (time, batch, input_dim).

        Parameters
        ----------
        inputs
            The series. Many together share every reading of the weights: one matrix product a step.
        state
            Where to start, (units,) or (batch, units); None: at rest, zero.

        Returns
        -------
        ndarray
            (time, units) or (time, batch, units).

        Raises
        ------
        ValueError
            Wrong number of dimensions or channels, NaN or infinity (with its place).
        """
        inputs, single = self.checked_inputs(inputs)
        batch = inputs.shape[1]
        shape = (self.units,) if single else (batch, self.units)
        state = np.zeros(shape) if state is None else np.asarray(state)
        if state.shape != shape:
            raise ValueError(f"state must have shape {shape}, got {state.shape}")
        states = run_series(
            self.weights,
            self.input_weights,
            self.threshold,
            inputs.astype(self.dtype, copy=False),
            state.reshape(batch, self.units).astype(self.dtype, copy=False),
            activation=self.activation,
            leak_rate=self.leak_rate,
        )
        return states[:, 0] if single else states

    def step(
        self, inputs: Float[np.ndarray, "... input"], state: Float[np.ndarray, "... unit"] | None = None
    ) -> Float[np.ndarray, "... unit"]:
        """The state that one input leads to: (input_dim,) to (units,), or (batch, input_dim) to (batch, units)."""
        return self.run(np.asarray(inputs)[None], state)[0]

    def rates(
        self, inputs: Float[np.ndarray, "time input"], *, washout: int = 100, state: NDArray[np.floating] | None = None
    ) -> Float[np.ndarray, " unit"]:
        """Mean activity of each unit while the input drives it, the first `washout` steps left out."""
        states = self.run(inputs, state)
        if not 0 <= washout < len(states):
            raise ValueError(f"washout must be at least 0 and less than the {len(states)} steps, got {washout}")
        return states[washout:].reshape(-1, self.units).mean(axis=0, dtype=np.float64)

    def current(self, inputs: Float[np.ndarray, "time input"]) -> Float[np.ndarray, "time unit"]:
        """The input's part of the drive, Win u(t) - threshold."""
        return input_current(self.input_weights, self.threshold, inputs.astype(self.dtype, copy=False))

    def checked_inputs(self, inputs: ArrayLike) -> tuple[Float[np.ndarray, "time batch input"], bool]:
        """Inputs with a batch dimension, and whether it was added."""
        inputs = np.asarray(inputs)
        if inputs.ndim not in (2, 3) or inputs.shape[-1] != self.input_dim:
            hint = "; reshape one channel with inputs[:, None]" if inputs.ndim == 1 else ""
            raise ValueError(
                f"inputs must be (time, {self.input_dim}) or (time, batch, {self.input_dim}), "
                f"got shape {inputs.shape}{hint}"
            )
        if not np.issubdtype(inputs.dtype, np.number) or np.iscomplexobj(inputs):
            raise TypeError(f"inputs must be real numbers, got {inputs.dtype}")
        if not len(inputs) or not inputs.size:
            raise ValueError(f"inputs must hold at least one step, got shape {inputs.shape}")
        if not np.isfinite(inputs).all():
            place = tuple(int(axis) for axis in np.argwhere(~np.isfinite(inputs))[0])
            raise ValueError(f"inputs must be finite, got {inputs[place]} at index {place}")
        return (inputs[:, None], True) if inputs.ndim == 2 else (inputs, False)


def _for_each_unit(name: str, values: ArrayLike, units: int) -> Float[np.ndarray, " unit"]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((), (1,), (units,), (units, 1)):
        raise ValueError(f"{name} must be one number or one for each of the {units} units, got shape {array.shape}")
    return np.broadcast_to(array.reshape(-1), units).copy()
