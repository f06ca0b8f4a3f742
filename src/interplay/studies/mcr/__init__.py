"""Does a game between encoders about their influence keep every modality in play, and does that pay?

Noisy digits paired with signals, learned jointly from scratch and from encoders that were trained alone, by MCR and by
every method that its paper compares with; a synthetic task of which it is known what each modality tells; the three
strategies of the game; who moves the predictions, where they go wrong, and what a step costs.
"""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, ratio
from interplay.studies.audio_visual import Optimisation
from interplay.studies.mcr.experiments import Sizes, audio_visual, operations, synthetic


class Config(StudyConfig):
    train: PositiveInt = Field(2500, description="training samples of AV-mini")
    validation: PositiveInt = Field(500, description="samples held out, by which the weight of the game is chosen")
    test: PositiveInt = Field(1000, description="test samples of AV-mini")
    noise: NonNegativeFloat = Field(1.0, description="standard deviation of the noise on the images of AV-mini")
    epochs: PositiveInt = Field(25, description="epochs from scratch, and of the unimodal training before all else")
    lr: PositiveFloat = Field(0.05, description="their learning rate")
    tuning_epochs: PositiveInt = Field(8, description="epochs from trained encoders")
    tuning_lr: PositiveFloat = Field(0.01, description="their learning rate")
    batch_size: PositiveInt = Field(64, description="samples of a step, in all experiments")
    permutations: PositiveInt = Field(8, description="random permutations of a batch behind each influence")
    unique: tuple[NonNegativeFloat, ...] = Field(
        (0.1, 0.4, 0.7), description="synthetic task: probabilities that the first modality alone tells the class"
    )
    other_unique: NonNegativeFloat = Field(0.1, description="probability that the second alone does; else both do")
    synthetic_train: PositiveInt = Field(1000, description="its training samples")
    synthetic_test: PositiveInt = Field(2000, description="its test samples")
    synthetic_epochs: PositiveInt = Field(15, description="its epochs")
    synthetic_lr: PositiveFloat = Field(0.02, description="its learning rate")
    synthetic_draws: PositiveInt = Field(2, description="tasks drawn on each seed")


