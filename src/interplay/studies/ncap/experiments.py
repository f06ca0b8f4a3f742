"""The experiments of the study: before training, training, with parts cut, and in other bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from interplay.embodied.ncap import NCAPSwimmer, SwimEnv, transfer
from interplay.evidence import Measurement
from interplay.studies.ncap.swimming import (
    EPISODE_STEPS,
    EVALUATION,
    INITIAL,
    Array,
    Circuit,
    Controller,
    Perceptron,
    Search,
    Swimmers,
    evaluate,
    stream,
    swim,
    torch_stream,
    train,
)

CIRCUITS: Mapping[str, Mapping[str, Any]] = {
    "constant": {},
    "uniform": {"init": "uniform"},
    "unsigned constant": {"sign_constraints": False},
    "unsigned uniform": {"sign_constraints": False, "init": "uniform"},
    "unshared": {"share_weights": False},
}
"""Circuits that are trained: 111, 110, 101, 100 and 011 in the published bits for sharing, signs, constant weights."""

GOAL = 800.0
PARTS = {"oscillator": "oscillator", "stretch feedback": "proprioception"}


class Plan(NamedTuple):
    """What the experiments of a trial share."""

    links: int
    hidden: tuple[int, ...]
    normalise: bool
    episode: int
    evaluation_steps: int
    evaluation_episodes: int
    evaluate_every: int
    circuit: Search
    network: Search

    @property
    def joints(self) -> int:
        return self.links - 1

    def widths(self, hidden: tuple[int, ...]) -> tuple[int, ...]:
        """Layers of a network from the whole observation to the torques."""
        return (self.joints + 3 * self.links, *hidden, self.joints)

    def controller(self, condition: str, seed: int, draw: int = 0) -> Controller:
        """An untrained controller; each draw has weights of its own, the same for all circuits of a kind."""
        if condition == "network":
            return Perceptron(self.widths(self.hidden), stream(seed, INITIAL, draw), normalised=self.normalise)
        return Circuit(self.joints, torch_stream(seed, draw), **CIRCUITS[condition])

    def swimmers(self, links: int | None = None) -> Swimmers:
        """Those of evaluations."""
        return Swimmers(self.evaluation_episodes, self.evaluation_steps, n_links=links or self.links)


def parameter_counts(plan: Plan, wide: tuple[int, ...]) -> Iterator[Measurement]:
    """How many numbers each controller learns."""
    for condition in CIRCUITS:
        yield Measurement(condition, "parameters", plan.controller(condition, 0).initial.size)
    for condition, hidden in (("network", plan.hidden), ("wide network", wide)):
        yield Measurement(condition, "parameters", Perceptron(plan.widths(hidden), stream(0)).initial.size)


def untrained(plan: Plan, seed: int, draws: int) -> Iterator[Measurement]:
    """Returns before training: circuits, networks, random torques. Constant weights need no second draw."""
    swimmers = plan.swimmers()
    for condition in (*CIRCUITS, "network"):
        for draw in range(1 if condition in ("constant", "unshared") else draws):
            controller = plan.controller(condition, seed, draw)
            value = evaluate(controller.act(controller.initial[None]), swimmers, seed)
            yield Measurement(condition, "untrained return", value, item=f"draw {draw}")
    torques = stream(seed, INITIAL)
    value = evaluate(lambda rows, step: torques.uniform(-1, 1, (len(rows), plan.joints)), swimmers, seed)
    yield Measurement("random torques", "untrained return", value, item="draw 0")


def trained(plan: Plan, seed: int, condition: str) -> tuple[list[Measurement], Array]:
    """A learning curve, what follows from it, and the parameters at the end.

    A controller that does not reach the goal counts as if it had taken the network's whole budget.
    """
    search = plan.network if condition == "network" else plan.circuit
    parameters, curve = train(
        plan.controller(condition, seed),
        search,
        seed,
        episode=plan.episode,
        every=plan.evaluate_every,
        swimmers=plan.swimmers(),
    )
    reached = next((point.steps for point in curve if point.mean_return >= GOAL), None)
    rows = [Measurement(condition, "mean return", point.mean_return, step=point.steps) for point in curve]
    rows += [
        Measurement(condition, "final return", curve[-1].mean_return),
        Measurement(condition, "reaches 800", float(reached is not None)),
        Measurement(condition, "at 800 untrained", float(reached == 0)),
        Measurement(condition, "steps to 800", plan.network.budget if reached is None else reached),
    ]
    return rows, parameters


def without_parts(plan: Plan, seed: int, parameters: Mapping[str, Array]) -> Iterator[Measurement]:
    """Returns of circuits, before and after training, whose oscillator or stretch feedback is cut."""
    swimmers = plan.swimmers()
    for when in ("untrained", "trained"):
        controller = plan.controller("constant", seed)
        weights = controller.initial if when == "untrained" else parameters["constant"]
        circuit = controller.numpy.with_parameters(weights)
        for name, synapse in PARTS.items():
            value = evaluate(swim(circuit.without(synapse)), swimmers, seed)
            yield Measurement(f"{when}, without {name}", "return without a part", value)
        yield Measurement(f"{when}, whole", "return without a part", evaluate(swim(circuit), swimmers, seed))


def other_bodies(
    plan: Plan, seed: int, parameters: Array, shorter: tuple[int, ...], longer: tuple[int, ...]
) -> Iterator[Measurement]:
    """Returns of the same weights in bodies with other numbers of links."""
    module = loaded(NCAPSwimmer(plan.joints), parameters)
    for name, bodies in (("shorter bodies", shorter), ("own body", (plan.links,)), ("longer bodies", longer)):
        for links in bodies:
            circuit = transfer(module, links - 1).numpy()
            value = evaluate(swim(circuit), plan.swimmers(links), seed)
            yield Measurement(name, "return in a body", value, x=links)


def portrait(plan: Plan, seed: int, parameters: Array) -> Iterator[Measurement]:
    """Weights of a trained circuit and what body and circuit do in some seconds of swimming."""
    module = loaded(NCAPSwimmer(plan.joints), parameters)
    for synapse, weight in module.weights().items():
        yield Measurement("portrait", "weight", weight.item(), item=synapse)
    settle, shown, apart = 120, 150, 15
    env = SwimEnv(plan.links)
    observation, _ = env.reset(seed=int(stream(seed, EVALUATION).integers(2**31)))
    for step in range(settle + shown):
        joints = torch.from_numpy(observation[: plan.joints] / env.body.model.joint_limit)
        activity = module.explain(joints, timestep=step)
        time = step - settle
        if time >= 0:
            yield from _moment(time, joints, activity)
            if time % apart == 0:
                for point, (x, y) in enumerate(env.body.outline()):
                    yield Measurement("portrait", "x / m", x, step=time, x=point)
                    yield Measurement("portrait", "y / m", y, step=time, x=point)
        observation, *_ = env.step(activity["torque"].numpy(force=True))


def _moment(time: int, joints: torch.Tensor, activity: Mapping[str, torch.Tensor]) -> Iterator[Measurement]:
    for joint, angle in enumerate(joints.tolist()):
        yield Measurement("portrait", "joint angle / limit", angle, step=time, x=joint)
    for part in ("b_neuron", "muscle"):
        for side, values in zip(("dorsal", "ventral"), activity[part].tolist(), strict=True):
            for joint, value in enumerate(values):
                yield Measurement("portrait", part, value, step=time, x=joint, item=side)


def loaded(module: NCAPSwimmer, parameters: Array) -> NCAPSwimmer:
    """The circuit with these parameters, in double precision."""
    module = module.double()
    nn.utils.vector_to_parameters(torch.from_numpy(np.array(parameters)), module.parameters())
    return module


__all__ = [
    "CIRCUITS",
    "EPISODE_STEPS",
    "GOAL",
    "PARTS",
    "Plan",
    "loaded",
    "other_bodies",
    "parameter_counts",
    "portrait",
    "trained",
    "untrained",
    "without_parts",
]
