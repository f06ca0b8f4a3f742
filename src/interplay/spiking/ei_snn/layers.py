"""The E-I layers: drop-in replacements of `Linear` or `Conv2d` followed by batch normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.utils import _pair

from interplay.spiking.ei_snn.circuit import EIProp
from interplay.spiking.ei_snn.layer import EILayer

if TYPE_CHECKING:
    import nir

__all__ = ["EIConv2d", "EILinear"]


class EILinear(EILayer):
    """A layer of excitatory units with feed-forward inhibition, for spikes or other inputs that are not negative.

    Parameters
    ----------
    in_features
        d, inputs.
    out_features
        n_E, excitatory units; there are `out_features // ei_ratio` inhibitory ones.
    ei_ratio
        Excitatory units for each inhibitory one.
    output_layer
        Return the balanced current only, without division, gain and bias: for logits.
    ei_init
        Initialise by the first batch (E-I Init); False: by constants, exponential weights of mean 1/d, g_I = 1/sqrt(d).
    ei_prop
        How the gradient passes; True: as in the paper, False: the derivative, with a constant in the denominator.
    check
        Look for NaN and negative entries in every input. E-I Init always looks.
    name
        How errors call the layer, as "layer 3".
    generator
        Draws the weights; None: PyTorch's.

    Raises
    ------
    ValueError
        No inhibitory unit would be left, or an input does not fit.

    Examples
    --------
    >>> layer = EILinear(784, 128)
    >>> layer(torch.rand(4, 100, 784)).shape  # (time, batch, features), or any other leading dimensions
    torch.Size([4, 100, 128])
    """

    unit_dim = -1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        ei_ratio: int = 4,
        output_layer: bool = False,
        ei_init: bool = True,
        ei_prop: EIProp | bool = True,
        check: bool = False,
        name: str | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            (in_features,),
            out_features,
            ei_ratio=ei_ratio,
            output_layer=output_layer,
            ei_init=ei_init,
            ei_prop=ei_prop,
            check=check,
            name=name,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.in_features, self.out_features = in_features, out_features

    def _linear_node(self, weight: np.ndarray, shape: tuple[int, ...]) -> nir.NIRNode:
        import nir

        return nir.Linear(weight=weight)

    def feedforward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... units"]:
        return functional.linear(x, self.weight)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, inhibitory={self.inhibitory}"


class EIConv2d(EILayer):
    """The convolutional layer: W_EE and W_IE are kernels, W_EI acts between the channels of one position.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, stride, padding, dilation
        As in `torch.nn.Conv2d`; `out_channels` are excitatory. Groups are not supported: inhibition crosses channels.
    ei_ratio, output_layer, ei_init, ei_prop, check, name, generator
        As in `EILinear`; a sample's positions share one minimum of the divisive current.

    Raises
    ------
    ValueError
        No inhibitory channel would be left, or an input does not fit.

    Examples
    --------
    >>> layer = EIConv2d(3, 64, 3, padding=1)
    >>> layer(torch.rand(4, 8, 3, 32, 32)).shape  # (time, batch, channels, height, width), or without time
    torch.Size([4, 8, 64, 32, 32])
    """

    unit_dim = -3

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        *,
        ei_ratio: int = 4,
        output_layer: bool = False,
        ei_init: bool = True,
        ei_prop: EIProp | bool = True,
        check: bool = False,
        name: str | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            (in_channels, *_pair(kernel_size)),
            out_channels,
            ei_ratio=ei_ratio,
            output_layer=output_layer,
            ei_init=ei_init,
            ei_prop=ei_prop,
            check=check,
            name=name,
            generator=generator,
            device=device,
            dtype=dtype,
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)

    def _linear_node(self, weight: np.ndarray, shape: tuple[int, ...]) -> nir.NIRNode:
        import nir

        return nir.Conv2d(
            input_shape=shape[-2:],
            weight=weight,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=1,
            bias=np.zeros(len(weight), weight.dtype),
        )

    def feedforward(self, x: Float[Tensor, "... channels height width"]) -> Float[Tensor, "... units rows columns"]:
        leading = x.shape[: self.unit_dim]
        maps = functional.conv2d(
            x.flatten(0, self.unit_dim - 1) if len(leading) > 1 else x,
            self.weight,
            None,
            self.stride,
            self.padding,
            self.dilation,
        )
        return maps.unflatten(0, leading) if len(leading) > 1 else maps

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, inhibitory={self.inhibitory}"
        )
