"""What modalities share: pull it together where it tells the label, drop it where it does not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["ConditionalBottleneck", "supervised_contrastive"]


def supervised_contrastive(
    latents: Sequence[Float[Tensor, "sample features"]],
    target: Int[Tensor, " sample"] | None = None,
    temperature: float = 0.5,
) -> Float[Tensor, ""]:
    """NT-Xent over the latents of all modalities, where samples of one label attract whichever modality they come from.

    For every ordered pair (i, p) of one label, -log(e^s_ip / (e^s_ip + sum_n e^s_in)) with s the cosine over the
    temperature and n over all latents of other labels: each positive pair has a denominator of its own. The mean over
    pairs is taken; without latents of other labels there is nothing to tell apart, and the loss is 0.

    Parameters
    ----------
    latents
        One matrix a modality, of the same width.
    target
        Labels. None: every sample is a label of its own, so that only its modalities attract.
    temperature
        Positive; low weighs the nearest of the others.

    Raises
    ------
    ValueError
        Latents of different shapes, a temperature that is not positive, or labels of another batch.
    """
    shapes = [tuple(latent.shape) for latent in latents]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2:
        raise ValueError(
            f"latents must be (sample, features) of the same shape in every modality, got {shapes}: project them first"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    samples = len(latents[0])
    if target is None:
        target = torch.arange(samples, device=latents[0].device)
    if target.shape != (samples,):
        raise ValueError(f"target must have one label for each of the {samples} samples, got {tuple(target.shape)}")
    labels = target.repeat(len(latents))
    directions = nn.functional.normalize(torch.cat(list(latents)), dim=1)
    similarity = directions @ directions.T / temperature
    alike = labels[:, None] == labels
    if alike.all():
        return similarity.sum() * 0
    repelling = similarity.masked_fill(alike, -torch.inf).logsumexp(1, keepdim=True)
    losses = torch.logaddexp(similarity, repelling) - similarity
    return losses[alike & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)].mean()


class ConditionalBottleneck(nn.Module):
    """Conditional entropy bottleneck: latents that can be told from the logits hold nothing beside the label.

    The loss is the mean squared error between all latents, side by side, and h(logits), where h is two linear layers
    without bias around a ReLU and the logits are held constant: it moves the encoders and h.

    Parameters
    ----------
    classes
        Number of logits.
    features
        Width of each latent.
    hidden
        Width of the layer between. None: that of the first latent, as in the official code.
    """

    def __init__(self, classes: int, features: Sequence[int], hidden: int | None = None) -> None:
        super().__init__()
        hidden = features[0] if hidden is None else hidden
        self.reconstruct = nn.Sequential(
            nn.Linear(classes, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, sum(features), bias=False)
        )

    def forward(self, latents: Sequence[Tensor], logits: Float[Tensor, "sample class"]) -> Float[Tensor, ""]:
        return nn.functional.mse_loss(self.reconstruct(logits.detach()), torch.cat(list(latents), dim=1))
