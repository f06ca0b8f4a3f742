"""The reaction systems of the chapter on lattices.

| model | reactions |
| --- | --- |
| `ContactProcess` | A -> 0, A -> 2A onto an empty neighbour (directed percolation) |
| `BondPercolation` | synchronous bond directed percolation |
| `BirthDeathCoagulation` | A -> 2A, A -> 0, 2A -> A on an unrestricted lattice (directed percolation again) |
| `PairAnnihilation` | A + A -> 0 or A |
| `TwoSpeciesAnnihilation` | A + B -> 0 |
| `LotkaVolterra` | A -> 0, B -> 2B, A + B -> 2A |
| `RockPaperScissors` | A + B -> 2A, B + C -> 2B, C + A -> 2C |
| `MayLeonard` | A + B -> A, B + C -> B, C + A -> C, and each breeds into empty sites |

Critical values of the literature (Jensen 1999; Dickman; Perlsman and Havlin 2002) are kept where they belong to, as
`critical_rate` and `critical_probability` by dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from interplay.kinetics.reaction_kinetics import lattice_kernels as kernels
from interplay.kinetics.reaction_kinetics.lattice import Lattice, LatticeModel

__all__ = [
    "BirthDeathCoagulation",
    "BondPercolation",
    "ContactProcess",
    "LotkaVolterra",
    "MayLeonard",
    "PairAnnihilation",
    "RockPaperScissors",
    "TwoSpeciesAnnihilation",
]


class ContactProcess(LatticeModel):
    """A -> 0 at rate `death`; A -> 2A onto a random neighbour at rate `birth`, blocked where it is occupied.

    The site restriction is the competition: mean field has its extinction threshold at birth = death, the lattice at
    `critical_rate`.

    Parameters
    ----------
    lattice
        A restricted lattice.
    birth, death
        Rates per particle, not negative.
    """

    species = ("A",)
    kernel = staticmethod(kernels.contact_process)
    critical_rate: ClassVar[Mapping[int, float]] = {1: 3.297848, 2: 1.64877, 3: 1.31686}

    def __init__(self, lattice: Lattice, birth: float, death: float = 1.0) -> None:
        super().__init__(lattice, {"death": death, "birth": birth})


class BondPercolation(LatticeModel):
    """Bond directed percolation: in each generation an active site activates each neighbour with `probability`.

    Times are generations. `critical_probability` is for the lattice's `2 d` forward bonds: in one dimension two, in two
    dimensions four (the body-centred cubic lattice of the literature).
    """

    species = ("A",)
    kernel = staticmethod(kernels.bond_percolation)
    critical_probability: ClassVar[Mapping[int, float]] = {1: 0.644700, 2: 0.287338}

    def __init__(self, lattice: Lattice, probability: float) -> None:
        super().__init__(lattice, {"probability": probability})
        if probability > 1:
            raise ValueError(f"probability must lie between 0 and 1; got {probability}")


class BirthDeathCoagulation(LatticeModel):
    """A -> 2A, A -> 0 and 2A -> A on occupation numbers, with hopping to a random neighbour.

    A site of n particles loses one by coagulation at rate coagulation * n (n - 1), so that mean field is
    da/dt = (birth - death) a - coagulation a^2, with its threshold at birth = death. Offspring stay on the parent's
    site. `critical_rate` is the threshold at death = coagulation = hop = 1, located by `scan_critical` on the decay
    from a full lattice of 150,000 sites up to t = 1000; its standard error is 0.004.

    Parameters
    ----------
    lattice
        An unrestricted lattice, `Lattice(shape, restricted=False)`.
    birth, death, hop
        Rates per particle, not negative.
    coagulation
        Rate of each ordered pair on a site, positive: without it the population grows without bound.
    """

    species = ("A",)
    restricted = False
    kernel = staticmethod(kernels.birth_death_coagulation)
    critical_rate: ClassVar[Mapping[int, float]] = {1: 3.124}

    def __init__(
        self, lattice: Lattice, birth: float, death: float = 1.0, coagulation: float = 1.0, hop: float = 1.0
    ) -> None:
        super().__init__(lattice, {"death": death, "birth": birth, "coagulation": coagulation, "hop": hop})
        if coagulation == 0:
            raise ValueError("coagulation must be positive; without it the population grows without bound")


class PairAnnihilation(LatticeModel):
    """A + A -> 0 (annihilation) or A + A -> A (coagulation) of hopping particles.

    The diffusion constant is D = hop / (2 d). In one dimension and for reaction on encounter the density tends to
    (8 pi D t)^(-1/2) for annihilation and (2 pi D t)^(-1/2) for coagulation.

    Parameters
    ----------
    lattice
        A restricted lattice.
    product
        What is left of a pair: "0" or "A".
    hop
        Hop rate per particle.
    reaction_rate
        Rate at which two neighbours react; infinite means on encounter, when one hops onto the other.
    """

    species = ("A",)
    kernel = staticmethod(kernels.pair_annihilation)

    def __init__(
        self, lattice: Lattice, product: Literal["0", "A"] = "0", hop: float = 1.0, reaction_rate: float = math.inf
    ) -> None:
        if product not in ("0", "A"):
            raise ValueError(f"product must be '0' or 'A'; got {product!r}")
        super().__init__(lattice, {"hop": hop})
        if not reaction_rate >= 0:
            raise ValueError(f"reaction_rate must not be negative (infinite for on encounter); got {reaction_rate}")
        self.product = product
        self.reaction_rate = reaction_rate

    @property
    def diffusion(self) -> float:
        """D = hop / (2 d) in lattice units."""
        return self.rates["hop"] / (2 * self.lattice.dimensions)

    def _rate_vector(self) -> NDArray[np.float64]:
        return np.array([self.rates["hop"], self.reaction_rate, float(self.product == "A")])


class TwoSpeciesAnnihilation(LatticeModel):
    """A + B -> 0 on encounter of hopping particles; a hop onto the own species is blocked.

    With equal hop rates the charge (A minus B) obeys the diffusion equation exactly on average, blocked hops included:
    its initial fluctuations decide the density at late times, sqrt(rho_A(0) / pi) (8 pi D t)^(-d/4) for d < 4.

    Parameters
    ----------
    lattice
        A restricted lattice.
    hop, hop_b
        Hop rates of A and B; `hop_b` is that of A where left out.
    record_reactions
        Keep time and place of every reaction.
    """

    species = ("A", "B")
    kernel = staticmethod(kernels.two_species_annihilation)

    def __init__(
        self, lattice: Lattice, hop: float = 1.0, hop_b: float | None = None, record_reactions: bool = False
    ) -> None:
        super().__init__(lattice, {"hop": hop, "hop_b": hop if hop_b is None else hop_b})
        self.record_reactions = record_reactions

    def _reaction_record(self, state: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
        rarer = min(int((state == 1).sum()), int((state == 2).sum()))
        return (np.full((rarer if self.record_reactions else 0, 3), np.nan),)


class LotkaVolterra(LatticeModel):
    """Predators A -> 0 (`death`), prey B -> 2B (`birth`), predators eat and breed A + B -> 2A (`predation`).

    Prey breed into empty neighbours, predators eat neighbouring prey. Every site also exchanges its content with a
    random neighbour at rate `hop`. A run from "seed" puts one predator into a lattice full of prey. Mean field with
    capacity one has its predators' threshold at predation = death.
    """

    species = ("predator", "prey")
    kernel = staticmethod(kernels.lotka_volterra)

    def __init__(
        self, lattice: Lattice, predation: float, death: float = 0.2, birth: float = 1.0, hop: float = 0.0
    ) -> None:
        super().__init__(lattice, {"death": death, "predation": predation, "birth": birth, "hop": hop})

    def _background(self) -> NDArray[Any]:
        return np.full(self.lattice.sites, 2, np.int8)


class _CyclicCompetition(LatticeModel):
    species = ("A", "B", "C")
    kernel = staticmethod(kernels.cyclic_competition)
    conserving: ClassVar[bool]

    @property
    def mobility(self) -> float:
        """M = 2 exchange / L^2 with L the first side (Reichenbach, Mobilia and Frey 2007)."""
        return 2 * self.rates["exchange"] / self.lattice.shape[0] ** 2

    def _rate_vector(self) -> NDArray[np.float64]:
        return np.array(
            [
                self.rates["selection"],
                self.rates.get("reproduction", 0.0),
                self.rates["exchange"],
                float(self.conserving),
            ]
        )


class RockPaperScissors(_CyclicCompetition):
    """A + B -> 2A, B + C -> 2B, C + A -> 2C at rate `selection`; the number of particles is conserved.

    Every site exchanges its content with a random neighbour at rate `exchange`.
    """

    conserving = True

    def __init__(self, lattice: Lattice, selection: float = 1.0, exchange: float = 1.0) -> None:
        super().__init__(lattice, {"selection": selection, "exchange": exchange})


class MayLeonard(_CyclicCompetition):
    """A + B -> A, B + C -> B, C + A -> C at rate `selection`; each breeds into empty sites at rate `reproduction`.

    Every site, empty ones included, exchanges its content with a random neighbour at rate `exchange`, so that
    D = exchange / d; this is the reading in which the mobility 2 exchange / L^2 of the literature is the area that an
    individual explores a unit time. Mean-field fixed point: each species reproduction / (3 reproduction + selection).
    """

    conserving = False

    def __init__(
        self, lattice: Lattice, selection: float = 1.0, reproduction: float = 1.0, exchange: float = 1.0
    ) -> None:
        super().__init__(lattice, {"selection": selection, "reproduction": reproduction, "exchange": exchange})
