"""Files written beside their place and moved there in one step: no half files are read, a killed writer leaves none."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there."""
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.{socket.gethostname()}.{os.getpid()}.", suffix=".part"
    )
    os.close(handle)
    part = Path(name)
    try:
        write(part)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def remove_leftovers(folder: Path) -> None:
    """Remove what writers of this host left anywhere below `folder` when they were killed."""
    for path in folder.rglob(f".*.{socket.gethostname()}.*.part"):
        writer = int(path.name.split(".")[-3])
        if not _is_alive(writer):
            path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
