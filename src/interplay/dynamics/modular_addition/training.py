"""Full-batch training of many addition networks at once, by descent or AdamW with a rate and decay of their own.

The logits of (x, y) and (y, x) are the same, so a pass goes over the p (p + 1) / 2 unordered pairs, each with the
number of its orders in the training set as weight, and is written out, as the gradient of the mean cross-entropy is
short:

(1)  G = (softmax(f) - onehot(x + y)) * weight / sum of weights,   df = G
(2)  dxi = G h^T,   dtheta = (xi^T G * sigma'(z)) C^T,   with C[j, pair] how often number j is in a pair
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from interplay.dynamics.modular_addition.fourier import check_modulus
from interplay.dynamics.modular_addition.network import ACTIVATIONS, ModularAdditionNet

__all__ = ["Descent", "random_split", "train"]

Watch = Callable[[int, ModularAdditionNet, Tensor], object]
# Networks go through a pass in blocks whose hidden layer stays in a core's cache: at 512 neurons and p = 23, eight in
# one product take half as long again as eight one after another.
HIDDEN_VALUES_AT_ONCE = 150_000
CHECK_EVERY = 100
BACKWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "square": lambda gradient, drive: gradient.mul_(drive).mul_(2),
    "relu": lambda gradient, drive: torch.ops.aten.threshold_backward(gradient, drive, 0),
    "gelu": torch.ops.aten.gelu_backward,
    "identity": lambda gradient, drive: gradient,
}


@dataclass(frozen=True)
class Descent:
    """How networks learn.

    Attributes
    ----------
    lr
        Learning rate, of all networks or (run,).
    optimizer
        `gd`, plain gradient descent, or `adamw`.
    weight_decay
        Of all networks or (run,); decoupled from the gradient with `adamw`, part of it with `gd`.
    betas, eps
        Of AdamW.
    warm_up
        Step t takes min(t / warm_up, 1) of the rate, so that the very first is none, as published; 0 for all of it.
    """

    lr: float | Float[Tensor, " run"] = 5e-5
    optimizer: Literal["gd", "adamw"] = "adamw"
    weight_decay: float | Float[Tensor, " run"] = 0.0
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    warm_up: int = 10


def random_split(
    p: int, fraction: float, generator: torch.Generator | Sequence[torch.Generator]
) -> Bool[Tensor, "*run p p"]:
    """Mark the training pairs: a random share of all ordered pairs (x, y), floor(fraction p^2) of them.

    Parameters
    ----------
    p
        Modulus.
    fraction
        Share of the table to train on.
    generator
        Draws the pairs; a sequence draws a split for each network.
    """
    check_modulus(p)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1; got {fraction}")
    if not isinstance(generator, torch.Generator):
        return torch.stack([random_split(p, fraction, each) for each in generator])
    chosen = torch.zeros(p * p, dtype=torch.bool)
    chosen[torch.randperm(p * p, generator=generator)[: int(fraction * p * p)]] = True
    if not chosen.any():
        raise ValueError(f"fraction {fraction} of {p * p} pairs is not a single one; raise it")
    return chosen.view(p, p)


@torch.no_grad()
def train(
    network: ModularAdditionNet,
    steps: int,
    rule: Descent | None = None,
    *,
    in_train: Bool[Tensor, "*run p p"] | None = None,
    watch: Watch | None = None,
) -> Float[Tensor, "time ..."]:
    """Train in place on the mean cross-entropy; networks along the run axis do not see one another.

    Parameters
    ----------
    network
        One network or many.
    steps
        Steps on the full batch.
    rule
        AdamW at 5e-5 if not given.
    in_train
        Training pairs, of all networks or of each; the whole table if not given.
    watch
        Called with step, network and training losses before every step and after the last, as a `GrokkingMonitor` is.

    Returns
    -------
    Tensor
        Training loss before every step and after the last, (steps + 1,) or (steps + 1, runs).

    Raises
    ------
    ValueError
        If an argument does not fit the networks.
    FloatingPointError
        If a loss is not finite; names step and network.
    """
    rule = Descent() if rule is None else rule
    if steps < 0:
        raise ValueError(f"steps must be 0 or more; got {steps}")
    table = _Pass(network, in_train)
    update = _Update([_stacked(network.input_weights), _stacked(network.output_weights)], rule)
    shape = network.input_weights.shape[:-2]
    losses: list[Tensor] = []
    for step in range(steps + 1):
        loss, gradients = table()
        losses.append(loss.view(shape))
        if step % CHECK_EVERY == 0 or step == steps:
            _check_finite(losses)
        if watch is not None:
            watch(step, network, losses[-1])
        if step < steps:
            update(gradients)
    return torch.stack(losses)


class _Pass:
    """Losses and gradients of all networks on their training pairs."""

    def __init__(self, network: ModularAdditionNet, in_train: Tensor | None) -> None:
        self.activation, self.backward = ACTIVATIONS[network.activation], BACKWARD[network.activation]
        self.weights = _stacked(network.input_weights), _stacked(network.output_weights)
        like, p, runs = network.input_weights, network.p, len(self.weights[0])
        orders = torch.ones(p, p, dtype=torch.bool) if in_train is None else in_train
        if orders.shape not in {(p, p), (*network.input_weights.shape[:-2], p, p)} or orders.dtype != torch.bool:
            raise ValueError(
                f"in_train must be boolean, of shape {(p, p)} or one such table a network; got {orders.dtype} of "
                f"{tuple(orders.shape)}"
            )
        if not orders.any((-2, -1)).all():
            raise ValueError("in_train leaves a network without a training pair")
        orders = orders.to(like.device)
        x, y = torch.triu_indices(p, p, device=like.device)
        count = orders[..., x, y].to(like) + (orders[..., y, x] & (x != y)).to(like)
        count = count.expand(runs, -1) if count.dim() == 1 else count
        used = count.any(0)
        x, y, count = x[used], y[used], count[:, used]
        self.share = (count / count.sum(1, keepdim=True)).unsqueeze(1)
        self.labels = (x + y) % p
        self.counts = (functional.one_hot(x, p) + functional.one_hot(y, p)).to(like).mT.contiguous()
        self.right = functional.one_hot(self.labels, p).to(like).mT.contiguous()
        self.block = max(1, HIDDEN_VALUES_AT_ONCE // (network.width * len(x)))
        self.columns = torch.arange(len(x), device=like.device)

    def __call__(self) -> tuple[Tensor, list[Tensor]]:
        parts = [
            self._of(*block)
            for block in zip(*(part.split(self.block) for part in (*self.weights, self.share)), strict=True)
        ]
        loss, *gradients = (torch.cat(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True))
        return loss, gradients

    def _of(self, inputs: Tensor, outputs: Tensor, share: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        drive = inputs @ self.counts
        hidden = self.activation(drive)
        log_chance = (outputs @ hidden).log_softmax(1)
        loss = -(log_chance[:, self.labels, self.columns] * share[:, 0]).sum(1)
        at_logits = log_chance.exp_().sub_(self.right).mul_(share)
        at_drive = self.backward(outputs.mT @ at_logits, drive)
        # Turned over and back, since products are faster with the longer side last.
        return loss, (self.counts @ at_drive.mT).mT.contiguous(), at_logits @ hidden.mT


class _Update:
    """One step of all networks, in place."""

    def __init__(self, weights: list[Tensor], rule: Descent) -> None:
        if rule.optimizer not in ("gd", "adamw"):
            raise ValueError(f"optimizer must be gd or adamw; got {rule.optimizer!r}")
        self.weights, self.rule, self.step = weights, rule, 0
        self.lr = _of_each(rule.lr, weights[0], "lr")
        self.decay = _of_each(rule.weight_decay, weights[0], "weight_decay")
        self.decays = bool(torch.as_tensor(rule.weight_decay).any())
        if rule.optimizer == "adamw":
            self.means = [torch.zeros_like(weight) for weight in weights]
            self.squares = [torch.zeros_like(weight) for weight in weights]

    def __call__(self, gradients: list[Tensor]) -> None:
        rule = self.rule
        lr = self.lr * (min(self.step / rule.warm_up, 1) if rule.warm_up else 1)
        self.step += 1
        for index, (weight, gradient) in enumerate(zip(self.weights, gradients, strict=True)):
            if rule.optimizer == "gd":
                if self.decays:
                    gradient = gradient.addcmul(weight, self.decay)
                weight.sub_(gradient.mul_(lr))
                continue
            if self.decays:
                weight.mul_(1 - lr * self.decay)
            first, second = rule.betas
            mean = self.means[index].lerp_(gradient, 1 - first)
            square = self.squares[index].mul_(second).addcmul_(gradient, gradient, value=1 - second)
            below = square.sqrt().div_(math.sqrt(1 - second**self.step)).add_(rule.eps)
            weight.addcdiv_(mean * (lr / (1 - first**self.step)), below, value=-1)


def _stacked(weights: Tensor) -> Tensor:
    return weights.data if weights.dim() == 3 else weights.data.unsqueeze(0)


def _of_each(value: float | Tensor, weight: Tensor, name: str) -> Tensor:
    given = torch.as_tensor(value, dtype=weight.dtype, device=weight.device)
    if given.dim() > 1 or (given.dim() == 1 and len(given) != len(weight)):
        raise ValueError(f"{name} must be a number or one for each of {len(weight)} networks; got {tuple(given.shape)}")
    if not (given.isfinite() & (given >= 0)).all():
        raise ValueError(f"{name} must be finite and not negative; got {value}")
    return given.view(-1, 1, 1)


def _check_finite(losses: list[Tensor]) -> None:
    recent = torch.stack(losses[-CHECK_EVERY - 1 :]).view(-1, losses[0].numel())
    if not recent.isfinite().all():
        bad = ~recent.isfinite()
        row = int(bad.any(1).to(torch.uint8).argmax())
        raise FloatingPointError(
            f"the loss is not finite from step {len(losses) - len(recent) + row} on, of network "
            f"{int(bad[row].to(torch.uint8).argmax())}: lower lr"
        )
