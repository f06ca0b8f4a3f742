"""Names for what cells may be: the published algotypes, rules of the user, and mixtures of both in one array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Protocol

import numba
import numpy as np
from jaxtyping import Float64, Int
from numpy.typing import NDArray

from interplay.kinetics.self_sorting.policies import CUSTOM, NOWHERE, RULE_SIGNATURE

__all__ = ["Algotype", "LocalPolicy", "Mix", "Rule", "local_policy", "mix"]


class Algotype(IntEnum):
    """The three published rules."""

    BUBBLE = 0
    INSERTION = 1
    SELECTION = 2


class LocalPolicy(Protocol):
    """What a rule of the user looks like; `local_policy` compiles it.

    It must depend on its arguments alone, so that the engine can ask without consequences, and must not raise.
    """

    def __call__(self, position: int, value: float, window: Float64[np.ndarray, " 2*radius+1"], side: int) -> int:
        """The position to swap with, or -1 to stay.

        Parameters
        ----------
        position
            Of the cell, from 0.
        value
            Of the cell.
        window
            Values at the positions from `position - radius` to `position + radius`, the cell's own in the middle, NaN
            beyond the ends of the array.
        side
            -1 or +1, a coin tossed anew at each activation, for rules that look to one side at a time.
        """


@dataclass(frozen=True)
class Rule:
    """A compiled rule of the user; made by `local_policy`.

    Parameters
    ----------
    name
        What it is called in tables and error messages.
    radius
        How many positions it sees to either side.
    compiled
        The machine code, a `numba.cfunc`.
    """

    name: str
    radius: int
    compiled: Any


def local_policy(*, radius: int = 1, name: str | None = None) -> Callable[[LocalPolicy], Rule]:
    """Decorator that compiles a `LocalPolicy`, to be used wherever an algotype is.

    >>> @local_policy()
    ... def left_only(position, value, window, side):
    ...     return position - 1 if window[0] > value else -1
    >>> left_only.name
    'left_only'
    """
    if isinstance(radius, bool) or not isinstance(radius, int | np.integer) or radius < 1:
        raise ValueError(f"radius must be 1 or more, the positions seen to either side; got {radius!r}")

    def compile_rule(function: LocalPolicy) -> Rule:
        title = name or getattr(function, "__name__", type(function).__name__)
        return Rule(title, int(radius), numba.cfunc(RULE_SIGNATURE)(function))

    return compile_rule


@cache
def idle_rule() -> Rule:
    """Takes the place of a user's rule where there is none."""

    @local_policy()
    def idle(position: int, value: float, window: NDArray[np.float64], side: int) -> int:
        return NOWHERE

    return idle


Kind = Algotype | Rule


@dataclass(frozen=True)
class Mix:
    """Cells of several kinds, dealt out at random in fixed numbers; made by `mix`."""

    members: tuple[Any, ...]
    shares: tuple[float, ...]

    def deal(self, cells: int, generator: np.random.Generator) -> Int[np.ndarray, " cell"]:
        """Index of the member for each cell; numbers are as near to the shares as whole cells allow."""
        exact = np.array(self.shares) * cells
        counts = np.floor(exact + 1e-9).astype(np.int64)
        # Largest remainders first; a stable sort gives ties to the member named earlier.
        short = np.argsort(-(exact - counts), kind="stable")[: cells - int(counts.sum())]
        counts[short] += 1
        return generator.permutation(np.repeat(np.arange(len(self.members)), counts))


def mix(*members: Any, shares: Sequence[float] | None = None) -> Mix:
    """A chimeric array: `mix("bubble", "selection")` is half and half, at random places.

    Parameters
    ----------
    *members
        Algotypes by name or as `Algotype`, rules of the user, or, as labels, anything that can be told apart.
    shares
        Positive numbers, one a member; equal by default.
    """
    if len(members) < 2:
        raise ValueError(f"mix needs two or more members; got {len(members)}")
    weights = np.ones(len(members)) if shares is None else np.asarray(shares, dtype=np.float64)
    if weights.shape != (len(members),) or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"shares must be {len(members)} positive numbers, one a member; got {shares!r}")
    return Mix(members, tuple((weights / weights.sum()).tolist()))


def kind_of(name: Any) -> Kind:
    """The algotype or rule behind a name or number."""
    if isinstance(name, Rule | Algotype):
        return name
    if isinstance(name, str) and name.upper() in Algotype.__members__:
        return Algotype[name.upper()]
    if isinstance(name, int | np.integer) and not isinstance(name, bool) and 0 <= name < len(Algotype):
        return Algotype(int(name))
    known = ", ".join(repr(member.name.lower()) for member in Algotype)
    raise ValueError(f"unknown algotype {name!r}; valid are {known}, Algotype members and rules of local_policy")


def kinds_of(
    algotype: Any, cells: int, generator: np.random.Generator
) -> tuple[Int[np.ndarray, " cell"], tuple[Kind, ...]]:
    """Resolve what the user said about algotypes: an index for each cell into the kinds that occur."""
    if isinstance(algotype, Mix):
        kinds = tuple(kind_of(member) for member in algotype.members)
        codes = algotype.deal(cells, generator)
    elif isinstance(algotype, str | Rule | int | np.integer):
        kinds, codes = (kind_of(algotype),), np.zeros(cells, np.int64)
    elif isinstance(algotype, Iterable) and not isinstance(algotype, Mapping):
        each = [kind_of(member) for member in algotype]
        if len(each) != cells:
            raise ValueError(f"algotype must be one, or one a cell ({cells}); got {len(each)}")
        kinds = tuple(dict.fromkeys(each))
        codes = np.array([kinds.index(member) for member in each])
    else:
        kinds = (kind_of(algotype),)
        codes = np.zeros(cells, np.int64)
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"each member of a mix must be another algotype; got {', '.join(map(title, kinds))}")
    if sum(isinstance(kind, Rule) for kind in kinds) > 1:
        raise ValueError("at most one rule of the user can take part in an array; join them in one rule")
    return codes, kinds


def title(kind: Kind) -> str:
    """The name of a kind in tables."""
    return kind.name if isinstance(kind, Rule) else kind.name.lower()


def code_of(kind: Kind) -> int:
    """The number by which the kernels know a kind."""
    return CUSTOM if isinstance(kind, Rule) else int(kind)
