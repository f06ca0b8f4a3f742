"""Both probabilities from any causal language model of Hugging Face, through a linear head or through its own words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LanguageModelPair", "VerbalisedSlots", "hf_pair_head"]


@dataclass(frozen=True)
class VerbalisedSlots:
    """Two questions after the events, and which answers stand for which probabilities.

    A probability is read without sampling: the mean of the answers' values, weighted by the model's probabilities of
    these answers as next token, among themselves.

    Parameters
    ----------
    need, acceptance
        Texts that are put behind the events, up to where the answer begins.
    answers
        For each answer the probability that it stands for. Two words will do, and so will the ten digits of a
        probability that is spelled out behind "0.".

    Examples
    --------
    >>> digits = VerbalisedSlots(" p_need = 0.", " p_acc = 0.", {str(d): (d + 0.5) / 10 for d in range(10)})
    """

    need: str = "\nDoes the user need help now? Answer:"
    acceptance: str = "\nWould the user accept an offer of help now? Answer:"
    answers: Mapping[str, float] = field(default_factory=lambda: {" yes": 1.0, " no": 0.0})

    def __post_init__(self) -> None:
        if len(self.answers) < 2:
            raise ValueError(f"answers must hold two or more; got {dict(self.answers)}")
        for answer, value in self.answers.items():
            if not 0 <= value <= 1:
                raise ValueError(f"answers must stand for probabilities in [0, 1]; got {value} for {answer!r}")


def hf_pair_head(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    schema: VerbalisedSlots | nn.Module,
    *,
    batch_size: int = 16,
    max_tokens: int | None = None,
) -> LanguageModelPair:
    """Read a causal language model as (p_need, p_acc).

    Parameters
    ----------
    model
        Any causal language model; it is not changed.
    tokenizer
        Its tokenizer; it needs no padding token, and its padding side does not matter.
    schema
        `VerbalisedSlots`, or a head that maps the last hidden state (d_model numbers) to two logits, such as
        `nn.Linear(d_model, 2)`: need first. Train it on `LanguageModelPair.features`, or the whole end to end.
    batch_size
        Texts in a forward pass.
    max_tokens
        Longer texts lose their beginning, the oldest events; the model's own limit if left out.

    Examples
    --------
    ::

        reader = hf_pair_head(model, tokenizer, nn.Linear(model.config.hidden_size, 2))
        student = DualProcessGate(gate, fast=reader, delta_slow=0)
        student(["10:02 build failed", "10:02 build failed\\n10:03 searched for the message"]).speak
    """
    return LanguageModelPair(model, tokenizer, schema, batch_size=batch_size, max_tokens=max_tokens)


class LanguageModelPair(nn.Module):
    """A causal language model that takes texts and gives (p_need, p_acc); made by `hf_pair_head`.

    Texts are padded on the left, those of similar length together; padding is masked and positions count from the first
    real token, so that a text is read the same alone and in any batch, up to rounding. Probabilities are float32 or
    wider whatever the model's type.

    Raises
    ------
    TypeError
        A schema that is neither, or texts that are no list of strings.
    ValueError
        Settings out of range, an empty text, answers that begin with the same token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        schema: VerbalisedSlots | nn.Module,
        *,
        batch_size: int = 16,
        max_tokens: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(schema, VerbalisedSlots | nn.Module):
            raise TypeError(f"schema must be VerbalisedSlots or a module to two logits; got {type(schema).__name__}")
        limit = max_tokens if max_tokens is not None else getattr(model.config, "max_position_embeddings", None)
        for name, number in (("batch_size", batch_size), ("max_tokens", limit)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be 1 or more; got {number}")
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_tokens = limit
        self.head = schema if isinstance(schema, nn.Module) else None
        self.slots = schema if isinstance(schema, VerbalisedSlots) else None
        if self.slots is not None:
            self._answers = _first_tokens(tokenizer, self.slots.answers)
        accepted = inspect.signature(model.forward).parameters
        # Logits of the last position alone, where the model can; all of them may be gigabytes.
        self._logits_options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def forward(self, texts: Sequence[str]) -> tuple[Float[Tensor, " texts"], Float[Tensor, " texts"]]:
        """Both probabilities of each text, the events so far."""
        if self.slots is not None:
            texts = _checked(texts)
            return tuple(  # type: ignore[return-value]
                self._verbalised([text + slot for text in texts]) for slot in (self.slots.need, self.slots.acceptance)
            )
        features = self.features(texts)
        assert self.head is not None  # one of both, by the constructor
        parameter = next(self.head.parameters(), None)
        logits = self.head(features if parameter is None else features.to(parameter.dtype))
        if logits.shape != (len(features), 2):
            raise ValueError(f"the head must give two logits a text; got shape {tuple(logits.shape)}")
        p_need, p_acc = torch.sigmoid(_at_least_float32(logits)).unbind(-1)
        return p_need, p_acc

    def features(self, texts: Sequence[str]) -> Float[Tensor, "texts d_model"]:
        """The last hidden state at the last token of each text: what a linear head reads."""
        body = self.model.base_model
        return self._gather(
            texts, lambda inputs: body(**_accepted(body, inputs), use_cache=False).last_hidden_state[:, -1]
        )

    def _verbalised(self, texts: Sequence[str]) -> Float[Tensor, " texts"]:
        assert self.slots is not None
        logits = self._gather(
            texts,
            lambda inputs: self.model(**_accepted(self.model, inputs), use_cache=False, **self._logits_options).logits[
                :, -1, self._answers
            ],
        )
        logits = _at_least_float32(logits)
        values = torch.tensor(list(self.slots.answers.values()), dtype=logits.dtype, device=logits.device)
        return (logits.softmax(-1) @ values).clamp(0, 1)

    def _gather(self, texts: Sequence[str], read: Any) -> Tensor:
        """Apply `read` to padded batches and put the rows back into the order of the texts."""
        rows = self._tokenised(texts)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        parts = [read(inputs) for inputs in self._padded([rows[index] for index in order])]
        inverse = torch.empty(len(order), dtype=torch.long)
        inverse[torch.tensor(order)] = torch.arange(len(order))
        together = torch.cat(parts)
        return together[inverse.to(together.device)]

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        rows = self.tokenizer(_checked(texts))["input_ids"]
        for index, row in enumerate(rows):
            if not row:
                raise ValueError(
                    f"text {index} has no token: {texts[index]!r}; an event stream needs one event or more"
                )
        return [row if self.max_tokens is None else row[-self.max_tokens :] for row in rows]

    def _padded(self, rows: list[list[int]]) -> Iterator[dict[str, Int[Tensor, "batch tokens"]]]:
        device = next(self.model.parameters()).device
        for start in range(0, len(rows), self.batch_size):
            batch = rows[start : start + self.batch_size]
            length = max(map(len, batch))
            mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in batch], device=device)
            yield {
                "input_ids": torch.tensor([[0] * (length - len(row)) + row for row in batch], device=device),
                "attention_mask": mask,
                "position_ids": (mask.cumsum(-1) - 1).clamp(min=0),
            }


def _first_tokens(tokenizer: PreTrainedTokenizerBase, answers: Mapping[str, float]) -> Int[Tensor, " answers"]:
    """The token that each answer begins with."""
    tokens = {}
    for answer in answers:
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ValueError(f"the tokenizer has no token for the answer {answer!r}")
        tokens[answer] = ids[0]
    if len(set(tokens.values())) < len(tokens):
        raise ValueError(f"answers must begin with different tokens to be told apart; got {tokens}")
    return torch.tensor(list(tokens.values()))


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError(f"texts must be a list of strings; got {type(texts).__name__}")
    if len(texts) == 0:
        raise ValueError("texts must hold one text or more; got none")
    return list(texts)


def _accepted(module: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without positions, where the architecture has none to be told (ALiBi, state spaces)."""
    known = inspect.signature(module.forward).parameters
    return {name: value for name, value in inputs.items() if name in known or name != "position_ids"}


def _at_least_float32(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
