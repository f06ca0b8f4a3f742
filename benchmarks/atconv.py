"""Attentive convolution against the official code, depthwise convolution and attention, also as images grow.

`--official DIR` also times the authors' code: DIR is a checkout of https://github.com/price112/Attentive-Convolution.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import HEADER, compare, peak_megabytes
from torch import Tensor, nn
from torch.nn import functional

from interplay.vision.atconv import ATConv2d, attentive_conv2d

SHAPE = (8, 128, 28, 28)
SIDES = (16, 24, 32, 48, 64, 96)
DIM = 64


def official(directory: Path) -> Callable[..., nn.Module]:
    """The authors' layer, cut out of a file that would otherwise import timm and register models."""
    source = (directory / "models" / "AttNet.py").read_text(encoding="utf-8")
    code = source[source.index("class ATConv(") : source.index("class Block(")]
    module = types.ModuleType("official")
    module.__dict__.update({"torch": torch, "nn": nn, "F": functional, "Type": type})
    exec(compile(code, "AttNet.py", "exec"), module.__dict__)
    return module.__dict__["ATConv"]  # type: ignore[no-any-return]


class Depthwise(nn.Module):
    """A depthwise 3 x 3 convolution between the same 1 x 1 convolutions: what fixed kernels cost."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.parts = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.Conv2d(dim, dim, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)


class Attention(nn.Module):
    """Self-attention by scaled_dot_product_attention, heads 32 wide."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = dim // 32
        self.inputs = nn.Conv2d(dim, 3 * dim, 1)
        self.output = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inputs(x).flatten(2).unflatten(1, (3, self.heads, -1)).mT.unbind(1)
        mixed = functional.scaled_dot_product_attention(*parts)
        return self.output(mixed.mT.flatten(1, 2).unflatten(2, x.shape[2:]))


def unfolded(values: Tensor, kernels: Tensor) -> Tensor:
    """The same as `attentive_conv2d` from k^2 copies of the image."""
    batch, channels, height, width = values.shape
    columns = functional.unfold(values, 3, padding=1).view(batch, channels, 9, height * width)
    return (columns * kernels.flatten(2).unsqueeze(-1)).sum(2).view_as(values)


def shifted(values: Tensor, kernels: Tensor) -> Tensor:
    """The same by nine shifted multiplications."""
    height, width = values.shape[2:]
    padded = functional.pad(values, (1, 1, 1, 1))
    parts = [
        padded[:, :, i : i + height, j : j + width] * kernels[:, :, i, j, None, None]
        for i in range(3)
        for j in range(3)
    ]
    return torch.stack(parts).sum(0)


def forward(module: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return module(*inputs)

    return run


def both_ways(module: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    inputs = tuple(tensor.clone().requires_grad_() for tensor in inputs)

    def run() -> object:
        output = module(*inputs)
        output.backward(torch.ones_like(output))
        return output

    return run


def layers(directory: Path | None) -> list[str]:
    """The whole layer at one size, in both memory formats, forward and with gradients."""
    modules: dict[str, Any] = {"ATConv2d": ATConv2d(SHAPE[1])}
    if directory is not None:
        modules["official ATConv"] = official(directory)(SHAPE[1], nn.GELU)
    modules |= {"depthwise nn.Conv2d between 1 x 1": Depthwise(SHAPE[1]), "attention, SDPA": Attention(SHAPE[1])}
    rows = []
    for title, memory_format in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        x = torch.randn(SHAPE).contiguous(memory_format=memory_format)
        for what, make in (("forward", forward), ("forward and backward", both_ways)):
            alternatives = {name: make(module, x) for name, module in modules.items()}
            rows += compare(f"{what}, {SHAPE}{title}", alternatives, repeats=9).rows()
    return rows


def operator() -> list[str]:
    """The convolution alone, by other means, and the most memory that each holds in units of the input's."""
    values, kernels = torch.randn(SHAPE), torch.randn(*SHAPE[:2], 3, 3)
    functions = {"attentive_conv2d": attentive_conv2d, "unfold": unfolded, "nine shifts": shifted}
    rows = []
    for what, make in (("forward", forward), ("forward and backward", both_ways)):
        alternatives = {name: make(function, values, kernels) for name, function in functions.items()}
        rows += compare(f"operator, {what}, {SHAPE}", alternatives, repeats=9).rows()
    size = values.numel() * 4 / 2**20
    rows += ["", "| operator | peak memory / input |", "| --- | --- |"]
    for name, function in functions.items():
        rows.append(f"| {name} | {peak_megabytes(forward(function, values, kernels)) / size:.2g} |")
    return rows


def image_sizes() -> list[str]:
    """One layer of 64 channels on one image of growing side, and the log-log slope of time over the upper half."""
    modules = {
        "ATConv2d": ATConv2d(DIM),
        "depthwise nn.Conv2d between 1 x 1": Depthwise(DIM),
        "attention, SDPA": Attention(DIM),
    }
    rows: list[str] = []
    fastest: dict[str, list[float]] = {name: [] for name in modules}
    for side in SIDES:
        x = torch.randn(1, DIM, side, side)
        alternatives = {name: forward(module, x) for name, module in modules.items()}
        found = compare(f"forward, (1, {DIM}, {side}, {side})", alternatives, repeats=9)
        rows += found.rows()
        for name, seconds in found.seconds.items():
            fastest[name].append(min(seconds))
    rows += ["", f"| alternative | slope of log time in log pixels, {SIDES[len(SIDES) // 2]}² to {SIDES[-1]}² |"]
    rows.append("| --- | --- |")
    pixels = [2 * math.log(side) for side in SIDES[len(SIDES) // 2 :]]
    for name, times in fastest.items():
        line = statistics.linear_regression(pixels, [math.log(time) for time in times[len(SIDES) // 2 :]])
        rows.append(f"| {name} | {line.slope:.2f} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("ATCONV_OFFICIAL")
    parser.add_argument(
        "--official", type=Path, default=default and Path(default), help="the authors' repository; ATCONV_OFFICIAL"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [HEADER, *layers(arguments.official), *image_sizes(), "", HEADER, *operator()]
    if arguments.official is None:
        rows += ["", "The official code was not there: pass --official DIR or set ATCONV_OFFICIAL."]
    print("\n".join(rows))


if __name__ == "__main__":
    main()
