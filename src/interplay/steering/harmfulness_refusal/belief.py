"""Which of two clusters a hidden state is nearer to, by cosine, layer for layer."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

__all__ = ["BeliefProbe", "belief_scores"]

Layers = Literal["all", "cv"] | Sequence[int]

SMALL_CLUSTER = 10
"""With fewer prompts than this the centroid's standard error is shown."""

_FOLDS = 5
_COINCIDENT = 1e-6


def belief_scores(
    states: Float[Tensor, "... state d_model"],
    towards: Float[Tensor, "... state d_model"],
    away: Float[Tensor, "... state d_model"],
) -> Float[Tensor, "... state"]:
    """s^l = cos(h^l, c_1^l) - cos(h^l, c_0^l) for each state l; the cosine with a zero vector is 0.

    Half precision is lifted to float32, in which squares do not overflow.
    """
    if not states.dtype.itemsize >= 4:
        states = states.float()
    states, towards, away = (_unit(vector.to(states)) for vector in (states, towards, away))
    return (states * (towards - away)).sum(-1)


def _unit(vector: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
    norm = torch.linalg.vector_norm(vector, dim=-1, keepdim=True)
    return torch.where(norm > 0, vector / norm, torch.zeros_like(vector))


class BeliefProbe(ClassifierMixin, BaseEstimator):
    """Nearest of two centroids by cosine, averaged over layers: class 1 where mean over l of s^l >= threshold.

    Parameters
    ----------
    layers
        Which states are averaged: "all", their indices (0 is the embedding), or "cv": the one whose scores on held-out
        prompts separate the classes best, in pooled standard deviations.
    threshold
        Where class 1 begins.

    Attributes
    ----------
    centroids_ : ndarray
        Means of class 0 and of class 1, [class, state, d_model]. Where they agree up to rounding, as a template's
        token does before the first block, both are the same and the score is 0.
    counts_ : ndarray
        Prompts of each class.
    layers_ : tuple of int
        The states that are averaged.
    threshold_ : float
        The threshold.
    standard_errors_ : ndarray
        Length of each centroid's standard error relative to the distance of the two, root mean square over states,
        [class].
    """

    def __init__(self, layers: Layers = "all", threshold: float = 0.0) -> None:
        self.layers = layers
        self.threshold = threshold

    def fit(self, H: Float[Tensor, "prompt state d_model"], y: Int[Tensor, " prompt"]) -> Self:
        """Take the means of both classes.

        Parameters
        ----------
        H
            Hidden states, a tensor or an array.
        y
            1 and 0.

        Warns
        -----
        UserWarning
            A class has fewer than ten prompts; the message has the standard error of its centroid.

        Raises
        ------
        ValueError
            States that are not [prompt, state, d_model] or not finite, other labels than 0 and 1, fewer than two
            prompts of a class, a state that does not exist.
        """
        states, labels = self._checked(H, y)
        if self.layers == "cv":
            self.layers_: tuple[int, ...] = (_best_state(states, labels),)
        else:
            self.layers_ = _indices(self.layers, states.shape[1])
        self._start(states)
        self._add(states, labels)
        if (self.counts_ < 2).any():
            few = int(np.argmin(self.counts_))
            raise ValueError(f"class {few} has {self.counts_[few]} prompt(s); a centroid needs two or more")
        for label in (0, 1):
            if self.counts_[label] < SMALL_CLUSTER:
                warnings.warn(
                    f"class {label} has {self.counts_[label]} prompts: the standard error of its centroid is "
                    f"{self.standard_errors_[label]:.2f} times the distance of the centroids",
                    stacklevel=2,
                )
        return self

    def partial_fit(self, H: Float[Tensor, "prompt state d_model"], y: Int[Tensor, " prompt"]) -> Self:
        """Move the means by further prompts, as if all had been there at once; one class may be missing.

        Raises
        ------
        ValueError
            As `fit`, but for few prompts; also ``layers="cv"``, which needs all prompts at once.
        """
        states, labels = self._checked(H, y)
        if not hasattr(self, "counts_"):
            if self.layers == "cv":
                raise ValueError('layers="cv" needs all prompts at once; call fit')
            self.layers_ = _indices(self.layers, states.shape[1])
            self._start(states)
        self._add(states, labels)
        return self

    def layer_scores(self, H: Float[Tensor, "prompt state d_model"]) -> NDArray[np.floating[Any]]:
        """s^l of every prompt and state, [prompt, state]."""
        check_is_fitted(self)
        if not (self.counts_ > 0).all():
            raise ValueError(f"class {int(np.argmin(self.counts_))} has no prompt yet")
        away, towards = torch.from_numpy(self.centroids_)
        return belief_scores(self._states(H), towards, away).numpy()

    def decision_function(self, H: Float[Tensor, "prompt state d_model"]) -> NDArray[np.floating[Any]]:
        """Belief: the mean of s^l over `layers_`, [prompt]."""
        mean: NDArray[np.floating[Any]] = self.layer_scores(H)[:, list(self.layers_)].mean(1)
        return mean

    def predict(self, H: Float[Tensor, "prompt state d_model"]) -> NDArray[np.int64]:
        """1 where the belief reaches the threshold, [prompt]."""
        return (self.decision_function(H) >= self.threshold_).astype(np.int64)

    def left_out_scores(
        self, H: Float[Tensor, "prompt state d_model"], y: Int[Tensor, " prompt"]
    ) -> NDArray[np.floating[Any]]:
        """Belief of prompts that were fitted on, each with the centroid of its class as it is without it, [prompt]."""
        states, labels = self._checked(H, y)
        check_is_fitted(self)
        centroids, counts = torch.from_numpy(self.centroids_).to(states), torch.from_numpy(self.counts_)
        if int(counts[labels.long()].min()) < 2:
            raise ValueError("a class has one prompt only; nothing is left of its centroid without it")
        n = counts[labels.long()].to(states)[:, None, None]
        without = (n * centroids[labels.long()] - states) / (n - 1)
        member = labels.bool()[:, None, None]
        scores = belief_scores(
            states, torch.where(member, without, centroids[1]), torch.where(member, centroids[0], without)
        )
        scores[:, self._coincident] = 0.0
        return scores[:, list(self.layers_)].mean(1).numpy()

    def _start(self, states: Tensor) -> None:
        self.classes_ = np.array([0, 1])
        self.threshold_ = float(self.threshold)
        self.counts_ = np.zeros(2, dtype=np.int64)
        self._means = torch.zeros(2, *states.shape[1:], dtype=states.dtype)
        self._squares = torch.zeros_like(self._means)

    def _add(self, states: Tensor, labels: Tensor) -> None:
        """Update counts, means and sums of squared deviations."""
        if states.shape[1:] != self._means.shape[1:]:
            raise ValueError(f"H has states {list(states.shape[1:])}, those before had {list(self._means.shape[1:])}")
        for label in (0, 1):
            new = states[labels == label]
            if not len(new):
                continue
            before, total = int(self.counts_[label]), int(self.counts_[label]) + len(new)
            mean = new.mean(0)
            shift = mean - self._means[label]
            self._squares[label] += ((new - mean) ** 2).sum(0) + shift**2 * before * len(new) / total
            self._means[label] += shift * len(new) / total
            self.counts_[label] = total
        apart = torch.linalg.vector_norm(self._means[1] - self._means[0], dim=-1)
        size = torch.linalg.vector_norm(self._means, dim=-1).amax(0)
        self._coincident = apart <= _COINCIDENT * size
        both = torch.where(self._coincident[:, None], self._means[:1].expand_as(self._means), self._means)
        self.centroids_ = both.numpy()
        n = torch.from_numpy(self.counts_).to(states)[:, None]
        errors = (self._squares.sum(-1) / (n * (n - 1)).clamp(min=1)).sqrt()
        relative = torch.where(self._coincident, torch.zeros_like(errors), errors / apart)
        self.standard_errors_ = (relative**2).mean(-1).sqrt().numpy()

    def _states(self, H: Any) -> Tensor:
        states = torch.as_tensor(H).detach().cpu()
        if states.ndim != 3 or not states.is_floating_point():
            raise ValueError(
                f"H must be floating states [prompt, state, d_model], got {list(states.shape)} of {states.dtype}"
            )
        if not bool(states.isfinite().all()):
            raise ValueError(f"H is not finite for prompt {int((~states.flatten(1).isfinite().all(1)).nonzero()[0])}")
        return states if states.dtype == torch.float64 else states.float()

    def _checked(self, H: Any, y: Any) -> tuple[Tensor, Tensor]:
        states, labels = self._states(H), torch.as_tensor(y).cpu()
        if labels.shape != states.shape[:1] or not bool(((labels == 0) | (labels == 1)).all()):
            raise ValueError(f"y must hold 0 or 1 for each of the {len(states)} prompts, got {labels.tolist()[:10]}")
        return states, labels


def _indices(layers: Any, n_states: int) -> tuple[int, ...]:
    if isinstance(layers, str):
        if layers != "all":
            raise ValueError(f'layers must be "all", "cv" or indices of states, got {layers!r}')
        return tuple(range(n_states))
    chosen = tuple(int(layer) for layer in layers)
    if not chosen or any(not 0 <= layer < n_states for layer in chosen):
        raise ValueError(f"layers must be one or more of the {n_states} states, from 0; got {list(chosen)}")
    return chosen


def _best_state(states: Tensor, labels: Tensor) -> int:
    """The state whose held-out scores are furthest apart in pooled standard deviations; the first of equals."""
    folds = min(_FOLDS, int(min((labels == 0).sum(), (labels == 1).sum())))
    if folds < 2:
        raise ValueError('layers="cv" needs two prompts of each class or more')
    scores = torch.zeros(states.shape[:2], dtype=states.dtype)
    for fitted, held_out in StratifiedKFold(folds, shuffle=True, random_state=0).split(labels, labels):
        means = [states[fitted][labels[fitted] == label].mean(0) for label in (1, 0)]
        scores[held_out] = belief_scores(states[held_out], *means)
    one, other = scores[labels == 1], scores[labels == 0]
    spread = ((one.var(0) + other.var(0)) / 2).sqrt()
    separation = (one.mean(0) - other.mean(0)) / spread.clamp(min=1e-6)
    return int(separation.argmax())
