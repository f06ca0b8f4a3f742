"""Panels of the study's figure. Bars and lines are means over seeds; whiskers and bands are 95 % intervals."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame, Series
from scipy import stats

from interplay.evidence.figures import COLOURS

COLOUR = {"audio": COLOURS[1], "visual": COLOURS[0]}
CONDITIONS = (
    "audio alone",
    "visual alone",
    "joint",
    "joint, rate chosen",
    "joint, equal compute",
    "OGM-GE",
    "MSES",
    "MSLR",
    "MSLR, stronger",
    "AGM",
    "AGM, no reference",
    "AGM, constant k",
    "early joint",
    "early AGM",
)
STRENGTHS = ("own feature", "joint", "AGM", "early joint", "early AGM", "Gaussian feature")


def draw_accuracy(axes: Axes, measurements: DataFrame) -> None:
    """Test accuracy of every condition."""
    rows = measurements[measurements["metric"] == "accuracy"]
    for place, condition in enumerate(CONDITIONS):
        centre, half = _interval(rows[rows["condition"] == condition]["value"])
        colour = COLOURS[2] if "AGM" in condition else "0.45" if "joint" in condition else COLOURS[5]
        axes.barh(place, centre, xerr=half, color=colour, error_kw={"lw": 1})
        axes.text(0.02, place, f"{centre:.3f}", va="center", fontsize=8, color="white" if centre > 0.15 else "black")
    axes.set_yticks(range(len(CONDITIONS)), CONDITIONS)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("test accuracy")
    axes.set_title("Accuracy; late fusion unless early is said")


def draw_shares(axes: Axes, measurements: DataFrame) -> None:
    """Accuracy of each modality's share over time, joint training against AGM."""
    for condition, dashes in (("joint", "--"), ("AGM", "-")):
        for name, colour in COLOUR.items():
            _course(axes, measurements, condition, "share accuracy", name, colour, dashes, f"{name}, {condition}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy of the Shapley share")
    axes.set_title("What each modality contributes")
    axes.legend()


def draw_coefficients(axes: Axes, measurements: DataFrame) -> None:
    """Mean coefficient of each epoch."""
    for name, colour in COLOUR.items():
        _course(axes, measurements, "AGM", "coefficient", name, colour, "-", name)
    axes.axhline(1, color="0.6", lw=0.8)
    axes.set_xlabel("epoch")
    axes.set_ylabel("coefficient k on the gradient, mean of the epoch")
    axes.set_title("AGM slows what is ahead of its usual standing")
    axes.legend()


def draw_strength(axes: Axes, measurements: DataFrame) -> None:
    """Competition strength of both modalities in several features."""
    rows = measurements[measurements["metric"] == "competition strength"]
    for offset, (name, colour) in zip((-0.2, 0.2), COLOUR.items(), strict=True):
        intervals = [
            _interval(rows[(rows["condition"] == condition) & (rows["item"] == name)]["value"])
            for condition in STRENGTHS
        ]
        centres, halves = zip(*intervals, strict=True)
        axes.bar(np.arange(len(STRENGTHS)) + offset, centres, 0.38, yerr=halves, color=colour, label=name)
    axes.axhline(1, color="0.6", lw=0.8)
    axes.set_xticks(range(len(STRENGTHS)), [name.replace(" ", "\n") for name in STRENGTHS])
    axes.set_ylabel("competition strength (0: all there)")
    axes.set_title("What features lack of each modality's concept")
    axes.legend(loc="upper left")


def draw_noise(axes: Axes, measurements: DataFrame) -> None:
    """Competition strength under joint training by the noise on the images."""
    rows = measurements[measurements["metric"] == "competition strength by noise"]
    for name, colour in COLOUR.items():
        groups = rows[rows["item"] == name].groupby("x")["value"]
        levels = sorted(groups.groups)
        centres, halves = zip(*(_interval(groups.get_group(level)) for level in levels), strict=True)
        axes.errorbar(levels, centres, yerr=halves, color=colour, marker="o", capsize=3, label=name)
    accurate = measurements[measurements["metric"] == "preferred modality is the more accurate one"]
    for level, share in accurate.groupby("x")["value"].mean().items():
        axes.text(level, 0.02, f"{share:.0%}", ha="center", fontsize=8, transform=axes.get_xaxis_transform())
    axes.set_xlabel("noise on the images, standard deviation\n(below: seeds that prefer the more accurate modality)")
    axes.set_ylabel("competition strength under joint training")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.margins(x=0.12)
    axes.set_title("The preferred modality")
    axes.legend()


def _course(
    axes: Axes, measurements: DataFrame, condition: str, metric: str, item: str, colour: str, dashes: str, label: str
) -> None:
    chosen = (measurements["condition"] == condition) & (measurements["metric"] == metric)
    groups = measurements[chosen & (measurements["item"] == item)].groupby("step")["value"]
    steps = sorted(groups.groups)
    centres, halves = (
        np.array(part) for part in zip(*(_interval(groups.get_group(step)) for step in steps), strict=True)
    )
    axes.plot(steps, centres, dashes, color=colour, label=label)
    axes.fill_between(np.array(steps, dtype=float), centres - halves, centres + halves, color=colour, alpha=0.15, lw=0)


def _interval(values: Series[float]) -> tuple[float, float]:
    """Mean and half of its 95 % t-interval."""
    if len(values) < 2:
        return float(values.mean()), 0.0
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)
