"""Reservoirs: driving a network against ReservoirPy and plain NumPy, bandwidth, batches of series, seeds at once.

ReservoirPy is optional (`pip install reservoirpy`). Without it, its rows are left out and the script says so. All
alternatives get the same weights, tanh and a leak, and their states are compared before they are timed.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measure import HEADER, compare
from numpy.typing import NDArray
from scipy import sparse

from interplay.reservoirs.adaptive_reservoir import EIReservoir, EIReservoirCell, Reservoir

LEAK = 0.3
HAVE_PEER = importlib.util.find_spec("reservoirpy") is not None


def plain_numpy(weights: NDArray | sparse.csr_array, input_weights: NDArray, inputs: NDArray) -> NDArray:
    """The loop that a user would write."""
    state, states = np.zeros(len(input_weights)), np.empty((len(inputs), len(input_weights)))
    for t, u in enumerate(inputs):
        state = (1 - LEAK) * state + LEAK * np.tanh(weights @ state + input_weights @ u)
        states[t] = state
    return states


def peers(weights: NDArray | sparse.csr_array, input_weights: NDArray, inputs: NDArray) -> dict[str, Callable]:
    """Everybody else, with the same weights."""
    found: dict[str, Callable] = {"plain NumPy": partial(plain_numpy, weights, input_weights, inputs)}
    if HAVE_PEER:
        from reservoirpy.nodes import Reservoir as Peer

        peer = Peer(W=weights, Win=input_weights, lr=LEAK, activation="tanh")
        peer.initialize(inputs)

        def run() -> NDArray:
            peer.reset()
            return peer.run(inputs)

        found["ReservoirPy"] = run
    return found


def one_series(units: int, steps: int, repeats: int) -> None:
    """A series through a sparse and through a dense network."""
    generator = np.random.default_rng(0)
    inputs = generator.uniform(-1, 1, size=(steps, 1))
    sparse_weights = Reservoir.random(units, spectral_radius=0.9, connectivity=0.1, seed=0).weights
    dense_weights = generator.normal(size=(units, units)) * 0.9 / np.sqrt(units)
    input_weights = generator.uniform(-0.5, 0.5, size=(units, 1))
    for kind, weights in (("10 % of links, CSR", sparse_weights), ("all links, dense", dense_weights)):
        ours = Reservoir(weights, input_weights, leak_rate=LEAK)
        others = peers(weights, input_weights, inputs)
        for name, run in others.items():
            agree(name, ours.run(inputs[:500]), run()[:500])
        half = Reservoir(weights.astype(np.float32), input_weights, leak_rate=LEAK)
        alternatives = {
            "interplay": partial(ours.run, inputs),
            **others,
            "interplay, float32": partial(half.run, inputs),
        }
        print(*compare(f"{steps} steps, {units} units, {kind}", alternatives, repeats=repeats).rows(), sep="\n")
    if HAVE_PEER:
        defaults(units, inputs, repeats)


def defaults(units: int, inputs: NDArray, repeats: int) -> None:
    """ReservoirPy as it comes: its own draw, sparse, with a sparse input matrix."""
    from reservoirpy.nodes import Reservoir as Peer

    peer = Peer(units, lr=LEAK, sr=0.9, seed=0)
    peer.initialize(inputs)
    ours = Reservoir(peer.W, np.asarray(peer.Win.todense()), leak_rate=LEAK)

    def run() -> NDArray:
        peer.reset()
        return peer.run(inputs)

    agree("ReservoirPy, defaults", ours.run(inputs[:500]), run()[:500])
    work = f"{len(inputs)} steps, {units} units, ReservoirPy's default draw"
    alternatives = {"interplay": partial(ours.run, inputs), "ReservoirPy": run}
    print(*compare(work, alternatives, repeats=repeats).rows(), sep="\n")


def agree(name: str, mine: NDArray, other: NDArray) -> None:
    """Stop where the states differ by more than 1e-6."""
    if (apart := float(np.abs(mine - other).max())) > 1e-6:
        raise SystemExit(f"states of interplay and {name} differ by {apart:.2g}")


def bandwidth(units: int, steps: int) -> None:
    """Bytes of weights read in a second, beside what plain sums over the same arrays read."""
    generator = np.random.default_rng(0)
    inputs = generator.uniform(-1, 1, size=(steps, 1))
    dense = generator.normal(size=(units, units)) * 0.9 / np.sqrt(units)
    rows = Reservoir.random(units, seed=0).weights
    cases = {
        "dense, float64": (dense, dense.nbytes),
        "dense, float32": (dense.astype(np.float32), dense.nbytes // 2),
        "10 % CSR, float64": (rows, rows.data.nbytes + 4 * rows.nnz),
    }
    for name, (weights, size) in cases.items():
        reservoir = Reservoir(weights, np.ones((units, 1)), leak_rate=LEAK)
        read = np.ones(size // 8)
        reservoir.run(inputs[:3])
        rates: dict[str, list[float]] = {"interplay": [], "sum": []}
        for _ in range(7):
            start = time.perf_counter()
            reservoir.run(inputs)
            rates["interplay"].append(steps * size / (time.perf_counter() - start) / 1e9)
            start = time.perf_counter()
            for _ in range(steps // 10):
                np.dot(read, read)
            rates["sum"].append((steps // 10) * size / (time.perf_counter() - start) / 1e9)
        share = np.array(rates["interplay"]) / np.array(rates["sum"])
        print(
            f"| {units} units, {name}: read while driving | interplay | {np.median(rates['interplay']):.3g} GB/s "
            f"of the {np.median(rates['sum']):.3g} GB/s that BLAS reads for a sum of squares of as many bytes | "
            f"share {np.median(share):.2f} [{share.min():.2f}, {share.max():.2f}] |"
        )


def batches(units: int, steps: int, repeats: int) -> None:
    """Many series at once against one after the other."""
    generator = np.random.default_rng(0)
    for name, connectivity in (("10 % CSR", 0.1), ("dense", 1.0)):
        reservoir = Reservoir.random(units, connectivity=connectivity, leak_rate=LEAK, seed=0)
        for batch in (16, 64):
            inputs = generator.uniform(-1, 1, size=(steps, batch, 1))

            def one_by_one(reservoir=reservoir, inputs=inputs) -> list[NDArray]:
                return [reservoir.run(inputs[:, b]) for b in range(inputs.shape[1])]

            alternatives = {"as one matrix product a step": partial(reservoir.run, inputs), "one by one": one_by_one}
            work = f"{batch} series of {steps} steps, {units} units, {name}"
            print(*compare(work, alternatives, repeats=repeats).rows(), sep="\n")


def seeds(units: int, steps: int, count: int, repeats: int) -> None:
    """Networks of several seeds at once, with gradients: `torch.func.vmap` against a loop, and NumPy's loop."""
    reservoirs = [EIReservoir(units, seed=seed) for seed in range(count)]
    cells = [EIReservoirCell.from_reservoir(reservoir) for reservoir in reservoirs]
    inputs = torch.rand(steps, 4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    parameters, buffers = torch.func.stack_module_state(cells)

    def state_of(parameters: dict, buffers: dict) -> torch.Tensor:
        return torch.func.functional_call(cells[0], (parameters, buffers), (inputs,))[1]

    together = torch.func.vmap(state_of)

    def at_once() -> None:
        together(parameters, buffers).sum().backward()

    def looped() -> None:
        for cell in cells:
            cell(inputs)[1].sum().backward()

    alternatives = {"vmap over seeds": at_once, "a loop over seeds": looped}
    work = f"cells of {count} seeds, forward and backward, {steps} steps, 4 series, {units} units"
    print(*compare(work, alternatives, repeats=repeats).rows(), sep="\n")
    series = inputs.numpy()
    alternatives = {
        "interplay, NumPy, a loop over seeds": lambda: [reservoir.run(series) for reservoir in reservoirs],
        "cells, vmap over seeds, no gradient": lambda: torch.no_grad()(together)(parameters, buffers),
    }
    work = f"{count} seeds, forward only, {steps} steps, 4 series, {units} units"
    print(*compare(work, alternatives, repeats=repeats).rows(), sep="\n")


def adaptation(repeats: int) -> None:
    """The online rule against a run of the same length."""
    reservoir = EIReservoir(500, seed=0)
    inputs = np.random.default_rng(0).uniform(-1, 1, size=(3000, 1))
    alternatives = {
        "3,000 steps of adaptation": lambda: reservoir.rescaled().adapt(inputs, 0.4, tolerance=1.0, window=3000),
        "one-step design": lambda: reservoir.rescaled().adapt(inputs, 0.4, mode="one_step"),
        "3,000 steps of driving": lambda: reservoir.rescaled().run(inputs),
    }
    print(
        *compare("500 units, 10 % of links, each with the final rates", alternatives, repeats=repeats).rows(), sep="\n"
    )


def main() -> None:
    """Print the rows."""
    torch.set_num_threads(1)
    if not HAVE_PEER:
        print("ReservoirPy is not installed: its rows are left out (pip install reservoirpy).\n")
    print(HEADER)
    one_series(500, 10_000, repeats=7)
    one_series(2000, 10_000, repeats=3)
    bandwidth(2000, 300)
    batches(500, 500, repeats=5)
    seeds(100, 100, 8, repeats=5)
    adaptation(repeats=7)


if __name__ == "__main__":
    main()
