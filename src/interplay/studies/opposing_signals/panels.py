"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame

from interplay.assets import mnist_5k

BLUE, ORANGE, GREEN, PURPLE, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#777777"
ABLATIONS = {
    "planted": ("both groups", BLUE),
    "random dropped": ("random ones dropped", YELLOW),
    "group A alone": ("group A alone", PURPLE),
    "halved weights": ("weights halved", GREEN),
    "batch norm": ("batch norm", "#56B4E9"),
    "batch norm, groups dropped": ("batch norm, no groups", "#000000"),
    "groups dropped": ("groups dropped", ORANGE),
    "raw digits": ("raw digits", GREY),
}


def rows_of(measurements: DataFrame, condition: str, metric: str) -> DataFrame:
    return measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]


def draw_curve(
    axes: Axes, rows: DataFrame, colour: str, label: str, style: str = "-", coordinate: str = "step"
) -> None:
    """Median over seeds and the range of all seeds."""
    table = rows.groupby(coordinate)["value"].agg(["median", "min", "max"])
    steps = table.index.to_numpy(dtype=float)
    axes.plot(steps, table["median"], style, color=colour, label=label, linewidth=1.2)
    axes.fill_between(steps, table["min"], table["max"], color=colour, alpha=0.15, linewidth=0)


def edge_of(measurements: DataFrame) -> float:
    """2 / eta of the main run, from its two ways of telling the late sharpness."""
    names = [name for name in measurements["condition"].unique() if name.startswith("GD ")]
    return 2 / float(names[0].removeprefix("GD "))


def draw_groups(axes: Axes, measurements: DataFrame) -> None:
    """Losses of one seed: an average over seeds would wash the see-saw out."""
    rows = rows_of(measurements, "planted", "loss of a group")
    rows = rows[rows["seed"] == rows["seed"].min()]
    for name, colour, label in (("A", BLUE, "group A"), ("B", ORANGE, "group B"), ("rest", GREY, "all others")):
        table = rows[(rows["item"] == name) & (rows["step"] <= rows["step"].max() // 2)].sort_values("step")
        axes.plot(table["step"].astype(float), table["value"], color=colour, label=label, linewidth=0.8)
    axes.set(xlabel="step", ylabel="mean loss / nats", yscale="log")
    axes.set_title("Losses of the groups, one seed, first half")
    axes.legend()


def draw_sharpness(axes: Axes, measurements: DataFrame) -> None:
    for condition, (label, colour) in ABLATIONS.items():
        if condition in ("planted", "random dropped", "groups dropped", "raw digits"):
            draw_curve(axes, rows_of(measurements, condition, "sharpness"), colour, label)
    axes.axhline(edge_of(measurements), color="black", linestyle="--", linewidth=1, label="2 / eta")
    axes.set(xlabel="step", ylabel="sharpness", yscale="log")
    axes.set_title("Progressive sharpening, median and range of seeds")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


def draw_heat(axes: Axes, measurements: DataFrame) -> None:
    rows = rows_of(measurements, "planted", "change of a loss")
    rows = rows[rows["seed"] == rows["seed"].min()]
    table = rows.pivot_table(index="x", columns="step", values="value")
    limit = float(np.quantile(table.abs(), 0.95))
    image = axes.pcolormesh(
        table.columns.to_numpy(dtype=float),
        table.index.to_numpy(dtype=float),
        table.to_numpy(),
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        shading="nearest",
        rasterized=True,
    )
    axes.invert_yaxis()
    axes.set(xlabel="step", ylabel="sample: A, then B, others")
    axes.set_title("Largest changes of single losses, one seed")
    axes.figure.colorbar(image, ax=axes, label="change of loss / nats")


def draw_inside(axes: Axes, measurements: DataFrame) -> None:
    draw_curve(axes, rows_of(measurements, "planted", "gradient cosine"), BLUE, "cosine of the groups' gradients")
    share = rows_of(measurements, "planted", "share of the sharpness")
    draw_curve(axes, share, ORANGE, "groups' part in the sharpness")
    axes.axhline(0, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step", ylabel="cosine, or part", ylim=(-1.05, 1.1))
    axes.set_title("Gradients and curvature of the groups")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))


def dots(axes: Axes, measurements: DataFrame, metric: str, names: list[str], labels: list[str]) -> None:
    """A row of dots, one a seed, for each condition, and their mean."""
    for position, name in enumerate(names):
        values = rows_of(measurements, name, metric)["value"]
        axes.plot(values, np.full(len(values), position), "o", color=BLUE, alpha=0.5, markersize=4)
        axes.plot(values.mean(), position, "|", color="black", markersize=14, markeredgewidth=1.5)
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.5)


def draw_ablations(axes: Axes, measurements: DataFrame) -> None:
    amplitudes = sorted(name for name in measurements["condition"].unique() if name.startswith("amplitude"))
    names = [*ABLATIONS, *amplitudes]
    dots(axes, measurements, "largest sharpness", names, [ABLATIONS.get(name, (name,))[0] for name in names])
    axes.axvline(edge_of(measurements), color="black", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="largest sharpness; dashed: 2 / eta")
    axes.set_title("Ablations")


