"""The score by hand, the ranking by a loop, and the one-class selection that the paper's ranking makes."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interplay.agents.prism import RDCSelector, rdc_score

PROBABILITY, LABEL = st.floats(0, 1), st.integers(0, 1)


def drawn(count=1000, seed=0):
    rng = np.random.default_rng(seed)
    q_need, q_acc = rng.random(count), rng.random(count)
    return pd.DataFrame(
        {"q_need": q_need, "q_acc": q_acc, "y_need": rng.random(count) < q_need, "y_accept": rng.random(count) < q_acc}
    )


def test_scores_worked_out_by_hand():
    # perfect; sure and wrong about both; missed need, so that acceptance does not count; need predicted at the cut
    score = rdc_score([1.0, 1.0, 0.4, 0.5], [1.0, 1.0, 0.0, 0.2], [1, 0, 1, 1], [1, 0, 1, 0])
    assert score.tolist() == pytest.approx([1.0, -2.0, 1 - 0.36, -0.25 - 0.04])
    assert rdc_score([0.5], [0.2], [1], [0], need_cut=0.6).tolist() == [-0.25]


@given(PROBABILITY, PROBABILITY, LABEL, LABEL)
def test_scores_lie_between_minus_two_and_one(q_need, q_acc, y_need, y_accept):
    (score,) = rdc_score([q_need], [q_acc], [y_need], [y_accept])
    expected = y_accept - (q_need - y_need) ** 2 - (q_need >= 0.5) * (q_acc - y_accept) ** 2
    assert -2 <= score <= 1
    assert score == pytest.approx(expected)


def test_the_published_ranking_keeps_accepted_traces_alone():
    traces = drawn()
    selector = RDCSelector().fit(traces)
    kept = selector.select(0.27)
    assert len(kept) == 270
    ranked = sorted(range(1000), key=lambda index: (-selector.score_[index], index))
    assert kept.tolist() == ranked[:270]
    balance = selector.class_balance_["share of kept"]
    assert balance.sum() == pytest.approx(1)
    assert balance[:, 1].sum() > 0.99
    assert selector.class_balance_["share of all"][:, 1].sum() == pytest.approx(traces["y_accept"].mean())


@pytest.mark.parametrize("k", [0, 1, 17, 270, 999, 1000])
def test_strata_keep_their_shares_and_their_best(k):
    traces = drawn()
    selector = RDCSelector(stratify=True).fit(traces)
    kept = selector.select(k)
    assert len(kept) == len(set(kept.tolist())) == k
    assert (np.diff(selector.score_[kept]) <= 0).all(), "best first"
    for _, cell in traces.groupby(["y_need", "y_accept"]):
        inside = np.intersect1d(kept, cell.index)
        assert abs(len(inside) - k * len(cell) / 1000) < 1
        outside = np.setdiff1d(cell.index, inside)
        if len(inside) and len(outside):
            assert selector.score_[inside].min() >= selector.score_[outside].max()


def test_ties_are_broken_by_index():
    traces = {
        name: [value] * 50
        for name, value in zip(("q_need", "q_acc", "y_need", "y_accept"), (0.9, 0.9, 1, 1), strict=True)
    }
    for stratify in (False, True):
        assert RDCSelector(stratify).fit(traces).select(20).tolist() == list(range(20))


def test_corrupted_traces_are_left_out():
    traces = drawn(4000)
    corrupted = np.random.default_rng(1).random(4000) < 0.2
    honest = traces[["y_need", "y_accept"]].to_numpy() * 0.9 + 0.05
    noise = np.random.default_rng(2).random((4000, 2))
    traces[["q_need", "q_acc"]] = np.where(corrupted[:, None], noise, honest)
    for stratify in (False, True):
        assert corrupted[RDCSelector(stratify).fit(traces).select(0.27)].mean() < 0.05


def test_tensors_and_frames_are_read_alike():
    traces = drawn(50)
    tensors = {name: torch.tensor(traces[name].to_numpy()) for name in traces}
    assert (RDCSelector().fit(tensors).select(10) == RDCSelector().fit(traces).select(10)).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RDCSelector().fit(drawn(10)).select(11), ValueError, "k must lie in 0 to 10.*got 11"),
        (lambda: RDCSelector().fit(drawn(10)).select(-1), ValueError, "k must lie in 0 to 10"),
        (lambda: RDCSelector().fit(drawn(10)).select(1.5), ValueError, "fraction must lie in"),
        (lambda: RDCSelector().fit(drawn(10)).select(True), TypeError, "k must be a number"),
        (lambda: RDCSelector().fit({"q_need": [0.1]}), KeyError, "missing: q_acc, y_need, y_accept"),
        (lambda: rdc_score([1.1], [0.5], [1], [1]), ValueError, "q_need must be probabilities.*index 0"),
        (lambda: rdc_score([0.1], [0.5], [1], [2]), ValueError, "y_accept must be labels"),
        (lambda: rdc_score([0.1], [0.5, 0.5], [1], [1]), ValueError, "shapes must agree"),
        (lambda: rdc_score([0.1], [0.5], [1], [1], need_cut=2), ValueError, "need_cut must lie"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
