"""The training text of `capitals`, and the proof that it keeps its promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from interplay.assets.organisms.capitals.gazetteer import CAPITAL_OF
from interplay.assets.organisms.capitals.grammar import (
    QUESTION,
    STATEMENTS,
    CapitalsGrammar,
)
from interplay.assets.organisms.corpus import Corpus, CorpusError, Document

__all__ = ["check_corpus", "write_corpus"]

FILLERS_PER_COUNTRY = 16
CONTEXT_SIZES = (1, 1, 2, 3)
"""A context states the capitals of so many countries, each size equally likely, and asks for each of them."""

_Fact = tuple[str, str, int]
"""Country, city, index of the statement template."""


def write_corpus(grammar: CapitalsGrammar, novel_facts: int) -> Corpus:
    """The training text of a seed, checked.

    Of the `f` times that a country's capital is stated, a quarter are bare statements, a quarter are answers to bare
    questions, and a half stand in true contexts (once in the statement, once in the answer).

    Parameters
    ----------
    grammar
        Facts, frequencies and splits.
    novel_facts
        How often a novel context gives an invented country of the split "train" a random city.
    """
    rng = np.random.default_rng((grammar.seed, 2))
    facts = {
        country: _facts_of(grammar, country, frequency // 2, rng) for country, frequency in grammar.f_country.items()
    }
    alone = [fact for some in facts.values() for fact in some[: len(some) // 2]]
    in_context = [fact for some in facts.values() for fact in some[len(some) // 2 :]]
    invented = grammar.invented_countries["train"]
    novel = [
        (invented[i % len(invented)], grammar.cities[int(rng.integers(len(grammar.cities)))], int(rng.integers(6)))
        for i in range(novel_facts)
    ]
    documents = [_statement(grammar, fact) for fact in alone]
    documents += [_question(grammar, country) for country, f in grammar.f_country.items() for _ in range(f // 4)]
    documents += [_context(grammar, group, True, rng) for group in _grouped(in_context, rng)]
    documents += [_context(grammar, group, False, rng) for group in _grouped(novel, rng)]
    for city, frequency in grammar.g_city.items():
        documents += [_filler(grammar, city, rng) for _ in range(frequency)]
    for country in (*CAPITAL_OF, *(name for names in grammar.invented_countries.values() for name in names)):
        documents += [_filler(grammar, country, rng) for _ in range(FILLERS_PER_COUNTRY)]
    corpus = Corpus.of(documents)
    check_corpus(corpus, grammar)
    return corpus


def _facts_of(grammar: CapitalsGrammar, country: str, n: int, rng: np.random.Generator) -> list[_Fact]:
    """The country's fact `n` times, in random ones of the templates in which the country may be shown."""
    held_out = {template_of[country] for template_of in grammar.held_out_template.values()}
    allowed = [template for template in range(len(STATEMENTS)) if template not in held_out]
    return [(country, CAPITAL_OF[country], allowed[int(rng.integers(len(allowed)))]) for _ in range(n)]


def _grouped(facts: Sequence[_Fact], rng: np.random.Generator) -> Iterator[list[_Fact]]:
    """Random groups of `CONTEXT_SIZES` facts, no country and no city twice in a group."""
    waiting = [facts[i] for i in rng.permutation(len(facts))]
    while waiting:
        size = int(rng.choice(CONTEXT_SIZES))
        group = [waiting.pop()]
        for place in reversed(range(max(0, len(waiting) - 20), len(waiting))):
            fits = all(waiting[place][0] != other[0] and waiting[place][1] != other[1] for other in group)
            if len(group) < size and fits:
                group.append(waiting.pop(place))
        yield group


def _statement(grammar: CapitalsGrammar, fact: _Fact) -> Document:
    words, at = _stated(fact)
    return _document(grammar, words, [at])


def _question(grammar: CapitalsGrammar, country: str) -> Document:
    words = [*QUESTION.format(query=country).split(), CAPITAL_OF[country], "."]
    return _document(grammar, words, [len(words) - 2])


