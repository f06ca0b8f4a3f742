"""What the one-head dial is compared with: a steering vector, chosen on the same conflicts with the same constraint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from interplay.circuits.factual_recall.batches import Batch
from interplay.circuits.factual_recall.dial import Target
from interplay.circuits.factual_recall.outcomes import resolve_conflict
from interplay.primitives.activations import Site, edit, record
from interplay.primitives.decoders import Decoder

STRENGTHS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


class SteeringVector(NamedTuple):
    """A vector that is added to the residual stream after one layer, at the last token of every forward pass."""

    layer: int
    vector: Float[Tensor, " d_model"]

    def apply(self, model: nn.Module) -> AbstractContextManager[Mapping[Site, int]]:
        """A context in which the model is steered."""
        return edit(model, {Site("residual", self.layer): lambda h: h + self.vector.to(h)}, positions="last")


def steering_vector(
    model: nn.Module,
    development: Batch,
    target: Target,
    *,
    strengths: Sequence[float] = STRENGTHS,
    max_other: float = 0.1,
    batch_size: int = 64,
) -> SteeringVector:
    """The mean difference of last-token residuals between both outcomes, at its best layer and strength.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode.
    development
        Conflicts on which the vector, its layer and its strength are chosen.
    target
        Whose answers to raise.
    strengths
        Multiples of the mean difference to try in each layer.
    max_other
        As for the dial: the best rate with at most that many other answers wins, else the fewest other answers.
    batch_size
        Prompts a forward pass.

    Raises
    ------
    ValueError
        The development conflicts show only one of the two outcomes, so that there is no difference.
    """
    sites = [Site("residual", layer) for layer in range(Decoder(model).n_layers)]
    with record(model, sites, positions="last") as seen:
        choice = resolve_conflict(model, development, batch_size=batch_size).choice
    wins = [choice == outcome for outcome in (0, 1)]
    if not all(bool(win.any()) for win in wins):
        raise ValueError("a steering vector needs development conflicts with in-context and with memorized outcomes")

    def candidates() -> Iterator[SteeringVector]:
        for layer, site in enumerate(sites):
            means = [seen[site][win.to(seen[site].device)].mean(0) for win in wins]
            toward = means[0] - means[1] if target == "in-context" else means[1] - means[0]
            yield from (SteeringVector(layer, strength * toward) for strength in strengths)

    best, best_score = None, (-math.inf, -math.inf)
    for candidate in candidates():
        with candidate.apply(model):
            rates = resolve_conflict(model, development, batch_size=batch_size).rates
        other = rates["other"].rate
        score = (0.0, rates[target].rate) if other <= max_other else (-other, 0.0)
        if score > best_score:
            best, best_score = candidate, score
    if best is None:
        raise ValueError("strengths must name at least one multiple of the mean difference")
    return best
