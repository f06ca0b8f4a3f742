"""The panels of the study's figure: each takes its axes and the table of measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray
from pandas import DataFrame

from interplay.studies.reaction_kinetics.experiments import CRITICAL_MOBILITY, MEAN_FIELD_FREQUENCY

SPECIES_COLOURS = ListedColormap(["#ffffff", "#0072b2", "#d55e00", "#009e73"])


def _means(measurements: DataFrame, condition: str, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates and means over seeds of a curve."""
    rows = measurements[(measurements["condition"] == condition) & (measurements["metric"] == metric)]
    curve = rows.groupby("x")["value"].mean()
    return curve.index.to_numpy(np.float64), curve.to_numpy(np.float64)


def _lines(
    axes: Axes, measurements: DataFrame, curves: Sequence[tuple[str, str, str]], log: bool = True, style: str = "-"
) -> None:
    for condition, metric, label in curves:
        x, y = _means(measurements, condition, metric)
        positive = y > 0 if log else np.ones(len(y), bool)
        axes.plot(x[positive], y[positive], style, label=label)
    if log:
        axes.set(xscale="log", yscale="log")


def _draw_spreading(axes: Axes, measurements: DataFrame) -> None:
    contact, mixed, coagulation = "contact process", "well-mixed SSA", "birth-death-coagulation"
    _lines(axes, measurements, [(contact, "N(t)", "N, contact process"), (contact, "P(t)", "P, contact process")])
    _lines(axes, measurements, [(coagulation, "P(t)", "P, coagulation"), ("predators", "P(t)", "P, predators (d=2)")])
    _lines(axes, measurements, [(mixed, "N(t)", "N, well mixed"), (mixed, "P(t)", "P, well mixed")], style="--")
    axes.set(title="Spreading from one seed at the threshold", xlabel="time t (1 / death rate)", ylabel="N(t), P(t)")
    axes.set_ylim(bottom=2e-5)
    axes.legend(ncols=2, loc="lower left")


def _draw_slopes(axes: Axes, measurements: DataFrame) -> None:
    for metric, exact, mean_field, colour in (("slope of N", 0.3137, 0, "C0"), ("slope of P", -0.1595, -1, "C1")):
        x, y = _means(measurements, "contact process", metric)
        axes.plot(x, y, "o-", markersize=3, color=colour, label=metric)
        axes.axhline(exact, color=colour, linewidth=0.8)
        axes.axhline(mean_field, color=colour, linewidth=0.8, linestyle="--")
    axes.set(title="Local slopes: lines DP, dashes mean field", xscale="log", xlabel="time t", ylabel="slope")
    axes.legend()


def _draw_densities(axes: Axes, measurements: DataFrame) -> None:
    curves = [
        ("A + A", "density", "A + A"),
        ("A + B, d=1", "density", "A + B"),
        ("A + B, d=2", "density", "A + B, d=2"),
    ]
    _lines(axes, measurements, curves)
    _lines(axes, measurements, [("well-mixed SSA", "density", "A + A, well mixed")], style="--")
    x, _ = _means(measurements, "A + A", "density")
    axes.plot(x, (4 * np.pi * x) ** -0.5, ":", color="black", label="$(8\\pi Dt)^{-1/2}$")
    axes.set(title="Annihilation", xlabel="time t (1 / hop rate)", ylabel="density of A (1 / site)")
    axes.legend()


def _draw_correlation(axes: Axes, measurements: DataFrame) -> None:
    _lines(axes, measurements, [("A + A", "g(r)", "A + A, d=1")], log=False)
    axes.axhline(1.0, color="black", linewidth=0.8, linestyle="--", label="mean field")
    axes.set(title="Depletion around a particle", xlabel="distance r (sites)", ylabel="g(r)")
    axes.legend()


def _draw_space_time(axes: Axes, measurements: DataFrame) -> None:
    codes = _first_seed(measurements, "A + B, d=1", "space-time").reshape(81, 128)
    axes.imshow(
        codes, cmap=SPECIES_COLOURS, vmin=0, vmax=3, aspect="auto", interpolation="nearest", extent=(0, 128, 320, 0)
    )
    axes.set(title="A + B segregate (A blue, B orange)", xlabel="position (sites)", ylabel="time t")


