"""How large and how costly: closed forms, and counts of what really runs.

For C channels, kernels of k x k taps and L pixels, an attentive convolution has

(1)  3 (C^2 + C) + k^4 + k^2 + C            parameters
(2)  L (3 C^2 + k^2 C) + C k^4              multiply-accumulates an image, as published
(3)  L (2 C^2 + k^2 C) + k^2 C^2 + C k^4    as computed here, where the context is pooled before it is projected

all linear in L, where attention has 4 L C^2 + 2 L^2 C. Norms, activations and additions do not count, as usual.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from interplay.vision.atconv.attnet import SIZES
from interplay.vision.atconv.layers import AttentiveConvolution

__all__ = ["atconv_macs", "atconv_parameters", "attnet_macs", "count_macs", "count_parameters"]


def atconv_parameters(dim: int, kernel_size: int = 3) -> int:
    """Parameters of an attentive convolution with biases and a learned gate, equation (1)."""
    taps = kernel_size**2
    return 3 * (dim**2 + dim) + taps**2 + taps + dim


def atconv_macs(dim: int, pixels: int, kernel_size: int = 3, *, pooled_first: bool = False) -> int:
    """Multiply-accumulates an image, equation (2), or (3) with `pooled_first`."""
    taps = kernel_size**2
    projections = pixels * 2 * dim**2 + (taps if pooled_first else pixels) * dim**2
    return projections + pixels * taps * dim + dim * taps**2


def attnet_macs(
    size: str, *, image_size: int = 224, num_classes: int = 1000, in_chans: int = 3, pooled_first: bool = False
) -> int:
    """Multiply-accumulates of a published size of AttNet on one square image, in closed form."""
    depths, dims, expansions = (SIZES[size][name] for name in ("depths", "dims", "expansions"))
    side = -(-image_size // 2)
    before = dims[0] // 2
    total = side**2 * 9 * in_chans * before
    for depth, dim, expansion in zip(depths, dims, expansions, strict=True):
        side = -(-side // 2)
        hidden = int(2 * int(dim * expansion) / 3)
        mixers = atconv_macs(dim, side**2, pooled_first=pooled_first) + side**2 * (3 * dim + 9) * hidden
        total += side**2 * 9 * before * dim + depth * mixers
        before = dim
    return total + before * num_classes


def count_parameters(module: nn.Module) -> int:
    """Parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, *inputs: torch.Tensor, as_published: bool = False) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention in one call, counted as they run.

    On the "meta" device nothing is computed and no memory needed, however large the input.

    Parameters
    ----------
    as_published
        Count attentive convolutions as if they projected before pooling, as the published code does.
    """
    images: list[tuple[AttentiveConvolution, torch.Size]] = []

    def note(part: AttentiveConvolution, arguments: tuple[torch.Tensor, ...]) -> None:
        images.append((part, arguments[0].shape))

    handles = [
        part.register_forward_pre_hook(note) for part in module.modules() if isinstance(part, AttentiveConvolution)
    ]
    counter = FlopCounterMode(display=False)
    try:
        # The other kernels of attention are opaque to the counter on a CPU.
        with torch.no_grad(), counter, sdpa_kernel(SDPBackend.MATH):
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    total = int(counter.get_total_flops()) // 2
    if as_published:
        total += sum(_saved(part, shape) for part, shape in images)
    return total


def _saved(part: AttentiveConvolution, shape: torch.Size) -> int:
    """Multiply-accumulates that pooling first spares."""
    if part.kernel_source == "static":
        return 0
    pixels = shape[2:].numel() if len(shape) == 4 else shape[1] - part.prefix_tokens
    return shape[0] * (pixels - part.kernel_size**2) * part.dim**2
