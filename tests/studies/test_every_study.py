"""Every study at preset smoke: repeatable to the bit, every claim has its measurements, the figure draws."""

import pandas as pd
import pytest
from matplotlib.figure import Figure

from interplay import catalog
from interplay.evidence import Verdict
from interplay.evidence.figures import figure_style, save_figure

pytestmark = pytest.mark.parametrize("slug", list(catalog.systems()))
_tables: dict[tuple[str, int], pd.DataFrame] = {}


def smoke(slug: str, seed: int) -> pd.DataFrame:
    """One trial at preset smoke, computed once for all tests."""
    if (slug, seed) not in _tables:
        study = catalog.find(slug).load_study()
        _tables[slug, seed] = study.run_trial(study.configure("smoke"), seed)
    return _tables[slug, seed]


def test_the_same_seed_gives_the_same_measurements(slug):
    study = catalog.find(slug).load_study()
    again = study.run_trial(study.configure("smoke"), 0)
    pd.testing.assert_frame_equal(again, smoke(slug, 0), check_exact=True)


def test_another_seed_gives_other_measurements(slug):
    one, other = smoke(slug, 0), smoke(slug, 1)
    assert not one["value"].equals(other["value"])


def test_every_claim_finds_its_measurements(slug):
    study = catalog.find(slug).load_study()
    measurements = pd.concat([smoke(slug, 0), smoke(slug, 1)], ignore_index=True)
    for claim in study.claims.values():
        verdict, findings = claim.judge(measurements)
        assert verdict in Verdict
        for finding in findings:
            assert finding.estimate.units > 0, f"{claim.id}: {finding.description}: {finding.estimate.reason}"


def test_the_figure_draws(slug, tmp_path):
    study = catalog.find(slug).load_study()
    with figure_style():
        figure = study.draw(pd.concat([smoke(slug, 0), smoke(slug, 1)], ignore_index=True))
    assert isinstance(figure, Figure)
    assert all(axes.has_data() for axes in figure.axes), "an empty panel"
    save_figure(figure, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").stat().st_size < 3 << 20, "a committed figure stays below 3 MB"


def test_presets_cover_the_settings(slug):
    study = catalog.find(slug).load_study()
    for preset in ("smoke", "cpu", "paper"):
        study.configure(preset)
    assert study.seeds["smoke"] <= study.seeds["cpu"] <= study.seeds["paper"]
    assert study.seeds["cpu"] >= 3
