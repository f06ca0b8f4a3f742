"""Does a Swiss tournament over benchmarks rank models well, and what is its ranking made of?

A table of 26 scikit-learn classifiers on 24 benchmarks and synthetic fields with known abilities are ranked by expected
wins. Luck is held against an exact solver, broken scores against static aggregates, eliminations against specialists
that are told apart from generalists by nothing but their variance. Byes and the order of the benchmarks are measured
beside.
"""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, NonNegativeInt, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, mean, tally
from interplay.studies.swiss_rounds.experiments import (
    agreement_with_aggregates,
    broken_scores,
    byes_and_orders,
    estimator_table,
    luck,
    rescaling,
    small_fields,
    specialists_and_generalists,
    synthetic_table,
)


class Config(StudyConfig):
    scores: str = Field("", description="CSV or Parquet file of scores in the place of the classifiers' accuracies")
    recompute: bool = Field(False, description="train the 26 classifiers instead of reading their shipped accuracies")
    models: int = Field(29, ge=6, description="models of the synthetic tables")
    benchmarks: int = Field(38, ge=4, description="benchmarks of the synthetic tables")
    contests: PositiveInt = Field(100_000, description="contests behind the headline rankings")
    repeated_contests: PositiveInt = Field(20_000, description="contests where rankings are made many times over")
    small_fields: PositiveInt = Field(60, description="small fields that are solved exactly")
    single_contests: int = Field(40, ge=2, description="single contests that are compared with each other")
    broken_share: float = Field(0.15, gt=0, lt=1, description="share of a model's scores that break")
    broken_models: PositiveInt = Field(5, description="models of the upper third whose scores break, one at a time")
    broken_draws: PositiveInt = Field(10, description="draws of broken scores for each of them")
    generalists: int = Field(15, ge=2, description="steady models of the field whose risk is looked for")
    specialists: int = Field(14, ge=2, description="models of the same field with large gains and losses")
    orders: int = Field(60, ge=2, description="random orders of the benchmarks over which retention is averaged")
    eliminated: tuple[NonNegativeInt, ...] = Field((0, 1, 2), description="eliminated a round, at the fixed order")
    resamples: int = Field(60, ge=2, description="tables with resampled benchmarks")
    rank_orders: int = Field(200, ge=2, description="random orders over which the spread of ranks is measured")
    rank_contests: PositiveInt = Field(3_000, description="contests for each of them")


