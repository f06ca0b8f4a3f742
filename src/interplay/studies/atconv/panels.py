"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame

BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#777777",
)
COLOURS = {
    "atconv": BLUE,
    "atconv without inhibition": SKY,
    "atconv on a grid": GREEN,
    "atconv with softmax": YELLOW,
    "static": ORANGE,
    "static with inhibition": PURPLE,
    "attention": "black",
    "full convolution": GREY,
    "identity": GREY,
}
DASHED = {"full convolution", "atconv on a grid", "atconv with softmax"}


def chosen(measurements: DataFrame, metric: str) -> DataFrame:
    return measurements[measurements["metric"] == metric]


def draw_errors(axes: Axes, measurements: DataFrame) -> None:
    """Mean and range over seeds along training."""
    rows = chosen(measurements, "normalised error")
    for condition in dict.fromkeys(rows["condition"]):
        table = rows[rows["condition"] == condition].groupby("step")["value"].agg(["mean", "min", "max"])
        steps = table.index.to_numpy(dtype=float)
        style = "--" if condition in DASHED else "-"
        axes.plot(steps, table["mean"], style, color=COLOURS[condition], label=condition)
        axes.fill_between(steps, table["min"], table["max"], color=COLOURS[condition], alpha=0.15, linewidth=0)
    axes.set(xlabel="training step", ylabel="error / variance of the target", ylim=(0, 1.05))
    axes.set_title("Filters chosen by context: mean and range of seeds")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def draw_kernels(axes: Axes, measurements: DataFrame) -> None:
    """Kernels of the most routed channel of the first seed, for images that are nothing but a cue."""
    rows = chosen(measurements, "kernel tap")
    rows = rows[rows["seed"] == rows["seed"].min()]
    cues = sorted(rows["x"].unique())
    picture = np.full((3, 4 * len(cues) - 1), np.nan)
    for place, cue in enumerate(cues):
        taps = rows[rows["x"] == cue].sort_values("step")["value"].to_numpy(dtype=float)
        picture[:, 4 * place : 4 * place + 3] = taps.reshape(3, 3)
    limit = float(np.nanmax(np.abs(picture)))
    image = axes.imshow(picture, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.set_xticks([4 * place + 1 for place in range(len(cues))], [f"{cue:+g}" for cue in cues])
    axes.set_yticks([])
    axes.set_xlabel("brightness of the image, the cue")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title("Kernels of one channel for four images")
    axes.figure.colorbar(image, ax=axes, label="weight", shrink=0.6)


def draw_accuracy(axes: Axes, measurements: DataFrame) -> None:
    """Every seed and the mean, by mixer; open marks where the channel mixer has its depthwise convolution."""
    rows = chosen(measurements, "test accuracy")
    order = list(dict.fromkeys(rows["condition"]))
    for place, condition in enumerate(order):
        values = rows.loc[rows["condition"] == condition, "value"]
        axes.plot(100 * values, np.full(len(values), place), "o", color=COLOURS[condition], alpha=0.5, markersize=4)
        axes.plot(100 * values.mean(), place, "|", color=COLOURS[condition], markersize=20, markeredgewidth=2.5)
    extra = chosen(measurements, "test accuracy, depthwise channel mixer")
    for condition, group in extra.groupby("condition"):
        heights = np.full(len(group), order.index(condition) + 0.3)
        axes.plot(100 * group["value"], heights, "o", color=COLOURS[condition], fillstyle="none", markersize=4)
    axes.plot(
        [], [], "o", color="0.4", fillstyle="none", markersize=4, label="channel mixer with a depthwise convolution"
    )
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.4, -1.4)
    axes.set_xlabel("test accuracy on cluttered digits / %")
    axes.set_title("Mixers in the same small AttNet: seeds and mean")
    axes.legend(loc="upper left")


def draw_scaling(axes: Axes, measurements: DataFrame) -> None:
    """Paired difference to static kernels by number of images, a line for each number of epochs."""
    rows = chosen(measurements, "accuracy by images")
    table = rows.pivot_table(index=["step", "x", "seed"], columns="condition", values="value")
    gains = 100 * (table["atconv"] - table["static"]).dropna()
    for (epochs, group), marker, colour in zip(gains.groupby(level="step"), "os^", (BLUE, ORANGE, GREEN), strict=False):
        means = group.groupby(level="x").mean()
        axes.plot(means.index, means, "-", color=colour, label=f"{epochs} epochs")
        axes.plot(group.index.get_level_values("x"), group, marker, color=colour, alpha=0.5, markersize=4)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="training images", ylabel="accuracy, atconv - static / points")
    ticks = sorted(gains.index.get_level_values("x").unique())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_title("Does more data help kernels that follow the image?")
    axes.legend()


