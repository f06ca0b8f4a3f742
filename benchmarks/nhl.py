"""NHL against TENT on the same batches: time a batch, and the peak of memory that a batch allocates.

`--tent DIR` also times the authors' TENT: DIR holds `tent.py` of https://github.com/DequanWang/tent.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import itertools
import sys
from functools import partial
from pathlib import Path

import torch
from measure import HEADER, compare, peak_megabytes
from torch import Tensor, nn

from interplay.plasticity.nhl import NHL, BatchNormAdapt, Tent


class Residual(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, as in ResNet-18."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
            *(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)),
        )
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.shortcut(x)).relu()


def digits_network() -> nn.Module:
    """The network of the study."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5), nn.BatchNorm2d(16), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5), nn.BatchNorm2d(32), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 10)),
    )


def resnet18() -> nn.Module:
    """ResNet-18 with a thousand classes."""
    widths = [64, 64, 128, 256, 512]
    stages = [
        block
        for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths))
        for block in (Residual(inputs, outputs, 1 + (stage > 0)), Residual(outputs, outputs, 1))
    ]
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def official(directory: Path, network: nn.Module) -> nn.Module:
    """The authors' TENT around a copy of the network."""
    sys.path.insert(0, str(directory))
    tent = importlib.import_module("tent")
    model = tent.configure_model(copy.deepcopy(network))
    parameters, _ = tent.collect_params(model)
    return tent.Tent(model, torch.optim.Adam(parameters, lr=1e-3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tent", type=Path, help="folder with the authors' tent.py")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    works = {
        "100 digits of 28 x 28, study's network": (digits_network(), torch.rand(100, 1, 28, 28)),
        "8 images of 112 x 112, ResNet-18": (resnet18(), torch.rand(8, 3, 112, 112)),
    }
    timed, memory = [HEADER], ["| work | alternative | peak MB a batch |", "| --- | --- | --- |"]
    for work, (network, images) in works.items():
        network = network.to(memory_format=torch.channels_last)
        peers = {"Tent": Tent(network, predict="before"), "BatchNormAdapt": BatchNormAdapt(network)}
        if arguments.tent:
            peers["official TENT"] = official(arguments.tent, network)
        ours = {f"NHL, predict={when!r}": NHL(network, predict=when) for when in ("before", "after")}
        for name, adapter in ours.items():
            alternatives = {key: partial(a, images) for key, a in {name: adapter, **peers}.items()}
            timed += compare(work, alternatives, repeats=arguments.repeats, warm_up=3).rows()
        for name, adapter in {**ours, **peers}.items():
            memory.append(f"| {work} | {name} | {peak_megabytes(partial(adapter, images)):.1f} |")
        activation = network[0](images)
        memory.append(f"| {work} | (one first-layer activation) | {activation.numel() * 4 / 2**20:.1f} |")
    print("\n".join([*timed, "", *memory]))


if __name__ == "__main__":
    main()
