"""The linear readout of a reservoir: ridge regression, for many penalties at the price of one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

__all__ = ["Readout", "fit_readout", "fit_readouts"]


class Readout(NamedTuple):
    """y = states @ coefficients + intercept."""

    coefficients: Float[np.ndarray, "unit output"]
    intercept: Float[np.ndarray, " output"]

    def predict(self, states: Float[np.ndarray, "time unit"]) -> Float[np.ndarray, "time output"]:
        """Outputs, (time, outputs)."""
        return states @ self.coefficients + self.intercept


def fit_readout(
    states: Float[np.ndarray, "time unit"], outputs: Float[np.ndarray, "time output"], ridge: float = 1e-7
) -> Readout:
    """Minimise the sum of squared errors + ridge x the sum of squared coefficients; the intercept is not penalised.

    Raises
    ------
    ValueError
        Numbers of rows that differ, or a negative ridge.
    """
    return fit_readouts(states, outputs, (ridge,))[0]


def fit_readouts(
    states: Float[np.ndarray, "time unit"], outputs: Float[np.ndarray, "time output"], ridges: tuple[float, ...]
) -> list[Readout]:
    """One readout for each ridge, from one eigendecomposition of the states' second moments."""
    if states.ndim != 2 or outputs.ndim != 2 or len(states) != len(outputs) or not len(states):
        raise ValueError(
            f"states and outputs must be (time, units) and (time, outputs) of equal, positive length, got shapes "
            f"{states.shape} and {outputs.shape}"
        )
    if not all(ridge >= 0 for ridge in ridges):
        raise ValueError(f"ridge must be a number of at least 0, got {min(ridges)!r}")
    states = states.astype(np.float64, copy=False)
    state_mean, output_mean = states.mean(axis=0), outputs.mean(axis=0)
    centred = states - state_mean
    eigenvalues, axes = np.linalg.eigh(centred.T @ centred)
    # Rounding leaves directions without variance at about this size, of either sign: they carry no signal.
    kept = eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float64).eps
    axes, eigenvalues = axes[:, kept], eigenvalues[kept, None]
    projected = axes.T @ (centred.T @ (outputs - output_mean))
    fits = (axes @ (projected / (eigenvalues + ridge)) for ridge in ridges)
    return [Readout(coefficients, output_mean - state_mean @ coefficients) for coefficients in fits]
