"""Prompts with an answer, a contrast and named positions, and token-aligned pairs of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from interplay.primitives.prompts import model_inputs, pad_left

Rows = slice | Sequence[int] | Tensor | np.ndarray


@dataclass(frozen=True)
class Prompt:
    """A prompt in words.

    Parameters
    ----------
    text
        What the model reads; the answer follows it after a blank.
    answer, contrast
        The right next word and the one that it is measured against.
    roles
        For each role the [start, stop) character spans of its words.
    options
        Words among which the prompt asks to choose, the answer included.
    """

    text: str
    answer: str
    contrast: str
    roles: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)
    options: Sequence[str] = ()


@dataclass(frozen=True)
class Batch:
    """Tokenised prompts.

    Attributes
    ----------
    ids, mask
        Token ids and 1 for every token that is not padding, [prompt, position].
    answer, contrast
        Token ids of the right next token and of the one that it is measured against.
    roles
        Named positions: columns of `ids`, [prompt, place] each (a tensor [prompt] becomes one place). `end`, the last
        token, from which the answer is predicted, is added where it is missing.
    options
        Token ids among which the prompt asks to choose; by default answer and contrast.

    Raises
    ------
    ValueError
        Parts of different length, or a role outside its prompt.
    """

    ids: Int[Tensor, "prompt position"]
    mask: Int[Tensor, "prompt position"]
    answer: Int[Tensor, " prompt"]
    contrast: Int[Tensor, " prompt"]
    roles: Mapping[str, Int[Tensor, "prompt place"]] = field(default_factory=dict)
    options: Int[Tensor, "prompt option"] | None = None

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.mask.shape != self.ids.shape:
            raise ValueError(
                f"ids and mask must be [prompt, position]; got {list(self.ids.shape)} and {list(self.mask.shape)}"
            )
        columns = torch.arange(self.ids.shape[1], device=self.ids.device)
        roles = {"end": torch.where(self.mask.bool(), columns, -1).amax(1), **self.roles}
        roles = {name: places[:, None] if places.ndim == 1 else places for name, places in roles.items()}
        object.__setattr__(self, "roles", roles)
        for name, part in (("answer", self.answer), ("contrast", self.contrast)):
            if part.shape != (len(self),):
                raise ValueError(f"{name} has shape {list(part.shape)} for {len(self)} prompts")
        if self.options is None:
            object.__setattr__(self, "options", torch.stack([self.answer, self.contrast], dim=1))
        if len(self.options) != len(self):
            raise ValueError(f"options has {len(self.options)} rows for {len(self)} prompts")
        for name, places in roles.items():
            if places.ndim != 2 or len(places) != len(self):
                raise ValueError(f"role {name!r} must be [prompt] or [prompt, place]; got {list(places.shape)}")
            outside = (places < 0) | (places >= self.ids.shape[1])
            outside |= self.mask.gather(1, places.clamp(0, self.ids.shape[1] - 1)) == 0
            if outside.any():
                row = int(outside.any(1).nonzero()[0])
                raise ValueError(f"role {name!r} of prompt {row} points at padding or outside the prompt")
        if roles["end"].shape[1] != 1:
            raise ValueError(f"role 'end' must be one place a prompt; got {roles['end'].shape[1]}")

    @classmethod
    def from_prompts(cls, tokenizer: Any, prompts: Sequence[Prompt], *, single: bool = False) -> Self:
        """Tokenise prompts, padded on the left.

        Parameters
        ----------
        tokenizer
            A fast Hugging Face tokenizer, with whatever special tokens it adds in front.
        prompts
            At least one; all with the same roles.
        single
            Refuse words of roles that are longer than one token; otherwise a role is its word's last token.

        Raises
        ------
        TypeError
            A slow tokenizer: positions are found by its character offsets.
        ValueError
            An answer, contrast or option longer than one token; with `single` a word too; prompts with other roles.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise TypeError(f"tokenizer must be a fast Hugging Face tokenizer; got {type(tokenizer).__name__}")
        if not prompts:
            raise ValueError("prompts is empty; pass one or more")
        names = set(prompts[0].roles)
        if odd := [row for row, prompt in enumerate(prompts) if set(prompt.roles) != names]:
            raise ValueError(f"prompt {odd[0]} has roles {sorted(prompts[odd[0]].roles)}, prompt 0 has {sorted(names)}")
        encoded = tokenizer([prompt.text for prompt in prompts], return_offsets_mapping=True, padding=False)
        rows, offsets = encoded["input_ids"], encoded["offset_mapping"]
        words = _NextTokens(tokenizer)
        ids, mask = pad_left(rows, tokenizer.pad_token_id)
        shift = [ids.shape[1] - len(row) for row in rows]
        roles = {
            name: torch.tensor(
                [
                    [pad + _place(tokenizer, prompt.text, name, span, places, single) for span in prompt.roles[name]]
                    for prompt, places, pad in zip(prompts, offsets, shift, strict=True)
                ]
            )
            for name in prompts[0].roles
        }
        read = [
            [words.after(prompt.text, row, word) for word in (prompt.answer, prompt.contrast, *prompt.options)]
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        tokens = torch.tensor(read)
        options = tokens[:, 2:] if tokens.shape[1] > 2 else None
        return cls(ids, mask, tokens[:, 0], tokens[:, 1], roles, options)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Rows) -> Self:
        chosen = rows if isinstance(rows, slice) else torch.as_tensor(rows, device=self.ids.device)
        return self._map(lambda part: part[chosen])

    def to(self, device: torch.device | str) -> Self:
        """The same prompts on another device."""
        return self._map(lambda part: part.to(device))

    def chunks(self, size: int) -> Iterator[Self]:
        """Consecutive parts of at most `size` prompts."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    @property
    def end(self) -> Int[Tensor, " prompt"]:
        """Column of the last token of every prompt."""
        return self.roles["end"][:, 0]

    def places(self, roles: str | Sequence[str]) -> Int[Tensor, "prompt place"]:
        """Columns of one role, or of several side by side.

        Raises
        ------
        ValueError
            A role that these prompts do not have.
        """
        wanted = [roles] if isinstance(roles, str) else list(roles)
        if not wanted or any(role not in self.roles for role in wanted):
            raise ValueError(f"positions={roles!r}: the roles of this batch are {', '.join(self.roles)}")
        return torch.cat([self.roles[role] for role in wanted], dim=1)

    def inputs(self, model: nn.Module) -> dict[str, Tensor]:
        """Keyword arguments of a forward pass, see `interplay.primitives.prompts.model_inputs`."""
        return model_inputs(model, self.ids, self.mask)

    def _map(self, function: Any) -> Self:
        roles = {name: function(places) for name, places in self.roles.items()}
        tensors = {part.name: function(getattr(self, part.name)) for part in fields(self) if part.name != "roles"}
        return replace(self, roles=roles, **tensors)


@dataclass(frozen=True)
class TaskPairs:
    """A task as prompts and their corrupted twins, token for token aligned.

    Attributes
    ----------
    clean, corrupt
        Prompts, and twins in which other tokens at the same places make the contrast the right answer. The roles of a
        twin are those of its clean prompt: they name places, not what stands there.
    source
        The role at which heads of the earlier layers leave what later heads read (the second subject, the queried
        object).
    """

    clean: Batch
    corrupt: Batch
    source: str = "end"

    def __post_init__(self) -> None:
        check_aligned(self.clean, self.corrupt)
        self.clean.places(self.source)

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: Rows) -> TaskPairs:
        return replace(self, clean=self.clean[rows], corrupt=self.corrupt[rows])

    @classmethod
    def from_prompts(
        cls,
        tokenizer: Any,
        clean: Sequence[Prompt],
        corrupt: Sequence[Prompt],
        *,
        source: str = "end",
        single: bool = False,
    ) -> TaskPairs:
        """Tokenise both sides; see `Batch.from_prompts`."""
        sides = [Batch.from_prompts(tokenizer, side, single=single) for side in (clean, corrupt)]
        return cls(*sides, source=source)

    @classmethod
    def from_labelled(
        cls, tokenizer: Any, clean: Sequence[tuple[str, str]], corrupt: Sequence[tuple[str, str]]
    ) -> TaskPairs:
        """Pairs from two lists of (prompt, label), as the paper's data files hold them; the only role is `end`.

        The label of the twin is the contrast; blanks around labels are ignored.
        """
        if len(clean) != len(corrupt):
            raise ValueError(f"clean has {len(clean)} prompts, corrupt {len(corrupt)}")
        sides = [
            [Prompt(text, own.strip(), other.strip()) for (text, own), (_, other) in zip(one, two, strict=True)]
            for one, two in ((clean, corrupt), (corrupt, clean))
        ]
        return cls.from_prompts(tokenizer, *sides)


def check_aligned(clean: Batch, corrupt: Batch) -> None:
    """Refuse batches that are not token for token aligned, with a ValueError that names the first bad pair."""
    if len(clean) != len(corrupt):
        first = min(len(clean), len(corrupt))
        raise ValueError(f"clean has {len(clean)} prompts, corrupt {len(corrupt)}: pair {first} has no twin")
    counts = [side.mask.sum(1) for side in (clean, corrupt)]
    for row in islice((counts[0] != counts[1]).nonzero()[:, 0].tolist(), 1):
        raise ValueError(f"pair {row}: clean has {int(counts[0][row])} tokens, corrupt {int(counts[1][row])}")
    if clean.mask.shape != corrupt.mask.shape or not torch.equal(clean.mask, corrupt.mask):
        raise ValueError("pair 0: clean and corrupt are padded differently; pad both alike")
    if set(clean.roles) != set(corrupt.roles):
        raise ValueError(f"pair 0: clean has the roles {sorted(clean.roles)}, corrupt {sorted(corrupt.roles)}")
    for name, places in clean.roles.items():
        other = corrupt.roles[name]
        if places.shape != other.shape:
            raise ValueError(f"pair 0: role {name!r} has {places.shape[1]} places, in corrupt {other.shape[1]}")
        for row in islice((places != other).any(1).nonzero()[:, 0].tolist(), 1):
            raise ValueError(
                f"pair {row}: role {name!r} is at {places[row].tolist()}, in corrupt at {other[row].tolist()}"
            )


class _NextTokens:
    """Token ids of the words that follow prompts; asked once for every word and last token."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, str], int] = {}

    def after(self, text: str, ids: Sequence[int], word: str) -> int:
        key = (ids[-1], word)
        if key not in self._known:
            longer = self._tokenizer(f"{text} {word}", padding=False)["input_ids"]
            if longer[: len(ids)] != ids or len(longer) == len(ids):
                raise ValueError(
                    f"appending {word!r} changes the tokens of the prompt {text!r}; end the prompt so that a blank may "
                    "follow, and use a tokenizer that adds no token at the end"
                )
            if len(longer) > len(ids) + 1:
                parts = self._tokenizer.convert_ids_to_tokens(longer[len(ids) :])
                raise ValueError(f"the answer {word!r} is {len(parts)} tokens long ({' '.join(parts)}); one is allowed")
            self._known[key] = longer[-1]
        return self._known[key]


def _place(
    tokenizer: Any,
    text: str,
    role: str,
    span: tuple[int, int],
    offsets: Sequence[tuple[int, int]],
    single: bool,
) -> int:
    begin, end = span
    covering = [index for index, (start, stop) in enumerate(offsets) if start < end and stop > begin and stop > start]
    word = text[begin:end]
    if not covering:
        raise ValueError(f"role {role!r}: no token holds {word!r} of the prompt {text!r}")
    if single and len(covering) > 1:
        raise ValueError(
            f"role {role!r}: {word!r} is {len(covering)} tokens for {type(tokenizer).__name__}; one is allowed"
        )
    return covering[-1]
