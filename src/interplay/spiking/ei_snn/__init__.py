"""Normalisation-free spiking networks with lateral inhibition (`ei-snn`).

=============  ======================================================================================================
family         spiking
paper          Liu, Ding, Yu. "Training Deep Normalization-Free Spiking Neural Networks with Lateral Inhibition",
               ICLR 2026, arXiv 2509.23253
official code  https://github.com/vwOvOwv/DeepEISNN, no licence given; nothing of it is used here
interface      `torch.nn.Module`s in the place of `Linear` or `Conv2d` and batch normalisation, in networks of this
               package, of SpikingJelly (multi-step), of snnTorch (step by step), or without spikes at all
input          spikes or other values that are not negative, (..., features) or (..., channels, height, width); time
               and batch come first, in any number of dimensions
output         the current of the excitatory units, same leading dimensions
learnable      W_EE, W_IE, W_EI, g_I, g_E (not negative) and b_E
random         the weights, from a generator
=============  ======================================================================================================

A layer has n_E excitatory units and n_I = floor(n_E / 4) inhibitory ones. Both see the input x; the inhibitory units do
not spike, their current acts on the excitatory ones twice, by subtraction and by division.

(1)  I_E = W_EE x,  I_I = W_IE x                            excitation of both kinds of units
(2)  bal = I_E - W_EI I_I                                   subtractive inhibition: sets excitability
(3)  div = W_EI (g_I * I_I)                                 divisive inhibition: sets gain, by the same weights
(4)  out = g_E * bal / div + b_E                            drives the LIF neurons; the output layer returns bal
(5)  s^2 = v / (d (q + v)),  W_EE, W_IE ~ Exp(mean s)       E-I Init (the paper's 53), W_EI = 1 / n_I, g_E = 1, b_E = 0
(6)  g_I = sqrt(q + v) / (sqrt(d) m)                        E-I Init (the paper's 54)

m, q are mean and mean square of the layer's input on its first batch, v is its variance over the batch averaged over
features, d the fan-in. For independent inputs bal has mean 0 and variance v q / (q + v), and div is about sqrt(v), so
that out has a standard deviation of sqrt(q / (q + v)), of order one at every depth.

E-I Prop: the gradient of W_EI is divided by d, and where div is zero it is replaced in (4) by the smallest non-zero
entry of the sample while the gradient passes as if it had not been. Without either training fails.

`EILinear` and `EIConv2d` are the layers, `constrain` keeps weights from turning negative, `convert_bn_to_ei` turns an
existing network, and `ei_mlp`, `ei_vgg`, `sew_ei_resnet18` are the paper's networks and their baselines.

Differences from the official code:

- W_EE and W_IE are one tensor, so that one product serves both. The weights wait in units of their mean for the first
  batch, instead of a generator that is kept.
- Direct coding computes the first layer's current once. Its batch statistics are then over the batch, not over time
  and batch; the unbiased variance differs by a factor (B - 1/T) / (B - 1).
- The official networks with a 4096-unit head tell their normalisation layer another fan-in than the linear layer has;
  here there is one layer and one fan-in.
- The optimiser is PyTorch's. The official one fills the momentum with the first gradient before it adds it once more,
  so its very first step is (1 + momentum) times as long.
"""

from interplay.spiking.ei_snn.architectures import DirectCoding, ei_mlp, ei_vgg, sew_ei_resnet18
from interplay.spiking.ei_snn.circuit import EICurrents, EIProp, ei_circuit
from interplay.spiking.ei_snn.constraint import constrain
from interplay.spiking.ei_snn.conversion import convert_bn_to_ei
from interplay.spiking.ei_snn.initialization import InitialMoments
from interplay.spiking.ei_snn.layers import EIConv2d, EILinear

__all__ = [
    "DirectCoding",
    "EIConv2d",
    "EICurrents",
    "EILinear",
    "EIProp",
    "InitialMoments",
    "constrain",
    "convert_bn_to_ei",
    "ei_circuit",
    "ei_mlp",
    "ei_vgg",
    "sew_ei_resnet18",
]
