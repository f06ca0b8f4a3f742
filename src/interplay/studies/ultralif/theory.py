"""What the paper proves, measured: distance from the hard max-plus neuron, gradients, and where gradients vanish."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from interplay.evidence import Measurement
from interplay.primitives.neurons import SpikingNeuron
from interplay.spiking.ultralif import (
    SpikingClassifier,
    UltraDLIF,
    UltraLIF,
    error_bound,
    hard_maximum,
    soft_maximum_of_two,
    steepest_spike,
)

Neuron = Callable[[int], SpikingNeuron]

DECAY = 0.9
TEMPERATURES = (1.0, 0.3, 0.1, 0.03, 0.01)
STEPS = 10
UNITS = 20_000
DIFFERENCE = 1e-5  # step of the central differences, float64
MARGIN = 10  # in temperatures: closer to the threshold, a graded spike need not be near a hard one


def limit(generator: torch.Generator) -> Iterator[Measurement]:
    """Largest distances of membrane and spikes from the limit of temperature zero, on normal currents."""
    current = torch.randn(STEPS, 1, UNITS, generator=generator, dtype=torch.float64)
    ring = torch.randn(STEPS * UNITS // 100, 100, generator=generator, dtype=torch.float64)
    for name, errors in (("UltraLIF", temporal_errors(current)), ("UltraDLIF", ring_errors(ring))):
        for eps, (error, bound) in errors.items():
            yield Measurement(name, "largest membrane error", error, x=eps)
            yield Measurement(name, "bound of the membrane error", bound, x=eps)
        logs = np.log([[eps, error] for eps, (error, _) in errors.items()])
        yield Measurement(name, "slope of the membrane error", float(np.polyfit(*logs.T, 1)[0]))
        worst = max(error / bound for error, bound in errors.values())
        yield Measurement(name, "membrane error beyond its bound", max(0.0, worst - 1))
    yield Measurement("UltraLIF", "spike error beyond its bound", max(0.0, spike_error(current) - 1))


def temporal_errors(current: Tensor) -> dict[float, tuple[float, float]]:
    """Error and bound for each temperature: the worst over units and steps, errors adding up along the course."""
    hard, _ = hard_course(current)
    bound = {eps: error_bound(2, eps, STEPS, reset=True) for eps in TEMPERATURES}
    return {eps: (float((soft_course(current, eps)[0] - hard).abs().max()), bound[eps]) for eps in TEMPERATURES}


def ring_errors(potential: Tensor) -> dict[float, tuple[float, float]]:
    """The same for the coupling along a ring, one step from a common state."""
    hard = hard_maximum(torch.stack((potential.roll(1, -1), potential, potential.roll(-1, -1))), 0)
    errors = {}
    for eps in TEMPERATURES:
        neuron = UltraDLIF(potential.shape[-1], DECAY, eps, learn_eps=False)
        errors[eps] = float((neuron.coupled(potential) - hard).abs().max()), error_bound(3, eps)
    return errors


def spike_error(current: Tensor) -> float:
    """Worst ratio to its bound of the distance between graded and hard spikes, away from the threshold."""
    hard, hard_spikes = hard_course(current)
    ratios = []
    for eps in TEMPERATURES:
        _, spikes = soft_course(current, eps)
        # What is left of the margin after the membrane's own error bounds the sigmoid.
        steps = torch.arange(1, STEPS + 1, dtype=torch.float64).view(-1, 1, 1)
        shift = torch.tensor([error_bound(2, eps, int(step), reset=True) for step in steps.flatten()]).view(-1, 1, 1)
        sure = hard.abs() - shift >= MARGIN * eps
        bound = torch.sigmoid(-(hard.abs() - shift) / eps)
        if sure.any():
            ratios.append(float(((spikes - hard_spikes).abs() / bound)[sure].max()))
    return max(ratios)


def hard_course(current: Tensor) -> tuple[Tensor, Tensor]:
    """Membrane (before the reset) and spikes of the max-plus neuron at temperature zero."""
    potential, membrane = torch.zeros_like(current[0]), []
    for now in current:
        potential = torch.maximum(potential + math.log(DECAY), now)
        membrane.append(potential)
        potential = torch.where(potential >= 0, 0.0, potential)
    return torch.stack(membrane), (torch.stack(membrane) >= 0).double()


def soft_course(current: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The same of UltraLIF."""
    neuron, state, membrane, spikes = UltraLIF(DECAY, eps, learn_eps=False), torch.zeros_like(current[0]), [], []
    for now in current:
        membrane.append(soft_maximum_of_two(state + math.log(DECAY), now, eps))
        fired, state = neuron(now, state)
        spikes.append(fired)
    return torch.stack(membrane), torch.stack(spikes)


