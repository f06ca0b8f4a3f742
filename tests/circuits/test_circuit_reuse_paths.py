"""Path patching against its slow definition, closed forms and the official function."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from interplay.circuits.circuit_reuse import Batch, Head, Receiver, logit_difference, path_effects, path_patch
from interplay.primitives.activations import Site, edit, record
from interplay.primitives.decoders import Decoder
from tests.circuits.conftest import SHAPE, shaken, tiny_gemma3, tiny_gpt2, tiny_llama
from tests.circuits.slow_path_patching import slow_effect

LAYERS, HEADS = 3, 4


def gemma2() -> nn.Module:
    """Soft caps on attention and logits."""
    return Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, sliding_window=16, final_logit_softcapping=3.0, attn_logit_softcapping=5.0)
    )


def qwen3() -> nn.Module:
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE))


def pythia() -> nn.Module:
    """Attention and MLP read the same stream."""
    shape = {name: value for name, value in SHAPE.items() if name not in {"num_key_value_heads", "head_dim"}}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**shape))


def task(prompts: int = 3, length: int = 9, padding: str | None = "left") -> tuple[Batch, Batch]:
    """Random prompts, and twins in which the token at `s` is another."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 40, (prompts, length), generator=generator)
    twin = ids.clone()
    twin[:, 4] = (ids[:, 4] - 2 + torch.randint(1, 38, (prompts,), generator=generator)) % 38 + 2
    mask = torch.ones_like(ids)
    if padding == "left":
        mask[0, :2] = 0
    elif padding == "right":
        mask[0, -2:] = 0
    answers = torch.randint(2, 20, (prompts,), generator=generator)
    roles = {"s": torch.full((prompts,), 4), "after": torch.tensor([[5, 6 - row % 2] for row in range(prompts)])}
    return tuple(Batch(side, mask, answers, answers + 20, roles) for side in (ids, twin))


@pytest.fixture(params=["eager", "sdpa"])
def any_model(decoder_model: nn.Module, request: pytest.FixtureRequest) -> nn.Module:
    decoder_model.set_attn_implementation(request.param)
    return decoder_model


def slow_table(model: nn.Module, pair: tuple[Batch, Batch], receivers: Sequence[Receiver], heads, **options):
    table = torch.zeros(LAYERS, HEADS)
    for head in heads:
        table[head] = slow_effect(model, *pair, receivers, head, **options)
    return table


ALL = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
EARLY = [(layer, head) for layer, head in ALL if layer < 2]


@pytest.mark.parametrize("freeze_mlps", [False, True])
def test_the_direct_path_is_what_the_definition_says(any_model: nn.Module, freeze_mlps: bool) -> None:
    pair = task()
    ours = path_patch(any_model, *pair, Receiver("logits"), freeze_mlps=freeze_mlps, min_gap=None)
    slow = slow_table(any_model, pair, [Receiver("logits")], ALL, freeze_mlps=freeze_mlps)
    torch.testing.assert_close(ours, slow, rtol=1e-3, atol=1e-4)
    assert ours.abs().min() > 0


@pytest.mark.parametrize("padding", ["left", "right", None])
@pytest.mark.parametrize(
    ("components", "positions", "freeze_mlps"),
    [
        ("q", "end", False),
        ("q", "end", True),
        ("kv", "s", False),
        ("qkv", ("s", "after", "end"), False),
        ("z", ("after", "end"), False),
    ],
)
def test_the_path_through_heads_is_what_the_definition_says(
    any_model: nn.Module, components: str, positions: str | tuple[str, ...], freeze_mlps: bool, padding: str | None
) -> None:
    pair = task(padding=padding)
    # Key-value heads: 4, 2 and 1 in these models. Head 0 is there in all of them.
    receivers = [Receiver(2, 0, component) for component in components]
    if "q" in components:
        receivers.append(Receiver(2, 3, "q"))
    ours = path_patch(any_model, *pair, receivers, positions=positions, freeze_mlps=freeze_mlps, min_gap=None)
    slow = slow_table(any_model, pair, receivers, EARLY, positions=positions, freeze_mlps=freeze_mlps)
    torch.testing.assert_close(ours, slow, rtol=1e-3, atol=1e-4)
    assert ours[:2].abs().max() > 1e-3
    assert not ours[2].any()


