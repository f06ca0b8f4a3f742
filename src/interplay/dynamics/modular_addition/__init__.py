"""Modular addition: a race of Fourier frequencies inside every neuron, a vote among neurons (`modular-addition`).

=============  ======================================================================================================
family         dynamics
paper          He, Wang, Chen, Yang. "On the Mechanism and Dynamics of Modular Addition: Fourier Features, Lottery
               Ticket, and Grokking", 2026, arXiv 2602.16849
official code  github.com/Y-Agent/modular-addition-feature-learning (MIT)
interface      functions on the weights of any two-layer network over Z_p, an `nn.Module`, a training monitor
input          input weights (..., neurons, p) and output weights (..., p, neurons); pairs of numbers modulo p
output         spectra, predicted winners, times to dominance, logits (..., pairs, p)
learnable      the two layers
random         initial weights and splits, from generators; the analysis is deterministic but for the null of phases
=============  ======================================================================================================

A network without biases, f = sum_m xi_m sigma(theta_m[x] + theta_m[y]), learns (x + y) mod p. Inside a neuron all
frequencies grow by themselves and the one that starts large and aligned, output phase psi near 2 phi, takes over.
Neurons of all frequencies and phases then vote, and what is left of the noise are two ghosts at 2 x and 2 y. With part
of the table held out and weight decay the same race first memorises, then generalises.

- `fourier_basis`, `FourierSpectrum`: magnitudes, phases and concentration of any pair of layers.
- `dominance_time`, `decoupled_flow`: one frequency on its own, in closed form and over time.
- `lottery_ticket`: the frequency that every neuron will learn, before training.
- `voting_logits`, `flawed_indicator`, `fit_flawed_indicator`: the vote, its closed form, how well a network has it.
- `phase_symmetry`: how evenly phases spread, against chance.
- `ModularAdditionNet`, `addition_table`, `random_split`, `Descent`, `train`: the network, training many at once.
- `GrokkingMonitor`: accuracies by what was seen in training, spectra, and the stages.

What differs from the official code:

- The dominant frequency is that of the largest alpha_k beta_k; the code takes the largest single coefficient of the
  input weights, which prefers frequencies whose phase lies on an axis.
- The signs of the phase equations are those of the code's weight-space flow and of the network's gradient, which texts
  about the paper print reversed.
- Training passes over unordered pairs with weights, and over many networks at once; losses are the same.
"""

from interplay.dynamics.modular_addition.flow import FlowTrajectories, decoupled_flow, dominance_time
from interplay.dynamics.modular_addition.fourier import FourierSpectrum, fourier_basis
from interplay.dynamics.modular_addition.grokking import GrokkingMonitor, Stages
from interplay.dynamics.modular_addition.lottery import LotteryTicket, lottery_ticket
from interplay.dynamics.modular_addition.network import ModularAdditionNet, addition_table
from interplay.dynamics.modular_addition.symmetry import PhaseSymmetry, phase_symmetry
from interplay.dynamics.modular_addition.training import Descent, random_split, train
from interplay.dynamics.modular_addition.voting import (
    IndicatorFit,
    fit_flawed_indicator,
    flawed_indicator,
    voting_logits,
)

__all__ = [
    "Descent",
    "FlowTrajectories",
    "FourierSpectrum",
    "GrokkingMonitor",
    "IndicatorFit",
    "LotteryTicket",
    "ModularAdditionNet",
    "PhaseSymmetry",
    "Stages",
    "addition_table",
    "decoupled_flow",
    "dominance_time",
    "fit_flawed_indicator",
    "flawed_indicator",
    "fourier_basis",
    "lottery_ticket",
    "phase_symmetry",
    "random_split",
    "train",
    "voting_logits",
]
