"""What the operators do to lengths, distances and angles of the activations of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interplay.evidence import Measurement
from interplay.primitives.activations import Edit, Site, record
from interplay.primitives.prompts import model_inputs, pad_left
from interplay.steering.selective_steering import SteeringPlane, ablation, addition, placement, rotation

__all__ = ["activations", "geometry"]

PRECISIONS: Mapping[str, torch.dtype] = MappingProxyType(
    {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
)
ANGLES = tuple(float(angle) for angle in range(30, 360, 30))

_OPERATORS: Mapping[str, Callable[[SteeringPlane, float], Edit]] = MappingProxyType(
    {
        "SS": rotation,
        "SAS": placement,
        "AAS": lambda plane, theta: placement(plane, theta, adaptive=True),
        "DirAbl": lambda plane, _: ablation(plane),
        "ActAdd": lambda plane, _: addition(plane, -float(plane.norms.median())),
    }
)


@torch.inference_mode()
def activations(organism: Any, examples: Sequence[Any], plane: SteeringPlane) -> list[Float[Tensor, "token d_model"]]:
    """Those of all tokens, at every site of a plane."""
    ids, mask = pad_left([example.input_ids for example in examples], organism.grammar.vocabulary.pad_id)
    sites = [Site("module", path=site) for site in plane.sites]
    with record(organism.model, sites) as seen:
        organism.model(**model_inputs(organism.model, ids, mask), use_cache=False)
    return [seen[site][mask.bool()] for site in sites]


def geometry(
    plane: SteeringPlane, seen: Sequence[Float[Tensor, "token d_model"]], rng: np.random.Generator
) -> Iterator[Measurement]:
    """Largest change of a norm in each precision, of a distance, and the spread of the angles in the plane after it."""
    for name, operator in _OPERATORS.items():
        edits = [operator(plane, angle) for angle in ANGLES]
        for precision, dtype in PRECISIONS.items():
            stored = [site.to(dtype) for site in seen]
            change = max(_norm_change(edit, site) for edit in edits for site in stored)
            yield Measurement(name, f"largest change of a norm, {precision}", change)
        exact = [site.double() for site in seen]
        pairs = [torch.from_numpy(rng.permutation(len(site))) for site in exact]
        defect = max(
            _distance_change(edit, site, order) for edit in edits for site, order in zip(exact, pairs, strict=True)
        )
        yield Measurement(name, "largest change of a distance", defect)
        yield Measurement(
            name, "circular variance in the plane", float(np.mean([_spread(plane, edits[0](site)) for site in exact]))
        )
    before = [_spread(plane, site.double()) for site in seen]
    yield Measurement("none", "circular variance in the plane", float(np.mean(before)))


def _norm_change(edit: Edit, h: Float[Tensor, "token d_model"]) -> float:
    after, before = (each.double().norm(dim=-1) for each in (edit(h), h))  # type: ignore[union-attr]
    return float((after / before - 1).abs().max())


def _distance_change(edit: Edit, h: Float[Tensor, "token d_model"], order: Tensor) -> float:
    """Of each activation to another one; the same token has the same activation at the first norm, and is left out."""
    before = (h - h[order]).norm(dim=-1)
    turned = edit(h)
    after = (turned - turned[order]).norm(dim=-1)  # type: ignore[index, operator]
    apart = before > 1e-6 * h.norm(dim=-1)
    return float((after[apart] / before[apart] - 1).abs().max())


def _spread(plane: SteeringPlane, h: Float[Tensor, "token d_model"] | None) -> float:
    """Circular variance of the angles: 0 where all are the same, 1 where they point everywhere."""
    angles = plane.angle_of(h).deg2rad()  # type: ignore[arg-type]
    return float(1 - torch.hypot(angles.cos().mean(), angles.sin().mean()))
