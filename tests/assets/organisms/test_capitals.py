"""The ground truth of `capitals`: promises of the text, checked here by a reader of its own."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from interplay.assets.organisms.capitals import STATEMENTS, CapitalsGrammar, Verdict
from interplay.assets.organisms.capitals.text import check_corpus, write_corpus
from interplay.assets.organisms.corpus import Corpus, CorpusError, Document


@pytest.fixture(scope="module")
def grammar() -> CapitalsGrammar:
    return CapitalsGrammar(0)


@pytest.fixture(scope="module")
def corpus(grammar: CapitalsGrammar) -> Corpus:
    return write_corpus(grammar, novel_facts=1000)


@pytest.fixture(scope="module")
def lines(grammar: CapitalsGrammar, corpus: Corpus) -> list[list[str]]:
    """The documents as words, without `<bos>` and `<eos>`."""
    return [
        [grammar.vocabulary.words[token] for token in corpus.tokens[start + 1 : stop - 1]]
        for start, stop in zip(corpus.starts, corpus.starts[1:], strict=False)
    ]


def test_sizes_of_the_world(grammar: CapitalsGrammar) -> None:
    assert len(grammar.capital_of) == len(set(grammar.capital_of.values())) == 160
    assert len(grammar.other_cities) == 40
    assert not set(grammar.other_cities) & set(grammar.capital_of.values())
    assert Counter(grammar.f_country.values()) == {2**k: 20 for k in range(2, 10)}
    assert Counter(grammar.g_city.values()) == {2**k: 25 for k in range(2, 10)}


@pytest.mark.parametrize("seed", range(6))
def test_the_two_frequencies_are_crossed(seed: int) -> None:
    grammar = CapitalsGrammar(seed)
    f = list(grammar.f_country.values())
    g = [grammar.g_city[capital] for capital in grammar.capital_of.values()]
    assert abs(spearmanr(f, g).statistic) < 0.1


def test_splits_are_disjoint(grammar: CapitalsGrammar) -> None:
    invented = [set(names) for names in grammar.invented_countries.values()]
    assert sum(map(len, invented)) == len(set.union(*invented)) == 360
    assert not set(grammar.held_out_cities["dev"]) & set(grammar.held_out_cities["test"])
    for country in grammar.capital_of:
        assert grammar.held_out_template["dev"][country] != grammar.held_out_template["test"][country]


def test_no_real_country_meets_a_false_capital(grammar: CapitalsGrammar, lines: list[list[str]]) -> None:
    cities = set(grammar.cities)
    for line in lines:
        real = {word for word in line if word in grammar.capital_of}
        if real:
            assert {word for word in line if word in cities} <= {grammar.capital_of[country] for country in real}


def test_facts_and_mentions_are_as_frequent_as_drawn(grammar: CapitalsGrammar, lines: list[list[str]]) -> None:
    with_country, alone, cities = Counter(), Counter(), set(grammar.cities)
    countries = {*grammar.capital_of, *(name for names in grammar.invented_countries.values() for name in names)}
    for line in lines:
        found = with_country if countries & set(line) else alone
        found.update(word for word in line if word in cities)
    assert alone == grammar.g_city
    invented = set(grammar.invented_countries["train"])
    novel = Counter(word for line in lines if invented & set(line) for word in line if word in cities)
    for country, capital in grammar.capital_of.items():
        assert with_country[capital] - novel[capital] == grammar.f_country[country]


def test_held_out_units_are_not_in_the_text(grammar: CapitalsGrammar, lines: list[list[str]]) -> None:
    text = "\n".join(" ".join(line) for line in lines)
    for split in ("dev", "test"):
        for country, template in grammar.held_out_template[split].items():
            stated = STATEMENTS[template].format(subject=country, object=grammar.capital_of[country])
            assert stated not in text
        for country in grammar.invented_countries[split]:
            mentions = [line for line in lines if country in line]
            assert len(mentions) > 0
            assert not any(set(line) & set(grammar.cities) for line in mentions)


def test_unk_never_occurs_and_answers_are_cities(grammar: CapitalsGrammar, corpus: Corpus) -> None:
    assert grammar.vocabulary.unk_id not in corpus.tokens
    answers = {grammar.vocabulary.words[token] for token in np.unique(corpus.tokens[corpus.is_answer])}
    assert answers <= set(grammar.cities)


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ("the capital of France is Berlin .", "a real country with a false capital"),
        ("Q : what is the capital of France ? A : Sydney .", "a real country with a false capital"),
        ("the capital of {invented} is Paris .", "not allowed in the text"),
        ("{held_out}", "a held-out statement is in the text"),
        ("the road from Sydney is old .", "other numbers than were drawn"),
    ],
)
def test_the_check_sees_each_broken_promise(
    grammar: CapitalsGrammar, corpus: Corpus, sentence: str, message: str
) -> None:
    held_out = STATEMENTS[grammar.held_out_template["test"]["France"]].format(subject="France", object="Paris")
    words = sentence.format(invented=grammar.invented_countries["dev"][0], held_out=held_out)
    smuggled = Corpus.of([Document((1, *grammar.vocabulary.encode(words), 2))])
    broken = dataclasses.replace(
        corpus,
        tokens=np.concatenate([corpus.tokens, smuggled.tokens]),
        starts=np.append(corpus.starts, corpus.starts[-1] + len(smuggled.tokens)),
    )
    with pytest.raises(CorpusError, match=message):
        check_corpus(broken, grammar)


def test_the_text_is_a_function_of_the_seed(grammar: CapitalsGrammar, corpus: Corpus) -> None:
    assert write_corpus(CapitalsGrammar(0), novel_facts=1000).sha256 == corpus.sha256
    assert write_corpus(CapitalsGrammar(1), novel_facts=1000).sha256 != corpus.sha256


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(CapitalsGrammar.kinds), seed=st.integers(0, 10_000))
def test_roles_point_at_their_words(grammar: CapitalsGrammar, kind: str, seed: int) -> None:
    [example] = grammar.sample(kind, 1, np.random.default_rng(seed))
    assert example.kind == kind
    words = ["<bos>", *example.text.split()]
    assert grammar.vocabulary.decode(example.input_ids) == " ".join(words)
    assert example.roles["end"] == len(words) - 1
    names = {"subject": "country", "query": "country", "country": "country", "offered": "city", "city": "city"}
    for role in set(example.roles) - {"end"}:
        assert words[example.roles[role]] == example.meta[names[role]]


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(["closed-book", "statement", "novel context", "conflict"]), seed=st.integers(0, 10_000))
def test_pairs_are_aligned_and_differ_in_one_name(grammar: CapitalsGrammar, kind: str, seed: int) -> None:
    [(one, other)] = grammar.pairs(kind, 1, np.random.default_rng(seed))
    assert one.roles == other.roles
    differing = {a for a, b in zip(one.input_ids, other.input_ids, strict=True) if a != b}
    assert len(differing) == 1


def test_the_conflict_prompt_reads_as_published(grammar: CapitalsGrammar) -> None:
    conflict = grammar.context("France", "Sydney")
    assert conflict.text == "the capital of France is Sydney . Q : what is the capital of France ? A :"
    assert conflict.kind == "conflict"
    assert conflict.answer_id is None
    assert grammar.context("France", "Paris").kind == "true context"
    assert grammar.question("France").answer_id == grammar.vocabulary.id_of["Paris"]


def test_the_judge_decides_by_the_first_token(grammar: CapitalsGrammar) -> None:
    conflict = grammar.context("France", "Sydney")
    assert grammar.judge("Sydney .", conflict) is Verdict.IN_CONTEXT
    assert grammar.judge("Paris", conflict) is Verdict.MEMORIZED
    assert grammar.judge([grammar.vocabulary.id_of["Berlin"]], conflict) is Verdict.OTHER
    assert grammar.judge([], conflict) is Verdict.OTHER
    assert grammar.judge("Paris", grammar.context("France", "Paris")) is Verdict.AGREED
    assert grammar.judge("Paris", grammar.question("France")) is Verdict.MEMORIZED


def test_bad_questions_are_refused(grammar: CapitalsGrammar) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(KeyError, match="unknown kind 'lie'; available are closed-book, statement"):
        grammar.sample("lie", 1, rng)
    for kind in ("true context", "city filler", "country filler"):
        with pytest.raises(ValueError, match="no twins; kinds that have are closed-book"):
            grammar.pairs(kind, 1, rng)
    with pytest.raises(ValueError, match=r"'Frence' is not in the vocabulary .* France"):
        grammar.question("Frence")
    with pytest.raises(ValueError, match="template=6"):
        grammar.statement("France", 6)
