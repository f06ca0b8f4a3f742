"""What an organism must bring so that the shared code can build, load and verify it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from transformers import LlamaConfig, PreTrainedModel

from interplay.assets.organisms.corpus import Corpus
from interplay.assets.organisms.gates import Gate
from interplay.assets.organisms.grammar import Grammar
from interplay.assets.organisms.training import Recipe
from interplay.assets.organisms.vocabulary import Vocabulary

__all__ = ["SIZES", "OrganismKind", "Split", "llama"]

Split = Literal["dev", "test"]

SIZES: Mapping[str, dict[str, int]] = {
    "S": {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 256},
}
"""Architectures by their letter."""


@dataclass(frozen=True)
class OrganismKind:
    """Grammar, text, size, recipe and gates of one organism; every function takes the variant's name.

    Parameters
    ----------
    name
        Its name.
    description
        One line on what it is for.
    variants
        Names of the variants and what distinguishes them.
    size
        A key of `SIZES`.
    grammar
        The ground truth of a seed.
    corpus
        The training text of a grammar.
    recipe
        The schedule.
    measure
        The gates of a model on a split.
    build_minutes
        What one seed takes on two cores, for the messages.
    """

    name: str
    description: str
    variants: Mapping[str, str]
    size: str
    grammar: Callable[[int], Grammar]
    corpus: Callable[[Grammar, str], Corpus]
    recipe: Callable[[str], Recipe]
    measure: Callable[[PreTrainedModel, Grammar, str, Split], list[Gate]]
    build_minutes: float


def llama(size: str, vocabulary: Vocabulary) -> LlamaConfig:
    """Configuration of a Llama of one of the `SIZES`, with tied embeddings and as many key-value heads as heads."""
    shape = SIZES[size]
    return LlamaConfig(
        **shape,
        num_key_value_heads=shape["num_attention_heads"],
        vocab_size=len(vocabulary),
        max_position_embeddings=256,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-5,
        initializer_range=0.02,
        attention_dropout=0.0,
        pad_token_id=vocabulary.pad_id,
        bos_token_id=vocabulary.bos_id,
        eos_token_id=vocabulary.eos_id,
    )
