"""Other ways to hold a faster modality back: the baselines of adaptive gradient modulation, with its interface.

OGM-GE (Peng et al. 2022) shrinks the gradients of the encoder that is ahead and adds noise; MSLR (Yao and Mihalcea
2022) gives each modality a learning rate that follows its validation accuracy; MSES (Fujimori et al. 2019) stops each
modality by itself. All three train on the joint loss and then change gradients, so that their steps cost what a plain
step costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.multimodal.agm.shapley import ShapleyShares
from interplay.multimodal.fusion import LinearFusion
from interplay.multimodal.training import HeldOut, JointTraining, TrainingMethod
from interplay.primitives.modes import evaluating

__all__ = ["MSES", "MSLR", "OGMGE", "held_out", "unimodal_predictions"]


class OGMGE(TrainingMethod):
    """On-the-fly gradient modulation with generalisation enhancement, for two modalities and late fusion.

    With S_m the sum over the batch of the probability that modality m's part of the logits gives to the label, the
    modality with the larger S is ahead by q = S_m / S_other > 1. The gradients of its encoder's weights are multiplied
    by 1 - tanh(alpha q); those of both encoders get Gaussian noise of their own standard deviation.

    Parameters
    ----------
    net
        A network with `encoders` by modality and a `head` that gives its `parts`, as `FusionNet` with `LinearFusion`.
    alpha
        Strength of the modulation, above 0.
    noise
        Whether gradients get noise; False is OGM alone.
    generator
        Source of the noise; None takes PyTorch's. Its state is part of the `state_dict`.
    start, end
        First and last epoch with modulation, from 0; None for no end.
    criterion
        As in `TrainingMethod`.

    Raises
    ------
    ValueError
        Other than two modalities, a head without parts (AGM takes any fusion), or an alpha that is not above 0.

    Notes
    -----
    As published, weights are modulated and biases are not; published code knows convolutions only, this takes every
    parameter of two or more dimensions.
    """

    factors: Tensor
    epoch: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        alpha: float = 0.5,
        noise: bool = True,
        generator: torch.Generator | None = None,
        start: int = 0,
        end: int | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    ) -> None:
        super().__init__(net, criterion=criterion)
        if len(self.modalities) != 2:
            raise ValueError(f"OGM-GE compares two modalities, got {list(self.modalities)}; AGM takes more")
        if not hasattr(getattr(net, "head", None), "parts") or not hasattr(net, "encode"):
            raise ValueError(
                "OGM-GE needs a FusionNet whose head gives the part of each modality (LinearFusion): it cannot tell "
                "the modalities apart after they have mixed; AGM takes any fusion"
            )
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        self.alpha, self.noise, self.generator, self.start, self.end = alpha, noise, generator, start, end
        self.register_buffer("factors", torch.ones(2))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        latents = self.net.encode(inputs)
        with torch.no_grad():
            parts = torch.stack(self.net.head.parts([latents[name] for name in self.modalities]))
            sure = parts.softmax(-1).gather(-1, target.expand(2, -1)[..., None]).sum((1, 2))
            ahead_by = sure / sure.flip(0)
            factors = torch.where(ahead_by > 1, 1 - torch.tanh(self.alpha * ahead_by), torch.ones_like(ahead_by))
            self.factors = factors.to(self.factors)
        return self.criterion(self.net.fuse(latents), target)

    @torch.no_grad()
    def adjust_gradients(self) -> None:
        if self.epoch < self.start or (self.end is not None and self.epoch > self.end):
            return
        for name, factor in zip(self.modalities, self.factors, strict=True):
            for parameter in self.net.encoders[name].parameters():
                gradient = parameter.grad
                if gradient is None or gradient.ndim < 2:
                    continue
                spread = gradient.std() + 1e-8
                gradient.mul_(factor)
                if self.noise:
                    draw = torch.randn(gradient.shape, generator=self.generator, dtype=gradient.dtype)
                    gradient.add_(draw.to(gradient.device) * spread)

    def start_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def diagnostics(self) -> dict[str, float]:
        """The factor on each encoder's gradients in the last batch."""
        return dict(zip((f"factor_{name}" for name in self.modalities), self.factors.tolist(), strict=True))

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        if self.generator is not None and len(state):
            self.generator.set_state(state.cpu())


