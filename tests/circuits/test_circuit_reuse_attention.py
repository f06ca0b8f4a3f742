"""Attention edits and reads, and mean ablation, against attention computed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from interplay.circuits.circuit_reuse import (
    AttentionEdit,
    Batch,
    attention_to,
    end_logits,
    logit_difference,
    mean_heads,
    metric_without,
    recovery,
)
from interplay.primitives.activations import Site, edit, record
from interplay.primitives.decoders import Decoder
from tests.circuits.conftest import shaken, tiny_gpt2, tiny_llama

HEADS, LAYERS = 4, 3


def prompts(padded: bool = True) -> Batch:
    generator = torch.Generator().manual_seed(3)
    ids, mask = torch.randint(2, 40, (3, 8), generator=generator), torch.ones(3, 8, dtype=torch.long)
    if padded:
        mask[1, :2] = 0
    answers = torch.randint(2, 20, (3,), generator=generator)
    roles = {"right": torch.tensor([3, 4, 3]), "wrong": torch.tensor([[4, 6], [5, 6], [2, 5]])}
    return Batch(ids, mask, answers, answers + 20, roles)


@pytest.fixture
def eager(decoder_model: nn.Module) -> nn.Module:
    decoder_model.set_attn_implementation("eager")
    return decoder_model


def seen_at(model: nn.Module, batch: Batch, *sites: Site) -> dict[Site, torch.Tensor]:
    with torch.no_grad(), record(model, sites) as seen:
        end_logits(model, batch)
    return dict(seen)


def test_attention_is_what_transformers_reports(eager: nn.Module) -> None:
    batch, heads = prompts(), [(2, 1), (0, 3), (2, 0)]
    with torch.no_grad():
        reported = eager(**batch.inputs(eager), output_attentions=True).attentions
    for role in ("right", "wrong", "end"):
        ours = attention_to(eager, batch, heads, role)
        for column, (layer, head) in enumerate(heads):
            for row in range(3):
                expected = reported[layer][row, head, -1, batch.roles[role][row]].sum()
                torch.testing.assert_close(ours[row, column], expected)
    cut, whole = (attention_to(eager, batch, heads, "wrong", batch_size=size) for size in (2, 64))
    torch.testing.assert_close(cut, whole)


@pytest.mark.parametrize("mass", [0.25, 1.0])
def test_an_edited_head_mixes_the_values_of_its_target(eager: nn.Module, mass: float) -> None:
    batch, decoder = prompts(), Decoder(eager)
    heads = [(1, 2), (1, 3)]
    sites = [Site("heads", 0), Site("heads", 1), Site("values", 1)]
    before = seen_at(eager, batch, *sites)
    looks = attention_to(eager, batch, heads, "wrong")
    elsewhere = attention_to(eager, batch, [(1, 0), (0, 2)], "wrong")
    with AttentionEdit(eager, dict.fromkeys(heads, batch.roles["wrong"]), mass=mass):
        after = seen_at(eager, batch, *sites)
        torch.testing.assert_close(attention_to(eager, batch, heads, "wrong"), (1 - mass) * looks + mass)
        torch.testing.assert_close(attention_to(eager, batch, [(1, 0), (0, 2)], "wrong"), elsewhere)
    expected = before[Site("heads", 1)].clone()
    for _, head in heads:
        values = before[Site("values", 1)][:, :, head * decoder.n_kv_heads // HEADS]
        for row in range(3):
            target = values[row, batch.roles["wrong"][row]].mean(0)
            expected[row, -1, head] = (1 - mass) * expected[row, -1, head] + mass * target
    torch.testing.assert_close(after[Site("heads", 1)], expected)
    assert torch.equal(after[Site("heads", 0)], before[Site("heads", 0)])


def test_full_mass_equals_attention_that_sees_nothing_else(eager: nn.Module) -> None:
    """The same by another way: the edited head's z is that of a model whose mask leaves one place to look at."""
    batch = prompts(padded=False)
    place = torch.tensor([[3]] * 3)
    site = Site("heads", 2, 1)
    with AttentionEdit(eager, {(2, 1): place}):
        edited = seen_at(eager, batch, site)[site][:, -1]

    def only_one(layer: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        mask = torch.full((1, 1, 8, 8), torch.finfo(torch.float32).min)
        mask[..., 3] = 0.0
        return args, {**kwargs, "attention_mask": mask}

    handle = Decoder(eager).attention(2).register_forward_pre_hook(only_one, with_kwargs=True)
    masked = seen_at(eager, batch, site)[site][:, -1]
    handle.remove()
    torch.testing.assert_close(edited, masked, rtol=1e-4, atol=1e-5)


def test_the_query_can_be_any_position(eager: nn.Module) -> None:
    batch, site = prompts(padded=False), Site("heads", 1, 0)
    before = seen_at(eager, batch, site)[site]
    for query in (5, torch.tensor([5, 6, 7])):
        with AttentionEdit(eager, {(1, 0): [1, 2]}, query=query):
            after = seen_at(eager, batch, site)[site]
        changed = (after != before).any(-1)
        expected = torch.zeros(3, 8, dtype=torch.bool)
        expected[torch.arange(3), query] = True
        assert torch.equal(changed, expected)


def test_nothing_is_left_behind_and_no_mass_changes_nothing(eager: nn.Module) -> None:
    batch = prompts()
    before = end_logits(eager, batch)
    with AttentionEdit(eager, {(0, 1): batch.roles["wrong"]}, mass=0.0):
        assert torch.equal(end_logits(eager, batch), before)
    with AttentionEdit(eager, {(0, 1): batch.roles["wrong"]}):
        assert not torch.allclose(end_logits(eager, batch), before)
    assert torch.equal(end_logits(eager, batch), before)
    with pytest.raises(KeyError), AttentionEdit(eager, {(0, 1): batch.roles["wrong"]}):
        raise KeyError
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in eager.modules())


