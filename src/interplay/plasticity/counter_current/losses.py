"""The local losses: what makes the two networks agree at every level."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from interplay.plasticity.counter_current.network import CounterCurrentNet

__all__ = ["CounterCurrentObjective", "Kind", "LocalLosses", "counter_current_loss"]

Kind = Literal["inner", "cosine", "reconstruction"]

MANY_CLASSES = 5000
_NORM_OFFSET = 1e-8


class LocalLosses(NamedTuple):
    """What one batch costs.

    Parameters
    ----------
    total
        Sum of `per_level`: one backward pass gives every layer its local gradient.
    per_level
        Losses of levels 0 to L - 1, then that of the outputs.
    """

    total: Float[Tensor, ""]
    per_level: list[Tensor]


def counter_current_loss(
    activations: Sequence[Tensor],
    signals: Sequence[Tensor],
    labels: Tensor | None = None,
    *,
    kind: Kind = "inner",
    scale: float | None = None,
    width_norm: float = 256.0,
    decorrelation: float = 0.0,
    mask_confident: float | None = None,
) -> LocalLosses:
    """Local losses of all levels.

    Parameters
    ----------
    activations, signals
        Levels 0 to L of `CounterCurrentNet.activations` and `CounterCurrentNet.signals`.
    labels
        Classes (batch,), or their probabilities (batch, classes). Not used by kind "reconstruction", where row by row
        the signals belong to the activations and the top level of the signals holds the targets.
    kind
        "inner", equation (3): inner products of activities and class codes towards class membership, for multi-layer
        perceptrons. "cosine", equation (4): the same for rows of unit length, for convolutional networks.
        "reconstruction", equation (5): mean squared differences, for autoencoders and regression.
    scale
        s. Default: .5 for "inner", 1 for the others, as in the published settings.
    width_norm
        Kind "inner" divides by the width of the level in multiples of this.
    decorrelation
        Kind "cosine": weight of the terms that hold activities of different samples, and codes of different classes,
        at right angles. The published convolutional networks have .5.
    mask_confident
        Samples whose predicted probability of their class is within this of the target take no part in the losses
        below the top. The published convolutional networks have .1.

    Returns
    -------
    LocalLosses
        The total and the parts.

    Raises
    ------
    ValueError
        Levels that do not match, by their number and shapes; labels outside the classes; targets of a regression with
        another kind than "reconstruction".
    TypeError
        Labels that are neither integers nor floating point.
    """
    _check_settings(kind, scale, decorrelation, mask_confident)
    _check_levels(activations, signals, rows_match=kind == "reconstruction")
    if kind == "reconstruction":
        return _reconstruction(activations, signals, 1.0 if scale is None else scale)
    if labels is None:
        raise ValueError(f"labels are needed by kind={kind!r}; for targets without classes take kind='reconstruction'")
    outputs, codes = activations[-1], signals[-1]
    probabilities = _probabilities(labels, outputs)
    # One row a class: T is the identity and membership is the one-hot label. One row a sample: same class or not.
    membership = probabilities @ codes.T
    kept = None if mask_confident is None else _unsure(outputs, probabilities, mask_confident)
    scale = scale if scale is not None else 0.5 if kind == "inner" else 1.0
    per_level = []
    for activity, code in zip(activations[:-1], signals[:-1], strict=True):
        rows, columns = activity.flatten(1), code.flatten(1)
        if kept is not None:
            rows = rows * kept[:, None]
        if kind == "inner":
            strength = scale * width_norm / rows.shape[1]
            per_level.append(strength * functional.mse_loss(rows @ columns.T, membership))
        else:
            per_level.append(_cosine_level(rows, columns, membership, scale, decorrelation))
    per_level.append(functional.cross_entropy(outputs, labels))
    return LocalLosses(torch.stack(per_level).sum(), per_level)


class CounterCurrentObjective(nn.Module):
    """The network and its local losses as one module: what a training loop calls, and what runs under `torch.func`.

    Parameters
    ----------
    net
        The two networks.
    kind, **settings
        As in `counter_current_loss`.
    """

    def __init__(self, net: CounterCurrentNet, kind: Kind = "inner", **settings: float | None) -> None:
        super().__init__()
        known = {"scale", "width_norm", "decorrelation", "mask_confident"}
        if unknown := sorted(set(settings) - known):
            raise TypeError(f"no setting is called {unknown[0]!r}; they are {', '.join(sorted(known))}")
        _check_settings(kind, *(settings.get(name) for name in ("scale", "decorrelation", "mask_confident")))
        self.net = net
        self.kind: Kind = kind
        self.settings = settings

    def forward(self, inputs: Float[Tensor, "batch ..."], targets: Tensor) -> LocalLosses:
        """Local losses of a batch.

        Parameters
        ----------
        inputs
            Floating point.
        targets
            Classes (batch,) or their probabilities (batch, classes); for kind "reconstruction" what the outputs should
            be, sample by sample.
        """
        activations = self.net.activations(inputs)
        if self.kind == "reconstruction":
            signals = self.net.signals(targets)
        else:
            outputs = activations[-1]
            signals = self.net.signals(torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device))
        return counter_current_loss(activations, signals, targets, kind=self.kind, **self.settings)

    def extra_repr(self) -> str:
        """The settings."""
        return ", ".join([f"kind={self.kind!r}", *(f"{name}={value}" for name, value in self.settings.items())])


def _cosine_level(rows: Tensor, columns: Tensor, membership: Tensor, scale: float, decorrelation: float) -> Tensor:
    """Equation (4)."""
    rows, columns = (side / (side.norm(dim=1, keepdim=True) + _NORM_OFFSET) for side in (rows, columns))
    loss = scale * functional.mse_loss(rows @ columns.T, membership)
    if decorrelation:
        for side in (rows, columns):
            identity = torch.eye(len(side), dtype=side.dtype, device=side.device)
            loss = loss + decorrelation * functional.mse_loss(side @ side.T, identity)
    return loss


def _reconstruction(activations: Sequence[Tensor], signals: Sequence[Tensor], scale: float) -> LocalLosses:
    """Equation (5)."""
    per_level = []
    last = len(activations) - 1
    for level, (activity, signal) in enumerate(zip(activations, signals, strict=True)):
        height = activity.shape[2] if activity.ndim > 2 else 1
        loss = functional.mse_loss(activity, signal)
        if 0 < level < last:
            loss = loss + functional.mse_loss(_unit_map(activity), _unit_map(signal))
        per_level.append(scale * height * loss)
    return LocalLosses(torch.stack(per_level).sum(), per_level)


def _unit_map(level: Tensor) -> Tensor:
    """Each channel's map without its mean, at unit length; of a vector, the whole of it is the map."""
    space = tuple(range(2, level.ndim)) or (1,)
    centred = level - level.mean(space, keepdim=True)
    return centred / (torch.linalg.vector_norm(centred, dim=space, keepdim=True) + _NORM_OFFSET)


