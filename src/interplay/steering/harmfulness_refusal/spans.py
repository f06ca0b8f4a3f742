"""Where an instruction ends inside its chat template, and where the prompt ends: the two tokens that are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "Instruction",
    "Prompt",
    "Span",
    "find_instruction_span",
    "read_prompts",
    "read_rendered",
    "read_with_question",
]

_SENTINEL = "\N{OBJECT REPLACEMENT CHARACTER}instruction\N{OBJECT REPLACEMENT CHARACTER}"
_SLOT = "{instruction}"

Instruction = str | Sequence[Mapping[str, str]]
"""An instruction, or the messages of a chat whose last message of the user is the instruction."""


class Span(NamedTuple):
    """Places of an instruction among the tokens of its prompt, from 0.

    Attributes
    ----------
    start
        The first token that holds a part of the instruction.
    t_inst
        The last one.
    t_post
        The last token of the whole prompt.
    """

    start: int
    t_inst: int
    t_post: int

    @property
    def after(self) -> int:
        """How many tokens of the template follow the instruction."""
        return self.t_post - self.t_inst


class Prompt(NamedTuple):
    """The token ids of a prompt, and where its instruction is."""

    ids: tuple[int, ...]
    span: Span

    @classmethod
    def of(cls, ids: Sequence[int], span: Span) -> Prompt:
        """A prompt that was tokenised elsewhere.

        Raises
        ------
        ValueError
            A span that does not lie inside the ids, or does not end with them.
        """
        span = Span(*span)
        if not 0 <= span.start <= span.t_inst <= span.t_post == len(ids) - 1:
            raise ValueError(
                f"span={span} does not fit a prompt of {len(ids)} tokens: 0 <= start <= t_inst <= t_post must hold, "
                f"and t_post must be its last token, {len(ids) - 1}"
            )
        return cls(tuple(int(token) for token in ids), span)


def find_instruction_span(
    tokenizer: Any, instruction: Instruction, *, template: str | None = None, span: Span | None = None
) -> Span:
    """Where an instruction starts and ends inside its prompt; `read_prompts` for many and for the token ids."""
    (prompt,) = read_prompts(tokenizer, [instruction], template=template, spans=None if span is None else [span])
    return prompt.span


def read_prompts(
    tokenizer: Any,
    instructions: Sequence[Instruction | Prompt],
    *,
    template: str | None = None,
    spans: Sequence[Span] | None = None,
    max_length: int | None = None,
) -> list[Prompt]:
    """Put instructions into the chat template, tokenise them and find where they end.

    The template is rendered once with a sentinel in the instruction's place, which shows what stands before and after
    it. The end is where the tokens of the text up to the instruction's end agree with those of the whole: no decoded
    text is searched. White space at the end of an instruction does not belong to it.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer, slow or fast.
    instructions
        Instructions or chats; a `Prompt` is taken as it is.
    template
        What is used instead of the tokenizer's chat template, such as ``"[INST]{instruction}[/INST]"``; the tokenizer
        adds its special tokens around it.
    spans
        Known places, one for each instruction: no template is applied then, the instructions are whole prompts.
    max_length
        Largest number of tokens; None: what the tokenizer says of its model.

    Raises
    ------
    TypeError
        One string instead of several.
    ValueError
        No instruction at all, an empty one, one that is too long; neither a chat template nor `template` nor `spans`;
        a template that changes its instruction; a tokenizer that merges the instruction's end with the template. The
        message names the instruction.
    """
    if isinstance(instructions, str):
        raise TypeError("instructions must be a sequence; wrap a single one in a list")
    if len(instructions) == 0:
        raise ValueError("instructions is empty; pass one or more")
    if spans is not None and len(spans) != len(instructions):
        raise ValueError(f"spans has {len(spans)} entries, there are {len(instructions)} instructions")
    longest = max_length or getattr(tokenizer, "model_max_length", None) or float("inf")
    found = []
    for index, instruction in enumerate(instructions):
        try:
            if isinstance(instruction, Prompt):
                prompt = Prompt.of(*instruction)
            elif spans is not None:
                if not isinstance(instruction, str):
                    raise ValueError("with spans it must be the text of the whole prompt")
                prompt = Prompt.of(tokenizer(instruction)["input_ids"], spans[index])
            else:
                prompt = _read(tokenizer, instruction, template)
        except ValueError as error:
            raise ValueError(f"instruction {index}: {error}") from error
        found.append(prompt)
    if too_long := [index for index, prompt in enumerate(found) if len(prompt.ids) > longest]:
        raise ValueError(
            f"instructions {', '.join(map(str, too_long))} have more than max_length={longest:g} tokens with their "
            "template, so that t_inst or t_post would be cut off; shorten them"
        )
    return found


def read_rendered(tokenizer: Any, texts: Sequence[str], *, suffix: str | None = None) -> list[Prompt]:
    """Prompts whose chat template was applied before: the instruction is what stands before the template's end.

    Parameters
    ----------
    tokenizer
        A Hugging Face tokenizer; it adds its special tokens in front, as it does for `generate`.
    texts
        Whole prompts. Where their instructions start is not looked for: `span.start` is 0.
    suffix
        What stands behind every instruction; None: what the chat template puts there.

    Raises
    ------
    TypeError, ValueError
        As `read_prompts`; also a text that does not end with the suffix.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("prompts must be a sequence of strings; wrap a single one in a list")
    if len(texts) == 0:
        raise ValueError("prompts is empty; pass one or more")
    if suffix is None:
        _, suffix = _surroundings(tokenizer, [{"role": "user", "content": ""}], 0, None)
    found = []
    for index, text in enumerate(texts):
        head = text.removesuffix(suffix).rstrip()
        if not text.endswith(suffix) or not head:
            raise ValueError(
                f"prompt {index} is no instruction followed by {suffix!r}: apply the chat template to it, or pass "
                "suffix, what stands behind the instructions"
            )
        try:
            found.append(_locate(tokenizer, text, 0, len(head), special=True))
        except ValueError as error:
            raise ValueError(f"prompt {index}: {error}") from error
    return found


