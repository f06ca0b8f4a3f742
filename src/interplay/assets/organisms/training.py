"""Training of an organism: deterministic, resumable, within a budget, stopped when the gates are passed."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional

from interplay.assets.organisms.corpus import Corpus
from interplay.assets.organisms.gates import Gate

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["BuildError", "Progress", "Recipe", "TrainingRecord", "one_machine", "train"]

BENCH_STEPS = 20

Batch = tuple[NDArray, NDArray]
"""Token ids and which of them are answers, each (document, token)."""


class BuildError(RuntimeError):
    """An organism could not be built; the message lists the gates that failed or says what did not fit."""


@dataclass(frozen=True)
class Recipe:
    """Settings of the optimiser and its schedule: AdamW, warm-up, cosine to a tenth, clipped gradients.

    Parameters
    ----------
    steps
        Optimiser steps of the whole schedule; training ends earlier when the gates are passed.
    learning_rate
        Its peak.
    tokens_per_step
        Tokens of a step, padding included.
    batches_per_step
        How many batches, each of documents of similar length, share a step: several, so that every step sees a mixture
        of documents.
    answer_weight, text_weight
        Weights of answer tokens and of all other tokens in the loss.
    evaluate_every
        Steps between two measurements of the gates.
    passes
        Training stops when the gates are passed this many times in succession; None goes through the whole schedule.
    """

    steps: int
    learning_rate: float = 3e-3
    tokens_per_step: int = 2048
    batches_per_step: int = 4
    answer_weight: float = 4.0
    text_weight: float = 1.0
    warm_up: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    evaluate_every: int = 100
    passes: int | None = 2

    def rate(self, step: int) -> float:
        """Learning rate of a step (0, 1, ...)."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * (0.55 + 0.45 * math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True)
class Progress:
    """What the callback hears after a step: where training is, and the gates where they were just measured."""

    step: int
    steps: int
    loss: float
    tokens: int
    seconds: float
    gates: tuple[Gate, ...] = ()


@dataclass(frozen=True)
class TrainingRecord:
    """How a training ended, and the gates of the split dev when they were measured last."""

    steps: int
    tokens: int
    seconds: float
    ended_by: Literal["gates", "schedule", "budget"]
    gates: tuple[Gate, ...]


@contextmanager
def one_machine(threads: int, seed: int) -> Iterator[None]:
    """Deterministic algorithms, a seeded generator and a number of threads, all put back afterwards."""
    threads_before = torch.get_num_threads()
    deterministic_before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic_before)
            torch.set_num_threads(threads_before)


