"""Target rates: what each unit's mean activity should become."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

__all__ = ["beta", "homogeneous", "lognormal"]

LOWEST, HIGHEST = 0.02, 0.98  # a sigmoid's rates of 0 and 1 need infinite drive


def homogeneous(units: int, rate: float) -> Float[np.ndarray, " unit"]:
    """The same target for every unit."""
    return np.full(units, _checked(rate))


def beta(
    units: int, rate: float, concentration: float = 8.0, *, generator: np.random.Generator
) -> Float[np.ndarray, " unit"]:
    """Targets from Beta(concentration rate, concentration (1 - rate)), within [0.02, 0.98].

    Their mean is `rate`, their variance rate (1 - rate) / (concentration + 1). The paper draws from a Beta
    distribution; its parameters are not known, and a concentration of 8 is this library's choice.
    """
    _checked(rate)
    if not (math.isfinite(concentration) and concentration > 0):
        raise ValueError(f"concentration must be a positive number, got {concentration!r}")
    drawn = generator.beta(concentration * rate, concentration * (1 - rate), size=units)
    return drawn.clip(LOWEST, HIGHEST)


def lognormal(
    units: int, rate: float, spread: float = 0.5, *, generator: np.random.Generator
) -> Float[np.ndarray, " unit"]:
    """Log-normal targets of mean `rate`, whose logarithms have standard deviation `spread`, within [0.02, 0.98]."""
    _checked(rate)
    if not (math.isfinite(spread) and spread >= 0):
        raise ValueError(f"spread must be a number of at least 0, got {spread!r}")
    return generator.lognormal(math.log(rate) - spread**2 / 2, spread, size=units).clip(LOWEST, HIGHEST)


def _checked(rate: float) -> float:
    if not 0 < rate < 1:
        raise ValueError(f"rate must be in (0, 1), the range of a sigmoid, got {rate!r}")
    return rate
