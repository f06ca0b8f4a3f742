"""One look for all figures, and SVG files that are the same whenever the figure is the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")

_STYLE: dict[Any, Any] = {
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.dpi": 100,
    "svg.fonttype": "path",
    "svg.hashsalt": "interplay",
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Matplotlib's settings while a study draws."""
    with mpl.rc_context(_STYLE):
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG without a date, so that equal figures are equal files."""
    with figure_style():
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
