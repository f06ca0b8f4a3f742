"""States, beliefs, the map, the guard, the two directions and reply inversion on tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.neighbors import NearestCentroid

from interplay.primitives.activations import record
from interplay.primitives.prompts import pad_left
from interplay.steering import load_steering
from interplay.steering.harmfulness_refusal import (
    GROUPS,
    BeliefProbe,
    HarmRefuseMap,
    LatentGuard,
    PromptAddition,
    States,
    belief_scores,
    collect_states,
    diff_of_means,
    greedy_replies,
    input_of_block,
    keep_behaving,
    read_prompts,
    reply_inversion,
)
from tests.steering.conftest import language, prompts

OFFICIAL = json.loads((Path(__file__).parent / "data" / "harmfulness_refusal_official.json").read_text())
TEMPLATE = "w0 {instruction} w1 w2"
GOOD, BAD = prompts("good", 12), prompts("bad", 12, seed=1)


def drawn(seed: int = 0, n: int = 24, states: int = 4, d: int = 6):
    """Two classes around different means, [prompt, state, d], and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    means = torch.randn(2, states, d, generator=generator)
    return means[labels] + torch.randn(n, states, d, generator=generator), labels


def test_scores_in_closed_form():
    towards, away = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    angle = torch.linspace(0, 2 * torch.pi, 9)[:, None]
    states = 3 * torch.stack([angle.cos(), angle.sin()], -1)
    torch.testing.assert_close(belief_scores(states, towards, away), angle.cos() - angle.sin())
    assert belief_scores(torch.zeros(1, 2), towards, away).item() == 0
    large = torch.full((1, 4096), 6e4, dtype=torch.float16)  # whose squares overflow in half precision
    assert belief_scores(large, large, -large).item() == pytest.approx(2, rel=1e-5)


def test_scores_agree_with_the_official_notebook():
    rng = np.random.default_rng(0)
    towards, away = rng.normal(size=(2, 5, 7))
    states = torch.from_numpy(rng.normal(size=(5, 11, 2, 7)).transpose(1, 2, 0, 3).copy())
    for position in (0, -1):
        scores = belief_scores(states[:, position], torch.from_numpy(towards), torch.from_numpy(away)).mean(-1)
        np.testing.assert_allclose(scores, OFFICIAL["belief"][str(position)], rtol=1e-10)


def test_states_and_steering_agree_with_the_official_code():
    kind = language()
    texts = [f"{text} w1 w2" for text in prompts("good")]
    read = read_prompts(kind.tokenizer, prompts("good"), template="{instruction} w1 w2")
    states = collect_states(kind.model, kind.tokenizer, read)
    for name in ("inst", "post"):  # kept in half precision there
        official = torch.tensor(OFFICIAL[name])
        torch.testing.assert_close(getattr(states, name).mean(0), official, rtol=2e-3, atol=2e-3)
    vectors = torch.tensor(OFFICIAL["inst"]) - torch.tensor(OFFICIAL["post"])
    expected = iter(OFFICIAL["steered_first_logits"])
    for block in range(4):
        steering = PromptAddition.along(kind.model, vectors, block)
        for text in texts[:3]:
            batch = kind.tokenizer(text, return_tensors="pt")
            before = slice(0, batch["input_ids"].shape[1] - 3)
            with steering.applied(kind.model, 2.0, positions=before):
                logits = kind.model(**batch).logits[0, -1]
            torch.testing.assert_close(logits, torch.tensor(next(expected)), rtol=1e-3, atol=1e-3)


