"""Tables of scores from whatever the user has, outcomes from scores, and everything that is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from interplay.games import SwissRounds
from interplay.games.swiss_rounds import ScoreTable, WinTensor, easiest_first, largest_gap_tiers, read_table, win_tensor

SCORES = np.array([[0.9, 0.2, 0.5], [0.7, 0.4, 0.5], [0.1, 0.6, 0.3], [0.3, 0.1, 0.9]])
FRAME = pd.DataFrame(SCORES, index=list("abcd"), columns=["x", "y", "z"])
FAST = {"n_sims": 500, "random_state": 0}


def test_every_kind_of_table_reads_alike(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv")
    FRAME.to_csv(tmp_path / "t.tsv", sep="\t")
    FRAME.to_parquet(tmp_path / "t.parquet")
    FRAME.rename_axis("model").reset_index().to_parquet(tmp_path / "column.parquet")
    for table in (FRAME, *tmp_path.iterdir(), FRAME.rename_axis("model").reset_index()):
        read = read_table(table)
        np.testing.assert_array_equal(read.scores, SCORES)
        assert (tuple(read.model_names), tuple(read.benchmark_names)) == (("a", "b", "c", "d"), ("x", "y", "z"))
    assert tuple(read_table(SCORES, list("pqrs")).model_names) == ("p", "q", "r", "s")


def test_the_ranking_of_a_file_is_that_of_its_frame(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv")
    from_file = SwissRounds(**FAST).rank(tmp_path / "t.csv")
    pd.testing.assert_frame_equal(from_file, SwissRounds(**FAST).rank(FRAME))
    assert set(from_file["model"]) == set("abcd")
    assert (from_file["expected_wins"].diff().dropna() <= 0).all()
    assert ((from_file["best_rank"] <= from_file["rank"]) & (from_file["rank"] <= from_file["worst_rank"])).all()


@pytest.mark.parametrize("word", ["", "NA", "n/a", "null", "None"])
def test_missing_scores_mean_what_the_user_says(tmp_path, word):
    path = tmp_path / "t.csv"
    path.write_text(f"model,x,y\na,1,{word}\nb,0,2\nc,3,1\n")
    with pytest.raises(ValueError, match=r"missing for \('a', 'y'\)"):
        win_tensor(path)
    lost, skipped = win_tensor(path, missing="loss"), win_tensor(path, missing="skip")
    assert lost.outcomes[0, 1:, 1].tolist() == [0, 0]
    assert skipped.present[:, 1].tolist() == [False, True, True]
    assert skipped.wins[0].tolist() == [0, 1, 0]
    assert lost.wins[0].tolist() == [0, 1, 0]
    assert SwissRounds(missing="skip", **FAST).fit(path).expected_wins_[0] <= 1


def test_margins_and_directions():
    wins = win_tensor(SCORES, tie_margin=0.25, higher_is_better=[True, False, True])
    assert wins.outcomes[0, 1].tolist() == [2, 2, 2]
    assert wins.outcomes[0, 2].tolist() == [1, 1, 2]
    assert wins.outcomes[2, 0].tolist() == [0, 0, 2]


def test_easiest_first_and_tiers():
    assert easiest_first(FRAME) == [2, 0, 1]
    assert largest_gap_tiers(np.array([9.0, 1.0, 8.5, 5.0]), 3).tolist() == [1, 3, 1, 2]
    assert largest_gap_tiers(np.array([2.0, 2.0, 2.0]), 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("model,x,y\n", "is empty"),
        ("model,x,y\na,1\nb,1,2\n", "line 2, has 2 cells, its header 3"),
        ("model,x,y\na,1,high\nb,1,2\n", r"score of 'a' on 'y' must be a number; got 'high'"),
        ("model,x,y\na,1,inf\nb,1,2\n", r"infinite are \('a', 'y'\)"),
        ("model,x,x\na,1,3\nb,1,2\n", "benchmark names must differ"),
        ("model,x,y\na,1,3\na,1,2\n", "model names must differ"),
        ("x,y\n1,2\n3,4\n", "first column must name the models"),
        ("model,x,y\na,1,3\n", "two models"),
        ("model,x,y\na,,\nb,1,2\n", "'a' has no score at all"),
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_table(path)


def test_damaged_and_unknown_files_are_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "t.csv").write_bytes(b"model,x\n\xff\xfe,1\n")
    (tmp_path / "t.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_table(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="cannot be read as text"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"must be a \.csv, \.tsv or \.parquet file"):
        read_table(tmp_path / "t.xlsx")
    with pytest.raises(FileNotFoundError, match="there is no table"):
        read_table(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eliminate": -1}, "from 0 to 3"),
        ({"eliminate": 4}, "from 0 to 3"),
        ({"eliminate": [0, 1]}, "3 of them, one a round"),
        ({"order": [0, 1]}, "name each of the 3 benchmarks once"),
        ({"order": ["x", "y", "y"]}, "name each of the 3 benchmarks once"),
        ({"bye": "rest"}, "bye must be one of zero, half, win, float"),
        ({"ties": "both"}, "ties must be one of"),
        ({"missing": "drop"}, "missing must be"),
        ({"tie_margin": -1.0}, "tie_margin must be"),
        ({"higher_is_better": [True]}, "higher_is_better must be"),
        ({"n_sims": 0}, "n_sims must be 1 or more"),
        ({"random_state": -1}, "must not be negative"),
    ],
)
def test_settings_are_refused_at_the_door(settings, message):
    with pytest.raises(ValueError, match=message):
        SwissRounds(**{**FAST, **settings}).fit(FRAME)


def test_few_contests_warn_and_odd_outcomes_are_refused():
    with pytest.warns(UserWarning, match="rough standard errors"):
        SwissRounds(n_sims=50, random_state=0).fit(FRAME)
    outcomes = win_tensor(SCORES).outcomes.copy()
    outcomes[1, 0, 2] = outcomes[0, 1, 2] = 1
    with pytest.raises(ValueError, match=r"outcomes\[0, 1, 2\] = 1 and outcomes\[1, 0, 2\] = 1"):
        WinTensor(outcomes)
    with pytest.raises(ValueError, match="two models and one benchmark"):
        ScoreTable(np.ones((1, 2)))
    with pytest.raises(ValueError, match="models"):
        SwissRounds(**FAST).fit(np.arange(24.0).reshape(8, 3)).exact()


def test_the_estimator_follows_the_rules_of_scikit_learn():
    settings = {"n_sims": 300, "eliminate": [1, 0, 1], "bye": "half", "order": ["z", "x", "y"], "random_state": 7}
    one = SwissRounds(**settings)
    other = clone(one)
    assert other.get_params() == one.get_params()
    first = one.fit(FRAME).expected_wins_
    np.testing.assert_array_equal(other.fit(FRAME).expected_wins_, first)
    np.testing.assert_array_equal(one.fit(FRAME).expected_wins_, first)
    assert SwissRounds().set_params(bye="float").bye == "float"
    with pytest.raises(NotFittedError):
        SwissRounds().exact()


def test_the_order_of_rounds_is_that_of_its_names():
    by_name = SwissRounds(order=["z", "x", "y"], **FAST).fit(FRAME)
    by_place = SwissRounds(order=[2, 0, 1], **FAST).fit(FRAME)
    rearranged = SwissRounds(**FAST).fit(FRAME[["z", "x", "y"]])
    np.testing.assert_array_equal(by_name.expected_wins_, by_place.expected_wins_)
    np.testing.assert_array_equal(by_name.survival_, rearranged.survival_)
    np.testing.assert_array_equal(by_name.expected_wins_, rearranged.expected_wins_)
