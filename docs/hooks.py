"""What mkdocs calls while it builds the site: a generated page a system, its figure, its place in the navigation."""

from __future__ import annotations

from itertools import groupby

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from system_pages import EVIDENCE, overview, page

from interplay import catalog


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the systems into the navigation, by family."""
    systems = sorted(catalog.systems().values(), key=lambda system: system.family)
    families = [
        {family.capitalize(): [{system.slug: f"systems/{system.slug}.md"} for system in members]}
        for family, members in groupby(systems, key=lambda system: system.family)
    ]
    config.nav = [*(config.nav or []), {"Systems": ["systems/index.md", *families]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; a system's hand-written notes become the end of its page."""
    _add(files, File.generated(config, "systems/index.md", content=overview()))
    for system in catalog.systems().values():
        notes = files.get_file_from_path(f"systems/{system.slug}.md")
        text = page(system, notes.content_string if notes else "")
        _add(files, File.generated(config, f"systems/{system.slug}.md", content=text))
        figure = EVIDENCE / f"{system.slug}.svg"
        if figure.exists():
            _add(files, File.generated(config, f"systems/{system.slug}.svg", abs_src_path=str(figure)))
    return files


def _add(files: Files, file: File) -> None:
    if (present := files.get_file_from_path(file.src_uri)) is not None:
        files.remove(present)
    files.append(file)
