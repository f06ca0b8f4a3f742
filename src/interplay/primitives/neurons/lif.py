"""The leaky integrate-and-fire neuron."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.neurons.lif_sequence import RESETS, Dynamics, Reset, charge, lif_sequence
from interplay.primitives.neurons.spiking_neuron import SpikingNeuron, State
from interplay.primitives.neurons.surrogates import SigmoidSurrogate, Surrogate, spike

__all__ = ["LIF", "Reset"]


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neuron; its state is the membrane potential after the reset.

    Parameters
    ----------
    decay
        Factor of the membrane potential per step, in (0, 1): one number, or a tensor that broadcasts to the shape of
        one sample (a decay for each neuron).
    threshold
        Membrane potential at which the neuron fires, > 0.
    reset
        What a spike does: `subtract` the threshold, set to `zero`, or `none`.
    surrogate
        Whose derivative stands in for that of the step.
    detach_reset
        Whether the reset counts as a constant in the backward pass.
    smooth
        Emit `surrogate.smooth(u - threshold)` instead of spikes: graded values, without a mismatch of forward and
        backward pass.
    learn_decay
        Train the decay: it is the sigmoid of the parameter `decay_logit` (the parametric LIF of Fang et al. 2021,
        arXiv 2007.05785).

    Raises
    ------
    ValueError
        A decay outside (0, 1), a threshold that is not positive, an unknown reset.
    """

    fixed_decay: Tensor

    def __init__(
        self,
        decay: float | Tensor = 0.5,
        threshold: float = 1.0,
        *,
        reset: Reset = "subtract",
        surrogate: Surrogate | None = None,
        detach_reset: bool = True,
        smooth: bool = False,
        learn_decay: bool = False,
    ) -> None:
        super().__init__()
        values = torch.as_tensor(decay, dtype=None if isinstance(decay, Tensor) else torch.get_default_dtype())
        if not (values.is_floating_point() and bool(((values > 0) & (values < 1)).all())):
            raise ValueError(f"decay must lie in (0, 1), got {decay!r}")
        if not (math.isfinite(threshold) and threshold > 0):
            raise ValueError(f"threshold must be a positive number, got {threshold!r}")
        if reset not in RESETS:
            raise ValueError(f"reset must be one of {', '.join(RESETS)}, got {reset!r}")
        self.threshold = threshold
        self.reset = reset
        self.surrogate = surrogate or SigmoidSurrogate()
        self.detach_reset = detach_reset
        self.smooth = smooth
        self._decay: float | Tensor | None = decay
        if learn_decay:
            self.decay_logit = nn.Parameter(values.detach().logit())
        elif isinstance(decay, Tensor):
            self._decay = None
            self.register_buffer("fixed_decay", values.detach().clone())

    @property
    def decay(self) -> float | Tensor:
        """Factor of the membrane potential per step."""
        if hasattr(self, "decay_logit"):
            return self.decay_logit.sigmoid()
        return self.fixed_decay if self._decay is None else self._decay

    def fire(self, membrane_potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Spikes at this membrane potential (before the reset)."""
        distance = membrane_potential - self.threshold
        return self.surrogate.smooth(distance) if self.smooth else spike(distance, self.surrogate)

    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        """Charge, fire, reset."""
        assert isinstance(state, Tensor)
        charged = charge(state, current, self._decay_for(current))
        spikes = self.fire(charged)
        fired = spikes.detach() if self.detach_reset else spikes
        if self.reset == "subtract":
            return spikes, charged - self.threshold * fired
        return spikes, charged * (1 - fired) if self.reset == "zero" else charged

    def _run(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        assert isinstance(state, Tensor)
        dynamics = Dynamics(self.threshold, self.reset, self.surrogate, self.detach_reset, self.smooth)
        return lif_sequence(current, state, self._decay_for(current), dynamics)

    def _decay_for(self, current: Tensor) -> float | Tensor:
        decay = self.decay
        return decay.to(current.dtype) if isinstance(decay, Tensor) else decay

    def extra_repr(self) -> str:
        """Settings, for `print(module)`."""
        decay = "learned" if hasattr(self, "decay_logit") else self.decay if self._decay is not None else "per neuron"
        return f"decay={decay}, threshold={self.threshold}, reset={self.reset}, surrogate={self.surrogate}"
