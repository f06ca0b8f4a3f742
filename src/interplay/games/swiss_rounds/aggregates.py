"""What a leaderboard would do otherwise: means, medians, counts of wins, Bradley-Terry, Elo."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit

from interplay.games.swiss_rounds.kernels import TIE
from interplay.games.swiss_rounds.tables import Table, read_table
from interplay.games.swiss_rounds.wins import WinTensor, win_tensor
from interplay.primitives.stochastic import compiled, random_stream, spawn_seeds, uniform

__all__ = ["baselines", "borda", "bradley_terry", "copeland", "elo", "mean_win_rate", "z_mean"]

_ELO_SCALE = 400.0
_PRIOR_WHERE_UNBEATEN = 0.5


def baselines(table: Table, *, random_state: int = 0) -> pd.DataFrame:
    """Models by every static aggregate, higher better; missing scores are left out.

    Columns: mean, median, z-mean, mean win rate, Copeland, Borda, Bradley-Terry, Elo. Without missing scores Borda
    orders as the mean win rate does. Bradley-Terry has no finite estimate where some models never lose to the others;
    half a win each way between all pairs is then added.
    """
    read = read_table(table)
    wins = win_tensor(read, missing="skip")
    prior = 0.0 if _strongly_connected(wins.wins) else _PRIOR_WHERE_UNBEATEN
    columns = {
        "mean": np.nanmean(read.scores, axis=1),
        "median": np.nanmedian(read.scores, axis=1),
        "z-mean": z_mean(read.scores),
        "mean win rate": mean_win_rate(wins),
        "Copeland": copeland(wins),
        "Borda": borda(wins),
        "Bradley-Terry": bradley_terry(wins, prior=prior),
        "Elo": elo(wins, random_state=random_state),
    }
    return pd.DataFrame(columns, index=pd.Index(read.model_names, name="model"))


def z_mean(scores: Float[np.ndarray, "model benchmark"]) -> Float[np.ndarray, " model"]:
    """Mean of the scores after each benchmark has been given mean zero and standard deviation one over models."""
    centred = scores - np.nanmean(scores, axis=0)
    spread = np.nanstd(scores, axis=0)
    # Where all models score alike the mean may still differ from them by rounding.
    flat = np.nanmin(scores, axis=0) == np.nanmax(scores, axis=0)
    return np.nanmean(np.where(flat, np.where(np.isnan(scores), np.nan, 0.0), centred / np.where(flat, 1.0, spread)), 1)


def borda(wins: WinTensor) -> Float[np.ndarray, " model"]:
    """Models beaten, summed over benchmarks; ties count one half."""
    return wins.wins.sum(axis=1)


def mean_win_rate(wins: WinTensor) -> Float[np.ndarray, " model"]:
    """Share of its meetings, over all opponents and benchmarks, that a model wins; ties count one half."""
    return wins.wins.sum(axis=1) / np.maximum((wins.wins + wins.wins.T).sum(axis=1), 1)


def copeland(wins: WinTensor) -> Float[np.ndarray, " model"]:
    """Opponents beaten on more benchmarks than they win, minus those for whom it is the other way round."""
    return np.sign(wins.wins - wins.wins.T).sum(axis=1)


def bradley_terry(wins: WinTensor, *, prior: float = 0.0) -> Float[np.ndarray, " model"]:
    """Log-strengths of greatest likelihood, mean zero: P(i beats j) = 1 / (1 + exp(s_j - s_i)).

    Parameters
    ----------
    wins
        Every meeting is one observation, ties are half a win each way.
    prior
        Wins added each way between all pairs.

    Raises
    ------
    ValueError
        `prior` is zero and the models fall into two groups of which one never loses to the other: the likelihood has no
        maximum.
    """
    if not np.isfinite(prior) or prior < 0:
        raise ValueError(f"prior must be a finite number of wins, zero or more; got {prior!r}")
    counts = wins.wins + prior * (1 - np.eye(len(wins.wins)))
    if not _strongly_connected(counts):
        raise ValueError(
            "some models never lose to the others, so that the likelihood has no maximum; pass prior=0.5 or the like"
        )
    meetings = counts + counts.T
    identity = np.eye(len(counts))

    # The square of the sum pins the mean to zero, on which the likelihood does not depend.
    def loss(strength: NDArray[np.float64]) -> float:
        return float(0.5 * strength.sum() ** 2 - (counts * log_expit(strength[:, None] - strength[None, :])).sum())

    def gradient(strength: NDArray[np.float64]) -> NDArray[np.float64]:
        expected = meetings * expit(strength[:, None] - strength[None, :])
        return strength.sum() - (counts - expected).sum(axis=1)

    def hessian(strength: NDArray[np.float64]) -> NDArray[np.float64]:
        chance = expit(strength[:, None] - strength[None, :])
        weight = meetings * chance * (1 - chance)
        return 1.0 + identity * weight.sum(axis=1) - weight

    start = np.zeros(len(counts))
    fitted = minimize(loss, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-9})
    # The last steps lie below the rounding of the loss, where a trust region stalls; Newton's own do not.
    strength = fitted.x
    for _ in range(2):
        strength = strength - np.linalg.solve(hessian(strength), gradient(strength))
    return strength - strength.mean()


def elo(
    wins: WinTensor, *, k_factor: float = 32.0, shuffles: int = 20, random_state: int | np.random.SeedSequence = 0
) -> Float[np.ndarray, " model"]:
    """Elo ratings after all meetings, averaged over `shuffles` random orders of them; everyone starts at 1000."""
    if shuffles < 1:
        raise ValueError(f"shuffles must be 1 or more; got {shuffles}")
    meetings, results = _meetings(wins)
    total = np.zeros(wins.shape[0])
    for seed in spawn_seeds(random_state, shuffles):
        stream = random_stream(seed)
        _shuffle(meetings, results, stream)
        total += elo_pass(meetings, results, np.full(wins.shape[0], 1000.0), k_factor)
    return total / shuffles


@compiled
def elo_pass(meetings, results, ratings, k_factor):
    """Update ratings meeting by meeting; `results` are those of the first: 1, 0.5 or 0."""
    for meeting in range(meetings.shape[0]):
        one, other = meetings[meeting, 0], meetings[meeting, 1]
        expected = 1.0 / (1.0 + 10.0 ** ((ratings[other] - ratings[one]) / _ELO_SCALE))
        change = k_factor * (results[meeting] - expected)
        ratings[one] += change
        ratings[other] -= change
    return ratings


@compiled
def _shuffle(meetings, results, stream):
    for last in range(meetings.shape[0] - 1, 0, -1):
        chosen = int(uniform(stream) * (last + 1))
        for side in range(2):
            meetings[last, side], meetings[chosen, side] = meetings[chosen, side], meetings[last, side]
        results[last], results[chosen] = results[chosen], results[last]


def _meetings(wins: WinTensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """All meetings, pair by pair and benchmark by benchmark, with the result of the first."""
    one, other, benchmark = np.nonzero(wins.present[:, None] & wins.present[None, :])
    keep = one < other
    one, other, benchmark = one[keep], other[keep], benchmark[keep]
    outcome = wins.outcomes[one, other, benchmark]
    return np.column_stack([one, other]), np.where(outcome == TIE, 0.5, outcome.astype(np.float64))


def _strongly_connected(counts: Float[np.ndarray, "model model"]) -> bool:
    return int(connected_components(counts > 0, connection="strong", return_labels=False)) == 1
