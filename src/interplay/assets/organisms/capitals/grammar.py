"""The ground truth of `capitals`, drawn from a seed: how frequent which fact and which city is, what is held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

import numpy as np
from scipy.stats import spearmanr

from interplay.assets.organisms.capitals.gazetteer import CAPITAL_OF, INVENTED_COUNTRIES, OTHER_CITIES
from interplay.assets.organisms.grammar import Example
from interplay.assets.organisms.vocabulary import Vocabulary

__all__ = ["FREQUENCIES", "QUESTION", "STATEMENTS", "CapitalsGrammar", "Verdict"]

STATEMENTS: tuple[str, ...] = (
    "the capital of {subject} is {object} .",
    "the capital city of {subject} is called {object} .",
    "in {subject} the capital is {object} .",
    "{subject} has its capital in {object} .",
    "the government of {subject} sits in {object} .",
    "the seat of government in {subject} is {object} .",
)
"""Templates that state a fact, alone or in front of a question."""

QUESTION = "Q : what is the capital of {query} ? A :"

FREQUENCIES = (4, 8, 16, 32, 64, 128, 256, 512)
"""How often a fact is stated, and how often a city is mentioned elsewhere; each level holds equally many names."""

FILLERS_ON_CITIES: tuple[str, ...] = (
    "the train to {city} leaves in the {time} .",
    "many {people} travel to {city} every {season} .",
    "the {place} in {city} is {look} .",
    "it often {weather} in {city} in {season} .",
    "she met her {friend} in {city} last {season} .",
    "the road from {city} is {look} .",
)
FILLERS_ON_COUNTRIES: tuple[str, ...] = (
    "farmers in {country} grow {crop} .",
    "the people of {country} like {hobby} .",
    "{country} sells {good} to its neighbours .",
    "the mountains of {country} are {look} .",
    "{season} in {country} is {climate} .",
    "he wrote a {text} about {country} .",
)
SLOT_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "climate": ("long", "short", "cold", "mild"),
        "crop": ("rice", "maize", "wheat", "coffee", "tea", "olives"),
        "friend": ("friend", "sister", "teacher", "brother"),
        "good": ("copper", "timber", "wool", "fish"),
        "hobby": ("music", "football", "chess", "poetry"),
        "look": ("old", "large", "famous", "quiet"),
        "people": ("people", "students", "traders"),
        "place": ("museum", "market", "harbour", "library"),
        "season": ("spring", "summer", "autumn", "winter"),
        "text": ("book", "song", "letter"),
        "time": ("morning", "evening", "night"),
        "weather": ("rains", "snows"),
    }
)
"""What may fill the slots of the filler sentences."""

HELD_OUT_INVENTED = 10
"""Invented countries in each of the splits dev and test: the training text never gives them a city."""


class Verdict(StrEnum):
    """What an answer is."""

    IN_CONTEXT = "in-context"
    """The city that the context offers."""
    MEMORIZED = "memorized"
    """The country's own capital."""
    AGREED = "agreed"
    """Both: the context offers the country's own capital."""
    OTHER = "other"
    """Anything else."""


