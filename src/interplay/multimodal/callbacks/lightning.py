"""A Lightning `Callback` for any method of multimodal training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from interplay.multimodal.training import HeldOut, TrainingMethod

__all__ = ["LightningCallback"]


class LightningCallback(Callback):
    """Let Lightning drive a method that is a part of the user's module, which returns `method.loss` as its loss::

        class Model(LightningModule):
            def __init__(self, net):
                super().__init__()
                self.method = AGM(net)

            def training_step(self, batch, index):
                inputs, labels = batch
                return self.method.loss(inputs, labels)

        model = Model(net)
        Trainer(callbacks=[LightningCallback(model.method)]).fit(model, loader)

    Optimisation is the automatic one; gradients are clipped after the method has changed them. As a part of the
    module, the method has its state in the module's checkpoints.

    Parameters
    ----------
    method
        A part of the `LightningModule` that is fitted.
    validation
        Called with the method at the end of each epoch, for methods that steer by held-out data:
        `lambda method: held_out(method, batches)`.

    Raises
    ------
    TypeError
        `method` is no `TrainingMethod`.
    ValueError
        At the start of a fit: the method is no part of the module, so that no checkpoint would hold its state.
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

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not any(module is self.method for module in pl_module.modules()):
            raise ValueError(
                f"the method is no part of {type(pl_module).__name__}: assign it to an attribute, self.method = method"
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.method.start_epoch(trainer.current_epoch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.method.adjust_gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Only where a logger would write: reading diagnostics waits for the device.
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            pl_module.log_dict(self.method.diagnostics(), on_step=True, on_epoch=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.method.end_epoch(None if self.validation is None else self.validation(self.method))
