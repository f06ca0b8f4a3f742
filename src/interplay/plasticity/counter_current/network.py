"""Two networks that run in opposite directions through the same levels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.plasticity.counter_current.mirror import CONVOLUTIONS, Reshape, mirrored_stages

__all__ = ["CCConv2d", "CCFlatten", "CCLinear", "CounterCurrentNet", "CounterCurrentPair"]

Activation = Callable[[Tensor], Tensor]


class CounterCurrentPair(nn.Module):
    """A layer of the forward network and the layer of the feedback network that runs against it.

    Parameters
    ----------
    forward_module
        F_l: from level l - 1 to level l.
    feedback_module
        G_l: from level l to level l - 1.
    act
        Activation of level l, without parameters: applied to a_l and to c_l alike, and left out at the last level,
        which holds outputs and targets. None: the modules hold the activations of the levels that they lead to.

    Raises
    ------
    ValueError
        An activation with parameters or buffers, or two weights of which one is not the mirror image of the other.
    """

    def __init__(
        self, forward_module: nn.Module, feedback_module: nn.Module, act: Activation | None = functional.elu
    ) -> None:
        super().__init__()
        for name, module in (("forward_module", forward_module), ("feedback_module", feedback_module)):
            if not isinstance(module, nn.Module):
                raise TypeError(f"{name} must be a torch.nn.Module, got {type(module).__name__}")
        if isinstance(act, nn.Module) and (list(act.parameters()) or list(act.buffers())):
            raise ValueError(
                f"act must have no state of its own, got {act}: both networks use it; take a plain one such as ELU"
            )
        self.forward_module = forward_module
        self.feedback_module = feedback_module
        self.act = act
        layers = self._weighted()
        if layers is not None and _ends(layers[0]) != _ends(layers[1])[::-1]:
            (below, level), (top, bottom) = (_ends(layer) for layer in layers)
            raise ValueError(
                f"the feedback layer does not mirror the forward layer: {layers[0]} leads from {below} to {level}, and "
                f"{layers[1]} from {top} to {bottom}"
            )

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """One level up, with its activation."""
        return self.activate(self.forward_module(x))

    def activate(self, x: Tensor) -> Tensor:
        """The activation of level l."""
        return x if self.act is None else self.act(x)

    def weights(self) -> tuple[Tensor, Tensor] | None:
        """F_l and the transposed G_l; None where a side has not exactly one weight, or their kernels differ.

        Convolutions are transposed as linear maps: channels exchanged and kernels turned by half a turn. Then the two
        are equal where the feedback layer is the adjoint of the forward layer, up to strides.
        """
        layers = self._weighted()
        if layers is None:
            return None
        forward, feedback = (_as_correlation(layer) for layer in layers)
        back = _adjoint(feedback, getattr(layers[1], "groups", 1))
        return (forward, back) if forward.shape == back.shape else None

    def _weighted(self) -> tuple[nn.Module, nn.Module] | None:
        found = []
        for side in (self.forward_module, self.feedback_module):
            layers = [part for part in side.modules() if isinstance(part, (nn.Linear, *CONVOLUTIONS))]
            if len(layers) != 1:
                return None
            found += layers
        return found[0], found[1]

    def extra_repr(self) -> str:
        """The activation, where it is no module."""
        return "" if self.act is None else f"act={getattr(self.act, '__name__', self.act)}"


def CCLinear(
    inputs: int, outputs: int, *, bias: bool = False, act: Activation | None = functional.elu
) -> CounterCurrentPair:
    """Pair of linear layers, by default without biases as in the paper's multi-layer perceptrons."""
    return CounterCurrentPair(nn.Linear(inputs, outputs, bias), nn.Linear(outputs, inputs, bias), act)


