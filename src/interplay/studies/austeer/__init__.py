"""Is it better to rescale a few single units than to steer whole blocks?

Every trial takes two organisms and three tasks of two choices. In one the model errs because noise damaged what it
knew, in one because it was taught to say yes too often, and in one it is to refuse what it answers. Every way of
steering is tuned on validation items over grids of its own and scored on test items; what it does to other prompts is
measured too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, tally

UNIT = ("seed", "item")


class Config(StudyConfig):
    """Settings of the study."""

    fit: int = Field(120, ge=20, description="pairs of each task on which units are ranked")
    validation: int = Field(40, ge=4, description="items on which site, k and alpha are chosen")
    test: int = Field(120, ge=4, description="items on which they are scored")
    neutral: PositiveInt = Field(40, description="prompts of other sorts on which damage is measured")
    ks: tuple[int, ...] = Field((1, 4, 16, 64, 128), min_length=1, description="numbers of units that are tried")
    alphas: tuple[float, ...] = Field((0.5, 1.0, 3.0, 10.0, 30.0), min_length=1, description="strengths of units")
    coefficients: tuple[float, ...] = Field(
        (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), min_length=1, description="strengths of vectors that are added"
    )
    heads: tuple[int, ...] = Field((2, 4, 8), min_length=1, description="numbers of heads that ITI moves")
    draws: PositiveInt = Field(20, description="sets of units drawn by chance")
    curve: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32, 64, 128, 256), description="numbers of units of the curve")
    blocks: tuple[int, ...] = Field((1, 4), min_length=1, description="layers whose units are scaled one by one")
    block_items: int = Field(16, ge=4, description="items on which they are")
    block_gain: PositiveFloat = Field(1.0, description="by how much: x becomes (1 +- gain) x")


study = Study(
    "austeer",
    Config,
    presets={
        "smoke": {
            "fit": 20,
            "validation": 8,
            "test": 8,
            "neutral": 4,
            "ks": (1, 8),
            "alphas": (1.0, 10.0),
            "coefficients": (1.0,),
            "heads": (2,),
            "draws": 2,
            "curve": (1, 16),
            "blocks": (1,),
            "block_items": 4,
        },
        "cpu": {},
        "paper": {"fit": 280, "validation": 100, "test": 200, "block_items": 200, "blocks": (0, 1, 2, 3, 4, 5)},
    },
    seeds={"smoke": 1, "cpu": 3, "paper": 3},
    caveat="Judged on language models of 0.5 and 1.3 million parameters with tasks of two choices.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    from interplay.assets import organisms
    from interplay.studies.austeer import blocks, conditions, tasks

    rng = np.random.default_rng((seed, 3))
    capitals = organisms.load("capitals", seed, attn_implementation="sdpa")
    policy = organisms.load("policy", seed, attn_implementation="sdpa")
    sizes = {"fit": config.fit, "validation": config.validation, "test": config.test}
    grid = conditions.Grid(config.ks, config.alphas, config.coefficients, config.heads, config.draws)
    as_good = []
    for task in tasks.tasks(capitals, policy, sizes, config.neutral, rng):
        pad_id = (capitals if task.name == "knowledge" else policy).grammar.vocabulary.pad_id
        values: dict[str, float] = {}
        plain = {part: tasks.margins(task.model, task.splits[part], pad_id) for part in ("validation", "test")}
        values["not steered"] = float((plain["test"] > 0).mean())
        values["shifted margin"] = shifted(task, plain)
        chosen, by_chance = conditions.compared(task, grid, pad_id, rng)
        for one in chosen:
            found = tasks.margins(task.model, task.splits["test"], pad_id, one.steering, [one.strength])
            values[one.name] = float((found > 0).mean())
            yield Measurement(one.name, "validation accuracy", one.validation, item=task.name)
            yield Measurement(one.name, "dimensions touched", float(one.touched), item=task.name)
            away = tasks.divergence(task.model, task.neutral, pad_id, one.steering, one.strength)
            yield Measurement(one.name, "divergence elsewhere, nats", away, item=task.name)
        values["random units, median"] = float(np.median(by_chance))
        values["random units, 95th percentile"] = float(np.quantile(by_chance, 0.95))
        for name, value in values.items():
            yield Measurement(name, "accuracy", value, item=task.name)
        as_good.append(values["best single unit"] >= values["whole block"] - 0.01)
        yield from momentum_of(task, config, pad_id, chosen[0].steering.site)
        if task.name == "bias":
            yield from blocks.kinds_of_units(task, config.blocks, config.block_items, config.block_gain)
            yield from blocks.token_profiles(task, rng)
    yield Measurement("best single unit", "as good as a whole block in two tasks of three", float(sum(as_good) >= 2))


def shifted(task: object, plain: Mapping[str, np.ndarray]) -> float:
    """Test accuracy with one number added to the logit of one word, chosen on validation: no steering at all."""
    from interplay.studies.austeer.tasks import Task

    assert isinstance(task, Task)
    word = task.splits["test"][0].right
    sides = {
        part: np.array([float(item.right == word) - float(item.wrong == word) for item in task.splits[part]])
        for part in ("validation", "test")
    }
    # Between any two neighbours of the thresholds at which an item changes sides nothing changes.
    candidates = np.concatenate(
        [[0.0], -sides["validation"] * plain["validation"] + 1e-6, -sides["validation"] * plain["validation"] - 1e-6]
    )
    scores = [float((plain["validation"] + shift * sides["validation"] > 0).mean()) for shift in candidates]
    best = candidates[int(np.argmax(scores))]
    return float((plain["test"] + best * sides["test"] > 0).mean())


def momentum_of(task: object, config: Config, pad_id: int, tuned: str) -> Iterator[Measurement]:
    """How consistent units are, and accuracy against how many are rescaled; its peak at the tuned site."""
    from interplay.studies.austeer import conditions
    from interplay.studies.austeer.tasks import Task

    assert isinstance(task, Task)
    for site, found in conditions.momenta(task).items():
        beta = found.beta.abs().flatten()
        yield Measurement(f"{task.name}, {site}", "share of units with |beta| = 1", float((beta == 1).double().mean()))
        counts, edges = np.histogram(beta.numpy(), bins=20, range=(0.5, 1.0 + 1e-6))
        for count, edge in zip(counts, edges, strict=False):
            yield Measurement(
                f"{task.name}, {site}", "share of units by |beta|", float(count / len(beta)), x=float(edge)
            )
        rows = conditions.curve(task, site, found, config.curve, config.alphas, pad_id)
        for k, value in rows:
            yield Measurement(site, "accuracy at k units", value, x=float(k), item=task.name)
        if site == tuned:
            # Of equal accuracies the fewest units are the peak.
            peak = max(rows, key=lambda row: (row[1], -row[0]))[0]
            yield Measurement("AUSteer", "share of units at the peak", peak / len(beta), item=task.name)


study.claim(
    "A1",
    "Units of one block differ: in half of the blocks or more some help, some harm, and a tenth or more do nothing.",
    paper="steering entire blocks is coarse since units are heterogeneous (abstract)",
    test=tally("such blocks are half or more", "AUSteer").at_least(3),
)
study.claim(
    "A2",
    "The units' basis is a special one: in two thirds of the blocks what a unit writes is more peaked over tokens than "
    "what directions of a rotated basis write.",
    paper="each unit controls a distinct distribution of tokens (abstract); no control is stated",
    test=tally("such blocks are two thirds or more", "AUSteer").at_least(3),
)
study.claim(
    "A3",
    "One unit does as well as a whole block, within 0.01, in two tasks of three, on every seed.",
    paper="steering one unit can beat steering the block (page)",
    test=tally("as good as a whole block in two tasks of three", "best single unit").at_least(3),
)
study.claim(
    "A4",
    "A few units do better than the best way of steering blocks: CAA, ITI or a whole block.",
    paper="surpasses state-of-the-art baselines while steering at most 100 activations (abstract, code)",
    test=difference("accuracy", "AUSteer", "best block baseline", unit=UNIT).above(0.0),
)
study.claim(
    "A5",
    "Momentum finds the right units: they do better than 95 % of as many drawn by chance, and shuffled labels find "
    "none that are better than chance.",
    paper="activation momentum localises discriminative units (abstract)",
    test=all_of(
        difference("accuracy", "AUSteer", "random units, 95th percentile", unit=UNIT).above(0.0),
        difference("accuracy", "shuffled labels", "random units, median", unit=UNIT).between(-0.05, 0.05),
    ),
)
study.claim(
    "A6",
    "Strengths that follow the activation do better than constants on the same units.",
    paper="adaptive strengths (abstract)",
    test=difference("accuracy", "AUSteer", "constants on the same units", unit=UNIT).above(0.0),
)
study.claim(
    "A7",
    "Less is more: accuracy peaks where 5 % of the units or fewer are rescaled.",
    paper="steering less, achieving more (title); at most 100 units (code)",
    test=mean("share of units at the peak", "AUSteer", unit=UNIT).below(0.05),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.austeer import panels

    figure = Figure(figsize=(13, 8.5), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    panels.draw_conditions(figure.add_subplot(grid[:, 0]), measurements)
    panels.draw_curve(figure.add_subplot(grid[0, 1]), measurements)
    panels.draw_consistency(figure.add_subplot(grid[0, 2]), measurements)
    panels.draw_kinds(figure.add_subplot(grid[1, 1]), measurements)
    panels.draw_profiles(figure.add_subplot(grid[1, 2]), measurements)
    return figure
