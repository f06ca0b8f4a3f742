"""UltraLIF over all time steps as one node of the autograd graph, forward and backward in buffers that are reused.

In units of eps, with v = V / eps, the recursion has no temperature of its own::

    i = I * inverse;  u = log(exp(v + leak) + exp(i));  s = sigmoid(gain (u - offset));  v = u (1 - s)

The forward pass keeps u, s and the weight w = sigmoid(v + leak - i) of the past in the soft maximum, which is all that
the backward pass needs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["UltraSequence"]


class UltraSequence(torch.autograd.Function):
    """`(current, initial, inverse, leak, gain, offset) -> (spikes, last, u, w)`; u and w are for the backward pass.

    `current`, spikes, u and w are (time, batch, ...), the potentials `initial` and last (batch, ...) in units of eps;
    `inverse` is 1 / eps. It, `leak`, `gain` and `offset` are scalars; None is a gain of one, an offset of zero.
    """

    @staticmethod
    def forward(
        current: Tensor, initial: Tensor, inverse: Tensor, leak: Tensor, gain: Tensor | None, offset: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
        charged, weights = torch.empty_like(spikes), torch.empty_like(spikes)
        potential = initial.clone(memory_format=torch.contiguous_format)
        for now, level, weight, fired in zip(current, charged, weights, spikes, strict=True):
            drive = torch.mul(now, inverse, out=weight)
            torch.logaddexp(potential.add_(leak), drive, out=level)
            torch.sub(potential, drive, out=weight).sigmoid_()
            argument = level if offset is None else torch.sub(level, offset, out=fired)
            argument = argument if gain is None else torch.mul(argument, gain, out=fired)
            torch.sigmoid(argument, out=fired)
            torch.addcmul(level, level, fired, value=-1, out=potential)
        return spikes, potential, charged, weights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        current, _, inverse, leak, gain, offset = inputs
        spikes, _, charged, weights = output
        ctx.mark_non_differentiable(charged, weights)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, spikes, charged, weights, inverse, leak, gain, offset)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        current, spikes, charged, weights, inverse, leak, gain, offset = ctx.saved_tensors
        to_spikes = torch.zeros_like(spikes) if gradients[0] is None else gradients[0]
        to_last = torch.zeros_like(spikes[0]) if gradients[1] is None else gradients[1]
        to_current, to_initial, *scalars = _UltraGradient.apply(  # type: ignore[no-untyped-call]
            to_spikes, to_last, current, spikes, charged, weights, inverse, gain, offset
        )
        results = [
            None if scalar is None else gradient.sum_to_size(scalar.shape)
            for gradient, scalar in zip(scalars, (inverse, leak, gain, offset), strict=True)
        ]
        return to_current, to_initial, *results

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None) -> tuple[tuple[Tensor, ...], Any]:
        current, initial = _lifted(info, in_dims[:2], inputs[:2], (1, 0))
        scalars = _lifted_scalars(in_dims[2:], inputs[2:], initial.ndim)
        return UltraSequence.apply(current, initial, *scalars), (1, 0, 1, 1)  # type: ignore[no-untyped-call]


class _UltraGradient(torch.autograd.Function):
    """The backward pass as a function of its own, so that `vmap` can lift it as well.

    Gradients of the scalars come back unsummed, (batch, ...).
    """

    @staticmethod
    def forward(
        to_spikes: Tensor,
        to_last: Tensor,
        current: Tensor,
        spikes: Tensor,
        charged: Tensor,
        weights: Tensor,
        inverse: Tensor,
        gain: Tensor | None,
        offset: Tensor | None,
    ) -> tuple[Tensor, ...]:
        to_current = torch.empty_like(spikes)
        to_potential = to_last.clone(memory_format=torch.contiguous_format)
        through_spike, to_past = torch.empty_like(to_potential), torch.empty_like(to_potential)
        to_inverse, to_leak, to_gain, to_offset = (torch.zeros_like(to_potential) for _ in range(4))
        for step in range(len(spikes) - 1, -1, -1):
            level, fired = charged[step], spikes[step]
            torch.addcmul(to_spikes[step], to_potential, level, value=-1, out=through_spike)
            torch.ops.aten.sigmoid_backward.grad_input(through_spike, fired, grad_input=through_spike)
            if gain is not None:
                to_gain.addcmul_(through_spike, level if offset is None else level - offset)
                through_spike.mul_(gain)
            if offset is not None:
                to_offset.sub_(through_spike)
            to_potential.addcmul_(to_potential, fired, value=-1).add_(through_spike)
            torch.mul(to_potential, weights[step], out=to_past)
            to_drive = to_potential.sub_(to_past)
            to_inverse.addcmul_(to_drive, current[step])
            torch.mul(to_drive, inverse, out=to_current[step])
            to_leak.add_(to_past)
            to_potential, to_past = to_past, to_potential
        return to_current, to_potential, to_inverse, to_leak, to_gain, to_offset

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        raise RuntimeError("the fused sequence has no second derivative; loop over step() to get one")

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None) -> tuple[tuple[Tensor, ...], Any]:
        sequences = _lifted(info, in_dims[:6], inputs[:6], (1, 0, 1, 1, 1, 1))
        scalars = _lifted_scalars(in_dims[6:], inputs[6:], sequences[1].ndim)
        return _UltraGradient.apply(*sequences, *scalars), (1, 0, 0, 0, 0, 0)  # type: ignore[no-untyped-call]


def _lifted(
    info: Any, dims: tuple[int | None, ...], tensors: tuple[Tensor | None, ...], targets: tuple[int, ...]
) -> list[Tensor]:
    """Bring the dimension of the copies to where each tensor needs it, and make one where there is none."""
    lifted = []
    for tensor, dim, target in zip(tensors, dims, targets, strict=True):
        assert tensor is not None
        if dim is None:
            tensor = tensor.unsqueeze(target).expand(*tensor.shape[:target], info.batch_size, *tensor.shape[target:])
        else:
            tensor = tensor.movedim(dim, target)
        lifted.append(tensor)
    return lifted


def _lifted_scalars(dims: tuple[int | None, ...], scalars: tuple[Tensor | None, ...], ndim: int) -> list[Tensor | None]:
    """Let one scalar for each copy broadcast to (copies, batch, ...), which has `ndim` dimensions."""
    return [
        scalar if scalar is None or dim is None else scalar.movedim(dim, 0).reshape(-1, *[1] * (ndim - 1))
        for scalar, dim in zip(scalars, dims, strict=True)
    ]
