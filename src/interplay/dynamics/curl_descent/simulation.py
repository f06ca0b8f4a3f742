"""Training of many two-layer students at once by curl descent.

Per step, for all networks along the leading axis in the same matrix products, with an update per layer

(1)  W2 <- W2 - eta mean(e h^T) D2,   W1 <- W1 - eta mean((W2^T e * phi'(W1 x)) x^T) D1
(2)  W <- W |W(0)| / |W| for both matrices, in the Frobenius norm
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interplay.dynamics.curl_descent.teacher_student import Directions, TwoLayerTeacherStudent
from interplay.primitives.plasticity import frobenius_norms, neuron_gains, rescaled_to_norms

__all__ = ["LearningRule", "Run", "simulate"]

Inputs = Float[Tensor, "*batch points inputs"] | float
CHECK_EVERY = 100


@dataclass(frozen=True)
class LearningRule:
    """How the networks of a simulation learn.

    Attributes
    ----------
    lr
        eta of one update. The published runs use 0.1 a pass over the points, so 0.1 batch_size / points a minibatch.
    gains1, gains2
        Diagonals of D1 and D2: (neurons,) for all networks or (batch, neurons). 1 is gradient descent, -1 a flipped
        neuron, 0 a frozen one. The neurons are the senders, inputs and hidden units, or with `side="post"` the
        receivers, hidden units and outputs. None stands for ones.
    side
        Which neurons the gains belong to.
    feedback
        Fixed matrices (batch, hidden, outputs) in the place of W2^T: direct feedback alignment.
    noisy
        (batch,): networks that follow the gradient plus Gaussian noise instead of their gains, per layer as long as
        what those gains would change, |gradient - gradient with gains|: the control for "does any perturbation do".
    renormalise
        Whether both matrices keep their initial Frobenius norms.
    optimizer
        Makes an optimiser for the two weights that takes the steps instead of plain descent by `lr`.
    """

    lr: float = 0.1
    gains1: Float[Tensor, "*batch neurons"] | None = None
    gains2: Float[Tensor, "*batch neurons"] | None = None
    side: Literal["pre", "post"] = "pre"
    feedback: Float[Tensor, "batch hidden outputs"] | None = None
    noisy: Bool[Tensor, " batch"] | None = None
    renormalise: bool = True
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] | None = None


@dataclass(frozen=True)
class Run:
    """What happened to the networks of a simulation.

    Attributes
    ----------
    loss
        (steps + 1, batch): half the mean squared error before every step and after the last one; shorter where
        `stop_below` ended the run. Of all training points, with minibatches too.
    test_loss
        (tests, batch), on points that are not trained on; empty without them.
    test_steps
        Steps at which the test loss was taken.
    order_parameter
        q, (batch,): the variance of a weight over the last steps, averaged over weights, over the variance across
        weights of their means. 0 is frozen, of order one chaotic; NaN if not asked for,
        or where the run was shorter than the window.
    """

    loss: Float[Tensor, "time batch"]
    test_loss: Float[Tensor, "tests batch"]
    test_steps: list[int]
    order_parameter: Float[Tensor, " batch"]

    def steps_to(self, level: float, horizon: int) -> Float[Tensor, " batch"]:
        """Steps until the loss is first below a level, and the horizon for a network that does not get there.

        Means over networks or seeds are then restricted means of the time, which censoring does not bias.
        """
        reached = self.loss[: horizon + 1] < level
        first = reached.to(torch.uint8).argmax(0)
        return torch.where(reached.any(0), first, horizon).to(self.loss)


@torch.no_grad()
def simulate(
    network: TwoLayerTeacherStudent,
    inputs: Inputs,
    steps: int,
    rule: LearningRule | None = None,
    *,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    test_inputs: Float[Tensor, "*batch points inputs"] | None = None,
    test_every: int = 100,
    window: int | None = None,
    stop_below: float | None = None,
) -> Run:
    """Train the students in place.

    Parameters
    ----------
    network
        Students and teachers; its weights change.
    inputs
        Training points, shared, (points, inputs), or a set a network. A number is the variance of white inputs in the
        limit of infinitely many points, for linear networks.
    steps
        Number of steps; with `batch_size` the number of passes over the points.
    rule
        How to learn; gradient descent at eta = 0.1 under constant norms if not given.
    batch_size
        Points in a minibatch, drawn without replacement; all points if not given.
    generator
        For the order of minibatches and the noise.
    test_inputs, test_every
        Points for the test loss, and how many steps apart it is taken.
    window
        Number of last steps that the order parameter is taken over, 1000 in the published runs; by default it is not.
    stop_below
        Ends the run once every network's loss has once been below.

    Raises
    ------
    ValueError
        If an argument does not fit the networks, or a weight matrix whose norm is to be kept is zero.
    FloatingPointError
        If a loss is not finite; names the step.
    """
    rule = LearningRule() if rule is None else rule
    if steps < 1:
        raise ValueError(f"steps must be 1 or more; got {steps}")
    if window is not None and window < 2:
        raise ValueError(f"window must be 2 or more steps, or None; got {window}")
    if (batch_size is not None or rule.noisy is not None) and generator is None:
        raise ValueError("minibatches and noise are random: pass a generator")
    update = _Update(network, rule, generator)
    teaching = _Teaching(network, inputs, rule.feedback, whole=batch_size is None)
    losses: list[Tensor] = []
    tests: list[tuple[int, Tensor]] = []
    fluctuations = _Fluctuations(network)
    reached = torch.zeros(len(network.weight1), dtype=torch.bool, device=network.weight1.device)
    for step in range(steps + 1):
        directions = teaching.directions() if batch_size is None else None
        losses.append(teaching.loss() if directions is None else directions.loss)
        if test_inputs is not None and (step % test_every == 0 or step == steps):
            tests.append((step, network.loss(test_inputs)))
        if stop_below is not None:
            reached |= losses[-1] < stop_below
        if step % CHECK_EVERY == 0 or step == steps:
            _check_finite(losses)
            if step == steps or (stop_below is not None and bool(reached.all())):
                break
        if directions is not None:
            update(directions)
        elif batch_size is not None:
            for points in teaching.minibatches(batch_size, generator):
                update(teaching.directions(points))
        if window is not None and step >= steps - window:
            fluctuations.add()
    return Run(
        torch.stack(losses),
        torch.stack([loss for _, loss in tests]) if tests else losses[0].new_empty(0, len(losses[0])),
        [step for step, _ in tests],
        fluctuations.order_parameter() if fluctuations.count == window else torch.full_like(losses[0], torch.nan),
    )


class _Teaching:
    """Inputs with the teachers' answers; for linear networks the covariance of the inputs says all but minibatches."""

    def __init__(
        self, network: TwoLayerTeacherStudent, inputs: Inputs, feedback: Tensor | None, *, whole: bool
    ) -> None:
        self.network, self.feedback = network, feedback
        self.covariance: Tensor | float | None = None
        if not isinstance(inputs, Tensor):
            if network.nonlinearity != "linear" or not whole or not inputs > 0:
                raise ValueError(
                    f"inputs given as a variance ({inputs}) must be positive, for linear networks and all points at "
                    "once"
                )
            self.covariance = float(inputs)
        else:
            self.x = inputs
            if network.nonlinearity == "linear" and inputs.shape[-2] > network.inputs:
                network.check_inputs(inputs)
                self.covariance = inputs.mT @ inputs / inputs.shape[-2]
            if self.covariance is None or not whole:
                self.targets = network.targets(inputs)
        if self.covariance is not None:
            self.teacher = network.teacher_weight2 @ network.teacher_weight1

    def directions(self, points: Tensor | None = None) -> Directions:
        if points is not None:
            return self.network.directions(self.x[..., points, :], self.targets[:, points], self.feedback)
        if self.covariance is not None:
            return self.network.population_directions(self.teacher, self.covariance, self.feedback)
        return self.network.directions(self.x, self.targets, self.feedback)

    def loss(self) -> Tensor:
        if self.covariance is not None:
            return self.network.population_loss(self.teacher, self.covariance)
        return (self.network(self.x) - self.targets).square().mean((1, 2)) / 2

    def minibatches(self, size: int, generator: torch.Generator | None) -> tuple[Tensor, ...]:
        return torch.randperm(self.x.shape[-2], generator=generator).to(self.x.device).split(size)


