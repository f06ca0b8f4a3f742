"""Do kernels that follow the image beat fixed ones, and does inhibition sharpen them?

Single mixers learn a task that cannot be done without routing; small AttNets that differ in their mixer alone classify
digits among clutter; a diffusion transformer draws digits with attention or with attentive convolution in its place.
Costs are counted, not timed, so that trials repeat; the benchmark has the times.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from interplay.assets.cluttered_digits import cluttered_digits
from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, ratio
from interplay.studies.atconv.classification import Design, Recipe
from interplay.studies.atconv.costs import PUBLISHED_PARAMETERS, costs_by_side, sizes_of_networks
from interplay.studies.atconv.diffusion import Schedule
from interplay.studies.atconv.experiments import classify, draw_digits, filter_by_cue, scale_data


class Config(StudyConfig):
    sizes: tuple[str, ...] = Field(("xxs", "t2"), description="published networks that classify an image")
    sides: tuple[PositiveInt, ...] = Field((16, 24, 32, 48, 64, 96), description="sides of maps whose cost is counted")
    cost_dim: PositiveInt = Field(64, description="channels of those maps")
    cue_mixers: tuple[str, ...] = Field(
        (
            "atconv",
            "atconv without inhibition",
            "static",
            "attention",
            "full convolution",
            "atconv on a grid",
            "atconv with softmax",
        ),
        description="mixers of the cued filtering task",
    )
    cue_dim: PositiveInt = Field(16, description="channels of the mixer of cued filtering")
    cue_side: PositiveInt = Field(12, description="side of its images")
    cue_steps: PositiveInt = Field(600, description="its steps of Adam, on 32 fresh images each")
    cue_rate: PositiveFloat = Field(5e-3, description="its learning rate")
    digit_mixers: tuple[str, ...] = Field(
        ("atconv", "atconv without inhibition", "static", "static with inhibition", "attention", "identity"),
        description="mixers of the classifiers of cluttered digits",
    )
    dims: tuple[PositiveInt, ...] = Field((16, 32, 48), description="channels of their stages")
    depths: tuple[PositiveInt, ...] = Field((1, 2, 1), description="blocks of their stages")
    train: PositiveInt = Field(2000, description="training images, a multiple of 10")
    test: PositiveInt = Field(1000, description="test images, a multiple of 10")
    epochs: PositiveInt = Field(6, description="passes over the training images")
    scaled: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        ((1000, 6), (4000, 6)), description="further training images and epochs, for atconv and static"
    )
    scaled_seeds: NonNegativeInt = Field(2, description="the first so many seeds take those")
    depthwise_seeds: NonNegativeInt = Field(2, description="the first so many seeds try a depthwise channel mixer")
    sit_width: PositiveInt = Field(64, multiple_of=4, description="width of the diffusion transformer")
    sit_heads: PositiveInt = Field(4, description="its heads of attention, a divisor of the width")
    sit_depth: PositiveInt = Field(3, description="its blocks")
    sit_patch: PositiveInt = Field(4, description="side of its patches of the 32 x 32 image")
    sit_steps: PositiveInt = Field(300, description="its training steps on 32 images")
    sit_rate: PositiveFloat = Field(4e-3, description="its learning rate")
    samples: PositiveInt = Field(300, description="digits that it draws")
    sampling_steps: PositiveInt = Field(16, description="Euler steps to draw one")
    judge_images: PositiveInt = Field(4000, le=4000, description="digits that the classifier learns which judges them")
    judge_epochs: PositiveInt = Field(3, description="passes over them")


study = Study(
    "atconv",
    Config,
    presets={
        "smoke": {
            "sizes": ("xxs",),
            "sides": (16, 32, 48, 96),
            "cue_mixers": ("atconv", "atconv without inhibition", "static", "attention"),
            "cue_steps": 20,
            "dims": (8, 16),
            "depths": (1, 1),
            "train": 200,
            "test": 100,
            "epochs": 1,
            "scaled": ((100, 1),),
            "scaled_seeds": 1,
            "depthwise_seeds": 1,
            "sit_width": 16,
            "sit_depth": 1,
            "sit_steps": 4,
            "samples": 60,
            "sampling_steps": 2,
            "judge_images": 300,
            "judge_epochs": 1,
        },
        "cpu": {},
        "paper": {
            "sizes": tuple(PUBLISHED_PARAMETERS),
            "cue_steps": 1000,
            "dims": (64, 128, 288, 512),
            "depths": (3, 3, 16, 3),
            "train": 4000,
            "epochs": 300,
            "scaled": ((1000, 300), (2000, 300)),
            "scaled_seeds": 5,
            "depthwise_seeds": 5,
            "sit_width": 1152,
            "sit_depth": 28,
            "sit_heads": 16,
            "sit_patch": 2,
            "sit_steps": 400_000,
            "sit_rate": 1e-4,
            "samples": 50_000,
            "sampling_steps": 250,
            "judge_epochs": 20,
        },
    },
    seeds={"smoke": 2, "cpu": 4, "paper": 5},
    caveat="Accuracies on ImageNet are not tested: the classifiers see thousands of digits, not a million photographs.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    yield from sizes_of_networks(seed, config.sizes)
    yield from costs_by_side(config.sides, config.cost_dim)
    yield from filter_by_cue(
        seed, config.cue_mixers, dim=config.cue_dim, side=config.cue_side, steps=config.cue_steps, rate=config.cue_rate
    )
    largest = max([config.train, *(count for count, _ in config.scaled)])
    data = cluttered_digits(largest, config.test, generator=np.random.default_rng(seed))
    design, recipe = Design(config.dims, config.depths), Recipe(config.epochs)
    yield from classify(seed, config.digit_mixers, data, config.train, design, recipe)
    yield from scale_data(
        seed,
        data,
        design,
        config.scaled if seed < config.scaled_seeds else (),
        depthwise=(config.train, config.epochs) if seed < config.depthwise_seeds else None,
    )
    schedule = Schedule(
        width=config.sit_width,
        depth=config.sit_depth,
        heads=config.sit_heads,
        patch=config.sit_patch,
        steps=config.sit_steps,
        rate=config.sit_rate,
        samples=config.samples,
        sampling_steps=config.sampling_steps,
    )
    yield from draw_digits(seed, schedule, config.judge_images, config.judge_epochs)


study.claim(
    "compact",
    "All seven sizes of AttNet have the published numbers of parameters and operations, and take images of 224 x 224.",
    paper="84.4 % top-1 at 27 million parameters (abstract); the accuracy is not tested",
    test=all_of(
        mean("sizes with the published counts", "attnet").between(len(PUBLISHED_PARAMETERS), len(PUBLISHED_PARAMETERS)),
        mean("parameters / million", "attnet-t2").between(26.5, 27.5),
        mean("forward at 224 x 224 works", "attnet").above(0.99),
    ),
)
study.claim(
    "routing-filters",
    "Where the image says which filter it needs, attentive convolution leaves less error than fixed kernels, by 0.2 of "
    "the variance, and less than self-attention.",
    paper="adaptive routing (abstract, direction only)",
    test=all_of(
        difference("normalised error", "atconv", "static").below(-0.2),
        difference("normalised error", "atconv", "attention").below(0),
    ),
)
study.claim(
    "inhibition-helps-filters",
    "On the filtering task, inhibition within kernels lowers the error.",
    paper="lateral inhibition (abstract, direction only)",
    test=difference("normalised error", "atconv", "atconv without inhibition").below(0),
)
study.claim(
    "inhibition-sharpens",
    "In trained classifiers, kernels with inhibition have a smaller share of their energy in their mean.",
    paper="lateral inhibition sharpens kernels (abstract, direction only)",
    test=difference("dc share", "atconv", "atconv without inhibition").below(0),
)
study.claim(
    "beats-attention",
    "Classifiers of the same width with attentive convolution are more accurate than with self-attention.",
    paper="consistently outperforms various self-attention mechanisms (abstract)",
    test=difference("test accuracy", "atconv", "attention").above(0),
)
study.claim(
    "beats-static",
    "And more accurate than with static depthwise kernels.",
    paper="implied by the comparison with convolutional networks",
    test=difference("test accuracy", "atconv", "static").above(0),
)
study.claim(
    "linear-cost",
    "Operations grow linearly with the number of pixels, those of attention almost with its square.",
    paper="linear complexity (abstract)",
    test=all_of(
        mean("slope of operations", "atconv").below(1.25),
        mean("slope of operations", "attention").above(1.6),
    ),
)
study.claim(
    "diffusion-no-worse",
    "In a diffusion transformer, attentive convolution in the place of attention costs at most 5 % in loss and in "
    "Fréchet distance, and saves operations.",
    paper="FID of SiT-XL/2 lower by 0.15 after 400,000 steps, and faster (abstract)",
    test=all_of(
        ratio("velocity loss", "atconv", "attention").below(1.05),
        ratio("frechet distance", "atconv", "attention").below(1.05),
        ratio("operations of a sample / million", "atconv", "attention").below(1),
    ),
)
study.claim(
    "diffusion-better",
    "It lowers the Fréchet distance to real digits.",
    paper="FID of SiT-XL/2 lower by 0.15 after 400,000 steps (abstract)",
    test=ratio("frechet distance", "atconv", "attention").below(1),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.atconv import panels

    figure = Figure(figsize=(12, 13), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["errors", "errors", "kernels", "kernels"],
            ["accuracy", "accuracy", "scaling", "scaling"],
            ["dc", "dc", "strength", "strength"],
            ["costs", "costs", "diffusion", "distance"],
            ["attention", "attention", "atconv", "atconv"],
        ],
        height_ratios=[1, 1, 1, 1, 0.75],
    )
    panels.draw_errors(axes["errors"], measurements)
    panels.draw_kernels(axes["kernels"], measurements)
    panels.draw_accuracy(axes["accuracy"], measurements)
    panels.draw_scaling(axes["scaling"], measurements)
    panels.draw_dc_share(axes["dc"], measurements)
    panels.draw_strength(axes["strength"], measurements)
    panels.draw_costs(axes["costs"], measurements)
    panels.draw_pairs(axes["diffusion"], measurements, "velocity loss", "velocity loss")
    panels.draw_pairs(axes["distance"], measurements, "frechet distance", "Fréchet distance to digits")
    for condition in ("attention", "atconv"):
        panels.draw_samples(axes[condition], measurements, condition)
    return figure
