"""The experiments of the study, each as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from interplay.assets.cluttered_digits import ClutteredDigits
from interplay.assets.images import ImageSet
from interplay.evidence import Measurement
from interplay.studies.atconv.classification import Design, MicroAttNet, Recipe, accuracy, trained_classifier
from interplay.studies.atconv.diffusion import Judge, Schedule, digit_sets, frechet_distance, train_generator
from interplay.studies.atconv.filtering import OFFSETS, learn_filtering
from interplay.vision.atconv import ATConv2d, count_parameters, kernel_statistics

__all__ = ["classify", "draw_digits", "filter_by_cue", "scale_data"]

SCALED = ("atconv", "static")
SHOWN = 6
"""Digits that the first seed keeps for the figure, of the first classes."""


def filter_by_cue(
    seed: int, mixers: Sequence[str], *, dim: int, side: int, steps: int, rate: float
) -> Iterator[Measurement]:
    """Test error of every mixer along training; kernels of one trained layer for one image of each cue."""
    for condition in mixers:
        curve = learn_filtering(
            seed, condition, dim=dim, side=side, steps=steps, batch_size=32, rate=rate, test=512, looks=10
        )
        for step, error in zip(curve.steps, curve.errors, strict=True):
            yield Measurement(condition, "normalised error", error, step=step)
        mixer = curve.network[1]
        if condition == "atconv" and isinstance(mixer, ATConv2d):
            images = torch.tensor(OFFSETS).view(-1, 1, 1, 1).expand(-1, 1, side, side)
            with torch.no_grad():
                kernels = mixer.kernels(curve.network[0](images))
            channel = int(kernels.var(0).sum((-2, -1)).argmax())
            for offset, kernel in zip(OFFSETS, kernels[:, channel], strict=True):
                for tap, weight in enumerate(kernel.flatten().tolist()):
                    yield Measurement(condition, "kernel tap", weight, step=tap, x=offset)


def classify(
    seed: int, mixers: Sequence[str], data: ClutteredDigits, train: int, design: Design, recipe: Recipe
) -> Iterator[Measurement]:
    """Accuracy of every mixer on the same images, and what its kernels look like."""
    for condition in mixers:
        network = trained_classifier(seed, condition, _first(data.train, train), design, recipe)
        right = accuracy(network, data.test)
        yield Measurement(condition, "test accuracy", right)
        yield Measurement(condition, "parameters", count_parameters(network))
        if condition in SCALED:
            yield Measurement(condition, "accuracy by images", right, step=recipe.epochs, x=train)
        yield from _kernels(condition, network, data.test)


def scale_data(
    seed: int,
    data: ClutteredDigits,
    design: Design,
    scaled: Sequence[tuple[int, int]],
    depthwise: tuple[int, int] | None,
) -> Iterator[Measurement]:
    """Attentive against static kernels with other numbers of images and epochs, and with a depthwise channel mixer."""
    for images, epochs in scaled:
        for condition in SCALED:
            network = trained_classifier(seed, condition, _first(data.train, images), design, Recipe(epochs))
            yield Measurement(condition, "accuracy by images", accuracy(network, data.test), step=epochs, x=images)
    if depthwise is not None:
        images, epochs = depthwise
        for condition in ("atconv", "static", "identity"):
            both = Design(design.dims, design.depths, design.expansion, depthwise=True)
            network = trained_classifier(seed, condition, _first(data.train, images), both, Recipe(epochs))
            yield Measurement(condition, "test accuracy, depthwise channel mixer", accuracy(network, data.test))


def draw_digits(seed: int, schedule: Schedule, judge_images: int, judge_epochs: int) -> Iterator[Measurement]:
    """Loss, distance to real digits and cost of a diffusion transformer, with attention and without."""
    train, test = digit_sets(seed, 4000, 1000)
    judge = Judge(seed, _first(train, judge_images), judge_epochs)
    real = judge.features(test.images)
    yield Measurement("real digits", "judge's accuracy", judge.accuracy(test))
    floor = frechet_distance(judge.features(train.images[: schedule.samples]), real)
    yield Measurement("real digits", "frechet distance", floor)
    for condition in ("attention", "atconv"):
        drawn = train_generator(seed, condition, train, test, schedule)
        images = ((drawn.images + 1) / 2).clamp(0, 1)
        yield Measurement(condition, "velocity loss", drawn.loss)
        yield Measurement(condition, "frechet distance", frechet_distance(judge.features(images), real))
        yield Measurement(condition, "judge's accuracy", judge.accuracy(ImageSet(images, drawn.labels)))
        yield Measurement(condition, "operations of a sample / million", drawn.operations / 1e6)
        if seed == 0:
            for label in range(SHOWN):
                for place, value in enumerate(images[label].flatten().tolist()):
                    yield Measurement(condition, "pixel", round(value, 2), step=place, item=str(label))


def _first(images: ImageSet, count: int) -> ImageSet:
    return ImageSet(images.images[:count], images.labels[:count])


def _kernels(condition: str, network: MicroAttNet, test: ImageSet) -> Iterator[Measurement]:
    """Means over layers, and single layers by depth."""
    if not any(isinstance(module, ATConv2d) for module in network.modules()):
        return
    found = list(kernel_statistics(network, test.images[:200]).values())
    named = {
        "dc share": [layer.dc_share for layer in found],
        "dc share before inhibition": [layer.raw_dc_share for layer in found],
        "kernel cosine": [layer.mean_absolute_cosine for layer in found],
        "effective rank": [layer.effective_rank for layer in found],
        "routing variance": [layer.routing_variance for layer in found],
    }
    for metric, values in named.items():
        yield Measurement(condition, metric, sum(values) / len(values))
    for depth, layer in enumerate(found):
        yield Measurement(condition, "dc share by layer", layer.dc_share, x=depth)
        yield Measurement(condition, "dc share before inhibition by layer", layer.raw_dc_share, x=depth)
        if condition == "atconv":
            for channel, strength in enumerate(layer.strength.tolist()):
                yield Measurement(condition, "strength of inhibition", strength, step=channel, x=depth)
