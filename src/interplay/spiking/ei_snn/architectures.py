"""The networks of the paper, with E-I layers or, for comparison, with batch normalisation or without any.

All take images (batch, channels, height, width) that are shown at every time step (direct coding), or with
`time_steps=None` sequences (time, batch, ...), and return logits (batch, classes), the mean over time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.neurons import LIF, MultiStep, SpikingNeuron
from interplay.spiking.ei_snn.layer import EILayer
from interplay.spiking.ei_snn.layers import EIConv2d, EILinear

__all__ = ["Circuit", "DirectCoding", "ei_mlp", "ei_vgg", "sew_ei_resnet18"]

Circuit = Literal["ei", "batch-norm", "plain"]
NeuronFactory = Callable[[], SpikingNeuron]

MLP_HIDDEN = {
    4: (500, 500, 300),
    8: (500, 500, 300, 300, 300, 100, 100),
    12: (500,) * 4 + (300,) * 4 + (100,) * 3,
    16: (500,) * 5 + (300,) * 5 + (100,) * 5,
}
# Channels of each stage; average pooling halves the image after every stage.
VGG_STAGES = {
    8: ((64,), (128,), (256,), (512,), (512,)),
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


class DirectCoding(nn.Sequential):
    """Show an analog image at every time step: its current is the same at each, and is computed once.

    Parameters
    ----------
    *layers
        The first layers of a network, without time, up to the first neurons.
    time_steps
        T, how long the image is shown.
    """

    def __init__(self, *layers: nn.Module, time_steps: int) -> None:
        super().__init__(*layers)
        if time_steps < 1:
            raise ValueError(f"time_steps must be 1 or more, got {time_steps}")
        self.time_steps = time_steps

    def forward(self, images: Float[Tensor, "batch ..."]) -> Float[Tensor, "time batch ..."]:
        """Currents (time, batch, ...); a view, all steps share their memory."""
        current = super().forward(images)
        return current.expand(self.time_steps, *current.shape)

    def extra_repr(self) -> str:
        return f"time_steps={self.time_steps}"


class MeanOverTime(nn.Module):
    """Logits of a sequence (time, batch, classes): their mean over time."""

    def forward(self, sequence: Float[Tensor, "time batch classes"]) -> Float[Tensor, "batch classes"]:
        return sequence.mean(0)


class SpikeElementWise(nn.Module):
    """A residual block that adds spikes to spikes (SEW "ADD", Fang et al. 2021): body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, spikes: Float[Tensor, "time batch ..."]) -> Float[Tensor, "time batch ..."]:
        return self.body(spikes) + self.shortcut(spikes)


