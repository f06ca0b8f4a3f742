"""Decoding, predicting and training modular addition, against the matrix product, integration and the official code.

`--official DIR` also times the authors' code: DIR is a checkout of
https://github.com/Y-Agent/modular-addition-feature-learning. It needs einops; what it logs and plots with is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import sys
import tempfile
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import HEADER, compare
from scipy.integrate import solve_ivp
from torch.nn import functional

from interplay.dynamics.modular_addition import (
    Descent,
    FourierSpectrum,
    ModularAdditionNet,
    addition_table,
    fourier_basis,
    lottery_ticket,
    random_split,
    train,
)

Alternatives = dict[str, Callable[[], object]]


def official(directory: Path) -> tuple[Any, Any, Any]:
    """The authors' modules for decoding, settings and training, with stand-ins for packages that only log or plot."""
    if find_spec("wandb") is None:
        sys.modules["wandb"] = types.ModuleType("wandb")
    if find_spec("plotly") is None:
        plotly = sys.modules["plotly"] = types.ModuleType("plotly")
        for name in ("graph_objects", "express", "io"):
            part = sys.modules[f"plotly.{name}"] = types.ModuleType(f"plotly.{name}")
            part.imshow = part.line = None  # type: ignore[attr-defined]
            setattr(plotly, name, part)
    sys.path.insert(0, str(directory / "src"))
    import mechanism_base
    import nnTrainer
    import utils

    return mechanism_base, utils, nnTrainer


def decoding(authors: Any | None) -> list[str]:
    """All magnitudes and phases of both layers at the published size for p = 97."""
    p, neurons = 97, 9107
    network = ModularAdditionNet(p, neurons, generator=torch.Generator().manual_seed(0))
    first, second = network.input_weights.detach(), network.output_weights.detach()
    basis = fourier_basis(p, torch.float32)

    def products() -> list[torch.Tensor]:
        parts = []
        for rows in (first, second.mT):
            coefficients = rows @ basis.mT
            cosine, sine = coefficients[:, 1::2], coefficients[:, 2::2]
            parts += [math.sqrt(2 / p) * torch.hypot(cosine, sine), torch.atan2(-sine, cosine)]
        return parts

    def transforms() -> list[torch.Tensor]:
        coefficients = [torch.fft.rfft(rows, dim=-1)[:, 1:] for rows in (first, second.mT)]
        return [part for each in coefficients for part in (each.abs() * (2 / p), each.angle())]

    alternatives: Alternatives = {
        "FourierSpectrum.from_weights": lambda: FourierSpectrum.from_weights(first, second),
        "matrix product with the basis, as the official code has it": products,
        "torch.fft.rfft": transforms,
    }
    if authors is not None:
        state = {"mlp.W_in": first, "mlp.W_out": second}
        alternatives["official decode_scales_phis"] = lambda: authors.decode_scales_phis(state, basis)
    return compare(f"decode both layers, p = {p}, {neurons} neurons", alternatives, repeats=9).rows()


def predicting() -> list[str]:
    """The winners of 64 neurons: the closed form, and integration of every frequency until it dominates."""
    p, neurons = 23, 64
    network = ModularAdditionNet(p, neurons, generator=torch.Generator().manual_seed(0))
    spectrum = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
    starts = [part.double().flatten().numpy() for part in (spectrum.alpha, spectrum.beta, spectrum.misalignment)]

    def rates(_: float, y: Any) -> list[float]:
        a, b = complex(y[0], y[1]), complex(y[2], y[3])
        change_a, change_b = 2 / p * b * a.conjugate(), a * a / p
        return [change_a.real, change_a.imag, change_b.real, change_b.imag]

    def reached(_: float, y: Any) -> float:
        return math.hypot(y[2], y[3]) - 0.5

    reached.terminal = True  # type: ignore[attr-defined]

    def integrate() -> list[float]:
        times = []
        for alpha, beta, d in zip(*starts, strict=True):
            a = alpha * np.exp(0.5j * d)
            path = solve_ivp(rates, (0, 1e6), [a.real, a.imag, beta, 0.0], events=reached, rtol=1e-6, atol=1e-9)
            times.append(path.t[-1])
        return times

    rows = compare(
        f"times to dominance of {neurons} x {p // 2} frequencies",
        {"lottery_ticket": lambda: lottery_ticket(spectrum), "scipy.solve_ivp, one by one": integrate},
        repeats=5,
    ).rows()
    wide = ModularAdditionNet(p, 512, generator=torch.Generator().manual_seed(0))
    spectrum = FourierSpectrum.from_weights(wide.input_weights, wide.output_weights)
    return (
        rows
        + compare(
            f"lottery_ticket of 512 x {p // 2} frequencies", {"lottery_ticket": lambda: lottery_ticket(spectrum)}
        ).rows()
    )


