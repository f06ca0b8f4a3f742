"""Which frequency does each neuron learn, how do neurons add together, and when do they generalise?

Two-layer networks learn (x + y) mod p. Races of frequencies under gradient descent are predicted from the initial
weights; networks trained by AdamW are taken apart into frequencies and phases, and their activation is swapped; ideal
neurons vote with fewer frequencies and phases; and with a quarter of the table held out, networks memorise and then
generalise, with weight decay and without.
"""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, ratio
from interplay.studies.modular_addition.experiments import (
    PUBLISHED_LOSSES,
    diversification,
    features,
    grokking,
    races,
)


class Config(StudyConfig):
    p: int = Field(23, ge=5, description="odd modulus")
    neurons: PositiveInt = Field(512, description="hidden neurons, but in grokking")
    gd_lr: PositiveFloat = Field(1.0, description="rate of gradient descent")
    gd_steps: PositiveInt = Field(1500, description="steps of gradient descent")
    adamw_lr: PositiveFloat = Field(5e-4, description="rate of AdamW on the whole table")
    adamw_steps: PositiveInt = Field(700, description="steps of AdamW on the whole table")
    grokking_neurons: PositiveInt = Field(256, description="hidden neurons of the networks that grok")
    grokking_lr: PositiveFloat = Field(5e-4, description="rate of AdamW with pairs held out")
    grokking_steps: PositiveInt = Field(5000, description="steps of AdamW with pairs held out")
    weight_decay: NonNegativeFloat = Field(2.0, description="decay that is compared with none")
    train_fraction: float = Field(0.75, gt=0, lt=1, description="share of the table that is trained on")
    every: PositiveInt = Field(25, description="steps between two records of grokking")
    null_draws: PositiveInt = Field(2000, description="sets of random phases that evenness is held against")
    vote_p: int = Field(23, ge=5, description="odd modulus of the ideal neurons' vote; published for 23")
    vote_neurons: PositiveInt = Field(128, description="ideal neurons over all frequencies; published for 128")


