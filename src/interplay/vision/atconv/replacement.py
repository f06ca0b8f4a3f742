"""Put attentive convolutions into a model that exists: in the place of self-attention, or of convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from interplay.vision.atconv.layers import ATConv2d, ATConvTokens

__all__ = ["ReplacedAttention", "replace_attention", "replace_convolutions"]

Predicate = Callable[[str, nn.Module], bool]
_POSITION_EMBEDDINGS = (
    "pos_embed",
    "position_embedding",
    "position_embeddings",
    "pos_embedding",
    "positional_embedding",
)


class ReplacedAttention(nn.Module):
    """Attentive convolution that is called as the attention was whose place it took.

    It takes and ignores what else attention is given (masks, dropout, keywords), and answers (tokens, None) where
    attention answered with its weights too.

    Parameters
    ----------
    mixer
        What replaces attention.
    with_weights
        Whether the caller expects a pair.
    """

    def __init__(self, mixer: ATConvTokens, with_weights: bool) -> None:
        super().__init__()
        self.mixer = mixer
        self.with_weights = with_weights

    def forward(self, hidden_states: Tensor, *ignored: Any, **also_ignored: Any) -> Tensor | tuple[Tensor, None]:
        mixed = self.mixer(hidden_states)
        return (mixed, None) if self.with_weights else mixed


def replace_attention(
    model: nn.Module,
    predicate: Predicate | None = None,
    grid_size: tuple[int, int] | None = None,
    *,
    dim: int | None = None,
    prefix_tokens: int = 0,
    with_weights: bool | None = None,
    drop_position_embedding: bool = False,
    **options: Any,
) -> list[str]:
    """Swap the attention modules of a vision transformer for `ATConvTokens`, freshly drawn, in place.

    Parameters
    ----------
    model
        Any model whose attention modules take tokens (batch, token, feature) first and keep that shape: SiT, DiT,
        timm's and Hugging Face's ViT and what is built alike.
    predicate
        Of a module's path and the module: which to swap. Default: every outermost module whose class name ends in
        Attention. For the published hybrid, every second block:
        `lambda path, module: path.endswith("attn") and int(path.split(".")[1]) % 2 == 1`.
    grid_size
        Rows and columns of tokens; None for a square.
    dim
        Features of a token; None reads it off the first linear map of each swapped module.
    prefix_tokens
        Leading tokens that are no part of the image: 1 for a ViT with a class token. See `ATConvTokens`.
    with_weights
        Whether the model expects (tokens, weights) of its attention. None: as Hugging Face's and PyTorch's own classes
        do, which are told by their module names.
    drop_position_embedding
        Also set absolute position embeddings to zero for good, as published when all attention is replaced; they are
        found by their customary names.
    **options
        Further arguments of `ATConvTokens`.

    Returns
    -------
    Paths of the swapped modules.

    Raises
    ------
    ValueError
        If nothing is swapped, no width can be read off a module, or there is no position embedding to drop.
    """
    chosen = _outermost(model, predicate or _is_attention)
    if not chosen:
        raise ValueError(
            "no module of the model was chosen; pass predicate=lambda path, module: ..., true for its attention modules"
        )
    embeddings = _position_embeddings(model) if drop_position_embedding else []
    if drop_position_embedding and not embeddings:
        raise ValueError(
            f"found no position embedding to drop, by the names {', '.join(_POSITION_EMBEDDINGS)}; "
            "set drop_position_embedding=False and drop it yourself"
        )
    mixers = {}
    for path in chosen:
        attention = model.get_submodule(path)
        width = dim or _width(path, attention)
        like = next(attention.parameters())
        mixer = ATConvTokens(
            width, grid_size, prefix_tokens=prefix_tokens, device=like.device, dtype=like.dtype, **options
        )
        pair = _answers_a_pair(attention) if with_weights is None else with_weights
        mixers[path] = ReplacedAttention(mixer, pair).train(attention.training)
    for path, replaced in mixers.items():  # only now, so that an error leaves the model whole
        _put(model, path, replaced)
    with torch.no_grad():
        for embedding in embeddings:
            embedding.zero_()
            embedding.requires_grad_(False)
    return chosen


def replace_convolutions(model: nn.Module, predicate: Predicate | None = None, **options: Any) -> list[str]:
    """Swap convolutions for `ATConv2d`, freshly drawn, in place; see `ATConv2d.replacing` for what can be swapped.

    Parameters
    ----------
    predicate
        Of a module's path and the module: which to swap. Default: depthwise convolutions of stride 1, such as those of
        ConvNeXt and MobileNet, but for the stride-1 layers that dilate or change channels.
    **options
        Further arguments of `ATConv2d`, such as `kernel_size=3` where 7 x 7 kernels are to shrink.

    Returns
    -------
    Paths of the swapped modules.

    Raises
    ------
    ValueError
        If nothing is swapped, or a chosen module changes the size of its map.
    """
    chosen = _outermost(model, predicate or _is_depthwise)
    if not chosen:
        raise ValueError("no module of the model was chosen; pass predicate=lambda path, module: ...")
    layers = {path: ATConv2d.replacing(model.get_submodule(path), **options) for path in chosen}  # type: ignore[arg-type]
    for path, layer in layers.items():
        _put(model, path, layer.train(model.get_submodule(path).training))
    return chosen


def _outermost(model: nn.Module, predicate: Predicate) -> list[str]:
    """Chosen paths but for those inside another chosen module, and the model itself."""
    chosen: list[str] = []
    for path, module in model.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer in chosen)
        if path and not inside and not isinstance(module, ATConvTokens | ATConv2d) and predicate(path, module):
            chosen.append(path)
    return chosen


def _is_attention(path: str, module: nn.Module) -> bool:
    return type(module).__name__.endswith("Attention") and not isinstance(module, ReplacedAttention)


def _is_depthwise(path: str, module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and 1 < module.groups == module.in_channels == module.out_channels
        and module.stride == (1, 1)
        and module.dilation == (1, 1)
    )


def _answers_a_pair(attention: nn.Module) -> bool:
    return type(attention).__module__.startswith(("transformers.", "torch."))


def _width(path: str, attention: nn.Module) -> int:
    if isinstance(attention, nn.MultiheadAttention):
        return attention.embed_dim
    for module in attention.modules():
        if isinstance(module, nn.Linear):
            return module.in_features
    raise ValueError(f"cannot read the width of tokens off {path} ({type(attention).__name__}); pass dim=...")


def _position_embeddings(model: nn.Module) -> list[Tensor]:
    found = [
        tensor
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]
        if name.rpartition(".")[2] in _POSITION_EMBEDDINGS
    ]
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and path.rpartition(".")[2] in _POSITION_EMBEDDINGS:
            found.append(module.weight)
    return found


def _put(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
