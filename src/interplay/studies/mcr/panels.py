"""The panels of the study's figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from pandas import DataFrame

BLUE, ORANGE, GREEN, PURPLE, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#777777"
COLOURS = {
    "joint": GREY,
    "multi-loss": ORANGE,
    "ensemble": GREEN,
    "MCR": BLUE,
    "MCR, reference regime": YELLOW,
    "ideal observer": "black",
}


def draw_accuracies(axes: Axes, measurements: DataFrame, start: str) -> None:
    """Accuracy on AV-mini of every method from one start, the ensemble as a line, a dot a seed."""
    rows = measurements[measurements["metric"] == "accuracy"]
    here = rows[rows["condition"].str.endswith(f" {start}")]
    values = {
        condition.removesuffix(f" {start}"): group["value"].to_numpy()
        for condition, group in here.groupby("condition", sort=False)
    }
    order = sorted(values, key=lambda name: values[name].mean())
    for height, name in enumerate(order):
        colour = BLUE if name.startswith("MCR") else GREY
        axes.plot(values[name], [height] * len(values[name]), "o", color=colour, markersize=4, alpha=0.6)
        axes.plot(values[name].mean(), height, "|", color=colour, markersize=16, markeredgewidth=2.5)
    for name, style in (("ensemble", "-"), ("audio alone", "--"), ("visual alone", ":")):
        level = rows.loc[rows["condition"] == name, "value"].mean()
        if level > min(value.min() for value in values.values()) - 0.05:  # further down it would only take room
            axes.axvline(level, color=GREEN, linestyle=style, linewidth=1.3, label=name)
    axes.set_yticks(range(len(order)), order)
    axes.set(xlabel="test accuracy, a dot a seed and their mean", title=f"AV-mini {start}")
    axes.margins(x=0.06)
    axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.11))


def draw_influences(axes: Axes, measurements: DataFrame, start: str) -> None:
    """Influence of each modality over the epochs."""
    rows = measurements[measurements["metric"] == "influence / nats"]
    for name in ("joint", "multi-loss", "MCR", "MCR, reference regime"):
        for modality, style in (("visual", "-"), ("audio", "--")):
            chosen = rows[(rows["condition"] == f"{name} {start}") & (rows["item"] == modality)]
            over_time = chosen.groupby("step")["value"].mean()
            axes.plot(over_time.index, over_time, style, color=COLOURS[name], marker=".", label=f"{name}, {modality}")
    axes.axhline(0.6931, color="black", linewidth=0.8)
    axes.annotate("ln 2", (0.995, 0.6931), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.set(
        xlabel="epoch",
        ylabel="influence (MIPD) / nats",
        title=f"Who moves the predictions on training samples, {start}",
        ylim=(0, 0.74),
    )
    axes.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def draw_synthetic(axes: Axes, measurements: DataFrame) -> None:
    """Accuracy on the synthetic task by unique information, below that of the ideal observer."""
    rows = measurements[measurements["metric"] == "accuracy on the synthetic task"]
    for name, colour in COLOURS.items():
        table = rows[rows["condition"] == name].groupby("x")["value"].agg(["mean", "sem"])
        if table.empty:
            continue
        style = "--" if name == "ideal observer" else "-"
        axes.errorbar(
            table.index, table["mean"], table["sem"].fillna(0), color=colour, linestyle=style, marker="o",
            markersize=4, capsize=2, label=name,
        )  # fmt: skip
    axes.set(
        xlabel="probability that the first modality alone tells the class (U1)",
        ylabel="test accuracy",
        title="Synthetic task; mean ± standard error over tasks",
    )
    axes.legend(ncols=2)


def draw_routing(axes: Axes, measurements: DataFrame, start: str) -> None:
    """Accuracy by how many unimodal models are right."""
    groups = ("both", "one", "none")
    for position, name in enumerate(("joint", "multi-loss", "MCR")):
        for place, group in enumerate(groups):
            metric = f"accuracy where {group} of the unimodal models right"
            chosen = measurements[
                (measurements["metric"] == metric) & (measurements["condition"] == f"{name} {start}")
            ]["value"]
            at = place + 0.27 * (position - 1)
            label = name if place == 0 else None
            axes.bar(at, chosen.mean(), width=0.25, color=COLOURS[name], alpha=0.6, label=label)
            axes.plot([at] * len(chosen), chosen, "o", color="black", markersize=2.5)
    axes.set_xticks(range(len(groups)), [f"{group} right" for group in groups])
    axes.set(
        xlabel="unimodal models on the sample", ylabel="test accuracy", title=f"Where predictions are right, {start}"
    )
    axes.legend()


def draw_strategies(axes: Axes, measurements: DataFrame, start: str) -> None:
    """Accuracy by the strategy k of the players, at both weights of the game."""
    rows = measurements[measurements["metric"] == "accuracy"]
    names = {-1: "", 0: ", independent", 1: ", collaborative"}
    for weight, suffix, colour in ((1, "", BLUE), (0.1, ", weight 0.1", PURPLE)):
        for k, strategy in names.items():
            name = f"MCR{strategy}{suffix}" if strategy else f"MCR, weight {weight:g}"
            values = rows.loc[rows["condition"] == f"{name} {start}", "value"]
            shift = 0.07 if weight == 1 else -0.07
            axes.plot([k + shift] * len(values), values, "o", color=colour, markersize=4, alpha=0.7)
            axes.hlines(
                values.mean(), k + shift - 0.05, k + shift + 0.05, color=colour, linewidth=2.5,
                label=f"MCR, weight {weight:g}" if k == -1 else None,
            )  # fmt: skip
    for name, colour in (("multi-loss", ORANGE), ("joint", GREY)):
        level = rows.loc[rows["condition"] == f"{name} {start}", "value"].mean()
        axes.axhline(level, color=colour, linestyle="--", linewidth=1.2, label=name)
    axes.set_xticks(list(names), ["greedy, k = -1", "independent, k = 0", "collaborative, k = 1"])
    axes.set(ylabel="test accuracy", title=f"Strategy of the players, {start}", xlim=(-1.5, 1.5))
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
