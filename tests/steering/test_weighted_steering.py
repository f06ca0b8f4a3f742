"""Weighted steering adds what its equations say, where its schedule says; training teaches what its losses ask for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from interplay.primitives.activations import Site, edit, record
from interplay.steering import load_steering
from interplay.steering.weighted_steering import Controller, WeightedSteering, harmful_loss, refusal_direction
from interplay.steering.weighted_steering.training import FrozenModel
from interplay.testing import check_mechanism
from tests.steering.conftest import WORDS, Language, language, prompts

GOOD, BAD = prompts("good"), prompts("bad", seed=1)
DEPTH, WIDTH = 4, 24


def batch(kind: Language, texts=GOOD, side: str = "left") -> dict[str, Tensor]:
    return kind.tokenizer(list(texts), return_tensors="pt", padding=True, padding_side=side)


def assembled(
    kind: Language, gate="sigmoid", seed: int = 0, alpha_units="abs", norms=None, **settings
) -> WeightedSteering:
    """A steering with a random controller and random directions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = len(settings.get("input_layers", range(DEPTH)))
        steered = settings.get("steered_layers", range(DEPTH))
        controller = Controller(inputs * WIDTH, len(steered), 16, gate)
        directions = torch.randn(len(steered), WIDTH)
    return WeightedSteering.with_controller(
        kind.model, controller, directions, norms, alpha_units=alpha_units, **settings
    )


@torch.no_grad()
def last_states(kind: Language, texts, layers) -> Tensor:
    with record(kind.model, [Site("residual", layer) for layer in layers], positions="last") as seen:
        kind.model(**batch(kind, texts))
    return torch.cat([seen[Site("residual", layer)] for layer in layers], 1)


