"""The tournament: expected wins over random pairings, with their errors, byes, survival, ranks and tiers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Self, get_args

import joblib
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from interplay.games.swiss_rounds.exact import exact_points
from interplay.games.swiss_rounds.kernels import FLOAT, Rules, play_contests, sum_contests
from interplay.games.swiss_rounds.tables import Table
from interplay.games.swiss_rounds.wins import Missing, WinTensor, win_tensor
from interplay.primitives.stochastic import random_stream, spawn_seeds

__all__ = ["Bye", "SwissRounds", "Ties", "largest_gap_tiers"]

Bye = Literal["zero", "half", "win", "float"]
Ties = Literal["coin", "half"]

_CONTESTS_PER_CHUNK = 1000
_FEW_CONTESTS = 100
_MANY_BYES = 0.25
_TWO_SIDED_95 = 1.959964


class SwissRounds(BaseEstimator):
    """Rank models over benchmarks by a Swiss tournament whose rounds are the benchmarks.

    In each round models with equal points meet at random, the better score on the round's benchmark wins a point, and
    the odd member of a group sits out. Points are averaged over many contests.

    Parameters
    ----------
    n_sims
        Contests. Below 100 a warning says that the standard errors are rough.
    eliminate
        How many members of the lowest group leave after each round: one number, or one for each round.
    bye
        What the odd member of a group gets: "zero" points (the paper), a "half", a "win", or "float": it meets a random
        member of the next lower group, and only the last one gets nothing.
    ties
        A tie goes to either by a fair "coin", or is worth a "half" to both.
    order
        Benchmarks in the order of the rounds, as positions or names; None plays them as they stand. See
        `easiest_first`.
    missing, tie_margin, higher_is_better
        How scores become outcomes, see `win_tensor`. Without meaning where a `WinTensor` is given.
    n_tiers
        Tiers into which the ranking is cut at its largest gaps.
    n_jobs
        Threads, as in joblib. Results do not depend on it.
    random_state
        None for a fresh seed, an integer, or a `numpy.random.SeedSequence`.

    Attributes
    ----------
    expected_wins_, stderr_
        (M,), mean points of a contest and their Monte Carlo standard error.
    covariance_
        (M, M), covariance of the errors of `expected_wins_`: two ranks are told apart by the error of their difference.
    bye_share_
        (M,), share of the rounds that a model entered which it sat out as the odd one.
    bye_rate_
        The same over all models.
    survival_
        (M, K), probability of being in the field after each round.
    ranking_
        The table that `rank` returns.
    notes_
        What a reader of the ranking must know, in sentences: ranks within the error, many byes.
    wins_, order_, model_names_, benchmark_names_, n_sims_
        What was played.

    Examples
    --------
    >>> scores = [[0.9, 0.8, 0.7], [0.8, 0.9, 0.6], [0.5, 0.4, 0.9], [0.3, 0.2, 0.1]]
    >>> ranking = SwissRounds(n_sims=1000, random_state=0).rank(scores)
    >>> int(ranking["model"].iloc[-1])
    3
    """

    def __init__(
        self,
        n_sims: int = 100_000,
        *,
        eliminate: int | Sequence[int] = 0,
        bye: Bye = "zero",
        ties: Ties = "coin",
        order: Sequence[int] | Sequence[str] | None = None,
        missing: Missing = "error",
        tie_margin: float = 0.0,
        higher_is_better: bool | Sequence[bool] = True,
        n_tiers: int = 4,
        n_jobs: int | None = None,
        random_state: int | np.random.SeedSequence | None = None,
    ) -> None:
        self.n_sims = n_sims
        self.eliminate = eliminate
        self.bye = bye
        self.ties = ties
        self.order = order
        self.missing = missing
        self.tie_margin = tie_margin
        self.higher_is_better = higher_is_better
        self.n_tiers = n_tiers
        self.n_jobs = n_jobs
        self.random_state = random_state

    def rank(self, table: Table | WinTensor) -> pd.DataFrame:
        """Play the tournament and return the ranking, best model first.

        Returns
        -------
        DataFrame with the columns

        - `rank`, from 1; equal where expected wins are equal
        - `model`
        - `expected_wins` and its `standard_error`
        - `best_rank`, `worst_rank`: ranks that the error leaves open at 95 %
        - `bye_share`: share of its rounds that the model sat out
        - `survival`: probability of never being eliminated
        - `tier`, from 1
        """
        return self.fit(table).ranking_

    def fit(
        self,
        scores: Table | WinTensor,
        model_names: Sequence[str] | None = None,
        benchmark_names: Sequence[str] | None = None,
    ) -> Self:
        """Play `n_sims` contests.

        Parameters
        ----------
        scores
            Models x benchmarks, see `read_table`, or a `WinTensor`.
        model_names, benchmark_names
            Names that replace those of the table.

        Raises
        ------
        ValueError, TypeError
            A setting or a table that cannot be played; see the parameters, `win_tensor` and `read_table`.
        """
        contests = _positive(self.n_sims, "n_sims")
        tiers = _positive(self.n_tiers, "n_tiers")
        if isinstance(scores, WinTensor):
            wins = scores
            if model_names is not None or benchmark_names is not None:
                wins = WinTensor(
                    wins.outcomes,
                    wins.present,
                    wins.model_names if model_names is None else model_names,
                    wins.benchmark_names if benchmark_names is None else benchmark_names,
                )
        else:
            wins = win_tensor(
                scores,
                tie_margin=self.tie_margin,
                higher_is_better=self.higher_is_better,
                missing=self.missing,
                model_names=model_names,
                benchmark_names=benchmark_names,
            )
        rules, order = self._rules(wins)
        if contests < _FEW_CONTESTS:
            warnings.warn(
                f"n_sims={contests} contests give rough standard errors; take {_FEW_CONTESTS} or more",
                UserWarning,
                stacklevel=2,
            )
        self._seed = _seed_sequence(self.random_state)
        self._rules_ = rules
        self.wins_, self.order_, self.n_sims_ = wins, order, contests
        self.model_names_, self.benchmark_names_ = wins.model_names, wins.benchmark_names
        totals, products, byes, departures = self._sums(rules, contests)
        products = np.tril(products) + np.tril(products, -1).T
        # Centred in integers, where nothing cancels: N sum(xy) - sum(x) sum(y).
        centred = [
            [contests * int(p) - int(a) * int(b) for p, b in zip(row, totals, strict=True)]
            for row, a in zip(products, totals, strict=True)
        ]
        scale = contests**2 * max(contests - 1, 1) * rules.win_points**2
        self.covariance_ = np.array([[value / scale for value in row] for row in centred])
        self.expected_wins_ = totals / (contests * rules.win_points)
        self.stderr_ = np.sqrt(np.diag(self.covariance_))
        staying = contests - np.cumsum(departures[:, :-1], axis=1)
        in_field = np.column_stack([np.full(len(totals), contests), staying[:, :-1]])
        entered = (in_field * wins.present[:, order]).sum(axis=1)
        self.bye_share_ = byes / np.maximum(entered, 1)
        self.bye_rate_ = float(byes.sum() / max(entered.sum(), 1))
        self.survival_ = staying / contests
        self.tiers_ = largest_gap_tiers(self.expected_wins_, tiers)
        self.ranking_ = self._ranking()
        self.notes_ = self._notes()
        return self

    def exact(self) -> list[Fraction]:
        """Expected wins of the fitted field as fractions, without simulation.

        Raises
        ------
        ValueError
            More than seven models or four benchmarks.
        """
        check_is_fitted(self, "wins_")
        return exact_points(self._rules_)

    def single_contests(self, count: int) -> Float[np.ndarray, "contest model"]:
        """Points of `count` single contests of the fitted field, each as one random pairing makes them."""
        check_is_fitted(self, "wins_")
        points = np.zeros((_positive(count, "count"), len(self.model_names_)), np.int64)
        # A child of the seed that no chunk of `fit` uses: those are numbered from zero.
        child = np.random.SeedSequence(self._seed.entropy, spawn_key=(*self._seed.spawn_key, 2**32 - 1))
        play_contests(self._rules_, random_stream(child), points)
        return points / self._rules_.win_points

    def _rules(self, wins: WinTensor) -> tuple[Rules, NDArray[np.int64]]:
        models, benchmarks = wins.shape
        if self.bye not in get_args(Bye):
            raise ValueError(f"bye must be one of {', '.join(get_args(Bye))}; got {self.bye!r}")
        if self.ties not in get_args(Ties):
            raise ValueError(f"ties must be one of {', '.join(get_args(Ties))}; got {self.ties!r}")
        order = _order(self.order, wins.benchmark_names)
        win_points = 2 if "half" in (self.bye, self.ties) else 1
        rules = Rules(
            outcomes=np.ascontiguousarray(wins.outcomes.transpose(2, 0, 1)[order]),
            present=np.ascontiguousarray(wins.present.T[order]),
            eliminate=_leavers(self.eliminate, models, benchmarks),
            win_points=win_points,
            bye_points={"zero": 0, "half": 1, "win": win_points, "float": FLOAT}[self.bye],
            tie_points=1 if self.ties == "half" else 0,
        )
        return rules, order

    def _sums(self, rules: Rules, contests: int) -> list[NDArray[np.int64]]:
        sizes = [_CONTESTS_PER_CHUNK] * (contests // _CONTESTS_PER_CHUNK)
        if contests % _CONTESTS_PER_CHUNK:
            sizes.append(contests % _CONTESTS_PER_CHUNK)
        work = zip(sizes, spawn_seeds(self._seed, len(sizes)), strict=True)
        if joblib.effective_n_jobs(self.n_jobs) == 1:
            chunks = [_chunk(rules, size, seed) for size, seed in work]
        else:
            # The kernel runs without the interpreter's lock: threads share the outcomes.
            pool = joblib.Parallel(n_jobs=self.n_jobs, prefer="threads")
            chunks = pool(joblib.delayed(_chunk)(rules, size, seed) for size, seed in work)
        return [np.sum(parts, axis=0) for parts in zip(*chunks, strict=True)]

    def _ranking(self) -> pd.DataFrame:
        ahead, surely_ahead = self._ahead()
        table = pd.DataFrame(
            {
                "rank": 1 + ahead.sum(axis=0),
                "model": self.model_names_,
                "expected_wins": self.expected_wins_,
                "standard_error": self.stderr_,
                "best_rank": 1 + surely_ahead.sum(axis=0),
                "worst_rank": len(ahead) - surely_ahead.sum(axis=1),
                "bye_share": self.bye_share_,
                "survival": self.survival_[:, -1],
                "tier": self.tiers_,
            }
        )
        return table.sort_values("rank", kind="stable", ignore_index=True)

    def _ahead(self) -> tuple[Bool[np.ndarray, "model model"], Bool[np.ndarray, "model model"]]:
        """Whether the first model of each pair has more expected wins, and whether beyond the Monte Carlo error."""
        lead = self.expected_wins_[:, None] - self.expected_wins_[None, :]
        variance = self.stderr_[:, None] ** 2 + self.stderr_[None, :] ** 2 - 2 * self.covariance_
        return lead > 0, lead > _TWO_SIDED_95 * np.sqrt(np.maximum(variance, 0.0))

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.bye_rate_ > _MANY_BYES:
            notes.append(
                f"{self.bye_rate_:.0%} of the rounds that models entered were byes: the ranking owes much to who sat "
                "out. Compare it with another bye policy."
            )
        open_ranks = int((self.ranking_["best_rank"] < self.ranking_["worst_rank"]).sum())
        if open_ranks:
            notes.append(
                f"the ranks of {open_ranks} models lie within the Monte Carlo error of a neighbour; more contests "
                "(n_sims) tell them apart, unless they are truly equal."
            )
        if not self.wins_.present.all():
            notes.append("models without a score did not enter those rounds and could not win their points.")
        return tuple(notes)


def largest_gap_tiers(values: Float[np.ndarray, " model"], count: int = 4) -> Int[np.ndarray, " model"]:
    """Tiers from 1 (highest), cut at the `count - 1` largest gaps between sorted values; fewer where values repeat."""
    values = np.asarray(values, dtype=np.float64)
    descending = np.sort(values)[::-1]
    gaps = descending[:-1] - descending[1:]
    widest = np.argsort(-gaps, kind="stable")[: count - 1]
    bounds = descending[1:][widest[gaps[widest] > 0]]  # the highest value of each lower tier
    return 1 + (values[:, None] <= bounds).sum(axis=1)


def _chunk(rules: Rules, contests: int, seed: np.random.SeedSequence) -> tuple[NDArray[np.int64], ...]:
    rounds, models = rules.present.shape
    shapes = ((models,), (models, models), (models,), (models, rounds + 1))
    sums = tuple(np.zeros(shape, np.int64) for shape in shapes)
    sum_contests(rules, contests, random_stream(seed), *sums)
    return sums


def _positive(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer; got {type(value).__name__}: {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be 1 or more; got {value}")
    return int(value)


def _leavers(eliminate: int | Sequence[int], models: int, rounds: int) -> NDArray[np.int64]:
    given = np.asarray(eliminate)
    if given.dtype.kind not in "iu":
        raise TypeError(f"eliminate must be an integer or one for each round; got {eliminate!r}")
    if given.ndim > 1 or (given.ndim == 1 and len(given) != rounds):
        raise ValueError(f"eliminate must be one number or {rounds} of them, one a round; got {eliminate!r}")
    if (given < 0).any() or (given >= models).any():
        raise ValueError(f"eliminate must be from 0 to {models - 1}, fewer than the {models} models; got {eliminate!r}")
    return np.broadcast_to(given, rounds).astype(np.int64)


def _order(order: Sequence[int] | Sequence[str] | None, names: Sequence[str]) -> NDArray[np.int64]:
    if order is None:
        return np.arange(len(names))
    places = {name: place for place, name in enumerate(names)}
    given = [places.get(entry, -1) if isinstance(entry, str) else entry for entry in order]
    whole = all(isinstance(entry, int | np.integer) and not isinstance(entry, bool) for entry in given)
    if not whole or sorted(given) != list(range(len(names))):
        raise ValueError(
            f"order must name each of the {len(names)} benchmarks once, by position or name; got {list(order)!r}"
        )
    return np.array(given, dtype=np.int64)


def _seed_sequence(random_state: int | np.random.SeedSequence | None) -> np.random.SeedSequence:
    if isinstance(random_state, np.random.SeedSequence):
        return random_state
    if random_state is None:
        return np.random.SeedSequence()
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        raise TypeError(
            "random_state must be None, an integer or a numpy.random.SeedSequence; got "
            f"{type(random_state).__name__}: {random_state!r}"
        )
    if random_state < 0:
        raise ValueError(f"random_state must not be negative; got {random_state}")
    return np.random.SeedSequence(int(random_state))
