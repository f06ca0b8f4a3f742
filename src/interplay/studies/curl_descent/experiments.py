"""The experiments of the study: stability on a grid, linear networks past the edge, the race of nonlinear ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from interplay.dynamics.curl_descent import (
    LearningRule,
    Run,
    TwoLayerTeacherStudent,
    critical_fraction_readout_flips,
    critical_ratio_input_flips,
    curl_fraction,
    flip_plan,
    gaussian_inputs,
    is_stable,
    lyapunov_exponent,
    simulate,
    stability_matrix,
)
from interplay.dynamics.curl_descent.theory import FlippedLayer
from interplay.evidence import Measurement

LAYERS: dict[FlippedLayer, str] = {"input": "input flips", "readout": "readout flips"}
# Streams of randomness within a seed.
EIGENVALUES, GRID, LINEAR, RACE, CURL = range(5)
RESOLUTION = 1e-24
"""Losses and order parameters below are rounding: relative errors of 1e-12 in double precision."""
MARGIN = 1.15
"""Cells nearer to the curve than this factor do not count: in c for flipped inputs, in f for flipped hidden units."""


@dataclass(frozen=True)
class Points:
    """How networks see their inputs: number of points (0: the limit of many), minibatch (0: all), lr of a pass."""

    number: int
    batch: int
    lr: float

    def draw(self, inputs: int, generator: torch.Generator) -> Tensor | float:
        return gaussian_inputs(self.number, inputs, generator=generator) if self.number else 0.5

    def train(
        self, network: TwoLayerTeacherStudent, x: Tensor | float, steps: int, rule: LearningRule, **options: object
    ) -> Run:
        lr = self.lr * self.batch / self.number if self.batch else self.lr
        rule = replace(rule, lr=lr)
        return simulate(network, x, steps, rule, batch_size=self.batch or None, **options)  # type: ignore[arg-type]


def generator_of(seed: int, *stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, *stream]).generate_state(1)[0]))


def size_of(neurons: int, ratio: float) -> tuple[int, int]:
    """Inputs and hidden units whose sum is given and whose ratio is nearest to what is asked for."""
    inputs = min(max(round(neurons * ratio / (1 + ratio)), 1), neurons - 1)
    return inputs, neurons - inputs


def gains_of(neurons: int, fractions: Sequence[float], gain: float = -1.0) -> Tensor:
    """Rows of gains, the first so many of each row's neurons flipped; weights are drawn alike, so any will do."""
    counts = torch.tensor([round(fraction * neurons) for fraction in fractions])
    return torch.where(torch.arange(neurons) < counts[:, None], gain, 1.0).double()


def both_gains(layer: FlippedLayer, inputs: int, hidden: int, fractions: Sequence[float]) -> tuple[Tensor, Tensor]:
    none = [0.0] * len(fractions)
    return (
        gains_of(inputs, fractions if layer == "input" else none),
        gains_of(hidden, fractions if layer == "readout" else none),
    )


def beyond_the_curve(layer: FlippedLayer, ratio: float, fraction: float) -> float:
    """Distance from the predicted edge as a logarithm: positive on the unstable side."""
    if fraction == 0:
        return -np.inf
    if layer == "input":
        return float(np.log(ratio / critical_ratio_input_flips(fraction)))
    return float(np.log(fraction / critical_fraction_readout_flips(ratio)))