class _Update:
    """One step of the rule on both weights, in place."""

    def __init__(self, network: TwoLayerTeacherStudent, rule: LearningRule, generator: torch.Generator | None) -> None:
        self.parameters = (network.weight1, network.weight2)
        self.weights = tuple(parameter.data for parameter in self.parameters)
        self.rule, self.generator = rule, generator
        self.gains = [
            _factors(gains, weight, rule.side, name)
            for name, gains, weight in zip(("gains1", "gains2"), (rule.gains1, rule.gains2), self.weights, strict=True)
        ]
        self.norms = [frobenius_norms(weight) for weight in self.weights]
        if rule.renormalise:
            for name, weight, norms in zip(("weight1", "weight2"), self.weights, self.norms, strict=True):
                if not (norms > 0).all():
                    raise ValueError(
                        f"{name} of shape {tuple(weight.shape)} has a network with norm zero, which no rescaling can "
                        "keep: start elsewhere, or pass renormalise=False"
                    )
        batch, hidden, _ = self.weights[0].shape
        outputs = self.weights[1].shape[1]
        if rule.feedback is not None and tuple(rule.feedback.shape) != (batch, hidden, outputs):
            raise ValueError(f"feedback must have shape {(batch, hidden, outputs)}; got {tuple(rule.feedback.shape)}")
        self.optimizer = None if rule.optimizer is None else rule.optimizer(self.parameters)

    def __call__(self, directions: Directions) -> None:
        updates = directions.weight1, directions.weight2
        for parameter, weight, update, gains in zip(self.parameters, self.weights, updates, self.gains, strict=True):
            if self.rule.noisy is not None:
                parameter.grad = self._noisy(update, gains)
            elif self.optimizer is not None:
                parameter.grad = update if gains is None else update * gains
            elif gains is None:
                weight.add_(update, alpha=-self.rule.lr)
            else:
                weight.addcmul_(update, gains, value=-self.rule.lr)
        if self.optimizer is not None:
            self.optimizer.step()
        elif self.rule.noisy is not None:
            for parameter, weight in zip(self.parameters, self.weights, strict=True):
                weight.add_(parameter.grad, alpha=-self.rule.lr)
        if self.rule.renormalise:
            for weight, norms in zip(self.weights, self.norms, strict=True):
                weight.mul_(norms / frobenius_norms(weight))

    def _noisy(self, update: Tensor, gains: Tensor | None) -> Tensor:
        if gains is None:
            return update
        changed = update * gains
        noise = torch.randn(update.shape, generator=self.generator, dtype=update.dtype).to(update.device)
        noise = rescaled_to_norms(noise, frobenius_norms(update - changed))
        return torch.where(self.rule.noisy.view(-1, 1, 1), update + noise, changed)


