"""UltraLIF: the leaky integrate-and-fire neuron with its sum replaced by a soft maximum."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.neurons import State
from interplay.spiking.ultralif.fused import UltraSequence
from interplay.spiking.ultralif.graded import GradedNeuron, Temperature, check_decay
from interplay.spiking.ultralif.maxplus import soft_maximum_of_two

__all__ = ["UltraLIF"]

LEARNED_SPIKE_SCALES = (0.1, 50.0)  # where the official code clamps a learned spike scale


class UltraLIF(GradedNeuron):
    """Leaky integrate-and-fire neuron in max-plus arithmetic at a temperature.

    V <- LSE_eps(V + log(decay), I);  s = sigmoid((V - threshold) / eps);  V <- V (1 - s).

    The state is the potential V after the reset, of the shape of the current. Spikes are graded values in (0, 1);
    `hard_spikes` turns them into zeros and ones.

    Parameters
    ----------
    decay
        The leak factor, the paper's tau, in (0, 1). It enters as log(decay), added to the potential.
    eps
        The temperature, of the soft maximum and of the spike.
    learn_eps
        Train the temperature, one for the layer, clamped to [0.1, 20].
    learn_decay
        Train log(decay), one for the layer: the paper's UltraPLIF.
    decay_range
        Clamp a learned decay to this range within (0, 1). None, as in the official code: it is not clamped and
        may exceed one, so that the potential grows by itself. The property `decay` shows what is in use.
    spike_scale
        Fire by sigmoid(scale (V - threshold)) instead, the scale trained from this value and clamped to [0.1, 50]: the
        official code's disentangled variants.
    threshold
        Zero in the official library, one in its ablation on eps.

    Raises
    ------
    ValueError
        A number outside of its range.
    """

    def __init__(
        self,
        decay: float = 0.9,
        eps: float = 1.0,
        *,
        learn_eps: bool = True,
        learn_decay: bool = False,
        decay_range: tuple[float, float] | None = None,
        spike_scale: float | None = None,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        check_decay(decay)
        if decay_range is not None and not 0 < decay_range[0] <= decay <= decay_range[1] < 1:
            raise ValueError(f"decay_range must be (low, high) with 0 < low <= decay <= high < 1, got {decay_range!r}")
        low, high = LEARNED_SPIKE_SCALES
        if spike_scale is not None and not low <= spike_scale <= high:
            raise ValueError(f"spike_scale must lie within [{low}, {high}], got {spike_scale!r}")
        if not math.isfinite(threshold):
            raise ValueError(f"threshold must be a finite number, got {threshold!r}")
        self.temperature = Temperature(eps, learn=learn_eps)
        self.threshold = threshold
        self.decay_range = decay_range
        self.fixed_decay = decay
        self.learned_log_decay = nn.Parameter(torch.tensor(float(decay)).log()) if learn_decay else None
        self.log_spike_scale = None if spike_scale is None else nn.Parameter(torch.tensor(float(spike_scale)).log())

    @property
    def eps(self) -> float | Tensor:
        """The temperature in use."""
        return self.temperature()

    @property
    def log_decay(self) -> float | Tensor:
        """What is added to the potential before every step."""
        if self.learned_log_decay is None:
            return math.log(self.fixed_decay)
        if self.decay_range is None:
            return self.learned_log_decay
        return self.learned_log_decay.clamp(*map(math.log, self.decay_range))

    @property
    def decay(self) -> float | Tensor:
        """The leak factor in use, the paper's tau."""
        return self.fixed_decay if self.learned_log_decay is None else torch.exp(torch.as_tensor(self.log_decay))

    @property
    def spike_scale(self) -> float | Tensor:
        """Slope of the spike function's argument: 1 / eps unless it has a scale of its own."""
        if self.log_spike_scale is None:
            return 1 / self.eps
        return self.log_spike_scale.exp().clamp(*LEARNED_SPIKE_SCALES)

    def distance(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Potential above the threshold."""
        return potential - self.threshold

    def graded(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """sigmoid(scale (V - threshold)), the scale being 1 / eps by default."""
        return torch.sigmoid(self.distance(potential) * self.spike_scale)

    def step(self, current: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Soft maximum of what is left and what arrives, fire, reset."""
        assert isinstance(state, Tensor)
        potential = soft_maximum_of_two(state + self.log_decay, current, self.eps)
        spikes = self.fire(potential)
        return spikes, potential * (1 - spikes)

    def _run(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.smooth:
            return super()._run(current, state)
        assert isinstance(state, Tensor)
        dtype = current.dtype
        wide = torch.promote_types(dtype, torch.float32)

        def scalar(value: float | Tensor) -> Tensor:
            return torch.as_tensor(value, dtype=wide, device=current.device)

        eps = scalar(self.eps)
        gain = None if self.log_spike_scale is None else scalar(self.spike_scale) * eps
        offset = None if self.threshold == 0 else self.threshold / eps
        spikes, last, _, _ = UltraSequence.apply(  # type: ignore[no-untyped-call]
            current.to(wide), state.to(wide) / eps, 1 / eps, scalar(self.log_decay) / eps, gain, offset
        )
        return spikes.to(dtype), (last * eps).to(dtype)

    def extra_repr(self) -> str:
        """Settings, for `print(module)`."""
        decay = "learned" if self.learned_log_decay is not None else self.fixed_decay
        eps = "learned" if self.temperature.log_eps is not None else self.temperature.fixed
        return f"decay={decay}, eps={eps}, threshold={self.threshold}"
