"""What MCR costs: a step against other methods and other ways to perturb, the game and the contrastive term alone.

The official code is a training framework around one model class and is not run here; its order of work is, as a plain
loop: latents are computed a second time, and the head is called for every modality, player and permutation.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable

import torch
from measure import HEADER, compare
from torch import Tensor, nn

from interplay.multimodal.agm import AGM
from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.mcr import MCR, influence_game, latent_permutations, supervised_contrastive
from interplay.multimodal.mmpareto import MMPareto
from interplay.multimodal.modulation import OGMGE
from interplay.multimodal.training import JointTraining, TrainingMethod
from interplay.multimodal.unimodal import MultiLossTraining
from interplay.primitives.conflict import jensen_shannon_divergence

CLASSES, WIDTH, BATCH, PERMUTATIONS = 10, 256, 64, 8
LABELS = torch.arange(BATCH) % CLASSES


def network() -> FusionNet:
    """Encoders of three layers that dominate the cost, as in practice."""
    torch.manual_seed(0)
    encoders = {
        name: nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, WIDTH))
        for name in ("sound", "image")
    }
    heads = {name: nn.Linear(WIDTH, CLASSES) for name in encoders}
    return FusionNet(encoders, LinearFusion([WIDTH, WIDTH], CLASSES), heads)


def perturbed_loss(net: FusionNet, inputs: dict[str, Tensor], how: str) -> Tensor:
    """Multi-loss training plus the collaborative game, with one modality at a time perturbed in some way."""
    rows, sources = latent_permutations(BATCH, PERMUTATIONS, LABELS, "rsl")
    latents = net.encode(inputs)
    clean = net.fuse(latents)[rows]
    total = MultiLossTraining(net).loss(inputs, LABELS)
    for name, latent in latents.items():
        if how == "inputs permuted":
            other = net.encoders[name](inputs[name][sources])
        elif how == "latents replaced by noise":
            other = latent.mean(0) + latent.std(0) * torch.randn(len(rows), latent.shape[1])
        else:
            other = torch.zeros(len(rows), latent.shape[1])
        changed = {each: values[rows] for each, values in latents.items()} | {name: other}
        total = total - jensen_shannon_divergence(clean, net.fuse(changed)).mean()
    return total


def steps() -> list[str]:
    """One step forward and backward of every method on the same network and batch."""
    net = network()
    inputs = {name: torch.randn(BATCH, 1024) for name in net.modalities}

    def step(method: TrainingMethod) -> Callable[[], None]:
        def run() -> None:
            net.zero_grad()
            method.loss(inputs, LABELS).backward()
            method.adjust_gradients()

        return run

    def perturbed(how: str) -> Callable[[], None]:
        def run() -> None:
            net.zero_grad()
            perturbed_loss(net, inputs, how).backward()

        return run

    alternatives = {
        "MCR, latents permuted": step(MCR(net)),
        "joint": step(JointTraining(net)),
        "multi-loss": step(MultiLossTraining(net)),
        "OGM-GE": step(OGMGE(net)),
        "AGM": step(AGM(net)),
        "MMPareto": step(MMPareto(net)),
    } | {how: perturbed(how) for how in ("inputs permuted", "latents replaced by noise", "latents replaced by zeros")}
    return compare(f"a step, encoders 1024-1024-1024-{WIDTH}, batch {BATCH}", alternatives, repeats=9).rows()


def game_by_a_loop(fusion: nn.Module, encoders: nn.ModuleList, inputs: list[Tensor], k: float) -> Tensor:
    """The game as it is defined: all but one player detached, and a call of the head for every permutation."""
    latents = [encoder(values) for encoder, values in zip(encoders, inputs, strict=True)]
    total = torch.zeros(())
    for _ in range(PERMUTATIONS):
        rows, sources = latent_permutations(BATCH, 1, LABELS, "rsl")
        for player in range(len(latents)):
            held = [latent if own == player else latent.detach() for own, latent in enumerate(latents)]
            clean = fusion(held)[rows]
            for modality in range(len(latents)):
                taken = [latent[sources if own == modality else rows] for own, latent in enumerate(held)]
                weight = 1.0 if modality == player else k
                total = total - weight * jensen_shannon_divergence(clean, fusion(taken)).mean() / PERMUTATIONS
    return total


def games() -> list[str]:
    """The game alone, forward and backward, for two and three modalities and both kinds of head."""
    rows = []
    for modalities in (2, 3):
        torch.manual_seed(0)
        encoders = nn.ModuleList([nn.Linear(64, 64) for _ in range(modalities)])
        inputs = [torch.randn(BATCH, 64) for _ in range(modalities)]
        linear = LinearFusion([64] * modalities, CLASSES)
        mixing = ConcatenationFusion(nn.Sequential(nn.Linear(64 * modalities, 128), nn.ReLU(), nn.Linear(128, CLASSES)))
        for kind, fusion in (("linear", linear), ("hidden layer", mixing)):

            def ours(fusion: nn.Module = fusion, encoders: nn.ModuleList = encoders, inputs: list = inputs) -> None:
                pairs = latent_permutations(BATCH, PERMUTATIONS, LABELS, "rsl")
                latents = [encoder(values) for encoder, values in zip(encoders, inputs, strict=True)]
                influence_game(fusion, latents, pairs, k=-1.0).loss.backward()

            def loop(fusion: nn.Module = fusion, encoders: nn.ModuleList = encoders, inputs: list = inputs) -> None:
                game_by_a_loop(fusion, encoders, inputs, -1.0).backward()

            title = f"the game, {modalities} modalities, {PERMUTATIONS} permutations, {kind} head"
            rows += compare(title, {"influence_game": ours, "loop over definition": loop}, repeats=15).rows()
    return rows


def contrastive() -> list[str]:
    """The contrastive term against pytorch-metric-learning, forward and backward."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        return ["", "pytorch-metric-learning was not there: pip install --no-deps pytorch-metric-learning."]
    from pytorch_metric_learning.losses import NTXentLoss

    latents = [torch.randn(BATCH, WIDTH, requires_grad=True) for _ in range(2)]
    peer = NTXentLoss(temperature=0.5)

    def theirs() -> Tensor:
        return peer(torch.cat(latents), LABELS.repeat(2))

    assert math.isclose(theirs().item(), supervised_contrastive(latents, LABELS).item(), rel_tol=1e-5)
    alternatives = {
        "supervised_contrastive": lambda: supervised_contrastive(latents, LABELS).backward(),
        "pytorch-metric-learning NTXentLoss": lambda: theirs().backward(),
    }
    return compare(f"contrastive term, 2 x {BATCH} latents of {WIDTH}", alternatives, repeats=21).rows()


def main() -> None:
    torch.set_num_threads(1)
    print("\n".join([HEADER, *steps(), *games(), *contrastive()]))


if __name__ == "__main__":
    main()
