"""All time steps as one node of the autograd graph, forward and backward in buffers that are reused.

In units of eps, with v = V / eps, the recursions have no temperature of their own. UltraLIF, and UltraDLIF on a ring::

    i = I * inverse;  u = log(exp(v + leak) + exp(i));  s = sigmoid(gain (u - offset));  v = u (1 - s)
    u = decay v + i;  m_i = log(exp(u_{i-1}) + exp(u_i) + exp(u_{i+1}));  s = sigmoid(m - offset);  v = u (1 - s)

The forward pass keeps u, s and, of UltraLIF, the weight w = sigmoid(v + leak - i) of the past in the soft maximum, of
UltraDLIF m: the weights of its three terms are exponentials of differences to m.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["RingSequence", "UltraSequence"]

NO_SECOND = "the fused sequence has no second derivative; loop over step() to get one"


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
        raise RuntimeError(NO_SECOND)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None) -> tuple[tuple[Tensor, ...], Any]:
        sequences = _lifted(info, in_dims[:6], inputs[:6], (1, 0, 1, 1, 1, 1))
        scalars = _lifted_scalars(in_dims[6:], inputs[6:], sequences[1].ndim)
        return _UltraGradient.apply(*sequences, *scalars), (1, 0, 0, 0, 0, 0)  # type: ignore[no-untyped-call]


class RingSequence(torch.autograd.Function):
    """`(current, initial, inverse, decay, offset) -> (spikes, last, u, m)`; u and m are for the backward pass.

    Shapes as for `UltraSequence`; the ring runs along the last dimension.
    """

    @staticmethod
    def forward(
        current: Tensor, initial: Tensor, inverse: Tensor, decay: Tensor, offset: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
        charged, coupled = torch.empty_like(spikes), torch.empty_like(spikes)
        potential = initial.clone(memory_format=torch.contiguous_format)
        left = torch.empty_like(potential)
        right = torch.empty_like(potential)
        for now, level, maximum, fired in zip(current, charged, coupled, spikes, strict=True):
            torch.mul(now, inverse, out=level).add_(potential.mul_(decay))
            torch.logaddexp(_from_left(level, out=left), _from_right(level, out=right), out=left)
            torch.logaddexp(left, level, out=maximum)
            torch.sigmoid(maximum if offset is None else torch.sub(maximum, offset, out=fired), out=fired)
            torch.addcmul(level, level, fired, value=-1, out=potential)
        return spikes, potential, charged, coupled

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        current, initial, inverse, decay, offset = inputs
        spikes, _, charged, coupled = output
        ctx.mark_non_differentiable(charged, coupled)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, initial, spikes, charged, coupled, inverse, decay, offset)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        current, initial, spikes, charged, coupled, inverse, decay, offset = ctx.saved_tensors
        to_spikes = torch.zeros_like(spikes) if gradients[0] is None else gradients[0]
        to_last = torch.zeros_like(initial) if gradients[1] is None else gradients[1]
        to_current, to_initial, *scalars = _RingGradient.apply(  # type: ignore[no-untyped-call]
            *(to_spikes, to_last, current, initial, spikes, charged, coupled, inverse, decay),
            *(ctx.needs_input_grad[3], offset is not None),
        )
        results = [
            None if scalar is None else gradient.sum_to_size(scalar.shape)
            for gradient, scalar in zip(scalars, (inverse, decay, offset), strict=True)
        ]
        return to_current, to_initial, *results

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None) -> tuple[tuple[Tensor, ...], Any]:
        current, initial = _lifted(info, in_dims[:2], inputs[:2], (1, 0))
        scalars = _lifted_scalars(in_dims[2:], inputs[2:], initial.ndim)
        return RingSequence.apply(current, initial, *scalars), (1, 0, 1, 1)  # type: ignore[no-untyped-call]


class _RingGradient(torch.autograd.Function):
    """The backward pass of `RingSequence`; gradients of the scalars come back unsummed, (batch, ...)."""

    @staticmethod
    def forward(
        to_spikes: Tensor,
        to_last: Tensor,
        current: Tensor,
        initial: Tensor,
        spikes: Tensor,
        charged: Tensor,
        coupled: Tensor,
        inverse: Tensor,
        decay: Tensor,
        learn_decay: bool,
        has_offset: bool,
    ) -> tuple[Tensor, ...]:
        to_current = torch.empty_like(spikes)
        to_potential = to_last.clone(memory_format=torch.contiguous_format)
        to_maximum, turned, weight = (torch.empty_like(to_potential) for _ in range(3))
        to_inverse, to_decay, to_offset = (torch.zeros_like(to_potential) for _ in range(3))
        for step in range(len(spikes) - 1, -1, -1):
            level, maximum, fired = charged[step], coupled[step], spikes[step]
            torch.addcmul(to_spikes[step], to_potential, level, value=-1, out=to_maximum)
            torch.ops.aten.sigmoid_backward.grad_input(to_maximum, fired, grad_input=to_maximum)
            if has_offset:
                to_offset.sub_(to_maximum)
            to_level = to_potential.addcmul_(to_potential, fired, value=-1)
            # A unit is a term of its own maximum and of those of the units on its two sides.
            to_level.addcmul_(to_maximum, torch.sub(level, maximum, out=weight).exp_())
            for turn in (_from_left, _from_right):
                torch.sub(level, turn(maximum, out=weight), out=weight).exp_()
                to_level.addcmul_(weight, turn(to_maximum, out=turned))
            to_inverse.addcmul_(to_level, current[step])
            torch.mul(to_level, inverse, out=to_current[step])
            if learn_decay and step:
                torch.addcmul(charged[step - 1], charged[step - 1], spikes[step - 1], value=-1, out=turned)
            if learn_decay:
                to_decay.addcmul_(to_level, turned if step else initial)
            to_potential.mul_(decay)
        return to_current, to_potential, to_inverse, to_decay, to_offset

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        raise RuntimeError(NO_SECOND)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor | None) -> tuple[tuple[Tensor, ...], Any]:
        sequences = _lifted(info, in_dims[:7], inputs[:7], (1, 0, 1, 0, 1, 1, 1))
        scalars = _lifted_scalars(in_dims[7:], inputs[7:], sequences[1].ndim)
        return _RingGradient.apply(*sequences, *scalars), (1, 0, 0, 0, 0)  # type: ignore[no-untyped-call]


def _from_left(x: Tensor, out: Tensor) -> Tensor:
    """What the unit before holds, along the last dimension."""
    return torch.cat((x[..., -1:], x[..., :-1]), -1, out=out)


def _from_right(x: Tensor, out: Tensor) -> Tensor:
    """What the unit after holds."""
    return torch.cat((x[..., 1:], x[..., :1]), -1, out=out)


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
