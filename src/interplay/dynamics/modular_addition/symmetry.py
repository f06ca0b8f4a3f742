"""Are the phases of the neurons that share a frequency spread evenly, and more evenly than chance?

(1)  R_r = |mean over the N neurons of a frequency of e^{i r phi_m}|, the resultant length of order r

The vote's noise cancels where R_2 = R_4 = 0. But N phases drawn at random already have a small R, about
sqrt(pi / (4 N)), and exceed R with probability exp(-N R^2) (Rayleigh). So every length comes with what chance would
give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interplay.dynamics.modular_addition.fourier import FourierSpectrum

__all__ = ["PhaseSymmetry", "phase_symmetry"]


@dataclass(frozen=True)
class PhaseSymmetry:
    """Resultant lengths of the input phases at the neurons' dominant frequencies, and their null.

    Attributes
    ----------
    orders
        r of equation (1).
    count
        (..., frequency): neurons whose dominant frequency it is.
    resultant
        (..., order, frequency): R_r; NaN for a frequency without neurons.
    null_quantile
        (..., frequency): quantile of R for as many phases drawn uniformly at random, which is the same for all orders;
        NaN without neurons.
    mean_resultant
        (..., order): mean of R_r over the frequencies that have neurons.
    mean_null, mean_null_quantile
        (...): mean and quantile of that mean for phases at random in groups of the same sizes.
    """

    orders: tuple[int, ...]
    count: Int[Tensor, "*run frequency"]
    resultant: Float[Tensor, "*run order frequency"]
    null_quantile: Float[Tensor, "*run frequency"]
    mean_resultant: Float[Tensor, "*run order"]
    mean_null: Float[Tensor, "*run"]
    mean_null_quantile: Float[Tensor, "*run"]


def phase_symmetry(
    spectrum: FourierSpectrum,
    orders: Sequence[int] = (1, 2, 4),
    *,
    quantile: float = 0.95,
    draws: int = 2000,
    generator: torch.Generator,
) -> PhaseSymmetry:
    """Resultant lengths (1) of every frequency's neurons, with the null by simulation.

    Parameters
    ----------
    spectrum
        Of trained weights; any leading axes.
    orders
        Multiples r of the phase; 2 and 4 are those that the vote of quadratic neurons needs.
    quantile
        Of the null.
    draws
        Sets of random phases behind the null.
    generator
        Draws them.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile must lie between 0 and 1; got {quantile}")
    if draws < 1 or not orders or any(order < 1 for order in orders):
        raise ValueError(f"draws and every order must be 1 or more; got {draws} and {tuple(orders)}")
    winner = spectrum.dominant()
    phase = spectrum.at(winner).phi.squeeze(-1).double()
    frequencies = torch.arange(1, spectrum.alpha.shape[-1] + 1, device=phase.device)
    members = (winner.unsqueeze(-1) == frequencies).double()
    count = members.sum(-2)
    turns = torch.stack([torch.polar(torch.ones_like(phase), order * phase.nan_to_num()) for order in orders], -2)
    resultant = (turns @ members.to(turns.dtype)).abs() / count.unsqueeze(-2)
    random = torch.rand(draws, members.shape[-2], generator=generator, dtype=torch.float64).to(phase.device)
    waves = torch.polar(torch.ones_like(random), random * (2 * math.pi))
    null = (waves @ members.to(waves.dtype)).abs() / count.unsqueeze(-2)
    mean_null = null.nanmean(-1)
    return PhaseSymmetry(
        tuple(orders),
        count.long(),
        resultant,
        null.quantile(quantile, dim=-2),
        resultant.nanmean(-1),
        mean_null.mean(-1),
        mean_null.quantile(quantile, dim=-1),
    )
