"""What the kernels of a trained model look like: how much contrast, how redundant, how much they follow the image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.vision.atconv.layers import AttentiveConvolution

__all__ = [
    "KernelStatistics",
    "dc_share",
    "effective_rank",
    "kernel_statistics",
    "mean_absolute_cosine",
    "routing_variance",
]

Kernels = Float[Tensor, "image channel k k"]


class KernelStatistics(NamedTuple):
    """Numbers about the kernels of one layer.

    Attributes
    ----------
    dc_share
        D = (sum K)^2 / (k^2 |K|^2) after inhibition, mean over images and channels: 1 for a blur of equal taps, 0 for
        pure contrast.
    raw_dc_share
        The same before inhibition. With strength f, D turns into (1 - f)^2 D / (1 - (2 f - f^2) D), kernel by kernel.
    mean_absolute_cosine
        Between the kernels of two channels for the same image, mean over pairs: 1 where all are alike up to a factor.
    effective_rank
        exp of the entropy of the singular values' shares, of channels x taps for each image, mean over images: between
        1 and min(C, k^2).
    routing_variance
        Share of the kernels' variance over images and channels that lies across images: 0 for static kernels.
    strength
        f of every channel, shape (C,).
    """

    dc_share: float
    raw_dc_share: float
    mean_absolute_cosine: float
    effective_rank: float
    routing_variance: float
    strength: Tensor


@torch.no_grad()
def kernel_statistics(model: nn.Module, x: Float[Tensor, "image ..."]) -> dict[str, KernelStatistics]:
    """Statistics of every attentive convolution in a model on some images, by the layer's path.

    Parameters
    ----------
    model
        Any module; called once, as it is (put it into evaluation mode first).
    x
        Its input, two images or more for the routing variance, which is NaN for one.

    Raises
    ------
    ValueError
        If the model has no attentive convolution, or none is reached.
    """
    layers = {path: part for path, part in model.named_modules() if isinstance(part, AttentiveConvolution)}
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def note(path: str):  # type: ignore[no-untyped-def]
        def record(layer: AttentiveConvolution, arguments: tuple[Tensor, ...]) -> None:
            raw = layer.raw_kernels(arguments[0])
            seen[path] = raw, layer.inhibited(raw)

        return record

    handles = [layer.register_forward_pre_hook(note(path)) for path, layer in layers.items()]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ValueError(f"the model calls no attentive convolution; it has {len(layers)}")
    return {
        path: KernelStatistics(
            float(dc_share(kernels).mean()),
            float(dc_share(raw).mean()),
            float(mean_absolute_cosine(kernels)),
            float(effective_rank(kernels)),
            float(routing_variance(kernels)),
            torch.as_tensor(layers[path].strength).detach().expand(layers[path].dim).clone(),
        )
        for path, (raw, kernels) in seen.items()
    }


def dc_share(kernels: Kernels) -> Float[Tensor, "image channel"]:
    """Share of a kernel's energy in its mean, (sum K)^2 / (k^2 |K|^2); NaN for a kernel of zeros."""
    taps = kernels.flatten(-2)
    return taps.sum(-1).square() / (taps.shape[-1] * taps.square().sum(-1))


def mean_absolute_cosine(kernels: Kernels) -> Float[Tensor, ""]:
    """Mean of |cos| between the kernels of two different channels for the same image; NaN for one channel."""
    directions = nn.functional.normalize(kernels.flatten(-2), dim=-1)
    channels = directions.shape[1]
    overlaps = (directions @ directions.mT).abs()
    others = overlaps.sum((-2, -1)) - overlaps.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (others / (channels * (channels - 1) or float("nan"))).mean()


def effective_rank(kernels: Kernels) -> Float[Tensor, ""]:
    """exp of the entropy of the singular values' shares (Roy and Vetterli), mean over images."""
    values = torch.linalg.svdvals(kernels.flatten(-2))
    shares = values / values.sum(-1, keepdim=True)
    return torch.special.entr(shares).sum(-1).exp().mean()


def routing_variance(kernels: Kernels) -> Float[Tensor, ""]:
    """Share of the variance over images and channels that lies across images; NaN for one image or no variance."""
    if len(kernels) < 2:
        return kernels.new_tensor(float("nan"))
    across_images = kernels.var(0, correction=0).sum((-2, -1)).mean()
    whole = kernels.flatten(0, 1).var(0, correction=0).sum()
    return across_images / whole
