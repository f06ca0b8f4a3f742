"""Evolution strategy of the paper's swimming script: antithetic perturbations, centred ranks, Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

__all__ = ["EvolutionStrategy", "Generation", "centred_ranks"]

Array = NDArray[np.float64]
Objective = Callable[[Array, int], float]


class Generation(NamedTuple):
    """What one generation saw: values of its members before the step, NaN for those that failed."""

    number: int
    values: Array
    failed: int


def centred_ranks(values: Float[ArrayLike, " member"]) -> Float[np.ndarray, " member"]:
    """Ranks from -1/2 (worst) to 1/2 (best); equal values share their mean rank, NaN is worse than everything."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"values must hold one number for each of two or more members; got shape {array.shape}")
    ranks = rankdata(np.where(np.isnan(array), -np.inf, array))
    centred: Array = (ranks - 1) / (array.size - 1) - 0.5
    return centred


class EvolutionStrategy:
    """Climb any objective over a flat vector of parameters.

    Members are theta + e and theta - e with e ~ N(0, sigma^2). With centred ranks r of their values the gradient is
    estimated as g = sum_k r_k e_k / (population sigma), clamped to [-1, 1], and theta makes a step of Adam.

    Parameters
    ----------
    initial
        Parameters to begin with, shape (parameter,), finite.
    generator
        Draws the perturbations.
    population
        Members of a generation, even, 4 or more.
    sigma
        Standard deviation of the perturbations, > 0.
    lr, weight_decay
        Of Adam; the decay is added to the gradient.

    Attributes
    ----------
    parameters
        Where the strategy is, shape (parameter,).
    failed
        Members of all generations whose objective was NaN. They get the worst rank of their generation.

    Raises
    ------
    ValueError
        A population that is odd or below 4, a sigma or lr that is not positive, initial parameters that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> strategy = EvolutionStrategy(np.zeros(3), generator=np.random.default_rng(0), sigma=0.1, lr=0.1)
    >>> history = strategy.run(lambda parameters, seed: -float(((parameters - 1) ** 2).sum()), generations=100)
    >>> bool(np.abs(strategy.parameters - 1).max() < 0.3)
    True
    """

    def __init__(
        self,
        initial: Float[ArrayLike, " parameter"],
        *,
        generator: np.random.Generator,
        population: int = 8,
        sigma: float = 0.02,
        lr: float = 0.01,
        weight_decay: float = 0.005,
    ) -> None:
        start = np.array(initial, dtype=np.float64)
        if start.ndim != 1 or not start.size or not np.isfinite(start).all():
            raise ValueError(f"initial must be a vector of finite parameters; got shape {start.shape}: {start!r}")
        if isinstance(population, bool) or not isinstance(population, int) or population < 4 or population % 2:
            raise ValueError(f"population must be an even number of 4 or more members, in pairs; got {population!r}")
        for name, value, allowed in (
            ("sigma", sigma, sigma > 0),
            ("lr", lr, lr > 0),
            ("weight_decay", weight_decay, weight_decay >= 0),
        ):
            if not (allowed and np.isfinite(value)):
                raise ValueError(
                    f"{name} must be a {'positive' if name != 'weight_decay' else 'non-negative'} number; got {value!r}"
                )
        self.population, self.sigma = population, sigma
        self.failed = 0
        self.generation = 0
        self._generator = generator
        self._theta = torch.nn.Parameter(torch.from_numpy(start))
        self._optimizer = torch.optim.Adam([self._theta], lr=lr, weight_decay=weight_decay)
        self._perturbations: Array | None = None

    @property
    def parameters(self) -> Float[np.ndarray, " parameter"]:
        return self._theta.detach().numpy().copy()

    def ask(self) -> Float[np.ndarray, "member parameter"]:
        """Members of the next generation; the second half mirrors the first."""
        half = self._generator.normal(0, self.sigma, (self.population // 2, self._theta.numel()))
        self._perturbations = np.concatenate((half, -half))
        return self.parameters + self._perturbations

    def tell(self, values: Float[ArrayLike, " member"]) -> Generation:
        """Make a step from the values of the members that `ask` returned."""
        if self._perturbations is None:
            raise RuntimeError("tell needs members to value: call ask first")
        array = np.array(values, dtype=np.float64)
        if array.shape != (self.population,):
            raise ValueError(f"values must hold one number for each of {self.population} members; got {array.shape}")
        gradient = centred_ranks(array) @ self._perturbations / (self.population * self.sigma)
        self._theta.grad = torch.from_numpy(-np.clip(gradient, -1, 1))
        self._optimizer.step()
        self._perturbations = None
        failed = int(np.isnan(array).sum())
        self.failed += failed
        self.generation += 1
        return Generation(self.generation, array, failed)

    def run(self, objective: Objective, generations: int, *, jobs: int = 1) -> list[Generation]:
        """Ask, value and tell, several times.

        Parameters
        ----------
        objective
            `objective(parameters, seed)`, larger is better. The seed is new for every member and the same for any
            number of jobs; deterministic objectives ignore it.
        generations
            How many steps to make.
        jobs
            Members valued at the same time by joblib; -1 takes all cores. It does not change the result.
        """
        history = []
        with Parallel(n_jobs=jobs) as parallel:
            for _ in range(generations):
                members = self.ask()
                seeds = self._generator.integers(2**31, size=self.population).tolist()
                values = parallel(delayed(objective)(member, seed) for member, seed in zip(members, seeds, strict=True))
                history.append(self.tell(values))
        return history
