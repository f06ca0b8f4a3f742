"""How single-frequency neurons add modulo p together: a vote whose sum is a flawed indicator.

Neuron m of frequency omega and phase phi_m, with its output phase at 2 phi_m, gives to answer j

(1)  a cos(omega j + 2 phi_m) sigma(cos(omega x + phi_m) + cos(omega y + phi_m))

For quadratic sigma, a = alpha^2 beta, N neurons on every frequency and phases with sum_m e^{i 2 phi_m} = sum_m e^{i 4
phi_m} = 0, all noise cancels but at the doubled inputs:

(2)  f[j] = (a N / 2) (-1 + (p / 2) 1[j = x + y] + (p / 4) (1[j = 2 x] + 1[j = 2 y])),  all modulo p
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interplay.dynamics.modular_addition.fourier import check_modulus

__all__ = ["IndicatorFit", "fit_flawed_indicator", "flawed_indicator", "voting_logits"]

Numbers = Int[Tensor, "*pair"]


def voting_logits(
    x: Numbers,
    y: Numbers,
    p: int,
    frequencies: Int[Tensor, " neuron"],
    phases: Float[Tensor, " neuron"],
    amplitude: float | Float[Tensor, " neuron"] = 1.0,
    activation: Callable[[Tensor], Tensor] = torch.square,
) -> Float[Tensor, "*pair p"]:
    """Summed votes (1) of idealised neurons.

    Parameters
    ----------
    x, y
        Summands in 0..p - 1; shapes broadcast.
    frequencies, phases
        k in 1..K and phi in radians of every neuron; the phases set the dtype.
    amplitude
        a of all neurons or of each.
    activation
        sigma.
    """
    check_modulus(p)
    _check_numbers(p, x=x, y=y)
    if ((frequencies < 1) | (frequencies > p // 2)).any():
        raise ValueError(f"frequencies must lie in 1..{p // 2} for p = {p}; got {frequencies.tolist()}")
    numbers = torch.arange(p, device=phases.device)
    angles = (torch.outer(numbers, frequencies) % p).to(phases) * (2 * math.pi / p)
    waves = (angles + phases).cos()
    answers = (angles + 2 * phases).cos() * amplitude
    return activation(waves[x] + waves[y]) @ answers.mT


def flawed_indicator(
    x: Numbers, y: Numbers, p: int, amplitude: float = 1.0, neurons_per_frequency: int = 1
) -> Float[Tensor, "*pair p"]:
    """The closed form (2), float64: the right answer at half of p, ghosts at a quarter where an input is doubled."""
    check_modulus(p)
    _check_numbers(p, x=x, y=y)
    truth, ghosts = _indicators(x, y, p)
    return amplitude * neurons_per_frequency / 2 * (-1 + p / 2 * truth + p / 4 * ghosts)


@dataclass(frozen=True)
class IndicatorFit:
    """Least squares of logits on a constant, the right answer and the ghosts.

    Attributes
    ----------
    truth, ghost
        (...): heights at j = x + y and at j = 2 x, 2 y, in units of the logits; (2) says ghost / truth = 1 / 2.
    r_squared
        (...): share of the logits' variance that the fit explains.
    """

    truth: Float[Tensor, "*run"]
    ghost: Float[Tensor, "*run"]
    r_squared: Float[Tensor, "*run"]


def fit_flawed_indicator(logits: Float[Tensor, "*run p p p"]) -> IndicatorFit:
    """How much of a network's logits is a flawed indicator.

    Parameters
    ----------
    logits
        (..., x, y, answer) over all pairs.
    """
    p = logits.shape[-1]
    check_modulus(p)
    if logits.dim() < 3 or logits.shape[-3:] != (p, p, p):
        raise ValueError(f"logits must have shape (..., p, p, p), over x, y and answers; got {tuple(logits.shape)}")
    numbers = torch.arange(p, device=logits.device)
    parts = _indicators(numbers[:, None], numbers[None, :], p)
    design = torch.stack([torch.ones_like(parts[0]), *parts], -1).reshape(-1, 3)
    values = logits.detach().double().flatten(-3).unsqueeze(-1)
    solution = torch.linalg.pinv(design) @ values
    residual = (values - design @ solution).square().sum((-2, -1))
    spread = (values - values.mean(-2, keepdim=True)).square().sum((-2, -1))
    return IndicatorFit(solution[..., 1, 0], solution[..., 2, 0], 1 - residual / spread)


def _indicators(x: Numbers, y: Numbers, p: int) -> tuple[Tensor, Tensor]:
    answers = torch.arange(p, device=x.device)
    x, y = x.unsqueeze(-1), y.unsqueeze(-1)
    truth = (answers == (x + y) % p).double()
    ghosts = (answers == 2 * x % p).double() + (answers == 2 * y % p).double()
    return truth, ghosts


def _check_numbers(p: int, **numbers: Tensor) -> None:
    for name, values in numbers.items():
        if (outside := (values < 0) | (values >= p)).any():
            raise IndexError(f"{name} must lie in 0..{p - 1}; got {values[outside].flatten()[0].item()}")