def draw_dc_share(axes: Axes, measurements: DataFrame) -> None:
    """By layer, mean and range of seeds, before and after inhibition."""
    lines = (
        ("atconv", "dc share by layer", BLUE, "-", "with inhibition, after it"),
        ("atconv", "dc share before inhibition by layer", BLUE, "--", "with inhibition, before it"),
        ("atconv without inhibition", "dc share by layer", SKY, "-", "trained without inhibition"),
        ("static", "dc share by layer", ORANGE, "-", "static"),
    )
    for condition, metric, colour, style, label in lines:
        rows = chosen(measurements, metric)
        table = rows[rows["condition"] == condition].groupby("x")["value"].agg(["mean", "min", "max"])
        if table.empty:
            continue
        layers = table.index.to_numpy() + 1
        axes.plot(layers, table["mean"], style, marker="o", markersize=4, color=colour, label=label)
        axes.fill_between(layers, table["min"], table["max"], color=colour, alpha=0.12, linewidth=0)
        axes.set_xticks(layers)
    axes.set(xlabel="layer", ylabel="share of energy in the mean", ylim=(0, None))
    axes.set_title("Contrast of trained kernels")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def draw_strength(axes: Axes, measurements: DataFrame) -> None:
    """Where gates end up, over channels and seeds."""
    rows = chosen(measurements, "strength of inhibition")
    layers = sorted(rows["x"].unique())
    bins = np.linspace(0, 1, 41)
    for layer, colour in zip(layers, (BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY), strict=False):
        values = rows.loc[rows["x"] == layer, "value"]
        axes.hist(values, bins, histtype="step", linewidth=1.5, color=colour, label=f"layer {layer + 1:g}")
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="strength of inhibition, 0.5 at the start", ylabel="channels, all seeds")
    axes.set_title("Learned inhibition in classifiers")
    axes.legend()


def draw_costs(axes: Axes, measurements: DataFrame) -> None:
    rows = chosen(measurements, "operations / million")
    for condition in dict.fromkeys(rows["condition"]):
        table = rows[rows["condition"] == condition].groupby("x")["value"].mean()
        slopes = chosen(measurements, "slope of operations")
        slope = slopes.loc[slopes["condition"] == condition, "value"].mean()
        axes.plot(
            table.index,
            table,
            marker="o",
            markersize=4,
            color=COLOURS[condition],
            label=f"{condition}, slope {slope:.2f}",
        )
    axes.set(xscale="log", yscale="log", xlabel="pixels", ylabel="multiply-accumulates / million")
    axes.set_title("Cost of one mixer")
    axes.legend()


def draw_pairs(axes: Axes, measurements: DataFrame, metric: str, label: str) -> None:
    """Seeds joined by lines, attention to the left."""
    rows = chosen(measurements, metric)
    table = rows.pivot_table(index="seed", columns="condition", values="value")
    for _, pair in table.iterrows():
        axes.plot([0, 1], [pair["attention"], pair["atconv"]], "-", color="0.7", linewidth=0.8)
    for place, condition in enumerate(("attention", "atconv")):
        axes.plot(np.full(len(table), place), table[condition], "o", color=COLOURS[condition], markersize=4)
    if "real digits" in table:
        axes.axhline(table["real digits"].mean(), color=GREEN, linestyle=":", label="other real digits")
        axes.legend()
    axes.set_xticks([0, 1], ["attention", "atconv"])
    axes.set(xlim=(-0.4, 1.4), ylabel=label, ylim=(0, 1.08 * table.to_numpy().max()))
    axes.set_title("Diffusion transformer")


def draw_samples(axes: Axes, measurements: DataFrame, condition: str) -> None:
    """Digits that the first seed draws, one of each of the first classes."""
    rows = chosen(measurements, "pixel")
    rows = rows[rows["condition"] == condition]
    pictures = []
    for _, digit in rows.groupby("item"):
        pixels = digit.sort_values("step")["value"].to_numpy(dtype=float)
        side = round(len(pixels) ** 0.5)
        pictures.append(np.pad(pixels.reshape(side, side), 1, constant_values=1))
    axes.imshow(np.concatenate(pictures, 1), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"Drawn by the transformer with {condition}")
