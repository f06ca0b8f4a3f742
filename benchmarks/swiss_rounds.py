"""Contests against the same rules in plain Python, and ratings against choix and evalica."""

from __future__ import annotations

import importlib
import random

import numpy as np
from measure import HEADER, compare

from interplay.games.swiss_rounds import SwissRounds, bradley_terry, elo, win_tensor

MODELS, BENCHMARKS = 29, 38


def plain_contests(scores: np.ndarray, contests: int, draw: random.Random) -> list[int]:
    """The rules with lists and dictionaries, as one would write them down."""
    rows = scores.tolist()
    total = [0] * len(rows)
    for _ in range(contests):
        points = [0] * len(rows)
        for k in range(len(rows[0])):
            groups: dict[int, list[int]] = {}
            for model, won in enumerate(points):
                groups.setdefault(won, []).append(model)
            for group in groups.values():
                draw.shuffle(group)
                for one, other in zip(group[::2], group[1::2], strict=False):
                    points[one if rows[one][k] > rows[other][k] else other] += 1
        total = [a + b for a, b in zip(total, points, strict=True)]
    return total


def main() -> None:
    generator = np.random.default_rng(0)
    scores = np.linspace(2, -2, MODELS)[:, None] + generator.normal(size=(MODELS, BENCHMARKS))
    wins = win_tensor(scores)
    print(HEADER)
    comparison = compare(
        f"5,000 contests of {MODELS} models x {BENCHMARKS} benchmarks",
        {
            "ours, one thread": lambda: SwissRounds(5_000, random_state=0).fit(wins),
            "plain Python": lambda: plain_contests(scores, 5_000, random.Random(0)),
        },
        repeats=3,
    )
    print("\n".join(comparison.rows()))
    comparison = compare(
        f"100,000 contests of {MODELS} models x {BENCHMARKS} benchmarks",
        {
            "ours, one thread": lambda: SwissRounds(100_000, random_state=0).fit(wins),
            "ours, two threads": lambda: SwissRounds(100_000, n_jobs=2, random_state=0).fit(wins),
        },
        repeats=3,
    )
    print("\n".join(comparison.rows()))
    pairs = [(i, j) for i, j, k in zip(*np.nonzero(wins.outcomes == 1), strict=True)]
    peers = {"ours": lambda: bradley_terry(wins)}
    try:
        choix = importlib.import_module("choix")
        peers["choix"] = lambda: choix.ilsr_pairwise(MODELS, pairs, max_iter=1000)
    except ModuleNotFoundError:
        print("choix is not installed: skipped")
    print("\n".join(compare("Bradley-Terry strengths", peers, repeats=5).rows()))
    peers = {"ours": lambda: elo(wins, shuffles=1)}
    try:
        evalica = importlib.import_module("evalica")
        first, second = ([str(pair[side]) for pair in pairs] for side in range(2))
        winners = [evalica.Winner.X] * len(pairs)
        peers["evalica"] = lambda: evalica.elo(first, second, winners)
    except ModuleNotFoundError:
        print("evalica is not installed: skipped")
    print("\n".join(compare("one pass of Elo", peers, repeats=5).rows()))


if __name__ == "__main__":
    main()
