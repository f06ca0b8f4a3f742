"""Results of the well-mixed solvers: sampled trajectories, moments, distributions. All answer `mean` and `cov`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = ["Distribution", "Moments", "Trajectories"]


@dataclass(frozen=True)
class Trajectories:
    """Sampled paths.

    Attributes
    ----------
    times
        (K,) requested times.
    counts
        (paths, K, S) int64.
    species
        Names of the species.
    absorbed_at
        (paths,) time at which the total rate became zero; NaN where it did not.
    info
        Diagnostics: events, and for tau-leaping leaps, exact steps and rejected leaps, each (paths,).
    """

    times: NDArray[np.float64]
    counts: NDArray[np.int64]
    species: tuple[str, ...]
    absorbed_at: NDArray[np.float64]
    info: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def mean(self) -> NDArray[np.float64]:
        """Mean over paths, (K, S)."""
        return self.counts.mean(axis=0)

    def cov(self) -> NDArray[np.float64]:
        """Covariance over paths, (K, S, S); NaN with a single path."""
        paths = len(self.counts)
        if paths < 2:
            return np.full((len(self.times), len(self.species), len(self.species)), np.nan)
        centred = self.counts - self.mean()
        return np.einsum("pki,pkj->kij", centred, centred) / (paths - 1)

    def survival(self) -> NDArray[np.float64]:
        """Fraction of paths with any particle left, (K,)."""
        return (self.counts.sum(axis=2) > 0).mean(axis=0)

    def to_frame(self) -> pd.DataFrame:
        """Tidy table with columns path, time, species, count."""
        paths, times, species = self.counts.shape
        return pd.DataFrame(
            {
                "path": np.repeat(np.arange(paths), times * species),
                "time": np.tile(np.repeat(self.times, species), paths),
                "species": np.tile(np.array(self.species, dtype=object), paths * times),
                "count": self.counts.ravel(),
            }
        )


@dataclass(frozen=True)
class Moments:
    """Means (K, S) and covariances (K, S, S) of the linear noise approximation; zero covariance for rate equations."""

    times: NDArray[np.float64]
    means: NDArray[np.float64]
    covariances: NDArray[np.float64]
    species: tuple[str, ...]

    def mean(self) -> NDArray[np.float64]:
        """Mean, (K, S)."""
        return self.means

    def cov(self) -> NDArray[np.float64]:
        """Covariance, (K, S, S)."""
        return self.covariances


@dataclass(frozen=True)
class Distribution:
    """Solution of the master equation on a box of states.

    Attributes
    ----------
    times
        (K,) requested times.
    probabilities
        (K, n_1 + 1, ..., n_S + 1): probability of each state.
    leaked
        (K,) probability that left the box.
    """

    times: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    species: tuple[str, ...]
    leaked: NDArray[np.float64]

    def mean(self) -> NDArray[np.float64]:
        """Mean over the box, (K, S)."""
        return self._weights() @ self._states()

    def cov(self) -> NDArray[np.float64]:
        """Covariance over the box, (K, S, S)."""
        states, means = self._states(), self.mean()
        second = np.einsum("kn,ni,nj->kij", self._weights(), states, states)
        return second - means[:, :, None] * means[:, None, :]

    def survival(self) -> NDArray[np.float64]:
        """Probability that any particle is left, (K,)."""
        return 1.0 - self._weights()[:, 0]

    def _weights(self) -> NDArray[np.float64]:
        flat = self.probabilities.reshape(len(self.times), -1)
        return flat / flat.sum(axis=1, keepdims=True)

    def _states(self) -> NDArray[Any]:
        return np.indices(self.probabilities.shape[1:]).reshape(len(self.species), -1).T.astype(np.float64)
