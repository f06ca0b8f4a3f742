"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame

from interplay.dynamics.curl_descent import (
    critical_fraction_readout_flips,
    critical_ratio_input_flips,
    toy_update,
)
from interplay.dynamics.curl_descent.theory import FlippedLayer
from interplay.evidence import ratio

BLUE, ORANGE, GREEN, PURPLE, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#777777"
COLOURS = {"GD": GREY, "input flips": ORANGE, "readout flips": BLUE, "frozen inputs": GREEN, "curl": BLUE}


def draw_grid(axes: Axes, measurements: DataFrame, layer: FlippedLayer) -> None:
    """Share of seeds on which training stays on the manifold, the theory's curve, and where eigenvalues change sign."""
    rows = measurements[measurements["condition"] == f"{layer} flips"]
    tables = {}
    for metric in ("stable by training", "stable by eigenvalues"):
        chosen = rows[rows["metric"] == metric].assign(fraction=lambda table: table["item"].astype(float))
        tables[metric] = chosen.pivot_table(index="fraction", columns="x", values="value", aggfunc="mean")
    trained, matrix = tables.values()
    image = axes.pcolormesh(
        trained.columns, trained.index, trained, cmap="cividis", vmin=0, vmax=1, shading="nearest", rasterized=True
    )
    if matrix.to_numpy().min() < 0.5 < matrix.to_numpy().max():
        axes.contour(matrix.columns, matrix.index, matrix, levels=[0.5], colors="white", linestyles="--")
    axes.plot([], [], color="0.65", linestyle="--", label="smallest eigenvalue changes sign")
    low, high = trained.columns.min(), trained.columns.max()
    if layer == "input":
        fractions = np.linspace(1e-4, trained.index.max(), 400)
        ratios = np.asarray(critical_ratio_input_flips(fractions))
    else:
        ratios = np.geomspace(low, high, 400)
        fractions = np.asarray(critical_fraction_readout_flips(ratios))
    axes.plot(ratios, fractions, color=ORANGE, linewidth=2, label="theory")
    axes.set(xscale="log", xlabel="inputs / hidden, c", ylabel=f"flipped fraction of {UNITS[layer]}, f")
    axes.set(xlim=(low, high), ylim=(trained.index.min(), trained.index.max()))
    axes.set_title(f"Stable solutions, {layer} flips")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    axes.figure.colorbar(image, ax=axes, label="seeds that stay in training")


UNITS = {"input": "inputs", "readout": "hidden units"}


def draw_toy(axes: Axes) -> None:
    """Vector field for one input and one hidden unit with the hidden unit flipped."""
    grid = np.linspace(-2, 2, 17)
    first, second = np.meshgrid(grid, grid)
    step1, step2 = toy_update(first, second, hidden_sign=-1)
    length = np.hypot(step1, step2)
    axes.quiver(first, second, step1 / (length + 0.3), step2 / (length + 0.3), color="0.55", width=0.004, scale=26)
    for branch in (-1, 1):
        w1 = branch * np.geomspace(0.5, 2, 200)
        for stable, colour in ((np.abs(w1) > 1, BLUE), (np.abs(w1) <= 1, ORANGE)):
            axes.plot(w1[stable], 1 / w1[stable], color=colour, linewidth=2)
    axes.plot([], [], color=BLUE, linewidth=2, label="solutions, stable")
    axes.plot([], [], color=ORANGE, linewidth=2, label="unstable")
    angle = np.linspace(0, 2 * np.pi, 200)
    axes.plot(1.7 * np.cos(angle), 1.7 * np.sin(angle), color="black", linewidth=0.8, linestyle=":", label="an orbit")
    axes.set(xlabel="first weight", ylabel="second weight, of the flipped unit", aspect="equal")
    axes.set(xlim=(-2, 2), ylim=(-2, 2))
    axes.set_title("One input, one flipped hidden unit")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, columnspacing=1, handlelength=1.2)


def median_curve(measurements: DataFrame, metric: str, condition: str, item: str | None = None) -> DataFrame:
    """Median over seeds and the range of all seeds, by step."""
    rows = measurements[(measurements["metric"] == metric) & (measurements["condition"] == condition)]
    if item is not None:
        rows = rows[rows["item"] == item]
    return rows.groupby("step")["value"].agg(["median", "min", "max"])


def draw_curve(axes: Axes, table: DataFrame, colour: str, label: str, style: str = "-") -> None:
    steps = table.index.to_numpy(dtype=float) + 1
    axes.plot(steps, table["median"], color=colour, label=label, linestyle=style)
    axes.fill_between(steps, table["min"], table["max"], color=colour, alpha=0.18, linewidth=0)