def _draw_front(axes: Axes, measurements: DataFrame) -> None:
    width = "width of the profile"
    _lines(
        axes,
        measurements,
        [("front, d=1", "gap", "gap between A and B"), ("front, d=1", width, "profile, d=1")],
        style="o-",
    )
    _lines(axes, measurements, [("mean field", width, "profile, mean field")], style="--")
    x, y = _means(measurements, "front, d=1", "gap")
    axes.plot(x, y[0] * (x / x[0]) ** 0.25, ":", color="black", label="$t^{1/4}$")
    axes.set(title="Front between separated A and B", xlabel="time t", ylabel="width (sites)")
    axes.legend()


def _draw_portrait(axes: Axes, measurements: DataFrame) -> None:
    for condition, label, style in (
        ("predation 1, hop 0", "lattice, one run", "-"),
        ("rate equation", "rate equation", "--"),
    ):
        first = measurements[measurements["seed"] == measurements["seed"].min()]
        axes.plot(
            _means(first, condition, "prey")[1],
            _means(first, condition, "predators")[1],
            style,
            linewidth=0.8,
            label=label,
        )
    axes.set(title="Predators and prey", xlabel="prey density (1 / site)", ylabel="predator density (1 / site)")
    axes.legend()


def _draw_spectra(axes: Axes, measurements: DataFrame) -> None:
    curves = [(f"predation 1, hop {hop}", "spectrum", f"lattice, hop {hop}") for hop in (0, 2)]
    _lines(axes, measurements, curves)
    _lines(axes, measurements, [("well-mixed SSA", "spectrum", "well mixed")], style="--")
    axes.axvline(MEAN_FIELD_FREQUENCY, color="black", linewidth=0.8, linestyle=":", label="mean field")
    axes.set(title="Spectrum of the predators", xscale="linear", xlabel="angular frequency (1 / time)", ylabel="power")
    axes.legend()


def _draw_diversity(axes: Axes, measurements: DataFrame) -> None:
    rows = measurements[measurements["metric"] == "species lost"]
    lost = rows.groupby("x")["value"].mean()
    axes.plot(lost.index.to_numpy() * CRITICAL_MOBILITY, lost.to_numpy(), "o-", label="May-Leonard")
    axes.axvline(CRITICAL_MOBILITY, color="black", linewidth=0.8, linestyle=":", label="critical mobility")
    axes.set(
        title="Loss of diversity by $t = L^2/10$", xscale="log", xlabel="mobility $2\\epsilon/L^2$",
        ylabel="fraction of runs", ylim=(-0.05, 1.05),
    )  # fmt: skip
    axes.legend()


def _draw_picture(name: str) -> Callable[[Axes, DataFrame], None]:
    def draw(axes: Axes, measurements: DataFrame) -> None:
        codes = _first_seed(measurements, f"{name}, exchange 1", "picture")
        side = round(len(codes) ** 0.5)
        axes.imshow(codes.reshape(side, side), cmap=SPECIES_COLOURS, vmin=0, vmax=3, interpolation="nearest")
        axes.set(title=f"{name}, exchange 1", xlabel="x (sites)", ylabel="y (sites)")

    return draw


def _draw_structure(axes: Axes, measurements: DataFrame) -> None:
    for name, style in (
        ("MayLeonard, exchange 4", "-"),
        ("MayLeonard, exchange 1", "-"),
        ("RockPaperScissors, exchange 1", "--"),
    ):
        k, power = _means(measurements, name, "S(k)")
        axes.plot(k[: len(k) // 2], power[: len(k) // 2], style, label=name)
    axes.set(title="Structure factor of one species", xscale="log", yscale="log", xlabel="wave number k", ylabel="S(k)")
    axes.legend()


def _first_seed(measurements: DataFrame, condition: str, metric: str) -> NDArray[np.float64]:
    return _means(measurements[measurements["seed"] == measurements["seed"].min()], condition, metric)[1]


IN_ORDER = (
    _draw_spreading,
    _draw_slopes,
    _draw_densities,
    _draw_correlation,
    _draw_space_time,
    _draw_front,
    _draw_portrait,
    _draw_spectra,
    _draw_diversity,
    _draw_picture("MayLeonard"),
    _draw_picture("RockPaperScissors"),
    _draw_structure,
)
