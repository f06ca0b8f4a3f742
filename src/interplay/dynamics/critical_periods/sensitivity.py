"""Sensitivity to deficits: sweeps over onset, length, depth and seeds, and the window in which training is fragile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from interplay.dynamics.critical_periods.chains import Nonlinearity
from interplay.dynamics.critical_periods.completion import (
    DeepMatrixFactorization,
    completion_task,
    train_completion,
)
from interplay.dynamics.critical_periods.deficits import DeficitSchedule
from interplay.dynamics.critical_periods.pathways import TwoPathwayLinear, hierarchy, target_modes
from interplay.dynamics.critical_periods.training import train_pathways

__all__ = ["completion_sweep", "critical_window", "pathway_sweep", "sensitivity"]

CONFIDENCE = 0.95


def sensitivity(
    train: Callable[[Sequence[DeficitSchedule | None], Sequence[int]], Sequence[float]],
    onsets: Sequence[int],
    lengths: Sequence[int],
    seeds: Sequence[int],
    *,
    make: Callable[[int, int], DeficitSchedule] = DeficitSchedule,
    steps: int | None = None,
) -> pd.DataFrame:
    """How much a deficit changes the outcome of training, by onset and length, against training without one.

    Parameters
    ----------
    train
        From schedules (None is no deficit) and as many seeds to as many final metrics: one call for everything, so that
        runs can be trained as one batch. For training one at a time give
        ``lambda schedules, seeds: [one(*pair) for pair in zip(schedules, seeds)]``.
    onsets, lengths
        In steps; all pairs are tried.
    seeds
        All of them for every pair and for no deficit; differences are paired by seed.
    make
        From onset and length to a schedule, for deficits of another kind than "freeze".
    steps
        Length of the training, if known, to refuse windows that do not fit.

    Returns
    -------
    DataFrame
        A row a pair: onset, length, seeds, mean, median, lower_quartile and upper_quartile of the metric, difference to
        no deficit (mean over seeds) and its 95 % t-interval, low and high (NaN for one seed).

    Raises
    ------
    ValueError
        Nothing to sweep over, windows that do not fit, or a number of metrics other than asked for.
    """
    for name, given in (("onsets", onsets), ("lengths", lengths), ("seeds", seeds)):
        if len(given) < 1:
            raise ValueError(f"{name} must have one entry or more; got none")
    pairs = [(onset, length) for length in lengths for onset in onsets]
    schedules = [make(onset, length) for onset, length in pairs]
    for schedule in schedules:
        if steps is not None:
            schedule.check_fits(steps)
    each = [None, *schedules]
    asked = [(schedule, seed) for schedule in each for seed in seeds]
    answers = np.asarray(list(train([schedule for schedule, _ in asked], [seed for _, seed in asked])), dtype=float)
    if answers.shape != (len(asked),):
        raise ValueError(f"train must return one number for each of {len(asked)} runs; got shape {answers.shape}")
    table = answers.reshape(len(each), len(seeds))
    rows = []
    for (onset, length), values in zip(pairs, table[1:], strict=True):
        change = values - table[0]
        half = math.nan
        if len(seeds) > 1:
            half = stats.t.ppf(0.5 + CONFIDENCE / 2, len(seeds) - 1) * change.std(ddof=1) / math.sqrt(len(seeds))
        lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75))
        rows.append(
            {
                "onset": onset,
                "length": length,
                "seeds": len(seeds),
                "mean": values.mean(),
                "median": median,
                "lower_quartile": lower,
                "upper_quartile": upper,
                "difference": change.mean(),
                "low": change.mean() - half,
                "high": change.mean() + half,
            }
        )
    return pd.DataFrame(rows)


def critical_window(table: pd.DataFrame, fraction: float = 0.5) -> pd.DataFrame:
    """The onsets between which a deficit does at least a fraction of the harm that it does at the worst onset.

    Parameters
    ----------
    table
        From `sensitivity`.
    fraction
        Of the largest change, between 0 and 1.

    Returns
    -------
    DataFrame
        A row a length: length, peak (the worst onset), change (there, signed), opens and closes (onsets, by linear
        interpolation between those that were tried). Both are NaN where the interval of the largest change includes 0,
        since there is no window to speak of; `closes` is infinite, `opens` the first onset, where the harm is still
        above the fraction at the end of what was tried.

    Raises
    ------
    ValueError
        A fraction out of range, or columns that are missing.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1; got {fraction}")
    if missing := {"onset", "length", "difference", "low", "high"} - set(table.columns):
        raise ValueError(f"table lacks {', '.join(sorted(missing))}: pass what sensitivity returns")
    rows = []
    for length, part in table.groupby("length"):
        part = part.sort_values("onset").reset_index(drop=True)
        onsets = part["onset"].to_numpy(dtype=float)
        harm = part["difference"].to_numpy(dtype=float)
        peak = int(np.argmax(np.abs(harm)))
        level = harm * np.sign(harm[peak]) - fraction * abs(harm[peak])
        opens, closes = _crossing(onsets, level, peak, -1), _crossing(onsets, level, peak, 1)
        if part["low"][peak] <= 0 <= part["high"][peak]:
            opens = closes = math.nan
        rows.append({"length": length, "peak": onsets[peak], "change": harm[peak], "opens": opens, "closes": closes})
    return pd.DataFrame(rows)


