"""What a model does with prompts, and whether that is what their group's name says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from interplay.primitives.prompts import batches_by_length, model_inputs
from interplay.steering.harmfulness_refusal.spans import Prompt

__all__ = ["greedy_replies", "keep_behaving"]


@torch.inference_mode()
def greedy_replies(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 32,
    tokens_per_batch: int = 4096,
) -> list[list[int]]:
    """Token ids that the model writes after each prompt, greedily, up to the end of the sequence."""
    generate: Any = model.generate
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    found: list[list[int]] = [[] for _ in prompts]
    for batch in batches_by_length([prompt.ids for prompt in prompts], pad, tokens=tokens_per_batch):
        inputs = model_inputs(model, batch.ids, batch.mask)
        written = generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
        )[:, batch.ids.shape[1] :].tolist()
        for row, reply in zip(batch.rows, written, strict=True):
            stop = next((at for at, token in enumerate(reply) if token in ends), len(reply))
            found[row] = reply[:stop]
    return found


def keep_behaving(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    *,
    refused: bool,
    is_refusal: Callable[[str], bool],
    group: str,
    max_new_tokens: int = 32,
) -> list[int]:
    """Indices of the prompts that the model refuses, or does not refuse, as their group says.

    Parameters
    ----------
    model, tokenizer
        The model and its tokenizer.
    prompts
        Of one group.
    refused
        What the group's name says.
    is_refusal
        Whether a reply is a refusal.
    group
        Its name, for messages.
    max_new_tokens
        Length of the replies.

    Warns
    -----
    UserWarning
        Some prompts are left out; the message counts them.

    Raises
    ------
    ValueError
        Less than half of the prompts remain.
    """
    replies = greedy_replies(model, tokenizer, prompts, max_new_tokens=max_new_tokens)
    kept = [at for at, reply in enumerate(replies) if is_refusal(tokenizer.decode(reply).strip()) == refused]
    left_out, does = len(prompts) - len(kept), "answers" if refused else "refuses"
    if 2 * len(kept) < len(prompts):
        raise ValueError(f"the model {does} {left_out} of the {len(prompts)} prompts of {group}: less than half remain")
    if left_out:
        warnings.warn(
            f"the model {does} {left_out} of the {len(prompts)} prompts of {group}; they are left out", stacklevel=3
        )
    return kept
