"""The panels of the study's figure."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch
from pandas import DataFrame

from interplay.embodied.ncap.camera import draw_body

BLUE, ORANGE, GREEN, PURPLE, YELLOW, SKY, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#777777",
)
COLOURS = {
    "constant": BLUE,
    "uniform": GREEN,
    "unshared": SKY,
    "unsigned constant": PURPLE,
    "unsigned uniform": ORANGE,
    "network": "black",
    "random torques": GREY,
}
NAMES = {
    "constant": "circuit",
    "uniform": "circuit,\nrandom weights",
    "unshared": "circuit,\nunshared",
    "unsigned constant": "circuit,\nrandom signs",
    "unsigned uniform": "circuit,\nunsigned",
    "network": "tanh network",
    "random torques": "random torques",
}
CONTROL_STEP = 0.03


def chosen(measurements: DataFrame, metric: str, condition: str | None = None) -> DataFrame:
    """Rows of a metric."""
    rows = measurements[measurements["metric"] == metric]
    return rows if condition is None else rows[rows["condition"] == condition]


def bootstrap(values: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean."""
    draws = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)


def bars(axes: Axes, groups: dict[str, tuple[np.ndarray, str]], label: str) -> None:
    """Horizontal bars of means with bootstrap intervals, and a dot a seed."""
    for row, (values, colour) in enumerate(groups.values()):
        low, high = bootstrap(values)
        axes.barh(row, values.mean(), color=colour, alpha=0.45, height=0.7)
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5)
        spread = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(values, row + spread, ".", color=colour, markersize=5)
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.set(xlabel=label, xlim=(0, 1000))


def draw_film(axes: Axes, measurements: DataFrame) -> None:
    """The body in steps of time from left to right, each shifted so that no two overlap."""
    x, y = (chosen(measurements, f"{name} / m").pivot_table(index="step", columns="x", values="value") for name in "xy")
    if len(x) == 0:
        return
    points = np.stack((x.to_numpy(float), y.to_numpy(float)), -1)
    way = points[-1].mean(0) - points[0].mean(0)
    along = way / max(float(np.linalg.norm(way)), 1e-9)
    turned = points @ np.array([[along[0], -along[1]], [along[1], along[0]]])  # swim to the right
    turned -= turned[0].mean(0)
    shift = 0.72
    for frame, outline in enumerate(turned):
        offset = outline + np.array([frame * shift, 0])
        draw_body(axes, offset, linewidth=5)
        axes.text(frame * shift, -0.32, f"{x.index[frame] * CONTROL_STEP:.2f} s", ha="center", va="top")
    start = turned[0, 0, 0]
    for frame in range(len(turned)):
        axes.plot([start + frame * shift] * 2, [-0.29, 0.29], color=GREY, linewidth=0.8, linestyle=":")
    axes.plot([0, 0.1], [0.37, 0.37], color="black", linewidth=1.5)
    axes.text(0.12, 0.37, "0.1 m", va="center")
    axes.set(aspect="equal", xticks=[], yticks=[], ylim=(-0.42, 0.42))
    axes.set_title("A trained circuit swims to the right (head orange; dotted: where its nose began)")
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_learning(axes: Axes, measurements: DataFrame) -> None:
    """Mean return against environment steps of training, median and range over seeds."""
    rows = chosen(measurements, "mean return")
    first = rows.loc[rows["step"] > 0, "step"].min()
    for condition in ("constant", "uniform", "unshared", "unsigned uniform", "network"):
        curve = rows[rows["condition"] == condition].groupby("step")["value"].agg(["median", "min", "max"])
        steps = np.maximum(curve.index.to_numpy(float), first / 2)
        axes.plot(steps, curve["median"], color=COLOURS[condition], label=NAMES[condition].replace("\n", " "))
        axes.fill_between(steps, curve["min"], curve["max"], color=COLOURS[condition], alpha=0.13, linewidth=0)
    axes.axhline(800, color=GREY, linewidth=1, linestyle=":")
    axes.set(xscale="log", xlabel="environment steps of training (leftmost: none)", ylabel="return of an episode")
    axes.set(ylim=(0, 1000))
    axes.set_title("Learning")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def draw_untrained(axes: Axes, measurements: DataFrame) -> None:
    """Returns before training, one dot a seed."""
    rows = chosen(measurements, "untrained return").groupby(["condition", "seed"])["value"].mean()
    groups = {NAMES[name]: (rows[name].to_numpy(), colour) for name, colour in COLOURS.items()}
    bars(axes, groups, "return before training")
    axes.set_title("Untrained")


