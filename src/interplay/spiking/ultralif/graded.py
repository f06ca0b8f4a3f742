"""Neurons whose spikes are graded values of a smooth function, and what they do once their spikes are made hard."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.neurons import SpikingNeuron

__all__ = ["GradedNeuron", "LearnedDecay", "Temperature", "hard_spikes"]

LEARNED_TEMPERATURES = (0.1, 20.0)  # where the official code clamps a learned eps


class Temperature(nn.Module):
    """The temperature eps of a layer: a fixed number, or exp(`log_eps`), learned and clamped to [0.1, 20].

    Raises
    ------
    ValueError
        `eps` is not a positive number, or is to be learned but starts outside of the clamp, where no gradient moves it.
    """

    def __init__(self, eps: float, *, learn: bool) -> None:
        super().__init__()
        if not (math.isfinite(eps) and eps > 0):
            raise ValueError(f"eps must be a positive number, got {eps!r}")
        low, high = LEARNED_TEMPERATURES
        if learn and not low <= eps <= high:
            raise ValueError(f"a learned eps must start within [{low}, {high}], got {eps!r}; or set learn_eps=False")
        self.fixed = eps
        self.log_eps = nn.Parameter(torch.tensor(float(eps)).log()) if learn else None

    def forward(self) -> float | Tensor:
        """Eps: a number if fixed, a scalar tensor if learned."""
        return self.fixed if self.log_eps is None else self.log_eps.exp().clamp(*LEARNED_TEMPERATURES)


class LearnedDecay(nn.Module):
    """The factor of a membrane potential per step, in (0, 1): a fixed number, or the sigmoid of `logit`, learned.

    Raises
    ------
    ValueError
        `decay` outside (0, 1).
    """

    def __init__(self, decay: float, *, learn: bool) -> None:
        super().__init__()
        check_decay(decay)
        self.fixed = decay
        self.logit = nn.Parameter(torch.tensor(float(decay)).logit()) if learn else None

    def forward(self) -> float | Tensor:
        """The decay: a number if fixed, a scalar tensor if learned."""
        return self.fixed if self.logit is None else self.logit.sigmoid()


class GradedNeuron(SpikingNeuron):
    """A spiking neuron that emits a smooth function of its potential, in (0, 1), where others emit 0 or 1.

    The function that is used forward is the one that is differentiated backward. With `smooth = False`, or within
    `hard_spikes`, it emits 1 where the smooth function is one half or more, else 0, and no gradient.
    """

    smooth: bool

    def __init__(self) -> None:
        super().__init__()
        self.smooth = True

    @abstractmethod
    def distance(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """How far the potential is above the threshold."""

    @abstractmethod
    def graded(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The smooth spike function, one half where `distance` is zero."""

    def fire(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Spikes, graded or hard, at this potential (before the reset)."""
        if self.smooth:
            return self.graded(potential)
        return (self.distance(potential) >= 0).to(potential.dtype)


@contextmanager
def hard_spikes(module: nn.Module) -> Iterator[None]:
    """Let every neuron within a module emit zeros and ones instead of graded values: the network as deployed.

    Membrane potentials keep their dynamics, with resets by the hard spikes.

    >>> from interplay.spiking.ultralif import UltraLIF
    >>> neuron = UltraLIF()
    >>> with hard_spikes(neuron):
    ...     spikes, _ = neuron(torch.tensor([[-3.0, 3.0]]))
    >>> spikes
    tensor([[0., 1.]])
    """
    neurons = [part for part in module.modules() if isinstance(part, SpikingNeuron) and getattr(part, "smooth", False)]
    for neuron in neurons:
        neuron.smooth = False
    try:
        yield
    finally:
        for neuron in neurons:
            neuron.smooth = True


def check_decay(decay: float) -> None:
    """Refuse a decay outside (0, 1)."""
    if isinstance(decay, Tensor) or not 0 < decay < 1:
        raise ValueError(f"decay must be a number in (0, 1), got {decay!r}")
