"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interplay.studies.austeer.conditions import SITES
from interplay.studies.austeer.tasks import TASKS

__all__ = ["draw_conditions", "draw_consistency", "draw_curve", "draw_kinds", "draw_profiles"]

COLOURS = dict(zip(TASKS, ("#0072B2", "#E69F00", "#009E73"), strict=True))
CONDITIONS = (
    "not steered",
    "AUSteer",
    "best single unit",
    "SADI",
    "largest mean difference",
    "constants on the same units",
    "shuffled labels",
    "random units, median",
    "random units, 95th percentile",
    "whole block",
    "CAA",
    "ITI",
    "best block baseline",
    "shifted margin",
)
KINDS = {"helpful": "#009E73", "harmful": "#D55E00", "neutral": "0.6"}


def draw_conditions(ax: Axes, rows: pd.DataFrame) -> None:
    """Test accuracy of every condition and task: mean of seeds, a point a seed."""
    for offset, (task, colour) in zip((-0.27, 0.0, 0.27), COLOURS.items(), strict=True):
        for place, name in enumerate(CONDITIONS):
            found = rows[(rows["condition"] == name) & (rows["metric"] == "accuracy") & (rows["item"] == task)]["value"]
            ax.barh(place + offset, found.mean(), 0.25, color=colour, label=task if place == 0 else None)
            ax.plot(found, np.full(len(found), place + offset), ".", color="0.15", markersize=3)
    ax.axvline(0.5, color="0.5", linestyle=":", linewidth=1)
    ax.set_yticks(range(len(CONDITIONS)), CONDITIONS, fontsize="small")
    ax.set(xlim=(0, 1.05), ylim=(len(CONDITIONS) - 0.4, -1.3), xlabel="test accuracy", title="at the chosen setting")
    ax.legend(frameon=False, fontsize="small", loc="upper center", ncols=3)


def draw_curve(ax: Axes, rows: pd.DataFrame) -> None:
    """Accuracy against the number of units, of the best site for each task: mean of seeds."""
    for task, colour in COLOURS.items():
        for site, style in zip(SITES, ("-", "--", ":"), strict=True):
            found = rows[
                (rows["condition"] == site) & (rows["metric"] == "accuracy at k units") & (rows["item"] == task)
            ]
            line = found.groupby("x")["value"].mean()
            ax.plot(line, color=colour, linestyle=style, marker=".", label=site if task == TASKS[0] else None)
    ax.set(xscale="log", xlabel="units rescaled", ylabel="test accuracy", ylim=(-0.03, 1.25), title="how many units")
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", ncols=3)


def draw_consistency(ax: Axes, rows: pd.DataFrame) -> None:
    """How consistent units are, of the MLPs."""
    for task, colour in COLOURS.items():
        found = rows[(rows["condition"] == f"{task}, ffn") & (rows["metric"] == "share of units by |beta|")]
        line = found.groupby("x")["value"].mean()
        ax.step([*line.index, 1.0], [*line, line.iloc[-1]], where="post", color=colour, label=task)
    ax.set(xlabel=r"$|\beta|$", ylabel="share of units", title="how consistent units are (MLPs)")
    ax.legend(frameon=False, fontsize="x-small")


def draw_kinds(ax: Axes, rows: pd.DataFrame) -> None:
    """Units that help, harm or do nothing when they are scaled alone, by block."""
    found = rows[rows["metric"].str.startswith("share of units: ")]
    blocks = list(dict.fromkeys(found["condition"]))
    for offset, (kind, colour) in zip((-0.27, 0.0, 0.27), KINDS.items(), strict=True):
        own = found[found["metric"] == f"share of units: {kind}"]
        means = own.groupby("condition")["value"].mean().reindex(blocks)
        ax.bar(np.arange(len(blocks)) + offset, means, 0.25, color=colour, label=kind)
    ax.set_xticks(range(len(blocks)), blocks, rotation=30, ha="right", fontsize="x-small")
    ax.set(ylim=(0, 1.2), ylabel="share of units", title="scaled alone (task: bias)")
    ax.legend(frameon=False, fontsize="x-small", ncols=3, loc="upper center")


def draw_profiles(ax: Axes, rows: pd.DataFrame) -> None:
    """Kurtosis of what units write over tokens, against a rotated basis."""
    for site, colour in zip(SITES[:2], ("#0072B2", "#D55E00"), strict=True):
        for basis, style in (("units", "-"), ("rotated", ":")):
            name = f"{site}, {basis}"
            found = rows[(rows["condition"] == name) & (rows["metric"] == "kurtosis of token profiles")]
            ax.plot(found.groupby("step")["value"].mean(), color=colour, linestyle=style, marker=".", label=name)
    ax.set(xlabel="layer", ylabel="excess kurtosis over tokens", title="is the unit basis special?")
    ax.legend(frameon=False, fontsize="x-small")
