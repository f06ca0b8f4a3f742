"""The contract that every registered method keeps: bits outside, rows, cache, padding, files, order, refusals."""

from __future__ import annotations

import copy

import pytest
import torch

from interplay.steering import METHODS, SteeringSequence, find_method, load_steering
from tests.steering.conftest import Language, language, prompts

GOOD, BAD = prompts("good"), prompts("bad", seed=1)
NEW_TOKENS = 5
READS_PROMPTS = {"weighted"}  # what was generated is no prompt to them, so the whole sequence is not what was continued
OPTIONS = {  # of methods whose defaults do not fit a layout
    (method, "gpt2"): {"norms": ("ln_",)} for method in ("ablation", "actadd", "angular", "selective")
}


def fitted(method: str, kind: Language):
    options = OPTIONS.get((method, kind.model.config.model_type), {})
    return find_method(method).fit(kind.model, kind.tokenizer, GOOD, BAD, **options)


def batch(kind, texts=GOOD):
    return kind.tokenizer(list(texts), return_tensors="pt", padding=True)


def scores(kind, texts=GOOD):
    """Logits of every step of greedy generation."""
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    found = kind.model.generate(**batch(kind, texts), max_new_tokens=NEW_TOKENS, **options)
    return found.sequences, torch.stack(found.logits, 1)


def hooks(model):
    return [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()]


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    return request.param


def test_nothing_is_left_behind_and_strength_zero_is_the_identity(method, any_language):
    steering, before = fitted(method, any_language), scores(any_language)[1]
    installed = hooks(any_language.model)
    with steering.applied(any_language.model, positions="all") as applied:
        steered = scores(any_language)[1]
    tokens = batch(any_language)["input_ids"].numel() + (NEW_TOKENS - 1) * len(GOOD)
    assert set(applied.values()) == {tokens}
    assert not torch.equal(steered, before)
    assert hooks(any_language.model) == installed
    for nothing in (0.0, torch.zeros(len(GOOD))):
        with steering.applied(any_language.model, nothing):
            assert torch.equal(scores(any_language)[1], before)
    with pytest.raises(KeyError), steering.applied(any_language.model):
        raise KeyError
    assert torch.equal(scores(any_language)[1], before)


def test_rows_have_strengths_of_their_own_and_padding_does_not_count(method, any_language):
    steering = fitted(method, any_language)
    strengths = torch.linspace(-1, 2, len(GOOD))
    with steering.applied(any_language.model, strengths):
        sequences, together = scores(any_language)
    for row, strength in enumerate(strengths.tolist()):
        with steering.applied(any_language.model, strength):
            alone = scores(any_language, GOOD[row : row + 1])
        assert torch.equal(sequences[row, -NEW_TOKENS:], alone[0][0, -NEW_TOKENS:])
        torch.testing.assert_close(together[row], alone[1][0], rtol=1e-3, atol=1e-3)
    with steering.applied(any_language.model, strengths[:2]), pytest.raises(ValueError, match="2"):
        any_language.model(**batch(any_language))


def test_the_cache_gives_what_the_whole_sequence_gives(method, llama):
    steering = fitted(method, llama)
    with steering.applied(llama.model, positions="all"):
        sequences, stepwise = scores(llama, GOOD[:1])
        if method in READS_PROMPTS:
            read = llama.model(sequences[:, :-NEW_TOKENS])
            written = llama.model(sequences[:, -NEW_TOKENS:], past_key_values=read.past_key_values)
            logits = torch.cat([read.logits, written.logits], 1)
        else:
            logits = llama.model(sequences).logits
        whole = logits[:, -NEW_TOKENS - 1 : -1]
    torch.testing.assert_close(stepwise, whole, rtol=1e-4, atol=1e-4)


def test_only_the_tokens_that_are_asked_for_are_steered(method, llama):
    steering = fitted(method, llama)
    before = scores(llama)[1]
    with steering.applied(llama.model, positions="generated"):
        steered = scores(llama)[1]
    assert torch.equal(steered[:, 0], before[:, 0])
    assert not torch.equal(steered[:, 1], before[:, 1])
    with steering.applied(llama.model, positions="last") as applied:
        llama.model(**batch(llama))
    assert set(applied.values()) == {len(GOOD)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_checkpointing_and_training_of_other_parameters(method, llama, dtype):
    steering = fitted(method, llama)
    model = llama.model.to(dtype)
    with steering.applied(model):
        model.generate(**batch(llama), max_new_tokens=2, do_sample=False)
        model.activation_checkpointing_enable()
        logits = model.train()(**batch(llama)).logits
        logits.float().logsumexp(-1).mean().backward()
    assert logits.dtype == dtype
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_file_keeps_everything(method, any_language, tmp_path):
    steering = fitted(method, any_language)
    steering.save(tmp_path / "x.safetensors")
    again = load_steering(tmp_path / "x.safetensors")
    assert type(again) is type(steering)
    assert again.settings() == steering.settings()
    logits = []
    for one in (steering, again):
        with one.applied(any_language.model, 0.7):
            logits.append(any_language.model(**batch(any_language)).logits)
    assert torch.equal(*logits)


def test_two_compose_in_the_order_of_entering(method, llama):
    first, second = fitted(method, llama), fitted("caa", llama)
    with first.applied(llama.model, 1.0), second.applied(llama.model, 0.5):
        nested = llama.model(**batch(llama)).logits
    with SteeringSequence(first, second).applied(llama.model, (1.0, 0.5)):
        assert torch.equal(llama.model(**batch(llama)).logits, nested)


def test_bad_input_is_refused(method, llama):
    steering = fitted(method, llama)
    with pytest.raises(ValueError, match="fitted on llama"):
        steering.applied(language("gpt2").model).__enter__()
    with steering.applied(llama.model), pytest.raises(RuntimeError, match="already applied"):
        steering.applied(llama.model).__enter__()
    for strength in (float("nan"), torch.ones(2, 2), torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="strength must be"):
            steering.applied(llama.model, strength).__enter__()
    with pytest.raises(ValueError, match="meta device"):
        steering.applied(copy.deepcopy(llama.model).to("meta")).__enter__()
    with pytest.raises(TypeError, match="sequence of strings"):
        type(steering).fit(llama.model, llama.tokenizer, "good", BAD)
    with pytest.raises(ValueError, match="prompts is empty"):
        type(steering).fit(llama.model, llama.tokenizer, GOOD, [])
    with pytest.raises(ValueError, match="training mode"):
        type(steering).fit(llama.model.train(), llama.tokenizer, GOOD, BAD)
