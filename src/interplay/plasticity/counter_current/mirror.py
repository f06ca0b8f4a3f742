"""The feedback layers that run against the layers of a given network."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["CONVOLUTIONS", "Reshape", "Stage", "mirrored_stages"]

_PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (*_PLAIN.values(), *_TRANSPOSED)
WEIGHTED = (nn.Linear, *CONVOLUTIONS)
NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
RESHAPING = (nn.Flatten, nn.Unflatten)
DROPOUT = (nn.modules.dropout._DropoutNd, nn.Identity)

Shape = tuple[int, ...]


class Reshape(nn.Module):
    """Give every sample this shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) to (batch, *shape)."""
        return x.reshape(len(x), *self.shape)

    def extra_repr(self) -> str:
        """The shape."""
        return str(self.shape)


class Stage(NamedTuple):
    """One level of both networks, activations included."""

    forward: nn.Module
    feedback: nn.Module


@dataclass(frozen=True)
class _Layer:
    """A module of the network, its name there, and the shapes of one sample before and behind it."""

    name: str
    module: nn.Module
    before: Shape
    behind: Shape

    def __str__(self) -> str:
        return f"layer {self.name!r} ({self.module}), {self.before} to {self.behind},"


def mirrored_stages(model: nn.Sequential, input_shape: Sequence[int] | None) -> list[Stage]:
    """Cut a network into levels and build the feedback layer of each. See `CounterCurrentNet.from_sequential`."""
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"model must be a torch.nn.Sequential, got {type(model).__name__}; pass pairs for other shapes")
    layers = _traced(model, input_shape)
    cuts = _cut(layers)
    stages: list[Stage] = []
    for position, stage in enumerate(cuts):
        below = cuts[position - 1] if position else []
        forward = nn.Sequential(*(layer.module for layer in stage))
        feedback = nn.Sequential(*_reversed(stage), *_tail(below))
        _check_mirrored(stage, feedback)
        stages.append(Stage(_alone(forward), _alone(feedback)))
    return stages


def _traced(model: nn.Sequential, input_shape: Sequence[int] | None) -> list[_Layer]:
    modules = list(_leaves(model, ""))
    for name, module in modules:
        _check_known(name, module)
    if not any(isinstance(module, WEIGHTED) for _, module in modules):
        raise ValueError("model has no linear or convolutional layer, and nothing to learn")
    if input_shape is None:
        first = modules[0][1]
        if not isinstance(first, nn.Linear):
            raise ValueError(
                f"input_shape is needed, since the model begins with {type(first).__name__}; give the shape of one "
                "sample, such as (1, 28, 28)"
            )
        input_shape = (first.in_features,)
    layers = []
    shape = tuple(input_shape)
    for name, module in modules:
        behind = _shape_behind(f"layer {name!r} ({module})", module, shape)
        layers.append(_Layer(name, module, shape, behind))
        kept = not isinstance(module, (*WEIGHTED, *RESHAPING, nn.Upsample)) and not _is_pooling(module)
        if kept and behind != shape:
            raise ValueError(
                f"layer {name!r} ({module}) turns {shape} into {behind}: no feedback layer is known for it"
            )
        shape = behind
    return layers


def _leaves(model: nn.Sequential, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_children():
        if isinstance(module, nn.Sequential):
            yield from _leaves(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module


def _check_known(name: str, module: nn.Module) -> None:
    if isinstance(module, (*WEIGHTED, *NORMALISATIONS, *RESHAPING, *DROPOUT, nn.Upsample)) or _is_pooling(module):
        return
    if next(module.children(), None) is not None:
        raise ValueError(
            f"layer {name!r} ({type(module).__name__}) has layers inside whose order is not known; only nested "
            "Sequentials are opened: build its CounterCurrentPair yourself"
        )
    if [*module.parameters(), *module.buffers()]:
        raise ValueError(
            f"layer {name!r} ({module}) has a state and is no linear, convolutional or normalisation layer: it cannot "
            "be mirrored; take an activation without parameters, such as ELU, or build its CounterCurrentPair yourself"
        )


def _is_pooling(module: nn.Module) -> bool:
    return type(module).__module__ == nn.MaxPool2d.__module__ and "Unpool" not in type(module).__name__


@torch.no_grad()
def _shape_behind(what: str, module: nn.Module, shape: Shape) -> Shape:
    """Run a copy without memory on a batch of two."""
    try:
        ghost = copy.deepcopy(module).to("meta").eval()
        behind = ghost(torch.empty(2, *shape, device="meta", dtype=_dtype(module)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"{what} does not fit samples of shape {shape}: {error}") from error
    if not isinstance(behind, Tensor) or len(behind) != 2:
        raise ValueError(f"{what} must return one tensor with the batch first")
    return tuple(behind.shape[1:])


def _dtype(module: nn.Module) -> torch.dtype:
    return next((tensor.dtype for tensor in module.parameters()), torch.get_default_dtype())


def _cut(layers: list[_Layer]) -> list[list[_Layer]]:
    """Levels: each has one weighted layer. What enlarges or unfolds an image goes with the layer behind it."""
    cuts: list[list[_Layer]] = [[]]
    ahead: list[_Layer] = []
    weighted = False
    for layer in layers:
        if isinstance(layer.module, (nn.Upsample, nn.Unflatten)):
            ahead.append(layer)
            continue
        if isinstance(layer.module, WEIGHTED):
            if weighted:
                cuts.append([])
            weighted = True
        cuts[-1] += [*ahead, layer]
        ahead = []
    cuts[-1] += ahead
    return cuts


def _reversed(stage: list[_Layer]) -> Iterator[nn.Module]:
    """From the shape behind the stage to the shape before it."""
    position = len(stage)
    while position:
        position -= 1
        module, before, behind = stage[position].module, stage[position].before, stage[position].behind
        if isinstance(module, nn.Linear):
            yield _linear(module)
        elif isinstance(module, CONVOLUTIONS):
            # The stride of the feedback convolution undoes what enlarges the image just before the forward one.
            while position and isinstance(stage[position - 1].module, nn.Upsample):
                position -= 1
                before = stage[position].before
            yield from _convolution(module, behind[1:], before[1:])
        elif before != behind:
            yield Reshape(before) if isinstance(module, RESHAPING) else nn.Upsample(size=before[1:])


def _linear(forward: nn.Linear) -> nn.Linear:
    feedback = nn.Linear(
        forward.out_features, forward.in_features, forward.bias is not None, **_placed_like(forward.weight)
    )
    return _without_offset(feedback)


def _convolution(forward: nn.Module, shape: Shape, wanted: Shape) -> Iterator[nn.Module]:
    """A convolution from images of one size to images of another."""
    kernel = [side + 1 - side % 2 for side in forward.kernel_size]
    shrinks = all(one >= other for one, other in zip(shape, wanted, strict=True))
    strides = [math.ceil(one / other) if shrinks else 1 for one, other in zip(shape, wanted, strict=True)]
    if not shrinks:
        yield nn.Upsample(size=wanted)
    feedback = _PLAIN[len(shape)](
        forward.out_channels,
        forward.in_channels,
        tuple(kernel),
        stride=tuple(strides),
        padding=tuple(d * (side - 1) // 2 for d, side in zip(forward.dilation, kernel, strict=True)),
        dilation=forward.dilation,
        groups=forward.groups,
        bias=forward.bias is not None,
        **_placed_like(forward.weight),
    )
    yield _without_offset(feedback)
    if shrinks and wanted != tuple(math.ceil(one / stride) for one, stride in zip(shape, strides, strict=True)):
        yield nn.Upsample(size=wanted)


def _without_offset(feedback: nn.Module) -> nn.Module:
    if feedback.bias is not None:
        nn.init.zeros_(feedback.bias)
    return feedback


def _placed_like(weight: Tensor) -> dict[str, object]:
    return {"device": weight.device, "dtype": weight.dtype}


def _tail(stage: list[_Layer]) -> Iterator[nn.Module]:
    """Normalisations and activations behind a stage's weighted layer, for the signal that arrives at its level."""
    first = next((position for position, layer in enumerate(stage) if isinstance(layer.module, WEIGHTED)), len(stage))
    for position, layer in enumerate(stage[first + 1 :], first + 1):
        module = layer.module
        if _is_pooling(module) or isinstance(module, (*RESHAPING, *DROPOUT, nn.Upsample)):
            continue
        module = copy.deepcopy(module)
        if isinstance(module, NORMALISATIONS):
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            flattened = [later for later in stage[position:] if isinstance(later.module, RESHAPING)]
            if flattened and flattened[0].before != stage[-1].behind:
                module = nn.Sequential(Reshape(flattened[0].before), module, Reshape(stage[-1].behind))
        yield module


def _check_mirrored(stage: list[_Layer], feedback: nn.Sequential) -> None:
    """The feedback layer leads from where the stage ends to where it begins."""
    wanted, given = stage[0].before, stage[-1].behind
    layer = next(layer for layer in stage if isinstance(layer.module, WEIGHTED))
    found = _shape_behind(f"the feedback of layer {layer.name!r}", feedback, given)
    if found != wanted:
        raise ValueError(f"{layer} cannot be mirrored: the feedback layer leads from {given} to {found}, not {wanted}")


def _alone(modules: nn.Sequential) -> nn.Module:
    return modules[0] if len(modules) == 1 else modules
