"""The direction that is added: from the embeddings of refusing and answering words, or from activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Site
from interplay.primitives.decoders import Decoder
from interplay.steering.collection import collect_activations

__all__ = ["ANSWERING", "REFUSING", "DirectionKind", "refusal_direction"]

DirectionKind = Literal["embedding", "unembedding", "activations"]

REFUSING = (
    "I apologize",
    "I'm sorry",
    "I am sorry",
    "I cannot",
    "I can't",
    "I am unable",
    "I'm unable",
    "I must decline",
)
ANSWERING = ("Sure", "Here", "Of course", "Certainly", "I'll", "I can", "Yes", "Absolutely")
"""Openers in English; a model with another vocabulary needs its own."""


def refusal_direction(
    model: nn.Module,
    tokenizer: Any,
    kind: DirectionKind = "embedding",
    *,
    refusing: Sequence[str] = REFUSING,
    answering: Sequence[str] = ANSWERING,
    **options: Any,
) -> Float[Tensor, "..."]:
    """A unit vector that points from answering to refusing.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face causal language model in evaluation mode, and its tokenizer.
    kind
        "embedding": mean input embedding of all tokens of the refusing phrases minus that of the answering ones, as the
        official code has it. "unembedding": the same of the rows of the unembedding. "activations": mean residual
        stream after every layer at the last token of refused prompts minus that of answered ones.
    refusing, answering
        Phrases, or for "activations" prompts, chat template applied.
    **options
        For "activations", those of `collect_activations`.

    Returns
    -------
    Tensor
        [d_model], or [layer, d_model] for "activations"; float32, every row of length 1.

    Raises
    ------
    ValueError
        Unknown kind, no phrase, or the same mean on both sides.
    """
    if kind not in get_args(DirectionKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(DirectionKind))}; got {kind!r}")
    if not refusing or not answering:
        raise ValueError("refusing and answering must each hold one text or more")
    decoder = Decoder(model)
    if kind == "activations":
        sites = [Site("residual", layer) for layer in range(decoder.n_layers)]
        refused, answered = (
            torch.stack([at.mean(0) for at in collect_activations(model, tokenizer, texts, sites, **options).values()])
            for texts in (refusing, answering)
        )
    else:
        embedding: Any = model.get_input_embeddings
        table = embedding().weight if kind == "embedding" else decoder.unembedding
        refused, answered = (
            table.detach()[_tokens(tokenizer, texts)].float().mean(0) for texts in (refusing, answering)
        )
    return unit(refused - answered)


def unit(directions: Float[Tensor, "*layer d_model"]) -> Float[Tensor, "*layer d_model"]:
    """Every row scaled to length 1, in float32.

    Raises
    ------
    ValueError
        A row that is zero or not finite.
    """
    directions = directions.detach().float()
    length = directions.norm(dim=-1, keepdim=True)
    if not bool(directions.isfinite().all()) or not bool((length > 0).all()):
        raise ValueError("directions must be finite and different from zero: both sides have the same mean, perhaps")
    return directions / length


def _tokens(tokenizer: Any, texts: Sequence[str]) -> Tensor:
    rows = tokenizer(list(texts), add_special_tokens=False, padding=False)["input_ids"]
    ids = [token for row in rows for token in row]
    if not ids:
        raise ValueError(f"the phrases {list(texts)} have no token")
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is not None and all(token == unknown for token in ids):
        raise ValueError(f"the tokenizer knows none of the phrases {list(texts)}; pass some in its own words")
    return torch.tensor(ids)