def stability_on_a_grid(
    seed: int,
    layer: FlippedLayer,
    ratios: Sequence[float],
    fractions: Sequence[float],
    *,
    eigenvalue_neurons: int,
    neurons: int,
    points: Points,
    steps: int,
) -> Iterator[Measurement]:
    """Is the manifold stable: by theory, by the matrix of large random networks, and by training from the teacher?"""
    condition = LAYERS[layer]
    by_matrix, by_training, by_own_matrix = [], [], []
    for column, ratio in enumerate(ratios):
        inputs, hidden = size_of(eigenvalue_neurons, ratio)
        gains = both_gains(layer, inputs, hidden, fractions)
        generator = generator_of(seed, EIGENVALUES, layer == "input", column)
        network = TwoLayerTeacherStudent.draw(inputs, hidden, batch=len(fractions), generator=generator)
        stable = is_stable(network.teacher_weight1, network.teacher_weight2, *gains).tolist()
        flipped = (gains[layer == "readout"] < 0).double().mean(1).tolist()
        for nominal, fraction, outcome in zip(fractions, flipped, stable, strict=True):
            distance = beyond_the_curve(layer, inputs / hidden, fraction)
            if abs(distance) > np.log(MARGIN):
                by_matrix.append(outcome == (distance < 0))
            yield Measurement(condition, "stable by eigenvalues", outcome, x=ratio, item=f"{nominal:.4f}")

        inputs, hidden = size_of(neurons, ratio)
        gains = both_gains(layer, inputs, hidden, fractions)
        generator = generator_of(seed, GRID, layer == "input", column)
        network = TwoLayerTeacherStudent.draw(inputs, hidden, batch=len(fractions), generator=generator).at_teacher()
        predicted = is_stable(network.teacher_weight1, network.teacher_weight2, *gains).tolist()
        stays = stays_on_the_manifold(network, points, generator, gains, steps).tolist()
        flipped = (gains[layer == "readout"] < 0).double().mean(1).tolist()
        for nominal, fraction, outcome, own in zip(fractions, flipped, stays, predicted, strict=True):
            distance = beyond_the_curve(layer, inputs / hidden, fraction)
            if abs(distance) > np.log(MARGIN):
                by_training.append(outcome == (distance < 0))
                by_own_matrix.append(outcome == own)
            yield Measurement(condition, "stable by training", outcome, x=ratio, item=f"{nominal:.4f}")
    yield Measurement(condition, "agreement of eigenvalues with theory", float(np.mean(by_matrix)))
    yield Measurement(condition, "agreement of training with theory", float(np.mean(by_training)))
    yield Measurement(condition, "agreement of training with own eigenvalues", float(np.mean(by_own_matrix)))


