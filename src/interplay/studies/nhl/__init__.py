"""Does a first layer that learns by competition, steered by entropy, help a classifier that meets corrupted images?

A source network is trained on clean digits. Then each corruption is a stream of batches that arrive once and in order,
without labels; every method adapts on a batch and is scored on the same batch, and is reset between corruptions. Step
sizes on the gains are chosen for every method from one grid, on corruptions that are not reported. At paper scale the
network is a Hugging Face checkpoint and the corruptions are folders of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from interplay.evidence import Device, Measurement, Study, StudyConfig, difference, mean
from interplay.plasticity.nhl import (
    NHL,
    BatchNormAdapt,
    HardNHL,
    HebbOnly,
    OnlineAdapter,
    OnlineRun,
    PseudoLabel,
    SoftHebb,
    SourceOnly,
    Tent,
    evaluate_online,
    soft_hebbian_free_energy,
)
from interplay.primitives.randomness import generator_of
from interplay.studies.nhl.worlds import (
    SIGNS,
    VisionTransformer,
    World,
    convolutional_network,
    device_of,
    digit_world,
    folder_world,
)

FILTERS_SHOWN = 16
UNITS = ("seed", "item")
Methods = dict[str, Callable[..., OnlineAdapter]]


class Config(StudyConfig):
    corruptions: tuple[str, ...] = Field(
        ("noise", "blur", "contrast", "fog", "impulse", "pixelate", "rotate", "brightness"),
        description="corruptions that are reported",
    )
    held_out: tuple[str, ...] = Field(("shot", "motion"), description="corruptions on which step sizes are chosen")
    severity: int = Field(5, ge=1, le=5, description="severity of the corruptions")
    training_images: PositiveInt = Field(3000, description="clean digits that train the source network")
    stream_images: PositiveInt = Field(2000, description="images in each stream")
    epochs: PositiveInt = Field(3, description="training epochs of the source network, Adam at 1e-3, batches of 64")
    batch_size: int = Field(100, ge=2, description="images that arrive together")
    rates: tuple[PositiveFloat, ...] = Field((1e-3, 3e-3, 1e-2, 3e-2), description="grid of step sizes of the gains")
    lr_hebb: PositiveFloat = Field(1e-3, description="step size of the local rule")
    tau: PositiveFloat = Field(1.0, description="temperature of the competition")
    transformer_severity: int = Field(3, ge=1, le=5, description="severity for the second network, a transformer")
    transformer_epochs: int = Field(6, ge=0, description="training epochs of the second network; 0 leaves it out")
    sweep_corruptions: tuple[str, ...] = Field(
        ("noise", "fog"), description="corruptions of the sweeps and of the second network"
    )
    severities: tuple[int, ...] = Field((3,), description="further severities, on the sweeps' corruptions")
    batch_sizes: tuple[int, ...] = Field((10, 50), description="further batch sizes, on the sweeps' corruptions")
    lr_hebb_sweep: tuple[PositiveFloat, ...] = Field(
        (3e-4, 1e-3, 3e-3, 1e-2), description="swept step sizes of the local rule"
    )
    tau_sweep: tuple[PositiveFloat, ...] = Field((0.3, 3.0), description="swept temperatures")
    images: Path | None = Field(None, description="folder of corruption/severity/class/image and clean/class/image")
    checkpoint: Path | None = Field(None, description="folder of a Hugging Face image classifier, used with images")
    device: Device = Field("cpu", description="where the networks run")


study = Study(
    "nhl",
    Config,
    presets={
        "smoke": {
            "corruptions": ("noise", "blur"),
            "held_out": ("motion",),
            "training_images": 300,
            "stream_images": 100,
            "epochs": 1,
            "batch_size": 50,
            "rates": (1e-3, 1e-2),
            "transformer_epochs": 1,
            "sweep_corruptions": ("noise",),
            "severities": (1,),
            "batch_sizes": (20,),
            "lr_hebb_sweep": (1e-2,),
            "tau_sweep": (0.1,),
        },
        "cpu": {},
        "paper": {
            "corruptions": (
                *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "zoom_blur", "snow", "frost", "fog"),
                *("brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
            ),
            "held_out": ("glass_blur", "motion_blur"),
            "batch_size": 64,
            "rates": (1e-4, 3e-4, 1e-3, 3e-3),
            "sweep_corruptions": ("gaussian_noise", "fog"),
            "severities": (1, 3),
            "batch_sizes": (16, 200),
            "tau_sweep": (0.1, 0.3, 1.0, 3.0),
            "transformer_epochs": 0,
        },
    },
    seeds={"smoke": 2, "cpu": 5, "paper": 10},
    caveat="Most of the gain over the source network is that of batch statistics, which BN in the figure has alone.",
)


class RandomSigns(SoftHebb):
    """The control: updates as large as the local rule's, entry by entry, in directions drawn by lot."""

    generator: torch.Generator

    def delta(self, x: Float[Tensor, "..."]) -> Float[Tensor, "out ..."]:
        delta = super().delta(x)
        signs = torch.randint(0, 2, delta.shape, generator=self.generator) * 2 - 1
        return delta * signs.to(delta)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    if config.checkpoint or config.images:
        world = folder_world(seed, checkpoint=config.checkpoint, images=config.images, device=device_of(config.device))
    else:
        world = digits_for(config, seed, convolutional_network, config.epochs)
    local = {"lr_hebb": config.lr_hebb, "tau": config.tau}
    tunable = {
        "TENT": Tent,
        "PL": PseudoLabel,
        "NHL": partial(NHL, **local),
        "HardNHL": partial(HardNHL, **local),
    }
    rates, tuning = choose_rates(config, world, tunable)
    yield from tuning
    methods = {name: partial(make, lr_mod=rates[name]) for name, make in tunable.items()}
    methods |= {
        "source": SourceOnly,
        "BN": BatchNormAdapt,
        "HebbOnly": partial(HebbOnly, **local),
        "HardHebb": partial(HebbOnly, competition="hard", **local),
        "TENT, predicting before": partial(methods["TENT"], predict="before"),
        "NHL, predicting before": partial(methods["NHL"], predict="before"),
        "NHL, random signs": partial(with_random_signs, methods["NHL"], generator_of(seed, SIGNS)),
    }
    if len(layers := [name for name, module in world.network.named_modules() if isinstance(module, nn.Conv2d)]) > 1:
        methods["NHL, second convolution"] = partial(methods["NHL"], hebb_layer=layers[1])
    for name, make in methods.items():
        adapter = make(world.network)
        for item in config.corruptions:
            run = adapt(config, world, adapter, item)
            yield Measurement(name, "online error", run.error, item=item)
            for step, error in enumerate(run.errors):
                yield Measurement(name, "error in batch", error, step=step, item=item)
        yield Measurement(name, "clean error", adapt(config, world, adapter, "clean").error)
    yield from look_inside(config, world)
    yield from sweeps(config, world, methods)
    if config.transformer_epochs:
        yield from without_batch_normalisation(config, seed, local)