study = Study(
    "mcr",
    Config,
    presets={
        "smoke": {
            "train": 200,
            "validation": 100,
            "test": 200,
            "epochs": 1,
            "tuning_epochs": 1,
            "permutations": 2,
            "synthetic_train": 200,
            "synthetic_test": 200,
            "synthetic_epochs": 3,
            "synthetic_draws": 1,
        },
        "cpu": {},
        "paper": {"train": 3500, "epochs": 100, "lr": 0.01, "tuning_epochs": 30, "permutations": 32, "batch_size": 32},
    },
    seeds={"smoke": 2, "cpu": 5, "paper": 10},
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    yield from audio_visual(
        seed,
        Sizes(config.train, config.validation, config.test, config.noise),
        Optimisation(config.epochs, config.lr, batch_size=config.batch_size),
        Optimisation(config.tuning_epochs, config.tuning_lr, batch_size=config.batch_size),
        config.permutations,
    )
    yield from synthetic(
        seed,
        config.unique,
        config.other_unique,
        (config.synthetic_train, config.synthetic_test),
        Optimisation(config.synthetic_epochs, config.synthetic_lr, weight_decay=0.0, batch_size=config.batch_size),
        config.permutations,
        config.synthetic_draws,
    )
    yield from operations(seed, config.batch_size, config.permutations)


TRAINED, SCRATCH = "from trained encoders", "from scratch"
ONE, NONE = (f"accuracy where {which} of the unimodal models right" for which in ("one", "none"))

study.claim(
    "beats-joint",
    "MCR from trained encoders is more accurate than joint training, by 15 points from scratch and by 1 from the same "
    "encoders.",
    paper="CREMA-D 76.1 +- 1.6 against 62.6 +- 5.8 %; AVE 73.4 against 66.7; UCF 55.2 against 47.7",
    test=all_of(
        difference("accuracy", f"MCR {TRAINED}", f"joint {SCRATCH}").above(0.15),
        difference("accuracy", f"MCR {TRAINED}", f"joint {TRAINED}").above(0.01),
    ),
)
study.claim(
    "beats-ensemble",
    "MCR from trained encoders is more accurate, by 2 points, than the ensemble of the nets that gave the encoders.",
    paper="CREMA-D 76.1 against 71.7 %",
    test=difference("accuracy", f"MCR {TRAINED}", "ensemble").above(0.02),
)
study.claim(
    "beats-multi-loss",
    "From the same trained encoders, MCR is more accurate than multi-loss training.",
    paper="CREMA-D 76.1 against 69.2 %",
    test=difference("accuracy", f"MCR {TRAINED}", f"multi-loss {TRAINED}").above(0),
)
study.claim(
    "more-unique-information",
    "On the synthetic task MCR is more accurate than joint training at every share of unique information, and by 0.5 "
    "points on average.",
    paper="figure, no numbers: falls most slowly as unique information grows",
    test=all_of(
        *(
            difference(
                "accuracy on the synthetic task", "MCR", "joint", where={"x": unique}, unit=("seed", "item")
            ).above(0)
            for unique in (0.1, 0.4, 0.7)
        ),
        difference("accuracy on the synthetic task", "MCR", "joint", unit=("seed", "item")).above(0.005),
    ),
)
study.claim(
    "greedy-is-best",
    "From scratch and at weight 1, greedy players end more accurate than independent and than collaborative ones, by 2 "
    "points.",
    paper="direction only (appendix: the most consistent)",
    test=all_of(
        *(
            difference("accuracy", f"MCR, weight 1 {SCRATCH}", f"MCR, {strategy} {SCRATCH}").above(0.02)
            for strategy in ("independent", "collaborative")
        )
    ),
)
for _start in (TRAINED, SCRATCH):
    study.claim(
        f"balances-influence-{_start.replace(' ', '-')}",
        f"The modality that has less influence on training samples under joint training {_start} has more under MCR.",
        paper="by design, no numbers",
        test=difference("influence of the weaker modality / nats", f"MCR {_start}", f"joint {_start}").above(0),
    )
study.claim(
    "cheap",
    "Counted in operations of matrix products and convolutions, a step of MCR costs at most 1.5 times one of "
    "multi-loss training, and one that permutes inputs at least 1.5 times that.",
    paper="direction only (contribution 3)",
    test=all_of(
        ratio("operations of a step", "MCR", "multi-loss").below(1.5),
        ratio("operations of a step", "MCR on permuted inputs", "MCR").above(1.5),
    ),
)
for _baseline in ("joint", "multi-loss"):
    study.claim(
        f"routing-against-{_baseline}",
        f"Against {_baseline} training from the same encoders MCR is right more often where one unimodal model is "
        "right, and gains no more than 3 points where none is.",
        paper="error analysis: gains where exactly one is right, none where both fail",
        test=all_of(
            difference(ONE, f"MCR {TRAINED}", f"{_baseline} {TRAINED}").above(0),
            difference(NONE, f"MCR {TRAINED}", f"{_baseline} {TRAINED}").below(0.03),
        ),
    )


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.mcr import panels

    figure = Figure(figsize=(13, 15), layout="constrained")
    axes = figure.subplot_mosaic(
        [["scratch", "trained"], ["over time", "tuned"], ["synthetic", "routing"], ["strategies", "strategies"]],
        height_ratios=[1.3, 1, 1, 0.8],
    )
    panels.draw_accuracies(axes["scratch"], measurements, SCRATCH)
    panels.draw_accuracies(axes["trained"], measurements, TRAINED)
    panels.draw_influences(axes["over time"], measurements, SCRATCH)
    panels.draw_influences(axes["tuned"], measurements, TRAINED)
    panels.draw_synthetic(axes["synthetic"], measurements)
    panels.draw_routing(axes["routing"], measurements, TRAINED)
    panels.draw_strategies(axes["strategies"], measurements, SCRATCH)
    return figure
