"""A spiking classifier around any neuron, the rate coder of static images, and the penalty on spikes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.neurons import MultiStep, SpikingNeuron

__all__ = ["SpikingClassifier", "rate_code", "sparsity_penalty"]


def rate_code(
    rates: Float[Tensor, "batch ..."], steps: int, *, generator: torch.Generator, clamp: bool = False
) -> Float[Tensor, "time batch ..."]:
    """Random spikes, one in every step with the probability given: (batch, ...) to (time, batch, ...).

    Parameters
    ----------
    rates
        Probabilities of a spike per step, in [0, 1]; floating point.
    steps
        Number of time steps, one or more.
    generator
        Source of the randomness, on the device of `rates`.
    clamp
        Bring rates outside of [0, 1] there, instead of refusing them.

    Raises
    ------
    TypeError
        `rates` is not floating point.
    ValueError
        A rate outside of [0, 1], or no step.
    """
    if not rates.is_floating_point():
        raise TypeError(f"rates must be floating point in [0, 1], got {rates.dtype}; call .float() and scale them")
    if steps < 1:
        raise ValueError(f"steps must be one or more, got {steps}")
    if clamp:
        rates = rates.clamp(0, 1)
    elif rates.numel() and not (rates.min() >= 0 and rates.max() <= 1):
        raise ValueError(
            f"rates must lie in [0, 1], got {rates.min():g} to {rates.max():g}; scale them or set clamp=True"
        )
    draw = torch.rand((steps, *rates.shape), generator=generator, device=rates.device, dtype=rates.dtype)
    return (draw < rates).to(rates.dtype)


def sparsity_penalty(spikes: Sequence[Float[Tensor, "..."]], weight: float) -> Float[Tensor, ""]:
    """`weight` times the mean spike, averaged over layers of whatever size: a term to add to a loss."""
    if not spikes:
        raise ValueError("spikes must hold the spikes of at least one layer")
    return weight * torch.stack([layer.mean() for layer in spikes]).mean()


class SpikingClassifier(nn.Module):
    """Linear layers with neurons between them; the logits are those of the last one, averaged over time.

    Parameters
    ----------
    inputs, hidden, classes
        Numbers of input channels, of units in each hidden layer, and of classes.
    neuron
        Makes the neuron of one hidden layer from its number of units.
    batch_norm
        Normalise the current of every hidden layer over batch and time.
    residual
        Add the spikes of a hidden layer to those of the next; layers must be of one size.

    Raises
    ------
    ValueError
        A number that is not positive, no hidden layer, or sizes that cannot be added.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        classes: int,
        neuron: Callable[[int], SpikingNeuron],
        *,
        batch_norm: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if not hidden or min(inputs, classes, *hidden) < 1:
            raise ValueError(
                f"inputs, classes and one or more hidden sizes must be positive, got {inputs}, {classes}, {hidden!r}"
            )
        if residual and len(set(hidden)) > 1:
            raise ValueError(f"residual connections need hidden layers of one size, got {hidden!r}")
        self.residual = residual
        self.currents = nn.ModuleList()
        self.neurons = nn.ModuleList()
        for before, units in zip((inputs, *hidden[:-1]), hidden, strict=True):
            layers = [nn.Linear(before, units), *([nn.BatchNorm1d(units)] if batch_norm else [])]
            self.currents.append(MultiStep(nn.Sequential(*layers)))
            self.neurons.append(MultiStep(neuron(units)))
        self.readout = nn.Linear(hidden[-1], classes)

    def spikes(self, x: Float[Tensor, "time batch channel"]) -> list[Tensor]:
        """Spikes of every hidden layer, (time, batch, unit) each."""
        layers: list[Tensor] = []
        for current, neuron in zip(self.currents, self.neurons, strict=True):
            fired = neuron(current(x))
            layers.append(fired)
            x = fired + x if self.residual and len(layers) > 1 else fired
        return layers

    def read_out(self, spikes: Sequence[Tensor]) -> Float[Tensor, "batch class"]:
        """Logits of given spikes."""
        last: Tensor = sum(spikes) if self.residual else spikes[-1]
        # The mean over time goes first: the readout is linear, and then works on a batch instead of a sequence.
        return self.readout(last.mean(0))

    def forward(self, x: Float[Tensor, "time batch channel"]) -> Float[Tensor, "batch class"]:
        """Logits of event counts or spikes (time, batch, channel)."""
        return self.read_out(self.spikes(x))
