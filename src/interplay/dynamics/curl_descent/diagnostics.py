"""How far an update rule is from descending any loss, and how chaotic its trajectories are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vjp

from interplay.dynamics.curl_descent.optimizer import fitted_gains
from interplay.dynamics.curl_descent.simulation import Inputs, LearningRule, simulate
from interplay.dynamics.curl_descent.teacher_student import TwoLayerTeacherStudent
from interplay.primitives.plasticity import Side, frobenius_norms, rescaled_to_norms

__all__ = ["curl_fraction", "field_curl_fraction", "lyapunov_exponent"]

Point = dict[str, Tensor]


def curl_fraction(
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    signs: Mapping[Tensor, Tensor] | None = None,
    *,
    side: Side = "pre",
    probes: int = 8,
    generator: torch.Generator,
) -> float:
    """Antisymmetric share of the Jacobian of curl descent's update field on a batch.

    The field is -D grad L with Jacobian J; the answer is |J - J^T| / (2 |J|) in the Frobenius norm: 0 where the update
    descends some function (no signs, all signs equal), 1 for a pure rotation.

    Parameters
    ----------
    model, loss_fn, batch
        L is `loss_fn(model(batch[0]), batch[1])`; the model's buffers are left alone.
    signs, side
        As for `CurlDescent`.
    probes
        Random vectors; the relative error falls as one over the square root of their number.
    generator
        Draws the probes.

    Raises
    ------
    ValueError
        If signs are given for what is not a parameter of the model or do not fit it.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = {id(parameter): name for name, parameter in parameters.items()}
    gains: Point = {}
    for parameter, given in (signs or {}).items():
        if id(parameter) not in names:
            raise ValueError(
                f"signs are given for a parameter of shape {tuple(parameter.shape)} that the model does not train"
            )
        gains[names[id(parameter)]] = fitted_gains(given, parameter, side)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    inputs, targets = batch

    def loss(point: Point) -> Tensor:
        return loss_fn(functional_call(model, {**point, **buffers}, (inputs,)), targets)

    def field(point: Point) -> Point:
        return {name: -slope * gains.get(name, 1.0) for name, slope in grad(loss)(point).items()}

    point = {name: parameter.detach() for name, parameter in parameters.items()}
    return field_curl_fraction(field, point, probes=probes, generator=generator)


def field_curl_fraction(
    field: Callable[[Point], Point], point: Point, *, probes: int = 8, generator: torch.Generator
) -> float:
    """The same for any vector field over named parameters, such as a rule of your own.

    By Hutchinson's estimator: for vectors z of random signs, E |J z - J^T z|^2 = |J - J^T|^2 and E |J z|^2 = |J|^2. J^T
    z is a backward pass through the field, J z a backward pass through that one; J itself is never formed.

    Returns
    -------
    NaN where the Jacobian is zero.
    """
    if probes < 1:
        raise ValueError(f"probes must be 1 or more; got {probes}")
    antisymmetric = whole = 0.0
    zeros = {name: torch.zeros_like(value) for name, value in point.items()}
    _, pull_back = vjp(field, point)
    # Linear in its argument, so that the transpose of its derivative is J, wherever that is taken. Forward-mode
    # differentiation would say the same, but not every layer has it.
    _, push_forward = vjp(lambda along: vjp(field, point)[1](along)[0], zeros)
    for _ in range(probes):
        probe = {
            name: (torch.randint(0, 2, value.shape, generator=generator, device=generator.device) * 2 - 1).to(value)
            for name, value in point.items()
        }
        (forward,) = push_forward(probe)
        (backward,) = pull_back(probe)
        antisymmetric += sum(float((forward[name] - backward[name]).square().sum()) for name in point) / 4
        whole += sum(float(forward[name].square().sum()) for name in point)
    return (antisymmetric / whole) ** 0.5 if whole > 0 else float("nan")


@torch.no_grad()
def lyapunov_exponent(
    network: TwoLayerTeacherStudent,
    inputs: Inputs,
    steps: int,
    rule: LearningRule,
    *,
    separation: float = 1e-8,
    renew_every: int = 50,
    generator: torch.Generator,
) -> Float[Tensor, " batch"]:
    """Largest Lyapunov exponent of the training of each network, per step: positive where it is chaotic.

    A twin of every network starts at a small distance and trains beside it; every `renew_every` steps the logarithm of
    how much the distance grew is noted and the twin is drawn back along the line between them (Benettin's method). The
    first renewal, in which the difference turns into the fastest direction, is not counted.

    Parameters
    ----------
    network
        At the weights from which to measure, trained past its transient; it is copied. Its norms are those kept.
    steps
        Number of steps, rounded down to whole renewals.
    rule
        How it learns; without noise and `optimizer`, whose own state twins would have to share.
    separation
        Euclidean distance of the twins in all weights.
    generator
        Draws the direction in which the twin starts.
    """
    renewals = steps // renew_every
    if renewals < 2:
        raise ValueError(f"steps must be two or more renewals of {renew_every}; got {steps}")
    if rule.noisy is not None or rule.optimizer is not None:
        raise ValueError("a twin needs a rule without noise and without optimizer")
    count = len(network.weight1)
    twins = network.select(torch.arange(count).repeat(2))
    weights = [twins.weight1.data, twins.weight2.data]
    norms = [frobenius_norms(weight[:count]) for weight in weights]
    noise = [torch.randn(weight[:count].shape, generator=generator, dtype=weight.dtype) for weight in weights]
    _place_twins(weights, [part.to(weights[0]) for part in noise], norms, separation, rule.renormalise)
    rule = _doubled(rule, count)
    inputs = torch.cat([inputs, inputs]) if isinstance(inputs, Tensor) and inputs.dim() == 3 else inputs
    growth = torch.zeros(count, dtype=weights[0].dtype, device=weights[0].device)
    for renewal in range(renewals):
        before = _distance(weights)
        simulate(twins, inputs, renew_every, rule)
        if renewal > 0:
            growth += (_distance(weights) / before).log()
        apart = [weight[count:] - weight[:count] for weight in weights]
        _place_twins(weights, apart, norms, separation, rule.renormalise)
    return growth / ((renewals - 1) * renew_every)


def _place_twins(
    weights: list[Tensor], direction: list[Tensor], norms: list[Tensor], separation: float, renormalise: bool
) -> None:
    """Put each twin at `separation` from its network along a direction, on the sphere of constant norms."""
    length = torch.cat([part.flatten(1) for part in direction], 1).norm(dim=1).view(-1, 1, 1)
    for weight, part, norm in zip(weights, direction, norms, strict=True):
        original, twin = weight.chunk(2)
        shifted = original + part * (separation / length)
        twin.copy_(rescaled_to_norms(shifted, norm) if renormalise else shifted)


def _distance(weights: list[Tensor]) -> Tensor:
    parts = [(weight.chunk(2)[1] - weight.chunk(2)[0]).flatten(1) for weight in weights]
    return torch.cat(parts, 1).norm(dim=1)


def _doubled(rule: LearningRule, count: int) -> LearningRule:
    def twice(gains: Tensor | None) -> Tensor | None:
        return gains if gains is None or gains.dim() == 1 else torch.cat([gains, gains])

    feedback = None if rule.feedback is None else torch.cat([rule.feedback, rule.feedback])
    return LearningRule(rule.lr, twice(rule.gains1), twice(rule.gains2), rule.side, feedback, None, rule.renormalise)
