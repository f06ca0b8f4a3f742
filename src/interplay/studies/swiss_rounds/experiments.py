"""The experiments of the study; each draws from streams of its own, named by a purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame
from scipy.stats import kendalltau
from sklearn.metrics import adjusted_rand_score, roc_auc_score

from interplay.assets.estimator_scores import estimator_scores
from interplay.evidence import Measurement
from interplay.games.swiss_rounds import (
    ScoreTable,
    SwissRounds,
    baselines,
    easiest_first,
    failure_sensitivity,
    order_sensitivity,
    outlier_probe,
    read_table,
    win_tensor,
)

TABLE, LUCK, FIELDS, BROKEN, PROFILES, RESAMPLES, RESCALE, ORDERS = range(8)
TABLES = {"estimators": 0, "synthetic": 1}
LIMIT = 5.0
GOOD_AUC = 0.75
POLICIES = ("zero", "half", "win", "float")
GENERALIST_NOISE, SPECIALIST_SWING = 0.6, 2.0

Array = NDArray[np.float64]


class Field(NamedTuple):
    """Models of equal strength: their scores, and which of them are generalists."""

    scores: Array
    generalist: NDArray[np.bool_]


def seed_of(seed: int, *purpose: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=purpose)


def generator(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng(seed_of(seed, *purpose))


def estimator_table(path: str, recompute: bool) -> ScoreTable:
    """Accuracies of classifiers, easiest benchmark first; or the table of a file, in the file's own order."""
    if path:
        return read_table(path)
    accuracies = estimator_scores(recompute=recompute)
    return read_table(accuracies.iloc[:, easiest_first(accuracies)])


def synthetic_table(seed: int, models: int, benchmarks: int) -> tuple[ScoreTable, Array]:
    """Abilities from 2 to -2, unit noise, squeezed into 0 to 100, so that zero is a failure and not the average."""
    ability = np.linspace(2, -2, models)
    scores = ability[:, None] + generator(seed, TABLE).normal(size=(models, benchmarks))
    return ScoreTable(100 / (1 + np.exp(-scores))), ability


