"""The fingerprint changes with code that can change a trial's numbers, and with nothing else."""

import importlib
import sys

import pytest

import interplay.evidence.fingerprint as module

FILES = {
    "__init__": "",
    "study": '''
"""A study."""
from interplay.evidence import Measurement, Study, StudyConfig, mean
from typing import TYPE_CHECKING
from somewhere.lazy import late
from somewhere.mechanism import rule
if TYPE_CHECKING:
    from somewhere.other import x

presets = {"smoke": {}, "cpu": {}, "paper": {}}
study = Study("s", StudyConfig, presets=presets, seeds={"smoke": 1, "cpu": 1, "paper": 1})

@study.trial
def trial(config, seed):
    yield Measurement("a", "m", rule(seed))

study.claim("C", "s", paper="p", test=mean("m", "a").above(0))

@study.figure
def figure(measurements):
    from somewhere.panels import panel
    return 1
''',
    "mechanism": '''
from .parts import piece

def rule(seed):
    """A rule."""
    return piece(seed)
''',
    "parts": "def piece(seed):\n    return 2 * seed\n",
    "lazy": """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from somewhere.behind import late
    from somewhere.unused import never

def __getattr__(name):
    from importlib import import_module
    return getattr(import_module("somewhere.behind"), name)
""",
    "behind": "late = 1\n",
    "unused": "never = 1\n",
    "panels": "def panel():\n    return 1\n",
    "other": "x = 1\n",
}


@pytest.fixture
def fingerprint_of(tmp_path, monkeypatch):
    """Write the package with one text replaced and return its study's fingerprint, as a fresh interpreter would."""

    def write(file="study", old="", new=""):
        folder = tmp_path / f"variant{len(list(tmp_path.iterdir()))}" / "somewhere"
        folder.mkdir(parents=True)
        for name, text in FILES.items():
            assert file != name or old in text
            (folder / f"{name}.py").write_text(text.replace(old, new) if name == file and old else text)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder.parent)
            module._parse.cache_clear()
            module._source.cache_clear()
            try:
                return module.fingerprint(importlib.import_module("somewhere.study").study)
            finally:
                for name in [name for name in sys.modules if name.partition(".")[0] == "somewhere"]:
                    del sys.modules[name]

    return write


def test_what_counts(fingerprint_of):
    before = fingerprint_of()
    assert len(before) == 12
    assert fingerprint_of() == before
    for file, old, new in [
        ("study", "rule(seed))", "rule(seed + 1))"),
        ("mechanism", "return piece(seed)", "return -piece(seed)"),
        ("parts", "2 * seed", "3 * seed"),
        ("behind", "late = 1", "late = 2"),
    ]:
        assert fingerprint_of(file, old, new) != before, f"{file}: {new} must count"
    for file, old, new in [
        ("study", "above(0)", "above(1)"),
        ("study", "return 1", "return 2"),
        ("study", '"""A study."""', '"""Another docstring."""'),
        ("mechanism", '"""A rule."""', '"""The rule."""'),
        ("parts", "    return", "    # why\n    return"),
        ("panels", "return 1", "return 2"),
        ("other", "x = 1", "x = 2"),
        ("lazy", "from somewhere.unused import never", "from somewhere.unused import never, later"),
        ("unused", "never = 1", "never = 2"),
    ]:
        assert fingerprint_of(file, old, new) == before, f"{file}: {new} must not count"
