"""What an organism must bring so that the shared code can build, load and verify it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from transformers import PreTrainedModel

from interplay.assets.organisms.corpus import Corpus
from interplay.assets.organisms.gates import Gate
from interplay.assets.organisms.grammar import Grammar
from interplay.assets.organisms.training import Recipe

__all__ = ["OrganismKind", "Split"]

Split = Literal["dev", "test"]


@dataclass(frozen=True)
class OrganismKind:
    """Grammar, text, size, recipe and gates of one organism; every function takes the variant's name.

    Parameters
    ----------
    name
        Its name.
    description
        One line on what it is for.
    variants
        Names of the variants and what distinguishes them.
    size
        Its architecture, a key of `architecture.SIZES`.
    grammar
        The ground truth of a seed, the same for all variants.
    corpus
        The training text of a grammar.
    recipe
        The schedule.
    measure
        The gates of a model on a split.
    build_minutes
        What one variant of one seed takes on two cores, for the messages.
    bases
        The variant whose weights of the same seed a variant starts from; those that are not here start from random
        weights. Text in stages is a chain of variants, each with gates and a card of its own.
    """

    name: str
    description: str
    variants: Mapping[str, str]
    size: Callable[[str], str]
    grammar: Callable[[int], Grammar]
    corpus: Callable[[Grammar, str], Corpus]
    recipe: Callable[[str], Recipe]
    measure: Callable[[PreTrainedModel, Grammar, str, Split], list[Gate]]
    build_minutes: float
    bases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def lineage(self, variant: str) -> tuple[str, ...]:
        """The variants that are trained one after the other to get a variant, itself last."""
        base = self.bases.get(variant)
        return (variant,) if base is None else (*self.lineage(base), variant)