def draw_losses(axes: Axes, measurements: DataFrame, c: float) -> None:
    conditions = [name for name in measurements["condition"].unique() if name.endswith(f", c = {c:g}")]
    for name in conditions:
        table = median_curve(measurements, "loss", name)
        draw_curve(axes, table, COLOURS[name.partition(",")[0]], name.partition(",")[0])
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="loss, median and range of seeds")
    axes.set_title(f"From random weights, c = {c:g}")
    axes.legend(loc="lower left")


def draw_teacher(axes: Axes, measurements: DataFrame) -> None:
    for layer, condition, item in paths_from_the_teacher(measurements):
        draw_curve(axes, median_curve(measurements, "loss from the teacher", condition, item), COLOURS[layer], layer)
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="loss, median and range of seeds")
    axes.set_title(f"From unstable solutions, {title_of(measurements)}")
    axes.legend(loc="upper left")


def draw_eigenvalue(axes: Axes, measurements: DataFrame) -> None:
    for layer, condition, item in paths_from_the_teacher(measurements):
        draw_curve(axes, median_curve(measurements, "smallest eigenvalue", condition, item), COLOURS[layer], layer)
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", xlabel="step", ylabel="smallest eigenvalue of K")
    axes.set_title("Stability along the way")
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.85))


def paths_from_the_teacher(measurements: DataFrame) -> list[tuple[str, str, str]]:
    """Layer, condition and smallest fraction of the runs that start at an unstable teacher."""
    rows = measurements[measurements["metric"] == "loss from the teacher"]
    item = min(rows["item"].unique())
    return [(name.partition(",")[0], name, item) for name in rows["condition"].unique()]


def title_of(measurements: DataFrame) -> str:
    _, condition, item = paths_from_the_teacher(measurements)[0]
    return f"{condition.partition(', ')[2]}".replace(" ", "") + f", {item}".replace(" = ", "=")


def draw_race(axes: Axes, measurements: DataFrame) -> None:
    for name, label in (("GD", "gradient descent"), ("curl", "one hidden unit flipped")):
        draw_curve(axes, median_curve(measurements, "loss of the race", name), COLOURS[name], label)
    axes.axhline(1e-3, color="black", linewidth=0.8, linestyle=":")
    axes.set(xscale="log", yscale="log", xlabel="step", ylabel="loss, median and range of seeds")
    axes.set_ylim(bottom=1e-4)  # room for the legend
    axes.set_title("Tanh networks started at twice the scale")
    axes.legend(loc="lower left")


def draw_controls(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "steps to 0.001"]
    main = rows.loc[rows["condition"] == "frozen", "x"].iloc[0]
    rows = rows[rows["x"] == main]
    order = list(dict.fromkeys(rows["condition"]))
    for position, name in enumerate(order):
        values = rows.loc[rows["condition"] == name, "value"]
        colour = COLOURS.get(name, "black")
        axes.plot(values, np.full(len(values), position), "o", color=colour, alpha=0.35, markersize=3.5)
        axes.plot(values.mean(), position, "|", color=colour, markersize=18, markeredgewidth=2)
    axes.set(xscale="log", xlabel="steps to a loss of 0.001")
    axes.set_yticks(range(len(order)), order)
    axes.invert_yaxis()
    axes.set_title("The same start, other rules")


def draw_ratios(axes: Axes, measurements: DataFrame, metric: str, label: str) -> None:
    """Speed-up over gradient descent: ratio of geometric means paired by seed, with its 95 % interval."""
    rows = measurements[measurements["metric"] == metric]
    positions = sorted(rows.loc[rows["condition"] == "curl", "x"].unique())
    for x in positions:
        chosen = rows[rows["x"].eq(x) | (rows["condition"].eq("GD") & ~rows["x"].isin(positions))].assign(x=x)
        estimate = ratio(metric, "GD", "curl", where={"x": x}, unit=("seed", "item")).estimate(chosen)
        low, high = np.nan_to_num([estimate.low, estimate.high], nan=estimate.effect)
        axes.plot([x, x], [low, high], color=BLUE, linewidth=1.2)
        axes.plot(x, estimate.effect, "o", color=BLUE)
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel=label, ylabel="steps of GD / steps of curl descent", yscale="log")
    axes.set_xscale("log" if "flipped" not in label else "linear")
    axes.set_xticks(positions, [f"{x:g}" for x in positions])
    axes.minorticks_off()
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10) if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_title("Speed-up, 95 % interval")