@pytest.mark.parametrize("gate", ["sigmoid", "relu", "raw", "hard"])
def test_the_controller_is_a_mechanism(gate):
    x = 3 * torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    controller = Controller(12, 3, 8, gate)
    check_mechanism(controller, x, gradients=gate in ("sigmoid", "raw"), bad_inputs={"width": (x[:, :5],)})
    s, w = controller(x)
    hidden = np.maximum(
        x.numpy() @ controller.inner.weight.detach().numpy().T + controller.inner.bias.detach().numpy(), 0
    )
    outputs = hidden @ controller.outer.weight.detach().numpy().T + controller.outer.bias.detach().numpy()
    sigmoid = 1 / (1 + np.exp(-outputs))
    expected = {
        "sigmoid": sigmoid[:, 0],
        "relu": np.maximum(outputs[:, 0], 0),
        "raw": outputs[:, 0],
        "hard": (outputs[:, 0] > 0).astype(np.float32),
    }
    np.testing.assert_allclose(s.detach().numpy(), expected[gate], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(w.detach().numpy(), sigmoid[:, 1:], rtol=1e-5, atol=1e-6)


def test_two_pass_adds_the_equation_at_every_layer(any_language):
    norms = torch.tensor([1.0, 2.0, 3.0, 4.0])
    steering = assembled(any_language, alpha=0.7, alpha_units="rel", norms=norms)
    s, w = steering.controller(last_states(any_language, GOOD, range(DEPTH)))
    amounts = (1.3 * 0.7 * s[:, None] * w * norms).detach()
    by_hand = {
        Site("residual", layer): lambda h, layer=layer: h + amounts[:, layer, None] * steering.directions[layer]
        for layer in range(DEPTH)
    }
    with torch.inference_mode(), edit(any_language.model, by_hand, positions="last"):
        expected = any_language.model(**batch(any_language)).logits
    with torch.inference_mode(), steering.applied(any_language.model, 1.3) as applied:
        logits = any_language.model(**batch(any_language)).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert set(applied.values()) == {len(GOOD)}, "every layer is reached"
    torch.testing.assert_close(applied.s, s.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(applied.w, w.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(applied.lengths, amounts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(steering.directions.norm(dim=1), torch.ones(DEPTH))


def test_what_the_prompt_said_holds_for_all_that_is_generated(llama):
    steering = assembled(llama, alpha=2.0)
    with steering.applied(llama.model) as applied:
        llama.model.generate(**batch(llama), max_new_tokens=4, do_sample=False)
    s, _ = steering.controller(last_states(llama, GOOD, range(DEPTH)))
    torch.testing.assert_close(applied.s, s.detach(), rtol=1e-4, atol=1e-5)
    assert set(applied.values()) == {4 * len(GOOD)}


def test_another_batch_is_read_anew(llama):
    steering = assembled(llama)
    with torch.inference_mode(), steering.applied(llama.model) as applied:
        llama.model(**batch(llama, GOOD[:2]))
        first = applied.s
        llama.model(**batch(llama, BAD[:3]))
    assert first.shape == (2,)
    assert applied.s.shape == (3,)


def test_two_models_at_once_do_not_share_a_state(llama):
    steering, other = assembled(llama), language("llama", seed=1)
    with torch.inference_mode(), steering.applied(llama.model) as one, steering.applied(other.model) as two:
        llama.model(**batch(llama, GOOD[:2]))
        other.model(**batch(other, GOOD[:2]))
    assert not torch.equal(one.s, two.s)


def test_previous_step_steers_by_what_was_read_before(llama):
    steering = assembled(llama, schedule="previous-step", alpha=3.0)
    tokens = 5
    with torch.inference_mode(), steering.applied(llama.model) as applied:
        cache, said = None, []
        ids = batch(llama, GOOD[:1])["input_ids"]
        for step in range(tokens):
            with record(llama.model, [Site("residual", layer) for layer in range(DEPTH)], positions="last") as seen:
                output = llama.model(ids, past_key_values=cache, use_cache=True)
            cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
            # The recording sees the steered stream, the controller reads a layer before it is steered.
            said.append(applied.s if step else torch.tensor([float("nan")]))
            assert applied[Site("residual", 0)] == step
    assert len({round(float(one), 6) for one in said[1:]}) > 1, "read anew for each token"
    assert seen[Site("residual", 0)].shape == (1, WIDTH)


def test_previous_step_reads_only_as_often_as_it_is_told(llama):
    steering = assembled(llama, schedule="previous-step", alpha=3.0, refresh=3)
    said = []
    with torch.inference_mode(), steering.applied(llama.model) as applied:
        output = llama.model(batch(llama, GOOD[:1])["input_ids"], use_cache=True)
        for _ in range(6):
            output = llama.model(
                output.logits[:, -1:].argmax(-1), past_key_values=output.past_key_values, use_cache=True
            )
            said.append(float(applied.s))
    assert said[0] == said[1] == said[2]
    assert said[3] == said[4] == said[5] != said[0]


def test_prefix_reads_early_and_steers_late_in_one_pass(llama):
    steering = assembled(llama, schedule="prefix", input_layers=(0, 1), steered_layers=(2, 3), alpha=2.0)
    with torch.inference_mode(), steering.applied(llama.model) as applied:
        prefix = llama.model(**batch(llama)).logits
    s, w = steering.controller(last_states(llama, GOOD, (0, 1)))
    torch.testing.assert_close(applied.s, s.detach(), rtol=1e-4, atol=1e-5)
    assert dict(applied) == {Site("residual", 2): len(GOOD), Site("residual", 3): len(GOOD)}
    # The inputs come before all that is steered, so reading the prompt apart gives the same.
    same = WeightedSteering.with_controller(
        llama.model,
        steering.controller,
        steering.directions,
        input_layers=(0, 1),
        steered_layers=(2, 3),
        alpha=2.0,
        alpha_units="abs",
    )
    with torch.inference_mode(), same.applied(llama.model):
        torch.testing.assert_close(llama.model(**batch(llama)).logits, prefix, rtol=1e-4, atol=1e-4)
    assert w.shape == (len(GOOD), 2)


def test_same_pass_forgets_between_passes(llama):
    with pytest.warns(UserWarning, match="stay unsteered"):
        steering = assembled(llama, schedule="same-pass", alpha=2.0)
    with torch.inference_mode(), steering.applied(llama.model) as applied:
        llama.model.generate(**batch(llama), max_new_tokens=3, do_sample=False)
    assert [applied[Site("residual", layer)] for layer in range(DEPTH)] == [0, 0, 0, 3 * len(GOOD)]


def test_it_reads_what_an_earlier_steering_wrote(llama):
    one, other = assembled(llama, alpha=5.0), assembled(llama, seed=1)
    with torch.inference_mode(), other.applied(llama.model) as alone:
        llama.model(**batch(llama))
    with torch.inference_mode(), one.applied(llama.model), other.applied(llama.model) as behind:
        llama.model(**batch(llama))
    assert not torch.allclose(alone.s, behind.s)


def test_the_probe_tells_the_classes_apart_and_leaves_the_weights_at_a_half(llama):
    before = copy.deepcopy(llama.model.state_dict())
    good, bad = prompts("good", 40), prompts("bad", 40, seed=1)
    steering = WeightedSteering.fit(llama.model, llama.tokenizer, good, bad, epochs=20, learning_rate=1e-3, hidden=32)
    fresh = prompts("good", 20, seed=5), prompts("bad", 20, seed=6)
    scores = [steering.score(llama.model, llama.tokenizer, texts) for texts in fresh]
    assert float((scores[0] > 0).float().mean()) > 0.8
    assert float((scores[1] < 0).float().mean()) > 0.8
    assert steering.history_[-1] < steering.history_[0]
    untrained = WeightedSteering.fit(llama.model, llama.tokenizer, good, bad, epochs=0, hidden=32)
    x = last_states(llama, good, range(DEPTH))
    distances = [float((one.controller(x)[1] - 0.5).abs().mean().detach()) for one in (steering, untrained)]
    assert distances[0] < 0.5 * distances[1]
    for name, tensor in llama.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_relative_alpha_is_in_median_norms_of_what_is_left_alone(llama):
    steering = WeightedSteering.fit(llama.model, llama.tokenizer, GOOD, BAD, epochs=1)
    norms = last_states(llama, BAD, range(DEPTH)).reshape(len(BAD), DEPTH, WIDTH).norm(dim=-1)
    torch.testing.assert_close(steering.norms, norms.median(0).values, rtol=1e-4, atol=1e-4)
    means = [last_states(llama, texts, range(DEPTH)).reshape(-1, DEPTH, WIDTH).mean(0) for texts in (GOOD, BAD)]
    difference = means[0] - means[1]
    expected = difference / difference.norm(dim=1, keepdim=True)
    torch.testing.assert_close(steering.directions, expected, rtol=1e-3, atol=1e-3)


def frozen(llama: Language, steering: WeightedSteering, opener: str = "w1 w2") -> FrozenModel:
    x = [last_states(llama, texts, range(DEPTH)).clone() for texts in (GOOD, BAD)]
    return FrozenModel(llama.model, llama.tokenizer, steering, GOOD, BAD, x, opener)


@pytest.mark.parametrize("positions", ["last", "prompt-end"])
def test_the_end_to_end_loss_is_that_of_the_steered_model(llama, positions):
    """Against teacher-forced passes of one prompt at a time inside the ordinary context."""
    steering = assembled(llama, alpha=2.0, positions=positions)
    loss = float(frozen(llama, steering).loss([torch.arange(3), torch.arange(2)]).detach())
    opener = torch.tensor([WORDS.index("w1"), WORDS.index("w2")])

    def logits_behind(ids: Tensor, reply: Tensor, strength: float) -> Tensor:
        with torch.inference_mode(), steering.applied(llama.model, strength):
            found = llama.model(ids, use_cache=True)
            rows = [found.logits[0, -1]]
            for token in reply[:-1]:
                found = llama.model(token.reshape(1, 1), past_key_values=found.past_key_values, use_cache=True)
                rows.append(found.logits[0, -1])
        return torch.stack(rows).log_softmax(-1)

    wanted, kept, effort = [], [], []
    for texts, count in ((GOOD, 3), (BAD, 2)):
        for text in texts[:count]:
            ids = batch(llama, [text])["input_ids"]
            s, w = steering.controller(last_states(llama, [text], range(DEPTH)))
            effort.append(float((s[:, None] * w).mean().detach()))
            if texts is GOOD:
                wanted.append(-logits_behind(ids, opener, 1.0).gather(1, opener[:, None]).mean())
            else:
                reply = llama.model.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)[0, -2:]
                plain, steered = logits_behind(ids, reply, 0.0), logits_behind(ids, reply, 1.0)
                kept.append((plain.exp() * (plain - steered)).sum(-1).mean())
    expected = float(torch.stack(wanted).mean() + torch.stack(kept).mean()) + 0.01 * float(np.mean(effort))
    assert loss == pytest.approx(expected, rel=1e-3)


def test_end_to_end_gradients_are_those_of_finite_differences():
    double = language("llama")
    double = Language(double.model.double(), double.tokenizer)
    steering = assembled(double, alpha=2.0).double()
    teaching = frozen(double, steering)
    rows = [torch.arange(3), torch.arange(3)]
    bias = steering.controller.outer.bias
    (gradient,) = torch.autograd.grad(teaching.loss(rows), [bias])
    step = 1e-4
    for index in range(len(bias)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[index] += sign * step
                values.append(float(teaching.loss(rows)))
                bias[index] -= sign * step
        # The model's logits are compared in float32, which limits the quotient.
        assert float(gradient[index]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-2, abs=2e-2)
    assert all(parameter.grad is None for parameter in double.model.parameters())


def test_end_to_end_training_teaches_the_opener(llama):
    options = {"train": "end-to-end", "opener": "w1 w2", "hidden": 32, "steps": 60, "learning_rate": 1e-2}
    steering = WeightedSteering.fit(llama.model, llama.tokenizer, GOOD, BAD, **options)
    assert len(steering.history_) == 60
    assert np.mean(steering.history_[-10:]) < 0.9 * steering.history_[0]
    again = WeightedSteering.fit(llama.model, llama.tokenizer, GOOD, BAD, **options)
    assert again.history_ == steering.history_


def test_alpha_is_chosen_on_validation(llama):
    steering = WeightedSteering.fit(llama.model, llama.tokenizer, GOOD, BAD, epochs=1, hidden=16)
    calls = []

    def target(text: str) -> bool:
        calls.append(text)
        return text.split()[0] in {"w1", "w2", "w3", "good", "bad"}

    table = steering.calibrate(
        llama.model, llama.tokenizer, GOOD, BAD, alphas=(2.0, 0.5), target=target, max_new_tokens=2
    )
    assert list(table["alpha"]) == [0.5, 2.0]
    assert len(calls) == 2 * (len(GOOD) + len(BAD))
    difference = table["positive"] - table["negative"]
    assert steering.alpha == table["alpha"][difference.idxmax()]
    for alpha, share in zip(table["alpha"], table["positive"], strict=True):
        with torch.inference_mode(), steering.applied(llama.model, alpha / steering.alpha):
            written = llama.model.generate(**batch(llama), max_new_tokens=2, do_sample=False, pad_token_id=0)
        texts = llama.tokenizer.batch_decode(written[:, -2:])
        assert np.mean([text.split()[0] in {"w1", "w2", "w3", "good", "bad"} for text in texts]) == share


@pytest.mark.parametrize("kind", ["embedding", "unembedding", "activations"])
def test_directions(llama, kind):
    texts = {"refusing": GOOD, "answering": BAD}
    ours = refusal_direction(llama.model, llama.tokenizer, kind, **texts)
    if kind == "activations":
        means = [last_states(llama, part, range(DEPTH)).reshape(-1, DEPTH, WIDTH).mean(0) for part in (GOOD, BAD)]
    else:
        table = llama.model.model.embed_tokens.weight if kind == "embedding" else llama.model.lm_head.weight
        ids = [[WORDS.index(word) for text in part for word in text.split()] for part in (GOOD, BAD)]
        means = [table.detach()[one].mean(0) for one in ids]
    difference = means[0] - means[1]
    expected = difference / difference.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


def test_a_file_keeps_controller_and_calibration(llama, tmp_path):
    steering = WeightedSteering.fit(
        llama.model, llama.tokenizer, GOOD, BAD, epochs=1, hidden=16, gate="hard", threshold=0.3
    )
    steering.alpha = 0.25
    steering.save(tmp_path / "weighted.safetensors")
    again = load_steering(tmp_path / "weighted.safetensors")
    assert isinstance(again, WeightedSteering)
    assert again.settings() == steering.settings()
    scores = [one.score(llama.model, llama.tokenizer, GOOD) for one in (steering, again)]
    assert torch.equal(*scores)


def test_bad_settings_are_refused(llama):
    fit = WeightedSteering.fit
    for settings, message in (
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"alpha_units": "mean"}, "rel, abs"),
        ({"schedule": "later"}, "two-pass, previous-step"),
        ({"refresh": 0}, "one token or more"),
        ({"positions": "all"}, "last, prompt-end"),
        ({"gate": "soft"}, "sigmoid, relu, raw, hard"),
        ({"threshold": 1.0}, "between 0 and 1"),
        ({"input_layers": (7,)}, "input_layers must be"),
        ({"steered_layers": (1, 1)}, "steered_layers must be"),
        ({"input_layers": (3,), "steered_layers": (0, 1), "schedule": "same-pass"}, "cannot be steered"),
        ({"input_layers": (1,), "steered_layers": (1, 2), "schedule": "prefix"}, "cannot be steered"),
        ({"schedule": "prefix"}, "steered_layers must be"),
        ({"direction": torch.ones(5)}, r"direction must be \[24\]"),
        ({"direction": torch.zeros(WIDTH)}, "different from zero"),
        ({"train": "both"}, "probe, end-to-end"),
        ({"train": "end-to-end"}, "opener belongs"),
        ({"opener": "w1"}, "opener belongs"),
        ({"train": "end-to-end", "opener": " "}, "no token"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(llama.model, llama.tokenizer, GOOD, BAD, **settings)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        fit(llama.model, llama.tokenizer, GOOD[:1] * 3, GOOD[:1] * 3)
    with pytest.raises(ValueError, match="from 96 to 1 \\+ 4; this one goes from 95"):
        WeightedSteering.with_controller(llama.model, Controller(95, 4), torch.ones(WIDTH), alpha_units="abs")
    with pytest.raises(ValueError, match="needs norms"):
        WeightedSteering.with_controller(llama.model, Controller(96, 4), torch.ones(WIDTH))
    with pytest.raises(ValueError, match="must be positive"):
        Controller(0, 3)
    steering = fit(llama.model, llama.tokenizer, GOOD, BAD, epochs=1)
    with pytest.raises(ValueError, match="alphas must be positive"):
        steering.calibrate(llama.model, llama.tokenizer, GOOD, BAD, alphas=(0.0, 1.0))
    with pytest.raises(ValueError, match="kind must be"):
        refusal_direction(llama.model, llama.tokenizer, "neurons")
    with pytest.raises(ValueError, match="knows none"):
        refusal_direction(llama.model, llama.tokenizer)


def test_bad_batches_are_refused(llama):
    steering = assembled(llama)
    with steering.applied(llama.model) as applied:
        with pytest.raises(LookupError, match="read nothing yet"):
            _ = applied.s
        with pytest.raises(ValueError, match="padded on the right"):
            llama.model.generate(**batch(llama, side="right"), max_new_tokens=2, do_sample=False)
    cache = llama.model(**batch(llama, GOOD[:1]), use_cache=True).past_key_values
    with steering.applied(llama.model), pytest.raises(RuntimeError, match="outside of the context"):
        llama.model(torch.tensor([[3]]), past_key_values=cache)
    with torch.no_grad():
        llama.model.model.layers[2].mlp.down_proj.weight.fill_(float("nan"))
    with steering.applied(llama.model), pytest.raises(ValueError, match="residual 2 are not finite"):
        llama.model(**batch(llama))


def test_the_harmful_loss_pulls_weights_to_a_half():
    controller = Controller(3, 4, 8)
    logits = controller.logits(torch.randn(6, 3))
    s, w = logits.strength.detach().double().numpy(), logits.layers.detach().double().sigmoid().numpy()
    expected = np.log1p(np.exp(-s)).mean() + 0.1 * (np.abs(w - 0.5).mean() + 0.01 * w.mean())
    assert float(harmful_loss(logits).detach()) == pytest.approx(expected, rel=1e-5)
