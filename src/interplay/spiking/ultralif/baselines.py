"""The neurons that UltraLIF is compared with: parametric and adaptive LIF, DSpike, and the control SigmaLIF.

In the official code all of them emit graded values forward as well as backward; it has no neuron with real spikes and
a surrogate gradient. `LIF` of `interplay.primitives.neurons` is both, by its setting `smooth`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.primitives.neurons import LIF, SigmoidSurrogate, State
from interplay.spiking.ultralif.graded import GradedNeuron, LearnedDecay, Temperature

__all__ = ["PLIF", "AdaLIF", "DSpike", "SigmaLIF", "soft_lif"]

OFFICIAL_LEARNED_DECAY = 1 / (1 + math.exp(-0.9))  # the official code puts 0.9 into the sigmoid: 0.711


def soft_lif(decay: float = 0.9, threshold: float = 0.5, slope: float = 10.0, *, smooth: bool = True) -> LIF:
    """The official code's "LIF": a sigmoid for a spike, reset to zero, a gradient through the reset.

    Parameters
    ----------
    decay, threshold, slope
        The leak factor in (0, 1), the threshold, and the slope of the sigmoid there.
    smooth
        False: real spikes forward, the derivative of the same sigmoid backward.
    """
    surrogate = SigmoidSurrogate(slope)
    return LIF(decay, threshold, reset="zero", surrogate=surrogate, detach_reset=False, smooth=smooth)


class _LinearMembrane(GradedNeuron):
    """V <- decay V + I;  s = graded(V);  V <- V (1 - s): leak and sum as in LIF, a smooth spike and reset."""

    def __init__(self, decay: float, threshold: float, *, learn_decay: bool) -> None:
        super().__init__()
        if not math.isfinite(threshold):
            raise ValueError(f"threshold must be a finite number, got {threshold!r}")
        self.threshold = threshold
        self.leak = LearnedDecay(decay, learn=learn_decay)

    @property
    def decay(self) -> float | Tensor:
        """The leak factor in use."""
        return self.leak()

    def distance(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Potential above the threshold."""
        return potential - self.threshold

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        """Leak, integrate, fire, reset."""
        assert isinstance(state, Tensor)
        potential = self.decay * state + current
        spikes = self.fire(potential)
        return spikes, potential * (1 - spikes)


