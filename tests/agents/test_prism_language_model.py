"""Causal language models as the source of both probabilities, on tiny models with random weights."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from interplay.agents.prism import CostGate, DualProcessGate, GateAlignedLoss, VerbalisedSlots, hf_pair_head

WORDS = ["<unk>", "open", "build", "failed", "search", "docs", "idle", "need", "accept", "yes", "no", "?", "perhaps"]
TEXTS = ["open build failed", "idle", "search docs search docs search docs failed", "open docs"]
SLOTS = VerbalisedSlots(" need ?", " accept ?", {"yes": 1.0, "no": 0.0, "perhaps": 0.5})
SIZE = {"vocab_size": len(WORDS), "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}


def tokenizer(side="right"):
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", padding_side=side)


def model_of(name):
    torch.manual_seed(0)
    if name == "gpt2":
        config = GPT2Config(
            vocab_size=len(WORDS), n_embd=16, n_head=2, n_layer=2, n_positions=32, initializer_range=0.5
        )
        return GPT2LMHeadModel(config).eval()
    if name == "bloom":  # has no positions to be told
        return BloomForCausalLM(BloomConfig(vocab_size=len(WORDS), hidden_size=16, n_head=2, n_layer=2)).eval()
    if name == "gemma3":
        config = Gemma3TextConfig(
            **SIZE, intermediate_size=32, num_key_value_heads=1, head_dim=8, pad_token_id=0, initializer_range=0.5
        )
        return Gemma3ForCausalLM(config).eval()
    config = LlamaConfig(**SIZE, intermediate_size=32, max_position_embeddings=64, initializer_range=0.5)
    return LlamaForCausalLM(config).eval()


def linear(seed=1, dtype=torch.float32):
    torch.manual_seed(seed)
    return nn.Linear(16, 2, dtype=dtype)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "bloom"])
def test_words_are_read_as_the_model_itself_would_say_them_next(name):
    model, words = model_of(name), tokenizer()
    with torch.no_grad():
        pair = hf_pair_head(model, words, SLOTS, batch_size=3)(TEXTS)
        for p, question in zip(pair, ("need ?", "accept ?"), strict=True):
            for index, text in enumerate(TEXTS):
                ids = torch.tensor([[WORDS.index(word) for word in f"{text} {question}".split()]])
                chances = model(ids).logits[0, -1].softmax(-1)
                yes, no, perhaps = (chances[WORDS.index(word)] for word in ("yes", "no", "perhaps"))
                assert p[index].item() == pytest.approx(((yes + perhaps / 2) / (yes + no + perhaps)).item(), abs=1e-5)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma3", "bloom"])
def test_the_linear_head_reads_the_last_hidden_state_of_each_text_alone(name):
    model, head = model_of(name), linear()
    with torch.no_grad():
        p_need, p_acc = hf_pair_head(model, tokenizer(), head)(TEXTS)
        for index, text in enumerate(TEXTS):
            ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
            hidden = model(ids, output_hidden_states=True).hidden_states[-1][0, -1]
            expected = torch.sigmoid(head(hidden))
            assert torch.allclose(torch.stack([p_need[index], p_acc[index]]), expected, atol=1e-5)


@pytest.mark.parametrize("schema", [SLOTS, linear()], ids=["words", "head"])
def test_neither_batches_nor_padding_sides_matter(schema):
    model = model_of("gpt2")
    with torch.no_grad():
        whole = torch.stack(hf_pair_head(model, tokenizer("left"), schema)(TEXTS * 3))
        single = torch.stack(hf_pair_head(model, tokenizer("right"), schema, batch_size=1)(TEXTS * 3))
        turned = torch.stack(hf_pair_head(model, tokenizer(), schema, batch_size=5)((TEXTS * 3)[::-1]))
    assert torch.allclose(whole, single, atol=1e-5)
    assert torch.allclose(whole, turned.flip(1), atol=1e-5)
    assert whole.shape == (2, 12)
    assert whole[:, :4].unique().numel() == 8, "texts are told apart"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_give_probabilities_of_full_width(dtype):
    exact = hf_pair_head(model_of("llama"), tokenizer(), SLOTS)(TEXTS)
    reader = hf_pair_head(model_of("llama").to(dtype), tokenizer(), SLOTS)
    with torch.no_grad():
        for p, expected in zip(reader(TEXTS), exact, strict=True):
            assert p.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
            assert torch.allclose(p.double(), expected.double(), atol=0.05 if dtype is torch.bfloat16 else 1e-5)
        mixed = hf_pair_head(model_of("llama").to(dtype), tokenizer(), linear(dtype=torch.float32))
        assert mixed(TEXTS)[0].dtype == torch.float32


def test_ten_digits_spell_a_probability():
    digits = VerbalisedSlots(" need", " accept", {word: k / 10 for k, word in enumerate(WORDS[1:11])})
    p_need, p_acc = hf_pair_head(model_of("gpt2"), tokenizer(), digits)(TEXTS)
    assert ((p_need > 0) & (p_need < 0.9)).all()
    assert not torch.equal(p_need, p_acc)


def test_the_oldest_events_are_left_out_where_the_text_is_too_long():
    reader = hf_pair_head(model_of("gpt2"), tokenizer(), SLOTS, max_tokens=4)
    assert torch.allclose(reader(["idle idle idle open docs"])[0], reader(["open docs"])[0], atol=1e-6)
    assert hf_pair_head(model_of("gpt2"), tokenizer(), SLOTS).max_tokens == 32


def test_a_head_learns_and_then_serves_in_the_gate():
    model, words = model_of("llama"), tokenizer()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[1:7], size=rng.integers(1, 6))) + " " + end for end in ["failed", "idle"] * 40]
    needed = torch.tensor([1.0, 0.0] * 40)
    reader = hf_pair_head(model, words, nn.Linear(16, 2))
    with torch.no_grad():
        features = reader.features(texts)
    loss = GateAlignedLoss(CostGate(1.0, 2.0))
    optimizer = torch.optim.Adam(reader.head.parameters(), lr=0.05)
    everyone = torch.ones(80)
    for _ in range(200):
        optimizer.zero_grad()
        p_need, p_acc = torch.sigmoid(reader.head(features)).unbind(-1)
        loss(p_need, p_acc, needed, needed, everyone, everyone)["loss"].backward()
        optimizer.step()
    decision = DualProcessGate(CostGate(1.0, 2.0), fast=reader, delta_slow=0)(texts)
    assert (decision.speak == needed.bool()).float().mean() > 0.95
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_reach_the_model_where_it_is_trained_end_to_end():
    reader = hf_pair_head(model_of("gpt2"), tokenizer(), linear()).train()
    p_need, p_acc = reader(TEXTS)
    (p_need.sum() + p_acc.sum()).backward()
    body = reader.model.base_model
    assert all(parameter.grad is not None for parameter in body.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hf_pair_head(model_of("gpt2"), tokenizer(), "p_need"), TypeError, "schema must be VerbalisedSlots"),
        (lambda: hf_pair_head(model_of("gpt2"), tokenizer(), SLOTS)("one text"), TypeError, "list of strings"),
        (lambda: hf_pair_head(model_of("gpt2"), tokenizer(), SLOTS)([]), ValueError, "one text or more"),
        (
            lambda: hf_pair_head(model_of("gpt2"), tokenizer(), linear())(["idle", ""]),
            ValueError,
            "text 1 has no token",
        ),
        (lambda: hf_pair_head(model_of("gpt2"), tokenizer(), nn.Linear(16, 3))(TEXTS), ValueError, "two logits"),
        (lambda: hf_pair_head(model_of("gpt2"), tokenizer(), SLOTS, batch_size=0), ValueError, "batch_size must be 1"),
        (lambda: hf_pair_head(model_of("gpt2"), tokenizer(), SLOTS, max_tokens=0), ValueError, "max_tokens must be 1"),
        (
            lambda: hf_pair_head(model_of("gpt2"), tokenizer(), VerbalisedSlots(answers={"sure": 1.0, "never": 0.0})),
            ValueError,
            "begin with different tokens",
        ),
        (lambda: VerbalisedSlots(answers={"yes": 1.0}), ValueError, "two or more"),
        (lambda: VerbalisedSlots(answers={"yes": 1.0, "no": -1.0}), ValueError, r"in \[0, 1\]; got -1.0 for 'no'"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