def _crossing(onsets: np.ndarray, level: np.ndarray, peak: int, direction: int) -> float:
    inside = peak
    while 0 <= inside + direction < len(level):
        outside = inside + direction
        if level[outside] < 0:
            part = level[inside] / (level[inside] - level[outside])
            return float(onsets[inside] + part * (onsets[outside] - onsets[inside]))
        inside = outside
    return math.inf if direction > 0 else float(onsets[0])


def pathway_sweep(
    depths: Sequence[int],
    onsets: Sequence[int | None],
    length: int,
    seeds: Sequence[int],
    *,
    steps: int = 1000,
    lr: float = 0.01,
    width: int = 100,
    nonlinearity: Nonlinearity = "linear",
) -> pd.DataFrame:
    """Freeze the second pathway for a while, in all combinations of onset, depth and seed; published task and start.

    All onsets and seeds of a depth are one batch. Depths are batches of their own: padding shallow networks with frozen
    identities would be exact, and slower, since identities have to be multiplied like any matrix.

    Parameters
    ----------
    onsets
        In steps; None is no deficit.

    Returns
    -------
    DataFrame
        A row a depth, onset, seed and mode, from 0: share of the second pathway at the end, and K of both.
    """
    x, y = hierarchy()
    modes = target_modes(x, y)
    runs = [(onset, seed) for onset in onsets for seed in seeds]
    deficits = [{} if onset is None else {1: DeficitSchedule(onset, length)} for onset, _ in runs]
    tables = []
    for depth in depths:
        network = TwoPathwayLinear.balanced(
            modes, depth=depth, seeds=[seed for _, seed in runs], width=width, nonlinearity=nonlinearity
        )
        run = train_pathways(network, x, y, steps=steps, lr=lr, deficits=deficits, modes=modes, record_every=steps)
        first, second = run.modes[-1].double().unbind(1)
        count = first.shape[1]
        tables.append(
            pd.DataFrame(
                {
                    "depth": depth,
                    "onset": np.repeat([math.nan if onset is None else onset for onset, _ in runs], count),
                    "seed": np.repeat([seed for _, seed in runs], count),
                    "mode": np.tile(np.arange(count), len(runs)),
                    "share": run.share[-1, :, 1].double().flatten().numpy(),
                    "first": first.flatten().numpy(),
                    "second": second.flatten().numpy(),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def completion_sweep(
    depths: Sequence[int],
    switches: Sequence[int],
    seeds: Sequence[int],
    *,
    n: int = 50,
    ranks: tuple[int, int] = (6, 3),
    entries: int = 600,
    further: int = 3000,
    lr: float = 5.0,
    scale: float = 1e-3,
) -> pd.DataFrame:
    """Complete a matrix after so many steps on another one, in all combinations of switch, depth and seed.

    Parameters
    ----------
    switches
        T_c, steps on the first task.
    ranks
        Of the first task's matrix and of the second's.
    entries
        Seen of both, the same ones.

    Returns
    -------
    DataFrame
        A row a depth, switch and seed: error over all entries of the second matrix, loss on those that are seen.
    """
    tasks = {seed: completion_task(n, ranks[1], entries, seed) for seed in seeds}
    others = {seed: completion_task(n, ranks[0], entries, seed, draw=1) for seed in seeds}
    runs = [(switch, seed) for switch in switches for seed in seeds]
    tables = []
    for depth in depths:
        products = DeepMatrixFactorization.gaussian(n, depth, seeds=[seed for _, seed in runs], scale=scale)
        run = train_completion(
            products,
            [others[seed] for _, seed in runs],
            [tasks[seed] for _, seed in runs],
            [switch for switch, _ in runs],
            further=further,
            lr=lr,
        )
        tables.append(
            pd.DataFrame(
                {
                    "depth": depth,
                    "switch": [switch for switch, _ in runs],
                    "seed": [seed for _, seed in runs],
                    "error": run.error.double().numpy(),
                    "train_loss": run.train_loss.double().numpy(),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
