"""Self-sorting arrays against the same rules as a plain Python loop, and against the official cells.

`--official DIR` also times the authors' cells, one activation at a time and without their threads and sleeps: DIR is a
checkout of https://github.com/Zhangtaining/cell_research.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from measure import HEADER, compare

from interplay.kinetics.self_sorting import SelfSortingArray

CELLS, BURST = 100, 7
KINDS = ("bubble", "insertion", "selection")


def errors_of(values: list[int]) -> int:
    return sum(values[i + 1] < values[i] for i in range(len(values) - 1))


class Cell:
    """A cell as agent frameworks write it: an object with a method `step`."""

    def __init__(self, array: list[Cell], value: int, position: int) -> None:
        self.array, self.value, self.position, self.target = array, value, position, 0

    def swap(self, there: int) -> bool:
        other, here = self.array[there], self.position
        self.array[here], self.array[there] = other, self
        self.position, other.position = there, here
        return True


class Bubble(Cell):
    def step(self) -> bool:
        there = self.position + random.choice((-1, 1))
        if not 0 <= there < len(self.array):
            return False
        sign = there - self.position
        return sign * (self.value - self.array[there].value) > 0 and self.swap(there)


class Insertion(Cell):
    def step(self) -> bool:
        here = self.position
        for i in range(1, here):
            if self.array[i].value < self.array[i - 1].value:
                return False
        return here > 0 and self.value < self.array[here - 1].value and self.swap(here - 1)


class Selection(Cell):
    def step(self) -> bool:
        if self.target == self.position:
            return False
        if self.value >= self.array[self.target].value:
            self.target += 1
            return False
        return self.swap(self.target)


PLAIN = {"bubble": Bubble, "insertion": Insertion, "selection": Selection}


def plain_loop(values: np.ndarray, kind: str) -> int:
    """Bursts of a cell drawn at random until sorted, the error noted after every swap; returns the swaps."""
    array: list[Cell] = []
    array += [PLAIN[kind](array, value, place) for place, value in enumerate(values.tolist())]
    cells, noted = list(array), []
    errors = errors_of(values.tolist())
    while errors:
        cell = random.choice(cells)
        for _ in range(BURST):
            if cell.step():
                errors = errors_of([other.value for other in array])
                noted.append(errors)
    return len(noted)


def official_loop(directory: Path, values: np.ndarray, kind: str) -> int:
    """The authors' cells in the same loop; they take a snapshot of the array after every swap by themselves."""
    if str(directory / "modules") not in sys.path:
        sys.path.insert(0, str(directory / "modules"))
    name = f"{kind.capitalize()}SortCell"
    make = getattr(import_module(f"multithread.{name}"), name)
    probe = import_module("multithread.StatusProbe").StatusProbe()
    active = import_module("multithread.CellGroup").GroupStatus.ACTIVE
    lock, array, last = threading.Lock(), [], len(values) - 1
    for place, value in enumerate(values.tolist()):
        cell = make(
            place, value, lock, (place, 1), array, (0, 1), (last, 1), probe,
            disable_visualization=True, swapping_count=[0], export_steps=[],
        )  # fmt: skip
        cell.group = SimpleNamespace(status=active, group_id=0)
        array.append(cell)
    cells, swaps, errors = list(array), 0, errors_of(values.tolist())
    while errors:
        cell = random.choice(cells)
        for _ in range(BURST):
            cell.move()
            if probe.swap_count > swaps:
                swaps = probe.swap_count
                errors = errors_of(probe.sorting_steps[-1])
    return swaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("SELF_SORTING_OFFICIAL")
    parser.add_argument(
        "--official",
        type=Path,
        default=default and Path(default),
        help="the authors' repository; SELF_SORTING_OFFICIAL",
    )
    official = parser.parse_args().official
    random.seed(0)
    values = np.random.default_rng(0).permutation(CELLS)
    print(HEADER)
    for kind in KINDS:
        alternatives = {
            "interplay": lambda kind=kind: SelfSortingArray(values, kind, burst=BURST, seed=0).run(),
            "the same rules as Python objects": lambda kind=kind: plain_loop(values, kind),
        }
        if official is not None:
            alternatives["official cells, no threads or sleeps"] = lambda kind=kind: official_loop(
                official, values, kind
            )
        work = f"one {kind} sort of {CELLS} cells, metrics after every swap"
        print(*compare(work, alternatives, repeats=3 if kind == "insertion" else 5).rows(), sep="\n")
    for kind in KINDS:
        arrays = [SelfSortingArray(values, kind, burst=BURST, seed=seed) for seed in range(100)]
        started = time.perf_counter()
        for array in arrays:
            array.run()
        seconds = time.perf_counter() - started
        rate = sum(array.activations for array in arrays) / seconds
        print(f"| 100 {kind} sorts of {CELLS} cells | interplay | {seconds:.3g} s | {rate:.3g} activations a second |")
    if official is None:
        print("\nThe official code was not there: pass --official DIR or set SELF_SORTING_OFFICIAL.")


if __name__ == "__main__":
    main()
