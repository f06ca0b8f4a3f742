"""The interface of every method of multimodal training, and the plainest of them.

A method wraps a user's own model and goes into a plain loop,

    for inputs, target in loader:
        optimizer.zero_grad()
        method.loss(inputs, target).backward()
        method.adjust_gradients()
        optimizer.step()
    method.end_epoch(validation)

and is itself a module whose forward pass returns the loss, so that it trains under other loops too (`callbacks`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["HeldOut", "JointTraining", "TrainingMethod"]

Criterion = Callable[[Tensor, Tensor], Tensor]
"""From logits (sample, class) and targets to the mean loss of the batch."""


class HeldOut(NamedTuple):
    """What one modality alone achieves on held-out data."""

    accuracy: float
    loss: float


class TrainingMethod(nn.Module):
    """One way of training a multimodal model. Subclasses say what the loss is and what else happens.

    Parameters
    ----------
    net
        The model that is trained: any module. The method holds it as `net`; its own state, where it has one, lies in
        buffers, so that a `state_dict` of the method resumes the training.
    modalities
        The names of the inputs, two or more. None: those of `net`, which must then have an attribute `modalities`.
    call
        How the model is called: `call(net, inputs)` gives logits. None: `net(inputs)`. A Hugging Face model takes
        `lambda net, inputs: net(**inputs).logits`.
    criterion
        The loss of logits and targets, averaged over the batch.

    Raises
    ------
    ValueError
        Fewer than two modalities, or none named and a model that names none.
    """

    accepts_loss_kwargs = False
    """Tells Hugging Face's Trainer that the loss is a mean over the batch."""

    def __init__(
        self,
        net: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        call: Callable[[nn.Module, Mapping[str, Tensor]], Tensor] | None = None,
        criterion: Criterion = nn.functional.cross_entropy,
    ) -> None:
        super().__init__()
        if modalities is None:
            if not hasattr(net, "modalities"):
                raise ValueError(f"{type(net).__name__} has no attribute modalities: name them in `modalities`")
            modalities = net.modalities
        if len(set(modalities)) < 2 or len(set(modalities)) != len(modalities):
            raise ValueError(f"modalities must be two or more different names, got {list(modalities)}")
        self.net = net
        self.modalities = tuple(modalities)
        self.criterion = criterion
        self._call = call

    def logits(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "sample class"]:
        """What the model predicts, by the one way in which the method calls it."""
        return self.net(inputs) if self._call is None else self._call(self.net, inputs)

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        """The loss to go backward from, for one batch."""
        raise NotImplementedError

    def adjust_gradients(self) -> None:
        """What the method changes in `Parameter.grad`, after `backward` and before the optimiser's step."""

    def start_epoch(self, epoch: int) -> None:
        """Say that epoch `epoch` (from 0) begins, to methods that are active in some epochs only."""

    def end_epoch(self, validation: Mapping[str, HeldOut] | None = None) -> None:
        """Say that an epoch has ended, and what each modality achieves by then, to methods that steer by it."""

    def diagnostics(self) -> dict[str, float]:
        """Numbers worth logging from the last batch, by name."""
        return {}

    def forward(
        self,
        inputs: Mapping[str, Tensor] | None = None,
        labels: Tensor | None = None,
        **named: Tensor,
    ) -> dict[str, Tensor]:
        """Loss (where labels are given and gradients are on) and logits, as Hugging Face's Trainer wants them.

        Inputs come as one mapping or by keyword.
        """
        inputs = named if inputs is None else inputs
        if labels is None:
            return {"logits": self.logits(inputs)}
        if torch.is_grad_enabled() and self.training:
            return {"loss": self.loss(inputs, labels)}
        logits = self.logits(inputs)
        return {"loss": self.criterion(logits, labels), "logits": logits}


class JointTraining(TrainingMethod):
    """The loss of the joined prediction and nothing else: the baseline of every other method."""

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        return self.criterion(self.logits(inputs), target)
