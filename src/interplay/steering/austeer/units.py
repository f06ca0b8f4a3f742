"""Atomic units: single dimensions of a layer, at one of three places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Site
from interplay.primitives.decoders import Decoder
from interplay.steering.collection import collect_activations

__all__ = ["UnitSite", "check_site", "collect_units", "sites_of", "unit_widths"]

UnitSite = Literal["attention", "ffn", "layer"]
"""Where units lie: what enters the attention's output projection (all heads, one behind the other), what leaves the
MLP's down-projection, or the residual stream after the layer."""


def check_site(site: str, model: nn.Module | None = None) -> UnitSite:
    """The site, or a ValueError that lists those that there are, with their widths in a model."""
    if site in get_args(UnitSite):
        return site  # type: ignore[return-value]
    allowed = [
        name if model is None else f"{name} ({max(unit_widths(model, name))} units a layer)"
        for name in get_args(UnitSite)
    ]
    raise ValueError(f"site must be one of {', '.join(allowed)}; got {site!r}")


def sites_of(model: nn.Module, site: UnitSite) -> list[Site]:
    """The place of the units in every layer."""
    decoder = Decoder(model)
    layers = range(decoder.n_layers)
    if check_site(site, model) == "attention":
        return [Site("heads", layer) for layer in layers]
    if site == "layer":
        return [Site("residual", layer) for layer in layers]
    paths = {id(module): path for path, module in model.named_modules()}
    return [Site("module", path=paths[id(decoder.mlp_output(layer))]) for layer in layers]


def unit_widths(model: nn.Module, site: UnitSite) -> list[int]:
    """Number of units of every layer."""
    decoder = Decoder(model)
    if site == "attention":
        return [decoder.n_heads * decoder.head_width(layer) for layer in range(decoder.n_layers)]
    return [decoder.d_model] * decoder.n_layers


def collect_units(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    sites: Sequence[UnitSite],
    **options: Any,
) -> Mapping[UnitSite, Float[Tensor, "prompt layer unit"]]:
    """Activations of all units at the last token of every prompt, for several sites in one pass.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face decoder in evaluation mode, and its tokenizer.
    prompts
        Texts or token ids.
    sites
        Which units.
    **options
        Those of `collect_activations`.

    Raises
    ------
    ValueError
        An unknown site, or activations that are not finite; the message names the place and the prompt.
    """
    places = {site: sites_of(model, check_site(site, model)) for site in sites}
    found = collect_activations(model, tokenizer, prompts, [one for each in places.values() for one in each], **options)
    return {site: torch.stack([found[one].flatten(1) for one in each], 1) for site, each in places.items()}
