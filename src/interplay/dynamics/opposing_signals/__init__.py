"""Opposing signals: the few samples behind sharpening and loss spikes (`opposing-signals`).

=============  ======================================================================================================
family         dynamics
paper          Rosenfeld, Risteski. "Outliers with Opposing Signals Have an Outsized Effect on Neural Network
               Optimization", ICLR 2024, arXiv 2311.04163
official code  none found
interface      a monitor for any PyTorch loop, callbacks for Hugging Face and Lightning, functions on loss changes and
               on models, a `torch.optim.Optimizer`, a closed-form system on arrays
input          a model, a loss for each sample, a fixed probe set; or a matrix of loss changes
output         two groups of samples or "no opposing groups", their parts in loss changes and sharpness, plots
learnable      nothing of its own
random         the first vector of Lanczos and the shuffles of the null test, both from seeds
=============  ======================================================================================================

A few samples carry a large feature that speaks for different labels. Training balances them in a valley, the valley
grows narrow while the rest is learned, and once its curvature passes 2 / eta the losses of the two groups see-saw:

(1)  delta_i(t) = l_i(t) - l_i(t - 1),   score_i = mean_t |delta_i(t)|
(2)  groups A, B: the samples of highest score, split by sign along the first principal direction of their changes
(3)  opposition = corr_t(mean_A delta, mean_B delta), alternation = how often mean_A delta changes its sign
(4)  sharpness = largest algebraic eigenvalue of the Hessian of the mean loss, with part v.H_G v of group G

- `diagnose`, `OpposingSignalsMonitor`, `Diagnosis`, `Probe`: the diagnosis of a run, from one call or in a loop.
- `hugging_face_callback`, `lightning_callback`, `sequence_loss`: the same in a trainer.
- `LossChangeRecorder`, `find_opposing_groups`, `OpposingGroups`: (1) to (3) on losses from anywhere.
- `sharpness`, `lanczos`, `group_curvature`, `gradient_opposition`: (4) on models that do not fit their Hessian.
- `drop_groups`, `reweight`: the test of a diagnosis by ablation.
- `SplitSign`: sign steps on the coordinates with the largest momentum, plain steps elsewhere.
- `OpposingSignalsToy`: the paper's kind of regression with outliers, gradient, Hessian and dynamics in closed form.

Settled here, since there is no code and only the abstract and public reviews could be read:

- The split (2), the measures (3) and the parts in (4) are our own well-defined form of the paper's idea, which picks
  the samples with the most positive and most negative change of single steps.
- Whether there are groups at all is decided by effect size and shuffled time; see `find_opposing_groups`.
- Changes are centred over the window before the split: a loss that falls steadily has no part in the see-saw.
- The toy is an exact instance of a regression with a regular part, an outlier coordinate and a target that holds its
  absolute value. SplitSign's rule, momentum in the form of an average and quantile over all coordinates, is an instance
  of "sign steps where the momentum is largest". The paper's own numbers for both are not known.
"""

from interplay.dynamics.opposing_signals.callbacks import hugging_face_callback, lightning_callback
from interplay.dynamics.opposing_signals.curvature import (
    Curvature,
    Opposition,
    Sharpness,
    gradient_opposition,
    group_curvature,
    lanczos,
    sharpness,
)
from interplay.dynamics.opposing_signals.groups import OpposingGroups, find_opposing_groups
from interplay.dynamics.opposing_signals.interventions import drop_groups, reweight
from interplay.dynamics.opposing_signals.monitor import OpposingSignalsMonitor, diagnose
from interplay.dynamics.opposing_signals.probe import Probe, sequence_loss
from interplay.dynamics.opposing_signals.recorder import LossChangeRecorder
from interplay.dynamics.opposing_signals.report import Diagnosis
from interplay.dynamics.opposing_signals.split_sign import SplitSign
from interplay.dynamics.opposing_signals.toy import OpposingSignalsToy, ToyTrajectory

__all__ = [
    "Curvature",
    "Diagnosis",
    "LossChangeRecorder",
    "OpposingGroups",
    "OpposingSignalsMonitor",
    "OpposingSignalsToy",
    "Opposition",
    "Probe",
    "Sharpness",
    "SplitSign",
    "ToyTrajectory",
    "diagnose",
    "drop_groups",
    "find_opposing_groups",
    "gradient_opposition",
    "group_curvature",
    "hugging_face_callback",
    "lanczos",
    "lightning_callback",
    "reweight",
    "sequence_loss",
    "sharpness",
]