study = Study(
    "swiss-rounds",
    Config,
    presets={
        "smoke": {
            "models": 8,
            "benchmarks": 6,
            "contests": 2_000,
            "repeated_contests": 500,
            "small_fields": 4,
            "single_contests": 4,
            "broken_models": 1,
            "broken_draws": 3,
            "generalists": 5,
            "specialists": 4,
            "orders": 4,
            "resamples": 4,
            "rank_orders": 4,
            "rank_contests": 500,
        },
        "cpu": {},
        "paper": {
            "repeated_contests": 100_000,
            "eliminated": (0, 1, 2, 3, 4, 5),
            "resamples": 200,
            "rank_contests": 20_000,
        },
    },
    seeds={"smoke": 2, "cpu": 5, "paper": 5},
    caveat="The language models' scores are not part of this study; scikit-learn classifiers stand in for them.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    estimators = estimator_table(config.scores, config.recompute)
    synthetic, ability = synthetic_table(seed, config.models, config.benchmarks)
    tables = {"estimators": estimators, "synthetic": synthetic}
    for name, table in tables.items():
        yield from luck(seed, name, table, config.contests, config.single_contests)
    yield from small_fields(seed, config.small_fields, config.contests)
    for name, table in tables.items():
        yield from broken_scores(
            seed,
            name,
            table,
            config.broken_share,
            config.broken_models,
            config.broken_draws,
            config.repeated_contests,
        )
    yield from specialists_and_generalists(
        seed,
        config.generalists,
        config.specialists,
        config.benchmarks,
        config.orders,
        config.eliminated,
        config.repeated_contests,
    )
    yield from agreement_with_aggregates(seed, estimators, config.resamples, config.repeated_contests)
    for name, table in tables.items():
        yield from rescaling(seed, name, table, config.repeated_contests)
    yield from byes_and_orders(
        seed, tables, ability, config.rank_orders, config.rank_contests, config.repeated_contests
    )


_TABLES = ("estimators", "synthetic")

study.claim(
    "luck-averaged-out",
    "Averaging over random pairings removes their luck: two runs agree within their errors and rank alike, the exact "
    "solver agrees, and single contests do not rank alike.",
    paper="100,000 contests (abstract)",
    test=all_of(
        *(tally("two runs differ beyond 5 standard errors", table).below(0.5) for table in _TABLES),
        tally("an exact value beyond 5 standard errors", "small fields").below(0.5),
        *(mean("Kendall tau of two runs", table).above(0.99) for table in _TABLES),
        *(mean("Kendall tau of single contests", table).below(0.9) for table in _TABLES),
    ),
)
study.claim(
    "robust-to-broken-scores",
    "When 15 % of a good model's scores break to zero, its rank drops at most half as far as under the mean score.",
    paper="Qwen3-Max, some scores zeroed: rank 7 to 10, under the mean 7 to 19 (29 models, 38 benchmarks)",
    test=all_of(*(mean("median drop less half of the mean's", table).below(0) for table in _TABLES)),
)
study.claim(
    "elimination-profiles",
    "Elimination separates generalists from specialists of equal strength when it is averaged over orders of the "
    "benchmarks: AUC of retention at least 0.75 in at least 4 of 5 seeds.",
    paper="qualitative: Gemini-3-pro robust, Qwen-3-235B aggressive",
    test=tally("AUC at least 0.75", "random orders").at_least(4),
)
study.claim(
    "elimination-profiles-fixed-order",
    "It does so at one fixed order of the benchmarks too, as it is used in the paper.",
    paper="qualitative, at one order from basic to advanced",
    test=tally("AUC at least 0.75", "fixed order").at_least(4),
)
study.claim(
    "related-to-the-mean",
    "The ranking is related to that of the mean score but not the same: over resampled benchmarks, Kendall's tau stays "
    "above 0.6 and pairs of models change places.",
    paper="direction only: more nuanced than static scores (abstract)",
    test=all_of(
        mean("Kendall tau with Swiss rounds, 2.5 % of resamples", "mean").above(0.6),
        mean("pairs in another order, 2.5 % of resamples", "mean").above(0.5),
    ),
)
study.claim(
    "no-weights",
    "Increasing rescalings of single benchmarks change neither outcomes nor expected wins by a bit, and they change "
    "the ranking by the mean score.",
    paper="argued",
    test=all_of(
        *(tally("outcomes change", table).below(0.5) for table in _TABLES),
        *(tally("expected wins change", table).below(0.5) for table in _TABLES),
        *(mean("pairs that the mean reorders", table).above(0.5) for table in _TABLES),
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.swiss_rounds import panels

    figure = Figure(figsize=(12.5, 15), layout="constrained")
    axes = figure.subplot_mosaic(
        [
            ["strength", "survival", "exact"],
            ["profiles", "auc", "broken"],
            ["orders", "orders", "agreement"],
            ["byes", "byes", "policies"],
        ],
        height_ratios=[1, 1, 1.25, 1.25],
    )
    panels.draw_strength(axes["strength"], measurements)
    panels.draw_survival(axes["survival"], measurements)
    panels.draw_exact(axes["exact"], measurements)
    panels.draw_profiles(axes["profiles"], measurements)
    panels.draw_auc(axes["auc"], measurements)
    panels.draw_broken(axes["broken"], measurements)
    panels.draw_orders(axes["orders"], measurements)
    panels.draw_agreement(axes["agreement"], measurements)
    panels.draw_byes(axes["byes"], measurements)
    panels.draw_policies(axes["policies"], measurements)
    return figure
