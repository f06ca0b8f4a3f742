"""Are the units of one block different from one another, and is the unit basis a special one?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import stats

from interplay.evidence import Measurement
from interplay.steering.austeer import UnitSite, heterogeneity, unit_token_profile, writing_directions
from interplay.studies.austeer.conditions import SITES
from interplay.studies.austeer.tasks import Task

__all__ = ["kinds_of_units", "token_profiles"]

NEUTRAL = 0.05
RATE = 0.05
TOP = 10


def kinds_of_units(task: Task, layers: Sequence[int], items: int, gain: float) -> Iterator[Measurement]:
    """Shares of units that help, harm or do nothing when scaled alone, at a false discovery rate of 5 % a direction."""
    part = task.splits["test"][:: max(1, len(task.splits["test"]) // items)][:items]
    prompts = [item.ids for item in part]
    mixed = []
    for site in SITES:
        for layer in layers:
            right, wrong = [item.right for item in part], [item.wrong for item in part]
            table = heterogeneity(task.model, task.tokenizer, prompts, right, wrong, site, layer, gains=(-gain, gain))
            shares = {"helpful": 0.0, "harmful": 0.0}
            for sign in (-gain, gain):
                own = table[table["gain"] == sign]
                passed = stats.false_discovery_control(own["p"].fillna(1.0).to_numpy()) < RATE
                shares["helpful"] = max(shares["helpful"], float((passed & (own["effect"] > 0)).mean()))
                shares["harmful"] = max(shares["harmful"], float((passed & (own["effect"] < 0)).mean()))
            largest = table.groupby("unit")["effect"].apply(lambda effects: effects.abs().max())
            shares["neutral"] = float((largest < NEUTRAL * largest.max()).mean())
            for kind, share in shares.items():
                yield Measurement(f"{site} {layer}", f"share of units: {kind}", share)
            mixed.append(shares["helpful"] > 0 and shares["harmful"] > 0 and shares["neutral"] >= 0.1)
    yield Measurement("AUSteer", "blocks with helpful, harmful and neutral units", float(np.mean(mixed)))
    yield Measurement("AUSteer", "such blocks are half or more", float(np.mean(mixed) >= 0.5))


def token_profiles(task: Task, rng: np.random.Generator) -> Iterator[Measurement]:
    """Kurtosis of what units write, and overlap of their first tokens, against a basis that is turned by chance."""
    peaked = []
    for site in SITES[:2]:
        for layer in range(task.model.config.num_hidden_layers):
            values = {}
            for basis in ("units", "rotated"):
                profile = _profile(task, site, layer, rng if basis == "rotated" else None)
                values[basis] = float(stats.kurtosis(profile, axis=1).mean())
                yield Measurement(f"{site}, {basis}", "kurtosis of token profiles", values[basis], step=layer)
                yield Measurement(f"{site}, {basis}", "overlap of first tokens", _overlap(profile, rng), step=layer)
            peaked.append(values["units"] > values["rotated"])
    yield Measurement("AUSteer", "blocks whose units are more peaked than a rotated basis", float(np.mean(peaked)))
    yield Measurement("AUSteer", "such blocks are two thirds or more", float(np.mean(peaked) >= 2 / 3))


def _profile(task: Task, site: UnitSite, layer: int, rng: np.random.Generator | None) -> np.ndarray:
    profile = unit_token_profile(task.model, site, layer).double().numpy()
    if rng is None:
        return profile
    # What is linear in a unit's direction turns with it.
    count = len(writing_directions(task.model, site, layer))
    turn = torch.linalg.qr(torch.from_numpy(rng.standard_normal((count, count))))[0].numpy()
    return turn @ profile


def _overlap(profile: np.ndarray, rng: np.random.Generator, pairs: int = 500) -> float:
    """Mean Jaccard index of the first ten tokens of two units."""
    first = [frozenset(row) for row in np.argsort(-profile, axis=1)[:, :TOP].tolist()]
    drawn = rng.integers(len(first), size=(pairs, 2))
    return float(np.mean([len(first[a] & first[b]) / len(first[a] | first[b]) for a, b in drawn if a != b]))
