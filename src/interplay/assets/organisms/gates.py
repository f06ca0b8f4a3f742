"""Gates: what a trained organism must reach before anybody may use it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr
from transformers import PreTrainedModel

from interplay.assets.organisms.grammar import Example

__all__ = [
    "Gate",
    "GateReport",
    "greedy_answers",
    "next_token_log_probabilities",
    "proportion_gate",
    "rank_correlation_gate",
]

_Z = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Gate:
    """One measured quantity and the range in which it must lie.

    Parameters
    ----------
    name
        What was measured.
    value
        The measured value.
    n
        On how many prompts.
    low, high
        95 % interval: Wilson's for a proportion, Fisher's for a rank correlation.
    minimum, maximum
        The allowed range, ends included; minus and plus infinity where the quantity is only reported.
    held_out
        Which unit the training text does not hold; empty where memory itself is measured.
    """

    name: str
    value: float
    n: int
    low: float
    high: float
    minimum: float
    maximum: float
    held_out: str = ""

    @property
    def passed(self) -> bool:
        """Whether the value lies in the allowed range."""
        return self.minimum <= self.value <= self.maximum

    def __str__(self) -> str:
        allowed = f"at least {self.minimum:g}" if math.isinf(self.maximum) else f"{self.minimum:g} to {self.maximum:g}"
        if math.isinf(self.minimum):
            allowed = "reported only" if math.isinf(self.maximum) else f"at most {self.maximum:g}"
        interval = f"[{self.low:.3f}, {self.high:.3f}], n={self.n}"
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {self.value:.3f} {interval} ({allowed})"


@dataclass(frozen=True)
class GateReport:
    """All gates of one organism."""

    organism: str
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate is passed."""
        return all(gate.passed for gate in self.gates)

    @property
    def failed(self) -> tuple[Gate, ...]:
        """The gates that are not passed."""
        return tuple(gate for gate in self.gates if not gate.passed)

    def __str__(self) -> str:
        return "\n".join([self.organism, *(f"  {gate}" for gate in self.gates)])


def proportion_gate(
    name: str,
    outcomes: Sequence[bool] | NDArray,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    held_out: str = "",
) -> Gate:
    """Gate on the share of true outcomes, with Wilson's interval; no outcomes at all do not pass."""
    if len(outcomes) == 0:
        return Gate(name, math.nan, 0, 0.0, 1.0, minimum, maximum, held_out)
    n, share = len(outcomes), float(np.mean(outcomes))
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Gate(name, share, n, max(0.0, middle - half), min(1.0, middle + half), minimum, maximum, held_out)


def rank_correlation_gate(name: str, x: NDArray, y: NDArray, *, minimum: float, held_out: str = "") -> Gate:
    """Gate on Spearman's rank correlation, with Fisher's interval in the variance of Bonett and Wright (2000)."""
    rho, n = float(spearmanr(x, y).statistic), len(x)
    half = _Z * math.sqrt((1 + rho**2 / 2) / (n - 3))
    middle = math.atanh(max(-0.999999, min(0.999999, rho)))
    return Gate(name, rho, n, math.tanh(middle - half), math.tanh(middle + half), minimum, math.inf, held_out)


def next_token_log_probabilities(
    model: PreTrainedModel, examples: Sequence[Example], tokens_per_batch: int = 8192
) -> torch.Tensor:
    """Log-probabilities of the token after each example, (example, vocabulary) float.

    Examples of one length share a batch, so nothing is padded and the order of the examples does not matter.
    """
    by_length: dict[int, list[int]] = {}
    for index, example in enumerate(examples):
        by_length.setdefault(len(example), []).append(index)
    found = torch.empty(len(examples), model.config.vocab_size)
    with torch.inference_mode():
        for length, members in by_length.items():
            per_batch = max(1, tokens_per_batch // length)
            for start in range(0, len(members), per_batch):
                part = members[start : start + per_batch]
                ids = torch.tensor([examples[index].input_ids for index in part])
                logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
                found[part] = logits.float().log_softmax(-1)
    return found


def greedy_answers(
    model: PreTrainedModel, examples: Sequence[Example], tokens: int, tokens_per_batch: int = 8192
) -> list[list[int]]:
    """The `tokens` most probable next tokens after each example, one after the other, without `<eos>` and what follows.

    Examples of one length share a batch, so nothing is padded and the order of the examples does not matter.
    """
    by_length: dict[int, list[int]] = {}
    for index, example in enumerate(examples):
        by_length.setdefault(len(example), []).append(index)
    found: list[list[int]] = [[] for _ in examples]
    with torch.inference_mode():
        for length, members in by_length.items():
            per_batch = max(1, tokens_per_batch // (length + tokens))
            for start in range(0, len(members), per_batch):
                part = members[start : start + per_batch]
                ids = torch.tensor([examples[index].input_ids for index in part])
                for _ in range(tokens):
                    logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
                    ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
                for index, said in zip(part, ids[:, length:].tolist(), strict=True):
                    found[index] = list(itertools.takewhile(lambda token: token != model.config.eos_token_id, said))
    return found
