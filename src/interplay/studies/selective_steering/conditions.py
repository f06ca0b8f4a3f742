"""The methods that are compared: published ones, where SS turns, and planes by chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interplay.steering.interface import ModelShape, Steering
from interplay.steering.selective_steering import (
    DirectionAddition,
    DirectionalAblation,
    SelectiveSteering,
    SteeringPlane,
    rotations,
)
from interplay.studies.steered_answers import Dial

__all__ = ["ABLATIONS", "ALL_BLOCKS", "ANGULAR", "Condition", "chance_plane", "conditions"]

ANGULAR: Mapping[str, rotations.Mode] = MappingProxyType({"SS": "ss", "SAS": "sas", "AAS": "aas"})
"""The methods of the paper, and how each turns."""

ALL_BLOCKS = "SS in all blocks"
ABLATIONS = (
    "SS in the first half",
    "SS in the second half",
    "SS in a random half",
    "SS in the other blocks",
    "SS in a random plane",
)
ADDED = tuple(-(2.0**power) for power in range(-5, 3))
"""Strengths of the additions, in median norms; negative ones lead away from refusing."""


@dataclass(frozen=True)
class Condition:
    """A way to steer.

    Parameters
    ----------
    name
        Of the method.
    dial
        How it is steered at given settings.
    settings
        All that are tried.
    choosable
        Those of them among which the best is chosen: of angles the half turn, as the paper does.
    """

    name: str
    dial: Dial
    settings: tuple[float, ...]
    choosable: tuple[float, ...]


class _Turned(NamedTuple):
    """Turning in some blocks; in none of them nothing is done."""

    model: Any
    steering: SelectiveSteering
    mode: rotations.Mode
    blocks: Sequence[int]

    def __call__(self, thetas: Tensor) -> AbstractContextManager[Any]:
        if not self.blocks:
            return nullcontext()
        return self.steering.at(self.model, thetas, mode=self.mode, layers=self.blocks)


class _Strengthened(NamedTuple):
    """A steering at strengths, in units of `unit`."""

    model: Any
    steering: Steering
    unit: float = 1.0

    def __call__(self, strengths: Tensor) -> AbstractContextManager[Any]:
        return self.steering.applied(self.model, strengths * self.unit)


def conditions(
    model: Any, plane: SteeringPlane, degrees: float, coarse: float, planes: int, rng: np.random.Generator
) -> list[Condition]:
    """Every condition in a fitted plane; those in a plane by chance all have one name.

    Parameters
    ----------
    model
        What the plane was fitted on.
    plane
        The plane.
    degrees, coarse
        Steps between the angles of the paper's methods, and of the ablations.
    planes
        How many planes are drawn.
    rng
        Draws the random half and the random planes.
    """
    shape = ModelShape.of(model)
    blocks = sorted(set(plane.blocks))
    chosen = plane.discriminative_blocks
    steering = SelectiveSteering.on_plane(shape, plane, layers="all")
    half = len(blocks) // 2

    def turned(
        name: str, blocks: Sequence[int], step: float, mode: rotations.Mode = "ss", by: SelectiveSteering = steering
    ) -> Condition:
        angles = tuple(float(angle) for angle in np.arange(0, 360 + step / 2, step))
        return Condition(
            name, _Turned(model, by, mode, blocks), angles, tuple(angle for angle in angles if angle <= 180)
        )

    found = [Condition("none", lambda _: nullcontext(), (0.0,), (0.0,))]
    found += [turned(name, chosen if mode == "ss" else blocks, degrees, mode) for name, mode in ANGULAR.items()]
    found.append(turned(ALL_BLOCKS, blocks, degrees))
    places = (
        blocks[:half],
        blocks[half:],
        sorted(rng.choice(blocks, half, replace=False).tolist()),
        [block for block in blocks if block not in chosen],
    )
    found += [turned(name, place, coarse) for name, place in zip(ABLATIONS[:-1], places, strict=True)]
    for _ in range(planes):
        by_chance = SelectiveSteering.on_plane(shape, chance_plane(plane, rng), layers="all")
        found.append(turned(ABLATIONS[-1], chosen, coarse, by=by_chance))
    ablation = DirectionalAblation.on_plane(shape, plane)
    found.append(Condition("DirAbl", _Strengthened(model, ablation), (1.0,), (1.0,)))
    addition = DirectionAddition.on_plane(shape, plane, scale="none")
    unit = float(plane.norms.median())
    found.append(Condition("ActAdd", _Strengthened(model, addition, unit), ADDED, ADDED))
    scaled = DirectionAddition.on_plane(shape, plane, scale="norm")
    found.append(Condition("ActAdd in norms of the site", _Strengthened(model, scaled), ADDED, ADDED))
    return found


def chance_plane(plane: SteeringPlane, rng: np.random.Generator) -> SteeringPlane:
    """A plane at the same sites whose two axes are drawn."""
    axes = np.linalg.qr(rng.standard_normal((plane.d_model, 2)))[0]
    found = SteeringPlane(plane.d_model, plane.sites)
    found.b1.copy_(torch.from_numpy(axes[:, 0]))
    found.b2.copy_(torch.from_numpy(axes[:, 1]))
    return found
