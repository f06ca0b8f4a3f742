"""The catalog is complete: every system stands in its four places, and every module of a study is in the catalog."""

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import interplay.studies
from interplay import catalog
from interplay.evidence.ledger import read_outcome

ROOT = Path(__file__).parents[1]
SYSTEMS = list(catalog.systems().values())


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.slug)
def test_a_system_stands_in_its_four_places(system):
    assert find_spec(system.module), "mechanism"
    study = system.load_study()
    assert study.slug == system.slug
    assert study.claims, "a study without claims shows nothing"
    name = system.slug.replace("-", "_")
    assert list((ROOT / "tests" / system.family).glob(f"test_{name}*.py")), "tests of the mechanism"
    assert (ROOT / "docs" / "systems" / f"{system.slug}.md").exists(), "reading notes"
    assert (ROOT / "evidence" / f"{system.slug}.json").exists(), "evidence"


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.slug)
def test_the_import_line_works(system):
    names: dict[str, object] = {}
    exec(system.import_line, names)
    assert set(system.mechanism) <= set(names)


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.slug)
def test_every_setting_is_described(system):
    for name, field in system.load_study().config.model_fields.items():
        assert field.description, f"{system.slug}: setting {name} has no description"


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.slug)
def test_the_evidence_is_that_of_the_study(system):
    study = system.load_study()
    outcome = read_outcome(ROOT / "evidence" / f"{system.slug}.json")
    assert (outcome.slug, outcome.preset, outcome.seeds) == (system.slug, "cpu", study.seeds["cpu"])
    assert outcome.config == study.configure("cpu").model_dump(mode="json")
    thresholds = {claim.id: claim.test.threshold for claim in study.claims.values()}
    assert {claim.id: "; ".join(part.threshold for part in claim.parts) for claim in outcome.claims} == thresholds
    assert not outcome.failures


def test_no_study_is_missing_from_the_catalog():
    names = [module.name for module in pkgutil.iter_modules(interplay.studies.__path__)]
    # What several studies share, such as one loop on one data set, stands beside them and holds no study.
    studies = {name for name in names if hasattr(import_module(f"interplay.studies.{name}"), "study")}
    assert studies == {slug.replace("-", "_") for slug in catalog.systems()}


def test_unknown_names_get_the_nearest():
    with pytest.raises(catalog.UnknownSystemError, match="did you mean factual-recall"):
        catalog.find("factual-recal")
    with pytest.raises(catalog.UnknownSystemError, match="the families are"):
        catalog.in_family("circus")


def test_a_missing_extra_names_the_install_command(monkeypatch):
    monkeypatch.setattr(catalog, "_is_installed", lambda module: module != "gguf")
    with pytest.raises(catalog.MissingExtraError, match=r"gguf not installed.*pip install 'interplay\[llm\]'"):
        catalog.find("factual-recall").load_study()
