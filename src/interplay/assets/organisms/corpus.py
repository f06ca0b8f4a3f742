"""Training text: all documents in one array of tokens, and batches of equal length so that nothing is padded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Corpus", "CorpusError", "Document"]


class CorpusError(RuntimeError):
    """The generated text breaks a promise of its grammar: the grammar has a fault."""


@dataclass(frozen=True)
class Document:
    """One training document.

    Parameters
    ----------
    ids
        Token ids, `<bos>` first and `<eos>` last.
    answers
        Indices of the tokens whose prediction counts more (see `Recipe.answer_weight`).
    """

    ids: Sequence[int]
    answers: Sequence[int] = ()


@dataclass(frozen=True)
class Corpus:
    """Documents laid end to end.

    Parameters
    ----------
    tokens
        int16, all documents' ids.
    is_answer
        bool, parallel to `tokens`.
    starts
        int64, `document + 1` offsets into `tokens`.
    """

    tokens: NDArray[np.int16]
    is_answer: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, documents: Iterable[Document]) -> Corpus:
        """Lay documents end to end."""
        documents = list(documents)
        lengths = np.array([len(document.ids) for document in documents], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        tokens = np.fromiter((i for document in documents for i in document.ids), dtype=np.int16, count=starts[-1])
        is_answer = np.zeros(starts[-1], dtype=bool)
        answers = (start + i for document, start in zip(documents, starts, strict=False) for i in document.answers)
        is_answer[np.fromiter(answers, dtype=np.int64)] = True
        return cls(tokens, is_answer, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sha256(self) -> str:
        """SHA-256 of the three arrays."""
        digest = hashlib.sha256()
        for array in (self.tokens, self.is_answer, self.starts):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def batches(
        self, tokens_per_batch: int, pad_id: int, rng: np.random.Generator
    ) -> Iterator[tuple[NDArray, NDArray]]:
        """One epoch in random order: `(ids, is_answer)`, each (document, token), padded on the right.

        Documents of similar length share a batch, so that little is padded; who shares it with whom changes with each
        epoch. A batch holds at most `tokens_per_batch` tokens with its padding.
        """
        lengths = np.diff(self.starts)
        shuffled = rng.permutation(len(self))
        by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
        groups = _cut(lengths[by_length], tokens_per_batch)
        for index in rng.permutation(len(groups)):
            members = by_length[groups[index]]
            width = int(lengths[members].max())
            inside = np.arange(width) < lengths[members][:, None]
            where = np.where(inside, self.starts[members][:, None] + np.arange(width), 0)
            yield np.where(inside, self.tokens[where], pad_id), self.is_answer[where] & inside


def _cut(sorted_lengths: NDArray[np.int64], tokens_per_batch: int) -> list[slice]:
    """Slices of documents in ascending length, each of at most `tokens_per_batch` tokens when padded to its longest."""
    groups = []
    start = 0
    for stop in range(1, len(sorted_lengths) + 1):
        is_last = stop == len(sorted_lengths)
        if is_last or (stop - start + 1) * sorted_lengths[stop] > tokens_per_batch:
            groups.append(slice(start, stop))
            start = stop
    return groups
