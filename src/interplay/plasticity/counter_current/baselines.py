"""Other ways to assign credit to the same layers, trained by the same loop: counter-current learning's competitors.

Each takes the forward layers of a `CounterCurrentNet` (difference target propagation its feedback layers too), and each
is a module: `rule(inputs, labels)` is a loss whose one backward pass leaves in every `.grad` what the rule says, and
`rule.groups()` are the sets of parameters that belong together, each clipped by itself.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from interplay.plasticity.counter_current.losses import CounterCurrentObjective
from interplay.plasticity.counter_current.mirror import WEIGHTED
from interplay.plasticity.counter_current.network import CounterCurrentNet

__all__ = [
    "Backpropagation",
    "CounterCurrent",
    "CreditRule",
    "DifferenceTargetPropagation",
    "DirectRandomTargetProjection",
    "FeedbackAlignment",
    "TopLayerOnly",
]


class CreditRule(nn.Module):
    """A way to tell every layer of a classifier how to change.

    Parameters
    ----------
    net
        The networks; they are used, not copied.
    """

    def __init__(self, net: CounterCurrentNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: Float[Tensor, "batch ..."], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """A loss whose gradients are the rule's."""
        raise NotImplementedError

    def groups(self) -> list[list[nn.Parameter]]:
        """Parameters that learn, in sets that are clipped together."""
        return [list(self.net.forward_parameters())]


class Backpropagation(CreditRule):
    """Gradient of the cross-entropy through all layers."""

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy."""
        return functional.cross_entropy(self.net(inputs), labels)


class CounterCurrent(CreditRule):
    """Counter-current learning of a classifier, and its ablations.

    Parameters
    ----------
    net
        The networks.
    feedback
        False freezes the feedback network: its codes of the classes are random and stay so.
    input_level
        Whether the loss of level 0, which trains the class templates, takes part.
    per_sample
        Send each sample's own target through the feedback network and compare each activity with its own code alone:
        no other class repels it. The published rule sends each class once and compares all with all.
    **settings
        As in `CounterCurrentObjective`.
    """

    def __init__(
        self,
        net: CounterCurrentNet,
        *,
        feedback: bool = True,
        input_level: bool = True,
        per_sample: bool = False,
        **settings: object,
    ) -> None:
        super().__init__(net)
        self.objective = CounterCurrentObjective(net, **settings)
        self.feedback = feedback
        self.input_level = input_level
        self.per_sample = per_sample

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Sum of the local losses."""
        if self.per_sample:
            return self._each_with_its_own(inputs, labels)
        losses = self.objective(inputs, labels)
        return losses.total if self.input_level else torch.stack(losses.per_level[1:]).sum()

    def _each_with_its_own(self, inputs: Tensor, labels: Tensor) -> Tensor:
        *activations, outputs = self.net.activations(inputs)
        targets = torch.eye(outputs.shape[1], dtype=outputs.dtype, device=outputs.device)[labels]
        loss = functional.cross_entropy(outputs, labels)
        for level, (activity, signal) in enumerate(zip(activations, self.net.signals(targets), strict=False)):
            if level > 0 or self.input_level:
                loss = loss + _distance(activity, signal)
        return loss

    def groups(self) -> list[list[nn.Parameter]]:
        """The forward parameters, and the feedback parameters unless they are frozen."""
        return [*super().groups(), *([list(self.net.feedback_parameters())] if self.feedback else [])]


class TopLayerOnly(CreditRule):
    """The last layer learns, on features that stay as they were drawn."""

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the last layer."""
        with torch.no_grad():
            for pair in self.net.pairs[:-1]:
                inputs = pair(inputs)
        return functional.cross_entropy(self.net.pairs[-1].forward_module(inputs), labels)

    def groups(self) -> list[list[nn.Parameter]]:
        """Parameters of the last layer."""
        return [list(self.net.pairs[-1].forward_module.parameters())]


class FeedbackAlignment(CreditRule):
    """Backpropagation in which errors travel through fixed random weights (Lillicrap et al. 2016).

    Parameters
    ----------
    net
        The networks; every forward layer holds one linear or convolutional layer, possibly within a Sequential.
    """

    def __init__(self, net: CounterCurrentNet) -> None:
        super().__init__(net)
        carriers = []
        for module in _weighted(net)[1:]:
            carrier = copy.deepcopy(module)
            carrier.reset_parameters()
            carrier.bias = None
            carriers.append(carrier.requires_grad_(False))
        self.carriers = nn.ModuleList(carriers)

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy, with errors sent astray."""
        carriers = dict(zip(_weighted(self.net)[1:], self.carriers, strict=True))
        for level, pair in enumerate(self.net.pairs, 1):
            for part in _parts(pair.forward_module):
                inputs = _with_errors_through(carriers.get(part), part, inputs)
            if level < len(self.net.pairs):
                inputs = pair.activate(inputs)
        return functional.cross_entropy(inputs, labels)


