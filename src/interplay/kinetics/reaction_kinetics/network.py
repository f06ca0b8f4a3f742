"""Reaction networks: species, reactions, propensities, rate equations.

Reaction r consumes m_rs and changes n_s by v_rs at rate constant k_r. Its propensity is

    a_r(n) = k_r prod_s n_s (n_s - 1) ... (n_s - m_rs + 1)     convention "falling", that of the chapter
    a_r(n) = k_r prod_s binomial(n_s, m_rs)                    convention "combinatorial"

and the rate equation dn/dt = sum_r v_r k_r prod_s n_s^m_rs (over m_rs! for "combinatorial"). For 2A -> 0 in the first
convention da/dt = -2 k a^2, hence a(t) = a0 / (1 + 2 k a0 t).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Convention", "ReactionNetwork"]

Convention = Literal["falling", "combinatorial"]

_EXAMPLE = "'A -> 2A @ birth; 2A -> A @ 0.5; A -> 0 @ death'"
_TERM = re.compile(r"(\d*)\s*([A-Za-z_]\w*)")


def checked_rate(name: str, rate: float) -> float:
    """A finite rate that is not negative, or ValueError."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be a number; got {type(rate).__name__}: {rate!r}")
    if not (rate >= 0 and math.isfinite(rate)):
        raise ValueError(f"{name} must be finite and not negative; got {rate}")
    return float(rate)


def checked_times(t: ArrayLike) -> NDArray[np.float64]:
    """A finite, strictly increasing grid from 0 on, or ValueError."""
    times = np.atleast_1d(np.asarray(t, dtype=np.float64))
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all():
        raise ValueError(f"t must be one or more finite times in one dimension; got shape {times.shape}")
    if times[0] < 0 or (np.diff(times) <= 0).any():
        raise ValueError("t must increase strictly and start at 0 or later; sort it and drop repeated times")
    return times


