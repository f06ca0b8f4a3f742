"""Prompts as the batches of one forward pass: padded on the left, positions counted from the first real token."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor, nn

__all__ = ["PromptBatch", "batches_by_length", "forward_arguments", "model_inputs", "pad_left", "token_ids"]


class PromptBatch(NamedTuple):
    """Prompts of one forward pass.

    Attributes
    ----------
    ids, mask
        Token ids, and 1 for every token that is not padding, [prompt, position]; padding is on the left.
    rows
        Which of all prompts these are.
    """

    ids: Int[Tensor, "prompt position"]
    mask: Int[Tensor, "prompt position"]
    rows: list[int]


def token_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """The token ids of every prompt.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer.
    prompts
        Texts; a chat template is the caller's to apply (`tokenizer.apply_chat_template(..., tokenize=False)`).

    Raises
    ------
    TypeError
        One string instead of several, or something that is no string.
    ValueError
        No prompt, or one without a token.
    """
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise TypeError("prompts must be a sequence of strings; wrap a single one in a list")
    if len(prompts) == 0:
        raise ValueError("prompts is empty; pass one or more")
    rows = tokenizer(list(prompts), padding=False)["input_ids"]
    if empty := [index for index, row in enumerate(rows) if not len(row)]:
        raise ValueError(f"prompt {empty[0]} has no token: {prompts[empty[0]]!r}")
    return [list(row) for row in rows]


def pad_left(
    rows: Sequence[Sequence[int]], pad_id: int | None
) -> tuple[Int[Tensor, "prompt position"], Int[Tensor, "prompt position"]]:
    """Token ids and mask of prompts, padded on the left to the longest; `pad_id` None stands for 0, which is masked."""
    length = max(len(row) for row in rows)
    ids = torch.full((len(rows), length), pad_id or 0)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, length - len(row) :] = torch.as_tensor(row)
        mask[index, length - len(row) :] = 1
    return ids, mask


def batches_by_length(
    rows: Sequence[Sequence[int]], pad_id: int | None, *, tokens: int = 2048
) -> Iterator[PromptBatch]:
    """Batches of prompts of similar length, the longest first, so that little is computed for padding.

    Parameters
    ----------
    rows
        Token ids of every prompt.
    pad_id
        The padding token.
    tokens
        Largest number of positions of a batch, padding included; a longer prompt is a batch of its own. The longest
        come first, so that memory runs out at once if at all.
    """
    if tokens < 1:
        raise ValueError(f"tokens must be positive, got {tokens}")
    order = sorted(range(len(rows)), key=lambda row: (-len(rows[row]), row))
    while order:
        size = max(1, tokens // len(rows[order[0]]))
        chosen, order = order[:size], order[size:]
        yield PromptBatch(*pad_left([rows[row] for row in chosen], pad_id), chosen)


def model_inputs(
    model: nn.Module, ids: Int[Tensor, "prompt position"], mask: Int[Tensor, "prompt position"]
) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass, on the model's device.

    Positions are counted from the first real token, as `generate` counts them: with left padding a model with absolute
    positions would otherwise see every prompt at another place.

    Raises
    ------
    TypeError
        An encoder-decoder model.
    ValueError
        A model in training mode.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise TypeError(f"model is the encoder-decoder {type(model).__name__}; pass a decoder-only language model")
    if model.training:
        raise ValueError("model is in training mode, so dropout may be on; call model.eval() first")
    device = next(model.parameters()).device
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    if "position_ids" in forward_arguments(model):
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return inputs


def forward_arguments(model: nn.Module) -> set[str]:
    """Names that the model's forward pass takes."""
    return set(inspect.signature(model.forward).parameters)
