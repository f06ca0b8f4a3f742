"""Adding v_harm or v_ref to what enters one block, while the prompt is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site
from interplay.primitives.positions import Positions
from interplay.primitives.prompts import token_ids
from interplay.steering.harmfulness_refusal.spans import Prompt, Span, read_rendered
from interplay.steering.harmfulness_refusal.states import diff_of_means, input_of_block, states_at
from interplay.steering.interface import ModelShape, Steering, Strength, by_row

__all__ = ["PromptAddition"]

Direction = Literal["harmfulness", "refusal"]


class PromptAddition(Steering):
    """Add the difference of two means to the input of one block, at all tokens of the prompt.

    Strength 1 adds the difference as it is; the paper's scripts use 1 and 2. Generated tokens are not steered.

    Parameters
    ----------
    shape
        Of the model.
    block
        Into which block, from 0.
    direction
        Where the difference was taken: "harmfulness" at the instruction's last token, "refusal" at the prompt's.

    Attributes
    ----------
    vectors : Tensor
        The differences of means at the input of every block and, last, at the output of the last one,
        [blocks + 1, d_model], float32; a buffer. Only that of `block` is added.
    """

    method = "harmfulness-refusal"
    positions: Positions = "prompt"
    vectors: Float[Tensor, "state d_model"]

    def __init__(self, shape: ModelShape, block: int, direction: Direction = "refusal") -> None:
        super().__init__(shape)
        if not 0 <= block < self.shape.n_layers:
            raise ValueError(f"block must be one of the model's {self.shape.n_layers}, from 0; got {block}")
        if direction not in get_args(Direction):
            raise ValueError(f"direction must be one of {', '.join(get_args(Direction))}, got {direction!r}")
        self.block = int(block)
        self.direction: Direction = direction
        self.register_buffer("vectors", torch.zeros(self.shape.n_layers + 1, self.shape.d_model))

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        tokenizer: Any,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        direction: Direction = "refusal",
        block: int | None = None,
        suffix: str | None = None,
        **options: Any,
    ) -> Self:
        """Take the differences of means at the inputs of all blocks.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positive, negative
            Refused harmful and accepted harmless prompts, chat template applied.
        direction
            "refusal" reads the prompt's last token; "harmfulness" the instruction's, which the template's end tells.
        block
            Into which block; None: the one in the middle.
        suffix
            What stands behind every instruction; None: what the chat template puts there.
        **options
            Those of `collect_activations`.
        """
        shape = ModelShape.of(model)
        steering = cls(shape, shape.n_layers // 2 if block is None else block, direction)
        means = []
        for texts in (positive, negative):
            if direction == "harmfulness":
                prompts = read_rendered(tokenizer, texts, suffix=suffix)
                read = [(prompt.span.t_inst,) for prompt in prompts]
            else:
                rows = token_ids(tokenizer, texts)
                prompts = [Prompt(tuple(ids), Span(0, len(ids) - 1, len(ids) - 1)) for ids in rows]
                read = [(prompt.span.t_post,) for prompt in prompts]
            means.append(states_at(model, tokenizer, prompts, read, **options)[:, 0])
        steering.vectors = diff_of_means(*means).to(steering.vectors)
        return steering

    @classmethod
    def along(
        cls,
        model: nn.Module,
        vectors: Float[Tensor, "state d_model"],
        block: int,
        direction: Direction = "harmfulness",
    ) -> Self:
        """Add vectors that are there already, as for a control or a sweep over blocks.

        Raises
        ------
        ValueError
            Vectors that are not one for every state of the model, or are not finite.
        """
        steering = cls(ModelShape.of(model), block, direction)
        if vectors.shape != steering.vectors.shape or not bool(vectors.isfinite().all()):
            raise ValueError(
                f"vectors must be finite, {list(steering.vectors.shape)}: one for the input of every block and one "
                f"for the output of the last; got {list(vectors.shape)}"
            )
        steering.vectors = vectors.detach().to(steering.vectors)
        return steering

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        vector = self.vectors[self.block]
        return {input_of_block(self.block): lambda h: h + by_row(strength, h) * vector.to(h)}

    def settings(self) -> dict[str, Any]:
        return {"block": self.block, "direction": self.direction}
