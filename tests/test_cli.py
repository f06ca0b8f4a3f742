"""The command line as a user meets it: answers at once, refuses in one line, exits with the promised codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interplay import catalog, cli
from tests.evidence import coin_study


@pytest.fixture
def interplay(monkeypatch, capsys, tmp_path):
    """Call the command line on a catalog whose first system is a coin; returns exit code, output, messages."""
    slug = next(iter(catalog.systems()))
    monkeypatch.setattr(catalog.System, "load_study", lambda system: coin_study.study)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(coin_study.study, "slug", slug)

    def call(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["interplay", *(slug if word == "COIN" else word for word in arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


def test_run_prints_claims_and_keeps_the_run(interplay, tmp_path):
    code, out, err = interplay("run", "COIN", "--jobs", "1")
    assert code == 0
    assert "✓ holds" in out
    assert "A coin is not a brain." in out
    assert "6/6 trials" in err
    assert list((tmp_path / "interplay-ledger").rglob("outcome.json"))
    code, out, _ = interplay("list")
    assert "2 holds" in out
    _, out, _ = interplay("show", "COIN")
    assert "A biased coin shows more heads" in out
    assert "probability of heads" in out


def test_a_failing_claim_exits_with_1(interplay):
    code, out, _ = interplay("run", "COIN", "--jobs", "1", "--set", "bias=0.1")
    assert code == 1
    assert "✗ fails" in out


def test_a_raising_trial_exits_with_1(interplay):
    code, out, _ = interplay("run", "COIN", "--jobs", "1", "--set", "raises_at=0")
    assert code == 1
    assert "seed 0 raised: ZeroDivisionError: the coin fell on its edge" in out


def test_json_is_for_machines(interplay):
    code, out, err = interplay("run", "COIN", "--jobs", "1", "--preset", "smoke", "--json")
    [outcome] = json.loads(out)
    assert code == 0
    assert outcome["claims"][0]["verdict"] == "not judged"
    assert err == ""
    _, out, _ = interplay("list", "--json")
    assert json.loads(out)[0]["verdicts"] == {"C1": "not judged", "C2": "not judged"}


def test_evidence_is_written(interplay, tmp_path):
    interplay("run", "COIN", "--jobs", "1", "--evidence", "kept")
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} == {".json", ".svg"}


def test_report_builds_the_gallery(interplay, tmp_path):
    interplay("run", "COIN", "--jobs", "1")
    code, out, _ = interplay("report", "--out", "gallery")
    assert code == 0
    assert "A biased coin shows more heads" in (tmp_path / "gallery" / "index.html").read_text()
    assert str(tmp_path / "gallery" / "index.html") in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nope"], "no system is called 'nope'"),
        (["show", "nope"], "no system is called 'nope'"),
        (["run"], "slugs, --family F or --all"),
        (["run", "COIN", "--all"], "in one way"),
        (["run", "--family", "circus"], "the families are"),
        (["list", "--family", "circus"], "the families are"),
        (["run", "COIN", "--set", "bias"], "--set takes NAME=VALUE"),
        (["run", "COIN", "--set", "bais=0.3"], "has no setting 'bais'"),
        (["run", "COIN", "--set", "bias=[1,"], "is not JSON"),
        (["run", "COIN", "--set", "bias=2"], "less than or equal to 1"),
        (["run", "COIN", "--preset", "huge"], "'huge' is not one of"),
        (["run", "COIN", "--seeds", "0"], "seeds must be 1 or more; got 0"),
        (["run", "COIN", "--jobs", "-1"], "jobs must be 1 or more; got -1"),
        (["run", "COIN", "--device", "cuda"], "runs on the CPU only"),
        (["run", "COIN", "--ledger", "/proc/nowhere"], "cannot write to the ledger"),
        (["report", "--out", "/proc/nowhere"], "cannot write the gallery"),
        (["run", "COIN", "--backend", "abacus"], "'abacus' is not one of"),
        (["rnu"], "No such command 'rnu'"),
        (["run", "--nope"], "No such option: --nope"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(interplay, arguments, message):
    code, out, err = interplay(*arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_damaged_outcome_is_one_line(interplay, tmp_path):
    interplay("run", "COIN", "--jobs", "1", "--preset", "smoke")
    [path] = (tmp_path / "interplay-ledger").rglob("outcome.json")
    path.write_text("{}")
    for command in ("list", "report"):
        code, _, err = interplay(command)
        assert (code, err.count("\n")) == (2, 1)
        assert "is not an outcome" in err


def test_a_missing_extra_is_one_line(interplay, monkeypatch):
    def missing(system):
        raise catalog.MissingExtraError("coin needs the extra 'llm': pip install 'interplay[llm]'")

    monkeypatch.setattr(catalog.System, "load_study", missing)
    code, _, err = interplay("run", "COIN")
    assert (code, err) == (2, "interplay: coin needs the extra 'llm': pip install 'interplay[llm]'\n")
    code, out, _ = interplay("show", "COIN")
    assert code == 0
    assert "pip install 'interplay[llm]'" in out


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["--version"]])
def test_answers_without_the_heavy_libraries(arguments):
    script = (
        "import sys; from interplay import cli; sys.argv = ['interplay', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "finally: print({'torch', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_polite_kill_keep_what_is_finished(tmp_path, end):
    script = (
        "from tests.evidence import coin_study; from interplay import catalog, cli; import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in what a shell runs in the background
        "catalog.System.load_study = lambda system: coin_study.study\n"
        "run_trial = coin_study.study.run_trial\n"
        "coin_study.study.run_trial = lambda config, seed: time.sleep(60 * (seed == 2)) or run_trial(config, seed)\n"
        "cli.main()"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "run",
        next(iter(catalog.systems())),
        "--jobs",
        "1",
        "--ledger",
        str(tmp_path),
    ]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True, env=os.environ) as running:
        while len(list(tmp_path.rglob("0000*.parquet"))) != 2:
            time.sleep(0.05)
            assert running.poll() is None
        running.send_signal(end)
        assert running.wait(20) == 130
        assert "what is finished is kept" in running.stderr.read()
    assert not list(tmp_path.rglob("*.part"))


def test_organisms_are_listed_and_refusals_are_one_line(interplay, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERPLAY_CACHE", str(tmp_path / "cache"))
    code, out, _ = interplay("organisms", "list")
    assert code == 0
    assert "capitals" in out
    for arguments, message in [
        (["verify", "unicorn"], "unicorn"),
        (["build", "unicorn"], "available are capitals"),
        (["build", "capitals", "--variant", "odd"], "no variant 'odd'"),
        (["verify", "capitals", "--seed", "999"], "interplay organisms build capitals --seed 999"),
        (["build", "capitals", "--seed", "-1"], "--seed"),
        (["build", "capitals", "--seed", "999", "--budget", "1"], "budget"),
    ]:
        code, out, err = interplay("organisms", *arguments)
        assert (code, out) == (2, "")
        assert message in err
