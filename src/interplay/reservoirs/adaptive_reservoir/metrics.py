"""How well a reservoir remembers, predicts and spreads its states."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from interplay.reservoirs.adaptive_reservoir.readout import fit_readout

__all__ = ["delayed", "effective_rank", "memory_capacity", "nrmse", "squared_correlation", "valid_time"]


def squared_correlation(
    actual: Float[np.ndarray, "time output"], predicted: Float[np.ndarray, "time output"]
) -> Float[np.ndarray, " output"]:
    """Squared Pearson correlation of each column; zero where a column does not vary."""
    actual, predicted = actual - actual.mean(axis=0), predicted - predicted.mean(axis=0)
    product = (actual * predicted).sum(axis=0) ** 2
    power = (actual**2).sum(axis=0) * (predicted**2).sum(axis=0)
    return np.divide(product, power, out=np.zeros_like(product), where=power > 0)


def delayed(inputs: Float[np.ndarray, " time"], max_lag: int) -> Float[np.ndarray, "time_minus_lag lag"]:
    """What a memory task asks for: column k - 1 holds u(t - k) for k = 1 ... max_lag, row 0 belongs to t = max_lag."""
    inputs = np.asarray(inputs).reshape(-1)
    if len(inputs) <= max_lag:
        raise ValueError(f"inputs must be longer than the {max_lag} lags, got {len(inputs)} steps")
    return np.lib.stride_tricks.sliding_window_view(inputs[:-1], max_lag)[:, ::-1]


def memory_capacity(
    states: Float[np.ndarray, "time unit"],
    inputs: Float[np.ndarray, " time"],
    *,
    max_lag: int = 60,
    train_steps: int = 2000,
    washout: int = 200,
    ridge: float = 1e-7,
) -> float:
    """Sum over lags of the squared correlation of u(t - k) with its reconstruction, on steps not trained on.

    `inputs` should be white noise. On the steps of training the figure would exceed what a reservoir can hold: a linear
    readout fits noise.

    Parameters
    ----------
    states
        States that the whole of `inputs` led to.
    inputs
        One channel, (time,) or (time, 1).
    max_lag
        Longest delay k.
    train_steps
        Steps that train the readout, after `washout` steps that are left out; the rest is the test.

    Raises
    ------
    ValueError
        Too few steps; the message says how many are needed.
    """
    inputs = np.asarray(inputs).reshape(-1)
    start = max(washout, max_lag)
    needed = start + train_steps + max_lag
    if len(states) != len(inputs) or len(inputs) < needed:
        raise ValueError(
            f"states and inputs must be of equal length, at least {needed} steps (washout or lags {start}, training "
            f"{train_steps}, test {max_lag} or more), got {len(states)} and {len(inputs)}"
        )
    wanted, seen = delayed(inputs, max_lag)[start - max_lag :], states[start:]
    readout = fit_readout(seen[:train_steps], wanted[:train_steps], ridge)
    return float(squared_correlation(wanted[train_steps:], readout.predict(seen[train_steps:])).sum())


def nrmse(actual: Float[np.ndarray, "time ..."], predicted: Float[np.ndarray, "time ..."]) -> float:
    """Root mean squared error over the standard deviation of what was wanted; outputs are averaged in the square."""
    if actual.shape != predicted.shape:
        raise ValueError(f"actual and predicted must have one shape, got {actual.shape} and {predicted.shape}")
    variance = actual.var(axis=0)
    if not (variance > 0).all():
        raise ValueError("actual must vary: the error of a constant cannot be normalised")
    return float(np.sqrt((((actual - predicted) ** 2).mean(axis=0) / variance).mean()))


def valid_time(
    actual: Float[np.ndarray, "time output"],
    predicted: Float[np.ndarray, "time output"],
    *,
    threshold: float = 0.4,
    dt: float = 1.0,
) -> float:
    """Time until a free-running forecast is off by `threshold` standard deviations of what was wanted.

    The error of a step is the Euclidean norm over outputs, over the root of their summed variances. Where the
    threshold is never crossed, the length of the forecast is returned.
    """
    if actual.shape != predicted.shape or actual.ndim != 2:
        raise ValueError(f"actual and predicted must be (time, output) alike, got {actual.shape} and {predicted.shape}")
    error = np.linalg.norm(actual - predicted, axis=1) / np.sqrt(actual.var(axis=0).sum())
    # NaN compares false with everything, and counts as off.
    off = ~(error <= threshold)
    return float(dt * (off.argmax() if off.any() else len(off)))


def effective_rank(states: Float[np.ndarray, "time unit"]) -> float:
    """exp of the entropy of the normalised singular values of the centred states (Roy and Vetterli 2007).

    Between 1 and the number of units: how many directions the states really use.
    """
    singular = np.linalg.svd(states - states.mean(axis=0), compute_uv=False)
    total = singular.sum()
    if not total > 0:
        raise ValueError("states must vary")
    share = singular[singular > 0] / total
    return float(np.exp(-(share * np.log(share)).sum()))
