"""Factual recall: who wins when a context contradicts a memorised fact, what decides it, and which head turns it.

Every trial takes one organism `capitals`, a language model trained on text in which the frequency of every fact and
every city is known and in which no real country ever meets a false capital. It is asked about all conflicts between the
facts that it knows and 40 cities that are nobody's capital. Head and gain are chosen on development conflicts that
share neither country nor city with the conflicts that are reported; random heads, whole layers and a steering vector
are searched as hard. The first trial also turns the dial on a real model.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from pydantic import Field, NonNegativeInt, PositiveInt

from interplay.circuits import factual_recall as recall
from interplay.circuits.factual_recall import (
    Batch,
    ConflictSet,
    ContextMemoryDial,
    DialPoint,
    Head,
    HeadScaler,
    Questions,
)
from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, ratio, tally
from interplay.evidence.claims import ClaimTest, Estimate

FITTED_STATEMENT, UNSEEN_STATEMENT = 0, 4  # "the capital of C is X .", "the government of C sits in X ."
EXAMPLE = "Q: What language is spoken in Brazil? A: Portuguese. "  # shows the form of an answer, and no city
ACCORDING_TO_THE_TEXT = "Q: According to the text, what is the capital of {subject}? A:"

NONE, TO_CONTEXT, TO_MEMORY = "none", "dial to context", "dial to memory"
UNSEEN, BEST_RANDOM = "dial to context, unseen statement", "best random head to in-context"
TARGETS: tuple[tuple[recall.Target, str], ...] = (("in-context", TO_CONTEXT), ("memorized", TO_MEMORY))


class Config(StudyConfig):
    """Settings of the study."""

    conflicts: PositiveInt = Field(6_400, description="conflicts on which rates and effects of frequency are measured")
    development: PositiveInt = Field(320, description="conflicts on which heads and gains are chosen")
    test: PositiveInt = Field(1_280, description="conflicts on which dials and controls are reported")
    gains: tuple[float, ...] = Field(recall.GAINS, description="grid of gains; should hold 1")
    strengths: tuple[float, ...] = Field(recall.STRENGTHS, description="grid of strengths of the steering vector")
    variants: tuple[str, ...] = Field(("ctx-heavy", "ctx-light"), description="other organisms of seed 0 to compare")
    random_heads: PositiveInt = Field(5, description="random heads, searched as hard as the chosen ones")
    resamples: PositiveInt = Field(1_000, description="bootstrap resamples of countries")
    model: str = Field("gemma-3-270m", description="real model: its name, or a local Hugging Face folder")
    model_trials: NonNegativeInt = Field(1, description="how many of the first trials also run the real model")
    model_facts: str = Field("", description="CSV with columns subject and object; empty: countries and capitals")
    model_development: PositiveInt = Field(64, description="conflicts on which the real model's dial is chosen")
    model_test: PositiveInt = Field(100, description="conflicts on which the real model's dial is reported")
    model_gains: tuple[float, ...] = Field((-3.0, 0.0, 1.0, 3.0, 6.0), description="grid of gains of the real model")


SMOKE = {"conflicts": 320, "development": 32, "test": 48, "gains": (-2.0, 1.0, 4.0), "strengths": (1.0,)}
PAPER = {"model_trials": 3, "model_development": 2_000, "model_test": 20_000, "model_gains": recall.GAINS}
study = Study(
    "factual-recall",
    Config,
    presets={
        "smoke": {**SMOKE, "random_heads": 1, "resamples": 50, "variants": (), "model_trials": 0},
        "cpu": {},
        "paper": PAPER,
    },
    seeds={"smoke": 2, "cpu": 3, "paper": 3},
    caveat="Judged on language models of half a million parameters, trained on generated text whose truth is known: an "
    "organism shows whether a tool finds what is known to be there, not that a larger model behaves so.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    """One organism; the first trials also a real model."""
    from interplay.assets import organisms

    organism = organisms.load("capitals", seed=seed, attn_implementation="sdpa")
    yield from organism_rows(config, organism, np.random.default_rng(seed))
    for variant in config.variants if seed == 0 else ():
        try:
            other = organisms.load("capitals", seed=seed, variant=variant, attn_implementation="sdpa")
        except organisms.NotBuiltError:  # a comparison that is not judged must not cost those that are
            continue
        yield from variant_rows(config, variant, other, np.random.default_rng(seed))
    if seed < config.model_trials:
        yield from real_model_rows(config, np.random.default_rng(seed))


def organism_rows(config: Config, organism: Any, rng: np.random.Generator) -> Iterator[Measurement]:
    """Everything that is judged."""
    model, grammar = organism.model, organism.grammar
    known = recall.known_facts(model, ConflictSet.from_organism(organism, FITTED_STATEMENT))
    yield Measurement(NONE, "known facts", len(known.facts))
    yield from competition(config, model, known, grammar, rng)
    fitting, reporting = known.split(rng)
    development = fitting.prompts(min(config.development, len(fitting)), rng)
    test = reporting.prompts(min(config.test, len(reporting)), rng)
    attribution = recall.head_attribution(model, development)
    yield from heads(model, development, test, attribution)
    chosen = [[attribution.memory_head], [attribution.in_context_head]]
    points = recall.scan_gains(model, development, chosen, config.gains)
    yield from curves(points, attribution.memory_head)
    yield from single_dials(model, points, test)
    dials = yield from best_dials(model, points, test)
    yield from controls(config, model, development, test, attribution, rng)
    other_words = ConflictSet.from_organism(organism, UNSEEN_STATEMENT).facts[0].statement
    unseen = reporting.restate(statement=other_words).prompts(min(config.test, len(reporting)), rng)
    carried = yield from rates(UNSEEN, model, unseen, dials["in-context"].apply(model))
    fitted = recall.choose_gain(points, "in-context").in_context
    yield Measurement(UNSEEN, "in-context rate minus that on development", carried["in-context"].rate - fitted)
    for target, condition in TARGETS:
        cost = dials[target].collateral(
            model, questions=reporting.questions(), text=filler(organism, rng), copies=novel_contexts(organism)
        )
        for metric, (without, changed) in cost._asdict().items():
            yield Measurement(NONE, metric, without, item=condition)
            yield Measurement(condition, metric, changed, item=condition)


def variant_rows(config: Config, variant: str, organism: Any, rng: np.random.Generator) -> Iterator[Measurement]:
    """An organism of the same seed with more or fewer novel contexts in its text: its rates, where its heads are."""
    known = recall.known_facts(organism.model, ConflictSet.from_organism(organism, FITTED_STATEMENT))
    batch = known.prompts(min(config.test, len(known)), rng)
    yield from rates(variant, organism.model, batch)
    attribution = recall.head_attribution(organism.model, batch)
    for name, head in (("memory", attribution.memory_head), ("in-context", attribution.in_context_head)):
        yield from (Measurement(f"{variant}: {name} head", part, place) for part, place in head._asdict().items())


def competition(
    config: Config, model: Any, known: ConflictSet, grammar: Any, rng: np.random.Generator
) -> Iterator[Measurement]:
    """Who wins, overall, by country, and by frequency of the country and of the offered city.

    Every known country meets every city, so the two frequencies are crossed and a mean over one is corrected for the
    other.
    """
    batch = known.prompts(min(config.conflicts, len(known)), rng)
    choice = recall.resolve_conflict(model, batch).choice.numpy()
    f = np.array([grammar.f_country[known.facts[index].subject] for index in batch.subject])
    g = np.array([grammar.g_city[known.answers[index]] for index in batch.offered])
    table = pd.DataFrame({"country": batch.subject, "f": f, "g": g, "won": choice == 0, "kept": choice == 1})
    rate, both = table["won"].mean(), table.groupby("country")[["won", "kept"]].any().all(axis=1).mean()
    yield Measurement("all conflicts", "in-context rate", rate)
    yield Measurement("all conflicts", "memorized rate", table["kept"].mean())
    yield Measurement("all conflicts", "countries with both outcomes", both)
    yield Measurement("all conflicts", "both sources win", float(0.1 <= rate <= 0.9 and both >= 0.5))
    yield Measurement("all conflicts", "correlation of the log frequencies", np.corrcoef(np.log2(f), np.log2(g))[0, 1])
    effects = recall.frequency_effects(choice == 0, f, g, batch.subject.numpy(), rng, resamples=config.resamples)
    for name, effect in effects._asdict().items():
        for part, value in effect._asdict().items():
            yield Measurement("all conflicts", f"log-odds a doubling, {part}", value, item=name)
        direction = float(effect.low > 0) - float(effect.high < 0)
        yield Measurement("all conflicts", "sign beyond the interval", direction, item=name)
    low, high = np.quantile([grammar.f_country[fact.subject] for fact in known.facts], (0.25, 0.75))
    contrast = table.loc[f <= low, "won"].mean() - table.loc[f >= high, "won"].mean()
    yield Measurement("all conflicts", "in-context rate, rarest minus most frequent quarter", contrast)
    for axis, label in (("f", "country"), ("g", "city")):
        for level, share in table.groupby(axis)["won"].mean().items():
            yield Measurement("all conflicts", f"in-context rate by {label}", share, x=float(level))


def heads(model: Any, development: Batch, test: Batch, attribution: recall.Attribution) -> Iterator[Measurement]:
    """The heads chosen on development conflicts, on test conflicts; and whether the other norm chooses them too."""
    scores, raw = recall.head_attribution(model, test).per_prompt, recall.head_attribution(model, development, "raw")
    size = scores.mean(0).abs()
    for condition, head, sign, other in (
        ("memory head", attribution.memory_head, -1.0, raw.memory_head),
        ("in-context head", attribution.in_context_head, 1.0, raw.in_context_head),
    ):
        own = sign * scores[:, head.layer, head.head]
        yield Measurement(condition, "conflicts with the right sign", float((own > 0).double().mean()))
        yield Measurement(condition, "share of all attribution", float(own.mean().abs() / size.sum()))
        yield Measurement(condition, "chosen without the final norm too", float(head == other))
        yield from (Measurement(condition, part, place) for part, place in head._asdict().items())
    yield Measurement("top head", "absolute attribution", float(size.max()))
    yield Measurement("median head", "absolute attribution", float(size.median()))
    for layer, row in enumerate(attribution.mean.tolist()):
        for index, score in enumerate(row):
            yield Measurement("head map", "attribution", score, step=layer, x=float(index))


def curves(points: Sequence[DialPoint], memory: Head) -> Iterator[Measurement]:
    """Rates against gain on the development conflicts."""
    for point in points:
        condition = "memory head, development" if point.heads == (memory,) else "in-context head, development"
        for metric, value in zip(recall.CHOICES, point[2:], strict=True):
            yield Measurement(condition, f"{metric} rate", value, x=point.gain)


def best_dials(model: Any, points: Sequence[DialPoint], test: Batch, name: str = "") -> Iterator[Measurement]:
    """No dial, and the best dial to either side, on test conflicts."""
    plain = yield from rates(name + NONE, model, test)
    dials = {}
    for target, condition in TARGETS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that no gain helps is a result here
            dials[target] = ContextMemoryDial(target).fit_curve(points)
        turned = yield from rates(name + condition, model, test, dials[target].apply(model))
        best = recall.choose_gain(points, target)
        yield Measurement(name + condition, "rate on development", best.rate(target))
        yield Measurement(name + condition, "gain", best.gain)
    asked = 0.9 if plain["memorized"].rate > 0.65 else plain["memorized"].rate + 0.25
    yield Measurement(name + TO_MEMORY, "memorized rate minus what is asked", turned["memorized"].rate - asked)
    return dials


def single_dials(model: Any, points: Sequence[DialPoint], test: Batch) -> Iterator[Measurement]:
    """Each of the two heads up and down, and both at once, on test conflicts."""
    memory, context = points[0].heads[0], points[-1].heads[0]
    gains: dict[recall.Target, dict[Head, float]] = {"in-context": {}, "memorized": {}}
    for head, name, target_up, target_down in (
        (memory, "memory head", "memorized", "in-context"),
        (context, "in-context head", "in-context", "memorized"),
    ):
        for direction, target in (("up", target_up), ("down", target_down)):
            side = [p for p in points if p.heads == (head,) and (p.gain >= 1 if direction == "up" else p.gain <= 1)]
            gains[target][head] = recall.choose_gain(side, target).gain
            yield from rates(f"{name} {direction}", model, test, HeadScaler(model, {head: gains[target][head]}))
    for target, both in gains.items():
        yield from rates(f"two heads to {target}", model, test, HeadScaler(model, both))


def controls(
    config: Config,
    model: Any,
    development: Batch,
    test: Batch,
    attribution: recall.Attribution,
    rng: np.random.Generator,
) -> Iterator[Measurement]:
    """The same search over other handles: random heads, whole layers, the last token only, a steering vector."""
    layers, width = attribution.mean.shape
    grid = [[Head(layer, index) for index in range(width)] for layer in range(layers)]
    chosen = list(dict.fromkeys((attribution.memory_head, attribution.in_context_head)))
    others = [head for layer in grid for head in layer if head not in chosen]
    random = [[others[index]] for index in rng.permutation(len(others))[: config.random_heads]]
    for condition, candidates, positions in (
        ("best random head", random, "all"),
        ("whole layer", grid, "all"),
        ("chosen heads at the last token", [[head] for head in chosen], "last"),
    ):
        points = recall.scan_gains(model, development, candidates, config.gains, positions=positions)
        # Of the random heads the luckiest on the test conflicts counts: the dial must beat it all the same.
        luckiest = condition == "best random head"
        pools = [[p for p in points if p.heads == tuple(group)] for group in candidates] if luckiest else [points]
        for target, _ in TARGETS:
            best = [recall.choose_gain(pool, target) for pool in pools]
            scaled = [(HeadScaler(model, dict.fromkeys(p.heads, p.gain), positions)) for p in best]
            tried = [list(rates(f"{condition} to {target}", model, test, scaler)) for scaler in scaled]
            yield from max(tried, key=lambda rows: next(row.value for row in rows if row.metric == f"{target} rate"))
    for target, _ in TARGETS:
        try:
            vector = recall.steering_vector(model, development, target, strengths=config.strengths)
        except ValueError:  # one outcome only: no difference to steer along
            continue
        yield from rates(f"steering vector to {target}", model, test, vector.apply(model))


def rates(
    condition: str, model: Any, batch: Batch, context: AbstractContextManager[Any] | None = None
) -> Iterator[Measurement]:
    """The three-way rates with a context open."""
    with context or nullcontext():
        found = recall.resolve_conflict(model, batch)
    for choice, rate in found.rates.items():
        yield Measurement(condition, f"{choice} rate", rate.rate)
    yield Measurement(condition, "logit difference", float(found.logit_diff.double().mean()))
    return found.rates


def novel_contexts(organism: Any) -> Questions:
    """Invented countries that the training text never gave a city, with a city in the context to copy."""
    grammar = organism.grammar
    examples = [
        grammar.context(country, city, FITTED_STATEMENT)
        for country in grammar.invented_countries["test"]
        for city in grammar.other_cities
    ]
    ids = torch.tensor([example.input_ids for example in examples])
    answers = torch.tensor([example.answer_id for example in examples])
    return Questions(ids, torch.ones_like(ids), torch.full((len(ids),), ids.shape[1] - 1), answers)


def filler(organism: Any, rng: np.random.Generator) -> Questions:
    """Sentences about cities that say nothing about capitals."""
    texts = [organism.grammar.filler(city, rng).text for city in organism.grammar.other_cities for _ in range(6)]
    encoded = organism.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    return Questions(ids[:, :-1], mask[:, :-1], torch.full((len(ids),), ids.shape[1] - 2), ids[:, -1])


def real_model_rows(config: Config, rng: np.random.Generator) -> Iterator[Measurement]:
    """The dial on a real model, and a prompt that asks for the text's answer. Nothing of this is judged."""
    from interplay.assets import gemma_3_270m, load_language_model

    model, tokenizer = gemma_3_270m() if config.model == "gemma-3-270m" else load_language_model(config.model)
    name, prefix = f"{Path(config.model).name}: ", "" if config.model_facts else EXAMPLE
    if config.model_facts:
        facts = list(pd.read_csv(config.model_facts)[["subject", "object"]].itertuples(index=False, name=None))
    else:
        facts = [(country, capital) for country, capital in recall.CAPITALS.items() if country not in EXAMPLE]
    known = recall.known_facts(model, ConflictSet.from_facts(facts, tokenizer, prefix=prefix, drop=True))
    yield Measurement(name + NONE, "known facts", len(known.facts))
    fitting, reporting = known.split(rng)
    development = fitting.prompts(min(config.model_development, len(fitting)), rng)
    drawn = int(rng.integers(1 << 32))
    test, prompted = (
        conflicts.prompts(min(config.model_test, len(reporting)), np.random.default_rng(drawn))
        for conflicts in (reporting, reporting.restate(question=ACCORDING_TO_THE_TEXT))
    )
    chosen = recall.head_attribution(model, development)
    points = recall.scan_gains(model, development, [[chosen.memory_head], [chosen.in_context_head]], config.model_gains)
    yield from best_dials(model, points, test, name)
    yield from rates(f"{name}according to the text", model, prompted)


