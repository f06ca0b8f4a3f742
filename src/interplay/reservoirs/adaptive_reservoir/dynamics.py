"""The recurrence of a driven reservoir, equation (1), for one series or a batch, with dense or sparse weights.

One series runs in a compiled loop. Each step reads the whole matrix once, so time goes with its bytes: a dense matrix
goes through BLAS, a sparse one through four independent sums a row, which hide the latency of the additions. Several
series share each reading of the matrix, as one matrix product a step.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

from interplay.reservoirs.adaptive_reservoir.kernels import run_dense, run_sparse, run_sparse_batch

__all__ = ["Activation", "CompressedRows", "Weights", "input_current", "run_series"]

Activation = Literal["sigmoid", "tanh"]
Weights = NDArray[np.floating] | sparse.csr_array

_SHARED_FROM = 16  # series; with fewer, one after the other is as fast as a matrix product or faster


class CompressedRows(NamedTuple):
    """A sparse matrix as the kernels read it: row i holds the entries from row_starts[i] up to row_starts[i + 1]."""

    row_starts: NDArray[np.uint32]
    columns: NDArray[np.uint32]
    values: NDArray[np.floating]

    @classmethod
    def of(cls, weights: Weights) -> CompressedRows:
        """The entries that are not zero, sorted by row and column; `values` is a copy."""
        matrix = sparse.csr_array(weights, copy=True)
        matrix.sum_duplicates()
        return cls(matrix.indptr.astype(np.uint32), matrix.indices.astype(np.uint32), matrix.data)


def run_series(
    weights: Weights,
    input_weights: Float[np.ndarray, "unit input"],
    threshold: Float[np.ndarray, " unit"],
    inputs: Float[np.ndarray, "time batch input"],
    state: Float[np.ndarray, "batch unit"],
    *,
    activation: Activation,
    leak_rate: Float[np.ndarray, " unit"],
) -> Float[np.ndarray, "time batch unit"]:
    """States that inputs drive a reservoir through.

    Parameters
    ----------
    weights
        (unit, unit), from column to row; a C-contiguous array or a CSR array, float32 or float64.
    input_weights, inputs, state
        Of the dtype of `weights`; `state` is where the series start.
    threshold, leak_rate
        float64, one number for each unit.
    activation
        "sigmoid" or "tanh".
    """
    steps, batch, _ = inputs.shape
    sigmoid = activation == "sigmoid"
    rows = CompressedRows.of(weights) if sparse.issparse(weights) else None
    if batch >= _SHARED_FROM:
        current = input_current(input_weights, threshold, inputs)
        if rows:
            run_sparse_batch(*rows, current, state.T.copy(), leak_rate, sigmoid)
        else:
            _run_dense_batch(weights, current, state.copy(), leak_rate.astype(current.dtype), sigmoid)
        return current
    states = np.empty((steps, batch, len(state[0])), state.dtype)
    for b in range(batch):
        series, start = np.ascontiguousarray(inputs[:, b]), state[b].copy()
        reached = states[:, 0] if batch == 1 else np.empty_like(states[:, b])
        if rows:
            run_sparse(*rows, input_weights, threshold, series, start, leak_rate, sigmoid, reached)
        else:
            run_dense(weights, input_weights, threshold, series, start, leak_rate, sigmoid, reached)
        if batch > 1:
            states[:, b] = reached
    return states


def input_current(
    input_weights: Float[np.ndarray, "unit input"],
    threshold: Float[np.ndarray, " unit"],
    inputs: Float[np.ndarray, "*time input"],
) -> Float[np.ndarray, "*time unit"]:
    """The input's part of the drive, Win u(t) - threshold, in the dtype of the input weights."""
    current = inputs @ input_weights.T
    current -= threshold.astype(current.dtype)
    return current


def _run_dense_batch(
    weights: NDArray[np.floating],
    current: NDArray[np.floating],
    state: NDArray[np.floating],
    leak_rate: NDArray[np.floating],
    sigmoid: bool,
) -> None:
    leaky = bool((leak_rate != 1).any())
    activity = np.empty_like(state)
    for drive in current:
        np.matmul(state, weights.T, out=activity)
        activity += drive
        if sigmoid:  # 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2, which cannot overflow
            activity *= 0.5
            np.tanh(activity, out=activity)
            activity += 1
            activity *= 0.5
        else:
            np.tanh(activity, out=activity)
        if leaky:
            activity -= state
            activity *= leak_rate
            state += activity
        else:
            state[:] = activity
        drive[:] = state
