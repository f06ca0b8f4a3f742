"""What a watched run showed: a summary, tidy tables, a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from interplay.dynamics.opposing_signals.groups import OpposingGroups

__all__ = ["Diagnosis"]

Array = NDArray[np.float64]
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a run.

    Attributes
    ----------
    groups
        The groups, and whether they are opposing at all: `groups.found`, `groups.why`.
    delta, losses, steps
        (W, N) changes and losses in the window, (W,) numbers of the steps.
    mean_loss, sharpness
        (T, 2) step and mean loss of the probe set, step and sharpness, over the whole run.
    step_size
        For the edge of stability 2 / step_size; None if unknown.
    gradient_cosine, gradient_norm
        Cosine between the mean gradients of A and B, and the norms of the mean gradients of A, B and the rest, at the
        parameters at the time of the report.
    curvature, top_curvature
        Parts of A, B and the rest in the sharpness at the same time, which add up to it.
    stopped_at
        The step at which a loss was not finite, or None.
    """

    groups: OpposingGroups
    delta: Array
    losses: Array
    steps: NDArray[np.int64]
    mean_loss: Array
    sharpness: Array
    step_size: float | None
    gradient_cosine: float
    gradient_norm: Mapping[str, float]
    curvature: Mapping[str, float]
    top_curvature: float
    stopped_at: int | None

    def __str__(self) -> str:
        return self.groups.why

    def summary(self) -> pd.Series[float]:
        """The figures of the diagnosis by name."""
        groups = self.groups
        edge = 2 / self.step_size if self.step_size else math.nan
        in_groups = self.curvature.get("A", math.nan) + self.curvature.get("B", math.nan)
        return pd.Series(
            {
                "found": float(groups.found),
                "samples in A": float(len(groups.index_a)),
                "samples in B": float(len(groups.index_b)),
                "opposition": groups.opposition,
                "opposition p": groups.opposition_p,
                "alternation": groups.alternation,
                "alternation p": groups.alternation_p,
                "share of loss changes": groups.share,
                "gradient cosine": self.gradient_cosine,
                "sharpness": self.top_curvature,
                "edge of stability": edge,
                "share of sharpness": in_groups / self.top_curvature,
                "spikes": float(len(self.spikes())),
            }
        )

    def table(self) -> pd.DataFrame:
        """A row for every sample, those with the largest changes first: sample, group, score, loss."""
        label = np.full(len(self.groups.score), "rest", dtype=object)
        label[self.groups.index_a], label[self.groups.index_b] = "A", "B"
        if not self.groups.found:
            label[:] = "none"
        table = pd.DataFrame(
            {
                "sample": np.arange(len(label)),
                "group": label,
                "score": self.groups.score,
                "loss": self.losses[-1],
            }
        )
        return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)

    def spikes(self) -> pd.DataFrame:
        """Rises of the mean loss in the window, the largest first, and which part of each the groups bear.

        Columns: first and last step of the rise; rise of the mean loss; the parts of it in A, B and the rest, which
        add up to 1 (a part may be negative, where a group's loss falls meanwhile).
        """
        mean = self.delta.mean(axis=1)
        members = {"A": self.groups.index_a, "B": self.groups.index_b}
        rows = []
        start = 0
        while start < len(mean):
            if not mean[start] > 0:
                start += 1
                continue
            end = start
            while end + 1 < len(mean) and mean[end + 1] > 0:
                end += 1
            rise = self.delta[start : end + 1].sum(axis=0)
            total = rise.sum()
            parts = {name: float(rise[index].sum() / total) for name, index in members.items()}
            rows.append(
                {
                    "first step": int(self.steps[start]),
                    "last step": int(self.steps[end]),
                    "rise": float(total / len(rise)),
                    **parts,
                    "rest": 1 - sum(parts.values()),
                }
            )
            start = end + 1
        columns = ["first step", "last step", "rise", "A", "B", "rest"]
        return pd.DataFrame(rows, columns=columns).sort_values("rise", ascending=False, ignore_index=True)

    def figure(self) -> Figure:
        """Loss of the groups and the rest, changes of their losses, all changes sorted by score, and the sharpness."""
        figure = Figure(figsize=(10, 6.5), layout="constrained")
        axes = figure.subplot_mosaic([["losses", "changes"], ["heat", "sharpness"]])
        self._draw_losses(axes["losses"])
        self._draw_changes(axes["changes"])
        self._draw_heat(axes["heat"])
        self._draw_sharpness(axes["sharpness"])
        figure.suptitle(self.groups.why, fontsize=9)
        return figure

    def _members(self) -> dict[str, tuple[NDArray[np.int64], str]]:
        index_a, index_b = self.groups.index_a, self.groups.index_b
        rest = np.setdiff1d(np.arange(len(self.groups.score)), np.concatenate([index_a, index_b]))
        named = {"A": (index_a, BLUE), "B": (index_b, ORANGE), "rest": (rest, GREY)}
        return {name: pair for name, pair in named.items() if len(pair[0])}

    def _draw_losses(self, axes: Axes) -> None:
        for name, (index, colour) in self._members().items():
            label = f"{name}, {len(index)} samples"
            axes.plot(self.steps, self.losses[:, index].mean(axis=1), color=colour, label=label, linewidth=1)
        axes.set(xlabel="step", ylabel="mean loss", title="Loss in the window")
        axes.legend()

    def _draw_changes(self, axes: Axes) -> None:
        for name, (index, colour) in self._members().items():
            axes.plot(self.steps, self.delta[:, index].mean(axis=1), color=colour, label=name, linewidth=0.9)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set(xlabel="step", ylabel="change of mean loss", title="Change of loss per step")
        axes.legend()

    def _draw_heat(self, axes: Axes) -> None:
        shown = np.argsort(-self.groups.score, kind="stable")[: min(200, len(self.groups.score))]
        members = np.concatenate([self.groups.index_a, self.groups.index_b])
        order = np.concatenate([members, shown[~np.isin(shown, members)]])
        picture = self.delta[:, order].T
        limit = float(np.quantile(np.abs(picture), 0.98)) or 1.0
        image = axes.imshow(
            picture,
            aspect="auto",
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
            extent=(float(self.steps[0]), float(self.steps[-1]), len(order), 0),
        )
        for line in (len(self.groups.index_a), len(members)):
            axes.axhline(line, color="black", linewidth=0.8)
        axes.set(xlabel="step", ylabel="sample: A, B, then by score", title="Changes of single losses")
        axes.figure.colorbar(image, ax=axes, label="change of loss")

    def _draw_sharpness(self, axes: Axes) -> None:
        axes.plot(*self.mean_loss.T, color=GREY, linewidth=1)
        axes.set(xlabel="step", ylabel="mean loss of the probe set", title="Loss and sharpness over the run")
        if not len(self.sharpness):
            return
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        right.plot(*self.sharpness.T, "o-", color=BLUE, markersize=3, linewidth=1, label="sharpness")
        if self.step_size:
            right.axhline(2 / self.step_size, color="black", linestyle="--", linewidth=1, label="2 / step size")
        right.set_ylabel("sharpness", color=BLUE)
        right.legend(loc="center right")


def as_rows(pairs: Sequence[tuple[int, float]]) -> Array:
    """(step, value) pairs as an array of shape (T, 2)."""
    return np.array(pairs, dtype=float).reshape(-1, 2)
