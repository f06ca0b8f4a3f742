"""The monitor inside Hugging Face's `Trainer` and Lightning's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from interplay.dynamics.opposing_signals.monitor import OpposingSignalsMonitor
from interplay.dynamics.opposing_signals.probe import Loss
from interplay.dynamics.opposing_signals.report import Diagnosis

__all__ = ["hugging_face_callback", "lightning_callback"]


def hugging_face_callback(loss: Loss, data: Any, **options: Any) -> Any:
    """A `transformers.TrainerCallback` that watches a probe set after every optimiser step.

    Parameters
    ----------
    loss
        (logits, labels) in, a loss for each sample out: `sequence_loss` for causal language models,
        `CrossEntropyLoss(reduction="none")` for classifiers.
    data
        Batches as the model takes them, mappings with "labels", without shuffling.
    **options
        Of `OpposingSignalsMonitor`; `step_size` is read from the trainer's optimiser where that is plain SGD.

    Returns
    -------
    TrainerCallback
        With the monitor under `.monitor` once training has begun, and its `.report()`.

    Raises
    ------
    ImportError
        transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError as error:
        raise ImportError("this callback needs transformers: pip install 'interplay[llm]'") from error

    class OpposingSignalsCallback(_Watch, TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            self.begin(model, kwargs.get("optimizer"))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.observe(state.global_step)

    return OpposingSignalsCallback(loss, data, options)


def lightning_callback(loss: Loss, data: Any, **options: Any) -> Any:
    """A Lightning `Callback` that watches a probe set after every optimiser step.

    Parameters
    ----------
    loss, data, **options
        As of `OpposingSignalsMonitor`; the model is the LightningModule, called on the inputs.

    Raises
    ------
    ImportError
        lightning is not installed.
    """
    try:
        from lightning.pytorch import Callback
    except ImportError as error:
        raise ImportError("this callback needs lightning: pip install 'interplay[lightning]'") from error

    class OpposingSignalsCallback(_Watch, Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.begin(pl_module, trainer.optimizers[0] if trainer.optimizers else None)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            self.observe(trainer.global_step)

    return OpposingSignalsCallback(loss, data, options)


class _Watch:
    """What the two callbacks share: a monitor that is made when the model is known."""

    def __init__(self, loss: Loss, data: Any, options: dict[str, Any]) -> None:
        super().__init__()
        self._loss, self._data, self._options = loss, data, options
        self._last_step = 0
        self.monitor: OpposingSignalsMonitor | None = None

    def begin(self, model: nn.Module, optimizer: Any) -> None:
        options = {"step_size": _step_size(optimizer), **self._options}
        self.monitor = OpposingSignalsMonitor(model, self._loss, self._data, **options)
        self.monitor.observe(0)

    def observe(self, step: int) -> None:
        # Between two optimiser steps, when gradients accumulate, nothing changes.
        if self.monitor is not None and step > self._last_step:
            self.monitor.observe(step)
            self._last_step = step

    def report(self, top: float = 0.02, **options: Any) -> Diagnosis:
        """The diagnosis; see `OpposingSignalsMonitor.report`."""
        if self.monitor is None:
            raise ValueError("training has not begun; report() tells of a run")
        return self.monitor.report(top, **options)


def _step_size(optimizer: Any) -> float | None:
    """The learning rate for the edge 2 / lr, momentum included, where gradient descent has such an edge."""
    optimizer = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(optimizer, Optimizer) or type(optimizer) is not torch.optim.SGD:
        return None
    group = optimizer.param_groups[0]
    if group["nesterov"] or group["dampening"] or not group["lr"]:
        return None
    return float(group["lr"]) / (1 + float(group["momentum"]))
