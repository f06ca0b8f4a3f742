"""The lottery ticket of frequencies: which one each neuron will learn, read off its initial weights.

Within a neuron all frequencies race, each by the decoupled flow from its own alpha, beta and D. The first to dominate
starves the others. Three rules rank the runners at the start:

(1)  ode:           the time to dominance from (alpha_k, beta_k, D_k)
(2)  magnitude:     the same time with all phases aligned, D = 0
(3)  misalignment:  |D_k| alone, which for equal magnitudes is the order of (1)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interplay.dynamics.modular_addition.flow import dominance_time
from interplay.dynamics.modular_addition.fourier import FourierSpectrum

__all__ = ["LotteryTicket", "lottery_ticket"]

Rule = Literal["ode", "magnitude", "misalignment"]


@dataclass(frozen=True)
class LotteryTicket:
    """What a rule predicts for every neuron.

    Attributes
    ----------
    winner
        (..., neuron): the frequency in 1..K with the lowest cost; -1 where no frequency can win.
    cost
        (..., neuron, frequency), float64: time to dominance, or |D| in radians; the lowest wins.
    lead
        (..., neuron): by how much the winner's cost is below that of the second, relative to the second's: 0 is a draw,
        1 a walkover.
    """

    winner: Int[Tensor, "*run neuron"]
    cost: Float[Tensor, "*run neuron frequency"]
    lead: Float[Tensor, "*run neuron"]

    def hit_rate(self, learned: Int[Tensor, "*run neuron"]) -> Float[Tensor, "*run"]:
        """Share of neurons of each network whose learned frequency was predicted."""
        if learned.shape != self.winner.shape:
            raise ValueError(
                f"learned must have the shape {tuple(self.winner.shape)} of the winners; got {tuple(learned.shape)}"
            )
        return (learned == self.winner).double().mean(-1)


def lottery_ticket(spectrum: FourierSpectrum, rule: Rule = "ode", *, beta_cap: float = 0.5) -> LotteryTicket:
    """Predict the frequency that each neuron ends on, before any training.

    Parameters
    ----------
    spectrum
        Of the initial weights; any leading axes.
    rule
        (1), (2) or (3). The first two integrate nothing: the time has a closed form.
    beta_cap
        Output magnitude at which a frequency has won.

    Notes
    -----
    The prediction is for gradient descent on quadratic neurons. Optimisers that scale every weight by itself, as Adam
    does, couple the frequencies.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"rule must be one of {', '.join(get_args(Rule))}; got {rule!r}")
    if rule == "misalignment":
        cost = spectrum.misalignment.abs().double()
    else:
        start = spectrum.misalignment if rule == "ode" else torch.zeros_like(spectrum.alpha)
        cost = dominance_time(spectrum.alpha, spectrum.beta, start, spectrum.p, beta_cap=beta_cap)
    best, winner = cost.min(-1)
    second = cost.kthvalue(2, dim=-1).values if cost.shape[-1] > 1 else torch.full_like(best, torch.inf)
    lead = torch.where(second.isinf(), 1.0, 1 - best / torch.where(second > 0, second, 1.0))
    hopeless = best.isinf()
    return LotteryTicket(torch.where(hopeless, -1, winner + 1), cost, torch.where(hopeless, 0.0, lead))
