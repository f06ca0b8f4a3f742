"""The conditions of the study: networks with E-I layers, their ablations, and the baselines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.neurons import LIF, MultiStep
from interplay.primitives.randomness import initialised_from
from interplay.spiking.ei_snn import EIProp, ei_mlp, ei_vgg, sew_ei_resnet18
from interplay.spiking.ei_snn.architectures import Circuit
from interplay.spiking.ei_snn.layer import EILayer

Architecture = Literal["mlp", "vgg", "resnet"]


@dataclass(frozen=True)
class Condition:
    """What makes a network of it."""

    circuit: Circuit
    settings: dict[str, Any] = field(default_factory=dict)
    unit_variance: bool = False
    wide_weights: bool = False


CONDITIONS = {
    "E-I": Condition("ei"),
    "no gradient scale": Condition("ei", {"ei_prop": EIProp(scale_gradient=False)}),
    "no straight-through": Condition("ei", {"ei_prop": EIProp(straight_through=False, epsilon=1e-5)}),
    "constant init": Condition("ei", {"ei_init": False}),
    "constant init, 1/√d": Condition("ei", {"ei_init": False}, wide_weights=True),
    "batch norm": Condition("batch-norm"),
    "no norm": Condition("plain"),
    "no norm, LSUV": Condition("plain", unit_variance=True),
}


class LayerActivity(NamedTuple):
    """A hidden layer on one batch: the current into its neurons, and how often they fire per step."""

    mean: float
    deviation: float
    rate: float


def build(
    condition: Condition,
    architecture: Architecture,
    depth: int,
    *,
    width: int,
    time_steps: int,
    classes: int,
    batch: Float[Tensor, "batch channels height width"],
    generator: torch.Generator,
) -> nn.Module:
    """A network of this condition, initialised by `batch` where it wants that."""
    settings: dict[str, Any] = {"time_steps": time_steps, "circuit": condition.circuit, "out_features": classes}
    settings |= condition.settings
    with initialised_from(generator):
        if architecture == "mlp":
            network = ei_mlp(depth, in_features=batch[0].numel(), hidden=[width] * (depth - 1), **settings)
        elif architecture == "vgg":
            network = ei_vgg(depth, in_channels=batch.shape[1], image_size=batch.shape[-1], **settings)
        else:
            network = sew_ei_resnet18(in_channels=batch.shape[1], **settings)
        network.to(batch.device)
        if condition.unit_variance:
            unit_variance_(network, batch)
    with torch.no_grad():
        for layer in ei_layers(network) if condition.wide_weights else ():
            layer.weight.mul_(layer.fan_in**0.5)
        if condition.circuit == "ei":
            network(batch)
    return network


@torch.no_grad()
def unit_variance_(network: nn.Module, batch: Tensor) -> None:
    """LSUV (Mishkin and Matas 2016): orthogonal weights, layer by layer scaled to an output variance of one."""

    def scale(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        deviation = output.std()
        layer.weight.div_(deviation)
        return output / deviation

    handles = []
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
            handles.append(layer.register_forward_hook(scale))
    network(batch)
    for handle in handles:
        handle.remove()


@contextmanager
def _recorded_neurons(network: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    recorded: list[tuple[Tensor, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda _, inputs, output: recorded.append((inputs[0], output)))
        for module in network.modules()
        if isinstance(module, MultiStep) and isinstance(module.module, LIF)
    ]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def activity(network: nn.Module, batch: Tensor) -> list[LayerActivity]:
    """The hidden layers on a batch, first to last."""
    with _recorded_neurons(network) as recorded:
        network(batch)
    return [
        LayerActivity(current.mean().item(), current.std().item(), spikes.mean().item()) for current, spikes in recorded
    ]


@torch.no_grad()
def spikes_per_image(network: nn.Module, images: Tensor) -> float:
    """All spikes of all hidden neurons over all time steps, for one image on average."""
    with _recorded_neurons(network) as recorded:
        network(images)
    return sum(spikes.sum().item() for _, spikes in recorded) / len(images)


def ei_layers(network: nn.Module) -> list[EILayer]:
    """The E-I layers, first to last."""
    return [module for module in network.modules() if isinstance(module, EILayer)]


def smallest_constrained(network: nn.Module) -> float:
    """The least of all weights and gains that must not be negative."""
    constrained = (
        parameter for layer in ei_layers(network) for name, parameter in layer.named_parameters() if name != "bias"
    )
    return min(parameter.min().item() for parameter in constrained)


@torch.no_grad()
def balance(network: nn.Module, batch: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Excitatory and subtractive current of every hidden E-I layer on a batch."""
    found: list[tuple[Tensor, Tensor]] = []
    handles = [
        layer.register_forward_pre_hook(lambda layer, inputs: found.append(layer.currents(inputs[0])[:2]))
        for layer in ei_layers(network)[:-1]
    ]
    network(batch)
    for handle in handles:
        handle.remove()
    return found
