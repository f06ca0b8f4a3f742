"""A whole sequence of LIF steps as one node of the autograd graph, which `torch.func.vmap` can lift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from interplay.primitives.neurons.lifting import lifted, lifted_parameter
from interplay.primitives.neurons.surrogates import Surrogate

__all__ = ["RESETS", "Dynamics", "Reset", "charge", "lif_sequence"]

Reset = Literal["subtract", "zero", "none"]
RESETS: tuple[Reset, ...] = get_args(Reset)


@dataclass(frozen=True)
class Dynamics:
    """What of a LIF neuron is neither trained nor an input."""

    threshold: float
    reset: Reset
    surrogate: Surrogate
    detach_reset: bool
    smooth: bool

    def fire(self, charged: Tensor, out: Tensor) -> Tensor:
        if self.smooth:
            return out.copy_(self.surrogate.smooth(charged - self.threshold))
        return torch.ge(charged, self.threshold, out=out)

    def after_reset(self, charged: Tensor, spikes: Tensor, out: Tensor) -> Tensor:
        if self.reset == "subtract":
            return torch.sub(charged, spikes, alpha=self.threshold, out=out)
        if self.reset == "zero":
            return torch.addcmul(charged, charged, spikes, value=-1, out=out)
        return out.copy_(charged)


def charge(potential: Tensor, current: Tensor, decay: float | Tensor, out: Tensor | None = None) -> Tensor:
    """decay * potential + current, in one kernel: a step and a sequence round alike."""
    if isinstance(decay, Tensor):
        return torch.addcmul(current, potential, decay, out=out)
    return torch.add(current, potential, alpha=decay, out=out)


def lif_sequence(current: Tensor, initial: Tensor, decay: float | Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes (time, batch, ...) and the membrane potential after the last step.

    Parameters
    ----------
    current
        (time, batch, ...), input current.
    initial
        (batch, ...), membrane potential before the first step.
    decay
        A number, or a tensor that broadcasts to one sample; it gets a gradient if it wants one.
    dynamics
        The rest of the neuron's settings.
    """
    spikes, last, _ = _LIFSequence.apply(current, initial, decay, dynamics)  # type: ignore[no-untyped-call]
    return spikes, last


