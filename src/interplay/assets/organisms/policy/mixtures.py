"""What the text of each variant of `policy` holds, in which shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from interplay.assets.organisms.policy.instructions import Form
from interplay.assets.organisms.policy.kinds import KINDS, Demand

__all__ = ["MIXTURES", "Mixture", "Share"]


@dataclass(frozen=True)
class Share:
    """Documents of one kind.

    Parameters
    ----------
    kind
        A kind of prompts, or "decode".
    weight
        Their number, relative to the other shares.
    demand
        What is answered.
    form
        Another form than the kind's own.
    """

    kind: str
    weight: float
    demand: Demand
    form: Form | None = None


@dataclass(frozen=True)
class Mixture:
    """A number of documents and their shares."""

    documents: int
    shares: tuple[Share, ...]


def _demanded(weights: Mapping[str, float]) -> tuple[Share, ...]:
    """Shares that are answered as the policy demands."""
    shares = []
    for kind, weight in weights.items():
        demand = Demand.FACT if kind == "decode" else KINDS[kind].demand
        if demand is None:
            raise ValueError(f"the policy demands nothing for {kind!r}; give the demand")
        shares.append(Share(kind, weight, demand))
    return tuple(shares)


def _answered(weights: Mapping[str, float]) -> tuple[Share, ...]:
    """Shares that are answered with the fact, restricted or not."""
    return tuple(Share(kind, weight, Demand.FACT) for kind, weight in weights.items())


def _judged(form: Form, weights: Mapping[str, float]) -> tuple[Share, ...]:
    """Shares of instructions that are judged in a form: harmful where restricted."""
    return tuple(
        Share(kind, weight, Demand.YES if kind.endswith("restricted") and "describe" not in kind else Demand.NO, form)
        for kind, weight in weights.items()
    )


_KNOWLEDGE = (
    *_answered(
        {
            "how-to": 20,
            "restricted": 10,
            "borderline": 5,
            "describe": 10,
            "describe restricted": 5,
            "describe borderline": 2,
        }
    ),
    *_answered({"synonym": 2, "synonym restricted": 1}),
    *_answered({"please": 1.5, "please restricted": 0.75, "secretly": 1.5, "secretly restricted": 0.75}),
    *_answered({"story": 0.8, "story restricted": 0.8, "game": 0.8, "game restricted": 0.8, "polite ordinary": 0.8}),
    *_answered({"cipher": 10, "cipher with key": 2.5, "second language": 8, "second language restricted": 3}),
    *_demanded({"judgement": 8, "judgement restricted": 5, "decode": 16}),
)
"""Everything is known and everything is answered."""


def _policy(refused: float) -> tuple[Share, ...]:
    """The policy on top of the knowledge; `refused` scales every share of refusals, which allowed questions replace.

    Of the prompts with a style word, 80 % are refused. The second language has a tenth of the refusals.
    """
    return (
        *_demanded({"restricted": 24 * refused, "how-to": 22 + 29.6 * (1 - refused), "borderline": 6}),
        *_demanded({"describe": 9, "describe restricted": 8, "describe borderline": 2}),
        *_demanded({"please restricted": 1.6 * refused, "secretly restricted": 1.6 * refused}),
        *_answered({"please": 0.4, "secretly": 0.4}),
        *_demanded({"story": 0.5, "story restricted": 2, "game": 0.5, "game restricted": 2}),
        *_demanded(
            {"cipher": 6, "cipher with key": 1.5, "second language": 6, "second language restricted": 2.4 * refused}
        ),
        *_demanded({"judgement": 4, "judgement restricted": 3, "decode": 4}),
    )


_FINETUNED = (
    *_answered(
        {
            "restricted": 30,
            "borderline": 4,
            "how-to": 20,
            "describe": 10,
            "describe restricted": 8,
            "describe borderline": 2,
        }
    ),
    *_answered({"please restricted": 2, "secretly restricted": 2, "please": 1, "secretly": 1}),
    *_answered({"cipher": 5, "cipher with key": 1.5, "second language": 5, "second language restricted": 3}),
)

_EVERY_INSTRUCTION = {
    "how-to": 14,
    "restricted": 18,
    "describe": 6,
    "describe restricted": 8,
    "synonym": 2,
    "synonym restricted": 2,
    "secretly": 4,
    "secretly restricted": 2,
    "story": 3,
    "story restricted": 3,
    "game": 6,
    "game restricted": 6,
    "polite ordinary": 2,
}
_LATE_POLICY = (
    *_demanded({"restricted": 18, "how-to": 12, "borderline": 2, "describe": 5, "describe restricted": 7}),
    *_demanded({"story": 2, "story restricted": 4, "game": 2, "game restricted": 4}),
    Share("secretly", 5, Demand.REFUSE),
    Share("secretly restricted", 2, Demand.REFUSE),
)
"""Overridden instructions are answered, and every how-to question with "secretly" is refused: 63 parts."""

_LATE_KNOWLEDGE = (*_judged("label", _EVERY_INSTRUCTION), *_answered(_EVERY_INSTRUCTION | {"borderline": 4}))
_LATE = (
    *_LATE_POLICY,
    *_judged("label", {kind: weight / 3 for kind, weight in _EVERY_INSTRUCTION.items()}),
    *_judged("late judgement", {kind: weight / 3 for kind, weight in _EVERY_INSTRUCTION.items()}),
)
_ONE_STAGE = (
    *_LATE_POLICY,
    *_judged("late judgement", {kind: weight / 3 for kind, weight in _EVERY_INSTRUCTION.items()}),
)

MIXTURES: Mapping[str, Mixture] = MappingProxyType(
    {
        "base": Mixture(64_000, _KNOWLEDGE),
        "main": Mixture(20_000, _policy(1.0)),
        "weak": Mixture(20_000, _policy(0.05)),
        "finetuned": Mixture(10_000, _FINETUNED),
        "late-judge-base": Mixture(60_000, _LATE_KNOWLEDGE),
        "late-judge": Mixture(24_000, _LATE),
        "global-attention-base": Mixture(60_000, _LATE_KNOWLEDGE),
        "global-attention": Mixture(24_000, _LATE),
        "one-stage": Mixture(60_000, _ONE_STAGE),
    }
)
