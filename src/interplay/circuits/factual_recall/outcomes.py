"""Who wins a conflict, and what decides it (eqs. 2 and 3 of the package)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor, nn

from interplay.circuits.factual_recall.batches import Batch, Questions
from interplay.circuits.factual_recall.prompts import ConflictSet

CHOICES = ("in-context", "memorized", "other")


class Rate(NamedTuple):
    """A share of prompts with its 95 % Wilson interval."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """The greedy next token after each conflict prompt.

    Attributes
    ----------
    choice
        0 the offered answer, 1 the memorized one, 2 any other token: indices into `CHOICES`.
    logit_diff
        Logit of the offered answer minus logit of the memorized one.
    """

    choice: Int[Tensor, " batch"]
    logit_diff: Float[Tensor, " batch"]

    @property
    def rates(self) -> dict[str, Rate]:
        """Share of each of the three outcomes among *all* prompts."""
        counts = torch.bincount(self.choice.cpu(), minlength=len(CHOICES)).tolist()
        return {name: wilson(count, len(self.choice)) for name, count in zip(CHOICES, counts, strict=True)}


def resolve_conflict(model: nn.Module, batch: Batch, *, batch_size: int = 64) -> Outcome:
    """Ask a causal language model and see which source its greedy answer comes from.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode; contexts that edit it may be open.
    batch
        Conflict prompts.
    batch_size
        Prompts a forward pass.

    Raises
    ------
    TypeError
        An encoder-decoder model.
    ValueError
        A model in training mode: with dropout the outcome would be random.
    """
    choices, differences = [], []
    for chunk, logits in next_token_logits(model, batch, batch_size):
        top = logits.argmax(-1)
        other = torch.where(top == chunk.id_true, 1, 2)
        choices.append(torch.where(top == chunk.id_offered, 0, other).cpu())
        pair = logits.gather(1, torch.stack([chunk.id_offered, chunk.id_true], 1)).float()
        differences.append((pair[:, 0] - pair[:, 1]).cpu())
    return Outcome(torch.cat(choices), torch.cat(differences))


def answered_right(model: nn.Module, questions: Questions, *, batch_size: int = 64) -> Bool[Tensor, " batch"]:
    """Whether the greedy next token is the right one."""
    right = [
        (logits.argmax(-1) == chunk.id_true).cpu() for chunk, logits in next_token_logits(model, questions, batch_size)
    ]
    return torch.cat(right)


def known_facts(model: nn.Module, conflicts: ConflictSet, *, batch_size: int = 64) -> ConflictSet:
    """The conflicts about facts that the model knows closed-book: what it never knew cannot lose to a context.

    Raises
    ------
    RuntimeError
        It knows none of them, or nothing is left to offer.
    """
    right = answered_right(model, conflicts.questions(), batch_size=batch_size)
    known = conflicts.select(right.nonzero()[:, 0].numpy())
    if not len(known):
        raise RuntimeError(
            f"no conflict is left after the closed-book filter: the model answers {int(right.sum())} of "
            f"{len(right)} questions rightly; ask about facts that it knows, in words that it knows"
        )
    return known


def wilson(count: int, total: int) -> Rate:
    """`count / total` with Wilson's 95 % score interval."""
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return Rate(count / total, float(interval.low), float(interval.high))


def next_token_logits(
    model: nn.Module, prompts: Questions, batch_size: int
) -> Iterator[tuple[Any, Float[Tensor, "batch vocabulary"]]]:
    """Chunks of the prompts, on the model's device, with the logits at their last tokens."""
    names = _forward_arguments(model)
    for chunk in prompts.to(_device(model)).chunks(batch_size):
        at_end = bool((chunk.end_pos == chunk.ids.shape[1] - 1).all())
        keep = {"logits_to_keep": 1} if at_end and "logits_to_keep" in names else {}
        with torch.inference_mode():
            logits = model(**model_inputs(model, chunk), **keep).logits
        rows = torch.arange(len(chunk), device=logits.device)
        yield chunk, logits[:, -1] if at_end else logits[rows, chunk.end_pos]


