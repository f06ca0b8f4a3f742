"""The two tasks: who was given the thing, and which color does the object have (tasks 1 and 2 of the package)."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from string import Formatter
from typing import Any, Literal

import numpy as np

from interplay.circuits.circuit_reuse.batches import Prompt, TaskPairs
from interplay.circuits.circuit_reuse.wording import (
    COLORS,
    GIFTS,
    NAMES,
    OPENINGS,
    PLACES,
    SENTENCES,
    SURFACES,
    THINGS,
)

Order = Literal["mixed", "ABBA", "BABA"]
QUESTION = "Q: On the {surface}, {opening} {listing}. What color is the {query}?\nA:"


class IndirectObject:
    """Indirect object identification: "When Mary and John went to the store, John gave a drink to" -> Mary.

    The answer is the indirect object, the contrast the subject. The corrupted twin exchanges the second mention of the
    subject for the indirect object, so that the right answer flips. Roles: ``io``, ``s1`` (first mention of the
    subject), ``s2`` (second mention), ``end``.

    Parameters
    ----------
    tokenizer
        A fast Hugging Face tokenizer in which every name, after a blank, is one token.
    names, places, gifts
        Words to fill in.
    sentences
        With the slots ``{first}``, ``{second}``, ``{giver}``, and if wanted ``{place}`` and ``{gift}``.
    order
        ``"ABBA"``: the indirect object is named first; ``"BABA"``: the subject is; ``"mixed"``: by turns.
    spaced
        Put a blank on both sides of every punctuation mark and no line break, for tokenizers of whole words.

    Raises
    ------
    ValueError
        An unknown order, fewer than two names, a sentence without its slots.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        names: Sequence[str] = NAMES,
        places: Sequence[str] = PLACES,
        gifts: Sequence[str] = GIFTS,
        sentences: Sequence[str] = SENTENCES,
        order: Order = "mixed",
        spaced: bool = False,
    ) -> None:
        if order not in ("mixed", "ABBA", "BABA"):
            raise ValueError(f"order={order!r}: allowed are 'mixed', 'ABBA' and 'BABA'")
        _check_distinct("names", names, 2)
        _check_distinct("places", places, 1)
        _check_distinct("gifts", gifts, 1)
        _check_distinct("sentences", sentences, 1)
        for sentence in sentences:
            _check_slots("sentences", sentence, {"first", "second", "giver"}, {"place", "gift"})
        self._tokenizer, self._order, self._spaced = tokenizer, order, spaced
        self.names, self.places, self.gifts, self.sentences = names, places, gifts, sentences

    def prompts(self, n: int, rng: np.random.Generator) -> tuple[list[Prompt], list[Prompt]]:
        """`n` different prompts and their corrupted twins, in words."""
        drawn = iter(range(n * 1000))

        def draw() -> tuple[Prompt, Prompt]:
            sentence, place, gift = (str(rng.choice(words)) for words in (self.sentences, self.places, self.gifts))
            subject, indirect = (str(name) for name in rng.choice(self.names, 2, replace=False))
            abba = next(drawn) % 2 == 0 if self._order == "mixed" else self._order == "ABBA"
            first, second = (indirect, subject) if abba else (subject, indirect)

            def tell(giver: str, asked: str) -> Prompt:
                words = {"first": first, "second": second, "giver": giver, "place": place, "gift": gift}
                text, spans = _fill(sentence, words, self._spaced)
                io, s1 = ("first", "second") if abba else ("second", "first")
                roles = {"io": [spans[io]], "s1": [spans[s1]], "s2": [spans["giver"]]}
                return Prompt(text, asked, giver, roles, (first, second))

            return tell(subject, indirect), tell(indirect, subject)

        return _different(draw, n)

    def pairs(self, n: int, rng: np.random.Generator) -> TaskPairs:
        """`n` different prompts and their corrupted twins, tokenised.

        Raises
        ------
        ValueError
            A name longer than one token; more prompts than there are; `n` below 1.
        """
        return TaskPairs.from_prompts(self._tokenizer, *self.prompts(n, rng), source="s2", single=True)


