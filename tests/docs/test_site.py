"""The site builds without a warning and without the network; what is generated from the evidence is current."""

import ast
import importlib.util
import math
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from interplay import catalog
from interplay.evidence.claims import Verdict
from interplay.evidence.outcome import Environment, JudgedClaim, JudgedPart, Outcome

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def pages(monkeypatch):
    """The module that writes the generated pages."""
    spec = importlib.util.spec_from_file_location("system_pages", ROOT / "docs" / "system_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_current():
    done = run("docs/readme.py", "--check")
    assert done.returncode == 0, done.stderr


def test_every_system_has_its_page(site):
    overview = (site / "systems" / "index.html").read_text(encoding="utf-8")
    for system in catalog.systems().values():
        page = (site / "systems" / system.slug / "index.html").read_text(encoding="utf-8")
        assert system.title in page
        assert system.paper_url in page
        assert f'href="{system.slug}/"' in overview
        notes = ROOT / "docs" / "systems" / f"{system.slug}.md"
        for heading in re.findall(r"^## (.+)$", notes.read_text(encoding="utf-8"), re.M) if notes.exists() else []:
            assert heading in page


def test_the_site_loads_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:link|script|img|iframe)\b[^>]*?\b(?:href|src)=[\"']?(?:https?:)?//[^\s\"'>]+", html)
        assert loaded == [], path
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.search(r"url\([\"']?(?:https?:)?//|@import", styles)


def test_the_source_of_generated_pages_is_not_published(site):
    assert list(site.rglob("*.py")) == []


def test_a_page_shows_evidence_figure_and_notes_in_order(pages, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "EVIDENCE", tmp_path)
    system = next(iter(catalog.systems().values()))
    part = JudgedPart(
        description="error: a - b",
        threshold="< 0",
        regions=((-math.inf, 0.0),),
        effect=-0.125,
        low=-0.25,
        high=-0.0625,
        units=5,
        kind="paired difference",
        reason="",
        verdict=Verdict.HOLDS,
    )
    claim = JudgedClaim(
        id="c", sentence="It is lower.", paper="direction only", label=None, verdict=Verdict.HOLDS, parts=[part]
    )
    outcome = Outcome(
        slug=system.slug,
        preset="cpu",
        seeds=5,
        config={},
        caveat="Small.",
        claims=[claim],
        failures=[],
        environment=Environment(python="3.12", packages={"torch": "2.13.0"}, system="Linux", cores=2),
        fingerprint="0",
        finished=datetime(2026, 11, 23, tzinfo=UTC),
        trial_seconds=9,
    )
    before = pages.page(system, "## What it is\n\nNotes.")
    assert "has not been run" in before
    assert pages.verdicts(pages.evidence(system.slug)) == "not run yet"

    (tmp_path / f"{system.slug}.json").write_text(outcome.model_dump_json(), encoding="utf-8")
    (tmp_path / f"{system.slug}.svg").write_text("<svg/>", encoding="utf-8")
    after = pages.page(system, "## What it is\n\nNotes.")
    order = [
        f"# {system.title}",
        f"from {system.module} import",
        "It is lower.",
        "-0.125",
        "Small.",
        f"({system.slug}.svg)",
        "## What it is",
    ]
    positions = [after.index(text) for text in order]
    assert positions == sorted(positions)
    assert "✓ 1 holds" in pages.systems_table("{}.md")


def test_the_import_on_a_page_is_the_catalogs(pages):
    for system in catalog.systems().values():
        shown = re.search(r"```python\n(.*?)\n```", pages.page(system, ""), re.DOTALL)[1]
        assert ast.dump(ast.parse(shown)) == ast.dump(ast.parse(system.import_line))


def test_settings_are_shown_for_every_preset(pages):
    from pydantic import Field

    from interplay.evidence import Study, StudyConfig

    class Config(StudyConfig):
        rates: tuple[float, ...] = Field((0.1, 0.2), description="a | b")

    presets = {"smoke": {"rates": (0.5,)}, "cpu": {}, "paper": {}}
    table = pages.settings_table(Study("x", Config, presets=presets, seeds={"smoke": 1, "cpu": 3, "paper": 9}))
    _, _, seeds, rates = table.splitlines()
    assert re.findall(r"<code>(.*?)</code>", seeds) == ["1", "3", "9"]
    assert re.findall(r"<code>(.*?)</code>", rates) == ["rates", "0.5", "0.1, 0.2", "0.1, 0.2"]
    assert rates.count("|") == 6


def test_the_citation_names_the_version_that_is_here():
    from interplay import __version__

    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
