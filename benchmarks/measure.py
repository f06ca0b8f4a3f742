"""Time alternatives against each other in one run, as ratios.

Every benchmark of this folder is a script that calls `compare` and prints rows; `record.py` writes them down.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Comparison:
    """Seconds of each repeat, by alternative; the first alternative is ours."""

    work: str
    seconds: dict[str, list[float]]

    def rows(self) -> list[str]:
        """Markdown rows: work, alternative, median seconds, ours/alternative as median [min, max] of paired repeats."""
        ours, *peers = self.seconds
        rows = [f"| {self.work} | {ours} | {statistics.median(self.seconds[ours]):.4g} s | 1 |"]
        for peer in peers:
            ratios = [a / b for a, b in zip(self.seconds[ours], self.seconds[peer], strict=True)]
            spread = f"{statistics.median(ratios):.3g} [{min(ratios):.3g}, {max(ratios):.3g}]"
            rows.append(f"| {self.work} | {peer} | {statistics.median(self.seconds[peer]):.4g} s | {spread} |")
        return rows


HEADER = "| work | alternative | median time | ours / alternative (median [min, max]) |\n| --- | --- | --- | --- |"


def compare(
    work: str, alternatives: Mapping[str, Callable[[], object]], *, repeats: int = 7, warm_up: int = 1
) -> Comparison:
    """Run every alternative `repeats` times, interleaved, so that drift of the machine hits all alike."""
    for function in alternatives.values():
        for _ in range(warm_up):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(repeats):
        for name, function in alternatives.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return Comparison(work, seconds)


def peak_megabytes(function: Callable[[], object]) -> float:
    """The most memory that PyTorch holds at a time during one call, beyond what was there before."""
    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    held = peak = 0
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 2**20