def test_generation_edits_the_prompt_alone(eager: nn.Module) -> None:
    batch = prompts(padded=False)
    options = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    with AttentionEdit(eager, {(1, 0): batch.roles["wrong"]}):
        cached = eager.generate(batch.ids, **options)
    edited = Site("heads", 1, 0)
    with AttentionEdit(eager, {(1, 0): batch.roles["wrong"]}):
        z = seen_at(eager, batch, edited)[edited][:, -1]
    with edit(eager, {edited: lambda _: z}, positions=7):
        again = eager.generate(batch.ids, **options)
    assert torch.equal(cached, again)


# Ablation


def test_mean_heads_are_means() -> None:
    for model in (shaken(tiny_gpt2), shaken(tiny_llama)):
        batch = prompts()
        sites = [Site("heads", layer) for layer in range(LAYERS)]
        seen = seen_at(model, batch, *sites)
        for positions, columns in (("end", batch.roles["end"]), (["right", "wrong"], batch.places(["right", "wrong"]))):
            means = mean_heads(model, batch, positions, batch_size=2)
            for layer, site in enumerate(sites):
                expected = torch.stack([seen[site][row, columns[row]] for row in range(3)]).mean(0)
                torch.testing.assert_close(means[layer], expected)


def test_what_is_ablated_is_replaced_and_nothing_else(decoder_model: nn.Module) -> None:
    batch = prompts()
    means = mean_heads(decoder_model, batch)
    plain = logit_difference(end_logits(decoder_model, batch), batch)
    torch.testing.assert_close(metric_without(decoder_model, batch, [], means), plain)
    heads = {(1, 2), (2, 0)}
    edits = {
        Site("heads", layer, head): lambda z, layer=layer, head=head: means[layer, 0, head].expand_as(z)
        for layer, head in heads
    }
    with edit(decoder_model, edits, positions="last"):
        expected = logit_difference(end_logits(decoder_model, batch), batch)
    torch.testing.assert_close(metric_without(decoder_model, batch, heads, means, batch_size=2), expected)
    assert not torch.allclose(expected, plain)


