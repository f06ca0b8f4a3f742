"""Inference-time intervention: move the outputs of the attention heads in which a probe finds the behaviour.

z_h <- z_h + strength * alpha * sigma_h * theta_h for the K heads with the most accurate linear probes: theta_h is the
unit mean difference of the two classes, sigma_h the standard deviation of activations along it (Li et al., 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site
from interplay.primitives.decoders import Decoder
from interplay.steering.collection import collect_activations
from interplay.steering.interface import ModelShape, Steering, Strength, by_row

__all__ = ["InferenceTimeIntervention", "probe_accuracies"]


class InferenceTimeIntervention(Steering):
    """Add a vector to the outputs of some attention heads, before the output projection.

    Parameters
    ----------
    shape
        Of the model.
    k
        How many heads.
    width
        Entries of a head's output.

    Attributes
    ----------
    layers, heads : Tensor
        Which, [k], int64; buffers.
    vectors : Tensor
        What strength 1 adds, alpha * sigma * theta, [k, width], float32; a buffer.

    Raises
    ------
    ValueError
        More heads than the model has, or none.
    """

    method = "iti"
    layers: Int[Tensor, " k"]
    heads: Int[Tensor, " k"]
    vectors: Float[Tensor, "k width"]

    def __init__(self, shape: ModelShape, k: int, width: int) -> None:
        super().__init__(shape)
        there = self.shape.n_layers * self.shape.n_heads
        if not 1 <= k <= there:
            raise ValueError(f"k must be between 1 and the model's {there} heads, got {k}")
        self.k, self.width = int(k), int(width)
        self.register_buffer("layers", torch.zeros(self.k, dtype=torch.long))
        self.register_buffer("heads", torch.zeros(self.k, dtype=torch.long))
        self.register_buffer("vectors", torch.zeros(self.k, self.width))

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        tokenizer: Any,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        k: int = 8,
        alpha: float = 1.0,
        **options: Any,
    ) -> Self:
        """Probe every head at the last token, and take the mean differences of the best.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positive, negative
            Prompts that show the behaviour, and that do not.
        k, alpha
            How many heads, and how hard.
        **options
            Those of `collect_activations`.
        """
        decoder = Decoder(model)
        sites = [Site("heads", layer) for layer in range(decoder.n_layers)]
        pos, neg = (
            torch.stack(list(collect_activations(model, tokenizer, texts, sites, **options).values()), 1)
            for texts in (positive, negative)
        )
        steering = cls(ModelShape.of(model), k, pos.shape[-1])
        # Heads that are equally good keep their order.
        accuracies = probe_accuracies(pos, neg).flatten()
        best = torch.from_numpy(np.argsort(-accuracies, kind="stable")[:k].copy())
        difference = (pos.mean(0) - neg.mean(0)).flatten(0, 1)[best]
        theta = difference / difference.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        along = (torch.cat([pos, neg]).flatten(1, 2)[:, best] * theta).sum(-1)
        steering.layers, steering.heads = best // decoder.n_heads, best % decoder.n_heads
        steering.vectors = (alpha * along.std(0, correction=0)[:, None] * theta).to(steering.vectors)
        return steering

    def first(self, k: int) -> Self:
        """Only the k heads with the most accurate probes."""
        part = type(self)(self.shape, k, self.width)
        part.layers, part.heads, part.vectors = self.layers[:k], self.heads[:k], self.vectors[:k]
        return part

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        def adding(vector: Float[Tensor, " width"]) -> Edit:
            return lambda z: z + by_row(strength, z) * vector.to(z)

        places = zip(self.layers.tolist(), self.heads.tolist(), strict=True)
        return {Site("heads", *place): adding(vector) for place, vector in zip(places, self.vectors, strict=True)}

    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "width": self.width}


def probe_accuracies(
    pos: Float[Tensor, "one layer head width"], neg: Float[Tensor, "other layer head width"]
) -> np.ndarray:
    """Cross-validated accuracy of a logistic regression on each head's output, [layer, head].

    Raises
    ------
    ValueError
        Fewer than two prompts of a class.
    """
    folds = min(5, len(pos), len(neg))
    if folds < 2:
        raise ValueError(f"a probe needs two prompts or more of each class, got {len(pos)} and {len(neg)}")
    labels = np.repeat([1, 0], [len(pos), len(neg)])
    every = torch.cat([pos, neg]).cpu().numpy()
    split = StratifiedKFold(folds, shuffle=True, random_state=0)
    found = np.empty(every.shape[1:3])
    for layer, head in np.ndindex(*found.shape):
        probe = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
        found[layer, head] = cross_val_score(probe, every[:, layer, head], labels, cv=split).mean()
    return found