def CCConv2d(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    down: Literal["stride", "pool"] | None = "stride",
    act: Activation | None = functional.elu,
) -> CounterCurrentPair:
    """Pair of convolutions of which the forward one halves the sides of the image and the feedback one doubles them.

    Parameters
    ----------
    inputs, outputs
        Channels.
    kernel
        Side of both kernels, odd.
    down
        "stride": stride 2, with biases that start at zero. "pool": 2 x 2 maximum behind the convolution, no biases.
        None: the size is kept, no biases. On the way back, the nearest neighbour is repeated before the convolution.
        The sides of the image must be even; for others, `CounterCurrentNet.from_sequential` finds the sizes.
    act
        Activation; increasing, so that it makes no difference whether it stands before or behind the maximum.
    """
    if kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, got {kernel}")
    if down not in ("stride", "pool", None):
        raise ValueError(f"down must be 'stride', 'pool' or None, got {down!r}")
    bias = down == "stride"
    forward: nn.Module = nn.Conv2d(inputs, outputs, kernel, 2 if down == "stride" else 1, kernel // 2, bias=bias)
    feedback: nn.Module = nn.Conv2d(outputs, inputs, kernel, 1, kernel // 2, bias=bias)
    if bias:
        nn.init.zeros_(forward.bias)
        nn.init.zeros_(feedback.bias)
    if down == "pool":
        forward = nn.Sequential(forward, nn.MaxPool2d(2))
    if down is not None:
        feedback = nn.Sequential(nn.Upsample(scale_factor=2), feedback)
    return CounterCurrentPair(forward, feedback, act)


def CCFlatten(*shape: int) -> CounterCurrentPair:
    """Pair that turns maps of (channels, height, width) into vectors, and vectors back into maps. It is no level."""
    return CounterCurrentPair(nn.Flatten(), Reshape(shape), None)


class CounterCurrentNet(nn.Module):
    """A forward network, and a feedback network that runs from its outputs to its inputs.

    As a module it is the forward network: `net(x)` are the outputs, with gradients through all layers, as anywhere in
    PyTorch. For learning, `activations` and `signals` give the levels of both networks with a stop before every layer,
    so that no gradient crosses one.

    Parameters
    ----------
    pairs
        From the input to the output. One without parameters (`CCFlatten`) is no level: it joins the pair below it.

    Attributes
    ----------
    pairs
        One a level, 1 to L.
    """

    def __init__(self, pairs: Iterable[CounterCurrentPair]) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(_merged(pairs))

    @classmethod
    def from_sequential(cls, model: nn.Sequential, input_shape: Sequence[int] | None = None) -> Self:
        """Mirror a network.

        Each level ends before the next linear or convolutional layer and takes the activations, normalisations and
        poolings up to there with it. Its feedback layer is of the same kind and kernel with inputs and outputs
        exchanged, and ends in the same normalisation (with parameters of its own) and activation as the level it leads
        to. Where the forward network shrinks an image, the feedback network repeats the nearest neighbour; where it
        enlarges one, the feedback network strides. Dropout stays in the forward network alone.

        Parameters
        ----------
        model
            Linear, convolutional and transposed convolutional layers, stateless activations, pooling, normalisation,
            dropout, Flatten, Unflatten, Upsample; nested Sequentials are opened. Its layers are used, not copied:
            training the net trains the model.
        input_shape
            Of one sample, without the batch. Needed unless the model begins with a linear layer.

        Raises
        ------
        ValueError
            A layer that cannot be mirrored, or that does not fit the shape it gets; by its name in the model.
        """
        return cls(
            CounterCurrentPair(stage.forward, stage.feedback, None) for stage in mirrored_stages(model, input_shape)
        )

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Outputs a_L of the forward network."""
        _check_floating("x", x)
        for pair in self.pairs[:-1]:
            x = pair(x)
        return self.pairs[-1].forward_module(x)

    def activations(self, x: Float[Tensor, "batch ..."]) -> list[Tensor]:
        """Levels [a_0 = x, a_1, ..., a_L] of the forward network; a_l passes gradients to F_l alone."""
        _check_floating("x", x)
        levels = [x]
        for pair in self.pairs[:-1]:
            levels.append(pair(levels[-1].detach()))
        levels.append(self.pairs[-1].forward_module(levels[-1].detach()))
        return levels

    def signals(self, targets: Float[Tensor, "row ..."]) -> list[Tensor]:
        """Levels [c_0, ..., c_{L-1}, c_L = targets] of the feedback network; c_{l-1} passes gradients to G_l alone.

        Parameters
        ----------
        targets
            One row a class (`torch.eye(classes)`) to learn a classification; one row a sample to learn a regression or
            to reconstruct.
        """
        _check_floating("targets", targets)
        levels = [targets]
        for level in range(len(self.pairs), 0, -1):
            signal = self.pairs[level - 1].feedback_module(levels[-1].detach())
            levels.append(self.pairs[level - 2].activate(signal) if level > 1 else signal)
        return levels[::-1]

    @torch.no_grad()
    def generate(self, targets: Float[Tensor, "row ..."]) -> Float[Tensor, "row ..."]:
        """What the feedback network makes of targets in the space of inputs, c_0; for a class, its template."""
        return self.signals(targets)[0]

    def forward_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of F_1 to F_L, those of their normalisations included."""
        return nn.ModuleList(pair.forward_module for pair in self.pairs).parameters()

    def feedback_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of G_1 to G_L, those of their normalisations included."""
        return nn.ModuleList(pair.feedback_module for pair in self.pairs).parameters()


def _merged(pairs: Iterable[CounterCurrentPair]) -> Iterator[CounterCurrentPair]:
    """One pair a level: pairs that only reshape join the pair below them."""
    current: CounterCurrentPair | None = None
    for position, pair in enumerate(pairs):
        if not isinstance(pair, CounterCurrentPair):
            raise TypeError(f"pairs must be CounterCurrentPair; pair {position} is {type(pair).__name__}")
        reshapes = next(pair.parameters(), None) is None
        if current is None and reshapes:
            raise ValueError(f"pairs must begin with one that has parameters; the first is {pair}")
        if reshapes:
            forward = nn.Sequential(current.forward_module, pair.forward_module)
            feedback = nn.Sequential(pair.feedback_module, current.feedback_module)
            current = CounterCurrentPair(forward, feedback, current.act)
        else:
            if current is not None:
                yield current
            current = pair
    if current is None:
        raise ValueError("pairs must be at least one")
    yield current


def _ends(layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _as_correlation(layer: nn.Module) -> Tensor:
    """The weight (out, in / groups, *kernel) of the layer as a linear map or plain convolution."""
    return _adjoint(layer.weight, layer.groups) if getattr(layer, "transposed", False) else layer.weight


def _adjoint(weight: Tensor, groups: int) -> Tensor:
    turned = weight.flip(list(range(2, weight.ndim)))
    return turned.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def _check_floating(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        hint = "scale images to floating point" if name == "x" else "use the rows of torch.eye(classes)"
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}; {hint}")
