"""The selective-steering study turns where it says, chooses on one half and scores on the other, and can fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from interplay.assets import organisms
from interplay.assets.organisms import Organism
from interplay.evidence import Measurement, Verdict
from interplay.evidence.study import tabulate
from interplay.primitives.prompts import model_inputs, pad_left
from interplay.steering.selective_steering import SelectiveSteering, SteeringPlane
from interplay.studies import selective_steering
from interplay.studies.selective_steering import outcomes, study
from interplay.studies.selective_steering.conditions import ABLATIONS, ALL_BLOCKS, Condition, chance_plane, conditions
from interplay.studies.selective_steering.geometry import activations, geometry
from interplay.studies.selective_steering.outcomes import Split, Swept
from interplay.studies.steered_answers import Answers, answers


@pytest.fixture(scope="module")
def organism() -> Organism:
    return organisms.load("policy", 0, attn_implementation="sdpa")


@pytest.fixture(scope="module")
def plane(organism: Organism) -> SteeringPlane:
    rng = np.random.default_rng(0)
    texts = [[one.text for one in organism.grammar.sample(kind, 40, rng, "train")] for kind in ("restricted", "how-to")]
    return SelectiveSteering.fit(organism.model, organism.tokenizer, *texts, layers="all").plane


@pytest.fixture(scope="module")
def found(organism: Organism, plane: SteeringPlane) -> list[Condition]:
    return conditions(organism.model, plane, 90, 90, 2, np.random.default_rng(0))


def named(found: list[Condition], name: str) -> Condition:
    return next(condition for condition in found if condition.name == name)


def steered_blocks(organism: Organism, condition: Condition, setting: float) -> set[int]:
    """Blocks whose norms give another output than unsteered, when nothing before them does."""
    layers = organism.model.model.layers
    h = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, organism.model.config.hidden_size))).float()
    with torch.inference_mode():
        plain = [[norm(h) for norm in (one.input_layernorm, one.post_attention_layernorm)] for one in layers]
        with condition.dial(torch.tensor([setting], dtype=torch.float64)):
            turned = [[norm(h) for norm in (one.input_layernorm, one.post_attention_layernorm)] for one in layers]
    changed = [[not torch.equal(*pair) for pair in zip(*both, strict=True)] for both in zip(plain, turned, strict=True)]
    assert all(len(set(pair)) == 1 for pair in changed), "both norms of a block or none"
    return {block for block, pair in enumerate(changed) if pair[0]}


def test_every_condition_steers_where_its_name_says(organism, plane, found):
    blocks = set(range(len(organism.model.model.layers)))
    chosen = set(plane.discriminative_blocks)
    assert chosen
    assert chosen < blocks
    expected = {
        "none": set(),
        "SS": chosen,
        "SAS": blocks,
        "AAS": blocks,
        ALL_BLOCKS: blocks,
        "SS in the first half": {0, 1, 2},
        "SS in the second half": {3, 4, 5},
        "SS in the other blocks": blocks - chosen,
        "SS in a random plane": chosen,
        "DirAbl": blocks,
        "ActAdd": blocks,
        "ActAdd in norms of the site": blocks,
    }
    for name, where in expected.items():
        assert steered_blocks(organism, named(found, name), 90.0) == where, name
    assert len(steered_blocks(organism, named(found, "SS in a random half"), 90.0)) == 3
    assert {condition.name for condition in found} == {*expected, "SS in a random half"}
    assert set(ABLATIONS) < {condition.name for condition in found}


def test_only_turning_by_an_angle_is_the_identity_at_zero(organism, found):
    assert steered_blocks(organism, named(found, "SS"), 0.0) == set()
    assert steered_blocks(organism, named(found, "SAS"), 0.0) == set(range(6))


def test_angles_are_chosen_up_to_the_half_turn(found):
    for name in ("SS", "SAS", "AAS", ALL_BLOCKS, *ABLATIONS):
        assert named(found, name).settings == (0, 90, 180, 270, 360)
        assert named(found, name).choosable == (0, 90, 180)


def test_planes_by_chance(plane, found):
    several = [condition for condition in found if condition.name == "SS in a random plane"]
    assert len(several) == 2
    drawn = [chance_plane(plane, np.random.default_rng(seed)) for seed in range(2)]
    for one in drawn:
        axes = torch.stack([one.b1, one.b2])
        torch.testing.assert_close(axes @ axes.T, torch.eye(2), rtol=0, atol=1e-6)
        assert one.sites == plane.sites
    assert not torch.equal(drawn[0].b1, drawn[1].b1)


def test_answers_in_shared_batches_are_those_of_one_setting_at_a_time(organism, found):
    examples = organism.grammar.sample("restricted", 5, np.random.default_rng(0)) + organism.grammar.sample(
        "describe", 4, np.random.default_rng(0)
    )
    vocabulary = organism.grammar.vocabulary
    condition = named(found, "SS in the first half")
    shared = answers(organism, examples, condition.dial, condition.settings, outcomes.ANSWER_TOKENS)
    assert len(set(shared.verdicts.ravel())) > 1
    for row, setting in enumerate(condition.settings):
        for column, example in enumerate(examples):
            ids, mask = pad_left([example.input_ids], vocabulary.pad_id)
            with torch.inference_mode(), condition.dial(torch.tensor([setting], dtype=torch.float64)):
                written = organism.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=outcomes.ANSWER_TOKENS,
                    do_sample=False,
                    pad_token_id=vocabulary.pad_id,
                    eos_token_id=vocabulary.eos_id,
                )
                logits = organism.model(**model_inputs(organism.model, written, torch.ones_like(written))).logits
            reply = written[0, ids.shape[1] :]
            said = [token for token in reply.tolist() if token != vocabulary.eos_id]
            assert shared.verdicts[row, column] == organism.grammar.judge(said, example)
            assert shared.tokens[row, column] == len(reply)
            chosen = logits[0, ids.shape[1] - 1 : -1].log_softmax(-1).gather(1, reply[:, None])
            assert shared.surprise[row, column] == pytest.approx(-float(chosen.sum()), rel=1e-3, abs=1e-3)


def test_geometry_of_each_operator(organism, plane):
    examples = organism.grammar.sample("restricted", 4, np.random.default_rng(0))
    seen = activations(organism, examples, plane)
    assert all(len(site) == sum(len(one) for one in examples) for site in seen)
    rows = {(row.condition, row.metric): row.value for row in geometry(plane, seen, np.random.default_rng(0))}
    cosines = torch.cat([site.double() @ plane.b1.double() / site.double().norm(dim=-1) for site in seen])
    lost = float((1 - (1 - cosines**2).sqrt()).max())
    assert rows["DirAbl", "largest change of a norm, float64"] == pytest.approx(lost, rel=1e-5)
    for name in ("SS", "SAS", "AAS"):
        assert rows[name, "largest change of a norm, float64"] < 1e-12
    assert rows["SS", "largest change of a distance"] < 1e-12
    assert rows["SAS", "largest change of a distance"] > 0.1
    assert rows["ActAdd", "largest change of a distance"] < 1e-12
    assert rows["SAS", "circular variance in the plane"] < 1e-6
    before = rows["none", "circular variance in the plane"]
    assert rows["SS", "circular variance in the plane"] == pytest.approx(before, abs=1e-6)


def some_answers(verdicts: list[list[str]], surprise: float = 1.0, tokens: int = 2) -> Answers:
    table = np.array(verdicts)
    constant = np.full(table.shape, surprise)
    return Answers(table, constant, 3 * constant, np.full(table.shape, tokens), constant / 4)


F, R, X = "factual", "refusal", "other"


def test_a_setting_is_chosen_on_one_half_and_scored_on_the_other():
    found = Swept(
        settings=np.array([0.0, 90.0, 180.0, 270.0]),
        choosable=np.array([True, True, True, False]),
        refused=some_answers([[R, R, R, R], [F, R, F, F], [F, X, X, X], [F, F, F, F]]),
        allowed=some_answers([[F, F], [F, R], [R, R], [F, F]]),
        abilities=some_answers([[F, F, F, F], [F, F, F, X], [X, X, X, X], [F, F, F, F]]),
        tasks=np.array(["judgement", "judgement", "describe", "describe"]),
    )
    split = Split(choosing=np.array([0, 1]), scoring=np.array([2, 3]))  # 90 and 180 do alike; 270 may not be chosen
    rows = {row.metric: row.value for row in outcomes.at_chosen("SS", found, split)}
    assert rows["chosen setting"] == 90
    assert rows["control success"] == 1.0
    assert rows["refusal of allowed prompts"] == 0.5
    assert rows["accuracy of other tasks"] == 0.75
    assert np.isnan(rows["rank correlation of refusal and setting"]), "two settings are no way"
    tasks = {row.item: row.value for row in outcomes.at_chosen("SS", found, split) if row.item}
    assert tasks == {"judgement": 1.0, "describe": 0.5}
    rows = {row.metric: row.value for row in outcomes.at_chosen("SS", found, Split(split.scoring, split.choosing))}
    assert rows["control success"] == 0.5
    rows = {row.metric: row.value for row in outcomes.at_worst("SS", found)}
    assert rows["accuracy of other tasks at the worst setting"] == 0.0
    assert rows["worst perplexity, steered model"] == pytest.approx(np.exp(1 / 2))
    assert rows["worst perplexity, unsteered model"] == pytest.approx(np.exp(3 / 2))
    assert rows["settings with perplexity over 2"] == 0
    curve = [
        row.value for row in outcomes.curves("SS", found) if row.metric == "refusals at a setting, refused prompts"
    ]
    assert curve == [1.0, 0.25, 0.0, 0.0]


def test_perplexity_is_of_all_tokens_of_a_setting():
    found = Answers(
        np.array([[F, F]]), np.array([[1.0, 5.0]]), np.array([[2.0, 2.0]]), np.array([[2, 8]]), np.zeros((1, 2))
    )
    own, plain = outcomes.perplexities(found)
    assert own == pytest.approx(np.exp(6 / 10))
    assert plain == pytest.approx(np.exp(4 / 10))


def test_splits_part_the_prompts():
    splits = outcomes.draw_splits(3, 5, 4, np.random.default_rng(0))
    assert len(splits) == 4
    for split in splits:
        assert len(split.choosing) == 3
        assert sorted([*split.choosing, *split.scoring]) == list(range(8))
    assert len({tuple(sorted(split.choosing)) for split in splits}) > 1


def test_rank_correlation():
    settings = np.arange(4.0)
    assert outcomes.rank_correlation(settings, np.array([4.0, 3.0, 2.0, 0.0])) == pytest.approx(-1)
    # ranks 2.5, 2.5, 2.5, ... : three equal, then one fall
    assert outcomes.rank_correlation(settings, np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(-np.sqrt(0.6))
    assert np.isnan(outcomes.rank_correlation(settings, np.ones(4)))


def measured(**changed: dict[str, float]) -> pd.DataFrame:
    """What three seeds would show if all methods did the same, but for what is changed."""
    same = {
        "control success": 0.5,
        "accuracy of other tasks": 0.8,
        "accuracy of other tasks at the worst setting": 0.6,
        "worst perplexity, steered model": 1.5,
        "worst perplexity, unsteered model": 9.0,
        "settings with perplexity over 2": 0.0,
        "rank correlation of refusal and setting": -0.5,
        "largest change of a norm, float32": 1e-7,
        "largest change of a distance": 0.0,
        "circular variance in the plane": 0.5,
    }
    value = {
        (name, metric): {**same, **changed.get(key, {})}[metric]
        for name, key in (("none", "none"), ("SS", "SS"), ("SAS", "SAS"), ("AAS", "AAS"), (ALL_BLOCKS, "all_blocks"))
        for metric in same
    }
    rows = [Measurement(*key, one) for key, one in value.items()]
    rows += selective_steering.compared(value, ALL_BLOCKS)
    noise = np.random.default_rng(0)
    return pd.concat(
        [tabulate([row._replace(value=row.value + jitter(row, noise)) for row in rows], seed) for seed in range(3)]
    )


def jitter(row: Measurement, rng: np.random.Generator) -> float:
    return rng.normal(scale=0.05) if row.metric == "control success" else 0.0


def test_no_claim_holds_where_all_methods_do_the_same():
    found = measured()
    for claim in study.claims.values():
        assert claim.judge(found)[0] != Verdict.HOLDS, claim.id


def test_every_claim_holds_where_its_effect_is_there():
    found = measured(
        none={"accuracy of other tasks": 0.8, "accuracy of other tasks at the worst setting": 0.8},
        SS={
            "control success": 0.9,
            "accuracy of other tasks at the worst setting": 0.8,
            "worst perplexity, steered model": 1.1,
            "worst perplexity, unsteered model": 2.0,
            "rank correlation of refusal and setting": -0.95,
        },
        SAS={
            "largest change of a norm, float32": 1e-3,
            "largest change of a distance": 0.5,
            "circular variance in the plane": 0.0,
        },
    )
    for claim in study.claims.values():
        assert claim.judge(found)[0] == Verdict.HOLDS, claim.id
