"""Spiking neurons: surrogate gradients, the leaky integrate-and-fire (LIF) neuron, and modules run over time.

In discrete time a LIF neuron integrates its input, fires where it crosses the threshold, and is reset::

    u_t = decay * v_{t-1} + I_t                       charge
    s_t = H(u_t - threshold)                          fire; H(x) = 1 where x >= 0
    v_t = u_t - threshold * s_t  |  u_t * (1 - s_t)  |  u_t      reset: subtract | zero | none

H has no useful derivative, so that of a smooth function, the surrogate, takes its place in the backward pass (Neftci,
Mostafa, Zenke 2019, arXiv 1901.09948). `decay` is snnTorch's `beta` and SpikingJelly's `1 - 1 / tau` with
`decay_input=False`; SpikingJelly's soft reset is `subtract` and its hard reset to 0 is `zero`. snnTorch by default
resets at the start of the next step; `reset_delay=False` there gives the order used here, but subtracts once more at
the next step where the potential is still above the threshold after a reset.

The membrane potential is an explicit argument and result, so nothing leaks from one batch into the next. `MultiStep`
puts neurons and ordinary layers into an `nn.Sequential` over (time, batch, ...).
"""

from interplay.primitives.neurons.lif import LIF, Reset
from interplay.primitives.neurons.multi_step import MultiStep
from interplay.primitives.neurons.spiking_neuron import SpikingNeuron, State
from interplay.primitives.neurons.surrogates import (
    ATanSurrogate,
    FastSigmoidSurrogate,
    SigmoidSurrogate,
    Surrogate,
    TriangleSurrogate,
    spike,
)

__all__ = [
    "LIF",
    "ATanSurrogate",
    "FastSigmoidSurrogate",
    "MultiStep",
    "Reset",
    "SigmoidSurrogate",
    "SpikingNeuron",
    "State",
    "Surrogate",
    "TriangleSurrogate",
    "spike",
]