class _LIFSequence(torch.autograd.Function):
    """All time steps as one node of the autograd graph.

    Of the membrane potential only every sqrt(time)-th step is kept; the backward pass computes the steps between them
    again, from the input, which costs less than writing and reading the whole course would.
    """

    @staticmethod
    def forward(
        current: Tensor, initial: Tensor, decay: float | Tensor, dynamics: Dynamics
    ) -> tuple[Tensor, Tensor, Tensor]:
        spikes = torch.empty_like(current, memory_format=torch.contiguous_format)
        segment = _segment(len(current))
        checkpoints = spikes.new_empty(-(-len(current) // segment), *spikes.shape[1:])
        potential = initial.clone(memory_format=torch.contiguous_format)
        for step, now in enumerate(current):
            if step % segment == 0:
                checkpoints[step // segment] = potential
            charge(potential, now, decay, out=potential)
            dynamics.after_reset(potential, dynamics.fire(potential, spikes[step]), out=potential)
        return spikes, potential, checkpoints

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        current, _, decay, ctx.dynamics = inputs
        ctx.decay = None if isinstance(decay, Tensor) else decay
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, output[2], *([decay] if isinstance(decay, Tensor) else []))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        current, checkpoints, *rest = ctx.saved_tensors
        decay = rest[0] if rest else ctx.decay
        spikes, last = gradients[0], gradients[1]
        spikes = torch.zeros_like(current) if spikes is None else spikes
        last = torch.zeros_like(checkpoints[0]) if last is None else last
        wanted = bool(rest) and ctx.needs_input_grad[2]
        to_current, to_initial, to_decay = _LIFGradient.apply(  # type: ignore[no-untyped-call]
            spikes, last, current, checkpoints, decay, ctx.dynamics, wanted
        )
        return to_current, to_initial, to_decay if wanted else None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        current: Tensor,
        initial: Tensor,
        decay: float | Tensor,
        dynamics: Dynamics,
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        current = lifted(current, in_dims[0], info.batch_size, 1)
        initial = lifted(initial, in_dims[1], info.batch_size, 0)
        decay = _lifted_decay(decay, in_dims[2], initial.ndim)
        return _LIFSequence.apply(current, initial, decay, dynamics), (1, 0, 1)  # type: ignore[no-untyped-call]


class _LIFGradient(torch.autograd.Function):
    """The backward pass as a function of its own, so that `vmap` can lift it as well."""

    @staticmethod
    def forward(
        spikes: Tensor,
        last: Tensor,
        current: Tensor,
        checkpoints: Tensor,
        decay: float | Tensor,
        dynamics: Dynamics,
        wanted: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        to_current = torch.empty_like(current, memory_format=torch.contiguous_format)
        to_potential = last.clone(memory_format=torch.contiguous_format)
        to_decay = torch.zeros_like(to_potential) if wanted else to_potential.new_empty(0)
        segment = _segment(len(current))
        charged = current.new_empty(segment, *to_potential.shape)
        before = current.new_empty(segment if wanted else 1, *to_potential.shape)
        scratch = torch.empty_like(to_potential)
        for start in range((len(checkpoints) - 1) * segment, -1, -segment):
            steps = range(start, min(start + segment, len(current)))
            potential = before[0].copy_(checkpoints[start // segment])
            for at, step in enumerate(steps):
                charge(potential, current[step], decay, out=charged[at])
                if at + 1 < len(steps):
                    potential = before[(at + 1) % len(before)]
                    dynamics.after_reset(charged[at], dynamics.fire(charged[at], scratch), out=potential)
            for at, step in reversed(list(enumerate(steps))):
                gradient = spikes[step]
                if not dynamics.detach_reset and dynamics.reset != "none":
                    factor = charged[at] if dynamics.reset == "zero" else dynamics.threshold
                    gradient = gradient - to_potential * factor
                if dynamics.reset == "zero":
                    to_potential.addcmul_(to_potential, dynamics.fire(charged[at], scratch), value=-1)
                torch.sub(charged[at], dynamics.threshold, out=scratch)
                torch.add(to_potential, dynamics.surrogate.pull_back_(gradient, scratch), out=to_current[step])
                if wanted:
                    to_decay.addcmul_(to_current[step], before[at])
                torch.mul(to_current[step], decay, out=to_potential)
        if wanted:
            assert isinstance(decay, Tensor)
            to_decay = to_decay.sum_to_size(decay.shape)
        return to_current, to_potential, to_decay

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, ...]:
        raise RuntimeError("a spiking neuron has no second derivative: the surrogate replaces only the first")

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        spikes: Tensor,
        last: Tensor,
        current: Tensor,
        checkpoints: Tensor,
        decay: float | Tensor,
        dynamics: Dynamics,
        wanted: bool,
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        last = lifted(last, in_dims[1], info.batch_size, 0)
        decay_dim = in_dims[4]
        if wanted and isinstance(decay, Tensor) and decay_dim is None:  # every copy wants a gradient of its own
            decay, decay_dim = decay.expand(info.batch_size, *decay.shape), 0
        results = _LIFGradient.apply(  # type: ignore[no-untyped-call]
            lifted(spikes, in_dims[0], info.batch_size, 1),
            last,
            lifted(current, in_dims[2], info.batch_size, 1),
            lifted(checkpoints, in_dims[3], info.batch_size, 1),
            _lifted_decay(decay, decay_dim, last.ndim),
            dynamics,
            wanted,
        )
        if not wanted or not isinstance(decay, Tensor):
            return results, (1, 0, None)
        return (*results[:2], results[2].reshape(decay.movedim(decay_dim or 0, 0).shape)), (1, 0, 0)


def _segment(steps: int) -> int:
    """Steps between two checkpoints; of few steps every one is kept, since that takes no more memory."""
    return 1 if steps <= 4 else math.isqrt(steps - 1) + 1


def _lifted_decay(decay: float | Tensor, dim: int | None, ndim: int) -> float | Tensor:
    return lifted_parameter(decay, dim, ndim) if isinstance(decay, Tensor) else decay
