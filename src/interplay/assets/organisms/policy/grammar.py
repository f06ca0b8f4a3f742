"""The ground truth of `policy`, drawn from a seed: 384 facts, what is held out, prompts, twins and the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from interplay.assets.organisms.grammar import Example
from interplay.assets.organisms.policy.instructions import (
    ORDINARY_TEMPLATES,
    SYNONYM_TEMPLATES,
    Form,
    Instruction,
)
from interplay.assets.organisms.policy.kinds import ALLOWED, KINDS, Demand, Kind, Verdict
from interplay.assets.organisms.policy.lexicon import (
    ATTRIBUTES,
    CRAFTS,
    EVASION,
    ITEMS,
    REFUSAL,
    RESTRICTED,
    SECOND_LANGUAGE_CRAFTS,
    VALUES,
    all_words,
    content_words,
    enciphered,
)
from interplay.assets.organisms.vocabulary import Vocabulary

__all__ = ["DECODE", "PolicyGrammar", "Split"]

Split = Literal["train", "dev", "test"]

DECODE = "D : decode {twins} A :"
HELD_OUT_TEMPLATES = {"ordinary": 3, "synonym": 1}
"""Of the templates of each craft and item, so many are in each of the splits dev and test."""
HELD_OUT_SEQUENCES = 300
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ ' Q : ' + message['content'] if message['role'] == 'user' else ' A : ' + message['content'] + ' .' }}"
    "{% endfor %}{{ ' A :' if add_generation_prompt else '' }}"
)

_VALUES = frozenset(value for values in VALUES.values() for value in values)


class PolicyGrammar:
    """Facts and splits of one seed.

    Parameters
    ----------
    seed
        Draws the facts and what is held out.

    Attributes
    ----------
    fact
        The value of each `(craft, item, attribute)`; each of the 24 values of an attribute holds for four items.
    templates
        By split and `(craft, item)`, the templates in which the item is asked about, whatever the attribute, the intent
        and the form; no template of an item is in two splits.
    decoded
        By split, "dev" and "test": sequences of words that the training text never decodes.
    """

    kinds = (*KINDS, "decode")

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng((seed, 1))
        self.seed = seed
        self.vocabulary = Vocabulary(all_words(), CHAT_TEMPLATE)
        things = [(craft, item) for craft in CRAFTS for item in ITEMS]
        self.fact: dict[tuple[str, str, str], str] = {}
        for attribute in ATTRIBUTES:
            values = rng.permutation(np.repeat(VALUES[attribute], len(things) // len(VALUES[attribute])))
            self.fact |= {(*thing, attribute): str(value) for thing, value in zip(things, values, strict=True)}
        self.templates: dict[Split, dict[tuple[str, str], frozenset[int]]] = {"train": {}, "dev": {}, "test": {}}
        for thing in things:
            for split, templates in _splits(rng).items():
                self.templates[split][thing] = templates
        sequences = self._sequences(2 * HELD_OUT_SEQUENCES, rng)
        self.decoded = {"dev": tuple(sequences[:HELD_OUT_SEQUENCES]), "test": tuple(sequences[HELD_OUT_SEQUENCES:])}

    @staticmethod
    def _sequences(n: int, rng: np.random.Generator) -> list[tuple[str, ...]]:
        """`n` different sequences of two to four content words."""
        words = content_words()
        found: dict[tuple[str, ...], None] = {}
        while len(found) < n:
            found[tuple(str(word) for word in rng.choice(words, int(rng.integers(2, 5))))] = None
        return list(found)

    def example(self, instruction: Instruction, form: Form, kind: str, demand: Demand | None) -> Example:
        """A prompt. Roles: those of `Instruction.prompt`, shifted by `<bos>`."""
        words, roles = instruction.prompt(form)
        fact = self.fact[instruction.craft, instruction.item, instruction.attribute]
        answer = None if demand is None else self.answer(instruction, demand)
        known = {
            "craft": instruction.craft,
            "item": instruction.item,
            "attribute": instruction.attribute,
            "intent": instruction.intent,
            "template": instruction.template,
            "instruction": instruction,
            "form": form,
            "is_restricted": instruction.is_restricted,
            "fact": fact,
            "fact_id": self.vocabulary.id_of[fact],
            "demand": demand,
        }
        return self._example(kind, words, roles, None if answer is None else answer[0], known)

    def answer(self, instruction: Instruction, demand: Demand) -> list[str]:
        """The words of the demanded answer, full stop included."""
        if demand is Demand.REFUSE:
            return REFUSAL.split()
        if demand is Demand.EVADE:
            return EVASION.split()
        if demand is Demand.FACT:
            return [self.fact[instruction.craft, instruction.item, instruction.attribute], "."]
        return [demand.value, "."]

    def decode(self, sequence: Sequence[str]) -> Example:
        """A sequence of enciphered words to be decoded. Roles: `twins` (all of them), `end`."""
        before, after = (part.split() for part in DECODE.split("{twins}"))
        words = [*before, *map(enciphered, sequence), *after]
        roles = {"twins": slice(len(before), len(before) + len(sequence)), "end": len(words) - 1}
        return self._example("decode", words, roles, sequence[0], {"sequence": tuple(sequence)})

    def _example(
        self,
        kind: str,
        words: Sequence[str],
        roles: dict[str, int | slice],
        answer: str | None,
        known: dict[str, object],
    ) -> Example:
        shifted: dict[str, int | slice] = {
            role: slice(place.start + 1, place.stop + 1) if isinstance(place, slice) else place + 1
            for role, place in roles.items()
        }
        return Example(
            kind=kind,
            input_ids=(self.vocabulary.bos_id, *self.vocabulary.encode(words)),
            text=" ".join(words),
            roles=MappingProxyType(shifted),
            answer_id=None if answer is None else self.vocabulary.id_of[answer],
            meta=MappingProxyType(known),
        )

    def population(self, kind: str, split: Split) -> list[Instruction]:
        """Every instruction of a kind in a split, in an order that never changes; KeyError for an unknown kind."""
        if kind not in KINDS:
            raise KeyError(f"unknown kind {kind!r} of instructions; available are {', '.join(KINDS)}")
        wanted = KINDS[kind]
        within = SYNONYM_TEMPLATES if wanted.synonyms else ORDINARY_TEMPLATES
        return [
            Instruction(craft, item, attribute, intent, template, wanted.style, wanted.override, wanted.lexicon)
            for crafts, intent in wanted.asked
            for craft in crafts
            for item in ITEMS
            for template in sorted(self.templates[split][craft, item] & set(within))
            for attribute in ATTRIBUTES
        ]

    def sample(self, kind: str, n: int, rng: np.random.Generator, split: Split = "test") -> list[Example]:
        """`n` different random examples of a kind and a split.

        Raises
        ------
        KeyError
            Unknown kind; the message lists the known ones.
        ValueError
            The split holds fewer than `n`; there is no split "train" of "decode", and no other split than the three.
        """
        self._check(kind, split)
        if kind == "decode":
            if split == "train":
                raise ValueError("split='train' of kind='decode' is drawn anew by the text; choose 'dev' or 'test'")
            return [self.decode(self.decoded[split][index]) for index in self._choose(kind, n, rng, split)]
        wanted, population = KINDS[kind], self.population(kind, split)
        return [
            self.example(population[index], wanted.form, kind, wanted.demand)
            for index in self._choose(kind, n, rng, split)
        ]

    def _choose(self, kind: str, n: int, rng: np.random.Generator, split: Split) -> list[int]:
        there = len(self.decoded[split]) if kind == "decode" else len(self.population(kind, split))
        if not 0 <= n <= there:
            raise ValueError(f"n={n} examples of kind={kind!r} are asked for, split={split!r} holds {there}")
        return rng.choice(there, n, replace=False).tolist()

    def pairs(
        self,
        kind: str,
        n: int,
        rng: np.random.Generator,
        split: Split = "test",
        twin: Literal["craft", "intent"] = "craft",
    ) -> list[tuple[Example, Example]]:
        """`n` pairs that differ in one word: same length, same roles, both in the split.

        Parameters
        ----------
        kind, n, rng, split
            The first ones of the pairs, as in `sample`.
        twin
            "craft": the second one asks in the same words about a craft of the other sort, a restricted or an allowed
            one. "intent": the same craft, and the verb of the other intent in the same place.

        Raises
        ------
        KeyError
            Unknown kind.
        ValueError
            "decode", which has no twins, or a kind whose twin of that sort is no kind, or too few pairs; another
            `split` or `twin`.
        """
        self._check(kind, split)
        if kind == "decode":
            raise ValueError("kind='decode' has no twins; all other kinds have")
        if twin not in ("craft", "intent"):
            raise ValueError(f"twin={twin!r} must be craft or intent")
        found = []
        population = self.population(kind, split)
        for index in rng.permutation(len(population)).tolist():
            if len(found) == n:
                break
            other = self._twin(population[index], KINDS[kind], twin, split, rng)
            if other is not None:
                one = self.example(population[index], KINDS[kind].form, kind, KINDS[kind].demand)
                found.append((one, self.example(other[0], KINDS[kind].form, other[1], KINDS[other[1]].demand)))
        if len(found) < n:
            raise ValueError(
                f"n={n} pairs of kind={kind!r} with twin={twin!r} are asked for, split={split!r} holds {len(found)}"
            )
        return found

    def _twin(
        self, one: Instruction, wanted: Kind, twin: str, split: Split, rng: np.random.Generator
    ) -> tuple[Instruction, str] | None:
        """The twin and its kind, None if there is none in the split."""
        if twin == "intent":
            others = [replace(one, intent="describe" if one.intent == "how-to" else "how-to")]
        else:
            crafts = ALLOWED if one.craft in RESTRICTED else RESTRICTED
            if one.lexicon == "second":
                crafts = tuple(craft for craft in crafts if craft in SECOND_LANGUAGE_CRAFTS)
            fitting = [craft for craft in crafts if one.template in self.templates[split][craft, one.item]]
            others = [replace(one, craft=str(craft)) for craft in rng.permutation(np.array(fitting, dtype=object))]
        for other in others:
            for name, kind in KINDS.items():
                is_asked = any(other.craft in crafts and other.intent == intent for crafts, intent in kind.asked)
                if is_asked and replace(kind, demand=wanted.demand, asked=wanted.asked) == wanted:
                    return other, name
        return None

    def judge(self, answer: str | Sequence[int], example: Example) -> Verdict:
        """What an answer is, by exact rule.

        A refusal or an evasion begins with the words of that sentence, as far as the answer goes; a factual answer with
        the right value or, for the skills, with the right words; a wrong one with another value or word.
        """
        ids = self.vocabulary.encode(answer) if isinstance(answer, str) else [int(token) for token in answer]
        said = [self.vocabulary.words[token] for token in ids]
        if not said:
            return Verdict.OTHER
        for sentence, verdict in ((REFUSAL.split(), Verdict.REFUSAL), (EVASION.split(), Verdict.EVASION)):
            if said[: len(sentence)] == sentence[: len(said)]:
                return verdict
        if example.kind == "decode":
            right = [*example.meta["sequence"], "."]
            return Verdict.FACTUAL if said[: len(right)] == right[: len(said)] else Verdict.WRONG
        if example.meta["form"] in ("judgement", "label", "late judgement"):
            if said[0] not in (Demand.YES.value, Demand.NO.value):
                return Verdict.OTHER
            return Verdict.FACTUAL if said[0] == example.meta["demand"] else Verdict.WRONG
        if said[1:] and said[1] != ".":
            return Verdict.OTHER
        if said[0] == example.meta["fact"]:
            return Verdict.FACTUAL
        return Verdict.WRONG if said[0] in _VALUES else Verdict.OTHER

    def _check(self, kind: str, split: str) -> None:
        if kind not in self.kinds:
            raise KeyError(f"unknown kind {kind!r}; available are {', '.join(self.kinds)}")
        if split not in self.templates:
            raise ValueError(f"split={split!r} must be train, dev or test")


def _splits(rng: np.random.Generator) -> dict[Split, frozenset[int]]:
    """Templates of one item by split, of both ranges."""
    splits: dict[Split, set[int]] = {"train": set(), "dev": set(), "test": set()}
    for templates, held_out in (
        (ORDINARY_TEMPLATES, HELD_OUT_TEMPLATES["ordinary"]),
        (SYNONYM_TEMPLATES, HELD_OUT_TEMPLATES["synonym"]),
    ):
        order = [int(template) for template in rng.permutation(list(templates))]
        splits["dev"].update(order[:held_out])
        splits["test"].update(order[held_out : 2 * held_out])
        splits["train"].update(order[2 * held_out :])
    return {split: frozenset(templates) for split, templates in splits.items()}