class _OwnRates(JointTraining):
    """Joint training in which the gradients of each modality's own parameters are multiplied by a rate of its own.

    Its own are those of its encoder and, where the head is `LinearFusion`, its columns of the read-out.
    """

    rates: Tensor

    def __init__(
        self,
        net: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        encoders: Mapping[str, nn.Module] | None = None,
        call: Callable[[nn.Module, Mapping[str, Tensor]], Tensor] | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
    ) -> None:
        super().__init__(net, modalities, call=call, criterion=criterion)
        encoders = getattr(net, "encoders", {}) if encoders is None else encoders
        if missing := [name for name in self.modalities if name not in encoders]:
            raise ValueError(f"which parameters belong to {missing}? Name the modules in `encoders`")
        self._encoders = {name: encoders[name] for name in self.modalities}
        self.register_buffer("rates", torch.ones(len(self.modalities)))

    @torch.no_grad()
    def adjust_gradients(self) -> None:
        for name, rate in zip(self.modalities, self.rates, strict=True):
            for parameter in self._encoders[name].parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(rate)
            for columns in self._columns(name, of_gradient=True):
                columns.mul_(rate)

    def diagnostics(self) -> dict[str, float]:
        """The rate of each modality."""
        return dict(zip((f"rate_{name}" for name in self.modalities), self.rates.tolist(), strict=True))

    def _columns(self, name: str, *, of_gradient: bool = False) -> list[Tensor]:
        head = getattr(self.net, "head", None)
        if not isinstance(head, LinearFusion):
            return []
        weight = head.readout.weight
        matrix = weight.grad if of_gradient else weight.data
        return [] if matrix is None else [matrix.split(head.features, dim=1)[self.modalities.index(name)]]

    def _own(self, name: str) -> Iterator[Tensor]:
        yield from (parameter.data for parameter in self._encoders[name].parameters())
        yield from self._columns(name)

    def _checked(self, validation: Mapping[str, HeldOut] | None) -> list[HeldOut]:
        if validation is None or set(validation) != set(self.modalities):
            given = None if validation is None else list(validation)
            raise ValueError(
                f"{type(self).__name__} steers by held-out data: end_epoch needs a HeldOut of each of the modalities "
                f"{list(self.modalities)}, got {given}; `held_out` measures them"
            )
        return [validation[name] for name in self.modalities]


class MSLR(_OwnRates):
    """Modality-specific learning rates that follow validation accuracy.

    From the sixth epoch on, a modality's rate is its initial factor times its validation accuracy over the mean of the
    five before: what still improves learns faster, what got worse more slowly.

    Parameters
    ----------
    net, modalities, call, criterion
        As in `TrainingMethod`.
    factors
        Initial factor on the learning rate by modality. None: 1 for each.
    encoders
        The modules whose parameters are a modality's own. None: `net.encoders`.
    window
        Epochs over which accuracy is averaged.

    Raises
    ------
    ValueError
        A modality without a factor or encoder, a factor that is not above 0; `end_epoch` without held-out measurements.
    """

    memory: Tensor
    remembered: Tensor

    def __init__(
        self,
        net: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        factors: Mapping[str, float] | None = None,
        window: int = 5,
        **options: Any,
    ) -> None:
        super().__init__(net, modalities, **options)
        factors = dict.fromkeys(self.modalities, 1.0) if factors is None else factors
        if set(factors) != set(self.modalities) or not all(value > 0 for value in factors.values()):
            raise ValueError(f"factors must be a number above 0 for each of {list(self.modalities)}, got {factors}")
        if window < 1:
            raise ValueError(f"window must be 1 or more, got {window}")
        self.factors = [factors[name] for name in self.modalities]
        self.rates.copy_(torch.tensor(self.factors))
        self.register_buffer("memory", torch.zeros(window, len(self.modalities)))
        self.register_buffer("remembered", torch.zeros((), dtype=torch.int64))

    def end_epoch(self, validation: Mapping[str, HeldOut] | None = None) -> None:
        accuracies = self.memory.new_tensor([measured.accuracy for measured in self._checked(validation)])
        window = len(self.memory)
        if self.remembered >= window:
            usual = self.memory.mean(0)
            ratio = torch.where(usual > 0, accuracies / usual, torch.ones_like(usual))
            self.rates.copy_(ratio * self.rates.new_tensor(self.factors))
        self.memory[int(self.remembered) % window] = accuracies
        self.remembered += 1


