"""Curl descent against the official loop, its own networks one by one, and PyTorch's SGD.

`--official DIR` also times the authors' code: DIR is a checkout of https://github.com/caycogajiclab/Curl_Descent.
"""

from __future__ import annotations

import argparse
import os
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import HEADER, compare
from numpy.typing import NDArray

from interplay.dynamics.curl_descent import (
    CurlDescent,
    LearningRule,
    TwoLayerTeacherStudent,
    gaussian_inputs,
    simulate,
)

INPUTS, HIDDEN, POINTS, MINIBATCH, NETWORKS, PASSES = 110, 110, 250, 10, 40, 20
Array = NDArray[np.float64]


def official(directory: Path) -> Callable[..., object]:
    """The authors' network class, cut out of a script that would otherwise start its sweep."""
    source = (directory / "Data_generation" / "fig3a" / "phase_diag.py").read_text(encoding="utf-8")
    code = source[source.index("def log_downsample_indices") : source.index("# PREPARING THE SIMU RUN")]
    module = types.ModuleType("official")
    module.__dict__["np"] = np
    exec(compile(code, "phase_diag.py", "exec"), module.__dict__)
    return module.__dict__["TeacherStudentLearning"]  # type: ignore[no-any-return]


class PlainLoop:
    """The same training of one network as a plain numpy loop."""

    def __init__(self, weights: list[Array], teacher: list[Array], x: Array, d1: Array, d2: Array) -> None:
        self.w1, self.w2 = (weight.copy() for weight in weights)
        self.t1, self.t2 = teacher
        self.x, self.d1, self.d2 = x, d1, d2
        self.n1, self.n2 = np.linalg.norm(self.w1), np.linalg.norm(self.w2)

    def run(self, passes: int, batch: int, lr: float, random: np.random.Generator) -> None:
        for _ in range(passes):
            order = random.permutation(len(self.x))
            for start in range(0, len(order), batch):
                x = self.x[order[start : start + batch]].T
                hidden = self.w1 @ x
                error = self.w2 @ hidden - self.t2 @ (self.t1 @ x)
                step1 = (self.w2.T @ error) @ x.T * (self.d1 * lr / batch)
                self.w2 -= error @ hidden.T * (self.d2 * lr / batch)
                self.w1 -= step1
                self.w1 *= self.n1 / np.linalg.norm(self.w1)
                self.w2 *= self.n2 / np.linalg.norm(self.w2)


def against_loops(directory: Path | None) -> list[str]:
    """Forty networks of the phase diagram (flipped fractions x seeds), linear, N + M = 220."""
    generator = torch.Generator().manual_seed(0)
    network = TwoLayerTeacherStudent.draw(INPUTS, HIDDEN, batch=NETWORKS, generator=generator)
    x = gaussian_inputs(POINTS, INPUTS, generator=generator)
    gains = torch.where(torch.arange(INPUTS) < torch.arange(NETWORKS)[:, None], -1.0, 1.0).double()
    arrays = [getattr(network, name).detach().numpy() for name in ("weight1", "weight2")]
    teachers = [network.teacher_weight1.numpy(), network.teacher_weight2.numpy()]
    points = list(x.numpy())
    random = np.random.default_rng(0)

    def ours(batch: int | None, chosen: slice = slice(None), passes: int = PASSES) -> None:
        networks = network.select(torch.arange(NETWORKS)[chosen])
        rule = LearningRule(0.1 * (batch or POINTS) / POINTS, gains1=gains[chosen])
        simulate(networks, x, passes, rule, batch_size=batch, generator=generator)

    def one_by_one(batch: int | None) -> None:
        for index in range(NETWORKS):
            ours(batch, slice(index, index + 1))

    def plain(batch: int) -> None:
        for index in range(NETWORKS):
            loop = PlainLoop(
                [part[index] for part in arrays],
                [part[index] for part in teachers],
                x.numpy(),
                gains[index].numpy(),
                np.ones(HIDDEN),
            )
            loop.run(PASSES, batch, 0.1 * batch / POINTS, random)

    def authors(batch: int) -> None:
        for index in range(NETWORKS):
            weights = {
                "W1": arrays[0][index],
                "W2": arrays[1][index],
                "D1": np.diag(gains[index].numpy()),
                "D2": np.eye(HIDDEN),
            }
            weights = {name: array.copy() for name, array in weights.items()}
            teacher = {"W1": teachers[0][index], "W2": teachers[1][index]}
            system = network_class(INPUTS, HIDDEN, HIDDEN, teacher, weights)
            system.learning_simu_batch(
                points,
                points[:1],
                batch,
                PASSES,
                None,
                0.1 * batch / POINTS,
                "GD",
                "col",
                "lin",
                normalize_weights=False,
                batch_norm=False,
            )

    rows = []
    if directory is not None:
        network_class = official(directory)
    for batch, work in ((None, "a full-batch step"), (MINIBATCH, f"a pass in minibatches of {MINIBATCH}")):
        alternatives: dict[str, Callable[[], object]] = {
            "simulate, all at once": lambda batch=batch: ours(batch),
            "simulate, one by one": lambda batch=batch: one_by_one(batch),
            "numpy loop, same batches": lambda batch=batch: plain(batch or POINTS),
        }
        if directory is not None:
            alternatives["official code, same batches"] = lambda batch=batch: authors(batch or POINTS)
            if batch is None:
                alternatives[f"official code as published, minibatches of {MINIBATCH}"] = lambda: authors(MINIBATCH)
        title = f"{PASSES} x {work}, {NETWORKS} linear networks, N + M = {INPUTS + HIDDEN}"
        rows += compare(title, alternatives, repeats=5).rows()
    return rows


def against_sgd() -> list[str]:
    """Ten million parameters in four layers."""
    rows = []
    shapes = [(1600, 1600)] * 3 + [(1450, 1600)]
    for title, ours, theirs in (
        ("plain", {}, {}),
        ("momentum", {"momentum": 0.9}, {"momentum": 0.9}),
        ("norms kept", {"renorm": "init_frobenius"}, {}),
    ):
        parameters = [torch.nn.Parameter(torch.randn(shape) / 40) for shape in shapes]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) * 1e-3
        signs = {parameter: torch.where(torch.rand(parameter.shape[1]) < 0.1, -1.0, 1.0) for parameter in parameters}
        sgd = torch.optim.SGD(parameters, 1e-4, foreach=True, **theirs)
        curl = CurlDescent(parameters, 1e-4, signs=signs, **ours)
        post = CurlDescent(
            parameters,
            1e-4,
            signs={parameter: torch.ones(parameter.shape[0]) for parameter in parameters},
            side="post",
            **ours,
        )
        alternatives = {
            "CurlDescent, senders flipped": curl.step,
            "torch.optim.SGD(foreach)": sgd.step,
            "CurlDescent, receivers flipped": post.step,
        }
        count = sum(parameter.numel() for parameter in parameters) / 1e6
        rows += compare(f"a step on {count:.0f} million parameters, {title}", alternatives, repeats=21).rows()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("CURL_DESCENT_OFFICIAL")
    parser.add_argument(
        "--official",
        type=Path,
        default=default and Path(default),
        help="the authors' repository; CURL_DESCENT_OFFICIAL",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [HEADER, *against_loops(arguments.official), *against_sgd()]
    if arguments.official is None:
        rows += ["", "The official code was not there: pass --official DIR or set CURL_DESCENT_OFFICIAL."]
    print("\n".join(rows))


if __name__ == "__main__":
    main()
