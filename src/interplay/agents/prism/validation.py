"""Probabilities and labels at the door: one message says what came, where, and what is allowed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

__all__ = ["Flags", "Probabilities", "as_floating", "as_labels", "as_numpy", "as_probabilities", "check_same_shape"]

Probabilities = Float[np.ndarray, "*events"] | Float[Tensor, "*events"]
Flags = Bool[np.ndarray, "*events"] | Bool[Tensor, "*events"]
Array = Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."]


def as_floating(name: str, values: Any) -> Probabilities:
    """Numbers as a floating-point array; tensors stay tensors."""
    if isinstance(values, Tensor):
        return values if values.is_floating_point() else values.to(torch.get_default_dtype())
    values = np.asarray(values)
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be numbers; got an array of {values.dtype}")
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def as_probabilities(name: str, values: Any) -> Probabilities:
    """Floating-point array or tensor, all of whose entries lie in [0, 1].

    Raises
    ------
    ValueError
        With the first index whose entry is NaN or outside [0, 1].
    """
    values = as_floating(name, values)
    # Least and greatest entry carry a NaN along, so that two passes over memory suffice where all is well.
    flat = values.detach() if isinstance(values, Tensor) else values
    if _size(flat) and not (flat.min() >= 0 and flat.max() <= 1):
        index = _first(~((flat >= 0) & (flat <= 1)))
        raise ValueError(
            f"{name} must be probabilities in [0, 1]; got {float(flat[index])} at index {_shown(index)}; "
            "turn logits into probabilities by the logistic function first"
        )
    return values


def as_labels(name: str, values: Any) -> Flags:
    """Boolean array or tensor of labels given as bool or as the numbers 0 and 1.

    Raises
    ------
    ValueError
        With the first index whose entry is neither 0 nor 1.
    """
    values = values.detach() if isinstance(values, Tensor) else np.asarray(values)
    if values.dtype in (np.bool_, torch.bool):
        return values
    ones = values == 1
    known = ones | (values == 0)
    if not known.all():
        index = _first(~known)
        raise ValueError(f"{name} must be labels 0 or 1; got {values[index]} at index {_shown(index)}")
    return ones


def check_same_shape(**arrays: Array) -> None:
    """Refuse arrays of different shapes, and a mixture of NumPy and PyTorch.

    Raises
    ------
    ValueError
        With all shapes.
    TypeError
        Where some are arrays and some tensors.
    """
    if len({tuple(array.shape) for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in arrays.items())
        raise ValueError(f"shapes must agree; got {shapes}")
    if len({isinstance(array, Tensor) for array in arrays.values()}) > 1:
        kinds = ", ".join(f"{name} {type(array).__name__}" for name, array in arrays.items())
        raise TypeError(f"pass all as NumPy arrays or all as tensors; got {kinds}")


def as_numpy(values: Any) -> Shaped[np.ndarray, "..."]:
    """The same numbers as a NumPy array."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return values.float().numpy() if values.dtype is torch.bfloat16 else values.numpy()  # NumPy has no bfloat16


def _size(values: Array) -> int:
    return values.numel() if isinstance(values, Tensor) else values.size


def _first(wrong: Flags) -> tuple[int, ...]:
    return tuple(int(position) for position in np.argwhere(as_numpy(wrong))[0])


def _shown(index: tuple[int, ...]) -> int | tuple[int, ...]:
    return index[0] if len(index) == 1 else index
