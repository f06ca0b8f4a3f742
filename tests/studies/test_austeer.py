"""The austeer study tunes on validation, scores on test, and can fail."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from interplay.assets import organisms
from interplay.evidence import Measurement, Verdict
from interplay.evidence.study import tabulate
from interplay.primitives.activations import record
from interplay.primitives.prompts import model_inputs, pad_left
from interplay.steering import ActivationAddition
from interplay.steering.austeer import UnitPatch, rank_units, sites_of
from interplay.studies import austeer
from interplay.studies.austeer import blocks, conditions, study, tasks
from interplay.studies.austeer.tasks import TASKS, Item, Task, margins

SIZES = {"fit": 24, "validation": 12, "test": 12}


@pytest.fixture(scope="module")
def found() -> list[Task]:
    capitals = organisms.load("capitals", 0, attn_implementation="sdpa")
    policy = organisms.load("policy", 0, attn_implementation="sdpa")
    return tasks.tasks(capitals, policy, SIZES, 6, np.random.default_rng(0))


def test_tasks_are_as_hard_as_they_should_be(found):
    assert [task.name for task in found] == list(TASKS)
    plain = {task.name: margins(task.model, task.splits["validation"], 0) for task in found}
    assert 0.7 <= (plain["knowledge"] > 0).mean() <= 0.85
    assert 0.5 <= (plain["bias"] > 0).mean() <= 0.7
    assert (plain["behaviour"] > 0).mean() < 0.2
    for task in found:
        assert {name: len(items) for name, items in task.splits.items()} == SIZES
        assert len(task.neutral) == 6
        sides = [{item.ids for item in items} for items in task.splits.values()]
        assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2], "items in two splits"
        assert all(item.right != item.wrong for items in task.splits.values() for item in items)
    rights = [item.right for item in found[1].splits["fit"]]
    assert rights.count(rights[0]) == len(rights) / 2, "balanced"


def test_the_organisms_themselves_are_not_changed(found):
    fresh = organisms.load("policy", 0, attn_implementation="sdpa").model.state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in found[2].model.state_dict().items())
    assert any(not torch.equal(tensor, fresh[name]) for name, tensor in found[1].model.state_dict().items())


def test_margins_of_shared_batches_are_those_of_one_item(found):
    task = found[2]
    steering = ActivationAddition.fit(task.model, task.tokenizer, *conditions.sides_of(task), layers=[3])
    items, strengths = task.splits["test"][:4], (0.0, 0.5, 2.0)
    together = margins(task.model, items, 0, steering, strengths)
    np.testing.assert_allclose(together[0], margins(task.model, items, 0), atol=1e-4)
    for row, strength in enumerate(strengths):
        for column, item in enumerate(items):
            ids, mask = pad_left([item.ids], 0)
            with torch.inference_mode(), steering.applied(task.model, strength):
                logits = task.model(**model_inputs(task.model, ids, mask)).logits[0, -1]
            assert together[row, column] == pytest.approx(float(logits[item.right] - logits[item.wrong]), abs=1e-3)


def test_the_best_setting_is_the_best_on_validation(found):
    task = found[2]
    candidates = [
        ActivationAddition.fit(task.model, task.tokenizer, *conditions.sides_of(task), layers=[layer])
        for layer in (0, 4)
    ]
    strengths = (0.1, 1.0)
    scores = np.array(
        [(margins(task.model, task.splits["validation"], 0, one, strengths) > 0).mean(1) for one in candidates]
    )
    best = conditions.best_of(task, "CAA", candidates, strengths, 0)
    which, at = np.unravel_index(scores.argmax(), scores.shape)
    assert best.steering is candidates[which]
    assert best.strength == strengths[at]
    assert best.validation == scores.max()
    assert best.touched == 128


def test_exchanged_sides_leave_no_consistency(found):
    task = found[1]
    named = conditions.momenta(task)["layer"]
    shuffled = conditions.momenta(task, np.random.default_rng(0))["layer"]
    assert named.pairs == shuffled.pairs == SIZES["fit"]
    n = SIZES["fit"]
    by_chance = sum(max(k, n - k) * math.comb(n, k) for k in range(n + 1)) / 2**n / n
    assert float(shuffled.beta.abs().mean()) == pytest.approx(by_chance, abs=0.02)
    assert not torch.equal(named.beta, shuffled.beta)


def test_a_block_a_single_unit_and_constants(found):
    task = found[2]
    momentum = conditions.momenta(task)["ffn"]
    block = conditions.block(task, "ffn", momentum, 2)
    assert block.layers.unique().tolist() == [2]
    assert torch.equal(block.gains, momentum.beta[2])
    ranking = rank_units(momentum)
    single = conditions.single(task, "ffn", ranking, 3)
    assert (single.layers[0], single.units[0]) == (ranking.layers[3], ranking.units[3])
    patch = UnitPatch.of_ranking(task.model, "ffn", ranking, 5, 1.0)
    sizes = torch.rand(6, 128, generator=torch.Generator().manual_seed(0))
    constant = conditions.ConstantPatch.like(patch, sizes)
    place = sites_of(task.model, "ffn")[int(patch.layers.min())]
    batch = task.tokenizer("Q : which tool to make a small pot ? A :", return_tensors="pt")
    with torch.inference_mode(), record(task.model, [place]) as before:
        task.model(**batch)
    with torch.inference_mode(), constant.applied(task.model, 2.0), record(task.model, [place]) as after:
        task.model(**batch)
    expected = before[place].clone()
    for layer, unit, gain in zip(patch.layers, patch.units, patch.gains, strict=True):
        if layer == patch.layers.min():
            expected[..., unit] += 2.0 * gain * sizes[layer, unit]
    torch.testing.assert_close(after[place], expected, rtol=1e-4, atol=1e-4)
    assert conditions.touched(patch) == 5


def test_a_shifted_margin_needs_no_steering():
    """All errors are of one class by the same bias, which a shift takes away."""
    items = [Item((1,), 5, 6) if row % 2 else Item((1,), 6, 5) for row in range(8)]
    task = Task("bias", None, None, {"validation": items, "test": items}, None, [])
    margin = np.array([1.0 + 0.1 * row if item.right == 5 else -0.5 - 0.05 * row for row, item in enumerate(items)])
    assert austeer.shifted(task, {"validation": margin, "test": margin}) == 1.0
    assert (margin > 0).mean() == 0.5
    other = [item._replace(right=100 + row, wrong=200 + row) for row, item in enumerate(items)]
    various = task._replace(splits={"validation": other, "test": other})
    mended = austeer.shifted(various, {"validation": margin, "test": margin})
    assert mended == 0.5 + 1 / len(items), "the word of one item"


def test_a_rotated_basis_has_no_peaks_of_its_own():
    rng = np.random.default_rng(0)
    profile = np.eye(60)
    turned = torch.linalg.qr(torch.from_numpy(rng.standard_normal((60, 60))))[0].numpy() @ profile
    assert stats.kurtosis(profile, axis=1).mean() > stats.kurtosis(turned, axis=1).mean() + 10
    assert blocks._overlap(np.tile(np.arange(60.0), (5, 1)), rng) == 1.0


def test_token_profiles_turn_with_the_basis(found):
    task = found[2]
    rows = list(blocks.token_profiles(task, np.random.default_rng(0)))
    by_name = {row.condition: row.value for row in rows if row.metric == "kurtosis of token profiles" and row.step == 0}
    assert set(by_name) == {"attention, units", "attention, rotated", "ffn, units", "ffn, rotated"}
    units = blocks._profile(task, "ffn", 0, None)
    rotated = blocks._profile(task, "ffn", 0, np.random.default_rng(0))
    np.testing.assert_allclose(
        units.T @ units, rotated.T @ rotated, atol=1e-6, err_msg="a rotation keeps inner products"
    )


def measured(**changed: float) -> pd.DataFrame:
    """What three seeds of three tasks would show if all conditions did the same, but for what is changed."""
    accuracies = {
        "AUSteer": 0.7,
        "best block baseline": 0.7,
        "random units, 95th percentile": 0.7,
        "random units, median": 0.5,
        "shuffled labels": 0.7,
        "constants on the same units": 0.7,
    }
    accuracies |= {
        name.replace("_", " "): value for name, value in changed.items() if name.replace("_", " ") in accuracies
    }
    other = {
        ("AUSteer", "such blocks are half or more"): changed.get("half", 0.0),
        ("AUSteer", "such blocks are two thirds or more"): changed.get("thirds", 0.0),
        ("best single unit", "as good as a whole block in two tasks of three"): changed.get("single", 0.0),
    }
    noise = np.random.default_rng(2)
    tables = []
    for seed in range(3):
        rows = [
            Measurement(name, "accuracy", value + noise.normal(scale=0.01), item=task)
            for name, value in accuracies.items()
            for task in TASKS
        ]
        rows += [
            Measurement(
                "AUSteer", "share of units at the peak", changed.get("peak", 0.3) + noise.normal(scale=0.01), item=task
            )
            for task in TASKS
        ]
        rows += [Measurement(*key, value) for key, value in other.items()]
        tables.append(tabulate(rows, seed))
    return pd.concat(tables)


def test_no_claim_holds_where_all_conditions_do_the_same():
    table = measured()
    for claim in study.claims.values():
        assert claim.judge(table)[0] != Verdict.HOLDS, claim.id


def test_every_claim_holds_where_its_effect_is_there():
    table = measured(AUSteer=0.9, shuffled_labels=0.5, half=1.0, thirds=1.0, single=1.0, peak=0.01)
    for claim in study.claims.values():
        assert claim.judge(table)[0] == Verdict.HOLDS, claim.id
