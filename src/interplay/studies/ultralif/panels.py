"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame
from scipy import stats

from interplay.evidence import difference
from interplay.studies.ultralif import AT_ONE_STEP, CONTROLS, HISTOGRAM, IMAGES, IN_TIME, NEURONS, SCALED

COLOURS = {
    "LIF": "#D55E00",
    "LIF hard": "#E69F00",
    "PLIF": "#F0E442",
    "AdaLIF": "#999999",
    "DSpike": "#CC79A7",
    "SigmaLIF": "#000000",
    "UltraLIF": "#56B4E9",
    "UltraPLIF": "#0072B2",
    "UltraDLIF": "#009E73",
    "UltraDPLIF": "#7A5195",
}
LINES = {"color": "black", "linewidth": 0.8}


def summary(measurements: DataFrame, metric: str, *columns: str, **where: object) -> DataFrame:
    """Mean over seeds and half of the 95 % interval, by condition and further columns."""
    rows = measurements[measurements["metric"] == metric]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    table = rows.groupby(["condition", *columns])["value"].agg(["mean", "sem", "count"])
    quantile = stats.t.ppf(0.975, (table["count"] - 1).clip(lower=1))
    return table.assign(half=(quantile * table["sem"]).fillna(0.0))


def draw_limit(axes: Axes, measurements: DataFrame) -> None:
    errors, bounds = (summary(measurements, f"{what} membrane error", "x") for what in ("largest", "bound of the"))
    for name, label in (("UltraLIF", "UltraLIF, 10 steps"), ("UltraDLIF", "UltraDLIF, 1 step")):
        axes.plot(errors.loc[name].index, errors.loc[name]["mean"], "o-", color=COLOURS[name], label=label)
        axes.plot(bounds.loc[name].index, bounds.loc[name]["mean"], ":", color=COLOURS[name], label="its bound")
    axes.set(xscale="log", yscale="log", xlabel="temperature eps", ylabel="largest error of the membrane")
    axes.set_title("Distance from the hard max-plus neuron")
    axes.legend()


def draw_spike(axes: Axes, measurements: DataFrame) -> None:
    potential = np.linspace(-4, 4, 401)
    for eps, shade in ((0.3, "#003f66"), (1.0, "#0072B2"), (3.0, "#8ec6ea")):
        spike = 1 / (1 + np.exp(-potential / eps))
        axes.plot(potential, spike, color=shade, label=f"eps = {eps:g}")
        axes.plot(potential, spike * (1 - spike) / eps, "--", color=shade)
    spike = 1 / (1 + np.exp(-10 * (potential - 0.5)))
    axes.plot(potential, spike, color=COLOURS["LIF"], label="LIF")
    axes.set(xlabel="potential V", ylabel="spike (solid), slope (dashed)", title="Spike functions")
    axes.set_ylim(0, 1.02)
    axes.legend()


def draw_vanishing(axes: Axes, measurements: DataFrame) -> None:
    table = summary(measurements, "share of units without gradient", "x")
    partial = summary(measurements, "share of gradients that are zero", "x")
    for name in ("LIF hard", "LIF", "SigmaLIF", "UltraLIF", "UltraDLIF"):
        axes.plot(partial.loc[name].index, 100 * partial.loc[name]["mean"], "o-", color=COLOURS[name], label=name)
        axes.plot(table.loc[name].index, 100 * table.loc[name]["mean"], ":", color=COLOURS[name])
    axes.set(xlabel="hidden layer of six", ylabel="gradients that are exactly 0 / %", ylim=(-2, 102))
    axes.set_title("Before training (dotted: units without any)")
    axes.legend()


def draw_scores(axes: Axes, measurements: DataFrame, task: str, names: tuple[str, ...], title: str) -> None:
    for offset, metric, filled in ((-0.12, "accuracy", True), (0.12, "hard accuracy", False)):
        table = 100 * summary(measurements, metric, item=task, x=1.0)
        for position, name in enumerate(names):
            axes.errorbar(
                position + offset,
                table.loc[name, "mean"],
                table.loc[name, "half"],
                fmt="o",
                color=COLOURS[name],
                markerfacecolor=None if filled else "white",
                capsize=2,
                linewidth=1,
            )
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set(ylabel="test accuracy / %", title=f"{title} (open: hard spikes)")


def draw_histogram(axes: Axes, measurements: DataFrame) -> None:
    draw_scores(axes, measurements, HISTOGRAM, AT_ONE_STEP, "Event counts, one step")


def draw_scaled(axes: Axes, measurements: DataFrame) -> None:
    draw_scores(axes, measurements, SCALED, CONTROLS, "The same counts, each channel scaled to 1")


def draw_in_time(axes: Axes, measurements: DataFrame) -> None:
    draw_scores(axes, measurements, IN_TIME, tuple(NEURONS), "Event counts in time, ten steps")


def draw_images(axes: Axes, measurements: DataFrame) -> None:
    draw_scores(axes, measurements, IMAGES, AT_ONE_STEP, "MNIST as random spikes, one step")


