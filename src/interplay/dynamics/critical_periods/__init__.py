"""Critical learning periods in deep linear networks: an early deficit lasts for ever (`critical-periods`).

=============  ======================================================================================================
family         dynamics
paper          Kleinman, Achille, Soatto. "Critical Learning Periods Emerge Even in Deep Linear Networks", ICLR 2024,
               arXiv 2308.12221
official code  github.com/mjkleinman/CriticalPeriodDeepLinearNets (MIT)
interface      hooks for a module of any model; batched networks and their training; theory on arrays
input          a schedule of the deficit; data, or the singular values of the target
output         trained networks and how they got there; shares, errors and tables of sensitivity
learnable      the networks are
random         starts, tasks and the coin of "bernoulli" deficits, from seeds
=============  ======================================================================================================

Pathways whose outputs add compete for each singular mode of the target: what one explains, the other cannot learn any
more. In a balanced linear network of depth D every pathway i and mode is one number,

(1)  K_i = p_i^D,  p_i' = p_i^(D-1) (S - sum_j K_j),

so the rich get richer, the more so the deeper they are, and a pathway that is held back early loses the mode. In matrix
completion a first task leaves its subspace in the product of the factors, which deep products are slow to leave.

- `DeficitSchedule`, `deficit_hooks`: a deficit on any module of a model of your own.
- `sensitivity`, `critical_window`: what onset and length of a deficit do to any training, and when it is fragile.
- `TwoPathwayLinear`, `train_pathways`, `hierarchy`, `target_modes`, `pathway_sweep`: the pathways, many at once.
- `pathway_race`, `final_share`: equation (1) over time, and where it ends without following it.
- `DeepMatrixFactorization`, `completion_task`, `train_completion`, `completion_sweep`: completion, many at once.
- `product_velocity`, `singular_value_velocity`: how the product of a balanced factorisation moves.

What differs from the official code:

- A deficit of [start, end) acts on exactly these steps in the network and in the equation; the official integration of
  the equation is one step off its network.
- Completion switches after exactly T_c steps and makes exactly as many steps afterwards as asked for; there the
  official code makes one more and one less.
- The mask of a mode is there during its window; in the published figure it stays for all of training.
- Runs are drawn from seeds of their own, each with a stream of its own for weights, matrices and entries.
"""

from interplay.dynamics.critical_periods.completion import (
    CompletionRun,
    CompletionTask,
    DeepMatrixFactorization,
    completion_task,
    train_completion,
)
from interplay.dynamics.critical_periods.deficits import ActiveDeficit, DeficitSchedule, deficit_hooks
from interplay.dynamics.critical_periods.pathways import TargetModes, TwoPathwayLinear, hierarchy, target_modes
from interplay.dynamics.critical_periods.race import final_share, pathway_race
from interplay.dynamics.critical_periods.sensitivity import (
    completion_sweep,
    critical_window,
    pathway_sweep,
    sensitivity,
)
from interplay.dynamics.critical_periods.spectrum import product_velocity, singular_value_velocity
from interplay.dynamics.critical_periods.training import PathwayRun, train_pathways

__all__ = [
    "ActiveDeficit",
    "CompletionRun",
    "CompletionTask",
    "DeepMatrixFactorization",
    "DeficitSchedule",
    "PathwayRun",
    "TargetModes",
    "TwoPathwayLinear",
    "completion_sweep",
    "completion_task",
    "critical_window",
    "deficit_hooks",
    "final_share",
    "hierarchy",
    "pathway_race",
    "pathway_sweep",
    "product_velocity",
    "sensitivity",
    "singular_value_velocity",
    "target_modes",
    "train_completion",
    "train_pathways",
]
