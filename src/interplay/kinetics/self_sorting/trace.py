"""What a run leaves behind: its counts, and the array after every swap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int, Int32, Int64
from numpy.typing import ArrayLike

from interplay.kinetics.self_sorting.kernels import replay

__all__ = ["Accounting", "SortTrace"]

Accounting = Literal["paper", "symmetric", "all_reads"]


@dataclass(frozen=True, repr=False, eq=False)
class SortTrace:
    """One run, cell-view or classical; index t of what is recorded is the state after swap t + 1.

    Attributes
    ----------
    start
        (n,) values by position before the first swap.
    final
        (n,) values by position at the end.
    groups
        (n,) group of the cell at each position before the first swap, as counted by `aggregation`.
    kinds
        Names of the groups.
    places
        (T, 2) the positions, left and right, that each swap exchanged; empty where nothing was recorded.
    me
        (T,) monotonicity error: neighbours that are out of order (`sense`).
    aggregation
        (T,) share of positions whose right neighbour is of the same group; NaN where there is one group only.
    activations_at
        (T,) activations up to and with each swap.
    values
        (T, n) values by position, with `record="snapshots"`; else None.
    swaps, activations
        Numbers in this run.
    comparisons
        Activations in which the cell could usefully move (cell-view), or comparisons (classical).
    reads
        Values looked at besides the one in hand, fruitless looks included.
    stopped_because
        "quiescent", "max_swaps" or "max_activations".
    sense
        +1 where errors are counted against increasing order, -1 against decreasing.
    top_down
        Whether this is a classical sort.
    """

    start: Any
    final: Any
    groups: Int32[np.ndarray, " n"]
    kinds: tuple[str, ...]
    places: Int32[np.ndarray, "swap 2"]
    me: Int32[np.ndarray, " swap"]
    aggregation: Float64[np.ndarray, " swap"]
    activations_at: Int64[np.ndarray, " swap"]
    values: Any
    swaps: int
    comparisons: int
    reads: int
    activations: int
    stopped_because: str
    sense: int = 1
    top_down: bool = False

    def __repr__(self) -> str:
        kept = "no record" if not len(self.me) else "snapshots" if self.values is not None else "metrics"
        return (
            f"SortTrace({len(self.start)} cells, {self.swaps} swaps, {self.activations} activations, sortedness "
            f"{self.final_sortedness:g} %, {self.stopped_because}, {kept})"
        )

    @property
    def sortedness(self) -> Float64[np.ndarray, " swap"]:
        """(T,) 100 (n - me) / n, in percent."""
        return 100.0 * (len(self.start) - self.me) / len(self.start)

    @property
    def final_me(self) -> int:
        """Monotonicity error at the end, whether recorded or not."""
        return int((self.sense * np.diff(_ordered(self.final)) < 0).sum())

    @property
    def final_sortedness(self) -> float:
        """Sortedness at the end in percent, whether recorded or not."""
        return 100.0 * (len(self.final) - self.final_me) / len(self.final)

    def steps(self, accounting: Accounting = "paper") -> int:
        """Total steps of the run.

        Parameters
        ----------
        accounting
            "paper": useful comparisons, to which only classical sorts add their swaps; "symmetric": both add them;
            "all_reads": every value looked at, fruitless polls and the insertion rule's scans included.
        """
        if accounting not in get_args(Accounting):
            raise ValueError(f"accounting must be one of {', '.join(get_args(Accounting))}; got {accounting!r}")
        if accounting == "all_reads":
            return self.reads
        return self.comparisons + (self.swaps if accounting == "symmetric" or self.top_down else 0)

    def arrangements(self, after: ArrayLike | None = None) -> Int32[np.ndarray, "row n"]:
        """Which cell, numbered by its first position, sits where.

        Parameters
        ----------
        after
            Increasing numbers of swaps, 0 for the start; default: after every recorded swap, without the start.
        """
        rows = np.arange(1, len(self.places) + 1) if after is None else np.atleast_1d(np.asarray(after))
        if rows.ndim != 1 or (len(rows) and (rows[0] < 0 or rows[-1] > len(self.places))) or (np.diff(rows) < 0).any():
            raise ValueError(f"after must increase within 0 and {len(self.places)}, the recorded swaps; got {after!r}")
        return replay(np.arange(len(self.start), dtype=np.int32), self.places, rows.astype(np.int64))

    def to_dict(self) -> dict[str, Any]:
        """Everything by name, sortedness included."""
        return {**vars(self), "sortedness": self.sortedness}

    def to_frame(self) -> pd.DataFrame:
        """One row a recorded swap: swap, left, right, activations, me, sortedness, aggregation."""
        return pd.DataFrame(
            {
                "swap": np.arange(1, len(self.me) + 1),
                "left": self.places[:, 0],
                "right": self.places[:, 1],
                "activations": self.activations_at,
                "me": self.me,
                "sortedness": self.sortedness,
                "aggregation": self.aggregation,
            }
        )

    def to_xarray(self) -> Any:
        """The record as an `xarray.Dataset` over swap and position (pip install xarray)."""
        try:
            import xarray
        except ModuleNotFoundError as error:
            raise ImportError("to_xarray needs xarray: pip install xarray") from error
        fields: dict[str, Any] = {
            "me": ("swap", self.me),
            "sortedness": ("swap", self.sortedness),
            "aggregation": ("swap", self.aggregation),
            "activations": ("swap", self.activations_at),
            "start": ("position", self.start),
            "final": ("position", self.final),
        }
        if self.values is not None:
            fields["values"] = (("swap", "position"), self.values)
        counts = {name: getattr(self, name) for name in ("swaps", "comparisons", "reads", "stopped_because")}
        coordinates = {"swap": np.arange(1, len(self.me) + 1), "position": np.arange(len(self.start))}
        return xarray.Dataset(fields, coords=coordinates, attrs=counts)


def _ordered(values: Any) -> Int[np.ndarray, " n"]:
    """Ranks, whose differences cannot overflow."""
    return np.unique(values, return_inverse=True)[1]