def draw_differences(axes: Axes, measurements: DataFrame) -> None:
    pairs = {
        "best Ultra - LIF": ("best Ultra", "LIF", COLOURS["UltraLIF"]),
        "UltraPLIF - SigmaLIF": ("UltraPLIF", "SigmaLIF", COLOURS["UltraPLIF"]),
        "SigmaLIF - LIF": ("SigmaLIF", "LIF", COLOURS["SigmaLIF"]),
    }
    tasks = {
        "events, 1 layer": {"item": HISTOGRAM, "x": 1},
        "2 layers": {"item": HISTOGRAM, "x": 2},
        "3 layers": {"item": HISTOGRAM, "x": 3},
        "scaled": {"item": SCALED, "x": 1},
        "in time": {"item": IN_TIME, "x": 1},
        "images": {"item": IMAGES, "x": 1},
    }
    for offset, (label, (one, other, colour)) in zip((-0.22, 0.0, 0.22), pairs.items(), strict=True):
        for position, where in enumerate(tasks.values()):
            if one == "best Ultra" and where["item"] == SCALED:
                continue
            estimate = difference("accuracy", one, other, where=where).estimate(measurements)
            low, high = np.nan_to_num([estimate.low, estimate.high], nan=estimate.effect)
            axes.plot([100 * low, 100 * high], [position + offset] * 2, color=colour, linewidth=1.2)
            axes.plot(
                100 * estimate.effect, position + offset, "o", color=colour, label=label if not position else None
            )
    axes.axvline(0, linestyle=":", **LINES)
    axes.set(yticks=range(len(tasks)), yticklabels=tasks, xlabel="difference of accuracy / points")
    axes.invert_yaxis()
    axes.set_title("What is the gain due to? Paired by seed, 95 %")
    axes.legend()


def draw_depth(axes: Axes, measurements: DataFrame) -> None:
    table = summary(measurements, "accuracy", "x", item=HISTOGRAM)
    for shift, name in enumerate(("LIF", "LIF hard", "SigmaLIF", "UltraLIF", "UltraPLIF", "UltraDLIF")):
        rows = 100 * table.loc[name]
        layers = rows.index + 0.02 * (shift - 2.5)
        axes.errorbar(layers, rows["mean"], rows["half"], color=COLOURS[name], marker="o", capsize=2, label=name)
    axes.set(xlabel="hidden layers", ylabel="test accuracy / %", title="Depth, event counts in one step")
    axes.set_xticks(sorted(table.index.get_level_values("x").unique()))
    axes.legend(ncols=2)


def draw_temperatures(axes: Axes, measurements: DataFrame) -> None:
    table = 100 * summary(measurements, "accuracy by temperature", "item")
    conditions = sorted({name for name, _ in table.index})
    names = ("UltraLIF", "UltraPLIF", "UltraDLIF")
    width = 0.7 / len(conditions)
    for position, condition in enumerate(conditions):
        rows = table.loc[condition].loc[list(names)]
        centres = np.arange(len(names)) + (position - (len(conditions) - 1) / 2) * width
        colour = "#0072B2" if condition == "learned" else str(0.75 - 0.25 * position)
        axes.errorbar(centres, rows["mean"], rows["half"], fmt="o", color=colour, capsize=2, label=condition)
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="test accuracy / %", title="Temperature fixed or learned, images")
    axes.legend(ncols=2)


def draw_penalty(axes: Axes, measurements: DataFrame) -> None:
    accuracy = 100 * summary(measurements, "accuracy by penalty", "x")
    rate = summary(measurements, "spike rate by penalty", "x")
    axes.errorbar(
        rate["mean"],
        accuracy["mean"],
        accuracy["half"],
        rate["half"],
        color=COLOURS["UltraPLIF"],
        marker="o",
        capsize=2,
        linewidth=1,
    )
    for (_, weight), x, y in zip(rate.index, rate["mean"], accuracy["mean"], strict=True):
        axes.annotate(f"{weight:g}", (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set(
        xlabel="mean spike", ylabel="test accuracy / %", title="Weight of the penalty on spikes, UltraPLIF, images"
    )


def draw_courses(axes: Axes, measurements: DataFrame) -> None:
    for metric, style in (("eps", "-"), ("decay", "--")):
        table = summary(measurements.dropna(subset=["step"]), metric, "step", item=HISTOGRAM)
        for name in ("SigmaLIF", "UltraLIF", "UltraPLIF", "UltraDLIF"):
            rows = table.loc[name]
            if metric == "eps" or name == "UltraPLIF":
                axes.plot(rows.index, rows["mean"], style, marker=".", color=COLOURS[name], label=f"{metric}, {name}")
    axes.set(xlabel="epoch", ylabel="temperature, decay", title="What is learned, event counts in one step")
    axes.legend()


PANELS = (
    *(draw_limit, draw_spike, draw_vanishing),
    *(draw_histogram, draw_in_time, draw_images),
    *(draw_scaled, draw_differences, draw_depth),
    *(draw_temperatures, draw_penalty, draw_courses),
)
