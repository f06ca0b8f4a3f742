"""The experiments of the study: AV-mini from two starts, the task of known information, the price of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, nan
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from interplay.assets.audio_visual import PairedSamples
from interplay.evidence import Measurement
from interplay.multimodal.agm import AGM
from interplay.multimodal.fusion import FusionNet
from interplay.multimodal.mcr import (
    MCR,
    ConditionalBottleneck,
    error_routing,
    influence_report,
    latent_permutations,
)
from interplay.multimodal.mmpareto import MMPareto
from interplay.multimodal.modulation import OGMGE
from interplay.multimodal.training import JointTraining, TrainingMethod
from interplay.multimodal.unimodal import FrozenEncoders, MultiLossTraining, UnimodalEnsemble, load_encoders
from interplay.primitives.conflict import jensen_shannon_divergence
from interplay.primitives.randomness import generator_of, initialised_from
from interplay.studies.audio_visual import (
    CLASSES,
    FEATURES,
    Optimisation,
    accuracy,
    draw_audio_visual,
    fusion_net,
    train,
)
from interplay.studies.mcr.synthetic import UniqueAndShared, perceptron_pair

WEIGHTS, ORDER, PAIRS, NEW_HEAD, NEW_ORDER, BOTTLENECK, REPORT, SYNTHETIC = range(1, 9)  # streams of a seed
SCRATCH, TRAINED = "from scratch", "from trained encoders"
REPORTED = 2  # permutations of all samples behind a reported influence
TRIED = {"MCR, weight 1": 1.0, "MCR, weight 0.1": 0.1}  # of these, "MCR" is the one that does best on held-out samples
FOLLOWED = ("joint", "multi-loss", *TRIED, "MCR, reference regime")  # conditions whose influences are kept over time
Maker = Callable[[FusionNet], TrainingMethod]


class Sizes(NamedTuple):
    """Samples of AV-mini, and the noise on its images."""

    train: int
    validation: int
    test: int
    noise: float


class Methods:
    """What is trained, by condition; each call makes it anew, with the same stream of pairs.

    Parameters
    ----------
    seed
        Of the trial.
    permutations
        Of every MCR.
    """

    def __init__(self, seed: int, permutations: int) -> None:
        self.seed, self.permutations = seed, permutations

    def regularised(self, weight: float = 1.0, k: float = -1.0, **options: object) -> Maker:
        """MCR; greedy players and weight 1 where nothing else is said."""
        stream = generator_of(self.seed, PAIRS)
        shared = {"permutations": self.permutations, "generator": stream}
        return lambda net: MCR(net, influence_weight=weight, k=k, **shared, **options)

    def common(self) -> dict[str, Maker]:
        """Methods for both starts."""
        return {
            "joint": JointTraining,
            "multi-loss": MultiLossTraining,
            "MMPareto": MMPareto,
            "OGM-GE": lambda net: OGMGE(net, generator=generator_of(self.seed, PAIRS)),
            "AGM": lambda net: AGM(net, alpha=1.5),
            **{name: self.regularised(weight) for name, weight in TRIED.items()},
            "MCR, reference regime": self.regularised(regime="reference"),
        }

    def strategies(self) -> dict[str, Maker]:
        """The other two games at both weights; the greedy ones are among `common`."""
        return {
            f"MCR, {name}{suffix}": self.regularised(weight, k)
            for name, k in (("independent", 0.0), ("collaborative", 1.0))
            for weight, suffix in ((1.0, ""), (0.1, ", weight 0.1"))
        }

    def of_trained_encoders(self) -> dict[str, Maker]:
        """Baselines and further terms that start from trained encoders."""
        return {
            "frozen encoders": FrozenEncoders,
            "MCR, contrastive": self.regularised(contrastive_weight=0.3),
            "MCR, weight 0.1, contrastive": self.regularised(0.1, contrastive_weight=0.3),
            "MCR, bottleneck 0.1": self._with_bottleneck(0.1),
            "MCR, bottleneck 1": self._with_bottleneck(1.0),
        }

    def _with_bottleneck(self, weight: float) -> Maker:
        with initialised_from(generator_of(self.seed, BOTTLENECK)):
            module = ConditionalBottleneck(CLASSES, [FEATURES, FEATURES])
        return self.regularised(bottleneck=module, bottleneck_weight=weight)


def audio_visual(
    seed: int, sizes: Sizes, alone: Optimisation, tuning: Optimisation, permutations: int
) -> Iterator[Measurement]:
    """AV-mini: unimodal training first, then every method from the encoders that it gave and from scratch."""
    data = draw_audio_visual(seed, *sizes)
    ensemble = UnimodalEnsemble(_late_fusion(seed, WEIGHTS), largest_norm=alone.clip)
    train(ensemble, data.train, replace(alone, clip=inf), generator_of(seed, ORDER))
    with torch.no_grad():
        unimodal = ensemble.net.unimodal_logits(ensemble.net.encode(data.test.inputs))
        yield Measurement("ensemble", "accuracy", accuracy(ensemble.logits(data.test.inputs), data.test.labels))
    for name, logits in unimodal.items():
        yield Measurement(f"{name} alone", "accuracy", accuracy(logits, data.test.labels))
    right = {name: logits.argmax(1) for name, logits in unimodal.items()}

    made = Methods(seed, permutations)
    starts: list[tuple[str, dict[str, Maker], Optimisation]] = [
        (SCRATCH, made.common() | made.strategies(), alone),
        (TRAINED, made.common() | made.of_trained_encoders(), tuning),
    ]
    for start, conditions, optimisation in starts:
        weaker = ""
        tried: dict[str, list[Measurement]] = {}
        held_out: dict[str, float] = {}
        for name, maker in conditions.items():
            if start == SCRATCH:
                net, order = _late_fusion(seed, WEIGHTS), ORDER
            else:
                net, order = load_encoders(_late_fusion(seed, NEW_HEAD), ensemble.net), NEW_ORDER
            condition = f"{name} {start}"
            history = trained(maker(net), data.train, optimisation, generator_of(seed, order), seed, name in FOLLOWED)
            weaker = weaker or min(history[-1], key=history[-1].__getitem__)
            rows = list(described(condition, net, history, weaker, optimisation.epochs, data.test, right, seed))
            yield from rows
            if name in TRIED:
                with torch.no_grad():
                    held_out[name] = accuracy(net(data.validation.inputs), data.validation.labels)
                tried[name] = rows
        chosen = max(held_out, key=held_out.__getitem__)
        yield Measurement(f"MCR {start}", "chosen weight", TRIED[chosen])
        yield from (row._replace(condition=f"MCR {start}") for row in tried[chosen])


def described(
    condition: str,
    net: FusionNet,
    history: Sequence[Mapping[str, float]],
    weaker: str,
    epochs: int,
    test: PairedSamples,
    right: Mapping[str, Tensor],
    seed: int,
) -> Iterator[Measurement]:
    """What a trained net is like: influences on training samples, accuracy, and where it is right."""
    for back, influence in enumerate(reversed(history)):
        for modality, value in influence.items():
            yield Measurement(condition, "influence / nats", value, step=epochs - back, item=modality)
    yield Measurement(condition, "influence of the weaker modality / nats", history[-1][weaker])
    for modality, value in influences(net, test, seed).items():
        yield Measurement(condition, "influence on test samples / nats", value, item=modality)
    with torch.no_grad():
        logits = net(test.inputs)
    yield Measurement(condition, "accuracy", accuracy(logits, test.labels))
    yield from routing(condition, right, logits.argmax(1), test.labels)


def trained(
    method: TrainingMethod,
    samples: PairedSamples,
    optimisation: Optimisation,
    generator: torch.Generator,
    seed: int,
    followed: bool,
) -> list[dict[str, float]]:
    """Train, and return the influences on training samples after every epoch, or after the last one only."""
    history: list[dict[str, float]] = []

    def report(epoch: int) -> None:
        if followed or epoch == optimisation.epochs:
            history.append(influences(method.net, samples, seed))
        method.end_epoch()

    train(method, samples, optimisation, generator, each_epoch=report)
    return history


def influences(net: FusionNet, samples: PairedSamples, seed: int) -> dict[str, float]:
    """Influence of each modality on the predictions of samples, over the same pairs at every call."""
    report = influence_report(
        net, [(samples.inputs, samples.labels)], permutations=REPORTED, generator=generator_of(seed, REPORT)
    )
    return report["influence"].to_dict()


def routing(condition: str, right: Mapping[str, Tensor], joined: Tensor, labels: Tensor) -> Iterator[Measurement]:
    """Accuracy where both unimodal models are right, where exactly one is, and where none is."""
    table = error_routing(right, joined, labels)
    groups = {"both": [" + ".join(right)], "one": list(right), "none": ["none"]}
    for name, rows in groups.items():
        chosen = table.loc[rows]
        number = int(chosen["samples"].sum())
        value = float((chosen["accuracy"].fillna(0) * chosen["samples"]).sum()) / number if number else nan
        yield Measurement(condition, f"accuracy where {name} of the unimodal models right", value)


def synthetic(
    seed: int,
    unique: Sequence[float],
    other: float,
    sizes: tuple[int, int],
    optimisation: Optimisation,
    permutations: int,
    draws: int,
) -> Iterator[Measurement]:
    """The task of known information: accuracy by how much the first modality alone tells, from scratch."""
    for draw in range(draws):
        for cell, probability in enumerate(unique):
            streams = [generator_of(seed, SYNTHETIC, draw, cell, purpose) for purpose in range(4)]
            task = UniqueAndShared.draw((probability, other), streams[0])
            learned, _ = task.sample(sizes[0], streams[1])
            tested, hidden = task.sample(sizes[1], streams[2])
            scores = {"ideal observer": accuracy(task.ideal(hidden), tested.labels)}
            made = Methods(seed, permutations)
            makers: dict[str, Maker] = {
                "joint": JointTraining,
                "multi-loss": MultiLossTraining,
                "ensemble": lambda net: UnimodalEnsemble(net, largest_norm=optimisation.clip),
                "MCR": made.regularised(),
            }
            for name, maker in makers.items():
                method = maker(perceptron_pair(streams[3]))
                budget = replace(optimisation, clip=inf) if name == "ensemble" else optimisation
                train(method, learned, budget, generator_of(seed, SYNTHETIC, draw, cell, len(streams)))
                with torch.no_grad():
                    scores[name] = accuracy(method.logits(tested.inputs), tested.labels)
            for name, score in scores.items():
                yield Measurement(name, "accuracy on the synthetic task", score, x=probability, item=f"draw {draw}")


def operations(seed: int, samples: int, permutations: int) -> Iterator[Measurement]:
    """Multiplications and additions in products of matrices and convolutions, of one step forward and backward."""
    generator = generator_of(seed, PAIRS)
    labels = torch.arange(samples) % CLASSES
    inputs = {
        "audio": torch.randn(samples, 1, 40, generator=generator),
        "visual": torch.randn(samples, 1, 28, 28, generator=generator),
    }
    net = _late_fusion(seed, WEIGHTS)
    steps: dict[str, Callable[[], Tensor]] = {
        "multi-loss": lambda: MultiLossTraining(net).loss(inputs, labels),
        "MCR": lambda: Methods(seed, permutations).regularised()(net).loss(inputs, labels),
        "MCR on permuted inputs": lambda: loss_of_permuted_inputs(net, inputs, labels, permutations, generator),
    }
    for name, loss in steps.items():
        with FlopCounterMode(display=False) as counter:
            loss().backward()
        yield Measurement(name, "operations of a step", float(counter.get_total_flops()))


def loss_of_permuted_inputs(
    net: FusionNet, inputs: Mapping[str, Tensor], labels: Tensor, permutations: int, generator: torch.Generator
) -> Tensor:
    """What MCR with a linear head costs where inputs are permuted: encoders run for every pair."""
    multi_loss = MultiLossTraining(net).loss(inputs, labels)
    rows, sources = latent_permutations(len(labels), permutations, labels, "rsl", generator=generator)
    parts = net.head.parts(list(net.encode(inputs).values()))
    swapped = net.head.parts(list(net.encode({name: values[sources] for name, values in inputs.items()}).values()))
    logits = torch.stack(parts).sum(0)
    influence = [
        jensen_shannon_divergence(logits[rows], (logits - own)[rows] + other).mean()
        for own, other in zip(parts, swapped, strict=True)
    ]
    return multi_loss - torch.stack(influence).sum()


def _late_fusion(seed: int, stream: int) -> FusionNet:
    return fusion_net("late", generator_of(seed, stream), unimodal_heads=True)
