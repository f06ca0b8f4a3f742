"""What a unit does: the tokens that it writes towards, and what scaling it alone changes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import edit
from interplay.primitives.decoders import Decoder
from interplay.primitives.prompts import batches_by_length, model_inputs, token_ids
from interplay.steering.austeer.units import UnitSite, check_site, sites_of, unit_widths

__all__ = ["heterogeneity", "unit_token_profile", "writing_directions"]


def writing_directions(model: nn.Module, site: UnitSite, layer: int) -> Float[Tensor, "unit d_model"]:
    """What each unit adds to the residual stream when it is 1: a column of the output projection, or an axis."""
    decoder = Decoder(model)
    decoder.check(layer)
    if check_site(site, model) == "attention":
        return decoder.output_weight(layer).detach().float()
    return torch.eye(decoder.d_model, device=next(model.parameters()).device)


def unit_token_profile(
    model: nn.Module, site: UnitSite, layer: int, unit: int | Sequence[int] | None = None, topk: int | None = None
) -> Tensor:
    """Logits that a unit writes: W_U diag(gain of the final norm) of its direction.

    Parameters
    ----------
    model
        A Hugging Face decoder.
    site, layer, unit
        Which; several units or None, all, give a row each.
    topk
        Return the ids of that many tokens with the largest logits instead of the logits.

    Returns
    -------
    Tensor
        [vocabulary] or [topk], with an axis of units before it if there are several.
    """
    directions = writing_directions(model, site, layer)
    if unit is not None:
        chosen = [unit] if isinstance(unit, int) else list(unit)
        if any(not 0 <= one < len(directions) for one in chosen):
            raise ValueError(f"unit must be one of the {len(directions)} of site {site!r} in layer {layer}, got {unit}")
        directions = directions[chosen]
    decoder = Decoder(model)
    norm = decoder.final_norm
    with torch.no_grad():
        # Gains are 1 + weight in some models; the norm itself tells: at an input of ones, whose norm is one.
        width = decoder.d_model
        signs = torch.ones(width, device=directions.device, dtype=next(model.parameters()).dtype)
        signs[1::2] = -1
        gain = ((norm(signs) - norm(-signs)) / 2 * signs).float()
    profile = (directions * gain) @ decoder.unembedding.detach().float().T
    if topk is not None:
        profile = profile.topk(topk, dim=-1).indices
    return profile[0] if isinstance(unit, int) else profile


@torch.inference_mode()
def heterogeneity(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    right: Sequence[int],
    wrong: Sequence[int],
    site: UnitSite,
    layer: int,
    *,
    gains: Sequence[float] = (-1.0, 1.0),
    units: Sequence[int] | None = None,
    rows_per_batch: int = 512,
) -> pd.DataFrame:
    """What scaling each unit of a block alone does to the margin of right over wrong answers.

    Many units share a batch, each row with a unit of its own.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face causal language model in evaluation mode, and its tokenizer.
    prompts
        Texts or token ids.
    right, wrong
        Token ids of the answers, one for each prompt.
    site, layer
        Which block.
    gains
        x_i becomes (1 + gain) x_i.
    units
        Which; None: all of the block.
    rows_per_batch
        Prompts times units of a forward pass.

    Returns
    -------
    DataFrame
        One row a unit and gain: unit, gain, effect (mean change of the margin), t (its t statistic over prompts) and
        p (two-sided).
    """
    if not len(prompts) == len(right) == len(wrong) or len(prompts) < 2:
        raise ValueError(
            f"prompts, right and wrong must be equally many, two or more; "
            f"got {len(prompts)}, {len(right)}, {len(wrong)}"
        )
    place = sites_of(model, check_site(site, model))[layer]
    chosen = list(range(unit_widths(model, site)[layer])) if units is None else list(units)
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    rows = token_ids(tokenizer, texts) if texts else [list(map(int, prompt)) for prompt in prompts]
    answers = torch.tensor([right, wrong]).T
    plain = torch.empty(len(rows))
    changed = torch.empty(len(chosen), len(gains), len(rows))
    settings = [(unit, gain) for unit in chosen for gain in gains]
    for batch in batches_by_length(rows, tokenizer.pad_token_id, tokens=4096):
        inputs = model_inputs(model, batch.ids, batch.mask)
        own = answers[batch.rows].to(inputs["input_ids"].device)
        plain[batch.rows] = _margins(model, inputs, own)
        size = max(1, rows_per_batch // len(batch.rows))
        for start in range(0, len(settings), size):
            part = settings[start : start + size]
            repeated = {name: tensor.repeat(len(part), 1) for name, tensor in inputs.items()}
            which = torch.tensor([unit for unit, _ in part], device=own.device).repeat_interleave(len(own))
            factors = torch.tensor([1 + gain for _, gain in part], device=own.device).repeat_interleave(len(own))

            def scale(h: Tensor, which: Tensor = which, factors: Tensor = factors) -> Tensor:
                flat = (h.flatten(-2) if site == "attention" else h).clone()
                every = torch.arange(len(flat), device=flat.device)
                flat[every, :, which] = flat[every, :, which] * factors[:, None].to(flat)
                return flat.view_as(h)

            with edit(model, {place: scale}):
                margins = _margins(model, repeated, own.repeat(len(part), 1)).view(len(part), len(own))
            flat = changed.view(len(settings), len(rows))
            flat[start : start + len(part), batch.rows] = margins.cpu()
    difference = changed - plain
    mean, deviation = difference.mean(-1), difference.std(-1)
    t = torch.where(deviation > 0, mean / (deviation / math.sqrt(len(rows))), 0.0)
    from scipy import stats

    table = pd.DataFrame(settings, columns=["unit", "gain"])
    table["effect"], table["t"] = mean.flatten().double().numpy(), t.flatten().double().numpy()
    table["p"] = 2 * stats.t.sf(table["t"].abs(), len(rows) - 1)
    return table


def _margins(model: nn.Module, inputs: dict[str, Tensor], answers: Tensor) -> Tensor:
    logits = model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1].float().gather(1, answers)
    return (logits[:, 0] - logits[:, 1]).cpu()
