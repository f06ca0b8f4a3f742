"""The panels of the study's figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.projections.polar import PolarAxes

from interplay.studies.selective_steering.conditions import ABLATIONS, ALL_BLOCKS, ANGULAR
from interplay.studies.selective_steering.outcomes import VIOLATION

__all__ = ["draw_abilities", "draw_perplexity", "draw_places", "draw_sites", "draw_swap", "draw_trade"]

METHODS: Mapping[str, tuple[str, str]] = {
    "SS": ("#0072B2", "o"),
    "SAS": ("#D55E00", "s"),
    "AAS": ("#E69F00", "^"),
    ALL_BLOCKS: ("#56B4E9", "D"),
    "DirAbl": ("#009E73", "v"),
    "ActAdd": ("#CC79A7", "P"),
    "ActAdd in norms of the site": ("0.4", "X"),
}


def draw_perplexity(ax: PolarAxes, rows: pd.DataFrame) -> None:
    """Perplexity under the steered model around the circle of angles, of the mean seed; stars where it is violated."""
    top = VIOLATION
    for name in ANGULAR:
        line = _curve(rows, name, "perplexity at a setting, steered model")
        angles = np.deg2rad(line.index.to_numpy())
        ax.plot(angles, line, color=METHODS[name][0], label=name)
        over = line.to_numpy() > VIOLATION
        ax.plot(angles[over], line[over], "*", color=METHODS[name][0], markersize=9)
        top = max(top, line.max())
    circle = np.linspace(0, 2 * np.pi, 181)
    ax.plot(circle, np.full_like(circle, VIOLATION), color="0.4", linestyle=":", linewidth=1, label="2, the limit")
    ax.set(rmin=0.8, rmax=1.08 * top, title="perplexity of what is written, by angle")
    ax.set_yticks([1, 1.5, 2] if top < 4 else np.linspace(1, top, 4).round())
    ax.set_rlabel_position(200)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0.98, 1.05))


def draw_abilities(ax: Axes, rows: pd.DataFrame) -> None:
    """Accuracy of other tasks at every angle; thin lines are seeds."""
    for name in (*ANGULAR, ALL_BLOCKS):
        _lines(ax, rows, name, "accuracy at a setting, other tasks", METHODS[name][0], name)
    base = _by_seed(rows, "none", "accuracy of other tasks").mean()
    ax.axhline(base, color="0.5", linestyle=":", linewidth=1, label="not steered")
    _angles(ax, "accuracy of other tasks")
    ax.set_title("what steering costs elsewhere")
    ax.legend(frameon=False, fontsize="small", loc="lower left")


def draw_sites(ax: Axes, rows: pd.DataFrame) -> None:
    """How both classes lie along b1 at each norm; shaded where a block is selected on most seeds."""
    selected = rows[rows["metric"] == "selected"].groupby("step")["value"].mean()
    for site in selected.index[selected > 0.5]:
        ax.axvspan(site - 0.5, site + 0.5, color="0.9", zorder=0, linewidth=0)
    for name, colour in (("refused", "#D55E00"), ("allowed", "#0072B2")):
        found = rows[(rows["condition"] == name) & (rows["metric"] == "mean cosine with b1")]
        by_site = found.groupby("step")["value"]
        ax.plot(by_site.mean(), color=colour, marker="o", markersize=4, label=f"{name} prompts")
        for _, line in found.groupby("seed"):
            ax.plot(line["step"].to_numpy(), line["value"].to_numpy(), color=colour, linewidth=0.6, alpha=0.5)
    ax.axhline(0, color="0.5", linewidth=0.8)
    ax.set(xlabel="norm, from the first block to the last", ylabel="mean cosine with $b_1$")
    ax.set_title("where the classes lie apart (shaded: steered)")
    ax.legend(frameon=False, fontsize="small")


def draw_trade(ax: Axes, rows: pd.DataFrame) -> None:
    """Success at the chosen setting against accuracy at the worst, a mark a seed."""
    for name, (colour, marker) in METHODS.items():
        success = _by_seed(rows, name, "control success")
        worst = _by_seed(rows, name, "accuracy of other tasks at the worst setting")
        ax.scatter(worst, success, color=colour, marker=marker, s=36, label=name, alpha=0.8)
    ax.set(xlabel="accuracy of other tasks, worst setting", ylabel="control success, chosen setting")
    ax.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.35), yticks=np.linspace(0, 1, 6), title="use and damage")
    ax.legend(frameon=False, fontsize="x-small", loc="upper center", ncols=2)


def draw_swap(ax: Axes, rows: pd.DataFrame) -> None:
    """Refusal of both classes at every angle: solid what was refused, dashed what was allowed."""
    for name in ANGULAR:
        colour = METHODS[name][0]
        _lines(ax, rows, name, "refusals at a setting, refused prompts", colour, f"{name}, refused prompts")
        _lines(ax, rows, name, "refusals at a setting, allowed prompts", colour, f"{name}, allowed prompts", "--")
    _angles(ax, "share refused")
    ax.set(title="who is refused", ylim=(-0.03, 1.35), yticks=np.linspace(0, 1, 6))
    ax.legend(frameon=False, fontsize="x-small", loc="upper center", ncols=2)


def draw_places(ax: Axes, rows: pd.DataFrame) -> None:
    """Success and worst accuracy by where and in which plane SS turns: means of seeds, a point a seed."""
    names = ("SS", ALL_BLOCKS, *ABLATIONS)
    metrics = {
        "control success": "#0072B2",
        "accuracy of other tasks at the worst setting": "#E69F00",
    }
    labels = dict(zip(metrics, ("success, chosen angle", "other tasks, worst angle"), strict=True))
    for offset, (metric, colour) in zip((-0.2, 0.2), metrics.items(), strict=True):
        for place, name in enumerate(names):
            values = _by_seed(rows, name, metric)
            label = labels[metric] if place == 0 else None
            ax.barh(place + offset, values.mean(), 0.36, color=colour, label=label)
            ax.plot(values, np.full(len(values), place + offset), ".", color="0.2", markersize=4)
    places = ["where the classes lie apart", *(name.removeprefix("SS ") for name in names[1:])]
    ax.set_yticks(range(len(names)), places, fontsize="small")
    ax.set(xlim=(0, 1.05), ylim=(len(names) - 0.4, -1.5), xlabel="share of answers", title="where SS turns")
    ax.legend(frameon=False, fontsize="x-small", loc="upper center", ncols=2)


def _angles(ax: Axes, label: str) -> None:
    ax.set(xlabel="angle, degrees", ylabel=label, xlim=(0, 360), ylim=(-0.03, 1.03), xticks=range(0, 361, 90))


def _lines(ax: Axes, rows: pd.DataFrame, name: str, metric: str, colour: str, label: str, style: str = "-") -> None:
    found = rows[(rows["condition"] == name) & (rows["metric"] == metric)]
    ax.plot(_curve(rows, name, metric), color=colour, linestyle=style, label=label)
    for _, line in found.groupby("seed"):
        ax.plot(line["x"].to_numpy(), line["value"].to_numpy(), color=colour, linestyle=style, linewidth=0.5, alpha=0.5)


def _curve(rows: pd.DataFrame, condition: str, metric: str) -> pd.Series:
    return rows[(rows["condition"] == condition) & (rows["metric"] == metric)].groupby("x")["value"].mean()


def _by_seed(rows: pd.DataFrame, condition: str, metric: str) -> pd.Series:
    return rows[(rows["condition"] == condition) & (rows["metric"] == metric)].groupby("seed")["value"].mean()
