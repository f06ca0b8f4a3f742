"""When does a passing deficit last, and does it take more than depth and time?

Two pathways compete for the modes of a target while one of them is held back early, late, or not at all; the network is
held against the equation of the race. Then matrices are completed after a spell on another matrix, or on fewer of the
same entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, ratio
from interplay.studies.critical_periods.experiments import (
    FROM_HALF,
    LARGEST,
    Completion,
    Pathways,
    against_the_equation,
    completion_by_switch,
    deficits_by_onset,
    depth_effect,
    fewer_examples,
    masked_mode,
    nonlinear_pathways,
    onset_curve,
    structure_of_the_first_task,
)


class Config(StudyConfig):
    width: PositiveInt = Field(100, description="hidden units of each pathway")
    steps: int = Field(1000, ge=200, description="steps of the pathway networks")
    lr: PositiveFloat = Field(0.01, description="their step size")
    deficit: PositiveInt = Field(150, description="steps that the deficit of a pathway lasts")
    depth: PositiveInt = Field(4, description="matrices of a pathway where depth is not varied")
    onsets: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = Field(
        (0, 400, 750), description="first steps of an early, a middle and a late deficit"
    )
    curve_depths: tuple[PositiveInt, ...] = Field((2, 3, 4), description="depths of the curves over onsets")
    curve_onsets: tuple[NonNegativeInt, ...] = Field(
        (0, 25, 50, 75, 100, 125, 150, 175, 200, 250, 300, 350, 400, 500, 600, 750), description="onsets of the curves"
    )
    slower: tuple[PositiveInt, ...] = Field((1, 2, 4), description="divisors of the step size against the equation")
    race_lr: PositiveFloat = Field(1e-3, description="step size of the networks that vary depth from the same p0")
    race_horizon: PositiveFloat = Field(4.0, description="their steps times step size")
    masked_depth: PositiveInt = Field(3, description="matrices of a pathway with a masked mode, and of nonlinear ones")
    masked: NonNegativeInt = Field(1, description="mode that pathway A cannot see, from 0")
    masked_length: PositiveInt = Field(200, description="steps that mask and freeze last")
    n: PositiveInt = Field(50, description="rows and columns of the matrices that are completed")
    rank: PositiveInt = Field(3, description="rank of the matrix to complete")
    first_rank: PositiveInt = Field(6, description="rank of the matrix of the first task")
    entries: PositiveInt = Field(600, description="entries of a matrix that are seen")
    completion_lr: PositiveFloat = Field(5.0, description="step size of completion")
    scale: PositiveFloat = Field(1e-3, description="initial size of the entries of the product")
    further: PositiveInt = Field(3000, description="steps on the second task")
    switches: tuple[NonNegativeInt, ...] = Field(
        (0, 50, 100, 200, 400, 800, 1600), description="steps T_c on the first task; the first and the last are judged"
    )
    depths: tuple[PositiveInt, ...] = Field((1, 2, 3), description="factors of the product")
    shown: PositiveInt = Field(800, description="T_c of the run whose singular values are shown")
    ranks: tuple[PositiveInt, ...] = Field((1, 3, 6, 9), description="ranks of the first task")
    numbers: tuple[PositiveInt, ...] = Field((500, 600, 900, 1250), description="numbers of entries seen")
    draws: PositiveInt = Field(4, description="draws of matrices and starts a seed, for ranks and numbers of entries")
    few: PositiveInt = Field(300, description="entries seen first in the deficit of fewer examples")
    full: tuple[PositiveInt, PositiveInt] = Field((700, 400), description="entries seen then; the first is judged")


study = Study(
    "critical-periods",
    Config,
    presets={
        "smoke": {
            "width": 10,
            "steps": 1000,
            "curve_depths": (2, 3),
            "curve_onsets": (0, 200, 600),
            "slower": (1, 2, 4),
            "race_lr": 4e-3,
            "n": 20,
            "rank": 2,
            "entries": 180,
            "first_rank": 6,
            "further": 300,
            "switches": (0, 20, 200),
            "shown": 100,
            "draws": 2,
            "few": 100,
            "numbers": (120, 180, 240, 300),
            "full": (200, 150),
        },
        "cpu": {},
        "paper": {
            "n": 100,
            "rank": 5,
            "first_rank": 10,
            "entries": 2000,
            "completion_lr": 0.2,
            "further": 30_000,
            "switches": (0, 1000, 5000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000),
            "shown": 20_000,
            "ranks": (2, 5, 10, 15),
            "numbers": (1000, 2000, 3000, 4000),
            "draws": 1,
            "few": 1000,
            "full": (2000, 1250),
        },
    },
    seeds={"smoke": 2, "cpu": 16, "paper": 20},
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    track = Pathways(seed, config.width, config.steps, config.lr, config.deficit)
    early, _, late = config.onsets
    yield from deficits_by_onset(
        track, config.depth, dict(zip(("early", "middle", "late"), config.onsets, strict=True))
    )
    yield from onset_curve(track, config.curve_depths, config.curve_onsets)
    yield from against_the_equation(track, config.depth, config.onsets, config.slower)
    yield from depth_effect(
        track, RACE_DEPTHS, p0=0.3, value=10.0, duration=0.05, lr=config.race_lr, horizon=config.race_horizon
    )
    yield from masked_mode(track, config.masked_depth, config.masked, config.masked_length)
    yield from nonlinear_pathways(track, config.masked_depth, early, late)
    products = Completion(seed, config.n, config.rank, config.further, config.completion_lr, config.scale)
    yield from completion_by_switch(
        products, config.depths, config.switches, config.first_rank, config.entries, config.shown
    )
    deepest, longest = max(config.depths), config.switches[-1]
    yield from structure_of_the_first_task(
        products, deepest, longest, config.ranks, config.numbers, config.first_rank, config.entries, config.draws
    )
    yield from fewer_examples(products, deepest, (0, longest), config.few, config.full)


RACE_DEPTHS = (2, 3, 4, 6)
EXPECTED_SHARES = (0.274, 0.107, 0.057, 0.030)
DRAWN = ("seed", "item")

study.claim(
    "early-lasts-late-passes",
    "A deficit from the start costs pathway B all but 5 % of each of the first four modes for ever; the same deficit "
    "late leaves it half of them.",
    paper="figure, depth 4; no numbers",
    test=all_of(mean(LARGEST, "early").below(0.05), mean(FROM_HALF, "late").below(0.02)),
)
study.claim(
    "deeper-is-hurt-more",
    "After the same short deficit from the same p0 the deprived pathway's share falls with depth, in the equation by "
    "the values that integration gives, and in networks.",
    paper="figure, depths 2 to 13; no numbers",
    test=all_of(
        *(
            mean("share of B from the same p0, equation", f"depth {depth}").between(share - 1e-3, share + 1e-3)
            for depth, share in zip(RACE_DEPTHS, EXPECTED_SHARES, strict=True)
        ),
        *(
            difference("share of B from the same p0, network", f"depth {deeper}", f"depth {depth}").below(0)
            for depth, deeper in pairwise(RACE_DEPTHS)
        ),
    ),
)
study.claim(
    "equation-is-network",
    "In steps of the size of the network's, as it was integrated for the published figure, the equation of the race "
    "follows all modes of the whole network to 0.05.",
    paper="dashed lines on solid ones; no numbers",
    test=mean("largest distance in K from the equation in steps", "step size / 1").below(0.05),
)
study.claim(
    "flow-is-network",
    "So does the flow, the equation in continuous time, and the distance is proportional to the step size.",
    paper="not known",
    test=all_of(
        mean("largest distance in K from the flow", "step size / 1").below(0.05),
        *(
            ratio("largest distance in K from the flow", f"step size / {slower}", f"step size / {faster}").between(
                0.4, 0.6
            )
            for faster, slower in ((1, 2), (2, 4))
        ),
    ),
)
study.claim(
    "depth-makes-the-period",
    "In completion a first task leaves no trace at depth 1; after the longest one the error is at least 3 times that "
    "of the second task alone at depth 2 and 100 times at depth 3, although all runs fit what they see.",
    paper="figures, depths 1, 2, 3; no numbers",
    test=all_of(
        mean("spread of the error over T_c", "depth 1").below(1e-3),
        ratio("error", "depth 2, longest", "depth 2, no first task").above(3),
        ratio("error", "depth 3, longest", "depth 3, no first task").above(100),
        mean("largest train loss", "all runs").below(1e-3),
    ),
)
study.claim(
    "structure-matters",
    "The harm grows with the rank of the first task and vanishes with the number of entries that are seen.",
    paper="figures, ranks 2 to 15 and 1000 to 4000 entries; no numbers",
    test=all_of(
        *(
            difference("error by rank of the first task", f"rank {order + 1}", f"rank {order}", unit=DRAWN).above(0)
            for order in (1, 2, 3)
        ),
        *(
            difference("error by number of entries", f"entries {order + 1}", f"entries {order}", unit=DRAWN).below(0)
            for order in (1, 2)
        ),
        mean("error by number of entries", "entries 4", unit=DRAWN).below(0.05),
    ),
)
study.claim(
    "fewer-examples-hurt",
    "A first phase on fewer entries of the same matrix at least doubles the final error.",
    paper="figures, 1000 then 1250 to 2000 entries; no numbers",
    test=ratio("error after fewer entries", "many entries, fewer before", "many entries, all along").above(2),
)
study.claim(
    "feature-by-feature",
    "The mode that A cannot see while B is frozen stays open and is shared, all others go to A; without the mask that "
    "mode goes to A as well.",
    paper="figure, depth 3; no numbers",
    test=all_of(
        mean("share of B in the masked mode", "freeze and mask").between(0.47, 0.53),
        mean("largest share of B in another mode", "freeze and mask").below(0.05),
        mean("share of B in the masked mode", "freeze").below(0.02),
    ),
)
study.claim(
    "nonlinear-too",
    "With tanh or ReLU after every layer the late deficit leaves B at least 0.3 more of each of the first four modes "
    "than the early one.",
    paper="figures, depth 3; no numbers",
    test=all_of(
        *(mean("smallest gain of B, late over early, modes 1 to 4", kind).above(0.3) for kind in ("tanh", "relu"))
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.critical_periods import panels

    figure = Figure(figsize=(12, 10), layout="constrained")
    axes = figure.subplot_mosaic(
        [["portrait", "onset", "depth"], ["modes", "mask", "switch"], ["alone", "after", "structure"]]
    )
    panels.draw_portrait(axes["portrait"], measurements)
    panels.draw_onsets(axes["onset"], measurements)
    panels.draw_depths(axes["depth"], measurements)
    panels.draw_modes(axes["modes"], measurements)
    panels.draw_masks(axes["mask"], measurements)
    panels.draw_switches(axes["switch"], measurements)
    panels.draw_singular_values(axes["alone"], measurements, "second task alone")
    panels.draw_singular_values(axes["after"], measurements, "after a first task")
    panels.draw_structure(axes["structure"], measurements)
    return figure