def test_receivers_in_several_layers(decoder_model: nn.Module) -> None:
    pair, receivers = task(), [Receiver(2, 1, "q"), Receiver(1, 0, "v"), Receiver(1, 2, "z")]
    roles = ("s", "end")
    lowest = path_patch(decoder_model, *pair, receivers, positions=roles, min_gap=None)
    own_values = Decoder(decoder_model).n_kv_heads == HEADS
    tried = [head for head in EARLY if head != (1, 2) and not (own_values and head == (1, 0))]
    slow = slow_table(decoder_model, pair, receivers, tried, positions=roles)
    torch.testing.assert_close(lowest, slow, rtol=1e-3, atol=1e-4)
    high = [Receiver(2, 1, "q"), Receiver(0, 0, "v")]
    assert not path_patch(decoder_model, *pair, high, positions=roles, min_gap=None)[1:].any()
    reachable = path_patch(decoder_model, *pair, high, "reachable", positions=roles, min_gap=None)
    tried = [head for head in EARLY if not (own_values and head == (0, 0))]
    slow = slow_table(decoder_model, pair, high, tried, positions=roles)
    torch.testing.assert_close(reachable, slow, rtol=1e-3, atol=1e-4)


def test_soft_caps_and_norms_of_queries_are_the_models_own() -> None:
    for make in (gemma2, qwen3):
        model, pair, receivers = shaken(make), task(), [Receiver(2, 1, "q"), Receiver(2, 1, "k")]
        ours = path_patch(model, *pair, receivers, positions=("s", "end"), min_gap=None)
        slow = slow_table(model, pair, receivers, EARLY, positions=("s", "end"))
        torch.testing.assert_close(ours, slow, rtol=1e-3, atol=1e-4)
        ours = path_patch(model, *pair, Receiver("logits"), min_gap=None)
        torch.testing.assert_close(ours, slow_table(model, pair, [Receiver("logits")], ALL), rtol=1e-3, atol=1e-4)


def test_effects_do_not_depend_on_how_the_work_is_cut(decoder_model: nn.Module) -> None:
    pair = task(prompts=5)
    for receivers, roles in (
        ([Receiver("logits")], "end"),
        ([Receiver(2, 0, "k"), Receiver(2, 0, "q")], ("s", "after")),
    ):
        whole = path_patch(decoder_model, *pair, receivers, positions=roles, min_gap=None)
        for batch_size, tokens in ((1, 1), (2, 40), (5, 10_000)):
            cut = path_patch(
                decoder_model, *pair, receivers, positions=roles, min_gap=None, batch_size=batch_size, tokens=tokens
            )
            torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-5)


def test_a_sender_in_the_layer_of_a_receiver_has_exactly_no_effect(decoder_model: nn.Module) -> None:
    pair, receivers = task(), [Receiver(1, 0, "q"), Receiver(1, 0, "k"), Receiver(2, 0, "q")]
    effect = path_patch(decoder_model, *pair, receivers, [(1, 0), (1, 3), (2, 1), (0, 1)], min_gap=None)
    assert not effect[2].any()
    # What 1.3 sends arrives at 2.0 alone.
    alone = path_patch(decoder_model, *pair, [Receiver(2, 0, "q")], [(1, 3)], min_gap=None)
    torch.testing.assert_close(effect[1, 3], alone[1, 3], rtol=1e-4, atol=1e-7)
    assert path_patch(decoder_model, *pair, [Receiver(1, 0, "q")], "reachable", min_gap=None)[1:].abs().max() == 0