study = Study(
    "modular-addition",
    Config,
    presets={
        "smoke": {
            "p": 11,
            "neurons": 64,
            "gd_steps": 200,
            "adamw_steps": 200,
            "grokking_neurons": 64,
            "grokking_steps": 200,
            "null_draws": 200,
        },
        "cpu": {},
        "paper": {
            "gd_lr": 0.1,
            "gd_steps": 15_000,
            "adamw_lr": 5e-5,
            "adamw_steps": 5000,
            "grokking_neurons": 512,
            "grokking_lr": 1e-4,
            "grokking_steps": 50_000,
            "every": 100,
        },
    },
    seeds={"smoke": 2, "cpu": 16, "paper": 20},
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    yield from races(seed, config.p, config.neurons, config.gd_lr, config.gd_steps)
    yield from features(seed, config.p, config.neurons, config.adamw_lr, config.adamw_steps, config.null_draws)
    yield from diversification(config.vote_p, config.vote_neurons)
    yield from grokking(
        seed,
        config.p,
        config.grokking_neurons,
        config.grokking_lr,
        config.grokking_steps,
        (config.weight_decay, 0.0),
        config.train_fraction,
        config.every,
    )


study.claim(
    "one-frequency-a-neuron",
    "Quadratic neurons trained by AdamW end on one frequency each, with the output phase at twice the input phase.",
    paper="fits near perfect; all 512 neurons on the diagonal psi = 2 phi (p = 23)",
    test=all_of(mean("IPR", "quad AdamW").above(0.70), mean("median |D| / rad", "quad AdamW").below(0.1)),
)
study.claim(
    "predicted-winner",
    "Under gradient descent the frequency that a neuron ends on is the one whose decoupled flow, from the initial "
    "magnitudes and phases, dominates first; neither magnitude nor phase alone tells as much.",
    paper="proved for the decoupled flow; direction only for networks",
    test=all_of(
        mean("hit rate", "flow").above(0.85),
        difference("hit rate", "flow", "magnitude alone").above(0.25),
        difference("hit rate", "flow", "misalignment alone").above(0.25),
    ),
)
study.claim(
    "equal-magnitudes",
    "Where all frequencies start with the same magnitude, the best aligned one leads its neuron when the loss first "
    "falls below 2.9.",
    paper="the frequency with the smallest initial |D| wins (corollary)",
    test=mean("hit rate at a loss of 2.9, equal magnitudes", "misalignment alone").above(0.75),
)
study.claim(
    "flawed-indicator",
    "The logits of quadratic networks trained by AdamW are an indicator of the right answer with ghosts of half its "
    "height at the doubled inputs.",
    paper="heights p / 2 and p / 4 for ideal neurons, so a ratio of 0.5",
    test=all_of(
        mean("R^2 of the flawed indicator", "quad AdamW").above(0.9),
        mean("ghost / truth", "quad AdamW").between(0.35, 0.65),
    ),
)
study.claim(
    "diversification",
    "Ideal neurons vote right only if they have many frequencies and phases: their mean loss by number of frequencies "
    "and by range of phases is the published one, to a hundredth.",
    paper="; ".join(f"{what}: {loss:.3g}" for what, loss in PUBLISHED_LOSSES.items()),
    test=all_of(
        *(
            mean("mean loss of the vote", name).between(0.99 * loss, 1.01 * loss)
            for name, loss in PUBLISHED_LOSSES.items()
        )
    ),
)
study.claim(
    "phases-no-less-even-than-chance",
    "The input phases of the neurons that share a frequency are spread at least as evenly as chance would: their mean "
    "resultant length at orders 2 and 4 stays below what 95 % of random phases show.",
    paper="approximately uniform",
    test=all_of(
        *(
            difference("mean resultant length", network, f"{network}, 95 % of chance", where={"x": order}).below(0)
            for network in ("quad AdamW", "ReLU AdamW")
            for order in (2.0, 4.0)
        )
    ),
)
study.claim(
    "even-part",
    "A network trained with ReLU still adds when the activation is swapped for one with an even part, and no longer "
    "for an odd one.",
    paper="|x|, x^2, x^4, softplus(2x), exp(x): 100 %; x 4.1 %, x^3 3.6 %",
    test=all_of(
        *(mean("accuracy after the swap", name).above(0.98) for name in ("|x|", "x^2", "x^4")),
        *(mean("accuracy after the swap", name).above(0.80) for name in ("softplus(2x)", "exp(x)")),
        *(mean("accuracy after the swap", name).below(0.10) for name in ("x", "x^3")),
    ),
)
study.claim(
    "three-stages",
    "With weight decay the network first memorises, with a plateau of the test accuracy where it knows the pairs whose "
    "mirror it has seen, and then generalises; it does so sooner, and with purer frequencies, than without decay.",
    paper="p = 23: stages end at steps 1744 and 9431 of 50,000 at a fifth of the rate, test accuracy 0.962, IPR 0.836",
    test=all_of(
        mean("test accuracy when training is first perfect", "weight decay").between(0.65, 0.80),
        mean("test accuracy", "weight decay").above(0.92),
        difference("IPR", "weight decay", "no decay").above(0.03),
        ratio("steps to 0.9 test accuracy", "weight decay", "no decay").below(1),
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.modular_addition import panels

    drawing = Figure(figsize=(19, 11), layout="constrained")
    axes = drawing.subplots(3, 5)
    panels.draw_race(axes[0, 0], measurements, "magnitude alpha")
    panels.draw_race(axes[0, 1], measurements, "misalignment / rad")
    panels.draw_dominance(axes[0, 2], measurements)
    panels.draw_hit_rates(axes[0, 3], measurements)
    panels.draw_concentration(axes[0, 4], measurements)
    panels.draw_phases(axes[1, 0], measurements)
    panels.draw_evenness(axes[1, 1], measurements)
    panels.draw_logits(axes[1, 2], measurements)
    panels.draw_ghosts(axes[1, 3], measurements)
    panels.draw_diversification(axes[1, 4], measurements)
    panels.draw_grokking(axes[2, 0], measurements, ("train loss", "test loss"), log=True)
    panels.draw_groups(axes[2, 1], measurements)
    panels.draw_grokking(axes[2, 2], measurements, ("|sin D|",))
    panels.draw_grokking(axes[2, 3], measurements, ("IPR",))
    panels.draw_swaps(axes[2, 4], measurements)
    return drawing
