"""Selective steering: turn a language model's activations in one plane, where two classes lie on opposite sides.

| | |
| --- | --- |
| paper | Dang, Ngo, "Selective Steering: Norm-Preserving Control Through Discriminative Layer Selection" |
| where | ACL 2026, arXiv 2601.19375; builds on Angular Steering (Vu et al., 2025) |
| official code | github.com/knoveleng/steering (MIT), github.com/lone17/angular-steering |
| works on | any Hugging Face decoder whose blocks have norms |
| input, output | activations [batch, position, d_model] at the norms' outputs, of the same shape |
| learnable | no |
| deterministic | yes |

Sites are the outputs of every block's norms. a are the activations of prompts at their last token, + those that show a
behaviour, - those that do not, k a site.

1. d_k = (mu+_k - mu-_k) / |.|, the candidates; k* = argmax_k mean_j cos(d_k, d_j); b1 = d_k*.
2. b2: the first principal component of all d_k, made orthogonal to b1. One plane for all sites.
3. m+_k = mean of a . b1 / |a| over class +, m-_k over class -. A block is *discriminative* if m+_k m-_k < 0 at all
   of its sites.
4. SS, in discriminative blocks: h' = h - P h + B R(theta) B^T h, with B = [b1 b2], P = B B^T: every token is turned
   *by* theta.
5. SAS, in all blocks: h' = h - P h + |P h| (cos theta b1 + sin theta b2): *to* theta. AAS: SAS where h . b1 > 0.

Strength, the dial that all steering methods share, is 0 for the unsteered model. SS turns by strength times `degrees`.
SAS and AAS, which are the identity at no angle, go the fraction `strength` of the shorter arc to their `target`.

Differences from the official code
----------------------------------
- Every operator is computed in rank 2; no d x d matrix is built. The basis stays in float32 for activations in half
  precision.
- Class means are taken in float64. Where a chat template ends all prompts alike, the first norm sees the same token in
  both classes, and rounding would otherwise be normalised into a direction of length one.
- The sign of the principal component is fixed, see `SteeringPlane`; the official one depends on the machine.
- The official addition chooses its coefficients so that it is SAS again. `DirectionAddition` adds one vector.
- The norms are looked for among each block's own modules, so a final norm whose name would match is no site.
"""

from interplay.steering.selective_steering.methods import (
    AngularSteering,
    DirectionAddition,
    DirectionalAblation,
    PlaneSteering,
    SelectiveSteering,
)
from interplay.steering.selective_steering.norms import NORMS, norm_sites
from interplay.steering.selective_steering.plane import PlaneCoordinates, SteeringPlane, plane_of_directions
from interplay.steering.selective_steering.rotations import Rotate, ablation, addition, placement, rotation

__all__ = [
    "NORMS",
    "AngularSteering",
    "DirectionAddition",
    "DirectionalAblation",
    "PlaneCoordinates",
    "PlaneSteering",
    "Rotate",
    "SelectiveSteering",
    "SteeringPlane",
    "ablation",
    "addition",
    "norm_sites",
    "placement",
    "plane_of_directions",
    "rotation",
]
