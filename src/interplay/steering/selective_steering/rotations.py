"""What is done to an activation in a plane, in rank 2: two dot products and two scaled vectors a token.

With B = [b1 b2] orthonormal, p = h B the coordinates of h in the plane and R the rotation by theta:

- `rotation` (SS):            h' = h + p (R^T - I) B^T, every token turned *by* theta;
- `placement` (SAS):          h' = h - p B^T + |p| (cos theta, sin theta) B^T, every token turned *to* theta;
  adaptive (AAS): only where h . b1 > 0;
- `ablation` (DirAbl):        h' = h - (h . b1) b1;
- `addition` (ActAdd):        h' = h + alpha b1.

Angles are in degrees and grow from b1 to b2. Results have the type of h; sums are done in float32 at least, and the
basis is never rounded to half precision, which would cost its orthonormality three digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Edit
from interplay.steering.selective_steering.plane import SteeringPlane

__all__ = ["Angle", "Mode", "Rotate", "ablation", "addition", "check_angle", "in_plane", "placement", "rotation"]

Angle = float | Tensor
"""One angle in degrees for all rows of a batch, or a floating tensor [batch] with one a row."""

Mode = Literal["ss", "sas", "aas"]
"""Selective, standard angular, adaptive angular steering."""


class Rotate(nn.Module):
    """Turn activations in a plane.

    Parameters
    ----------
    plane
        The plane; its basis stays in float32 whatever the module is cast to.
    mode
        "ss": by theta. "sas": to theta. "aas": to theta where the activation lies on the side of b1.

    Notes
    -----
    All modes keep the norm of every activation. "ss" also keeps all distances, and theta = 0 is the identity; "sas" and
    "aas" are neither linear nor the identity at any theta.
    """

    def __init__(self, plane: SteeringPlane, mode: Mode = "ss") -> None:
        super().__init__()
        self.plane, self.mode = plane, _check_mode(mode)

    def forward(self, h: Float[Tensor, "... d_model"], theta: Angle) -> Float[Tensor, "... d_model"]:
        """The activations turned.

        Parameters
        ----------
        h
            Activations; the batch is the first axis.
        theta
            Degrees; what exceeds a full turn is taken off. A tensor [batch] gives every row an angle of its own.

        Raises
        ------
        ValueError
            An angle that is not finite, another number of angles than rows, or activations of another width.
        """
        return in_plane(self.plane, theta, self.mode)(h)  # type: ignore[return-value]

    def extra_repr(self) -> str:
        return f"mode={self.mode!r}"


def in_plane(plane: SteeringPlane, theta: Angle, mode: Mode) -> Edit:
    """`rotation` or `placement`, by mode."""
    return rotation(plane, theta) if _check_mode(mode) == "ss" else placement(plane, theta, adaptive=mode == "aas")


def rotation(plane: SteeringPlane, theta: Angle) -> Edit:
    """Turn by theta: a linear isometry that leaves everything outside the plane alone."""
    angle = check_angle(theta).double().remainder(360).deg2rad()
    cosine, sine = angle.cos() - 1, angle.sin()
    turn = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)], -2)  # R^T - I
    place = _per_place(plane, turn)

    def edit(h: Tensor) -> Tensor:
        basis, turn = place(h)
        p = _coordinates(h, basis)
        if turn.ndim == 2:
            return _written(h, p @ turn, basis)
        _check_rows(turn, h)
        return _written(h, torch.bmm(p.reshape(len(p), -1, 2), turn).view_as(p), basis)

    return edit


def placement(plane: SteeringPlane, theta: Angle, *, fraction: Angle = 1.0, adaptive: bool = False) -> Edit:
    """Turn to theta, or a fraction of the way there along the shorter arc.

    Parameters
    ----------
    plane
        The plane.
    theta
        Where to; 0 is along b1.
    fraction
        0 is the identity, 1 the published operator; one number or one a row.
    adaptive
        Only where the activation lies on the side of b1.
    """
    published = not isinstance(fraction, Tensor) and fraction == 1
    place = _per_place(plane, check_angle(theta).double().remainder(360).deg2rad(), check_angle(fraction, "fraction"))

    def edit(h: Tensor) -> Tensor:
        basis, target, part = place(h)
        p = _coordinates(h, basis)
        target, part = _beside(target, p), _beside(part, p)
        if published:
            moved = p.norm(dim=-1, keepdim=True) * torch.cat([target.cos(), target.sin()], -1) - p
        else:
            arc = (target - torch.atan2(p[..., 1:], p[..., :1]) + math.pi).remainder(2 * math.pi) - math.pi
            sideways = torch.stack([-p[..., 1], p[..., 0]], -1)
            moved = p * ((part * arc).cos() - 1) + sideways * (part * arc).sin()
        return _written(h, moved * (p[..., :1] > 0) if adaptive else moved, basis)

    return edit


def ablation(plane: SteeringPlane, fraction: Angle = 1.0) -> Edit:
    """Take a fraction of the component along b1 away."""
    place = _per_place(plane, check_angle(fraction, "fraction"))

    def edit(h: Tensor) -> Tensor:
        basis, part = place(h)
        component = _coordinates(h, basis[:, :1])
        return _written(h, -_beside(part, component) * component, basis[:, :1])

    return edit


def addition(plane: SteeringPlane, alpha: Angle) -> Edit:
    """Add alpha times b1, whatever the activation."""
    place = _per_place(plane, check_angle(alpha, "alpha"))

    def edit(h: Tensor) -> Tensor:
        basis, part = place(h)
        return (h + _beside(part, h) * basis[:, 0]).to(h.dtype)

    return edit


def check_angle(value: Angle, name: str = "theta") -> Tensor:
    """The value as a tensor of no or one axis.

    Raises
    ------
    ValueError
        Not finite, or neither a number nor a floating tensor [batch].
    """
    tensor = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    if tensor.ndim > 1 or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must be a finite number or a floating tensor [batch] of them, got {value!r}")
    return tensor


def _check_mode(mode: Mode) -> Mode:
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}; got {mode!r}")
    return mode


def _per_place(plane: SteeringPlane, *values: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Basis and values in the working type and on the device of an activation, made once for each."""
    known: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def place(h: Tensor) -> tuple[Tensor, ...]:
        key = (h.dtype, h.device)
        if key not in known:
            plane.check(h)
            working = torch.promote_types(h.dtype, torch.float32)
            # Tensors made under the inference mode of `generate` could serve no backward pass later.
            with torch.inference_mode(False):
                known[key] = (plane.basis(working, h.device), *(value.to(h.device, working) for value in values))
        return known[key]

    return place