@dataclass
class _Builder:
    """Makes layers of one kind, names them in order, and lets the first one meet the image once."""

    circuit: Circuit
    time_steps: int | None
    neuron: NeuronFactory
    settings: dict[str, Any]
    made: int = field(default=0)

    def __post_init__(self) -> None:
        if self.circuit not in get_args(Circuit):
            raise ValueError(f"circuit must be one of {', '.join(get_args(Circuit))}; got {self.circuit!r}")
        if self.circuit != "ei" and self.settings:
            raise ValueError(f"{', '.join(self.settings)}: only for circuit='ei', not for {self.circuit!r}")

    def linear(self, inputs: int, outputs: int, *, output_layer: bool = False) -> nn.Module:
        if self.circuit == "ei":
            ratio = self.settings.get("ei_ratio", 4)
            if output_layer:  # two or three classes still have one inhibitory unit
                ratio = min(ratio, outputs)
            layer: nn.Module = self._ei(EILinear, inputs, outputs, output_layer=output_layer, ei_ratio=ratio)
        elif self.circuit == "plain" or output_layer:
            layer = nn.Linear(inputs, outputs)
        else:
            layer = nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs))
        return self._over_time(layer)

    def convolution(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Module:
        padding = kernel // 2
        if self.circuit == "ei":
            layer: nn.Module = self._ei(EIConv2d, inputs, outputs, kernel, stride, padding)
        elif self.circuit == "plain":
            layer = nn.Conv2d(inputs, outputs, kernel, stride, padding)
        else:
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
            layer = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        return self._over_time(layer)

    def spiking(self, layer: nn.Module) -> list[nn.Module]:
        return [layer, MultiStep(self.neuron())]

    def _ei(self, kind: Callable[..., EILayer], *sizes: int, **settings: Any) -> EILayer:
        return kind(*sizes, name=f"layer {self.made + 1}", **{**self.settings, **settings})

    def _over_time(self, layer: nn.Module) -> nn.Module:
        self.made += 1
        if self.made == 1 and self.time_steps is not None:
            return DirectCoding(layer, time_steps=self.time_steps)
        return MultiStep(layer)


def ei_mlp(
    depth: int = 8,
    *,
    in_features: int = 784,
    out_features: int = 10,
    hidden: Sequence[int] | None = None,
    time_steps: int | None = 4,
    circuit: Circuit = "ei",
    neuron: NeuronFactory = LIF,
    **settings: Any,
) -> nn.Sequential:
    """A multi-layer perceptron of spiking neurons.

    Parameters
    ----------
    depth
        Layers with weights: 4, 8, 12 or 16, as in the paper. Any other with `hidden`.
    in_features, out_features
        Inputs (images are flattened) and classes.
    hidden
        Widths of the `depth - 1` hidden layers; None: the paper's.
    time_steps
        How long an image is shown; None: inputs are sequences (time, batch, ...).
    circuit
        `ei`; or the baselines `batch-norm` (`Linear` and `BatchNorm1d`) and `plain` (`Linear` alone).
    neuron
        Makes the neurons of a layer; default LIF with a time constant of two steps.
    **settings
        For `EILinear`: ei_ratio, ei_init, ei_prop, check, generator, device, dtype.
    """
    if hidden is None:
        hidden = _published(MLP_HIDDEN, depth, "hidden=(...) sets the widths of another depth")
    if len(hidden) != depth - 1:
        raise ValueError(f"hidden must name the widths of {depth - 1} layers for depth {depth}, got {len(hidden)}")
    build = _Builder(circuit, time_steps, neuron, settings)
    layers: list[nn.Module] = [nn.Flatten(1 if time_steps is not None else 2)]
    sizes = (in_features, *hidden)
    for inputs, outputs in pairwise(sizes):
        layers += build.spiking(build.linear(inputs, outputs))
    head = build.linear(sizes[-1], out_features, output_layer=True)
    return nn.Sequential(*layers, head, MeanOverTime())


def ei_vgg(
    depth: int = 16,
    *,
    in_channels: int = 3,
    out_features: int = 10,
    image_size: int = 32,
    time_steps: int | None = 4,
    circuit: Circuit = "ei",
    neuron: NeuronFactory = LIF,
    **settings: Any,
) -> nn.Sequential:
    """VGG of spiking neurons: 3 x 3 convolutions, average pooling, one linear layer as head.

    Parameters
    ----------
    depth
        8, 11, 16 or 19: the paper's stages. (The depths 8 and 11 count layers that the light head does not have.)
    in_channels, image_size
        Channels and side of the square images; the side must be a multiple of 32.
    out_features, time_steps, circuit, neuron, **settings
        As for `ei_mlp`.
    """
    if image_size < 32 or image_size % 32:
        raise ValueError(f"image_size must be a multiple of 32, since five stages halve it; got {image_size}")
    stages = _published(VGG_STAGES, depth)
    build = _Builder(circuit, time_steps, neuron, settings)
    layers: list[nn.Module] = []
    channels = in_channels
    for stage in stages:
        for outputs in stage:
            layers += build.spiking(build.convolution(channels, outputs))
            channels = outputs
        layers.append(MultiStep(nn.AvgPool2d(2)))
    features = channels * (image_size // 32) ** 2
    head = build.linear(features, out_features, output_layer=True)
    return nn.Sequential(*layers, nn.Flatten(2), head, MeanOverTime())


def sew_ei_resnet18(
    *,
    in_channels: int = 3,
    out_features: int = 10,
    widths: Sequence[int] = (64, 128, 256, 512),
    time_steps: int | None = 4,
    circuit: Circuit = "ei",
    neuron: NeuronFactory = LIF,
    **settings: Any,
) -> nn.Sequential:
    """ResNet-18 of spiking neurons whose blocks add spikes to spikes, for small images (no pooling after the stem).

    Parameters
    ----------
    in_channels, out_features, time_steps, circuit, neuron, **settings
        As for `ei_vgg`.
    widths
        Channels of the four stages of two blocks each.
    """
    build = _Builder(circuit, time_steps, neuron, settings)
    layers = build.spiking(build.convolution(in_channels, widths[0]))
    channels = widths[0]
    for stage, width in enumerate(widths):
        for stride in (1 if stage == 0 else 2, 1):
            body = build.spiking(build.convolution(channels, width, 3, stride))
            body += build.spiking(build.convolution(width, width))
            shortcut: list[nn.Module] = []
            if stride != 1 or channels != width:
                shortcut = build.spiking(build.convolution(channels, width, 1, stride))
            layers.append(SpikeElementWise(nn.Sequential(*body), nn.Sequential(*shortcut)))
            channels = width
    head = build.linear(channels, out_features, output_layer=True)
    return nn.Sequential(*layers, MultiStep(nn.AdaptiveAvgPool2d(1)), nn.Flatten(2), head, MeanOverTime())


def _published(configurations: dict[int, Any], depth: int, otherwise: str = "") -> Any:
    if depth not in configurations:
        known = ", ".join(map(str, configurations))
        raise ValueError(f"depth must be one of {known}; got {depth}" + (f" ({otherwise})" if otherwise else ""))
    return configurations[depth]