def seeds_that_agree(metric: str, condition: str, item: str) -> ClaimTest:
    """The larger number of seeds that share a sign (-1 or 1): an exact count, so its interval is a point."""

    def estimate(measurements: pd.DataFrame) -> Estimate:
        rows = measurements[(measurements["metric"] == metric) & (measurements["condition"] == condition)]
        rows = rows[rows["item"] == item]
        count = float(max((rows["value"] == sign).sum() for sign in (-1, 1)))
        return Estimate(count, count, count, len(rows), "count of seeds")

    return ClaimTest("agreement", f"seeds with one {metric}: {item}", estimate)


EFFECT = "log-odds a doubling, estimate"
study.claim(
    "F1",
    "Memory and context compete: neither always wins, overall or for most countries.",
    paper="qualitative (abstract)",
    test=tally("both sources win", "all conflicts").at_least(2),
    label="emergent",
)
study.claim(
    "F2",
    "The more frequent the country, the more its memorised capital wins.",
    paper="frequency of the country highly affects the outcome (abstract)",
    test=all_of(
        mean(EFFECT, "all conflicts", where={"item": "subject"}).below(0),
        mean("in-context rate, rarest minus most frequent quarter", "all conflicts").above(0.15),
    ),
    label="emergent",
)
study.claim(
    "F3",
    "The frequency of the offered city decides too, in the same direction in most models.",
    paper="frequency of the in-context city highly affects the outcome (abstract); direction not known",
    test=seeds_that_agree("sign beyond the interval", "all conflicts", "offered").at_least(2),
    label="emergent",
)
study.claim(
    "F4",
    "Single heads promote the memorised or the offered answer.",
    paper="example heads among 384 of Pythia-1.4b",
    test=all_of(
        mean("conflicts with the right sign", "memory head").above(0.9),
        mean("conflicts with the right sign", "in-context head").above(0.9),
        ratio("absolute attribution", "top head", "median head").above(3),
    ),
    label="emergent",
)
study.claim(
    "F5",
    "Scaling one head makes the model answer from the context, on countries and cities unseen in the fit.",
    paper="up to 88 % in-context answers by scaling one head (abstract)",
    test=all_of(
        difference("in-context rate", TO_CONTEXT, NONE).above(0.25),
        mean("in-context rate", TO_CONTEXT).above(0.8),
        mean("other rate", TO_CONTEXT).below(0.1),
        difference("in-context rate", TO_CONTEXT, BEST_RANDOM).above(0.1),
    ),
    label="emergent",
)
study.claim(
    "F6",
    "Scaling one head makes the model answer from memory: 25 points more, or 90 % where memory led already.",
    paper="direction only (abstract)",
    test=mean("memorized rate minus what is asked", TO_MEMORY).above(0),
    label="emergent",
)
study.claim(
    "F7",
    "Head and gain carry over to countries, cities and a statement unseen in the fit.",
    paper='works "on new data" (abstract)',
    test=mean("in-context rate minus that on development", UNSEEN).between(-0.1, 0.1),
    label="emergent",
)
study.claim(
    "F8",
    "The dial to the context is clean: closed-book accuracy falls by at most 5 points.",
    paper="not known",
    test=difference("closed_book", TO_CONTEXT, NONE, where={"item": TO_CONTEXT}).above(-0.05),
)


@study.figure
def figure(measurements: pd.DataFrame) -> Figure:
    """Frequencies; the head map of the first seed; rates against gain; development against test."""
    from interplay.studies.factual_recall import panels

    drawing = Figure(figsize=(11, 6.6), layout="constrained")
    axes = drawing.subplots(2, 3)
    panels.draw_frequencies(axes[0, :2], measurements)
    panels.draw_head_map(axes[0, 2], measurements)
    panels.draw_gain_curves(axes[1, :2], measurements)
    panels.draw_carry_over(axes[1, 2], measurements)
    return drawing
