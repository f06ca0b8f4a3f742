"""Studies refuse what is declared or called wrongly, in one line."""

import math

import pytest

from interplay.evidence import Measurement, Study, StudyConfig, StudyError, averaged, mean
from interplay.evidence.study import tabulate

from .coin_study import study

PRESETS = {"smoke": {}, "cpu": {}, "paper": {}}
SEEDS = {"smoke": 1, "cpu": 2, "paper": 3}


def test_presets_and_overrides():
    assert study.configure("smoke").tosses == 4
    assert study.configure("smoke", {"tosses": "7", "bias": "0.5"}).model_dump()["tosses"] == 7


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("huge", {}, "allowed are smoke, cpu, paper"),
        ("cpu", {"toses": 3}, "its settings are tosses, bias"),
        ("cpu", {"tosses": 0}, "tosses=0: Input should be greater than 0"),
        ("cpu", {"bias": "much"}, "bias='much'"),
        ("cpu", {"bias": math.nan}, "bias=nan"),
    ],
)
def test_wrong_settings(preset, overrides, message):
    with pytest.raises(StudyError, match=message) as caught:
        study.configure(preset, overrides)
    assert "\n" not in str(caught.value)


def test_every_preset_and_its_seeds_must_be_named():
    with pytest.raises(StudyError, match="presets must name exactly"):
        Study("s", StudyConfig, presets={"cpu": {}}, seeds=SEEDS)
    with pytest.raises(StudyError, match="seeds must name exactly"):
        Study("s", StudyConfig, presets=PRESETS, seeds={"cpu": 1})


def test_two_claims_of_one_name():
    new = Study("s", StudyConfig, presets=PRESETS, seeds=SEEDS)
    new.claim("C1", "s", paper="p", test=mean("m", "a").above(0))
    with pytest.raises(StudyError, match="two claims are called 'C1'"):
        new.claim("C1", "s", paper="p", test=mean("m", "a").above(0))


@pytest.mark.parametrize("bad", [("a", "m", 1.0), {"condition": "a"}, 3.0])
def test_a_trial_must_yield_measurements(bad):
    with pytest.raises(StudyError, match="must yield Measurement"):
        tabulate([bad], 0)


def test_infinity_is_refused_and_nan_is_kept():
    with pytest.raises(StudyError, match="is infinite"):
        tabulate([Measurement("a", "m", math.inf)], 0)
    assert tabulate([Measurement("a", "m", math.nan)], 0)["value"].isna().all()


def test_table_is_tidy_even_when_empty():
    table = tabulate([], 3)
    assert list(table.columns) == ["seed", "condition", "metric", "value", "step", "x", "item"]
    assert table.empty
    assert table.dtypes.equals(tabulate([Measurement("a", "m", 1)], 3).dtypes)


def test_what_is_not_declared_is_said():
    new = Study("s", StudyConfig, presets=PRESETS, seeds=SEEDS)
    with pytest.raises(StudyError, match="declares no trial"):
        new.run_trial(new.configure(), 0)
    with pytest.raises(StudyError, match="declares no figure"):
        new.draw(tabulate([], 0))


def test_repetitions_are_averaged():
    rows = [Measurement("a", "m", value, x=x) for value in (1.0, 3.0) for x in (0.0, 90.0)]
    assert averaged([*rows, Measurement("b", "m", 5.0)]) == [
        Measurement("a", "m", 2.0, x=0.0),
        Measurement("a", "m", 2.0, x=90.0),
        Measurement("b", "m", 5.0),
    ]
