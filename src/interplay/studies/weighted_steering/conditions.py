"""What is compared: the controller's variants, what is left when parts of it are taken away, and simpler steering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interplay.assets.organisms.policy.lexicon import REFUSAL, VALUES
from interplay.primitives.positions import Positions
from interplay.steering.weighted_steering import Controller, Gate, WeightedSteering, refusal_direction
from interplay.studies.steered_answers import Dial

__all__ = ["PUBLISHED", "Condition", "Overruled", "Prompts", "ablations", "baselines", "fitted", "variants"]

PUBLISHED = "as published"

TOKENS: Mapping[str, Positions] = {"prompt's end and reply": "last", "prompt's end": "prompt-end"}
"""Which tokens are steered: what the paper does, and the prompt's last token alone."""


class Condition(NamedTuple):
    """A way to steer.

    Attributes
    ----------
    name
        Of the condition.
    steering
        What is applied; its alpha is 1, so that the strength is alpha.
    """

    name: str
    steering: WeightedSteering

    def dial(self, model: Any, tokens: str) -> Dial:
        """From one alpha a row to a context in which these tokens are steered."""
        return partial(self.steering.applied, model, positions=TOKENS[tokens])


class Prompts(NamedTuple):
    """What a controller is fitted on, as texts."""

    plain: list[str]
    override: list[str]
    allowed: list[str]

    @property
    def positive(self) -> list[str]:
        """What is to be refused."""
        return [*self.plain, *self.override]


class Overruled(Controller):
    """A controller whose strength or weights are set by hand.

    Parameters
    ----------
    controller
        Whose layers are copied.
    gate
        None: its own.
    strength
        None: its own.
    weights
        One for each steered layer, or one for all; None: its own.
    """

    def __init__(
        self,
        controller: Controller,
        *,
        gate: Gate | None = None,
        strength: float | None = None,
        weights: float | Float[Tensor, " layer"] | None = None,
    ) -> None:
        super().__init__(controller.in_dim, controller.n_layers, controller.hidden, gate or controller.gate)
        self.load_state_dict(controller.state_dict())
        self.strength, self.weights = strength, weights

    def forward(self, x: Float[Tensor, "batch in_dim"]) -> tuple[Tensor, Tensor]:
        s, w = super().forward(x)
        if self.strength is not None:
            s = torch.full_like(s, self.strength)
        if self.weights is not None:
            w = torch.as_tensor(self.weights).to(w).expand_as(w)
        return s, w


def fitted(
    model: Any, tokenizer: Any, prompts: Prompts, seed: int, direction: Tensor | None = None, **options: Any
) -> WeightedSteering:
    """A controller for the direction of the words of a refusal, or another one."""
    if direction is None:
        direction = words_of_refusal(model, tokenizer)
    return WeightedSteering.fit(
        model, tokenizer, prompts.positive, prompts.allowed, direction=direction, seed=seed, **options
    )


def words_of_refusal(model: Any, tokenizer: Any) -> Float[Tensor, " d_model"]:
    """From the embeddings of all values that are answers to those of the sentence of a refusal."""
    values = [value for several in VALUES.values() for value in several]
    return refusal_direction(model, tokenizer, refusing=[REFUSAL], answering=values)


def variants(model: Any, steering: WeightedSteering, trained: WeightedSteering) -> list[Condition]:
    """The controller at other gates and by other schedules, and the one that was trained through the model."""
    gates: Sequence[Gate] = ("relu", "raw", "hard")
    found = [Condition("WAS", steering), Condition("WAS, trained end to end", trained)]
    found += [
        Condition(f"WAS, {gate} gate", rebuilt(model, steering, Overruled(steering.controller, gate=gate)))
        for gate in gates
    ]
    found.append(
        Condition("WAS, previous step", rebuilt(model, steering, steering.controller, schedule="previous-step"))
    )
    last = steering.steered_layers[-1:]
    published = WeightedSteering.with_controller(
        model,
        of_last_layer(steering.controller),
        steering.directions[-1:],
        steering.norms[-1:],
        steered_layers=last,
        schedule="same-pass",
    )
    found.append(Condition(PUBLISHED, published))
    return found


def of_last_layer(controller: Controller) -> Controller:
    """The part that the published schedule uses: the raw strength, and the weight of the last layer."""
    only = Controller(controller.in_dim, 1, controller.hidden, "raw")
    state = {
        name: tensor[[0, -1]] if name.startswith("outer") else tensor
        for name, tensor in controller.state_dict().items()
    }
    only.load_state_dict(state)
    return only


def ablations(
    model: Any,
    tokenizer: Any,
    prompts: Prompts,
    steering: WeightedSteering,
    layer: int,
    seed: int,
    rng: np.random.Generator,
) -> list[Condition]:
    """Without w, without s, in one layer; along other directions; with a controller that learned nothing."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(layer), steering.controller.n_layers).float()
    shuffled = [str(text) for text in rng.permutation(np.array([*prompts.positive, *prompts.allowed], dtype=object))]
    by_chance = Prompts(shuffled[: len(prompts.positive)], [], shuffled[len(prompts.positive) :])
    activations = refusal_direction(model, tokenizer, "activations", refusing=prompts.plain, answering=prompts.allowed)
    random = torch.from_numpy(rng.standard_normal(steering.shape.d_model)).float()
    own = steering.controller
    return [
        Condition("all w at 0.5", rebuilt(model, steering, Overruled(own, weights=0.5))),
        Condition("w of one layer", rebuilt(model, steering, Overruled(own, weights=one_hot))),
        Condition("s at 1", rebuilt(model, steering, Overruled(own, strength=1.0))),
        Condition("direction of activations", rebuilt(model, steering, own, activations)),
        Condition("random direction", rebuilt(model, steering, own, random)),
        Condition("shuffled labels", fitted(model, tokenizer, by_chance, seed)),
    ]


def baselines(model: Any, steering: WeightedSteering, layer: int) -> list[Condition]:
    """Adding the same to every prompt, in all layers or in one."""
    return [uniform(model, steering), single(model, steering, layer)]


def uniform(model: Any, steering: WeightedSteering) -> Condition:
    """The direction at all layers, whatever the prompt."""
    return Condition(
        "added everywhere", rebuilt(model, steering, Overruled(steering.controller, strength=1.0, weights=1.0))
    )


def single(model: Any, steering: WeightedSteering, layer: int) -> Condition:
    """The direction at one layer, whatever the prompt."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(layer), steering.controller.n_layers).float()
    overruled = Overruled(steering.controller, strength=1.0, weights=one_hot)
    return Condition("added in one layer", rebuilt(model, steering, overruled))


def rebuilt(
    model: Any,
    steering: WeightedSteering,
    controller: Controller,
    direction: Tensor | None = None,
    **settings: Any,
) -> WeightedSteering:
    """The same steering with another controller, direction or schedule."""
    return WeightedSteering.with_controller(
        model, controller, steering.directions if direction is None else direction, steering.norms, **settings
    )
