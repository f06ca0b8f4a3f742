"""A small network, series and Dale structure written as formulas, so that other libraries can be given the same."""

import numpy as np
from numpy.typing import NDArray

UNITS, STEPS = 30, 60


def weights() -> NDArray[np.float64]:
    """A seventh of the links, of either sign, spectral radius about 0.9."""
    row, column = np.indices((UNITS, UNITS))
    linked = (row**2 + row // 7 + 3 * column) % 7 == 0
    return np.where(linked, 0.7 * np.sin(1.0 + 3.0 * row + 5.0 * column), 0.0)


def input_weights() -> NDArray[np.float64]:
    """(units, 2)."""
    return np.stack([np.cos(np.arange(UNITS)), np.sin(2.0 * np.arange(UNITS))], axis=1)


def bias() -> NDArray[np.float64]:
    """(units,)."""
    return 0.1 * np.cos(3.0 * np.arange(UNITS))


def inputs() -> NDArray[np.float64]:
    """(time, 2)."""
    t = np.arange(STEPS)
    return np.stack([np.sin(0.3 * t), np.cos(0.11 * t**1.5)], axis=1)


def dale_weights() -> NDArray[np.float64]:
    """Every fifth unit inhibits, four times as strongly."""
    inhibits = np.arange(UNITS) % 5 == 4
    return np.abs(weights()) * np.where(inhibits, -4.0, 1.0)
