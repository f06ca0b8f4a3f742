"""When does the zero-error manifold of a linear two-layer network survive rule-flipped neurons?

With phi(x) = x, <x x^T> = sigma^2 I and the error row delta = W2 W1 - t, gradient flow with signs D1, D2 obeys exactly

(1)  d delta / dt = -sigma^2 delta K,   K = W1^T D2 W1 + |W2|^2 D1

so a point of the manifold attracts if and only if K is positive definite. Inputs of another covariance Sigma put Sigma
K in the place of sigma^2 K, which has as many negative eigenvalues (Sylvester): it need only be positive definite. For
wide random networks, W1 with independent entries of variance v / M, |W2|^2 = v, c = M / N, K is positive definite

(2)  with a fraction f of the inputs flipped, if   c < c1(f) = max_{v > 1} 1 / (v (1 + (1 - f) / (v + 1) + f / (v - 1)))
(3)  with a fraction f of the hidden flipped, if   f < f2(c) = max_{0 < u < 1} (1 - u) / 2 (1 - c (1 - u^2) / u)

Both maxima are found from the roots of their derivatives, which are unique.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

__all__ = [
    "critical_fraction_readout_flips",
    "critical_ratio_input_flips",
    "is_stable",
    "phase_diagram",
    "stability_matrix",
    "toy_update",
]

FlippedLayer = Literal["input", "readout"]
_BISECTIONS = 60


@overload
def critical_ratio_input_flips(fraction: float) -> float: ...
@overload
def critical_ratio_input_flips(fraction: ArrayLike) -> float | NDArray[np.float64]: ...
def critical_ratio_input_flips(fraction: ArrayLike) -> float | NDArray[np.float64]:
    """Ratio M / N below which the manifold is stable with this fraction of input neurons flipped, equation (2).

    Parameters
    ----------
    fraction
        f, in [0, 1]; a number or an array.

    Returns
    -------
    c1(f), of the shape of `fraction`: falls from 2/3 at f -> 0 to 1/4 at f = 1; infinite at f = 0, where nothing is
    flipped and every ratio is stable.

    Raises
    ------
    ValueError
        If a fraction lies outside [0, 1].
    """
    f = _fractions(fraction)
    # With u = v - 1 the derivative of the denominator vanishes where f - (1 - f) (u / (u + 2))^2 = u^2.
    u = _falling_root(lambda u: f - (1 - f) * (u / (u + 2)) ** 2 - u**2, np.zeros_like(f), np.sqrt(f))
    with np.errstate(divide="ignore", invalid="ignore"):
        v = 1 + u
        ratio = 1 / (v * (1 + (1 - f) / (v + 1) + f / u))
    return _as_given(np.where(f > 0, ratio, np.inf))


@overload
def critical_fraction_readout_flips(ratio: float) -> float: ...
@overload
def critical_fraction_readout_flips(ratio: ArrayLike) -> float | NDArray[np.float64]: ...
def critical_fraction_readout_flips(ratio: ArrayLike) -> float | NDArray[np.float64]:
    """Fraction of flipped hidden neurons up to which the manifold is stable at this ratio M / N, equation (3).

    Parameters
    ----------
    ratio
        c, positive; a number or an array.

    Returns
    -------
    f2(c), of the shape of `ratio`: falls from 1/2 at c -> 0, as 1 / (16 c) for large c.

    Raises
    ------
    ValueError
        If a ratio is not positive and finite.
    """
    c = _ratios(ratio)
    # The derivative vanishes where 1 / u^2 + 1 - 2 u = 1 / c; the left side falls from infinity to 0.
    u = _falling_root(lambda u: 1 / u**2 + 1 - 2 * u - 1 / c, np.sqrt(c / (1 + 2 * c)) / 2, np.ones_like(c))
    return _as_given((1 - u) / 2 * (1 - c * (1 - u**2) / u))


def phase_diagram(ratios: ArrayLike, fractions: ArrayLike, layer: FlippedLayer) -> NDArray[np.bool_]:
    """Predicted stability of wide random networks on a grid.

    Parameters
    ----------
    ratios, fractions
        One-dimensional grids of c = M / N and of flipped fractions f.
    layer
        "input" flips input neurons (the signs of the first layer's plasticity), "readout" hidden neurons.

    Returns
    -------
    True where stable, shape (ratios, fractions).
    """
    c, f = np.atleast_1d(_ratios(ratios))[:, None], np.atleast_1d(_fractions(fractions))[None, :]
    if layer == "input":
        return np.asarray(c < critical_ratio_input_flips(f))
    if layer == "readout":
        return np.asarray(f < critical_fraction_readout_flips(c))
    raise ValueError(f"layer must be 'input' or 'readout'; got {layer!r}")


def stability_matrix(
    weight1: Float[Tensor, "*batch hidden input"],
    weight2: Float[Tensor, "*batch output hidden"],
    input_signs: Float[Tensor, "*#batch input"],
    hidden_signs: Float[Tensor, "*#batch hidden"],
) -> Float[Tensor, "*batch input input"]:
    """K = W1^T D2 W1 + |W2|^2 D1 of equation (1), for networks with one output; symmetric.

    Raises
    ------
    ValueError
        If there is more than one output, for which errors of different outputs mix and K is not the whole story.
    """
    if weight2.shape[-2] != 1:
        raise ValueError(f"weight2 must have one output, shape (..., 1, hidden); got {tuple(weight2.shape)}")
    for name, signs, weight in (("input_signs", input_signs, weight1), ("hidden_signs", hidden_signs, weight2)):
        if signs.shape[-1] != weight.shape[-1]:
            raise ValueError(f"{name} must have length {weight.shape[-1]}; got shape {tuple(signs.shape)}")
    hebbian = (weight1 * hidden_signs.unsqueeze(-1)).mT @ weight1
    gain = weight2.square().sum((-2, -1))
    return (hebbian + hebbian.mT) / 2 + torch.diag_embed(gain.unsqueeze(-1) * input_signs)


def is_stable(
    weight1: Float[Tensor, "*batch hidden input"],
    weight2: Float[Tensor, "*batch output hidden"],
    input_signs: Float[Tensor, "*#batch input"],
    hidden_signs: Float[Tensor, "*#batch hidden"],
) -> Bool[Tensor, "*batch"]:
    """Whether errors around these zero-error weights die out: whether K is positive definite.

    Decided by whether K has a Cholesky factor, many times cheaper than its eigenvalues.
    """
    matrix = stability_matrix(weight1, weight2, input_signs, hidden_signs)
    return torch.linalg.cholesky_ex(matrix).info == 0


def toy_update(
    weight1: NDArray[np.float64],
    weight2: NDArray[np.float64],
    *,
    target: float = 1.0,
    input_sign: float = 1.0,
    hidden_sign: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vector field of the smallest network, M = N = 1: (-d1 w2 delta, -d2 w1 delta) with delta = w1 w2 - target.

    Its zero-error manifold is a hyperbola, stable where d2 w1^2 + d1 w2^2 > 0. With one sign flipped, w1^2 + w2^2 is
    constant: orbits are arcs of circles, and the origin, a saddle of gradient descent, becomes a centre.
    """
    delta = weight1 * weight2 - target
    return -input_sign * weight2 * delta, -hidden_sign * weight1 * delta


def _fractions(fraction: ArrayLike) -> NDArray[np.float64]:
    f = np.asarray(fraction, dtype=np.float64)
    if not ((f >= 0) & (f <= 1)).all():
        raise ValueError(f"fraction must lie in [0, 1]; got {fraction}")
    return f


def _ratios(ratio: ArrayLike) -> NDArray[np.float64]:
    c = np.asarray(ratio, dtype=np.float64)
    if not ((c > 0) & np.isfinite(c)).all():
        raise ValueError(f"ratio (inputs / hidden) must be positive and finite; got {ratio}")
    return c


def _falling_root(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Root of a falling function in [low, high], elementwise, by bisection."""
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = function(middle) > 0
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def _as_given(values: NDArray[np.float64]) -> float | NDArray[np.float64]:
    return float(values) if values.ndim == 0 else values
