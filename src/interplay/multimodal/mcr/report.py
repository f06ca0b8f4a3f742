"""Diagnoses for any trained model of several modalities: who moves its predictions, and where it goes wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor, nn

from interplay.multimodal.mcr.game import permutation_influence
from interplay.multimodal.mcr.permutations import Selection, latent_permutations
from interplay.primitives.modes import evaluating

__all__ = ["EncodersAndHead", "error_routing", "influence_report"]


class EncodersAndHead(Protocol):
    """What `FusionNet` offers, and any model that gives its latents away."""

    modalities: Sequence[str]
    head: nn.Module

    def encode(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The latent of each modality, (sample, features)."""
        ...


@torch.no_grad()
def influence_report(
    model: EncodersAndHead,
    loader: Iterable[tuple[Mapping[str, Tensor], Tensor]],
    *,
    permutations: int = 8,
    selection: Selection = "rsl",
    confidence: float = 0.95,
    generator: torch.Generator | None = None,
) -> pd.DataFrame:
    """Influence of every modality on the predictions of a model (MIPD, in nats) with a confidence interval.

    Parameters
    ----------
    model
        A `FusionNet` or any other model with `modalities`, `encode` and `head`. It is put into evaluation mode for the
        while.
    loader
        Batches of inputs by modality and targets.
    permutations, selection, generator
        As in `latent_permutations`.
    confidence
        Level of the interval: Student's t over samples, each averaged over its permutations.

    Returns
    -------
    DataFrame
        Indexed by modality, with columns `influence`, `low`, `high` and `samples`. The influence lies in [0, ln 2]: 0
        for a modality that the model does not look at.

    Raises
    ------
    ValueError
        A loader without batches, or batches from which no pairs can be chosen.
    """
    with evaluating(*([model] if isinstance(model, nn.Module) else [])):
        parts = [_per_sample(model, inputs, target, permutations, selection, generator) for inputs, target in loader]
    if not parts:
        raise ValueError("loader gave no batch")
    values = torch.cat(parts, dim=1).double().cpu().numpy()
    count = values.shape[1]
    centre = values.mean(1)
    half = stats.t.ppf(0.5 + confidence / 2, count - 1) * values.std(1, ddof=1) / np.sqrt(count)
    return pd.DataFrame(
        {"influence": centre, "low": centre - half, "high": centre + half, "samples": count},
        index=pd.Index(list(model.modalities), name="modality"),
    )


def _per_sample(
    model: EncodersAndHead,
    inputs: Mapping[str, Tensor],
    target: Tensor,
    permutations: int,
    selection: Selection,
    generator: torch.Generator | None,
) -> Float[Tensor, "modality sample"]:
    encoded = model.encode(inputs)
    latents = [encoded[name] for name in model.modalities]
    labels = None if target.is_floating_point() else target
    pairs = latent_permutations(
        len(latents[0]), permutations, labels, selection, generator=generator, device=latents[0].device
    )
    divergences = permutation_influence(model.head, latents, pairs)
    counts = torch.bincount(pairs.rows, minlength=len(latents[0]))
    sums = divergences.new_zeros(len(latents), len(counts)).index_add_(1, pairs.rows, divergences)
    return (sums / counts)[:, counts > 0]


def error_routing(
    unimodal: Mapping[str, Int[Tensor, " sample"]], joined: Int[Tensor, " sample"], target: Int[Tensor, " sample"]
) -> pd.DataFrame:
    """Where a multimodal model is right, by which unimodal models are.

    Parameters
    ----------
    unimodal
        Predicted classes of one model a modality.
    joined
        Those of the multimodal model.
    target
        The labels.

    Returns
    -------
    DataFrame
        A row for every set of modalities whose model may be right, all of them first, none last; four for two
        modalities. The index holds their names joined by " + ", or "none". `samples` counts them, `share` is their
        part of all, `accuracy` is that of the multimodal model there, NaN where there are none.

    Raises
    ------
    ValueError
        Predictions of different samples.
    """
    lengths = {name: tuple(predicted.shape) for name, predicted in {**unimodal, "joined": joined}.items()}
    if any(shape != tuple(target.shape) for shape in lengths.values()) or target.ndim != 1:
        raise ValueError(f"predictions must be one class for each of {tuple(target.shape)} targets; got {lengths}")
    right = {name: (predicted == target).cpu().numpy() for name, predicted in unimodal.items()}
    hit = (joined == target).cpu().numpy()
    rows = []
    for pattern in itertools.product((True, False), repeat=len(right)):
        here = np.all([values == wanted for values, wanted in zip(right.values(), pattern, strict=True)], axis=0)
        names = [name for name, wanted in zip(right, pattern, strict=True) if wanted]
        rows.append(
            {
                "right": " + ".join(names) or "none",
                "samples": int(here.sum()),
                "share": float(here.mean()),
                "accuracy": float(hit[here].mean()) if here.any() else float("nan"),
            }
        )
    return pd.DataFrame(rows).set_index("right")