class DirectRandomTargetProjection(CreditRule):
    """Every hidden layer gets the label through a fixed random projection of its own (Frenkel et al. 2021).

    The gradient of a hidden layer's drive is B_l y, times the slope of its activation; the last layer learns by
    cross-entropy. The signs of B_l are drawn, so the rule's sign is of no effect.

    Parameters
    ----------
    net
        The networks.
    sample
        (1, ...), a sample, which shows the shapes of the levels.
    classes
        Number of classes.
    """

    def __init__(self, net: CounterCurrentNet, sample: Float[Tensor, "1 ..."], classes: int) -> None:
        super().__init__(net)
        with torch.no_grad():
            widths = [level[0].numel() for level in net.activations(sample)[1:-1]]
        bound = math.sqrt(3.0 / classes)
        for level, width in enumerate(widths, 1):
            projection = torch.empty(classes, width, dtype=sample.dtype).uniform_(-bound, bound)
            self.register_buffer(f"projection_{level}", projection)

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the outputs, plus each hidden activity's inner product with its label's projection."""
        *hidden, outputs = self.net.activations(inputs)[1:]
        loss = functional.cross_entropy(outputs, labels)
        for level, activity in enumerate(hidden, 1):
            errors = getattr(self, f"projection_{level}")[labels] / len(labels)
            loss = loss + (activity.flatten(1) * errors).sum()
        return loss


class DifferenceTargetPropagation(CreditRule):
    """Every layer gets a target, which approximate inverses carry down from the output (Lee et al. 2015).

    h^_{L-1} = h_{L-1} - eta dCE/dh_{L-1};  h^_{l-1} = h_{l-1} - g_l(h_l) + g_l(h^_l);  F_l lowers |f_l(h_{l-1}) -
    h^_l|^2, and g_l lowers |g_l(f_l(h_{l-1} + noise)) - h_{l-1} - noise|^2. The inverses are the feedback layers of the
    network, from level L - 1 to level 1.

    Parameters
    ----------
    net
        The networks.
    step
        eta of the first target. With .5 the last hidden layer's gradient is that of backpropagation.
    noise
        Standard deviation.
    generator
        Draws the noise.
    """

    def __init__(
        self, net: CounterCurrentNet, *, step: float = 0.5, noise: float = 0.1, generator: torch.Generator
    ) -> None:
        super().__init__(net)
        self.step = step
        self.noise = noise
        self.generator = generator

    def forward(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the last layer, the hidden layers' distances to their targets, and those of the inverses."""
        *hidden, outputs = self.net.activations(inputs)[1:]
        top = functional.cross_entropy(outputs, labels)
        last = hidden[-1]
        error = functional.cross_entropy(self.net.pairs[-1].forward_module(last), labels, reduction="sum")
        target = last.detach() - self.step * torch.autograd.grad(error, last)[0]
        loss = top
        for level in range(len(hidden), 0, -1):
            activity = hidden[level - 1]
            loss = loss + _distance(activity, target)
            if level > 1:
                below = hidden[level - 2].detach()
                with torch.no_grad():
                    target = below - self._inverse(level, activity) + self._inverse(level, target)
                    noise = torch.empty_like(below).normal_(0, self.noise, generator=self.generator)
                    noisy = below + noise
                    image = self.net.pairs[level - 1](noisy)
                loss = loss + _distance(self._inverse(level, image), noisy)
        return loss

    def groups(self) -> list[list[nn.Parameter]]:
        """The forward parameters, and those of the inverses."""
        inverses = nn.ModuleList(pair.feedback_module for pair in self.net.pairs[1:-1])
        return [*super().groups(), list(inverses.parameters())]

    def _inverse(self, level: int, x: Tensor) -> Tensor:
        return self.net.pairs[level - 2].activate(self.net.pairs[level - 1].feedback_module(x))


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).flatten(1).square().sum(1).mean()


def _with_errors_through(carrier: nn.Module | None, layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output; backwards, the error goes through the carrier instead of the layer."""
    if carrier is None:
        return layer(x)
    carried = carrier(x)
    return layer(x.detach()) + (carried - carried.detach())


def _weighted(net: CounterCurrentNet) -> list[nn.Module]:
    return [part for pair in net.pairs for part in _parts(pair.forward_module) if isinstance(part, WEIGHTED)]


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, nn.Sequential):
        for part in module:
            yield from _parts(part)
    else:
        yield module
