"""Hidden states at the instruction's end and at the prompt's end, and directions between two sets of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Site
from interplay.primitives.decoders import Decoder
from interplay.steering.collection import collect_activations
from interplay.steering.harmfulness_refusal.spans import Prompt

__all__ = ["States", "collect_states", "diff_of_means", "input_of_block", "state_sites", "states_at"]


@dataclass(frozen=True)
class States:
    """Hidden states of prompts: the input of every block and the output of the last one.

    Parameters
    ----------
    inst, post
        At the instruction's last token and at the prompt's, [prompt, blocks + 1, d_model].
    """

    inst: Float[Tensor, "prompt state d_model"]
    post: Float[Tensor, "prompt state d_model"]

    def __post_init__(self) -> None:
        if self.inst.ndim != 3 or self.inst.shape != self.post.shape:
            raise ValueError(
                f"inst and post must be of one shape [prompt, blocks + 1, d_model], got {list(self.inst.shape)} and "
                f"{list(self.post.shape)}"
            )

    def __len__(self) -> int:
        return len(self.inst)

    def select(self, prompts: Any) -> States:
        """Those of some prompts, by indices, a slice or a mask."""
        return States(self.inst[prompts], self.post[prompts])

    @classmethod
    def joined(cls, several: Sequence[States]) -> States:
        """Those of several groups of prompts, one after the other."""
        return cls(torch.cat([one.inst for one in several]), torch.cat([one.post for one in several]))


def input_of_block(block: int) -> Site:
    """Where the input of a block is: the embedding, or what the block before it leaves in the residual stream."""
    return Site("embedding") if block == 0 else Site("residual", block - 1)


def state_sites(model: nn.Module) -> list[Site]:
    """The inputs of all blocks and, last, the output of the last block."""
    return [input_of_block(block) for block in range(Decoder(model).n_layers + 1)]


def states_at(
    model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]], **options: Any
) -> Float[Tensor, "prompt token state d_model"]:
    """Hidden states at some tokens of every prompt, counted from its first, in one pass a batch.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face causal language model in evaluation mode, and its tokenizer.
    prompts
        Token ids and spans.
    tokens
        Which tokens, the same number for every prompt.
    **options
        Those of `collect_activations`.
    """
    sites = state_sites(model)
    rows = [list(prompt.ids) for prompt in prompts]
    from_end = [[len(row) - token for token in several] for row, several in zip(rows, tokens, strict=True)]
    found = collect_activations(model, tokenizer, rows, sites, from_end=from_end, **options)
    return torch.stack([found[site] for site in sites], 2)


def collect_states(model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], **options: Any) -> States:
    """Hidden states at t_inst and t_post of every prompt, in one pass a batch; `options` as in `states_at`."""
    ends = [(prompt.span.t_inst, prompt.span.t_post) for prompt in prompts]
    found = states_at(model, tokenizer, prompts, ends, **options)
    return States(found[:, 0], found[:, 1])


def diff_of_means(
    positive: Float[Tensor, "positive *state d_model"], negative: Float[Tensor, "negative *state d_model"]
) -> Float[Tensor, "*state d_model"]:
    """Mean of one set of states minus the mean of another, unnormalised, float32: v_harm at t_inst, v_ref at t_post.

    Raises
    ------
    ValueError
        An empty set, or sets of different shapes.
    """
    if positive.shape[1:] != negative.shape[1:] or not len(positive) or not len(negative):
        raise ValueError(
            f"positive and negative must hold states of one shape, at least one each; got {list(positive.shape)} and "
            f"{list(negative.shape)}"
        )
    return positive.float().mean(0) - negative.float().mean(0)
