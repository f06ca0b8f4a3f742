"""What is trained and measured on one seed of AV-mini."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.assets.audio_visual import AudioVisual, PairedSamples
from interplay.evidence import Measurement
from interplay.multimodal.agm import AGM, ShapleyShares, mono_modal_concepts
from interplay.multimodal.fusion import FusionNet
from interplay.multimodal.modulation import MSES, MSLR, held_out
from interplay.multimodal.training import TrainingMethod
from interplay.primitives.conflict import competition_strength
from interplay.primitives.randomness import generator_of
from interplay.studies.audio_visual import Optimisation, accuracy, draw_audio_visual, fusion_net, train, unimodal_net

MODALITIES = ("audio", "visual")
WEIGHTS, ORDER, NOISE, GAUSSIAN = 1, 2, 3, 4  # streams of a seed; 0 is the data's


class OneModality(TrainingMethod):
    """Train a network of one modality on paired samples."""

    def __init__(self, net: nn.Module, modality: str) -> None:
        super().__init__(net, MODALITIES, call=lambda net, inputs: net(inputs[modality]))

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        return self.criterion(self.logits(inputs), target)


class RecordedAGM(AGM):
    """AGM that adds up its coefficients."""

    def __init__(self, net: nn.Module, **options: object) -> None:
        super().__init__(net, **options)
        self.summed = torch.zeros(len(self.modalities))

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        loss = super().loss(inputs, target)
        self.summed += self.coefficients
        return loss

    @property
    def mean_coefficients(self) -> Float[Tensor, " modality"]:
        """The mean of each coefficient over all batches so far."""
        return self.summed / self.iterations


class ConstantAGM(AGM):
    """The same backward scaling with coefficients that never change."""

    def __init__(self, net: nn.Module, constant: Float[Tensor, " modality"]) -> None:
        super().__init__(net)
        self.constant = constant

    def coefficients_of(self, scores: Float[Tensor, " modality"]) -> Float[Tensor, " modality"]:
        return self.constant.to(scores)


@dataclass
class Trained:
    """A method after training, with its accuracy on the two sets that were held out."""

    method: TrainingMethod
    validation: float
    test: float


@dataclass
class World:
    """The data of a seed at one level of noise, and what is needed to train on it."""

    seed: int
    data: AudioVisual
    optimisation: Optimisation
    ridge: float

    @classmethod
    def draw(
        cls, seed: int, sizes: tuple[int, int, int], noise: float, optimisation: Optimisation, ridge: float
    ) -> World:
        return cls(seed, draw_audio_visual(seed, *sizes, noise), optimisation, ridge)

    def fusion(self, kind: str) -> FusionNet:
        return fusion_net(kind, generator_of(self.seed, WEIGHTS))

    def run(
        self,
        method: TrainingMethod,
        *,
        epochs_factor: int = 1,
        lr: float | None = None,
        each_epoch: Callable[[int], None] | None = None,
    ) -> Trained:
        """Train with the optimiser that all methods share, on batches in the order that all methods share."""
        settings = replace(self.optimisation, epochs=self.optimisation.epochs * epochs_factor)
        settings = settings if lr is None else replace(settings, lr=lr)
        validation = [(self.data.validation.inputs, self.data.validation.labels)]

        def end_of_epoch(done: int) -> None:
            method.end_epoch(held_out(method, validation) if isinstance(method, MSLR | MSES) else None)
            if each_epoch is not None:
                each_epoch(done)

        train(method, self.data.train, settings, generator_of(self.seed, ORDER), each_epoch=end_of_epoch)
        with torch.no_grad():
            scores = [
                accuracy(method.logits(samples.inputs), samples.labels)
                for samples in (self.data.validation, self.data.test)
            ]
        return Trained(method, *scores)

    def alone(self, modality: str) -> Trained:
        """A network of one modality."""
        return self.run(OneModality(unimodal_net(modality, generator_of(self.seed, WEIGHTS)), modality))

    def halves(self) -> tuple[PairedSamples, PairedSamples]:
        """The test set's halves: one to fit the regression from features to concepts, one to judge it on."""
        middle = len(self.data.test.labels) // 2
        return self.data.test.take(slice(0, middle)), self.data.test.take(slice(middle, None))

    def strengths(self, net: FusionNet, alone: Mapping[str, nn.Module]) -> dict[str, float]:
        """Competition strength of each modality in the fused features of `net`."""
        fit, test = self.halves()
        return {
            name: self.strength(fused_features(net, fit), fused_features(net, test), name, alone[name])
            for name in MODALITIES
        }

    def strength(self, features_fit: Tensor, features_test: Tensor, modality: str, alone: nn.Module) -> float:
        """Competition strength of a modality in any features of the two halves of the test set."""
        concepts = [mono_modal_concepts({modality: alone}, part.inputs)[modality] for part in self.halves()]
        ridge = self.ridge * len(features_fit)
        return competition_strength(
            features_fit, concepts[0], features_test, concepts[1], ridge=ridge, resamples=0
        ).strength