@dataclass(frozen=True)
class ReactionNetwork:
    """A well-mixed reaction network.

    Parameters
    ----------
    species
        Names, S of them.
    reactants
        (R, S) counts m_rs.
    stoichiometry
        (R, S) int64 net changes v_rs.
    rates
        (R,) rate constants k_r.
    convention
        How equal reactants are counted; see the module.
    allow_high_order
        Accept reactions of more than three reactants.

    Raises
    ------
    ValueError
        Shapes that do not fit, negative rates, a reaction that consumes more than it has, an order above three.
    """

    species: tuple[str, ...]
    reactants: NDArray[np.int64]
    stoichiometry: NDArray[np.int64]
    rates: NDArray[np.float64]
    convention: Convention = "falling"
    allow_high_order: bool = False

    def __post_init__(self) -> None:
        if self.convention not in get_args(Convention):
            raise ValueError(f"convention must be 'falling' or 'combinatorial'; got {self.convention!r}")
        shape = (len(self.rates), len(self.species))
        if self.reactants.shape != shape or self.stoichiometry.shape != shape or 0 in shape:
            raise ValueError(
                f"reactants and stoichiometry must have shape (reactions, species) = {shape}, both positive; "
                f"got {self.reactants.shape} and {self.stoichiometry.shape}"
            )
        for index, rate in enumerate(self.rates):
            checked_rate(f"rate of reaction {index + 1}", rate)
        if (self.reactants < 0).any() or (self.reactants + self.stoichiometry < 0).any():
            raise ValueError("reactants must not be negative and no reaction may use up more than its reactants")
        if (highest := int(self.reactants.sum(axis=1).max())) > 3 and not self.allow_high_order:
            raise ValueError(
                f"a reaction of order {highest} was given; encounters of more than three are rarely meant: "
                "pass allow_high_order=True if they are"
            )

    @classmethod
    def from_string(
        cls,
        text: str,
        rates: Mapping[str, float] | None = None,
        *,
        convention: Convention = "falling",
        allow_high_order: bool = False,
    ) -> ReactionNetwork:
        """Parse reactions separated by ";" or line ends, each `reactants -> products @ rate`.

        Parameters
        ----------
        text
            For example "A -> 2A @ birth; 2A -> A @ 0.5; A -> 0 @ death"; 0 stands for nothing.
        rates
            Values of the named rates.
        convention, allow_high_order
            As in the class.

        Raises
        ------
        ValueError
            A part that cannot be read, or a rate without value or never used; the message shows it and an example.
        """
        rates = dict(rates or {})
        parsed = [_parse_reaction(part.strip(), rates) for part in re.split(r"[;\n]", text) if part.strip()]
        if not parsed:
            raise ValueError(f"no reaction in {text!r}; write for example {_EXAMPLE}")
        if unused := sorted(set(rates) - {name for _, _, _, name in parsed}):
            raise ValueError(f"rates names {unused[0]!r}, which no reaction uses")
        species = tuple(dict.fromkeys(name for left, right, _, _ in parsed for name in (*left, *right)))
        if not species:
            raise ValueError(f"no species in {text!r}; write for example {_EXAMPLE}")
        consumed = np.array([[left.get(name, 0) for name in species] for left, _, _, _ in parsed], dtype=np.int64)
        produced = np.array([[right.get(name, 0) for name in species] for _, right, _, _ in parsed], dtype=np.int64)
        values = np.array([rate for _, _, rate, _ in parsed], dtype=np.float64)
        return cls(species, consumed, produced - consumed, values, convention, allow_high_order)

    @property
    def order(self) -> NDArray[np.int64]:
        """Number of reactants of each reaction, (R,)."""
        return self.reactants.sum(axis=1)

    @property
    def constants(self) -> NDArray[np.float64]:
        """Rate constants of the falling convention, (R,): those of "combinatorial" divided by prod m_rs!."""
        if self.convention == "falling":
            return self.rates
        return self.rates / np.array([math.prod(math.factorial(m) for m in row) for row in self.reactants.tolist()])

    def counts(self, n0: ArrayLike | Mapping[str, int]) -> NDArray[np.int64]:
        """Check initial counts: (S,) non-negative integers, or a mapping with zero for what is left out."""
        if isinstance(n0, Mapping):
            if unknown := sorted(set(n0) - set(self.species)):
                raise ValueError(f"n0 names species {unknown[0]!r}; the network has {', '.join(self.species)}")
            n0 = [n0.get(name, 0) for name in self.species]
        values = np.atleast_1d(np.asarray(n0))
        if values.shape != (len(self.species),):
            raise ValueError(f"n0 must hold one count for each of {', '.join(self.species)}; got shape {values.shape}")
        if values.dtype.kind not in "iuf" or not np.isfinite(values).all() or (values != np.floor(values)).any():
            raise ValueError(f"n0 must hold whole numbers; got {values.tolist()}")
        if (values < 0).any():
            raise ValueError(f"n0 must not be negative; got {values.tolist()}")
        return values.astype(np.int64)

    def propensities(self, n: ArrayLike) -> NDArray[np.float64]:
        """Propensities a_r of counts n, (..., S) -> (..., R)."""
        n = np.asarray(n, dtype=np.float64)
        result = np.broadcast_to(self.constants, (*n.shape[:-1], len(self.rates))).copy()
        for r, s in zip(*np.nonzero(self.reactants), strict=True):
            for used in range(self.reactants[r, s]):
                result[..., r] *= np.maximum(n[..., s] - used, 0.0)
        return result

    def fluxes(self, n: ArrayLike) -> NDArray[np.float64]:
        """Mean-field propensities k_r prod n^m, (..., S) -> (..., R)."""
        n = np.asarray(n, dtype=np.float64)
        return self.constants * np.prod(n[..., None, :] ** self.reactants, axis=-1)

    def rate_equation(self) -> Callable[[float, NDArray[np.float64]], NDArray[np.float64]]:
        """Right-hand side `f(t, n)` of the rate equation, as `scipy.integrate.solve_ivp` takes it."""

        def right_hand_side(t: float, n: NDArray[np.float64]) -> NDArray[np.float64]:
            return self.fluxes(n) @ self.stoichiometry

        return right_hand_side

    def jacobian(self, n: ArrayLike) -> NDArray[np.float64]:
        """J_ij = d(dn_i/dt)/dn_j of the rate equation at n, (S, S)."""
        n = np.asarray(n, dtype=np.float64)
        derivatives = np.empty((len(self.rates), len(self.species)))
        for s in range(len(self.species)):
            lowered = self.reactants.copy()
            lowered[:, s] = np.maximum(lowered[:, s] - 1, 0)
            derivatives[:, s] = self.constants * self.reactants[:, s] * np.prod(n**lowered, axis=-1)
        return self.stoichiometry.T @ derivatives

    def diffusion(self, n: ArrayLike) -> NDArray[np.float64]:
        """Noise strength sum_r v_r v_r^T a_r at mean-field propensities, (S, S)."""
        return (self.stoichiometry.T * self.fluxes(n)) @ self.stoichiometry


def _parse_reaction(text: str, rates: Mapping[str, float]) -> tuple[dict[str, int], dict[str, int], float, str]:
    arrow = text.split("->")
    if len(arrow) != 2 or arrow[1].count("@") != 1:
        raise ValueError(f"cannot read reaction {text!r}: it needs one '->' and one '@'; write for example {_EXAMPLE}")
    right, rate = (part.strip() for part in arrow[1].split("@"))
    left_side, right_side = _parse_side(arrow[0], text), _parse_side(right, text)
    if rate in rates:
        return left_side, right_side, checked_rate(rate, rates[rate]), rate
    try:
        value = float(rate)
    except ValueError:
        raise ValueError(
            f"rate {rate!r} of reaction {text!r} has no value; write a number or pass rates={{{rate!r}: 1.0}}"
        ) from None
    return left_side, right_side, checked_rate(f"rate of {text!r}", value), ""


def _parse_side(side: str, reaction: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    if side.strip() == "0":
        return counts
    terms: Sequence[str] = [term.strip() for term in side.split("+")]
    for term in terms:
        match = _TERM.fullmatch(term)
        if match is None or match[1] == "0":
            raise ValueError(f"cannot read {term!r} in reaction {reaction!r}; write for example {_EXAMPLE}")
        counts[match[2]] = counts.get(match[2], 0) + int(match[1] or 1)
    return counts
