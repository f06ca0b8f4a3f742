"""Controllers of swimmers as flat parameter vectors, their training by evolution, and their returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from interplay.embodied.ncap import EvolutionStrategy, NCAPSwimmer, SwimVecEnv
from interplay.embodied.ncap.body import CONTROL_STEP
from interplay.embodied.ncap.numpy_circuit import NumPyCircuit
from interplay.primitives.randomness import generator_of

Array = NDArray[np.float64]
Act = Callable[[Array, int], Array]

INITIAL, SEARCH, POSES, EVALUATION = range(4)
EPISODE_STEPS = 1000


class Controller(Protocol):
    """A controller whose parameters are a flat vector."""

    initial: Array

    def act(self, parameters: Array) -> Act:
        """For parameters of a population, (member, parameter): observations (member, entry) and the step to torques."""
        ...

    def watch(self, observations: Array) -> None:
        """See what came up in training."""
        ...


class Circuit:
    """NCAP as a controller."""

    def __init__(self, n_joints: int, generator: torch.Generator, **settings: Any) -> None:
        self.module = NCAPSwimmer(n_joints, generator=generator, **settings)
        self.numpy: NumPyCircuit = self.module.numpy()
        self.initial: Array = self.numpy.parameters

    def act(self, parameters: Array) -> Act:
        return swim(self.numpy.with_parameters(parameters))

    def watch(self, observations: Array) -> None:
        """The circuit normalises by the joints' limits alone."""


def swim(circuit: NumPyCircuit) -> Act:
    """Drive swimmers with a circuit, that of each row or one for all."""
    joints, limit = circuit.n_joints, 2 * math.pi / (circuit.n_joints + 1)
    return lambda observations, step: circuit(observations[:, :joints] / limit, step)


@dataclass
class Perceptron:
    """A tanh network from the whole observation to torques, normalised by what training has seen.

    Parameters
    ----------
    widths
        Inputs, hidden units, outputs.
    generator
        Draws the weights as PyTorch's linear layers do.
    normalised
        Whether observations are divided by their running standard deviation after their running mean is taken off.
    """

    widths: tuple[int, ...]
    generator: np.random.Generator
    normalised: bool = True
    initial: Array = field(init=False)

    def __post_init__(self) -> None:
        parts = []
        for inputs, outputs in zip(self.widths, self.widths[1:], strict=False):
            parts += [self.generator.uniform(-1, 1, outputs * (inputs + 1)) / math.sqrt(inputs)]
        self.initial = np.concatenate(parts)
        self._seen, self._mean, self._squares = 0, np.zeros(self.widths[0]), np.ones(self.widths[0])

    def act(self, parameters: Array) -> Act:
        layers, start = [], 0
        for inputs, outputs in zip(self.widths, self.widths[1:], strict=False):
            weight = parameters[:, start : start + inputs * outputs].reshape(-1, outputs, inputs)
            bias = parameters[:, start + inputs * outputs : start + (inputs + 1) * outputs]
            layers.append((np.ascontiguousarray(weight), bias[..., None]))
            start += (inputs + 1) * outputs
        mean, scale = self._mean, np.ones_like(self._mean)
        if self.normalised and self._seen:
            scale = np.sqrt(np.maximum(self._squares - mean**2, 1e-8))

        def network(observations: Array, step: int) -> Array:
            activity = ((observations - mean) / scale)[..., None]
            for index, (weight, bias) in enumerate(layers):
                activity = weight @ activity + bias
                if index < len(layers) - 1:
                    activity = np.tanh(activity)
            return np.clip(activity[..., 0], -1, 1)

        return network

    def watch(self, observations: Array) -> None:
        if not self.normalised:
            return
        self._seen += len(observations)
        share = len(observations) / self._seen
        self._mean = self._mean + share * (observations.mean(0) - self._mean)
        self._squares = self._squares + share * ((observations**2).mean(0) - self._squares)


class Swimmers:
    """Some swimmers whose episodes last so many steps and begin together."""

    def __init__(self, number: int, steps: int = EPISODE_STEPS, *, n_links: int = 6) -> None:
        self.steps = steps
        self.number = number
        self._envs = SwimVecEnv(
            number,
            n_links=n_links,
            time_limit=steps * CONTROL_STEP,
            threads=1,
            autoreset_mode=AutoresetMode.DISABLED,
        )

    def returns(self, act: Act, generator: np.random.Generator, watch: Callable[[Array], None] | None = None) -> Array:
        """Sum of rewards over an episode from poses that the generator draws."""
        observations, _ = self._envs.reset(seed=generator.integers(2**31, size=self.number).tolist())
        total = np.zeros(self.number)
        seen = []
        for step in range(self.steps):
            observations, rewards, *_ = self._envs.step(act(observations, step))
            total += rewards
            if watch is not None and step % 5 == 0:
                seen.append(observations)
        if watch is not None:
            watch(np.concatenate(seen))
        return total


def stream(seed: int, *purpose: int) -> np.random.Generator:
    """NumPy's counterpart of `generator_of`."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def evaluate(act: Act, swimmers: Swimmers, seed: int) -> float:
    """Mean return over full episodes; the same seed gives every controller the same poses."""
    returns = swimmers.returns(act, stream(seed, EVALUATION))
    return float(returns.mean()) * EPISODE_STEPS / swimmers.steps


class Search(NamedTuple):
    """Settings of the evolution strategy, and environment steps that it may take."""

    population: int
    sigma: float
    lr: float
    budget: int


class Point(NamedTuple):
    """A point of a learning curve: environment steps of training so far, mean return of full episodes."""

    steps: int
    mean_return: float


def train(
    controller: Controller,
    search: Search,
    seed: int,
    *,
    episode: int,
    every: int,
    swimmers: Swimmers,
) -> tuple[Array, list[Point]]:
    """Evolve a controller for `search.budget` environment steps.

    Parameters
    ----------
    controller, search, seed
        What to train, how, and the seed of perturbations and poses.
    episode, every
        Environment steps of a training episode, and of training between evaluations.
    swimmers
        Those of evaluations.

    Returns
    -------
    parameters
        At the end.
    curve
        Evaluations, the first before training.
    """
    strategy = EvolutionStrategy(
        controller.initial,
        generator=stream(seed, SEARCH),
        population=search.population,
        sigma=search.sigma,
        lr=search.lr,
    )
    poses = stream(seed, POSES)
    population = Swimmers(search.population, episode)
    a_generation = search.population * episode
    curve = [Point(0, evaluate(controller.act(strategy.parameters[None]), swimmers, seed))]
    done = 0
    while done < search.budget:
        act = controller.act(strategy.ask())
        strategy.tell(population.returns(act, poses, controller.watch))
        done += a_generation
        if done // every > (done - a_generation) // every or done >= search.budget:
            curve.append(Point(done, evaluate(controller.act(strategy.parameters[None]), swimmers, seed)))
    return strategy.parameters, curve


def torch_stream(seed: int, *purpose: int) -> torch.Generator:
    """The generator of initial weights of circuits."""
    return generator_of(seed, INITIAL, *purpose)
