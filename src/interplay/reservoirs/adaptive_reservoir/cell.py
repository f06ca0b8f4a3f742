"""The reservoir as a PyTorch module, for those who want its gradients."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.homeostasis import regulated_strength
from interplay.reservoirs.adaptive_reservoir.balanced import EIReservoir

__all__ = ["EIReservoirCell"]


class EIReservoirCell(nn.Module):
    """Equation (1) with gradients, and with the local rule (2) on the same parameters.

    Called like `torch.nn.RNN`: series in, all states and the last one out. Strengths count by their modulus, and
    absent links are masked, so whatever an optimiser does, no unit changes its sign and no link appears.

    Parameters
    ----------
    units, input_dim, **settings
        As in `EIReservoir`, whose draw the parameters start from.

    Attributes
    ----------
    strength
        (units, units), learnable.
    input_weights
        (units, input_dim), learnable.
    threshold
        (units,), learnable.
    """

    links: Tensor
    sign: Tensor
    leak_rate: Tensor

    def __init__(self, units: int = 500, input_dim: int = 1, **settings: Any) -> None:
        super().__init__()
        self._take(EIReservoir(units, input_dim, **settings))

    @classmethod
    def from_reservoir(cls, reservoir: EIReservoir) -> EIReservoirCell:
        """The same network, adapted or not, in its precision."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._take(reservoir)
        return made

    def _take(self, reservoir: EIReservoir) -> None:
        if reservoir.activation != "sigmoid":
            raise ValueError(f"the cell has sigmoid rates, got activation={reservoir.activation!r}")
        links = reservoir.links()
        dtype = torch.from_numpy(reservoir.input_weights).dtype
        self.strength = nn.Parameter(torch.from_numpy(abs(links).toarray()))
        self.input_weights = nn.Parameter(torch.from_numpy(reservoir.input_weights.copy()))
        self.threshold = nn.Parameter(torch.from_numpy(reservoir.threshold).to(dtype))
        linked = torch.zeros(links.shape, dtype=torch.bool)
        rows, columns = links.tocoo().coords
        linked[torch.from_numpy(rows).long(), torch.from_numpy(columns).long()] = True
        self.register_buffer("links", linked)
        self.register_buffer("sign", torch.from_numpy(reservoir.excitatory).to(dtype) * 2 - 1)
        self.register_buffer("leak_rate", torch.from_numpy(reservoir.leak_rate).to(dtype))

    @property
    def weights(self) -> Float[Tensor, "unit unit"]:
        """A, signed, from column to row."""
        return self.strength.abs() * self.sign * self.links

    def forward(
        self, inputs: Float[Tensor, "time batch input"], state: Float[Tensor, "batch unit"] | None = None
    ) -> tuple[Float[Tensor, "time batch unit"], Float[Tensor, "batch unit"]]:
        """States at all steps, and the last one.

        Raises
        ------
        ValueError
            Shapes that do not fit.
        TypeError
            Inputs of another dtype than the parameters.
        """
        state = self._checked(inputs, state)
        weights, current = self.weights, inputs @ self.input_weights.mT - self.threshold
        states = []
        for drive in current:
            state = self._next(weights, drive, state)
            states.append(state)
        return torch.stack(states), state

    @torch.no_grad()
    def adapt(
        self, inputs: Float[Tensor, "time batch input"], targets: Float[Tensor, " unit"] | float, rate: float = 0.01
    ) -> Float[Tensor, " time"]:
        """Equation (2), once along the series, with activities averaged over the batch; changes `strength` in place.

        Returns
        -------
        Tensor
            Mean over units of |activity - target| at each step.
        """
        targets = torch.as_tensor(targets, dtype=self.strength.dtype, device=self.strength.device)
        if not ((targets > 0) & (targets < 1)).all():
            raise ValueError(
                f"targets must be in (0, 1), the range of a sigmoid, got {targets.min()} to {targets.max()}"
            )
        targets = targets.expand(len(self.sign))
        inhibitory = self.links & (self.sign < 0)
        state = self._checked(inputs, None)
        errors = []
        for drive in inputs @ self.input_weights.mT - self.threshold:
            state = self._next(self.weights, drive, state)
            activity = state.mean(dim=0)
            moved = regulated_strength(self.strength.abs(), activity[:, None], targets[:, None], rate)
            self.strength.copy_(torch.where(inhibitory, moved, self.strength))
            errors.append((activity - targets).abs().mean())
        return torch.stack(errors)

    def extra_repr(self) -> str:
        units, input_dim = self.input_weights.shape
        return f"{units}, {input_dim}, excitatory={int((self.sign > 0).sum())}, links={int(self.links.sum())}"

    def _next(self, weights: Tensor, drive: Tensor, state: Tensor) -> Tensor:
        return torch.lerp(state, torch.sigmoid(state @ weights.mT + drive), self.leak_rate)

    def _checked(self, inputs: Tensor, state: Tensor | None) -> Tensor:
        units, input_dim = self.input_weights.shape
        if inputs.ndim != 3 or inputs.shape[2] != input_dim or not inputs.shape[0]:
            raise ValueError(f"inputs must be (time, batch, {input_dim}) with time >= 1, got {tuple(inputs.shape)}")
        if inputs.dtype != self.strength.dtype:
            raise TypeError(f"inputs must be {self.strength.dtype} like the parameters, got {inputs.dtype}")
        shape = (inputs.shape[1], units)
        if state is None:
            return inputs.new_zeros(shape)
        if tuple(state.shape) != shape:
            raise ValueError(f"state must be (batch, units) = {shape}, got {tuple(state.shape)}")
        return state
