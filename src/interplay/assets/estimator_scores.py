"""Accuracies of 26 scikit-learn classifiers on 24 benchmarks: a real table for what compares models over data sets.

Every number is the mean accuracy over three random splits, at most 600 samples to learn from and 600 to be judged by.
Classifiers keep scikit-learn's settings but for the ones that their names tell, behind a scaler that suits them. The
table is shipped with the package; `estimator_scores(recompute=True)` computes it anew, which takes some minutes.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interplay.assets.cache import cached_entry

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from torch import Tensor

__all__ = ["compute_scores", "estimator_scores"]

_TABLE = Path(__file__).with_name("estimator_scores.csv")
_SPLITS, _MOST_SAMPLES = 3, 600
_DECIMALS = 6


class Samples(NamedTuple):
    """Features and classes of one benchmark, and the largest number of samples to learn from."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    train: int = _MOST_SAMPLES


def estimator_scores(*, recompute: bool = False) -> pd.DataFrame:
    """Mean accuracies, index: classifier, columns: benchmark.

    Parameters
    ----------
    recompute
        Train all classifiers again, with the installed scikit-learn, instead of reading the shipped table. The result
        is kept in the cache.
    """
    table = _TABLE
    if recompute:
        import sklearn

        def write(folder: Path) -> None:
            compute_scores().to_csv(folder / _TABLE.name, float_format=f"%.{_DECIMALS}f")

        table = cached_entry(f"estimator-scores-sklearn-{sklearn.__version__}", write) / _TABLE.name
    return pd.read_csv(table, index_col=0)


def compute_scores(estimators: Sequence[str] | None = None, benchmarks: Sequence[str] | None = None) -> pd.DataFrame:
    """Train and judge some classifiers on some benchmarks; all by default.

    Raises
    ------
    KeyError
        A name that is not a row or column of the shipped table.
    """
    makers, loaders = _estimators(), _benchmarks()
    columns = {}
    for name in loaders if benchmarks is None else benchmarks:
        samples = loaders[name]()
        columns[name] = {
            estimator: _mean_accuracy(makers[estimator], samples)
            for estimator in (makers if estimators is None else estimators)
        }
    return pd.DataFrame(columns).rename_axis("estimator").round(_DECIMALS)


def _mean_accuracy(make: Callable[[], ClassifierMixin], samples: Samples) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split
    from threadpoolctl import threadpool_limits

    accuracies = []
    for split in range(_SPLITS):
        half = len(samples.labels) // 2
        parts = train_test_split(
            samples.features,
            samples.labels,
            train_size=min(half, samples.train),
            test_size=min(half, _MOST_SAMPLES),
            stratify=samples.labels,
            random_state=split,
        )
        x_train, x_test, y_train, y_test = parts
        # A classifier that has not converged is judged as it is: its number of steps belongs to its settings.
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", "self.within_class_std_dev_ has")  # pixels that are always white
            accuracies.append(make().fit(x_train, y_train).score(x_test, y_test))
    return float(np.mean(accuracies))


def _estimators() -> dict[str, Callable[[], ClassifierMixin]]:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import AdaBoostClassifier, ExtraTreesClassifier, RandomForestClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier as GradientBoosting
    from sklearn.linear_model import LogisticRegression, RidgeClassifier
    from sklearn.naive_bayes import BernoulliNB, GaussianNB, MultinomialNB
    from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    def standardised(kind: type, **settings: object) -> Callable[[], ClassifierMixin]:
        return lambda: make_pipeline(StandardScaler(), kind(**settings))

    def perceptron(*layers: int) -> Callable[[], ClassifierMixin]:
        return standardised(MLPClassifier, hidden_layer_sizes=layers, max_iter=60, random_state=0)

    return {
        "ridge": standardised(RidgeClassifier),
        "logistic C=0.01": standardised(LogisticRegression, C=0.01, max_iter=300),
        "logistic C=1": standardised(LogisticRegression, C=1.0, max_iter=300),
        "logistic C=100": standardised(LogisticRegression, C=100.0, max_iter=300),
        "1 neighbour": standardised(KNeighborsClassifier, n_neighbors=1),
        "5 neighbours": standardised(KNeighborsClassifier, n_neighbors=5),
        "25 neighbours": standardised(KNeighborsClassifier, n_neighbors=25),
        "linear SVM": standardised(SVC, kernel="linear"),
        "RBF SVM": standardised(SVC, kernel="rbf"),
        "tree depth 2": partial(DecisionTreeClassifier, max_depth=2, random_state=0),
        "tree depth 5": partial(DecisionTreeClassifier, max_depth=5, random_state=0),
        "tree": partial(DecisionTreeClassifier, random_state=0),
        "random forest": partial(RandomForestClassifier, random_state=0),
        "extra trees": partial(ExtraTreesClassifier, random_state=0),
        "AdaBoost": partial(AdaBoostClassifier, random_state=0),
        "gradient boosting": partial(GradientBoosting, max_iter=30, max_leaf_nodes=8, random_state=0),
        "Gaussian naive Bayes": GaussianNB,
        "Bernoulli naive Bayes": standardised(BernoulliNB),
        "multinomial naive Bayes": lambda: make_pipeline(MinMaxScaler(clip=True), MultinomialNB()),
        "linear discriminant": standardised(LinearDiscriminantAnalysis, solver="lsqr", shrinkage="auto"),
        "quadratic discriminant": standardised(QuadraticDiscriminantAnalysis, solver="eigen", shrinkage=0.1),
        "perceptron 16": perceptron(16),
        "perceptron 64": perceptron(64),
        "perceptron 64-64": perceptron(64, 64),
        "nearest centroid": standardised(NearestCentroid),
        "majority class": DummyClassifier,
    }


