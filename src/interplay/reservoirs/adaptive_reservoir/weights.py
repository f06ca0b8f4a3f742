"""Weights: how they are drawn, scaled and stored."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike
from scipy import sparse

from interplay.reservoirs.adaptive_reservoir.dynamics import Weights

__all__ = ["as_weights", "at_unit_radius", "draw_balanced", "inhibitory_ratio", "spectral_radius_of"]

_DENSE_UP_TO = 1000  # units; beyond, the largest eigenvalue comes from an iteration
_SPARSE_BELOW = 0.25  # share of links; above, a dense product is faster


def draw_balanced(
    excitatory: Bool[np.ndarray, " unit"], connectivity: float, generator: np.random.Generator
) -> sparse.csr_array:
    """Signed weights at random places: strengths from U(0, 1), inhibitory ones so much stronger that rows balance."""
    units = len(excitatory)
    strengths = sparse.coo_array(
        # 1 - U[0, 1) is never zero: a link of strength zero would be none.
        sparse.random_array(
            (units, units), density=connectivity, rng=generator, data_sampler=lambda size: 1.0 - generator.random(size)
        )
    )
    linked = strengths.row != strengths.col
    signed = strengths.data * np.where(excitatory, 1.0, -inhibitory_ratio(excitatory))[strengths.col]
    return sparse.csr_array((signed[linked], (strengths.row[linked], strengths.col[linked])), shape=strengths.shape)


def inhibitory_ratio(excitatory: Bool[np.ndarray, " unit"]) -> float:
    """How many times stronger inhibition must be to balance; 4 for four excitatory units to each inhibitory one."""
    count = int(excitatory.sum())
    if not 0 < count < len(excitatory):
        missing = "excitatory" if not count else "inhibitory"
        raise ValueError(
            f"excitatory_fraction leaves no {missing} unit among {len(excitatory)}; both kinds are needed: "
            "choose it in (0, 1), and more units"
        )
    return count / (len(excitatory) - count)


def at_unit_radius(weights: sparse.csr_array) -> sparse.csr_array:
    """The weights scaled to spectral radius one.

    Raises
    ------
    ValueError
        The links form no closed loop, so that no eigenvalue differs from zero.
    """
    radius = spectral_radius_of(weights)
    if not radius > 1e-9 * abs(weights).max():
        raise ValueError(
            f"the {weights.shape[0]} units have no closed loop of links, so the spectral radius is zero; raise "
            "connectivity or units"
        )
    return weights * weights.dtype.type(1 / radius)


def spectral_radius_of(weights: Weights) -> float:
    """Largest modulus of an eigenvalue; beyond 1,000 units of a sparse matrix by Arnoldi iteration."""
    if not sparse.issparse(weights) or weights.shape[0] <= _DENSE_UP_TO:
        dense = weights.toarray() if sparse.issparse(weights) else weights
        return float(np.abs(np.linalg.eigvals(dense)).max())
    start = np.random.default_rng(0).standard_normal(
        weights.shape[0]
    )  # a fixed start: the same matrix, the same radius
    largest = sparse.linalg.eigs(
        weights.astype(np.float64),
        k=6,
        ncv=60,
        v0=start,
        tol=1e-8,
        maxiter=20 * weights.shape[0],
        return_eigenvectors=False,
    )
    return float(np.abs(largest).max())


def as_weights(weights: ArrayLike | Weights) -> Weights:
    """CSR where there are few links, else a C-contiguous array; float32 or float64."""
    matrix = weights if sparse.issparse(weights) else np.asarray(weights)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise ValueError(f"weights must be a square matrix, got shape {matrix.shape}")
    if not (np.issubdtype(matrix.dtype, np.floating) or np.issubdtype(matrix.dtype, np.integer)):
        raise TypeError(f"weights must be real numbers, got {matrix.dtype}")
    dtype = np.float32 if matrix.dtype == np.float32 else np.float64
    if not np.isfinite(matrix.data if sparse.issparse(matrix) else matrix).all():
        raise ValueError("weights must be finite")
    links = matrix.count_nonzero() if sparse.issparse(matrix) else np.count_nonzero(matrix)
    if links < _SPARSE_BELOW * matrix.shape[0] ** 2:
        rows = sparse.csr_array(matrix, dtype=dtype, copy=True)
        rows.sum_duplicates()
        return rows
    return np.array(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=dtype, order="C")
