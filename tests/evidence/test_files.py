import os
import socket
import stat
import subprocess
import sys

import pytest

from interplay.evidence.files import remove_leftovers, write_atomically, write_text_atomically


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.txt"
    write_text_atomically(path, "old")

    def write_half(part):
        part.write_text("ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, write_half)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "ordinary").write_text("")
    write_text_atomically(tmp_path / "atomic", "")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "atomic")}
    assert len(modes) == 1


def test_leftovers_of_dead_writers_go_and_those_of_living_ones_stay(tmp_path):
    finished = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, living = int(finished.stdout), os.getpid()
    folder = tmp_path / "trials"
    folder.mkdir()
    parts = {pid: folder / f".00001.parquet.{socket.gethostname()}.{pid}.abc.part" for pid in (dead, living)}
    elsewhere = folder / f".00001.parquet.another-host.{dead}.abc.part"
    for path in (*parts.values(), elsewhere):
        path.write_text("half")
    remove_leftovers(tmp_path)
    assert not parts[dead].exists()
    assert parts[living].exists()
    assert elsewhere.exists()
