"""Which columns of a batch are meant, also while `generate` feeds a decoder one token a time.

Columns are counted from the sequence's first token, padding included, whether or not a key-value cache holds the tokens
before them. `Positions` is one of

- ``"all"``;
- ``"last"``, the last unpadded position of each row of every forward pass;
- ``"prompt-end"``, the same, but only before the key-value cache holds something: the prompt's last token;
- ``"prompt"`` or ``"generated"``, the forward passes before or after the key-value cache holds something;
- an int, one column, or a slice of columns, which may be open to the right;
- an integer tensor [batch], one column a row;
- a boolean tensor [batch, column]; what it selects is packed along the first axis.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Positions = str | int | slice | Tensor
Index = tuple[Any, ...]
PHASES = ("all", "last", "prompt", "prompt-end", "generated")


@dataclass
class Progress:
    """How far the sequence has come when a forward pass starts: the column of its first token, and the padding mask."""

    start: int = 0
    mask: Tensor | None = None

    def observe(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook, with keyword arguments, of the module that gets the cache and the mask."""
        if len(args) > 1:
            kwargs = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        cache = kwargs.get("past_key_values")
        self.start = int(cache.get_seq_length()) if cache is not None else 0
        mask = kwargs.get("attention_mask")
        # A prepared 4-D mask or a dict of masks says nothing about padding that could be read off simply.
        self.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None


def index_of(positions: Positions, progress: Progress, activation: Tensor) -> Index | None:
    """What to index the activation [batch, position, ...] with: () for all of it, None if nothing of it is selected."""
    if isinstance(positions, str) and positions == "all":
        return ()
    if activation.ndim < 3:
        raise ValueError(
            f"positions need an activation [batch, position, feature]; this one has shape {list(activation.shape)}"
        )
    batch, length = activation.shape[:2]
    start, stop = progress.start, progress.start + length
    if isinstance(positions, str):
        if positions == "prompt-end" and start > 0:
            return None
        if positions in ("last", "prompt-end"):
            return _last(progress, batch, length, activation.device)
        return () if (positions == "prompt") == (start == 0) else None
    if isinstance(positions, int):
        return (slice(None), positions - start) if start <= positions < stop else None
    if isinstance(positions, slice):
        columns = range(*positions.indices(stop))
        inside = columns[max(0, -(-(start - columns.start) // columns.step)) :]
        return (slice(None), slice(inside.start - start, inside.stop - start, inside.step)) if inside else None
    if len(positions) != batch:
        raise ValueError(f"positions has {len(positions)} rows, the batch has {batch}")
    positions = positions.to(activation.device)
    if positions.dtype == torch.bool:
        part = positions[:, start:stop]
        rows, places = part.nonzero(as_tuple=True)
    else:
        (rows,) = ((positions >= start) & (positions < stop)).nonzero(as_tuple=True)
        places = positions[rows] - start
    return (rows, places) if len(rows) else None


def _last(progress: Progress, batch: int, length: int, device: torch.device) -> Index:
    if progress.mask is None:
        return (slice(None), length - 1)
    mask = progress.mask[:, progress.start : progress.start + length].to(device).bool()
    steps = torch.arange(length, device=device)
    return (torch.arange(batch, device=device), torch.where(mask, steps, -1).amax(-1) % length)


def check_positions(positions: Positions) -> None:
    """Refuse, with a ValueError that lists what is allowed, anything that is not `Positions`."""
    if isinstance(positions, str):
        allowed = positions in PHASES
    elif isinstance(positions, slice):
        bounds = (positions.start or 0, positions.stop or 0)
        allowed = min(bounds) >= 0 and (positions.step is None or positions.step > 0)
    elif isinstance(positions, Tensor) and positions.dtype == torch.bool:
        allowed = positions.ndim == 2
    elif isinstance(positions, Tensor):
        integral = not positions.is_floating_point() and not positions.is_complex()
        allowed = positions.ndim == 1 and integral and bool((positions >= 0).all())
    else:
        allowed = isinstance(positions, int) and not isinstance(positions, bool) and positions >= 0
    if not allowed:
        raise ValueError(
            f"positions={positions!r}: allowed are {', '.join(PHASES)}, a column from 0, a slice of columns with "
            "non-negative bounds and positive step, an integer tensor [batch] or a boolean tensor [batch, column]"
        )
