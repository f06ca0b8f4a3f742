"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame
from scipy import stats

from interplay.evidence import difference
from interplay.studies.nhl import UNITS

COLOURS = {
    "source": "#999999",
    "BN": "#E69F00",
    "TENT": "#D55E00",
    "HebbOnly": "#56B4E9",
    "HardNHL": "#CC79A7",
    "NHL": "#0072B2",
}


def percent(measurements: DataFrame, metric: str, *columns: str) -> DataFrame:
    """Mean over seeds and 95 % half-width in percent, by condition and further columns."""
    rows = measurements[measurements["metric"] == metric]
    by_seed = rows.groupby(["condition", *columns, "seed"], dropna=False)["value"].mean() * 100
    table = by_seed.groupby(["condition", *columns], dropna=False).agg(["mean", "sem", "count"])
    quantile = stats.t.ppf(0.975, (table["count"] - 1).clip(lower=1))
    return table.assign(half=(quantile * table["sem"]).fillna(0.0))


def draw_errors(axes: Axes, measurements: DataFrame) -> None:
    by_item, overall = percent(measurements, "online error", "item"), percent(measurements, "online error")
    items = [*by_item.loc["source"].sort_values("mean").index, "mean"]
    width = 0.8 / len(COLOURS)
    for position, (name, colour) in enumerate(COLOURS.items()):
        rows = [overall.loc[name] if item == "mean" else by_item.loc[name, item] for item in items]
        centres = np.arange(len(items)) + (position - len(COLOURS) / 2 + 0.5) * width
        heights, halves = [row["mean"] for row in rows], [row["half"] for row in rows]
        axes.bar(centres, heights, width, yerr=halves, color=colour, label=name, error_kw={"linewidth": 0.8})
    axes.axvline(len(items) - 1.5, color="black", linewidth=0.8)
    axes.set(xticks=range(len(items)), xticklabels=items, ylabel="online error / %", ylim=(0, 100))
    axes.set_title("Error on each corruption, 95 % interval over seeds")
    axes.legend(ncols=3, loc="upper left")


def draw_stream(axes: Axes, measurements: DataFrame) -> None:
    table = percent(measurements, "error in batch", "step")
    for name in ("BN", "TENT", "HebbOnly", "NHL"):
        axes.plot(table.loc[name].index + 1, table.loc[name]["mean"], color=COLOURS[name], label=name)
    axes.set(xlabel="batch of the stream", ylabel="error in the batch / %", title="Along the stream, all corruptions")
    axes.legend()


def draw_differences(axes: Axes, measurements: DataFrame) -> None:
    pairs = {
        "NHL - TENT": ("NHL", "TENT"),
        "both predicting before": ("NHL, predicting before", "TENT, predicting before"),
        "NHL - HebbOnly": ("NHL", "HebbOnly"),
        "NHL - HardNHL": ("NHL", "HardNHL"),
        "HebbOnly - HardHebb": ("HebbOnly", "HardHebb"),
        "NHL - random signs": ("NHL", "NHL, random signs"),
        "NHL - second layer": ("NHL", "NHL, second convolution"),
    }
    for position, (one, other) in enumerate(pairs.values()):
        estimate = difference("online error", one, other, unit=UNITS).estimate(measurements)
        low, high = np.nan_to_num([estimate.low, estimate.high], nan=estimate.effect)
        axes.plot([100 * low, 100 * high], [position, position], color="black", linewidth=1.2)
        axes.plot(100 * estimate.effect, position, "o", color="#0072B2")
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(yticks=range(len(pairs)), yticklabels=pairs, xlabel="difference of online error / points")
    axes.invert_yaxis()
    axes.set_title("Paired by seed and corruption, 95 %")


def draw_step_size(axes: Axes, measurements: DataFrame) -> None:
    sweep = percent(measurements, "error by lr_hebb", "x").loc["NHL"]
    axes.errorbar(sweep.index, sweep["mean"], sweep["half"], color=COLOURS["NHL"], marker="o", capsize=2, label="NHL")
    swept = measurements["item"].isin(measurements.loc[measurements["metric"] == "error by lr_hebb", "item"])
    level = percent(measurements[swept], "online error").loc["TENT"]["mean"]
    axes.axhline(level, color=COLOURS["TENT"], linestyle="--", label="TENT")
    axes.set(xscale="log", xlabel="step size of the local rule", ylabel="online error / %", ylim=(0, None))
    axes.set_title("How plastic the first layer may be")
    axes.legend(loc="upper left")


def draw_filters(axes: Axes, measurements: DataFrame) -> None:
    first = measurements[measurements["seed"] == measurements["seed"].min()]
    rows = first[first["metric"] == "filter weight"].sort_values(["x", "step"])
    side = round((rows["step"].max() + 1) ** 0.5)
    before, after = (
        rows.loc[rows["condition"] == name, "value"].to_numpy().reshape(-1, side, side) for name in ("source", "NHL")
    )
    tiles = [
        np.pad(part / np.abs(scale).max(), ((0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        for part, scale in ((before, before), (after, before), (after - before, after - before))
    ]
    axes.imshow(np.concatenate([np.concatenate(list(tile), axis=1) for tile in tiles]), cmap="PuOr", vmin=-1, vmax=1)
    axes.set(
        xticks=[],
        yticks=[side / 2 + row * (side + 1) - 0.5 for row in range(3)],
        yticklabels=["before", "after", "change"],
    )
    axes.set_title(f"The first layer's filters before and after a stream of {rows['item'].iloc[0]}, change magnified")
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_conditions(axes: Axes, measurements: DataFrame) -> None:
    sizes = percent(measurements, "error by batch size", "x")
    groups = {f"batch\nof {int(size)}": sizes.xs(size, level="x") for size in sizes.index.levels[1].dropna()}
    groups["sorted"] = percent(measurements, "error, sorted by class")
    groups["no\nresets"] = percent(measurements, "error without resets")
    groups["no BN"] = percent(measurements, "online error, transformer")
    for offset, name in enumerate(("TENT", "NHL")):
        rows = [group.loc[name] for group in groups.values() if name in group.index]
        centres = np.arange(len(rows)) + 0.35 * (offset - 0.5)
        heights, halves = [row["mean"] for row in rows], [row["half"] for row in rows]
        axes.bar(centres, heights, 0.35, yerr=halves, color=COLOURS[name], label=name, error_kw={"linewidth": 0.8})
    axes.set(xticks=range(len(groups)), xticklabels=groups, ylabel="online error / %", ylim=(0, 100))
    axes.set_title("Harder streams")
    axes.legend()
