"""The excitatory-inhibitory circuit as pure functions, and how gradients pass through it (E-I Prop)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interplay.primitives.competition import pooled_inhibition, straight_through_nonzero, subtractive_inhibition

__all__ = ["EICurrents", "EIProp", "ei_circuit", "scale_gradient"]


@dataclass(frozen=True)
class EIProp:
    """Where the gradient through the circuit departs from the derivative, on purpose.

    Parameters
    ----------
    scale_gradient
        Divide the gradient of the inhibitory weights W_EI by the layer's fan-in, before the optimiser sees it. Weight
        decay, which the optimiser adds, stays whole.
    straight_through
        Where the divisive current is zero divide by the smallest non-zero one of the sample, and pass the gradient as
        if nothing had been replaced. False is the ablation: `epsilon` is added to the divisive current instead.
    epsilon
        The constant of that ablation; without effect otherwise.
    """

    scale_gradient: bool = True
    straight_through: bool = True
    epsilon: float = 1e-5


class EICurrents(NamedTuple):
    """The currents of a layer's excitatory units.

    Attributes
    ----------
    excitation
        I_E = W_EE x.
    subtractive
        W_EI I_I, where I_I = W_IE x is the current of the inhibitory units.
    divisive
        W_EI (g_I * I_I), before zeros are replaced.
    balanced
        I_E minus the subtractive current.
    """

    excitation: Float[Tensor, "..."]
    subtractive: Float[Tensor, "..."]
    divisive: Float[Tensor, "..."]
    balanced: Float[Tensor, "..."]


def ei_circuit(
    excitation: Float[Tensor, "..."],
    inhibition: Float[Tensor, "..."],
    weight_ei: Float[Tensor, "excitatory inhibitory"],
    gain_i: Float[Tensor, " inhibitory"],
    gain_e: Float[Tensor, " excitatory"],
    bias: Float[Tensor, " excitatory"],
    *,
    dim: int = -1,
    prop: EIProp = EIProp(),
) -> Float[Tensor, "..."]:
    """Balance and divide: g_E * (I_E - W_EI I_I) / W_EI (g_I * I_I) + b_E, equations (2) to (4).

    Parameters
    ----------
    excitation, inhibition
        I_E and I_I, the currents of the excitatory and of the inhibitory units, along `dim`; all else is batch,
        time before `dim` and positions behind it.
    weight_ei, gain_i, gain_e, bias
        W_EI, g_I, g_E, b_E; all but b_E are not negative.
    dim
        -1 for features, -3 for the channels of images.
    prop
        Only `straight_through` and `epsilon` are of concern here; for the other see `scale_gradient`.

    Returns
    -------
    Tensor
        The current that drives the neurons, of the shape of `excitation`. It has a first gradient only.
    """
    if prop.straight_through:
        out, *_ = _EICircuit.apply(excitation, inhibition, weight_ei, gain_i, gain_e, bias, dim)
        return out
    balanced = subtractive_inhibition(excitation, inhibition, weight_ei, dim=dim)
    divisive = pooled_inhibition(inhibition, weight_ei * gain_i, dim=dim)
    return torch.addcmul(along(bias, dim), along(gain_e, dim), balanced / (divisive + prop.epsilon))


class _EICircuit(torch.autograd.Function):
    """The circuit as one node: one product with both inhibitory weights, two in the backward pass instead of four."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        excitation: Tensor,
        inhibition: Tensor,
        weight_ei: Tensor,
        gain_i: Tensor,
        gain_e: Tensor,
        bias: Tensor,
        dim: int,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # The gains go to the small matrix instead of the large activity.
        weights = torch.cat([weight_ei, weight_ei * gain_i])
        subtractive, divisive = pooled_inhibition(inhibition, weights, dim=dim).chunk(2, dim)
        denominator = straight_through_nonzero(divisive, range(dim, 0))
        quotient = (excitation - subtractive) / denominator
        return torch.addcmul(along(bias, dim), along(gain_e, dim), quotient), quotient, denominator, weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, inhibition, weight_ei, gain_i, gain_e, _, ctx.dim = inputs
        _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inhibition, weight_ei, gain_i, gain_e, *kept)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, dim = gradients[0], ctx.dim
        if gradient is None:
            return (None,) * 7
        inhibition, weight_ei, gain_i, gain_e, quotient, denominator, weights = ctx.saved_tensors
        to_balanced = gradient * along(gain_e, dim) / denominator
        # Minus the gradients of the subtractive and of the divisive current.
        to_pooled = torch.cat([to_balanced, to_balanced * quotient], dim)
        to_weights = _outer(to_pooled, inhibition, dim)
        to_subtractive, to_divisive = to_weights.chunk(2)
        return (
            to_balanced,
            -pooled_inhibition(to_pooled, weights.t(), dim=dim),
            -(to_subtractive + to_divisive * gain_i),
            -(to_divisive * weight_ei).sum(0),
            _sum_per_unit(gradient * quotient, dim),
            _sum_per_unit(gradient, dim),
            None,
        )


def _sum_per_unit(values: Tensor, dim: int) -> Tensor:
    return values.sum_to_size(values.shape[dim], *[1] * (-dim - 1)).flatten()


def _outer(left: Tensor, right: Tensor, dim: int) -> Tensor:
    """Products of the entries of `left` and `right` along `dim`, summed over all else."""
    if dim == -1:
        return left.reshape(-1, left.shape[-1]).t() @ right.reshape(-1, right.shape[-1])
    # Samples stay apart until the end: bringing units together over all of them would copy both operands.
    products = left.flatten(dim + 1) @ right.flatten(dim + 1).transpose(-1, -2)
    return products.reshape(-1, *products.shape[-2:]).sum(0)


def along(values: Float[Tensor, " unit"], dim: int) -> Float[Tensor, "unit ..."]:
    """One value a unit, ready to broadcast against units along the negative dimension `dim`."""
    return values.reshape(-1, *[1] * (-dim - 1))


def scale_gradient(tensor: Float[Tensor, "..."], factor: float) -> Float[Tensor, "..."]:
    """The same values; the gradient arrives multiplied by `factor`."""
    return _ScaledGradient.apply(tensor, factor)


class _ScaledGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(tensor: Tensor, factor: float) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
