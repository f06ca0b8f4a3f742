"""The two-layer network that learns to add modulo p, one or many at once.

(1)  h_m = sigma(theta_m[x] + theta_m[y]),   f[j] = sum_m xi_m[j] h_m

No bias, no normalisation. theta is `input_weights`, (..., neurons, p), xi `output_weights`, (..., p, neurons).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from interplay.dynamics.modular_addition.fourier import check_modulus

__all__ = ["ACTIVATIONS", "ModularAdditionNet", "addition_table"]

Activation = Callable[[Tensor], Tensor]
ActivationName = Literal["square", "relu", "gelu", "identity"]
Init = Literal["gaussian", "single_frequency", "equal_magnitude"]
ACTIVATIONS: dict[str, Activation] = {
    "square": torch.square,
    "relu": torch.relu,
    "gelu": functional.gelu,
    "identity": torch.clone,
}


def addition_table(p: int) -> tuple[Int[Tensor, "pairs 2"], Int[Tensor, " pairs"]]:
    """All p^2 ordered pairs, row by row of x, and their sums modulo p."""
    check_modulus(p)
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    return pairs, pairs.sum(1) % p


class ModularAdditionNet(nn.Module):
    """Equation (1), with one network or a leading axis of runs.

    Parameters
    ----------
    p
        Odd modulus, 3 or more.
    width
        Neurons.
    activation
        sigma: `square`, `relu`, `gelu` or `identity`.
    init
        `gaussian`: scale N(0, 1) / sqrt(p), both layers. `single_frequency`: a frequency a neuron, dealt equally and
        shuffled, alpha = beta = scale, phases at random. `equal_magnitude`: all frequencies with alpha = beta = scale,
        phases at random.
    scale
        By default the published 0.1 for `gaussian`, else 0.02, or 0.002 with `relu`.
    generator
        Draws the weights. A sequence of generators makes as many networks along a leading axis, each the one that its
        generator would make alone.

    Raises
    ------
    ValueError
        For an even or small p, a width below 1, a scale that is not positive, unknown names.
    """

    input_weights: nn.Parameter
    output_weights: nn.Parameter

    def __init__(
        self,
        p: int,
        width: int,
        *,
        activation: ActivationName = "square",
        init: Init = "gaussian",
        scale: float | None = None,
        generator: torch.Generator | Sequence[torch.Generator],
    ) -> None:
        super().__init__()
        check_modulus(p)
        if width < 1:
            raise ValueError(f"width must be 1 or more; got {width}")
        if init not in get_args(Init):
            raise ValueError(f"init must be one of {', '.join(get_args(Init))}; got {init!r}")
        if scale is None:
            scale = 0.1 if init == "gaussian" else 0.002 if activation == "relu" else 0.02
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a positive number; got {scale}")
        self.p, self.width, self.activation = p, width, _known(activation)
        if isinstance(generator, torch.Generator):
            layers = _draw(p, width, init, scale, generator)
        else:
            if not generator:
                raise ValueError("generator is an empty sequence: pass one generator a network")
            drawn = [_draw(p, width, init, scale, each) for each in generator]
            layers = tuple(torch.stack(layer) for layer in zip(*drawn, strict=True))
        self.input_weights, self.output_weights = (nn.Parameter(layer) for layer in layers)

    @classmethod
    def from_weights(
        cls,
        input_weights: Float[Tensor, "*run neuron p"],
        output_weights: Float[Tensor, "*run p neuron"],
        activation: ActivationName = "square",
    ) -> ModularAdditionNet:
        """A network with copies of given weights."""
        if input_weights.dim() not in (2, 3) or input_weights.shape != output_weights.mT.shape:
            raise ValueError(
                "input_weights must have shape (neurons, p) or (runs, neurons, p) and output_weights be laid out as "
                f"(p, neurons) in its place; got {tuple(input_weights.shape)} and {tuple(output_weights.shape)}"
            )
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        network.width, network.p = input_weights.shape[-2:]
        check_modulus(network.p)
        network.activation = _known(activation)
        network.input_weights = nn.Parameter(input_weights.detach().clone())
        network.output_weights = nn.Parameter(output_weights.detach().clone())
        return network

    def forward(self, pairs: Int[Tensor, "pairs 2"], activation: Activation | None = None) -> Float[Tensor, "..."]:
        """Logits of every pair, (pairs, p), or (runs, pairs, p).

        Parameters
        ----------
        pairs
            Whole numbers in 0..p - 1.
        activation
            Takes the place of the network's own: the swap that tells what the features need of it.

        Raises
        ------
        IndexError
            A number outside 0..p - 1.
        """
        if pairs.dim() != 2 or pairs.shape[1] != 2:
            raise ValueError(f"pairs must have shape (pairs, 2); got {tuple(pairs.shape)}")
        if pairs.is_floating_point() or pairs.dtype == torch.bool:
            raise TypeError(f"pairs must be whole numbers, such as torch.int64; got {pairs.dtype}")
        if (outside := (pairs < 0) | (pairs >= self.p)).any():
            raise IndexError(f"pairs must lie in 0..{self.p - 1}; got {pairs[outside][0].item()}")
        # A product with the counts of each number: its gradient is a product too, where that of indexing is a scatter.
        counts = functional.one_hot(pairs.long(), self.p).sum(1).to(self.input_weights)
        hidden = (activation or ACTIVATIONS[self.activation])(counts @ self.input_weights.mT)
        return hidden @ self.output_weights.mT

    def extra_repr(self) -> str:
        runs = f", runs={len(self.input_weights)}" if self.input_weights.dim() == 3 else ""
        return f"p={self.p}, width={self.width}, activation={self.activation!r}{runs}"


def _known(activation: str) -> str:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    return activation


def _draw(p: int, width: int, init: Init, scale: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    if init == "gaussian":
        shapes = ((width, p), (p, width))
        first, second = (torch.randn(shape, generator=generator) * (scale / math.sqrt(p)) for shape in shapes)
        return first, second
    top = (p - 1) // 2
    if init == "single_frequency":
        deck = torch.randperm(top, generator=generator).repeat(math.ceil(width / top))[:width]
        present = functional.one_hot(deck[torch.randperm(width, generator=generator)], top)
    else:
        present = torch.ones(width, top)
    numbers = torch.outer(torch.arange(1, top + 1), torch.arange(p)) % p
    angles = numbers.double() * (2 * math.pi / p)
    phases = torch.rand(2, width, top, generator=generator, dtype=torch.float64) * (2 * math.pi)
    # cos(omega j + phase), summed over the frequencies that a neuron has, as two products.
    first, second = (
        (present * phase.cos()) @ angles.cos() - (present * phase.sin()) @ angles.sin() for phase in phases
    )
    return (scale * first).float(), (scale * second).float().mT.contiguous()
