"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from pandas import DataFrame

from interplay.studies.critical_periods.experiments import SHARE

BLUE, ORANGE, GREEN, PURPLE, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#777777"
WHEN = {"early": ORANGE, "middle": GREEN, "late": BLUE}
DEPTHS = {"depth 1": GREY, "depth 2": BLUE, "depth 3": ORANGE, "depth 4": GREEN}
PORTRAIT_DEPTH, PORTRAIT_VALUE = 4, 15**0.5


def draw_portrait(axes: Axes, measurements: DataFrame) -> None:
    """Both pathways' K of the first mode: where the equation drives them, and where the networks of one seed went."""
    first = measurements[measurements["seed"] == measurements["seed"].min()]
    grid = np.linspace(0.02, PORTRAIT_VALUE * 1.05, 30)
    a, b = np.meshgrid(grid, grid)
    rest = PORTRAIT_VALUE - a - b
    power = 2 - 2 / PORTRAIT_DEPTH
    axes.streamplot(
        grid, grid, a**power * rest, b**power * rest, color="0.8", density=0.8, linewidth=0.7, arrowsize=0.7
    )
    axes.plot([0, PORTRAIT_VALUE], [PORTRAIT_VALUE, 0], color="black", linewidth=0.8, linestyle=":")
    for name, colour in WHEN.items():
        paths = [
            first[(first["condition"] == name) & (first["metric"] == f"K of {letter}, mode 1")].sort_values("step")
            for letter in "AB"
        ]
        ends = [path["value"].to_numpy() for path in paths]
        axes.plot(
            *ends,
            color=colour,
            linewidth=2 if name == "early" else 3,
            label=f"{name} deficit",
            linestyle={"early": "-", "middle": "-", "late": "--"}[name],
        )
        axes.plot(ends[0][-1], ends[1][-1], "o", color=colour, markersize={"middle": 9}.get(name, 5))
    limits = (0, PORTRAIT_VALUE * 1.05)
    axes.set(xlabel="mode 1 carried by pathway A, K", ylabel="mode 1 carried by B, K", xlim=limits, ylim=limits)
    axes.set_title("The race for the first mode, depth 4")
    axes.legend(loc="upper right")


def draw_onsets(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "share of B by onset"]
    for name, part in rows.groupby("condition"):
        draw_band(axes, part, "x", DEPTHS[name], str(name))
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="onset of the deficit, step", ylabel="share of B in modes 1 to 4", ylim=(-0.02, 0.56))
    axes.set_title("Sensitivity to the onset")
    axes.legend(loc="lower right")


def draw_band(axes: Axes, rows: DataFrame, coordinate: str, colour: str, label: str) -> None:
    """Median over seeds and the middle half."""
    table = rows.groupby(coordinate)["value"].quantile([0.25, 0.5, 0.75]).unstack()
    x = table.index.to_numpy(dtype=float)
    axes.plot(x, table[0.5], "o-", color=colour, label=label, markersize=3)
    axes.fill_between(x, table[0.25], table[0.75], color=colour, alpha=0.2, linewidth=0)


def draw_depths(axes: Axes, measurements: DataFrame) -> None:
    styles = {
        "share of B from the same p0, network": ("networks, same p0, deficit 0.05", BLUE, "o"),
        "share of B from the same p0, equation": ("equation, the same", "black", "x"),
        "share of B from the same K, deficit of 0.2": ("equation, same K, deficit 0.2", ORANGE, "s"),
        "share of B from the same K, deficit of 1": ("equation, same K, deficit 1", GREEN, "^"),
    }
    for metric, (label, colour, marker) in styles.items():
        rows = measurements[measurements["metric"] == metric]
        rows = rows.assign(depth=rows["condition"].str.removeprefix("depth ").astype(int))
        middle = rows.groupby("depth")["value"].median()
        axes.plot(middle.index, middle, marker + "-", color=colour, label=label, markersize=5, linewidth=1)
    axes.set(xlabel="depth", ylabel="share of B", yscale="log", ylim=(0.003, 1.5))
    axes.set_xticks(sorted(rows["depth"].unique()))
    axes.set_title("Depth, with p0 or K held fixed")
    axes.legend(loc="upper right", fontsize=7)


def draw_modes(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == SHARE]
    styles = {**WHEN, "random": PURPLE, "early, 9 of 10 steps": YELLOW, "no deficit": "black"}
    for position, (name, colour) in enumerate(styles.items()):
        part = rows[rows["condition"] == name].groupby("item")["value"].quantile([0.25, 0.5, 0.75]).unstack()
        x = np.arange(1, len(part) + 1) + (position - 2.5) * 0.11
        axes.vlines(x, part[0.25], part[0.75], color=colour)
        axes.plot(x, part[0.5], "o", color=colour, markersize=3.5, label=name)
    axes.set(xlabel="mode", ylabel="share of B, median and quartiles", ylim=(-0.02, 0.82))
    axes.set_xticks(range(1, 9))
    axes.set_title("All modes, depth 4")
    axes.legend(loc="upper center", ncols=2, fontsize=7)


