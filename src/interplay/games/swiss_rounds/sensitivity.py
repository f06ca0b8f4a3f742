"""How a ranking hangs on eliminations, on the order of the benchmarks, and on a few broken scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata, t

from interplay.games.swiss_rounds.aggregates import baselines
from interplay.games.swiss_rounds.tables import ScoreTable, Table, read_table
from interplay.games.swiss_rounds.tournament import SwissRounds
from interplay.games.swiss_rounds.wins import WinTensor, win_tensor
from interplay.primitives.stochastic import spawn_seeds

__all__ = [
    "OrderReport",
    "SensitivityReport",
    "failure_sensitivity",
    "order_sensitivity",
    "outlier_probe",
]

_SCORE_SETTINGS = ("missing", "tie_margin", "higher_is_better")
_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class SensitivityReport:
    """Expected wins under growing elimination.

    Parameters
    ----------
    model_names
        The models.
    grid
        Models eliminated a round, T; zero first.
    curves
        (order, T, model), expected wins by order of the benchmarks. One order where none was drawn.
    errors
        Monte Carlo standard errors of `curves`.
    """

    model_names: tuple[str, ...]
    grid: tuple[int, ...]
    curves: Float[np.ndarray, "order elimination model"]
    errors: Float[np.ndarray, "order elimination model"]

    @property
    def expected_wins(self) -> Float[np.ndarray, "elimination model"]:
        """E[S | T], averaged over orders."""
        return self.curves.mean(axis=0)

    @property
    def retention(self) -> Float[np.ndarray, "elimination model"]:
        """R(T) = E[S | T] / E[S | 0]; NaN for a model that never wins."""
        return _ratio(self.expected_wins, self.expected_wins[0])

    @property
    def slopes(self) -> Float[np.ndarray, " model"]:
        """Points lost (negative) per eliminated model a round: least-squares slope of E[S | T] on T."""
        return np.polyfit(self.grid, self.expected_wins, 1)[0]

    def profile(self) -> pd.DataFrame:
        """Strength and robustness of each model.

        Returns
        -------
        DataFrame, one row a model: `expected_wins` without elimination; `retention` at the smallest elimination of the
        grid, and its 95 % interval `low`, `high`; `slope` and `normalised_slope`; `residual`, the retention above the
        field's regression on expected wins; and `profile`, "generalist" where the residual is positive, else
        "specialist". The interval is Student's t over orders where several were drawn, and otherwise that of the
        simulation alone.
        """
        strength, retention = self.expected_wins[0], self.retention[1]
        low, high = self._interval()
        known = np.isfinite(retention)
        residual = np.full_like(retention, np.nan)
        line = np.polyfit(strength[known], retention[known], 1)
        residual[known] = retention[known] - np.polyval(line, strength[known])
        return pd.DataFrame(
            {
                "model": self.model_names,
                "expected_wins": strength,
                "retention": retention,
                "low": low,
                "high": high,
                "slope": self.slopes,
                "normalised_slope": _ratio(self.slopes, strength),
                "residual": residual,
                "profile": np.where(residual > 0, "generalist", np.where(known, "specialist", "unknown")),
            }
        )

    def _interval(self) -> tuple[Float[np.ndarray, " model"], Float[np.ndarray, " model"]]:
        before, after = self.curves[:, 0], self.curves[:, 1]
        retention = self.retention[1]
        if len(self.curves) > 1:
            # A ratio of means: its error follows from what each order adds to after - retention * before.
            deviations = after - retention * before
            error = deviations.std(axis=0, ddof=1) / np.sqrt(len(deviations)) / self.expected_wins[0]
            half = t.ppf(0.5 + _CONFIDENCE / 2, len(deviations) - 1) * error
        else:
            spread = np.hypot(self.errors[0, 1], retention * self.errors[0, 0])
            half = t.ppf(0.5 + _CONFIDENCE / 2, np.inf) * _ratio(spread, self.expected_wins[0])
        return retention - half, retention + half


@dataclass(frozen=True, eq=False)
class OrderReport:
    """Ranks under random orders of the benchmarks."""

    model_names: tuple[str, ...]
    ranks: Float[np.ndarray, "order model"]
    expected_wins: Float[np.ndarray, "order model"]

    def summary(self) -> pd.DataFrame:
        """Mean, standard deviation, best and worst of each model's rank, by mean rank."""
        table = pd.DataFrame(
            {
                "model": self.model_names,
                "mean_rank": self.ranks.mean(axis=0),
                "rank_sd": self.ranks.std(axis=0, ddof=1),
                "best_rank": self.ranks.min(axis=0),
                "worst_rank": self.ranks.max(axis=0),
            }
        )
        return table.sort_values("mean_rank", kind="stable", ignore_index=True)


