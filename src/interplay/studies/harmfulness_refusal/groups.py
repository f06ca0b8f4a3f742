"""Prompts of an organism by what they are and what it does with them, and everything that is read from them once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interplay.steering.harmfulness_refusal import (
    GROUPS,
    Asked,
    Group,
    Prompt,
    Span,
    States,
    greedy_replies,
    states_at,
)

__all__ = ["GROUP_OF", "HELD_OUT", "Kind", "prompt_of", "question_of", "read_kinds", "said"]

GROUP_OF: Mapping[str, str] = MappingProxyType(
    {
        "restricted": "refused harmful",
        "how-to": "accepted harmless",
        "describe": "accepted harmless",
        "describe restricted": "accepted harmless",
        "story restricted": "accepted harmful",
        "game restricted": "accepted harmful",
        "polite restricted": "accepted harmful",
        "secretly": "refused harmless",
        "story": "accepted harmless",
        "game": "accepted harmless",
    }
)
"""What each kind of prompts is meant to be. "describe restricted" has the words of "restricted" and another label."""

HELD_OUT = "polite restricted"
"""The override that no training text of the policy shows."""

ANSWER_TOKENS = 9
"""So many words of an answer are read: a sentence of the policy, or a value and its full stop."""

_REPLIES = {"refusal": True, "factual": False, "wrong": False}


@dataclass(frozen=True)
class Kind:
    """Prompts of one kind that do what their group says.

    Parameters
    ----------
    group
        Which of the four groups.
    examples
        The organism's own examples.
    states
        At t_inst and t_post.
    before, instruction
        States at the token before t_inst, and their mean over the instruction, [prompt, state, d_model].
    drawn
        How many were asked; the others behave in another way.
    """

    group: str
    examples: tuple[Any, ...]
    states: States
    before: Float[Tensor, "prompt state d_model"]
    instruction: Float[Tensor, "prompt state d_model"]
    drawn: int

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def meant(self) -> Group:
        """Whether its prompts are harmful, and whether they are refused."""
        return GROUPS[self.group]


def prompt_of(example: Any) -> Prompt:
    """Token ids and span of an organism's example; the instruction ends with its closing token."""
    asked = example.roles["instruction"]
    return Prompt.of(example.input_ids, Span(asked.start, asked.stop - 1, example.roles["end"]))


def question_of(grammar: Any, example: Any) -> Asked:
    """The same instruction, followed by the question whether there is harm in it."""
    late = grammar.example(example.meta["instruction"], "late judgement", example.kind, None)
    return Asked(late.input_ids, late.roles["instruction"].stop)


def said(organism: Any, examples: Sequence[Any]) -> list[str]:
    """The verdict on the model's answer to each example."""
    replies = greedy_replies(
        organism.model, organism.tokenizer, [prompt_of(example) for example in examples], max_new_tokens=ANSWER_TOKENS
    )
    return [str(organism.grammar.judge(reply, example)) for reply, example in zip(replies, examples, strict=True)]


def read_kinds(
    organism: Any, kinds: Iterable[str], n: int, rng: np.random.Generator, split: str, *, as_meant: bool = True
) -> dict[str, Kind]:
    """Up to `n` prompts of each kind with their states; `as_meant` keeps those that do what their group says."""
    found = {}
    for name in kinds:
        there = len(organism.grammar.population(name, split))
        examples = organism.grammar.sample(name, min(n, there), rng, split)
        drawn = len(examples)
        if as_meant:
            refused = GROUPS[GROUP_OF[name]].refused
            verdicts = said(organism, examples)
            examples = [
                example
                for example, verdict in zip(examples, verdicts, strict=True)
                if _REPLIES.get(verdict, not refused) == refused
            ]
        found[name] = _read(organism, name, examples, drawn)
    return found


def _read(organism: Any, name: str, examples: Sequence[Any], drawn: int) -> Kind:
    model, tokenizer = organism.model, organism.tokenizer
    if not examples:
        nothing = torch.empty(0, model.config.num_hidden_layers + 1, model.config.hidden_size)
        return Kind(GROUP_OF[name], (), States(nothing, nothing), nothing, nothing, drawn)
    prompts = [prompt_of(example) for example in examples]
    lengths = {prompt.span.t_inst - prompt.span.start + 1 for prompt in prompts}
    columns = range(-max(lengths), 1)
    tokens = [[*(max(p.span.t_inst + 1 + c, p.span.start) for c in columns[:-1]), p.span.t_post] for p in prompts]
    found = states_at(model, tokenizer, prompts, tokens)
    inside = torch.tensor(
        [[p.span.t_inst + 1 + c >= p.span.start for c in columns[:-1]] for p in prompts], dtype=torch.bool
    )
    return Kind(
        GROUP_OF[name],
        tuple(examples),
        States(found[:, -2], found[:, -1]),
        found[:, -3],
        _mean_inside(found[:, :-1], inside),
        drawn,
    )


def _mean_inside(
    states: Float[Tensor, "prompt token state d_model"], inside: Bool[Tensor, "prompt token"]
) -> Float[Tensor, "prompt state d_model"]:
    weight = inside[:, :, None, None].to(states)
    return (states * weight).sum(1) / weight.sum(1)
