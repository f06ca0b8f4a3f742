"""UltraLIF: fully differentiable spiking neurons by ultradiscretization and max-plus algebra (`ultralif`).

=============  ======================================================================================================
family         spiking
paper          Miñoza. "UltraLIF: Fully Differentiable Spiking Neural Networks via Ultradiscretization and Max-Plus
               Algebra", ICML 2026, arXiv 2602.11206
official code  https://github.com/JomaMinoza/UltraLIF
interface      `SpikingNeuron`: `neuron(current, state)` for a step, as in snnTorch; `neuron.sequence(current)` for all
               steps, or `MultiStep(neuron)` within `nn.Sequential`, as SpikingJelly's multi-step layers
input          current, float, (batch, ...) for a step, (time, batch, ...) for a sequence; units last for `UltraDLIF`
output         graded spikes in (0, 1) of the shape of the current, and the state; zeros and ones in `hard_spikes`
learnable      the temperature eps and, where wanted, the decay and the scale of the spike: one scalar each per layer
random         no; the coder `rate_code` takes a generator
=============  ======================================================================================================

A leaky integrate-and-fire neuron adds what is left of its potential to what arrives, and fires at a threshold.
Ultradiscretization puts a soft maximum in place of the sum and a sigmoid in place of the threshold, both at one
temperature eps; as eps goes to zero both become hard. I is the current, V the potential, zero at first:

(1)  LSE_eps(a, b, ...) = eps log(exp(a / eps) + exp(b / eps) + ...)
(2)  V <- LSE_eps(V + log(decay), I)                                                                        UltraLIF
(3)  V <- decay V + I;  M_i = LSE_eps(V_{i-1}, V_i, V_{i+1})  on a ring of the layer's units                UltraDLIF
(4)  s = sigmoid(V / eps), or of M / eps
(5)  V <- V (1 - s)                                                                                         reset
(6)  eps = exp(log_eps) within [0.1, 20], log_eps learned, from 0

`decay` is the paper's tau. With `learn_decay=True` the neurons are the paper's UltraPLIF and UltraDPLIF.
The baselines have the same interface: `PLIF`, `AdaLIF`, `DSpike`, `SigmaLIF`, and `soft_lif`, the paper's LIF.

Differences from the official code:

- The state is an argument and a result, never an attribute.
- The decay that UltraPLIF reports there is clamped, the one that it uses is not. Here `decay` is the one in use, and
  `decay_range` clamps it.
- UltraDPLIF starts from the decay that is asked for; there the number goes through a sigmoid first (0.9 becomes 0.711).
- A fixed threshold other than zero, and the order of the coupling in the official ablation, are settings here.

No node of NIR describes these neurons, so that they cannot be exported to neuromorphic hardware by it.
"""

from interplay.spiking.ultralif.baselines import PLIF, AdaLIF, DSpike, SigmaLIF, soft_lif
from interplay.spiking.ultralif.classifier import SpikingClassifier, rate_code, sparsity_penalty
from interplay.spiking.ultralif.graded import GradedNeuron, hard_spikes
from interplay.spiking.ultralif.maxplus import (
    error_bound,
    hard_maximum,
    rate_floor,
    ring_soft_maximum,
    soft_maximum,
    soft_maximum_of_two,
    steepest_spike,
)
from interplay.spiking.ultralif.spatial import UltraDLIF
from interplay.spiking.ultralif.temporal import UltraLIF

__all__ = [
    "PLIF",
    "AdaLIF",
    "DSpike",
    "GradedNeuron",
    "SigmaLIF",
    "SpikingClassifier",
    "UltraDLIF",
    "UltraLIF",
    "error_bound",
    "hard_maximum",
    "hard_spikes",
    "rate_code",
    "rate_floor",
    "ring_soft_maximum",
    "soft_lif",
    "soft_maximum",
    "soft_maximum_of_two",
    "sparsity_penalty",
    "steepest_spike",
]
