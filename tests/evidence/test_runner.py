"""Runs: parallel and serial agree, finished trials stay, failures are recorded, a kill leaves nothing half-written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from interplay.evidence import Ledger, LedgerError, StudyError, Verdict, run, run_all
from interplay.evidence.ledger import export_evidence, read_outcome

from .coin_study import study

HERE = Path(__file__).parent


def seeds_in(diary: Path) -> list[int]:
    return sorted(int(line) for line in diary.read_text().split())


def test_a_run_is_judged_and_kept(tmp_path):
    seen = []
    outcome, folder = run(study, Ledger(tmp_path), jobs=1, on_progress=seen.append)
    assert [claim.verdict for claim in outcome.claims] == [Verdict.HOLDS, Verdict.HOLDS]
    assert outcome.claims[0].label == "trained-in"
    assert outcome.caveat == "A coin is not a brain."
    assert [progress.finished for progress in seen] == list(range(7))
    assert folder.outcome() == outcome
    assert "<svg" in folder.figure()
    assert len(folder.measurements()) == 6 * 50 * 2
    assert folder.measurements()["seed"].nunique() == 6
    assert outcome.environment.packages["interplay"]


def test_parallel_and_serial_runs_are_equal(tmp_path):
    one = run(study, Ledger(tmp_path / "one"), jobs=1).folder
    two = run(study, Ledger(tmp_path / "two"), jobs=2).folder
    pd.testing.assert_frame_equal(one.measurements(), two.measurements())
    assert one.figure() == two.figure()


def test_several_studies_share_the_workers_and_come_one_by_one(tmp_path):
    planned = [(study, {"bias": bias}) for bias in (0.2, 0.8)]
    seen = []
    runs = list(run_all(planned, Ledger(tmp_path), jobs=2, on_progress=seen.append))
    biases = {run.outcome.config["bias"]: run for run in runs}
    assert biases[0.8].outcome.succeeded
    assert not biases[0.2].outcome.succeeded
    assert [progress.finished for progress in seen] == list(range(13))
    alone = run(study, Ledger(tmp_path / "alone"), jobs=1, overrides={"bias": 0.8})
    pd.testing.assert_frame_equal(alone.folder.measurements(), biases[0.8].folder.measurements())
    again = run_all(planned, Ledger(tmp_path), jobs=2, on_progress=seen.append)
    assert len(list(again)) == 2
    assert seen[-1].reused == 12


def test_finished_trials_are_not_computed_again(tmp_path):
    diary = tmp_path / "diary"
    settings = {"diary": str(diary)}
    run(study, Ledger(tmp_path), overrides=settings, seeds=3, jobs=1)
    seen = []
    run(study, Ledger(tmp_path), overrides=settings, seeds=5, jobs=1, on_progress=seen.append)
    assert seeds_in(diary) == [0, 1, 2, 3, 4]
    assert seen[0].reused == 3
    fewer = run(study, Ledger(tmp_path), overrides=settings, seeds=2, jobs=1)
    assert fewer.outcome.seeds == 2
    assert fewer.folder.measurements()["seed"].max() == 1


def test_other_settings_are_another_run(tmp_path):
    paths = {
        run(study, Ledger(tmp_path), overrides=settings, seeds=2, jobs=1).folder.path
        for settings in ({}, {"bias": 0.6}, {"bias": 0.7})
    }
    assert len(paths) == 3


def test_smoke_is_estimated_but_not_judged(tmp_path):
    outcome = run(study, Ledger(tmp_path), preset="smoke", jobs=1).outcome
    assert {claim.verdict for claim in outcome.claims} == {Verdict.NOT_JUDGED}
    assert outcome.claims[0].parts[0].units == 2


def test_a_trial_that_raises_is_recorded_and_the_rest_goes_on(tmp_path):
    settings = {"raises_at": 2, "diary": str(tmp_path / "diary")}
    outcome, folder = run(study, Ledger(tmp_path), overrides=settings, jobs=2)
    [failure] = outcome.failures
    assert failure.seed == 2
    assert failure.error == "ZeroDivisionError: the coin fell on its edge"
    assert "in trial" in failure.traceback
    assert not outcome.succeeded
    assert (folder.trials / "00002.error.json").exists()
    assert set(folder.measurements()["seed"]) == {0, 1, 3, 4, 5}
    run(study, Ledger(tmp_path), overrides=settings, jobs=1)
    assert seeds_in(tmp_path / "diary") == [0, 1, 2, 2, 3, 4, 5], "only the failed trial is tried again"


def test_all_trials_raising_is_no_crash(tmp_path):
    outcome = run(study, Ledger(tmp_path), overrides={"raises_at": 0}, seeds=1, jobs=1).outcome
    assert outcome.claims[0].verdict is Verdict.INCONCLUSIVE
    assert outcome.claims[0].parts[0].reason == "no measurements"


def test_a_killed_worker_costs_its_trial_only(tmp_path):
    settings = {"kills_at": 3, "diary": str(tmp_path / "diary")}
    outcome = run(study, Ledger(tmp_path), overrides=settings, jobs=2).outcome
    assert {failure.seed for failure in outcome.failures} >= {3}
    assert "worker died" in outcome.failures[-1].error
    again = run(study, Ledger(tmp_path), overrides=settings, jobs=2)
    assert again.outcome.succeeded
    assert set(again.folder.measurements()["seed"]) == set(range(6))


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """SIGKILL the whole run in its fourth trial: three are kept, none is half-written, the next run adds three."""
    diary = tmp_path / "diary"
    script = (
        "from tests.evidence.coin_study import study; from interplay.evidence import Ledger, run; "
        f"run(study, Ledger({str(tmp_path / 'ledger')!r}), "
        f"overrides={{'kills_at': 3, 'diary': {str(diary)!r}}}, jobs=1)"
    )
    killed = subprocess.run([sys.executable, "-c", script], cwd=HERE.parents[1], check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert seeds_in(diary) == [0, 1, 2, 3]
    [folder] = (tmp_path / "ledger").glob("coin/*")
    for path in (tmp_path / "ledger").rglob("*.parquet"):
        assert len(pd.read_parquet(path)) == 100
    assert not (folder / "outcome.json").exists()
    subprocess.run([sys.executable, "-c", script], cwd=HERE.parents[1], check=True, capture_output=True)
    assert seeds_in(diary) == [0, 1, 2, 3, 3, 4, 5]
    assert read_outcome(folder / "outcome.json").succeeded


def test_leftovers_of_dead_writers_are_removed_and_those_of_living_ones_kept(tmp_path):
    folder = run(study, Ledger(tmp_path), preset="smoke", jobs=1).folder
    host = os.uname().nodename
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stale = folder.trials / f".00000.parquet.{host}.{dead.pid}.abc.part"
    alive = folder.trials / f".00000.parquet.{host}.{os.getpid()}.abc.part"
    stale.write_bytes(b"half")
    alive.write_bytes(b"half")
    run(study, Ledger(tmp_path), preset="smoke", jobs=1)
    assert not stale.exists()
    assert alive.exists()


@pytest.mark.parametrize("content", [b"", b"PAR1 not a table"])
def test_a_damaged_trial_is_computed_again(tmp_path, content):
    folder = run(study, Ledger(tmp_path), preset="smoke", jobs=1).folder
    expected = folder.measurements()
    (folder.trials / "00001.parquet").write_bytes(content)
    pd.testing.assert_frame_equal(run(study, Ledger(tmp_path), preset="smoke", jobs=1).folder.measurements(), expected)


def test_two_writers_of_one_run(tmp_path):
    script = (
        "from tests.evidence.coin_study import study; from interplay.evidence import Ledger, run; "
        f"run(study, Ledger({str(tmp_path)!r}), seeds=30, jobs=1)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", script], cwd=HERE.parents[1]) for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    [folder] = Ledger(tmp_path).runs("coin")
    assert folder.measurements()["seed"].nunique() == 30
    assert not list(tmp_path.rglob("*.part"))


def test_a_figure_that_raises_loses_no_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_figure", lambda measurements: measurements["no such column"])
    outcome, folder = run(study, Ledger(tmp_path), preset="smoke", jobs=1)
    assert outcome.failures[0].error.startswith("figure: KeyError")
    assert outcome.failures[0].seed is None
    assert len(folder.measurements())


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"jobs": 0}, {"preset": "huge"}, {"overrides": {"x": 1}}])
def test_wrong_calls_write_nothing(tmp_path, wrong):
    with pytest.raises(StudyError):
        run(study, Ledger(tmp_path / "ledger"), **wrong)
    assert not (tmp_path / "ledger").exists()


def test_unwritable_ledger(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerError, match="choose another folder"):
        run(study, Ledger(tmp_path / "file"), preset="smoke", jobs=1)


def test_exported_evidence_reads_back(tmp_path):
    outcome, folder = run(study, Ledger(tmp_path), preset="smoke", jobs=1)
    export_evidence(folder, tmp_path / "evidence")
    assert read_outcome(tmp_path / "evidence" / "coin.json") == outcome
    assert (tmp_path / "evidence" / "coin.svg").read_text() == folder.figure()


@pytest.mark.parametrize("text", ["", "{}", "[1", '{"slug": 3}'])
def test_a_foreign_outcome_is_refused(tmp_path, text):
    path = tmp_path / "outcome.json"
    path.write_text(text)
    with pytest.raises(LedgerError, match="is not an outcome"):
        read_outcome(path)
