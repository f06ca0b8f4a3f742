"""What an organism answers while it is steered: every example at every setting, as rows of shared batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from interplay.primitives.prompts import model_inputs, pad_left

__all__ = ["Answers", "Dial", "answers"]

Dial = Callable[[Tensor], AbstractContextManager[Any]]
"""From one setting a row to the context in which a batch with as many rows is steered."""

ROWS_PER_BATCH = 256


class Answers(NamedTuple):
    """Of every example at every setting, [setting, example].

    Attributes
    ----------
    verdicts
        Of the grammar's judge.
    surprise, plain_surprise
        Nats of all tokens of the answer, under the model as it is steered, and under the unsteered one.
    tokens
        Of the answer, the end of the text included.
    divergence
        Kullback-Leibler divergence in nats of the steered distribution of the first token from the unsteered one.
    """

    verdicts: NDArray[np.str_]
    surprise: NDArray[np.float64]
    plain_surprise: NDArray[np.float64]
    tokens: NDArray[np.int64]
    divergence: NDArray[np.float64]

    def share(self, verdict: str) -> NDArray[np.float64]:
        """Of the examples with a verdict, at each setting."""
        return (self.verdicts == verdict).mean(1)


@torch.inference_mode()
def answers(organism: Any, examples: Sequence[Any], dial: Dial, settings: Sequence[float], length: int) -> Answers:
    """Answer greedily.

    Parameters
    ----------
    organism
        An organism with a judge.
    examples
        Its prompts.
    dial
        How it is steered.
    settings
        Of the dial.
    length
        Largest number of tokens of an answer.
    """
    model, vocabulary = organism.model, organism.grammar.vocabulary
    unsteered = _first_tokens(model, examples, vocabulary.pad_id)
    order = sorted(range(len(examples)), key=lambda index: -len(examples[index]))
    jobs = list(itertools.product(order, range(len(settings))))
    shape = (len(settings), len(examples))
    found = Answers(
        np.full(shape, "", dtype="U16"), *(np.zeros(shape, kind) for kind in (float, float, np.int64, float))
    )
    for start in range(0, len(jobs), ROWS_PER_BATCH):
        part = jobs[start : start + ROWS_PER_BATCH]
        ids, mask = pad_left([examples[index].input_ids for index, _ in part], vocabulary.pad_id)
        with dial(torch.tensor([settings[setting] for _, setting in part], dtype=torch.float64)):
            written = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=length,
                do_sample=False,
                pad_token_id=vocabulary.pad_id,
                eos_token_id=vocabulary.eos_id,
                output_logits=True,
                return_dict_in_generate=True,
            )
        reply = written.sequences[:, ids.shape[1] :]
        real = (reply == vocabulary.eos_id).cumsum(1) - (reply == vocabulary.eos_id).long() == 0
        inputs = model_inputs(model, written.sequences, torch.cat([mask, real.long()], 1))
        plain = model(**inputs, use_cache=False, logits_to_keep=reply.shape[1] + 1).logits[:, :-1]
        steered = torch.stack(written.logits, 1)
        own, other = (_surprise(logits, reply, real) for logits in (steered, plain))
        reference = unsteered[[index for index, _ in part]]
        divergence = functional.kl_div(
            steered[:, 0].double().log_softmax(-1), reference, reduction="none", log_target=True
        ).sum(-1)
        for row, (index, setting) in enumerate(part):
            said = [token for token in reply[row][real[row]].tolist() if token != vocabulary.eos_id]
            at = (setting, index)
            found.verdicts[at] = str(organism.grammar.judge(said, examples[index]))
            found.surprise[at], found.plain_surprise[at] = own[row], other[row]
            found.tokens[at] = int(real[row].sum())
            found.divergence[at] = max(0.0, float(divergence[row]))
    return found


def _surprise(
    logits: Float[Tensor, "row token vocabulary"], reply: Int[Tensor, "row token"], real: Tensor
) -> list[float]:
    nats = functional.cross_entropy(logits.float().transpose(1, 2), reply, reduction="none")
    found: list[float] = (nats * real).sum(1).double().tolist()
    return found


def _first_tokens(model: Any, examples: Sequence[Any], pad_id: int) -> Float[Tensor, "example vocabulary"]:
    """Logarithms of the unsteered probabilities of an answer's first token."""
    found = []
    for start in range(0, len(examples), ROWS_PER_BATCH):
        batch = pad_left([example.input_ids for example in examples[start : start + ROWS_PER_BATCH]], pad_id)
        logits = model(**model_inputs(model, *batch), use_cache=False, logits_to_keep=1).logits[:, -1]
        found.append(logits.double().log_softmax(-1))
    return torch.cat(found)
