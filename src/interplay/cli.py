"""The command line: parse, call, print. Heavy imports wait inside the commands: `--help` and `list` answer at once."""

from __future__ import annotations

import json
import os
import sys
import time
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from interplay import __version__, catalog

if TYPE_CHECKING:
    from interplay.evidence import Progress, Run, Study
    from interplay.evidence.outcome import JudgedClaim

app = typer.Typer(
    help="Re-run the claims of published systems whose parts compete, inhibit, balance, gate and steer one another.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
output, messages = Console(highlight=False), Console(stderr=True, highlight=False)

WRONG_CALL, INTERRUPTED = 2, 130
# The root of usage errors, from whichever copy of click this typer carries.
_ClickException = typer.BadParameter.__mro__[2]
VERDICT_MARKS = {
    "holds": "[green]✓ holds[/]",
    "fails": "[red]✗ fails[/]",
    "inconclusive": "[yellow]? inconclusive[/]",
    "not judged": "[dim]- not judged[/]",
}


class PresetName(StrEnum):
    """How large a study is run."""

    smoke = "smoke"
    cpu = "cpu"
    paper = "paper"


class BackendName(StrEnum):
    """Where trials run."""

    loky = "loky"
    ray = "ray"
    dask = "dask"


class TrackerName(StrEnum):
    """Where a run is also sent."""

    mlflow = "mlflow"


LedgerOption = Annotated[
    Path,
    typer.Option("--ledger", envvar="INTERPLAY_LEDGER", help="Folder where runs are kept.", show_default=True),
]
LEDGER = Path("interplay-ledger")


def main() -> None:
    """Entry point: every expected error is one line on stderr and exit code 2."""
    try:
        code = app(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
    except _ClickException as error:
        _refuse(error.format_message())
    except (catalog.UnknownSystemError, catalog.MissingExtraError) as error:
        _refuse(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:
        messages.print("stopped; finished trials are kept, the same command goes on from here")
    sys.exit(code)


def _refuse(message: str) -> NoReturn:
    messages.print(f"interplay: {escape(message)}", soft_wrap=True)
    sys.exit(WRONG_CALL)


def _show_version(wanted: bool) -> None:
    if wanted:
        output.print(f"interplay {__version__}")
        raise typer.Exit


@app.callback()
def interplay(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Published systems as importable mechanisms and executable claims."""


@app.command("list")
def list_systems(
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    ledger: LedgerOption = LEDGER,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """The systems, with their last verdicts."""
    chosen = catalog.in_family(family) if family else list(catalog.systems().values())
    last = {system.slug: _last_verdicts(ledger, system.slug) for system in chosen}
    if as_json:
        rows = [{"slug": s.slug, "family": s.family, "title": s.title, "verdicts": last[s.slug]} for s in chosen]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("system", "family", "year", "last verdicts", "what it is"):
        table.add_column(column, overflow="fold")
    for system in chosen:
        verdicts = _tally_of(last[system.slug]) or "[dim]not run yet[/]"
        table.add_row(system.slug, system.family, str(system.year), verdicts, system.summary)
    output.print(table)


@app.command()
def show(slug: Annotated[str, typer.Argument(help="The system.")], ledger: LedgerOption = LEDGER) -> None:
    """What a system is, what it claims, how to import it."""
    system = catalog.find(slug)
    output.print(f"[bold]{escape(system.title)}[/]\n{escape(system.authors)} ({system.year}), {system.paper_url}\n")
    output.print(f"{escape(system.summary)}\n\n[bold]import[/]   {escape(system.import_line)}")
    output.print(f"[bold]re-run[/]   interplay run {system.slug}\n", soft_wrap=True)
    try:
        study = system.load_study()
    except catalog.MissingExtraError as error:
        output.print(f"[yellow]{escape(str(error))}[/]", soft_wrap=True)
        return
    verdicts = _last_verdicts(ledger, slug)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("claim", "what it says", "paper", "last verdict"):
        table.add_column(column, overflow="fold")
    for claim in study.claims.values():
        mark = VERDICT_MARKS[verdicts[claim.id]] if claim.id in verdicts else "[dim]not run yet[/]"
        table.add_row(claim.id, escape(claim.sentence), escape(claim.paper), mark)
    output.print(table)
    output.print("\n[bold]settings[/] (interplay run ... --set name=value)")
    settings = Table(box=None, pad_edge=False, show_header=False)
    for name, field in study.config.model_fields.items():
        settings.add_row(
            name, escape(repr(field.get_default(call_default_factory=True))), escape(field.description or "")
        )
    output.print(settings)


@app.command()
def run(
    slugs: Annotated[list[str] | None, typer.Argument(help="The systems to run.", show_default=False)] = None,
    family: Annotated[str | None, typer.Option(help="Every system of a family.")] = None,
    all_systems: Annotated[bool, typer.Option("--all", help="Every system.")] = False,
    preset: Annotated[PresetName, typer.Option(help="How large.")] = PresetName.cpu,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of trials; the preset's if not given.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Trials at a time; one a core if not given.")] = None,
    backend: Annotated[BackendName, typer.Option(help="Where trials run.")] = BackendName.loky,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps, for studies that can use one.")] = "auto",
    ledger: LedgerOption = LEDGER,
    track: Annotated[TrackerName | None, typer.Option(help="Also send the run to MLFLOW_TRACKING_URI.")] = None,
    evidence: Annotated[Path | None, typer.Option(help="Also write <slug>.json and <slug>.svg here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Outcomes as JSON on stdout.")] = False,
) -> None:
    """Re-test what the papers claim. Exit code 1: a claim fails or a trial raised; 2: the call was wrong."""
    from interplay.evidence import Ledger, LedgerError, StudyError
    from interplay.evidence import run as run_study
    from interplay.evidence.ledger import export_evidence

    overrides = _settings(settings or [])
    chosen = _choose(slugs or [], family, all_systems)
    try:
        studies = [system.load_study() for system in chosen]
        for study in studies:
            study.configure(preset.value, _for_device(study, overrides, device))
        send = _tracker(track)
        runs = []
        for study in studies:
            with _progress(quiet=as_json) as on_progress:
                result = run_study(
                    study,
                    Ledger(ledger),
                    preset=preset.value,
                    overrides=_for_device(study, overrides, device),
                    seeds=seeds,
                    jobs=jobs,
                    backend=backend.value,
                    on_progress=on_progress,
                )
            runs.append(result)
            if not as_json:
                _print_outcome(result)
            if send:
                send(result)
            if evidence:
                export_evidence(result.folder, evidence)
    except (StudyError, LedgerError) as error:
        _refuse(str(error))
    if as_json:
        typer.echo(json.dumps([result.outcome.model_dump(mode="json") for result in runs], indent=2))
    if not all(result.outcome.succeeded for result in runs):
        raise typer.Exit(1)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="Folder of the gallery.")] = Path("interplay-gallery"),
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    ledger: LedgerOption = LEDGER,
) -> None:
    """Build the gallery: one self-contained HTML file from the ledger."""
    from interplay.evidence import Ledger, LedgerError
    from interplay.evidence.report import Card, write_gallery

    cards = []
    try:
        for system in catalog.systems().values():
            newest = next(Ledger(ledger).runs(system.slug), None)
            cards.append(
                Card(
                    slug=system.slug,
                    title=system.title,
                    authors=system.authors,
                    year=system.year,
                    family=system.family,
                    paper_url=system.paper_url,
                    summary=system.summary,
                    import_line=system.import_line,
                    outcome=newest.outcome() if newest else None,
                    figure_svg=newest.figure() if newest else None,
                )
            )
        path = out / "index.html"
        write_gallery(cards, path)
    except LedgerError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"cannot write the gallery to {out} ({error.strerror or error}); choose another folder with --out")
    output.print(f"gallery: {path.resolve()}", soft_wrap=True)
    if open_browser:
        webbrowser.open(path.resolve().as_uri())


def _choose(slugs: list[str], family: str | None, everything: bool) -> list[catalog.System]:
    if sum([bool(slugs), family is not None, everything]) != 1:
        _refuse("say what to run, in one way: slugs, --family F or --all; `interplay list` shows the slugs")
    if everything:
        return list(catalog.systems().values())
    if family is not None:
        return catalog.in_family(family)
    return [catalog.find(slug) for slug in dict.fromkeys(slugs)]


def _settings(pairs: list[str]) -> dict[str, object]:
    settings: dict[str, object] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator or not name:
            _refuse(f"--set takes NAME=VALUE; got {pair!r}")
        settings[name] = _value(name, text)
    return settings


def _value(name: str, text: str) -> object:
    """Lists, mappings and null are JSON; anything else stays text, which the setting's own type parses."""
    if text != "null" and not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        _refuse(f"--set {name}: {text!r} is not JSON ({error.msg} at character {error.pos})")


def _for_device(study: Study, overrides: dict[str, object], device: str) -> dict[str, object]:
    if "device" in study.config.model_fields:
        return {"device": device, **overrides}
    if device != "auto":
        _refuse(f"{study.slug} runs on the CPU only; leave out --device {device}")
    return overrides


def _tracker(name: TrackerName | None):
    if name is None:
        return None
    from interplay.evidence.tracking import mlflow_tracker

    return mlflow_tracker()


class _progress:
    """A bar with time left on a terminal, a line a trial elsewhere, both on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: ProgressBar | None = None
        self.start = time.monotonic()

    def __enter__(self):
        if not self.quiet and messages.is_terminal:
            self.bar = ProgressBar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("trials"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=messages,
                transient=True,
            )
            self.task = self.bar.add_task("", total=None)
            self.bar.start()
        return self.update

    def __exit__(self, *error: object) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, progress: Progress) -> None:
        if self.bar:
            self.bar.update(
                self.task, description=progress.slug, total=progress.total, completed=progress.finished, refresh=True
            )
        elif not self.quiet:
            seconds, done = time.monotonic() - self.start, progress.finished - progress.reused
            left = f", {seconds / done * (progress.total - progress.finished):.0f} s left" if done else ""
            messages.print(f"{progress.slug}: {progress.finished}/{progress.total} trials, {seconds:.0f} s{left}")


def _print_outcome(result: Run) -> None:
    outcome = result.outcome
    table = Table(
        title=f"{outcome.slug} · {outcome.preset} · {outcome.seeds} seeds", title_justify="left", title_style="bold"
    )
    for column in ("claim", "what it says", "paper", "measured [95 %]", "needed", "verdict"):
        table.add_column(column, overflow="fold")
    for claim in outcome.claims:
        for position, cells in enumerate(_rows(claim)):
            table.add_row(*cells, end_section=position == len(claim.parts) - 1)
    output.print(table)
    if outcome.caveat:
        output.print(f"[dim]{escape(outcome.caveat)}[/]")
    for failure in outcome.failures:
        where = "figure" if failure.seed is None else f"seed {failure.seed}"
        output.print(
            f"[red]{where} raised:[/] {escape(failure.error)} (traceback in {result.folder.trials})", soft_wrap=True
        )
    output.print(f"[dim]kept in {result.folder.path}[/]\n", soft_wrap=True)


def _rows(claim: JudgedClaim) -> list[list[str]]:
    label = f" [dim]({claim.label})[/]" if claim.label else ""
    first = [claim.id, escape(claim.sentence) + label, escape(claim.paper)]
    rows = []
    for position, part in enumerate(claim.parts):
        name = f"[dim]{escape(part.description)}[/]\n" if len(claim.parts) > 1 else ""
        reason = f"\n[dim]{escape(part.reason)}[/]" if part.reason else ""
        verdict = VERDICT_MARKS[part.verdict if len(claim.parts) > 1 else claim.verdict]
        rows.append(
            [*(first if position == 0 else ["", "", ""]), name + part.measured + reason, part.threshold, verdict]
        )
    if len(claim.parts) > 1:
        rows[0][0] = f"{claim.id}\n{VERDICT_MARKS[claim.verdict]}"
    return rows


def _last_verdicts(ledger: Path, slug: str) -> dict[str, str]:
    """Verdicts of the newest run by claim; read without the harness, which would load pandas."""
    paths = sorted(ledger.glob(f"{slug}/*/outcome.json"), key=os.path.getmtime)
    if not paths:
        return {}
    try:
        return {claim["id"]: claim["verdict"] for claim in json.loads(paths[-1].read_text(encoding="utf-8"))["claims"]}
    except (ValueError, KeyError, TypeError):
        _refuse(f"{paths[-1]} is not an outcome; remove it and run the study again")


def _tally_of(verdicts: dict[str, str]) -> str:
    counts = {name: list(verdicts.values()).count(name) for name in VERDICT_MARKS}
    return ", ".join(
        f"{VERDICT_MARKS[name].replace(name, f'{count} {name}')}" for name, count in counts.items() if count
    )
