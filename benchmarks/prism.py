"""PRISM's gate against the bare numpy expression, its calibration against others', its students against one by one.

netcal is timed too where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from measure import HEADER, compare
from scipy.special import expit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional

from interplay.agents.prism import CostGate, DualProcessGate, TemperatureScaler, UserWorld
from interplay.primitives.randomness import generator_of
from interplay.studies.prism.students import Students

EVENTS = 1_000_000
NETWORKS, BATCH, HISTORY = 14, 256, 3


def gate_and_routing() -> list[str]:
    """A million events: the decision, which events are near, and the whole agent with a slow pass that looks up."""
    rng = np.random.default_rng(0)
    p_need, p_acc = rng.random(EVENTS), rng.random(EVENTS)
    events = np.arange(EVENTS)
    gate = CostGate(1.0, 2.0)
    near = np.flatnonzero(gate.route(p_need, p_acc, 0.1)[1])
    slow = p_need[near], p_acc[near]
    agent = DualProcessGate(gate, lambda rows: (p_need, p_acc), lambda rows: slow)
    rows = []
    for name, ours in (
        ("CostGate.decide", lambda: gate.decide(p_need, p_acc)),
        ("CostGate.route: decide and mark the margin", lambda: gate.route(p_need, p_acc, 0.1)),
        ("DualProcessGate, a fifth routed", lambda: agent(events)),
    ):
        alternatives: dict[str, Callable[[], object]] = {
            name: ours,
            "numpy expression p_acc >= c_fa / (c_fa + c_fn * p_need)": lambda: p_acc >= 1.0 / (1.0 + 2.0 * p_need),
        }
        rows += compare("a million events", alternatives, repeats=41, warm_up=3).rows()
    return rows


def calibration() -> tuple[list[str], list[str]]:
    """A temperature for a hundred thousand probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(100_000, 1)) * 2
    y = (rng.random(100_000) < expit(logits[:, 0] / 2)).astype(int)
    model = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    model.coef_, model.intercept_ = np.ones((1, 1)), np.zeros(1)
    p = model.predict_proba(logits)[:, 1]
    alternatives: dict[str, Callable[[], object]] = {
        "TemperatureScaler": lambda: TemperatureScaler().fit(p, y),
        "scikit-learn, CalibratedClassifierCV": lambda: CalibratedClassifierCV(
            FrozenEstimator(model), method="temperature", ensemble=False, cv=2
        ).fit(logits, y),
    }
    notes = []
    try:
        from netcal.scaling import TemperatureScaling
    except ImportError:
        notes.append("netcal was not there: pip install netcal --no-deps.")
    else:
        alternatives["netcal"] = lambda: TemperatureScaling().fit(p, y)
    return compare("temperature of 100,000 probabilities", alternatives, repeats=7).rows(), notes


class PlainStudent(nn.Module):
    """The same student by PyTorch's own GRU."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru = nn.GRU(13, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        shown = torch.cat([functional.one_hot(tokens[..., 0], 8), functional.one_hot(tokens[..., 1], 5)], -1).float()
        return torch.sigmoid(self.head(self.gru(shown)[1][0]))


def students() -> list[str]:
    """A training step of the study's fast and slow students, all at once and one by one."""
    world = UserWorld.draw(generator=np.random.default_rng(0))
    rows = []
    for networks, hidden, events in ((NETWORKS, 32, HISTORY), (2, 96, 12)):
        tokens = torch.from_numpy(world.sample(networks * BATCH, generator=np.random.default_rng(1)).tokens)
        tokens = tokens[:, -events:].view(networks, BATCH, events, 2)
        together = Students(networks, hidden, generator=generator_of(0))
        apart = [PlainStudent(hidden) for _ in range(networks)]
        optimizer = torch.optim.Adam(together.parameters(), 1e-3)
        optimizers = [torch.optim.Adam(student.parameters(), 1e-3) for student in apart]

        def all_at_once(
            tokens: torch.Tensor = tokens, model: Students = together, step: torch.optim.Adam = optimizer
        ) -> None:
            step.zero_grad()
            p_need, p_acc = model(tokens)[0]
            (p_need.square().mean(1) + p_acc.square().mean(1)).sum().backward()
            step.step()

        def one_by_one(
            tokens: torch.Tensor = tokens,
            models: list[PlainStudent] = apart,
            steps: list[torch.optim.Adam] = optimizers,
        ) -> None:
            for own, model, step in zip(tokens, models, steps, strict=True):
                step.zero_grad()
                model(own).square().mean(0).sum().backward()
                step.step()

        rows += compare(
            f"a training step of {networks} GRU({hidden}) on {events} events x {BATCH}",
            {"Students, all at once": all_at_once, "nn.GRU, one by one": one_by_one},
            repeats=21,
        ).rows()
    return rows


def main() -> None:
    torch.set_num_threads(1)
    calibrated, notes = calibration()
    print("\n".join([HEADER, *gate_and_routing(), *calibrated, *students(), *([""] if notes else []), *notes]))


if __name__ == "__main__":
    main()
