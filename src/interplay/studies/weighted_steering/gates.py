"""Gates that other work puts before a steering: a threshold on a cosine, the Latent Guard, a refused example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from interplay.assets.organisms.policy.lexicon import REFUSAL
from interplay.primitives.activations import Site
from interplay.steering import collect_activations
from interplay.steering.harmfulness_refusal import BeliefProbe, input_of_block

__all__ = ["CosineThreshold", "LatentGuardGate", "area_under_curve", "with_refused_example"]


class CosineThreshold:
    """Open where the state of one layer at the prompt's last token leans to the mean difference of two classes.

    Conditional activation steering in short: layer and threshold are those that part the classes best.

    Parameters
    ----------
    organism
        What is read.
    positive, negative
        Prompts of the two classes.
    """

    def __init__(self, organism: Any, positive: Sequence[Any], negative: Sequence[Any]) -> None:
        self.organism = organism
        states = [_last_states(organism, examples) for examples in (positive, negative)]
        directions = states[0].mean(0) - states[1].mean(0)
        self.directions = directions / directions.norm(dim=-1, keepdim=True)
        best = (-1.0, 0, 0.0)
        for layer in range(len(self.directions)):
            one, other = (self._cosines(part, layer) for part in states)
            for threshold in np.sort(np.concatenate([one, other])):
                parted = (np.mean(one > threshold) + np.mean(other <= threshold)) / 2
                best = max(best, (float(parted), layer, float(threshold)))
        _, self.layer, self.threshold = best

    def flags(self, examples: Sequence[Any]) -> NDArray[np.bool_]:
        """Where it is open."""
        return self._cosines(_last_states(self.organism, examples), self.layer) > self.threshold

    def _cosines(self, states: Float[Tensor, "prompt layer d_model"], layer: int) -> NDArray[np.float64]:
        cosines = torch.nn.functional.cosine_similarity(states[:, layer], self.directions[layer], dim=-1)
        return cosines.double().numpy()


class LatentGuardGate:
    """Open where the belief at the instruction's last token is that the prompt is harmful.

    Parameters
    ----------
    organism
        What is read.
    positive, negative
        Prompts of the two classes.
    """

    def __init__(self, organism: Any, positive: Sequence[Any], negative: Sequence[Any]) -> None:
        self.organism = organism
        labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
        self.probe = BeliefProbe().fit(self._states([*positive, *negative]), labels)

    def flags(self, examples: Sequence[Any]) -> NDArray[np.bool_]:
        """Where it is open."""
        found: NDArray[np.bool_] = self.probe.decision_function(self._states(examples)) >= 0
        return found

    def _states(self, examples: Sequence[Any]) -> Float[Tensor, "prompt state d_model"]:
        model = self.organism.model
        depth = model.config.num_hidden_layers
        sites = [input_of_block(block) for block in range(depth)] + [Site("residual", depth - 1)]
        ids = [example.input_ids for example in examples]
        from_end = [len(example.input_ids) - example.roles["instruction_end"] for example in examples]
        states = collect_activations(model, self.organism.tokenizer, ids, sites, from_end=from_end)
        return torch.stack(list(states.values()), 1)


def with_refused_example(organism: Any, examples: Sequence[Any], refused: Any) -> list[Any]:
    """The same prompts behind a prompt that was refused."""
    shown = (*refused.input_ids, *organism.grammar.vocabulary.encode(REFUSAL.split()))
    return [replace(example, input_ids=(*shown, *example.input_ids[1:])) for example in examples]


def area_under_curve(positive: Sequence[float], negative: Sequence[float]) -> float:
    """How often a score ranks a prompt of the one class above one of the other."""
    labels = [1] * len(positive) + [0] * len(negative)
    return float(roc_auc_score(labels, [*positive, *negative]))


def _last_states(organism: Any, examples: Sequence[Any]) -> Float[Tensor, "prompt layer d_model"]:
    sites = [Site("residual", layer) for layer in range(organism.model.config.num_hidden_layers)]
    ids = [example.input_ids for example in examples]
    return torch.stack(list(collect_activations(organism.model, organism.tokenizer, ids, sites).values()), 1)
