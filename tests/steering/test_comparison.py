"""Comparisons: every row is what its prompt and strength give alone, perplexity is the unsteered model's."""

from __future__ import annotations

import math

import pytest
import torch

from interplay.steering import ActivationAddition
from interplay.steering.comparison import compare, is_refusal, matcher, repetition, summarise
from tests.steering.conftest import prompts

GOOD, BAD = prompts("good"), prompts("bad", seed=1)
STRENGTHS = [0.0, 0.5, -2.0]


def test_rows_are_what_each_prompt_and_strength_give_alone(any_language):
    model, tokenizer = any_language
    steering = ActivationAddition.fit(model, tokenizer, GOOD, BAD)
    table = compare(model, tokenizer, steering, GOOD, STRENGTHS, max_new_tokens=7, rows_per_batch=4)
    assert list(table["prompt"]) == [prompt for prompt in GOOD for _ in STRENGTHS]
    for row in table.itertuples():
        inputs = tokenizer([row.prompt], return_tensors="pt")
        with steering.applied(model, row.strength):
            sequence = model.generate(**inputs, max_new_tokens=7, do_sample=False)
        new = sequence[0, inputs["input_ids"].shape[1] :]
        assert row.text == tokenizer.decode(new, skip_special_tokens=True)
        logits = model(sequence).logits[0].log_softmax(-1)
        loss = -logits[-len(new) - 1 : -1].gather(1, new[:, None]).mean()
        assert row.perplexity == pytest.approx(loss.exp().item(), rel=1e-3)
    summary = summarise(table)
    assert list(summary["strength"]) == sorted(STRENGTHS)
    chosen = table[table["strength"] == -2]["perplexity"]
    assert summary["perplexity"][0] == pytest.approx(math.exp(chosen.map(math.log).mean()))


def test_the_text_ends_where_the_model_ends_it(llama):
    model, tokenizer = llama
    steering = ActivationAddition.fit(model, tokenizer, GOOD, BAD)
    free = compare(model, tokenizer, steering, GOOD[:1], [0.0], max_new_tokens=6)
    first = tokenizer(free["text"][0].split()[0])["input_ids"][0]
    model.generation_config.eos_token_id = first
    table = compare(model, tokenizer, steering, GOOD, [0.0], max_new_tokens=6, target=lambda text: True)
    assert table["text"][0] == tokenizer.decode([first])
    inputs = tokenizer([GOOD[0]], return_tensors="pt")
    assert table["perplexity"][0] == pytest.approx(
        1 / model(**inputs).logits[0, -1].softmax(-1)[first].item(), rel=1e-3
    )
    assert table["target"].all()


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but no.", True),
        ("Sure! Here it is.", False),
        ("a" * 200 + "i cannot", False),
    ],
)
def test_refusals_are_openers(text, refused):
    assert is_refusal(text) == refused


def test_repetition_counts_runs_that_were_there_before():
    assert repetition("a b c d e f") == 0
    assert repetition("a a a a a a") == pytest.approx(2 / 3)
    assert repetition("a b") == 0


def test_bad_input_is_refused(llama):
    steering = ActivationAddition.fit(*llama, GOOD, BAD)
    with pytest.raises(ValueError, match="strengths is empty"):
        compare(*llama, steering, GOOD, [])
    with pytest.raises(ValueError, match="must be positive"):
        compare(*llama, steering, GOOD, [0.0], max_new_tokens=0)
    with pytest.raises(ValueError, match="regular expression"):
        matcher("(")
    assert matcher("gl.d")("so GLAD")
    assert not torch.is_inference(steering.vectors)
