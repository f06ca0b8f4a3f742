"""How much two circuits share, against circuits of the same heads a layer drawn at random (eq. 7 of the package)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

Kind = Literal["jaccard", "overlap", "weighted"]
Null = Literal["layer-matched", "any-head"]


class Overlap(NamedTuple):
    """How much two circuits share.

    Attributes
    ----------
    value
        The measure, from 0 to 1.
    null_mean
        Its mean when heads are exchanged at random.
    p
        Share of random exchanges that reach `value`.
    """

    value: float
    null_mean: float
    p: float


@runtime_checkable
class Found(Protocol):
    """A fitted `CircuitFinder`."""

    circuit_: set[tuple[int, int]]
    stages_: list[Tensor]


Circuit = Found | Tensor | Iterable[tuple[int, int]]


def circuit_overlap(
    a: Circuit,
    b: Circuit,
    kind: Kind = "jaccard",
    null: Null = "layer-matched",
    n: int = 10_000,
    *,
    shape: tuple[int, int] | None = None,
    rng: np.random.Generator | None = None,
) -> Overlap:
    """Compare two circuits of one model.

    Parameters
    ----------
    a, b
        Fitted `CircuitFinder` objects; or tensors [..., layer, head] of effects (of 0 outside the circuit); or (layer,
        head) pairs, for which `shape` is needed.
    kind
        ``"jaccard"``: |A and B| / |A or B|. ``"overlap"``: |A and B| / min(|A|, |B|). ``"weighted"``: sum min / sum max
        of the absolute effects, each normalised to sum 1; of a finder, stage by stage over all heads.
    null
        ``"layer-matched"``: heads are exchanged within their layers, so that both circuits keep their number of heads
        in each. ``"any-head"``: heads are exchanged over the whole model, which overstates what circuits in the same
        layers have in common.
    n
        Exchanges drawn for ``"weighted"``, with p = (1 + those that reach the value) / (1 + n). For the other kinds the
        distribution of |A and B| is hypergeometric in every layer, and mean and p are exact.
    shape
        Layers and heads of the model, if both circuits are pairs.
    rng
        For ``"weighted"``; by default seeded with 0.

    Raises
    ------
    ValueError
        An unknown kind or null, circuits of different shape, an empty circuit, pairs without shape or weights, n < 1.
    """
    if kind not in ("jaccard", "overlap", "weighted"):
        raise ValueError(f"kind={kind!r}: allowed are 'jaccard', 'overlap' and 'weighted'")
    if null not in ("layer-matched", "any-head"):
        raise ValueError(f"null={null!r}: allowed are 'layer-matched' and 'any-head'")
    if kind == "weighted":
        if n < 1:
            raise ValueError(f"n={n}: draw one exchange or more")
        return _weighted(_weights("a", a), _weights("b", b), null, n, rng or np.random.default_rng(0))
    shape = shape or next((found for found in map(_shape, (a, b)) if found), None)
    if shape is None:
        raise ValueError("shape is needed to compare (layer, head) pairs: the model's numbers of layers and heads")
    one, two = _members("a", a, shape), _members("b", b, shape)
    if null == "any-head":
        one, two = one.reshape(1, -1), two.reshape(1, -1)
    sizes = int(one.sum()), int(two.sum())
    chances = np.ones(1)
    for in_one, in_two in zip(one.sum(1), two.sum(1), strict=True):
        common = np.arange(min(in_one, in_two) + 1)
        chances = np.convolve(chances, stats.hypergeom.pmf(common, one.shape[1], in_one, in_two))
    common = np.arange(len(chances))
    values = common / (min(sizes) if kind == "overlap" else sum(sizes) - common)
    shared = int((one & two).sum())
    return Overlap(float(values[shared]), float(chances @ values), float(min(1.0, chances[shared:].sum())))


def _weighted(one: np.ndarray, two: np.ndarray, null: Null, n: int, rng: np.random.Generator) -> Overlap:
    if one.shape != two.shape:
        raise ValueError(f"a and b must have the same shape; got {list(one.shape)} and {list(two.shape)}")
    if null == "any-head":
        one, two = (part.reshape(*part.shape[:-2], 1, -1) for part in (one, two))

    def shared(other: np.ndarray) -> float:
        return float(np.minimum(one, other).sum() / np.maximum(one, other).sum())

    value = shared(two)
    drawn = np.empty(n)
    for index in range(n):
        order = rng.permuted(np.tile(np.arange(two.shape[-1]), (two.shape[-2], 1)), axis=1)
        drawn[index] = shared(np.take_along_axis(two, np.broadcast_to(order, two.shape), axis=-1))
    # Sums in another order may differ in their last bits.
    return Overlap(value, float(drawn.mean()), float((1 + (drawn >= value - 1e-12).sum()) / (1 + n)))


def _shape(circuit: Circuit) -> tuple[int, int] | None:
    effects = circuit.stages_[0] if isinstance(circuit, Found) else circuit
    return (effects.shape[-2], effects.shape[-1]) if isinstance(effects, Tensor) and effects.ndim >= 2 else None


def _members(name: str, circuit: Circuit, shape: tuple[int, int]) -> np.ndarray:
    """Which heads belong to the circuit, [layer, head]."""
    if (own := _shape(circuit)) is not None and own != tuple(shape):
        raise ValueError(f"{name} is of a model of {own[0]} layers x {own[1]} heads, not {shape[0]} x {shape[1]}")
    if isinstance(circuit, Tensor):
        members = (circuit != 0).reshape(-1, *shape).any(0).cpu().numpy()
    else:
        members = np.zeros(shape, dtype=bool)
        for layer, head in circuit.circuit_ if isinstance(circuit, Found) else circuit:
            if not (0 <= layer < shape[0] and 0 <= head < shape[1]):
                raise ValueError(
                    f"{name} holds head {layer}.{head}; the model has {shape[0]} layers x {shape[1]} heads"
                )
            members[layer, head] = True
    if not members.any():
        raise ValueError(f"{name} is an empty circuit; there is nothing to compare")
    return members


def _weights(name: str, circuit: Circuit) -> np.ndarray:
    """Absolute effects that sum to 1, [..., layer, head]; of a finder every stage sums to the same."""
    if isinstance(circuit, Found):
        stages = [stage.abs().double() for stage in circuit.stages_]
        effects = torch.stack([stage / stage.sum().clamp(min=1e-300) for stage in stages])
    elif isinstance(circuit, Tensor) and circuit.ndim >= 2:
        effects = circuit.abs().double()
    else:
        raise ValueError(f"{name} must be effects [..., layer, head] or a fitted finder to be compared by weight")
    if not effects.sum() > 0:
        raise ValueError(f"{name} is an empty circuit; there is nothing to compare")
    weights: np.ndarray = (effects / effects.sum()).cpu().numpy()
    return weights
