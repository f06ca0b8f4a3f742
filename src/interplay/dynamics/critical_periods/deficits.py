"""Deficits on a schedule: when and how a part of a network cannot learn, or sees what it should not."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Site, edit
from interplay.primitives.randomness import generator_of

__all__ = ["ActiveDeficit", "DeficitKind", "DeficitSchedule", "deficit_hooks"]

DeficitKind = Literal["freeze", "bernoulli", "mask_mode", "callable"]


@dataclass(frozen=True)
class DeficitSchedule:
    """A deficit that acts on the steps `start`, ..., `start + length - 1`; the first step of training is 0.

    Attributes
    ----------
    start, length
        In steps of the optimiser. A length of 0 is no deficit.
    kind
        ``"freeze"``: the output passes, no gradient comes back (the official code's `gate_path`).
        ``"bernoulli"``: the same, on each step with probability `prob` (`prob_gate_path`, where it is 0.9).
        ``"mask_mode"``: the output's part along one direction, singular mode `mode`, is missing (`gate_sing`).
        ``"callable"``: the output is replaced by `transform` of it, such as a blur, noise, or zeros.
    prob
        Of a step of the window to be hit, for ``"bernoulli"``.
    mode
        Index from 0, for ``"mask_mode"``.
    transform
        From an output to its replacement of the same shape, for ``"callable"``.
    seed
        Of the coin of ``"bernoulli"``. It falls the same way for the same seed and step, whoever asks.

    Raises
    ------
    ValueError
        Negative numbers, a probability out of range, or an argument that does not go with the kind.
    """

    start: int
    length: int
    kind: DeficitKind = "freeze"
    prob: float = 1.0
    mode: int | None = None
    transform: Callable[[Tensor], Tensor] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 0:
            raise ValueError(f"start and length must be 0 or more steps; got start={self.start}, length={self.length}")
        if self.kind not in get_args(DeficitKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(DeficitKind))}; got {self.kind!r}")
        if not 0.0 <= self.prob <= 1.0:
            raise ValueError(f"prob must be a probability between 0 and 1; got {self.prob}")
        if self.prob < 1.0 and self.kind != "bernoulli":
            raise ValueError(f"prob={self.prob} goes with kind 'bernoulli'; got kind {self.kind!r}")
        if (self.mode is not None) != (self.kind == "mask_mode"):
            raise ValueError(f"mode and kind 'mask_mode' go together; got mode={self.mode} with kind {self.kind!r}")
        if self.mode is not None and self.mode < 0:
            raise ValueError(f"mode is an index from 0; got {self.mode}")
        if (self.transform is not None) != (self.kind == "callable"):
            raise ValueError(f"transform and kind 'callable' go together; got kind {self.kind!r}")

    @property
    def end(self) -> int:
        """The first step after the window."""
        return self.start + self.length

    def check_fits(self, steps: int) -> None:
        """Refuse a window that training of so many steps does not reach the end of, with a ValueError."""
        if self.end > steps:
            raise ValueError(
                f"the deficit ends at step {self.end} (start {self.start} + length {self.length}), after the last of "
                f"{steps} steps of training: shorten it, or train longer"
            )

    def acts(self, step: int) -> bool:
        """Whether the deficit is there on a step."""
        if not self.start <= step < self.end:
            return False
        if self.kind != "bernoulli":
            return True
        return bool(torch.rand((), generator=generator_of(self.seed, step)) < self.prob)

    def apply(
        self, output: Float[Tensor, "..."], step: int, *, basis: Float[Tensor, "outputs modes"] | None = None
    ) -> Float[Tensor, "..."]:
        """An output as it is on a step; the same tensor where the deficit does not act.

        Parameters
        ----------
        output
            Any shape; for ``"mask_mode"`` with the features last.
        basis
            Orthonormal columns, the output sides of the singular modes, for ``"mask_mode"``.
        """
        if not self.acts(step):
            return output
        if self.transform is not None:
            return self.transform(output)
        if self.mode is None:
            return output.detach()
        if basis is None:
            raise ValueError("kind 'mask_mode' needs basis, the output sides of the modes as orthonormal columns")
        check_mode(self.mode, basis.shape[1])
        direction = basis[:, self.mode].to(output)
        return output - (output @ direction).unsqueeze(-1) * direction


class ActiveDeficit:
    """A deficit that is hooked into a model, and the step that it believes to be at.

    Attributes
    ----------
    step
        Number of steps made so far; may be set, for a run that goes on from a checkpoint.
    """

    def __init__(self, schedule: DeficitSchedule) -> None:
        self.schedule = schedule
        self.step = 0

    def advance(self) -> None:
        """Say that a step of training is done; not needed where the optimiser says so itself."""
        self.step += 1


@contextmanager
def deficit_hooks(
    model: nn.Module,
    path: str,
    schedule: DeficitSchedule,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    steps: int | None = None,
    basis: Float[Tensor, "outputs modes"] | None = None,
) -> Iterator[ActiveDeficit]:
    """Put a deficit on the output of any module of any model while it trains.

    In evaluation mode (`model.eval()`), outside the window and after the context the model computes what it always did,
    bit for bit. A frozen module's output passes and its parameters get no gradient (`grad` stays None), so that
    momentum, Adam's averages and weight decay leave them alone as well, provided that gradients are set to None between
    steps, as `zero_grad` does by default.

    Parameters
    ----------
    model
        Any module.
    path
        Of the module to disturb, as in `model.get_submodule`: "encoders.audio". If it returns a tuple, the first
        tensor is meant.
    schedule
        When and how. Several deficits are several contexts.
    optimizer
        If given, its steps are counted. Otherwise call `advance()` of what is yielded after each step.
    steps
        Length of the training, if known, to refuse a window that does not fit into it.
    basis
        See `DeficitSchedule.apply`.

    Raises
    ------
    ValueError
        A module that the model does not have, with the names closest to it; a window that does not fit.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> with deficit_hooks(model, "0", DeficitSchedule(start=0, length=5), optimizer=optimizer, steps=20) as deficit:
    ...     for _ in range(20):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(2, 4)).square().mean().backward()
    ...         optimizer.step()
    >>> deficit.step
    20
    """
    names = [name for name, _ in model.named_modules() if name]
    if path not in names:
        near = difflib.get_close_matches(path, names, n=5, cutoff=0.0)
        raise ValueError(
            f"{type(model).__name__} has no module {path!r}; the names closest to it are {', '.join(near) or 'none'}"
        )
    if steps is not None:
        schedule.check_fits(steps)
    if schedule.mode is not None and basis is not None:
        check_mode(schedule.mode, basis.shape[1])
    active = ActiveDeficit(schedule)

    def disturb(output: Tensor) -> Tensor:
        return schedule.apply(output, active.step, basis=basis) if model.training else output

    counting = None
    if optimizer is not None:
        counting = optimizer.register_step_post_hook(lambda *_: active.advance())
    try:
        with edit(model, {Site("module", path=path): disturb}):
            yield active
    finally:
        if counting is not None:
            counting.remove()


def check_mode(mode: int, modes: int) -> None:
    """Refuse a mode that is not there, with a ValueError."""
    if mode >= modes:
        raise ValueError(f"mode {mode} is out of range: there are {modes} modes, 0 to {modes - 1}")
