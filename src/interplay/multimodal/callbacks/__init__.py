"""Drive any `TrainingMethod` from the training loops of others: Hugging Face's Trainer and Lightning.

Both callbacks tell the method when epochs begin and end, let it change gradients before the optimiser's step, and log
its diagnostics. Each needs its library, which is imported when its class is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interplay.multimodal.callbacks.hugging_face import HuggingFaceCallback
    from interplay.multimodal.callbacks.lightning import LightningCallback

__all__ = ["HuggingFaceCallback", "LightningCallback"]

_HOME = {"HuggingFaceCallback": ("hugging_face", "transformers", "llm"), "LightningCallback": ("lightning",) * 3}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, library, extra = _HOME[name]
    try:
        return getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != library:
            raise
        raise ImportError(f"{name} needs {library}: pip install 'interplay[{extra}]'") from error
