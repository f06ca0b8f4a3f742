"""What a student is trained on: both probabilities, corrected for when offers were made, and the burden of the gate."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from interplay.agents.prism.gate import CostGate
from interplay.agents.prism.validation import as_labels, as_probabilities, check_same_shape

__all__ = ["GateAlignedLoss"]


class GateAlignedLoss(nn.Module):
    """L = L_need + L_acc + L_burden on logged events.

    With w_i = 1 / max(propensity_i, floor) on events where the logger spoke and 0 elsewhere,

    (1)  L_need   = mean BCE(p_need, y_need)
    (2)  L_acc    = sum_i w_i BCE(p_acc_i, y_accept_i) / sum_i w_i
    (3)  L_burden = false_alarm_weight sum_i w_i s_i (1 - y_accept_i) / sum_i w_i  +  slow_weight mean_i m_i

    where s_i = sigmoid(margin_i / gate_temperature) is a soft gate, m_i = exp(-(margin_i / delta_slow)^2) a soft call
    of the slow pass and margin = p_acc - tau(p_need). The paper names the three terms; their form is ours. Acceptance
    is known only where an offer was made, hence the weights in (2) and in the first part of (3), which is the plain
    mean where the logger always spoke. Where it never spoke in a batch, both are 0.

    Parameters
    ----------
    gate
        The costs of the deployment.
    delta_slow
        Half-width of the margin in the deployment, above 0.
    gate_temperature
        Width of the soft gate, above 0.
    false_alarm_weight, slow_weight
        Weights of the two parts of the burden, 0 or more.
    propensity_floor
        Smallest propensity that counts, in (0, 1]: bounds the weights.

    Raises
    ------
    ValueError
        A setting out of its range; when called, what is no probability, label or propensity, and shapes that differ.
    """

    def __init__(
        self,
        gate: CostGate,
        *,
        delta_slow: float = 0.1,
        gate_temperature: float = 0.05,
        false_alarm_weight: float = 0.5,
        slow_weight: float = 0.05,
        propensity_floor: float = 0.05,
    ) -> None:
        super().__init__()
        for name, value in (("delta_slow", delta_slow), ("gate_temperature", gate_temperature)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be above 0; got {value}")
        for name, value in (("false_alarm_weight", false_alarm_weight), ("slow_weight", slow_weight)):
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be 0 or more; got {value}")
        if not 0 < propensity_floor <= 1:
            raise ValueError(f"propensity_floor must lie in (0, 1]; got {propensity_floor}")
        self.gate = gate
        self.delta_slow = delta_slow
        self.gate_temperature = gate_temperature
        self.false_alarm_weight = false_alarm_weight
        self.slow_weight = slow_weight
        self.propensity_floor = propensity_floor

    def forward(
        self,
        p_need: Float[Tensor, " events"],
        p_acc: Float[Tensor, " events"],
        y_need: Shaped[Tensor, " events"],
        y_accept: Shaped[Tensor, " events"],
        spoke: Shaped[Tensor, " events"],
        propensity: Float[Tensor, " events"],
    ) -> dict[str, Float[Tensor, ""]]:
        """The loss and its parts.

        Parameters
        ----------
        p_need, p_acc
            The student's probabilities.
        y_need
            Whether help was needed, 0 or 1.
        y_accept
            Whether the offer was accepted; not read, and free to be NaN, where `spoke` is 0.
        spoke, propensity
            Whether the logger made an offer, and with what probability it does so on such an event, in (0, 1].

        Returns
        -------
        Scalars "loss", "need", "acceptance" and "burden".
        """
        p_need, p_acc = as_probabilities("p_need", p_need), as_probabilities("p_acc", p_acc)
        check_same_shape(
            p_need=p_need, p_acc=p_acc, y_need=y_need, y_accept=y_accept, spoke=spoke, propensity=propensity
        )
        spoke = as_labels("spoke", spoke)
        accepted = as_labels("y_accept, where an offer was made,", torch.where(spoke, y_accept, 0)).to(p_acc.dtype)
        needed = as_labels("y_need", y_need).to(p_need.dtype)
        if not ((propensity > 0) & (propensity <= 1)).all():
            raise ValueError(f"propensity must lie in (0, 1]; got {propensity.min()} to {propensity.max()}")

        weights = torch.where(spoke, 1 / propensity.to(p_acc.dtype).clamp(min=self.propensity_floor), 0)
        weights = weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
        margin = self.gate.margin(p_need, p_acc)
        need = functional.binary_cross_entropy(p_need, needed)
        acceptance = (weights * functional.binary_cross_entropy(p_acc, accepted, reduction="none")).sum()
        false_alarms = (weights * torch.sigmoid(margin / self.gate_temperature) * (1 - accepted)).sum()
        slow_calls = torch.exp(-((margin / self.delta_slow) ** 2)).mean()
        burden = self.false_alarm_weight * false_alarms + self.slow_weight * slow_calls
        return {"loss": need + acceptance + burden, "need": need, "acceptance": acceptance, "burden": burden}

    def extra_repr(self) -> str:
        return f"{self.gate}, delta_slow={self.delta_slow}"