class ColoredObjects:
    """Colored objects: one solved example, then three things of three colors and the question for one of them.

    "Q: On the table, there is a red pen, a blue cup, and a green jug. What color is the cup?\\nA:" -> Blue. The answer
    is the color, capitalised; the contrast is the color of the thing that the corrupted twin asks for instead. Roles:
    ``objects`` and ``colors`` (three each, in their order), ``query`` (the thing asked for), ``right`` (where its
    color stands), ``wrong`` (where the other two stand), ``end``. The solved example uses other things; its colors are
    free.

    Parameters
    ----------
    tokenizer
        A fast Hugging Face tokenizer in which every thing and color, after a blank, is one token.
    things, colors, surfaces, openings
        Words to fill in; colors stand in the answers with a capital letter.
    question
        With the slots ``{listing}``, ``{query}`` and, if wanted, ``{surface}`` and ``{opening}``.
    shots
        Solved examples before the question.
    spaced
        Put a blank on both sides of every punctuation mark and no line break, for tokenizers of whole words.

    Raises
    ------
    ValueError
        Fewer than three colors or than 3 (shots + 1) things, a question without its slots.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        things: Sequence[str] = THINGS,
        colors: Sequence[str] = COLORS,
        surfaces: Sequence[str] = SURFACES,
        openings: Sequence[str] = OPENINGS,
        question: str = QUESTION,
        shots: int = 1,
        spaced: bool = False,
    ) -> None:
        if shots < 0:
            raise ValueError(f"shots must not be negative; got {shots}")
        _check_distinct("things", things, 3 * (shots + 1))
        _check_distinct("colors", colors, 3)
        _check_distinct("surfaces", surfaces, 1)
        _check_distinct("openings", openings, 1)
        _check_slots("question", question, {"listing", "query"}, {"surface", "opening"})
        self._tokenizer, self._question, self._shots, self._spaced = tokenizer, question, shots, spaced
        self.things, self.colors, self.surfaces, self.openings = things, colors, surfaces, openings

    def prompts(self, n: int, rng: np.random.Generator) -> tuple[list[Prompt], list[Prompt]]:
        """`n` different prompts and their corrupted twins, in words."""

        def draw() -> tuple[Prompt, Prompt]:
            things = rng.choice(self.things, (self._shots + 1, 3), replace=False)
            colors = [[str(color) for color in rng.choice(self.colors, 3, replace=False)] for _ in things]
            scenes = [
                {"surface": str(rng.choice(self.surfaces)), "opening": str(rng.choice(self.openings))} for _ in things
            ]
            solved = ""
            for shown, painted, scene in zip(things[:-1], colors[:-1], scenes[:-1], strict=True):
                asked = int(rng.integers(3))
                text, _ = self._ask([str(thing) for thing in shown], painted, scene, asked)
                solved += f"{text} {painted[asked].capitalize()}" + (" " if self._spaced else "\n")
            asked, instead = (int(which) for which in rng.permutation(3)[:2])
            last = [str(thing) for thing in things[-1]]

            def pose(query: int, other: int) -> Prompt:
                text, spans = self._ask(last, colors[-1], scenes[-1], query)
                moved = {name: (start + len(solved), stop + len(solved)) for name, (start, stop) in spans.items()}
                places = [moved[f"color {index}"] for index in range(3)]
                roles = {
                    "objects": [moved[f"thing {index}"] for index in range(3)],
                    "colors": places,
                    "query": [moved["query"]],
                    "right": [places[asked]],
                    "wrong": [places[index] for index in range(3) if index != asked],
                }
                answers = [color.capitalize() for color in colors[-1]]
                return Prompt(solved + text, answers[query], answers[other], roles, answers)

            return pose(asked, instead), pose(instead, asked)

        return _different(draw, n)

    def pairs(self, n: int, rng: np.random.Generator) -> TaskPairs:
        """`n` different prompts and their corrupted twins, tokenised.

        Raises
        ------
        ValueError
            A thing or color longer than one token; more prompts than there are; `n` below 1.
        """
        return TaskPairs.from_prompts(self._tokenizer, *self.prompts(n, rng), source="query", single=True)

    def _ask(
        self, things: Sequence[str], colors: Sequence[str], scene: dict[str, str], query: int
    ) -> tuple[str, dict[str, tuple[int, int]]]:
        items = [
            f"{'an' if colors[index][0] in 'aeiou' else 'a'} {{color {index}}} {{thing {index}}}" for index in range(3)
        ]
        listing = f"{items[0]}, {items[1]}, and {items[2]}"
        words = {f"color {index}": color for index, color in enumerate(colors)}
        words |= {f"thing {index}": thing for index, thing in enumerate(things)}
        return _fill(
            self._question.replace("{listing}", listing), {**words, **scene, "query": things[query]}, self._spaced
        )


def _fill(template: str, words: dict[str, str], spaced: bool) -> tuple[str, dict[str, tuple[int, int]]]:
    """The text, and for every slot the characters at which its word (the last one) stands."""
    text, spans = "", {}
    for literal, slot, _, _ in Formatter().parse(template):
        if spaced:
            literal = re.sub(r"\s+", " ", re.sub(r"([.,;:?!])", r" \1 ", literal))
            text = text.rstrip(" ") if literal.startswith(" ") else text
        text += literal
        if slot is not None:
            spans[slot] = (len(text), len(text) + len(words[slot]))
            text += words[slot]
    return text.rstrip(" "), spans


def _different(draw: Callable[[], tuple[Prompt, Prompt]], n: int) -> tuple[list[Prompt], list[Prompt]]:
    if n < 1:
        raise ValueError(f"n={n}: ask for one pair or more")
    found: dict[str, tuple[Prompt, Prompt]] = {}
    for _ in range(100 * n):
        clean, corrupt = draw()
        found.setdefault(clean.text, (clean, corrupt))
        if len(found) == n:
            pairs = list(found.values())
            return [clean for clean, _ in pairs], [corrupt for _, corrupt in pairs]
    raise ValueError(f"n={n}: {100 * n} draws gave only {len(found)} different prompts; ask for fewer or add words")


def _check_distinct(name: str, words: Sequence[str], least: int) -> None:
    if isinstance(words, str) or len(set(words)) != len(words) or len(words) < least:
        raise ValueError(f"{name} must be at least {least} different words; got {words!r}")


def _check_slots(name: str, template: str, needed: Collection[str], allowed: Collection[str]) -> None:
    found = [slot for _, slot, _, _ in Formatter().parse(template) if slot is not None]
    if sorted(slot for slot in found if slot not in allowed) != sorted(needed):
        wanted = ", ".join(f"{{{slot}}}" for slot in needed)
        raise ValueError(f"{name}: {template!r} must have each of the slots {wanted} once, and no unknown one")
