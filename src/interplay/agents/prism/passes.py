"""Any model that gives the two probabilities, read as one pass of the locked schema {p_need, p_acc, proposal}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from interplay.agents.prism.validation import Probabilities, as_floating, as_numpy, check_same_shape
from interplay.primitives.modes import evaluating

__all__ = ["Judgement", "as_pass", "count_rows", "take_rows"]

Batch = Any
Pass = Callable[[Batch], "Judgement"]


class Judgement(NamedTuple):
    """What every pass says about a batch of events, and all that it says.

    Parameters
    ----------
    p_need
        (events,) probability that help is needed.
    p_acc
        (events,) probability that an offer would be accepted.
    proposal
        (events,) what would be offered, in any form, or None. It is made before the gate decides and never sees that.
    """

    p_need: Probabilities
    p_acc: Probabilities
    proposal: Any = None


def as_pass(model: Any) -> Pass:
    """One way to call what gives probabilities: batch in, `Judgement` out. The gate checks the probabilities.

    Parameters
    ----------
    model
        - a callable that returns (p_need, p_acc), (p_need, p_acc, proposal), a mapping with these keys, or an array of
          shape (events, 2) whose columns are p_need and p_acc;
        - a torch module that does so; it is called in evaluation mode and without gradients;
        - two fitted scikit-learn classifiers (need, acceptance) with labels 0 and 1;
        - one fitted scikit-learn classifier of two outputs.

    Raises
    ------
    TypeError
        For anything else; when called, for an output of another form.
    """
    if hasattr(model, "predict_proba"):
        return lambda batch: _read(_two_outputs(model, batch))
    if isinstance(model, Sequence) and len(model) == 2 and all(hasattr(part, "predict_proba") for part in model):
        need, acceptance = model
        return lambda batch: _read((_positive(need, batch), _positive(acceptance, batch)))
    if isinstance(model, nn.Module):

        def call(batch: Batch) -> Judgement:
            with torch.no_grad(), evaluating(model):
                return _read(model(batch))

        return call
    if callable(model):
        return lambda batch: _read(model(batch))
    raise TypeError(
        f"a model must be a callable, a torch module, a classifier of two outputs or a pair of classifiers (need, "
        f"acceptance) with predict_proba; got {type(model).__name__}"
    )


def _read(output: Any) -> Judgement:
    """The schema, from any of its forms."""
    if isinstance(output, Mapping):
        if not {"p_need", "p_acc"} <= set(output) <= set(Judgement._fields):
            raise TypeError(f"a pass must return exactly p_need, p_acc and, if any, proposal; got {sorted(output)}")
        output = Judgement(**output)
    elif isinstance(output, np.ndarray | Tensor):
        if output.ndim != 2 or output.shape[1] != 2:
            raise TypeError(f"an array returned by a pass must have shape (events, 2); got {tuple(output.shape)}")
        output = output[:, 0], output[:, 1]
    if not isinstance(output, tuple | list) or len(output) not in (2, 3):
        raise TypeError(
            f"a pass must return (p_need, p_acc) or (p_need, p_acc, proposal); got {type(output).__name__}"
            + (f" of {len(output)}" if isinstance(output, tuple | list) else "")
        )
    p_need, p_acc = as_floating("p_need", output[0]), as_floating("p_acc", output[1])
    check_same_shape(p_need=p_need, p_acc=p_acc)
    if p_need.ndim != 1:
        raise ValueError(f"a pass must give one probability an event; got shape {tuple(p_need.shape)}")
    proposal = output[2] if len(output) == 3 else None
    if proposal is not None and len(proposal) != len(p_need):
        raise ValueError(f"a pass must give one proposal an event; got {len(proposal)} for {len(p_need)} events")
    return Judgement(p_need, p_acc, proposal)


def _positive(classifier: Any, batch: Batch) -> np.ndarray:
    """Probability of class 1."""
    return _column(classifier.predict_proba(batch), classifier.classes_)


def _column(probabilities: np.ndarray, classes: Sequence[Any]) -> np.ndarray:
    where = [position for position, label in enumerate(classes) if label == 1]
    if not where or len(classes) != 2:
        raise TypeError(f"a classifier must know the labels 0 and 1; it was fitted on {list(classes)}")
    return probabilities[:, where[0]]


def _two_outputs(classifier: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Need and acceptance from one classifier, which scikit-learn gives in two forms."""
    probabilities = classifier.predict_proba(batch)
    if isinstance(probabilities, list) and len(probabilities) == 2:
        need, acceptance = zip(probabilities, classifier.classes_, strict=True)
        return _column(*need), _column(*acceptance)
    # A chain knows the classes of each output; one-vs-rest says that its labels do not exclude each other.
    independent = getattr(classifier, "multilabel_", isinstance(getattr(classifier, "classes_", None), list))
    if independent and np.ndim(probabilities) == 2 and np.shape(probabilities)[1] == 2:
        return probabilities[:, 0], probabilities[:, 1]
    raise TypeError(
        f"{type(classifier).__name__} gives one probability, or not two outputs of two classes; pass a pair "
        "(need classifier, acceptance classifier)"
    )


def count_rows(batch: Batch) -> int:
    """Number of events in a batch: the length of its arrays."""
    if isinstance(batch, Mapping):
        counts = {name: count_rows(column) for name, column in batch.items()}
        if len(set(counts.values())) != 1:
            raise ValueError(f"all entries of a batch must have the same number of rows; got {counts}")
        return next(iter(counts.values()))
    return int(batch.shape[0]) if hasattr(batch, "shape") else len(batch)


def take_rows(batch: Batch, rows: Any) -> Batch:
    """Some events of a batch: an array, a tensor, a sparse matrix, a DataFrame, a list, or a mapping of these.

    Raises
    ------
    TypeError
        A batch of another kind.
    """
    if isinstance(batch, Mapping):
        return {name: take_rows(column, rows) for name, column in batch.items()}
    if isinstance(batch, Tensor):
        return batch[torch.as_tensor(rows, device=batch.device)]
    rows = as_numpy(rows)
    if hasattr(batch, "iloc"):
        return batch.iloc[rows]
    if hasattr(batch, "shape"):
        return batch[rows]
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return [batch[row] for row in rows.tolist()]
    raise TypeError(
        f"cannot take rows of a {type(batch).__name__}; a batch may be an array, a tensor, a DataFrame, a list, or a "
        "mapping of these"
    )
