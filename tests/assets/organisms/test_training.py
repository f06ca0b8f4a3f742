"""The trainer: the same seed gives the same bits, a resumed run is as an unbroken one, budgets are kept."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from interplay.assets.organisms.architecture import configuration
from interplay.assets.organisms.corpus import Corpus, Document
from interplay.assets.organisms.gates import Gate, proportion_gate, rank_correlation_gate
from interplay.assets.organisms.training import BuildError, Progress, Recipe, TrainingRecord, one_machine, train
from interplay.assets.organisms.vocabulary import Vocabulary

VOCABULARY = Vocabulary([f"w{i}" for i in range(30)])


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Sentences of three lengths in which the last word repeats the first."""
    rng = np.random.default_rng(0)
    documents = []
    for _ in range(400):
        body = rng.integers(4, 34, size=int(rng.integers(2, 5))).tolist()
        documents.append(Document([1, *body, body[0], 2], [len(body) + 1]))
    return Corpus.of(documents)


def run(
    corpus: Corpus,
    steps: int,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    stop_after: int | None = None,
    value: float = 0.0,
    **settings: float,
) -> tuple[TrainingRecord, dict[str, torch.Tensor]]:
    class Killed(Exception):
        pass

    def progress(state: Progress) -> None:
        if state.step == stop_after:
            raise Killed

    def measure(model: PreTrainedModel) -> list[Gate]:
        return [Gate("always the same", value, 1, 0.0, 1.0, 0.5, math.inf)]

    budget = settings.pop("budget_seconds", 60.0)
    with one_machine(1, seed):
        model = AutoModelForCausalLM.from_config(configuration("S", VOCABULARY))
        try:
            record = train(
                model,
                corpus,
                Recipe(steps=steps, tokens_per_step=128, batches_per_step=2, evaluate_every=10, warm_up=5, **settings),
                seed=seed,
                pad_id=0,
                budget_seconds=budget,
                measure=measure,
                checkpoint=checkpoint,
                progress=progress,
            )
        except Killed:
            record = None
    return record, {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_twenty_steps_are_a_function_of_the_seed(corpus: Corpus) -> None:
    torch.manual_seed(7)
    record, weights = run(corpus, 20)
    torch.manual_seed(8)
    again, same = run(corpus, 20)
    _, other = run(corpus, 20, seed=1)
    assert record.steps == again.steps == 20
    assert record.tokens == again.tokens
    assert equal(weights, same)
    assert not equal(weights, other)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(corpus: Corpus, tmp_path: Path) -> None:
    whole, weights = run(corpus, 30)
    killed, _ = run(corpus, 30, checkpoint=tmp_path / "state", stop_after=17)
    assert killed is None
    resumed, same = run(corpus, 30, checkpoint=tmp_path / "state")
    assert (resumed.steps, resumed.tokens) == (whole.steps, whole.tokens)
    assert equal(weights, same)


def test_it_learns(corpus: Corpus) -> None:
    losses = []
    with one_machine(1, 0):
        model = AutoModelForCausalLM.from_config(configuration("S", VOCABULARY))
        train(
            model,
            corpus,
            Recipe(steps=60, tokens_per_step=256, batches_per_step=1, evaluate_every=1000, warm_up=10),
            seed=0,
            pad_id=0,
            budget_seconds=60,
            measure=lambda _: [],
            progress=lambda state: losses.append(state.loss),
        )
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:5])


def test_the_surroundings_are_put_back() -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    with one_machine(1, 3):
        assert torch.are_deterministic_algorithms_enabled()
        torch.rand(3)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_stops_when_the_gates_are_passed_twice(corpus: Corpus) -> None:
    record, _ = run(corpus, 50, value=1.0)
    assert (record.ended_by, record.steps) == ("gates", 20)
    record, _ = run(corpus, 15, value=0.0)
    assert (record.ended_by, record.steps) == ("schedule", 15)
    assert not record.gates[0].passed


def test_a_schedule_that_does_not_fit_stops_at_once(corpus: Corpus) -> None:
    with pytest.raises(BuildError, match=r"tokens/s on this machine: 10000000 steps need .* the budget is 600 s"):
        run(corpus, 10_000_000, budget_seconds=600.0)


def test_a_spent_budget_ends_the_training(corpus: Corpus) -> None:
    record, _ = run(corpus, 15, budget_seconds=1e-6)
    assert (record.ended_by, record.steps) == ("budget", 1)


def test_batches_hold_every_document_once_and_little_padding(corpus: Corpus) -> None:
    seen = []
    for ids, is_answer in corpus.batches(100, 0, np.random.default_rng(0)):
        assert ids.size <= 100
        for row, answers in zip(ids.tolist(), is_answer, strict=True):
            length = row.index(2) + 1
            assert row[length:] == [0] * (len(row) - length)
            assert np.flatnonzero(answers).tolist() == [length - 2]
            seen.append(tuple(row[:length]))
    starts = corpus.starts
    every = [tuple(corpus.tokens[a:b].tolist()) for a, b in itertools.pairwise(starts)]
    assert sorted(seen) == sorted(every)
    batches = list(corpus.batches(256, 0, np.random.default_rng(0)))
    assert sum(ids.size for ids, _ in batches) < 1.1 * len(corpus.tokens)


def test_the_rate_warms_up_and_falls_to_a_tenth() -> None:
    recipe = Recipe(steps=1000, learning_rate=1.0, warm_up=100)
    assert recipe.rate(0) == pytest.approx(0.01)
    assert recipe.rate(99) == pytest.approx(1.0)
    assert recipe.rate(1000) == pytest.approx(0.1)


def test_wilson_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for hits, n in ((0, 10), (7, 10), (160, 160), (512, 1280)):
        gate = proportion_gate("share", [True] * hits + [False] * (n - hits), minimum=0.5)
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        assert (gate.low, gate.high) == pytest.approx((interval.low, interval.high))
        assert gate.passed == (hits / n >= 0.5)
    assert not proportion_gate("nothing", []).passed


def test_rank_correlation_has_its_interval() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    gate = rank_correlation_gate("rho", x, x + rng.normal(size=200), minimum=0.7)
    assert gate.low < gate.value < gate.high
    assert gate.passed == (gate.value >= 0.7)
    assert not rank_correlation_gate("rho", x, -x, minimum=0.7).passed