def draw_found(axes: Axes, measurements: DataFrame) -> None:
    """On how many seeds the detector reports opposing groups."""
    rows = measurements[measurements["metric"] == "groups found"]
    table = rows.groupby("condition")["value"].agg(["sum", "count"])
    amplitudes = [name for name in table.index if name.startswith("amplitude")]
    order = ["planted", *amplitudes, "group A alone", "random dropped", "groups dropped", "raw digits", "weak frames"]
    table = table.loc[order]
    axes.barh(table.index, table["sum"] / table["count"], color=BLUE)
    axes.plot(np.zeros(len(table)), table.index, "|", color="black")
    axes.invert_yaxis()
    axes.set(xlim=(-0.02, 1.05), xlabel="seeds with groups reported, part")
    axes.set_title("What the detector says")


def optimizer_names(measurements: DataFrame) -> list[str]:
    rows = measurements[measurements["metric"] == "final loss"]
    return list(dict.fromkeys(rows["condition"]))


def draw_optimizers(axes: Axes, measurements: DataFrame) -> None:
    colours = [GREY, YELLOW, ORANGE, PURPLE, "#000000", BLUE, GREEN]
    names = optimizer_names(measurements)
    for name, colour in zip(names, colours * (1 + len(names) // len(colours)), strict=False):
        rows = rows_of(measurements, name, "loss by optimiser")
        table = rows.groupby("step")["value"].median()
        axes.plot(table.index.to_numpy(dtype=float), table, color=colour, label=name, linewidth=1)
    axes.set(xlabel="step", ylabel="mean loss / nats, median of seeds", yscale="log")
    axes.set_title("Optimisers on the planted task")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


def draw_by_optimizer(axes: Axes, measurements: DataFrame, metric: str) -> None:
    names = optimizer_names(measurements)
    dots(axes, measurements, metric, names, names)
    axes.set(xlabel="nats" if "increases" in metric else "part of all loss changes")
    if "increases" in metric:
        axes.set_xscale("symlog", linthresh=1e-3)
        axes.set_xticks([0, 1e-2, 1], ["0", "0.01", "1"])
        axes.minorticks_off()
        axes.axvline(1e-3, color="black", linestyle=":", linewidth=1)
        axes.set_title("Sum of all rises of the mean loss")
    else:
        axes.set_xlim(-0.03, 1.03)
        axes.set_title("Changes in the planted samples, second half")


def draw_toy(axes: Axes, measurements: DataFrame) -> None:
    loss = rows_of(measurements, "toy, descent", "loss above the floor")
    sharp = rows_of(measurements, "toy, descent", "sharpness")
    seed = loss["seed"].min()
    loss, sharp = (rows[rows["seed"] == seed].sort_values("step") for rows in (loss, sharp))
    axes.plot(loss["step"].astype(float), loss["value"], color=GREY, linewidth=1)
    axes.set(xlabel="step", ylabel="loss above the floor", yscale="log")
    axes.set_ylim(bottom=max(1e-8, 0.3 * float(loss["value"].min())))
    axes.set_xlim(0, min(150.0, float(loss["step"].max())))
    axes.set_title("Closed-form system, one seed")
    right = axes.twinx()
    right.spines["right"].set_visible(True)
    right.plot(sharp["step"].astype(float), sharp["value"], color=BLUE, linewidth=1)
    final = rows_of(measurements, "toy, descent", "final sharpness / (2 / eta)")["value"].iloc[0]
    edge = float(sharp["value"].iloc[-1] / final)
    right.axhline(edge, color="black", linestyle="--", linewidth=1)
    right.text(axes.get_xlim()[1], edge, "2 / eta", ha="right", va="bottom", fontsize=8)
    right.set_ylabel("sharpness", color=BLUE)


def draw_etas(axes: Axes, measurements: DataFrame) -> None:
    for metric, label, colour in (
        ("largest sharpness by eta", "largest", ORANGE),
        ("final sharpness by eta", "at the end", BLUE),
    ):
        rows = rows_of(measurements, "toy, descent", metric)
        draw_curve(axes, rows, colour, label, "o-", "x")
    rates = np.sort(rows["x"].unique().astype(float))
    fine = np.linspace(rates[0], rates[-1], 100)
    axes.plot(fine, 2 / fine, color="black", linestyle="--", linewidth=1, label="2 / eta")
    axes.set(xlabel="step size eta", ylabel="sharpness")
    axes.set_title("Closed-form system over step sizes")
    axes.legend()


def draw_gallery(axes: Axes, measurements: DataFrame) -> None:
    """Raw digits that lead the two groups, on one seed."""
    rows = rows_of(measurements, "raw digits", "image")
    rows = rows[rows["seed"] == rows["seed"].min()]
    images = mnist_5k().images[:, 0].numpy()
    width = int(rows["x"].max()) + 1
    canvas = np.zeros((2 * 28 + 6, width * 28))
    for line, name in enumerate(("A", "B")):
        for _, row in rows[rows["item"] == name].iterrows():
            left, upper = int(row["x"]) * 28, line * 34
            canvas[upper : upper + 28, left : left + 28] = images[int(row["value"])]
    axes.imshow(canvas, cmap="gray_r", interpolation="nearest", aspect="equal")
    axes.set_yticks([14, 48], ["A", "B"])
    axes.set_xticks([])
    found = rows_of(measurements, "raw digits", "groups found")["value"]
    axes.set_title(
        f"Raw digits with the largest changes, one seed\n(groups reported on {found.sum():.0f} of {len(found)})"
    )
