"""Watch a network memorise and then generalise modular addition: three stages and what drives them.

A symmetric network gets (y, x) for free where (x, y) is trained on. So the test pairs fall in two: *mirrored* ones,
whose other order is in training, and *unseen* ones. Training pairs are *common* where both orders are in, else *rare*.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interplay.dynamics.modular_addition.fourier import FourierSpectrum
from interplay.dynamics.modular_addition.network import addition_table

__all__ = ["GrokkingMonitor", "Stages"]

Weights = Callable[[nn.Module], tuple[Tensor, Tensor]]


class Stages(NamedTuple):
    """Boundaries of the three stages: memorisation, generalisation by competition under decay, clean-up.

    Attributes
    ----------
    memorised, generalised
        (...): first recorded steps at which the training and the test accuracy reach 0.95; NaN if they do not.
    """

    memorised: Float[Tensor, "*run"]
    generalised: Float[Tensor, "*run"]


class GrokkingMonitor:
    """Records a training run on modular addition; call it every step with step and network.

    It suits `train(..., watch=monitor)` and any loop of your own over any module that maps pairs (pairs, 2) to logits
    (..., pairs, p).

    Parameters
    ----------
    in_train
        (..., p, p): the training pairs (x, y), of all networks or of each.
    every
        Steps between two records.
    weights
        Input weights (..., neurons, p) and output weights (..., p, neurons) of the module, for the spectra. By default
        its attributes `input_weights` and `output_weights`.

    Attributes
    ----------
    steps
        Steps recorded.
    history
        (time, ...) by name: `train loss`, `test loss`, `train accuracy`, `test accuracy`, the accuracies `common`,
        `rare`, `mirrored` and `unseen`, `IPR`, `|sin D|` (mean over neurons at their dominant frequency), and `norm`,
        of all weights. NaN for a group without pairs.
    """

    def __init__(self, in_train: Bool[Tensor, "*run p p"], *, every: int = 1, weights: Weights | None = None) -> None:
        if every < 1:
            raise ValueError(f"every must be 1 or more; got {every}")
        if in_train.dtype != torch.bool or in_train.dim() < 2 or in_train.shape[-1] != in_train.shape[-2]:
            raise ValueError(f"in_train must be boolean, (..., p, p); got {in_train.dtype} of {tuple(in_train.shape)}")
        self.every, self.weights = every, weights or _layers
        self.pairs, self.labels = addition_table(in_train.shape[-1])
        mirror = in_train.mT
        groups = {
            "train": in_train,
            "test": ~in_train,
            "common": in_train & mirror,
            "rare": in_train & ~mirror,
            "mirrored": ~in_train & mirror,
            "unseen": ~in_train & ~mirror,
        }
        self.groups = {name: group.flatten(-2) for name, group in groups.items()}
        self.steps: list[int] = []
        self._records: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def __call__(self, step: int, network: nn.Module, loss: Tensor | None = None) -> None:
        """Record, if it is time; the loss is ignored, as the monitor takes its own."""
        if step % self.every:
            return
        inputs, outputs = self.weights(network)
        device = inputs.device
        logits = network(self.pairs.to(device))
        labels = self.labels.to(device)
        log_chance = logits.log_softmax(-1)
        losses = -log_chance[..., torch.arange(len(labels), device=device), labels]
        right = (logits.argmax(-1) == labels).to(losses)
        record = {}
        for name, group in self.groups.items():
            members = group.to(losses)
            share_right = (right * members).sum(-1) / members.sum(-1)
            if name in ("train", "test"):
                record[f"{name} loss"] = (losses * members).sum(-1) / members.sum(-1)
                record[f"{name} accuracy"] = share_right
            else:
                record[name] = share_right
        spectrum = FourierSpectrum.from_weights(inputs, outputs)
        record["IPR"] = spectrum.ipr()
        record["|sin D|"] = spectrum.at(spectrum.dominant()).misalignment.sin().abs().nanmean((-2, -1))
        record["norm"] = (inputs.square().sum((-2, -1)) + outputs.square().sum((-2, -1))).sqrt()
        self.steps.append(step)
        self._records.append({name: value.double().cpu() for name, value in record.items()})

    @property
    def history(self) -> dict[str, Float[Tensor, "time ..."]]:
        if not self._records:
            return {}
        return {name: torch.stack([record[name] for record in self._records]) for name in self._records[0]}

    def first_step(self, name: str, level: float) -> Float[Tensor, "*run"]:
        """First recorded step at which a quantity of the history is at `level` or above; NaN if it never is."""
        if name not in (history := self.history):
            raise KeyError(f"{name!r} is not recorded; there are {', '.join(history) or 'no records yet'}")
        reached = history[name] >= level
        first = torch.tensor(self.steps, dtype=torch.float64)[reached.to(torch.uint8).argmax(0)]
        return torch.where(reached.any(0), first, torch.nan)

    def stages(self) -> Stages:
        """Boundaries of the three stages."""
        return Stages(self.first_step("train accuracy", 0.95), self.first_step("test accuracy", 0.95))


def _layers(network: nn.Module) -> tuple[Tensor, Tensor]:
    return network.input_weights, network.output_weights