def test_activation_patching_is_something_else(decoder_model: nn.Module) -> None:
    """Letting everything downstream change gives another number: other heads carry the change on."""
    clean, corrupt = pair = task()
    site, rows = Site("heads", 0, 1), torch.arange(len(clean))

    def difference(batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return logit_difference(decoder_model(**batch.inputs(decoder_model)).logits[rows, clean.end], clean).mean()

    with record(decoder_model, [site]) as seen:
        spoiled = difference(corrupt)
    reference = difference(clean)
    with edit(decoder_model, {site: lambda _: seen[site][:, -1]}, positions="last"):
        everything = (difference(clean) - reference) / (spoiled - reference)
    direct = path_patch(decoder_model, *pair, Receiver("logits"), min_gap=None)[0, 1]
    assert (everything - direct).abs() > 1e-2


def test_the_frozen_direct_effect_has_a_closed_form() -> None:
    """LN of (clean + what the head writes more), exactly; and its first order is the attribution with the norm held."""
    model, (clean, corrupt) = shaken(tiny_gpt2).double(), task(padding=None)
    sites = [Site("heads", layer) for layer in range(LAYERS)]
    seen = {}
    for name, side in (("clean", clean), ("corrupt", corrupt)):
        with torch.no_grad(), record(model, [*sites, Site("residual", 2)], positions="last") as seen[name]:
            model(**side.inputs(model))
    norm, unembedding = model.transformer.ln_f, model.lm_head.weight
    direction = unembedding[clean.answer] - unembedding[clean.contrast]
    final = seen["clean"][Site("residual", 2)]

    def difference(residual: torch.Tensor) -> torch.Tensor:
        return (norm(residual) * direction).sum(-1)

    gap = (difference(seen["corrupt"][Site("residual", 2)]) - difference(final)).mean()
    centred = direction * norm.weight
    pulled = (centred - centred.mean(-1, keepdim=True)) / (final.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    ours = path_patch(model, clean, corrupt, Receiver("logits"), freeze_mlps=True, min_gap=None)
    for layer, head in ALL:
        weight = model.transformer.h[layer].attn.c_proj.weight[6 * head : 6 * (head + 1)]
        more = (seen["corrupt"][sites[layer]] - seen["clean"][sites[layer]])[:, head] @ weight
        expected = (difference(final + more) - difference(final)).mean() / gap
        torch.testing.assert_close(ours[layer, head], expected, rtol=1e-9, atol=1e-12)
        # With the scale of the norm held at the clean run, small changes add up by attribution.
        for size in (1e-2, 1e-3):
            change = (difference(final + size * more) - difference(final)) / size
            torch.testing.assert_close(change, (more * pulled).sum(-1), rtol=30 * size, atol=30 * size)


def test_small_direct_effects_of_all_heads_sum_to_that_of_their_sum() -> None:
    """Sum rule: with twins that are nearly the clean run, effects through the norm add up over heads."""
    model, (clean, corrupt) = shaken(tiny_gpt2).double(), task(padding=None)
    # Tokens whose embeddings are a thousandth of the way from the clean to the corrupted ones.
    words = model.transformer.wte.weight
    with torch.no_grad():
        for old, new in zip(clean.ids[:, 4].tolist(), corrupt.ids[:, 4].tolist(), strict=True):
            words[new] = words[old] + 1e-3 * (words[new] - words[old])
    effects = path_effects(model, clean, corrupt, Receiver("logits"), freeze_mlps=True, min_gap=None)
    total = (effects.patched - effects.clean[:, None, None]).sum((1, 2))
    sites = [Site("heads", layer) for layer in range(LAYERS)]
    seen = {}
    for name, side in (("clean", clean), ("corrupt", corrupt)):
        with torch.no_grad(), record(model, [*sites, Site("residual", 2)], positions="last") as seen[name]:
            model(**side.inputs(model))
    decoder = Decoder(model)
    with torch.no_grad():
        write = sum(
            decoder.attention_write(layer, seen["corrupt"][site]) - decoder.attention_write(layer, seen["clean"][site])
            for layer, site in enumerate(sites)
        )
        logits = decoder.final_norm(seen["clean"][Site("residual", 2)] + write) @ decoder.unembedding.mT
    together = logit_difference(logits, clean) - effects.clean
    torch.testing.assert_close(total, together, rtol=2e-2, atol=1e-7)
    assert together.abs().min() > 1e-5


def test_effects_are_one_when_the_sender_carries_all_and_zero_for_equal_twins() -> None:
    """A one-head, one-layer model: its head is the only way from the other tokens to the last one."""
    torch.manual_seed(0)
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=24, n_layer=1, n_head=1, n_positions=64, **tokens)).eval()
    clean, corrupt = task()
    effect = path_patch(model, clean, corrupt, Receiver("logits"), min_gap=None)
    torch.testing.assert_close(effect, torch.ones(1, 1), rtol=1e-4, atol=1e-4)
    numbers = path_effects(model, clean, corrupt, Receiver("logits"), min_gap=None)
    torch.testing.assert_close(numbers.patched[:, 0, 0], numbers.corrupt, rtol=1e-4, atol=1e-5)