def test_recovery_is_one_for_all_heads_and_zero_for_none(decoder_model: nn.Module) -> None:
    batch = prompts()
    everything = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    whole, nothing = recovery(decoder_model, batch, everything), recovery(decoder_model, batch, [])
    assert whole.share == pytest.approx(1.0)
    assert nothing.share == 0.0
    assert whole.full == nothing.full
    # With its mean over one prompt alone every head stands where it stood.
    alone = batch[1:2]
    assert recovery(decoder_model, alone, []).none == pytest.approx(recovery(decoder_model, alone, []).full, rel=1e-4)


# Bad input


def test_attention_needs_eager(decoder_model: nn.Module) -> None:
    decoder_model.set_attn_implementation("sdpa")
    batch = prompts()
    with pytest.raises(RuntimeError, match="is 'sdpa' and cannot be seen; load with attn_implementation='eager'"):
        AttentionEdit(decoder_model, {(0, 1): batch.roles["wrong"]})
    with pytest.raises(RuntimeError, match="load with attn_implementation='eager'"):
        attention_to(decoder_model, batch, [(0, 1)], "wrong")


def test_malformed_edits_are_refused(eager: nn.Module) -> None:
    batch = prompts()
    wrong = batch.roles["wrong"]
    for arguments, error, message in (
        (({(0, 1): wrong}, 1.5), ValueError, "mass=1.5"),
        (({(0, 4): wrong},), IndexError, "out of range"),
        (({(0, 1): wrong}, 1.0, "last"), ValueError, "query='last': allowed are 'end'"),
        (({(0, 1): [-1]},), ValueError, "has a negative column: -1"),
        (({(0, 1): []},), ValueError, "must be columns"),
        (({(0, 1): wrong.float()},), ValueError, "must be columns"),
    ):
        with pytest.raises(error, match=message):
            AttentionEdit(eager, *arguments)
    for targets, query, message in (
        ([9], "end", r"for prompt 0 is at \[9\], after the query at 7"),
        ([4], 3, "where attention cannot look"),
        (torch.tensor([[1], [5], [6]]), torch.tensor([2, 4, 7]), "for prompt 1 is at"),
        (wrong[:2], "end", "has 2 rows for 3 prompts"),
        ([0], "end", "points at padding"),
        ([1], 8, "query=8 is outside the prompts of 8 columns"),
    ):
        with pytest.raises(ValueError, match=message), AttentionEdit(eager, {(0, 1): targets}, query=query):
            end_logits(eager, batch)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in eager.modules())


def test_a_model_that_treats_its_values_is_refused() -> None:
    model, batch = shaken(tiny_llama), prompts()
    model.set_attn_implementation("eager")
    attention = Decoder(model).attention(1)
    attention.v_proj = Bent(attention.v_proj)
    with pytest.raises(RuntimeError, match="treats its values"), AttentionEdit(model, {(1, 0): batch.roles["wrong"]}):
        end_logits(model, batch)


class Bent(nn.Module):
    """A projection that is not the last word on its values: they are bent after its hooks have run."""

    def __init__(self, projection: nn.Module) -> None:
        super().__init__()
        self.projection = projection

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().__call__(hidden))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.projection(hidden)


def test_reads_and_ablations_check_their_arguments(eager: nn.Module) -> None:
    batch = prompts()
    means = mean_heads(eager, batch)
    with pytest.raises(ValueError, match="heads is empty"):
        attention_to(eager, batch, [], "wrong")
    with pytest.raises(ValueError, match="the roles of this batch are end, right, wrong"):
        attention_to(eager, batch, [(0, 0)], "s2")
    with pytest.raises(IndexError, match="out of range"):
        attention_to(eager, batch, [(3, 0)], "wrong")
    with pytest.raises(IndexError, match="out of range"):
        metric_without(eager, batch, [(0, 4)], means)
    with pytest.raises(IndexError, match="out of range"):
        recovery(eager, batch, [(3, 0)])
    with pytest.raises(ValueError, match=r"means must be \[3 layers, 2 places, 4 heads, width\]"):
        metric_without(eager, batch, [(0, 0)], means, "wrong")
