"""Half the cells sort by bubble's rule, half by selection's, three are broken: watch them (self_sorting.gif)."""

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from interplay.kinetics.self_sorting import SelfSortingArray, classical_sort, delayed_gratification, mix

values = np.random.default_rng(0).permutation(60)
array = SelfSortingArray(values, mix("bubble", "selection"), frozen=3, frozen_kind="immovable", seed=0)
colours = np.array(["#0072B2", "#E69F00"])[array.algotypes]
colours[array.frozen] = "0.5"
trace = array.run()

print(trace)
print(f"clusters: aggregation {trace.aggregation[0]:.2f} at first, {trace.aggregation.max():.2f} at its highest")
print(f"detours: delayed gratification {delayed_gratification(trace.me):.2f}")
for sort in ("bubble", "insertion", "selection"):
    top_down = classical_sort(values, sort, frozen=3, frozen_kind="immovable", seed=0)
    print(
        f"top-down {sort:9}  {top_down.swaps:4} swaps, {top_down.final_me} errors left; the cells left {trace.final_me}"
    )

pictures = trace.arrangements(np.rint(np.linspace(0, trace.swaps, 40)).astype(int))
figure = Figure(figsize=(5, 2.5), dpi=80)
figure.subplots_adjust(bottom=0.2)
FigureCanvasAgg(figure)
axes = figure.subplots()
bars = axes.bar(range(len(values)), values, width=1.0)
axes.set(xlabel="position", ylabel="value", title="blue bubble, orange selection, grey broken")


def draw(cells: np.ndarray) -> list:
    for bar, cell in zip(bars, cells, strict=True):
        bar.set(height=values[cell], color=colours[cell])
    return list(bars)


FuncAnimation(figure, draw, frames=pictures, cache_frame_data=False).save("self_sorting.gif", PillowWriter(fps=15))
print("written: self_sorting.gif")
