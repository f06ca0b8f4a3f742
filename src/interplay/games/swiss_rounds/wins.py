"""Who beats whom on which benchmark: the only thing about the scores that a tournament sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.typing import ArrayLike

from interplay.games.swiss_rounds.kernels import LOSS, TIE, WIN
from interplay.games.swiss_rounds.tables import ScoreTable, Table, read_table

__all__ = ["Missing", "WinTensor", "win_tensor"]

Missing = Literal["error", "loss", "skip"]


@dataclass(frozen=True, eq=False)
class WinTensor:
    """Outcomes of all possible meetings.

    Parameters
    ----------
    outcomes
        (M, M, K): entry (i, j, k) says how model i does against model j on benchmark k, 0 loses, 1 wins, 2 ties.
        Need not come from scores: preferences that go round in circles are allowed.
    present
        (M, K), whether a model takes part on a benchmark. All do by default. Outcomes of those who do not are never
        looked at.
    model_names, benchmark_names
        Unique names; numbers by default.

    Raises
    ------
    ValueError
        Fewer than two models, no benchmark, another code, names that do not fit, or two models that both win; the
        message names the first such meeting.
    """

    outcomes: UInt8[np.ndarray, "model model benchmark"]
    present: Bool[np.ndarray, "model benchmark"] | None = None
    model_names: Sequence[str] | None = None
    benchmark_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        outcomes = _codes(self.outcomes)
        models, _, benchmarks = outcomes.shape
        present = np.ones((models, benchmarks), bool) if self.present is None else np.asarray(self.present)
        if present.dtype != bool or present.shape != (models, benchmarks):
            raise ValueError(
                f"present must be a boolean array (models, benchmarks) = ({models}, {benchmarks}); got {present.dtype} "
                f"of shape {present.shape}"
            )
        # The names are checked where those of tables are.
        named = ScoreTable(np.zeros((models, benchmarks)), self.model_names, self.benchmark_names)
        for name, value in (
            ("outcomes", outcomes),
            ("present", present),
            ("model_names", named.model_names),
            ("benchmark_names", named.benchmark_names),
        ):
            object.__setattr__(self, name, value)
        self._check_antisymmetry()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of models and of benchmarks."""
        return self.outcomes.shape[0], self.outcomes.shape[2]

    @property
    def wins(self) -> Float[np.ndarray, "model model"]:
        """Benchmarks on which the first model beats the second, ties counting one half."""
        points = np.where(self.outcomes == TIE, 0.5, self.outcomes == WIN)
        met = self.present[:, None] & self.present[None, :] & ~np.eye(len(points), dtype=bool)[:, :, None]
        return np.where(met, points, 0.0).sum(axis=2)

    def _check_antisymmetry(self) -> None:
        mirrored = np.where(self.outcomes == TIE, TIE, 1 - self.outcomes.astype(np.int8))
        met = self.present[:, None] & self.present[None, :] & ~np.eye(len(mirrored), dtype=bool)[:, :, None]
        wrong = np.argwhere(met & (self.outcomes.swapaxes(0, 1) != mirrored))
        if len(wrong):
            i, j, k = wrong[0]
            raise ValueError(
                f"outcomes must mirror each other (0 and 1, or 2 and 2); got outcomes[{i}, {j}, {k}] = "
                f"{self.outcomes[i, j, k]} and outcomes[{j}, {i}, {k}] = {self.outcomes[j, i, k]} for "
                f"{self.model_names[i]!r} and {self.model_names[j]!r} on {self.benchmark_names[k]!r}"
            )


def win_tensor(
    scores: Table,
    *,
    tie_margin: float = 0.0,
    higher_is_better: bool | Sequence[bool] = True,
    missing: Missing = "error",
    model_names: Sequence[str] | None = None,
    benchmark_names: Sequence[str] | None = None,
) -> WinTensor:
    """Outcomes of all meetings from a table of scores.

    Parameters
    ----------
    scores
        Models x benchmarks: a DataFrame, a CSV, TSV or Parquet file, or an array; see `read_table`.
    tie_margin
        Scores that differ by this much or less tie, in units of the scores.
    higher_is_better
        For all benchmarks, or one value for each.
    missing
        What a missing score (NaN) means. "error": the table is refused. "loss": the model loses to everyone with a
        score and ties with everyone without. "skip": the model does not enter that round; it cannot win the point.
    model_names, benchmark_names
        Names for an array; those of a table are its own.

    Raises
    ------
    ValueError
        Missing scores with `missing="error"` (the message lists cells), a benchmark without any score, infinite scores,
        a negative margin.
    """
    if missing not in ("error", "loss", "skip"):
        raise ValueError(f"missing must be 'error', 'loss' or 'skip'; got {missing!r}")
    if isinstance(tie_margin, bool) or not np.isfinite(tie_margin) or tie_margin < 0:
        raise ValueError(f"tie_margin must be a finite number, zero or more; got {tie_margin!r}")
    table = read_table(scores, model_names, benchmark_names)
    holes = np.isnan(table.scores)
    if missing == "error" and holes.any():
        raise ValueError(
            f"scores are missing for {table.cells(holes)}; fill them in, or say what they mean by missing='loss' or "
            "missing='skip'"
        )
    directions = _directions(higher_is_better, table.scores.shape[1])
    values = np.where(holes, -np.inf, directions * table.scores)
    with np.errstate(invalid="ignore"):  # minus infinity from itself: two missing scores, which tie
        gap = values[:, None] - values[None, :]
    outcomes = np.where(gap > tie_margin, WIN, np.where(gap < -tie_margin, LOSS, TIE)).astype(np.uint8)
    present = ~holes if missing == "skip" else np.ones_like(holes)
    return WinTensor(outcomes, present, table.model_names, table.benchmark_names)


def _codes(outcomes: ArrayLike) -> UInt8[np.ndarray, "model model benchmark"]:
    codes = np.asarray(outcomes)
    if codes.ndim != 3 or codes.shape[0] != codes.shape[1]:
        raise ValueError(f"outcomes must be (models, models, benchmarks); got shape {codes.shape}")
    if not np.isin(codes, (LOSS, WIN, TIE)).all():
        strange = codes[~np.isin(codes, (LOSS, WIN, TIE))].flat[0]
        raise ValueError(f"outcomes must be 0 (loses), 1 (wins) or 2 (ties); got {strange!r}")
    return codes.astype(np.uint8)


def _directions(higher_is_better: bool | Sequence[bool], benchmarks: int) -> Float[np.ndarray, " benchmark"]:
    given = np.asarray(higher_is_better)
    if given.dtype != bool or given.shape not in ((), (benchmarks,)):
        raise ValueError(
            f"higher_is_better must be True, False or {benchmarks} of them, one a benchmark; got {higher_is_better!r}"
        )
    return np.where(np.broadcast_to(given, benchmarks), 1.0, -1.0)
