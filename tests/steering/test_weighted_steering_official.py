"""Numbers of the official code (commit e7997f9), recorded on weights that a formula gives, and ours on the same.

`SteeringController`, `train_controller` with whole classes as batches, `get_refusal_direction` and `SteeringModifier`
ran unchanged in float32 on a CPU; the losses are what its training loop summed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interplay.primitives.activations import Site, record
from interplay.steering.weighted_steering import Controller, WeightedSteering, refusal_direction
from interplay.steering.weighted_steering.training import benign_loss, harmful_loss, train_on_states
from tests.steering.conftest import language

RECORDED = Path(__file__).parent / "data" / "weighted_steering.json"
CONTROLLER = (96, 4, 16)
WORDS_REFUSING, WORDS_ANSWERING = ("bad w1 w2", "w3"), ("good", "w5 w6")
PROMPT = ("w1 w2 w3 good", "w9 w8 w7 bad")


def filled(one: Any) -> Any:
    """Give every parameter of `one.model` values that are the same on every machine."""
    with torch.no_grad():
        for number, parameter in enumerate(one.model.parameters()):
            steps = torch.arange(parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
            parameter.copy_(0.3 * torch.sin(1.7 * steps + number) + (parameter.ndim == 1))
    return one


def states() -> Tensor:
    return torch.cos(0.9 * torch.arange(4 * CONTROLLER[0], dtype=torch.float64)).reshape(4, -1).float()


def controller() -> Controller:
    class Holder:
        model = Controller(*CONTROLLER, gate="raw")

    return filled(Holder()).model


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in json.loads(RECORDED.read_text()).items()}


def test_the_controller(official):
    logits = controller().logits(states())
    torch.testing.assert_close(logits.strength, official["strength"])
    torch.testing.assert_close(logits.layers, official["layers"])


def test_the_losses_and_the_training(official):
    one = controller()
    first = float(harmful_loss(one.logits(states()[:2])).detach())
    history = train_on_states(one, states()[:2], states()[2:], torch.Generator(), epochs=3, batch=2, learning_rate=1e-2)
    losses = official["losses"].reshape(3, 2)
    assert first == pytest.approx(float(losses[0, 0]), abs=1e-6)
    torch.testing.assert_close(torch.tensor(history), losses.mean(1), rtol=1e-5, atol=1e-6)
    logits = one.logits(states())
    assert float(losses.mean(1)[-1]) == float(losses.mean(1).min()), "the best epoch is the last one here"
    torch.testing.assert_close(logits.strength, official["trained strength"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits.layers, official["trained layers"], rtol=1e-4, atol=1e-4)
    logits = logits._replace(strength=torch.zeros(4))
    assert float(benign_loss(logits).detach()) == pytest.approx(0.6931472)


def test_the_direction_of_embeddings(official):
    one = filled(language("llama"))
    ours = refusal_direction(one.model, one.tokenizer, refusing=WORDS_REFUSING, answering=WORDS_ANSWERING)
    torch.testing.assert_close(ours, official["direction"], rtol=0, atol=1e-6)


def test_the_published_schedule_steers_the_last_layer_only(official):
    one = filled(language("llama"))
    parts = {"alpha": 4.0, "alpha_units": "abs", "schedule": "same-pass"}
    with pytest.warns(UserWarning, match=r"\[0, 1, 2\] stay unsteered"):
        steering = WeightedSteering.with_controller(one.model, controller(), official["direction"], **parts)
    batch = one.tokenizer(list(PROMPT), return_tensors="pt", padding=True)
    context = steering.applied(one.model)
    with torch.inference_mode(), context as applied, record(one.model, [Site("residual", 3)], positions="last") as seen:
        logits = one.model(**batch).logits[:, -1]
    assert [applied[Site("residual", layer)] for layer in range(4)] == [0, 0, 0, len(PROMPT)]
    torch.testing.assert_close(seen[Site("residual", 3)], official["last block"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits, official["logits"], rtol=1e-5, atol=1e-5)
