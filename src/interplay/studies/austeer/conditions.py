"""Every way to steer a task, tuned alike on validation items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site
from interplay.steering import ActivationAddition
from interplay.steering.austeer import (
    Momentum,
    Ranking,
    UnitPatch,
    UnitSite,
    collect_units,
    momentum,
    momentum_of_classes,
    rank_units,
    sites_of,
    tune,
)
from interplay.steering.inference_time_intervention import InferenceTimeIntervention
from interplay.steering.interface import ModelShape, Steering, Strength, by_row
from interplay.studies.austeer.tasks import Task, margins

__all__ = ["SITES", "Chosen", "Grid", "best_of", "compared", "curve", "momenta", "unit_grid"]

SITES: tuple[UnitSite, ...] = ("attention", "ffn", "layer")


class Grid(NamedTuple):
    """What is tried.

    Attributes
    ----------
    ks, alphas
        Of methods of units.
    coefficients
        Of methods that add vectors.
    heads
        How many heads ITI moves.
    draws
        How many sets of units are drawn by chance.
    """

    ks: Sequence[int]
    alphas: Sequence[float]
    coefficients: Sequence[float]
    heads: Sequence[int]
    draws: int


@dataclass(frozen=True)
class Chosen:
    """A steering and the strength that was chosen for it.

    Parameters
    ----------
    name
        Of the condition.
    steering, strength
        What is applied.
    validation
        Its accuracy on the items on which it was chosen.
    touched
        How many dimensions it changes.
    """

    name: str
    steering: Steering
    strength: float
    validation: float
    touched: int


def accuracy(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of positive margins, of the last axis."""
    shares: NDArray[np.float64] = (found > 0).mean(-1)
    return shares


def momenta(task: Task, rng: np.random.Generator | None = None) -> dict[UnitSite, Momentum]:
    """Of every site; with a generator the sides of each pair are exchanged by chance."""
    items = task.splits["fit"]
    if task.contrast is None:
        rows = [
            [(*item.ids, answer) for item, answer in zip(items, answers, strict=True)]
            for answers in ([item.right for item in items], [item.wrong for item in items])
        ]
        sides = [collect_units(task.model, task.tokenizer, part, SITES) for part in rows]
        if rng is not None:
            swap = torch.from_numpy(rng.random(len(items)) < 0.5)[:, None, None]
            return {
                site: momentum(
                    torch.where(swap, sides[1][site], sides[0][site]), torch.where(swap, sides[0][site], sides[1][site])
                )
                for site in SITES
            }
        return {site: momentum(sides[0][site], sides[1][site]) for site in SITES}
    classes = [list(part) for part in task.contrast]
    if rng is not None:
        mixed = [*classes[0], *classes[1]]
        order = rng.permutation(len(mixed))
        classes = [[mixed[at] for at in part] for part in np.array_split(order, 2)]
    sides = [collect_units(task.model, task.tokenizer, part, SITES) for part in classes]
    return {site: momentum_of_classes(sides[0][site], sides[1][site]) for site in SITES}


class ConstantPatch(UnitPatch):
    """alpha beta_i times the unit's median size is added, whatever its value."""

    method = "constants"
    sizes: Float[Tensor, " k"]

    @classmethod
    def like(cls, patch: UnitPatch, sizes: Float[Tensor, "layer unit"]) -> Self:
        """The units and gains of a patch."""
        constant = cls(patch.shape, patch.k, patch.site)
        constant.layers, constant.units, constant.gains = patch.layers, patch.units, patch.gains
        constant.register_buffer("sizes", sizes[patch.layers, patch.units])
        return constant

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        places = sites_of(model, self.site)
        found: dict[Site, Edit] = {}
        for layer in self.layers.unique().tolist():
            here = self.layers == layer
            units, added = self.units[here], self.gains[here] * self.sizes[here]

            def add(h: Tensor, units: Tensor = units, added: Tensor = added) -> Tensor:
                flat = h.flatten(2) if self.site == "attention" else h
                amount = by_row(strength, flat.float()) * added
                return flat.index_add(-1, units, amount.expand(*flat.shape[:-1], len(units)).to(h)).view_as(h)

            found[places[layer]] = add
        return found


def compared(task: Task, grid: Grid, pad_id: int, rng: np.random.Generator) -> tuple[list[Chosen], list[float]]:
    """All conditions of a task at their best settings, and the test accuracies of units drawn by chance."""
    found = momenta(task)
    chosen = [
        units(task, "AUSteer", found, "momentum", grid, pad_id),
        units(task, "SADI", found, "sadi", grid, pad_id),
        units(task, "largest mean difference", found, "mean_diff", grid, pad_id),
        units(task, "shuffled labels", momenta(task, rng), "momentum", grid, pad_id),
    ]
    best = chosen[0].steering
    assert isinstance(best, UnitPatch)
    ranking = rank_units(found[best.site])
    chosen.append(
        best_of(
            task,
            "best single unit",
            [single(task, best.site, ranking, at) for at in range(min(16, len(ranking)))],
            grid.alphas,
            pad_id,
        )
    )
    chosen.append(
        best_of(
            task,
            "whole block",
            [
                block(task, site, found[site], layer)
                for site in SITES
                for layer in range(task.model.config.num_hidden_layers)
            ],
            grid.alphas,
            pad_id,
        )
    )
    sides = sides_of(task)
    layers = range(task.model.config.num_hidden_layers)
    additions = [addition(task, sides, layer) for layer in layers]
    chosen.append(best_of(task, "CAA", additions, grid.coefficients, pad_id))
    config = task.model.config
    heads = [k for k in grid.heads if k <= config.num_hidden_layers * config.num_attention_heads]
    most = InferenceTimeIntervention.fit(task.model, task.tokenizer, *sides, k=max(heads))
    interventions = [most.first(k) for k in heads]
    chosen.append(best_of(task, "ITI", interventions, grid.coefficients, pad_id))
    baseline = max(chosen[-3:], key=lambda one: one.validation)
    chosen.append(
        Chosen("best block baseline", baseline.steering, baseline.strength, baseline.validation, baseline.touched)
    )
    unit = UnitPatch.of_ranking(task.model, best.site, ranking, best.k, 1.0)
    sizes = median_sizes(task, best.site)
    chosen.append(best_of(task, "constants on the same units", [ConstantPatch.like(unit, sizes)], grid.alphas, pad_id))
    by_chance = []
    for _ in range(grid.draws):
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        drawn = rank_units(found[best.site], "random", generator=generator)
        patch = UnitPatch.of_ranking(task.model, best.site, drawn, best.k, 1.0)
        one = best_of(task, "random units", [patch], grid.alphas, pad_id)
        by_chance.append(
            float(accuracy(margins(task.model, task.splits["test"], pad_id, one.steering, [one.strength]))[0])
        )
    return chosen, by_chance


