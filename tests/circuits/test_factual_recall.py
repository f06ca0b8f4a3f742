"""Conflict prompts, outcomes, attribution and the dial, against closed forms and slow references."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from interplay.circuits import factual_recall as recall
from interplay.circuits.factual_recall import (
    Batch,
    ConflictSet,
    ContextMemoryDial,
    DialPoint,
    Head,
    HeadScaler,
    Questions,
    choose_gain,
    frequency_effects,
    head_attribution,
    known_facts,
    resolve_conflict,
    scan_gains,
)
from interplay.circuits.factual_recall.outcomes import model_inputs
from interplay.primitives.activations import Site, edit, record
from interplay.primitives.decoders import Decoder
from tests.circuits.planted import planted_model

STATEMENT = "the capital of {subject} is {object} ."
QUESTION = "Q : what is the capital of {subject} ? A :"
FACTS = [
    ("Norway", "Oslo", STATEMENT),
    ("Peru", "Lima", STATEMENT),
    ("Chad", "Ndjamena", STATEMENT),
    ("Fiji", "Suva", STATEMENT),
]


@pytest.fixture
def conflicts(word_tokenizer: PreTrainedTokenizerFast) -> ConflictSet:
    return ConflictSet.from_facts(FACTS, word_tokenizer, question=QUESTION)


def rows(conflicts: ConflictSet, tokenizer: PreTrainedTokenizerFast) -> set[tuple[str, str, str]]:
    batch = conflicts.prompts()
    return {
        (tokenizer.decode(ids), tokenizer.decode(true), tokenizer.decode(offer))
        for ids, true, offer in zip(batch.ids, batch.id_true, batch.id_offered, strict=True)
    }


# Prompts


def test_every_subject_meets_every_answer_but_its_own(
    conflicts: ConflictSet, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = {
        (f"<bos> the capital of {c} is {x} . Q : what is the capital of {c} ? A :", k, x)
        for c, k, _ in FACTS
        for _, x, _ in FACTS
        if x != k
    }
    assert rows(conflicts, word_tokenizer) == expected
    assert len(conflicts) == len(expected) == 12


def test_positions_and_padding_follow_words_of_several_tokens(word_tokenizer: PreTrainedTokenizerFast) -> None:
    facts = [*FACTS[:2], ("New Delhi", "Suva", "sure sure {object} is {subject} ?")]
    batch = ConflictSet.from_facts(facts, word_tokenizer, question=QUESTION, offered=["New Delhi", "Oslo"]).prompts()
    words = [word_tokenizer.convert_ids_to_tokens(ids) for ids in batch.ids]
    subjects = [("Norway", "Peru", "New Delhi")[subject].split()[-1] for subject in batch.subject]
    offers = [("New Delhi", "Oslo")[offer].split()[-1] for offer in batch.offered]
    for row, tokens in enumerate(words):
        assert tokens[batch.subject_pos[row]] == subjects[row]
        assert tokens[batch.offered_pos[row]] == offers[row]
        assert batch.subject_pos[row] == len(tokens) - 4  # in the question, not in the statement
        assert tokens[batch.end_pos[row]] == ":"
        assert [token == "<pad>" for token in tokens] == (batch.mask[row] == 0).tolist()
    assert (batch.mask == 0).any()


def test_a_split_shares_neither_subjects_nor_offers(word_tokenizer: PreTrainedTokenizerFast) -> None:
    conflicts = ConflictSet.from_facts(
        FACTS, word_tokenizer, question=QUESTION, offered=["Basel", "Porto", "Osaka", "Oslo"]
    )
    first, second = conflicts.split(np.random.default_rng(0), facts=0.5)
    assert not {fact.subject for fact in first.facts} & {fact.subject for fact in second.facts}
    assert not set(first.answers) & set(second.answers)
    assert len(first.facts) == len(second.facts) == len(first.answers) == len(second.answers) == 2
    both = rows(first, word_tokenizer) | rows(second, word_tokenizer)
    assert both < rows(conflicts, word_tokenizer)


def test_restating_changes_the_words_alone(conflicts: ConflictSet, word_tokenizer: PreTrainedTokenizerFast) -> None:
    restated = conflicts.restate(statement="sure {object} is the capital of {subject} .")
    assert len(restated) == len(conflicts)
    text = word_tokenizer.decode(restated.prompts().ids[0])
    assert text == "<bos> sure Lima is the capital of Norway . Q : what is the capital of Norway ? A :"
    asked = conflicts.restate(question="is the capital of {subject} :")
    assert torch.equal(asked.prompts().id_offered, conflicts.prompts().id_offered)
    text = word_tokenizer.decode(asked.prompts().ids[0])
    assert text == "<bos> the capital of Norway is Lima . is the capital of Norway :"
    with pytest.raises(ValueError, match="the question"):
        conflicts.restate(question="what ?")


def test_draws_are_without_replacement_and_repeatable(conflicts: ConflictSet) -> None:
    one, two = (conflicts.prompts(7, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one.ids, two.ids)
    assert len({tuple(ids.tolist()) for ids in one.ids}) == 7


def test_answers_with_one_first_token_are_refused_or_dropped(word_tokenizer: PreTrainedTokenizerFast) -> None:
    facts = [("Norway", "New Delhi"), ("Peru", "New Oslo"), ("Chad", "Lima")]
    facts = [(*fact, STATEMENT) for fact in facts]
    with pytest.raises(ValueError, match=r"2 pairs of answers .*New Delhi / New Oslo.*drop=True"):
        ConflictSet.from_facts(facts, word_tokenizer, question=QUESTION)
    kept = ConflictSet.from_facts(facts, word_tokenizer, question=QUESTION, drop=True)
    assert (kept.dropped, len(kept)) == (2, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"facts": [("Norway", "Oslo", "the capital is {object}")]}, ValueError, r"must have the slots \{object\} and"),
        ({"facts": [("Norway", "Oslo", "{subject} {object} {city}")]}, ValueError, "and no others"),
        ({"question": "Q : what ?"}, ValueError, r"the question .* must have the slots \{subject\}"),
        ({"facts": []}, ValueError, "at least one subject"),
        ({"facts": [FACTS[0], FACTS[0]]}, ValueError, "none twice"),
        ({"tokenizer": SimpleNamespace(is_fast=False)}, TypeError, "fast Hugging Face tokenizer"),
    ],
)
def test_bad_facts(
    word_tokenizer: PreTrainedTokenizerFast, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ConflictSet.from_facts(**{"facts": FACTS, "tokenizer": word_tokenizer, "question": QUESTION, **arguments})


def test_bad_draws_and_batches(conflicts: ConflictSet) -> None:
    with pytest.raises(ValueError, match="has 12 conflicts"):
        conflicts.prompts(13, np.random.default_rng(0))
    with pytest.raises(ValueError, match="pass rng"):
        conflicts.prompts(3)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        conflicts.split(np.random.default_rng(0), facts=1.0)
    ids = torch.ones(2, 5, dtype=torch.long)
    right = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with pytest.raises(ValueError, match="end_pos points at padding"):
        Questions(ids, right, torch.tensor([4, 4]), torch.tensor([3, 3]))
    with pytest.raises(ValueError, match="one row a prompt"):
        Questions(ids, right, torch.tensor([2]), torch.tensor([3, 3]))


# Outcomes


class Scripted(nn.Module):
    """Answers with the token that a table gives for the last-but-n token of the prompt."""

    def __init__(self, answers: dict[int, int], column: int) -> None:
        super().__init__()
        self.answers, self.column, self.unused = answers, column, nn.Parameter(torch.zeros(()))
        self.eval()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, 40)
        for row, ids in enumerate(input_ids):
            logits[row, -1, self.answers[int(ids[self.column])]] = 5.0
        return SimpleNamespace(logits=logits)


def test_the_three_outcomes_and_the_logit_difference(
    conflicts: ConflictSet, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    names = word_tokenizer.convert_tokens_to_ids
    # Norway is remembered, Peru is always said to have Oslo, Chad and Fiji are answered with "sure".
    script = {
        names("Norway"): names("Oslo"),
        names("Peru"): names("Oslo"),
        names("Chad"): names("sure"),
        names("Fiji"): names("sure"),
    }
    outcome = resolve_conflict(Scripted(script, column=-4), conflicts.prompts(), batch_size=5)
    assert outcome.choice.tolist() == [1, 1, 1, 0, 2, 2, 2, 2, 2, 2, 2, 2]
    assert outcome.logit_diff.tolist() == [-5, -5, -5, 5, 0, 0, 0, 0, 0, 0, 0, 0]
    assert {name: rate.rate for name, rate in outcome.rates.items()} == pytest.approx(
        {"in-context": 1 / 12, "memorized": 3 / 12, "other": 8 / 12}
    )
    kept = known_facts(Scripted(script, column=-4), conflicts)
    assert [fact.subject for fact in kept.facts] == ["Norway"]
    assert len(kept) == 3
    with pytest.raises(RuntimeError, match="answers 0 of 4 questions rightly"):
        known_facts(Scripted(dict.fromkeys(script, 2), column=-4), conflicts)


def test_wilson_closed_form() -> None:
    z, n, p = 1.959963984540054, 50, 0.3
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert recall.wilson(15, 50) == pytest.approx((p, centre - half, centre + half))


def test_outcomes_do_not_depend_on_padding_or_chunks(decoder_model: nn.Module, conflicts: ConflictSet) -> None:
    batch = conflicts.prompts()
    expected = resolve_conflict(decoder_model, batch)
    parts = {part: getattr(batch, part) for part in ("id_true", "id_offered", "subject", "offered")}
    pad = torch.zeros(len(batch), 3, dtype=torch.long)
    left = Batch(
        ids=torch.cat([pad, batch.ids], 1),
        mask=torch.cat([pad, batch.mask], 1),
        end_pos=batch.end_pos + 3,
        subject_pos=batch.subject_pos + 3,
        offered_pos=batch.offered_pos + 3,
        **parts,
    )
    right = Batch(
        ids=torch.cat([batch.ids, pad], 1),
        mask=torch.cat([batch.mask, pad], 1),
        end_pos=batch.end_pos,
        subject_pos=batch.subject_pos,
        offered_pos=batch.offered_pos,
        **parts,
    )
    for padded in (left, right):
        outcome = resolve_conflict(decoder_model, padded, batch_size=5)
        torch.testing.assert_close(outcome.logit_diff, expected.logit_diff, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            head_attribution(decoder_model, padded, batch_size=5).per_prompt,
            head_attribution(decoder_model, batch).per_prompt,
            rtol=1e-4,
            atol=1e-5,
        )


def test_models_that_cannot_answer(conflicts: ConflictSet, decoder_model: nn.Module) -> None:
    encoder_decoder = T5ForConditionalGeneration(
        T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=40)
    ).eval()
    with pytest.raises(TypeError, match="encoder-decoder"):
        resolve_conflict(encoder_decoder, conflicts.prompts())
    with pytest.raises(TypeError, match="encoder-decoder"):
        head_attribution(encoder_decoder, conflicts.prompts())
    decoder_model.train()
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        head_attribution(decoder_model, conflicts.prompts())


# Frequencies


def simulated(rng: np.random.Generator, coefficients: tuple[float, ...], countries: int = 60) -> tuple[np.ndarray, ...]:
    f = 2.0 ** rng.integers(2, 10, countries)
    g = 2.0 ** rng.integers(2, 10, 24)
    subject, offer = (index.ravel() for index in np.meshgrid(np.arange(countries), np.arange(24), indexing="ij"))
    x, y = np.log2(f[subject]), np.log2(g[offer])
    x, y = x - x.mean(), y - y.mean()
    odds = coefficients[0] + coefficients[1] * x + coefficients[2] * y + coefficients[3] * x * y
    return rng.random(len(odds)) < 1 / (1 + np.exp(-odds)), f[subject], g[offer], subject


def test_regression_equals_scikit_learn(rng: np.random.Generator) -> None:
    won, f, g, subject = simulated(rng, (0.3, -0.5, 0.2, 0.05))
    effects = frequency_effects(won, f, g, subject, rng, resamples=2)
    x, y = (np.log2(column) - np.log2(column).mean() for column in (f, g))
    design = np.stack([x, y, x * y], axis=1)
    reference = LogisticRegression(C=1e6, tol=1e-10, max_iter=1_000).fit(design, won)
    estimates = [effect.estimate for effect in effects]
    np.testing.assert_allclose(estimates, [*reference.intercept_, *reference.coef_[0]], rtol=1e-3, atol=1e-4)


def test_bootstrap_over_subjects_matches_refitting_each_resample(rng: np.random.Generator) -> None:
    won, f, g, subject = simulated(rng, (0.0, -0.4, 0.1, 0.0), countries=12)
    effects = frequency_effects(won, f, g, subject, np.random.default_rng(5), resamples=40)
    draws = np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), size=40)
    x, y = (np.log2(column) - np.log2(column).mean() for column in (f, g))
    design = np.stack([x, y, x * y], axis=1)
    slopes = []
    for counts in draws:
        chosen = np.concatenate([np.tile(np.flatnonzero(subject == c), count) for c, count in enumerate(counts)])
        slopes.append(LogisticRegression(C=1e6, tol=1e-10, max_iter=2_000).fit(design[chosen], won[chosen]).coef_[0, 0])
    expected = np.quantile(slopes, (0.025, 0.975))
    np.testing.assert_allclose([effects.subject.low, effects.subject.high], expected, rtol=0.02)


def test_regression_recovers_planted_effects_and_their_absence(rng: np.random.Generator) -> None:
    covered = np.zeros(3)
    planted = (0.2, -0.6, 0.3, 0.0)
    for _ in range(20):
        effects = frequency_effects(*simulated(rng, planted), rng, resamples=200)
        covered += [effects[part].low <= planted[part] <= effects[part].high for part in (1, 2, 3)]
    assert (covered >= 16).all()  # 95 % intervals: fewer than 16 of 20 has probability below 0.003


def test_separable_outcomes_stay_finite(rng: np.random.Generator) -> None:
    _, f, g, subject = simulated(rng, (0.0, 0.0, 0.0, 0.0))
    effects = frequency_effects(f < 50, f, g, subject, rng, resamples=50)
    assert np.isfinite(np.array(effects)).all()
    assert effects.subject.high < 0


def test_bad_frequencies(rng: np.random.Generator) -> None:
    won, f, g, subject = simulated(rng, (0.0, 0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="positive counts"):
        frequency_effects(won, f * 0, g, subject, rng)
    with pytest.raises(ValueError, match="of one length"):
        frequency_effects(won[:-1], f, g, subject, rng)
    with pytest.raises(ValueError, match="two or more subjects"):
        frequency_effects(won, f, g, subject * 0, rng)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# Attribution


def frozen_norm(norm: nn.Module, at: torch.Tensor, component: torch.Tensor) -> torch.Tensor:
    """Textbook LayerNorm and RMSNorm, the scale taken from `at`, the bias left out."""
    if isinstance(norm, nn.LayerNorm):
        centred = component - component.mean(-1, keepdim=True)
        return centred / torch.sqrt(at.var(-1, unbiased=False, keepdim=True) + norm.eps) * norm.weight
    gain = 1 + norm.weight if type(norm).__name__.startswith("Gemma") else norm.weight
    eps = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return component * gain / torch.sqrt(at.pow(2).mean(-1, keepdim=True) + eps)


def components(model: nn.Module, batch: Batch) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """What every part adds to the last residual at the last token: heads, attention biases, MLPs, embedding."""
    decoder = Decoder(model)
    layers = range(decoder.n_layers)
    sites = [Site("embedding"), *(Site(kind, layer) for kind in ("heads", "residual") for layer in layers)]
    with record(model, sites, positions="last") as seen, torch.no_grad():
        logits = model(**model_inputs(model, batch)).logits[:, -1]
    parts = {"embedding": seen[Site("embedding")]}
    before = parts["embedding"]
    for layer in layers:
        project, norm = decoder.attention_output(layer), decoder.attention_norm(layer)
        z = seen[Site("heads", layer)]
        with torch.no_grad():
            silence = project(torch.zeros_like(z.flatten(1)))
            writes = []
            for head in range(decoder.n_heads):
                alone = torch.zeros_like(z)
                alone[:, head] = z[:, head]
                writes.append(project(alone.flatten(1)) - silence)
            attention = project(z.flatten(1))
            through = (
                (lambda part, norm=norm, at=attention: part)
                if norm is None
                else (lambda part, norm=norm, at=attention: frozen_norm(norm, at, part))
            )
            for head, write in enumerate(writes):
                parts[f"head {layer}.{head}"] = through(write)
            parts[f"bias {layer}"] = through(silence)
            total = attention if norm is None else norm(attention)
        parts[f"mlp {layer}"] = seen[Site("residual", layer)] - before - total
        before = seen[Site("residual", layer)]
    return parts, before, logits


@pytest.mark.parametrize("norm", ["linear", "raw"])
def test_attribution_equals_pushing_each_part_to_the_logits(
    decoder_model: nn.Module, conflicts: ConflictSet, norm: str
) -> None:
    batch = conflicts.prompts()
    decoder = Decoder(decoder_model)
    parts, final, logits = components(decoder_model, batch)
    unembedding = decoder_model.get_output_embeddings().weight.detach()
    direction = unembedding[batch.id_offered] - unembedding[batch.id_true]
    with torch.no_grad():
        if norm == "linear":
            parts = {name: frozen_norm(decoder.final_norm, final, part) for name, part in parts.items()}
        scores = {name: (part * direction).sum(-1) for name, part in parts.items()}
    ours = head_attribution(decoder_model, batch, norm, batch_size=5)
    for layer in range(3):
        for head in range(4):
            reference = scores[f"head {layer}.{head}"]
            torch.testing.assert_close(ours.per_prompt[:, layer, head], reference, rtol=1e-4, atol=1e-5)
    if norm == "linear":  # the parts, with the final norm's own bias, are the logit difference
        rest = sum(score for name, score in scores.items() if not name.startswith("head"))
        bias = getattr(decoder.final_norm, "bias", None)
        constant = 0.0 if bias is None else (direction * bias.detach()).sum(-1)
        rows = torch.arange(len(batch))
        expected = logits[rows, batch.id_offered] - logits[rows, batch.id_true]
        torch.testing.assert_close(ours.per_prompt.sum((1, 2)) + rest + constant, expected, rtol=1e-4, atol=1e-4)


def test_memory_and_in_context_heads_are_the_extremes() -> None:
    scores = torch.zeros(5, 3, 4)
    scores[:, 1, 2] = -1.0
    scores[:, 2, 0] = 0.5
    scores[0, 0, 0] = 2.0  # one prompt of five: a mean of 0.4
    attribution = recall.Attribution(scores)
    assert attribution.memory_head == Head(1, 2)
    assert attribution.in_context_head == Head(2, 0)


def test_attribution_leaves_no_hooks_and_refuses_what_it_cannot_do(
    decoder_model: nn.Module, conflicts: ConflictSet
) -> None:
    batch = conflicts.prompts()
    head_attribution(decoder_model, batch)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in decoder_model.modules())
    with pytest.raises(ValueError, match="allowed are 'linear' and 'raw'"):
        head_attribution(decoder_model, batch, "frozen")
    decoder_model.config.residual_multiplier = 0.5
    with pytest.raises(ValueError, match="scales what its layers write"):
        head_attribution(decoder_model, batch)
    del decoder_model.config.residual_multiplier
    body = Decoder(decoder_model).body
    name = next(name for name in ("norm", "ln_f") if hasattr(body, name))
    setattr(body, name, nn.Tanh())
    with pytest.raises(ValueError, match="neither LayerNorm nor"):
        head_attribution(decoder_model, batch)


# The dial


def test_scaling_a_head_is_scaling_its_values() -> None:
    """With one value head per query head, the paper's edit (scale the value vector) can be made by hand."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=24, n_layer=3, n_head=4, n_positions=32)).eval()
    ids = torch.randint(0, 40, (3, 9))
    with torch.no_grad():
        with HeadScaler(model, {(1, 2): -3.0}):
            ours = model(ids).logits
        values = slice(2 * 24 + 2 * 6, 2 * 24 + 3 * 6)  # queries, keys, values; head 2
        model.transformer.h[1].attn.c_attn.weight[:, values] *= -3.0
        model.transformer.h[1].attn.c_attn.bias[values] *= -3.0
        torch.testing.assert_close(ours, model(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_scaler_touches_its_heads_alone_and_a_gain_of_one_nothing(decoder_model: nn.Module) -> None:
    ids = torch.randint(1, 40, (2, 8), generator=torch.Generator().manual_seed(0))
    site = Site("heads", 1)
    with torch.no_grad():
        plain = decoder_model(input_ids=ids).logits
        with record(decoder_model, [site]) as before:
            decoder_model(input_ids=ids)
        with HeadScaler(decoder_model, {(1, 1): 2.0, (1, 3): 0.0}), record(decoder_model, [site]) as after:
            decoder_model(input_ids=ids)
        expected = before[site] * torch.tensor([1.0, 2.0, 1.0, 0.0])[:, None]
        assert torch.equal(after[site], expected)
        with HeadScaler(decoder_model, {(1, 1): 1.0}):
            assert not any(module._forward_pre_hooks for module in decoder_model.modules())
        with HeadScaler(decoder_model, {(1, 1): 2.0}, positions="last"), record(decoder_model, [site]) as at_end:
            decoder_model(input_ids=ids)
        assert torch.equal(at_end[site][:, :-1], before[site][:, :-1])
        assert torch.equal(decoder_model(input_ids=ids).logits, plain)


def test_bad_gains(decoder_model: nn.Module) -> None:
    for gain in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be finite"):
            HeadScaler(decoder_model, {(0, 0): gain})
    for head in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(IndexError, match="3 layers x 4 query heads"):
            HeadScaler(decoder_model, {head: 2.0})


def test_a_scan_measures_what_each_scaler_does(decoder_model: nn.Module, conflicts: ConflictSet) -> None:
    batch = conflicts.prompts()
    points = scan_gains(decoder_model, batch, [[(0, 1)], [(2, 0), (2, 3)]], (-2.0, 1.0, 3.0))
    assert [(point.heads, point.gain) for point in points] == [
        (group, gain) for group in ((Head(0, 1),), (Head(2, 0), Head(2, 3))) for gain in (-2.0, 1.0, 3.0)
    ]
    for point in points:
        with HeadScaler(decoder_model, dict.fromkeys(point.heads, point.gain)):
            rates = resolve_conflict(decoder_model, batch).rates
        assert (point.in_context, point.memorized, point.other) == tuple(rate.rate for rate in rates.values())


points = st.builds(
    DialPoint,
    st.just((Head(0, 0),)),
    st.sampled_from(recall.GAINS),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0, 1),
)


@settings(max_examples=50)
@given(st.lists(points, min_size=1), st.floats(0, 1))
def test_the_chosen_gain_is_feasible_and_best(curve: list[DialPoint], max_other: float) -> None:
    chosen = choose_gain(curve, "memorized", max_other)
    feasible = [point for point in curve if point.other <= max_other]
    if feasible:
        assert chosen in feasible
        assert chosen.memorized == max(point.memorized for point in feasible)
    else:
        assert chosen.other == min(point.other for point in curve)


def test_the_dial_finds_planted_heads_and_turns_both_ways(
    conflicts: ConflictSet, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = planted_model(word_tokenizer, FACTS)
    development, rest = conflicts.select([0, 1]), conflicts.select([2, 3])
    assert resolve_conflict(model, rest.prompts()).rates["memorized"].rate == 1.0  # named twice, the subject wins
    up = ContextMemoryDial("in-context").fit(model, development.prompts())
    assert up.attribution_.memory_head == Head(0, 1)
    assert up.attribution_.in_context_head == Head(0, 0)
    assert up.feasible_
    assert resolve_conflict(model, rest.prompts()).rates["memorized"].rate == 1.0
    with up.apply(model):
        assert resolve_conflict(model, rest.prompts()).rates["in-context"].rate == 1.0
    with pytest.warns(UserWarning, match="no gain raises the memorized rate"):
        down = ContextMemoryDial("memorized").fit(model, development.prompts())
    assert (down.alpha_, down.feasible_) == (1.0, False)


def test_a_bound_that_the_undisturbed_model_breaks_is_no_success() -> None:
    """At gain 1 there are 12 % other answers; the one gain within the bound lowers the target."""
    curve = [
        DialPoint((Head(0, 0),), gain, 0.0, memorized, other)
        for gain, memorized, other in ((1.0, 0.6, 0.12), (2.0, 0.4, 0.1))
    ]
    with pytest.warns(UserWarning, match="no gain raises the memorized rate with at most 10% other answers"):
        dial = ContextMemoryDial("memorized").fit_curve(curve)
    assert (dial.alpha_, dial.feasible_) == (2.0, False)


def test_collateral_counts_what_the_dial_breaks(
    conflicts: ConflictSet, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = planted_model(word_tokenizer, FACTS)
    dial = ContextMemoryDial("in-context", gains=(0.0, 1.0)).fit(model, conflicts.prompts(), candidates=[(0, 1)])
    batch = conflicts.prompts()
    copies = Questions(batch.ids, batch.mask, batch.end_pos, batch.id_offered)
    text = torch.randint(1, 20, (6, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(6, 8, dtype=torch.long)
    mask[0, :3] = 0
    prose = Questions(text[:, :-1], mask, torch.full((6,), 7), text[:, -1])
    cost = dial.collateral(model, questions=conflicts.questions(), text=prose, copies=copies)
    assert cost.closed_book[0] == 1.0
    assert cost.closed_book[1] < 1.0  # the head that remembers is off
    assert cost.copying == (0.0, 1.0)
    for gain, measured in zip((1.0, 0.0), cost.cross_entropy, strict=True):
        with torch.no_grad(), HeadScaler(model, {(0, 1): gain}):
            rows = [text[0, 3:], *text[1:]]
            log_p = [model(row[None]).logits.log_softmax(-1)[0, :-1].gather(-1, row[1:, None]) for row in rows]
        assert measured == pytest.approx(-float(torch.cat(log_p).mean()), rel=1e-5)


def test_a_steering_vector_is_the_difference_of_means_at_the_last_token(
    conflicts: ConflictSet, word_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = planted_model(word_tokenizer, FACTS)
    batch = conflicts.prompts()
    with pytest.raises(ValueError, match="in-context and with memorized outcomes"):
        recall.steering_vector(model, batch, "in-context")
    with torch.no_grad():  # the head that remembers forgets Norway, so its conflicts go to the context
        model.transformer.h[0].attn.c_attn.weight[word_tokenizer.convert_tokens_to_ids("Norway")] = 0
    site = Site("residual", 0)
    with record(model, [site]) as seen:
        won = resolve_conflict(model, batch).choice == 0
    assert won.tolist() == [True] * 3 + [False] * 9
    expected = seen[site][won, -1].mean(0) - seen[site][~won, -1].mean(0)
    vector = recall.steering_vector(model, batch, "memorized", strengths=(2.0,), max_other=1.0)
    torch.testing.assert_close(vector.vector, -2.0 * expected)
    with vector.apply(model), record(model, [site]) as steered:
        resolve_conflict(model, batch)
    torch.testing.assert_close(steered[site][:, -1], seen[site][:, -1] + vector.vector)
    assert torch.equal(steered[site][:, :-1], seen[site][:, :-1])


def test_bad_dials(decoder_model: nn.Module) -> None:
    with pytest.raises(ValueError, match="allowed are 'in-context' and 'memorized'"):
        ContextMemoryDial("context")
    with pytest.raises(ValueError, match=r"a share lies in \[0, 1\]"):
        ContextMemoryDial(max_other=1.5)
    with pytest.raises(ValueError, match="finite numbers"):
        ContextMemoryDial(gains=(1.0, float("nan")))
    pair = DialPoint((Head(0, 0), Head(0, 1)), 1.0, 0.5, 0.5, 0.0)
    with pytest.raises(ValueError, match="each of them one head"):
        ContextMemoryDial().fit_curve([pair])
    with pytest.raises(ValueError, match="call fit"):
        ContextMemoryDial().apply(decoder_model)


def test_a_dialled_model_generates_with_its_cache(decoder_model: nn.Module) -> None:
    ids = torch.randint(1, 40, (2, 6), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    with HeadScaler(decoder_model, {(0, 1): -2.0, (2, 2): 3.0}):
        cached, plain = (
            decoder_model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False, use_cache=cache
            )
            for cache in (True, False)
        )
    unscaled = decoder_model.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False
    )
    assert torch.equal(cached, plain)
    assert not torch.equal(cached, unscaled)


# Agreement with TransformerLens


def test_attribution_agrees_with_transformer_lens() -> None:
    """Numbers recorded from TransformerLens on a GPT-2 whose weights a formula gives; the fixture says how."""
    fixture = json.loads((Path(__file__).parent / "transformer_lens_attribution.json").read_text())
    model = formula_gpt2(fixture["config"])
    batch = Batch(
        ids=torch.tensor(fixture["ids"]),
        mask=torch.ones_like(torch.tensor(fixture["ids"])),
        end_pos=torch.full((len(fixture["ids"]),), len(fixture["ids"][0]) - 1),
        id_true=torch.tensor(fixture["id_true"]),
        id_offered=torch.tensor(fixture["id_offered"]),
        subject_pos=torch.zeros(len(fixture["ids"]), dtype=torch.long),
        offered_pos=torch.zeros(len(fixture["ids"]), dtype=torch.long),
        subject=torch.zeros(len(fixture["ids"]), dtype=torch.long),
        offered=torch.zeros(len(fixture["ids"]), dtype=torch.long),
    )
    for norm in ("linear", "raw"):
        ours = head_attribution(model, batch, norm).per_prompt
        torch.testing.assert_close(ours, torch.tensor(fixture[norm]), rtol=1e-4, atol=1e-5)


def formula_gpt2(config: dict[str, int]) -> GPT2LMHeadModel:
    """Weights 0.3 sin(k + 1.7 i) for the i-th entry of the k-th parameter: the same on every machine."""
    model = GPT2LMHeadModel(GPT2Config(**config)).eval()
    with torch.no_grad():
        for k, (_, parameter) in enumerate(sorted(model.named_parameters())):
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.3 * torch.sin(k + 1.7 * index)).reshape(parameter.shape).float())
            if parameter.ndim == 1:
                parameter.add_(0.5)
    return model


def test_an_edit_inside_an_open_dial_is_seen_by_the_outcome(decoder_model: nn.Module, conflicts: ConflictSet) -> None:
    batch = conflicts.prompts()
    plain = resolve_conflict(decoder_model, batch).logit_diff
    with edit(decoder_model, {Site("residual", 0): lambda h: h.roll(1, -1)}):
        assert not torch.allclose(resolve_conflict(decoder_model, batch).logit_diff, plain)