def draw_ends(axes: Axes, measurements: DataFrame) -> None:
    """Returns at the end of training, one dot a seed."""
    groups = {
        NAMES[name]: (chosen(measurements, "final return", name)["value"].to_numpy(), colour)
        for name, colour in COLOURS.items()
        if name != "random torques"
    }
    bars(axes, groups, "return after training")
    axes.axvline(800, color=GREY, linewidth=1, linestyle=":")
    axes.set_title("Trained")


def draw_wave(axes: Axes, measurements: DataFrame) -> None:
    """Kymograph: angles of all joints over time."""
    table = chosen(measurements, "joint angle / limit").pivot_table(index="x", columns="step", values="value")
    seconds = table.columns.to_numpy(float) * CONTROL_STEP
    image = axes.pcolormesh(
        seconds, table.index + 1, table, cmap="RdBu_r", vmin=-1, vmax=1, shading="nearest", rasterized=True
    )
    axes.set(xlabel="time / s", ylabel="joint (1 at the head)", yticks=table.index + 1)
    axes.invert_yaxis()
    axes.set_title("The wave runs down the body")
    axes.figure.colorbar(image, ax=axes, label="angle / limit (red: dorsal)")


def draw_activity(axes: Axes, measurements: DataFrame) -> None:
    """Raster of B-neurons and muscles of both sides."""
    rows, labels = [], []
    for part, name in (("b_neuron", "B"), ("muscle", "muscle")):
        for side in ("dorsal", "ventral"):
            table = chosen(measurements, part)
            table = table[table["item"] == side].pivot_table(index="x", columns="step", values="value")
            rows.append(table.to_numpy())
            labels.append(f"{name}\n{side}")
    seconds = table.columns.to_numpy(float) * CONTROL_STEP
    joints = len(rows[0])
    raster = np.concatenate(rows)
    image = axes.pcolormesh(
        seconds, np.arange(len(raster)), raster, cmap="cividis", vmin=0, vmax=1, shading="nearest", rasterized=True
    )
    axes.set_yticks((np.arange(4) + 0.5) * joints - 0.5, labels)
    for border in range(1, 4):
        axes.axhline(border * joints - 0.5, color="white", linewidth=1.5)
    axes.set(xlabel="time / s")
    axes.invert_yaxis()
    axes.set_title("Circuit activity (head on top of each block)")
    axes.figure.colorbar(image, ax=axes, label="activity")


def draw_bodies(axes: Axes, measurements: DataFrame) -> None:
    """Returns of the same weights by number of links."""
    rows = chosen(measurements, "return in a body")
    links = sorted(rows["x"].unique())
    colours = {"own body": BLUE, "longer bodies": GREEN, "shorter bodies": GREY}
    for position, number in enumerate(links):
        here = rows[rows["x"] == number]
        values, name = here["value"].to_numpy(), here["condition"].iloc[0]
        axes.bar(position, values.mean(), color=colours[name], alpha=0.45)
        axes.plot([position] * 2, bootstrap(values), color=colours[name], linewidth=2.5)
        axes.plot(position + np.linspace(-0.22, 0.22, len(values)), values, ".", color=colours[name], markersize=5)
    for name, colour in colours.items():
        axes.bar(0, 0, color=colour, alpha=0.45, label=name if name != "own body" else "trained in")
    own = rows.loc[rows["condition"] == "own body", "value"].mean()
    axes.axhline(0.8 * own, color=GREY, linewidth=1, linestyle=":")
    axes.set_xticks(range(len(links)), [f"{number:.0f}" for number in links])
    axes.set(xlabel="links of the body", ylabel="return, weights unchanged", ylim=(0, 1350))
    axes.set_title("Transfer (dotted: 0.8 of the own body)")
    axes.legend(fontsize=7, loc="upper left")


