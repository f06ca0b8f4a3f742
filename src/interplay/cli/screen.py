"""What the commands show: two consoles, refusals, progress, tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from interplay.evidence import Outcome, Run

output, messages = Console(highlight=False), Console(stderr=True, highlight=False)

WRONG_CALL, INTERRUPTED = 2, 130
VERDICT_MARKS = {
    "holds": "[green]✓ holds[/]",
    "fails": "[red]✗ fails[/]",
    "inconclusive": "[yellow]? inconclusive[/]",
    "not judged": "[dim]- not judged[/]",
}


def refuse(message: str) -> NoReturn:
    """Say in one line what was wrong with the call, and stop."""
    messages.print(f"interplay: {escape(message)}", soft_wrap=True)
    sys.exit(WRONG_CALL)


class ProgressBar:
    """A bar with time left on a terminal, a line now and then elsewhere; both on stderr.

    Parameters
    ----------
    unit
        What is counted.
    quiet
        Show nothing.
    every
        Seconds between two lines where there is no terminal.
    """

    def __init__(self, unit: str, *, quiet: bool = False, every: float = 0.0) -> None:
        self._unit, self._quiet, self._every = unit, quiet, every
        self._bar: Progress | None = None
        self._start, self._last_line = time.monotonic(), -every

    def __enter__(self) -> Self:
        if not self._quiet and messages.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            # Results go to stdout, which may be a file: the bar leaves it alone.
            self._bar = Progress(*columns, console=messages, transient=True, redirect_stdout=False)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar off the screen while something else is printed."""
        if self._bar:
            self._bar.stop()
        yield
        if self._bar:
            self._bar.start()

    def show(self, name: str, done: int, total: int, reused: int = 0) -> None:
        """`done` of `total` are finished; `reused` of them took no time now."""
        if self._bar:
            self._bar.update(self._task, description=name, total=total, completed=done, refresh=True)
            return
        seconds = time.monotonic() - self._start
        if self._quiet or (seconds - self._last_line < self._every and done < total):
            return
        self._last_line = seconds
        new = done - reused
        left = f", {seconds / new * (total - done):.0f} s left" if new and done < total else ""
        messages.print(f"{name}: {done}/{total} {self._unit}, {seconds:.0f} s{left}", soft_wrap=True)


def verdict_counts(verdicts: dict[str, str]) -> str:
    """How many claims have each verdict, in words and colours."""
    counts = {name: list(verdicts.values()).count(name) for name in VERDICT_MARKS}
    return ", ".join(
        f"{VERDICT_MARKS[name].replace(name, f'{count} {name}')}" for name, count in counts.items() if count
    )


def claims_listed(outcome: Outcome) -> Group:
    """The claims: verdict and sentence, the paper's figure, then what was measured and what is needed, part by part."""
    shown: list[RenderableType] = [f"[bold]{outcome.slug}[/] · preset {outcome.preset} · {outcome.seeds} seeds"]
    for claim in outcome.claims:
        label = f" [dim]({claim.label})[/]" if claim.label else ""
        head = Table.grid(padding=(0, 1))
        head.add_row(f"{VERDICT_MARKS[claim.verdict]}:", f"[bold]{escape(claim.id)}[/] {escape(claim.sentence)}{label}")
        parts = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        parts.add_column(overflow="fold")
        parts.add_column(no_wrap=True, justify="right")
        parts.add_column(no_wrap=True)
        parts.add_column(no_wrap=True)
        for part in claim.parts:
            mark = VERDICT_MARKS[part.verdict].replace(part.verdict.value, "").replace(" [/]", "[/]")
            parts.add_row(escape(part.description), f"[bold]{escape(part.measured)}[/]", escape(part.threshold), mark)
            if part.reason:
                parts.add_row(f"[dim]{escape(part.reason)}[/]")
        shown += [
            "",
            head,
            Padding(f"[dim]paper: {escape(claim.paper)}[/]", (0, 0, 0, 2)),
            Padding(parts, (0, 0, 0, 2)),
        ]
    return Group(*shown, "")


def print_outcome(result: Run) -> None:
    """The claims of a run with their verdicts, and what raised."""
    outcome = result.outcome
    output.print(claims_listed(outcome))
    if outcome.caveat:
        output.print(f"[dim]{escape(outcome.caveat)}[/]")
    for failure in outcome.failures:
        where = "figure" if failure.seed is None else f"seed {failure.seed}"
        output.print(
            f"[red]{where} raised:[/] {escape(failure.error)} (traceback in {result.folder.trials})", soft_wrap=True
        )
    output.print(f"[dim]kept in {result.folder.path}[/]\n", soft_wrap=True)
