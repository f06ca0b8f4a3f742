"""The text of what is generated about systems: their pages, the overview, the table of the README."""

from __future__ import annotations

import ast
import html
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from interplay import catalog
from interplay.catalog import MissingExtraError, System
from interplay.evidence import Outcome, Study, Verdict
from interplay.evidence.ledger import read_outcome
from interplay.evidence.report import SYMBOLS, claims_table, in_markdown
from interplay.evidence.study import PRESETS

ROOT = Path(__file__).parent.parent
EVIDENCE = ROOT / "evidence"
_PLURAL = {Verdict.HOLDS: "hold", Verdict.FAILS: "fail"}


def evidence(slug: str) -> Outcome | None:
    """The committed outcome of a study, where there is one."""
    path = EVIDENCE / f"{slug}.json"
    return read_outcome(path) if path.exists() else None


def verdicts(outcome: Outcome | None) -> str:
    """How many claims have each verdict, as text."""
    if outcome is None:
        return "not run yet"
    counts = Counter(claim.verdict for claim in outcome.claims)
    parts = [
        f"{SYMBOLS[verdict]} {counts[verdict]} {verdict if counts[verdict] == 1 else _PLURAL.get(verdict, verdict)}"
        for verdict in Verdict
        if counts[verdict]
    ]
    return ", ".join([*parts, *([f"! {len(outcome.failures)} raised"] if outcome.failures else [])])


def systems_table(page_of: str, evidence_of: str | None = None) -> str:
    """All systems as a Markdown table; the arguments are addresses with the slug as `{}`."""
    rows = []
    for system in catalog.systems().values():
        outcome = evidence(system.slug)
        shown = verdicts(outcome)
        if outcome and evidence_of:
            shown = f"[{shown}]({evidence_of.format(system.slug)})"
        paper = f"{in_markdown(_short(system.authors))} [{system.year}]({system.paper_url})"
        name = f"[`{system.slug}`]({page_of.format(system.slug)})"
        rows.append([name, system.family, in_markdown(system.summary), paper, shown])
    return _table(["System", "Family", "What it is", "Paper", "Claims here"], rows)


def overview() -> str:
    """The page that lists all systems."""
    return (
        "# Systems\n\nThe verdicts are those of preset `cpu`; "
        "[how to read them](../evidence.md) says what they mean and what not.\n\n" + systems_table("{}.md")
    )


def page(system: System, notes: str) -> str:
    """The page of a system; its hand-written notes stand between what was measured and the reference."""
    needs = f" · needs the extra `{system.extra}`" if system.extra else ""
    sections = [
        f"# {in_markdown(system.title)}",
        f"{in_markdown(system.authors)}, {system.year} · [arXiv:{system.arxiv}]({system.paper_url})"
        f" · family {system.family}{needs}",
        f"**{in_markdown(system.summary)}**",
        f"```python\n{_wrapped(system)}\n```",
        f"## Claims\n\n{_claims(system)}",
    ]
    if (EVIDENCE / f"{system.slug}.svg").exists():
        sections.append(f"![Figure of the study {system.slug}]({system.slug}.svg)")
    if notes.strip():
        sections.append(notes.strip())
    if settings := _settings(system):
        sections.append(f"## Settings\n\n{settings}")
    if source := _source(system.module):
        sections.append(f"## Reference\n\n{_docstring(source)}")
        sections += [f"::: {system.module}.{name}" for name in system.mechanism]
    return "\n\n".join(sections) + "\n"


def _claims(system: System) -> str:
    outcome = evidence(system.slug)
    run = f"```console\n$ interplay run {system.slug}\n```"
    if outcome is None:
        return f"The study has not been run at preset `cpu` yet.\n\n{run}"
    machine = outcome.environment
    source = (
        f"Preset `{outcome.preset}`, {outcome.seeds} seeds, {outcome.finished:%d %B %Y}, "
        f"{outcome.trial_seconds:.0f} s of trials on {machine.cores} cores of {machine.system}, "
        f"Python {machine.python}, torch {machine.packages.get('torch', '?')}. "
        "[How to read this](../evidence.md). Run it again:"
    )
    parts = [f'<div class="claims" markdown>\n\n{claims_table(outcome)}\n</div>', source, run]
    if outcome.caveat:
        parts.insert(1, f'!!! note "Mind"\n    {in_markdown(outcome.caveat)}')
    if outcome.failures:
        lines = "".join(
            f"\n    - {'figure' if failure.seed is None else f'seed {failure.seed}'}: {in_markdown(failure.error)}"
            for failure in outcome.failures
        )
        parts.insert(1, f'!!! failure "Raised an error"\n{lines}')
    return "\n\n".join(parts)


def _settings(system: System) -> str:
    """The study's settings with their values in every preset; empty where the study cannot be imported here."""
    if _source(system.study_module) is None:
        return ""
    try:
        study = system.load_study()
    except MissingExtraError:
        return f"Install the extra `{system.extra}` to build this table."
    return settings_table(study)


def settings_table(study: Study) -> str:
    """A study's settings as a Markdown table."""
    configs = [study.configure(preset) for preset in PRESETS]
    rows = [["seeds (`--seeds`)", "number of trials", *(_code(study.seeds[preset]) for preset in PRESETS)]]
    for name, field in study.config.model_fields.items():
        values = [_code(_plain(getattr(config, name))) for config in configs]
        rows.append([_code(name), in_markdown(field.description or ""), *values])
    return _table(["Setting (`--set`)", "Meaning", *(f"`{preset}`" for preset in PRESETS)], rows)


def _plain(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _code(value: object) -> str:
    return f"<code>{in_markdown(str(value))}</code>"


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _short(authors: str) -> str:
    """The first author, and whether there are more."""
    first, *others = re.split(r",\s*", authors)
    return f"{first} et al." if len(others) > 1 else authors.replace(", ", " and ")


def _wrapped(system: System) -> str:
    """The import line, on several lines where it is long."""
    if len(system.import_line) <= 88:
        return system.import_line
    names = "".join(f"    {name},\n" for name in system.mechanism)
    return f"from {system.module} import (\n{names})"


def _docstring(source: Path) -> str:
    """A module's docstring as it stands: its equations and tables are aligned text."""
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return (
        '<details class="docstring"><summary>The module in its own words: equations, choices, differences</summary>'
        f"<pre><code>{html.escape(text)}</code></pre></details>"
    )


def _source(module: str) -> Path | None:
    """A module's file, without importing it; None where there is no such module."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None
