"""The lattice engine: periodic hypercubic lattices, initial conditions, runs and what they record.

A model supplies the names of its species, its rates and a compiled event loop (`lattice_kernels`); the engine here
draws the initial configuration, hands out one random stream a run, spreads runs over workers and collects the record.
Results do not depend on the number of workers.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar, NamedTuple

import joblib
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from interplay.kinetics.reaction_kinetics.network import checked_rate, checked_times
from interplay.primitives.stochastic import neighbour_table, random_stream, spawn_seeds

__all__ = ["Initial", "Lattice", "LatticeModel", "LatticeRuns", "separated"]

Configuration = NDArray[np.int8]
Observable = Callable[[NDArray[Any]], ArrayLike]
Initial = str | float | Mapping[str, float] | NDArray[Any] | Callable[[np.random.Generator], NDArray[Any]]


@dataclass(frozen=True)
class Lattice:
    """A periodic hypercubic lattice with lattice constant one.

    Parameters
    ----------
    shape
        Side lengths in 1, 2 or 3 dimensions, each at least 3.
    restricted
        At most one particle a site, or occupation numbers without bound.
    """

    shape: tuple[int, ...]
    restricted: bool = True

    def __post_init__(self) -> None:
        sides = (self.shape,) if isinstance(self.shape, int) else tuple(self.shape)
        object.__setattr__(self, "shape", sides)
        if not 1 <= len(sides) <= 3 or any(isinstance(side, bool) or side != int(side) or side < 3 for side in sides):
            raise ValueError(f"shape must be one to three lattice sides of at least 3; got {self.shape!r}")
        if math.prod(sides) > np.iinfo(np.int32).max:
            raise ValueError(f"shape {sides} has {math.prod(sides):,} sites; at most 2**31 - 1 are supported")

    @property
    def sites(self) -> int:
        """Number of sites."""
        return math.prod(self.shape)

    @property
    def dimensions(self) -> int:
        """Number of spatial dimensions."""
        return len(self.shape)

    @property
    def centre(self) -> int:
        """Number of the site in the middle, where a single seed is put."""
        return int(np.ravel_multi_index(tuple(side // 2 for side in self.shape), self.shape))

    @cached_property
    def neighbours(self) -> NDArray[np.int32]:
        """Neighbour table (sites, 2 * dimensions)."""
        return neighbour_table(self.shape)


@dataclass(frozen=True)
class LatticeRuns:
    """What independent runs of a lattice model recorded.

    Attributes
    ----------
    times
        (K,) requested times.
    counts
        (runs, K, species) particles, int64.
    species
        Names of the species in the order of the last axis; code `i + 1` in a configuration is species `i`.
    sites
        Number of lattice sites.
    absorbed_at
        (runs,) time from which no reaction was possible any more; NaN where that did not come.
    events
        (runs,) events that changed the configuration.
    moments
        (runs, K) sum of squared displacements from the seed, of the first species; only for runs from a single seed.
    observed
        Name -> (runs, K, ...) values of the observables asked for.
    reactions
        One array (event, 3) a run with time and the two sites of each reaction; only where the model records them.
    """

    times: NDArray[np.float64]
    counts: NDArray[np.int64]
    species: tuple[str, ...]
    sites: int
    absorbed_at: NDArray[np.float64]
    events: NDArray[np.int64]
    moments: NDArray[np.float64] | None = None
    observed: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    reactions: list[NDArray[np.float64]] = field(default_factory=list)

    def density(self, species: str | None = None) -> NDArray[np.float64]:
        """Particles a site, (runs, K): of one species or of all together."""
        return self._particles(species) / self.sites

    def survival(self, species: str | None = None) -> NDArray[np.float64]:
        """Fraction of runs in which the species (or any) is still present, (K,)."""
        return (self._particles(species) > 0).mean(axis=0)

    def to_frame(self) -> pd.DataFrame:
        """Tidy table with columns run, time, species, count."""
        runs, times, species = self.counts.shape
        return pd.DataFrame(
            {
                "run": np.repeat(np.arange(runs), times * species),
                "time": np.tile(np.repeat(self.times, species), runs),
                "species": np.tile(np.array(self.species, dtype=object), runs * times),
                "count": self.counts.ravel(),
            }
        )

    def _particles(self, species: str | None) -> NDArray[np.int64]:
        if species is None:
            return self.counts.sum(axis=2)
        if species not in self.species:
            raise ValueError(f"species must be one of {', '.join(self.species)}; got {species!r}")
        return self.counts[:, :, self.species.index(species)]


class _Run(NamedTuple):
    counts: NDArray[np.int64]
    absorbed_at: float
    events: int
    moments: NDArray[np.float64]
    observed: dict[str, NDArray[Any]]
    reactions: list[NDArray[np.float64]]


class LatticeModel(ABC):
    """A reaction system on a lattice. Subclasses name the species and give rates and a compiled loop.

    All rates are per particle (or per site, where the model says so) and unit time; a directed rate is shared evenly by
    the `2 d` neighbours.
    """

    species: ClassVar[tuple[str, ...]]
    restricted: ClassVar[bool] = True
    kernel: ClassVar[Callable[..., tuple[float, int]]]
    record_reactions: bool = False

    def __init__(self, lattice: Lattice, rates: Mapping[str, float]) -> None:
        if not isinstance(lattice, Lattice):
            raise TypeError(f"lattice must be a Lattice, for example Lattice((128, 128)); got {type(lattice).__name__}")
        if lattice.restricted is not self.restricted:
            raise ValueError(f"{type(self).__name__} needs Lattice(shape, restricted={self.restricted})")
        self.lattice = lattice
        self.rates = {name: checked_rate(name, rate) for name, rate in rates.items()}

    def run(
        self,
        t: ArrayLike,
        initial: Initial,
        observables: Mapping[str, Observable] | None = None,
        n_runs: int = 1,
        seed: int | np.random.SeedSequence = 0,
        workers: int = 1,
    ) -> LatticeRuns:
        """Simulate independent runs.

        Parameters
        ----------
        t
            (K,) increasing times at which to record, from 0 on.
        initial
            "seed" (one particle of the first species at the centre of an otherwise empty lattice, or of the model's own
            background), a density between 0 and 1 of randomly occupied sites (shared evenly by the species), a mapping
            species -> density, an array of codes with the lattice's shape, or a function of a `numpy.random.Generator`
            that returns one.
        observables
            Name -> function of a configuration (array of codes or occupation numbers with the lattice's shape),
            evaluated at every recorded time.
        n_runs
            Number of independent runs.
        seed
            Integer or `SeedSequence`; run `i` depends on it and on `i` alone.
        workers
            Number of processes.

        Raises
        ------
        ValueError, TypeError
            Times that do not increase, a density outside [0, 1], unknown species, a configuration of the wrong shape or
            with unknown codes.
        """
        times = checked_times(t)
        simulate = partial(self._one_run, times, initial, dict(observables or {}))
        seeds = spawn_seeds(seed, n_runs)
        if workers == 1:
            runs = [simulate(one) for one in seeds]
        else:
            runs = joblib.Parallel(n_jobs=workers)(joblib.delayed(simulate)(one) for one in seeds)
        return LatticeRuns(
            times=times,
            counts=np.stack([run.counts for run in runs]),
            species=self.species,
            sites=self.lattice.sites,
            absorbed_at=np.array([run.absorbed_at for run in runs]),
            events=np.array([run.events for run in runs], dtype=np.int64),
            moments=np.stack([run.moments for run in runs]) if runs[0].moments.size else None,
            observed={name: np.stack([run.observed[name] for run in runs]) for name in runs[0].observed},
            reactions=[reactions for run in runs for reactions in run.reactions],
        )

    def _one_run(
        self,
        times: NDArray[np.float64],
        initial: Initial,
        observables: Mapping[str, Observable],
        seed: np.random.SeedSequence,
    ) -> _Run:
        first, second = spawn_seeds(seed, 2)
        state = self._configuration(initial, first)
        from_seed = isinstance(initial, str)
        counts = np.zeros((len(times), len(self.species)), np.int64)
        snapshots = np.empty((len(times) if observables else 0, state.size), state.dtype)
        moments = np.zeros(len(times) if from_seed else 0)
        pairs = self._reaction_record(state)
        absorbed_at, events = type(self).kernel(
            self._rate_vector(),
            self.lattice.neighbours,
            state,
            times,
            random_stream(second),
            counts,
            snapshots,
            self.lattice.centre,
            np.array(self.lattice.shape, np.int64),
            moments,
            *pairs,
        )
        configurations = snapshots.reshape(-1, *self.lattice.shape)
        observed = {name: np.stack([np.asarray(f(c)) for c in configurations]) for name, f in observables.items()}
        reactions = [record[np.isfinite(record[:, 0])] for record in pairs if self.record_reactions]
        return _Run(counts, absorbed_at, events, moments, observed, reactions)

    def _rate_vector(self) -> NDArray[np.float64]:
        return np.array(list(self.rates.values()), dtype=np.float64)

    def _background(self) -> NDArray[Any]:
        """The lattice into which a single seed is put."""
        return np.zeros(self.lattice.sites, np.int8 if self.restricted else np.int32)

    def _reaction_record(self, state: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
        return ()

    def _configuration(self, initial: Initial, seed: np.random.SeedSequence) -> NDArray[Any]:
        """Flat array of codes (restricted) or occupation numbers."""
        state = self._background()
        if isinstance(initial, str):
            if initial != "seed":
                raise ValueError(
                    f"initial must be 'seed', a density, a mapping, an array or a function; got {initial!r}"
                )
            state[self.lattice.centre] = 1
            return state
        generator = np.random.default_rng(seed)
        if callable(initial):
            return self._checked(initial(generator))
        if isinstance(initial, Mapping):
            return self._random(initial, generator)
        if isinstance(initial, int | float) and not isinstance(initial, bool):
            return self._random({name: initial / len(self.species) for name in self.species}, generator)
        return self._checked(initial)

    def _random(self, densities: Mapping[str, float], generator: np.random.Generator) -> NDArray[Any]:
        if unknown := sorted(set(densities) - set(self.species)):
            raise ValueError(
                f"initial names species {unknown[0]!r}; {type(self).__name__} has {', '.join(self.species)}"
            )
        shares = np.array([densities.get(name, 0.0) for name in self.species], dtype=np.float64)
        total = shares.sum()
        if not np.all(shares >= 0) or not np.isfinite(total) or (self.restricted and total > 1 + 1e-12):
            limit = "between 0 and 1 in all" if self.restricted else "not negative"
            raise ValueError(f"initial densities must be {limit}; got {dict(densities)}")
        if not self.restricted:
            return generator.poisson(total, self.lattice.sites).astype(np.int32)
        edges = np.cumsum(shares)
        codes = np.searchsorted(edges, generator.random(self.lattice.sites), side="right")
        # Sites beyond the last edge stay empty; a lattice that should be full must not lose one to rounding.
        codes[codes == len(edges)] = -1 if total < 1 - 1e-12 else len(edges) - 1
        return (codes + 1).astype(np.int8)

    def _checked(self, configuration: ArrayLike) -> NDArray[Any]:
        array = np.asarray(configuration)
        if array.shape != self.lattice.shape:
            raise ValueError(f"initial must have the lattice's shape {self.lattice.shape}; got {array.shape}")
        if array.dtype.kind not in "iub":
            raise TypeError(f"initial must hold integer codes; got dtype {array.dtype}")
        highest = len(self.species) if self.restricted else np.iinfo(np.int32).max
        if array.size and (array.min() < 0 or array.max() > highest):
            raise ValueError(f"initial must hold codes 0 to {highest}; got {array.min()} to {array.max()}")
        return array.astype(np.int8 if self.restricted else np.int32).ravel()


def separated(lattice: Lattice, density: float) -> Callable[[np.random.Generator], Configuration]:
    """Initial condition of two species in two halves along the first axis.

    Each site is occupied with probability `density`. On the periodic lattice there are two fronts: at 0 and at half the
    first side.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1; got {density}")
    return partial(_halves, lattice.shape, density)


def _halves(shape: tuple[int, ...], density: float, generator: np.random.Generator) -> Configuration:
    codes = np.ones(shape, np.int8)
    codes[shape[0] // 2 :] = 2
    codes[generator.random(shape) >= density] = 0
    return codes