def train(
    model: PreTrainedModel,
    corpus: Corpus,
    recipe: Recipe,
    *,
    seed: int,
    pad_id: int,
    budget_seconds: float,
    measure: Callable[[PreTrainedModel], list[Gate]],
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> TrainingRecord:
    """Train `model` in place until `measure` passes, the schedule ends or the budget is spent.

    Parameters
    ----------
    model
        A causal language model on the CPU.
    corpus
        The training text.
    recipe
        The schedule.
    seed
        Draws the order of the batches; epoch by epoch, so that a resumed training sees the same batches.
    pad_id
        Token that fills a batch up; it is not predicted.
    budget_seconds
        Processor time divided by the number of threads, that of the interrupted run included where training resumes:
        the wall time of a machine that does nothing else, so that a busy one does not make a build fail.
    measure
        Gates of the split dev.
    checkpoint
        File in which the state is kept at each evaluation, and from which training resumes if it is there and belongs
        to the same text, recipe, seed and first weights.
    progress
        Called after every step.

    Raises
    ------
    BuildError
        The first steps show that the schedule does not fit into the budget, or the loss is not finite.
    """
    optimizer = _optimizer(model, recipe)
    identity = json.dumps([corpus.sha256, asdict(recipe), seed, _digest(model)])
    state = _State() if checkpoint is None else _restore(model, optimizer, checkpoint, identity)
    threads = torch.get_num_threads()
    started = time.process_time() / threads - state.seconds
    bench_at = state.step + BENCH_STEPS
    gates: tuple[Gate, ...] = ()
    steps = _steps(corpus, recipe, seed, pad_id, skip=state.step)
    model.train()
    while (ended_by := _end(recipe, state, budget_seconds)) is None:
        batches = next(steps)
        loss = _step(model, optimizer, recipe, state.step, batches, pad_id)
        if not math.isfinite(loss):
            raise BuildError(f"the loss is {loss} at step {state.step}; lower the learning rate")
        state.step += 1
        state.tokens += sum(int((ids != pad_id).sum()) for ids, _ in batches)
        is_measured = state.step % recipe.evaluate_every == 0 or state.step == recipe.steps
        if is_measured:
            gates = tuple(measure(model.eval()))
            model.train()
            state.passes = state.passes + 1 if all(gate.passed for gate in gates) else 0
        state.seconds = time.process_time() / threads - started
        if is_measured and checkpoint is not None:
            _save(model, optimizer, checkpoint, state, identity)
        if progress is not None:
            reported = gates if is_measured else ()
            progress(Progress(state.step, recipe.steps, loss, state.tokens, state.seconds, reported))
        if state.step == bench_at:
            _check_fit(recipe.steps, state, budget_seconds)
    model.eval()
    return TrainingRecord(state.step, state.tokens, state.seconds, ended_by, gates)


@dataclass
class _State:
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    passes: int = 0


def _digest(model: PreTrainedModel) -> str:
    """SHA-256 of all parameters: of the architecture, too, and of the base that training starts from."""
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()


def _end(recipe: Recipe, state: _State, budget_seconds: float) -> Literal["gates", "schedule", "budget"] | None:
    """What ends the training now, if anything."""
    if recipe.passes is not None and state.passes >= recipe.passes:
        return "gates"
    if state.step >= recipe.steps:
        return "schedule"
    return "budget" if state.seconds > budget_seconds else None


def _optimizer(model: PreTrainedModel, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def _steps(corpus: Corpus, recipe: Recipe, seed: int, pad_id: int, skip: int) -> Iterator[tuple[Batch, ...]]:
    """The batches of each step, epoch after epoch, without the first `skip` steps.

    Every epoch draws its order from its own number, so that a resumed training sees the same batches.
    """

    endless = itertools.chain.from_iterable(
        corpus.batches(
            recipe.tokens_per_step // recipe.batches_per_step, pad_id, np.random.default_rng((seed, 3, epoch))
        )
        for epoch in itertools.count()
    )
    batches = itertools.islice(endless, skip * recipe.batches_per_step, None)
    while True:
        yield tuple(itertools.islice(batches, recipe.batches_per_step))


def _step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    step: int,
    batches: Sequence[Batch],
    pad_id: int,
) -> float:
    """One optimiser step on the weighted mean loss over all tokens of all batches."""
    weights = [
        np.where(is_answer[:, 1:], recipe.answer_weight, recipe.text_weight) * (ids[:, 1:] != pad_id)
        for ids, is_answer in batches
    ]
    total = float(sum(weight.sum() for weight in weights))
    optimizer.zero_grad(set_to_none=True)
    mean = 0.0
    for (ids, _), weight in zip(batches, weights, strict=True):
        tokens = torch.from_numpy(ids.astype(np.int64))
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
        losses = functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        loss = (losses * torch.from_numpy(weight).float()).sum() / total
        loss.backward()
        mean += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate(step)
    optimizer.step()
    return mean


def _check_fit(steps: int, state: _State, budget_seconds: float) -> None:
    needed = state.seconds / state.step * steps
    if needed > budget_seconds:
        raise BuildError(
            f"{state.tokens / state.seconds:.0f} tokens/s on this machine: {steps} steps need about {needed:.0f} s, "
            f"the budget is {budget_seconds:.0f} s; give a larger one or more threads"
        )


def _save(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, checkpoint: Path, state: _State, identity: str
) -> None:
    """Write the state in one step, so that a kill leaves the one before."""
    tensors = {}
    for name, parameter in model.named_parameters():
        tensors[f"model.{name}"] = parameter.detach()
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment]
    temporary = checkpoint.with_suffix(".writing")
    save_file(tensors, temporary, metadata={"state": json.dumps(asdict(state)), "identity": identity})
    temporary.replace(checkpoint)


def _restore(model: PreTrainedModel, optimizer: torch.optim.Optimizer, checkpoint: Path, identity: str) -> _State:
    """Put the kept state back, or leave everything as it is if there is none of this training."""
    if not checkpoint.exists():
        return _State()
    with safe_open(checkpoint, framework="pt") as file:
        if file.metadata()["identity"] != identity:
            return _State()
        state = _State(**json.loads(file.metadata()["state"]))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(file.get_tensor(f"model.{name}"))
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(state.step)),
                    **{moment: file.get_tensor(f"{moment}.{name}") for moment in ("exp_avg", "exp_avg_sq")},
                }
    return state
