"""The controller: hidden states of a prompt to one strength and one weight a layer."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Controller", "Gate", "Logits"]

Gate = Literal["sigmoid", "relu", "raw", "hard"]
"""From the strength's logit to the strength: its sigmoid, its positive part, itself (the official code), or whether
its sigmoid exceeds a threshold."""


class Logits(NamedTuple):
    """What the controller computes before its gates.

    Attributes
    ----------
    strength
        [batch]; positive where the prompt looks like those that are to be steered.
    layers
        [batch, layer].
    """

    strength: Float[Tensor, " batch"]
    layers: Float[Tensor, "batch layer"]


class Controller(nn.Module):
    """Linear, ReLU, Linear: s and w of a prompt.

    Parameters
    ----------
    in_dim
        Width of x: the states of k input layers, one behind the other, k * d_model.
    n_layers
        How many layers get a weight.
    hidden
        Width of the hidden layer.
    gate
        What becomes of the strength's logit. "hard" sends no gradient to it.
    threshold
        Of "hard": the probability above which a prompt is steered.

    Raises
    ------
    ValueError
        A width that is not positive, an unknown gate, a threshold outside of (0, 1).
    """

    def __init__(
        self, in_dim: int, n_layers: int, hidden: int = 1024, gate: Gate = "sigmoid", threshold: float = 0.5
    ) -> None:
        super().__init__()
        if min(in_dim, n_layers, hidden) < 1:
            raise ValueError(f"in_dim, n_layers and hidden must be positive, got {in_dim}, {n_layers}, {hidden}")
        if gate not in get_args(Gate):
            raise ValueError(f"gate must be one of {', '.join(get_args(Gate))}; got {gate!r}")
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is a probability between 0 and 1, got {threshold}")
        self.in_dim, self.n_layers, self.hidden = in_dim, n_layers, hidden
        self.gate: Gate = gate
        self.threshold = threshold
        self.inner = nn.Linear(in_dim, hidden)
        self.outer = nn.Linear(hidden, 1 + n_layers)

    def logits(self, x: Float[Tensor, "batch in_dim"]) -> Logits:
        """Before the gates.

        Raises
        ------
        ValueError
            States of another width or with another number of axes.
        """
        if x.ndim != 2 or x.shape[1] != self.in_dim:
            raise ValueError(
                f"x must be [batch, {self.in_dim}], the states of all input layers one behind the other; "
                f"got {list(x.shape)}"
            )
        outputs = self.outer(self.inner(x).relu())
        return Logits(outputs[:, 0], outputs[:, 1:])

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch layer"]]:
        """The strength s, gated, and the weights w = sigmoid(z)."""
        logits = self.logits(x)
        return self.gated(logits.strength), logits.layers.sigmoid()

    def gated(self, strength: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The strength of its logit."""
        if self.gate == "sigmoid":
            return strength.sigmoid()
        if self.gate == "relu":
            return strength.relu()
        if self.gate == "hard":
            return (strength.sigmoid() > self.threshold).to(strength)
        return strength

    def extra_repr(self) -> str:
        return f"gate={self.gate!r}"