def test_states_are_what_the_model_shows_itself(any_language):
    model, tokenizer = any_language
    read = read_prompts(tokenizer, GOOD, template=TEMPLATE)
    states = collect_states(model, tokenizer, read, tokens_per_batch=40)
    seen = []
    with (
        model.model.layers[-1].register_forward_hook(lambda *call: seen.append(call[-1]))
        if hasattr(model, "model")
        else model.transformer.h[-1].register_forward_hook(lambda *call: seen.append(call[-1]))
    ):
        for row, prompt in enumerate(read):
            with torch.no_grad():
                hidden = model(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
            last = seen[-1] if isinstance(seen[-1], torch.Tensor) else seen[-1][0]
            for state, token in ((states.inst, prompt.span.t_inst), (states.post, prompt.span.t_post)):
                own = torch.stack([*(layer[0, token] for layer in hidden[:-1]), last[0, token]])
                torch.testing.assert_close(state[row], own, rtol=1e-4, atol=1e-5)
    assert [tokenizer.decode(prompt.ids[prompt.span.t_inst]) for prompt in read] == ["good"] * len(GOOD)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100), st.integers(1, 23))
def test_beliefs_do_not_depend_on_scale_order_or_on_how_the_prompts_arrive(seed, scale, cut):
    states, labels = drawn(seed)
    probe = BeliefProbe().fit(states, labels)
    new = drawn(seed + 1)[0]
    beliefs = probe.decision_function(new)
    np.testing.assert_allclose(probe.decision_function(new * scale), beliefs, atol=1e-5)
    np.testing.assert_allclose(BeliefProbe().fit(states * scale, labels).decision_function(new), beliefs, atol=1e-5)
    order = torch.randperm(len(states), generator=torch.Generator().manual_seed(seed))
    np.testing.assert_allclose(
        BeliefProbe().fit(states[order], labels[order]).decision_function(new), beliefs, atol=1e-5
    )
    np.testing.assert_allclose(BeliefProbe().fit(states, 1 - labels).decision_function(new), -beliefs, atol=1e-5)
    arriving = BeliefProbe().partial_fit(states[:cut], labels[:cut]).partial_fit(states[cut:], labels[cut:])
    np.testing.assert_allclose(arriving.centroids_, probe.centroids_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(arriving.standard_errors_, probe.standard_errors_, rtol=1e-3)


def test_the_probe_is_an_estimator_and_decides_as_nearest_centroids_on_the_sphere_do():
    states, labels = drawn()
    probe = BeliefProbe(layers=[2]).fit(states.numpy(), labels.numpy())
    assert clone(probe).get_params() == {"layers": [2], "threshold": 0.0}
    assert probe.layer_scores(states).shape == (24, 4)
    np.testing.assert_array_equal(probe.decision_function(states), probe.layer_scores(states)[:, 2])
    sphere = torch.nn.functional.normalize(states[:, 2], dim=-1).numpy()
    reference = NearestCentroid().fit(sphere, labels)
    centroids = torch.nn.functional.normalize(torch.from_numpy(probe.centroids_[:, 2]), dim=-1)
    reference.centroids_ = centroids.numpy()
    np.testing.assert_array_equal(probe.predict(states), reference.predict(sphere))
    assert probe.score(states, labels) == (probe.predict(states) == labels.numpy()).mean()
    strict = BeliefProbe(threshold=10.0).fit(states, labels)
    assert not strict.predict(states).any()


def test_a_prompt_that_was_fitted_on_is_judged_by_the_others():
    states, labels = drawn()
    found = BeliefProbe(layers=[1, 3]).fit(states, labels).left_out_scores(states, labels)
    for row in range(len(states)):
        others = torch.arange(len(states)) != row
        alone = BeliefProbe(layers=[1, 3]).fit(states[others], labels[others])
        assert found[row] == pytest.approx(alone.decision_function(states[row : row + 1])[0], abs=1e-5)


def test_a_state_that_is_the_same_for_all_prompts_says_nothing():
    states, labels = drawn(n=30)
    states[:, 0] = torch.randn(6, generator=torch.Generator().manual_seed(3)) / 3
    probe = BeliefProbe().fit(states, labels)
    assert (probe.layer_scores(torch.randn(9, 4, 6))[:, 0] == 0).all()
    assert (probe.left_out_scores(states, labels) != 0).all()
    states[:, 0] = 0
    assert (BeliefProbe().fit(states, labels).layer_scores(states)[:, 0] == 0).all()


def test_cross_validation_finds_the_state_that_separates():
    states, labels = drawn(n=40)
    states[:, [0, 1, 3]] = torch.randn(40, 3, 6, generator=torch.Generator().manual_seed(5))
    assert BeliefProbe(layers="cv").fit(states, labels).layers_ == (2,)


def test_standard_error_of_a_centroid():
    states, labels = drawn(n=16)
    with pytest.warns(UserWarning, match=r"class \d has 8 prompts: the standard error of its centroid is") as caught:
        probe = BeliefProbe().fit(states, labels)
    assert len(caught) == 2
    for label in (0, 1):
        own, other = states[labels == label], states[labels != label]
        error = (own.var(0) / len(own)).sum(-1).sqrt() / (own.mean(0) - other.mean(0)).norm(dim=-1)
        assert probe.standard_errors_[label] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-4)
        assert any(f"{probe.standard_errors_[label]:.2f}" in str(one.message) for one in caught)


