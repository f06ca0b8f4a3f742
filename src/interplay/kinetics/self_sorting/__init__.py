"""Self-sorting arrays: sorting algorithms given to every element instead of to a central loop.

| | |
| --- | --- |
| family | kinetics |
| paper | T. Zhang, A. Goldstein, M. Levin, "Classical Sorting Algorithms as a Model of Morphogenesis", 2023 |
| arXiv | 2401.05375 |
| official code | https://github.com/Zhangtaining/cell_research (no licence; no code taken) |
| interface | NumPy arrays in, `SortTrace` out, pandas tables by `batch_run`; a Gymnasium environment |
| deterministic | given the seed, whatever the number of workers |

Every cell of a `SelfSortingArray` knows its value, sees a little of the array, and swaps when its own rule says so (the
rules, numbered, are in `policies`). Cells act one at a time in an order that nobody plans; some may be broken; cells
with different rules ("algotypes") or with opposite goals can share one array. `classical_sort` runs the textbook
procedures on the same arrays. `delayed_gratification`, `aggregation_peaks` and `conflict_equilibrium` measure what the
paper measures.

Differences from the official code, with which trajectories agree swap by swap when both are given the same turns:

- It runs one thread a cell, and the system decides whose turn it is. Here the schedule is part of the model and
  seeded. `burst`, the consecutive turns of a cell, is a hidden parameter of the published numbers: seven reproduces
  them, which was settled by a sweep.
- It polls for rest with a test that ignores what frozen neighbours still allow; here rest is exact: nobody can move.
- A decreasing insertion cell resets its scan behind a frozen cell to -1, below all published values, so that it never
  moves again; here the reset mirrors that of increasing cells.
- It draws frozen cells with replacement; here without, unless a mask from `draw_frozen(..., replace=True)` is given.
- Immovable frozen cells are a line that is commented out there; here an option. Selection cells move past frozen
  targets, and swap with movable ones of larger value on the way, as there.
- The classical sorts are not in the repository; theirs are inferred from the paper's ratios, which they reproduce.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interplay.kinetics.self_sorting.algotypes import Algotype as Algotype
from interplay.kinetics.self_sorting.algotypes import LocalPolicy as LocalPolicy
from interplay.kinetics.self_sorting.algotypes import Mix as Mix
from interplay.kinetics.self_sorting.algotypes import Rule as Rule
from interplay.kinetics.self_sorting.algotypes import local_policy as local_policy
from interplay.kinetics.self_sorting.algotypes import mix as mix
from interplay.kinetics.self_sorting.array import SelfSortingArray as SelfSortingArray
from interplay.kinetics.self_sorting.array import draw_frozen as draw_frozen
from interplay.kinetics.self_sorting.batch import batch_run as batch_run
from interplay.kinetics.self_sorting.batch import batch_traces as batch_traces
from interplay.kinetics.self_sorting.classical import classical_sort as classical_sort
from interplay.kinetics.self_sorting.measures import aggregation as aggregation
from interplay.kinetics.self_sorting.measures import aggregation_curve as aggregation_curve
from interplay.kinetics.self_sorting.measures import aggregation_peaks as aggregation_peaks
from interplay.kinetics.self_sorting.measures import conflict_equilibrium as conflict_equilibrium
from interplay.kinetics.self_sorting.measures import delayed_gratification as delayed_gratification
from interplay.kinetics.self_sorting.measures import inversions as inversions
from interplay.kinetics.self_sorting.measures import monotonicity_error as monotonicity_error
from interplay.kinetics.self_sorting.measures import sortedness as sortedness
from interplay.kinetics.self_sorting.trace import SortTrace as SortTrace

if TYPE_CHECKING:
    from interplay.kinetics.self_sorting.environment import SelfSortingEnv as SelfSortingEnv


def __getattr__(name: str) -> Any:
    if name != "SelfSortingEnv":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module(f"{__name__}.environment").SelfSortingEnv
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "gymnasium":
            raise
        raise ImportError("SelfSortingEnv needs gymnasium: pip install 'interplay[rl]'") from error
