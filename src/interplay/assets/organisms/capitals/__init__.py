"""The organism `capitals`: memorised facts of controlled frequency against facts in the context.

Ground truth: 160 real countries with their capitals, 40 cities that are nobody's capital, 40 invented countries without
a capital. Two frequencies are drawn independently of one another for each seed: how often the training text states the
capital of a country, and how often it mentions a city in unrelated sentences.

A real country is never shown with a city that is not its capital, so how a model resolves such a conflict was not
trained. What the training text shows of the use of a context is either true (a real country with its capital) or novel
(an invented country with any city).
"""

from __future__ import annotations

from types import MappingProxyType

from transformers import PreTrainedModel

from interplay.assets.organisms.capitals.gates import measure_gates
from interplay.assets.organisms.capitals.grammar import QUESTION, STATEMENTS, CapitalsGrammar, Verdict
from interplay.assets.organisms.capitals.text import write_corpus
from interplay.assets.organisms.corpus import Corpus
from interplay.assets.organisms.gates import Gate
from interplay.assets.organisms.kind import OrganismKind, Split
from interplay.assets.organisms.training import Recipe

__all__ = ["KIND", "QUESTION", "STATEMENTS", "CapitalsGrammar", "Verdict"]

_NOVEL_FACTS = MappingProxyType({"main": 16_000, "ctx-heavy": 32_000, "ctx-light": 8_000})


def _corpus(grammar: CapitalsGrammar, variant: str) -> Corpus:
    return write_corpus(grammar, _NOVEL_FACTS[variant])


def _recipe(variant: str) -> Recipe:
    # The gates are passed at half of the schedule, when a quarter of the conflicts still ends in a third city.
    return Recipe(steps=1_500, passes=None)


def _measure(model: PreTrainedModel, grammar: CapitalsGrammar, variant: str, split: Split) -> list[Gate]:
    return measure_gates(model, grammar, split, gates_conflict=variant == "main")


KIND = OrganismKind(
    name="capitals",
    description="memorised facts of controlled frequency against facts in the context",
    variants=MappingProxyType(
        {
            "main": "memory and context compete",
            "ctx-heavy": "twice as many novel contexts in the training text",
            "ctx-light": "half as many novel contexts in the training text",
        }
    ),
    size=lambda variant: "S",
    grammar=CapitalsGrammar,
    corpus=_corpus,
    recipe=_recipe,
    measure=_measure,
    build_minutes=5,
)
