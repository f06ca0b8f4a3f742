"""The contract of every steering method, on activation addition: bits outside, rows, positions, files, order."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from interplay.primitives.activations import Site, record
from interplay.steering import ActivationAddition, SteeringSequence, collect_activations, load_steering
from tests.steering.conftest import language, prompts

GOOD, BAD = prompts("good"), prompts("bad", seed=1)
SITE = Site("residual", 2)


def fitted(kind, **options) -> ActivationAddition:
    return ActivationAddition.fit(kind.model, kind.tokenizer, GOOD, BAD, **options)


def batch(kind, texts=GOOD):
    return kind.tokenizer(list(texts), return_tensors="pt", padding=True)


def generated(kind, **options):
    return kind.model.generate(
        **batch(kind), max_new_tokens=6, do_sample=False, output_scores=True, return_dict_in_generate=True, **options
    )


def test_the_vector_is_the_difference_of_means_of_single_prompts(any_language):
    steering = fitted(any_language, layers=[1, 2])
    for row, layer in enumerate((1, 2)):
        means = []
        for texts in (GOOD, BAD):
            states = [
                any_language.model(**any_language.tokenizer(text, return_tensors="pt"), output_hidden_states=True)
                .hidden_states[layer + 1][0, -1] for text in texts
            ]  # fmt: skip
            means.append(torch.stack(states).mean(0))
        torch.testing.assert_close(steering.vectors[row], (means[0] - means[1]).detach(), rtol=1e-4, atol=1e-5)


def test_collection_does_not_depend_on_batches(any_language):
    model, tokenizer = any_language
    sites = [Site("residual", 0), Site("heads", 1, 2), Site("neurons", 2)]
    one_by_one = collect_activations(model, tokenizer, GOOD, sites, tokens_per_batch=1)
    together = collect_activations(model, tokenizer, GOOD, sites, tokens_per_batch=10_000)
    for site in sites:
        torch.testing.assert_close(together[site], one_by_one[site], rtol=1e-4, atol=1e-5)
    second = collect_activations(model, tokenizer, GOOD, sites[:1], from_end=[2] * 6)
    shorter = collect_activations(model, tokenizer, [text.rpartition(" ")[0] for text in GOOD], sites[:1])
    torch.testing.assert_close(second[sites[0]], shorter[sites[0]], rtol=1e-4, atol=1e-5)


def test_several_tokens_of_a_prompt_are_read_in_one_pass(any_language):
    model, tokenizer = any_language
    sites = [Site("embedding"), Site("residual", 1)]
    tokens = [(1, 3, 2, 1), (2, 1, 3, 3)] * 3
    both = collect_activations(model, tokenizer, GOOD, sites, from_end=tokens, tokens_per_batch=20)
    for place in range(4):
        one = collect_activations(model, tokenizer, GOOD, sites, from_end=[several[place] for several in tokens])
        for site in sites:
            torch.testing.assert_close(both[site][:, place], one[site], rtol=1e-4, atol=1e-5)
    for uneven in ([(1, 2), (1,)] * 3, [()] * 6):
        with pytest.raises(ValueError, match="same number of tokens"):
            collect_activations(model, tokenizer, GOOD, sites, from_end=uneven)


def test_collection_stops_at_the_last_site(llama):
    def never(*_):
        raise AssertionError("a layer behind the last site ran")

    with llama.model.model.layers[2].register_forward_pre_hook(never):
        collect_activations(llama.model, llama.tokenizer, GOOD, [Site("residual", 1)])


@pytest.mark.parametrize("strength", [2.0, torch.tensor(2.0)])
def test_generation_is_that_of_a_model_whose_layer_adds_the_vector(any_language, strength):
    steering = fitted(any_language)
    before = generated(any_language)
    with steering.applied(any_language.model, strength) as applied:
        steered = generated(any_language)
    assert applied[SITE] == batch(any_language)["input_ids"].numel() + 5 * len(GOOD)
    layer = copy.deepcopy(any_language)

    def add(_, __, output):
        first = output[0] if isinstance(output, tuple) else output
        return (
            (first + 2 * steering.vectors[0], *output[1:])
            if isinstance(output, tuple)
            else first + 2 * steering.vectors[0]
        )

    with next(m for m in layer.model.modules() if isinstance(m, nn.ModuleList))[2].register_forward_hook(add):
        expected = generated(layer)
    assert torch.equal(steered.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(steered.scores), torch.stack(expected.scores))
    after = generated(any_language)
    assert torch.equal(torch.stack(after.scores), torch.stack(before.scores))
    assert not torch.equal(torch.stack(steered.scores), torch.stack(before.scores))
    with steering.applied(any_language.model, 0.0):
        assert torch.equal(torch.stack(generated(any_language).scores), torch.stack(before.scores))


def test_rows_have_strengths_of_their_own(any_language):
    steering, inputs = fitted(any_language), batch(any_language)
    strengths = torch.linspace(-1, 2, len(GOOD))
    with steering.applied(any_language.model, strengths):
        together = any_language.model(**inputs).logits
    for row, strength in enumerate(strengths.tolist()):
        with steering.applied(any_language.model, strength):
            torch.testing.assert_close(together[row], any_language.model(**inputs).logits[row], rtol=1e-4, atol=1e-4)
    with steering.applied(any_language.model, strengths[:2]), pytest.raises(ValueError, match=r"2 entries.*6 rows"):
        any_language.model(**inputs)


def test_steerings_compose_in_the_order_of_entering(llama):
    first, second = fitted(llama), fitted(llama)
    second.edits = lambda model, strength: {SITE: lambda h: h * (1 - strength)}
    inputs = batch(llama)
    with first.applied(llama.model, 1.0), second.applied(llama.model, 0.5), record(llama.model, [SITE]) as nested:
        llama.model(**inputs)
    with record(llama.model, [SITE]) as plain:
        llama.model(**inputs)
    with first.then(second).applied(llama.model, (1.0, 0.5)), record(llama.model, [SITE]) as sequence:
        llama.model(**inputs)
    torch.testing.assert_close(nested[SITE], (plain[SITE] + first.vectors[0]) * 0.5)
    assert torch.equal(nested[SITE], sequence[SITE])
    with SteeringSequence(second, first).applied(llama.model, [0.5, 1.0]), record(llama.model, [SITE]) as reverse:
        llama.model(**inputs)
    torch.testing.assert_close(reverse[SITE], plain[SITE] * 0.5 + first.vectors[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_checkpointing_and_training_of_other_parameters(llama, dtype):
    steering = fitted(llama)
    model = llama.model.to(dtype)
    model.activation_checkpointing_enable()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with steering.applied(model.train(), 1.0):
        logits = model(**batch(llama)).logits
        logits.float().logsumexp(-1).mean().backward()
    assert logits.dtype == dtype
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_a_file_keeps_everything(llama, tmp_path):
    steering = fitted(llama, layers=[3, 1])
    path = tmp_path / "tone.safetensors"
    steering.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["tone.safetensors"]
    again = load_steering(path)
    assert type(again) is ActivationAddition
    assert again.layers == (3, 1)
    assert torch.equal(again.vectors, steering.vectors)
    with steering.applied(llama.model), record(llama.model, [SITE]) as first:
        llama.model(**batch(llama))
    with again.applied(llama.model), record(llama.model, [SITE]) as second:
        llama.model(**batch(llama))
    assert torch.equal(first[SITE], second[SITE])


def test_foreign_and_damaged_files_are_refused(llama, tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no steering"):
        load_steering(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="holds no steering"):
        load_steering(path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="holds no steering"):
        load_steering(path)
    steering = fitted(llama)
    header = {"format": 1, "method": "nothing", "settings": {}, "shape": steering.shape._asdict()}
    save_file({"a": torch.ones(1)}, path, metadata={"interplay": json.dumps(header)})
    with pytest.raises(ValueError, match="method 'nothing'"):
        load_steering(path)
    header |= {"method": "caa", "settings": {"layers": [1]}}
    save_file({"a": torch.ones(1)}, path, metadata={"interplay": json.dumps(header)})
    with pytest.raises(ValueError, match="does not hold the tensors of caa"):
        load_steering(path)


def test_bad_input_is_refused(llama):
    steering = fitted(llama)
    with pytest.raises(ValueError, match=r"fitted on llama with 4 layers.*the model is gpt2"):
        steering.applied(language("gpt2").model).__enter__()
    with steering.applied(llama.model), pytest.raises(RuntimeError, match="already applied"):
        steering.applied(llama.model).__enter__()
    for strength in (float("nan"), torch.ones(2, 2), torch.tensor([1, 2])):
        with pytest.raises(ValueError, match="strength must be"):
            steering.applied(llama.model, strength).__enter__()
    with pytest.raises(ValueError, match="meta device"):
        steering.applied(copy.deepcopy(llama.model).to("meta")).__enter__()
    with pytest.raises(ValueError, match="layers must be"):
        fitted(llama, layers=[4])
    with pytest.raises(TypeError, match="sequence of strings"):
        ActivationAddition.fit(llama.model, llama.tokenizer, "good", BAD)
    with pytest.raises(ValueError, match="prompts is empty"):
        ActivationAddition.fit(llama.model, llama.tokenizer, GOOD, [])
    with pytest.raises(ValueError, match="prompt 1 has no token"):
        ActivationAddition.fit(llama.model, llama.tokenizer, GOOD, ["good", " "])
    with pytest.raises(ValueError, match="from_end must be between 1"):
        collect_activations(llama.model, llama.tokenizer, ["good"], [SITE], from_end=2)
    with pytest.raises(ValueError, match="training mode"):
        ActivationAddition.fit(llama.model.train(), llama.tokenizer, GOOD, BAD)
