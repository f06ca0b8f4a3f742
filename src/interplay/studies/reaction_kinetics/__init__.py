"""Reaction kinetics: what rate equations miss when particles and populations fluctuate in space.

Nine experiments, each next to what mean field says: spreading at the extinction threshold under site exclusion (K1)
and under pair coagulation (K2), pair annihilation (K3), two-species annihilation (K4) and its front (K5), predators and
prey (K6, K7), cyclic competition (K8, K9). A trial runs all of them once (`experiments`); the interval is over trials.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, proportion, ratio
from interplay.studies.reaction_kinetics import experiments
from interplay.studies.reaction_kinetics.experiments import MEAN_FIELD_FREQUENCY


class Config(StudyConfig):
    """Sizes of the nine experiments, for one trial."""

    spreading_runs: PositiveInt = Field(4000, description="K1: contact processes from one seed")
    spreading_time: PositiveFloat = Field(1000.0, gt=100, description="K1: last time")
    inhibition_runs: PositiveInt = Field(4000, description="K2: runs from one seed at the threshold")
    inhibition_sites: PositiveInt = Field(12_000, description="K2: sites of the scan for the threshold")
    inhibition_time: PositiveFloat = Field(400.0, gt=60, description="K2: last time")
    inhibition_scan: tuple[float, ...] = Field((3.04, 3.12, 3.20), description="K2: birth rates; death = 1")
    annihilation_sites: PositiveInt = Field(1_000_000, description="K3: sites in one dimension")
    annihilation_time: PositiveFloat = Field(3000.0, gt=50, description="K3, K4: last time in one dimension")
    mixture_sites: PositiveInt = Field(200_000, description="K4: sites in one dimension")
    mixture_side: PositiveInt = Field(768, description="K4: side in two dimensions")
    front_runs: PositiveInt = Field(200, description="K5: runs, with two fronts each")
    front_sites: PositiveInt = Field(1000, description="K5: sites")
    front_time: PositiveFloat = Field(2000.0, gt=100, description="K5: last time on the lattice")
    predation_side: PositiveInt = Field(64, description="K6: side")
    predation_time: PositiveInt = Field(1000, gt=50, description="K6: last time; the first fifth is left out")
    predation_runs: PositiveInt = Field(8, description="K6: runs for a spectrum")
    invasion_side: PositiveInt = Field(256, description="K7: side")
    invasion_runs: PositiveInt = Field(
        2000, description="K7: runs at each predation rate of the scan (2 x at the threshold)"
    )
    invasion_time: PositiveFloat = Field(1000.0, gt=150, description="K7: last time")
    invasion_scan: tuple[float, ...] = Field((0.377, 0.381, 0.385, 0.389, 0.393), description="K7: predation rates")
    cyclic_side: PositiveInt = Field(256, description="K8: side")
    cyclic_time: PositiveFloat = Field(600.0, description="K8: last time; lengths average over its second half")
    diversity_side: PositiveInt = Field(64, description="K9: side; runs last side^2 / 10")
    diversity_runs: PositiveInt = Field(12, description="K9: runs at each mobility")
    mobilities: tuple[float, ...] = Field((0.2, 0.5, 1.0, 2.0, 5.0), description="K9: in units of the critical one")


study = Study(
    "reaction-kinetics",
    Config,
    presets={
        "smoke": {
            "spreading_runs": 200,
            "spreading_time": 101.0,
            "inhibition_runs": 40,
            "inhibition_sites": 200,
            "inhibition_time": 61.0,
            "annihilation_sites": 20_000,
            "annihilation_time": 400.0,
            "mixture_sites": 4000,
            "mixture_side": 48,
            "front_runs": 10,
            "front_sites": 200,
            "front_time": 101.0,
            "predation_side": 16,
            "predation_time": 100,
            "predation_runs": 2,
            "invasion_side": 32,
            "invasion_runs": 20,
            "invasion_time": 151.0,
            "cyclic_side": 32,
            "cyclic_time": 20.0,
            "diversity_side": 12,
            "diversity_runs": 3,
        },
        "cpu": {},
        "paper": {
            "spreading_runs": 100_000,
            "spreading_time": 10_000.0,
            "inhibition_runs": 50_000,
            "inhibition_sites": 1_000_000,
            "inhibition_time": 4000.0,
            "annihilation_sites": 16_000_000,
            "annihilation_time": 30_000.0,
            "mixture_sites": 16_000_000,
            "mixture_side": 4096,
            "front_runs": 4000,
            "front_sites": 8000,
            "front_time": 100_000.0,
            "predation_side": 256,
            "predation_time": 4000,
            "predation_runs": 64,
            "invasion_side": 2048,
            "invasion_runs": 100_000,
            "invasion_time": 10_000.0,
            "cyclic_side": 512,
            "cyclic_time": 3000.0,
            "diversity_side": 200,
            "diversity_runs": 100,
        },
    },
    seeds={"smoke": 2, "cpu": 5, "paper": 20},
    caveat="Exponents come from windows of two to three decades in time; corrections to scaling are included.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    """Run the experiments one after the other, each from its own branch of the seed."""
    for number, experiment in enumerate(experiments.IN_ORDER):
        yield from experiment(config, np.random.SeedSequence([seed, number]))


study.claim(
    "K1",
    "Birth, death and site exclusion: the extinction threshold has directed percolation's exponents, not mean field's.",
    paper="directed percolation: theta 0.3137, delta 0.1595, 2/z 1.2652; mean field 0, 1, 1",
    test=all_of(
        mean("theta", "contact process").between(0.2937, 0.3337),
        mean("delta", "contact process").between(0.1395, 0.1795),
        mean("2/z", "contact process").between(1.2252, 1.3052),
    ),
)
study.claim(
    "K2",
    "Pair coagulation instead of site exclusion leaves the class the same, and moves the threshold above mean field's.",
    paper="equivalence: delta 0.1595, mean field 1; mean-field threshold birth = death = 1",
    test=all_of(
        mean("delta", "birth-death-coagulation").between(0.1195, 0.1995),
        mean("critical birth", "birth-death-coagulation").above(1.0),
    ),
)
study.claim(
    "K3",
    "Depletion zones slow A + A -> 0 in one dimension to the exact (8 pi D t)^(-1/2).",
    paper="amplitude and exponent exact; mean field t^-1",
    test=all_of(
        mean("density / exact", "A + A", where={"x": (30, 100)}).between(0.98, 1.02),
        mean("density / exact", "A + A", where={"x": (100, 300)}).between(0.98, 1.02),
        mean("density / exact", "A + A", where={"x": (300, 1000)}).between(0.98, 1.02),
        mean("decay exponent", "A + A").between(-0.52, -0.48),
        mean("g(r)", "A + A", where={"x": 1.0}).below(0.5),
        mean("g(r)", "A + A", where={"x": (120, 200)}).between(0.9, 1.1),
    ),
)
study.claim(
    "K4",
    "Segregation slows A + B -> 0 further, towards t^(-d/4).",
    paper="t^(-1/4) in one dimension, t^(-1/2) in two; A + A: t^(-1/2), ln t / t",
    test=all_of(
        mean("decay exponent", "A + B, d=1").between(-0.28, -0.23),
        difference("decay exponent", "A + B, d=1", "A + A, d=1").above(0.0),
        difference("decay exponent", "A + B, d=2", "A + A, d=2").above(0.0),
        mean("segregation index", "A + B, d=1").above(0.0),
    ),
)
study.claim(
    "K5",
    "Separated reactants meet in a front whose own width grows as t^(1/4) on the line, as t^(1/6) in mean field.",
    paper="1/4 in one dimension, 1/6 in mean field",
    test=all_of(
        mean("gap exponent", "front, d=1").between(0.21, 0.29),
        mean("width exponent", "mean field").between(1 / 6 - 0.02, 1 / 6 + 0.02),
    ),
)
study.claim(
    "K5-profile",
    "The profile of all reactions, wandering of the front included, widens as t^(1/4).",
    paper="1/4 asymptotically; the wandering adds a factor sqrt(ln t)",
    test=mean("width exponent", "front, d=1").between(0.21, 0.29),
)
study.claim(
    "K6",
    "Fluctuations keep predators and prey oscillating, slower than mean field says; predators die out earlier.",
    paper="direction only; mean field: damped, frequency 0.387, predators' threshold 0.2",
    test=all_of(
        mean("peak / plateau", "predation 1, hop 0").above(2.0),
        mean("peak frequency", "predation 1, hop 0").below(float(MEAN_FIELD_FREQUENCY)),
        mean("critical predation", "predators").between(0.3, 0.4),
        mean("predator density", "lattice", where={"x": 0.3}).between(0.0, 0.0),
        mean("predator density", "lattice", where={"x": 0.5}).above(0.0),
    ),
)
study.claim(
    "K7",
    "The predators' extinction threshold is in the class of directed percolation.",
    paper="directed percolation in two dimensions: delta 0.4505; mean field 1",
    test=mean("delta", "predators").between(0.37, 0.53),
)
study.claim(
    "K8",
    "May-Leonard forms spirals, rock-paper-scissors with its conserved number does not.",
    paper="direction only",
    test=all_of(
        difference("correlation length", "MayLeonard, exchange 1", "RockPaperScissors, exchange 1").above(0.0),
        ratio("correlation length", "MayLeonard, exchange 4", "MayLeonard, exchange 1").above(1.0),
        mean("peak wave number / smallest", "MayLeonard, exchange 4").above(1.0),
    ),
)
study.claim(
    "K9",
    "Mobility endangers diversity: below a critical value all three species persist, above it one is soon lost.",
    paper="critical mobility (4.5 +- 0.5)e-4",
    test=all_of(
        proportion("species lost", "mobility 0.2 Mc").below(0.1),
        proportion("species lost", "mobility 5 Mc").above(0.9),
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    """Twelve panels, row by row: thresholds, annihilation, predators and prey, cyclic games."""
    from interplay.studies.reaction_kinetics import panels

    drawing = Figure(figsize=(12.5, 15), layout="constrained")
    for draw, axes in zip(panels.IN_ORDER, drawing.subplots(4, 3).flat, strict=True):
        draw(axes, measurements)
    return drawing
