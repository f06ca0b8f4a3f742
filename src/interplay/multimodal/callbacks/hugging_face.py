"""A `TrainerCallback` for any method of multimodal training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from interplay.multimodal.training import HeldOut, TrainingMethod

__all__ = ["HuggingFaceCallback"]


class HuggingFaceCallback(TrainerCallback):
    """Let Hugging Face's Trainer drive a method, which is the Trainer's model::

        method = AGM(net, ["pixel_values", "input_ids"], call=lambda net, inputs: net(**inputs).logits)
        Trainer(method, arguments, train_dataset=data, callbacks=[HuggingFaceCallback(method)]).train()

    Samples are dictionaries of inputs by name and `labels`. The Trainer clips gradients before it hands them over.
    Diagnostics join the Trainer's log and what later callbacks see of it. Checkpoints hold the method's state.

    Parameters
    ----------
    method
        The Trainer's model.
    validation
        Called with the method at the end of each epoch, for methods that steer by held-out data:
        `lambda method: held_out(method, batches)`.

    Raises
    ------
    TypeError
        `method` is no `TrainingMethod`.
    ValueError
        The Trainer would remove the inputs, whose names it cannot know: set `remove_unused_columns=False`.
    """

    def __init__(
        self,
        method: TrainingMethod,
        validation: Callable[[TrainingMethod], Mapping[str, HeldOut]] | None = None,
    ) -> None:
        if not isinstance(method, TrainingMethod):
            raise TypeError(f"method must be a TrainingMethod, got {type(method).__name__}")
        self.method = method
        self.validation = validation

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.remove_unused_columns:
            raise ValueError(
                "the Trainer would remove the inputs of the modalities; give TrainingArguments "
                "remove_unused_columns=False"
            )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # A run that is resumed within an epoch begins at a fraction of it.
        self.method.start_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.method.adjust_gradients()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.method.end_epoch(None if self.validation is None else self.validation(self.method))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs is None or "loss" not in logs:  # a log of evaluation, or the summary at the end
            return
        measured = self.method.diagnostics()
        logs.update(measured)
        state.log_history[-1].update(measured)
