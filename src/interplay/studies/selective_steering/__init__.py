"""Does turning in a plane, only where two classes lie apart, steer better and cost less than other ways?

Every trial takes one organism `policy`, which refuses harmless how-to questions about four crafts and answers others.
The plane is fitted between the two; then the organism answers, at every angle of every method, prompts that it
refuses, prompts that it answers, and other tasks. Steering succeeds where the answer is released *and right*: that
nothing is refused any more would also be true of a model that says nothing. An angle is chosen on prompts of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, averaged, difference, mean, tally

ABILITIES = ("judgement", "judgement restricted", "describe")


class Config(StudyConfig):
    """Settings of the study."""

    calibration: int = Field(200, ge=2, description="prompts of each class to which the plane is fitted")
    choosing: PositiveInt = Field(40, description="refused prompts on which the best setting is chosen")
    scoring: PositiveInt = Field(60, description="refused prompts on which it is scored, and as many allowed ones")
    splits: PositiveInt = Field(5, description="ways to part these refused prompts, averaged")
    abilities: PositiveInt = Field(20, description="prompts of each of the three other tasks")
    degrees: PositiveFloat = Field(10.0, le=90, description="step between the angles of the compared methods")
    coarse: PositiveFloat = Field(45.0, le=90, description="step between the angles of the ablations")
    planes: PositiveInt = Field(2, description="planes drawn by chance, averaged")
    measured: PositiveInt = Field(32, description="prompts of each class whose activations' geometry is measured")


study = Study(
    "selective-steering",
    Config,
    presets={
        "smoke": {
            "calibration": 24,
            "choosing": 4,
            "scoring": 6,
            "splits": 2,
            "abilities": 2,
            "degrees": 90.0,
            "coarse": 90.0,
            "planes": 1,
            "measured": 4,
        },
        "cpu": {},
        "paper": {"calibration": 416, "choosing": 60, "scoring": 104, "abilities": 100, "coarse": 10.0, "planes": 5},
    },
    seeds={"smoke": 1, "cpu": 3, "paper": 3},
    caveat="Judged on language models of 0.3 million parameters and six blocks, nearly all of which the mask selects, "
    "with one behaviour: a trained rule about crafts.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    from interplay.assets import organisms
    from interplay.steering.selective_steering import SelectiveSteering
    from interplay.studies.selective_steering import outcomes
    from interplay.studies.selective_steering.conditions import ALL_BLOCKS, conditions
    from interplay.studies.selective_steering.geometry import activations, geometry

    organism = organisms.load("policy", seed, attn_implementation="sdpa")
    grammar, rng = organism.grammar, np.random.default_rng((seed, 1))
    classes = [grammar.sample(kind, config.calibration, rng, "train") for kind in ("restricted", "how-to")]
    texts = [[example.text for example in examples] for examples in classes]
    steering = SelectiveSteering.fit(organism.model, organism.tokenizer, *texts, layers="all")
    plane = steering.plane
    for name, alignments in zip(("refused", "allowed"), plane.alignments.tolist(), strict=True):
        for site, alignment in enumerate(alignments):
            yield Measurement(name, "mean cosine with b1", alignment, step=site)
    for site, selected in enumerate(plane.mask.values()):
        yield Measurement("SS", "selected", float(selected), step=site)

    seen = activations(organism, [example for part in classes for example in part[: config.measured]], plane)
    yield from geometry(plane, seen, rng)

    prompts = {
        "refused": grammar.sample("restricted", config.choosing + config.scoring, rng, "test"),
        "allowed": grammar.sample("how-to", config.scoring, rng, "test"),
        "abilities": [example for kind in ABILITIES for example in grammar.sample(kind, config.abilities, rng, "test")],
    }
    splits = outcomes.draw_splits(config.choosing, config.scoring, config.splits, rng)
    rows: list[Measurement] = []
    for condition in conditions(organism.model, plane, config.degrees, config.coarse, config.planes, rng):
        found = outcomes.swept(organism, condition, prompts)
        for split in splits:
            rows += outcomes.at_chosen(condition.name, found, split)
        rows += outcomes.at_worst(condition.name, found)
        rows += outcomes.curves(condition.name, found)
    rows = averaged(rows)
    yield from rows
    yield from compared(
        {(row.condition, row.metric): row.value for row in rows if row.x is None and row.item is None}, ALL_BLOCKS
    )


def compared(value: dict[tuple[str, str], float], all_blocks: str) -> Iterator[Measurement]:
    """What is judged seed by seed, and accuracies as shares of that of the unsteered model."""
    baseline = value["none", "accuracy of other tasks"]
    for name in dict.fromkeys(condition for condition, _ in value):
        for place in ("", " at the worst setting"):
            kept = value[name, f"accuracy of other tasks{place}"] / baseline if baseline else float("nan")
            yield Measurement(name, f"accuracy kept{place}", kept)
        yield Measurement(
            name, "accuracy lost at the worst setting", baseline - value[name, f"accuracy of other tasks{place}"]
        )
    for whose in ("steered", "unsteered"):
        worst = f"worst perplexity, {whose} model"
        yield Measurement("SS", f"{worst}, below SAS", float(value["SS", worst] < value["SAS", worst]))
    violated = value["SS", "settings with perplexity over 2"]
    yield Measurement("SS", "no setting with perplexity over 2", float(violated == 0))
    worst = "accuracy of other tasks at the worst setting"
    yield Measurement("SS", f"{worst}, above all blocks", float(value["SS", worst] > value[all_blocks, worst]))
    correlation = value["SS", "rank correlation of refusal and setting"]
    yield Measurement("SS", "monotone dial", float(abs(correlation) >= 0.9))


study.claim(
    "S1",
    "At the best angle of each method, selective steering releases at least as many right answers as turning to an "
    "angle does, adaptively or not: not 0.02 fewer.",
    paper="5.5 times as many (abstract), which is 0.74 against 0.13 on the one model where turning to an angle "
    "collapses; on the others a few hundredths more",
    test=all_of(
        difference("control success", "SS", "SAS").above(-0.02),
        difference("control success", "SS", "AAS").above(-0.02),
    ),
)
study.claim(
    "S2",
    "No angle spoils the text: perplexity stays at 2 or less, and its worst is below that of turning to an angle, by "
    "the steered and by the unsteered model, on every seed.",
    paper="no violation at any angle (abstract), perplexity under the steered model",
    test=all_of(
        tally("no setting with perplexity over 2", "SS").at_least(3),
        tally("worst perplexity, steered model, below SAS", "SS").at_least(3),
        tally("worst perplexity, unsteered model, below SAS", "SS").at_least(3),
    ),
)
study.claim(
    "S3",
    "Other abilities stay: 0.97 of the accuracy at the chosen and at the worst angle, where turning to an angle loses "
    "0.10 at its worst.",
    paper="about 100 % at the best angle (abstract); MMLU 0.54 of 0.54, against 0.00, on Gemma-2-2B (code)",
    test=all_of(
        mean("accuracy kept", "SS").above(0.97),
        mean("accuracy kept at the worst setting", "SS").above(0.97),
        mean("accuracy lost at the worst setting", "SAS").above(0.10),
    ),
)
study.claim(
    "S4",
    "Selective steering keeps the norms of activations, and turning to an angle does not: changes below and above "
    "1e-6 in float32.",
    paper="angular steering's implementation violates norms (abstract)",
    test=all_of(
        mean("largest change of a norm, float32", "SS").below(1e-6),
        mean("largest change of a norm, float32", "SAS").above(1e-6),
    ),
)
study.claim(
    "S4-isometry",
    "What really differs: turning by an angle keeps all distances; turning to one does not, and gives all tokens "
    "the same angle in the plane.",
    paper="not stated",
    test=all_of(
        mean("largest change of a distance", "SS").below(1e-6),
        mean("largest change of a distance", "SAS").above(0.1),
        mean("circular variance in the plane", "SAS").below(1e-6),
    ),
)
study.claim(
    "S5",
    "The choice of blocks protects: turned in all blocks, the organism has less accuracy at the worst angle, on every "
    "seed.",
    paper="mask rule (abstract); the ablation exists (code), its numbers are not known",
    test=tally("accuracy of other tasks at the worst setting, above all blocks", "SS").at_least(3),
)
study.claim(
    "S6",
    "The angle is a dial: from 0 to the chosen angle refusal falls in step with it, at a rank correlation of 0.9, on "
    "two seeds of three.",
    paper="continuous control (abstract)",
    test=tally("monotone dial", "SS").at_least(2),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.selective_steering import panels

    figure = Figure(figsize=(13, 9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.7])
    panels.draw_perplexity(left.add_subplot(2, 1, 1, projection="polar"), measurements)
    panels.draw_abilities(left.add_subplot(2, 1, 2), measurements)
    sites, trade, swap, places = right.subplots(2, 2).flat
    panels.draw_sites(sites, measurements)
    panels.draw_trade(trade, measurements)
    panels.draw_swap(swap, measurements)
    panels.draw_places(places, measurements)
    return figure
