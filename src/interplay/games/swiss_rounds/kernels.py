"""Compiled loops: one contest of Swiss rounds, and many of them summed up.

Points are integers: whole points, or half points where a bye or a tie can be worth one half. Sums are 64-bit integers,
so that they are exact and do not depend on the order in which chunks of contests are added.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from interplay.primitives.stochastic import compiled, uniform

__all__ = ["FLOAT", "LOSS", "TIE", "WIN", "Rules", "play_contests", "sum_contests"]

LOSS, WIN, TIE = 0, 1, 2
"""Codes of outcomes in a win tensor."""

FLOAT = -1
"""In the place of points for a bye: the odd member meets one of the next lower group."""


class Rules(NamedTuple):
    """What is drawn from and what is scored; models and rounds are numbered from zero.

    Parameters
    ----------
    outcomes
        (round, model, model), code of the outcome for the first model.
    present
        (round, model), whether the model has a score on the round's benchmark.
    eliminate
        (round,), how many of the lowest group leave after the round.
    win_points
        Stored points of a win: 1, or 2 where half points occur.
    bye_points
        Stored points of a bye, or `FLOAT`.
    tie_points
        Stored points of a tie for both, or 0 where a fair coin decides.
    """

    outcomes: NDArray[np.uint8]
    present: NDArray[np.bool_]
    eliminate: NDArray[np.int64]
    win_points: int
    bye_points: int
    tie_points: int


@compiled
def _pick(stream, first, last):
    """A uniform index from first to last, both included; no draw where there is nothing to choose."""
    if first == last:
        return first
    return first + int(uniform(stream) * (last - first + 1))


@compiled
def _swap(seats, one, other):
    seats[one], seats[other] = seats[other], seats[one]


@compiled
def _meet(outcomes, turn, one, other, win_points, tie_points, points, stream):
    outcome = outcomes[turn, one, other]
    if outcome == TIE:
        if tie_points:
            points[one] += tie_points
            points[other] += tie_points
            return
        outcome = WIN if uniform(stream) < 0.5 else LOSS
    # Without a branch: who wins is what a processor cannot foresee.
    points[one] += outcome * win_points
    points[other] += (1 - outcome) * win_points


@compiled
def _seat(present, turn, field, count, points, seats, begin):
    """Seat those who play this round by points, most first (counting sort).

    The group with p points takes the seats from `begin[p]` to those of the group below. Returns the largest number of
    points and the number of players. `begin` must come, and is to be left, as zeros.
    """
    top = 0
    for place in range(count):
        model = field[place]
        begin[points[model]] += present[turn, model]
        top = max(top, points[model])
    players = 0
    for score in range(top, -1, -1):
        players += begin[score]
        begin[score] = players
    for place in range(count):
        model = field[place]
        if present[turn, model]:
            begin[points[model]] -= 1
            seats[begin[points[model]]] = model
    return top, players


@compiled
def _play_round(outcomes, present, turn, scoring, field, count, points, seats, begin, byes, stream):
    """Pair the groups from the top down and score the meetings. `scoring`: points of a win, of a bye, of a tie."""
    win_points, bye_points, tie_points = scoring
    top, players = _seat(present, turn, field, count, points, seats, begin)
    floater = -1
    for score in range(top, -1, -1):
        first = begin[score]
        end = begin[score - 1] if score > 0 else players
        begin[score] = 0
        if first == end:
            continue
        if floater >= 0:
            _swap(seats, first, _pick(stream, first, end - 1))
            _meet(outcomes, turn, floater, seats[first], win_points, tie_points, points, stream)
            first += 1
            floater = -1
        if (end - first) % 2 == 1:
            end -= 1
            _swap(seats, end, _pick(stream, first, end))
            if bye_points == FLOAT:
                floater = seats[end]
            else:
                points[seats[end]] += bye_points
                byes[seats[end]] += 1
        # Whoever sits first gets a uniform partner among the others: every matching of the group is equally likely.
        for seat in range(first, end, 2):
            _swap(seats, seat + 1, _pick(stream, seat + 1, end - 1))
            _meet(outcomes, turn, seats[seat], seats[seat + 1], win_points, tie_points, points, stream)
    if floater >= 0:
        byes[floater] += 1


@compiled
def _drop_lowest(field, count, leavers, points, turn, last_turn, stream):
    """Remove `leavers` uniformly chosen members of the lowest group; returns how many models go on."""
    lowest = points[field[0]]
    for place in range(1, count):
        lowest = min(lowest, points[field[place]])
    front = 0
    for place in range(count):
        if points[field[place]] == lowest:
            _swap(field, front, place)
            front += 1
    for _ in range(min(leavers, front)):
        chosen = _pick(stream, 0, front - 1)
        last_turn[field[chosen]] = turn
        _swap(field, chosen, front - 1)
        _swap(field, front - 1, count - 1)
        front -= 1
        count -= 1
    return count


@compiled
def _play_contest(outcomes, present, eliminate, scoring, field, points, seats, begin, byes, last_turn, stream):
    """One contest. Fills points, adds to byes, and sets the round after which each model left."""
    rounds, models = present.shape
    for model in range(models):
        field[model] = model
        points[model] = 0
        last_turn[model] = rounds
    count = models
    for turn in range(rounds):
        _play_round(outcomes, present, turn, scoring, field, count, points, seats, begin, byes, stream)
        if eliminate[turn] > 0:
            count = _drop_lowest(field, count, eliminate[turn], points, turn, last_turn, stream)
            if count == 0:
                break


@compiled
def sum_contests(rules, contests, stream, totals, products, byes, departures):
    """Play many contests and add to the sums.

    Parameters
    ----------
    rules
        `Rules`.
    contests
        How many.
    stream
        Random stream, advanced.
    totals, products
        (model,) and (model, model, lower triangle): sums of stored points and of their products.
    byes
        (model,): rounds sat out as the odd one.
    departures
        (model, round + 1): after which round a model left; the last column counts those who never did.
    """
    # A named tuple of arrays costs a count of references in each call; the loop below makes a thousand calls a contest.
    outcomes, present, eliminate = rules.outcomes, rules.present, rules.eliminate
    scoring = (rules.win_points, rules.bye_points, rules.tie_points)
    rounds, models = present.shape
    field = np.empty(models, np.int64)
    points = np.empty(models, np.int64)
    seats = np.empty(models, np.int64)
    begin = np.zeros(2 * rounds + 1, np.int64)
    last_turn = np.empty(models, np.int64)
    for _ in range(contests):
        _play_contest(outcomes, present, eliminate, scoring, field, points, seats, begin, byes, last_turn, stream)
        for model in range(models):
            totals[model] += points[model]
            departures[model, last_turn[model]] += 1
            for other in range(model + 1):
                products[model, other] += points[model] * points[other]


@compiled
def play_contests(rules, stream, points):
    """Play one contest for each row of `points` (contest, model) and leave the stored points there."""
    outcomes, present, eliminate = rules.outcomes, rules.present, rules.eliminate
    scoring = (rules.win_points, rules.bye_points, rules.tie_points)
    rounds, models = present.shape
    field = np.empty(models, np.int64)
    seats = np.empty(models, np.int64)
    begin = np.zeros(2 * rounds + 1, np.int64)
    last_turn = np.empty(models, np.int64)
    byes = np.zeros(models, np.int64)
    for contest in range(points.shape[0]):
        _play_contest(
            outcomes, present, eliminate, scoring, field, points[contest], seats, begin, byes, last_turn, stream
        )