def read_with_question(
    tokenizer: Any, contexts: Sequence[str], question: str, *, template: str | None = None
) -> list[Prompt]:
    """Prompts that ask a question about a context; `span.start` is the question's first token."""
    return [_read(tokenizer, context + question, template, last_part=question) for context in contexts]


def _read(tokenizer: Any, instruction: Instruction, template: str | None, last_part: str | None = None) -> Prompt:
    messages = [{"role": "user", "content": instruction}] if isinstance(instruction, str) else list(instruction)
    asked = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=None)
    if asked is None:
        raise ValueError("the chat has no message of the user")
    content = messages[asked]["content"]
    if not content.strip():
        raise ValueError("it is empty; t_inst is its last token")
    before, after = _surroundings(tokenizer, messages, asked, template)
    rendered = before + content + after if template is not None else _render(tokenizer, messages)
    for written in (content, content.strip()):  # many templates strip what they are given
        if rendered == before + written + after:
            start = len(before) + len(written) - len(written.lstrip())
            end = start + len(content.strip())
            if last_part is not None:
                start = end - len(last_part.strip())
            return _locate(tokenizer, rendered, start, end, special=template is not None)
    raise ValueError("the chat template changes its text; apply it yourself and pass spans")


def _locate(tokenizer: Any, text: str, start: int, end: int, *, special: bool) -> Prompt:
    """The tokens of a text and the span of those between two characters."""

    def plain(part: str) -> list[int]:
        return list(tokenizer(part, add_special_tokens=False)["input_ids"])

    ids, before, upto = plain(text), plain(text[:start]), plain(text[:end])
    if (stop := _agreement(upto, ids)) < len(upto):
        merged = tokenizer.convert_ids_to_tokens(ids[stop]) if stop < len(ids) else "nothing"
        raise ValueError(
            f"the tokenizer merges its end with what follows into the token {merged!r}, so that there is no t_inst; "
            "end it differently, or use a template that does not merge"
        )
    front = _specials_in_front(list(tokenizer(text)["input_ids"]), ids) if special else []
    first = min(_agreement(before, ids), stop - 1)
    span = Span(len(front) + first, len(front) + stop - 1, len(front) + len(ids) - 1)
    return Prompt.of([*front, *ids], span)


def _specials_in_front(whole: Sequence[int], plain: Sequence[int]) -> list[int]:
    """What the tokenizer puts before a text; what it puts behind would end the prompt and is left out."""
    for at in range(len(whole) - len(plain) + 1):
        if list(whole[at : at + len(plain)]) == list(plain):
            return list(whole[:at])
    return []


def _surroundings(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], asked: int, template: str | None
) -> tuple[str, str]:
    """Texts before and after the instruction."""
    if template is not None:
        if template.count(_SLOT) != 1 or len(messages) > 1:
            raise ValueError(f"template={template!r} must hold {_SLOT} once, and takes one instruction, not a chat")
        before, after = template.split(_SLOT)
        return before, after
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template, so the end of an instruction is not known; pass "
            f"template='[INST]{_SLOT}[/INST]', or whole prompts with spans=[Span(start, t_inst, t_post), ...]"
        )
    marked = [{**message, "content": _SENTINEL} if at == asked else message for at, message in enumerate(messages)]
    parts = _render(tokenizer, marked).split(_SENTINEL)
    if len(parts) != 2:
        raise ValueError(f"the chat template shows the instruction {len(parts) - 1} times; pass template or spans")
    return parts[0], parts[1]


def _render(tokenizer: Any, messages: Sequence[Mapping[str, str]]) -> str:
    rendered: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    return rendered


def _agreement(part: Sequence[int], whole: Sequence[int]) -> int:
    """How many tokens the two share from the start."""
    return next(
        (at for at, (one, other) in enumerate(zip(part, whole, strict=False)) if one != other),
        min(len(part), len(whole)),
    )
