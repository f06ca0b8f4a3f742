"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from pandas import DataFrame
from scipy import stats

COLOURS = {
    "CCL": "#0072B2",
    "BP": "#D55E00",
    "frozen feedback": "#56B4E9",
    "FA": "#009E73",
    "DTP": "#CC79A7",
    "DRTP": "#E69F00",
    "top layer only": "#999999",
}
BARS = [*COLOURS, "CCL without level 0", "CCL, own targets", "BP, step size 1"]


def summary(measurements: DataFrame, metric: str, *columns: str) -> DataFrame:
    """Mean over seeds and 95 % half-width, by condition and further columns."""
    rows = measurements[measurements["metric"] == metric]
    table = rows.groupby(["condition", *columns])["value"].agg(["mean", "sem", "count", "min"])
    quantile = stats.t.ppf(0.975, (table["count"] - 1).clip(lower=1))
    return table.assign(half=(quantile * table["sem"]).fillna(0.0))


def draw_curves(axes: Axes, measurements: DataFrame) -> None:
    table = summary(measurements, "test accuracy by step", "step")
    for name, colour in COLOURS.items():
        curve = table.loc[name]
        axes.plot(curve.index.astype(int), 100 * curve["mean"], color=colour, label=name)
    axes.set(xlabel="training steps", ylabel="test accuracy / %", ylim=(50, 100), title="Learning digits")
    axes.legend(loc="lower right", ncols=2, fontsize=7, frameon=True, framealpha=0.9, edgecolor="none")


def draw_accuracies(axes: Axes, measurements: DataFrame) -> None:
    panels = {
        "perceptron": summary(measurements, "test accuracy"),
        "perceptron,\nnoise and occlusion": summary(measurements, "test accuracy, hard images"),
        "convolutions": summary(measurements, "test accuracy, convolutions"),
    }
    position, ticks, labels = 0.0, [], []
    for title, table in panels.items():
        start = position
        for name in (bar for bar in BARS if bar in table.index):
            row = table.loc[name]
            axes.bar(position, 100 * row["mean"], 0.8, yerr=100 * row["half"], color=COLOURS.get(name, "#BBBBBB"))
            axes.plot(position, 100 * row["min"], "v", color="black", markersize=4)
            ticks.append(position)
            labels.append(name)
            position += 1
        axes.text((start + position - 1) / 2, 101, title, ha="center", va="bottom", fontsize=8)
        position += 0.8
    axes.set(xticks=ticks, ylabel="test accuracy / %", ylim=(0, 116), yticks=range(0, 101, 20))
    axes.set_xticklabels(labels, rotation=40, ha="right", fontsize=7)
    axes.set_title("Accuracy, 95 % interval over seeds; triangles: the worst seed")


def draw_levels(
    axes: Axes, measurements: DataFrame, metric: str, ylabel: str, title: str, name: str, height: float
) -> None:
    table = summary(measurements, metric, "x", "step").loc["CCL"]
    levels = table.index.levels[0]
    shades = colormaps["viridis_r"](np.linspace(0.1, 1, len(levels)))
    for level, shade in zip(levels, shades, strict=True):
        curve = table.loc[level]
        axes.plot(curve.index.astype(int), curve["mean"], color=shade, label=f"{level:g}")
    axes.axhline(0, color="black", linewidth=0.6, linestyle=":")
    axes.set(xlabel="training steps", ylabel=ylabel, title=title)
    axes.legend(title=name, ncols=4, fontsize=7, title_fontsize=7, loc="center right", bbox_to_anchor=(1, height))


def draw_alignment(axes: Axes, measurements: DataFrame) -> None:
    draw_levels(
        axes,
        measurements,
        "weight cosine by step",
        "cosine of weights",
        "Feedback and transposed forward",
        "layer",
        0.7,
    )


def draw_similarity(axes: Axes, measurements: DataFrame) -> None:
    draw_levels(axes, measurements, "CKA by step", "CKA", "Activities and codes of the labels", "level", 0.15)


def draw_updates(axes: Axes, measurements: DataFrame) -> None:
    draw_levels(
        axes,
        measurements,
        "update cosine by step",
        "cosine of updates",
        "Local update and backpropagation's",
        "layer",
        0.78,
    )


def draw_templates(axes: Axes, measurements: DataFrame) -> None:
    _draw_tiles(axes, measurements, "class template", ["CCL"], columns=5)
    axes.set_title("Class templates: what the feedback network makes of each label")


def draw_kernels(axes: Axes, measurements: DataFrame) -> None:
    _draw_tiles(axes, measurements, "first kernels", ["CCL", "BP"], columns=4)
    centroids = summary(measurements, "spectral centroid")["mean"]
    parts = ", ".join(f"{name} {centroids[name]:.2f}" for name in ("CCL", "BP", "initial"))
    axes.set_title(f"First kernels, CCL left, BP right\ncycles a pixel: {parts}", fontsize=8)


def _draw_tiles(axes: Axes, measurements: DataFrame, metric: str, conditions: list[str], columns: int) -> None:
    first = measurements[measurements["seed"] == measurements["seed"].min()]
    blocks = []
    for name in conditions:
        rows = first[(first["metric"] == metric) & (first["condition"] == name)].sort_values(["x", "step"])
        side = round((rows["step"].max() + 1) ** 0.5)
        tiles = rows["value"].to_numpy().reshape(-1, side, side)
        tiles = tiles / np.abs(tiles).max((1, 2), keepdims=True)
        missing = -len(tiles) % columns
        tiles = np.concatenate([tiles, np.full((missing, side, side), np.nan)])
        framed = np.pad(tiles, ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        grid = framed.reshape(-1, columns, side + 1, side + 1)
        blocks.append(np.concatenate([np.concatenate(list(row), axis=1) for row in grid]))
        blocks.append(np.full((len(blocks[-1]), side), np.nan))
    axes.imshow(np.concatenate(blocks[:-1], axis=1), cmap="PuOr", vmin=-1, vmax=1)
    axes.set_axis_off()


def draw_rates(axes: Axes, measurements: DataFrame) -> None:
    table = summary(measurements, "validation accuracy in the race", "x")
    for name, colour in COLOURS.items():
        race = table.loc[name]
        axes.plot(race.index, 100 * race["mean"], "o-", color=colour, label=name)
    axes.set(xscale="log", xlabel="step size", ylabel="validation accuracy / %", title="The race of step sizes")


def draw_autoencoder(axes: Axes, measurements: DataFrame) -> None:
    table = summary(measurements, "test error, autoencoder")
    names = {
        "mean image": "mean\nimage",
        "CCL": "CCL",
        "BP": "BP",
        "BP, published step size": "BP, published\nstep size",
    }
    for position, name in enumerate(names):
        row = table.loc[name]
        axes.bar(position, row["mean"], 0.7, yerr=row["half"], color=COLOURS.get(name, "#999999"))
    axes.set(xticks=range(len(names)), ylabel="squared error a pixel")
    axes.set_xticklabels(names.values())
    axes.set_title("Autoencoder of 8 x 8 digits, test")


def draw_operations(axes: Axes, measurements: DataFrame) -> None:
    table = summary(measurements, "operations a sample")["mean"]
    names = ["BP", "CCL", "DTP"]
    axes.bar(range(3), table[names] / 1e6, 0.7, color=[COLOURS[name] for name in names])
    axes.set(xticks=range(3), xticklabels=names, ylabel="million operations", title="Operations a sample and step")