def units(
    task: Task,
    name: str,
    found: Mapping[UnitSite, Momentum],
    score: Literal["momentum", "sadi", "mean_diff"],
    grid: Grid,
    pad_id: int,
) -> Chosen:
    """Site, k and alpha of a method of units, chosen on validation."""
    rankings = {site: rank_units(one, score) for site, one in found.items()}
    tuned = tune(task.model, rankings, _scorer(task, pad_id), ks=grid.ks, alphas=grid.alphas)
    return Chosen(name, tuned.patch, 1.0, float(tuned.table["score"].max()), tuned.patch.k)


def best_of(task: Task, name: str, candidates: Sequence[Steering], strengths: Sequence[float], pad_id: int) -> Chosen:
    """Of several steerings and strengths the first that is best on validation."""
    scores = np.array([_scorer(task, pad_id)(one, strengths) for one in candidates])
    which, at = np.unravel_index(int(scores.argmax()), scores.shape)
    steering = candidates[int(which)]
    return Chosen(name, steering, float(strengths[int(at)]), float(scores.max()), touched(steering))


def curve(
    task: Task, site: UnitSite, found: Momentum, ks: Sequence[int], alphas: Sequence[float], pad_id: int
) -> list[tuple[int, float]]:
    """Test accuracy at each k, at the alpha that is best on validation for that k."""
    ranking = rank_units(found)
    rows = []
    for k in [*(k for k in ks if k < len(ranking)), len(ranking)]:
        patch = UnitPatch.of_ranking(task.model, site, ranking, k, 1.0)
        best = best_of(task, "", [patch], alphas, pad_id)
        test = accuracy(margins(task.model, task.splits["test"], pad_id, patch, [best.strength]))
        rows.append((k, float(test[0])))
    return rows


def touched(steering: Steering) -> int:
    """How many dimensions a steering changes."""
    if isinstance(steering, UnitPatch):
        return steering.k
    if isinstance(steering, InferenceTimeIntervention):
        return steering.k * steering.width
    return steering.shape.d_model


def sides_of(task: Task) -> tuple[list[Any], list[Any]]:
    """Token ids of both sides of the contrast, answers included where answers are compared."""
    if task.contrast is not None:
        return list(task.contrast[0]), list(task.contrast[1])
    items = task.splits["fit"]
    return [(*item.ids, item.right) for item in items], [(*item.ids, item.wrong) for item in items]


def single(task: Task, site: UnitSite, ranking: Ranking, at: int) -> UnitPatch:
    """One unit of a ranking."""
    own = Ranking(*(getattr(ranking, name).roll(-at) for name in ("layers", "units", "gains", "scores")))
    return UnitPatch.of_ranking(task.model, site, own, 1, 1.0)


def block(task: Task, site: UnitSite, found: Momentum, layer: int) -> UnitPatch:
    """All units of one layer, with the gains of their momentum."""
    beta = found.beta[layer]
    patch = UnitPatch(ModelShape.of(task.model), len(beta), site)
    patch.layers, patch.units = torch.full((len(beta),), layer), torch.arange(len(beta))
    patch.gains = beta.clone()
    return patch


def addition(task: Task, sides: tuple[list[Any], list[Any]], layer: int) -> Steering:
    """The mean difference after one layer."""
    return ActivationAddition.fit(task.model, task.tokenizer, *sides, layers=[layer])


def median_sizes(task: Task, site: UnitSite) -> Float[Tensor, "layer unit"]:
    """Median |x| of every unit at the last tokens of the prompts."""
    ids = [item.ids for item in task.splits["fit"]]
    return collect_units(task.model, task.tokenizer, ids, [site])[site].abs().median(0).values


def unit_grid(task: Task, ks: Sequence[int]) -> list[int]:
    """Those of the ks that the model has units for at each site."""
    smallest = task.model.config.num_hidden_layers * task.model.config.hidden_size
    return [k for k in ks if k <= smallest]


def _scorer(task: Task, pad_id: int) -> Callable[[Any, Sequence[float]], list[float]]:
    def score(steering: Steering, strengths: Sequence[float]) -> list[float]:
        found = margins(task.model, task.splits["validation"], pad_id, steering, strengths)
        scores: list[float] = accuracy(found).tolist()
        return scores

    return score
