"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame, Series
from scipy.stats import norm

BLUE, ORANGE, GREEN, PURPLE, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#777777"
TIER_COLOURS = (BLUE, GREEN, YELLOW, ORANGE, PURPLE, GREY)
METHODS = (
    "Swiss rounds",
    "mean",
    "median",
    "z-mean",
    "mean win rate",
    "Copeland",
    "Borda",
    "Bradley-Terry",
    "Elo",
)


def select(measurements: DataFrame, metric: str, condition: str | None = None) -> DataFrame:
    rows = measurements[measurements["metric"] == metric]
    return rows if condition is None else rows[rows["condition"] == condition]


def by_model(measurements: DataFrame, metric: str, condition: str = "estimators") -> Series:
    return select(measurements, metric, condition).groupby("item")["value"].mean()


def draw_strength(axes: Axes, measurements: DataFrame) -> None:
    """Expected wins against the mean score, coloured by tier."""
    rows = select(measurements, "expected wins", "estimators")
    wins, means = rows.groupby("item")["value"].mean(), rows.groupby("item")["x"].mean()
    errors = by_model(measurements, "standard error").reindex(wins.index)
    tiers = by_model(measurements, "tier").round().astype(int).reindex(wins.index)
    for tier in sorted(set(tiers)):
        chosen = tiers == tier
        axes.errorbar(
            means[chosen],
            wins[chosen],
            yerr=5 * errors[chosen],
            fmt="o",
            markersize=4,
            color=TIER_COLOURS[(tier - 1) % len(TIER_COLOURS)],
            label=f"tier {tier}",
        )
    axes.set(xlabel="mean accuracy", ylabel="expected wins (bars: 5 standard errors)")
    axes.set_title("Classifiers: tournament and mean score")
    axes.legend(loc="upper left")


def draw_survival(axes: Axes, measurements: DataFrame) -> None:
    """Chance of still being in the field when one model of the lowest group leaves after each round."""
    wins = by_model(measurements, "expected wins").sort_values(ascending=False)
    curves = select(measurements, "survival", "estimators").pivot_table(index="x", columns="item", values="value")
    shown = np.unique(np.linspace(0, len(wins) - 1, 6).astype(int))
    for colour, place in zip(TIER_COLOURS, shown, strict=False):
        model = wins.index[place]
        axes.step(curves.index, curves[model], where="post", color=colour, label=f"{place + 1}. {model}")
    axes.set(xlabel="round (benchmark), easiest first", ylabel="probability of being in the field", ylim=(-0.03, 1.03))
    axes.set_title("One eliminated a round")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, fontsize=7)


def draw_exact(axes: Axes, measurements: DataFrame) -> None:
    """Errors of the simulation in small fields, in standard errors, beside the normal law."""
    errors = select(measurements, "error / standard error", "small fields")["value"]
    edges = np.linspace(-5, 5, 41)
    axes.hist(errors, bins=edges, density=True, color=BLUE, alpha=0.6, label="models of small fields")
    grid = np.linspace(-5, 5, 200)
    axes.plot(grid, norm.pdf(grid), color="black", linewidth=1, label="standard normal")
    axes.set(xlabel="(simulated - exact) / standard error", ylabel="density")
    axes.set_title("Simulation against the exact solver")
    axes.legend(loc="upper left", fontsize=7)


def draw_profiles(axes: Axes, measurements: DataFrame) -> None:
    """Retention and strength of models that are equal in mean and mean win rate."""
    rows = select(measurements, "retention")
    for kind, colour, marker in (("generalist", BLUE, "o"), ("specialist", ORANGE, "^")):
        chosen = rows[rows["condition"] == kind]
        axes.scatter(chosen["x"], chosen["value"], s=16, color=colour, marker=marker, alpha=0.7, label=f"{kind}s")
    axes.set(xlabel="expected wins without elimination", ylabel="retention with one eliminated a round")
    axes.set_title("Profiles over random orders, all seeds")
    axes.legend(loc="lower right")


def draw_auc(axes: Axes, measurements: DataFrame) -> None:
    """How well generalists are told from specialists."""
    rows = select(measurements, "AUC")
    names = {
        "random orders": "retention,\nrandom orders",
        "random orders, residual": "residual,\nrandom orders",
        "fixed order": "retention,\nfixed order",
        "fixed order, slope": "slope,\nfixed order",
        "single orders": "retention,\nsingle orders",
        "row deviation": "deviation\nof scores",
    }
    for place, condition in enumerate(names):
        values = rows.loc[rows["condition"] == condition, "value"]
        offsets = np.linspace(-0.25, 0.25, len(values))
        small = condition == "single orders"
        axes.plot(
            place + offsets, values, "o", markersize=1.5 if small else 5, color=GREY if small else BLUE, alpha=0.7
        )
        axes.hlines(values.mean(), place - 0.35, place + 0.35, color="black", linewidth=1)
    axes.axhline(0.75, color=ORANGE, linestyle="--", linewidth=1, label="asked for")
    axes.axhline(0.5, color="0.7", linewidth=1)
    axes.set_xticks(range(len(names)), list(names.values()), fontsize=6.5, rotation=30, ha="right")
    axes.set(ylabel="AUC, generalist above specialist", ylim=(0, 1.05))
    axes.set_title("Detectors of generalists")
    axes.legend(loc="lower left")


