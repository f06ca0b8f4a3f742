"""Grids of critical periods all at once, against the official code and our own runs one after another.

`--official DIR` also times the authors' code: DIR is a checkout of
https://github.com/mjkleinman/CriticalPeriodDeepLinearNets.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from measure import HEADER, compare
from torch import nn

from interplay.dynamics.critical_periods import (
    completion_sweep,
    completion_task,
    final_share,
    hierarchy,
    pathway_sweep,
    target_modes,
)

SWITCHES, DEPTHS, SEEDS, FURTHER = (0, 50, 100, 200), (1, 2, 3), tuple(range(8)), 300
ONSETS, PATHWAY_SEEDS, STEPS, LENGTH = (0, 60, 120, 180), tuple(range(4)), 240, 60
N, RANKS, ENTRIES = 50, (6, 3), 600
SHARES = {"values": np.sqrt([15.0, 7.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0]), "depth": 4, "window": (0.0, 1.5)}


def official_module(directory: Path, name: str) -> ModuleType:
    """A module of the authors' scripts, which import one another by bare names."""
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    return importlib.import_module(name)


def completion_grid(directory: Path | None) -> list[str]:
    """T_c x depth x seed at n = 50."""

    def one_by_one() -> None:
        for depth in DEPTHS:
            for switch in SWITCHES:
                for seed in SEEDS:
                    completion_sweep([depth], [switch], [seed], n=N, ranks=RANKS, entries=ENTRIES, further=FURTHER)

    def authors() -> None:
        """The loop of `main.py` without its prints, singular values and plots."""
        for depth in DEPTHS:
            for seed in SEEDS:
                tasks = [completion_task(N, rank, ENTRIES, seed, draw=draw) for draw, rank in enumerate(RANKS)]
                rows, columns = tasks[0].observed // N, tasks[0].observed % N
                model = nn.Sequential(*[nn.Linear(N, N, bias=False) for _ in range(depth)])
                for switch in SWITCHES:
                    tools.init_model(model, depth, "gaussian", 1e-3, [N], seed)
                    optimizer = torch.optim.SGD(model.parameters(), lr=5.0)
                    for step in range(switch + FURTHER):
                        product = tools.get_e2e(model)
                        losses = [
                            tools.get_train_loss(product, task.target[rows, columns], rows, columns) for task in tasks
                        ]
                        optimizer.zero_grad()
                        losses[step > switch].backward()
                        with torch.no_grad():
                            tools.get_test_loss(product, tasks[step > switch].target)
                        optimizer.step()

    alternatives: dict[str, Callable[[], object]] = {
        "completion_sweep, all at once": lambda: completion_sweep(
            DEPTHS, SWITCHES, SEEDS, n=N, ranks=RANKS, entries=ENTRIES, further=FURTHER
        ),
        "completion_sweep, one by one": one_by_one,
    }
    if directory is not None:
        tools = official_module(directory / "matrixcompletion", "model_utils")
        alternatives["official code, one by one"] = authors
    work = (
        f"completion: {len(SWITCHES)} T_c x {len(DEPTHS)} depths x {len(SEEDS)} seeds, n = {N}, {FURTHER} + T_c steps"
    )
    return compare(work, alternatives, repeats=3).rows()


def pathway_grid(directory: Path | None, width: int) -> list[str]:
    """Onset x depth x seed of the pathway networks."""
    depths = (2, 3, 4)

    def one_by_one() -> None:
        for depth in depths:
            for onset in ONSETS:
                for seed in PATHWAY_SEEDS:
                    pathway_sweep([depth], [onset], LENGTH, [seed], steps=STEPS, width=width)

    def authors() -> None:
        left, _, right = target_modes(*hierarchy())
        for depth in depths:
            for onset in ONSETS:
                for _ in PATHWAY_SEEDS:
                    with contextlib.redirect_stdout(io.StringIO()):
                        network = nets.MultipathwayNet(
                            8, 15, depth=depth, width=width, U=left, V=right, kDiagInit=torch.full((width,), 0.01)
                        )
                        analysis.MPNAnalysis(network, device="cpu").train_mcn(
                            timesteps=STEPS,
                            lr=0.01,
                            deficit_start=onset,
                            deficit_end=onset + LENGTH,
                            use_deficit=True,
                            deficit_period=["gate_path"],
                        )

    alternatives: dict[str, Callable[[], object]] = {
        "pathway_sweep, all at once": lambda: pathway_sweep(
            depths, ONSETS, LENGTH, PATHWAY_SEEDS, steps=STEPS, width=width
        ),
        "pathway_sweep, one by one": one_by_one,
    }
    if directory is not None:
        nets = official_module(directory / "multipath", "multichannel_net_diag")
        analysis = official_module(directory / "multipath", "analysis_diag")
        alternatives["official code, one by one"] = authors
    work = (
        f"pathways: {len(ONSETS)} onsets x {len(depths)} depths x {len(PATHWAY_SEEDS)} seeds, width {width}, "
        f"{STEPS} steps"
    )
    return compare(work, alternatives, repeats=3).rows()


def end_of_the_race() -> list[str]:
    """Final shares of eight modes: a root and an integral against a million Euler steps."""
    values, depth, (begin, end) = SHARES["values"], SHARES["depth"], SHARES["window"]
    start = np.full((2, 8), 0.01 ** (1 / depth))

    def euler() -> None:
        p, dt = start.copy(), 1e-5
        for step in range(1_000_000):
            change = dt * p ** (depth - 1) * (values - (p**depth).sum(0))
            if begin <= step * dt < end:
                change[1] = 0
            p += change

    alternatives = {
        "final_share": lambda: final_share(values, depth, start, {1: (begin, end)}),
        "1e6 Euler steps, numpy": euler,
    }
    return compare("final shares of 8 modes, depth 4", alternatives, repeats=3).rows()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("CRITICAL_PERIODS_OFFICIAL")
    parser.add_argument(
        "--official",
        type=Path,
        default=default and Path(default),
        help="the authors' repository; CRITICAL_PERIODS_OFFICIAL",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [HEADER, *completion_grid(arguments.official)]
    for width in (100, 16):
        rows += pathway_grid(arguments.official, width)
    rows += end_of_the_race()
    if arguments.official is None:
        rows += ["", "The official code was not there: pass --official DIR or set CRITICAL_PERIODS_OFFICIAL."]
    print("\n".join(rows))


if __name__ == "__main__":
    main()
