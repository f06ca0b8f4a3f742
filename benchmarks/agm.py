"""A step of adaptive gradient modulation against a joint step, separate passes, and the official code.

`--official DIR` also times the authors' code: DIR is a checkout of https://github.com/lihong2303/AGM_ICCV2023.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import HEADER, compare
from torch import Tensor, nn

from interplay.multimodal.agm import AGM
from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.training import JointTraining, TrainingMethod
from interplay.studies.audio_visual import audio_visual_encoders

BATCH, STEPS = 64, 40


def small_net() -> FusionNet:
    """The study's late-fusion network."""
    return FusionNet(audio_visual_encoders(), LinearFusion([64, 64], 10))


def wide_net() -> FusionNet:
    """Perceptrons of 1,024 units, so that matrix products and not calls decide."""
    encoders = {
        name: nn.Sequential(nn.Flatten(), nn.Linear(width, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU())
        for name, width in (("audio", 40), ("visual", 784))
    }
    return FusionNet(encoders, ConcatenationFusion(nn.Sequential(nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 10))))


def batch() -> tuple[dict[str, Tensor], Tensor]:
    inputs = {"audio": torch.randn(BATCH, 1, 40), "visual": torch.randn(BATCH, 1, 28, 28)}
    return inputs, torch.randint(10, (BATCH,))


def steps(method: TrainingMethod) -> Callable[[], None]:
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
    inputs, labels = batch()

    def run() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            method.loss(inputs, labels).backward()
            method.adjust_gradients()
            optimizer.step()

    return run


class Padded(nn.Module):
    """A `FusionNet` behind the interface of the official networks."""

    def __init__(self, net: FusionNet) -> None:
        super().__init__()
        self.net = net
        self.mode = "classify"
        self.head = types.SimpleNamespace(fc=net.head.readout if isinstance(net.head, LinearFusion) else None)

    def forward(self, audio: Tensor, visual: Tensor, pad_audio: bool = False, pad_visual: bool = False) -> Any:
        inputs = {
            "audio": torch.zeros_like(audio) if pad_audio else audio,
            "visual": torch.zeros_like(visual) if pad_visual else visual,
        }
        logits = self.net(inputs)
        return (logits, logits) if self.mode == "feature" else logits


class Quiet:
    """Stands for the logger, the writer and the schedule of the official loop."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: None


def official_steps(directory: Path, net: FusionNet) -> Callable[[], object]:
    """The authors' own training function on their own wrapper, around our network."""
    sys.path.insert(0, str(directory))
    for name in ("tasks.AVMNIST_task", "torch.utils.tensorboard"):
        absent = types.ModuleType(name)
        absent.AVMNIST_Task = absent.SummaryWriter = object  # type: ignore[attr-defined]
        sys.modules.setdefault(name, absent)
    from model.AVMNIST_net import GradMod
    from run.AVMNIST_main import train

    wrapper = GradMod(types.SimpleNamespace(mode="train", fusion_type="none"))
    wrapper.net = Padded(net)
    optimizer = torch.optim.SGD(wrapper.parameters(), lr=0.01, momentum=0.9)
    settings = types.SimpleNamespace(
        modality="Multimodal",
        methods="AGM",
        fusion_type="early_fusion",
        alpha=1.0,
        modulation_starts=0,
        modulation_ends=100,
        use_mgpu=False,
        EPOCHS=1,
        learning_rate=0.01,
    )
    inputs, labels = batch()
    loader = [(inputs["audio"], inputs["visual"], labels)] * STEPS
    quiet = Quiet()
    return lambda: train(wrapper, loader, optimizer, quiet, 1, settings, "cpu", quiet, quiet, 0.0, 0.0, 1.0, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("AGM_OFFICIAL")
    parser.add_argument(
        "--official", type=Path, default=default and Path(default), help="the authors' repository; AGM_OFFICIAL"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [HEADER]
    for name, make in (("study's network", small_net), ("perceptrons of 1,024 units", wide_net)):
        alternatives: dict[str, Callable[[], object]] = {
            "AGM, one pass of three times the batch": steps(AGM(make())),
            "joint training": steps(JointTraining(make())),
            "AGM, three passes": steps(AGM(make(), batched=False)),
        }
        if arguments.official is not None and make is small_net:
            alternatives["official loop, three passes"] = official_steps(arguments.official, make())
        rows += compare(f"{STEPS} steps on {BATCH} samples, {name}", alternatives, repeats=7).rows()
    if arguments.official is None:
        rows += ["", "The official code was not there: pass --official DIR or set AGM_OFFICIAL."]
    print("\n".join(rows))


if __name__ == "__main__":
    main()
