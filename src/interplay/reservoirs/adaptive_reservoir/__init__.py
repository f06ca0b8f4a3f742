"""Reservoirs whose units set their own inhibition to meet a target rate (`adaptive-reservoir`).

=============  ======================================================================================================
family         reservoirs
paper          Srinivasan, Plenz, Girvan. "Boosting Reservoir Computing with Brain-inspired Adaptive Dynamics", 2025,
               arXiv 2504.12480
official code  none found
interface      scikit-learn regressor; reservoir on NumPy arrays; `torch.nn.Module` twin
input          series, float, (time, channels) or (time, batch, channels)
output         states (time, units) or (time, batch, units); predictions as y of `fit`
learnable      inhibitory strengths (locally, without a teacher); readout (ridge regression)
random         links, strengths and input weights, from a seed
=============  ======================================================================================================

A reservoir is a recurrent network with fixed weights of whose states only a linear readout is trained. Here each unit
either excites or inhibits. M_ij >= 0 is the strength of the link from j to i, A_ij = +M_ij where j excites and -M_ij
where j inhibits; Sig(x) = 1 / (1 + exp(-x)).

(1)  r_i(t+1) = Sig(sum_j A_ij r_j(t) + Win_i u(t) - theta_i)           rates; with a leak where asked for
(2)  M_ij <- max(0, M_ij + delta (r_i(t) - rho_i)), j inhibitory        local rule: too active means more inhibition
(3)  M_ij <- Omega_i M_ij, j inhibitory                                 one-step design of the same balance, with
     Omega_i = (sum_E A_ij rho_j + Win_i <u> - theta_i - logit rho_i) / sum_I M_ij rho_j
(4)  theta_i <- theta_i + delta (r_i(t) - rho_i)                        control: same rates by thresholds

Rules (2) and (4) run while the input drives the reservoir, and stop before the readout is trained: features that move
cannot be read. The paper's targets rho_i are the same for all units, or differ (`targets`).

`EIReservoir` is the network; `EIReservoirRegressor` puts the readout behind it; `EIReservoirCell` is the network with
gradients; `Reservoir` is a plain echo state network, of any weights.

What the paper leaves open and what is chosen here:

- Slope one for the sigmoid, strengths from U(0, 1), a tenth of all links, no self-loops, thresholds zero, delta = 0.01
  gain / 4, and targets from Beta(8 rho, 8 (1 - rho)) are this library's choices.
- `gain` is the spectral radius of the balanced matrix, before inhibition is multiplied by `balance` or adapted.
- In (2), r_i(t) is the rate that the step has just produced.
- The typesetting of (3) in the source at hand is damaged; it is derived anew from the mean-field input, as the factor
  at which a unit's mean drive is logit(rho_i). A factor below zero is not possible: it becomes zero, and the unit is
  counted as infeasible.
"""

from interplay.reservoirs.adaptive_reservoir import metrics, targets
from interplay.reservoirs.adaptive_reservoir.adaptation import AdaptReport, one_step_design
from interplay.reservoirs.adaptive_reservoir.balanced import EIReservoir
from interplay.reservoirs.adaptive_reservoir.cell import EIReservoirCell
from interplay.reservoirs.adaptive_reservoir.readout import Readout, fit_readout, fit_readouts
from interplay.reservoirs.adaptive_reservoir.regressor import EIReservoirRegressor
from interplay.reservoirs.adaptive_reservoir.reservoir import Reservoir

__all__ = [
    "AdaptReport",
    "EIReservoir",
    "EIReservoirCell",
    "EIReservoirRegressor",
    "Readout",
    "Reservoir",
    "fit_readout",
    "fit_readouts",
    "metrics",
    "one_step_design",
    "targets",
]
