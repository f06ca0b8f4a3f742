"""UltraDLIF: leaky integrate-and-fire neurons that share their potential with neighbours by a soft maximum."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interplay.primitives.neurons import State
from interplay.spiking.ultralif.fused import RingSequence
from interplay.spiking.ultralif.graded import GradedNeuron, LearnedDecay, Temperature
from interplay.spiking.ultralif.maxplus import ring_soft_maximum, soft_maximum

__all__ = ["UltraDLIF"]

Order = Literal["leak_then_lse", "lse_then_input"]


class UltraDLIF(GradedNeuron):
    """Leaky integrate-and-fire neurons coupled to their neighbours, as by gap junctions, in max-plus arithmetic.

    V <- decay V + I;  M_i = LSE_eps over V_i and its neighbours;  s = sigmoid((M - threshold) / eps);  V <- V (1 - s).

    Units lie along the last dimension. The state is the potential V after the reset, of the shape of the current. The
    reset acts on V, which the coupling does not change.

    Parameters
    ----------
    size
        Number of units, the length of the last dimension.
    decay
        The leak factor, the paper's tau, in (0, 1); None is no leak, for `order="lse_then_input"` only.
    eps
        The temperature, of the soft maximum and of the spike.
    learn_eps
        Train the temperature, one for the layer, clamped to [0.1, 20].
    learn_decay
        Train the decay, one for the layer, as a sigmoid: the paper's UltraDPLIF. (The official code puts 0.9 into that
        sigmoid, so that its decay starts at 0.711.)
    coupling
        `ring`: units i-1, i and i+1. `none`: the unit alone, which leaves `SigmaLIF`. Or an integer table
        (size, neighbours) that names for each unit those that it is coupled to besides itself.
    order
        `leak_then_lse`, as above and in the official library; or `lse_then_input`, as in the official ablation on eps:
        V <- LSE_eps(V_{i-1}, decay V_i, V_{i+1}) + I;  s = sigmoid((V - threshold) / eps);  V <- V (1 - s).
    threshold
        Zero in the official library, one in its ablation.

    Raises
    ------
    ValueError
        A number outside of its range, a ring of fewer than three units, a table that does not fit.
    """

    neighbours: Tensor | None

    def __init__(
        self,
        size: int,
        decay: float | None = 0.9,
        eps: float = 1.0,
        *,
        learn_eps: bool = True,
        learn_decay: bool = False,
        coupling: Literal["ring", "none"] | Int[Tensor, "unit neighbour"] = "ring",
        order: Order = "leak_then_lse",
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size must be a positive number of units, got {size!r}")
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
        if decay is None and (order == "leak_then_lse" or learn_decay):
            raise ValueError('decay=None needs order="lse_then_input" and learn_decay=False; give a decay in (0, 1)')
        if not math.isfinite(threshold):
            raise ValueError(f"threshold must be a finite number, got {threshold!r}")
        if isinstance(coupling, str):
            if coupling not in ("ring", "none"):
                raise ValueError(f"coupling must be 'ring', 'none' or a table of neighbours, got {coupling!r}")
            if coupling == "ring" and size < 3:
                raise ValueError(f"a ring needs three units or more, got size={size}; use coupling='none'")
            table = None
        else:
            table = _checked_table(coupling, size)
        self.coupling = coupling if isinstance(coupling, str) else "table"
        self.register_buffer("neighbours", table)
        self.size = size
        self.order = order
        self.threshold = threshold
        self.temperature = Temperature(eps, learn=learn_eps)
        self.leak = None if decay is None else LearnedDecay(decay, learn=learn_decay)

    @property
    def eps(self) -> float | Tensor:
        """The temperature in use."""
        return self.temperature()

    @property
    def decay(self) -> float | Tensor:
        """The leak factor in use, the paper's tau."""
        return 1.0 if self.leak is None else self.leak()

    def coupled(self, potential: Float[Tensor, "... unit"]) -> Float[Tensor, "... unit"]:
        """Soft maximum of each unit's potential and those of its neighbours, M."""
        return self._coupled(potential, potential)

    def distance(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Potential above the threshold."""
        return potential - self.threshold

    def graded(self, potential: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """sigmoid((M - threshold) / eps)."""
        return torch.sigmoid(self.distance(potential) / self.eps)

    def step(self, current: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """Leak, integrate and couple in the order of the neuron; fire, reset."""
        assert isinstance(state, Tensor)
        if self.order == "leak_then_lse":
            potential = self.decay * state + current
            spikes = self.fire(self.coupled(potential))
        else:
            potential = self._coupled(state, self.decay * state) + current
            spikes = self.fire(potential)
        return spikes, potential * (1 - spikes)

    def _run(self, current: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.smooth or self.coupling != "ring" or self.order != "leak_then_lse":
            return super()._run(current, state)
        assert isinstance(state, Tensor)
        dtype = current.dtype
        wide = torch.promote_types(dtype, torch.float32)
        eps, decay = (torch.as_tensor(value, dtype=wide, device=current.device) for value in (self.eps, self.decay))
        spikes, last, _, _ = RingSequence.apply(  # type: ignore[no-untyped-call]
            current.to(wide),
            state.to(wide) / eps,
            1 / eps,
            decay,
            None if self.threshold == 0 else self.threshold / eps,
        )
        return spikes.to(dtype), (last * eps).to(dtype)

    def initial_state(self, current: Float[Tensor, "batch ... unit"]) -> Tensor:
        """Potential zero, after checking that the last dimension holds the layer's units."""
        if current.shape[-1] != self.size:
            raise ValueError(
                f"the last dimension of current must hold the layer's {self.size} units, got {tuple(current.shape)}"
            )
        return torch.zeros_like(current)

    def _coupled(self, potential: Tensor, own: Tensor) -> Tensor:
        """Soft maximum of the neighbours' potentials and the unit's own, which may have leaked."""
        if self.coupling == "none":
            return own
        if self.neighbours is None and own is potential:
            return ring_soft_maximum(potential, self.eps)
        if self.neighbours is None:
            around = (potential.roll(1, -1), potential.roll(-1, -1))
            return soft_maximum(torch.stack((*around, own), -1), self.eps)
        return soft_maximum(torch.cat((potential[..., self.neighbours], own.unsqueeze(-1)), -1), self.eps)

    def extra_repr(self) -> str:
        """Settings, for `print(module)`."""
        return f"size={self.size}, coupling={self.coupling}, order={self.order}, threshold={self.threshold}"


def _checked_table(table: Tensor, size: int) -> Tensor:
    if table.is_floating_point() or table.is_complex() or table.dtype == torch.bool:
        raise ValueError(f"the table of neighbours must hold integers, got {table.dtype}")
    if table.ndim != 2 or len(table) != size or table.shape[1] < 1:
        raise ValueError(f"the table of neighbours must be ({size}, neighbours), got shape {tuple(table.shape)}")
    if int(table.min()) < 0 or int(table.max()) >= size:
        raise ValueError(f"neighbours must be units 0 to {size - 1}, got {int(table.min())} to {int(table.max())}")
    own = torch.arange(size, device=table.device).unsqueeze(1)
    if bool((table == own).any()):
        raise ValueError("a unit is a term of its own soft maximum already; leave it out of the table of neighbours")
    return table.long()
