"""The reaction front of A + B -> 0 in mean field: the rate equations with diffusion, from separated reactants.

    da/dt = D a'' - k a b,    db/dt = D b'' - k a b,    a = rho left of the interface, b = rho right of it

The profile k a b widens as t^(1/6) and its total falls as t^(-1/2) (Galfi and Racz 1988).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interplay.kinetics.reaction_kinetics.network import checked_rate, checked_times
from interplay.primitives.stochastic import compiled

__all__ = ["MeanFieldFront", "mean_field_front"]

_DIFFUSION_NUMBER = 0.25  # D dt / dx^2 of the explicit scheme, half its stability limit


class MeanFieldFront(NamedTuple):
    """Standard deviation and integral of the reaction profile at each time, (K,)."""

    width: NDArray[np.float64]
    production: NDArray[np.float64]


@compiled
def _integrate(a, b, diffusion_number, reaction_step, times, step, width, production):
    size = a.shape[0]
    # Lattice lengths of one: position of cell i is i - (size - 1) / 2.
    centre = 0.5 * (size - 1)
    now, row = 0.0, 0
    while row < times.shape[0]:
        while row < times.shape[0] and times[row] < now + 0.5 * step:
            total, second = 0.0, 0.0
            for i in range(size):
                rate = a[i] * b[i]
                total += rate
                second += rate * (i - centre) ** 2
            width[row] = math.sqrt(second / total) if total > 0.0 else math.nan
            production[row] = total * reaction_step / step
            row += 1
        left_a, left_b = a[0], b[0]
        for i in range(size - 1):
            here_a, here_b = a[i], b[i]
            reacted = reaction_step * here_a * here_b
            a[i] = here_a + diffusion_number * (left_a - 2.0 * here_a + a[i + 1]) - reacted
            b[i] = here_b + diffusion_number * (left_b - 2.0 * here_b + b[i + 1]) - reacted
            left_a, left_b = here_a, here_b
        now += step


def mean_field_front(t: ArrayLike, density: float, diffusion: float = 0.5, rate: float = 1.0) -> MeanFieldFront:
    """Width and strength of the mean-field front in one dimension.

    Parameters
    ----------
    t
        (K,) increasing times, above zero.
    density
        Initial density of A on the left, of B on the right, between 0 and 1.
    diffusion
        D in lattice constants squared per unit time.
    rate
        k, as in the falling convention.
    """
    times = checked_times(t)
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1; got {density}")
    checked_rate("rate", rate)
    if not diffusion > 0:
        raise ValueError(f"diffusion must be positive; got {diffusion}")
    half = math.ceil(6 * math.sqrt(2 * diffusion * times[-1])) + 10
    a = np.zeros(2 * half)
    b = np.zeros(2 * half)
    a[:half] = density
    b[half:] = density
    # The reaction too must be slow on the scale of a step.
    step = min(_DIFFUSION_NUMBER / diffusion, 0.1 / max(rate * density, 1e-300))
    width, production = np.empty(len(times)), np.empty(len(times))
    _integrate(a, b, diffusion * step, rate * step, times, step, width, production)
    return MeanFieldFront(width, production)
