"""The recurrence of a driven reservoir, equation (1), for one series or a batch, with dense or sparse weights.

One series runs in a compiled loop. Each step reads the whole matrix once, so time goes with its bytes: a dense matrix
goes through BLAS, a sparse one through four independent sums a row, which hide the latency of the additions. Several
series share each reading of the matrix, as one matrix product a step.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numba
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["Activation", "CompressedRows", "Weights", "input_current", "run_series"]

Activation = Literal["sigmoid", "tanh"]
Weights = NDArray[np.floating] | sparse.csr_array

_U = numba.uint64  # indices of this type need no test for being negative
_SHARED_FROM = 16  # series; with fewer, one after the other is as fast as a matrix product or faster
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6


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
            _run_sparse_batch(*rows, current, state.T.copy(), leak_rate, sigmoid)
        else:
            _run_dense_batch(weights, current, state.copy(), leak_rate.astype(current.dtype), sigmoid)
        return current
    states = np.empty((steps, batch, len(state[0])), state.dtype)
    for b in range(batch):
        series, start = np.ascontiguousarray(inputs[:, b]), state[b].copy()
        reached = states[:, 0] if batch == 1 else np.empty_like(states[:, b])
        if rows:
            _run_sparse(*rows, input_weights, threshold, series, start, leak_rate, sigmoid, reached)
        else:
            _run_dense(weights, input_weights, threshold, series, start, leak_rate, sigmoid, reached)
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


@numba.njit(cache=True, fastmath={"contract"})
def _run_dense(weights, input_weights, threshold, inputs, state, leak_rate, sigmoid, states):
    product = np.empty_like(state)
    drive, scratch = np.empty(state.size), np.empty(state.size)
    for t in range(inputs.shape[0]):
        np.dot(weights, state, product)
        drive[:] = product
        _add_input(drive, input_weights, threshold, inputs[t])
        activate(drive, scratch, sigmoid)
        _leak(state, drive, leak_rate)
        states[t] = state


@numba.njit(cache=True, fastmath={"contract"})
def _run_sparse(row_starts, columns, values, input_weights, threshold, inputs, state, leak_rate, sigmoid, states):
    drive, scratch = np.empty(state.size), np.empty(state.size)
    for t in range(inputs.shape[0]):
        sparse_product(row_starts, columns, values, state, drive)
        _add_input(drive, input_weights, threshold, inputs[t])
        activate(drive, scratch, sigmoid)
        _leak(state, drive, leak_rate)
        states[t] = state


@numba.njit(cache=True, fastmath={"contract"})
def _add_input(drive, input_weights, threshold, u):
    for i in range(drive.size):
        current = -threshold[i]
        for k in range(u.size):
            current += input_weights[i, k] * u[k]
        drive[i] += current


@numba.njit(cache=True, fastmath={"contract"})
def _leak(state, activity, leak_rate):
    for i in range(state.size):
        state[i] += leak_rate[i] * (activity[i] - state[i])


@numba.njit(cache=True, fastmath={"contract"})
def _run_sparse_batch(row_starts, columns, values, current, state, leak_rate, sigmoid):
    units, batch = state.shape
    drive, scratch = np.empty(units * batch), np.empty(units * batch)
    for t in range(current.shape[0]):
        k = _U(0)
        for i in range(_U(units)):
            end, row = _U(row_starts[i + _U(1)]), drive[i * _U(batch) : (i + _U(1)) * _U(batch)]
            row[:] = current[t, :, i]
            while k < end:
                value, source = values[k], state[columns[k]]
                for b in range(_U(batch)):
                    row[b] += value * source[b]
                k += _U(1)
        activate(drive, scratch, sigmoid)
        for i in range(_U(units)):
            for b in range(_U(batch)):
                state[i, b] += leak_rate[i] * (drive[i * _U(batch) + b] - state[i, b])
                current[t, b, i] = state[i, b]


@numba.njit(cache=True, fastmath={"contract"})
def sparse_product(row_starts, columns, values, x, y):
    """Kernel: y = A x."""
    zero = values.dtype.type(0)
    k = _U(0)
    for i in range(_U(y.size)):
        end = _U(row_starts[i + _U(1)])
        first, second, third, fourth = zero, zero, zero, zero
        while k + _U(4) <= end:
            first += values[k] * x[columns[k]]
            second += values[k + _U(1)] * x[columns[k + _U(1)]]
            third += values[k + _U(2)] * x[columns[k + _U(2)]]
            fourth += values[k + _U(3)] * x[columns[k + _U(3)]]
            k += _U(4)
        while k < end:
            first += values[k] * x[columns[k]]
            k += _U(1)
        y[i] = (first + second) + (third + fourth)


@numba.njit(cache=True, fastmath={"contract"})
def activate(drive, scratch, sigmoid):
    """Kernel: drive <- 1 / (1 + exp(-drive)), or tanh(drive), in place, to 4e-16; float64.

    The compiler turns these loops into vector instructions, which it cannot do with calls of a library's tanh. With z
    = 2x = k ln 2 + r and e = 2^k exp(r) - 1, tanh(x) = e / (e + 2).
    """
    double = 1.0 if sigmoid else 2.0  # sigmoid(x) = (1 + tanh(x / 2)) / 2
    exponents = scratch.view(np.int64)
    for i in range(drive.size):
        z = min(max(double * drive[i], -40.0), 40.0)
        k = np.floor(z * _LOG2_E + 0.5)
        r = (z - k * _LN2_HIGH) - k * _LN2_LOW
        p = 1 / 6227020800
        p = p * r + 1 / 479001600
        p = p * r + 1 / 39916800
        p = p * r + 1 / 3628800
        p = p * r + 1 / 362880
        p = p * r + 1 / 40320
        p = p * r + 1 / 5040
        p = p * r + 1 / 720
        p = p * r + 1 / 120
        p = p * r + 1 / 24
        p = p * r + 1 / 6
        p = p * r + 0.5
        p = p * r + 1.0
        drive[i] = p * r
        exponents[i] = (np.int64(k) + 1023) << 52
    for i in range(drive.size):
        e = scratch[i] * drive[i] + (scratch[i] - 1.0)
        drive[i] = e / (e + 2.0)
    if sigmoid:
        for i in range(drive.size):
            drive[i] = 0.5 + 0.5 * drive[i]
