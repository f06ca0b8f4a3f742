"""PRISM: a gate that speaks when an offer is worth its risk, and thinks twice near the threshold (`prism`).

=============  ======================================================================================================
family         agents
paper          Fu, Tan, Hao, Zhan, Qiu. "PRISM: Festina Lente Proactivity - Risk-Sensitive, Uncertainty-Aware
               Deliberation for Proactive Agents", ICLR 2026, arXiv 2602.01532
official code  announced, not found; counting of outcomes as in github.com/thunlp/ProactiveAgent (Apache-2.0)
interface      a gate around callables, torch modules, scikit-learn classifiers or language models; a Gymnasium
               environment
input          batches of events, or probabilities (events,) as arrays or tensors
output         decisions (events,) with all that led to them
learnable      the models inside the gate; temperatures of calibration
random         nothing, but the world and its environment
=============  ======================================================================================================

A model gives p_need, the probability that the user needs help, and p_acc, that an offer would be accepted. With costs
c_fa of an offer that is not accepted and c_fn of a missed one,

(1)  speak iff p_acc >= tau(p_need),  tau(p) = c_fa / (c_fa + p c_fn)
(2)  where |p_acc - tau(p_need)| <= delta_slow, ask a slower model once; its pair replaces the fast one, and (1) decides
(3)  p' = sigmoid(logit(p) / T), one T a probability, fitted on held-out events
(4)  R = y_accept - (q_need - y_need)^2 - [q_need >= 1/2] (q_acc - y_accept)^2 ranks a teacher's traces for a student

- `CostGate`, `DualProcessGate`, `GateDecision`, `as_pass`, `Judgement`: decide, and keep an audit trail.
- `TemperatureScaler`, `PairCalibrator`: calibration, by scikit-learn.
- `rdc_score`, `RDCSelector`, `GateAlignedLoss`: what to train a student on.
- `proactive_metrics`, `reliability`, `burden_curve`, `audbc`: what the gate achieves.
- `hf_pair_head`, `VerbalisedSlots`: a language model as the source of both probabilities.
- `UserWorld`, `ProactiveWorld`: a user of whom the exact probabilities are known; the latter is a Gymnasium environment
  and needs the extra `rl`.

What is settled here, where the paper is silent or was not to be had:

- The risk behind (1) is derived: a miss costs where help was needed and would have been accepted, need and acceptance
  independent given the events. The published threshold follows.
- Teachers count as predicting need from q_need = 1/2 on. The published ranking keeps accepted events alone whenever few
  are kept; `RDCSelector(stratify=True)` is a remedy of ours.
- The form of the three terms of the student's loss, the definition of the area under the benefit-burden curve.
- Each pass has a calibrator of its own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interplay.agents.prism.calibration import PairCalibrator, TemperatureScaler
from interplay.agents.prism.curation import RDCSelector, rdc_score
from interplay.agents.prism.deliberation import DualProcessGate, GateDecision
from interplay.agents.prism.gate import CostGate
from interplay.agents.prism.language_model import LanguageModelPair, VerbalisedSlots, hf_pair_head
from interplay.agents.prism.losses import GateAlignedLoss
from interplay.agents.prism.metrics import (
    BurdenCurve,
    ProactiveMetrics,
    audbc,
    burden_curve,
    proactive_metrics,
    reliability,
)
from interplay.agents.prism.passes import Judgement, as_pass
from interplay.agents.prism.world import UserWorld

if TYPE_CHECKING:
    from interplay.agents.prism.environment import ProactiveWorld

__all__ = [
    "BurdenCurve",
    "CostGate",
    "DualProcessGate",
    "GateAlignedLoss",
    "GateDecision",
    "Judgement",
    "LanguageModelPair",
    "PairCalibrator",
    "ProactiveMetrics",
    "ProactiveWorld",
    "RDCSelector",
    "TemperatureScaler",
    "UserWorld",
    "VerbalisedSlots",
    "as_pass",
    "audbc",
    "burden_curve",
    "hf_pair_head",
    "proactive_metrics",
    "rdc_score",
    "reliability",
]


def __getattr__(name: str) -> Any:
    if name != "ProactiveWorld":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module(f"{__name__}.environment").ProactiveWorld
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "gymnasium":
            raise
        raise ImportError("ProactiveWorld needs gymnasium: pip install 'interplay[rl]'") from error
