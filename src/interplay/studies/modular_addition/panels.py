"""The panels of the study's figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from pandas import DataFrame

from interplay.dynamics.modular_addition import dominance_time

BLUE, ORANGE, GREEN, PURPLE, YELLOW, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#777777"
COLOURS = {
    "quad GD": BLUE,
    "quad GD, equal magnitudes": GREEN,
    "quad GD, single frequencies": PURPLE,
    "quad AdamW": ORANGE,
    "ReLU AdamW": YELLOW,
    "weight decay": BLUE,
    "no decay": ORANGE,
}


def first_seed(measurements: DataFrame, condition: str, metric: str) -> DataFrame:
    rows = measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]
    return rows[rows["seed"] == rows["seed"].min()]


def last_step(rows: DataFrame) -> DataFrame:
    return rows[rows["step"].isna() | (rows["step"] == rows["step"].max())]


def draw_dots(axes: Axes, groups: Sequence[tuple[str, DataFrame, str]]) -> None:
    """A row a group: every seed, and the mean."""
    for position, (_, rows, colour) in enumerate(groups):
        axes.plot(rows["value"], np.full(len(rows), position), "o", color=colour, alpha=0.4, markersize=4)
        axes.plot(rows["value"].mean(), position, "|", color=colour, markersize=18, markeredgewidth=2)
    axes.set_yticks(range(len(groups)), [name for name, _, _ in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)


def draw_race(axes: Axes, measurements: DataFrame, metric: str) -> None:
    rows = first_seed(measurements, "quad GD", metric)
    winner = first_seed(measurements, "quad GD", "predicted winner of the neuron")["value"].iloc[0]
    for item, runner in rows.groupby("item"):
        best = float(item) == winner
        values = runner["value"].to_numpy()
        if "rad" in metric:
            values = np.unwrap(values)
        axes.plot(runner["step"], values, color=ORANGE if best else "0.7", linewidth=2 if best else 1, zorder=2 + best)
    axes.plot([], [], color=ORANGE, linewidth=2, label=f"frequency {winner:g}, predicted to win")
    axes.plot([], [], color="0.7", label="the others")
    axes.set(xlabel="step", ylabel="input magnitude" if "alpha" in metric else "misalignment D, rad")
    axes.set_title("The race in one neuron: " + ("magnitudes" if "alpha" in metric else "phases"))
    if "rad" in metric:
        for turn in range(-2, 3):
            axes.axhline(2 * math.pi * turn, color="black", linewidth=0.6, linestyle=":", zorder=1)
        low, high = np.unwrap(rows["value"]).min(), axes.get_ylim()[1]
        axes.set_ylim(max(axes.get_ylim()[0], -7.5), min(max(high, low), 9.5))
    else:
        axes.set_ylim(top=axes.get_ylim()[1] * 1.25)  # room for the legend
        axes.legend(loc="upper left")


def draw_dominance(axes: Axes, measurements: DataFrame) -> None:
    """Time to dominance in the decoupled flow, in closed form."""
    p = int(measurements.loc[measurements["metric"] == "logit at x = 0", "x"].max()) + 1
    magnitude, angle = np.linspace(0.005, 0.05, 120), np.linspace(0, math.pi, 120, endpoint=False)
    start = torch.from_numpy(magnitude)
    time = dominance_time(start, start, torch.from_numpy(angle)[:, None], p).log10().numpy()
    image = axes.pcolormesh(magnitude, angle, time, cmap="cividis_r", shading="gouraud", rasterized=True)
    levels = np.arange(math.floor(time.min()), math.ceil(time.max()), 0.25)
    axes.contour(magnitude, angle, time, levels=levels, colors="white", linewidths=0.6)
    axes.set(xlabel="initial magnitude, alpha = beta", ylabel="initial |D|, rad")
    axes.set_title("Time to dominance (closed form)")
    axes.figure.colorbar(image, ax=axes, label="log10 of time / (step x rate)")


def draw_hit_rates(axes: Axes, measurements: DataFrame) -> None:
    def rows(condition: str, metric: str) -> DataFrame:
        return measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]

    equal = "hit rate at a loss of 2.9, equal magnitudes"
    groups = [
        ("flow", rows("flow", "hit rate"), BLUE),
        ("magnitude", rows("magnitude alone", "hit rate"), BLUE),
        ("misalignment", rows("misalignment alone", "hit rate"), BLUE),
        ("chance", rows("chance", "hit rate"), GREY),
        ("equal start,\nmisalignment", rows("misalignment alone", equal), GREEN),
        ("the same, end", rows("misalignment alone", "hit rate at the end, equal magnitudes"), GREEN),
        ("flow,\nquad AdamW", rows("quad AdamW", "hit rate of the flow"), ORANGE),
        ("flow,\nReLU AdamW", rows("ReLU AdamW", "hit rate of the flow"), YELLOW),
    ]
    draw_dots(axes, groups)
    axes.set(xlabel="neurons whose winner was predicted", xlim=(0, 1))
    axes.set_title("The lottery ticket, by rule")


def draw_concentration(axes: Axes, measurements: DataFrame) -> None:
    names = [name for name in COLOURS if name not in ("weight decay", "no decay")]
    at_start = measurements[measurements["metric"] == "IPR at the start"]
    at_end = measurements[(measurements["metric"] == "IPR") & measurements["step"].isna()]
    labels = [name.replace("quad GD, ", "quad GD,\n") for name in names]
    draw_dots(
        axes,
        [
            (label, at_end[at_end["condition"] == name], COLOURS[name])
            for name, label in zip(names, labels, strict=True)
        ],
    )
    for position, name in enumerate(names):
        value = at_start.loc[at_start["condition"] == name, "value"].mean()
        axes.plot(value, position, "x", color="black", markersize=6)
    axes.plot([], [], "x", color="black", label="at the start")
    axes.plot([], [], "o", color=GREY, label="trained")
    axes.set(xlabel="IPR: 1 is one frequency a neuron", xlim=(0, 1.03))
    axes.set_title("Concentration on one frequency")
    axes.legend(loc="upper right")


def draw_phases(axes: Axes, measurements: DataFrame) -> None:
    for name in ("ReLU AdamW", "quad AdamW"):
        rows = first_seed(measurements, name, "output phase / rad")
        axes.plot(rows["x"], rows["value"], ".", color=COLOURS[name], markersize=3, alpha=0.6, label=name)
    axes.plot([-math.pi, math.pi], [-math.pi, math.pi], color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="doubled input phase 2 phi, rad", ylabel="output phase psi, rad", aspect="equal")
    axes.set_title("Locked phases, one seed")
    axes.legend(loc="upper left", markerscale=3)


def draw_evenness(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "mean resultant length"]
    orders = sorted(rows["x"].unique())
    for shift, name in ((-0.18, "quad AdamW"), (0.18, "ReLU AdamW")):
        for position, order in enumerate(orders):
            values, top, centre = (
                rows.loc[(rows["condition"] == condition) & (rows["x"] == order), "value"]
                for condition in (name, f"{name}, 95 % of chance", f"{name}, mean of chance")
            )
            place = position + shift
            axes.plot(np.full(len(values), place), values, "o", color=COLOURS[name], alpha=0.5, markersize=4)
            axes.plot([place - 0.13, place + 0.13], [top.mean()] * 2, color="black", linewidth=1.4)
            axes.plot([place - 0.13, place + 0.13], [centre.mean()] * 2, color="black", linewidth=1, linestyle=":")
    for name in ("quad AdamW", "ReLU AdamW"):
        axes.plot([], [], "o", color=COLOURS[name], label=name)
    axes.plot([], [], color="black", label="95 % of chance")
    axes.plot([], [], color="black", linestyle=":", label="mean of chance")
    axes.set_xticks(range(len(orders)), [f"{order:g}" for order in orders])
    axes.set(xlabel="order r", ylabel="mean resultant length")
    axes.set_ylim(-0.25 * axes.get_ylim()[1])  # room for the legend
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= axes.get_ylim()[1]])
    axes.set_title("Evenness of the phases, against chance")
    axes.legend(loc="lower left", ncols=2)


def draw_logits(axes: Axes, measurements: DataFrame) -> None:
    rows = first_seed(measurements, "quad AdamW", "logit at x = 0")
    table = rows.assign(answer=rows["item"].astype(int)).pivot_table(index="answer", columns="x", values="value")
    image = axes.imshow(table, cmap="cividis", origin="lower", interpolation="nearest")
    axes.set(xlabel="y, with x = 0", ylabel="answer j")
    axes.set_title("Logits: answer y, ghosts 0 and 2 y")
    axes.figure.colorbar(image, ax=axes, label="logit, one seed of quad AdamW")


def draw_ghosts(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "ghost / truth"]
    fits = measurements[measurements["metric"] == "R^2 of the flawed indicator"]
    seed = rows["seed"].min()
    for name in ("quad GD", "quad GD, equal magnitudes", "quad GD, single frequencies"):
        path = rows[(rows["condition"] == name) & (rows["seed"] == seed)].set_index("step")["value"]
        good = fits[(fits["condition"] == name) & (fits["seed"] == seed)].set_index("step")["value"] > 0.1
        label = name.replace("quad GD, ", "") if "," in name else "Gaussian start"
        axes.plot(path.index[good], path[good], color=COLOURS[name], label=f"{label}, GD")
    end = rows["step"].max() * 1.06
    for name in ("quad AdamW", "ReLU AdamW"):
        values = rows.loc[rows["condition"] == name, "value"]
        axes.plot(np.full(len(values), end), values, "o", color=COLOURS[name], alpha=0.5, label=f"{name}, end")
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step of GD", ylabel="ghost / truth, where the fit explains 10 %", ylim=(0, 0.8))
    axes.set_title("Height of the ghosts (ideal: 1/2)")
    axes.legend(loc="upper center", ncols=1)


def draw_diversification(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "mean loss of the vote"]
    rows = rows[rows["seed"] == rows["seed"].min()]
    number, part = (rows[rows["item"] == item].sort_values("x") for item in ("frequencies", "phases"))
    axes.plot(number["x"], number["value"], "o-", color=BLUE, label="by frequencies (below)")
    axes.set(yscale="log", xlabel="number of frequencies", ylabel="mean loss of ideal neurons")
    above = axes.twiny()
    above.plot(part["x"], part["value"], "s--", color=ORANGE)
    above.set_xlabel("phases drawn from [0, this x pi)")
    axes.plot([], [], "s--", color=ORANGE, label="by range of phases (above)")
    axes.legend(loc="lower left")


def draw_grokking(axes: Axes, measurements: DataFrame, metrics: tuple[str, ...], *, log: bool = False) -> None:
    for condition in ("weight decay", "no decay"):
        for metric, style in zip(metrics, ("--", "-") if len(metrics) == 2 else ("-",), strict=True):
            table = curve(measurements, condition, metric)
            label = condition if len(metrics) == 1 else f"{condition}, {metric.partition(' ')[0]}"
            axes.plot(table.index, table["median"], style, color=COLOURS[condition], label=label)
            axes.fill_between(
                table.index.to_numpy(float), table["min"], table["max"], color=COLOURS[condition], alpha=0.15
            )
    draw_stages(axes, measurements)
    axes.set(xlabel="step", ylabel=f"{metrics[0] if len(metrics) == 1 else 'loss'}, median and range")
    if log:
        axes.set_yscale("log")
    axes.set_title(
        {"IPR": "Grokking: concentration", "|sin D|": "Grokking: misalignment"}.get(metrics[0], "Grokking: loss")
    )
    if len(metrics) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    else:
        axes.legend(loc="best")


def draw_groups(axes: Axes, measurements: DataFrame) -> None:
    groups = (("common", GREY, "--"), ("rare", PURPLE, "--"), ("test accuracy", BLUE, "-"), ("unseen", GREEN, "-"))
    for metric, colour, style in groups:
        table = curve(measurements, "weight decay", metric)
        label = {"common": "train, both orders", "rare": "train, one order", "unseen": "test, unseen in any order"}
        axes.plot(table.index, table["median"], style, color=colour, label=label.get(metric, "test, all"))
        axes.fill_between(table.index.to_numpy(float), table["min"], table["max"], color=colour, alpha=0.15)
    draw_stages(axes, measurements)
    axes.set(xlabel="step", ylabel="accuracy, median and range", ylim=(-0.03, 1.03))
    axes.set_title("Grokking with weight decay: accuracy")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def draw_stages(axes: Axes, measurements: DataFrame) -> None:
    """Ends of the first two stages with decay, means over the seeds that reach them."""
    for what in ("memorising", "generalising"):
        chosen = (measurements["metric"] == f"step at which {what} ends") & (
            measurements["condition"] == "weight decay"
        )
        if measurements.loc[chosen, "value"].notna().any():
            axes.axvline(measurements.loc[chosen, "value"].mean(), color="black", linewidth=0.7, linestyle=":")


def curve(measurements: DataFrame, condition: str, metric: str) -> DataFrame:
    rows = measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]
    return rows[rows["step"].notna()].groupby("step")["value"].agg(["median", "min", "max"])


def draw_swaps(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "accuracy after the swap"]
    names = list(dict.fromkeys(rows["condition"]))
    odd = ("x", "x^3")
    draw_dots(axes, [(name, rows[rows["condition"] == name], ORANGE if name in odd else BLUE) for name in names])
    more = measurements[measurements["metric"] == "accuracy after the swap, trained on"]
    for position, name in enumerate(names):
        value = more.loc[more["condition"] == name, "value"].mean()
        axes.plot(value, position, "D", color="black", markerfacecolor="none", markersize=6)
    axes.plot([], [], "D", color="black", markerfacecolor="none", label="twice the steps, mean")
    axes.plot([], [], "o", color=BLUE, label="has an even part")
    axes.plot([], [], "o", color=ORANGE, label="odd")
    axes.set(xlabel="accuracy", xlim=(-0.02, 1.02))
    axes.set_title("ReLU network, activation swapped")
    axes.legend(loc="center")
