"""Columns across forward passes, against the obvious reference: index the whole sequence at once."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

from interplay.primitives.positions import Progress, index_of

LENGTH, BATCH = 9, 3
WHOLE = torch.arange(BATCH * LENGTH, dtype=torch.float32).reshape(BATCH, LENGTH, 1)

slices = st.builds(slice, st.none() | st.integers(0, 12), st.none() | st.integers(0, 12), st.none() | st.integers(1, 4))
tensors = st.lists(st.integers(0, 11), min_size=BATCH, max_size=BATCH).map(torch.tensor)
masks = st.lists(st.booleans(), min_size=BATCH * LENGTH, max_size=BATCH * LENGTH).map(
    lambda cells: torch.tensor(cells).reshape(BATCH, LENGTH)
)


def reference(positions: int | slice | torch.Tensor) -> set[float]:
    if isinstance(positions, int):
        return set(WHOLE[:, positions : positions + 1].flatten().tolist())
    if isinstance(positions, slice):
        return set(WHOLE[:, positions].flatten().tolist())
    if positions.dtype == torch.bool:
        return set(WHOLE[positions].flatten().tolist())
    return {WHOLE[row, column].item() for row, column in enumerate(positions.tolist()) if column < LENGTH}


@given(
    positions=st.integers(0, 11) | slices | tensors | masks,
    cuts=st.sets(st.integers(1, LENGTH - 1)),
)
def test_however_the_sequence_is_cut_into_passes_the_same_columns_are_selected(
    positions: int | slice | torch.Tensor, cuts: set[int]
) -> None:
    selected: list[float] = []
    edges = [0, *sorted(cuts), LENGTH]
    for start, stop in itertools.pairwise(edges):
        part = WHOLE[:, start:stop]
        index = index_of(positions, Progress(start), part)
        if index is not None:
            selected += part[index].flatten().tolist()
    assert len(selected) == len(set(selected))
    assert set(selected) == reference(positions)
