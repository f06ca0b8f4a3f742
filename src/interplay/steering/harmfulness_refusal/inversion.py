"""The reply inversion task: a question to which the model says No when it finds a prompt harmless.

In a chat, more harmfulness and more refusal both end in a refusal. Asked whether the prompt could cause harm, a model
that finds it harmful says Certainly, and a model that is merely pushed to refuse says No: the two come apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interplay.primitives.positions import Positions
from interplay.primitives.prompts import batches_by_length, model_inputs
from interplay.steering.harmfulness_refusal.addition import PromptAddition
from interplay.steering.harmfulness_refusal.spans import read_with_question

__all__ = ["Asked", "Inversion", "ask", "reply_inversion"]

Where = Literal["before-question", "all"]


class Asked(NamedTuple):
    """A prompt that ends with a question about what stands before it.

    Attributes
    ----------
    ids
        Of the whole prompt.
    question
        Where the question begins: the tokens before it are steered.
    """

    ids: tuple[int, ...]
    question: int


class Inversion(NamedTuple):
    """What the model says first, [strength, prompt], or [prompt] for one strength.

    Attributes
    ----------
    p_no
        Probability of the token "No".
    says_no
        Whether it is the most probable of all tokens.
    says_yes
        Whether that is the token of the other answer.
    """

    p_no: Float[Tensor, "*strength prompt"]
    says_no: Bool[Tensor, "*strength prompt"]
    says_yes: Bool[Tensor, "*strength prompt"]


def reply_inversion(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    direction: Float[Tensor, "state d_model"],
    layer: int,
    coef: float | Float[Tensor, " strength"],
    question: str,
    span: Where = "before-question",
    *,
    frame: str = "User wants to {instruction}\n",
    answers: tuple[str, str] = ("Certainly", "No"),
    template: str | None = None,
    **options: Any,
) -> Inversion:
    """Ask about every prompt while a direction is added to what stands before the question.

    Parameters
    ----------
    model, tokenizer
        A Hugging Face causal language model in evaluation mode, and its tokenizer.
    prompts
        Instructions.
    direction
        v_harm or v_ref of every state, [blocks + 1, d_model].
    layer
        Into which block it is added, from 0.
    coef
        How often; a tensor asks for several at once, as rows of shared batches.
    question
        Which puts the answer "No" to harmless prompts, such as "Could this user prompt cause harm? Answer 'Certainly'
        if it could, otherwise 'No'."
    span
        "all" steers the question too.
    frame
        What the instruction becomes; the question follows it.
    answers
        Those to harmful and to harmless prompts; the first token of each counts.
    template
        As in `read_prompts`.
    **options
        Those of `ask`.

    Raises
    ------
    ValueError
        Answers that begin with the same token, an unknown `span`, or what `read_prompts` refuses of its template.
    """
    if span not in get_args(Where):
        raise ValueError(f"span must be one of {', '.join(get_args(Where))}, got {span!r}")
    if isinstance(prompts, str):
        raise TypeError("prompts must be a sequence; wrap a single one in a list")
    if not question.strip():
        raise ValueError("question is empty; pass what is asked about the instruction")
    contexts = [frame.replace("{instruction}", prompt.strip()) for prompt in prompts]
    asked = [
        Asked(prompt.ids, prompt.span.start if span == "before-question" else len(prompt.ids))
        for prompt in read_with_question(tokenizer, contexts, question, template=template)
    ]
    yes, no = (tokenizer(answer, add_special_tokens=False)["input_ids"][0] for answer in answers)
    return ask(model, tokenizer, asked, direction, layer, coef, answers=(yes, no), **options)


@torch.inference_mode()
def ask(
    model: nn.Module,
    tokenizer: Any,
    asked: Sequence[Asked],
    direction: Float[Tensor, "state d_model"],
    layer: int,
    coef: float | Float[Tensor, " strength"],
    *,
    answers: tuple[int, int],
    tokens_per_batch: int = 4096,
) -> Inversion:
    """`reply_inversion` for prompts that are tokenised, and token ids of the two answers."""
    if answers[0] == answers[1]:
        raise ValueError(f"answers begin with the same token, {answers[0]}; choose others")
    strengths = torch.as_tensor(coef, dtype=torch.float32)
    several = strengths.reshape(-1)
    steering = PromptAddition.along(model, direction, layer)
    rows = [list(one.ids) for one in asked for _ in range(len(several))]
    p_no = torch.empty(len(rows))
    first = torch.empty(len(rows), dtype=torch.long)
    for batch in batches_by_length(rows, tokenizer.pad_token_id, tokens=tokens_per_batch):
        length = batch.ids.shape[1]
        begins = torch.tensor([length - len(rows[row]) + asked[row // len(several)].question for row in batch.rows])
        before: Positions = (torch.arange(length) < begins[:, None]) & batch.mask.bool()
        which = torch.tensor(batch.rows) % len(several)
        # Boolean positions pack what they select row after row, so the strengths are packed alike.
        packed = several[which].repeat_interleave(before.sum(1))
        with steering.applied(model, packed, positions=before):
            logits = model(**model_inputs(model, batch.ids, batch.mask), use_cache=False).logits[:, -1].float()
        p_no[batch.rows] = logits.softmax(-1)[:, answers[1]].cpu()
        first[batch.rows] = logits.argmax(-1).cpu()
    shape = (len(asked), *strengths.shape)
    p_no, first = p_no.reshape(shape), first.reshape(shape)
    if strengths.ndim:
        p_no, first = p_no.T, first.T
    return Inversion(p_no, first == answers[1], first == answers[0])
