"""The cache: one folder an entry, made whole or not at all, checked whenever it is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
from filelock import FileLock

__all__ = ["CacheError", "cache_directory", "cached_entry", "file_sha256", "make_whole"]

_MANIFEST = "manifest.json"


class CacheError(RuntimeError):
    """An entry of the cache is damaged; the message says which file and how to mend it."""


def cache_directory() -> Path:
    """Folder of everything that is made once a machine: `$INTERPLAY_CACHE`, else the user's own cache folder."""
    if chosen := os.environ.get("INTERPLAY_CACHE"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("interplay", appauthor=False)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_whole(folder: Path, make: Callable[[Path], None]) -> None:
    """Make `folder` with `make(temporary folder)` unless it is there: whole or not at all.

    The files are written into a temporary folder beside it, which gets its name in one step: a run that is killed
    half-way leaves no `folder`, and its leftovers go when the folder is made next. A lock keeps a second process from
    doing the same work; it waits and then finds the folder.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{folder.name}-"
    with FileLock(folder.parent / f".{folder.name}.lock"):
        if folder.exists():
            return
        for leftover in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            make(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def cached_entry(name: str, make: Callable[[Path], None]) -> Path:
    """Folder of the cache entry `name`, which `make(folder)` fills if it is not there yet (see `make_whole`).

    Parameters
    ----------
    name
        Folder name; it should change whenever the content does (put a version or a checksum into it).
    make
        Writes the files (no sub-folders) into the folder it is given. Their checksums are recorded with them.

    Raises
    ------
    CacheError
        A file is missing, or its size or SHA-256 differs from what was recorded when it was made.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ValueError(f"name={name!r} must be a plain folder name without a leading dot")

    def make_with_manifest(folder: Path) -> None:
        make(folder)
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in sorted(folder.iterdir())
        }
        (folder / _MANIFEST).write_text(json.dumps(files, indent=2), encoding="utf-8")

    entry = cache_directory() / name
    make_whole(entry, make_with_manifest)
    _verify(entry)
    return entry


def _verify(entry: Path) -> None:
    mend = f"remove the folder {entry} and load again to make it anew"
    try:
        files = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CacheError(f"{entry / _MANIFEST} cannot be read ({error}); {mend}") from error
    for name, recorded in files.items():
        file = entry / name
        if not file.is_file():
            raise CacheError(f"{file} is missing; {mend}")
        if (size := file.stat().st_size) != recorded["bytes"]:
            raise CacheError(f"{file} has {size} bytes, {recorded['bytes']} were recorded; {mend}")
        if file_sha256(file) != recorded["sha256"]:
            raise CacheError(f"the SHA-256 of {file} differs from the recorded one; {mend}")
