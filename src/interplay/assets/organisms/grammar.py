"""What every organism's grammar offers: examples with named positions, aligned pairs, and an exact judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from interplay.assets.organisms.vocabulary import Vocabulary

__all__ = ["Example", "Grammar"]


@dataclass(frozen=True)
class Example:
    """One prompt whose every named position is known.

    Parameters
    ----------
    kind
        The kind that it was sampled as.
    input_ids
        Token ids, `<bos>` first; the answer is not among them.
    text
        The same in words, without `<bos>`.
    roles
        Index into `input_ids` of every named slot: an int, or a slice of several tokens. `end` is always the last one.
    answer_id
        The token that the ground truth demands next, None where it demands none.
    meta
        What else is known about the example.
    """

    kind: str
    input_ids: tuple[int, ...]
    text: str
    roles: Mapping[str, int | slice]
    answer_id: int | None = None
    meta: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        return len(self.input_ids)


class Grammar(Protocol):
    """The ground truth of one organism, drawn from its seed."""

    vocabulary: Vocabulary
    kinds: tuple[str, ...]

    def sample(self, kind: str, n: int, rng: np.random.Generator) -> list[Example]:
        """`n` examples of a kind; KeyError for an unknown kind."""
        ...

    def pairs(self, kind: str, n: int, rng: np.random.Generator) -> list[tuple[Example, Example]]:
        """`n` token-aligned minimal pairs of a kind: same length, same roles; ValueError for a kind without twins."""
        ...

    def judge(self, answer: str | Sequence[int], example: Example) -> str:
        """The verdict on what a model wrote after the example, by exact rule."""
        ...
