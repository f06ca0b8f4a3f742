"""The compiled loops, in one file: numba's cache notices changes of a kernel's own file, not of what that imports."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["activate", "regulate_rates", "run_dense", "run_sparse", "run_sparse_batch", "sparse_product"]

_U = numba.uint64  # indices of this type need no test for being negative
_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.42860682030941723212e-6


@numba.njit(cache=True, fastmath={"contract"})
def run_dense(weights, input_weights, threshold, inputs, state, leak_rate, sigmoid, states):
    """Kernel: the states of one series, by a BLAS product a step; `state` ends at the last."""
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
def run_sparse(row_starts, columns, values, input_weights, threshold, inputs, state, leak_rate, sigmoid, states):
    """Kernel: the states of one series, by a sparse product a step; `state` ends at the last."""
    drive, scratch = np.empty(state.size), np.empty(state.size)
    for t in range(inputs.shape[0]):
        sparse_product(row_starts, columns, values, state, drive)
        _add_input(drive, input_weights, threshold, inputs[t])
        activate(drive, scratch, sigmoid)
        _leak(state, drive, leak_rate)
        states[t] = state


@numba.njit(cache=True, fastmath={"contract"})
def run_sparse_batch(row_starts, columns, values, current, state, leak_rate, sigmoid):
    """Kernel: the states of many series in place of their currents; `state` is (unit, batch)."""
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
def regulate_rates(
    rows,
    entry_starts,
    entries,
    current,
    targets,
    of_threshold,
    rate,
    leak_rate,
    shift,
    window,
    tolerance,
    history,
    last_rates,
):
    """Kernel: equation (2) or (4) window by window; changes `values` or `shift`, returns the number of steps."""
    row_starts, columns, values = rows
    units = targets.size
    state, drive, scratch = np.zeros(units, values.dtype), np.empty(units), np.empty(units)
    total = np.zeros(units)
    for number in range(history.size):
        total[:] = 0.0
        for t in range(number * window, (number + 1) * window):
            sparse_product(row_starts, columns, values, state, drive)
            for i in range(units):
                drive[i] += current[t % current.shape[0], i] - shift[i]
            activate(drive, scratch, True)
            for i in range(units):
                state[i] += leak_rate[i] * (drive[i] - state[i])
                total[i] += state[i]
                # The arithmetic of primitives.homeostasis; values of inhibitory entries are minus their strength.
                change = rate * (state[i] - targets[i])
                if of_threshold:
                    shift[i] += change
                else:
                    for e in range(entry_starts[i], entry_starts[i + 1]):
                        values[entries[e]] = min(values[entries[e]] - change, 0.0)
        error = 0.0
        for i in range(units):
            last_rates[0, i] = last_rates[1, i]
            last_rates[1, i] = total[i] / window
            error += abs(last_rates[1, i] - targets[i]) / units
        history[number] = error
        if error < tolerance:
            return (number + 1) * window
    return history.size * window


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
