"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from interplay.studies.factual_recall import TO_CONTEXT, TO_MEMORY, UNSEEN


def draw_frequencies(axes: np.ndarray, measurements: pd.DataFrame) -> None:
    """In-context rate against the frequency of the country, and of the offered city; a line a seed."""
    for ax, label, what in zip(
        axes, ("country", "city"), ("statements of the country's capital", "mentions of the offered city"), strict=True
    ):
        rows = measurements[measurements["metric"] == f"in-context rate by {label}"]
        for seed, line in rows.groupby("seed"):
            ax.plot(line["x"], line["value"], marker="o", markersize=4, label=f"seed {seed}")
        ax.set(ylim=(0, 1), xlabel=f"{what} in the training text", ylabel="in-context rate")
        ax.set_xscale("log", base=2)
        ax.legend()


def draw_head_map(ax: Axes, measurements: pd.DataFrame) -> None:
    """Attribution of every head of the first seed."""
    rows = measurements[measurements["condition"] == "head map"]
    grid = rows[rows["seed"] == rows["seed"].min()].pivot(index="step", columns="x", values="value")
    size = float(np.abs(grid.to_numpy()).max())
    image = ax.imshow(grid.to_numpy(), cmap="PuOr", vmin=-size, vmax=size, origin="lower", aspect="auto")
    ax.set(xlabel="head", ylabel="layer", title=f"attribution, seed {rows['seed'].min()}")
    ax.set_xticks(range(grid.shape[1]))
    ax.set_yticks(range(grid.shape[0]))
    ax.figure.colorbar(image, ax=ax, label="logits: memorised (-), offered (+)")


def draw_gain_curves(axes: np.ndarray, measurements: pd.DataFrame) -> None:
    """Rates against the gain of the memory head, and of the in-context head."""
    for ax, head in zip(axes, ("memory head", "in-context head"), strict=True):
        _gain_curve(ax, measurements[measurements["condition"] == f"{head}, development"])
        ax.set_title(f"scaling the {head}, mean of seeds")


def _gain_curve(ax: Axes, rows: pd.DataFrame) -> None:
    means = rows.pivot_table(index="x", columns="metric", values="value")
    for metric, colour in (("in-context rate", "C0"), ("memorized rate", "C1")):
        ax.plot(means.index, means[metric], marker="o", markersize=4, color=colour, label=metric)
    ax.fill_between(means.index, means["other rate"], color="0.8", label="other rate")
    ax.axvline(1, color="0.5", linewidth=0.8, linestyle=":")
    ax.set(ylim=(0, 1.3), yticks=np.linspace(0, 1, 6), xlabel="gain of the head", ylabel="share of conflicts")
    ax.legend(loc="upper center", ncols=2)


def draw_carry_over(ax: Axes, measurements: pd.DataFrame) -> None:
    """Target rate of each seed's dial on test against development conflicts."""
    wanted = {
        (TO_CONTEXT, "in-context rate"): ("to context, seen statement", "C0", "o"),
        (UNSEEN, "in-context rate"): ("to context, unseen statement", "C2", "s"),
        (TO_MEMORY, "memorized rate"): ("to memory, seen statement", "C1", "^"),
    }
    for (condition, metric), (label, colour, marker) in wanted.items():
        test = _by_seed(measurements, condition, metric)
        fitted = _by_seed(measurements, TO_MEMORY if metric == "memorized rate" else TO_CONTEXT, "rate on development")
        ax.scatter(fitted, test, color=colour, marker=marker, label=label)
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, linestyle=":")
    ax.set(xlim=(0, 1.03), ylim=(0, 1.03), title="one dial a seed")
    ax.set(xlabel="target rate, development", ylabel="target rate, test")
    ax.legend(loc="lower right")


def _by_seed(measurements: pd.DataFrame, condition: str, metric: str) -> pd.Series[float]:
    rows = measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]
    return rows.set_index("seed")["value"].sort_index()
