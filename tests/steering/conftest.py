"""Tiny random decoders of several layouts with a word tokenizer, for the tests of all steering methods."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WORDS = ["<pad>", "<unk>", *(f"w{index}" for index in range(46)), "good", "bad"]
SHAPE = {
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


class Language(NamedTuple):
    """A model in evaluation mode and its tokenizer."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerFast


def _llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def _gemma() -> nn.Module:
    return Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, sliding_window=8, query_pre_attn_scalar=6))


def _gpt2() -> nn.Module:
    sizes = {"n_embd": 24, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": len(WORDS)}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None, pad_token_id=0))


LAYOUTS = {"llama": _llama, "gemma": _gemma, "gpt2": _gpt2}


def language(layout: str = "llama", seed: int = 0) -> Language:
    """A random model whose weights are large enough for its activations to differ between prompts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LAYOUTS[layout]().eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.3)
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", padding_side="left"
    )
    return Language(model, tokenizer)


@pytest.fixture(params=list(LAYOUTS))
def any_language(request: pytest.FixtureRequest) -> Language:
    return language(request.param)


@pytest.fixture
def llama() -> Language:
    return language()


def prompts(word: str, count: int = 6, seed: int = 0) -> list[str]:
    """Prompts of different lengths that end with a word."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        length = int(torch.randint(2, 9, (), generator=generator))
        body = [f"w{int(index)}" for index in torch.randint(46, (length,), generator=generator)]
        found.append(" ".join([*body, word]))
    return found
