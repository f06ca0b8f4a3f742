"""The cache must never show a half-made or damaged entry, whoever is killed and whoever else is running."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interplay.assets.cache import CacheError, cache_directory, cached_entry


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INTERPLAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_two_files(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "note.txt").write_text("hello", encoding="utf-8")


def visible(cache: Path) -> list[str]:
    return [entry.name for entry in cache.iterdir() if not entry.name.startswith(".")]


def test_directory_follows_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory() == cache
    monkeypatch.delenv("INTERPLAY_CACHE")
    assert cache_directory().name == "interplay"


def test_made_once_then_found(cache: Path) -> None:
    calls = []

    def make(folder: Path) -> None:
        calls.append(folder)
        make_two_files(folder)

    first = cached_entry("thing-1", make)
    second = cached_entry("thing-1", make)
    assert first == second == cache / "thing-1"
    assert len(calls) == 1
    assert (first / "note.txt").read_text(encoding="utf-8") == "hello"


def test_a_failing_maker_leaves_nothing(cache: Path) -> None:
    def fail(folder: Path) -> None:
        make_two_files(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached_entry("thing", fail)
    assert visible(cache) == []
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_a_kill_half_way_leaves_no_entry_and_its_leftovers_go(cache: Path) -> None:
    script = (
        "import os, signal\n"
        "from interplay.assets.cache import cached_entry\n"
        "def make(folder):\n"
        "    (folder / 'weights.bin').write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cached_entry('thing', make)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], env=os.environ.copy(), check=False)
    assert killed.returncode != 0
    assert visible(cache) == []
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1

    entry = cached_entry("thing", make_two_files)
    assert (entry / "note.txt").exists()
    assert [folder.name for folder in cache.iterdir() if folder.is_dir()] == ["thing"]


def test_two_processes_do_the_work_once(cache: Path, tmp_path: Path) -> None:
    script = (
        "import sys, time, uuid\n"
        "from pathlib import Path\n"
        "from interplay.assets.cache import cached_entry\n"
        "def make(folder):\n"
        "    (Path(sys.argv[1]) / f'made-{uuid.uuid4()}').touch()\n"
        "    time.sleep(0.5)\n"
        "    (folder / 'weights.bin').write_bytes(b'whole')\n"
        "assert (cached_entry('thing', make) / 'weights.bin').read_bytes() == b'whole'\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=os.environ.copy()) for _ in "12"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert len(list(tmp_path.glob("made-*"))) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda entry: (entry / "weights.bin").unlink(), r"weights\.bin is missing.*remove the folder"),
        (lambda entry: (entry / "weights.bin").write_bytes(b"short"), r"weights\.bin has 5 bytes, 10240 were recorded"),
        (lambda entry: (entry / "note.txt").write_text("jello"), r"SHA-256 of .*note\.txt differs.*remove the folder"),
        (lambda entry: (entry / "manifest.json").write_text("{"), r"manifest\.json cannot be read.*remove the folder"),
    ],
)
def test_damage_is_refused(damage, message: str) -> None:
    damage(cached_entry("thing", make_two_files))
    with pytest.raises(CacheError, match=message):
        cached_entry("thing", make_two_files)


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden"])
def test_names_stay_inside_the_cache(name: str) -> None:
    with pytest.raises(ValueError, match="plain folder name"):
        cached_entry(name, make_two_files)
