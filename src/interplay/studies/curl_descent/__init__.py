"""How many neurons may learn with the wrong sign, and when does that even help?

Students learn from teachers of their own size while the plasticity of some neurons is inverted. The theory's edge of
stability is held against random networks and against training; past the edge, flips of the two layers are followed to
their opposite ends; and nonlinear networks with one flipped neuron race gradient descent, with controls for what the
sign has to do with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, mean, ratio, tally
from interplay.studies.curl_descent.experiments import (
    Points,
    Race,
    curl_of_the_field,
    from_an_unstable_teacher,
    linear_networks,
    race,
    stability_on_a_grid,
    sweeps,
)


class Config(StudyConfig):
    ratios: PositiveInt = Field(12, description="ratios c = inputs / hidden on the grid, evenly spaced in log c")
    ratio_ranges: tuple[tuple[PositiveFloat, PositiveFloat], tuple[PositiveFloat, PositiveFloat]] = Field(
        ((0.1, 10.0), (0.05, 5.0)), description="range of c for flipped inputs and for flipped hidden units"
    )
    fractions: PositiveInt = Field(9, description="flipped fractions f on the grid")
    largest_fractions: tuple[PositiveFloat, PositiveFloat] = Field(
        (1.0, 0.4), description="largest f for flipped inputs and for flipped hidden units"
    )
    eigenvalue_neurons: int = Field(800, ge=4, description="inputs + hidden of the networks whose matrix is tested")
    grid_neurons: tuple[PositiveInt, PositiveInt] = Field(
        (120, 400),
        description="inputs + hidden of networks trained on the grid, flipped inputs and flipped hidden units",
    )
    grid_steps: PositiveInt = Field(5000, description="most steps of training on the grid")
    grid_points: NonNegativeInt = Field(0, description="training points on the grid; 0 for the limit of many")
    neurons: int = Field(120, ge=12, description="inputs + hidden of the linear networks followed in time")
    points: PositiveInt = Field(250, description="training points of the linear networks")
    batch_size: NonNegativeInt = Field(0, description="points in a minibatch of linear networks; 0 takes all")
    steps: PositiveInt = Field(8000, description="steps from random weights")
    window: int = Field(1000, ge=2, description="last steps that count for late loss and order parameter")
    lyapunov_steps: int = Field(4000, ge=100, description="further steps with twins for the Lyapunov exponent")
    teacher_ratio: PositiveFloat = Field(4.0, description="c of the networks that start at an unstable teacher")
    teacher_fractions: tuple[PositiveFloat, ...] = Field((0.3, 0.4, 0.5), description="their flipped fractions")
    teacher_steps: PositiveInt = Field(30_000, description="their steps")
    race_inputs: PositiveInt = Field(100, description="inputs of the racing tanh networks")
    race_hidden: PositiveInt = Field(10, description="their hidden units, of which one is flipped")
    race_points: PositiveInt = Field(600, description="their training points")
    race_horizon: PositiveInt = Field(8000, description="steps after which a race ends undecided")
    scales: tuple[PositiveFloat, ...] = Field((1.0, 2.0, 4.0), description="initial scales s of the racing students")
    main_scale: PositiveFloat = Field(2.0, description="the scale that is judged and at which the controls run")
    draws: PositiveInt = Field(
        5, description="races at the main scale on each seed, with networks and points of their own"
    )
    adam_rates: tuple[PositiveFloat, ...] = Field((1e-3, 3e-3, 1e-2), description="learning rates of Adam, a control")
    flipped_numbers: tuple[PositiveInt, ...] = Field((2, 5, 10), description="further numbers of flipped neurons")
    swept_points: tuple[PositiveInt, ...] = Field((150, 300, 1200), description="further numbers of points")
    lr: PositiveFloat = Field(0.1, description="step size of a pass over the points")
    probes: PositiveInt = Field(8, description="random vectors of the curl estimate")


study = Study(
    "curl-descent",
    Config,
    presets={
        "smoke": {
            "ratios": 3,
            "fractions": 3,
            "eigenvalue_neurons": 60,
            "grid_neurons": (40, 40),
            "grid_steps": 250,
            "neurons": 40,
            "points": 100,
            "steps": 500,
            "window": 100,
            "lyapunov_steps": 200,
            "teacher_steps": 500,
            "race_inputs": 20,
            "race_hidden": 5,
            "race_points": 60,
            "race_horizon": 300,
            "draws": 2,
            "adam_rates": (1e-2,),
            "flipped_numbers": (2, 5),
            "swept_points": (30,),
            "probes": 2,
        },
        "cpu": {},
        "paper": {
            "ratios": 20,
            "ratio_ranges": ((0.1, 100.0), (0.01, 10.0)),
            "fractions": 21,
            "largest_fractions": (1.0, 1.0),
            "eigenvalue_neurons": 4000,
            "grid_neurons": (220, 220),
            "grid_steps": 100_000,
            "grid_points": 250,
            "neurons": 220,
            "batch_size": 10,
            "steps": 100_000,
            "lyapunov_steps": 20_000,
            "teacher_steps": 100_000,
            "race_points": 2000,
            "race_horizon": 100_000,
            "draws": 1,
            "scales": (0.01, 0.1, 0.5, 1.0, 2.0, 4.0, 10.0),
            "flipped_numbers": tuple(range(2, 11)),
            "swept_points": (50, 100, 200, 400, 600, 1000, 1500),
        },
    },
    seeds={"smoke": 2, "cpu": 8, "paper": 40},
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    on_the_grid = Points(config.grid_points, config.batch_size if config.grid_points else 0, config.lr)
    ranges = zip(config.ratio_ranges, config.largest_fractions, config.grid_neurons, strict=True)
    for layer, (limits, largest, neurons) in zip(("input", "readout"), ranges, strict=True):
        yield from stability_on_a_grid(
            seed,
            layer,
            np.geomspace(*limits, config.ratios).tolist(),
            np.linspace(0, largest, config.fractions).tolist(),
            eigenvalue_neurons=config.eigenvalue_neurons,
            neurons=neurons,
            points=on_the_grid,
            steps=config.grid_steps,
        )
    points = Points(config.points, config.batch_size, config.lr)
    yield from linear_networks(seed, config.neurons, points, config.steps, config.lyapunov_steps, config.window)
    yield from from_an_unstable_teacher(
        seed, config.neurons, config.teacher_ratio, config.teacher_fractions, points, config.teacher_steps
    )
    track = Race(seed, config.race_inputs, config.race_hidden, config.race_points, config.lr, config.race_horizon)
    yield from race(track, config.scales, config.main_scale, config.adam_rates, config.draws)
    yield from sweeps(track, config.main_scale, config.flipped_numbers, config.swept_points)
    yield from curl_of_the_field(seed, config.race_inputs, config.race_hidden, config.probes)


study.claim(
    "small-curl-harmless",
    "Below the edge, flips of either layer leave learning like gradient descent: on every seed the loss ends below "
    "1e-8 and below a thousand times that of gradient descent.",
    paper="qualitative (abstract)",
    test=all_of(
        *(
            tally(f"final loss above {level}", f"{flips} flips, c = 0.2").below(0.5)
            for flips in ("input", "readout")
            for level in ("1e-8", "1e3 times GD's")
        )
    ),
)
for _flips in ("input", "readout"):
    study.claim(
        f"edge-{_flips}",
        f"With {_flips} flips the solutions of large random networks lose stability where the theory says.",
        paper="phase diagram; the curves follow from random matrix theory",
        test=mean("agreement of eigenvalues with theory", f"{_flips} flips").above(0.95),
    )
    study.claim(
        f"edge-{_flips}-in-training",
        f"With {_flips} flips training from the teacher stays or leaves as the theory says.",
        paper="phase diagram, inputs + hidden = 220",
        test=mean("agreement of training with theory", f"{_flips} flips").above(0.95),
    )
study.claim(
    "input-flips-chaotic",
    "Past the edge, flipped inputs make learning chaotic and the error stays high on every seed.",
    paper="qualitative (abstract)",
    test=all_of(
        tally("late loss below 1e-3", "input flips, c = 1").below(0.5),
        ratio("order parameter", "input flips, c = 1", "GD, c = 1").above(10),
        mean("Lyapunov exponent / step^-1", "input flips, c = 1").above(0),
    ),
)
study.claim(
    "readout-flips-return",
    "Past the edge, flipped hidden units drive the loss up from an unstable solution and still bring it down again.",
    paper="qualitative (abstract)",
    test=all_of(
        mean("log10 of peak / start, from the teacher", "readout flips, c = 4", unit=("seed", "item")).above(2),
        mean("log10 of final loss, from the teacher", "readout flips, c = 4", unit=("seed", "item")).below(-4),
    ),
)
study.claim(
    "faster-than-gradient-descent",
    "One flipped hidden unit of a tanh network started at twice the teacher's scale makes it learn faster than "
    "gradient descent.",
    paper="qualitative (abstract, figure 5)",
    test=ratio("steps to 0.001", "GD", "curl", where={"x": 2.0}, unit=("seed", "item")).above(1.15),
)
study.claim(
    "no-gradient",
    "With mixed signs the update field has curl, with equal signs it has none.",
    paper="by definition",
    test=all_of(
        mean("curl fraction", "GD").below(1e-6),
        *(mean("curl fraction", flips).above(1e-6) for flips in ("input flips", "readout flips", "both flipped")),
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.curl_descent import panels

    figure = Figure(figsize=(12, 12.5), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["input", "input", "readout", "readout", "toy", "toy"],
            ["below", "below", "past", "past", "teacher", "teacher"],
            ["eigenvalue", "eigenvalue", "race", "race", "controls", "controls"],
            ["scale", "scale", "flipped", "flipped", "points", "points"],
        ]
    )
    panels.draw_grid(axes["input"], measurements, "input")
    panels.draw_grid(axes["readout"], measurements, "readout")
    panels.draw_toy(axes["toy"])
    panels.draw_losses(axes["below"], measurements, 0.2)
    panels.draw_losses(axes["past"], measurements, 1.0)
    panels.draw_teacher(axes["teacher"], measurements)
    panels.draw_eigenvalue(axes["eigenvalue"], measurements)
    panels.draw_race(axes["race"], measurements)
    panels.draw_controls(axes["controls"], measurements)
    panels.draw_ratios(axes["scale"], measurements, "steps to 0.001", "initial scale s of the student")
    panels.draw_ratios(axes["flipped"], measurements, "steps to 0.001 by flipped neurons", "flipped hidden units")
    panels.draw_ratios(axes["points"], measurements, "steps to 0.001 by points", "training points")
    return figure
