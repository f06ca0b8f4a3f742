"""Activations of many prompts at many sites: batched by length, and no further than the last site needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
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
    from_end: int | Sequence[int] | Sequence[Sequence[int]] = 1,
    tokens_per_batch: int = 2048,
) -> dict[Site, Float[Tensor, "prompt ..."]]:
    """What every prompt leaves at each site, at one token of the prompt or at several.

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
        Which token, counted from the end: 1 is the last one. One number for all prompts or one each; several for each
        prompt, the same count for all, put an axis of tokens behind that of the prompts.
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
    offsets, one_token = _offsets(from_end, rows)
    found: dict[Site, Tensor] = {}
    for batch in batches_by_length(rows, tokenizer.pad_token_id, tokens=tokens_per_batch):
        columns = batch.ids.shape[1] - torch.tensor([offsets[row] for row in batch.rows]).T
        with torch.inference_mode(), ExitStack() as stack:
            # The recording that was entered last hears last: when it stops the pass, the others are complete.
            seen = [
                stack.enter_context(record(model, sites, positions=column, stop=last == len(columns)))
                for last, column in enumerate(columns, start=1)
            ]
            model(**model_inputs(model, batch.ids, batch.mask), use_cache=False)
        for site in sites:
            activations = torch.stack([one[site] for one in seen], 1).float()
            if site not in found:
                found[site] = activations.new_empty(len(rows), *activations.shape[1:])
            found[site][batch.rows] = activations
    for site, activations in found.items():
        if not bool(activations.isfinite().all()):
            row = int((~activations.flatten(1).isfinite().all(1)).nonzero()[0])
            raise ValueError(f"activations at {site} are not finite for prompt {row}; load the model in float32")
    return {site: (values[:, 0] if one_token else values).clone() for site, values in found.items()}


def _offsets(from_end: Any, rows: Sequence[Sequence[int]]) -> tuple[list[list[int]], bool]:
    """The tokens that are asked for, a list for each prompt, and whether one token was meant."""
    given = [from_end] * len(rows) if isinstance(from_end, int) else list(from_end)
    if len(given) != len(rows):
        raise ValueError(f"from_end has {len(given)} entries, there are {len(rows)} prompts")
    one_token = all(isinstance(offset, int) for offset in given)
    offsets = [[offset] for offset in given] if one_token else [list(several) for several in given]
    if len({len(several) for several in offsets}) > 1 or not offsets[0]:
        raise ValueError("from_end must name the same number of tokens, one or more, for every prompt")
    for index, (row, several) in enumerate(zip(rows, offsets, strict=True)):
        if outside := [offset for offset in several if not 1 <= offset <= len(row)]:
            raise ValueError(
                f"from_end must be between 1 and the {len(row)} tokens of prompt {index}, got {outside[0]}"
            )
    return offsets, one_token


def _are_ids(prompts: Sequence[Any]) -> bool:
    return len(prompts) > 0 and not isinstance(prompts, str) and not isinstance(prompts[0], str)
