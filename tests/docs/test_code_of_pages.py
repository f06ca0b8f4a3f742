"""What the documentation shows runs: a page's Python blocks, joined top to bottom, in a process of their own."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.main import get_command

from interplay import catalog
from interplay.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
BLOCK = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; one with a title is a file."""

    language: str
    title: str | None
    code: str


def blocks(page: Path) -> list[Block]:
    return [Block(**match.groupdict()) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def script_of(page: Path) -> str:
    return "\n".join(block.code for block in blocks(page) if block.language == "python" and not block.title)


def run(arguments: list[str], folder: Path, source: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(source), "MPLBACKEND": "agg"}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def checkout_with(files: list[Block], folder: Path) -> Path:
    """A copy of the project's source to which the page's files are added; those that exist grow."""
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for file in files:
        path = folder / file.title
        path.parent.mkdir(parents=True, exist_ok=True)
        present = path.read_text(encoding="utf-8") + "\n" if path.exists() else ""
        path.write_text(present + file.code, encoding="utf-8")
    return folder / "src"


@pytest.mark.parametrize("page", list(filter(script_of, PAGES)), ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_the_python_of_a_page_runs(page, tmp_path):
    files = [block for block in blocks(page) if block.title]
    source = checkout_with(files, tmp_path) if files else ROOT / "src"
    (tmp_path / "page.py").write_text(script_of(page), encoding="utf-8")
    done = run(["page.py"], tmp_path, source)
    assert done.returncode == 0, done.stderr


def test_the_worked_example_is_a_sound_system(tmp_path):
    """Its claims hold, its tests pass, and its files are as the project wants them."""
    files = [block for block in blocks(ROOT / "docs" / "add-a-system.md") if block.title]
    source = checkout_with(files, tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    written = [block.title for block in files if block.title.endswith(".py")]
    tests = [path for path in written if path.startswith("tests/")]
    assert {Path(path).parts[0] for path in written} == {"src", "tests"}
    for arguments in (
        ["-m", "pytest", *tests],
        ["-m", "ruff", "check", *written],
        ["-m", "ruff", "format", "--check", *written],
        [
            "-c",
            "import sys, interplay.cli as cli; sys.argv[1:] = ['run', 'minority-game', '--jobs', '1']; cli.main()",
        ],
    ):
        done = run(arguments, tmp_path, source)
        assert done.returncode == 0, done.stdout + done.stderr


CALLS = [
    (path.name, call)
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
    for call in re.findall(
        r"^\$ interplay ((?:run|show) .*?)(?: *#.*)?$", path.read_text(encoding="utf-8"), re.MULTILINE
    )
    if "minority-game" not in call
]


@pytest.mark.parametrize(("page", "call"), CALLS)
def test_commands_on_a_page_name_systems_options_and_settings_that_exist(page, call):
    command, slug, *options = shlex.split(call)
    study = catalog.find(slug).load_study()
    known = {name for parameter in get_command(app).commands[command].params for name in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    settings = [value for option, value in pairwise(options) if option == "--set"]
    study.configure("cpu", dict(setting.split("=", 1) for setting in settings))