def training(authors: tuple[Any, Any, Any] | None, p: int, neurons: int, networks: int, steps: int) -> list[str]:
    """ReLU networks on three quarters of the table by AdamW, half of them with weight decay, a seed a network."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(networks)]
    decays = [2.0 * (run % 2) for run in range(networks)]
    splits = random_split(p, 0.75, generators)
    whole = ModularAdditionNet(p, neurons, activation="relu", generator=generators)
    pairs, labels = addition_table(p)

    def chosen(index: slice) -> ModularAdditionNet:
        return ModularAdditionNet.from_weights(whole.input_weights[index], whole.output_weights[index], "relu")

    def at_once() -> None:
        train(chosen(slice(None)), steps, Descent(1e-4, weight_decay=torch.tensor(decays)), in_train=splits)

    def one_by_one() -> None:
        for run in range(networks):
            rule = Descent(1e-4, weight_decay=decays[run])
            train(chosen(slice(run, run + 1)), steps, rule, in_train=splits[run : run + 1])

    def plain() -> None:
        for run in range(networks):
            network = ModularAdditionNet.from_weights(whole.input_weights[run], whole.output_weights[run], "relu")
            optimizer = torch.optim.AdamW(network.parameters(), 1e-4, (0.9, 0.98), weight_decay=decays[run])
            mine, answers = (part[splits[run].flatten()] for part in (pairs, labels))
            for _ in range(steps):
                optimizer.zero_grad()
                functional.cross_entropy(network(mine), answers).backward()
                optimizer.step()

    alternatives: Alternatives = {
        "train, all at once": at_once,
        "train, one by one": one_by_one,
        "plain PyTorch loop, one by one": plain,
    }
    if authors is not None:
        _, settings, trainers = authors

        def theirs() -> None:
            for run in range(networks):
                given = {
                    "data": {"p": p, "d_vocab": None, "fn_name": "add", "frac_train": 0.75, "batch_style": "full"},
                    "model": {
                        **{"d_model": None, "d_mlp": neurons, "act_type": "ReLU", "embed_type": "one_hot"},
                        **{"init_type": "random", "init_scale": 0.1},
                    },
                    "training": {
                        **{"num_epochs": steps, "lr": 1e-4, "weight_decay": decays[run], "optimizer": "AdamW"},
                        **{"stopping_thresh": -1, "save_models": False, "save_every": 10**9, "seed": run},
                    },
                }
                with contextlib.redirect_stdout(io.StringIO()):
                    trainer = trainers.Trainer(settings.Config(given), use_wandb=False)
                    for epoch in range(steps):
                        trainer.do_a_training_step(epoch)

        alternatives["official trainer, one by one"] = theirs
    title = f"{steps} steps of {networks} networks of {neurons} neurons, p = {p}"
    return compare(title, alternatives, repeats=5).rows()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("MODULAR_ADDITION_OFFICIAL")
    parser.add_argument(
        "--official",
        type=Path,
        default=default and Path(default),
        help="the authors' repository; MODULAR_ADDITION_OFFICIAL",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    missing = "pass --official DIR or set MODULAR_ADDITION_OFFICIAL" if arguments.official is None else ""
    if not missing and find_spec("einops") is None:
        missing = "install einops"
    authors = None if missing else official(arguments.official.resolve())
    rows = [HEADER, *decoding(authors and authors[0]), *predicting()]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # their trainer writes where it runs
        for p, neurons, networks, steps in ((23, 512, 8, 40), (23, 64, 32, 40), (11, 64, 32, 40)):
            rows += training(authors, p, neurons, networks, steps)
    if missing:
        rows += ["", f"The official code was not there: {missing}."]
    print("\n".join(rows))


if __name__ == "__main__":
    main()
