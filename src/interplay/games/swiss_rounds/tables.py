"""Reading tables of scores, models x benchmarks, and refusing damaged ones where they enter."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike

__all__ = ["ScoreTable", "Table", "easiest_first", "read_table"]

Table: TypeAlias = "ScoreTable | pd.DataFrame | str | os.PathLike[str] | ArrayLike"
"""What is accepted as a table of scores."""

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_MISSING_WORDS = {"", "na", "n/a", "nan", "null", "none"}
_LISTED = 5


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores with names; NaN where a score is missing.

    Raises
    ------
    ValueError
        Not two-dimensional, fewer than two models, no benchmark, infinite scores, names that are not unique or not as
        many as rows or columns, a model or benchmark without a single score.
    """

    scores: Float[np.ndarray, "model benchmark"]
    model_names: Sequence[str] | None = None
    benchmark_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        scores = np.array(self.scores, dtype=np.float64)
        if scores.ndim != 2:
            raise ValueError(f"scores must be a table (models, benchmarks); got {scores.ndim} dimensions")
        models, benchmarks = scores.shape
        if models < 2 or benchmarks < 1:
            raise ValueError(f"scores need two models and one benchmark at least; got {models} x {benchmarks}")
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "model_names", _names("model", self.model_names, models))
        object.__setattr__(self, "benchmark_names", _names("benchmark", self.benchmark_names, benchmarks))
        if np.isinf(scores).any():
            raise ValueError(f"scores must be finite; infinite are {self.cells(np.isinf(scores))}")
        for axis, what, names in ((1, "model", self.model_names), (0, "benchmark", self.benchmark_names)):
            empty = np.flatnonzero(np.isnan(scores).all(axis=axis))
            if len(empty):
                raise ValueError(f"the {what} {names[empty[0]]!r} has no score at all; leave it out")

    def cells(self, mask: np.ndarray) -> str:
        """The first few cells of a mask in words."""
        found = np.argwhere(mask)
        listed = ", ".join(
            f"({self.model_names[row]!r}, {self.benchmark_names[column]!r})" for row, column in found[:_LISTED]
        )
        return listed + (f" and {len(found) - _LISTED} more" if len(found) > _LISTED else "")


def read_table(
    table: Table, model_names: Sequence[str] | None = None, benchmark_names: Sequence[str] | None = None
) -> ScoreTable:
    """Read models x benchmarks from what the user has.

    Parameters
    ----------
    table
        - a DataFrame: columns are benchmarks; the index names the models, or, where the index only counts, the first
          column does if it holds words;
        - the path of a .csv or .tsv file: the header names the benchmarks, the first column the models; empty cells,
          NA, NaN, null and None are missing scores;
        - the path of a .parquet file: read as a DataFrame;
        - a 2-D array, or lists of lists.
    model_names, benchmark_names
        Names that replace those of the table.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Another kind of file; a file that is empty, damaged or not a table; cells that are not numbers, named in the
        message.
    """
    if isinstance(table, ScoreTable):
        read = table
    elif isinstance(table, pd.DataFrame):
        read = _from_frame(table, "the table")
    elif isinstance(table, str | os.PathLike):
        read = _from_file(Path(table))
    else:
        read = _from_array(table)
    if model_names is None and benchmark_names is None:
        return read
    return ScoreTable(
        read.scores,
        read.model_names if model_names is None else model_names,
        read.benchmark_names if benchmark_names is None else benchmark_names,
    )


def easiest_first(table: Table) -> list[int]:
    """Benchmarks by mean score over models, highest first: an order from basic to advanced for scores of one kind.

    It asks that scores of different benchmarks can be compared, as accuracies can; otherwise give an order by hand.
    """
    means = np.nanmean(read_table(table).scores, axis=0)
    return [int(benchmark) for benchmark in np.argsort(-means, kind="stable")]


def _from_file(path: Path) -> ScoreTable:
    if not path.exists():
        raise FileNotFoundError(f"there is no table {str(path)!r}")
    kind = path.suffix.lower()
    if kind == ".parquet":
        try:
            frame = pd.read_parquet(path)
        except Exception as error:  # pyarrow has a dozen errors for a damaged file
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
        return _from_frame(frame, str(path))
    if kind not in _SEPARATORS:
        raise ValueError(f"a table must be a .csv, .tsv or .parquet file; got {path.name!r}")
    return _from_text(path, _SEPARATORS[kind])


def _from_text(path: Path, separator: str) -> ScoreTable:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [
                (line, row) for line, row in enumerate(csv.reader(file, delimiter=separator, strict=True), 1) if row
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as text with separators {separator!r}: {error}") from error
    if not rows:
        raise ValueError(f"{path} is empty; the header names the benchmarks, the first column the models")
    (_, header), *body = rows
    for line, row in body:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}, has {len(row)} cells, its header {len(header)}")
    frame = pd.DataFrame([row[1:] for _, row in body], columns=header[1:], dtype=object)
    names = [row[0].strip() for _, row in body]
    if names and all(_is_number(name) for name in names):
        raise ValueError(
            f"{path}: the first column must name the models and holds numbers, {names[0]!r} first; add a column of "
            "names, or pass an array"
        )
    frame.index = pd.Index(names)
    return _from_frame(frame, str(path))


def _from_frame(frame: pd.DataFrame, source: str) -> ScoreTable:
    if isinstance(frame.index, pd.RangeIndex) and frame.shape[1] and not _holds_numbers(frame.iloc[:, 0]):
        frame = frame.set_index(frame.columns[0])
    if frame.shape[0] == 0 or frame.shape[1] == 0:
        raise ValueError(f"{source} is empty: {frame.shape[0]} models x {frame.shape[1]} benchmarks")
    models = [str(name) for name in frame.index]
    benchmarks = [str(name) for name in frame.columns]
    columns = [_numbers(frame.iloc[:, column].tolist(), models, name, source) for column, name in enumerate(benchmarks)]
    return ScoreTable(np.column_stack(columns), models, benchmarks)


def _from_array(array: ArrayLike) -> ScoreTable:
    try:
        values = np.asarray(array)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"scores must be a table (models, benchmarks): {error}") from error
    if values.dtype.kind not in "biuf":
        raise ValueError(f"scores must be numbers; got an array of {values.dtype}; pass a DataFrame if it has names")
    return ScoreTable(values)


def _numbers(cells: list[object], models: list[str], benchmark: str, source: str) -> Float[np.ndarray, " model"]:
    column = np.empty(len(cells))
    for row, cell in enumerate(cells):
        number = _number(cell)
        if number is None:
            raise ValueError(
                f"{source}: the score of {models[row]!r} on {benchmark!r} must be a number; got {cell!r} "
                f"(column {benchmark!r}, row {row + 1})"
            )
        column[row] = number
    return column


def _number(cell: object) -> float | None:
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return float("nan")
    if isinstance(cell, str) and cell.strip().lower() in _MISSING_WORDS:
        return float("nan")
    if isinstance(cell, complex):
        return None
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _is_number(text: str) -> bool:
    return _number(text) is not None and text.lower() not in _MISSING_WORDS


def _holds_numbers(column: pd.Series) -> bool:
    return all(_number(cell) is not None for cell in column)


def _names(what: str, names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    given = [str(number) for number in range(count)] if names is None else [str(name) for name in names]
    if len(given) != count:
        raise ValueError(f"{what}_names must be {count} names; got {len(given)}")
    for name in given:
        if given.count(name) > 1:
            raise ValueError(f"{what} names must differ; {name!r} stands {given.count(name)} times")
    return tuple(given)
