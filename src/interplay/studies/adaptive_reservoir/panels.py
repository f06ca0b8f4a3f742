"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame, Series
from scipy import stats

from interplay.studies.adaptive_reservoir.comparisons import BALANCED, UNDER
from interplay.studies.adaptive_reservoir.scoring import MEMORY, NARMA

COLOURS = {
    "static": "#999999",
    "static, radius fixed": "#000000",
    "adapted": "#0072B2",
    "adapted, heterogeneous": "#56B4E9",
    "one-step": "#009E73",
    "one-step, heterogeneous": "#8FD0B8",
    "threshold": "#E69F00",
    "shuffled": "#CC79A7",
    "pooled": "#B8860B",
    "tanh ESN": "#D55E00",
}
CURVES = ("static", "adapted", "adapted, heterogeneous")


def draw_grid(axes: Axes, measurements: DataFrame) -> None:
    rows = _rows(measurements, f"{MEMORY} on the grid", "static")
    table = rows.assign(balance=rows["item"].astype(float)).pivot_table(index="x", columns="balance", values="value")
    image = axes.imshow(table, origin="lower", aspect="auto", cmap="viridis")
    axes.set(
        xticks=range(table.shape[1]),
        xticklabels=[f"{b:g}" for b in table.columns],
        yticks=range(table.shape[0]),
        yticklabels=[f"{g:g}" for g in table.index],
        xlabel="global balance",
        ylabel="gain",
        title="Memory capacity of static networks",
    )
    axes.figure.colorbar(image, ax=axes, label="memory capacity")


def draw_balance(axes: Axes, measurements: DataFrame) -> None:
    for name, style in (("static", "-"), ("static, radius fixed", "--")):
        rows = _rows(measurements, "relative score by balance", name)
        for metric, colour in ((MEMORY, "#0072B2"), (NARMA, "#D55E00")):
            curve = _over_seeds(rows[rows["item"] == metric], "x")
            label = f"{'memory' if metric == MEMORY else 'NARMA-10'}{', radius fixed' if style == '--' else ''}"
            axes.errorbar(curve.index, curve["mean"], curve["half"], color=colour, ls=style, capsize=2, label=label)
    axes.axvspan(*BALANCED, color="#009E73", alpha=0.12, lw=0)
    axes.set_xscale("log")
    axes.set_xticks((0.5, UNDER, 1.0, 1.4, 2.5), labels=("0.5", "0.7", "1", "1.4", "2.5"))
    axes.minorticks_off()
    axes.set(xlabel="global balance, each at its best gain", ylabel="score / best score", ylim=(0.3, 1.06))
    axes.set_title("Balance; shaded: claimed peak")
    axes.legend(fontsize="small", loc="lower right")


def draw_memory_by_gain(axes: Axes, measurements: DataFrame) -> None:
    _draw_by_gain(axes, measurements, MEMORY, "memory capacity")


def draw_narma_by_gain(axes: Axes, measurements: DataFrame) -> None:
    _draw_by_gain(axes, measurements, NARMA, "NARMA-10 NRMSE")


def draw_gains(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "gain over static / %"]
    tasks = [task for task in rows["item"].unique() if "1 step" not in task]
    shown = [name for name in COLOURS if name in set(rows["condition"]) and not name.startswith("static")]
    for offset, name in enumerate(shown):
        table = _over_seeds(rows[rows["condition"] == name], "item").loc[tasks] / 100
        places = np.arange(len(tasks)) + 0.8 * (offset + 0.5) / len(shown) - 0.4
        axes.errorbar(
            places, 1 + table["mean"], table["half"], fmt="o", ms=4, capsize=2, color=COLOURS[name], label=name
        )
    axes.axhline(1, color="0.5", lw=0.8)
    labels = [task.replace(" NRMSE", "").replace(", ", ",\n").replace(" capacity", "") for task in tasks]
    axes.set_xticks(range(len(tasks)), labels=labels)
    axes.set_yscale("log", base=2)
    axes.set_yticks((0.8, 1, 1.25, 1.5, 2, 3, 4), labels=("0.8", "1", "1.25", "1.5", "2", "3", "4"))
    axes.minorticks_off()
    axes.set(
        ylim=(0.75, 9), ylabel="score / score of tuned static", title="Tuned conditions, equal numbers of settings"
    )
    axes.legend(fontsize="x-small", ncols=2, loc="upper left")