def draw_masks(axes: Axes, measurements: DataFrame) -> None:
    names = ("freeze", "freeze and mask", "freeze, mask for good")
    styles = {
        "share of B in the masked mode": ("masked mode", ORANGE, -0.1),
        "largest share of B in another mode": ("largest of the others", BLUE, 0.1),
    }
    for metric, (label, colour, shift) in styles.items():
        for position, name in enumerate(names):
            chosen = measurements[(measurements["metric"] == metric) & (measurements["condition"] == name)]["value"]
            spread = np.linspace(-0.05, 0.05, len(chosen))
            axes.plot(
                position + shift + spread,
                chosen,
                "o",
                color=colour,
                alpha=0.5,
                markersize=3.5,
                label=label if position == 0 else None,
            )
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(ylabel="share of B", ylim=(-0.05, 1.1))
    axes.set_xticks(range(3), ["B frozen", "A's mode masked\nmeanwhile", "A's mode masked\nfor good"])
    axes.set_title("Feature by feature, depth 3")
    axes.legend(loc="upper left")


def draw_switches(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "error"]
    for name, part in rows.groupby("item"):
        draw_band(axes, part, "x", DEPTHS[name], str(name))
        means = part.groupby("x")["value"].mean()
        axes.plot(means.index, means, ":", color=DEPTHS[name], linewidth=1)
    axes.plot([], [], "k-", label="median, quartiles")
    axes.plot([], [], "k:", label="mean")
    axes.set(xlabel="steps on the first task, T_c", ylabel="error over all entries", yscale="log")
    switches = sorted(rows["x"].unique())
    axes.set_xscale("symlog", linthresh=switches[1])
    axes.set_xticks(switches, [f"{switch:g}" for switch in switches], fontsize=7)
    axes.minorticks_off()
    axes.set_xlim(-0.1 * switches[1], 1.2 * switches[-1])
    axes.set_ylim(bottom=axes.get_ylim()[0] * 0.03)  # room for the legend
    axes.set_title("Completion after another task")
    axes.legend(loc="lower right", ncols=2, fontsize=7)


def draw_singular_values(axes: Axes, measurements: DataFrame, condition: str) -> None:
    first = measurements["seed"].min()
    rows = measurements[(measurements["metric"] == "singular value") & (measurements["seed"] == first)]
    chosen = rows[rows["condition"] == condition]
    for order, part in chosen.groupby("item"):
        part = part.sort_values("step")
        axes.plot(part["step"].astype(float), part["value"], color=colormaps["viridis"](int(order) / 12), linewidth=1.3)
    if (switch := chosen["x"].iloc[0]) > 0:
        axes.axvline(switch, color="black", linewidth=1, linestyle="--", label="switch of tasks")
        axes.legend(loc="upper right")
    axes.set(xlabel="step", ylabel="ten largest singular values", ylim=(0, rows["value"].max() * 1.08))
    axes.set_title(f"One product, depth 3, {condition}")


def draw_structure(axes: Axes, measurements: DataFrame) -> None:
    styles = {
        "error by rank of the first task": ("rank of the first task", ORANGE, "o-"),
        "error by number of entries": ("entries seen", BLUE, "s-"),
        "error after fewer entries": ("entries seen, fewer first or all along", GREEN, "^-"),
    }
    labels: list[str] = []
    for metric, (label, colour, marker) in styles.items():
        rows = measurements[measurements["metric"] == metric]
        if "fewer" in metric:
            names = [
                f"{part['item'].iloc[0].removesuffix(' entries')}{', fewer first' if 'before' in name else ''}"
                for name, part in rows.groupby("condition", sort=False)
            ]
            table = rows.groupby("condition", sort=False)["value"].quantile([0.25, 0.5, 0.75]).unstack()
        else:
            table = rows.groupby("x")["value"].quantile([0.25, 0.5, 0.75]).unstack()
            names = [f"{x:g}" for x in table.index]
        x = len(labels) + np.arange(len(table))
        axes.vlines(x, table[0.25], table[0.75], color=colour)
        axes.plot(x, table[0.5], marker if "fewer" not in metric else "^", color=colour, label=label)
        labels += names
    axes.set(yscale="log", ylabel="error over all entries")
    axes.set_xticks(range(len(labels)), labels, fontsize=7, rotation=90)
    axes.set_ylim(bottom=axes.get_ylim()[0] * 0.01)  # room for the legend
    axes.set_title("What the first phase was like, depth 3")
    axes.legend(loc="lower left", fontsize=7)
