"""Sites, recordings, edits and patches on tiny random decoders of every layout, and on plain modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipVisionConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from interplay.primitives.activations import PER_HEAD, Site, edit, patch, record
from interplay.primitives.decoders import Decoder

LAYERS, HEADS, WIDTH, MODEL, FEED_FORWARD, VOCABULARY = 3, 4, 6, 20, 28, 50
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": MODEL,
    "intermediate_size": FEED_FORWARD,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "head_dim": WIDTH,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


def llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def qwen2() -> nn.Module:
    return Qwen2ForCausalLM(Qwen2Config(**{**SHAPE, "hidden_size": 24, "num_key_value_heads": 1}))


def qwen3() -> nn.Module:
    return Qwen3ForCausalLM(Qwen3Config(**SHAPE))


def gemma3() -> nn.Module:
    config = Gemma3TextConfig(**{**SHAPE, "num_key_value_heads": 1}, sliding_window=8, query_pre_attn_scalar=WIDTH)
    return Gemma3ForCausalLM(config)


def gpt2() -> nn.Module:
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=24, n_layer=LAYERS, n_head=HEADS, n_inner=FEED_FORWARD, n_positions=64, **tokens
    )
    return GPT2LMHeadModel(config)


def pythia() -> nn.Module:
    shape = {name: value for name, value in SHAPE.items() if name not in {"num_key_value_heads", "head_dim"}}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**{**shape, "hidden_size": 24}))


def phi3() -> nn.Module:
    return Phi3ForCausalLM(Phi3Config(**{**SHAPE, "hidden_size": 24}))


DECODERS = {make.__name__: make for make in (gpt2, llama, gemma3, qwen2, qwen3, pythia, phi3)}


@pytest.fixture(params=DECODERS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    built = DECODERS[request.param]().eval()
    for (
        parameter
    ) in built.parameters():  # norms and biases start at ones and zeros, where a wrong site could pass unseen
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module, ids: torch.Tensor, **kwargs: object) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, **kwargs).logits


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def every_site() -> list[Site]:
    layered = [Site(kind, layer) for kind in ("residual", *PER_HEAD, "neurons") for layer in range(LAYERS)]
    return [*layered, Site("embedding"), Site("heads", 1, 2), Site("module", path="lm_head")]


def test_residual_is_the_hidden_states_that_transformers_reports(model: nn.Module, ids: torch.Tensor) -> None:
    sites = [Site("embedding"), *(Site("residual", layer) for layer in range(LAYERS - 1))]
    with record(model, sites) as seen, torch.no_grad():
        output = model(input_ids=ids, output_hidden_states=True)
    for site, state in zip(sites, output.hidden_states[:LAYERS], strict=True):
        assert torch.equal(seen[site], state)


def test_final_norm_and_unembedding_turn_the_last_residual_into_logits(model: nn.Module, ids: torch.Tensor) -> None:
    decoder = Decoder(model)
    with record(model, [Site("residual", LAYERS - 1)]) as seen:
        expected = logits(model, ids)
    normed = decoder.final_norm(seen[Site("residual", LAYERS - 1)]).detach()
    torch.testing.assert_close(normed @ decoder.unembedding.mT, expected, rtol=1e-5, atol=1e-5)


def test_heads_times_their_rows_of_the_output_weight_are_what_attention_writes(
    model: nn.Module, ids: torch.Tensor
) -> None:
    decoder = Decoder(model)
    for layer in range(LAYERS):
        path = next(name for name, module in model.named_modules() if module is decoder.attention_output(layer))
        z, written = Site("heads", layer), Site("module", path=path)
        with record(model, [z, written]) as seen:
            logits(model, ids)
        assert seen[z].shape == (3, 7, HEADS, 6)
        weight = decoder.output_weight(layer).unflatten(0, (HEADS, 6))
        by_head = torch.einsum("bthw,hwd->bthd", seen[z], weight)
        bias = decoder.attention_output(layer).bias
        total = by_head.sum(2) + (0 if bias is None else bias)
        torch.testing.assert_close(total, seen[written], rtol=1e-4, atol=1e-6)


def test_heads_are_query_heads_not_shared_values(ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = gemma3().eval()  # four query heads on one key-value head
    with record(model, [Site("heads", 1)]) as before:
        logits(model, ids)
    with edit(model, {Site("heads", 1, 2): torch.zeros_like}), record(model, [Site("heads", 1)]) as after:
        logits(model, ids)
    kept = [0, 1, 3]
    assert torch.equal(before[Site("heads", 1)][:, :, kept], after[Site("heads", 1)][:, :, kept])
    assert not after[Site("heads", 1)][:, :, 2].any()
    assert before[Site("heads", 1)][:, :, 2].any()


@pytest.mark.parametrize("head", range(HEADS))
def test_a_head_without_query_attends_evenly_to_its_values(model: nn.Module, ids: torch.Tensor, head: int) -> None:
    shared = head * Decoder(model).n_kv_heads // HEADS
    z, values = Site("heads", 1), Site("values", 1, shared)
    with record(model, [z, values]) as before:
        logits(model, ids)
    steps = torch.arange(1, 8)[:, None]
    running_mean = before[values].cumsum(1) / steps
    with edit(model, {Site("queries", 1, head): torch.zeros_like}), record(model, [z]) as after:
        logits(model, ids)
    torch.testing.assert_close(after[z][:, :, head], running_mean, rtol=1e-4, atol=1e-6)
    others = [other for other in range(HEADS) if other != head]
    assert torch.equal(after[z][:, :, others], before[z][:, :, others])
    with edit(model, {Site("keys", 1, shared): torch.zeros_like}), record(model, [z]) as after:
        logits(model, ids)
    torch.testing.assert_close(after[z][:, :, head], running_mean, rtol=1e-4, atol=1e-6)
    with edit(model, {Site("values", 1, shared): torch.zeros_like}), record(model, [z]) as after:
        logits(model, ids)
    assert not after[z][:, :, head].any()
    outside = [other for other in range(HEADS) if other * Decoder(model).n_kv_heads // HEADS != shared]
    assert torch.equal(after[z][:, :, outside], before[z][:, :, outside])


def test_a_key_or_value_head_beyond_the_shared_ones_is_refused_by_name(ids: torch.Tensor) -> None:
    model = llama().eval()  # four query heads on two key-value heads
    for kind in ("keys", "values"):
        with (
            pytest.raises(IndexError, match=f"the {kind} of head 3: .* query head 3 reads key-value head 1"),
            record(model, [Site(kind, 0, 3)]),
        ):
            pass


def test_edits_that_change_nothing_leave_the_logits_bit_identical(model: nn.Module, ids: torch.Tensor) -> None:
    expected = logits(model, ids)
    nothing = [lambda activation: activation, lambda activation: None, lambda activation: activation * 1.0]
    for function in nothing:
        for positions in ("all", "last", 2, slice(1, 4), torch.tensor([0, 3, 6])):
            with edit(model, dict.fromkeys(every_site(), function), positions=positions):
                assert torch.equal(logits(model, ids), expected)
    with edit(model, {}) as applied:
        assert hooks(model) == 0
        assert applied == {}


def test_every_edit_reaches_the_logits_and_leaves_no_trace(model: nn.Module, ids: torch.Tensor) -> None:
    expected = logits(model, ids)
    for site in every_site():
        with edit(model, {site: lambda activation: 2 * activation.roll(1, -1)}) as applied:
            assert not torch.allclose(logits(model, ids), expected)
        assert applied[site] == ids.numel()
        assert hooks(model) == 0
    assert torch.equal(logits(model, ids), expected)


def test_hooks_are_removed_when_the_body_the_forward_or_the_entry_fails(model: nn.Module, ids: torch.Tensor) -> None:
    expected = logits(model, ids)
    with pytest.raises(RuntimeError, match="in the body"), edit(model, dict.fromkeys(every_site(), torch.zeros_like)):
        raise RuntimeError("in the body")
    with (
        pytest.raises(ValueError, match=r"heads 1 2 must return .* \[3, 7, 6\]"),
        edit(model, {Site("heads", 1, 2): lambda z: z[:, :1]}),
    ):
        logits(model, ids)
    with pytest.raises(IndexError, match="3 layers x 4"), record(model, [Site("residual", 0), Site("residual", 3)]):
        pass
    assert hooks(model) == 0
    assert torch.equal(logits(model, ids), expected)


def test_an_edit_at_positions_changes_exactly_these(model: nn.Module, ids: torch.Tensor) -> None:
    site = Site("heads", 0, 1)
    rows, columns = range(3), range(7)
    chosen = [
        (2, [(row, 2) for row in rows]),
        ("last", [(row, 6) for row in rows]),
        ("prompt", [(row, column) for row in rows for column in columns]),
        ("prompt-end", [(row, 6) for row in rows]),
        ("generated", []),
        (slice(1, None, 2), [(row, column) for row in rows for column in (1, 3, 5)]),
        (torch.tensor([0, 3, 6]), [(0, 0), (1, 3), (2, 6)]),
        (torch.arange(21).reshape(3, 7) % 5 == 0, [(index // 7, index % 7) for index in range(0, 21, 5)]),
    ]
    with record(model, [site]) as before:
        logits(model, ids)
    for positions, cells in chosen:
        with edit(model, {site: lambda z: -2 * z}, positions=positions) as applied, record(model, [site]) as after:
            logits(model, ids)
        expected = before[site].clone()
        for row, column in cells:
            expected[row, column] *= -2
        assert torch.equal(after[site], expected)
        assert applied[site] == len(cells)


def test_recorded_positions_are_the_ones_asked_for(model: nn.Module, ids: torch.Tensor) -> None:
    site = Site("residual", 1)
    with record(model, [site]) as whole:
        logits(model, ids)
    mask = torch.arange(21).reshape(3, 7) % 5 == 0
    for positions, expected in (
        ("last", whole[site][:, -1]),
        (4, whole[site][:, 4]),
        (slice(2, 5), whole[site][:, 2:5]),
        (torch.tensor([6, 0, 2]), whole[site][[0, 1, 2], [6, 0, 2]]),
        (mask, whole[site][mask]),
    ):
        with record(model, [site], positions=positions) as seen:
            logits(model, ids)
        assert torch.equal(seen[site], expected)


def test_last_is_the_last_unpadded_position_on_either_side(model: nn.Module, ids: torch.Tensor) -> None:
    site = Site("residual", 1)
    right = torch.ones_like(ids)
    right[0, 5:] = 0
    for mask, columns in ((right, [4, 6, 6]), (right.flip(-1), [6, 6, 6])):
        with record(model, [site], positions="last") as seen, record(model, [site]) as whole:
            logits(model, ids, attention_mask=mask)
        assert torch.equal(seen[site], whole[site][[0, 1, 2], columns])


def test_a_patch_carries_one_run_into_another(model: nn.Module, ids: torch.Tensor) -> None:
    other = (ids + 7) % VOCABULARY
    site = Site("residual", 1)
    with record(model, [site]) as source:
        expected = logits(model, other)
    with patch(model, {site: source[site]}):
        assert torch.equal(logits(model, ids), expected)
    with (
        pytest.raises(ValueError, match=r"patch of residual 1 has shape \[2, 7"),
        patch(model, {site: source[site][:2]}),
    ):
        logits(model, ids)


def test_generation_with_cache_equals_the_full_forward_at_absolute_positions(
    model: nn.Module, ids: torch.Tensor
) -> None:
    """Teacher-forcing the generated tokens through one uncached, edited forward must predict the same tokens."""
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    ids = ids * mask
    for positions in ("all", "prompt", "generated", slice(5, 9), 8):
        edits = {Site("heads", 1, 3): lambda z: -4 * z, Site("neurons", 0): lambda a: 3 * a}
        with edit(model, edits, positions=positions) as applied:
            text = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=5, min_new_tokens=5, do_sample=False
            )
        per_row = {"all": 11, "prompt": 7, "generated": 4, 8: 1}.get(
            positions if isinstance(positions, str | int) else "", 4
        )
        assert set(applied.values()) == {3 * per_row}
        full_mask = torch.cat([mask, torch.ones(3, 5, dtype=mask.dtype)], 1)
        columns = slice(7, None) if positions == "generated" else slice(7) if positions == "prompt" else positions
        with edit(model, edits, positions=columns):
            places = (full_mask.cumsum(-1) - 1).clamp(min=0)
            forced = logits(model, text, attention_mask=full_mask, position_ids=places)
        assert torch.equal(forced[:, 6:-1].argmax(-1), text[:, 7:])


def test_a_recording_lists_the_passes_of_a_generation(model: nn.Module, ids: torch.Tensor) -> None:
    site = Site("residual", 0)
    with record(model, [site]) as seen:
        model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, min_new_tokens=3, do_sample=False
        )
    assert [tuple(part.shape[:2]) for part in seen.passes(site)] == [(3, 7), (3, 1), (3, 1)]
    with record(model, [site], positions="last") as batches:
        logits(model, ids)
        logits(model, ids[:2, :4])
    assert batches[site].shape[0] == 5


def test_stop_skips_what_lies_behind_and_leaves_the_model_whole(model: nn.Module, ids: torch.Tensor) -> None:
    expected = logits(model, ids)
    ran = []
    handle = Decoder(model).layer(1).register_forward_hook(lambda *_: ran.append(1))
    with record(model, [Site("residual", 0), Site("heads", 0)], stop=True) as seen:
        logits(model, ids)
        pytest.fail("the forward pass went on")
    handle.remove()
    assert not ran
    assert seen[Site("residual", 0)].shape[:2] == (3, 7)
    assert hooks(model) == 0
    assert torch.equal(logits(model, ids), expected)


def test_gradients_flow_through_edits_and_recordings(model: nn.Module, ids: torch.Tensor) -> None:
    gain = torch.ones((), requires_grad=True)
    site = Site("heads", 0, 1)
    for positions in ("all", "last"):
        with edit(model, {site: lambda z: gain * z}, positions=positions), record(model, [site], detach=False) as seen:
            model(input_ids=ids).logits.sum().backward()
        assert seen[site].requires_grad
        assert gain.grad is not None
        assert gain.grad.abs() > 0


def test_replacements_take_the_model_s_dtype(ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = llama().to(torch.bfloat16).eval()
    for positions in ("all", "last"):
        with edit(model, {Site("residual", 1): lambda h: h.float() + 1.0}, positions=positions):
            assert logits(model, ids).dtype == torch.bfloat16


def test_half_precision_generation_keeps_its_bits_under_edits_that_change_nothing(ids: torch.Tensor) -> None:
    torch.manual_seed(0)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    for make in (llama, gemma3, gpt2):
        model = make().to(torch.bfloat16).eval()
        options = {"attention_mask": mask, "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
        options |= {"output_logits": True, "return_dict_in_generate": True}
        plain = model.generate(input_ids=ids * mask, **options)
        with edit(model, dict.fromkeys(every_site(), lambda activation: activation * 1.0)):
            edited = model.generate(input_ids=ids * mask, **options)
        assert all(torch.equal(one, other) for one, other in zip(plain.logits, edited.logits, strict=True))


def test_a_multimodal_model_s_decoder_is_its_language_model(ids: torch.Tensor) -> None:
    vision = SiglipVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4
    )
    text = Gemma3TextConfig(**{**SHAPE, "num_key_value_heads": 1}, sliding_window=8)
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    ).eval()
    decoder = Decoder(model)
    assert (decoder.n_layers, decoder.n_heads, decoder.d_model) == (LAYERS, HEADS, MODEL)
    with record(model, [Site("heads", 2)]) as seen:
        logits(model, ids)
    assert seen[Site("heads", 2)].shape == (3, 7, HEADS, WIDTH)


def test_nested_contexts_see_each_other_in_the_order_of_entry(model: nn.Module, ids: torch.Tensor) -> None:
    site = Site("residual", 0)
    with record(model, [site]) as before, edit(model, {site: lambda h: 2 * h}), record(model, [site]) as after:
        logits(model, ids)
    assert torch.equal(after[site], 2 * before[site])


def test_plain_modules_by_path() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 3)))
    x = torch.randn(2, 4)
    expected = model(x)
    hidden, last = Site("module", path="1"), Site("module", path="2.0")
    with record(model, [hidden, last]) as seen:
        model(x)
    assert torch.equal(seen[hidden], torch.relu(model[0](x)))
    assert torch.equal(seen[last], expected)
    with edit(model, {hidden: torch.zeros_like}):
        assert torch.equal(model(x), model[2][0].bias.expand(2, 3))
    with (
        pytest.raises(ValueError, match=r"no module at '2.1'; '2' holds 0"),
        record(model, [Site("module", path="2.1")]),
    ):
        pass
    with pytest.raises(ValueError, match="positions need an activation"), record(model, [hidden], positions="last"):
        model(x)
    with pytest.raises(ValueError, match=r"looked for a ModuleList next to an embedding .* found the ModuleLists none"):
        Decoder(model)


def test_tuples_keep_their_other_parts() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": nn.LSTM(3, 4, batch_first=True)})
    x = torch.randn(2, 5, 3)
    with edit(model, {Site("module", path="rnn"): torch.zeros_like}, positions=2):
        output, (hidden, cell) = model["rnn"](x)
    assert not output[:, 2].any()
    assert output[:, 3].any()
    assert hidden.shape == cell.shape == (1, 2, 4)


def test_bad_input_is_refused_at_the_door(model: nn.Module) -> None:
    with (
        pytest.raises(
            IndexError, match="head \\(layer 1, head 4\\) is out of range: the model has 3 layers x 4 query heads"
        ),
        edit(model, {Site("heads", 1, 4): torch.zeros_like}),
    ):
        pass
    for positions in (
        -1,
        "end",
        slice(-3, None),
        1.5,
        True,
        torch.tensor([-1]),
        torch.tensor([0.5]),
        torch.zeros(2, 2).long(),
    ):
        with (
            pytest.raises(ValueError, match="allowed are all, last, prompt, prompt-end, generated"),
            record(model, [Site("residual", 0)], positions=positions),
        ):
            pass
    with (
        pytest.raises(ValueError, match="2 rows, the batch has 3"),
        record(model, [Site("residual", 0)], positions=torch.tensor([0, 1])),
    ):
        logits(model, torch.ones(3, 4, dtype=torch.long))
    with record(model, [Site("residual", 0)]) as seen:
        pass
    with pytest.raises(LookupError, match="nothing was seen at residual 0"):
        seen[Site("residual", 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "attention"}, "unknown kind"),
        ({"kind": "residual"}, "need a layer"),
        ({"kind": "module"}, "module needs a path"),
        ({"kind": "residual", "layer": 1, "path": "x"}, "neither goes"),
        ({"kind": "neurons", "layer": 1, "head": 2}, "only sites of kind heads"),
    ],
)
def test_malformed_sites(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Site(**arguments)


def test_models_that_cannot_be_hooked() -> None:
    encoder_decoder = T5ForConditionalGeneration(
        T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=10)
    )
    with pytest.raises(TypeError, match="encoder-decoder"):
        Decoder(encoder_decoder)
    with torch.device("meta"):
        empty = llama()
    with pytest.raises(ValueError, match="meta device"), record(empty, [Site("residual", 0)]):
        pass
