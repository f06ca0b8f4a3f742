"""Contrastive activation addition: the mean difference of two sets of prompts, added to the residual stream.

h_l <- h_l + strength * v_l, v_l = mean of h_l over positive prompts - mean over negative ones, at the last token
(Rimsky et al., 2024). The plain method that finer ones are compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site
from interplay.steering.collection import collect_activations
from interplay.steering.interface import ModelShape, Steering, Strength, by_row

__all__ = ["ActivationAddition"]


class ActivationAddition(Steering):
    """Add a vector to the residual stream after each of some layers.

    Parameters
    ----------
    shape
        Of the model.
    layers
        After which layers, from 0.

    Attributes
    ----------
    vectors : Tensor
        What strength 1 adds, [layer, d_model], float32; a buffer.
    """

    method = "caa"
    vectors: Float[Tensor, "layer d_model"]

    def __init__(self, shape: ModelShape, layers: Sequence[int]) -> None:
        super().__init__(shape)
        outside = [layer for layer in layers if not 0 <= layer < self.shape.n_layers]
        if not layers or outside or len(set(layers)) < len(layers):
            raise ValueError(
                f"layers must be different layers of the model's {self.shape.n_layers}, from 0; got {list(layers)}"
            )
        self.layers = tuple(layers)
        self.register_buffer("vectors", torch.zeros(len(self.layers), self.shape.d_model))

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        tokenizer: Any,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        layers: Sequence[int] | Literal["middle", "all"] = "middle",
        **options: Any,
    ) -> Self:
        """Mean difference of the last token's residual stream.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positive, negative
            Prompts that show the behaviour, and that do not.
        layers
            After which layers to add; "middle" is the one in the middle.
        **options
            Those of `collect_activations`.
        """
        shape = ModelShape.of(model)
        if isinstance(layers, str):
            layers = range(shape.n_layers) if layers == "all" else [shape.n_layers // 2]
        steering = cls(shape, [int(layer) for layer in layers])
        sites = [Site("residual", layer) for layer in steering.layers]
        means = [
            torch.stack(
                [values.mean(0) for values in collect_activations(model, tokenizer, prompts, sites, **options).values()]
            )
            for prompts in (positive, negative)
        ]
        steering.vectors = (means[0] - means[1]).to(steering.vectors)
        return steering

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        def adding(vector: Float[Tensor, " d_model"]) -> Edit:
            return lambda h: h + by_row(strength, h) * vector.to(h)

        return {Site("residual", layer): adding(v) for layer, v in zip(self.layers, self.vectors, strict=True)}

    def settings(self) -> dict[str, Any]:
        return {"layers": list(self.layers)}
