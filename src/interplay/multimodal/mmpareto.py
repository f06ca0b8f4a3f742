"""MMPareto: steps of an encoder that neither the joined nor its own unimodal loss objects to.

Paper: Wei, Hu, "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance", ICML 2024, arXiv 2405.17730.
Official code: github.com/GeWu-Lab/MMPareto_ICML2024; read, not copied. A baseline of the MCR paper.

An encoder gets two gradients, g from the joined loss and u from its unimodal head. Where they agree (g.u > 0) it steps
along their sum; where they conflict along twice the shortest vector between them,

    2 (a g + (1 - a) u),  a = u.(u - g) / |g - u|^2                                                 (1)

(the min-norm point of the segment, which descends both losses). Each parameter's step is then stretched to the norm of
g + u, if that is larger, and by a factor gamma, 1.5 in the official code: the size of the noise that helps to
generalise.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.multimodal.fusion import FusionNet
from interplay.multimodal.unimodal import MultiLossTraining

__all__ = ["MMPareto", "min_norm_weight"]


def min_norm_weight(first: Tensor, second: Tensor) -> Float[Tensor, ""]:
    """Weight a in [0, 1] of `first` for which a first + (1 - a) second is shortest, equation (1).

    One half for equal vectors.
    """
    gap = first - second
    distance = gap.square().sum()
    weight = -(second * gap).sum() / distance
    return torch.where(distance > 0, weight, 0.5).clamp(0, 1)


class MMPareto(MultiLossTraining):
    """Multi-loss training whose encoders resolve the conflict of their two gradients.

    `loss` takes the gradient of the joined loss on the way, so that `adjust_gradients` can tell it from the unimodal
    one in `Parameter.grad`: call `zero_grad`, `loss`, `backward`, `adjust_gradients` once a step, without accumulation
    and without a scaled loss.

    Parameters
    ----------
    net
        A `FusionNet` with unimodal heads.
    stretch
        gamma.
    **options
        Those of `MultiLossTraining`; the published method has a `unimodal_weight` of 1.

    Raises
    ------
    ValueError
        No unimodal heads, or a stretch that is not positive.
    """

    def __init__(self, net: FusionNet, *, stretch: float = 1.5, **options: object) -> None:
        super().__init__(net, **options)  # type: ignore[arg-type]
        if not stretch > 0:
            raise ValueError(f"stretch must be positive, got {stretch!r}")
        self.stretch = stretch
        self._joined: dict[nn.Parameter, Tensor] = {}
        self._weights: dict[str, float] = {}

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        latents = self.net.encode(inputs)
        joined = self.criterion(self.net.fuse(latents), target)
        learning = [parameter for parameter in self.net.encoders.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(joined, learning, retain_graph=True, materialize_grads=True)
        self._joined = dict(zip(learning, gradients, strict=True))
        alone = [self.criterion(logits, target) for logits in self.net.unimodal_logits(latents).values()]
        return joined + self.unimodal_weight * torch.stack(alone).sum()

    @torch.no_grad()
    def adjust_gradients(self) -> None:
        """Put the resolved gradient of every encoder into `Parameter.grad`.

        Raises
        ------
        RuntimeError
            No `loss` and `backward` before.
        """
        if not self._joined:
            raise RuntimeError("adjust_gradients needs the gradients of this step: call loss and backward first")
        for name in self.modalities:
            learning = [p for p in self.net.encoders[name].parameters() if p in self._joined and p.grad is not None]
            joined = [self._joined[parameter] for parameter in learning]
            alone = [parameter.grad - gradient for parameter, gradient in zip(learning, joined, strict=True)]
            flat = [torch.cat([part.flatten() for part in parts]) for parts in (joined, alone)]
            conflict = (flat[0] @ flat[1]) <= 0
            weight = min_norm_weight(*flat) if conflict else flat[0].new_tensor(0.5)
            self._weights[name] = float(weight)
            for parameter, g, u in zip(learning, joined, alone, strict=True):
                resolved = 2 * (weight * g + (1 - weight) * u)
                scale = (parameter.grad.norm() / resolved.norm()).nan_to_num(1.0, posinf=1.0).clamp(min=1)
                parameter.grad = self.stretch * scale * resolved
        self._joined = {}

    def diagnostics(self) -> dict[str, float]:
        """Weight of the joined gradient in each encoder's last step: 0.5 without conflict."""
        return {f"weight of joined, {name}": weight for name, weight in self._weights.items()}