@torch.no_grad()
def fused_features(net: FusionNet, samples: PairedSamples) -> Float[Tensor, "sample feature"]:
    """What enters the last linear layer: the joined latents in late fusion, the hidden layer in early fusion."""
    joined = torch.cat(list(net.encode(samples.inputs).values()), dim=1)
    network = getattr(net.head, "network", None)
    return joined if network is None else network[:-1](joined)


@torch.no_grad()
def share_accuracies(net: FusionNet, samples: PairedSamples) -> dict[str, float]:
    """How often the largest logit of each modality's Shapley share is that of the label."""
    shares = ShapleyShares(net)(samples.inputs).by_modality
    return {name: accuracy(share, samples.labels) for name, share in shares.items()}


def best(candidates: Mapping[object, Trained]) -> tuple[object, Trained]:
    """The candidate that is best on the validation set, the first of equals."""
    return max(candidates.items(), key=lambda item: item[1].validation)


def inside(condition: str, world: World, trained: Trained, alone: Mapping[str, nn.Module]) -> Iterator[Measurement]:
    """What each modality has in a network: the accuracy of its share, and how much of its concept is missing."""
    net = trained.method.net
    for name, value in share_accuracies(net, world.data.test).items():
        yield Measurement(condition, "final share accuracy", value, item=name)
    for name, value in world.strengths(net, alone).items():
        yield Measurement(condition, "competition strength", value, item=name)


def following(condition: str, world: World, method: TrainingMethod, rows: list[Measurement]) -> Callable[[int], None]:
    """Note after each epoch what the shares achieve, and the mean coefficient of the epoch where there is one."""
    summed = torch.zeros(len(MODALITIES))

    def note(done: int) -> None:
        for name, value in share_accuracies(method.net, world.data.test).items():
            rows.append(Measurement(condition, "share accuracy", value, step=done, item=name))
        if isinstance(method, RecordedAGM):
            batches = int(method.iterations) // done
            means = (method.summed - summed) / batches
            summed.copy_(method.summed)
            for name, value in zip(MODALITIES, means.tolist(), strict=True):
                rows.append(Measurement(condition, "coefficient", value, step=done, item=name))

    return note


def calibration(world: World, alone: Mapping[str, nn.Module]) -> Iterator[Measurement]:
    """The two ends of competition strength: a network's own features, and features that know nothing."""
    fit, test = world.halves()
    generator = generator_of(world.seed, GAUSSIAN)
    width = 2 * alone[MODALITIES[0]][-1].in_features
    noise = [torch.randn(len(part.labels), width, generator=generator) for part in (fit, test)]
    for name, net in alone.items():
        with torch.no_grad():
            own = [net[:-1](part.inputs[name]) for part in (fit, test)]
        yield Measurement("own feature", "competition strength", world.strength(*own, name, net), item=name)
        yield Measurement("Gaussian feature", "competition strength", world.strength(*noise, name, net), item=name)


def preference(world: World, noise: float, joint: Trained, alone: Mapping[str, Trained]) -> Iterator[Measurement]:
    """The gap between the two strengths of competition, and whether the lesser one is of the more accurate modality."""
    strengths = world.strengths(joint.method.net, {name: trained.method.net for name, trained in alone.items()})
    gap = abs(strengths["audio"] - strengths["visual"])
    preferred, accurate = min(strengths, key=strengths.__getitem__), max(alone, key=lambda name: alone[name].test)
    for name, value in strengths.items():
        yield Measurement("joint", "competition strength by noise", value, x=noise, item=name)
    yield Measurement("joint", "gap between competition strengths", gap, x=noise)
    yield Measurement("joint", "preferred modality is the more accurate one", float(preferred == accurate), x=noise)
