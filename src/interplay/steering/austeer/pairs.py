"""Pairs of right and wrong answers, balanced so that no word is always the right one."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence

__all__ = ["balanced", "check_pairs"]


def balanced(prompts: Sequence[str], right: Sequence[str], wrong: Sequence[str]) -> list[int]:
    """Rows to keep so that of every two answers either is right as often as the other; the first ones stay.

    Parameters
    ----------
    prompts, right, wrong
        One entry a row.

    Returns
    -------
    list of int
        In their order.

    Warns
    -----
    UserWarning
        One order of some two answers never occurs. If that is so for all, every row is kept.
    """
    check_pairs(prompts, right, wrong)
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, pair in enumerate(zip(right, wrong, strict=True)):
        rows[pair].append(row)
    kept = sorted(row for (one, other), own in rows.items() for row in own[: len(rows.get((other, one), []))])
    if not kept:
        warnings.warn(
            "the answers cannot be balanced, since no two of them occur both ways round; all pairs are used, and units "
            "may be ranked by the answers' words",
            stacklevel=3,
        )
        return list(range(len(prompts)))
    return kept


def check_pairs(prompts: Sequence[str], right: Sequence[str], wrong: Sequence[str]) -> None:
    """Refuse pairs that are none.

    Raises
    ------
    ValueError
        Lists of different lengths, none, an empty answer or two equal ones; the message names the row.
    """
    counts = len(prompts), len(right), len(wrong)
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            "prompts, right and wrong must be equally many, one pair or more; "
            f"got {counts[0]}, {counts[1]} and {counts[2]}"
        )
    for row, (one, other) in enumerate(zip(right, wrong, strict=True)):
        if not one.strip() or not other.strip() or one == other:
            raise ValueError(
                f"row {row}: right and wrong must be different answers with a word, got {one!r} and {other!r}"
            )