def draw_parts(axes: Axes, measurements: DataFrame) -> None:
    """Returns with parts of the circuit cut, before and after training."""
    groups = {}
    for when, colour in (("untrained", SKY), ("trained", BLUE)):
        for part in ("whole", "without oscillator", "without stretch feedback"):
            name = part.replace("without ", "no ").replace("stretch feedback", "stretch\nfeedback")
            groups[f"{when},\n{name}"] = (
                chosen(measurements, "return without a part", f"{when}, {part}")["value"].to_numpy(),
                colour,
            )
    bars(axes, groups, "return")
    axes.set_title("Parts cut")


def draw_wiring(axes: Axes, measurements: DataFrame) -> None:
    """The circuit of the head and the next joint, with the weights of one trained circuit."""
    weights = chosen(measurements, "weight").set_index("item")["value"]
    places = {
        "oscillator": (0.0, 0.0),
        **{f"B {side}{joint}": (1.6 + 3.2 * joint, y) for joint in (0, 1) for side, y in (("d", 0.75), ("v", -0.75))},
        **{f"M {side}{joint}": (3.0 + 3.2 * joint, y) for joint in (0, 1) for side, y in (("d", 0.75), ("v", -0.75))},
    }
    names = {"oscillator": "osc."}
    for name, (x, y) in places.items():
        colour = YELLOW if name == "oscillator" else "#BBD7EA" if name.startswith("B") else "#F3C6AE"
        axes.add_patch(Circle((x, y), 0.27, facecolor=colour, edgecolor="black", zorder=3))
        axes.text(x, y, names.get(name, name[:3]), ha="center", va="center", fontsize=8, zorder=4)

    def synapse(start: str, end: str, weight: float, excites: bool, at: float = 0.5, bend: float = 0.0) -> None:
        shown = max(weight, 0.0) if excites else min(weight, 0.0)
        arrow = FancyArrowPatch(
            places[start],
            places[end],
            arrowstyle="-|>" if excites else "|-|, widthA=0, widthB=0.35",
            mutation_scale=11,
            shrinkA=15,
            shrinkB=16,
            linewidth=0.6 + 1.4 * min(abs(shown), 3) / 1.5,
            color=GREEN if excites else ORANGE,
            connectionstyle=f"arc3,rad={bend}",
            zorder=2,
        )
        axes.add_patch(arrow)
        (x0, y0), (x1, y1) = places[start], places[end]
        x, y = x0 + at * (x1 - x0), y0 + at * (y1 - y0)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.text(x, y, f"{shown:+.2f}", ha="center", va="center", fontsize=7, bbox=box, zorder=5)

    for side in "dv":
        synapse("oscillator", f"B {side}0", weights["oscillator"], True)
        for joint in (0, 1):
            synapse(f"B {side}{joint}", f"M {side}{joint}", weights["ipsilateral"], True)
            other = "v" if side == "d" else "d"
            synapse(f"B {side}{joint}", f"M {other}{joint}", weights["contralateral"], False, at=0.28)
        synapse(f"M {side}0", f"B {side}1", weights["proprioception"], True)
    for joint, name in ((0, "head joint"), (1, "next joint (and so on)")):
        axes.text(2.3 + 3.2 * joint, 1.3, name, ha="center", fontsize=8)
    axes.text(3.9, 1.12, "stretch of the\njoint, measured", ha="center", va="center", fontsize=7)
    axes.plot([], [], color=GREEN, label="excites", linewidth=2)
    axes.plot([], [], color=ORANGE, label="inhibits", linewidth=2)
    axes.legend(loc="lower left", fontsize=7)
    axes.set(xlim=(-0.5, 7.0), ylim=(-1.35, 1.5), aspect="equal", xticks=[], yticks=[])
    axes.set_title("Wiring with learned weights (d dorsal, v ventral; B neuron, M muscle)")
    for spine in axes.spines.values():
        spine.set_visible(False)
