"""The measure of test-time adaptation: the online error over a stream."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interplay.plasticity.nhl.adapter import logits_of
from interplay.plasticity.nhl.modulator import entropy

__all__ = ["OnlineRun", "evaluate_online"]


@dataclass
class OnlineRun:
    """What happened on a stream, one entry a batch.

    Attributes
    ----------
    errors
        Share of the batch that was predicted wrongly.
    entropies
        Mean entropy of the predictions in nats.
    seconds
        Wall time of adapting and predicting.
    sizes
        Number of samples.
    """

    errors: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Online error: the share of all samples of the stream that were predicted wrongly; NaN for an empty stream."""
        return float(np.average(self.errors, weights=self.sizes)) if self.sizes else float("nan")

    @property
    def milliseconds_per_sample(self) -> float:
        """Mean cost of a sample; NaN for an empty stream."""
        return 1e3 * sum(self.seconds) / sum(self.sizes) if self.sizes else float("nan")


def evaluate_online(adapter: nn.Module, batches: Iterable[tuple[Tensor | Mapping[str, Any], Tensor]]) -> OnlineRun:
    """Adapt on and predict each batch once, in order.

    The adapter is used in the state it is in and left in the state it ends in: call `reset` between domains.

    Parameters
    ----------
    adapter
        `NHL`, one of its baselines, or any module that returns logits or an object with `.logits`.
    batches
        Pairs of images and labels (batch,); the images are a tensor or the keyword arguments of the classifier.
    """
    run = OnlineRun()
    for images, labels in batches:
        start = time.perf_counter()
        output = adapter(**images) if isinstance(images, Mapping) else adapter(images)
        if labels.is_cuda:
            torch.cuda.synchronize(labels.device)
        run.seconds.append(time.perf_counter() - start)
        logits = logits_of(output).detach()
        if len(labels) != len(logits):
            raise ValueError(
                f"batches must pair images with labels; got {len(logits)} predictions and {len(labels)} labels"
            )
        run.errors.append((logits.argmax(1) != labels.to(logits.device)).double().mean().item())
        run.entropies.append(entropy(logits).mean().item())
        run.sizes.append(len(labels))
    return run