def groups(off_diagonal: int = 24):
    """Four groups whose states at t_inst tell harm and at t_post refusal, with noise."""
    generator = torch.Generator().manual_seed(0)
    harm, refuse = torch.randn(2, 3, 8, generator=generator)
    found = {}
    for name, (harmful, refused) in GROUPS.items():
        n = 30 if harmful == refused else off_diagonal
        noise = torch.randn(2, n, 3, 8, generator=generator) / 4
        found[name] = States((1 if harmful else -1) * harm + noise[0], (1 if refused else -1) * refuse + noise[1])
    return found


@pytest.mark.parametrize("clusters", ["desired", "behaviour"])
def test_the_map_puts_the_groups_into_their_quadrants(clusters):
    found = HarmRefuseMap(clusters).fit(groups())
    assert ((found.frame["delta_harmful"] > 0) == found.frame["harmful"]).all()
    assert ((found.frame["delta_refuse"] > 0) == found.frame["refused"]).all()
    assert found.frame["group"].value_counts().to_dict() == {
        name: 30 if harmful == refused else 24 for name, (harmful, refused) in GROUPS.items()
    }
    everything = States.joined(list(groups().values()))
    by_behaviour = torch.tensor(found.frame["refused"].to_numpy())
    members = torch.tensor((found.frame["harmful"] == found.frame["refused"]).to_numpy())
    members = members if clusters == "desired" else torch.ones_like(members)
    reference = BeliefProbe().fit(everything.post[members], by_behaviour[members].long())
    np.testing.assert_allclose(
        found.place(everything)["delta_refuse"], reference.decision_function(everything.post), atol=1e-6
    )
    axes = found.plot()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(GROUPS)


def guarded(kind, **options):
    return LatentGuard.from_model(kind.model, kind.tokenizer, GOOD, BAD, template=TEMPLATE, **options)


@pytest.mark.parametrize("position", ["inst", "post"])
@pytest.mark.parametrize("layers", ["all", [1, 4], "cv"])
def test_the_guard_hears_in_generate_what_it_scores(any_language, position, layers):
    model, tokenizer = any_language
    guard = guarded(any_language, position=position, layers=layers)
    texts = [*GOOD[:3], *BAD[:4]]
    scores = guard.score(model, tokenizer, texts)
    read = read_prompts(tokenizer, texts, template=TEMPLATE)
    ids, mask = pad_left([prompt.ids for prompt in read], tokenizer.pad_token_id)
    options = {"max_new_tokens": 4, "do_sample": False}
    before = model.generate(ids, attention_mask=mask, **options)
    with guard.listening(model) as heard:
        assert torch.equal(model.generate(ids, attention_mask=mask, **options), before)
    np.testing.assert_allclose(heard.scores.numpy(), scores, atol=1e-5)
    np.testing.assert_array_equal(heard.flagged.numpy(), guard.flags(model, tokenizer, texts))
    assert torch.equal(model.generate(ids, attention_mask=mask, **options), before)


