"""Tiny random decoders and a closed word tokenizer, made here: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
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

WORDS = (
    "the capital of is . Q : what ? A Norway Peru Chad Fiji Oslo Lima Ndjamena Suva Basel Porto Osaka sure New Delhi"
)


@pytest.fixture(scope="session")
def word_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(WORDS.split())


def make_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<bos>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


SHAPE = {
    "vocab_size": 40,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


def tiny_llama() -> nn.Module:
    return LlamaForCausalLM(LlamaConfig(**SHAPE))


def tiny_gemma3() -> nn.Module:
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**SHAPE, "num_key_value_heads": 1}, sliding_window=16))


def tiny_gpt2() -> nn.Module:
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=24, n_layer=3, n_head=4, n_positions=64, **tokens))


def shaken(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    """A random model whose norms and biases are not at their neutral values, where a mistake could pass unseen."""
    torch.manual_seed(seed)
    model = make().eval()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=[tiny_gpt2, tiny_llama, tiny_gemma3], ids=lambda make: make.__name__)
def decoder_model(request: pytest.FixtureRequest) -> nn.Module:
    return shaken(request.param)
