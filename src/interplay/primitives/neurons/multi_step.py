"""Modules over (time, batch, ...)."""

from __future__ import annotations

from torch import Tensor, nn

from interplay.primitives.neurons.spiking_neuron import SpikingNeuron, State

__all__ = ["MultiStep"]


class MultiStep(nn.Module):
    """Run a module over (time, batch, ...): a neuron along time, any other module on all time steps as one batch.

    >>> import torch
    >>> from interplay.primitives.neurons import LIF
    >>> net = nn.Sequential(MultiStep(nn.Linear(784, 128)), MultiStep(LIF()))
    >>> net(torch.rand(4, 32, 784)).shape
    torch.Size([4, 32, 128])

    It stands where SpikingJelly has its multi-step mode. A call starts at rest, unless `keep_state` continues a
    stream; then `reset` ends it and `detach` cuts the gradient, as between windows of truncated backpropagation.

    Parameters
    ----------
    module
        A `SpikingNeuron`, or any module without a time dimension.
    keep_state
        Let a neuron go on from the state that the last call left. The state is not part of the `state_dict`.
    """

    def __init__(self, module: nn.Module, *, keep_state: bool = False) -> None:
        super().__init__()
        if keep_state and not isinstance(module, SpikingNeuron):
            raise ValueError(f"keep_state needs a spiking neuron, got {type(module).__name__}, which has no state")
        self.module = module
        self.keep_state = keep_state
        self.state: State | None = None

    def forward(self, sequence: Tensor) -> Tensor:
        """Outputs (time, batch, ...) of inputs (time, batch, ...)."""
        if isinstance(self.module, SpikingNeuron):
            spikes, state = self.module.sequence(sequence, self.state)
            if self.keep_state:
                self.state = state
            return spikes
        if sequence.ndim < 2 or len(sequence) == 0:
            raise ValueError(f"sequence must be (time, batch, ...) with time >= 1, got shape {tuple(sequence.shape)}")
        output: Tensor = self.module(sequence.flatten(0, 1))
        return output.view(*sequence.shape[:2], *output.shape[1:])

    def reset(self) -> None:
        """Forget the state: the next call starts at rest."""
        self.state = None

    def detach(self) -> None:
        """Keep the state, but send no gradient into the calls that led to it."""
        if self.state is not None:
            self.state = tuple(s.detach() for s in self.state) if isinstance(self.state, tuple) else self.state.detach()