def test_the_guard_is_a_nearest_centroid_at_the_instructions_end(llama):
    guard = guarded(llama)
    states = [
        collect_states(llama.model, llama.tokenizer, read_prompts(llama.tokenizer, texts, template=TEMPLATE)).inst
        for texts in (GOOD, BAD, prompts("w7", seed=2))
    ]
    expected = belief_scores(states[2], states[0].mean(0), states[1].mean(0)).mean(-1)
    scores = guard.score(llama.model, llama.tokenizer, prompts("w7", seed=2))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert guard.flags(llama.model, llama.tokenizer, [*GOOD, *BAD]).tolist() == [True] * 12 + [False] * 12


def test_flagged_prompts_get_the_fixed_reply_and_the_others_their_own(llama):
    guard = guarded(llama)
    read = read_prompts(llama.tokenizer, [GOOD[0], BAD[0], GOOD[1], BAD[1]], template=TEMPLATE)
    ids, mask = pad_left([prompt.ids for prompt in read], 0)
    options = {"max_new_tokens": 5, "do_sample": False, "attention_mask": mask}
    own = llama.model.generate(ids, **options)[:, ids.shape[1] :]
    with guard.listening(llama.model) as heard:
        found = llama.model.generate(ids, **options, logits_processor=[heard.replying([3, 4, 5])])[:, ids.shape[1] :]
    assert heard.flagged.tolist() == [True, False, True, False]
    assert found[::2, :3].tolist() == [[3, 4, 5]] * 2
    assert torch.equal(found[1::2], own[1::2])
    with guard.listening(llama.model) as heard:
        every = llama.model.generate(ids, **options | {"num_beams": 2}, logits_processor=[heard.replying([3, 4, 5])])[
            :, ids.shape[1] :
        ]
    assert every[::2, :3].tolist() == [[3, 4, 5]] * 2


def test_directions(llama):
    read = [read_prompts(llama.tokenizer, texts, template=TEMPLATE) for texts in (GOOD, BAD)]
    states = [collect_states(llama.model, llama.tokenizer, one) for one in read]
    rendered = [[TEMPLATE.replace("{instruction}", text) for text in texts] for texts in (GOOD, BAD)]
    fitted = {
        direction: PromptAddition.fit(llama.model, llama.tokenizer, *rendered, direction=direction, suffix=" w1 w2")
        for direction in ("harmfulness", "refusal")
    }
    assert fitted["harmfulness"].block == 2
    for direction, field in (("harmfulness", "inst"), ("refusal", "post")):
        expected = diff_of_means(*(getattr(one, field) for one in states))
        torch.testing.assert_close(fitted[direction].vectors, expected)
    assert fitted["refusal"].vectors[0].abs().max() < 1e-6  # a token of the template, before the first block


def test_only_the_prompt_is_steered_and_only_at_its_block(any_language, tmp_path):
    model, tokenizer = any_language
    vectors = torch.randn(5, 24, generator=torch.Generator().manual_seed(0))
    batch = tokenizer(GOOD, return_tensors="pt", padding=True)
    for block in range(4):
        steering = PromptAddition.along(model, vectors, block)
        strengths = torch.linspace(-1, 2, len(GOOD))
        inputs = [input_of_block(state) for state in range(5)]
        with torch.no_grad(), record(model, inputs) as unsteered:
            model(**batch)
        with torch.no_grad(), steering.applied(model, strengths) as applied, record(model, inputs) as steered:
            model(**batch)
            model.generate(**batch, max_new_tokens=3, do_sample=False)
        assert list(applied.values()) == [2 * batch["input_ids"].numel()]
        for site in inputs[:block]:
            assert torch.equal(steered.passes(site)[0], unsteered[site])
        added = steered.passes(inputs[block])[0] - unsteered[inputs[block]]
        expected = (strengths[:, None] * vectors[block])[:, None].expand_as(added)
        torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-4)
    steering.save(tmp_path / "addition.safetensors")
    again = load_steering(tmp_path / "addition.safetensors")
    assert again.settings() == steering.settings() == {"block": 3, "direction": "harmfulness"}
    assert torch.equal(again.vectors, steering.vectors)


