"""Rewrite what the README shows of catalog and evidence: `python docs/readme.py [--check]`."""

from __future__ import annotations

import io
import sys

from rich.console import Console
from system_pages import ROOT, evidence, systems_table

from interplay.cli.screen import claims_listed

SHOWN = "nhl"


def current(readme: str) -> str:
    """The README with what stands between its markers replaced."""
    readme = _between(readme, "systems", systems_table("docs/systems/{}.md", "evidence/{}.json"))
    return _between(readme, "verdicts", f"```text\n{_verdicts(SHOWN)}\n```\n")


def _between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not found_start or not found_end:
        sys.exit(f"README.md has no {start} followed by {end}; put both where the {name} belong")
    return f"{before}{start}\n\n{content}\n{end}{after}"


def _verdicts(slug: str) -> str:
    """What `interplay run` prints for the committed outcome."""
    outcome = evidence(slug)
    if outcome is None:
        return "not run yet"
    console = Console(file=io.StringIO(), width=110, color_system=None)
    console.print(claims_listed(outcome))
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def main() -> None:
    """Rewrite the README, or with --check say whether it is current."""
    path = ROOT / "README.md"
    present = path.read_text(encoding="utf-8")
    wanted = current(present)
    if sys.argv[1:] == ["--check"]:
        if present != wanted:
            sys.exit("the README is out of date: python docs/readme.py")
    elif present != wanted:
        path.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
