"""Data, networks and the training loop that all rules share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from interplay.assets import digits, mnist_5k
from interplay.assets.corruptions import corrupt
from interplay.assets.image_folders import ImageFolder
from interplay.evidence import Measurement
from interplay.plasticity.counter_current import (
    CounterCurrentNet,
    CounterCurrentObjective,
    CreditRule,
    centralize_gradients,
)

SPLIT, WEIGHTS, ORDER, CORRUPTION, NOISE = range(5)
OCCLUDED = 12
T = TypeVar("T")


class Split(NamedTuple):
    """Standardised images and what the network should say to them."""

    inputs: Tensor
    targets: Tensor


class Data(NamedTuple):
    """What trains, what chooses, what is reported."""

    train: Split
    validation: Split
    test: Split


def generator_of(seed: int, purpose: int) -> torch.Generator:
    (state,) = np.random.SeedSequence((seed, purpose)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state))


def digit_images(seed: int, sizes: tuple[int, int, int], *, hard: bool = False) -> Data:
    """MNIST; the hard set has noise and a black square somewhere."""
    whole = mnist_5k()
    chosen = torch.randperm(len(whole), generator=generator_of(seed, SPLIT))[: sum(sizes)]
    images = whole.images[chosen]
    if hard:
        generator = generator_of(seed, CORRUPTION)
        images = corrupt(images, "noise", 4, generator)
        corners = torch.randint(0, images.shape[-1] - OCCLUDED + 1, (len(images), 2), generator=generator)
        for image, (row, column) in zip(images, corners.tolist(), strict=True):
            image[:, row : row + OCCLUDED, column : column + OCCLUDED] = 0
    return _standardised(images, whole.labels[chosen], sizes)


def small_digits(seed: int) -> Data:
    """Digits of 8 x 8 pixels to be reconstructed."""
    whole = digits()
    images = whole.images[torch.randperm(len(whole), generator=generator_of(seed, SPLIT))]
    data = _standardised(images, whole.labels, (1300, 147, 350))
    return Data(*(Split(split.inputs, split.inputs) for split in data))


def folder_images(folder: Path, seed: int, validation: int) -> Data:
    """Images of `train/CLASS/IMAGE` and `test/CLASS/IMAGE`, all of one size."""

    def read(name: str, shuffle: torch.Generator | None) -> tuple[Tensor, Tensor]:
        prepare = lambda image: torch.from_numpy(np.asarray(image, dtype=np.float32)).movedim(-1, 0) / 255  # noqa: E731
        batches = list(ImageFolder(folder / name, prepare, batch_size=256, shuffle=shuffle))
        return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])

    (images, labels), (test_images, test_labels) = read("train", generator_of(seed, SPLIT)), read("test", None)
    sizes = (len(images) - validation, validation, len(test_images))
    return _standardised(torch.cat([images, test_images]), torch.cat([labels, test_labels]), sizes)


def _standardised(images: Tensor, labels: Tensor, sizes: tuple[int, int, int]) -> Data:
    training = images[: sizes[0]]
    images = (images - training.mean()) / training.std()
    return Data(*(Split(*pair) for pair in zip(images[: sum(sizes)].split(sizes), labels.split(sizes), strict=False)))


def perceptron(data: Data, hidden: Sequence[int], activation: type[nn.Module] = nn.ELU) -> nn.Sequential:
    """Without biases, as published."""
    widths = [data.train.inputs[0].numel(), *hidden]
    layers = [
        layer
        for inputs, outputs in itertools.pairwise(widths)
        for layer in (nn.Linear(inputs, outputs, bias=False), activation())
    ]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(widths[-1], _classes(data), bias=False))


def convolutional(data: Data, channels: Sequence[int]) -> nn.Sequential:
    """Strides of two and no pooling, as published for MNIST; 5 x 5 kernels at first, to look at."""
    shape = data.train.inputs.shape[1:]
    blocks = [
        layer
        for level, (inputs, outputs) in enumerate(itertools.pairwise([shape[0], *channels]))
        for layer in (nn.Conv2d(inputs, outputs, 3 if level else 5, 2, 1 if level else 2), nn.ELU())
    ]
    side = shape[-1]
    for _ in channels:
        side = (side + 1) // 2
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(channels[-1] * side**2, _classes(data), bias=False))


def _classes(data: Data) -> int:
    return int(max(split.targets.max() for split in data)) + 1


def mirrored(build: Callable[[], nn.Sequential], data: Data, seed: int) -> CounterCurrentNet:
    """The two networks, drawn from the seed alone; PyTorch's global generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_of(seed, WEIGHTS).initial_seed())
        return CounterCurrentNet.from_sequential(build(), data.train.inputs.shape[1:])


