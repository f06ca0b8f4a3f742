"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interplay.studies.weighted_steering.conditions import PUBLISHED
from interplay.studies.weighted_steering.outcomes import ALLOWED, FORBIDDEN

__all__ = ["draw_chosen", "draw_collapse", "draw_places", "draw_strengths", "draw_trade", "draw_weights"]

END_TO_END = "WAS, trained end to end"
MAIN = {
    "WAS": "#0072B2",
    END_TO_END: "#009E73",
    PUBLISHED: "#D55E00",
    "added everywhere": "#E69F00",
    "added behind a cosine threshold": "#CC79A7",
    "added behind the Latent Guard": "0.4",
}
BARS = (
    "not steered",
    *MAIN,
    "added in one layer",
    "a refused example before",
    "WAS, relu gate",
    "WAS, raw gate",
    "WAS, hard gate",
    "WAS, previous step",
    "all w at 0.5",
    "w of one layer",
    "s at 1",
    "direction of activations",
    "random direction",
    "shuffled labels",
)


def draw_trade(ax: Axes, rows: pd.DataFrame) -> None:
    """Refusals against false refusals over alpha, steered at the prompt's end; a mark is one alpha, mean of seeds."""
    for name, colour in MAIN.items():
        refused = _curve(rows, name, "refusals at a setting", "prompt's end")
        false = _curve(rows, name, "false refusals at a setting", "prompt's end")
        ax.plot(false, refused, color=colour, marker="o", markersize=4, label=name, alpha=0.85)
    ax.set(xlabel="false refusals", ylabel="refusals of forbidden prompts", xlim=(-0.03, 1.03), ylim=(-0.03, 1.55))
    ax.set(yticks=np.linspace(0, 1, 6), title="what refusing costs (prompt's end steered)")
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", ncols=2)


def draw_chosen(ax: Axes, rows: pd.DataFrame) -> None:
    """Refusal of the unseen override and false refusals at the chosen setting: means of seeds, a point a seed."""
    metrics = {"refusal, unseen override": "#0072B2", "false refusals": "#E69F00"}
    for offset, (metric, colour) in zip((-0.2, 0.2), metrics.items(), strict=True):
        for place, name in enumerate(BARS):
            values = _by_seed(rows, name, metric)
            ax.barh(place + offset, values.mean(), 0.38, color=colour, label=metric if place == 0 else None)
            ax.plot(values, np.full(len(values), place + offset), ".", color="0.2", markersize=3)
    ax.set_yticks(range(len(BARS)), BARS, fontsize="x-small")
    ax.set(xlim=(0, 1.05), ylim=(len(BARS) - 0.4, -2.2), xlabel="share of prompts", title="at the chosen setting")
    ax.legend(frameon=False, fontsize="x-small", loc="upper right", ncols=2)


def draw_collapse(ax: Axes, rows: pd.DataFrame) -> None:
    """Answers that are neither a sentence of refusal nor a value, over alpha: solid with the reply steered too."""
    for name, colour in {"WAS": "#0072B2", "WAS, raw gate": "#D55E00", "added everywhere": "#E69F00"}.items():
        for tokens, style in (("prompt's end and reply", "-"), ("prompt's end", "--")):
            line = _curve(rows, name, "collapse at a setting", tokens)
            ax.plot(line, color=colour, linestyle=style, marker=".", label=f"{name}, {tokens}")
    ax.set(xscale="log", xlabel="alpha, median norms", ylabel="share of answers", ylim=(-0.03, 1.5))
    ax.set(yticks=np.linspace(0, 1, 6), title="neither refusal nor answer")
    ax.legend(frameon=False, fontsize="x-small", loc="upper left")


def draw_strengths(ax: Axes, rows: pd.DataFrame) -> None:
    """Strengths s of every test prompt by cell, of the controller that was fitted on states."""
    cells = [*FORBIDDEN, *ALLOWED]
    found = rows[(rows["condition"] == "WAS") & (rows["metric"] == "strength s")]
    for place, cell in enumerate(cells):
        values = found[found["item"] == cell]["value"].to_numpy()
        spread = np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else np.zeros(len(values))
        ax.plot(place + spread, values, ".", markersize=3, color="#D55E00" if cell in FORBIDDEN else "#0072B2")
        ax.plot([place - 0.35, place + 0.35], [np.median(values)] * 2, color="0.1", linewidth=1.2)
    ax.set_xticks(range(len(cells)), cells, rotation=35, ha="right", fontsize="x-small")
    ax.set(ylabel="strength s", ylim=(-0.03, 1.03), title="how hard each prompt is steered (line: median)")


def draw_weights(ax: Axes, rows: pd.DataFrame) -> None:
    """Mean weights by layer of forbidden prompts; thin lines are seeds."""
    for name, colour in {"WAS": "#0072B2", END_TO_END: "#009E73"}.items():
        found = rows[(rows["condition"] == name) & (rows["metric"] == "weight w")]
        ax.plot(found.groupby("step")["value"].mean(), color=colour, marker="o", label=name)
        for _, line in found.groupby("seed"):
            ax.plot(line["step"].to_numpy(), line["value"].to_numpy(), color=colour, linewidth=0.6, alpha=0.6)
    ax.axhline(0.5, color="0.5", linestyle=":", linewidth=1)
    ax.set(xlabel="layer", ylabel="weight w", ylim=(-0.03, 1.03), title="what both ways of training teach")
    ax.legend(frameon=False, fontsize="x-small")


def draw_places(ax: Axes, rows: pd.DataFrame) -> None:
    """How many of four tokens, the prompt's last and three that are generated, each schedule steers at each layer."""
    names = {"WAS": "#0072B2", "WAS, previous step": "#56B4E9", PUBLISHED: "#D55E00"}
    for offset, (name, colour) in zip((-0.27, 0.0, 0.27), names.items(), strict=True):
        found = rows[(rows["condition"] == name) & (rows["metric"] == "tokens steered")]
        line = found.groupby("step")["value"].mean()
        ax.bar(line.index + offset, line, 0.25, color=colour, label="two passes" if name == "WAS" else name)
    ax.set(
        xlabel="layer", ylabel="tokens steered, of 4", ylim=(0, 5.6), yticks=range(5), title="which layers are reached"
    )
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", ncols=2)


def _curve(rows: pd.DataFrame, name: str, metric: str, tokens: str) -> pd.Series:
    found = rows[(rows["condition"] == name) & (rows["metric"] == metric) & (rows["item"] == tokens)]
    return found.groupby("x")["value"].mean()


def _by_seed(rows: pd.DataFrame, name: str, metric: str) -> pd.Series:
    return rows[(rows["condition"] == name) & (rows["metric"] == metric)].groupby("seed")["value"].mean()
