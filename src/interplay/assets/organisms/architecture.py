"""The architectures of the organisms: standard Transformers configurations of a few sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from transformers import GPT2Config, LlamaConfig, MistralConfig, PreTrainedConfig

from interplay.assets.organisms.vocabulary import Vocabulary

__all__ = ["SIZES", "Architecture", "configuration", "described"]


@dataclass(frozen=True)
class Architecture:
    """Shape of a decoder with tied embeddings and as many key-value heads as heads.

    Parameters
    ----------
    family
        "llama" (RMSNorm, rotary positions, gated MLP), "mistral" (the same with a sliding window) or "gpt2" (LayerNorm,
        learned positions, Conv1D projections).
    width
        Of the residual stream.
    layers, heads
        Blocks, and attention heads in each.
    feed_forward
        Width inside the MLP.
    positions
        The longest context.
    window
        A token sees itself and the `window - 1` tokens before it; every earlier token where None.
    """

    family: Literal["llama", "mistral", "gpt2"]
    width: int
    layers: int
    heads: int
    feed_forward: int
    positions: int = 256
    window: int | None = None


SIZES: Mapping[str, Architecture] = MappingProxyType(
    {
        "XS": Architecture("llama", 64, 3, 4, 176),
        "XS-deep": Architecture("llama", 64, 6, 4, 176),
        "XS-deep-local": Architecture("mistral", 64, 6, 4, 176, window=9),
        "S": Architecture("llama", 96, 4, 6, 256),
        "M-": Architecture("llama", 112, 5, 7, 304),
        "M": Architecture("llama", 128, 6, 8, 352),
        "M-gpt2": Architecture("gpt2", 128, 6, 8, 512, positions=96),
    }
)
"""Architectures by the name of their size."""

_INITIAL_SD = 0.02


def configuration(size: str, vocabulary: Vocabulary) -> PreTrainedConfig:
    """The Transformers configuration of one of the `SIZES` for a vocabulary."""
    shape = SIZES[size]
    tokens = {
        "vocab_size": len(vocabulary),
        "pad_token_id": vocabulary.pad_id,
        "bos_token_id": vocabulary.bos_id,
        "eos_token_id": vocabulary.eos_id,
        "tie_word_embeddings": True,
        "initializer_range": _INITIAL_SD,
    }
    if shape.family == "gpt2":
        return GPT2Config(
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.feed_forward,
            n_positions=shape.positions,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **tokens,
        )
    rotary = {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
        "max_position_embeddings": shape.positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rms_norm_eps": 1e-5,
        "attention_dropout": 0.0,
    }
    if shape.family == "mistral":
        return MistralConfig(sliding_window=shape.window, **rotary, **tokens)
    return LlamaConfig(**rotary, **tokens)


def described(size: str, vocabulary: Vocabulary) -> dict[str, Any]:
    """What a card says about the model."""
    shape = SIZES[size]
    facts = {
        "size": size,
        "model_type": shape.family,
        "vocab_size": len(vocabulary),
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.feed_forward,
    }
    return facts if shape.window is None else {**facts, "sliding_window": shape.window}