def test_scaling_the_logits_leaves_effects(decoder_model: nn.Module) -> None:
    pair = task()
    before = path_patch(decoder_model, *pair, [Receiver(2, 0, "q")], min_gap=None)
    tripled = path_patch(
        decoder_model,
        *pair,
        [Receiver(2, 0, "q")],
        metric=lambda logits, batch: 3 * logit_difference(logits, batch),
        min_gap=None,
    )
    torch.testing.assert_close(before, tripled, rtol=1e-3, atol=1e-4)


def test_pairs_that_the_corruption_hardly_moves_are_dropped_and_counted(decoder_model: nn.Module) -> None:
    clean, corrupt = task(prompts=6)
    effects = path_effects(decoder_model, clean, corrupt, Receiver("logits"), min_gap=None)
    gaps = effects.clean - effects.corrupt
    threshold = float(gaps.sort().values[3])
    fewer = path_effects(decoder_model, clean, corrupt, Receiver("logits"), min_gap=threshold)
    assert fewer.dropped == 3
    kept = gaps >= threshold
    torch.testing.assert_close(
        fewer.effect,
        path_patch(decoder_model, clean[kept], corrupt[kept], Receiver("logits"), min_gap=None),
        rtol=1e-3,
        atol=1e-4,
    )
    with pytest.raises(ValueError, match="no pair counts: the corruption lowers the metric by"):
        path_patch(decoder_model, clean, corrupt, Receiver("logits"), min_gap=1e6)


def test_the_model_is_left_as_it_was(decoder_model: nn.Module) -> None:
    clean, corrupt = task()
    before = decoder_model(**clean.inputs(decoder_model)).logits
    path_patch(decoder_model, clean, corrupt, [Receiver(2, 0, "v")], positions="s", min_gap=None)
    assert torch.equal(decoder_model(**clean.inputs(decoder_model)).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder_model.modules())


def test_half_precision(decoder_model: nn.Module) -> None:
    pair = task()
    full = path_patch(decoder_model, *pair, Receiver("logits"), min_gap=None)
    half = path_patch(decoder_model.bfloat16(), *pair, Receiver("logits"), min_gap=None)
    assert half.dtype == torch.float32
    assert torch.corrcoef(torch.stack([full.flatten(), half.flatten()]))[0, 1] > 0.95


def test_parallel_layers_are_carried_too() -> None:
    """Attention and MLP side by side: the direct path of a head passes the MLPs of the layers after its own."""
    model, pair = shaken(pythia), task()
    frozen = path_patch(model, *pair, Receiver("logits"), freeze_mlps=True, min_gap=None)
    free = path_patch(model, *pair, Receiver("logits"), min_gap=None)
    torch.testing.assert_close(frozen[2], free[2], rtol=1e-4, atol=1e-5)
    assert (frozen[:2] - free[:2]).abs().max() > 1e-3


# Agreement with the official function

OFFICIAL = json.loads((Path(__file__).parent / "circuit_reuse_official.json").read_text())


def formula_gpt2(config: dict[str, int]) -> GPT2LMHeadModel:
    """Weights 0.5 sin(k + 1.7 i + i^2 / 7) for the i-th entry of the k-th parameter: the same on every machine."""
    model = GPT2LMHeadModel(GPT2Config(**config)).eval()
    with torch.no_grad():
        for k, (_, parameter) in enumerate(sorted(model.named_parameters())):
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            values = 0.5 * torch.sin(k + 1.7 * index + index.square() / 7)
            parameter.copy_(values.reshape(parameter.shape).float())
            if parameter.ndim == 1:
                parameter.add_(0.5)
    return model


