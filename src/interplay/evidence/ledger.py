"""The ledger: a folder of plain files where runs are kept.

::

    <ledger>/<slug>/<preset>-<key>/
        run.json               settings, code fingerprint, versions
        trials/00003.parquet   one finished trial: its measurements
        trials/00004.error.json  one that raised
        measurements.parquet   all finished trials
        outcome.json           claims with verdicts
        figure.svg

Every file is written beside its place and moved there in one step, so a reader never sees half a file and a killed
writer leaves none. The key is a hash of what decides the numbers (settings, code, versions): several processes may
write the same run, since they write the same content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pydantic import ValidationError

from interplay.evidence.figures import save_figure
from interplay.evidence.files import remove_leftovers, write_atomically, write_text_atomically
from interplay.evidence.outcome import Environment, Failure, Outcome
from interplay.evidence.study import Preset, StudyConfig


class LedgerError(OSError):
    """The ledger's folder cannot be used; the message says what to do."""


class Ledger:
    """A folder of runs.

    Parameters
    ----------
    folder
        Made when the first run is opened.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def open(
        self, slug: str, preset: Preset, config: StudyConfig, fingerprint: str, environment: Environment
    ) -> RunFolder:
        """The folder of the run that these settings, this code and these versions decide; made if it is not there.

        Raises
        ------
        LedgerError
            If the folder cannot be written.
        """
        identity = {
            "slug": slug,
            "preset": preset,
            "config": config.model_dump(mode="json"),
            "fingerprint": fingerprint,
            "python": environment.python,
            "packages": environment.packages,
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        run = RunFolder(self.folder / slug / f"{preset}-{key}")
        try:
            run.trials.mkdir(parents=True, exist_ok=True)
            remove_leftovers(run.path)
            write_text_atomically(run.path / "run.json", json.dumps(identity, indent=2))
        except OSError as error:
            raise LedgerError(
                f"cannot write to the ledger {self.folder} ({error.strerror or error}); "
                "choose another folder with --ledger or INTERPLAY_LEDGER"
            ) from None
        return run

    def runs(self, slug: str | None = None) -> Iterator[RunFolder]:
        """Concluded runs, newest first."""
        found = []
        for path in self.folder.glob(f"{slug or '*'}/*/outcome.json"):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, RunFolder(path.parent)))
        for _, run in sorted(found, key=lambda pair: pair[0], reverse=True):
            yield run


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials = path / "trials"

    def finished_trials(self) -> dict[int, pd.DataFrame]:
        """Tables of the finished trials by seed; a file that is not a whole Parquet table counts as not finished."""
        tables = {}
        for path in sorted(self.trials.glob("[0-9]*.parquet")):
            try:
                tables[int(path.stem)] = pd.read_parquet(path)
            except (OSError, ValueError):
                # A foreign or damaged file: the trial is computed again and the file replaced.
                continue
        return tables

    def write_trial(self, seed: int, table: pd.DataFrame, seconds: float) -> None:
        """Keep a finished trial."""
        table.attrs = {"seconds": seconds}
        write_atomically(self.trials / f"{seed:05d}.parquet", lambda path: table.to_parquet(path, index=False))
        (self.trials / f"{seed:05d}.error.json").unlink(missing_ok=True)

    def write_failure(self, failure: Failure) -> None:
        """Keep the traceback of a trial that raised."""
        name = "figure" if failure.seed is None else f"{failure.seed:05d}"
        write_text_atomically(self.trials / f"{name}.error.json", failure.model_dump_json(indent=2))

    def write_measurements(self, measurements: pd.DataFrame) -> None:
        """Keep the table of all trials."""
        write_atomically(self.path / "measurements.parquet", lambda path: measurements.to_parquet(path, index=False))

    def write_figure(self, figure: Figure) -> None:
        """Keep the figure."""
        write_atomically(self.path / "figure.svg", lambda path: save_figure(figure, path))

    def write_outcome(self, outcome: Outcome) -> None:
        """Keep the verdicts; a run with an outcome is concluded."""
        write_text_atomically(self.path / "outcome.json", outcome.model_dump_json(indent=2))

    def outcome(self) -> Outcome:
        """The verdicts.

        Raises
        ------
        LedgerError
            If the file is not an outcome.
        """
        return read_outcome(self.path / "outcome.json")

    def measurements(self) -> pd.DataFrame:
        """The table of all trials."""
        return pd.read_parquet(self.path / "measurements.parquet")

    def figure(self) -> str | None:
        """The figure as SVG text, where there is one."""
        path = self.path / "figure.svg"
        return path.read_text(encoding="utf-8") if path.exists() else None


def read_outcome(path: Path) -> Outcome:
    """Read an outcome file.

    Raises
    ------
    LedgerError
        If the file cannot be read or is not an outcome.
    """
    try:
        return Outcome.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        first_line = str(error).splitlines()[0]
        raise LedgerError(f"{path} is not an outcome ({first_line}); remove it and run the study again") from None


def export_evidence(run: RunFolder, folder: Path) -> None:
    """Copy a run's outcome and figure to `<folder>/<slug>.json` and `.svg`, to be committed."""
    outcome = run.outcome()
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / f"{outcome.slug}.json", outcome.model_dump_json(indent=2) + "\n")
    if figure := run.figure():
        write_text_atomically(folder / f"{outcome.slug}.svg", figure)