@pytest.mark.parametrize("span", ["before-question", "all"])
def test_reply_inversion_agrees_with_a_loop_over_prompts(llama, span):
    model, tokenizer = llama
    direction = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    coefs, question = torch.tensor([0.0, 0.5, 2.0]), "w9 w8 w7"
    options = {"frame": "w5 {instruction} ", "answers": ("w3", "w4"), "template": TEMPLATE, "span": span}
    found = reply_inversion(model, tokenizer, GOOD, direction, 1, coefs, question, tokens_per_batch=60, **options)
    single = reply_inversion(model, tokenizer, GOOD, direction, 1, 2.0, question, **options)
    assert found.p_no.shape == (3, len(GOOD))
    torch.testing.assert_close(found.p_no[2], single.p_no, rtol=1e-4, atol=1e-7)
    yes, no = (tokenizer(word)["input_ids"][0] for word in ("w3", "w4"))
    for at, coef in enumerate(coefs.tolist()):
        for row, text in enumerate(GOOD):
            batch = tokenizer(f"w0 w5 {text} {question} w1 w2", return_tensors="pt")
            steered = slice(0, batch["input_ids"].shape[1] - (5 if span == "before-question" else 0))
            with torch.no_grad(), PromptAddition.along(model, direction, 1).applied(model, coef, positions=steered):
                logits = model(**batch).logits[0, -1]
            assert found.p_no[at, row] == pytest.approx(logits.softmax(-1)[no].item(), rel=1e-3, abs=1e-7)
            assert bool(found.says_no[at, row]) == (logits.argmax() == no)
            assert bool(found.says_yes[at, row]) == (logits.argmax() == yes)


def test_replies_and_prompts_that_do_not_behave(llama):
    model, tokenizer = llama
    read = read_prompts(tokenizer, GOOD, template=TEMPLATE)
    replies = greedy_replies(model, tokenizer, read, max_new_tokens=3, tokens_per_batch=50)
    for prompt, reply in zip(read, replies, strict=True):
        ids = torch.tensor([prompt.ids])
        alone = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False)
        assert reply == [token for token in alone[0, len(prompt.ids) :].tolist() if token]
    texts = [tokenizer.decode(reply) for reply in replies]
    refusals = set(texts[:10])
    expected = [at for at, text in enumerate(texts) if text in refusals]
    options = {"is_refusal": refusals.__contains__, "group": "positives", "max_new_tokens": 3}
    if len(expected) < len(texts):
        with pytest.warns(UserWarning, match=f"answers {len(texts) - len(expected)} of the 12 prompts of positives"):
            assert keep_behaving(model, tokenizer, read, refused=True, **options) == expected
    with pytest.raises(ValueError, match=r"the model refuses .* less than half remain"):
        keep_behaving(model, tokenizer, read, refused=False, **options)
    with pytest.raises(ValueError, match="answers 12 of the 12 prompts of positives: less than half remain"):
        guarded(llama, is_refusal=lambda reply: False)


def test_bad_states_and_labels_are_refused():
    states, labels = drawn()
    for y in (labels + 1, labels.float() / 2, labels[:5]):
        with pytest.raises(ValueError, match="y must hold 0 or 1"):
            BeliefProbe().fit(states, y)
    broken = states.clone()
    broken[3, 1, 2] = torch.nan
    with pytest.raises(ValueError, match="H is not finite for prompt 3"):
        BeliefProbe().fit(broken, labels)
    with pytest.raises(ValueError, match=r"\[prompt, state, d_model\]"):
        BeliefProbe().fit(states[0], labels)
    for few in (0, 1):
        rows = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, *[1, 3][:few]]
        with pytest.raises(ValueError, match=f"class 1 has {few} prompt"):
            BeliefProbe().fit(states[rows], labels[rows])
    for layers in ([4], [], "middle"):
        with pytest.raises(ValueError, match="layers must be"):
            BeliefProbe(layers=layers).fit(states, labels)
    with pytest.raises(ValueError, match="all prompts at once"):
        BeliefProbe(layers="cv").partial_fit(states, labels)
    with pytest.raises(ValueError, match="class 1 has no prompt yet"):
        BeliefProbe().partial_fit(states[::2], labels[::2]).predict(states)
    with pytest.raises(ValueError, match=r"those before had \[4, 6\]"):
        BeliefProbe().fit(states, labels).partial_fit(states[:, :2], labels)
    with pytest.raises(ValueError, match="at least one each"):
        diff_of_means(states[:0], states)
    with pytest.raises(ValueError, match="of one shape"):
        States(states, states[:3])


