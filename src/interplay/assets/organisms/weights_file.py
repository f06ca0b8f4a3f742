"""The weights of an organism: a fresh model, float16 on the disk, float32 when loaded."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from interplay.assets.organisms.architecture import configuration
from interplay.assets.organisms.vocabulary import Vocabulary

__all__ = ["WEIGHTS", "load_weights", "new_model", "refuse_attention_weights", "save_weights"]

WEIGHTS = "model.safetensors"
_TIED = "lm_head.weight"


def new_model(size: str, vocabulary: Vocabulary, attn_implementation: str) -> PreTrainedModel:
    """A float32 model with random weights from PyTorch's global generator."""
    config = configuration(size, vocabulary)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation, dtype=torch.float32)


def save_weights(model: PreTrainedModel, path: Path) -> None:
    """Write the parameters in float16, without the output layer, which is the embedding."""
    weights = {name: tensor.half() for name, tensor in model.state_dict().items() if name != _TIED}
    save_file(weights, path, metadata={"format": "pt"})


def load_weights(model: PreTrainedModel, path: Path) -> None:
    """Put saved weights into a float32 model; RuntimeError if they do not fit."""
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    found = model.load_state_dict(weights, strict=False)
    if found.unexpected_keys or set(found.missing_keys) != {_TIED}:
        raise RuntimeError(f"{path} does not fit the architecture: {found}")


def refuse_attention_weights(model: PreTrainedModel, args: tuple, kwargs: dict) -> None:
    """Forward pre-hook for a model whose fused attention has no weights to give; Transformers would return none."""
    if kwargs.get("output_attentions"):
        raise ValueError(
            "output_attentions=True needs attn_implementation='eager'; load the organism with that (its default)"
        )
