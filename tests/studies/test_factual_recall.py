"""The factual-recall study asks what it says it asks; that every study runs is tested elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.circuits.planted import planted_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interplay.assets import organisms
from interplay.circuits.factual_recall import CHOICES, Batch, ConflictSet, HeadScaler, resolve_conflict
from interplay.evidence import Verdict
from interplay.evidence.study import tabulate
from interplay.studies import factual_recall


@pytest.fixture(scope="module")
def organism() -> organisms.Organism:
    return organisms.load("capitals", seed=0, attn_implementation="sdpa")


@pytest.fixture(scope="module")
def conflicts(organism: organisms.Organism) -> ConflictSet:
    return ConflictSet.from_organism(organism)


@pytest.fixture(scope="module")
def batch(conflicts: ConflictSet) -> Batch:
    return conflicts.prompts(60, np.random.default_rng(0))


def test_conflicts_are_the_grammar_s_own(organism: organisms.Organism, conflicts: ConflictSet, batch: Batch) -> None:
    """Same tokens, positions and answers as the organism's grammar writes from its known slots."""
    assert len(conflicts) == 160 * 40
    other_words = ConflictSet.from_organism(organism, statement=4).prompts(1, np.random.default_rng(0))
    assert organism.tokenizer.decode(other_words.ids[0], skip_special_tokens=True).startswith("the government of ")
    for row in range(len(batch)):
        country, city = conflicts.facts[batch.subject[row]].subject, conflicts.answers[batch.offered[row]]
        example = organism.grammar.context(country, city, 0)
        assert example.kind == "conflict"
        assert batch.ids[row].tolist() == list(example.input_ids)
        assert batch.subject_pos[row] == example.roles["query"]
        assert batch.offered_pos[row] == example.roles["offered"]
        assert batch.end_pos[row] == example.roles["end"]


def test_outcomes_are_the_grammar_s_verdicts(
    organism: organisms.Organism, conflicts: ConflictSet, batch: Batch
) -> None:
    outcome = resolve_conflict(organism.model, batch)
    with torch.no_grad():
        said = organism.model(input_ids=batch.ids).logits[:, -1].argmax(-1)
    for row in range(len(batch)):
        country, city = conflicts.facts[batch.subject[row]].subject, conflicts.answers[batch.offered[row]]
        verdict = organism.grammar.judge([int(said[row])], organism.grammar.context(country, city, 0))
        assert CHOICES[outcome.choice[row]] == verdict


def test_what_is_reported_was_not_fitted_on(conflicts: ConflictSet) -> None:
    fitting, reporting = conflicts.split(np.random.default_rng(0))
    assert not {fact.subject for fact in fitting.facts} & {fact.subject for fact in reporting.facts}
    assert not set(fitting.answers) & set(reporting.answers)
    assert (len(fitting), len(reporting)) == (32 * 20, 128 * 20)


def test_invented_countries_and_fillers_end_before_their_answers(organism: organisms.Organism) -> None:
    copies = factual_recall.novel_contexts(organism)
    texts = [organism.tokenizer.decode(ids, skip_special_tokens=True) for ids in copies.ids]
    for text, answer in zip(texts, copies.id_true, strict=True):
        assert organism.tokenizer.decode(answer) in text
        assert not any(f" {country} " in text for country in organism.grammar.capital_of)
    prose = factual_recall.filler(organism, np.random.default_rng(0))
    assert all(organism.tokenizer.decode(answer) == "." for answer in prose.id_true)
    assert (prose.mask == 0).any()


def test_agreement_counts_the_larger_side_of_signs() -> None:
    def table(signs: list[float]) -> pd.DataFrame:
        rows = {"seed": range(len(signs)), "metric": "sign", "condition": "all", "item": "offered", "value": signs}
        return pd.DataFrame(rows)

    test = factual_recall.seeds_that_agree("sign", "all", "offered").above(2)
    for signs, count, verdict in (
        ([1.0, 1.0, -1.0], 2, Verdict.HOLDS),
        ([-1.0, -1.0, 0.0], 2, Verdict.HOLDS),
        ([1.0, -1.0, 0.0], 1, Verdict.FAILS),
        ([0.0, 0.0, 0.0], 0, Verdict.FAILS),
    ):
        (finding,) = test.judge(table(signs))
        assert (finding.estimate.effect, finding.verdict) == (count, verdict)


def test_a_real_model_runs_from_a_folder_and_a_list_of_facts(tmp_path: Path) -> None:
    """The planted model's memory wins every conflict, and turning its memory head gives every one to the context."""
    facts = [(f"Country{i}", f"City{i}") for i in range(10)]
    words = [
        "The",
        "capital",
        "of",
        "is",
        ".",
        "Q",
        ":",
        "What",
        "?",
        "A",
        "According",
        "to",
        "the",
        "text",
        ",",
        "what",
    ]
    names = ["<pad>", "<unk>", *dict.fromkeys(words), *(name for fact in facts for name in fact)]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    folder = tmp_path / "planted"
    planted_model(fast, facts).save_pretrained(folder)
    fast.save_pretrained(folder)
    pd.DataFrame(facts, columns=["subject", "object"]).to_csv(tmp_path / "facts.csv", index=False)
    config = factual_recall.study.configure(
        "smoke", {"model": str(folder), "model_facts": str(tmp_path / "facts.csv"), "model_gains": (0.0, 1.0)}
    )
    table = tabulate(factual_recall.real_model_rows(config, np.random.default_rng(0)), 0)
    measured = table.set_index(["condition", "metric"])["value"]
    assert measured["planted: none", "known facts"] == 10
    assert measured["planted: none", "memorized rate"] == 1.0
    assert measured["planted: dial to context", "in-context rate"] == 1.0
    assert measured["planted: dial to context", "gain"] == 0.0
    assert measured["planted: according to the text", "memorized rate"] == 1.0


def test_the_reported_dial_is_the_scaled_head(organism: organisms.Organism, batch: Batch) -> None:
    scaler = HeadScaler(organism.model, {(1, 2): -3.0})
    rows = {row.metric: row.value for row in factual_recall.rates("dial", organism.model, batch, scaler)}
    with HeadScaler(organism.model, {(1, 2): -3.0}):
        outcome = resolve_conflict(organism.model, batch)
    assert rows["in-context rate"] == outcome.rates["in-context"].rate
    assert rows["logit difference"] == pytest.approx(float(outcome.logit_diff.mean()), rel=1e-5)
    assert rows != {row.metric: row.value for row in factual_recall.rates("none", organism.model, batch)}
