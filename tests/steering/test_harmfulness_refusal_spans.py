"""Where instructions end: templates, chats, merging tokenizers, and every way in which there is no such place."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from interplay.steering.harmfulness_refusal import Prompt, Span, find_instruction_span, read_prompts, read_rendered
from interplay.steering.harmfulness_refusal.spans import read_with_question
from tests.steering.conftest import language

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MERGES = [(".", "\n"), ("a", "b"), (" ", "ab"), ("b", "[")]


def characters(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of characters that merges as `MERGES` say and puts a special token in front and one behind."""
    from tokenizers.processors import TemplateProcessing

    alphabet = sorted(set("abcdefghijklmnopqrstuvwxyz .\n<|>[]/INSTUserwantsto?:"))
    vocabulary = {token: at for at, token in enumerate(["<s>", "</s>", *alphabet, *("".join(pair) for pair in MERGES)])}
    tokens = Tokenizer(models.BPE(vocab=vocabulary, merges=MERGES))
    tokens.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = chat_template
    return tokenizer


def shown(tokenizer, prompt: Prompt) -> tuple[str, str, str]:
    start, inst, _ = prompt.span
    pieces = tokenizer.convert_ids_to_tokens(prompt.ids)
    return "".join(pieces[:start]), "".join(pieces[start : inst + 1]), "".join(pieces[inst + 1 :])


@pytest.mark.parametrize("instruction", ["ab", "  abc b", "abab\n ", "ab?", "a\nb"])
def test_the_instruction_is_found_in_the_chat_template(instruction):
    tokenizer = characters(CHAT)
    (prompt,) = read_prompts(tokenizer, [instruction])
    assert shown(tokenizer, prompt) == ("<s><|user|>", instruction.strip(), "<|end|>\n<|assistant|>")
    assert find_instruction_span(tokenizer, instruction) == prompt.span
    assert prompt.span.t_post == len(prompt.ids) - 1


def test_the_last_message_of_the_user_is_the_instruction_also_if_it_was_said_before():
    tokenizer = characters(CHAT)
    messages = [
        {"role": "system", "content": "ab"},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "ab"},
        {"role": "user", "content": "ab"},
    ]
    (prompt,) = read_prompts(tokenizer, [messages])
    before, instruction, after = shown(tokenizer, prompt)
    assert (instruction, after) == ("ab", "<|end|>\n<|assistant|>")
    assert before.count("ab") == 3


def test_a_template_of_ones_own_keeps_the_special_tokens_in_front_and_drops_those_behind():
    tokenizer = characters()
    (prompt,) = read_prompts(tokenizer, ["ab c"], template="[INST]{instruction}[/INST]")
    assert shown(tokenizer, prompt) == ("<s>[INST]", "ab c", "[/INST]")
    (whole,) = read_prompts(tokenizer, ["ab"], spans=[Span(1, 1, 2)])  # <s> ab </s>
    assert whole.span == Span(1, 1, 2)
    assert find_instruction_span(tokenizer, "ab", span=Span(1, 1, 2)) == Span(1, 1, 2)
    assert read_prompts(tokenizer, [whole]) == [whole]


def test_an_instruction_whose_first_token_takes_a_part_of_the_template_starts_there():
    tokenizer = characters()
    (prompt,) = read_prompts(tokenizer, ["ab"], template="User: {instruction}?")
    assert shown(tokenizer, prompt) == ("<s>User:", " ab", "?")


def test_rendered_prompts_and_questions():
    tokenizer = characters(CHAT)
    tokenizer.chat_template = CHAT.removeprefix("{{ bos_token }}")
    instructions = ["ab", "abc b"]
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": one}], tokenize=False, add_generation_prompt=True)
        for one in instructions
    ]
    for one, prompt in zip(instructions, read_rendered(tokenizer, texts), strict=True):
        before, _, after = shown(tokenizer, prompt._replace(span=prompt.span._replace(start=1)))
        assert (before, after) == ("<s>", "<|end|>\n<|assistant|>")
        assert shown(tokenizer, prompt)[1].endswith(one)
    (asked,) = read_with_question(tokenizer, ["User wants to ab\n"], "is it bad?")
    assert shown(tokenizer, asked) == ("<|user|>User wants to ab\n", "is it bad?", "<|end|>\n<|assistant|>")


def test_agreement_with_a_count_of_the_templates_tokens():
    """What the official code does: so many tokens of the suffix, so many from the end."""
    tokenizer = language().tokenizer
    prompts = read_prompts(tokenizer, ["w1 good", "w2 w3 bad"], template="w0 {instruction} w4 w5 w6")
    suffix = len(tokenizer.tokenize("w4 w5 w6"))
    assert [prompt.span for prompt in prompts] == [
        Span(1, len(prompt.ids) - suffix - 1, len(prompt.ids) - 1) for prompt in prompts
    ]


def test_bad_input_is_refused():
    tokenizer = characters()
    with pytest.raises(ValueError, match=r"no chat template.*spans=\[Span"):
        read_prompts(tokenizer, ["ab"])
    with pytest.raises(ValueError, match=r"instruction 1: .*merges its end .* into the token '\.\\n'"):
        read_prompts(tokenizer, ["ab", "ab."], template="{instruction}\n:")
    with pytest.raises(ValueError, match=r"merges its end .* into the token 'b\['"):
        read_prompts(tokenizer, ["cb"], template="[INST]{instruction}[/INST]")
    tokenizer = characters(CHAT)
    for empty in ("", " \n"):
        with pytest.raises(ValueError, match="instruction 1: it is empty"):
            read_prompts(tokenizer, ["ab", empty])
    with pytest.raises(ValueError, match="instructions 0, 2 have more than max_length=31 tokens"):
        read_prompts(tokenizer, ["acdefgh", "a", "hgfedca"], max_length=31)
    with pytest.raises(TypeError, match="wrap a single one"):
        read_prompts(tokenizer, "ab")
    with pytest.raises(ValueError, match="instructions is empty"):
        read_prompts(tokenizer, [])
    with pytest.raises(ValueError, match="no message of the user"):
        read_prompts(tokenizer, [[{"role": "system", "content": "ab"}]])
    with pytest.raises(ValueError, match="spans has 2 entries"):
        read_prompts(tokenizer, ["ab"], spans=[Span(0, 0, 0)] * 2)
    with pytest.raises(ValueError, match="does not fit a prompt of 3 tokens"):
        read_prompts(tokenizer, ["ab"], spans=[Span(0, 1, 1)])
    with pytest.raises(ValueError, match=r"must hold \{instruction\} once"):
        read_prompts(tokenizer, ["ab"], template="[INST]")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(ValueError, match="shows the instruction 0 times"):
        read_prompts(tokenizer, ["ab"])
    tokenizer.chat_template = "{{ messages[0]['content'] | replace('b', 'c') }}:"
    with pytest.raises(ValueError, match="changes its text"):
        read_prompts(tokenizer, ["ab"])
    tokenizer.chat_template = CHAT
    with pytest.raises(ValueError, match="prompt 1 is no instruction followed by"):
        read_rendered(tokenizer, ["<|user|>ab<|end|>\n<|assistant|>", "ab"])
    with pytest.raises(TypeError, match="sequence of strings"):
        read_rendered(tokenizer, "ab")
    with pytest.raises(ValueError, match="prompts is empty"):
        read_rendered(tokenizer, [])