def seeded(seed: int, make: Callable[[], T]) -> T:
    """What is made with weights of its own from PyTorch's global generator, which is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def accuracy(net: nn.Module, split: Split) -> float:
    return float((net(split.inputs).argmax(1) == split.targets).float().mean())


def closeness(net: nn.Module, split: Split) -> float:
    """Minus the mean squared error: more is better."""
    return -float(functional.mse_loss(net(split.inputs), split.targets))


class Autoencoding(CreditRule):
    """Backpropagation of the squared error."""

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return functional.mse_loss(self.net(inputs), targets)


class CounterCurrentAutoencoding(CreditRule):
    """Counter-current learning of an autoencoder: the feedback network reads the same image from the other end."""

    def __init__(self, net: CounterCurrentNet) -> None:
        super().__init__(net)
        self.objective = CounterCurrentObjective(net, "reconstruction")

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return self.objective(inputs, targets).total

    def groups(self) -> list[list[torch.nn.Parameter]]:
        return [*super().groups(), list(self.net.feedback_parameters())]


class Training(NamedTuple):
    """How long and how: the same for every rule. The last three are published for convolutions and autoencoders."""

    epochs: int
    race: int
    rates: tuple[float, ...]
    batch_size: int
    clip: float
    momentum: float = 0.0
    centralize: bool = False
    decay_to: float = 1.0
    """The step size falls along a cosine to this share of itself."""


Observer = Callable[[CreditRule, int], Iterable[Measurement]]


class Run:
    """One rule with one step size, trained epoch by epoch; scored on the test set where validation is best."""

    def __init__(
        self,
        rule: CreditRule,
        rate: float,
        data: Data,
        training: Training,
        seed: int,
        *,
        score: Callable[[nn.Module, Split], float] = accuracy,
        observe: Observer | None = None,
    ) -> None:
        self.rule, self.rate, self.data, self.training = rule, rate, data, training
        self.score, self.observe = score, observe
        self.groups = rule.groups()
        self.order = generator_of(seed, ORDER)
        self.optimizer = torch.optim.SGD(
            [parameter for group in self.groups for parameter in group], lr=rate, momentum=training.momentum
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimizer, training.epochs, rate * training.decay_to
        )
        self.step = 0
        self.validation = self.best = -np.inf
        self.test = self.last = np.nan
        self.curve: list[tuple[int, float]] = []
        self.rows: list[Measurement] = []
        self._look()

    def train(self, epochs: int) -> None:
        """Go on for some epochs."""
        inputs, targets = self.data.train
        for _ in range(epochs):
            self.rule.train()
            for batch in torch.randperm(len(inputs), generator=self.order).split(self.training.batch_size):
                self.optimizer.zero_grad()
                self.rule(inputs[batch], targets[batch]).backward()
                for group in self.groups:
                    if self.training.centralize:
                        centralize_gradients(group)
                    nn.utils.clip_grad_norm_(group, self.training.clip)
                self.optimizer.step()
                self.step += 1
            self.schedule.step()
            self._look()

    def _look(self) -> None:
        self.rule.eval()
        with torch.no_grad():
            validation = self.score(self.rule.net, self.data.validation)
            self.last = self.score(self.rule.net, self.data.test)
        self.validation = -np.inf if np.isnan(validation) else validation  # a run that diverged is the worst
        self.curve.append((self.step, self.last))
        if self.validation > self.best:
            self.best, self.test = self.validation, self.last
        if self.observe is not None:
            self.rows += self.observe(self.rule, self.step)


def compete(
    make: Callable[[], CreditRule], data: Data, training: Training, seed: int, **looks: Callable
) -> tuple[Run, dict[float, float]]:
    """All step sizes start; after the race the one with the best validation goes on alone. Returns it and the race."""
    runs = [Run(make(), rate, data, training, seed, **looks) for rate in training.rates]
    raced = training.race if len(runs) > 1 else 0
    for run in runs:
        run.train(raced)
    race = {run.rate: run.validation for run in runs}
    winner = max(runs, key=lambda run: run.validation)
    winner.train(training.epochs - raced)
    return winner, race


def results(name: str, run: Run, metric: str = "test accuracy") -> Iterator[Measurement]:
    yield Measurement(name, metric, run.test)
    yield Measurement(name, f"{metric} at the end", run.last)
    for step, value in run.curve:
        yield Measurement(name, f"{metric} by step", value, step=step)
