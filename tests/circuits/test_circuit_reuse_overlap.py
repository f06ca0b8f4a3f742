"""Overlap against its definition and against drawn permutations; the finder against planted circuits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

from interplay.circuits.circuit_reuse import (
    STAGES,
    Batch,
    CircuitFinder,
    Head,
    Receiver,
    Stage,
    TaskPairs,
    circuit_overlap,
    path_patch,
)
from tests.circuits.conftest import shaken, tiny_gpt2, tiny_llama

SHAPE = (5, 6)


def masks(rng: np.random.Generator, density: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    while True:
        a, b = rng.random((2, *SHAPE)) < density
        if a.any() and b.any():
            return a, b


def heads_of(mask: np.ndarray) -> set[tuple[int, int]]:
    return {(int(layer), int(head)) for layer, head in np.argwhere(mask)}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_values_are_the_set_formulas(seed: int) -> None:
    a, b = masks(np.random.default_rng(seed))
    one, two = heads_of(a), heads_of(b)
    jaccard = circuit_overlap(one, two, shape=SHAPE)
    assert jaccard.value == pytest.approx(len(one & two) / len(one | two))
    overlap = circuit_overlap(one, two, "overlap", shape=SHAPE)
    assert overlap.value == pytest.approx(len(one & two) / min(len(one), len(two)))
    # Expected number in common, by layer.
    expected = (a.sum(1) * b.sum(1) / SHAPE[1]).sum() / min(len(one), len(two))
    assert overlap.null_mean == pytest.approx(expected)
    assert jaccard.p == overlap.p
    assert 0 <= overlap.p <= 1
    for swapped in (circuit_overlap(two, one, shape=SHAPE), circuit_overlap(torch.tensor(a), torch.tensor(b) * -2.0)):
        assert swapped == pytest.approx(jaccard)


@pytest.mark.parametrize("null", ["layer-matched", "any-head"])
def test_the_chance_level_is_that_of_drawn_permutations(null: str) -> None:
    rng = np.random.default_rng(1)
    a, b = masks(rng, 0.4)
    ours = circuit_overlap(heads_of(a), heads_of(b), "jaccard", null, shape=SHAPE)
    drawn = []
    for _ in range(20_000):
        moved = rng.permuted(b, axis=1) if null == "layer-matched" else rng.permuted(b)
        drawn.append((a & moved).sum() / (a | moved).sum())
    assert ours.null_mean == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / 20_000**0.5)
    p = np.mean(np.array(drawn) >= ours.value - 1e-12)
    assert ours.p == pytest.approx(p, abs=4 * (p * (1 - p) / 20_000) ** 0.5 + 1e-12)


def test_crowding_into_the_same_layers_is_chance_and_not_reuse() -> None:
    """Both circuits fill one layer: that overlap is certain within layers, and looks striking without them."""
    full = {(2, head) for head in range(SHAPE[1])}
    within, across = (
        circuit_overlap(full, full, "overlap", null, shape=SHAPE) for null in ("layer-matched", "any-head")
    )
    assert within == pytest.approx((1.0, 1.0, 1.0))
    assert across.p < 1e-4


def test_a_quarter_of_48_heads_overlaps_a_quarter_by_chance() -> None:
    circuit = {(layer, head) for layer in range(6) for head in (0, 1)}
    assert circuit_overlap(circuit, circuit, "overlap", shape=(6, 8)).null_mean == pytest.approx(0.25)


def test_weighted_overlap() -> None:
    rng = np.random.default_rng(0)
    a, b = torch.tensor(rng.normal(size=SHAPE)), torch.tensor(rng.normal(size=SHAPE))
    ours = circuit_overlap(a, b, "weighted", n=200)
    one, two = a.abs() / a.abs().sum(), b.abs() / b.abs().sum()
    assert ours.value == pytest.approx(float(torch.minimum(one, two).sum() / torch.maximum(one, two).sum()))
    same = circuit_overlap(a, -3 * a, "weighted", n=200)
    assert same.value == pytest.approx(1.0)
    assert same.p == pytest.approx(1 / 201)
    assert same.null_mean < 1
    assert circuit_overlap(a, b, "weighted", n=200) == ours
    assert circuit_overlap(a, b, "weighted", n=200, rng=np.random.default_rng(5)) != ours
    assert circuit_overlap(a, b, "weighted", "any-head", n=200).value == pytest.approx(ours.value)
    # Effects that are the same for all heads of a layer leave nothing to exchange within layers.
    flat = torch.arange(1.0, 6.0)[:, None].expand(SHAPE)
    assert circuit_overlap(flat, flat, "weighted", n=50).p == 1.0
    assert circuit_overlap(flat, flat, "weighted", "any-head", n=50).p < 0.1


def test_finders_can_be_compared_as_they_are() -> None:
    def found(seed: int) -> SimpleNamespace:
        stages = [torch.tensor(np.random.default_rng(seed + index).normal(size=SHAPE)) for index in range(2)]
        return SimpleNamespace(stages_=stages, circuit_={(0, seed), (3, 1)})

    overlap = circuit_overlap(found(1), found(2), "overlap")
    assert overlap.value == 0.5
    weighted = circuit_overlap(found(1), found(1), "weighted", n=100)
    assert weighted.value == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (({(0, 1)}, {(0, 1)}, "dice"), {"shape": SHAPE}, "allowed are 'jaccard', 'overlap' and 'weighted'"),
        (({(0, 1)}, {(0, 1)}, "jaccard", "none"), {"shape": SHAPE}, "allowed are 'layer-matched' and 'any-head'"),
        (({(0, 1)}, {(0, 1)}), {}, "shape is needed"),
        (({(0, 1)}, set()), {"shape": SHAPE}, "b is an empty circuit"),
        (({(0, 6)}, {(0, 1)}), {"shape": SHAPE}, "a holds head 0.6; the model has 5 layers x 6 heads"),
        ((torch.ones(2, 3), torch.ones(3, 2)), {}, "b is of a model of 3 layers x 2 heads, not 2 x 3"),
        ((torch.ones(2, 3), torch.ones(3, 2), "weighted"), {}, "the same shape"),
        ((torch.ones(2, 3), torch.zeros(2, 3), "weighted"), {}, "b is an empty circuit"),
        (({(0, 1)}, {(0, 1)}, "weighted"), {"shape": SHAPE}, "a must be effects"),
        ((torch.ones(2, 3), torch.ones(2, 3), "weighted"), {"n": 0}, "n=0"),
    ],
)
def test_circuits_that_cannot_be_compared(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        circuit_overlap(*arguments, **options)


# The finder


def pairs(source: str = "s") -> TaskPairs:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(2, 40, (4, 8), generator=generator)
    twin = ids.clone()
    twin[:, 3] = (ids[:, 3] - 2 + torch.randint(1, 38, (4,), generator=generator)) % 38 + 2
    answers, roles = torch.randint(2, 20, (4,), generator=generator), {"s": torch.full((4,), 3)}
    batches = [Batch(side, torch.ones_like(side), answers, answers + 20, roles) for side in (ids, twin)]
    return TaskPairs(*batches, source=source)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_stages_follow_from_path_patching(make) -> None:
    model, task = shaken(make), pairs()
    finder = CircuitFinder(model, top=0.15, min_gap=None).fit(task)  # two heads a stage
    names = [stage.name for stage in STAGES]
    movers = finder.heads("movers")
    first = path_patch(model, task.clean, task.corrupt, Receiver("logits"), min_gap=None)
    torch.testing.assert_close(finder.stages_[0], first)
    order = first.abs().flatten().argsort(descending=True)[:2].tolist()
    assert movers == [Head(*divmod(index, 4)) for index in order]
    inhibition = finder.heads("inhibition")
    if min(head.layer for head in movers):
        queries = [Receiver(*head, "q") for head in movers]
        second = path_patch(model, task.clean, task.corrupt, queries, min_gap=None)
        torch.testing.assert_close(finder.stages_[1], second)
        assert len(inhibition) == 2
    if inhibition and min(head.layer for head in inhibition):
        shared = 4 if make is tiny_gpt2 else 2
        values = list({Receiver(layer, head * shared // 4, "v") for layer, head in inhibition})
        third = path_patch(model, task.clean, task.corrupt, values, positions="s", min_gap=None)
        torch.testing.assert_close(finder.stages_[2], third)
    assert finder.circuit_ == {tuple(head) for name in names for head in finder.heads(name)}
    assert set(finder.roles_) == {head for name in names for head in finder.heads(name)}
    assert len(finder.stages_) == 3
    assert finder.effects_["movers"].dropped == finder.dropped_ == 0


def test_every_stage_is_reached_in_a_deeper_model() -> None:
    def deep() -> GPT2LMHeadModel:
        tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
        return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=24, n_layer=6, n_head=4, n_positions=64, **tokens))

    model = shaken(deep)
    stages = (Stage("movers"), Stage("middle", ("q",), "movers"), Stage("early", ("k", "v"), "middle", "source"))
    finder = CircuitFinder(model, top=0.3, min_gap=None, senders="reachable", stages=stages).fit(pairs())
    assert all(stage.abs().max() > finder.noise for stage in finder.stages_)
    assert set(finder.effects_) == {"movers", "middle", "early"}
    for head, roles in finder.roles_.items():
        assert roles == [name for name in ("movers", "middle", "early") if head in finder.heads(name)]


def test_a_stage_keeps_no_head_without_effect() -> None:
    model = shaken(tiny_gpt2)
    finder = CircuitFinder(model, top=1.0, stages=STAGES[:2], min_gap=None, noise=0.0).fit(pairs())
    # All heads move the logits; the movers' lowest layer is 0, and nothing is below it.
    assert len(finder.heads("movers")) == 12
    assert finder.heads("inhibition") == []
    assert not finder.stages_[1].any()
    assert "inhibition" not in finder.effects_


def test_an_empty_circuit_is_an_error_that_says_how_far_it_is() -> None:
    with pytest.raises(
        RuntimeError, match=r"the circuit is empty: the largest effect of a head is .*, not above noise="
    ):
        CircuitFinder(shaken(tiny_gpt2), min_gap=None, noise=100.0).fit(pairs())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top": 0.0}, "top=0.0"),
        ({"n_min": 0}, "n_min must be positive"),
        ({"noise": -1.0}, "noise not negative"),
        ({"stages": ()}, "stages is empty"),
        ({"stages": (Stage("a"), Stage("a"))}, "two stages are called 'a'"),
        ({"stages": (Stage("a", ("q",)),)}, "go with no receivers"),
        ({"stages": (Stage("a", ("q",), "b"),)}, "receives by 'b', which is no stage before it"),
    ],
)
def test_malformed_finders(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CircuitFinder(shaken(tiny_gpt2), **options)
