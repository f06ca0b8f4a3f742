"""Training the two networks, and looking at what they have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.plasticity.counter_current.losses import CounterCurrentObjective, Kind, LocalLosses
from interplay.plasticity.counter_current.network import CounterCurrentNet
from interplay.primitives.conflict import update_cosine

__all__ = ["CounterCurrentTrainer", "alignment", "centralize_gradients", "update_cosine_to_backpropagation"]


class CounterCurrentTrainer:
    """Stochastic gradient descent on the local losses, with each network's gradient clipped by itself.

    A plain loop over `CounterCurrentObjective` with any optimiser does as well; this is the published one.

    Parameters
    ----------
    net
        The two networks.
    lr, feedback_lr
        Step sizes of the forward and of the feedback network; the second is by default the first.
    clip
        Largest norm of the gradient of each network's parameters, taken for each network by itself; None: no limit.
    momentum, weight_decay
        As in `torch.optim.SGD`, for both.
    centralize
        Subtract from the gradient of every unit's weights their mean, before clipping.
    warm_up
        Steps over which the loss is scaled up to its full size.
    kind, **settings
        As in `counter_current_loss`.

    Attributes
    ----------
    forward_optimizer, feedback_optimizer
        `torch.optim.SGD`, open to learning-rate schedules.
    """

    def __init__(
        self,
        net: CounterCurrentNet,
        lr: float = 1.0,
        feedback_lr: float | None = None,
        *,
        clip: float | None = 1.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        centralize: bool = False,
        warm_up: int = 0,
        kind: Kind = "inner",
        **settings: float | None,
    ) -> None:
        if clip is not None and not (math.isfinite(clip) and clip > 0):
            raise ValueError(f"clip must be a positive number or None, got {clip!r}")
        if isinstance(warm_up, bool) or not isinstance(warm_up, int) or warm_up < 0:
            raise ValueError(f"warm_up must be a number of steps, 0 or more, got {warm_up!r}")
        self.objective = CounterCurrentObjective(net, kind, **settings)
        self.clip = clip
        self.centralize = centralize
        self.warm_up = warm_up
        self.steps = 0
        self._sides = [list(net.forward_parameters()), list(net.feedback_parameters())]
        feedback_lr = lr if feedback_lr is None else feedback_lr
        self.forward_optimizer, self.feedback_optimizer = (
            torch.optim.SGD(side, lr=rate, momentum=momentum, weight_decay=weight_decay)
            for side, rate in zip(self._sides, (lr, feedback_lr), strict=True)
        )

    def step(self, inputs: Float[Tensor, "batch ..."], targets: Tensor) -> LocalLosses:
        """Learn from a batch, given as to `CounterCurrentObjective`; returns the losses before the step."""
        losses = self.objective(inputs, targets)
        total = losses.total
        if self.steps < self.warm_up:
            total = total * ((self.steps + 1) / self.warm_up)
        optimizers = (self.forward_optimizer, self.feedback_optimizer)
        for optimizer in optimizers:
            optimizer.zero_grad()
        total.backward()
        for side, optimizer in zip(self._sides, optimizers, strict=True):
            if self.centralize:
                centralize_gradients(side)
            if self.clip is not None:
                nn.utils.clip_grad_norm_(side, self.clip)
            optimizer.step()
        self.steps += 1
        return LocalLosses(losses.total.detach(), [loss.detach() for loss in losses.per_level])


@torch.no_grad()
def centralize_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Subtract from the gradient of each unit's incoming weights their mean; biases and gains are left alone."""
    for parameter in parameters:
        if parameter.grad is not None and parameter.ndim > 1:
            parameter.grad -= parameter.grad.mean(tuple(range(1, parameter.ndim)), keepdim=True)


@torch.no_grad()
def alignment(net: CounterCurrentNet) -> Float[Tensor, " level"]:
    """Cosine of F_l and the transposed G_l for levels 1 to L; NaN where they have no common shape.

    Backpropagation would have 1 everywhere: it sends errors back through the transposed forward weights.
    """
    cosines = []
    for pair in net.pairs:
        weights = pair.weights()
        cosines.append(torch.tensor(math.nan) if weights is None else update_cosine(*weights))
    return torch.stack([cosine.to(cosines[0]) for cosine in cosines])


def update_cosine_to_backpropagation(
    net: CounterCurrentNet, inputs: Float[Tensor, "batch ..."], targets: Tensor, kind: Kind = "inner", **settings: Any
) -> Float[Tensor, " level"]:
    """Cosine of each forward layer's local gradient with the gradient of the output's loss, for levels 1 to L.

    The loss of the outputs is cross-entropy, for kind "reconstruction" the mean squared error. Gradients that are
    accumulated, running statistics and the networks themselves stay as they are.

    Parameters
    ----------
    net
        The two networks.
    inputs, targets, kind, **settings
        As in `CounterCurrentObjective`.
    """
    objective = CounterCurrentObjective(net, kind, **settings)
    buffers = {name: tensor.clone() for name, tensor in net.named_buffers()}
    sides = [list(pair.forward_module.parameters()) for pair in net.pairs]
    parameters = [parameter for side in sides for parameter in side]
    local = torch.autograd.grad(objective(inputs, targets).total, parameters, allow_unused=True)
    outputs = net(inputs)
    loss = functional.mse_loss if kind == "reconstruction" else functional.cross_entropy
    through = torch.autograd.grad(loss(outputs, targets), parameters, allow_unused=True)
    for name, tensor in net.named_buffers():
        tensor.copy_(buffers[name])
    cosines, start = [], 0
    for side in sides:
        cosines.append(update_cosine(local[start : start + len(side)], through[start : start + len(side)]))
        start += len(side)
    return torch.stack(cosines)
