"""Expected wins of small fields as fractions: the distribution over records and survivors, round by round."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from itertools import combinations

from interplay.games.swiss_rounds.kernels import FLOAT, TIE, WIN, Rules

__all__ = ["MOST_MODELS", "MOST_ROUNDS", "exact_points"]

MOST_MODELS, MOST_ROUNDS = 7, 4

Points = tuple[int, ...]
Group = tuple[int, ...]
Law = dict[Points, Fraction]
"""Probability of each vector of stored points, one entry a model."""


def exact_points(rules: Rules) -> list[Fraction]:
    """Expected points of each model, in whole points.

    A group of n is paired in (n - 1)!! equally likely ways where n is even; where it is odd, each of its n members is
    left over equally often.

    Raises
    ------
    ValueError
        More than seven models or four rounds.
    """
    rounds, models = rules.present.shape
    if models > MOST_MODELS or rounds > MOST_ROUNDS:
        raise ValueError(
            f"the exact solver takes {MOST_MODELS} models and {MOST_ROUNDS} benchmarks at most; got {models} x {rounds}"
        )
    # State: stored points and the models still in the field.
    states: dict[tuple[Points, Group], Fraction] = {((0,) * models, tuple(range(models))): Fraction(1)}
    for turn in range(rounds):
        one_round = _Round(rules, turn)
        after: dict[tuple[Points, Group], Fraction] = defaultdict(Fraction)
        for (points, field), probability in states.items():
            for gains, chance in one_round.law(points, field).items():
                reached = tuple(map(int.__add__, points, gains))
                ways = list(_survivors(reached, field, int(rules.eliminate[turn])))
                for survivors in ways:
                    after[reached, survivors] += probability * chance / len(ways)
        states = after
    totals = [Fraction(0)] * models
    for (points, _), probability in states.items():
        for model, stored in enumerate(points):
            totals[model] += probability * stored
    return [total / rules.win_points for total in totals]


class _Round:
    """Laws of the points gained in one round."""

    def __init__(self, rules: Rules, turn: int) -> None:
        self.rules, self.turn = rules, turn
        self.models = rules.present.shape[1]
        self.pairings = cache(self._pairings)
        self.play = cache(self._play)

    def law(self, points: Points, field: Group) -> Law:
        groups: dict[int, list[int]] = defaultdict(list)
        for model in field:
            if self.rules.present[self.turn, model]:
                groups[points[model]].append(model)
        return self.play(tuple(tuple(groups[score]) for score in sorted(groups, reverse=True)), None)

    def _play(self, groups: tuple[Group, ...], floater: int | None) -> Law:
        """All groups from the top down, with the odd member of the group above where it floats."""
        if not groups:
            return self._gain()
        group, lower = groups[0], groups[1:]
        if floater is None:
            return self._settle(group, lower)
        return _mean(
            _join(self._meeting(floater, partner), self._settle(_without(group, partner), lower)) for partner in group
        )

    def _settle(self, group: Group, lower: tuple[Group, ...]) -> Law:
        if len(group) % 2 == 0:
            return _join(self.pairings(group), self.play(lower, None))
        if self.rules.bye_points == FLOAT:
            return _mean(_join(self.pairings(_without(group, odd)), self.play(lower, odd)) for odd in group)
        byes = _mean(
            _join(self.pairings(_without(group, odd)), self._gain({odd: self.rules.bye_points})) for odd in group
        )
        return _join(byes, self.play(lower, None))

    def _pairings(self, group: Group) -> Law:
        """An even group: its first member meets each of the others equally often, then the rest is paired."""
        if not group:
            return self._gain()
        first, *others = group
        return _mean(
            _join(self._meeting(first, other), self.pairings(_without(tuple(others), other))) for other in others
        )

    def _meeting(self, one: int, other: int) -> Law:
        outcome = self.rules.outcomes[self.turn, one, other]
        if outcome == TIE and self.rules.tie_points:
            return self._gain({one: self.rules.tie_points, other: self.rules.tie_points})
        if outcome == TIE:
            return _mean(self._gain({winner: self.rules.win_points}) for winner in (one, other))
        return self._gain({one if outcome == WIN else other: self.rules.win_points})

    def _gain(self, gained: dict[int, int] | None = None) -> Law:
        return {tuple((gained or {}).get(model, 0) for model in range(self.models)): Fraction(1)}


def _survivors(points: Points, field: Group, leavers: int) -> Iterable[Group]:
    """Equally likely fields after the lowest group has lost some of its members."""
    if not field or not leavers:
        return [field]
    lowest = min(points[model] for model in field)
    group = [model for model in field if points[model] == lowest]
    gone = combinations(group, min(leavers, len(group)))
    return (tuple(model for model in field if model not in leaving) for leaving in gone)


def _without(group: Group, member: int) -> Group:
    return tuple(model for model in group if model != member)


def _join(one: Law, other: Law) -> Law:
    """Law of the sum of two independent gains."""
    law: Law = defaultdict(Fraction)
    for gains, chance in one.items():
        for more, probability in other.items():
            law[tuple(map(int.__add__, gains, more))] += chance * probability
    return law


def _mean(laws: Iterable[Law]) -> Law:
    """Equal mixture."""
    parts = list(laws)
    law: Law = defaultdict(Fraction)
    for part in parts:
        for gains, chance in part.items():
            law[gains] += chance / len(parts)
    return law