def draw_rates(axes: Axes, measurements: DataFrame) -> None:
    bins = np.linspace(0, 1, 41)
    for name in CURVES:
        values = _rows(measurements, "rate of a unit", name)["value"]
        axes.hist(values, bins, histtype="step", lw=1.5, density=True, color=COLOURS[name], label=name)
    axes.axvline(0.4, color="0.5", ls=":", label="(mean) target")
    axes.set(xlabel="mean rate of a unit", ylabel="density", yscale="log", title="Rates at gain 4")
    axes.legend(fontsize="small")


def draw_balances(axes: Axes, measurements: DataFrame) -> None:
    bins = np.linspace(0, 4, 41)
    for name in CURVES:
        values = _rows(measurements, "balance of a unit", name)["value"].clip(upper=4)
        axes.hist(values, bins, histtype="step", lw=1.5, color=COLOURS[name], label=name, density=True)
    axes.axvline(1, color="0.5", ls=":")
    axes.set(xlabel="inhibition / excitation of a unit (above 4: at 4)", ylabel="density", title="Balance at gain 4")
    axes.legend(fontsize="small")


def draw_learning(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "rate error while adapting"]
    for name in CURVES[1:]:
        curve = _over_seeds(rows[rows["condition"] == name], "step")
        axes.fill_between(
            curve.index.astype(float),
            curve["mean"] - curve["half"],
            curve["mean"] + curve["half"],
            color=COLOURS[name],
            alpha=0.2,
            lw=0,
        )
        axes.plot(curve.index.astype(float), curve["mean"], color=COLOURS[name], marker=".", label=name)
    axes.axhline(0.02, color="0.5", ls=":", label="tolerance")
    axes.set(xlabel="step of adaptation", ylabel="mean |rate - target|", ylim=(0, None), title="The local rule at work")
    axes.legend(fontsize="small")


def draw_design(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "rate error"]
    for name in ("one-step", "adapted"):
        for rate, style, marker in (("rate 0.3", "-", "o"), ("rate 0.5", "--", "s")):
            curve = _over_seeds(rows[(rows["condition"] == name) & (rows["item"] == rate)], "x")
            axes.errorbar(
                curve.index,
                curve["mean"],
                curve["half"],
                color=COLOURS[name],
                ls=style,
                marker=marker,
                ms=4,
                capsize=2,
                label=f"{name}, {rate}",
            )
    axes.axhline(0.05, color="0.5", ls=":", label="claimed bound")
    axes.set(xlabel="gain", ylabel="rate error on the test series", xticks=(1, 2, 4), title="Design and adaptation")
    axes.set_ylim(0, None)
    axes.legend(fontsize="small")


IN_ORDER = (
    draw_grid,
    draw_balance,
    draw_gains,
    draw_memory_by_gain,
    draw_narma_by_gain,
    draw_design,
    draw_rates,
    draw_balances,
    draw_learning,
)


def _draw_by_gain(axes: Axes, measurements: DataFrame, metric: str, label: str) -> None:
    rows = measurements[measurements["metric"] == f"{metric} by gain"]
    for name in (*CURVES, "one-step, heterogeneous"):
        curve = _over_seeds(rows[rows["condition"] == name], "x")
        axes.errorbar(curve.index, curve["mean"], curve["half"], color=COLOURS[name], marker=".", capsize=2, label=name)
    axes.set_xscale("log")
    axes.set_xticks((1, 2, 4, 8), labels=("1", "2", "4", "8"))
    axes.minorticks_off()
    axes.set(xlabel="gain", ylabel=label, title=f"{label} over the gain, target rate 0.4")
    axes.legend(fontsize="small")


def _rows(measurements: DataFrame, metric: str, condition: str) -> DataFrame:
    return measurements[(measurements["metric"] == metric) & (measurements["condition"] == condition)]


def _over_seeds(rows: DataFrame, by: str) -> DataFrame:
    """Mean over seeds and half of the 95 % interval, by a coordinate."""
    table = rows.groupby(by)["value"].agg(["mean", "sem", "count"])
    quantile = Series(stats.t.ppf(0.975, (table["count"] - 1).clip(lower=1)), index=table.index)
    return table.assign(half=(quantile * table["sem"]).fillna(0.0))