def draw_broken(axes: Axes, measurements: DataFrame) -> None:
    """Ranks lost by a good model some of whose scores break."""
    for side, (table, colour) in enumerate((("estimators", BLUE), ("synthetic", ORANGE))):
        rows = select(measurements, f"mean rank drop, {table}")
        values = [rows.loc[rows["condition"] == method, "value"] for method in METHODS]
        places = np.arange(len(METHODS)) + (side - 0.5) * 0.4
        axes.barh(places, [value.mean() for value in values], height=0.38, color=colour, label=table)
        for place, value in zip(places, values, strict=True):
            axes.plot(value, np.full(len(value), place), "k.", markersize=2)
    axes.set_yticks(range(len(METHODS)), METHODS)
    axes.invert_yaxis()
    axes.set(xlabel="mean ranks lost (dots: seeds)")
    axes.set_title("Some scores of a good model break")
    axes.legend(loc="lower right")


def draw_orders(axes: Axes, measurements: DataFrame) -> None:
    """Ranks over random orders of the benchmarks."""
    rows = select(measurements, "rank over orders", "estimators")
    table = rows.pivot_table(index="item", columns="x", values="value").sort_values(50.0)
    places = np.arange(len(table))
    axes.vlines(places, table[5.0], table[95.0], color=BLUE, linewidth=5, alpha=0.5, label="5 to 95 % of orders")
    axes.plot(places, table[50.0], "_", color="black", markersize=9, label="median")
    wins = by_model(measurements, "expected wins").reindex(table.index)
    axes.plot(places, wins.rank(ascending=False), "x", color=ORANGE, markersize=5, label="easiest first")
    axes.invert_yaxis()
    axes.set_xticks(places, table.index, rotation=60, ha="right", fontsize=7)
    axes.set(ylabel="rank")
    axes.set_title("Classifiers under random orders of the benchmarks")
    axes.legend(loc="lower left")


def draw_agreement(axes: Axes, measurements: DataFrame) -> None:
    """Kendall's tau with static aggregates, with intervals over resampled benchmarks."""
    metric = "Kendall tau with Swiss rounds"
    methods = METHODS[1:]
    parts = [metric, f"{metric}, 2.5 % of resamples", f"{metric}, 97.5 % of resamples"]
    value, low, high = (
        np.array([select(measurements, part, method)["value"].mean() for method in methods]) for part in parts
    )
    places = np.arange(len(methods))
    axes.hlines(places, low, high, color=BLUE, linewidth=4, alpha=0.5, label="95 % of resampled benchmarks")
    axes.plot(value, places, "o", color=BLUE, markersize=5, label="the table")
    axes.axvline(0.6, color=ORANGE, linestyle="--", linewidth=1, label="asked for, of the mean")
    axes.set_yticks(places, methods)
    axes.invert_yaxis()
    axes.set(xlabel="Kendall's tau with Swiss rounds", xlim=(min(0.55, low.min() - 0.02), 1.01))
    axes.set_title("Agreement, classifiers")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), fontsize=7)


def draw_byes(axes: Axes, measurements: DataFrame) -> None:
    """Share of its rounds that each model sits out."""
    wins = by_model(measurements, "expected wins").sort_values(ascending=False)
    shares = by_model(measurements, "bye share").reindex(wins.index)
    places = np.arange(len(shares))
    axes.bar(places, shares, color=BLUE)
    rate = select(measurements, "byes / rounds", "estimators")["value"].mean()
    axes.axhline(rate, color="black", linewidth=1, label=f"all models: {rate:.0%}")
    axes.axhline(0.25, color=ORANGE, linestyle="--", linewidth=1, label="flagged from here on")
    axes.set_xticks(places, shares.index, rotation=60, ha="right", fontsize=7)
    axes.set(ylabel="rounds sat out, share")
    axes.set_title("Byes by rank (best left)")
    axes.legend(loc="upper left")


def draw_policies(axes: Axes, measurements: DataFrame) -> None:
    """Agreement with the known ability of synthetic models, by bye policy and for static aggregates."""
    rows = select(measurements, "Kendall tau with ability")
    conditions = ["bye: zero", "bye: half", "bye: win", "bye: float", *METHODS[1:]]
    for place, condition in enumerate(conditions):
        values = rows.loc[rows["condition"] == condition, "value"]
        colour = BLUE if condition.startswith("bye") else GREY
        axes.plot(values, np.full(len(values), place), "o", color=colour, markersize=4, alpha=0.6)
        axes.plot(values.mean(), place, "|", color="black", markersize=12)
    axes.set_yticks(range(len(conditions)), conditions)
    axes.invert_yaxis()
    axes.set(xlabel="Kendall's tau with ability")
    axes.set_title("Synthetic models (dots: seeds)")
