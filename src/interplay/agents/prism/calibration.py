"""Temperature scaling of the two probabilities on held-out events, each with a temperature of its own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from interplay.agents.prism.validation import (
    Flags,
    Probabilities,
    as_labels,
    as_numpy,
    as_probabilities,
    check_same_shape,
)

__all__ = ["PairCalibrator", "TemperatureScaler"]

PROBE = 1e-4
EXTREME = 36.0  # logit of the largest number below 1


class TemperatureScaler(BaseEstimator):
    """Temperature scaling of one probability: p' = sigmoid(logit(p) / T) with the T > 0 of least log loss.

    The fit is scikit-learn's own (`CalibratedClassifierCV(method="temperature")` on a frozen classifier).

    Attributes
    ----------
    temperature_
        T, above 1 for probabilities that were too confident.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = rng.random(20_000)
    >>> y = rng.random(20_000) < p
    >>> inflated = expit(2 * logit(p))
    >>> float(TemperatureScaler().fit(inflated, y).temperature_.round(1))
    2.0
    """

    temperature_: np.float64

    def fit(self, p: Probabilities, y: Flags) -> TemperatureScaler:
        """Fit T on events that neither trained the model nor will test it.

        Parameters
        ----------
        p, y
            (events,) probabilities of the model and labels 0 or 1.

        Raises
        ------
        ValueError
            Labels of one class, for which no finite T is best; probabilities or labels that are none; shapes.

        Warns
        -----
        ConvergenceWarning
            Where the best T is 0 or infinite: probabilities that separate the labels, or say nothing about them.
        """
        p, y = as_numpy(as_probabilities("p", p)), as_numpy(as_labels("y", y))
        check_same_shape(p=p, y=y)
        if p.ndim != 1 or len(p) == 0:
            raise ValueError(f"p must have shape (events,) with one event or more; got {p.shape}")
        if y.all() or not y.any():
            raise ValueError(
                f"y holds label {int(y[0])} alone ({len(y)} events): the temperature is undefined, since the log loss "
                "falls for ever as T goes to 0 or infinity; calibrate on events of both labels"
            )
        # One "fold" of all events: a frozen classifier has nothing to be fitted on the others.
        everything = np.arange(len(y))
        fitted = CalibratedClassifierCV(
            FrozenEstimator(_GivenProbabilities()),
            method="temperature",
            cv=[(everything, everything)],
            ensemble=False,
        ).fit(p[:, None].astype(np.float64), y.astype(int))
        # Read off at a logit so small that no 1/T within scikit-learn's reach, exp(-10) to exp(10), saturates.
        inverse = logit(fitted.predict_proba([[expit(PROBE)]])[0, 1]) / PROBE
        towards_label = np.where(y, 1, -1) * (p - 0.5)
        if (towards_label >= 0).all():
            _warn("0", "the probabilities separate the labels", 1 / inverse)
        elif (np.where(y, 1, -1) * np.clip(logit(p), -EXTREME, EXTREME)).sum() <= 0:
            _warn("infinite", "the probabilities say nothing about the labels, or the opposite", 1 / inverse)
        self.temperature_ = np.float64(1 / inverse)
        return self

    def transform(self, p: Probabilities) -> Probabilities:
        """Calibrated probabilities: array in, array out; tensor in, tensor out, with gradients. 0 and 1 stay."""
        check_is_fitted(self)
        p = as_probabilities("p", p)
        temperature = float(self.temperature_)
        if isinstance(p, Tensor):
            return torch.sigmoid(torch.logit(p) / temperature)
        return expit(logit(p) / p.dtype.type(temperature))


class PairCalibrator(BaseEstimator):
    """A temperature for p_need and another for p_acc.

    Attributes
    ----------
    need_, acceptance_
        The two fitted `TemperatureScaler`s.
    """

    need_: TemperatureScaler
    acceptance_: TemperatureScaler

    def fit(
        self, p_need: Probabilities, p_acc: Probabilities, y_need: Flags, y_accept: Any, spoke: Flags | None = None
    ) -> PairCalibrator:
        """Fit both temperatures on held-out events.

        Parameters
        ----------
        p_need, p_acc, y_need
            (events,) probabilities of the model, and whether help was needed.
        y_accept
            (events,) whether the offer was accepted.
        spoke
            (events,) whether an offer was made. Acceptance is seen on these events only; what `y_accept` holds on the
            others, NaN included, is not read. All events, if left out.

        Raises
        ------
        ValueError
            As for `TemperatureScaler.fit`.
        """
        p_acc, y_accept = as_numpy(p_acc), as_numpy(y_accept)
        if spoke is not None:
            spoke = as_numpy(as_labels("spoke", spoke))
            check_same_shape(p_acc=p_acc, y_accept=y_accept, spoke=spoke)
            p_acc, y_accept = p_acc[spoke], y_accept[spoke]
        self.need_ = TemperatureScaler().fit(p_need, y_need)
        self.acceptance_ = TemperatureScaler().fit(p_acc, y_accept)
        return self

    def transform(self, p_need: Probabilities, p_acc: Probabilities) -> tuple[Probabilities, Probabilities]:
        """Both probabilities calibrated."""
        check_is_fitted(self)
        return self.need_.transform(p_need), self.acceptance_.transform(p_acc)


def _warn(best: str, reason: str, temperature: float) -> None:
    message = f"the best temperature is {best}, since {reason}; {temperature:.3g} is where the search ended"
    warnings.warn(message, ConvergenceWarning, stacklevel=3)


class _GivenProbabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The classifier whose only feature is its answer."""

    def __init__(self) -> None:
        self.classes_ = np.array([0, 1])

    def fit(self, X: Float[np.ndarray, "events 1"], y: Flags) -> _GivenProbabilities:
        return self

    def predict_proba(self, X: Float[np.ndarray, "events 1"]) -> Float[np.ndarray, "events 2"]:
        p = np.asarray(X)[:, 0]
        return np.stack([1 - p, p], axis=1)

    def predict(self, X: Float[np.ndarray, "events 1"]) -> Flags:
        return np.asarray(X)[:, 0] >= 0.5