def stays_on_the_manifold(
    network: TwoLayerTeacherStudent,
    points: Points,
    generator: torch.Generator,
    gains: tuple[Tensor, Tensor],
    steps: int,
    stretch: int = 250,
) -> Tensor:
    """Whether small errors die out. Networks leave the batch once decided: error grown tenfold, or shrunk a
    thousandfold.

    What is undecided at the end is judged by whether the loss still fell in the last stretch.
    """
    x = points.draw(network.inputs, generator)
    stays = torch.zeros(len(gains[0]), dtype=torch.bool)
    undecided = torch.arange(len(gains[0]))
    start = None
    for _ in range(max(steps // stretch, 1)):
        rule = LearningRule(gains1=gains[0][undecided], gains2=gains[1][undecided])
        loss = points.train(network, x, stretch, rule, generator=generator).loss
        start = loss[0] if start is None else start
        grown, shrunk = (loss > 100 * start).any(0), loss[-1] < 1e-6 * start
        stays[undecided] = ~grown & (shrunk | (loss[-1] < loss[0]))
        keep = ~(grown | shrunk)
        if not keep.any():
            break
        undecided, start, network = undecided[keep], start[keep], network.select(keep)
    return stays


def linear_networks(
    seed: int, neurons: int, points: Points, steps: int, lyapunov_steps: int, window: int
) -> Iterator[Measurement]:
    """From random weights below (c = 0.2) and past the edge (c = 1): loss, order parameter, Lyapunov exponent."""
    for ratio, conditions in (
        (0.2, {"GD": (0.0, 0.0), "input flips": (0.5, 0.0), "readout flips": (0.0, 0.1)}),
        (1.0, {"GD": (0.0, 0.0), "input flips": (0.3, 0.0), "readout flips": (0.0, 0.3), "frozen inputs": (0.3, 0.0)}),
    ):
        generator = generator_of(seed, LINEAR, round(10 * ratio))
        inputs, hidden = size_of(neurons, ratio)
        names = [f"{name}, c = {ratio:g}" for name in conditions]
        network = TwoLayerTeacherStudent.draw(inputs, hidden, batch=len(names), generator=generator, shared=True)
        gains1 = gains_of(inputs, [first for first, _ in conditions.values()])
        gains2 = gains_of(hidden, [second for _, second in conditions.values()])
        if "frozen inputs" in conditions:
            gains1[-1].clamp_(min=0)
        x = points.draw(inputs, generator)
        rule = LearningRule(gains1=gains1, gains2=gains2)
        run = points.train(network, x, steps, rule, generator=generator, window=window)
        final = run.loss[-1].clamp(min=RESOLUTION)
        late = run.loss[-window:].mean(0)
        rule = replace(rule, lr=points.lr)
        exponents = lyapunov_exponent(network, x, lyapunov_steps, rule, generator=generator)
        for index, name in enumerate(names):
            yield Measurement(name, "final loss", final[index].item())
            yield Measurement(name, "final loss above 1e-8", final[index].item() > 1e-8)
            yield Measurement(name, "final loss above 1e3 times GD's", (final[index] > 1e3 * final[0]).item())
            yield Measurement(name, "late loss", late[index].clamp(min=RESOLUTION).item())
            yield Measurement(name, "late loss below 1e-3", (late[index] <= 1e-3).item())
            yield Measurement(name, "order parameter", run.order_parameter[index].clamp(min=RESOLUTION).item())
            yield Measurement(name, "Lyapunov exponent / step^-1", exponents[index].item())
            yield from curve(name, "loss", run.loss[:, index])


def from_an_unstable_teacher(
    seed: int, neurons: int, ratio: float, fractions: Sequence[float], points: Points, steps: int
) -> Iterator[Measurement]:
    """Flips of either layer at a solution that they make unstable: does the loss climb, and does it come back?"""
    inputs, hidden = size_of(neurons, ratio)
    generator = generator_of(seed, LINEAR, 40)
    cells = [(name, layer, fraction) for layer, name in LAYERS.items() for fraction in fractions]
    labels = [(f"{name}, c = {ratio:g}", f"f = {fraction:g}") for name, _, fraction in cells]
    network = TwoLayerTeacherStudent.draw(inputs, hidden, batch=len(cells), generator=generator).at_teacher()
    x = points.draw(inputs, generator)
    gains1 = gains_of(inputs, [fraction if layer == "input" else 0.0 for _, layer, fraction in cells])
    gains2 = gains_of(hidden, [fraction if layer == "readout" else 0.0 for _, layer, fraction in cells])
    rule = LearningRule(gains1=gains1, gains2=gains2)
    stops = [0, *np.unique(np.geomspace(20, steps, 16).astype(int)).tolist()]
    losses = []
    for start, stop in zip(stops, [*stops[1:], None], strict=True):
        matrix = stability_matrix(network.weight1.detach(), network.weight2.detach(), gains1, gains2)
        for (condition, item), smallest in zip(labels, torch.linalg.eigvalsh(matrix)[:, 0].tolist(), strict=True):
            yield Measurement(condition, "smallest eigenvalue", smallest, step=start, item=item)
        if stop is not None:
            losses.append(points.train(network, x, stop - start, rule, generator=generator).loss[:-1])
    loss = torch.cat(losses)
    for index, (condition, item) in enumerate(labels):
        peak = (loss[:, index].max() / loss[0, index]).log10().item()
        final = loss[-1, index].clamp(min=RESOLUTION).log10().item()
        yield Measurement(condition, "log10 of peak / start, from the teacher", peak, item=item)
        yield Measurement(condition, "log10 of final loss, from the teacher", final, item=item)
        yield from curve(condition, "loss from the teacher", loss[:, index], item)


@dataclass(frozen=True)
class Race:
    """Tanh networks that learn from random weights until the loss is below a level; `draw` numbers those of a seed."""

    seed: int
    inputs: int
    hidden: int
    points: int
    lr: float
    horizon: int
    level: float = 1e-3
    draw: int = 0

    def run(
        self,
        scales: Sequence[float],
        flipped: Sequence[int],
        *,
        points: int | None = None,
        frozen: Sequence[bool] = (),
        noisy: Sequence[bool] = (),
        random_feedback: bool = False,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    ) -> Run:
        """One network a scale: all start from one draw of teacher, student and points, scaled."""
        generator = generator_of(self.seed, RACE, self.draw)
        count = len(scales)
        network = TwoLayerTeacherStudent.draw(
            self.inputs,
            self.hidden,
            batch=count,
            scale=torch.tensor(scales, dtype=torch.float64),
            generator=generator,
            shared=True,
            nonlinearity="tanh",
        )
        feedback = (torch.rand(1, self.hidden, 1, generator=generator, dtype=torch.float64) * 2 - 1) / self.hidden**0.5
        test = gaussian_inputs(100, self.inputs, generator=generator)
        x = gaussian_inputs(points or self.points, self.inputs, generator=generator)
        gains = gains_of(self.hidden, [number / self.hidden for number in flipped])
        for row, still in zip(gains, frozen, strict=False):
            row.clamp_(min=0.0 if still else -1.0)
        rule = LearningRule(
            lr=self.lr,
            gains2=gains,
            feedback=feedback.expand(count, -1, -1) if random_feedback else None,
            noisy=torch.tensor(noisy) if any(noisy) else None,
            optimizer=optimizer,
        )
        return simulate(
            network,
            x,
            self.horizon,
            rule,
            generator=generator,
            test_inputs=test,
            test_every=self.horizon,
            stop_below=self.level,
        )

    def report(self, names: Sequence[str], run: Run, what: str, x: Sequence[float]) -> Iterator[Measurement]:
        """Steps to the level of each network, the horizon if it was not reached."""
        for name, steps, value in zip(names, run.steps_to(self.level, self.horizon).tolist(), x, strict=True):
            yield Measurement(name, what, steps, x=value, item=f"draw {self.draw}")


STEPS = "steps to 0.001"
BY_NUMBER, BY_POINTS = f"{STEPS} by flipped neurons", f"{STEPS} by points"
RULES = ("GD", "curl", "frozen", "noise")


def race(
    track: Race, scales: Sequence[float], main: float, adam_rates: Sequence[float], draws: int
) -> Iterator[Measurement]:
    """Steps to the level with and without one flipped neuron, at all scales, and the controls at the main one."""
    if others := [scale for scale in scales if scale != main]:
        pairs = [scale for scale in others for _ in range(2)]
        run = track.run(pairs, [0, 1] * len(others))
        yield from track.report(["GD", "curl"] * len(others), run, STEPS, pairs)
    frozen, noisy = [[name == kind for name in RULES] for kind in ("frozen", "noise")]
    for draw in range(draws):
        again = replace(track, draw=draw)
        run = again.run([main] * 4, [0, 1, 1, 1], frozen=frozen, noisy=noisy)
        yield from again.report(RULES, run, STEPS, [main] * 4)
        if draw == 0:
            for index, name in enumerate(RULES):
                yield from curve(name, "loss of the race", run.loss[:, index])
            # the first entries of the sweeps
            yield from again.report(RULES[:2], first_two(run), BY_NUMBER, [0, 1])
            yield from again.report(RULES[:2], first_two(run), BY_POINTS, [track.points] * 2)
    run = track.run([main] * 2, [0, 1], random_feedback=True)
    yield from track.report(["DFA", "DFA, flipped"], run, STEPS, [main] * 2)
    for rate in adam_rates:
        run = track.run([main], [0], optimizer=lambda weights, rate=rate: torch.optim.Adam(weights, lr=rate))
        yield from track.report([f"Adam, {rate:g}"], run, STEPS, [main])


def sweeps(track: Race, main: float, numbers: Sequence[int], points: Sequence[int]) -> Iterator[Measurement]:
    """The same start with more flipped neurons, and the same networks with fewer or more points."""
    run = track.run([main] * len(numbers), numbers)
    yield from track.report(["curl"] * len(numbers), run, BY_NUMBER, numbers)
    for size in points:
        run = track.run([main] * 2, [0, 1], points=size)
        yield from track.report(["GD", "curl"], run, BY_POINTS, [size] * 2)


def first_two(run: Run) -> Run:
    return replace(run, loss=run.loss[:, :2])


def curl_of_the_field(seed: int, inputs: int, hidden: int, probes: int) -> Iterator[Measurement]:
    """Antisymmetric share of the update field's Jacobian at random weights, linear and tanh."""
    for name, phi in (("linear", nn.Identity()), ("tanh", nn.Tanh())):
        generator = generator_of(seed, CURL)
        draw = TwoLayerTeacherStudent.draw(inputs, hidden, generator=generator)
        model = nn.Sequential(nn.Linear(inputs, hidden, bias=False), phi, nn.Linear(hidden, 1, bias=False), phi)
        model = model.double()
        with torch.no_grad():
            model[0].weight.copy_(draw.weight1[0])
            model[2].weight.copy_(draw.weight2[0])
        x = gaussian_inputs(4 * inputs, inputs, generator=generator)
        batch = x, draw.targets(x)[0]
        for condition, flips in {
            "GD": {},
            "input flips": {"0": 0.3},
            "readout flips": {"2": 0.3},
            "both flipped": {"0": 0.3, "2": 0.3},
        }.items():
            plan = flip_plan(model, flips, generator=generator)
            share = curl_fraction(model, nn.functional.mse_loss, batch, plan, probes=probes, generator=generator)
            yield Measurement(condition, "curl fraction", share, item=name)


def curve(condition: str, metric: str, loss: Tensor, item: str | None = None) -> Iterator[Measurement]:
    """About eighty points of a loss curve, evenly spaced in the logarithm of the step."""
    for step in np.unique(np.geomspace(1, len(loss), 80).astype(int) - 1).tolist():
        yield Measurement(condition, metric, max(loss[step].item(), RESOLUTION), step=step, item=item)
