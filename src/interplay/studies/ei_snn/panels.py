"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame
from scipy import stats

from interplay.studies.ei_snn.networks import CONDITIONS

COLOURS = {"E-I": "#0072B2", "batch norm": "#D55E00", "no norm": "#000000"}
DEPTHS = ("#56B4E9", "#0072B2", "#009E73", "#D55E00", "#CC79A7")


def of(measurements: DataFrame, metric: str) -> DataFrame:
    return measurements[measurements["metric"] == metric]


def deepest(rows: DataFrame) -> DataFrame:
    depths = rows["item"].str.removeprefix("depth ").astype(int)
    return rows[depths == depths.max()]


def draw_initial(axes: Axes, measurements: DataFrame, metric: str, bounds: tuple[float, float], label: str) -> None:
    rows = deepest(of(measurements, f"initial {metric}"))
    for name, colour in COLOURS.items():
        table = rows[rows["condition"] == name].groupby("x")["value"].agg(["min", "mean", "max"])
        axes.plot(table.index, table["mean"], "o-", markersize=3, color=colour, label=name)
        axes.fill_between(table.index, table["min"], table["max"], color=colour, alpha=0.2, linewidth=0)
    axes.axhspan(*bounds, color="#0072B2", alpha=0.07, linewidth=0, label="claimed for E-I")
    axes.set(xlabel="hidden layer", ylabel=label, title=f"Before training, {rows['item'].iloc[0]}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if metric == "mean":
        axes.legend()


def draw_accuracy(axes: Axes, measurements: DataFrame) -> None:
    rows, rates = of(measurements, "test accuracy"), of(measurements, "chosen rate")
    for position, name in enumerate(CONDITIONS):
        values = 100 * rows.loc[rows["condition"] == name, "value"].to_numpy()
        colour = COLOURS.get(name, "#666666")
        axes.plot(np.full(len(values), position), values, "o", color=colour, alpha=0.6, markersize=4)
        if len(values) > 1:
            half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
            axes.errorbar(position + 0.2, values.mean(), half, fmt="_", color=colour, capsize=3)
    chosen = rates.groupby("condition")["value"].first()
    labels = ["\n".join([*name.split(), f"({chosen[name]:g})"]) for name in CONDITIONS]
    axes.axhline(10, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xticks=range(len(CONDITIONS)), xticklabels=labels, ylim=(0, 100), ylabel="test accuracy / %")
    axes.set_title("After training: seeds, mean and 95 % interval; in brackets the learning rate of the sweep")


def draw_depth(axes: Axes, measurements: DataFrame) -> None:
    rows = of(measurements, "accuracy by depth")
    for name in ("E-I", "batch norm"):
        mine = rows[rows["condition"] == name]
        axes.plot(mine["x"], 100 * mine["value"], "o", color=COLOURS[name], alpha=0.5, markersize=4)
        table = 100 * mine.groupby("x")["value"].mean()
        axes.plot(table.index, table, color=COLOURS[name], label=name)
    axes.set(xlabel="depth", ylabel="test accuracy / %", ylim=(0, 100), title="Depth, each with its own rate")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower left")


def draw_rates(axes: Axes, measurements: DataFrame) -> None:
    rows = of(measurements, "validation accuracy")
    rows = rows[(rows["seed"] == rows["seed"].min()) & (rows["condition"] == "E-I")]
    by_depth = rows.assign(depth=rows["item"].str.removeprefix("depth ").astype(int)).groupby("depth")
    for colour, (depth, table) in zip(DEPTHS, by_depth, strict=False):
        table = table.sort_values("x")
        axes.plot(table["x"], 100 * table["value"], "o-", markersize=4, color=colour)
        end = table.iloc[-1]
        axes.annotate(
            f"depth {depth}", (end["x"], 100 * end["value"]), (5, -3), textcoords="offset points", color=colour
        )
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy / %", ylim=(0, 100))
    axes.set_title("The sweep of E-I, short runs of another seed")
    ticks = sorted(rows["x"].unique())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.8 * ticks[0], 2.5 * ticks[-1])  # room for the labels


def draw_balance(axes: Axes, measurements: DataFrame) -> None:
    first = measurements[measurements["seed"] == measurements["seed"].min()]
    largest = 0.0
    for when, colour in (("before", "#999999"), ("after", COLOURS["E-I"])):
        rows = of(first, f"subtractive current {when}")
        axes.plot(rows["x"], rows["value"], ".", color=colour, alpha=0.4, markersize=4, label=f"{when} training")
        largest = max(largest, float(np.nanpercentile(rows[["x", "value"]], 99)))
    axes.plot([0, largest], [0, largest], color="black", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, largest), ylim=(0, largest), xlabel="excitatory current", ylabel="subtractive current")
    axes.set_title("Balance in all hidden layers")
    axes.legend(loc="upper left")


def draw_weights(axes: Axes, measurements: DataFrame) -> None:
    for when, colour in (("before", "#999999"), ("after", COLOURS["E-I"])):
        table = of(measurements, f"share of weights {when}").groupby("x")["value"].mean()
        axes.step(table.index, 100 * table, where="mid", color=colour, label=f"{when} training")
    axes.set(xlabel="excitatory weight / mean", ylabel="share of weights / %", yscale="log")
    axes.set_title("Weights W_EE of a middle layer")
    axes.legend()
