"""Do two networks that run in opposite directions teach each other, without a gradient that crosses a layer?

A multi-layer perceptron learns real digits by counter-current learning, by its ablations, and by other rules that
assign credit, all in one loop: the same weights at the start, the same batches, the same number of steps, gradients
clipped alike. Every rule races its step sizes from one grid, and the one with the best validation accuracy goes on.
Accuracy is that of the epoch with the best validation accuracy. Then the same for a convolutional network and an
autoencoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt
from torch.nn import Tanh, functional

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, ratio
from interplay.plasticity.counter_current import (
    Backpropagation,
    CounterCurrent,
    CounterCurrentNet,
    DifferenceTargetPropagation,
    DirectRandomTargetProjection,
    FeedbackAlignment,
    TopLayerOnly,
    convolutional_autoencoder,
    initialize_autoencoder,
)
from interplay.studies.counter_current.experiments import (
    NOISE,
    Autoencoding,
    CounterCurrentAutoencoding,
    Data,
    Training,
    closeness,
    compete,
    convolutional,
    digit_images,
    folder_images,
    generator_of,
    mirrored,
    perceptron,
    results,
    seeded,
    small_digits,
)
from interplay.studies.counter_current.inside import agreement, look_inside, operations, spectral_centroid, templates


class Config(StudyConfig):
    hidden: tuple[PositiveInt, ...] = Field((128,) * 5, min_length=2, description="widths of the hidden levels")
    training_images: PositiveInt = Field(3600, description="digits that train")
    validation_images: PositiveInt = Field(400, description="digits that choose step sizes and epochs")
    test_images: PositiveInt = Field(1000, description="digits that are reported")
    images: Path | None = Field(None, description="folder of train/CLASS/IMAGE and test/CLASS/IMAGE instead of digits")
    batch_size: PositiveInt = Field(32, description="images a step of the perceptron")
    epochs: PositiveInt = Field(23, description="passes over the training images; 2599 steps")
    rates: tuple[PositiveFloat, ...] = Field((0.1, 0.3, 1.0), description="step sizes that every rule races")
    race: PositiveInt = Field(5, description="epochs after which the best step size goes on alone")
    clip: PositiveFloat = Field(1.0, description="largest gradient norm, of each network by itself")
    hard_epochs: PositiveInt = Field(6, description="passes over the noisy and occluded digits")
    channels: tuple[PositiveInt, ...] = Field((16, 32, 64), description="channels of the convolutional network")
    channel_epochs: PositiveInt = Field(8, description="passes of the convolutional network")
    channel_race: PositiveInt = Field(2, description="epochs of its race")
    channel_batch: PositiveInt = Field(32, description="images a step of the convolutional network")
    code: tuple[PositiveInt, ...] = Field((32, 64), description="channels of the autoencoder's levels, the code last")
    code_rates: tuple[PositiveFloat, ...] = Field(
        (0.01, 0.03, 0.1), description="step sizes of the autoencoders, the published one first"
    )
    code_epochs: PositiveInt = Field(16, description="passes of the autoencoders over 1,300 digits of 8 x 8")
    code_race: PositiveInt = Field(2, description="epochs of their race")


study = Study(
    "counter-current",
    Config,
    presets={
        "smoke": {
            "hidden": (12, 12, 12),
            "training_images": 160,
            "validation_images": 40,
            "test_images": 60,
            "epochs": 2,
            "race": 1,
            "rates": (0.3, 1.0),
            "hard_epochs": 1,
            "channels": (4, 6),
            "channel_epochs": 2,
            "channel_race": 1,
            "code": (6, 3),
            "code_epochs": 2,
            "code_race": 1,
            "code_rates": (0.03, 0.1),
        },
        "cpu": {},
        "paper": {
            "hidden": (256,) * 5,
            "batch_size": 256,
            "epochs": 100,
            "race": 10,
            "hard_epochs": 100,
            "channels": (128, 128, 256, 256, 512),
            "channel_epochs": 100,
            "channel_race": 10,
            "channel_batch": 256,
            "code": (128, 256, 1024),
            "code_epochs": 50,
            "code_race": 5,
        },
    },
    seeds={"smoke": 2, "cpu": 4, "paper": 5},
    caveat="Five thousand digits and narrow networks; the paper's accuracies are not known here, only their order.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    sizes = (config.training_images, config.validation_images, config.test_images)
    if config.images is None:
        data = digit_images(seed, sizes)
    else:
        data = folder_images(config.images, seed, config.validation_images)
    rates = yield from compare_rules(config, data, seed)
    if config.images is None:
        yield from on_hard_images(config, digit_images(seed, sizes, hard=True), seed, rates)
    yield from with_convolutions(config, data, seed)
    yield from with_autoencoders(config, small_digits(seed), seed)


def compare_rules(config: Config, data: Data, seed: int) -> Iterator[Measurement]:
    """Perceptrons: every rule with its own step size, then the ablations with that of the full rule."""
    training = Training(config.epochs, config.race, config.rates, config.batch_size, config.clip)
    network = lambda *activation: mirrored(lambda: perceptron(data, config.hidden, *activation), data, seed)  # noqa: E731
    sample, classes = data.train.inputs[:1], int(data.train.targets.max()) + 1
    rules = {
        "CCL": lambda: CounterCurrent(network()),
        "BP": lambda: Backpropagation(network()),
        "FA": lambda: seeded(seed, lambda: FeedbackAlignment(network())),
        "DTP": lambda: DifferenceTargetPropagation(network(), generator=generator_of(seed, NOISE)),
        # Its hidden activities grow without bound unless the activation saturates on both sides, as its authors' does.
        "DRTP": lambda: seeded(seed, lambda: DirectRandomTargetProjection(network(Tanh), sample, classes)),
        "frozen feedback": lambda: CounterCurrent(network(), feedback=False),
        "top layer only": lambda: TopLayerOnly(network()),
    }
    chosen = {}
    for name, make in rules.items():
        yield Measurement(name, "operations a sample", operations(make(), data.train, config.batch_size))
        looks = {"observe": partial(look_inside, data)} if name == "CCL" else {}
        run, race = compete(make, data, training, seed, **looks)
        chosen[name] = run.rate
        yield from results(name, run)
        yield from (Measurement(name, "validation accuracy in the race", value, x=rate) for rate, value in race.items())
        yield Measurement(name, "chosen step size", run.rate)
        if name == "CCL":
            yield from run.rows
            yield from agreement(run.rows)
            yield from templates(run.rule.net, classes)
    alone = {
        "CCL without level 0": (chosen["CCL"], lambda: CounterCurrent(network(), input_level=False)),
        "CCL, own targets": (chosen["CCL"], lambda: CounterCurrent(network(), per_sample=True)),
        "BP, step size 1": (1.0, rules["BP"]),
    }
    for name, (rate, make) in alone.items():
        run, _ = compete(make, data, training._replace(rates=(rate,)), seed)
        yield from results(name, run)
    return chosen


def on_hard_images(config: Config, data: Data, seed: int, rates: dict[str, float]) -> Iterator[Measurement]:
    """Noise and a black square keep the ceiling away; step sizes are those chosen on the clean digits."""
    training = Training(config.hard_epochs, 0, (), config.batch_size, config.clip)
    network = lambda: mirrored(lambda: perceptron(data, config.hidden), data, seed)  # noqa: E731
    rules = {
        "CCL": lambda: CounterCurrent(network()),
        "BP": lambda: Backpropagation(network()),
        "frozen feedback": lambda: CounterCurrent(network(), feedback=False),
    }
    for name, make in rules.items():
        run, _ = compete(make, data, training._replace(rates=(rates[name],)), seed)
        yield from results(name, run, "test accuracy, hard images")


def with_convolutions(config: Config, data: Data, seed: int) -> Iterator[Measurement]:
    """The settings published for convolutional networks, for both rules."""
    lengths = (config.channel_epochs, config.channel_race, config.rates, config.channel_batch)
    training = Training(*lengths, clip=0.3, momentum=0.8, centralize=True, decay_to=0.001)
    network = lambda: mirrored(lambda: convolutional(data, config.channels), data, seed)  # noqa: E731
    rules = {
        "CCL": lambda: CounterCurrent(network(), kind="cosine", decorrelation=0.5, mask_confident=0.1),
        "BP": lambda: Backpropagation(network()),
    }
    first = lambda net: net.pairs[0].forward_module[0].weight  # noqa: E731
    yield Measurement("initial", "spectral centroid", spectral_centroid(first(network())))
    for name, make in rules.items():
        run, _ = compete(make, data, training, seed)
        yield from results(name, run, "test accuracy, convolutions")
        yield Measurement(name, "chosen step size, convolutions", run.rate)
        kernels = first(run.rule.net).detach()
        yield Measurement(name, "spectral centroid", spectral_centroid(kernels))
        for index, kernel in enumerate(kernels[:16].mean(1).flatten(1).tolist()):
            for pixel, value in enumerate(kernel):
                yield Measurement(name, "first kernels", value, step=pixel, x=index)


def with_autoencoders(config: Config, data: Data, seed: int) -> Iterator[Measurement]:
    """The settings published for autoencoders, for both rules."""
    lengths = (config.code_epochs, config.code_race, config.code_rates, 32)
    training = Training(*lengths, clip=0.2, momentum=0.9, centralize=True, decay_to=0.1)

    def network() -> CounterCurrentNet:
        net = mirrored(lambda: convolutional_autoencoder((1, *config.code)), data, seed)
        return seeded(seed, lambda: initialize_autoencoder(net, len(config.code)))

    published = (config.code_rates[0],)
    for name, make, rates in (
        ("CCL", CounterCurrentAutoencoding, config.code_rates),
        ("BP", Autoencoding, config.code_rates),
        ("BP, published step size", Autoencoding, published),
    ):
        alike = training._replace(rates=rates)
        run, _ = compete(lambda make=make: make(network()), data, alike, seed, score=closeness)
        yield Measurement(name, "test error, autoencoder", -run.test)
        yield Measurement(name, "chosen step size, autoencoder", run.rate)
    guess = data.train.inputs.mean(0).expand_as(data.test.targets)
    yield Measurement("mean image", "test error, autoencoder", float(functional.mse_loss(guess, data.test.targets)))


study.claim(
    "near-backpropagation",
    "Counter-current learning classifies within two points of backpropagation, and no more than one below feedback "
    "alignment and difference target propagation.",
    paper="direction (abstract): comparable to other biologically plausible rules; the table's values not known here",
    test=all_of(
        difference("test accuracy", "CCL", "BP").above(-0.02),
        difference("test accuracy", "CCL", "FA").above(-0.01),
        difference("test accuracy", "CCL", "DTP").above(-0.01),
    ),
)
study.claim(
    "hidden-layers-learn",
    "The hidden layers are really trained: eight points above training the top layer alone.",
    paper="implied",
    test=difference("test accuracy", "CCL", "top layer only").above(0.08),
)
study.claim(
    "networks-help-each-other",
    "The feedback network's learning helps the forward network: better than with frozen random feedback.",
    paper="direction (abstract): the two networks enhance each other",
    test=difference("test accuracy", "CCL", "frozen feedback").above(0.0),
)
study.claim(
    "networks-align",
    "The two networks align: in weights at every layer, most at the top, and in representations at every hidden level.",
    paper="figures of weight cosines and CKA that rise in training; numbers not known here",
    test=all_of(
        mean("weight cosine at the top", "CCL").above(0.3),
        mean("smallest weight cosine", "CCL").above(0.0),
        mean("smallest gain of CKA", "CCL").above(0.0),
    ),
)
study.claim(
    "convolutions-and-autoencoders",
    "It trains convolutional networks, within three points of backpropagation, and autoencoders, to at most twice its "
    "error and half that of the mean image.",
    paper="direction (abstract): reconstructions comparable to backpropagation's",
    test=all_of(
        difference("test accuracy, convolutions", "CCL", "BP").above(-0.03),
        ratio("test error, autoencoder", "CCL", "BP").below(2.0),
        ratio("test error, autoencoder", "CCL", "mean image").below(0.5),
    ),
)
study.claim(
    "smoother-filters",
    "The first convolution's kernels are smoother than backpropagation's.",
    paper="a figure of filters; no number",
    test=difference("spectral centroid", "CCL", "BP").below(0.0),
)
study.claim(
    "cheaper-than-target-propagation",
    "A training step costs at most 1.6 times that of backpropagation, and less than difference target propagation's.",
    paper="a table of operations; numbers not known here",
    test=all_of(
        ratio("operations a sample", "CCL", "BP").below(1.6),
        ratio("operations a sample", "CCL", "DTP").below(1.0),
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.counter_current import panels

    figure = Figure(figsize=(11, 11), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["curves", "accuracies", "accuracies"],
            ["alignment", "similarity", "updates"],
            ["templates", "templates", "kernels"],
            ["rates", "autoencoder", "operations"],
        ],
        height_ratios=(1.2, 1, 0.8, 0.9),
    )
    for name, panel in axes.items():
        getattr(panels, f"draw_{name}")(panel, measurements)
    return figure