class _Fluctuations:
    """Sums over time of the weights' deviations from where the window began, which loses no digits to their size."""

    def __init__(self, network: TwoLayerTeacherStudent) -> None:
        self.weights = [network.weight1.data, network.weight2.data]
        self.count = 0

    def add(self) -> None:
        now = torch.cat([weight.flatten(1) for weight in self.weights], 1)
        if self.count == 0:
            self.origin, self.sum, self.squares = now, torch.zeros_like(now), torch.zeros_like(now)
        deviation = now - self.origin
        self.sum += deviation
        self.squares.addcmul_(deviation, deviation)
        self.count += 1

    def order_parameter(self) -> Tensor:
        mean = self.sum / self.count
        variance = (self.squares / self.count - mean.square()).clamp_min(0)
        return variance.mean(1) / (self.origin + mean).var(1, correction=0)


def _factors(gains: Tensor | None, weight: Tensor, side: Literal["pre", "post"], name: str) -> Tensor | None:
    if gains is None:
        return None
    neurons = weight.shape[2 if side == "pre" else 1]
    if gains.dim() not in (1, 2) or gains.shape[-1] != neurons or (gains.dim() == 2 and len(gains) != len(weight)):
        raise ValueError(
            f"{name} must have shape ({neurons},) or ({len(weight)}, {neurons}) to scale weights of shape "
            f"{tuple(weight.shape)} on side {side!r}; got {tuple(gains.shape)}"
        )
    return neuron_gains(gains.to(weight), side)


def _check_finite(losses: list[Tensor]) -> None:
    recent = torch.stack(losses[-CHECK_EVERY - 1 :])
    if not recent.isfinite().all():
        step = len(losses) - len(recent) + int((~recent.isfinite()).any(1).to(torch.uint8).argmax())
        raise FloatingPointError(
            f"the loss is not finite from step {step} on, of network {int((~losses[step].isfinite()).nonzero()[0])}: "
            "lower lr, or keep the norms (renormalise=True)"
        )