def _coordinates(h: Float[Tensor, "... d_model"], basis: Float[Tensor, "d_model axis"]) -> Float[Tensor, "... axis"]:
    return h.to(basis.dtype) @ basis


def _written(
    h: Float[Tensor, "... d_model"], change: Float[Tensor, "... axis"], basis: Float[Tensor, "d_model axis"]
) -> Float[Tensor, "... d_model"]:
    """The activation plus a change in the plane, rounded once."""
    flat = h.reshape(-1, h.shape[-1]).to(basis.dtype)
    return torch.addmm(flat, change.reshape(-1, change.shape[-1]), basis.mT).view(h.shape).to(h.dtype)


def _beside(value: Tensor, activation: Tensor) -> Tensor:
    """The value shaped to go with an activation, whose first axis is the batch; with a last axis of one."""
    if value.ndim == 0:
        return value.reshape(1)
    _check_rows(value, activation)
    return value.reshape(-1, *[1] * (activation.ndim - 1))


def _check_rows(value: Tensor, activation: Tensor) -> None:
    if activation.ndim < 2 or len(value) != len(activation):
        rows = len(activation) if activation.ndim > 1 else "no"
        raise ValueError(
            f"there are {len(value)} angles or strengths, and the steered batch has {rows} rows; beam search and "
            "num_return_sequences make more rows of a prompt, and boolean positions pack them"
        )
