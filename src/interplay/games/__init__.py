"""Contests: many players, many rounds, and what their results say about them.

`SwissRounds` is at hand here, since a table of scores is what most visitors come with:
`interplay.games.SwissRounds().rank(table)`. It is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interplay.games.swiss_rounds import SwissRounds

__all__ = ["SwissRounds"]


def __getattr__(name: str) -> Any:
    if name != "SwissRounds":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("interplay.games.swiss_rounds").SwissRounds
