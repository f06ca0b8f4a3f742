"""ATConv as a layer: for feature maps, in the place of a convolution, and for tokens, in the place of attention.

For an input x with C channels and L pixels, with a learned gate g,

(1)  p = pool(W_kernel x)                  k^2 averages over parts of the image, per channel
(2)  K = W_generator act(p)                k^2 -> k^2, one matrix for all channels, read as k x k taps
(3)  K' = K - sigmoid(g_c) mean_taps(K)
(4)  out = W_out (K' * W_value x)          depthwise, a kernel for each image and channel; no softmax

An average of a linear map is the map of the average, so x is pooled before W_kernel and not after it: the same numbers
for L / k^2 times fewer operations in (1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.competition import soft_winner_take_all
from interplay.vision.atconv.operator import Pool, attentive_conv2d, differential_kernel, pooled_context

__all__ = ["ATConv2d", "ATConvTokens", "AttentiveConvolution", "Inhibition", "KernelSource"]

Inhibition = Literal["learned", "none", "full", "softmax"]
KernelSource = Literal["context", "static"]
Activation = str | Callable[[], nn.Module]
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU(approximate="tanh"),
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


class AttentiveConvolution(nn.Module):
    """What `ATConv2d` and `ATConvTokens` share: parameters, and kernels from pooled context. Abstract."""

    gate: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        act: Activation,
        bias: bool,
        inhibition: Inhibition,
        pool: Pool,
        kernel_source: KernelSource,
        projection: Callable[[], nn.Module],
        factory: dict[str, Any],
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("kernel_size", kernel_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more; got {value!r}")
        if kernel_size % 2 == 0:
            raise ValueError(
                f"kernel_size must be odd, so that kernels have a centre; got {kernel_size}: "
                f"take {kernel_size - 1} or {kernel_size + 1}"
            )
        for name, chosen, allowed in (
            ("inhibition", inhibition, get_args(Inhibition)),
            ("pool", pool, get_args(Pool)),
            ("kernel_source", kernel_source, get_args(KernelSource)),
        ):
            if chosen not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {chosen!r}")
        self.dim, self.kernel_size = dim, kernel_size
        self.inhibition, self.pool, self.kernel_source = inhibition, pool, kernel_source
        self.activation = _activation(act)
        if kernel_source == "context":
            self.kernel_projection = projection()
            self.kernel_generator = nn.Linear(kernel_size**2, kernel_size**2, bias=bias, **factory)
            self.register_parameter("static_kernels", None)
        else:
            self.kernel_projection = self.kernel_generator = None
            self.static_kernels = nn.Parameter(torch.empty(dim, kernel_size, kernel_size, **factory))
        self.value_projection = projection()
        self.output_projection = projection()
        if inhibition == "learned":
            self.gate = nn.Parameter(torch.empty(dim, **factory))
        else:
            self.register_parameter("gate", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Gates of zero, which take half of the mean; static kernels as `nn.Conv2d` draws those of a depthwise layer.

        Projections keep what their own layers drew.
        """
        if self.gate is not None:
            nn.init.zeros_(self.gate)
        if self.static_kernels is not None:
            nn.init.uniform_(self.static_kernels, -1 / self.kernel_size, 1 / self.kernel_size)

    @property
    def strength(self) -> Tensor | float:
        """f, the share of its mean that each kernel loses: sigmoid of the gate, 0 without inhibition, 1 if full."""
        if self.gate is not None:
            return torch.sigmoid(self.gate)
        return 1.0 if self.inhibition == "full" else 0.0

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimiser should not shrink: the gate, whose zero means half and not none."""
        return set() if self.gate is None else {"gate"}

    def inhibited(
        self, kernels: Float[Tensor, "batch channel k k"] | Float[Tensor, "channel k k"]
    ) -> Float[Tensor, "batch channel k k"] | Float[Tensor, "channel k k"]:
        """Kernels after the competition among their taps, equation (3)."""
        if self.inhibition == "softmax":
            return soft_winner_take_all(kernels.flatten(-2)).view(kernels.shape)
        return kernels if self.inhibition == "none" else differential_kernel(kernels, self.strength)

    def extra_repr(self) -> str:
        return (
            f"{self.dim}, kernel_size={self.kernel_size}, inhibition={self.inhibition!r}, pool={self.pool!r}, "
            f"kernel_source={self.kernel_source!r}"
        )

    def _generated(self, projected: Float[Tensor, "batch channel taps"]) -> Float[Tensor, "batch channel k k"]:
        """Kernels from the projected context, equation (2)."""
        return self.kernel_generator(self.activation(projected)).unflatten(-1, (self.kernel_size, self.kernel_size))

    def _repeated(self, batch: int) -> Float[Tensor, "batch channel k k"]:
        """The static kernels, the same for every image."""
        return self.static_kernels.expand(batch, -1, -1, -1)


class ATConv2d(AttentiveConvolution):
    """Attentive convolution of feature maps.

    Parameters
    ----------
    dim
        C, channels in and out.
    kernel_size
        k, odd.
    act
        Activation of the pooled context: a name or a factory of modules.
    bias
        Whether projections and the generator have biases.
    inhibition
        "learned" (published); "none"; "full", kernels that sum to zero; "softmax", taps that share one unit of weight.
    pool
        "strip" (published) or "grid"; see `pooled_context`.
    kernel_source
        "context" (published), or "static": kernels that are parameters, the same for all images, between the same
        projections.

    Raises
    ------
    ValueError
        For an even kernel size or an unknown option; in a call, for other than (B, C, H, W) with this C.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 3,
        act: Activation = "gelu",
        bias: bool = True,
        inhibition: Inhibition = "learned",
        pool: Pool = "strip",
        kernel_source: KernelSource = "context",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}

        def projection() -> nn.Module:
            return nn.Conv2d(dim, dim, 1, bias=bias, **factory)

        super().__init__(dim, kernel_size, act, bias, inhibition, pool, kernel_source, projection, factory)

    @classmethod
    def replacing(cls, convolution: nn.Conv2d, **options: Any) -> ATConv2d:
        """A new layer, freshly drawn, of the width, kernel size, bias, dtype and device of a convolution.

        Parameters
        ----------
        convolution
            Depthwise, grouped or dense, as long as it keeps the size of the map: as many channels out as in, stride 1,
            no dilation, odd square kernel, half of it as zero padding.
        **options
            Further arguments of `ATConv2d`.

        Raises
        ------
        ValueError
            If the convolution changes the map's size or channels, which attentive convolution does not.
        """
        if not isinstance(convolution, nn.Conv2d):
            raise TypeError(f"convolution must be an nn.Conv2d; got {type(convolution).__name__}")
        size = convolution.kernel_size[0]
        keeps_size = {
            "channels in and out": convolution.in_channels == convolution.out_channels,
            "stride 1": convolution.stride == (1, 1),
            "dilation 1": convolution.dilation == (1, 1),
            "an odd square kernel": convolution.kernel_size == (size, size) and size % 2 == 1,
            "zero padding of half the kernel": convolution.padding in ("same", (size // 2, size // 2))
            and convolution.padding_mode == "zeros",
        }
        if missing := [what for what, right in keeps_size.items() if not right]:
            raise ValueError(
                f"{convolution} cannot be replaced: attentive convolution needs {', '.join(missing)}; "
                "leave layers that change the size of the map as they are"
            )
        weight = convolution.weight
        settings: dict[str, Any] = {"kernel_size": size, "bias": convolution.bias is not None}
        settings |= {"device": weight.device, "dtype": weight.dtype, **options}
        return cls(convolution.in_channels, **settings)

    def kernels(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel k k"]:
        """The kernels that these images get, after inhibition."""
        return self.inhibited(self.raw_kernels(x))

    def raw_kernels(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel k k"]:
        """The kernels before inhibition."""
        self._check(x)
        if self.kernel_source == "static":
            return self._repeated(len(x))
        context = pooled_context(x, self.kernel_size, self.pool)
        return self._generated(self.kernel_projection(context.unsqueeze(-1)).squeeze(-1))

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Equations (1) to (4)."""
        kernels = self.kernels(x)
        return self.output_projection(attentive_conv2d(self.value_projection(x), kernels))

    def _check(self, x: Tensor) -> None:
        if x.dim() != 4:
            hint = ": use ATConvTokens for tokens (batch, token, channel)" if x.dim() == 3 else ""
            raise ValueError(f"x must have shape (batch, {self.dim}, height, width); got {tuple(x.shape)}{hint}")
        if x.shape[1] != self.dim:
            raise ValueError(f"x has {x.shape[1]} channels, this layer {self.dim}; channels are the second dimension")


class ATConvTokens(AttentiveConvolution):
    """Attentive convolution of a sequence of image tokens, in the place of self-attention.

    Tokens need no position embedding: zeros around the image and the strips tell where a token is.

    Parameters
    ----------
    dim
        C, features of a token.
    grid_size
        (h, w), the rows and columns of tokens; None takes a square of however many there are.
    prefix_tokens
        Number of leading tokens that are no part of the image, such as a class token. Attentive convolution has no
        place for them, so they read and are not read: each gets the mean over the image of what its tokens get.
    kernel_size, act, bias, inhibition, pool, kernel_source
        As for `ATConv2d`; the published activation for tokens is the tanh approximation of GELU.

    Raises
    ------
    ValueError
        For bad options; in a call, if the tokens do not fill the grid.
    """

    def __init__(
        self,
        dim: int,
        grid_size: tuple[int, int] | None = None,
        kernel_size: int = 3,
        act: Activation = "gelu_tanh",
        bias: bool = True,
        inhibition: Inhibition = "learned",
        pool: Pool = "strip",
        kernel_source: KernelSource = "context",
        *,
        prefix_tokens: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        factory = {"device": device, "dtype": dtype}

        def projection() -> nn.Module:
            return nn.Linear(dim, dim, bias=bias, **factory)

        super().__init__(dim, kernel_size, act, bias, inhibition, pool, kernel_source, projection, factory)
        if grid_size is not None and (len(grid_size) != 2 or min(grid_size) < 1):
            raise ValueError(f"grid_size must be (rows, columns), both positive; got {grid_size!r}")
        if prefix_tokens < 0:
            raise ValueError(f"prefix_tokens must be 0 or more; got {prefix_tokens}")
        self.grid_size = None if grid_size is None else (int(grid_size[0]), int(grid_size[1]))
        self.prefix_tokens = prefix_tokens

    def kernels(self, tokens: Float[Tensor, "batch token channel"]) -> Float[Tensor, "batch channel k k"]:
        """The kernels that these images get, after inhibition."""
        return self.inhibited(self.raw_kernels(tokens))

    def raw_kernels(self, tokens: Float[Tensor, "batch token channel"]) -> Float[Tensor, "batch channel k k"]:
        """The kernels before inhibition."""
        if self.kernel_source == "static":
            self._grid(tokens)
            return self._repeated(len(tokens))
        context = pooled_context(self._as_map(tokens), self.kernel_size, self.pool)
        return self._generated(self.kernel_projection(context.mT).mT)

    def forward(self, tokens: Float[Tensor, "batch token channel"]) -> Float[Tensor, "batch token channel"]:
        """Equations (1) to (4)."""
        kernels = self.kernels(tokens)
        values = self._as_map(self.value_projection(tokens))
        mixed = attentive_conv2d(values, kernels).flatten(2).mT
        if self.prefix_tokens:
            mixed = torch.cat([mixed.mean(1, keepdim=True).expand(-1, self.prefix_tokens, -1), mixed], 1)
        return self.output_projection(mixed)

    def extra_repr(self) -> str:
        prefix = f", prefix_tokens={self.prefix_tokens}" if self.prefix_tokens else ""
        return f"{super().extra_repr()}, grid_size={self.grid_size}{prefix}"

    def _as_map(self, tokens: Float[Tensor, "batch token channel"]) -> Float[Tensor, "batch channel height width"]:
        """The image's tokens as a channels-last map, without a copy."""
        grid = self._grid(tokens)
        return tokens[:, self.prefix_tokens :].mT.unflatten(2, grid)

    def _grid(self, tokens: Tensor) -> tuple[int, int]:
        if tokens.dim() != 3:
            hint = ": use ATConv2d for maps (batch, channel, height, width)" if tokens.dim() == 4 else ""
            raise ValueError(f"tokens must have shape (batch, token, {self.dim}); got {tuple(tokens.shape)}{hint}")
        if tokens.shape[2] != self.dim:
            raise ValueError(f"tokens have {tokens.shape[2]} features, this layer {self.dim}; features come last")
        count = tokens.shape[1] - self.prefix_tokens
        if self.grid_size is not None:
            rows, columns = self.grid_size
            if rows * columns != count:
                raise ValueError(
                    f"N={count} image tokens do not fill grid_size={self.grid_size}, which has {rows * columns}"
                )
            return self.grid_size
        side = round(max(count, 0) ** 0.5)
        if side * side != count or count < 1:
            raise ValueError(f"N={count} is not a square; pass grid_size=(h, w)")
        return side, side


def _activation(act: Activation) -> nn.Module:
    if isinstance(act, str):
        if act not in _ACTIVATIONS:
            raise ValueError(f"act must be one of {', '.join(_ACTIVATIONS)} or a factory of modules; got {act!r}")
        return _ACTIVATIONS[act]()
    module = act()
    if not isinstance(module, nn.Module):
        raise TypeError(f"act must make an nn.Module; got {type(module).__name__}")
    return module