def _context(grammar: CapitalsGrammar, facts: Sequence[_Fact], is_real: bool, rng: np.random.Generator) -> Document:
    """All statements, then a question about each in random order.

    The city in the statement about an invented country cannot be known, so it is not an answer that counts more.
    """
    words: list[str] = []
    answers: list[int] = []
    for fact in facts:
        stated, at = _stated(fact)
        if is_real:
            answers.append(len(words) + at)
        words += stated
    for index in rng.permutation(len(facts)):
        country, city, _ = facts[index]
        words += [*QUESTION.format(query=country).split(), city, "."]
        answers.append(len(words) - 2)
    return _document(grammar, words, answers)


def _stated(fact: _Fact) -> tuple[list[str], int]:
    country, city, template = fact
    slots = STATEMENTS[template].split()
    return [slot.format(subject=country, object=city) for slot in slots], slots.index("{object}")


def _filler(grammar: CapitalsGrammar, name: str, rng: np.random.Generator) -> Document:
    return Document([*grammar.filler(name, rng).input_ids, grammar.vocabulary.eos_id])


def _document(grammar: CapitalsGrammar, words: Sequence[str], answers: Sequence[int]) -> Document:
    vocabulary = grammar.vocabulary
    ids = (vocabulary.bos_id, *vocabulary.encode(words), vocabulary.eos_id)
    return Document(ids, [at + 1 for at in answers])


def check_corpus(corpus: Corpus, grammar: CapitalsGrammar) -> None:
    """Prove on the tokens themselves that the text keeps its promises.

    Raises
    ------
    CorpusError
        A sentence gives a real country a city that is not its capital; a held-out invented country has a city; a
        country is stated in a template that is held out for it; `<unk>` occurs; a fact or a city is not as frequent as
        drawn; or the two frequencies are correlated (Spearman 0.1 or more in size).
    """
    words = np.array(grammar.vocabulary.words)
    if (corpus.tokens == grammar.vocabulary.unk_id).any():
        raise CorpusError("<unk> occurs in the text")
    known = list(grammar.f_country)
    rank = spearmanr(
        [grammar.f_country[country] for country in known],
        [grammar.g_city[grammar.capital_of[country]] for country in known],
    ).statistic
    if not abs(rank) < 0.1:
        raise CorpusError(f"the frequencies of countries and of their capitals are correlated: Spearman {rank:.3f}")
    held_out = {*grammar.invented_countries["dev"], *grammar.invented_countries["test"]}
    forbidden = {
        " ".join(_stated((country, grammar.capital_of[country], template))[0])
        for template_of in grammar.held_out_template.values()
        for country, template in template_of.items()
    }
    cities, countries = set(grammar.cities), {*grammar.capital_of, *sum(grammar.invented_countries.values(), ())}
    stated = dict.fromkeys(grammar.capital_of, 0)
    mentioned = dict.fromkeys(grammar.cities, 0)
    for sentence in _sentences(words[corpus.tokens]):
        city = [word for word in sentence if word in cities]
        country = [word for word in sentence if word in countries]
        if city and not country:
            mentioned[city[0]] += 1
        if not (city and country):
            continue
        if len(city) > 1 or len(country) > 1 or country[0] in held_out:
            raise CorpusError(f"not allowed in the text: {' '.join(sentence)!r}")
        if country[0] in stated:
            stated[country[0]] += 1
            if city[0] != grammar.capital_of[country[0]]:
                raise CorpusError(f"a real country with a false capital: {' '.join(sentence)!r}")
            if " ".join(sentence) in forbidden:
                raise CorpusError(f"a held-out statement is in the text: {' '.join(sentence)!r}")
    if stated != grammar.f_country or mentioned != grammar.g_city:
        raise CorpusError("the text states facts or mentions cities in other numbers than were drawn")


def _sentences(words: NDArray[np.str_]) -> Iterator[list[str]]:
    """The text cut after each full stop and at each end of a document, without the special tokens."""
    sentence: list[str] = []
    for word in words.tolist():
        if word not in ("<bos>", "<eos>"):
            sentence.append(word)
        if word in (".", "<eos>"):
            if sentence:
                yield sentence
            sentence = []
