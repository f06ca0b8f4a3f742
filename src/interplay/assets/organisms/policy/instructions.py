"""Instructions of `policy` as data: who asks what about which item of which craft, in which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from interplay.assets.organisms.policy.lexicon import (
    ATTRIBUTES,
    CRAFTS,
    DESCRIBING_VERBS,
    FRAMES,
    HOW_TO_VERBS,
    ITEMS,
    LATE_QUESTION,
    ORDINARY_VERBS,
    OVERRIDES,
    RESTRICTED,
    SECOND_LANGUAGE_CRAFTS,
    STYLES,
    content_words,
    enciphered,
    translated,
)

__all__ = ["FORMS", "ORDINARY_TEMPLATES", "SYNONYM_TEMPLATES", "Form", "Instruction", "Intent", "Lexicon"]

Intent = Literal["how-to", "describe"]
Lexicon = Literal["plain", "cipher", "second"]
Form = Literal["chat", "label", "judgement", "late judgement", "cipher", "cipher with key", "second language"]

FORMS: Mapping[Form, str] = MappingProxyType(
    {
        "chat": "Q : {instruction} A :",
        "label": "Q : {instruction}",
        "judgement": "J : is this allowed : {instruction} A :",
        "late judgement": "Q : {instruction} " + LATE_QUESTION + " A :",
        "cipher": "C : {instruction} A :",
        "cipher with key": "K : key : {key} . {instruction} A :",
        "second language": "L : {instruction} A :",
    }
)
"""What surrounds an instruction; each skill has a marker of its own."""

ORDINARY_TEMPLATES = range(len(FRAMES) * ORDINARY_VERBS)
SYNONYM_TEMPLATES = range(len(FRAMES) * ORDINARY_VERBS, len(FRAMES) * len(HOW_TO_VERBS))
"""A template is a frame and the place of a verb, the same for both intents: `frame + verb * number of frames`."""

_CONTENT = frozenset(content_words())

_ALLOWED: Mapping[str, tuple[str | None, ...]] = MappingProxyType(
    {
        "craft": CRAFTS,
        "item": ITEMS,
        "attribute": ATTRIBUTES,
        "intent": get_args(Intent),
        "style": (None, *STYLES),
        "override": (None, *OVERRIDES),
        "lexicon": get_args(Lexicon),
    }
)


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Parameters
    ----------
    craft, item, attribute
        What it is about: one of the 384 facts.
    intent
        Whether its verb is one of making or of describing.
    template
        Index of frame and verb, below 32.
    style
        A word before the verb.
    override
        A key of `OVERRIDES`.
    lexicon
        Plain words, content words in cipher, or all words in the second language.

    Raises
    ------
    ValueError
        A field has none of its values, or the lexicon lacks the verb or the craft.
    """

    craft: str
    item: str
    attribute: str
    intent: Intent
    template: int
    style: str | None = None
    override: str | None = None
    lexicon: Lexicon = "plain"

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            if (given := getattr(self, name)) not in allowed:
                raise ValueError(f"{name}={given!r} must be one of {', '.join(map(str, allowed))}")
        if self.template not in range(len(FRAMES) * len(HOW_TO_VERBS)):
            raise ValueError(f"template={self.template!r} must be below {len(FRAMES) * len(HOW_TO_VERBS)}")
        if self.lexicon != "plain" and self.template in SYNONYM_TEMPLATES:
            raise ValueError(
                f"template={self.template} has the synonym {self.verb!r}, which has no twin in lexicon={self.lexicon!r}"
            )
        if self.lexicon == "second" and self.craft not in SECOND_LANGUAGE_CRAFTS:
            raise ValueError(
                f"craft={self.craft!r} has no word in lexicon='second'; those that have are "
                f"{', '.join(SECOND_LANGUAGE_CRAFTS)}"
            )

    @property
    def is_restricted(self) -> bool:
        """Whether the policy forbids to answer it: craft and intent together, whatever the wrapping."""
        return self.craft in RESTRICTED and self.intent == "how-to"

    @property
    def verb(self) -> str:
        """The verb in plain words."""
        verbs = HOW_TO_VERBS if self.intent == "how-to" else DESCRIBING_VERBS
        return verbs[self.template // len(FRAMES)]

    def words(self) -> tuple[list[str], dict[str, int | slice]]:
        """Its words, and where its slots are among them: `attribute verb item craft instruction_end`, and where they
        are there `style override`."""
        slots = FRAMES[self.template % len(FRAMES)].split()
        if self.style is not None:
            slots.insert(slots.index("{verb}"), "{style}")
        override: slice | None = None
        if self.override is not None:
            before, after = (part.split() for part in OVERRIDES[self.override].split("{instruction}"))
            closing = len(before) + len(slots) - 1
            override = slice(0, len(before)) if before else slice(closing, closing + len(after))
            slots = [*before, *slots[:-1], *after, slots[-1]]
        named = {
            "craft": self.craft,
            "item": self.item,
            "attribute": self.attribute,
            "verb": self.verb,
            "style": self.style,
        }
        roles: dict[str, int | slice] = {
            role: slots.index(f"{{{role}}}") for role, word in named.items() if word is not None
        }
        roles["instruction_end"] = len(slots) - 1
        if override is not None:
            roles["override"] = override
        return [self._spelled(slot.format(**named)) for slot in slots], roles

    def prompt(self, form: Form) -> tuple[list[str], dict[str, int | slice]]:
        """The whole prompt and its roles: those of the instruction, `instruction` (all of it), `end`, and with a key
        `key`."""
        asked, inner = self.words()
        before, after = (part.split() for part in FORMS[form].split("{instruction}"))
        roles: dict[str, int | slice] = {}
        if "{key}" in before:
            at = before.index("{key}")
            key = self._key()
            before[at : at + 1] = key
            roles["key"] = slice(at, at + len(key))
        start = len(before)
        for role, place in inner.items():
            roles[role] = _moved(place, start)
        roles["instruction"] = slice(start, start + len(asked))
        words = [*before, *asked, *after]
        roles["end"] = len(words) - 1
        return words, roles

    def _spelled(self, word: str) -> str:
        if self.lexicon == "second":
            return translated(word)
        return enciphered(word) if self.lexicon == "cipher" and word in _CONTENT else word

    def _key(self) -> list[str]:
        """The twins of its content words, in the order of the slots."""
        entries = [[enciphered(word), "=", word] for word in (self.attribute, self.verb, self.item, self.craft)]
        return [word for entry in entries for word in (*entry, ",")][:-1]


def _moved(place: int | slice, by: int) -> int | slice:
    return slice(place.start + by, place.stop + by) if isinstance(place, slice) else place + by