class MSES(_OwnRates):
    """Modality-specific early stopping: each modality is frozen at its own best epoch.

    The validation loss of a modality is smoothed over two epochs, 0.6 before + 0.4 now. When it has not come below its
    smallest value for more than `patience` epochs, the modality's own parameters go back to where they were then, and
    their rate becomes 0.

    Parameters
    ----------
    net, modalities, call, criterion
        As in `TrainingMethod`.
    patience
        Epochs without improvement that are waited for.
    encoders
        The modules whose parameters are a modality's own. None: `net.encoders`.

    Raises
    ------
    ValueError
        A modality without an encoder, or a patience below 1; `end_epoch` without held-out measurements.

    Notes
    -----
    The official code of AGM restores the whole network, which undoes the other modality's later epochs too; here each
    modality is restored by itself. A rate of 0 leaves momentum and weight decay of an optimiser on: what is frozen is
    put back at the end of each epoch.
    """

    before: Tensor
    best: Tensor
    best_epoch: Tensor
    epochs: Tensor

    def __init__(
        self, net: nn.Module, modalities: Sequence[str] | None = None, *, patience: int = 10, **options: Any
    ) -> None:
        super().__init__(net, modalities, **options)
        if patience < 1:
            raise ValueError(f"patience must be 1 or more, got {patience}")
        self.patience = patience
        for name in ("before", "best"):
            self.register_buffer(name, torch.full((len(self.modalities),), math.inf))
        self.register_buffer("best_epoch", torch.zeros(len(self.modalities), dtype=torch.int64))
        self.register_buffer("epochs", torch.zeros((), dtype=torch.int64))
        for position, name in enumerate(self.modalities):
            self.register_buffer(f"kept_{position}", _flat(self._own(name)))

    def end_epoch(self, validation: Mapping[str, HeldOut] | None = None) -> None:
        for position, measured in enumerate(self._checked(validation)):
            if self.rates[position] > 0:
                self._follow(position, measured.loss)
            if self.rates[position] == 0:
                _unflatten(self.get_buffer(f"kept_{position}"), self._own(self.modalities[position]))
        self.epochs += 1

    def _follow(self, position: int, loss: float) -> None:
        before = self.before[position]
        smoothed = 0.6 * before + 0.4 * loss if before.isfinite() else before.new_tensor(loss)
        self.before[position] = loss
        if smoothed < self.best[position]:
            self.best[position] = smoothed
            self.best_epoch[position] = self.epochs
            self.get_buffer(f"kept_{position}").copy_(_flat(self._own(self.modalities[position])))
        elif self.epochs - self.best_epoch[position] > self.patience:
            self.rates[position] = 0


@torch.no_grad()
def unimodal_predictions(method: TrainingMethod, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each modality says of a batch: its part of the logits in late fusion, else its Shapley share."""
    net = method.net
    if isinstance(getattr(net, "head", None), LinearFusion):
        latents = net.encode(inputs)
        return dict(zip(net.modalities, net.head.parts([latents[name] for name in net.modalities]), strict=True))
    return ShapleyShares(net, method.modalities, call=method._call)(inputs).by_modality


@torch.no_grad()
def held_out(
    method: TrainingMethod, batches: Iterable[tuple[Mapping[str, Tensor], Int[Tensor, " sample"]]]
) -> dict[str, HeldOut]:
    """Accuracy and mean cross-entropy of what each modality says of held-out batches, in evaluation mode.

    Raises
    ------
    ValueError
        No batches.
    """
    totals: dict[str, list[float]] = {name: [0.0, 0.0] for name in method.modalities}
    samples = 0
    with evaluating(method):
        for inputs, target in batches:
            samples += len(target)
            for name, logits in unimodal_predictions(method, inputs).items():
                totals[name][0] += float((logits.argmax(-1) == target).sum())
                totals[name][1] += float(nn.functional.cross_entropy(logits, target, reduction="sum"))
    if samples == 0:
        raise ValueError("batches are empty: there is nothing to measure on")
    return {name: HeldOut(right / samples, loss / samples) for name, (right, loss) in totals.items()}


def _flat(parts: Iterable[Tensor]) -> Float[Tensor, " number"]:
    return torch.cat([part.reshape(-1) for part in parts]).clone()


def _unflatten(values: Float[Tensor, " number"], parts: Iterable[Tensor]) -> None:
    place = 0
    for part in parts:
        part.copy_(values[place : place + part.numel()].view_as(part))
        place += part.numel()
