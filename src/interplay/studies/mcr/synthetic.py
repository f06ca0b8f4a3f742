"""A task of which it is known what each modality tells: samples can be told from one, from the other, or from both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.assets.audio_visual import PairedSamples
from interplay.multimodal.fusion import FusionNet, LinearFusion
from interplay.primitives.randomness import initialised_from

__all__ = ["CLASSES", "UniqueAndShared", "perceptron_pair"]

CLASSES = 5
LATENT, INPUTS, HIDDEN, FEATURES = 40, 100, 128, 64
EMBEDDING_NORM = 2.2


class UniqueAndShared(NamedTuple):
    """The task X_m = T_m (N_m + [m informative] e_m[y]), with noise N_m ~ N(0, I) in 40 dimensions.

    A sample is informative in the first modality alone, in the second alone, or in both, with probabilities `unique`
    and what is left of one; y is uniform. T_m maps to 100 dimensions.

    Attributes
    ----------
    unique
        Probabilities U1 and U2.
    embeddings
        e_m, (modality, class, 40), of norm 2.2.
    transforms
        T_m, (modality, 40, 100).
    """

    unique: tuple[float, float]
    embeddings: Float[Tensor, "modality class latent"]
    transforms: Float[Tensor, "modality latent input"]

    @classmethod
    def draw(cls, unique: tuple[float, float], generator: torch.Generator) -> UniqueAndShared:
        """A task with random directions and transforms."""
        directions = nn.functional.normalize(torch.randn(2, CLASSES, LATENT, generator=generator), dim=-1)
        transforms = torch.randn(2, LATENT, INPUTS, generator=generator) / LATENT**0.5
        return cls(unique, EMBEDDING_NORM * directions, transforms)

    def sample(
        self, number: int, generator: torch.Generator
    ) -> tuple[PairedSamples, Float[Tensor, "modality sample latent"]]:
        """Samples, and their latent variables N_m + [informative] e_m[y], which only the ideal observer sees."""
        labels = torch.randint(CLASSES, (number,), generator=generator)
        kind = torch.rand(number, generator=generator)
        first, second = self.unique
        informative = torch.stack([(kind < first) | (kind >= first + second), kind >= first])
        hidden = torch.randn(2, number, LATENT, generator=generator)
        hidden = hidden + informative[..., None] * self.embeddings[:, labels]
        inputs = hidden @ self.transforms
        return PairedSamples({"first": inputs[0], "second": inputs[1]}, labels), hidden

    def ideal(self, hidden: Float[Tensor, "modality sample latent"]) -> Float[Tensor, "sample class"]:
        """Log-posterior, up to a constant, of who knows the task: the most accurate prediction that there is.

        With the likelihood ratios r_m[y] = exp(e_m[y].h_m - |e_m[y]|^2 / 2) of a modality that is informative against
        one that is not, p(y | h) is proportional to U1 r_1[y] + U2 r_2[y] + (1 - U1 - U2) r_1[y] r_2[y].
        """
        ratios = hidden @ self.embeddings.mT - self.embeddings.square().sum(-1)[:, None] / 2
        first, second = self.unique
        chances = torch.tensor([first, second, 1 - first - second]).clamp(min=0).log()
        kinds = [chances[0] + ratios[0], chances[1] + ratios[1], chances[2] + ratios.sum(0)]
        return torch.stack(kinds).logsumexp(0)


def perceptron_pair(generator: torch.Generator, features: Sequence[int] = (FEATURES, FEATURES)) -> FusionNet:
    """Two perceptrons of one hidden layer, a linear head on their latents, and a linear head on each."""
    with initialised_from(generator):
        encoders = {
            name: nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width), nn.ReLU())
            for name, width in zip(("first", "second"), features, strict=True)
        }
        head = LinearFusion(features, CLASSES)
        heads = {name: nn.Linear(width, CLASSES) for name, width in zip(encoders, features, strict=True)}
    return FusionNet(encoders, head, heads)
