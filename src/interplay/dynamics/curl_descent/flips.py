"""Which neurons of a network are rule-flipped: gains for the parameters of its layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from interplay.primitives.plasticity import Side

__all__ = ["flip_plan"]

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Flips = float | int | Sequence[int] | Tensor


def flip_plan(
    model: nn.Module,
    flips: Mapping[str, Flips],
    *,
    side: Side = "pre",
    gain: float = -1.0,
    generator: torch.Generator | None = None,
) -> dict[nn.Parameter, Tensor]:
    """Draw the neurons whose plasticity is inverted, as the `signs` of `CurlDescent`.

    Parameters
    ----------
    model
        Holds the layers.
    flips
        By name of the layer, as in `model.named_modules()`: a fraction of its neurons (float in [0, 1], rounded to
        whole neurons), a number of them (int), or their indices. The neurons are the layer's inputs for side "pre",
        where a flipped neuron's whole fan-out inverts, and its outputs for side "post", where its whole fan-in does,
        the bias included. In a convolution a neuron is a channel. Layers that are not named learn plainly.
    side
        "pre", as published, or "post".
    gain
        What the updates of the chosen neurons are multiplied by: -1 inverts, 0 freezes, numbers between weaken.
    generator
        Draws the neurons, where `flips` has a fraction or a number between none and all.

    Returns
    -------
    For each weight (and bias, for "post") of the named layers its gains, of as many dimensions as the parameter and
    broadcasting against it.

    Raises
    ------
    KeyError
        If the model has no layer of that name.
    TypeError
        If `flips` is no mapping, or the layer is neither linear nor a convolution; embeddings, whose inputs are
        symbols, have no fan-out to flip.
    ValueError
        If a fraction, number or index is out of range, or a draw is asked for without a generator.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> plan = flip_plan(model, {"0": 0.25, "2": [0]}, generator=torch.Generator().manual_seed(0))
    >>> [int((gains < 0).sum()) for gains in plan.values()]
    [2, 1]
    """
    if side not in ("pre", "post"):
        raise ValueError(f"side must be 'pre' or 'post'; got {side!r}")
    if not isinstance(flips, Mapping):
        raise TypeError(f"flips must say by name of the layer what is flipped, as in {{'0': 0.1}}; got {flips!r}")
    layers = dict(model.named_modules())
    plan: dict[nn.Parameter, Tensor] = {}
    for name, wanted in flips.items():
        if name not in layers:
            known = ", ".join(known for known, layer in layers.items() if isinstance(layer, _FLIPPABLE)) or "none"
            raise KeyError(f"the model has no layer {name!r}; those that can be flipped are: {known}")
        layer = layers[name]
        if not isinstance(layer, _FLIPPABLE):
            raise TypeError(
                f"layer {name!r} is {type(layer).__name__}; only linear layers and convolutions have neurons to flip"
            )
        neurons = _neurons(layer, side)
        gains = layer.weight.new_ones(neurons)
        gains[_indices(wanted, neurons, name, generator)] = gain
        plan[layer.weight] = _spread(gains, layer, side)
        if side == "post" and layer.bias is not None:
            plan[layer.bias] = gains
    return plan


_FLIPPABLE = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


def _neurons(layer: nn.Module, side: Side) -> int:
    kind = "features" if isinstance(layer, nn.Linear) else "channels"
    return int(getattr(layer, f"{'in' if side == 'pre' else 'out'}_{kind}"))


def _indices(wanted: Flips, neurons: int, name: str, generator: torch.Generator | None) -> Tensor:
    """The flipped neurons of one layer."""
    if isinstance(wanted, bool):
        raise TypeError(f"flips of layer {name!r} must be a fraction, a number or indices; got {wanted}")
    if isinstance(wanted, float | int):
        if isinstance(wanted, float):
            if not 0 <= wanted <= 1:
                raise ValueError(f"the fraction of layer {name!r} must lie in [0, 1]; got {wanted}")
            wanted = math.floor(wanted * neurons + 0.5)
        if not 0 <= wanted <= neurons:
            raise ValueError(f"layer {name!r} has {neurons} neurons on this side; got {wanted} to flip")
        if wanted in (0, neurons):
            return torch.arange(wanted)
        if generator is None:
            raise ValueError(f"which {wanted} of {neurons} neurons of layer {name!r} flip is random: pass a generator")
        return torch.randperm(neurons, generator=generator, device=generator.device)[:wanted].cpu()
    indices = torch.as_tensor(wanted, dtype=torch.long).reshape(-1).cpu()
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < neurons):
        raise ValueError(f"indices of layer {name!r} must lie in 0 to {neurons - 1}; got {indices.tolist()}")
    return indices


def _spread(gains: Tensor, layer: nn.Module, side: Side) -> Tensor:
    """Gains in the layout of the layer's weight, in which grouped convolutions fold channels."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if isinstance(layer, nn.Linear):
        return gains[None, :] if side == "pre" else gains[:, None]
    transposed = isinstance(layer, TRANSPOSED)
    groups = int(layer.groups)  # type: ignore[arg-type]
    kernel = [1] * (weight.dim() - 2)
    if (side == "pre") == transposed:  # the neurons of the weight's first dimension
        return gains.view(-1, 1, *kernel)
    # The second dimension counts channels within a group, and rows of the same group share them.
    rows = weight.shape[0] // groups
    return gains.view(groups, 1, -1).expand(-1, rows, -1).reshape(weight.shape[0], -1, *kernel)