def failure_sensitivity(
    scores: Table | WinTensor,
    T_grid: Sequence[int] = (0, 1, 2, 3),
    orders: int | None = None,
    *,
    random_state: int | np.random.SeedSequence = 0,
    **settings: Any,
) -> SensitivityReport:
    """Expected wins E[S | T] while T models are eliminated after each round.

    At a fixed order, eliminations of early rounds decide much of what survives; `orders` averages that out.

    Parameters
    ----------
    scores
        As for `SwissRounds.fit`.
    T_grid
        Numbers of eliminated models, ascending from zero. The smallest positive one makes the profile.
    orders
        How many random orders of the benchmarks to average over; None plays the order that is given.
    random_state
        Seed of the orders and of the contests.
    **settings
        Of `SwissRounds`, which plays `n_sims` contests for each order and number.

    Raises
    ------
    ValueError
        A grid that does not ascend from zero, an order given together with `orders`.
    """
    grid = [int(number) for number in T_grid]
    if grid != list(T_grid) or len(grid) < 2 or grid[0] != 0 or sorted(set(grid)) != grid:
        raise ValueError(f"T_grid must be ascending integers from 0, two or more; got {tuple(T_grid)}")
    if "eliminate" in settings:
        raise ValueError("eliminate is what T_grid varies; leave it out")
    wins, settings = _wins_and_settings(scores, settings)
    shuffle, play = spawn_seeds(random_state, 2)
    sequences = _orders(wins, orders, shuffle, settings.pop("order", None))
    runs = [
        [
            SwissRounds(eliminate=number, order=order, random_state=own, **settings).fit(wins)
            for number, own in zip(grid, spawn_seeds(seed, len(grid)), strict=True)
        ]
        for order, seed in zip(sequences, spawn_seeds(play, len(sequences)), strict=True)
    ]
    curves = np.array([[run.expected_wins_ for run in row] for row in runs])
    errors = np.array([[run.stderr_ for run in row] for row in runs])
    return SensitivityReport(wins.model_names, tuple(grid), curves, errors)


def order_sensitivity(
    scores: Table | WinTensor,
    n_orders: int = 200,
    *,
    random_state: int | np.random.SeedSequence = 0,
    **settings: Any,
) -> OrderReport:
    """Ranks of all models under `n_orders` random orders of the benchmarks.

    Parameters
    ----------
    scores
        As for `SwissRounds.fit`.
    n_orders
        Two or more.
    random_state
        Seed of the orders and of the contests.
    **settings
        Of `SwissRounds`; its standard error should be well below the gaps that matter.
    """
    if n_orders < 2:
        raise ValueError(f"n_orders must be 2 or more; got {n_orders}")
    wins, settings = _wins_and_settings(scores, settings)
    shuffle, play = spawn_seeds(random_state, 2)
    sequences = _orders(wins, n_orders, shuffle, settings.pop("order", None))
    expected = [
        SwissRounds(order=order, random_state=seed, **settings).fit(wins).expected_wins_
        for order, seed in zip(sequences, spawn_seeds(play, n_orders), strict=True)
    ]
    return OrderReport(wins.model_names, _ranks(np.array(expected)), np.array(expected))


