"""A scikit-learn classifier of tables that learns by counter-current learning."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from interplay.plasticity.counter_current.network import CounterCurrentNet
from interplay.plasticity.counter_current.training import CounterCurrentTrainer

__all__ = ["CounterCurrentClassifier"]

ACTIVATIONS = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


class CounterCurrentClassifier(ClassifierMixin, BaseEstimator):
    """Multi-layer perceptron trained by counter-current learning. Features are standardised inside.

    Parameters
    ----------
    hidden : sequence of int, default=(128, 128)
        Widths of the hidden levels.
    activation : {"elu", "relu", "tanh", "gelu"}, default="elu"
        Activation of the hidden levels, in both networks.
    learning_rate : float, default=1.0
        Step size of both networks.
    clip : float or None, default=1.0
        Largest gradient norm of each network.
    batch_size : int, default=64
        Samples a step.
    epochs : int, default=40
        Passes over the samples.
    random_state : int, RandomState instance or None, default=None
        Draws the weights and the order of the samples.

    Attributes
    ----------
    net_ : CounterCurrentNet
        The trained networks, on standardised features.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    n_features_in_ : int
        Number of features.
    loss_curve_ : list of float
        Mean total loss of each epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True)
    >>> classifier = CounterCurrentClassifier((32,), random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.95
    True
    >>> classifier.generate(classifier.classes_).shape
    (3, 13)
    """

    def __init__(
        self,
        hidden: Sequence[int] = (128, 128),
        *,
        activation: str = "elu",
        learning_rate: float = 1.0,
        clip: float | None = 1.0,
        batch_size: int = 64,
        epochs: int = 40,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.learning_rate = learning_rate
        self.clip = clip
        self.batch_size = batch_size
        self.epochs = epochs
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Train the two networks from scratch.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,)
            Labels of at least two classes.

        Returns
        -------
        self
        """
        self._check_settings()
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes, got one class: {self.classes_[0]!r}")
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        deviation = X.std(axis=0, dtype=np.float64)
        self.scale_ = np.where(deviation > 0, deviation, 1.0)

        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net_ = CounterCurrentNet.from_sequential(self._forward_network(X.shape[1]))
        trainer = CounterCurrentTrainer(self.net_, self.learning_rate, clip=self.clip)
        order = torch.Generator().manual_seed(seed)
        inputs, targets = self._standardised(X), torch.from_numpy(labels.astype(np.int64))
        self.loss_curve_: list[float] = []
        for _ in range(self.epochs):
            batches = torch.randperm(len(inputs), generator=order).split(self.batch_size)
            total = sum(len(batch) * trainer.step(inputs[batch], targets[batch]).total for batch in batches)
            self.loss_curve_.append(float(total) / len(inputs))
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class, of shape (n_samples, n_classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with torch.no_grad():
            return self.net_(self._standardised(X)).double().softmax(1).numpy()

    def predict(self, X: ArrayLike) -> NDArray:
        """The most probable label of each sample."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def generate(self, labels: ArrayLike) -> NDArray[np.float64]:
        """What the feedback network takes for typical of each label, in the features' own units.

        Parameters
        ----------
        labels : array-like of shape (n_labels,)
            Some of `classes_`.

        Returns
        -------
        ndarray of shape (n_labels, n_features)
        """
        check_is_fitted(self)
        labels = np.atleast_1d(np.asarray(labels))
        if unknown := np.setdiff1d(labels, self.classes_).tolist():
            raise ValueError(f"labels must be among {self.classes_.tolist()}, got {unknown[0]!r}")
        rows = torch.eye(len(self.classes_))[np.searchsorted(self.classes_, labels)]
        return self.net_.generate(rows).double().numpy() * self.scale_ + self.mean_

    def _standardised(self, X: NDArray) -> torch.Tensor:
        return torch.from_numpy(((X - self.mean_) / self.scale_).astype(np.float32))

    def _forward_network(self, features: int) -> nn.Sequential:
        widths = [features, *self.hidden]
        layers = [
            module
            for inputs, outputs in itertools.pairwise(widths)
            for module in (nn.Linear(inputs, outputs, bias=False), ACTIVATIONS[self.activation]())
        ]
        return nn.Sequential(*layers, nn.Linear(widths[-1], len(self.classes_), bias=False))

    def _check_settings(self) -> None:
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if not all(isinstance(width, (int, np.integer)) and width >= 1 for width in self.hidden):
            raise ValueError(f"hidden must be widths of at least 1, got {self.hidden!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {self.activation!r}")