class SigmaLIF(_LinearMembrane):
    """UltraLIF without max-plus arithmetic: a linear membrane, and s = sigmoid((V - threshold) / eps), eps learned.

    The control that tells what the soft maximum adds to a smooth spike of learned temperature.

    Parameters
    ----------
    decay, eps, learn_eps, learn_decay, threshold
        As for `UltraLIF`; a learned decay is a sigmoid.
    """

    def __init__(
        self,
        decay: float = 0.9,
        eps: float = 1.0,
        *,
        learn_eps: bool = True,
        learn_decay: bool = False,
        threshold: float = 0.0,
    ) -> None:
        super().__init__(decay, threshold, learn_decay=learn_decay)
        self.temperature = Temperature(eps, learn=learn_eps)

    @property
    def eps(self) -> float | Tensor:
        """The temperature in use."""
        return self.temperature()

    def graded(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """sigmoid((V - threshold) / eps)."""
        return torch.sigmoid(self.distance(potential) / self.eps)


class PLIF(_LinearMembrane):
    """LIF with a smooth spike and a learned decay, and where wanted a learned threshold (the official FullPLIF).

    After Fang et al. 2021, arXiv 2007.05785.

    Parameters
    ----------
    decay
        Where the decay starts; in the official code 0.711.
    threshold
        In (0, 1) if it is learned: it is a sigmoid then.
    slope
        Slope of the sigmoid at the threshold, > 0.
    learn_threshold
        Train the threshold too.
    """

    def __init__(
        self,
        decay: float = OFFICIAL_LEARNED_DECAY,
        threshold: float = 0.5,
        slope: float = 10.0,
        *,
        learn_threshold: bool = False,
    ) -> None:
        super().__init__(decay, threshold, learn_decay=True)
        if learn_threshold and not 0 < threshold < 1:
            raise ValueError(f"a learned threshold must start in (0, 1), got {threshold!r}")
        self.surrogate = SigmoidSurrogate(slope)
        self.threshold_logit = nn.Parameter(torch.tensor(float(threshold)).logit()) if learn_threshold else None

    def distance(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Potential above the threshold."""
        return potential - (self.threshold if self.threshold_logit is None else self.threshold_logit.sigmoid())

    def graded(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """sigmoid(slope (V - threshold))."""
        return self.surrogate.smooth(self.distance(potential))


class DSpike(_LinearMembrane):
    """LIF with a smooth spike of learned sharpness b (Li et al., NeurIPS 2021).

    s = (tanh(b (x - 1/2)) + tanh(b / 2)) / (2 tanh(b / 2)), clamped to [0, 1], with x = V / (2 threshold);
    b is the softplus of a parameter, clamped to [0.5, 50].

    Parameters
    ----------
    decay, learn_decay
        The leak factor; learned, the official DSpike+.
    threshold
        Potential at which the spike is one half, > 0.
    sharpness
        Start of the parameter under the softplus.
    """

    def __init__(
        self, decay: float = 0.9, threshold: float = 0.5, sharpness: float = 4.0, *, learn_decay: bool = False
    ) -> None:
        super().__init__(decay, threshold, learn_decay=learn_decay)
        if threshold <= 0:
            raise ValueError(f"threshold must be a positive number, got {threshold!r}")
        if not math.isfinite(sharpness):
            raise ValueError(f"sharpness must be a finite number, got {sharpness!r}")
        self.raw_sharpness = nn.Parameter(torch.tensor(float(sharpness)))

    @property
    def sharpness(self) -> Tensor:
        """The sharpness b in use."""
        return functional.softplus(self.raw_sharpness).clamp(0.5, 50.0)

    def graded(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The hyperbolic tangent between 0 and 2 threshold, scaled to reach from 0 to 1."""
        sharpness = self.sharpness
        height = torch.tanh(sharpness / 2)
        scaled = torch.tanh(sharpness * (potential / (2 * self.threshold) - 0.5))
        return ((scaled + height) / (2 * height)).clamp(0, 1)


class AdaLIF(GradedNeuron):
    """LIF with a smooth spike and a threshold that rises with each (Bellec et al., NeurIPS 2018).

    V <- decay V + I;  s = sigmoid(slope (V - threshold - strength b));  b <- 0.9 b + 0.1 s;  V <- V (1 - s).

    The state is the pair (V, b), each of the shape of the current.

    Parameters
    ----------
    decay, threshold, slope
        As for `soft_lif`.
    strength
        How far a spike raises the threshold.
    memory
        Factor of the adaptation b per step, in (0, 1).
    """

    def __init__(
        self,
        decay: float = 0.9,
        threshold: float = 0.5,
        slope: float = 10.0,
        *,
        strength: float = 0.1,
        memory: float = 0.9,
    ) -> None:
        super().__init__()
        if not all(map(math.isfinite, (threshold, strength))):
            raise ValueError(f"threshold and strength must be finite numbers, got {threshold!r} and {strength!r}")
        if not 0 < memory < 1:
            raise ValueError(f"memory must lie in (0, 1), got {memory!r}")
        self.leak = LearnedDecay(decay, learn=False)
        self.surrogate = SigmoidSurrogate(slope)
        self.threshold = threshold
        self.strength = strength
        self.memory = memory

    def distance(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Potential, less the adaptation, above the resting threshold."""
        return potential - self.threshold

    def graded(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """sigmoid(slope (V - threshold)), V less the adaptation."""
        return self.surrogate.smooth(self.distance(potential))

    def initial_state(self, current: Float[Tensor, "batch ..."]) -> tuple[Tensor, Tensor]:
        """Potential and adaptation, both zero."""
        return torch.zeros_like(current), torch.zeros_like(current)

    def step(self, current: Tensor, state: State) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Leak, integrate, fire at the present threshold, adapt, reset."""
        potential, adaptation = state
        potential = self.leak() * potential + current
        spikes = self.fire(potential - self.strength * adaptation)
        adaptation = self.memory * adaptation + (1 - self.memory) * spikes
        return spikes, (potential * (1 - spikes), adaptation)
