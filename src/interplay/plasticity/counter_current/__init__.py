"""Counter-current learning: two networks in opposite directions teach each other (`counter-current`).

=============  ======================================================================================================
family         plasticity
paper          Kao, Hariharan. "Counter-Current Learning: A Biologically Plausible Dual Network Approach for Deep
               Learning", NeurIPS 2024, arXiv 2409.19841
official code  github.com/IandRover/CCL-NeurIPS24, MIT
interface      `torch.nn.Module` mirrored from any `nn.Sequential` of linear and convolutional layers; scikit-learn
               classifier
input          batches, float, (batch, ...); classes, their probabilities, or regression targets
output         the forward network's outputs; the feedback network's inputs (a generator of class templates)
learnable      forward and feedback weights, each from a loss of its own level; no gradient crosses a layer
random         initial weights only
=============  ======================================================================================================

The forward network leads from the input to the output, the feedback network from the target to the input. sg stops
gradients; f_l are activations, none at the two ends.

(1)  a_0 = x,  a_l = f_l(F_l sg(a_{l-1})),  a_L = F_L sg(a_{L-1})             activities
(2)  c_L = T,  c_{l-1} = f_{l-1}(G_l sg(c_l)),  c_0 = G_1 sg(c_1)             codes; for classes T = I, a row a class
(3)  loss_l = s (256 / n_l) mean_bc (a_l c_l' - Y T')_bc^2,  l < L            kind "inner", n_l the width of the level
(4)  loss_l = s mean_bc (u_l v_l' - Y T')_bc^2 + d mean (u_l u_l' - I)^2 + d mean (v_l v_l' - I)^2
                                                                              kind "cosine", u, v rows at unit length
(5)  loss_l = s H_l [mean (a_l - c_l)^2 + mean (m(a_l) - m(c_l))^2]           kind "reconstruction", H_l the height, m
                                                                              maps without mean at unit length; at
                                                                              the two ends the first term alone
(6)  loss_L = cross-entropy(a_L, y)                                           kinds (3) and (4)

loss_l moves F_l and G_{l+1} and nothing else. One backward pass through the sum computes all updates, which need not
wait for one another. Both networks are clipped by themselves.

Settled from the published code: no biases in perceptrons, convolutions with stride have biases that start at zero,
T = I for classes and not a row a sample, factor 256 / n_l, separate clipping, l = 0 is among the losses and trains the
class templates alone. Numbers agree with that code to 1e-6 (`tests/plasticity/test_counter_current_agreement.py`).

Differences from the official code:

- Parameters of batch normalisation belong to their networks' parameters; there they are left out of both optimisers.
- A feedback layer ends in the activation of the level that it leads to; there all activations are the same.
- Feedback layers of kernels with an even side have one more.
- `Y T'` is computed from the targets themselves, so that class probabilities do as well as classes.

Any network that `from_sequential` refuses can be built from `CounterCurrentPair`s. Under `torch.func.vmap` all works
that PyTorch's own layers allow; values of labels are not checked there.
"""

from interplay.plasticity.counter_current.autoencoder import convolutional_autoencoder, initialize_autoencoder
from interplay.plasticity.counter_current.baselines import (
    Backpropagation,
    CounterCurrent,
    CreditRule,
    DifferenceTargetPropagation,
    DirectRandomTargetProjection,
    FeedbackAlignment,
    TopLayerOnly,
)
from interplay.plasticity.counter_current.classifier import CounterCurrentClassifier
from interplay.plasticity.counter_current.losses import CounterCurrentObjective, LocalLosses, counter_current_loss
from interplay.plasticity.counter_current.network import (
    CCConv2d,
    CCFlatten,
    CCLinear,
    CounterCurrentNet,
    CounterCurrentPair,
)
from interplay.plasticity.counter_current.training import (
    CounterCurrentTrainer,
    alignment,
    centralize_gradients,
    update_cosine_to_backpropagation,
)

__all__ = [
    "Backpropagation",
    "CCConv2d",
    "CCFlatten",
    "CCLinear",
    "CounterCurrent",
    "CounterCurrentClassifier",
    "CounterCurrentNet",
    "CounterCurrentObjective",
    "CounterCurrentPair",
    "CounterCurrentTrainer",
    "CreditRule",
    "DifferenceTargetPropagation",
    "DirectRandomTargetProjection",
    "FeedbackAlignment",
    "LocalLosses",
    "TopLayerOnly",
    "alignment",
    "centralize_gradients",
    "convolutional_autoencoder",
    "counter_current_loss",
    "initialize_autoencoder",
    "update_cosine_to_backpropagation",
]
