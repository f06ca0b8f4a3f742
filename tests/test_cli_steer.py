"""`interplay steer` as a user meets it, on a tiny model in a folder."""

from __future__ import annotations

import io
import json
import sys

import pytest

from interplay import cli
from tests.steering.conftest import language, prompts


@pytest.fixture
def steer(monkeypatch, capsys, tmp_path):
    """Call the command in a folder with a model and two files of prompts; returns exit code, output, messages."""
    model, tokenizer = language()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    for word in ("good", "bad"):
        (tmp_path / f"{word}.txt").write_text("\n".join([*prompts(word), "", ""]))
    (tmp_path / "asked.txt").write_text("w1 w2 w3\nw4 w5")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def call(*arguments: str, typed: str = ""):
        monkeypatch.setattr(sys, "argv", ["interplay", "steer", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


FIT = ("model", "--positive", "good.txt", "--negative", "bad.txt", "--tokens", "5")


def test_fit_keep_load_and_show(steer, tmp_path):
    code, out, err = steer(*FIT, "--prompts", "asked.txt", "--strengths=-1,0,2", "--out", "tone.safetensors", "--json")
    assert code == 0
    assert "kept in tone.safetensors" in err
    rows = json.loads(out)
    assert [(row["prompt"], row["strength"]) for row in rows] == [
        (prompt, strength) for prompt in ("w1 w2 w3", "w4 w5") for strength in (-1, 0, 2)
    ]
    code, again, _ = steer(
        "model", "--load", "tone.safetensors", "--prompts", "asked.txt", "--strengths=-1,0,2", "--tokens", "5", "--json"
    )
    assert (code, json.loads(again)) == (0, rows)
    code, out, _ = steer(*FIT, "--prompts", "asked.txt", "--strengths", "0,3", "--target", "w1")
    assert code == 0
    for part in ("w4 w5", "perplexity", "refusal", "target"):
        assert part in out


def test_chat_turns_the_dial_and_ends(steer):
    code, out, err = steer(*FIT, "--chat", typed="w1 w2\n/strength 2.5\nw3\n/louder\n\n")
    assert code == 0
    assert out.count("strength 0 ") == 2
    assert "strength 4 " in out
    assert "strength 2.5 " in out
    assert "unknown command /louder" in err
    assert steer(*FIT, "--chat", typed="w1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model",), "pass --positive and --negative"),
        (("model", "--positive", "good.txt"), "pass --positive and --negative"),
        ((*FIT, "--load", "x.safetensors"), "pass --positive and --negative"),
        ((*FIT, "--method", "magic"), "--method must be one of"),
        ((*FIT, "--strengths", "1,high"), "--strengths must be numbers"),
        ((*FIT, "--target", "("), "regular expression"),
        (("nowhere", *FIT[1:]), "does not exist"),
        (("model", "--load", "good.txt"), "holds no steering"),
        (("model", "--positive", "empty.txt", "--negative", "bad.txt"), "empty.txt holds no prompt"),
        (("model", "--positive", "missing.txt", "--negative", "bad.txt"), "No such file"),
    ],
)
def test_wrong_calls_get_one_line_and_leave_nothing(steer, tmp_path, arguments, message):
    (tmp_path / "empty.txt").write_text("\n\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    code, out, err = steer(*arguments, "--out", "tone.safetensors")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before
