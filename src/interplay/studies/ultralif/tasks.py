"""What the networks learn, and how: event counts, the same scaled, and images as random spikes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from interplay.assets import mnist_5k
from interplay.assets.event_counts import event_counts
from interplay.primitives.neurons import SpikingNeuron
from interplay.spiking.ultralif import SpikingClassifier, hard_spikes, rate_code, sparsity_penalty

DATA, WEIGHTS, ORDER, CODING, JUDGING = range(5)  # what a seed is used for
RATE = 0.5  # probability of a spike at full brightness

Neuron = Callable[[int], SpikingNeuron]
Encoder = Callable[[Tensor, torch.Generator], Tensor]


def generator_of(seed: int, *purpose: int) -> torch.Generator:
    """A generator of its own for every use of a seed."""
    state = np.random.SeedSequence([seed, *purpose]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


@dataclass(frozen=True)
class Part:
    """Inputs, samples first, and the class of each."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Task:
    """Three disjoint parts, and how a batch of inputs becomes (time, batch, channel)."""

    train: Part
    validation: Part
    test: Part
    classes: int
    encode: Encoder

    @property
    def channels(self) -> int:
        return self.train.inputs.shape[-1]


@dataclass(frozen=True)
class Course:
    """A trained network's scores on test data, and how its temperature and decay went, epoch by epoch."""

    accuracy: float
    hard_accuracy: float
    validation_accuracy: float
    rate: float
    temperatures: list[float]
    decays: list[float]


def event_tasks(seed: int, *, file: Path | None, training: int, validation: int, test: int) -> tuple[Task, Task, Task]:
    """Histograms of whole recordings, the same divided by each channel's largest count, and the recordings in time."""
    if file is None:
        total = training + validation + test
        data = event_counts(total, generator=np.random.default_rng([seed, DATA]))
        parts = [
            Part(counts, labels)
            for counts, labels in zip(
                data.counts.split([training, validation, test]),
                data.labels.split([training, validation, test]),
                strict=True,
            )
        ]
    else:
        parts = _parts_of(file, seed, training, validation, test)
    classes = 1 + max(int(part.labels.max()) for part in parts)
    in_time = Task(*parts, classes, encode=lambda counts, _: counts.movedim(1, 0))
    sums = [replace(part, inputs=part.inputs.sum(1)) for part in parts]
    largest = sums[0].inputs.amax(0).clamp(min=1)
    scaled = [replace(part, inputs=part.inputs / largest) for part in sums]
    histogram, scaled_histogram = (
        Task(*chosen, classes, encode=lambda counts, _: counts.unsqueeze(0)) for chosen in (sums, scaled)
    )
    return histogram, scaled_histogram, in_time


def image_task(seed: int, *, file: Path | None, training: int, validation: int, test: int, steps: int) -> Task:
    """Images as random spikes, drawn anew whenever they are shown: MNIST-5k, or a file's."""
    if file is None:
        digits = mnist_5k()
        if (asked := training + validation + test) > len(digits):
            raise ValueError(f"MNIST-5k has {len(digits)} images, asked are {asked}; set images=FILE, or ask for fewer")
        order = torch.randperm(len(digits), generator=generator_of(seed, DATA))
        images = ((digits.images.flatten(1) - 0.1307) / 0.3081).clamp(0, 1)  # as in the official code
        chosen = order[:asked].split([training, validation, test])
        parts = [Part(images[part], digits.labels[part]) for part in chosen]
    else:
        parts = _parts_of(file, seed, training, validation, test)
        parts = [replace(part, inputs=part.inputs.flatten(1).clamp(0, 1)) for part in parts]
    classes = 1 + max(int(part.labels.max()) for part in parts)
    return Task(*parts, classes, encode=lambda images, generator: rate_code(RATE * images, steps, generator=generator))


def train(
    task: Task,
    make: Neuron,
    seed: int,
    *,
    hidden: tuple[int, ...],
    epochs: int,
    batch_size: int,
    penalty: float = 0.0,
    device: torch.device,
) -> Course:
    """Train with Adam at 1e-3; every network of a seed starts from the same weights and sees the same batches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_of(seed, WEIGHTS).initial_seed())
        network = SpikingClassifier(task.channels, hidden, task.classes, make).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    order, coding = generator_of(seed, ORDER), generator_of(seed, CODING)
    temperatures, decays = [], []
    for _ in range(epochs):
        for x, labels in _batches(task, task.train, batch_size, order, coding, device):
            spikes = network.spikes(x)
            loss = functional.cross_entropy(network.read_out(spikes), labels)
            if penalty:
                loss = loss + sparsity_penalty(spikes, penalty)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            neuron = network.neurons[0].module
            temperatures.append(float(getattr(neuron, "eps", float("nan"))))
            decays.append(float(getattr(neuron, "decay", float("nan"))))
    accuracy, rate = _score(network, task, task.test, seed, device)
    with hard_spikes(network):
        hard_accuracy, _ = _score(network, task, task.test, seed, device)
    validation_accuracy, _ = _score(network, task, task.validation, seed, device)
    return Course(accuracy, hard_accuracy, validation_accuracy, rate, temperatures, decays)


def _score(network: SpikingClassifier, task: Task, part: Part, seed: int, device: torch.device) -> tuple[float, float]:
    """Share of right answers and mean spike of all layers, by the same random spikes for every network."""
    right, rates = 0, []
    with torch.inference_mode():
        for x, labels in _batches(task, part, 1000, None, generator_of(seed, JUDGING), device):
            spikes = network.spikes(x)
            right += int((network.read_out(spikes).argmax(1) == labels).sum())
            rates.append(float(sparsity_penalty(spikes, 1.0)) * len(labels))
    return right / len(part.labels), sum(rates) / len(part.labels)


def _batches(
    task: Task,
    part: Part,
    size: int,
    shuffle: torch.Generator | None,
    coding: torch.Generator,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    count = len(part.labels)
    order = torch.arange(count) if shuffle is None else torch.randperm(count, generator=shuffle)
    for batch in order.split(size):
        yield task.encode(part.inputs[batch], coding).to(device), part.labels[batch].to(device)


def _parts_of(file: Path, seed: int, training: int, validation: int, test: int) -> list[Part]:
    """The parts of a safetensors file; validation data are taken from its training data."""
    try:
        load = import_module("safetensors.torch").load_file
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading a file of recordings or images needs: pip install safetensors") from None
    found = load(file)
    names = ("train_inputs", "train_labels", "test_inputs", "test_labels")
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{file} lacks {', '.join(missing)}; it must hold {', '.join(names)}")
    inputs, labels, test_inputs, test_labels = (found[name] for name in names)
    if len(inputs) <= validation:
        raise ValueError(f"{file} holds {len(inputs)} training samples, not more than validation={validation}")
    order = torch.randperm(len(labels), generator=generator_of(seed, DATA))
    kept, held_out = order[validation:][:training], order[:validation]
    return [
        Part(inputs[kept].float(), labels[kept].long()),
        Part(inputs[held_out].float(), labels[held_out].long()),
        Part(test_inputs[:test].float(), test_labels[:test].long()),
    ]