def gradients(neurons: Mapping[str, Neuron], generator: torch.Generator) -> Iterator[Measurement]:
    """Gradients through ten steps of two layers against central differences, and the steepest slope of the spike."""
    x = torch.randn(STEPS, 2, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (2,), generator=generator)
    for name, make in neurons.items():
        network = _seeded_network(4, (5, 5), 3, make, generator).double()
        yield Measurement(name, "relative error of the gradient", gradient_error(network, x, labels))
    potential = torch.randn(UNITS, generator=generator, dtype=torch.float64)
    for eps in (0.1, *TEMPERATURES[:2], 5.0, 20.0):
        at = (eps * potential).requires_grad_()
        (slope,) = torch.autograd.grad(UltraLIF(eps=eps, learn_eps=False).graded(at).sum(), at)
        beyond = max(0.0, float(slope.max()) / steepest_spike(eps) - 1)
        yield Measurement("UltraLIF", "slope of the spike beyond its bound", beyond, x=eps)


def gradient_error(network: SpikingClassifier, x: Tensor, labels: Tensor) -> float:
    """Length of the difference between the gradient and central differences, relative to the latter's."""
    x = x.clone().requires_grad_()
    leaves = [x, *network.parameters()]
    exact = torch.autograd.grad(functional.cross_entropy(network(x), labels), leaves)
    measured = []
    with torch.no_grad():
        for leaf in leaves:
            flat = leaf.view(-1)
            for at in range(flat.numel()):
                kept, losses = flat[at].item(), []
                for shift in (DIFFERENCE, -DIFFERENCE):
                    flat[at] = kept + shift
                    losses.append(functional.cross_entropy(network(x), labels).item())
                flat[at] = kept
                measured.append((losses[0] - losses[1]) / (2 * DIFFERENCE))
    differences = torch.tensor(measured, dtype=torch.float64)
    gradient = torch.cat([part.flatten() for part in exact])
    return float((gradient - differences).norm() / differences.norm())


def vanishing(
    neurons: Mapping[str, Neuron],
    counts: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    layers: int = 6,
) -> Iterator[Measurement]:
    """Share of units, by layer, whose current gets a gradient of exactly zero on every sample, before training."""
    classes = 1 + int(labels.max())
    for name, make in neurons.items():
        network = _seeded_network(counts.shape[-1], (64,) * layers, classes, make, generator)
        x, currents = counts.unsqueeze(0), []
        for current, neuron in zip(network.currents, network.neurons, strict=True):
            currents.append(current(x))
            x = neuron(currents[-1])
        loss = functional.cross_entropy(network.read_out([x]), labels)
        for layer, gradient in enumerate(torch.autograd.grad(loss, currents), start=1):
            silent = (gradient == 0).flatten(0, 1).all(0)
            yield Measurement(name, "share of units without gradient", float(silent.double().mean()), x=layer)
            zero = float((gradient == 0).double().mean())
            yield Measurement(name, "share of gradients that are zero", zero, x=layer)


def _seeded_network(
    inputs: int, hidden: tuple[int, ...], classes: int, make: Neuron, generator: torch.Generator
) -> SpikingClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        return SpikingClassifier(inputs, hidden, classes, make)
