"""Tokenised prompts with their answers and positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class Questions:
    """Prompts with one right next token each.

    Attributes
    ----------
    ids, mask
        Token ids and 1 for every token that is not padding, [batch, position].
    end_pos
        Position of the last token, from which the answer is predicted.
    id_true
        First token of the right answer.
    """

    ids: Int[Tensor, "batch position"]
    mask: Int[Tensor, "batch position"]
    end_pos: Int[Tensor, " batch"]
    id_true: Int[Tensor, " batch"]

    def __post_init__(self) -> None:
        rows = torch.arange(len(self.ids), device=self.ids.device)
        if self.mask.shape != self.ids.shape or any(
            len(getattr(self, part.name)) != len(self) for part in fields(self)
        ):
            raise ValueError(f"the parts of a batch must have one row a prompt; ids has shape {list(self.ids.shape)}")
        outside = (self.end_pos < 0) | (self.end_pos >= self.ids.shape[1])
        if outside.any() or not bool(self.mask[rows, self.end_pos].all()):
            raise ValueError(
                "end_pos points at padding or outside the prompt; pad on the left, or point at the last real token"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Tensor | np.ndarray) -> Self:
        chosen = rows if isinstance(rows, slice) else torch.as_tensor(rows, device=self.ids.device)
        return replace(self, **{part.name: getattr(self, part.name)[chosen] for part in fields(self)})

    def to(self, device: torch.device | str) -> Self:
        """The same prompts on another device."""
        return replace(self, **{part.name: getattr(self, part.name).to(device) for part in fields(self)})

    def chunks(self, size: int) -> Iterator[Self]:
        """Consecutive parts of at most `size` prompts."""
        if size < 1:
            raise ValueError(f"the number of prompts a forward pass must be positive; got {size}")
        for start in range(0, len(self), size):
            yield self[start : start + size]


@dataclass(frozen=True)
class Batch(Questions):
    """Conflict prompts.

    Attributes
    ----------
    id_offered
        First token of the answer that the context offers; `id_true` is that of the memorized one.
    subject_pos, offered_pos
        Last token of the subject in the question, and of the offered answer in the context.
    subject, offered
        Indices into the conflict set's `facts` and `answers`.
    """

    id_offered: Int[Tensor, " batch"]
    subject_pos: Int[Tensor, " batch"]
    offered_pos: Int[Tensor, " batch"]
    subject: Int[Tensor, " batch"]
    offered: Int[Tensor, " batch"]
