"""Do deep spiking networks train without normalisation when inhibition balances and divides?

Networks of E-I layers, their ablations and their baselines learn digits, all with learning rates from the same sweep:
one network of each condition and rate, of a seed of its own, scored on images that are neither trained on nor reported.
At paper scale the networks are VGG or ResNet and the images are folders.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import torch
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn

from interplay.evidence import Device, Measurement, Study, StudyConfig, all_of, difference, mean, tally
from interplay.primitives.randomness import generator_of
from interplay.studies.ei_snn.networks import (
    CONDITIONS,
    Architecture,
    activity,
    balance,
    build,
    ei_layers,
    smallest_constrained,
    spikes_per_image,
)
from interplay.studies.ei_snn.training import (
    ORDER,
    WEIGHTS,
    Data,
    accuracy,
    digits,
    folders,
    train,
)

SEEDS, TUNING_SEED = 5, 10_000
LEARNS = 0.85
POINTS, BINS = 40, 40
SILENT = 0.01
BALANCED, SPREAD, FIRING = (-0.35, 0.35), (0.65, 1.3), (0.05, 0.35)


class Config(StudyConfig):
    architecture: Architecture = Field("mlp", description="mlp, vgg or resnet")
    depth: PositiveInt = Field(8, description="layers with weights (vgg: 8, 11, 16 or 19; without effect for resnet)")
    width: PositiveInt = Field(128, description="excitatory units of each hidden layer of an mlp")
    time_steps: PositiveInt = Field(4, description="steps that an image is shown")
    training_images: PositiveInt = Field(3000, description="digits that train")
    validation_images: PositiveInt = Field(1000, description="images that choose the learning rates")
    test_images: PositiveInt = Field(1000, description="digits that are reported")
    epochs: PositiveInt = Field(6, description="training epochs")
    sweep_epochs: PositiveInt = Field(3, description="training epochs in the sweep of learning rates")
    batch_size: int = Field(100, ge=2, description="images in a batch")
    warm_up: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    momentum: float = Field(0.9, ge=0, lt=1, description="of stochastic gradient descent")
    weight_decay: NonNegativeFloat = Field(5e-4, description="on all parameters")
    augment: bool = Field(False, description="shift, mirror and cut holes into training images")
    ei_rates: tuple[PositiveFloat, ...] = Field((0.003, 0.01, 0.02, 0.03), description="grid of learning rates, E-I")
    ablation_rates: tuple[PositiveFloat, ...] = Field(
        (1e-4, 3e-4, 1e-3, 0.003, 0.01, 0.02, 0.03), description="grid for the ablations, whose best rates are lower"
    )
    other_rates: tuple[PositiveFloat, ...] = Field((0.02, 0.05, 0.1, 0.2), description="grid for the baselines")
    initial_depths: tuple[PositiveInt, ...] = Field((4, 8, 16), description="depths at which E-I Init is looked at")
    further_depths: tuple[PositiveInt, ...] = Field((4, 12, 16), description="further depths that are trained")
    depth_seeds: NonNegativeInt = Field(2, description="seeds that train the further depths")
    images: Path | None = Field(None, description="folder of train/CLASS/IMAGE and test/CLASS/IMAGE instead of digits")
    device: Device = Field("cpu", description="where the networks run")


study = Study(
    "ei-snn",
    Config,
    presets={
        "smoke": {
            "depth": 4,
            "width": 48,
            "training_images": 300,
            "validation_images": 100,
            "test_images": 100,
            "epochs": 1,
            "sweep_epochs": 1,
            "ei_rates": (0.01,),
            "ablation_rates": (0.01,),
            "other_rates": (0.05,),
            "initial_depths": (4,),
            "further_depths": (6,),
            "depth_seeds": 1,
        },
        "cpu": {},
        "paper": {
            "architecture": "vgg",
            "depth": 16,
            "validation_images": 5000,
            "epochs": 300,
            "sweep_epochs": 30,
            "batch_size": 128,
            "augment": True,
            "ei_rates": (1e-3, 2e-3),
            "ablation_rates": (1e-4, 3e-4, 1e-3, 2e-3),
            "other_rates": (0.05, 0.1),
            "initial_depths": (8, 16, 19),
            "further_depths": (8, 11, 19),
            "device": "auto",
        },
    },
    seeds={"smoke": 2, "cpu": SEEDS, "paper": SEEDS},
    caveat="Whether the circuit is needed, or the scale of its weights alone, is not judged: see LSUV in the figure.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    data = data_of(config)
    for (name, depth, rate), score in sweep(config).items():
        yield Measurement(name, "validation accuracy", score, x=rate, item=f"depth {depth}")
    yield from at_initialisation(config, data, seed)
    for name in CONDITIONS:
        yield from trained(config, data, seed, name)
    if seed < config.depth_seeds:
        for name in ("E-I", "batch norm"):
            for depth in config.further_depths:
                network = made(config, data, name, depth, seed)
                fit(config, data, network, best_rate(config, name, depth), config.epochs, seed)
                yield Measurement(name, "accuracy by depth", accuracy(network, data.test), x=depth)


def data_of(config: Config) -> Data:
    if config.images is not None:
        return folders(config.images, config.validation_images, device_of(config.device))
    if config.architecture != "mlp":
        raise ValueError(f"architecture={config.architecture} needs colour images: --set images=FOLDER")
    return digits(config.training_images, config.validation_images, config.test_images)


def device_of(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def made(config: Config, data: Data, name: str, depth: int, seed: int) -> nn.Module:
    return build(
        CONDITIONS[name],
        config.architecture,
        depth,
        width=config.width,
        time_steps=config.time_steps,
        classes=int(data.train.labels.max()) + 1,
        batch=data.train.images[: config.batch_size],
        generator=generator_of(seed, WEIGHTS, depth),
    )


def fit(
    config: Config,
    data: Data,
    network: nn.Module,
    rate: float,
    epochs: int,
    seed: int,
    smallest: list[float] | None = None,
) -> None:
    train(
        network,
        data.train,
        rate=rate,
        epochs=epochs,
        batch_size=config.batch_size,
        warm_up=config.warm_up,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        augment=config.augment,
        generator=generator_of(seed, ORDER),
        after_epoch=(lambda: None) if smallest is None else lambda: smallest.append(smallest_constrained(network)),
    )


@cache
def sweep(config: Config) -> Mapping[tuple[str, int, float], float]:
    """Validation accuracy by condition, depth and learning rate, of a seed that no trial has."""
    data = data_of(config)
    depths = dict.fromkeys(CONDITIONS, (config.depth,))
    if config.depth_seeds:
        depths |= dict.fromkeys(("E-I", "batch norm"), (config.depth, *config.further_depths))
    scores = {}
    for name in CONDITIONS:
        for depth in depths[name]:
            for rate in rates_of(config, name):
                network = made(config, data, name, depth, TUNING_SEED)
                fit(config, data, network, rate, config.sweep_epochs, TUNING_SEED)
                scores[name, depth, rate] = accuracy(network, data.validation)
    return MappingProxyType(scores)


def rates_of(config: Config, name: str) -> tuple[float, ...]:
    if name == "E-I":
        return config.ei_rates
    return config.ablation_rates if CONDITIONS[name].circuit == "ei" else config.other_rates


def best_rate(config: Config, name: str, depth: int) -> float:
    scores = {rate: score for (n, d, rate), score in sweep(config).items() if (n, d) == (name, depth)}
    return max(scores, key=scores.__getitem__)


def at_initialisation(config: Config, data: Data, seed: int) -> Iterator[Measurement]:
    """What reaches the neurons of each hidden layer before any training, on images that did not initialise it."""
    batch = data.validation.images[: config.batch_size]
    in_range, silent = [], []
    for depth in config.initial_depths:
        for name in ("E-I", "batch norm", "no norm"):
            layers = activity(made(config, data, name, depth, seed), batch)
            for number, layer in enumerate(layers, start=1):
                for metric, value in layer._asdict().items():
                    yield Measurement(name, f"initial {metric}", value, x=number, item=f"depth {depth}")
            if name == "E-I":
                in_range += [
                    low <= value <= high
                    for layer in layers
                    for value, (low, high) in zip(layer, (BALANCED, SPREAD, FIRING), strict=True)
                ]
            if name == "no norm":
                silent += [layer.rate < SILENT for layer in layers[1:]]
    yield Measurement("E-I", "every layer balanced, scaled and firing", float(all(in_range)))
    yield Measurement("no norm", "silent from the second layer on", float(all(silent)))


def trained(config: Config, data: Data, seed: int, name: str) -> Iterator[Measurement]:
    """One network of a condition, with the rate of the sweep."""
    rate = best_rate(config, name, config.depth)
    yield Measurement(name, "chosen rate", rate)
    network = made(config, data, name, config.depth, seed)
    if name == "E-I":
        yield from look_inside(network, data, "before")
    smallest: list[float] | None = [] if CONDITIONS[name].circuit == "ei" else None
    fit(config, data, network, rate, config.epochs, seed, smallest)
    score = accuracy(network, data.test)
    yield Measurement(name, "test accuracy", score)
    yield Measurement(name, "accuracy by depth", score, x=config.depth)
    yield Measurement(name, "spikes per image", spikes_per_image(network, data.test.images[:200]))
    if smallest is not None:
        for epoch, value in enumerate(smallest, start=1):
            yield Measurement(name, "smallest constrained weight", value, step=epoch)
    if name == "E-I":
        yield Measurement(name, "learned", float(score >= LEARNS))
        yield Measurement(name, "constraints kept", float(constraints_kept(network, data, smallest or [])))
        yield from look_inside(network, data, "after")


def constraints_kept(network: nn.Module, data: Data, smallest: list[float]) -> bool:
    """No negative weight at any epoch, one inhibitory unit to four, no statistics, and samples that do not interact."""
    ratios = {max(1, layer.excitatory // 4) == layer.inhibitory for layer in ei_layers(network)}
    statistics = [name for name in network.state_dict() if "running" in name or "tracked" in name]
    # In double precision, where no rounding of a product decides whether a neuron fires.
    exact, images = copy.deepcopy(network).double(), data.test.images[:20].double()
    with torch.no_grad():
        apart = torch.cat([exact(image[None]) for image in images])
        together = torch.allclose(exact(images), apart, rtol=1e-9, atol=1e-9)
    return min(smallest) >= 0 and ratios == {True} and not statistics and together


def look_inside(network: nn.Module, data: Data, when: str) -> Iterator[Measurement]:
    """A few pairs of excitatory and subtractive current of each hidden layer, and the distribution of W_EE."""
    layers = ei_layers(network)[:-1]
    for number, currents in enumerate(balance(network, data.test.images[:50]), start=1):
        chosen = torch.arange(POINTS) * (currents[0].numel() // POINTS)
        excitation, subtractive = (current.flatten()[chosen].tolist() for current in currents)
        for one, other in zip(excitation, subtractive, strict=True):
            yield Measurement("E-I", f"subtractive current {when}", other, x=one, item=f"layer {number}")
    weights = layers[len(layers) // 2].weight_ee.detach()
    scaled = weights / weights.mean()
    for index, count in enumerate(torch.histc(scaled, BINS, 0, 6).tolist()):
        centre = (index + 0.5) * 6 / BINS
        yield Measurement("E-I", f"share of weights {when}", count / scaled.numel(), x=centre)


study.claim(
    "balanced-at-initialisation",
    "E-I Init balances excitation and inhibition and sets the gain in every hidden layer, at every depth; without it "
    "and without normalisation the second layer is silent already.",
    paper="abstract; Eq. 53-54",
    test=all_of(
        tally("every layer balanced, scaled and firing", "E-I").at_least(SEEDS),
        tally("silent from the second layer on", "no norm").at_least(SEEDS),
    ),
)
study.claim(
    "trains-without-normalisation",
    "A deep network of E-I layers learns on every seed and comes close to batch normalisation, where a network without "
    "either does not learn.",
    paper="CIFAR-10: VGG-16 91.01 %, VGG-19 91.36 %, ResNet-18 92.06 %; figures of batch normalisation not known",
    test=all_of(
        tally("learned", "E-I").at_least(SEEDS),
        difference("test accuracy", "batch norm", "E-I").below(0.07),
        mean("test accuracy", "no norm").below(0.2),
    ),
)
study.claim(
    "ei-prop-needed",
    "Without the scaled gradient, or without the straight-through denominator, the network learns at least five points "
    "worse, whatever the learning rate.",
    paper="direction (abstract); figures of the ablation not known",
    test=all_of(
        difference("test accuracy", "E-I", "no gradient scale").above(0.05),
        difference("test accuracy", "E-I", "no straight-through").above(0.05),
    ),
)
study.claim(
    "ei-init-needed",
    "E-I Init learns better than weights of a constant scale.",
    paper="direction (abstract)",
    test=difference("test accuracy", "E-I", "constant init").above(0.0),
)
study.claim(
    "constraints-kept",
    "No weight ever turns negative, one unit in five inhibits, no statistics are kept, and a sample's output does not "
    "depend on its batch.",
    paper="by design",
    test=tally("constraints kept", "E-I").at_least(SEEDS),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.ei_snn import panels

    figure = Figure(figsize=(11, 10.5), layout="constrained")
    axes = figure.subplot_mosaic(
        [["mean", "deviation", "rate"], ["accuracy", "accuracy", "depth"], ["rates", "balance", "weights"]]
    )
    panels.draw_initial(axes["mean"], measurements, "mean", BALANCED, "mean current")
    panels.draw_initial(axes["deviation"], measurements, "deviation", SPREAD, "standard deviation of the current")
    panels.draw_initial(axes["rate"], measurements, "rate", FIRING, "spikes per neuron and step")
    panels.draw_accuracy(axes["accuracy"], measurements)
    panels.draw_depth(axes["depth"], measurements)
    panels.draw_rates(axes["rates"], measurements)
    panels.draw_balance(axes["balance"], measurements)
    panels.draw_weights(axes["weights"], measurements)
    return figure
