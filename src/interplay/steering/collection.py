"""Activations of many prompts at many sites: batched by length, and no further than the last site needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Site, record
from interplay.primitives.prompts import batches_by_length, model_inputs, token_ids

__all__ = ["collect_activations"]


def collect_activations(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    sites: Sequence[Site],
    *,
    from_end: int | Sequence[int] = 1,
    tokens_per_batch: int = 2048,
) -> dict[Site, Float[Tensor, "prompt ..."]]:
    """What every prompt leaves at each site, at one token of the prompt.

    Parameters
    ----------
    model
        A Hugging Face decoder in evaluation mode.
    tokenizer
        Its tokenizer.
    prompts
        Texts, with a chat template already applied where there is one, or their token ids.
    sites
        Where to read.
    from_end
        Which token, counted from the end: 1 is the last one. One number for all prompts or one each.
    tokens_per_batch
        Largest number of positions of a forward pass, padding included.

    Returns
    -------
    dict
        For each site its activations in float32, one row a prompt, on the model's device.

    Raises
    ------
    TypeError, ValueError
        Prompts that are no texts, are empty or too short for `from_end`, or activations that are not finite; the
        message names the prompt or the site.
    """
    if not sites:
        raise ValueError("sites is empty; pass one or more")
    rows = [list(ids) for ids in prompts] if _are_ids(prompts) else token_ids(tokenizer, prompts)  # type: ignore[arg-type]
    offsets = [from_end] * len(rows) if isinstance(from_end, int) else list(from_end)
    if len(offsets) != len(rows):
        raise ValueError(f"from_end has {len(offsets)} entries, there are {len(rows)} prompts")
    for index, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
        if not 1 <= offset <= len(row):
            raise ValueError(f"from_end must be between 1 and the {len(row)} tokens of prompt {index}, got {offset}")
    found: dict[Site, Tensor] = {}
    for batch in batches_by_length(rows, tokenizer.pad_token_id, tokens=tokens_per_batch):
        columns = batch.ids.shape[1] - torch.tensor([offsets[row] for row in batch.rows])
        with torch.inference_mode(), record(model, sites, positions=columns, stop=True) as seen:
            model(**model_inputs(model, batch.ids, batch.mask), use_cache=False)
        for site in sites:
            if site not in found:
                found[site] = seen[site].new_empty(len(rows), *seen[site].shape[1:], dtype=torch.float32)
            found[site][batch.rows] = seen[site].float()
    for site, activations in found.items():
        if not bool(activations.isfinite().all()):
            row = int((~activations.flatten(1).isfinite().all(1)).nonzero()[0])
            raise ValueError(f"activations at {site} are not finite for prompt {row}; load the model in float32")
    return {site: activations.clone() for site, activations in found.items()}


def _are_ids(prompts: Sequence[Any]) -> bool:
    return len(prompts) > 0 and not isinstance(prompts, str) and not isinstance(prompts[0], str)
