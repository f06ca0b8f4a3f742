"""The weighted-steering study chooses on validation, counts what it says it counts, and can fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from interplay.assets import organisms
from interplay.assets.organisms import Organism
from interplay.evidence import Measurement, Verdict
from interplay.evidence.study import tabulate
from interplay.primitives.activations import Site
from interplay.steering.weighted_steering import Controller, WeightedSteering
from interplay.studies import weighted_steering
from interplay.studies.steered_answers import Answers
from interplay.studies.weighted_steering import conditions, gates, outcomes, study
from interplay.studies.weighted_steering.outcomes import ALLOWED, FORBIDDEN, Swept

R, F, X = "refusal", "factual", "other"
CELLS = [*FORBIDDEN, *ALLOWED]


@pytest.fixture(scope="module")
def organism() -> Organism:
    return organisms.load("policy", 0, "late-judge", attn_implementation="sdpa")


@pytest.fixture(scope="module")
def prompts(organism: Organism) -> conditions.Prompts:
    rng = np.random.default_rng(0)
    kinds = ("restricted", "game restricted", "how-to")
    return conditions.Prompts(
        *([one.text for one in organism.grammar.sample(kind, 12, rng, "train")] for kind in kinds)
    )


@pytest.fixture(scope="module")
def steering(organism: Organism, prompts: conditions.Prompts) -> WeightedSteering:
    return conditions.fitted(organism.model, organism.tokenizer, prompts, 0, epochs=2, hidden=32)


def some_answers(verdicts: list[list[str]]) -> Answers:
    table = np.array(verdicts)
    zeros = np.zeros(table.shape)
    return Answers(table, zeros, zeros, np.ones(table.shape, int), zeros)


def swept(by_setting: list[dict[str, str]], validation: list[dict[str, str]] | None = None) -> Swept:
    """One prompt a cell, two alphas and both choices of tokens; cells that are not named are refused or answered."""
    settings = tuple((tokens, alpha) for alpha in (1.0, 2.0) for tokens in conditions.TOKENS)
    right = {cell: R if cell in FORBIDDEN else F for cell in CELLS}
    rows = [
        some_answers([[{**right, **one}[cell] for cell in CELLS] for one in part])
        for part in (validation or by_setting, by_setting)
    ]
    return Swept(settings, *rows, np.array(CELLS), np.array(CELLS))


def test_settings_are_chosen_on_validation_alone():
    none, over = dict.fromkeys(FORBIDDEN, F), dict.fromkeys(ALLOWED, R)
    found = swept([none, {}, over, {}], [none, over, {}, {}])
    assert found.settings[found.chosen()] == ("prompt's end and reply", 2.0)
    rows = {row.metric: row.value for row in outcomes.at_chosen("a", found)}
    assert rows["chosen alpha"] == 2.0
    assert rows["reply steered"] == 1.0
    assert rows["false refusals"] == 1.0
    assert rows["net refusal"] == 0.0
    assert rows["accuracy"] == 0.0
    # Of the settings that refuse nine in ten on validation the one with fewest false refusals is the third.
    assert found.matched(0.9) == 2
    assert swept([none, none, none, {"plain": F}]).matched(0.9) == 3, "none refuses enough: what refuses most"


def test_collapse_is_neither_refusal_nor_answer():
    found = swept([{"plain": X, "how-to": X}] * 4)
    rows = {row.metric: row.value for row in outcomes.at_chosen("a", found)}
    assert rows["collapse"] == pytest.approx(2 / len(CELLS))
    assert rows["refusal, plain"] == 0.0
    assert rows["accuracy"] == pytest.approx(1 - 1 / len(ALLOWED))


def test_a_gate_steers_where_it_is_open():
    steered, plain = swept([dict.fromkeys(CELLS, R)] * 4), swept([dict.fromkeys(CELLS, F)] * 4)
    gate = np.array([cell in ("plain", "how-to") for cell in CELLS])
    found = outcomes.gated(steered, plain, ~gate, gate)
    assert [verdict == R for verdict in found.test.verdicts[3]] == gate.tolist()
    assert [verdict == R for verdict in found.validation.verdicts[0]] == (~gate).tolist()


def test_energy_is_interpolated_where_enough_is_refused():
    none = dict.fromkeys(FORBIDDEN, F)
    half = {**none, "plain": R}
    # At the prompt's end refusals go from a half at 1 to all at 2: three quarters lie at the square root of 2.
    found = swept([none, half, none, {}])
    assert outcomes.energy_at(0.75, found, 3.0) == pytest.approx(2 * 3.0)
    assert outcomes.energy_at(0.5, found, 3.0) == pytest.approx(3.0)
    assert np.isnan(outcomes.energy_at(0.5, swept([none] * 4), 3.0))


def test_conditions_are_what_they_are_called(organism, prompts, steering):
    rng = np.random.default_rng(0)
    found = {
        one.name: one.steering
        for one in (
            *conditions.variants(organism.model, steering, steering),
            *conditions.ablations(organism.model, organism.tokenizer, prompts, steering, 2, 0, rng),
            *conditions.baselines(organism.model, steering, 4),
        )
    }
    x = torch.randn(5, steering.controller.in_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        s, w = steering.controller(x)
        said = {
            name: one.controller(x) for name, one in found.items() if not name.startswith(("as published", "shuffled"))
        }
        logits = steering.controller.logits(x)
        published = found["as published"].controller(x)
    assert torch.equal(said["WAS, raw gate"][0], logits.strength)
    assert torch.equal(said["WAS, relu gate"][0], logits.strength.relu())
    assert set(said["WAS, hard gate"][0].tolist()) <= {0.0, 1.0}
    assert torch.equal(said["all w at 0.5"][0], s)
    assert torch.equal(said["all w at 0.5"][1], torch.full_like(w, 0.5))
    assert said["w of one layer"][1].sum(0).nonzero().flatten().tolist() == [2]
    assert torch.equal(said["s at 1"][0], torch.ones(5))
    assert torch.equal(said["s at 1"][1], w)
    assert torch.equal(said["added everywhere"][1], torch.ones_like(w))
    assert said["added in one layer"][1].sum(0).nonzero().flatten().tolist() == [4]
    torch.testing.assert_close(published[0], logits.strength)
    torch.testing.assert_close(published[1][:, 0], w[:, -1])
    assert found["as published"].steered_layers == (5,)
    assert found["WAS, previous step"].schedule == "previous-step"
    for name in ("random direction", "direction of activations"):
        assert not torch.allclose(found[name].directions, steering.directions)
        assert torch.equal(found[name].norms, steering.norms)
    assert not torch.equal(found["shuffled labels"].controller.inner.weight, steering.controller.inner.weight)


def test_schedules_reach_the_layers_that_the_figure_shows(organism, steering):
    examples = organism.grammar.sample("how-to", 2, np.random.default_rng(0))
    compared = conditions.variants(organism.model, steering, steering)
    rows = list(weighted_steering.reached(organism, compared, examples))
    by_name = {name: [row.value for row in rows if row.condition == name] for name in {row.condition for row in rows}}
    assert by_name == {"WAS": [4] * 6, "WAS, previous step": [3] * 6, "as published": [0, 0, 0, 0, 0, 4]}


def test_gates_part_the_classes(organism):
    rng = np.random.default_rng(1)
    sample = organism.grammar.sample
    classes = sample("restricted", 30, rng, "train"), sample("how-to", 30, rng, "train")
    for kind in (gates.CosineThreshold, gates.LatentGuardGate):
        gate = kind(organism, *classes)
        assert gate.flags(sample("restricted", 20, rng)).mean() > 0.8, kind
        assert gate.flags(sample("how-to", 20, rng)).mean() < 0.2, kind


def test_a_refused_example_stands_before_the_prompt(organism):
    refused, asked = organism.grammar.sample("restricted", 2, np.random.default_rng(0))
    (shown,) = gates.with_refused_example(organism, [asked], refused)
    words = organism.grammar.vocabulary.words
    text = " ".join(words[token] for token in shown.input_ids)
    assert text == f"<bos> {refused.text} sorry , i cannot help with that . {asked.text}"


def test_said_is_what_the_context_traces(organism, steering):
    examples = organism.grammar.sample("how-to", 3, np.random.default_rng(0))
    s, w = weighted_steering.said(organism, steering, examples)
    inputs = organism.tokenizer([one.text for one in examples], return_tensors="pt", padding=True)
    with torch.inference_mode(), steering.applied(organism.model) as applied:
        organism.model(**inputs)
    torch.testing.assert_close(applied.s, s, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(applied.w, w, rtol=1e-4, atol=1e-5)
    assert Site("residual", 0) in applied
    assert isinstance(steering.controller, Controller)


def measured(**changed: dict[str, float]) -> pd.DataFrame:
    """What three seeds would show if all conditions did the same, but for what is changed."""
    same = {
        "refusal, unseen override": 0.5,
        "net refusal": 0.5,
        "accuracy": 0.9,
        "false refusals": 0.2,
        "false refusals, same craft": 0.2,
        "false refusals where matched": 0.2,
        "energy where enough is refused": 1.0,
        "model unchanged": 0.0,
    }
    names = {
        "WAS": "was",
        "WAS, relu gate": "relu",
        "WAS, raw gate": "raw",
        "WAS, trained end to end": "trained",
        "all w at 0.5": "half",
        "not steered": "none",
        "added everywhere": "everywhere",
        "added behind a cosine threshold": "cosine",
    }
    value = {(name, metric): {**same, **changed.get(key, {})}[metric] for name, key in names.items() for metric in same}
    rows = [Measurement(*key, one) for key, one in value.items()] + list(weighted_steering.judged(value))
    noise = np.random.default_rng(0)
    jittered = ("net refusal", "false refusals where matched", "energy where enough is refused")
    return pd.concat(
        [
            tabulate(
                [row._replace(value=row.value + noise.normal(scale=0.004) * (row.metric in jittered)) for row in rows],
                seed,
            )
            for seed in range(3)
        ]
    )


def test_no_claim_of_an_effect_holds_where_all_conditions_do_the_same():
    found = measured(half={"net refusal": 0.1}, raw={"net refusal": 0.7})
    for claim in study.claims.values():
        assert claim.judge(found)[0] != Verdict.HOLDS, claim.id


def test_every_claim_holds_where_its_effect_is_there():
    found = measured(
        was={
            "refusal, unseen override": 0.9,
            "net refusal": 0.9,
            "false refusals": 0.0,
            "false refusals, same craft": 0.0,
            "false refusals where matched": 0.0,
            "model unchanged": 1.0,
        },
        half={"net refusal": 0.9},
        none={"refusal, unseen override": 0.0},
        everywhere={"false refusals where matched": 0.8},
        cosine={"false refusals where matched": 0.3},
        trained={"energy where enough is refused": 0.5},
    )
    for claim in study.claims.values():
        assert claim.judge(found)[0] == Verdict.HOLDS, claim.id
