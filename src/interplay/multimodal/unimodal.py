"""Baselines made of unimodal training: losses added, ensembles, encoders that were trained alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.multimodal.fusion import FusionNet
from interplay.multimodal.training import TrainingMethod
from interplay.primitives.modes import evaluating

__all__ = ["FrozenEncoders", "MultiLossTraining", "UnimodalEnsemble", "load_encoders"]


class MultiLossTraining(TrainingMethod):
    """The loss of the joined prediction plus those of the unimodal heads: every encoder learns whoever is ahead.

    Parameters
    ----------
    net
        A `FusionNet` with unimodal heads.
    unimodal_weight
        Weight of their summed losses.
    **options
        Those of `TrainingMethod`.

    Raises
    ------
    ValueError
        No unimodal heads, or a negative weight.
    """

    def __init__(self, net: FusionNet, *, unimodal_weight: float = 1.0, **options: object) -> None:
        super().__init__(net, **options)  # type: ignore[arg-type]
        _need_heads(net)
        if not unimodal_weight >= 0:
            raise ValueError(f"unimodal_weight must be zero or more, got {unimodal_weight!r}")
        self.unimodal_weight = unimodal_weight

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        latents = self.net.encode(inputs)
        alone = [self.criterion(logits, target) for logits in self.net.unimodal_logits(latents).values()]
        return self.criterion(self.net.fuse(latents), target) + self.unimodal_weight * torch.stack(alone).sum()


class UnimodalEnsemble(TrainingMethod):
    """Each encoder with its own head, trained alone; the prediction is the mean of their probabilities.

    The gradients do not meet, so that one loop trains all modalities as independent runs, as long as the optimiser
    treats parameters one by one: clip gradients here, modality by modality, and not all together.

    Parameters
    ----------
    net
        A `FusionNet` with unimodal heads; its joined head is neither trained nor used.
    largest_norm
        To which `adjust_gradients` clips the gradient of each modality's encoder and head. None: no clipping.
    **options
        Those of `TrainingMethod`.

    Raises
    ------
    ValueError
        No unimodal heads.
    """

    def __init__(self, net: FusionNet, *, largest_norm: float | None = None, **options: object) -> None:
        super().__init__(net, **options)  # type: ignore[arg-type]
        _need_heads(net)
        self.largest_norm = largest_norm

    def logits(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "sample class"]:
        """Log of the mean probability over modalities."""
        alone = torch.stack(list(self.net.unimodal_logits(self.net.encode(inputs)).values()))
        return alone.log_softmax(-1).logsumexp(0) - math.log(len(alone))

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        alone = self.net.unimodal_logits(self.net.encode(inputs))
        return torch.stack([self.criterion(logits, target) for logits in alone.values()]).sum()

    def adjust_gradients(self) -> None:
        if self.largest_norm is None:
            return
        for name in self.modalities:
            own = [*self.net.encoders[name].parameters(), *self.net.unimodal_heads[name].parameters()]
            nn.utils.clip_grad_norm_(own, self.largest_norm)


class FrozenEncoders(TrainingMethod):
    """Only the head learns, on encoders that were trained before and are held in evaluation mode.

    Parameters
    ----------
    net
        A `FusionNet`; see `load_encoders`. Fine-tuning is `JointTraining` from the same start.
    **options
        Those of `TrainingMethod`.
    """

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        with torch.no_grad(), evaluating(self.net.encoders):
            latents = self.net.encode(inputs)
        return self.criterion(self.net.fuse(latents), target)


def load_encoders(net: FusionNet, trained: FusionNet) -> FusionNet:
    """Let `net` start from the encoders, and where both have them the unimodal heads, of a net trained before.

    Returns
    -------
    FusionNet
        `net`, whose joined head is as it was.

    Raises
    ------
    ValueError
        Nets of different modalities.
    """
    if net.modalities != trained.modalities:
        raise ValueError(f"trained must have the modalities {net.modalities}, got {trained.modalities}")
    net.encoders.load_state_dict(trained.encoders.state_dict())
    if net.unimodal_heads is not None and trained.unimodal_heads is not None:
        net.unimodal_heads.load_state_dict(trained.unimodal_heads.state_dict())
    return net


def _need_heads(net: nn.Module) -> None:
    if getattr(net, "unimodal_heads", None) is None:
        raise ValueError("net has no unimodal_heads; give them when you make the FusionNet")