def digits_for(config: Config, seed: int, build: Callable[[], nn.Module], epochs: int) -> World:
    return digit_world(
        seed,
        build,
        epochs=epochs,
        training_images=config.training_images,
        stream_images=config.stream_images,
        device=device_of(config.device),
    )


def choose_rates(config: Config, world: World, methods: Methods) -> tuple[dict[str, float], list[Measurement]]:
    """Each method's step size on the gains: the least error on the held-out corruptions."""
    rates, rows = {}, []
    for name, make in methods.items():
        errors = {}
        for rate in config.rates:
            adapter = make(world.network, lr_mod=rate)
            errors[rate] = float(np.mean([adapt(config, world, adapter, item).error for item in config.held_out]))
            rows.append(Measurement(name, "held-out error", errors[rate], x=rate))
        rates[name] = min(errors, key=errors.__getitem__)
        rows.append(Measurement(name, "chosen step size", rates[name]))
    return rates, rows


def adapt(config: Config, world: World, adapter: OnlineAdapter, item: str, **stream: Any) -> OnlineRun:
    """One episode: reset, then adapt on and predict a stream."""
    settings = {"severity": config.severity, "batch_size": config.batch_size, "by_class": False, **stream}
    adapter.reset()
    return evaluate_online(adapter, world.stream(item, *settings.values()))


def look_inside(config: Config, world: World) -> Iterator[Measurement]:
    """Free energy around each local step, and the filters before and after a stream."""
    # The first layer sees the images themselves: the gains have no part in what it learns, and are left out here.
    adapter = HebbOnly(world.network, lr_hebb=config.lr_hebb, tau=config.tau)
    layer = adapter.hebb.layer
    geometry = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    for item in config.corruptions:
        adapter.reset()
        before, falls = layer.weight.clone(), []
        for images, _ in world.stream(item, config.severity, config.batch_size, False):
            energy = soft_hebbian_free_energy(layer.weight, images, tau=config.tau, **geometry)
            adapter.hebb.step(images)
            falls.append(bool(soft_hebbian_free_energy(layer.weight, images, tau=config.tau, **geometry) < energy))
        yield Measurement("NHL", "share of batches with falling free energy", float(np.mean(falls)), item=item)
        if item == config.corruptions[0]:
            for name, weight in (("source", before), ("NHL", layer.weight)):
                for index, pixels in enumerate(weight[:FILTERS_SHOWN].mean(1).flatten(1).tolist()):
                    for step, value in enumerate(pixels):
                        yield Measurement(name, "filter weight", value, step=step, x=index, item=item)


