"""The panels of the study's figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from pandas import DataFrame, Series

from interplay.kinetics.self_sorting import SelfSortingArray, mix

BUBBLE, INSERTION, SELECTION, GREY = "#0072B2", "#D55E00", "#009E73", "0.55"
COLOURS = {
    "bubble": BUBBLE,
    "insertion": INSERTION,
    "selection": SELECTION,
    "bubble + selection": "#CC79A7",
    "bubble + insertion": "#56B4E9",
    "selection + insertion": "#E69F00",
}
SHORT = {
    "bubble + selection": "bubble +\nselection",
    "bubble + insertion": "bubble +\ninsertion",
    "selection + insertion": "selection +\ninsertion",
}
PUBLISHED_DETOURS = {"bubble": (0.24, 0.29, 0.32, 0.37), "insertion": (1.10, 1.13, 1.15, 1.19)}
PUBLISHED_PEAKS = {"bubble + selection": 0.72, "bubble + insertion": 0.65, "selection + insertion": 0.69}
PUBLISHED_COMPROMISES = {
    "bubble down, selection up": (42.5, "#CC79A7"),
    "bubble up, insertion down": (73.73, "#56B4E9"),
    "selection down, insertion up": (38.31, "#E69F00"),
}


def _curve(measurements: DataFrame, condition: str, metric: str, **where: str) -> Series:
    """Mean over seeds by x."""
    rows = measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.groupby("x")["value"].mean()


def _value(measurements: DataFrame, condition: str, metric: str) -> float:
    rows = measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]
    return float(rows["value"].mean())


def draw_order(axes: Axes, measurements: DataFrame, names: Sequence[str]) -> None:
    """Sortedness on the way: median and the range of most runs."""
    for name in names:
        low, middle, high = (_curve(measurements, name, f"sortedness, {level} % of runs") for level in (10, 50, 90))
        axes.fill_between(low.index, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        axes.plot(middle.index, middle, color=COLOURS[name], label=name)
    axes.set(title="on the way to order", xlabel="swaps, % of the run", ylabel="sortedness, %")
    axes.legend(title="median, 10-90 % of runs", title_fontsize=8, loc="lower right")


def draw_steps(axes: Axes, measurements: DataFrame, names: Sequence[str]) -> None:
    """Steps of cells over steps of the textbook sort, under three ways to count."""
    accountings = ("paper", "symmetric", "all reads")
    places = np.arange(len(accountings))
    for shift, name in enumerate(names):
        ratios = [
            _value(measurements, name, f"steps, {way}") / _value(measurements, f"classical {name}", f"steps, {way}")
            for way in accountings
        ]
        at = places + 0.26 * (shift - 1)
        axes.bar(at, np.array(ratios) - 1, 0.24, bottom=1, color=COLOURS[name], label=name)
        for x, ratio in zip(at, ratios, strict=True):
            above = ratio >= 1
            axes.annotate(
                f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}",
                (x, ratio),
                (0, 2 if above else -2),
                textcoords="offset points",
                ha="center",
                va="bottom" if above else "top",
                fontsize=7,
            )
    axes.axhline(1, color="k", linewidth=0.8)
    axes.set_xticks(places, ["as in\nthe paper", "swaps on\nboth sides", "all\nreads"])
    axes.set(title="steps: cells / top-down", yscale="log", ylabel="ratio", ylim=(0.2, 3e4))
    axes.legend(loc="upper left")


def draw_bursts(axes: Axes, measurements: DataFrame) -> None:
    """What a scheduler that lets cells act several times in a row does to the published numbers."""
    detours = _curve(measurements, "bubble", "delayed gratification by burst")
    peaks = _curve(measurements, "bubble + selection", "peak aggregation by burst")
    axes.plot(detours.index, detours, "o-", color=BUBBLE, label="delayed gratification, bubble")
    axes.plot(peaks.index, peaks, "s-", color=COLOURS["bubble + selection"], label="peak aggregation, b. + s.")
    axes.axhline(0.24, color=BUBBLE, linestyle=":", label="published")
    axes.axhline(0.72, color=COLOURS["bubble + selection"], linestyle=":")
    axes.set(title="a hidden parameter", xlabel="burst, activations in a row", ylabel="value", ylim=(0, 1))
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.58))


def draw_errors(axes: Axes, measurements: DataFrame, names: Sequence[str], kind: str) -> None:
    """Errors at rest by the number of broken cells, of cells and of the textbook sorts."""
    for name, size in zip(names, (9, 6, 6), strict=True):  # bubble's may lie below insertion's
        for condition, style in ((name, "o-"), (f"classical {name}", "x--")):
            errors = _curve(measurements, condition, "monotonicity error", item=kind)
            axes.plot(
                errors.index, errors, style, color=COLOURS[name], markersize=size, linewidth=size / 4, label=condition
            )
    axes.set(title=f"{kind} broken cells", xlabel="broken cells", ylabel="monotonicity error at rest")
    axes.set_xticks(sorted(errors.index))
    axes.legend(loc="upper left")


def draw_detours(axes: Axes, measurements: DataFrame) -> None:
    """Delayed gratification by the number of immovable cells."""
    for name in ("bubble", "insertion", "selection"):
        detours = _curve(measurements, name, "delayed gratification")
        axes.plot(detours.index, detours, "o-", color=COLOURS[name], label=name)
        single = _curve(measurements, f"{name}, burst 1", "delayed gratification")
        axes.plot(single.index, single, "^:", color=COLOURS[name], label=f"{name}, burst 1")
        if name in PUBLISHED_DETOURS:
            published = PUBLISHED_DETOURS[name]
            axes.plot(range(len(published)), published, "*", color="k", label="published" if name == "bubble" else None)
    axes.set(title="detours around immovable cells", xlabel="broken cells", ylabel="delayed gratification")
    axes.set_yscale("log")
    axes.set_ylim(0.1, 40)
    axes.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axes.set_xticks(sorted(detours.index))
    axes.legend(loc="upper left", ncols=2, fontsize=7)


def draw_clusters(axes: Axes, measurements: DataFrame, pairs: Sequence[str]) -> None:
    """Mean aggregation on the way, with the range of what meaningless labels do."""
    controls = [_curve(measurements, name, "aggregation") for name in ("bubble", "insertion", "selection")]
    low, high = np.min(controls, axis=0), np.max(controls, axis=0)
    axes.fill_between(controls[0].index, low, high, color=GREY, alpha=0.5, label="meaningless labels")
    for pair in pairs:
        curve = _curve(measurements, pair, "aggregation")
        axes.plot(curve.index, curve, color=COLOURS[pair], label=pair)
    axes.set(title="clusters nobody asked for", xlabel="swaps, % of the run", ylabel="mean aggregation")
    axes.set_ylim(top=0.76)
    axes.legend(loc="upper right")


def draw_peaks(axes: Axes, measurements: DataFrame, pairs: Sequence[str]) -> None:
    """Both conventions of the peak, next to the control and the published numbers."""
    for place, pair in enumerate(pairs):
        for shift, condition, metric, marker, label in (
            (-0.2, pair, "peak aggregation", "o", "mean of every run's peak"),
            (-0.2, f"{pair}, higher control", "peak aggregation", "_", "the same, higher control"),
            (0.2, pair, "peak of mean aggregation", "s", "peak of the mean curve"),
        ):
            rows = measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]
            colour = GREY if "control" in condition else COLOURS[pair]
            axes.plot(
                np.full(len(rows), place + shift),
                rows["value"],
                marker,
                color=colour,
                markersize=14 if marker == "_" else 6,
                label=label if place == 0 else None,
            )
        axes.plot(place, PUBLISHED_PEAKS[pair], "*", color="k", label="published" if place == 0 else None)
    axes.set_xticks(range(len(pairs)), [SHORT[pair] for pair in pairs])
    axes.margins(x=0.15, y=0.1)
    low, high = axes.get_ylim()
    axes.set(title="peaks, two conventions", ylabel="aggregation", ylim=(low, high + 0.55 * (high - low)))
    axes.legend(loc="upper right")


def draw_duplicates(axes: Axes, measurements: DataFrame, pairs: Sequence[str]) -> None:
    """Aggregation on the way where values repeat."""
    for pair in pairs:
        curve = _curve(measurements, f"{pair}, duplicates", "aggregation")
        axes.plot(curve.index, curve, color=COLOURS[pair], label=pair)
    axes.axhline(0.65, color=COLOURS["bubble + selection"], linestyle=":")
    axes.axhline(0.70, color=COLOURS["selection + insertion"], linestyle=":")
    axes.set(title="values that repeat: clusters stay", xlabel="swaps, % of the run", ylabel="mean aggregation")
    axes.set_ylim(top=0.85)
    axes.legend(title="dotted: published ends", title_fontsize=8, loc="upper right")


def draw_compromise(axes: Axes, measurements: DataFrame) -> None:
    """Sortedness of cells with opposite goals."""
    for condition, (published, colour) in PUBLISHED_COMPROMISES.items():
        curve = _curve(measurements, condition, "sortedness")
        axes.plot(curve.index, curve, color=colour, label=condition)
        axes.axhline(published, color=colour, linestyle=":")
    axes.set(title="opposite goals", xlabel="swaps, % of the run", ylabel="sortedness, %", ylim=(0, 115))
    axes.legend(title="dotted: published ends", title_fontsize=8, loc="upper right")


def draw_space_time(left: Axes, right: Axes) -> None:
    """One chimeric run: algotypes and values by place, time downwards."""
    values = np.random.default_rng(0).permutation(100)
    trace = SelfSortingArray(values, mix("bubble", "selection"), seed=0).run()
    moments = np.rint(np.linspace(0, trace.swaps, 400)).astype(int)
    cells = trace.arrangements(moments)
    extent = (0, len(values), trace.swaps, 0)
    two = ListedColormap([BUBBLE, "#E69F00"])
    picture = {"aspect": "auto", "interpolation": "nearest", "extent": extent}
    left.imshow(trace.groups[cells], cmap=two, vmin=0, vmax=1, **picture)
    left.legend(
        handles=[Patch(color=two(index), label=name) for index, name in enumerate(trace.kinds)],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=2,
    )
    left.set(title="one run: algotypes", xlabel="position", ylabel="swaps")
    image = right.imshow(trace.start[cells], cmap="viridis", **picture)
    right.figure.colorbar(image, ax=right, label="value")
    right.set(title="the same run: values", xlabel="position", ylabel="swaps")