def _probabilities(labels: Tensor, outputs: Tensor) -> Tensor:
    classes = outputs.shape[1]
    if labels.is_floating_point():
        if labels.shape != outputs.shape:
            raise ValueError(
                f"floating-point labels must be probabilities of shape {tuple(outputs.shape)}, got "
                f"{tuple(labels.shape)}; for a regression take kind='reconstruction'"
            )
        if _is_true((labels < 0).any() | ((labels.sum(1) - 1).abs() > 1e-3).any()):
            raise ValueError(
                "labels must be probabilities that sum to 1 in each row; for a regression take kind='reconstruction'"
            )
        return labels
    if labels.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise TypeError(f"labels must be integer classes or probabilities, got {labels.dtype}")
    if labels.ndim != 1 or len(labels) != len(outputs):
        raise ValueError(f"labels must be ({len(outputs)},), one class a sample, got shape {tuple(labels.shape)}")
    if _is_true((labels < 0).any() | (labels >= classes).any()):
        raise ValueError(f"labels must lie in 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    return (labels[:, None] == torch.arange(classes, device=labels.device)).to(outputs.dtype)


def _is_true(condition: Tensor) -> bool:
    """Whether a condition on values is met; under `torch.compile` and `torch.func.vmap` nobody looks at values."""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(condition):
        return False
    return bool(condition)


@torch.no_grad()
def _unsure(outputs: Tensor, probabilities: Tensor, margin: float) -> Tensor:
    confident = ((outputs.softmax(1) - probabilities).abs() < margin).to(outputs.dtype)
    return 1 - (confident * probabilities).sum(1)


def _check_settings(kind: str, scale: float | None, decorrelation: float | None, mask_confident: float | None) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale must be a positive number, got {scale!r}")
    if decorrelation and kind != "cosine":
        raise ValueError(f"decorrelation belongs to kind='cosine', got kind={kind!r}")
    if mask_confident is not None and kind == "reconstruction":
        raise ValueError("mask_confident needs classes, and kind='reconstruction' has none")


def _check_levels(activations: Sequence[Tensor], signals: Sequence[Tensor], *, rows_match: bool) -> None:
    if len(activations) != len(signals) or len(activations) < 2:
        raise ValueError(
            f"activations and signals must have the same levels, 0 to L; got {len(activations)} and {len(signals)}"
        )
    for level, (activity, signal) in enumerate(zip(activations, signals, strict=True)):
        first = 0 if rows_match else 1
        if activity.shape[first:] != signal.shape[first:]:
            raise ValueError(
                f"level {level} of the feedback network does not mirror the forward network: activities have shape "
                f"{tuple(activity.shape)}, signals {tuple(signal.shape)}"
                + ("" if rows_match else " (the first number, samples and classes, may differ)")
            )
    if not rows_match and len(signals[-1]) > MANY_CLASSES:
        warnings.warn(
            f"the feedback network runs on {len(signals[-1])} rows, one a class; with so many, it costs more than the "
            "forward network",
            UserWarning,
            stacklevel=3,
        )
