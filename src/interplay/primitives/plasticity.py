"""Pieces of local learning rules, as pure functions.

A unit k of a linear or convolutional layer sees the input x_p at each sample and location p, has the drive u_k = w_k .
x_p and the activity y_k. What it can learn from is local: its own x_p, u_k, y_k and w_k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

__all__ = [
    "activity_decay",
    "frobenius_norms",
    "hebbian_correlation",
    "max_normalised",
    "neuron_gains",
    "rescaled_rows",
    "rescaled_to_norms",
    "row_norms",
]

Side = Literal["pre", "post"]
"""Whether a neuron is meant as the sender (pre) or as the receiver (post) of its synapses."""

_CORRELATE: dict[int, Callable[..., Tensor]] = {3: conv1d_weight, 4: conv2d_weight, 5: conv3d_weight}


def hebbian_correlation(
    pre: Float[Tensor, "..."],
    post: Float[Tensor, "..."],
    weight_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Float[Tensor, "..."]:
    """Hebb's term: the sum over samples and locations of y_k x_p.

    For a convolution this is the gradient of sum(y * conv(x, W)) with respect to W, computed as such: the patches are
    never laid out.

    Parameters
    ----------
    pre
        Input x: (..., in) for a linear layer, (batch, channels, *space) for a convolution.
    post
        Activity y: (..., out) or (batch, out, *locations).
    weight_shape
        (out, in) or (out, in / groups, *kernel), which also says what kind of layer it is.
    stride, padding, dilation, groups
        Geometry of the convolution; zero padding. Ignored for a linear layer.
    """
    if len(weight_shape) == 2:
        return post.flatten(0, -2).T @ pre.flatten(0, -2)
    if len(weight_shape) not in _CORRELATE:
        raise ValueError(
            f"weight_shape must have 2 (linear) or 3 to 5 dimensions (convolution), got {tuple(weight_shape)}"
        )
    correlate = _CORRELATE[len(weight_shape)]
    return correlate(pre, tuple(weight_shape), post, stride, padding, dilation, groups)


def activity_decay(weight: Float[Tensor, "out ..."], correlation: Float[Tensor, "out ..."]) -> Float[Tensor, "out ..."]:
    """Decay with own activity and drive, (sum y_k u_k) w_k: beside Hebb's term it holds every w_k near unit length.

    Since u_k = w_k . x_p, the sum of y_k u_k over samples and locations is the product of w_k with Hebb's term, sum
    y_k x_p: neither y nor u is needed again.

    Parameters
    ----------
    weight
        (out, ...), the weights that gave the drive.
    correlation
        `hebbian_correlation` of the same layer and batch.
    """
    gain = (weight * correlation).flatten(1).sum(1)
    return gain.view(-1, *[1] * (weight.ndim - 1)) * weight


def max_normalised(update: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Scale an update so that its largest entry is one in size; an update of zeros stays zero."""
    largest = update.abs().amax()
    return update / largest.where(largest > 0, largest.new_ones(()))


def row_norms(weight: Float[Tensor, "out ..."]) -> Float[Tensor, " out"]:
    """Euclidean length of each unit's weight vector."""
    return weight.flatten(1).square().sum(1).sqrt()


def rescaled_rows(weight: Float[Tensor, "out ..."], norms: Float[Tensor, " out"]) -> Float[Tensor, "out ..."]:
    """Bring each unit's weight vector to the given length, keeping its direction; zero vectors stay zero."""
    lengths = row_norms(weight)
    scale = norms / lengths.where(lengths > 0, lengths.new_ones(()))
    return weight * scale.view(-1, *[1] * (weight.ndim - 1))


def neuron_gains(gains: Float[Tensor, "*batch neurons"], side: Side) -> Float[Tensor, "*batch rows columns"]:
    """Factors for updates of weights (..., out, in) that belong to neurons: their whole fan-out, or their whole fan-in.

    Multiplying by them is the product with diag(gains), on the right for presynaptic neurons, on the left for
    postsynaptic ones. A gain of -1 inverts the plasticity of a neuron's synapses, 0 freezes them, 1 leaves them alone.

    Parameters
    ----------
    gains
        One number a neuron: (..., in) for "pre", (..., out) for "post".

    Returns
    -------
    A view of shape (..., 1, in) or (..., out, 1).
    """
    return gains.unsqueeze(-2 if side == "pre" else -1)


def frobenius_norms(weight: Float[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch 1 1"]:
    """Frobenius norm of each matrix, kept as dimensions of one."""
    norms: Tensor = vector_norm(weight.flatten(-2), dim=-1)
    return norms[..., None, None]


def rescaled_to_norms(
    weight: Float[Tensor, "*batch rows columns"], norms: Float[Tensor, "*batch 1 1"]
) -> Float[Tensor, "*batch rows columns"]:
    """Bring each matrix to the given Frobenius norm: homeostasis of a layer as a whole; zero matrices stay zero."""
    lengths = frobenius_norms(weight)
    return weight * (norms / lengths.where(lengths > 0, lengths.new_ones(())))
