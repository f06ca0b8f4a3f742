"""The one list of systems, read from `catalog.toml`. Imports nothing heavy: `interplay list` answers in a blink."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interplay.evidence import Study

# For each extra, a module that is there exactly when the extra is installed.
_EXTRA_PROBES = {
    "llm": ("transformers", "tokenizers", "safetensors", "gguf"),
    "rl": ("gymnasium", "mujoco", "dm_control", "stable_baselines3"),
}


class UnknownSystemError(LookupError):
    """No system of that slug or family; the message names the nearest."""


class MissingExtraError(ImportError):
    """A system's optional dependencies are not installed; the message says how to install them."""


@dataclass(frozen=True)
class System:
    """One published system: its catalog entry."""

    slug: str
    title: str
    authors: str
    year: int
    arxiv: str
    family: str
    mechanism: tuple[str, ...]
    summary: str
    extra: str | None = None

    @property
    def module(self) -> str:
        """Dotted name of the mechanism's module."""
        return f"interplay.{self.family}.{self._name}"

    @property
    def study_module(self) -> str:
        """Dotted name of the study's module."""
        return f"interplay.studies.{self._name}"

    @property
    def import_line(self) -> str:
        """How to import the mechanism."""
        return f"from {self.module} import {', '.join(self.mechanism)}"

    @property
    def paper_url(self) -> str:
        """Where the paper is."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def _name(self) -> str:
        return self.slug.replace("-", "_")

    def load_study(self) -> Study:
        """Import the study.

        Raises
        ------
        MissingExtraError
            Where the system's extra is not installed.
        """
        missing = [name for name in _EXTRA_PROBES.get(self.extra or "", ()) if not _is_installed(name)]
        if missing:
            raise MissingExtraError(
                f"{self.slug} needs the extra {self.extra!r} ({', '.join(missing)} not installed): "
                f"pip install 'interplay[{self.extra}]'"
            )
        study: Study = importlib.import_module(self.study_module).study
        return study


@cache
def systems() -> Mapping[str, System]:
    """All systems by slug, in the catalog's order."""
    entries = tomllib.loads(files("interplay").joinpath("catalog.toml").read_text(encoding="utf-8"))
    return MappingProxyType(
        {
            slug: System(slug=slug, **{**entry, "mechanism": tuple(entry["mechanism"])})
            for slug, entry in entries.items()
        }
    )


def find(slug: str) -> System:
    """The system of that slug.

    Raises
    ------
    UnknownSystemError
        With the nearest slugs.
    """
    if slug in systems():
        return systems()[slug]
    nearest = difflib.get_close_matches(slug, systems(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else "see `interplay list`"
    raise UnknownSystemError(f"no system is called {slug!r}; {hint}")


def in_family(family: str) -> list[System]:
    """The systems of a family.

    Raises
    ------
    UnknownSystemError
        With the families that exist.
    """
    families = sorted({system.family for system in systems().values()})
    if family not in families:
        raise UnknownSystemError(f"no family is called {family!r}; the families are {', '.join(families)}")
    return [system for system in systems().values() if system.family == family]


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
