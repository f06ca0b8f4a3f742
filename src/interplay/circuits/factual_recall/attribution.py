"""Which heads write the offered answer into the logits, and which the memorized one (eq. 4 of the package)."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.circuits.factual_recall.batches import Batch
from interplay.circuits.factual_recall.outcomes import model_inputs
from interplay.primitives.activations import Site, record
from interplay.primitives.decoders import Decoder

Norm = Literal["linear", "raw"]


class Head(NamedTuple):
    """A query head, both indices from 0."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


class Attribution(NamedTuple):
    """Direct contribution of every head to (logit of the offered - logit of the memorized answer).

    Attributes
    ----------
    per_prompt
        [prompt, layer, head], float32. Positive: the head writes the offered answer.
    """

    per_prompt: Float[Tensor, "prompt layer head"]

    @property
    def mean(self) -> Float[Tensor, "layer head"]:
        """Mean over the prompts."""
        return self.per_prompt.mean(0)

    @property
    def memory_head(self) -> Head:
        """The head that most promotes the memorized answer."""
        return self._head(int(self.mean.argmin()))

    @property
    def in_context_head(self) -> Head:
        """The head that most promotes the offered answer."""
        return self._head(int(self.mean.argmax()))

    def _head(self, flat: int) -> Head:
        return Head(*divmod(flat, self.per_prompt.shape[2]))


def head_attribution(model: nn.Module, batch: Batch, norm: Norm = "linear", *, batch_size: int = 64) -> Attribution:
    """Score every head at the last prompt token, in one forward pass without the unembedding (eq. 4).

    Instead of pushing every head's write through the output projection and the final norm to the logits, the direction
    W_U[offered] - W_U[memorized] is pulled back through both once and dotted with the heads' outputs z.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode.
    batch
        Conflict prompts; padding on either side.
    norm
        ``"linear"`` freezes the scale of the final norm at the true residual, so that the scores of all heads, the
        MLPs, the embedding and the biases sum to the logit difference exactly. ``"raw"`` leaves the final norm out, as
        a plain dot product with the unembedding does. A norm between output projection and residual stream (Gemma 2 and
        3) is always frozen.
    batch_size
        Prompts a forward pass.

    Raises
    ------
    ValueError
        An unknown `norm`, a model in training mode, a norm that is neither LayerNorm nor RMSNorm, or a model that
        scales what its layers write (Granite).
    TypeError
        An encoder-decoder model.
    """
    if norm not in ("linear", "raw"):
        raise ValueError(f"norm={norm!r}: allowed are 'linear' and 'raw'")
    decoder = Decoder(model)
    if getattr(getattr(model, "config", None), "residual_multiplier", 1.0) != 1.0:
        raise ValueError(
            f"{type(model).__name__} scales what its layers write; its heads cannot be attributed this way"
        )
    heads = [Site("heads", layer) for layer in range(decoder.n_layers)]
    final = Site("residual", decoder.n_layers - 1)
    parts = []
    for chunk in batch.to(next(model.parameters()).device).chunks(batch_size):
        inputs = model_inputs(model, chunk)
        with torch.inference_mode():
            with record(model, [*heads, final], positions=chunk.end_pos, stop=True) as seen:
                model(**inputs)
            unembedding = decoder.unembedding
            direction = unembedding[chunk.id_offered].float() - unembedding[chunk.id_true].float()
            if norm == "linear":
                direction = _pull_back(decoder.final_norm, seen[final], direction)
            scores = [_scores(decoder, layer, seen[site], direction) for layer, site in enumerate(heads)]
        parts.append(torch.stack(scores, dim=1).cpu())
    return Attribution(torch.cat(parts))


def _scores(
    decoder: Decoder, layer: int, z: Float[Tensor, "prompt head width"], direction: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "prompt head"]:
    weight = decoder.output_weight(layer).float()
    z = z.float()
    after = decoder.attention_norm(layer)
    if after is not None:
        bias = getattr(decoder.attention_output(layer), "bias", None)
        write = z.flatten(1) @ weight + (0.0 if bias is None else bias.float())
        direction = _pull_back(after, write, direction)
    return ((direction @ weight.mT).view_as(z) * z).sum(-1)


def _pull_back(
    norm: nn.Module, at: Float[Tensor, "prompt d_model"], direction: Float[Tensor, "prompt d_model"]
) -> Float[Tensor, "prompt d_model"]:
    """The v with v . c = direction . N(c) for all c, where N is the norm with scale frozen at `at` and without bias."""
    at = at.float()
    if isinstance(norm, nn.LayerNorm):
        weighted = direction if norm.weight is None else direction * norm.weight.float()
        centred = weighted - weighted.mean(-1, keepdim=True)
        return centred / (at.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
    epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if not isinstance(epsilon, float):
        raise ValueError(f"cannot freeze the scale of {norm}: it is neither LayerNorm nor an RMSNorm with an epsilon")
    # Whether the gain is w or 1 + w is asked of the norm itself: on a vector of ones its scale is known.
    gain = norm(torch.ones_like(at[:1])).float() * math.sqrt(1 + epsilon)
    scale = torch.rsqrt(at.square().mean(-1, keepdim=True) + epsilon)
    expected, frozen = norm(at).float(), at * gain * scale
    if not torch.allclose(expected, frozen, rtol=1e-3, atol=1e-3 * float(expected.abs().max())):
        raise ValueError(f"cannot freeze the scale of {norm}: it is neither LayerNorm nor RMSNorm")
    return direction * gain * scale