def sweeps(config: Config, world: World, methods: Methods) -> Iterator[Measurement]:
    """Severity, batch size, order of the classes, resets, and NHL's own settings."""
    compared = {name: methods[name](world.network) for name in ("source", "BN", "TENT", "NHL")}
    for item in config.sweep_corruptions:
        for name, adapter in compared.items():
            for severity in config.severities:
                error = adapt(config, world, adapter, item, severity=severity).error
                yield Measurement(name, "error by severity", error, x=severity, item=item)
        for name in ("TENT", "NHL"):
            for size in config.batch_sizes:
                error = adapt(config, world, compared[name], item, batch_size=size).error
                yield Measurement(name, "error by batch size", error, x=size, item=item)
            error = adapt(config, world, compared[name], item, by_class=True).error
            yield Measurement(name, "error, sorted by class", error, item=item)
        for setting, values in (("lr_hebb", config.lr_hebb_sweep), ("tau", config.tau_sweep)):
            for value in values:
                adapter = methods["NHL"](world.network, **{setting: value})
                yield Measurement(
                    "NHL", f"error by {setting}", adapt(config, world, adapter, item).error, x=value, item=item
                )
    for name in ("TENT", "NHL"):
        compared[name].reset()
        for item in config.corruptions:
            run = evaluate_online(compared[name], world.stream(item, config.severity, config.batch_size, False))
            yield Measurement(name, "error without resets", run.error, item=item)


def without_batch_normalisation(config: Config, seed: int, local: dict[str, float]) -> Iterator[Measurement]:
    """A small vision transformer instead: gains behind its patch embedding and those of its layer normalisations."""
    config = config.model_copy(update={"severity": config.transformer_severity})
    world = digits_for(config, seed, VisionTransformer, config.transformer_epochs)
    tunable = {"TENT": Tent, "NHL": partial(NHL, modulator=("inserted", "bn"), **local)}
    rates, rows = choose_rates(config, world, tunable)
    yield from (row._replace(metric=f"{row.metric}, transformer") for row in rows)
    methods = {name: partial(make, lr_mod=rates[name]) for name, make in tunable.items()}
    methods |= {"source": SourceOnly, "HebbOnly": partial(HebbOnly, **local)}
    for name, make in methods.items():
        adapter = make(world.network)
        for item in (*config.sweep_corruptions, "clean"):
            metric = "clean error, transformer" if item == "clean" else "online error, transformer"
            yield Measurement(name, metric, adapt(config, world, adapter, item).error, item=item)


def with_random_signs(make: Callable[[nn.Module], NHL], generator: torch.Generator, network: nn.Module) -> NHL:
    adapter = make(network)
    rule = adapter.hebb
    adapter.hebb = RandomSigns(rule.layer, rule.lr, rule.tau, preserve_norm=rule.preserve_norm)
    adapter.hebb.generator = generator
    return adapter


study.claim(
    "beats-source",
    "Under corruption, adapting by NHL errs less than the network as it was trained.",
    paper="direction (abstract); an index page lists a mean error of 10.7 % on CIFAR-10-C, not verified",
    test=difference("online error", "NHL", "source", unit=UNITS).below(-0.05),
)
study.claim(
    "beats-tent",
    "NHL errs less than TENT, the method of its day, with TENT's step size chosen the same way.",
    paper="direction (abstract)",
    test=difference("online error", "NHL", "TENT", unit=UNITS).below(0.0),
)
study.claim(
    "modulator-helps",
    "The neuro-modulator improves on feed-forward Hebbian learning alone.",
    paper="direction (abstract)",
    test=difference("online error", "NHL", "HebbOnly", unit=UNITS).below(0.0),
)
study.claim(
    "soft-beats-hard",
    "Soft competition errs less than winner-take-all, with the modulator.",
    paper="direction only",
    test=difference("online error", "NHL", "HardNHL", unit=UNITS).below(0.0),
)
study.claim(
    "soft-beats-hard-alone",
    "Soft competition errs less than winner-take-all, without the modulator.",
    paper="direction only",
    test=difference("online error", "HebbOnly", "HardHebb", unit=UNITS).below(0.0),
)
study.claim(
    "harmless-without-shift",
    "On clean images NHL errs at most 0.7 points more than the network as it was trained.",
    paper="implied",
    test=difference("clean error", "NHL", "source").below(0.007),
)
study.claim(
    "free-energy-falls",
    "The local step lowers the free energy of its batch, in at least 80 % of batches.",
    paper="not known; follows from the reading of the rule as expectation-maximisation",
    test=mean("share of batches with falling free energy", "NHL").above(0.8),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.nhl import panels

    figure = Figure(figsize=(11, 10.5), layout="constrained")
    axes = figure.subplot_mosaic(
        [["errors"] * 3, ["stream", "differences", "lr_hebb"], ["filters", "filters", "conditions"]],
        height_ratios=(1.1, 1, 0.8),
    )
    panels.draw_errors(axes["errors"], measurements)
    panels.draw_stream(axes["stream"], measurements)
    panels.draw_differences(axes["differences"], measurements)
    panels.draw_step_size(axes["lr_hebb"], measurements)
    panels.draw_filters(axes["filters"], measurements)
    panels.draw_conditions(axes["conditions"], measurements)
    return figure
