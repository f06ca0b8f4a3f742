"""Export of spiking networks to NIR, the Neuromorphic Intermediate Representation that simulators and chips read.

NIR describes neurons by differential equations, and a reader chooses the time step. Its LIF node is::

    tau dv/dt = (v_leak - v) + r I;   a spike where v > v_threshold, and then v = v_reset

One step of the forward Euler method at `dt` turns that into v <- (1 - dt / tau) v + (r dt / tau) I, which is the LIF
neuron of this package, v <- decay v + I, for tau = dt / (1 - decay), r = tau / dt and v_leak = 0. snnTorch and
SpikingJelly read and write the same discretisation, with dt = 1e-4 s.

What does not map exactly:

- NIR's reset sets the potential to `v_reset`. `reset="zero"` is that; `reset="subtract"` has no node, and is written as
  a reset to zero only on demand; `reset="none"` is refused.
- NIR fires above the threshold, this package at it: potentials that meet it exactly differ.
- NIR has no division. A layer whose output is one input divided by another is refused.

A module of one's own takes part by a method `nir_node(shape, dt)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from interplay.primitives.neurons import LIF, MultiStep, SpikingNeuron

if TYPE_CHECKING:
    import nir

__all__ = ["NIRExportable", "to_nir"]

Shape = tuple[int, ...]


@runtime_checkable
class NIRExportable(Protocol):
    """A module that knows its NIR node."""

    def nir_node(self, shape: Shape, dt: float) -> nir.NIRNode:
        """The node for inputs of `shape` (one sample, no time) at a step of `dt` seconds, or an error that says why."""
        ...


def to_nir(
    network: nn.Module, input_shape: Shape, *, dt: float = 1e-4, approximate_reset: bool = False
) -> nir.NIRGraph:
    """Write a feed-forward network as a NIR graph; `nir.write(path, graph)` saves it.

    Parameters
    ----------
    network
        A module, or an `nn.Sequential` of them, nested or in `MultiStep`: Linear, Conv2d, AvgPool2d, Flatten, LIF, and
        modules with a method `nir_node`.
    input_shape
        Shape of one sample: (features,) or (channels, height, width), without time and batch.
    dt
        Seconds a time step stands for.
    approximate_reset
        Write LIF neurons that subtract the threshold as neurons that are set to zero. After a spike they lose what
        their potential had above the threshold, so they fire less.

    Raises
    ------
    ImportError
        Package nir is missing.
    TypeError
        A module has no NIR node.
    ValueError
        A module has a node, but not with these settings.
    """
    if not (math.isfinite(dt) and dt > 0):
        raise ValueError(f"dt must be a positive number of seconds, got {dt!r}")
    package = _package()
    shape = tuple(input_shape)
    nodes: dict[str, Any] = {"input": package.Input(input_type={"input": np.array(shape)})}
    for name, module in _leaves(network):
        node = _node(package, name, module, shape, dt, approximate_reset)
        shape = _shape_after(module, shape)
        nodes[name] = node
    nodes["output"] = package.Output(output_type={"output": np.array(shape)})
    names = list(nodes)
    return package.NIRGraph(nodes=nodes, edges=list(pairwise(names)))


def _package() -> ModuleType:
    try:
        import nir
    except ImportError as error:
        raise ImportError("nir is not installed: pip install 'interplay[nir]'") from error
    return nir


def _leaves(network: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that compute, in order, with a name each."""
    if isinstance(network, nn.Sequential | MultiStep):
        for child_name, child in network.named_children():
            yield from _leaves(child, f"{name}.{child_name}" if name else child_name)
    elif not isinstance(network, nn.Identity):
        yield name or type(network).__name__, network


def _node(package: ModuleType, name: str, module: nn.Module, shape: Shape, dt: float, approximate_reset: bool) -> Any:
    if isinstance(module, NIRExportable):
        return module.nir_node(shape, dt)
    if isinstance(module, LIF):
        return _lif(package, name, module, shape, dt, approximate_reset)
    if isinstance(module, nn.Linear):
        if module.bias is None:
            return package.Linear(weight=_array(module.weight))
        return package.Affine(weight=_array(module.weight), bias=_array(module.bias))
    if isinstance(module, nn.Conv2d):
        return _convolution(package, name, module, shape)
    if isinstance(module, nn.AvgPool2d):
        if module.ceil_mode or module.divisor_override or (module.padding != 0 and not module.count_include_pad):
            raise ValueError(f"{name}: NIR's average pooling has neither ceil_mode nor another divisor; got {module}")
        pairs = (np.array(_pair(value)) for value in (module.kernel_size, module.stride, module.padding))
        return package.AvgPool2d(*pairs)
    if isinstance(module, nn.Flatten) and module.end_dim == -1:
        return package.Flatten(input_type={"input": np.array(shape)}, start_dim=0, end_dim=-1)
    raise TypeError(
        f"{name}: {type(module).__name__} has no NIR node. Batch normalisation can be folded into the layer before it; "
        "a readout over time is left out by exporting the network without it, network[:-1]"
    )


def _lif(package: ModuleType, name: str, neuron: LIF, shape: Shape, dt: float, approximate_reset: bool) -> Any:
    if neuron.smooth:
        raise ValueError(f"{name}: graded spikes (smooth=True) have no NIR node")
    if neuron.reset == "none":
        raise ValueError(f"{name}: NIR's neurons are reset by a spike; reset='none' has no node")
    if neuron.reset == "subtract" and not approximate_reset:
        raise ValueError(
            f"{name}: NIR sets the potential to a value at a spike and cannot subtract the threshold; train with "
            "reset='zero', or accept a reset to zero with approximate_reset=True"
        )
    decay = neuron.decay
    decays = np.broadcast_to(_array(decay) if isinstance(decay, Tensor) else np.float64(decay), shape)
    tau = dt / (1.0 - decays.astype(np.float64))
    zeros = np.zeros(shape)
    return package.LIF(
        tau=tau, r=tau / dt, v_leak=zeros, v_threshold=np.full(shape, float(neuron.threshold)), v_reset=zeros.copy()
    )


def _convolution(package: ModuleType, name: str, module: nn.Conv2d, shape: Shape) -> Any:
    if module.padding_mode != "zeros":
        raise ValueError(f"{name}: NIR pads with zeros only, got padding_mode={module.padding_mode!r}")
    weight = _array(module.weight)
    return package.Conv2d(
        input_shape=shape[-2:],
        weight=weight,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        groups=module.groups,
        bias=np.zeros(len(weight), weight.dtype) if module.bias is None else _array(module.bias),
    )


def _shape_after(module: nn.Module, shape: Shape) -> Shape:
    if isinstance(module, SpikingNeuron):
        return shape
    if isinstance(module, nn.Flatten):
        return (math.prod(shape),)
    like = next(module.parameters(), torch.empty(0))
    with torch.no_grad():
        return tuple(module(like.new_zeros(1, *shape)).shape[1:])


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy().copy()


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
