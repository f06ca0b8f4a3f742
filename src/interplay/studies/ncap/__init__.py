"""Does a worm's wiring swim before it has learned anything, learn from little, and fit other bodies?

Circuits of four weights and a tanh network of thousands are trained by the paper's evolution strategy to swim forwards
with dm_control's six-link swimmer. The network's evolution was tuned apart from the circuit's. Ablations take sign
constraints, weight sharing, the constant initial weights, the oscillator or the stretch feedback away.
"""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, proportion, ratio
from interplay.studies.ncap.comparisons import fisher_exact, share
from interplay.studies.ncap.experiments import (
    CIRCUITS,
    Plan,
    other_bodies,
    parameter_counts,
    portrait,
    trained,
    untrained,
    without_parts,
)
from interplay.studies.ncap.swimming import Search


class Config(StudyConfig):
    links: int = Field(6, ge=3, description="links of the swimmer that is trained")
    hidden: tuple[PositiveInt, ...] = Field((64, 64), description="hidden units of the tanh network")
    wide_hidden: tuple[PositiveInt, ...] = Field((256, 256), description="those of the larger network that is counted")
    episode: PositiveInt = Field(250, description="steps of a training episode")
    evaluation_steps: PositiveInt = Field(1000, description="steps of an evaluation episode")
    evaluation_episodes: PositiveInt = Field(3, description="episodes of an evaluation")
    evaluate_every: PositiveInt = Field(12_000, description="environment steps of training between evaluations")
    draws: PositiveInt = Field(3, description="initial networks whose untrained return is measured on each seed")
    circuit_budget: PositiveInt = Field(60_000, description="environment steps of a circuit's training")
    network_budget: PositiveInt = Field(240_000, description="environment steps of the network's training")
    circuit_population: int = Field(8, ge=4, multiple_of=2, description="members of a circuit's generation")
    circuit_sigma: PositiveFloat = Field(0.1, description="standard deviation of a circuit's perturbations")
    circuit_lr: PositiveFloat = Field(0.1, description="Adam's step size for a circuit")
    network_population: int = Field(8, ge=4, multiple_of=2, description="members of the network's generation")
    network_sigma: PositiveFloat = Field(0.1, description="standard deviation of the network's perturbations")
    network_lr: PositiveFloat = Field(0.05, description="Adam's step size for the network")
    normalise: bool = Field(False, description="whether the network's observations are normalised by running moments")
    shorter: tuple[int, ...] = Field((3, 4), description="links of shorter bodies, reported only")
    longer: tuple[int, ...] = Field((8, 10, 12, 15), description="links of longer bodies")


study = Study(
    "ncap",
    Config,
    presets={
        "smoke": {
            "episode": 60,
            "evaluation_steps": 100,
            "evaluation_episodes": 2,
            "evaluate_every": 1000,
            "draws": 1,
            "circuit_budget": 1440,
            "network_budget": 960,
            "shorter": (3,),
            "longer": (8,),
        },
        "cpu": {},
        "paper": {
            "hidden": (256, 256),
            "episode": 1000,
            "evaluate_every": 100_000,
            "evaluation_episodes": 10,
            "draws": 10,
            "circuit_budget": 10_000_000,
            "network_budget": 10_000_000,
            "circuit_sigma": 0.02,
            "circuit_lr": 0.01,
            "network_sigma": 0.02,
            "network_lr": 0.01,
        },
    },
    seeds={"smoke": 2, "cpu": 8, "paper": 10},
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    plan = Plan(
        links=config.links,
        hidden=config.hidden,
        normalise=config.normalise,
        episode=config.episode,
        evaluation_steps=config.evaluation_steps,
        evaluation_episodes=config.evaluation_episodes,
        evaluate_every=config.evaluate_every,
        circuit=Search(config.circuit_population, config.circuit_sigma, config.circuit_lr, config.circuit_budget),
        network=Search(config.network_population, config.network_sigma, config.network_lr, config.network_budget),
    )
    yield from parameter_counts(plan, config.wide_hidden)
    yield from untrained(plan, seed, config.draws)
    circuits = {}
    for condition in (*CIRCUITS, "network"):
        rows, circuits[condition] = trained(plan, seed, condition)
        yield from rows
    yield from without_parts(plan, seed, circuits)
    yield from other_bodies(plan, seed, circuits["constant"], config.shorter, config.longer)
    if seed == 0:  # one body is enough for a picture
        yield from portrait(plan, seed, circuits["uniform"])


study.claim(
    "untrained-swims",
    "The untrained circuit swims well already, and far better than an untrained network.",
    paper="good initial performance (abstract), direction only",
    test=all_of(
        mean("untrained return", "constant").above(700),
        ratio("untrained return", "constant", "network").above(2.5),
    ),
)
study.claim(
    "learns-from-little",
    "From random weights of the right sign the circuit reaches a return of 800 within half of the environment steps "
    "that a network needs.",
    paper="dramatically improves data efficiency (abstract), direction only",
    test=ratio("steps to 800", "uniform", "network").below(0.5),
)
study.claim(
    "constant-weights-need-none",
    "With its constant initial weights the circuit is at a return of 800 before training on most seeds.",
    paper="good initial performance (abstract), direction only",
    test=proportion("at 800 untrained", "constant").above(0.5),
)
study.claim(
    "same-asymptote",
    "Trained on a quarter of the network's environment steps, the circuit ends near its return or above.",
    paper="comparable asymptotic performance (abstract), direction only",
    test=all_of(*(ratio("final return", condition, "network").above(0.9) for condition in ("constant", "uniform"))),
)
study.claim(
    "fewer-parameters",
    "The circuit has orders of magnitude fewer parameters than the network.",
    paper="orders of magnitude fewer (abstract), direction only",
    test=ratio("parameters", "network", "constant").above(1000),
)
study.claim(
    "fits-longer-bodies",
    "Weights that were trained in one body swim unchanged in bodies of 8 to 15 links.",
    paper="transfers across body designs (abstract), direction only",
    test=ratio("return in a body", "longer bodies", "own body").above(0.8),
)
study.claim(
    "signs-are-crucial",
    "From random weights, evolution finds the way to 800 with sign constraints and mostly not without.",
    paper="sign constraints are crucial for learning (abstract), direction only",
    test=all_of(
        share("reaches 800", "uniform").above(0.8),
        share("reaches 800", "unsigned uniform").below(0.5),
        fisher_exact("reaches 800", "uniform", "unsigned uniform").below(0.05),
    ),
)
study.claim(
    "initial-weights-matter-at-first",
    "Constant initial weights make the better start, and training makes up for random ones.",
    paper="weight initialisation contributes to initial performance (abstract), direction only",
    test=all_of(
        difference("untrained return", "constant", "uniform").above(300),
        ratio("final return", "uniform", "constant").between(0.9, 1.1),
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.ncap import panels

    figure = Figure(figsize=(13, 14.5), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["film"] * 3,
            ["learning", "untrained", "ends"],
            ["wave", "activity", "bodies"],
            ["parts", "wiring", "wiring"],
        ],
        height_ratios=[0.75, 1, 1, 1],
    )
    panels.draw_film(axes["film"], measurements)
    panels.draw_learning(axes["learning"], measurements)
    panels.draw_untrained(axes["untrained"], measurements)
    panels.draw_ends(axes["ends"], measurements)
    panels.draw_wave(axes["wave"], measurements)
    panels.draw_activity(axes["activity"], measurements)
    panels.draw_bodies(axes["bodies"], measurements)
    panels.draw_parts(axes["parts"], measurements)
    panels.draw_wiring(axes["wiring"], measurements)
    return figure