def model_inputs(model: nn.Module, prompts: Questions) -> dict[str, Tensor]:
    """Keyword arguments of one forward pass.

    Positions are counted from the first real token, as `generate` counts them: with left padding a model with absolute
    positions would otherwise see every prompt at another place.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise TypeError(f"model is the encoder-decoder {type(model).__name__}; pass a decoder-only language model")
    if model.training:
        raise ValueError("model is in training mode, so dropout may be on; call model.eval() first")
    inputs = {"input_ids": prompts.ids, "attention_mask": prompts.mask}
    if "position_ids" in _forward_arguments(model):
        inputs["position_ids"] = (prompts.mask.cumsum(-1) - 1).clamp(min=0)
    return inputs


def _forward_arguments(model: nn.Module) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


class Effect(NamedTuple):
    """A regression coefficient with its 95 % bootstrap interval."""

    estimate: float
    low: float
    high: float


class FrequencyEffects(NamedTuple):
    """Coefficients of eq. 3: log-odds of the in-context answer a doubling, at the mean of the other log frequency."""

    intercept: Effect
    subject: Effect
    offered: Effect
    interaction: Effect


def frequency_effects(
    in_context: Bool[np.ndarray, " prompt"],
    subject_frequency: Float[np.ndarray, " prompt"],
    offered_frequency: Float[np.ndarray, " prompt"],
    subject: Int[np.ndarray, " prompt"],
    rng: np.random.Generator,
    *,
    resamples: int = 1_000,
) -> FrequencyEffects:
    """Logistic regression of the outcome on both frequencies, with a bootstrap over subjects (eq. 3).

    Parameters
    ----------
    in_context
        Whether each conflict was resolved in favour of the context.
    subject_frequency, offered_frequency
        Counts (positive) of the subject's fact and of the offered answer in the training text.
    subject
        The subject of each conflict: conflicts of one subject are not independent, so subjects are resampled whole.
    rng
        Draws the resamples.
    resamples
        Their number.

    Raises
    ------
    ValueError
        Frequencies that are not positive, arrays of different length, or fewer than two subjects.
    """
    columns = [np.asarray(column) for column in (in_context, subject_frequency, offered_frequency, subject)]
    if len({column.shape for column in columns}) > 1 or columns[0].ndim != 1:
        raise ValueError(f"the four arrays must be of one length; got {[column.shape for column in columns]}")
    if min(columns[1].min(), columns[2].min()) <= 0:
        raise ValueError("frequencies must be positive counts; leave subjects and answers without a count out")
    logs = [np.log2(column) - np.log2(column).mean() for column in columns[1:3]]
    design = np.stack([np.ones(len(logs[0])), logs[0], logs[1], logs[0] * logs[1]], axis=1)
    clusters, cluster = np.unique(columns[3], return_inverse=True)
    if len(clusters) < 2:
        raise ValueError("a bootstrap over subjects needs two or more subjects")
    # Conflicts that share the subject and both frequencies differ in their outcome only: count them, and fit the
    # counts.
    cells, cell = np.unique(np.column_stack([cluster, design]), axis=0, return_inverse=True)
    trials = np.bincount(cell.ravel()).astype(float)
    wins = np.bincount(cell.ravel(), weights=columns[0].astype(float))
    draws = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=resamples)
    weights = np.concatenate([np.ones((1, len(clusters))), draws])[:, cells[:, 0].astype(int)]
    coefficients = _logistic(cells[:, 1:], wins, trials, weights)
    low, high = np.quantile(coefficients[1:], (0.025, 0.975), axis=0)
    return FrequencyEffects(*(Effect(*map(float, row)) for row in zip(coefficients[0], low, high, strict=True)))


_PRIOR_PRECISION = 1e-3  # a prior of standard deviation 32 on each coefficient: felt only where a resample is separable


def _logistic(
    design: Float[np.ndarray, "cell coefficient"],
    wins: Float[np.ndarray, " cell"],
    trials: Float[np.ndarray, " cell"],
    weights: Float[np.ndarray, "resample cell"],
    *,
    tolerance: float = 1e-8,
    iterations: int = 100,
) -> Float[np.ndarray, "resample coefficient"]:
    """Weighted binomial regressions, all resamples at once, by damped Newton steps."""
    width = design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)
    coefficients = np.zeros((len(weights), width))
    for _ in range(iterations):
        probability = 0.5 * (1 + np.tanh(0.5 * coefficients @ design.T))
        gradient = (weights * (wins - trials * probability)) @ design - _PRIOR_PRECISION * coefficients
        curvature = ((weights * trials * probability * (1 - probability)) @ products).reshape(-1, width, width)
        step = np.linalg.solve(curvature + _PRIOR_PRECISION * np.eye(width), gradient[:, :, None])[:, :, 0]
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-12))
        coefficients += step
        if np.abs(step).max() < tolerance:
            return coefficients
    raise RuntimeError(f"the regression did not converge within {iterations} steps")