def outlier_probe(
    scores: Table,
    model: str | int,
    n_zero: int,
    *,
    draws: int = 50,
    broken: float = 0.0,
    random_state: int | np.random.SeedSequence = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Ranks of one model before and after some of its scores break, by every method.

    Parameters
    ----------
    scores
        Complete scores, higher better.
    model
        Name or position of the model whose scores break.
    n_zero
        How many scores, drawn anew each time.
    draws
        Repetitions.
    broken
        What the scores become.
    random_state
        Seed of the draws and the contests.
    **settings
        Of `SwissRounds`.

    Returns
    -------
    DataFrame with the columns draw, method ("Swiss rounds" and those of `baselines`), before, after, drop; ranks from
    1, ties share their mean rank.
    """
    table = read_table(scores)
    if np.isnan(table.scores).any():
        raise ValueError(f"scores must be complete; missing are {table.cells(np.isnan(table.scores))}")
    if forbidden := [name for name in _SCORE_SETTINGS if name in settings]:
        raise ValueError(f"{forbidden[0]} has no meaning for all methods; pass scores of which higher is better")
    row = _position(model, table)
    benchmarks = table.scores.shape[1]
    if not 1 <= n_zero <= benchmarks:
        raise ValueError(f"n_zero must be from 1 to the {benchmarks} benchmarks; got {n_zero}")
    if draws < 1:
        raise ValueError(f"draws must be 1 or more; got {draws}")
    choose, *play = spawn_seeds(random_state, draws + 2)
    generator = np.random.default_rng(choose)
    before = _all_ranks(table.scores, play[0], settings)[row]
    rows = []
    for draw in range(draws):
        damaged = table.scores.copy()
        damaged[row, generator.choice(benchmarks, n_zero, replace=False)] = broken
        after = _all_ranks(damaged, play[draw + 1], settings)[row]
        rows += [(draw, method, before[method], after[method], after[method] - before[method]) for method in after]
    return pd.DataFrame(rows, columns=["draw", "method", "before", "after", "drop"])


def _all_ranks(scores: np.ndarray, seed: np.random.SeedSequence, settings: dict[str, Any]) -> list[dict[str, float]]:
    """Ranks by every method, one dictionary a model."""
    values = baselines(scores)
    values.insert(0, "Swiss rounds", SwissRounds(random_state=seed, **settings).fit(scores).expected_wins_)
    ranks = {name: _ranks(column.to_numpy()) for name, column in values.items()}
    return [{name: float(rank[row]) for name, rank in ranks.items()} for row in range(len(values))]


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 for the highest along the last axis; equal values share their mean rank."""
    return rankdata(-values, axis=-1)


def _wins_and_settings(scores: Table | WinTensor, settings: dict[str, Any]) -> tuple[WinTensor, dict[str, Any]]:
    """The outcomes, computed once, and what is left for the tournament."""
    rest = {name: value for name, value in settings.items() if name not in _SCORE_SETTINGS}
    if isinstance(scores, WinTensor):
        return scores, rest
    return win_tensor(scores, **{name: settings[name] for name in _SCORE_SETTINGS if name in settings}), rest


def _orders(
    wins: WinTensor, count: int | None, seed: np.random.SeedSequence, given: Sequence[int] | Sequence[str] | None
) -> list[Any]:
    if count is None:
        return [given]
    if given is not None:
        raise ValueError("order must be left out where random orders are asked for")
    if count < 1:
        raise ValueError(f"orders must be 1 or more; got {count}")
    generator = np.random.default_rng(seed)
    return [generator.permutation(wins.shape[1]) for _ in range(count)]


def _position(model: str | int, table: ScoreTable) -> int:
    if isinstance(model, str) and model in table.model_names:
        return table.model_names.index(model)
    if not isinstance(model, str) and 0 <= model < len(table.model_names):
        return int(model)
    raise ValueError(f"model must be one of {', '.join(table.model_names)}, or its position; got {model!r}")


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.broadcast_to(below > 0, above.shape))