def equal_field(seed: int, generalists: int, specialists: int, benchmarks: int) -> Field:
    """Generalists with small noise; specialists who gain on half of the benchmarks what they lose on the others.

    Rows are centred: means are equal, and so are, but for sampling, mean win rates.
    """
    draw = generator(seed, PROFILES)
    scores = GENERALIST_NOISE * draw.normal(size=(generalists + specialists, benchmarks))
    swing = np.where(np.arange(benchmarks) < benchmarks // 2, SPECIALIST_SWING, -SPECIALIST_SWING)
    scores[generalists:] += draw.permuted(np.tile(swing, (specialists, 1)), axis=1)
    scores -= scores.mean(axis=1, keepdims=True)
    return Field(scores, np.arange(len(scores)) < generalists)


def luck(seed: int, name: str, table: ScoreTable, contests: int, singles: int) -> Iterator[Measurement]:
    """Two runs, single contests, and what the first run says about each model."""
    first, second = (
        SwissRounds(contests, random_state=seed_of(seed, LUCK, TABLES[name], run)).fit(table) for run in range(2)
    )
    limit = LIMIT * np.hypot(first.stderr_, second.stderr_)
    differ = np.abs(first.expected_wins_ - second.expected_wins_) > limit
    yield Measurement(name, "two runs differ beyond 5 standard errors", float(differ.any()))
    yield Measurement(name, "Kendall tau of two runs", tau(first.expected_wins_, second.expected_wins_))
    points = first.single_contests(singles)
    pairs = [tau(points[one], points[one + 1]) for one in range(singles - 1)]
    yield Measurement(name, "Kendall tau of single contests", float(np.mean(pairs)))
    yield Measurement("second run", f"tiers, adjusted Rand index, {name}", rand_index(first.tiers_, second.tiers_))
    yield Measurement(name, "byes / rounds", first.bye_rate_)
    eliminating = SwissRounds(contests, eliminate=1, random_state=seed_of(seed, LUCK, TABLES[name], 2)).fit(table)
    means = table.scores.mean(axis=1)
    for row, model in enumerate(table.model_names):
        yield Measurement(name, "expected wins", first.expected_wins_[row], x=float(means[row]), item=model)
        yield Measurement(name, "standard error", first.stderr_[row], item=model)
        yield Measurement(name, "tier", float(first.tiers_[row]), item=model)
        yield Measurement(name, "bye share", first.bye_share_[row], item=model)
        for turn, survival in enumerate(eliminating.survival_[row], 1):
            yield Measurement(name, "survival", float(survival), x=float(turn), item=model)


def small_fields(seed: int, count: int, contests: int) -> Iterator[Measurement]:
    """Fields of 2 to 7 models with ties, eliminations and every policy, simulated and solved."""
    draw = generator(seed, FIELDS)
    beyond = False
    for case in range(count):
        models, benchmarks = int(draw.integers(2, 8)), int(draw.integers(1, 5))
        scores = draw.integers(0, 6, size=(models, benchmarks)).astype(float)
        field = SwissRounds(
            contests,
            eliminate=int(draw.integers(min(3, models))),
            bye=POLICIES[case % len(POLICIES)],
            ties=("coin", "half")[int(draw.integers(2))],
            random_state=seed_of(seed, FIELDS, case),
        ).fit(scores)
        exact = np.array([float(value) for value in field.exact()])
        error = field.expected_wins_ - exact
        # Where all contests end alike there is no error but that of adding up.
        beyond |= bool((np.abs(error) > LIMIT * field.stderr_ + 1e-12).any())
        for model in np.flatnonzero(field.stderr_ > 0):
            z = float(error[model] / field.stderr_[model])
            yield Measurement("small fields", "error / standard error", z, item=f"field {case}, model {model}")
    yield Measurement("small fields", "an exact value beyond 5 standard errors", float(beyond))


def broken_scores(
    seed: int, name: str, table: ScoreTable, share: float, models: int, draws: int, contests: int
) -> Iterator[Measurement]:
    """Scores of models of the upper third break to zero, and ranks drop."""
    draw = generator(seed, BROKEN, TABLES[name])
    rank = np.argsort(-table.scores.mean(axis=1))
    upper = rank[: max(len(rank) // 3, 1)]
    count = max(round(share * table.scores.shape[1]), 1)
    chosen = draw.choice(upper, min(models, len(upper)), replace=False)
    drops: dict[str, list[float]] = {}
    for model in chosen:
        probe = outlier_probe(
            table,
            int(model),
            count,
            draws=draws,
            n_sims=contests,
            random_state=seed_of(seed, BROKEN, TABLES[name], int(model)),
        )
        for method, rows in probe.groupby("method"):
            drops.setdefault(str(method), []).extend(rows["drop"])
    medians = {method: float(np.median(values)) for method, values in drops.items()}
    for method, median in medians.items():
        yield Measurement(method, f"median rank drop, {name}", median)
        yield Measurement(method, f"mean rank drop, {name}", float(np.mean(drops[method])))
    excess = medians["Swiss rounds"] - 0.5 * medians["mean"]
    yield Measurement(name, "median drop less half of the mean's", excess)


def specialists_and_generalists(
    seed: int,
    generalists: int,
    specialists: int,
    benchmarks: int,
    orders: int,
    eliminated: tuple[int, ...],
    contests: int,
) -> Iterator[Measurement]:
    """Retention under elimination as a detector of generalists, beside the plain deviation of their scores."""
    field = equal_field(seed, generalists, specialists, benchmarks)
    averaged = failure_sensitivity(
        field.scores, (0, 1), orders, n_sims=contests, random_state=seed_of(seed, PROFILES, 0)
    )
    fixed = failure_sensitivity(field.scores, eliminated, n_sims=contests, random_state=seed_of(seed, PROFILES, 1))
    found = {
        "random orders": averaged.retention[1],
        "fixed order": fixed.retention[1],
        "fixed order, slope": fixed.slopes / fixed.expected_wins[0],
        "random orders, residual": averaged.profile()["residual"].to_numpy(),
        "row deviation": -field.scores.std(axis=1),
    }
    for condition, statistic in found.items():
        yield Measurement(condition, "AUC", auc(field, statistic))
    for condition in ("random orders", "fixed order"):
        yield Measurement(condition, "AUC at least 0.75", float(auc(field, found[condition]) >= GOOD_AUC))
    for order, curves in enumerate(averaged.curves):
        yield Measurement("single orders", "AUC", auc(field, curves[1] / curves[0]), item=f"order {order}")
    rates = baselines(field.scores)["mean win rate"].to_numpy()
    for kind, rows in (("generalist", field.generalist), ("specialist", ~field.generalist)):
        yield Measurement(kind, "mean win rate", float(rates[rows].mean()))
        for model in np.flatnonzero(rows):
            wins, retention = averaged.expected_wins[0, model], averaged.retention[1, model]
            yield Measurement(kind, "retention", float(retention), x=float(wins), item=str(model))


def agreement_with_aggregates(seed: int, table: ScoreTable, resamples: int, contests: int) -> Iterator[Measurement]:
    """Kendall's tau with each static aggregate, on the table and on tables of resampled benchmarks."""
    draw = generator(seed, RESAMPLES)
    benchmarks = table.scores.shape[1]
    taus: dict[str, list[float]] = {}
    reordered: list[int] = []
    tiers: list[float] = []
    for resample in range(resamples + 1):
        # The first is the table itself; a resampled one keeps the order of the benchmarks.
        columns = np.sort(draw.integers(benchmarks, size=benchmarks)) if resample else np.arange(benchmarks)
        scores = table.scores[:, columns]
        run = SwissRounds(contests, random_state=seed_of(seed, RESAMPLES, resample)).fit(scores)
        static = baselines(scores)
        for method in static:
            taus.setdefault(method, []).append(tau(run.expected_wins_, static[method].to_numpy()))
        reordered.append(discordant(run.expected_wins_, static["mean"].to_numpy()))
        if resample == 0:
            whole = run.tiers_
        tiers.append(rand_index(whole, run.tiers_))
    for method, values in taus.items():
        yield Measurement(method, "Kendall tau with Swiss rounds", values[0])
        for percent in (2.5, 97.5):
            end = float(np.percentile(values[1:], percent))
            yield Measurement(method, f"Kendall tau with Swiss rounds, {percent} % of resamples", end)
    yield Measurement("mean", "pairs in another order, 2.5 % of resamples", float(np.percentile(reordered[1:], 2.5)))
    yield Measurement("resampled benchmarks", "tiers, adjusted Rand index, estimators", float(np.mean(tiers[1:])))


def rescaling(seed: int, name: str, table: ScoreTable, contests: int) -> Iterator[Measurement]:
    """Each benchmark through an increasing function of its own."""
    draw = generator(seed, RESCALE, TABLES[name])
    scores, rescaled = table.scores, table.scores.copy()
    for column in range(scores.shape[1]):
        unit = scores[:, column] / np.abs(scores).max()
        slope, shift = draw.uniform(0.5, 20), draw.normal()
        rescaled[:, column] = (np.exp(5 * unit), slope * unit + shift, unit**3)[int(draw.integers(3))]
    runs = [SwissRounds(contests, random_state=seed_of(seed, RESCALE)).fit(values) for values in (scores, rescaled)]
    before, after = (win_tensor(values).outcomes for values in (scores, rescaled))
    yield Measurement(name, "outcomes change", float((before != after).any()))
    yield Measurement(name, "expected wins change", float((runs[0].expected_wins_ != runs[1].expected_wins_).any()))
    reordered = discordant(scores.mean(axis=1), rescaled.mean(axis=1))
    yield Measurement(name, "pairs that the mean reorders", float(reordered))


def byes_and_orders(
    seed: int, tables: Mapping[str, ScoreTable], ability: Array, orders: int, order_contests: int, contests: int
) -> Iterator[Measurement]:
    """What a ranking owes to byes and to the order of the benchmarks."""
    for name, table in tables.items():
        report = order_sensitivity(
            table, orders, n_sims=order_contests, random_state=seed_of(seed, ORDERS, TABLES[name])
        )
        yield Measurement(name, "rank deviation over orders", float(report.ranks.std(axis=0, ddof=1).mean()))
        for column, model in enumerate(table.model_names):
            for percent in (5, 50, 95):
                rank = float(np.percentile(report.ranks[:, column], percent))
                yield Measurement(name, "rank over orders", rank, x=float(percent), item=model)
    synthetic = tables["synthetic"]
    for policy in POLICIES:
        run = SwissRounds(contests, bye=policy, random_state=seed_of(seed, ORDERS, 2)).fit(synthetic)
        yield Measurement(f"bye: {policy}", "Kendall tau with ability", tau(run.expected_wins_, ability))
        yield Measurement(f"bye: {policy}", "byes / rounds", run.bye_rate_)
        for row, wins in enumerate(run.expected_wins_):
            yield Measurement(f"bye: {policy}", "expected wins by ability", float(wins), x=float(ability[row]))
    static: DataFrame = baselines(synthetic)
    for method in static:
        yield Measurement(method, "Kendall tau with ability", tau(static[method].to_numpy(), ability))


def tau(one: Any, other: Any) -> float:
    return float(kendalltau(one, other).statistic)


def discordant(one: Array, other: Array) -> int:
    """Pairs that two rankings put in opposite orders."""
    pairs = np.triu_indices(len(one), 1)
    return int((np.sign(one[:, None] - one)[pairs] * np.sign(other[:, None] - other)[pairs] < 0).sum())


def rand_index(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    return float(adjusted_rand_score(one, other))


def auc(field: Field, statistic: Array) -> float:
    """Chance that a generalist has more of the statistic than a specialist."""
    return float(roc_auc_score(field.generalist, np.nan_to_num(statistic, nan=0.0)))
