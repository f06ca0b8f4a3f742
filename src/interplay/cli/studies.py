"""The commands about studies: list, show, run, report."""

from __future__ import annotations

import json
import os
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from interplay import catalog
from interplay.cli.screen import VERDICT_MARKS, ProgressBar, output, print_outcome, refuse, verdict_counts

if TYPE_CHECKING:
    from interplay.evidence import Study


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
        verdicts = verdict_counts(last[system.slug]) or "[dim]not run yet[/]"
        table.add_row(system.slug, system.family, str(system.year), verdicts, system.summary)
    output.print(table)


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
    from interplay.evidence import Ledger, LedgerError, StudyError, run_all
    from interplay.evidence.ledger import export_evidence

    overrides = _settings(settings or [])
    chosen = _choose(slugs or [], family, all_systems)
    try:
        studies = [system.load_study() for system in chosen]
        planned = [(study, _for_device(study, overrides, device)) for study in studies]
        for study, settings_of_study in planned:
            study.configure(preset.value, settings_of_study)
        send = _tracker(track)
        runs = []
        with ProgressBar("trials", quiet=as_json) as bar:
            for result in run_all(
                planned,
                Ledger(ledger),
                preset=preset.value,
                seeds=seeds,
                jobs=jobs,
                backend=backend.value,
                on_progress=lambda now: bar.show(now.slug, now.finished, now.total, now.reused),
            ):
                runs.append(result)
                if not as_json:
                    with bar.hidden():
                        print_outcome(result)
                if send:
                    send(result)
                if evidence:
                    export_evidence(result.folder, evidence)
    except (StudyError, LedgerError) as error:
        refuse(str(error))
    if as_json:
        typer.echo(json.dumps([result.outcome.model_dump(mode="json") for result in runs], indent=2))
    if not all(result.outcome.succeeded for result in runs):
        raise typer.Exit(1)


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
        refuse(str(error))
    except OSError as error:
        refuse(f"cannot write the gallery to {out} ({error.strerror or error}); choose another folder with --out")
    output.print(f"gallery: {path.resolve()}", soft_wrap=True)
    if open_browser:
        webbrowser.open(path.resolve().as_uri())


def _choose(slugs: list[str], family: str | None, everything: bool) -> list[catalog.System]:
    if sum([bool(slugs), family is not None, everything]) != 1:
        refuse("say what to run, in one way: slugs, --family F or --all; `interplay list` shows the slugs")
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
            refuse(f"--set takes NAME=VALUE; got {pair!r}")
        settings[name] = _value(name, text)
    return settings


def _value(name: str, text: str) -> object:
    """Lists, mappings and null are JSON; anything else stays text, which the setting's own type parses."""
    if text != "null" and not text.startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        refuse(f"--set {name}: {text!r} is not JSON ({error.msg} at character {error.pos})")


def _for_device(study: Study, overrides: dict[str, object], device: str) -> dict[str, object]:
    if "device" in study.config.model_fields:
        return {"device": device, **overrides}
    if device != "auto":
        refuse(f"{study.slug} runs on the CPU only; leave out --device {device}")
    return overrides


def _tracker(name: TrackerName | None):
    if name is None:
        return None
    from interplay.evidence.tracking import mlflow_tracker

    return mlflow_tracker()


def _last_verdicts(ledger: Path, slug: str) -> dict[str, str]:
    """Verdicts of the newest run by claim; read without the harness, which would load pandas."""
    paths = sorted(ledger.glob(f"{slug}/*/outcome.json"), key=os.path.getmtime)
    if not paths:
        return {}
    try:
        return {claim["id"]: claim["verdict"] for claim in json.loads(paths[-1].read_text(encoding="utf-8"))["claims"]}
    except (ValueError, KeyError, TypeError):
        refuse(f"{paths[-1]} is not an outcome; remove it and run the study again")
