"""The panels of the study's figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

__all__ = ["draw_chat", "draw_geometry", "draw_guard", "draw_inversion", "draw_map", "draw_scores"]

KINDS = {
    "restricted": ("refused harmful", "#D55E00", "o"),
    "story restricted": ("accepted harmful, story", "#E69F00", "^"),
    "game restricted": ("accepted harmful, game", "#E69F00", "s"),
    "polite restricted": ("accepted harmful, unseen wording", "#E69F00", "x"),
    "how-to": ("accepted harmless", "#0072B2", "o"),
    "describe restricted": ("accepted harmless, same words", "#0072B2", "D"),
    "secretly": ("refused harmless", "#56B4E9", "v"),
}
DIRECTIONS = {"v_harm": ("harmfulness", "#D55E00"), "v_ref": ("refusal", "#0072B2"), "random": ("random", "0.5")}
GUARDS = {
    "Latent Guard": "#009E73",
    "guard at t_post": "#CC79A7",
    "logistic at t_inst": "#56B4E9",
    "logistic at t_post": "#0072B2",
    "bag of words": "0.6",
    "own judgement": "#E69F00",
}


def draw_scores(axes: Sequence[Axes], rows: pd.DataFrame) -> None:
    """s over the states at both tokens: means of seeds, bands of one standard deviation over prompts."""
    for ax, position in zip(axes, ("inst", "post"), strict=True):
        for kind in ("restricted", "story restricted", "how-to", "secretly"):
            label, colour, marker = KINDS[kind]
            line = _by_step(rows, kind, f"s at t_{position}")
            spread = _by_step(rows, kind, f"sd of s at t_{position}")
            ax.plot(line.index, line, color=colour, marker=marker, markersize=4, label=label.split(",")[0])
            ax.fill_between(line.index, line - spread, line + spread, color=colour, alpha=0.12, linewidth=0)
        ax.axhline(0, color="0.5", linewidth=0.8)
        meaning = "harmful" if position == "inst" else "to refuse"
        ax.set(xlabel="state (0: embedding)", ylabel=f"s: towards {meaning}", title=f"at $t_{{{position}}}$")
    axes[0].legend(frameon=False, fontsize="small")


def draw_map(ax: Axes, rows: pd.DataFrame) -> None:
    """Mean beliefs of every kind of prompts, a mark a seed."""
    for kind, (label, colour, marker) in KINDS.items():
        place = [_by_seed(rows, kind, f"mean {what} belief") for what in ("harmfulness", "refusal")]
        ax.scatter(*place, color=colour, marker=marker, s=28, label=label)
    for line in (ax.axhline, ax.axvline):
        line(0, color="0.5", linewidth=0.8, zorder=0)
    ax.set(xlabel="harmfulness belief, $t_{inst}$", ylabel="refusal belief, $t_{post}$", title="belief and behaviour")
    ax.legend(frameon=False, fontsize="x-small")


def draw_chat(ax: Axes, rows: pd.DataFrame) -> None:
    """Refusals of harmless prompts over blocks, at the coefficient with the most."""
    _over_blocks(ax, rows, "refusal rate", largest=True)
    ax.set(ylabel="refused harmless prompts", title="chat: both directions refuse?")


def draw_inversion(ax: Axes, rows: pd.DataFrame) -> None:
    """Answers no over blocks, at the coefficient with the fewest."""
    _over_blocks(ax, rows, "no rate", largest=False)
    ax.axhline(_by_seed(rows, "v_harm", "no without steering").mean(), color="0.6", linestyle=":", linewidth=1)
    ax.set(ylabel='answers "no" on harmless prompts', title="is there harm in it?")


def draw_geometry(ax: Axes, rows: pd.DataFrame) -> None:
    """Cosine of the two directions, and how high noise would let it be."""
    for clusters, colour in (("desired", "#D55E00"), ("behaviour", "#0072B2")):
        for metric, style in (("cosine", "-"), ("ceiling", ":")):
            line = _by_step(rows, f"clusters by {clusters}", metric)
            ax.plot(line.index, line, color=colour, linestyle=style, label=f"{metric}, by {clusters}")
    ax.set(xlabel="state", ylabel="cosine of $v_{harm}$ and $v_{ref}$", ylim=(-1, 1.05), title="two directions")
    ax.legend(frameon=False, fontsize="small")


def draw_guard(ax: Axes, rows: pd.DataFrame) -> None:
    """Accuracy of every classifier on every kind of prompts, with a bar of the standard error over seeds."""
    width = 0.8 / len(GUARDS)
    for at, (name, colour) in enumerate(GUARDS.items()):
        found = rows[(rows["metric"] == "accuracy") & (rows["condition"] == name)].groupby("item")["value"]
        mean, error = found.mean().reindex(KINDS), found.sem().reindex(KINDS)
        places = np.arange(len(KINDS)) + (at - len(GUARDS) / 2 + 0.5) * width
        ax.bar(places, mean, width, yerr=error.fillna(0), color=colour, label=name, error_kw={"linewidth": 0.8})
    ax.set_xticks(range(len(KINDS)), [label.replace(", ", ",\n") for label, _, _ in KINDS.values()], fontsize="small")
    ax.set(ylabel="accuracy: harmful or not", ylim=(0, 1.28), title="who still sees the harm?")
    ax.legend(frameon=False, ncols=3, fontsize="small", loc="upper center")


def _over_blocks(ax: Axes, rows: pd.DataFrame, metric: str, *, largest: bool) -> None:
    for name, (label, colour) in DIRECTIONS.items():
        wanted = rows[(rows["condition"] == name) & (rows["metric"] == metric)]
        by_block = wanted.groupby(["seed", "step"])["value"]
        extreme = (by_block.max() if largest else by_block.min()).unstack("step")
        ax.plot(extreme.columns, extreme.mean(), color=colour, marker="o", markersize=4, label=label)
        for _, line in extreme.iterrows():
            ax.plot(extreme.columns, line, color=colour, linewidth=0.6, alpha=0.5)
    ax.set(xlabel="steered block", ylim=(-0.03, 1.03))
    ax.legend(frameon=False, fontsize="small")


def _by_step(rows: pd.DataFrame, condition: str, metric: str) -> pd.Series:
    return rows[(rows["condition"] == condition) & (rows["metric"] == metric)].groupby("step")["value"].mean()


def _by_seed(rows: pd.DataFrame, condition: str, metric: str) -> pd.Series:
    return rows[(rows["condition"] == condition) & (rows["metric"] == metric)].groupby("seed")["value"].mean()