def test_bad_groups_are_refused():
    with pytest.raises(ValueError, match="unknown groups \\['harmful'\\]"):
        HarmRefuseMap().fit({"harmful": groups()["refused harmful"]})
    with pytest.raises(ValueError, match="0 prompts of 'accepted harmless'"):
        HarmRefuseMap().fit({"refused harmful": groups()["refused harmful"]})
    HarmRefuseMap().fit(groups(off_diagonal=3))
    with pytest.raises(ValueError, match="19 prompts of 'accepted harmful': clusters='behaviour' needs 20 or more"):
        HarmRefuseMap("behaviour").fit(groups(off_diagonal=19))
    with pytest.raises(ValueError, match="clusters must be one of desired, behaviour"):
        HarmRefuseMap("both")


def test_bad_use_of_guard_and_addition_is_refused(llama):
    model, tokenizer = llama
    guard = guarded(llama)
    with pytest.raises(ValueError, match="guard was fitted on llama"):
        guard.score(language("gpt2").model, tokenizer, GOOD)
    with pytest.raises(LookupError, match="heard nothing"), guard.listening(model) as heard:
        heard.flagged.any()
    with pytest.raises(ValueError, match="reply is empty"):
        heard.replying([])
    with guard.listening(model), pytest.raises(ValueError, match="1 tokens, 2 of them behind"):
        model(torch.tensor([[3]]))
    with pytest.raises(ValueError, match="position must be one of"):
        guarded(llama, position="middle")
    mixed = LatentGuard.from_model(
        model,
        tokenizer,
        read_prompts(tokenizer, GOOD, template=TEMPLATE),
        read_prompts(tokenizer, BAD, template="{instruction} w1"),
    )
    with pytest.raises(ValueError, match="use score"):
        mixed.listening(model).__enter__()
    with pytest.raises(ValueError, match=r"no chat template.*template="):
        LatentGuard.from_model(model, tokenizer, GOOD, BAD)
    with pytest.raises(ValueError, match="no chat template"):
        PromptAddition.fit(model, tokenizer, GOOD, BAD, direction="harmfulness")
    with pytest.raises(ValueError, match="direction must be one of harmfulness, refusal"):
        PromptAddition.fit(model, tokenizer, GOOD, BAD, direction="harm")
    with pytest.raises(ValueError, match="block must be one of the model's 4"):
        PromptAddition.fit(model, tokenizer, GOOD, BAD, block=4)
    for vectors in (torch.zeros(4, 24), torch.full((5, 24), torch.nan)):
        with pytest.raises(ValueError, match="vectors must be finite"):
            PromptAddition.along(model, vectors, 0)
    asked = (model, tokenizer, GOOD, torch.zeros(5, 24), 0, 1.0)
    options = {"template": TEMPLATE, "answers": ("w3", "w4")}
    with pytest.raises(ValueError, match="same token"):
        reply_inversion(*asked, "w9", template=TEMPLATE, answers=("w3", "w3"))
    with pytest.raises(ValueError, match="span must be one of"):
        reply_inversion(*asked, "w9", "question", **options)
    with pytest.raises(ValueError, match="question is empty"):
        reply_inversion(*asked, " ", **options)
    with pytest.raises(TypeError, match="wrap a single one"):
        reply_inversion(model, tokenizer, "good", torch.zeros(5, 24), 0, 1.0, "w9", **options)
