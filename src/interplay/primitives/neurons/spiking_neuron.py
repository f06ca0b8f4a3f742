"""What every spiking neuron has: one step or a whole sequence, and an explicit state that is checked at the door."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["SpikingNeuron", "State"]

State: TypeAlias = Tensor | tuple[Tensor, ...]


class SpikingNeuron(nn.Module, ABC):
    """Base of the neurons: one step or a whole sequence, with the state given and returned.

    A subclass implements `step`, and `initial_state` where rest is not one tensor of zeros.
    """

    @abstractmethod
    def step(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        """Advance by one time step; inputs are checked already.

        Parameters
        ----------
        current
            (batch, ...), input current.
        state
            As `initial_state` gives it.

        Returns
        -------
        spikes, state
            Spikes of the shape of `current`, and the state after the step.
        """

    def initial_state(self, current: Float[Tensor, "batch ..."]) -> State:
        """State at rest for a batch like `current` (batch, ...)."""
        return torch.zeros_like(current)

    def forward(self, current: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One time step, as in snnTorch: `spikes, state = neuron(current, state)`.

        Parameters
        ----------
        current
            (batch, ...), floating point.
        state
            What the step before returned; None: at rest.

        Raises
        ------
        TypeError
            `current` is not floating point.
        ValueError
            `state` does not fit `current` in shape, dtype or device.
        """
        return self.step(current, self._checked_state(current, state))

    def sequence(self, current: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """All time steps at once.

        Parameters
        ----------
        current
            (time, batch, ...), floating point.
        state
            What an earlier call returned; None: at rest.

        Returns
        -------
        spikes, state
            (time, batch, ...), and the state after the last step.

        Raises
        ------
        TypeError
            `current` is not floating point.
        ValueError
            There is no time step, or `state` does not fit.
        """
        if current.ndim < 2:
            raise ValueError(f"current must be (time, batch, ...), got shape {tuple(current.shape)}")
        if len(current) == 0:
            raise ValueError(f"current must have at least one time step, got shape {tuple(current.shape)}")
        return self._run(current, self._checked_state(current[0], state))

    def _run(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        spikes = []
        for now in current:
            fired, state = self.step(now, state)
            spikes.append(fired)
        return torch.stack(spikes), state

    def _checked_state(self, current: Tensor, state: State | None) -> State:
        if not current.is_floating_point():
            raise TypeError(f"current must be floating point, got {current.dtype}; call .float() on it")
        rest = self.initial_state(current)
        if state is None:
            return rest
        given, expected = _as_tuple(state), _as_tuple(rest)
        if len(given) != len(expected):
            raise ValueError(f"state must be {len(expected)} tensors, got {len(given)}")
        for one, other in zip(given, expected, strict=True):
            if (one.shape, one.dtype, one.device) != (other.shape, other.dtype, other.device):
                raise ValueError(
                    f"state {tuple(one.shape)} {one.dtype} on {one.device} does not fit the current, which needs "
                    f"{tuple(other.shape)} {other.dtype} on {other.device}; start anew with state=None"
                )
        return state


def _as_tuple(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)
