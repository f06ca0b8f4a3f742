"""The norms of a decoder's blocks, whose outputs are steered."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from interplay.primitives.activations import Site
from interplay.primitives.decoders import Decoder

__all__ = ["NORMS", "block_of", "norm_sites"]

NORMS = ("layernorm", "rmsnorm")
"""What the name of a block's norm contains: two a block in Llama and Qwen, four in Gemma 2 and 3."""


def norm_sites(model: nn.Module, norms: Sequence[str] = NORMS) -> list[Site]:
    """The outputs of the norms that every block applies to the residual stream or to what is written to it.

    Norms of queries and keys and the final norm are none of them.

    Parameters
    ----------
    model
        A decoder.
    norms
        A norm is taken if its name contains one of these, in any case.

    Raises
    ------
    TypeError
        An encoder-decoder model.
    ValueError
        No block, or a block without such a norm; the message lists the norms that are there.
    """
    if isinstance(norms, str) or not norms:
        raise ValueError(f"norms must be one or more parts of names, such as {NORMS}; got {norms!r}")
    decoder = Decoder(model)
    sites = []
    for index, layer in enumerate(decoder.layers):
        found = [name for name, _ in layer.named_children() if any(norm.lower() in name.lower() for norm in norms)]
        if not found:
            raise ValueError(
                f"block {index} of {type(model).__name__} has no norm whose name contains {' or '.join(norms)}; "
                f"its norm-like modules are {', '.join(_norm_like(layer)) or 'none'}: pass norms=(...) with a part of "
                "the names that are meant"
            )
        sites += [Site("module", path=f"{decoder.path}.{index}.{name}") for name in found]
    return sites


def block_of(path: str) -> int:
    """The number of the block in a module path: 3 in ``model.layers.3.input_layernorm``.

    Raises
    ------
    ValueError
        A path without a number.
    """
    for part in path.split("."):
        if part.isdigit():
            return int(part)
    raise ValueError(f"site {path!r} names no block; sites are module paths such as 'model.layers.3.input_layernorm'")


def _norm_like(layer: nn.Module) -> list[str]:
    return [
        name
        for name, module in layer.named_modules()
        if name and ("norm" in f"{name.rpartition('.')[2]} {type(module).__name__}".lower())
    ]
