"""AUSteer counts, ranks and scales what its equations say; folded or hooked, it is the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from interplay.primitives.activations import Site, edit, record
from interplay.primitives.prompts import model_inputs, pad_left, token_ids
from interplay.steering import load_steering
from interplay.steering.austeer import (
    Momentum,
    SemanticsAdaptivePatch,
    UnitPatch,
    balanced,
    collect_units,
    expected_chance_ties,
    heterogeneity,
    momentum,
    momentum_of_classes,
    outcome_momentum,
    rank_units,
    sites_of,
    tune,
    unit_token_profile,
    unit_widths,
    writing_directions,
)
from tests.steering.conftest import WORDS, Language, language, prompts

GOOD, BAD = prompts("good"), prompts("bad", seed=1)
SITES = ("attention", "ffn", "layer")
DEPTH, WIDTH = 4, 24
VALUES = arrays(np.float32, (5, 2, 3), elements=st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.5]))


def batch(kind: Language, texts=GOOD) -> dict[str, Tensor]:
    """With positions that are counted from each prompt's first token, as those of all that is read."""
    return model_inputs(kind.model, *pad_left(token_ids(kind.tokenizer, texts), kind.tokenizer.pad_token_id))


def pairs(count: int, seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Prompts with a right and a wrong answer, either word being right half of the time."""
    texts = prompts("w1", count, seed)
    right = [" good" if row % 2 else " bad" for row in range(count)]
    return texts, right, [" bad" if one == " good" else " good" for one in right]


@given(VALUES, VALUES)
def test_momentum_is_the_slow_count(pos, neg):
    found = momentum(torch.from_numpy(pos), torch.from_numpy(neg))
    for layer, unit in np.ndindex(2, 3):
        differences = [float(one - other) for one, other in zip(pos[:, layer, unit], neg[:, layer, unit], strict=True)]
        larger, smaller = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
        expected = max(larger, smaller) / 5 * (1 if larger >= smaller else -1)
        assert found.beta[layer, unit] == pytest.approx(expected)
        assert found.mean[layer, unit] == pytest.approx(np.mean(differences), abs=1e-6)
        if np.std(differences) > 0 and np.mean(differences) != 0:
            assert found.effect[layer, unit] == pytest.approx(np.mean(differences) / np.std(differences), rel=1e-5)


@given(VALUES, VALUES)
def test_batches_add_up_and_sides_mirror(pos, neg):
    pos, neg = torch.from_numpy(pos), torch.from_numpy(neg)
    whole, parts, mirrored = momentum(pos, neg), Momentum(), momentum(neg, pos)
    for part in (slice(0, 2), slice(2, 5)):
        parts.update(pos[part], neg[part])
    assert torch.equal(whole.beta, parts.beta)
    torch.testing.assert_close(whole.effect, parts.effect, rtol=1e-5, atol=1e-6)
    moved = whole.n_pos != whole.n_neg
    assert torch.equal(whole.beta[moved], -mirrored.beta[moved])
    assert bool((whole.beta[~moved] >= 0).all())


def test_unpaired_sets_are_compared_in_all_pairs():
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(3, 2, 4, generator=generator), torch.randn(5, 2, 4, generator=generator)
    found = momentum_of_classes(pos, neg)
    every = list(itertools.product(pos, neg))
    expected = momentum(torch.stack([one for one, _ in every]), torch.stack([other for _, other in every]))
    assert found.pairs == 15
    assert torch.equal(found.beta, expected.beta)
    torch.testing.assert_close(found.effect, expected.effect)


def test_ranking_is_global_and_ties_fall_as_the_rule_says():
    # Two pairs; unit (1, 0) is consistent and even, (0, 1) consistent and uneven, (0, 0) inconsistent, (1, 1) negative.
    difference = torch.tensor([[[1.0, 1.0], [2.0, -3.0]], [[-1.0, 5.0], [2.1, -3.5]]])
    found = momentum(difference, torch.zeros_like(difference))
    official = rank_units(found, tie_break="official")
    assert list(zip(official.layers.tolist(), official.units.tolist(), strict=True)) == [(0, 1), (1, 0), (1, 1), (0, 0)]
    assert official.gains.tolist() == [1.0, 1.0, -1.0, 0.5]
    assert official.ties(1) == official.ties(3) == 3
    by_effect = rank_units(found)
    assert list(zip(by_effect.layers.tolist(), by_effect.units.tolist(), strict=True))[:3] == [(1, 0), (1, 1), (0, 1)]
    by_mean = rank_units(found, "mean_diff")
    assert (by_mean.layers[0], by_mean.units[0]) == (1, 1)
    assert by_mean.gains[0] == -1.0
    assert rank_units(found, "sadi").gains.tolist() == [1.0] * 4
    drawn = rank_units(found, "random", generator=torch.Generator().manual_seed(3))
    assert sorted(zip(drawn.layers.tolist(), drawn.units.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_chance_ties_are_as_many_as_expected():
    generator = torch.Generator().manual_seed(0)
    pairs_, units = 6, 20_000
    beta = momentum(torch.randn(pairs_, 1, units, generator=generator), torch.zeros(pairs_, 1, units)).beta
    expected = expected_chance_ties(pairs_, units)
    assert abs(int((beta.abs() == 1).sum()) - expected) < 5 * expected**0.5


@pytest.mark.parametrize("site", SITES)
def test_units_are_where_they_are_said_to_be(any_language, site):
    found = collect_units(any_language.model, any_language.tokenizer, GOOD, [site])[site]
    assert list(found.shape) == [len(GOOD), DEPTH, unit_widths(any_language.model, site)[0]]
    model = any_language.model
    blocks = model.transformer.h if hasattr(model, "transformer") else model.model.layers
    attention = blocks[2].attn if hasattr(blocks[2], "attn") else blocks[2].self_attn
    projection = attention.c_proj if hasattr(attention, "c_proj") else attention.o_proj
    seen = []
    if site == "attention":
        handle = projection.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    else:
        module = blocks[2] if site == "layer" else blocks[2].mlp
        handle = module.register_forward_hook(
            lambda _, args, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
    with torch.inference_mode():
        model(**batch(any_language))
    handle.remove()
    torch.testing.assert_close(found[:, 2], seen[0][:, -1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("site", SITES)
def test_a_patch_scales_its_units_and_nothing_else(any_language, site):
    patch = UnitPatch.fit(any_language.model, any_language.tokenizer, GOOD, BAD, site=site, k=7, alpha=3.0)
    table = patch.to_table()
    strengths = torch.linspace(-1, 2, len(GOOD))
    places = sites_of(any_language.model, site)
    last = max(table["layer"])
    with torch.inference_mode(), record(any_language.model, places) as before:
        any_language.model(**batch(any_language))
    here = table[table["layer"] == min(table["layer"])]
    first = places[min(table["layer"])]
    with (
        torch.inference_mode(),
        patch.applied(any_language.model, strengths),
        record(any_language.model, places) as after,
    ):
        any_language.model(**batch(any_language))
    expected = before[first].flatten(2).clone()
    for unit, gain in zip(here["unit"], here["gain"], strict=True):
        expected[..., unit] *= 1 + strengths[:, None] * gain
    torch.testing.assert_close(after[first].flatten(2), expected, rtol=1e-5, atol=1e-5)
    assert last < DEPTH


@pytest.mark.parametrize("site", ["attention", "ffn"])
def test_folding_is_the_hook_and_can_be_undone(any_language, site):
    model = any_language.model
    patch = UnitPatch.fit(model, any_language.tokenizer, GOOD, BAD, site=site, k=9, alpha=2.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode(), patch.applied(model, 0.5):
        hooked = model(**batch(any_language)).logits
    folded = patch.fold(model, 0.5)
    with torch.inference_mode():
        torch.testing.assert_close(model(**batch(any_language)).logits, hooked, rtol=1e-3, atol=1e-3)
    folded.undo()
    folded.undo()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_outcomes_are_read_at_the_last_token_of_each_answer(llama):
    texts, right, wrong = pairs(24)
    found = outcome_momentum(llama.model, llama.tokenizer, texts, right, wrong, ["ffn", "layer"])
    for site in ("ffn", "layer"):
        sides = [
            collect_units(llama.model, llama.tokenizer, [p + a for p, a in zip(texts, answers, strict=True)], [site])[
                site
            ]
            for answers in (right, wrong)
        ]
        assert torch.equal(found[site].beta, momentum(*sides).beta)
    patch = UnitPatch.fit_outcomes(llama.model, llama.tokenizer, texts, right, wrong, site="ffn", k=5, alpha=2.0)
    ranking = rank_units(found["ffn"])
    assert torch.equal(patch.layers, ranking.layers[:5])
    assert torch.equal(patch.gains, 2.0 * ranking.gains[:5])


def test_the_same_answers_make_every_unit_consistent_unless_they_are_balanced(llama):
    texts, right, wrong = pairs(40)
    constant = outcome_momentum(llama.model, llama.tokenizer, texts, [" good"] * 40, [" bad"] * 40, ["layer"])["layer"]
    even = outcome_momentum(llama.model, llama.tokenizer, texts, right, wrong, ["layer"])["layer"]
    strengths = [float(one.beta.abs().mean()) for one in (constant, even)]
    assert strengths[1] < 0.6, "as chance has it"
    assert strengths[0] > strengths[1] + 0.05


def test_balance_keeps_both_ways_round():
    right = ["a", "a", "a", "b", "c"]
    wrong = ["b", "b", "b", "a", "d"]
    assert balanced(list("vwxyz"), right, wrong) == [0, 3]
    with pytest.warns(UserWarning, match="cannot be balanced"):
        assert balanced(["v", "w"], ["a", "a"], ["b", "b"]) == [0, 1]


def test_sadi_takes_the_largest_differences_with_one_gain(llama):
    patch = SemanticsAdaptivePatch.fit(llama.model, llama.tokenizer, GOOD, BAD, site="layer", k=6, alpha=0.5)
    pos, neg = (collect_units(llama.model, llama.tokenizer, texts, ["layer"])["layer"] for texts in (GOOD, BAD))
    difference = (pos.mean(0) - neg.mean(0)).abs().flatten()
    expected = difference.topk(6).indices
    assert set((patch.layers * WIDTH + patch.units).tolist()) == set(expected.tolist())
    assert patch.gains.tolist() == [0.5] * 6


def test_tuning_takes_the_best_setting_and_of_equals_the_smallest(llama):
    found = outcome_momentum(llama.model, llama.tokenizer, *pairs(24), ["ffn", "layer"])
    rankings = {site: rank_units(one) for site, one in found.items()}

    def scorer(patch, alphas):
        return [float(patch.site == "layer" and patch.k == 4 and alpha >= 2.0) for alpha in alphas]

    tuned = tune(llama.model, rankings, scorer, ks=(2, 4, 10_000), alphas=(5.0, 2.0, 1.0))
    assert (tuned.patch.site, tuned.patch.k) == ("layer", 4)
    assert torch.equal(tuned.patch.gains, 2.0 * rankings["layer"].gains[:4])
    assert len(tuned.table) == 2 * 2 * 3


@pytest.mark.parametrize("site", SITES)
def test_heterogeneity_is_one_patch_at_a_time(any_language, site):
    model, tokenizer = any_language
    right, wrong = [WORDS.index("good")] * len(GOOD), [WORDS.index("bad")] * len(GOOD)
    table = heterogeneity(
        model, tokenizer, GOOD, right, wrong, site, 1, gains=(-1.0, 2.0), units=[0, 5], rows_per_batch=8
    )

    def margins() -> Tensor:
        with torch.inference_mode():
            logits = model(**batch(any_language)).logits[:, -1]
        return logits[:, right[0]] - logits[:, wrong[0]]

    plain = margins()
    place = (Site("heads", 1), Site("residual", 1))[site == "layer"]
    if site == "ffn":
        place = sites_of(model, "ffn")[1]
    for row in table.itertuples():

        def scale(h: Tensor, row=row) -> Tensor:
            flat = h.flatten(2).clone()
            flat[..., row.unit] *= 1 + row.gain
            return flat.view_as(h)

        with edit(model, {place: scale}):
            difference = (margins() - plain).double()
        assert row.effect == pytest.approx(float(difference.mean()), rel=1e-2, abs=1e-3)
        if float(difference.std()) > 1e-3:
            t = float(difference.mean() / (difference.std() / len(GOOD) ** 0.5))
            assert row.t == pytest.approx(t, rel=1e-2, abs=1e-2)


def test_token_profiles_are_the_logit_lens_of_a_column(any_language):
    model = any_language.model
    weight = writing_directions(model, "attention", 1)
    body = model.transformer if hasattr(model, "transformer") else model.model
    norm = body.ln_f if hasattr(body, "ln_f") else body.norm
    gain = norm.weight + (1 if "Gemma" in type(norm).__name__ else 0)
    expected = (weight[3] * gain) @ model.lm_head.weight.T
    torch.testing.assert_close(unit_token_profile(model, "attention", 1, 3), expected.detach(), rtol=1e-3, atol=1e-3)
    top = unit_token_profile(model, "attention", 1, [3, 4], topk=5)
    assert top.shape == (2, 5)
    assert top[0].tolist() == expected.topk(5).indices.tolist()
    assert unit_token_profile(model, "ffn", 0).shape == (WIDTH, len(WORDS))


def test_a_file_keeps_the_units(llama, tmp_path):
    patch = UnitPatch.fit(llama.model, llama.tokenizer, GOOD, BAD, k=5)
    patch.save(tmp_path / "patch.safetensors")
    assert (tmp_path / "patch.safetensors").stat().st_size < 2048
    again = load_steering(tmp_path / "patch.safetensors")
    assert isinstance(again, UnitPatch)
    assert again.to_table().equals(patch.to_table())


def test_bad_input_is_refused(llama):
    model, tokenizer = llama
    texts, right, wrong = pairs(24)
    fit = UnitPatch.fit_outcomes
    for changed, message in (
        ({"site": "mlp"}, r"attention \(24 units a layer\), ffn \(24 units a layer\), layer"),
        ({"k": 0}, "between 1 and the 96 units"),
        ({"k": 97}, "between 1 and the 96 units"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"score": "size"}, "score must be one of"),
        ({"right": wrong, "balance": False}, "row 0: right and wrong"),
        ({"wrong": [" "] * 24, "balance": False}, "row 0: right and wrong"),
        ({"right": right[:3], "balance": False}, "equally many"),
        ({"right": right[:3]}, "equally many"),
    ):
        arguments = {"prompts": texts, "right": right, "wrong": wrong, **changed}
        with pytest.raises(ValueError, match=message):
            fit(model, tokenizer, **arguments)
    with pytest.warns(UserWarning, match="4 pairs are few: 12 of 96 units"):
        fit(model, tokenizer, texts[:4], right[:4], wrong[:4])
    with pytest.raises(ValueError, match="not finite in layer 1 of sample 0"):
        momentum(torch.tensor([[[0.0], [float("nan")]]]), torch.zeros(1, 2, 1))
    with pytest.raises(ValueError, match="same shape"):
        momentum(torch.zeros(2, 2, 1), torch.zeros(3, 2, 1))
    with pytest.raises(ValueError, match="earlier batches"):
        momentum(torch.zeros(2, 2, 1), torch.zeros(2, 2, 1)).update(torch.zeros(2, 3, 1), torch.zeros(2, 3, 1))
    with pytest.raises(LookupError, match="no pairs"):
        _ = Momentum().beta
    with pytest.raises(ValueError, match="needs a generator"):
        rank_units(momentum(torch.ones(1, 1, 1), torch.zeros(1, 1, 1)), "random")
    with pytest.raises(ValueError, match="nothing to try"):
        tune(model, {}, lambda patch, alphas: [], ks=(1,), alphas=(1.0,))
    with pytest.raises(ValueError, match="one of the 24"):
        unit_token_profile(model, "ffn", 0, 24)
    with pytest.raises(ValueError, match="equally many"):
        heterogeneity(model, tokenizer, GOOD, [1], [2], "ffn", 0)
    other = rank_units(momentum(torch.ones(1, 1, 5), torch.zeros(1, 1, 5)))
    with pytest.raises(ValueError, match="the ranking has 5 units"):
        UnitPatch.of_ranking(model, "ffn", other, 2, 1.0)


def test_what_cannot_be_folded_is_refused(llama):
    whole = UnitPatch.fit(llama.model, llama.tokenizer, GOOD, BAD, site="layer")
    with pytest.raises(ValueError, match="cannot be folded"):
        whole.fold(llama.model)
    patch = UnitPatch.fit(llama.model, llama.tokenizer, GOOD, BAD, site="ffn")
    layers = llama.model.model.layers
    for layer in layers[1:]:
        layer.mlp.down_proj.weight = layers[0].mlp.down_proj.weight
    with pytest.raises(ValueError, match="several modules share"):
        patch.fold(llama.model)
    with pytest.raises(ValueError, match="fitted on llama"):
        patch.fold(language("gpt2").model)
