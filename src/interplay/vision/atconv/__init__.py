"""Attentive convolution: kernels that follow the image, sharpened by lateral inhibition (`atconv`).

=============  ======================================================================================================
family         vision
paper          Yu, Chen, Jiang, Peng, Sun, Kaski, Zhao. "Attentive Convolution: Unifying the Expressivity of
               Self-Attention with Convolutional Efficiency", 2025, arXiv 2510.20092
official code  github.com/price112/Attentive-Convolution (PyTorch and timm, MIT)
interface      `nn.Module` for maps and for tokens; functions; a family of classifiers with timm's methods
input          maps (batch, channel, height, width) of any size, or tokens (batch, token, channel)
output         the same shape; for AttNet logits or maps
learnable      three projections, a k^2 x k^2 generator, a gate a channel
random         the initial weights; stochastic depth in training
=============  ======================================================================================================

A depthwise convolution whose 3 x 3 kernels are computed for each image and channel from averages over the image, and
then lose a learned share of their own mean: taps of one kernel inhibit one another, until contrast is left. The cost is
linear in the number of pixels, positions need no embedding, and there is no softmax.

- `ATConv2d`, `ATConvTokens`: the layer for maps and for tokens, with the ablations as options.
- `attentive_conv2d`, `differential_kernel`, `pooled_context`: its steps as functions.
- `AttNet`, `attnet`, `parameter_groups`, `renamed_from_official`: the seven published classifiers, which parameters
  decay, and published weights.
- `AttNetBlock`, `ConvBN`: what they are built of, for networks of your own with any mixer of positions.
- `replace_attention`, `replace_convolutions`: put the layers into a model that exists.
- `kernel_statistics`: what trained kernels look like.
- `atconv_macs`, `atconv_parameters`, `attnet_macs`; `count_macs`, `count_parameters`: costs in closed form; counted.

What differs from the official code:

- The context is pooled before it is projected. Both are linear and averages keep biases, so the function is the same to
  rounding, and one of three passes over all pixels is gone.
- `forward_features` returns the final map, as timm's models do; the official one returns the pooled, normalised vector.
- Half precision on a CPU pools in float32. Maps keep their memory format. Empty batches pass.
- Tokens may lie on any grid and be led by others, such as a class token, for which the official code has no place.
"""

from interplay.vision.atconv.attnet import SIZES, AttNet, attnet, parameter_groups, renamed_from_official
from interplay.vision.atconv.blocks import AttNetBlock, ConvBN
from interplay.vision.atconv.complexity import (
    atconv_macs,
    atconv_parameters,
    attnet_macs,
    count_macs,
    count_parameters,
)
from interplay.vision.atconv.layers import ATConv2d, ATConvTokens
from interplay.vision.atconv.operator import attentive_conv2d, differential_kernel, pooled_context
from interplay.vision.atconv.replacement import replace_attention, replace_convolutions
from interplay.vision.atconv.statistics import KernelStatistics, kernel_statistics

__all__ = [
    "SIZES",
    "ATConv2d",
    "ATConvTokens",
    "AttNet",
    "AttNetBlock",
    "ConvBN",
    "KernelStatistics",
    "atconv_macs",
    "atconv_parameters",
    "attentive_conv2d",
    "attnet",
    "attnet_macs",
    "count_macs",
    "count_parameters",
    "differential_kernel",
    "kernel_statistics",
    "parameter_groups",
    "pooled_context",
    "renamed_from_official",
    "replace_attention",
    "replace_convolutions",
]
