"""Rewrite the README's table of systems from the catalog and the evidence: `python docs/readme_table.py [--check]`."""

from __future__ import annotations

import sys

from system_pages import ROOT, systems_table

START, END = "<!-- systems -->", "<!-- /systems -->"


def with_table(readme: str) -> str:
    """The README with what stands between its two markers replaced."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        sys.exit(f"README.md has no {START} followed by {END}; put both where the table belongs")
    table = systems_table("docs/systems/{}.md", "evidence/{}.json")
    return f"{before}{START}\n\n{table}\n{END}{after}"


def main() -> None:
    """Rewrite the table, or with --check say whether it is current."""
    path = ROOT / "README.md"
    present = path.read_text(encoding="utf-8")
    current = with_table(present)
    if sys.argv[1:] == ["--check"]:
        if present != current:
            sys.exit("the README's table of systems is out of date: python docs/readme_table.py")
    elif present != current:
        path.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