def _benchmarks() -> dict[str, Callable[[], Samples]]:
    return {
        "iris": partial(_bundled, "load_iris"),
        "wine": partial(_bundled, "load_wine"),
        "breast cancer": partial(_bundled, "load_breast_cancer"),
        "diabetes above median": _diabetes,
        "digits": _digits,
        "digits odd or even": lambda: _digits()._replace(labels=_digits().labels % 2),
        "digits noise": partial(_digits, "noise"),
        "digits occluded": _occluded_digits,
        "digits rotated": partial(_digits, "rotate"),
        "digits few": lambda: _digits()._replace(train=50),
        "MNIST": _mnist,
        "MNIST noise": partial(_mnist, "noise"),
        "MNIST blur": partial(_mnist, "blur"),
        "MNIST rotated": partial(_mnist, "rotate"),
        "MNIST-1D": _mnist_1d,
        **{f"moons noise {noise}": partial(_made, "make_moons", noise=noise) for noise in (0.1, 0.3, 0.6)},
        **{
            f"circles noise {noise}": partial(_made, "make_circles", noise=noise, factor=0.5)
            for noise in (0.05, 0.15, 0.3)
        },
        **{
            f"clusters apart {apart}": partial(
                _made, "make_classification", n_features=20, n_informative=6, n_classes=4, class_sep=apart
            )
            for apart in (2.0, 1.0, 0.5)
        },
    }


def _bundled(loader: str) -> Samples:
    from sklearn import datasets

    return Samples(*getattr(datasets, loader)(return_X_y=True))


def _diabetes() -> Samples:
    samples = _bundled("load_diabetes")
    return samples._replace(labels=(samples.labels > np.median(samples.labels)).astype(np.int64))


def _made(maker: str, **settings: object) -> Samples:
    from sklearn import datasets

    return Samples(*getattr(datasets, maker)(n_samples=1200, random_state=0, **settings))


def _digits(corruption: str | None = None) -> Samples:
    from interplay.assets.images import digits

    data = digits()
    return Samples(_pixels(data.images, corruption), data.labels.numpy())


def _occluded_digits() -> Samples:
    """A square of 4 x 4 pixels is hidden, at a place of its own in each image."""
    samples = _digits()
    images = samples.features.reshape(-1, 8, 8).copy()
    corners = np.random.default_rng(0).integers(0, 5, size=(len(images), 2))
    for image, (row, column) in zip(images, corners, strict=True):
        image[row : row + 4, column : column + 4] = 0.0
    return samples._replace(features=images.reshape(len(images), -1))


def _mnist(corruption: str | None = None) -> Samples:
    """Every fourth of the 5,000 digits, after the corruption averaged to 14 x 14 pixels."""
    from interplay.assets.images import mnist_5k

    data = mnist_5k()
    pixels = _pixels(data.images[::4], corruption).reshape(-1, 14, 2, 14, 2)
    return Samples(pixels.mean(axis=(2, 4)).reshape(len(pixels), -1), data.labels[::4].numpy())


def _mnist_1d() -> Samples:
    from mnist1d.data import get_dataset_args, make_dataset

    arguments = get_dataset_args()
    arguments.num_samples = 1500
    # The package seeds the global generators of Python and NumPy and draws from them; both are put back.
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        data = make_dataset(arguments)
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
    return Samples(np.asarray(data["x"], np.float64), np.asarray(data["y"], np.int64))


def _pixels(images: Tensor, corruption: str | None) -> NDArray[np.float64]:
    import torch

    from interplay.assets.corruptions import corrupt

    if corruption is not None:
        images = corrupt(images, corruption, 5, torch.Generator().manual_seed(0))
    return images.flatten(1).numpy().astype(np.float64)