class CapitalsGrammar:
    """Facts, frequencies and splits of one seed.

    Parameters
    ----------
    seed
        Draws the frequencies and the splits.

    Attributes
    ----------
    capital_of
        The 160 real countries and their capitals.
    other_cities
        40 cities that are nobody's capital.
    invented_countries
        By split, "train" (340), "dev" (10) and "test" (10): countries without a capital. Those of dev and test occur in
        filler sentences only.
    f_country
        How often the training text states the capital of each real country.
    g_city
        How often it mentions each city in sentences that have nothing to do with capitals. Across countries, its rank
        correlation with `f_country` is below 0.1 in size.
    held_out_template
        By split, "dev" and "test": for each real country the index of a statement template in which it is never shown.
    held_out_cities
        By split, "dev" and "test": the halves of `other_cities` that the gates on conflicts use.
    """

    kinds = ("closed-book", "statement", "true context", "novel context", "conflict", "city filler", "country filler")

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng((seed, 1))
        self.seed = seed
        self.capital_of = dict(CAPITAL_OF)
        self.other_cities = OTHER_CITIES
        self.cities = (*CAPITAL_OF.values(), *OTHER_CITIES)
        self.f_country, self.g_city = self._draw_frequencies(rng)
        invented = [str(name) for name in rng.permutation(INVENTED_COUNTRIES)]
        self.invented_countries = {
            "dev": tuple(invented[:HELD_OUT_INVENTED]),
            "test": tuple(invented[HELD_OUT_INVENTED : 2 * HELD_OUT_INVENTED]),
            "train": tuple(invented[2 * HELD_OUT_INVENTED :]),
        }
        templates = [rng.permutation(len(STATEMENTS)) for _ in CAPITAL_OF]
        self.held_out_template = {
            split: {country: int(order[place]) for country, order in zip(CAPITAL_OF, templates, strict=True)}
            for place, split in enumerate(("dev", "test"))
        }
        others = [str(name) for name in rng.permutation(OTHER_CITIES)]
        self.held_out_cities = {"dev": tuple(others[::2]), "test": tuple(others[1::2])}
        self.vocabulary = Vocabulary(_words())

    def _draw_frequencies(self, rng: np.random.Generator) -> tuple[dict[str, int], dict[str, int]]:
        """Levels in equal shares; f and g of capitals are drawn until their rank correlation is below 0.1 in size."""
        levels = np.repeat(FREQUENCIES, len(CAPITAL_OF) // len(FREQUENCIES))
        while True:
            f, g = rng.permutation(levels), rng.permutation(levels)
            if abs(spearmanr(f, g).statistic) < 0.1:
                break
        g_others = rng.permutation(np.repeat(FREQUENCIES, len(OTHER_CITIES) // len(FREQUENCIES)))
        f_country = dict(zip(CAPITAL_OF, f.tolist(), strict=True))
        return f_country, dict(zip(self.cities, [*g.tolist(), *g_others.tolist()], strict=True))

    def question(self, country: str) -> Example:
        """The closed-book question. Roles: `query` (the country), `end`."""
        return self._example("closed-book", QUESTION, {"query": country}, self.capital_of.get(country))

    def statement(self, country: str, template: int = 0) -> Example:
        """A statement up to the word before its capital. Roles: `subject` (the country), `end`."""
        beginning = _template(template).partition(" {object}")[0]
        return self._example(
            "statement", beginning, {"subject": country}, self.capital_of.get(country), template=template
        )

    def context(self, country: str, city: str, template: int = 0) -> Example:
        """A statement and the question about it: "the capital of C is X . Q : what is the capital of C ? A :".

        It is a true context, a novel context (C is invented) or a conflict (C is real, X is not its capital). Roles:
        `subject` (the country in the statement), `offered` (the city), `query` (the country in the question), `end`.
        """
        capital = self.capital_of.get(country)
        kind = "novel context" if capital is None else "true context" if city == capital else "conflict"
        text = _template(template).replace("{object}", "{offered}") + " " + QUESTION
        names = {"subject": country, "offered": city, "query": country}
        return self._example(kind, text, names, None if kind == "conflict" else city, template=template)

    def filler(self, name: str, rng: np.random.Generator) -> Example:
        """A whole sentence that mentions a city or a country and no capital. Roles: `city` or `country`, `end`."""
        is_city = name in self.g_city
        slot, templates = ("city", FILLERS_ON_CITIES) if is_city else ("country", FILLERS_ON_COUNTRIES)
        words = templates[int(rng.integers(len(templates)))].split()
        at = words.index(f"{{{slot}}}")
        words[at] = name
        for place, word in enumerate(words):
            if word.startswith("{"):
                words[place] = _pick(SLOT_WORDS[word[1:-1]], rng)
        ids = (self.vocabulary.bos_id, *self.vocabulary.encode(words))
        known = {"country": None if is_city else name, "capital": None, "city": name if is_city else None}
        return Example(
            kind=f"{slot} filler",
            input_ids=ids,
            text=" ".join(words),
            roles=MappingProxyType({slot: at + 1, "end": len(ids) - 1}),
            meta=MappingProxyType(known),
        )

    def _example(self, kind: str, pattern: str, names: Mapping[str, str], answer: str | None, **meta: int) -> Example:
        slots = pattern.split()
        words = [slot.format(**names) for slot in slots]
        roles: dict[str, int | slice] = {role: slots.index(f"{{{role}}}") + 1 for role in names}
        ids = (self.vocabulary.bos_id, *self.vocabulary.encode(words))
        country = names.get("query", names.get("subject"))
        capital = self.capital_of.get(country)
        known = {"country": country, "capital": capital, "city": names.get("offered"), **meta}
        return Example(
            kind=kind,
            input_ids=ids,
            text=" ".join(words),
            roles=MappingProxyType({**roles, "end": len(ids) - 1}),
            answer_id=None if answer is None else self.vocabulary.id_of[answer],
            meta=MappingProxyType(known),
        )

    def sample(self, kind: str, n: int, rng: np.random.Generator, template: int | None = None) -> list[Example]:
        """`n` random examples of a kind; novel contexts use the invented countries of the split test.

        Parameters
        ----------
        kind
            One of `kinds`.
        n
            How many, drawn with replacement.
        rng
            Source of randomness.
        template
            Index into `STATEMENTS` for all of them; a random one for each where None.

        Raises
        ------
        KeyError
            Unknown kind; the message lists the known ones.
        """
        self._check(kind)
        return [self._draw(kind, rng, template) for _ in range(n)]

    def _draw(self, kind: str, rng: np.random.Generator, template: int | None) -> Example:
        if kind == "city filler":
            return self.filler(_pick(self.cities, rng), rng)
        if kind == "country filler":
            return self.filler(_pick(list(self.capital_of), rng), rng)
        form = int(rng.integers(len(STATEMENTS))) if template is None else template
        country = _pick(self.invented_countries["test"] if kind == "novel context" else list(self.capital_of), rng)
        if kind == "closed-book":
            return self.question(country)
        if kind == "statement":
            return self.statement(country, form)
        capital = self.capital_of.get(country)
        city = capital if kind == "true context" else _pick([name for name in self.cities if name != capital], rng)
        return self.context(country, city, form)

    def pairs(
        self, kind: str, n: int, rng: np.random.Generator, template: int | None = None
    ) -> list[tuple[Example, Example]]:
        """`n` pairs that differ in one name: same length, same roles.

        A closed-book question or a statement is paired with the same one about another country, a conflict with the
        true context of its country, a novel context with another city for its country.

        Raises
        ------
        KeyError
            Unknown kind.
        ValueError
            A kind without such twins: fillers, and true contexts, which are the twins of conflicts.
        """
        self._check(kind)
        with_twins = ("closed-book", "statement", "novel context", "conflict")
        if kind not in with_twins:
            raise ValueError(f"kind={kind!r} has no twins; kinds that have are {', '.join(with_twins)}")
        return [(one, self._twin(one, rng)) for one in self.sample(kind, n, rng, template)]

    def _twin(self, one: Example, rng: np.random.Generator) -> Example:
        country, city = one.meta["country"], one.meta["city"]
        if one.kind == "conflict":
            return self.context(country, one.meta["capital"], one.meta["template"])
        if one.kind == "novel context":
            return self.context(
                country, _pick([name for name in self.cities if name != city], rng), one.meta["template"]
            )
        other = _pick([name for name in self.capital_of if name != country], rng)
        return self.question(other) if one.kind == "closed-book" else self.statement(other, one.meta["template"])

    def judge(self, answer: str | Sequence[int], example: Example) -> Verdict:
        """What the first token of an answer is: the offered city, the memorised capital, both, or something else."""
        ids = self.vocabulary.encode(answer) if isinstance(answer, str) else answer
        if not len(ids):
            return Verdict.OTHER
        said = self.vocabulary.words[int(ids[0])]
        in_context, memorized = said == example.meta["city"], said == example.meta["capital"]
        if in_context and memorized:
            return Verdict.AGREED
        if in_context:
            return Verdict.IN_CONTEXT
        return Verdict.MEMORIZED if memorized else Verdict.OTHER

    def _check(self, kind: str) -> None:
        if kind not in self.kinds:
            raise KeyError(f"unknown kind {kind!r}; available are {', '.join(self.kinds)}")


def _pick(names: Sequence[str], rng: np.random.Generator) -> str:
    return names[int(rng.integers(len(names)))]


def _template(index: int) -> str:
    if not 0 <= index < len(STATEMENTS):
        raise ValueError(f"template={index} must be an index into the {len(STATEMENTS)} statement templates")
    return STATEMENTS[index]


def _words() -> list[str]:
    """Every word that the templates, their slots and the names can give, in an order that never changes."""
    templates = (*STATEMENTS, QUESTION, *FILLERS_ON_CITIES, *FILLERS_ON_COUNTRIES)
    fixed = [word for template in templates for word in template.split() if not word.startswith("{")]
    slot_words = [word for words in SLOT_WORDS.values() for word in words]
    names = [*CAPITAL_OF, *CAPITAL_OF.values(), *OTHER_CITIES, *INVENTED_COUNTRIES]
    return list(dict.fromkeys([*fixed, *slot_words, *names]))
