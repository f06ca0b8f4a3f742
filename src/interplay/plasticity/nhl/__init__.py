"""Neuro-modulated Hebbian learning for fully test-time adaptation (`nhl`).

=============  ======================================================================================================
family         plasticity
paper          Tang, Zhang, Xu, Chen, Cheng, Leng, Guo, He. "Neuro-Modulated Hebbian Learning for Fully Test-Time
               Adaptation", CVPR 2023, arXiv 2303.00914
official code  none found
interface      `torch.nn.Module` around any PyTorch classifier, or around a Hugging Face image classifier (`.logits`)
input          mini-batches of images, float, (batch, channels, height, width); what the classifier takes
output         what the classifier returns
learnable      first layer (locally, without gradient); affine gains of normalisation layers (by entropy)
random         no
=============  ======================================================================================================

Batches arrive once and in order, without labels and without source data. For each batch

(1)  y_k = exp(u_k / tau) / sum_j exp(u_j / tau),  u_k = w_k . x_p    lateral inhibition among the layer's channels
(2)  dW_k = sum_p y_k (x_p - u_k w_k),  W <- W + eta dW / max|dW|     soft Hebbian step, local, no gradient
(3)  H = mean_b sum_c -p_bc log p_bc,  p = softmax(logits)            feedback from the locked classifier
(4)  one optimiser step on the neuro-modulator, z' = gamma z + beta   gradient of H, nothing else moves
(5)  predict the same batch again

`NHL` does all of it; `Tent`, `BatchNormAdapt`, `PseudoLabel`, `HebbOnly`, `HardNHL` and `SourceOnly` are its baselines
and ablations with the same interface; `evaluate_online` measures any of them on a stream.

What the paper leaves open and what is chosen here:

- The modulator's exact form is not published in code; it is taken as the affine parameters of the normalisation layers
  under batch statistics, or as an inserted `ChannelAffine` for networks without them.
- The rate of the Hebbian step, tau and the optimiser are not known: defaults eta = 1e-3 of the largest entry, tau = 1,
  Adam at 1e-3.
- The rule draws |w_k| to 1 (at equilibrium w_k = E[y_k x] / E[y_k u_k], so w_k . w_k = 1). Where a per-channel
  normalisation
  follows, the length is of no effect; elsewhere each filter keeps the length it was trained with.
- Channels of a grouped convolution compete within their group, since only they see the same patch.
"""

from interplay.plasticity.nhl.adapter import OnlineAdapter
from interplay.plasticity.nhl.baselines import BatchNormAdapt, HardNHL, HebbOnly, PseudoLabel, SourceOnly, Tent
from interplay.plasticity.nhl.modulator import ChannelAffine
from interplay.plasticity.nhl.neuromodulated import NHL
from interplay.plasticity.nhl.online import OnlineRun, evaluate_online
from interplay.plasticity.nhl.rule import SoftHebb, soft_hebbian_delta, soft_hebbian_free_energy

__all__ = [
    "NHL",
    "BatchNormAdapt",
    "ChannelAffine",
    "HardNHL",
    "HebbOnly",
    "OnlineAdapter",
    "OnlineRun",
    "PseudoLabel",
    "SoftHebb",
    "SourceOnly",
    "Tent",
    "evaluate_online",
    "soft_hebbian_delta",
    "soft_hebbian_free_energy",
]
