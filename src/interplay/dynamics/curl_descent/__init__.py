"""Curl descent: learning by an update field that is no gradient (`curl-descent`).

=============  ======================================================================================================
family         dynamics
paper          Ninou, Kadmon, Cayco-Gajic. "Curl Descent: Non-Gradient Learning Dynamics with Sign-Diverse Plasticity",
               NeurIPS 2025, arXiv 2510.02765
official code  github.com/caycogajiclab/Curl_Descent (numpy, no licence stated)
interface      `torch.optim.Optimizer` for any module; a batched simulation of two-layer networks; theory on arrays
input          gradients; for the theory the ratio c = inputs / hidden, the flipped fraction f, or weights
output         updated weights; for the theory critical values and stability
learnable      whatever the optimiser holds
random         which neurons flip, if drawn; order of minibatches
=============  ======================================================================================================

The learning rule is that of gradient descent, but all outgoing synapses of some neurons change with the opposite sign.
For a two-layer network h = phi(W1 x), y = phi(W2 h) with error e and diagonal sign matrices D1 of the inputs and D2 of
the hidden units,

(1)  dW2 = -eta mean(e h^T) D2
(2)  dW1 = -eta mean((W2^T e * phi'(W1 x)) x^T) D1

after which both matrices return to their initial Frobenius norms. With mixed signs this is the gradient of no function.
For linear networks the error decays along all directions if and only if K = W1^T D2 W1 + |W2|^2 D1 is positive
definite, which for wide random networks depends on c, on f and on the flipped layer alone.

- `CurlDescent`, `flip_plan`: the rule as an optimiser for any network, and which neurons flip.
- `critical_ratio_input_flips`, `critical_fraction_readout_flips`, `phase_diagram`, `stability_matrix`, `is_stable`,
  `toy_update`: the theory.
- `TwoLayerTeacherStudent`, `simulate`, `LearningRule`, `Run`: the published experiments, many networks at once.
- `curl_fraction`, `field_curl_fraction`, `lyapunov_exponent`: how far from a gradient, how chaotic.

What differs from the official code:

- Full batches by default: one step at eta = 0.1 where the published runs take points / batch_size steps at
  0.1 batch_size / points. Minibatches are an option. Linear networks learn from the covariance of the points, which
  gives the same numbers faster.
- Gains may be any real number, not only signs: 0 freezes a neuron's synapses, which serves as a control.
- The error is not multiplied by the slope of the output, as in the published code, unless `output_derivative=True`.
- The order parameter takes every step of its window; the code drops the first.
"""

from interplay.dynamics.curl_descent.diagnostics import curl_fraction, field_curl_fraction, lyapunov_exponent
from interplay.dynamics.curl_descent.flips import flip_plan
from interplay.dynamics.curl_descent.optimizer import CurlDescent
from interplay.dynamics.curl_descent.simulation import LearningRule, Run, simulate
from interplay.dynamics.curl_descent.teacher_student import TwoLayerTeacherStudent, gaussian_inputs
from interplay.dynamics.curl_descent.theory import (
    critical_fraction_readout_flips,
    critical_ratio_input_flips,
    is_stable,
    phase_diagram,
    stability_matrix,
    toy_update,
)

__all__ = [
    "CurlDescent",
    "LearningRule",
    "Run",
    "TwoLayerTeacherStudent",
    "critical_fraction_readout_flips",
    "critical_ratio_input_flips",
    "curl_fraction",
    "field_curl_fraction",
    "flip_plan",
    "gaussian_inputs",
    "is_stable",
    "lyapunov_exponent",
    "phase_diagram",
    "simulate",
    "stability_matrix",
    "toy_update",
]
