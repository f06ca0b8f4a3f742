"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from interplay.agents.prism import CostGate

BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#777777",
)


def rows_of(measurements: DataFrame, metric: str, condition: str | None = None) -> DataFrame:
    rows = measurements[measurements["metric"] == metric]
    return rows if condition is None else rows[rows["condition"] == condition]


def by_seed(measurements: DataFrame, metric: str, condition: str, along: str | None = None) -> DataFrame:
    """Mean over the networks of a seed, then mean, least and greatest over seeds; along a coordinate if named."""
    keys = ["seed"] if along is None else ["seed", along]
    values = rows_of(measurements, metric, condition).groupby(keys)["value"].mean()
    if along is None:
        return values.agg(["mean", "min", "max"]).to_frame().T
    return values.groupby(along).agg(["mean", "min", "max"])


def draw_map(axes: Axes, measurements: DataFrame, figure: Figure) -> None:
    """Where the events lie, and where the gate begins to speak, for three pairs of costs."""
    rows = rows_of(measurements, "share of events", "dual").assign(row=lambda table: table["item"].astype(float))
    seeds = measurements["seed"].nunique()
    table = rows.pivot_table(index="row", columns="x", values="value", aggfunc="sum") / seeds
    centres = (np.arange(20) + 0.5) / 20
    table = table.reindex(index=_nearest(table.index, centres), columns=_nearest(table.columns, centres))
    image = axes.pcolormesh(
        centres,
        centres,
        100 * table.to_numpy(),
        cmap="Greys",
        norm="log",
        shading="nearest",
        rasterized=True,
    )
    grid = np.linspace(0, 1, 200)
    for ratio, colour, style in ((0.5, ORANGE, ":"), (2.0, BLUE, "-"), (8.0, GREEN, "--")):
        threshold = CostGate(1.0, ratio).threshold(grid)
        axes.plot(grid, threshold, color=colour, linestyle=style, linewidth=2)
        axes.text(
            0.98,
            threshold[-1] + 0.02,
            f"miss / false alarm = {ratio:g}",
            color=colour,
            fontsize=7,
            ha="right",
            bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1},
        )
    axes.text(0.5, 0.93, "speak above", ha="center", color=BLUE)
    axes.text(0.5, 0.04, "stay silent below", ha="center", color=BLUE)
    axes.set(xlabel="probability of need", ylabel="probability of acceptance", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Decision map of the fast student")
    figure.colorbar(image, ax=axes, label="events / % of all")


def _nearest(labels: object, centres: np.ndarray) -> list[float]:
    """The grid's own labels, which were rounded on the way, or the centre where no event fell."""
    known = np.asarray(labels, dtype=float)
    return [
        float(known[np.abs(known - centre).argmin()]) if np.abs(known - centre).min() < 0.01 else float(centre)
        for centre in centres
    ]


GATES = {
    "always": GREY,
    "ungated SFT": YELLOW,
    "ungated": SKY,
    "acceptance only": ORANGE,
    "need only": PURPLE,
    "dual, uncalibrated": GREEN,
    "dual": BLUE,
}


def draw_gates(axes: Axes, measurements: DataFrame) -> None:
    """F1 over false alarms of every gate, in the coupled and in the control world."""
    for name, colour in GATES.items():
        for suffix, marker in (("", "o"), (", control world", "s")):
            alarm, f1 = (rows_of(measurements, f"{metric}{suffix}", name) for metric in ("false alarm", "F1"))
            if alarm.empty:
                continue
            points = [table.groupby("seed")["value"].mean() for table in (alarm, f1)]
            axes.plot(*points, marker, color=colour, alpha=0.35, markersize=4, fillstyle="none" if suffix else "full")
            axes.plot(
                points[0].mean(),
                points[1].mean(),
                marker,
                color=colour,
                markersize=9,
                fillstyle="none" if suffix else "full",
                label="" if suffix else name,
            )
    axes.plot([], [], "s", color="black", fillstyle="none", label="control world")
    axes.set(xlabel="false alarm: offers not accepted / offers", ylabel="F1")
    axes.set_title("Gates around the same student")
    axes.legend(loc="lower left", handletextpad=0.3)


def draw_curves(axes: Axes, measurements: DataFrame) -> None:
    """Benefit over burden, the ratio of costs swept."""
    for name, style in (
        ("acceptance only", "-"),
        ("need only", "-"),
        ("dual, uncalibrated", "--"),
        ("dual", "-"),
        ("slow only", ":"),
    ):
        table = by_seed(measurements, "benefit by burden", name, "x")
        area = by_seed(measurements, "AUDBC", name)["mean"].iloc[0]
        colour = GATES.get(name, "black")
        axes.plot(table.index, table["mean"], style, color=colour, label=f"{name}: {area:.3f}", linewidth=1.8)
    axes.set(xlabel="burden / burden of always speaking", ylabel="benefit: recall")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title("Benefit over burden as costs move")
    axes.legend(loc="lower right", title="gate: area (AUDBC)", title_fontsize=8)


def draw_reliability(axes: Axes, measurements: DataFrame) -> None:
    """Observed over predicted, for the over-confident student and its calibration."""
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle=":")
    for condition, colour, label in (
        ("inflated", ORANGE, "over-confident"),
        ("inflated and calibrated", GREEN, "its calibration"),
    ):
        for head, style in (("need", "-"), ("acceptance", "--")):
            table = by_seed(measurements, f"reliability of {head}", condition, "x")
            error = by_seed(measurements, f"ECE of {head}", condition)["mean"].iloc[0]
            axes.plot(
                table.index, table["mean"], style, color=colour, label=f"{label}, {head}: {error:.3f}", linewidth=1.6
            )
    axes.set(xlabel="predicted probability", ylabel="observed share", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Reliability")
    axes.legend(loc="lower right", title="calibration error (ECE)", title_fontsize=8)


def draw_inflated(axes: Axes, measurements: DataFrame) -> None:
    """Cost of gates around the over-confident student, as ratios to the tuned fixed threshold."""
    base = rows_of(measurements, "cost per event", "inflated, fixed threshold").groupby("seed")["value"].mean()
    names = {
        "inflated, dynamic": ("dynamic,\nover-confident", ORANGE),
        "inflated and calibrated, dynamic": ("dynamic,\ncalibrated", GREEN),
        "dual": ("student without\ninflation", BLUE),
        "exact probabilities": ("exact\nprobabilities", GREY),
    }
    for position, (name, (_, colour)) in enumerate(names.items()):
        values = rows_of(measurements, "cost per event", name).groupby("seed")["value"].mean() / base
        axes.plot(np.full(len(values), position), values, "o", color=colour, alpha=0.5, markersize=5)
        axes.plot([position - 0.25, position + 0.25], [values.mean()] * 2, color=colour, linewidth=2.5)
    axes.axhline(1, color="black", linewidth=0.9, label="tuned fixed threshold, over-confident")
    axes.axhline(0.98, color="black", linewidth=0.8, linestyle=":", label="2 % less")
    axes.set_xticks(range(len(names)), [label for label, _ in names.values()], fontsize=7)
    axes.set(ylabel="cost / that of the fixed threshold")
    axes.set_title("Calibration and the threshold")
    axes.legend(loc="lower left")


def draw_routing(axes: Axes, measurements: DataFrame) -> None:
    """Cost over the share of events that the slow pass sees."""
    share = by_seed(measurements, "slow-call rate", "near the margin", "x")["mean"]
    ends = [by_seed(measurements, "cost per event", name)["mean"].iloc[0] for name in ("fast only", "slow only")]
    for name, colour, style in (("random routing", GREY, "--"), ("near the margin", BLUE, "-")):
        cost = by_seed(measurements, "cost per event by delta", name, "x")["mean"]
        axes.plot([*share.loc[cost.index], 1.0], [*cost, ends[1]], f"o{style}", color=colour, label=name, markersize=5)
        if name == "near the margin":
            for delta, value in cost[cost.index >= 0.1].items():
                axes.annotate(
                    f"$\\delta$={delta:g}",
                    (share[delta], value),
                    textcoords="offset points",
                    xytext=(6, 3),
                    fontsize=7,
                    color=BLUE,
                )
    axes.plot([0, 1], ends, "D", color="black", markersize=5, label="fast only, slow only")
    axes.set(xlabel="share of events with slow thought", ylabel="cost per event")
    axes.set_title("Where slow thought pays")
    axes.legend(loc="upper right")


SELECTIONS = {
    "all": GREY,
    "random": YELLOW,
    "published ranking": ORANGE,
    "stratified ranking": BLUE,
    "bottom": PURPLE,
}


def draw_curation(axes: Axes, measurements: DataFrame) -> None:
    """F1 of students by what they imitated, with and without calibration."""
    for position, (name, colour) in enumerate(SELECTIONS.items()):
        for metric, offset, marker in (("F1", -0.13, "o"), ("F1, uncalibrated", 0.13, "^")):
            values = rows_of(measurements, metric, f"imitates {name}").groupby("seed")["value"].mean()
            axes.plot(np.full(len(values), position + offset), values, marker, color=colour, alpha=0.5, markersize=5)
            edges = [position + offset - 0.1, position + offset + 0.1]
            axes.plot(edges, [values.mean()] * 2, color=colour, linewidth=2.5)
    axes.plot([], [], "o", color="black", label="calibrated, judged")
    axes.plot([], [], "^", color="black", label="uncalibrated")
    axes.set_xticks(range(len(SELECTIONS)), [name.replace(" ", "\n") for name in SELECTIONS], fontsize=7)
    axes.set(ylabel="F1")
    axes.set_title("Imitating an over-eager teacher, by traces kept")
    axes.legend(loc="lower left")


def draw_traces(axes: Axes, measurements: DataFrame) -> None:
    """What the selections hold."""
    kinds = {
        "share of accepted traces, eager teacher": ("accepted", GREEN),
        "share of corrupted traces, eager teacher": ("corrupted, eager teacher", ORANGE),
        "share of corrupted traces, noisy teacher": ("corrupted, noisy teacher", SKY),
    }
    for index, (metric, (label, colour)) in enumerate(kinds.items()):
        values = [100 * by_seed(measurements, metric, name)["mean"].iloc[0] for name in SELECTIONS]
        places = np.arange(len(SELECTIONS)) + 0.27 * (index - 1)
        bars = axes.bar(places, values, width=0.25, color=colour, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set_xticks(range(len(SELECTIONS)), [name.replace(" ", "\n") for name in SELECTIONS], fontsize=7)
    axes.set(ylabel="share of the traces kept / %", ylim=(0, 128))
    axes.set_title("What the kept traces are")
    axes.legend(loc="upper left", ncols=2, columnspacing=1)


def draw_knobs(axes: Axes, measurements: DataFrame) -> None:
    """Speak rate over the ratio of costs."""
    for _, rows in rows_of(measurements, "speak rate by cost ratio", "dual").groupby("seed"):
        rate = rows.groupby("x")["value"].mean()
        axes.plot(rate.index, rate, color=BLUE, alpha=0.5, linewidth=1.2)
    axes.plot([], [], color=BLUE, label="one seed")
    axes.axvline(2, color="black", linewidth=0.8, linestyle=":", label="costs of the study")
    axes.set(xlabel="cost of a miss / cost of a false alarm", ylabel="share of events spoken to", ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.set_title("Two knobs, no training")
    axes.legend(loc="upper left")