@pytest.mark.parametrize("number", range(len(OFFICIAL["tables"])))
def test_tables_of_the_official_function(number: int) -> None:
    """Recorded from the official code; the fixture says how."""
    recorded = OFFICIAL["tables"][number]
    clean, corrupt, answers = (torch.tensor(OFFICIAL[name]) for name in ("clean", "corrupt", "answers"))
    place = torch.full((len(clean),), recorded["position"] % clean.shape[1])
    batches = [Batch(ids, torch.ones_like(ids), *answers.mT, {"place": place}) for ids in (clean, corrupt)]
    receivers = [
        Receiver("logits") if layer == "logits" else Receiver(layer, head, recorded["component"])
        for layer, head in recorded["receivers"]
    ]
    ours = path_patch(
        formula_gpt2(OFFICIAL["config"]).double(),
        *batches,
        receivers,
        positions="place",
        freeze_mlps=recorded["freeze_mlps"],
        min_gap=None,
    )
    table = torch.tensor(recorded["table"])
    torch.testing.assert_close(ours.float(), table, rtol=1e-5, atol=1e-7)
    assert table.abs().max() > 1e-3


# Bad input


def test_receivers_are_checked() -> None:
    for wrong in (lambda: Receiver(1, 2, "x"), lambda: Receiver(1, 2), lambda: Receiver("mlp")):
        with pytest.raises(ValueError, match="allowed are q, k, v, z, logits"):
            wrong()
    with pytest.raises(ValueError, match="needs a head"):
        Receiver(1, component="q")
    with pytest.raises(ValueError, match="takes no head"):
        Receiver("logits", 1)
    assert str(Receiver(2, 1, "k")) == "k of 2.1"
    assert Receiver("logits") == Receiver("logits")


def test_bad_input_is_refused_at_the_door() -> None:
    model, (clean, corrupt) = shaken(tiny_llama), task()
    with pytest.raises(ValueError, match=r"no path: no sender is in a layer below the receivers \(q of 0.1\)"):
        path_patch(model, clean, corrupt, Receiver(0, 1, "q"))
    with pytest.raises(ValueError, match="no path"):
        path_patch(model, clean, corrupt, Receiver(1, 1, "q"), [(1, 0), (2, 2)])
    with pytest.raises(ValueError, match="no path: the logits are read at the end"):
        path_patch(model, clean, corrupt, Receiver("logits"), positions="s")
    with pytest.raises(ValueError, match="reads key-value head 1"):
        path_patch(model, clean, corrupt, Receiver(1, 3, "v"))
    with pytest.raises(IndexError, match="out of range"):
        path_patch(model, clean, corrupt, Receiver(1, 4, "v"))
    with pytest.raises(IndexError, match="out of range"):
        path_patch(model, clean, corrupt, Receiver(3, 1, "q"))
    with pytest.raises(IndexError, match="out of range"):
        path_patch(model, clean, corrupt, Receiver("logits"), [(0, 4)])
    with pytest.raises(ValueError, match="receivers is empty"):
        path_patch(model, clean, corrupt, [])
    with pytest.raises(ValueError, match="stands alone"):
        path_patch(model, clean, corrupt, [Receiver("logits"), Receiver(1, 0, "q")])
    with pytest.raises(ValueError, match="allowed are 'all', 'reachable'"):
        path_patch(model, clean, corrupt, Receiver("logits"), "some")
    with pytest.raises(ValueError, match="the roles of this batch are end, s, after"):
        path_patch(model, clean, corrupt, Receiver(1, 0, "q"), positions="io")
    with pytest.raises(ValueError, match="batch_size and tokens must be positive"):
        path_patch(model, clean, corrupt, Receiver("logits"), tokens=0)
    with pytest.raises(ValueError, match="model is in training mode"):
        path_patch(model.train(), clean, corrupt, Receiver("logits"))


def test_a_model_that_cannot_be_taken_up_again_is_refused() -> None:
    class Louder(GPT2LMHeadModel):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 1.5
            return output

    torch.manual_seed(0)
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    model = Louder(GPT2Config(vocab_size=40, n_embd=24, n_layer=1, n_head=2, n_positions=64, **tokens)).eval()
    with pytest.raises(ValueError, match="the logits of Louder are not its unembedding of its final norm"):
        path_patch(model, *task(), Receiver("logits"), min_gap=None)


def test_gemma3_has_one_key_value_head() -> None:
    with pytest.raises(ValueError, match="shares 1 key-value heads among 4 query heads"):
        path_patch(shaken(tiny_gemma3), *task(), Receiver(1, 2, "k"))
    assert str(Head(3, 1)) == "3.1"
