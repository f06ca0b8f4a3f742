"""Fast and slow: who is asked, whose answer counts, and what the audit trail says."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from torch import nn

from interplay.agents.prism import CostGate, DualProcessGate, PairCalibrator, as_pass
from interplay.agents.prism.passes import count_rows, take_rows

GATE = CostGate(1.0, 2.0)
RNG = np.random.default_rng(0)
FAST = RNG.random((500, 2))
SLOW = RNG.random((500, 2))
ROWS = np.arange(500)


class Recorder:
    """A model that looks its answers up and remembers what it was asked."""

    def __init__(self, table):
        self.table = table
        self.calls = []

    def __call__(self, rows):
        self.calls.append(np.asarray(rows))
        return self.table[rows, 0], self.table[rows, 1]


def test_agrees_with_a_loop_over_events():
    slow = Recorder(SLOW)
    decision = DualProcessGate(GATE, Recorder(FAST), slow, delta_slow=0.1)(ROWS)
    asked = []
    for row in range(500):
        p_need, p_acc = FAST[row]
        routed = abs(p_acc - 1 / (1 + 2 * p_need)) <= 0.1
        if routed:
            asked.append(row)
            p_need, p_acc = SLOW[row]
        assert decision.routed[row] == routed
        assert decision.p_need[row] == p_need
        assert decision.p_acc[row] == p_acc
        assert decision.tau[row] == pytest.approx(1 / (1 + 2 * p_need))
        assert decision.speak[row] == (p_acc >= 1 / (1 + 2 * p_need))
    assert len(slow.calls) == 1, "the slow model is called once a batch"
    assert slow.calls[0].tolist() == asked, "and with the routed rows alone"
    assert decision.n_slow == len(asked) > 20


def test_slow_is_not_called_where_nothing_is_near():
    slow = Recorder(SLOW)
    decision = DualProcessGate(GATE, lambda rows: (np.ones(3), np.ones(3)), slow)(np.arange(3))
    assert slow.calls == []
    assert decision.n_slow == 0
    assert decision.speak.all()


def test_the_whole_margin_is_slow_only_and_none_is_fast_only():
    slow_only = DualProcessGate(GATE, Recorder(FAST), Recorder(SLOW), delta_slow=1.0)(ROWS)
    assert (slow_only.speak == GATE.decide(*SLOW.T)).all()
    assert slow_only.n_slow == 500
    fast_only = DualProcessGate(GATE, Recorder(FAST), delta_slow=0)(ROWS)
    assert (fast_only.speak == GATE.decide(*FAST.T)).all()
    assert fast_only.n_slow == 0


def test_the_edge_of_the_margin_is_inside():
    fast = {"p_need": np.array([1.0, 1.0]), "p_acc": np.array([0.75, np.nextafter(0.75, 1)])}
    decision = DualProcessGate(CostGate(1, 1), lambda rows: fast, lambda rows: ([0.0], [0.0]), 0.25)(np.arange(2))
    assert decision.routed.tolist() == [True, False]


def test_each_pass_has_its_own_calibrator():
    class Shift:
        def __init__(self, by):
            self.by = by

        def transform(self, p_need, p_acc):
            return p_need * self.by, p_acc * self.by

    decision = DualProcessGate(GATE, Recorder(FAST), Recorder(SLOW), 0.1, Shift(0.5), slow_calibrator=Shift(0.25))(ROWS)
    assert np.allclose(decision.fast.p_acc, FAST[:, 1] * 0.5)
    assert np.allclose(decision.p_acc[decision.routed], SLOW[decision.routed, 1] * 0.25)
    assert (decision.routed == (np.abs(GATE.margin(*(FAST.T * 0.5))) <= 0.1)).all()


def test_proposals_come_from_the_pass_that_counts():
    def passing(table, name):
        return lambda rows: (table[rows, 0], table[rows, 1], [f"{name} {row}" for row in rows])

    decision = DualProcessGate(GATE, passing(FAST, "fast"), passing(SLOW, "slow"))(ROWS)
    for row in ROWS:
        assert decision.proposal[row] == f"{'slow' if decision.routed[row] else 'fast'} {row}"
    only_slow = DualProcessGate(GATE, Recorder(FAST), passing(SLOW, "slow"))(ROWS)
    assert [entry is not None for entry in only_slow.proposal] == only_slow.routed.tolist()
    assert DualProcessGate(GATE, Recorder(FAST), Recorder(SLOW))(ROWS).proposal is None


def test_every_decision_can_be_replayed_from_its_audit_row(tmp_path):
    decision = DualProcessGate(GATE, Recorder(FAST), Recorder(SLOW))(ROWS)
    names = [f"event {row}" for row in ROWS]
    decision.append_audit(tmp_path / "audit.jsonl", names)
    decision.append_audit(tmp_path / "audit.jsonl", names)
    rows = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert len(rows) == 1000
    for position, row in enumerate(rows[:500]):
        gate = CostGate(row["c_fa"], row["c_fn"])
        assert row["event"] == names[position]
        assert row["routed"] == bool(abs(gate.margin(row["fast_p_need"], row["fast_p_acc"])) <= row["delta_slow"])
        assert row["speak"] == bool(gate.decide(row["p_need"], row["p_acc"])) == bool(decision.speak[position])
        assert row["speak"] == (row["cost_speak"] <= row["cost_silent"])
        if not row["routed"]:
            assert (row["p_need"], row["p_acc"]) == (row["fast_p_need"], row["fast_p_acc"])
    table = decision.audit()
    assert table["event"].tolist() == ROWS.tolist()
    assert np.allclose(table["margin"], decision.margin)
    assert table["fast_margin"].abs().le(0.1).equals(table["routed"])


def test_tensors_stay_tensors_and_modules_keep_their_mode():
    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)
            self.linear = nn.Linear(3, 2)

        def forward(self, events):
            return torch.sigmoid(self.linear(self.dropout(events)))

    torch.manual_seed(0)
    fast, slow, events = Student(), Student(), 4 * torch.randn(64, 3)
    agent = DualProcessGate(GATE, fast, slow, 0.2)
    decision = agent(events)
    assert fast.training
    assert decision.p_acc.dtype == torch.float32
    assert not decision.p_acc.requires_grad
    assert torch.equal(agent(events).speak, decision.speak), "dropout is off"
    assert 0 < decision.n_slow < 64
    expected = torch.where(decision.routed, slow.eval()(events)[:, 1], fast.eval()(events)[:, 1])
    assert torch.allclose(decision.p_acc, expected)
    assert decision.audit()["speak"].tolist() == decision.speak.tolist()


def test_a_slow_model_in_numpy_behind_a_fast_one_in_torch():
    fast = torch.tensor(FAST, dtype=torch.float32)
    decision = DualProcessGate(GATE, lambda rows: (fast[:, 0], fast[:, 1]), Recorder(SLOW))(ROWS)
    assert decision.p_need.dtype == torch.float32
    assert np.allclose(decision.p_need[decision.routed], SLOW[decision.routed.numpy(), 0])


def test_scikit_learn_classifiers_of_every_form_give_the_same_gate():
    events = RNG.normal(size=(400, 4))
    need, accept = (events[:, 0] + RNG.normal(size=400) > 0), (events[:, 1] + RNG.normal(size=400) > 0)
    labels = np.column_stack([need, accept]).astype(int)
    separate = LogisticRegression().fit(events, need), LogisticRegression().fit(events, accept)
    expected = [model.predict_proba(events)[:, 1] for model in separate]
    for model in (separate, OneVsRestClassifier(LogisticRegression()).fit(events, labels)):
        judgement = as_pass(model)(events)
        assert np.allclose(judgement.p_need, expected[0])
        assert np.allclose(judgement.p_acc, expected[1])
    chain = ClassifierChain(LogisticRegression()).fit(events, labels)
    assert np.allclose(as_pass(chain)(events).p_need, expected[0])
    forest = RandomForestClassifier(10, random_state=0).fit(events, labels)
    judgement = as_pass(forest)(events)
    assert np.allclose(judgement.p_acc, forest.predict_proba(events)[1][:, 1])
    decision = DualProcessGate(GATE, separate, forest)(pd.DataFrame(events).to_numpy())
    assert decision.n_slow == decision.routed.sum() > 0
    with pytest.raises(TypeError, match="pair"):
        as_pass(separate[0])(events)
    with pytest.raises(TypeError, match="labels 0 and 1"):
        as_pass((LogisticRegression().fit(events, np.where(need, "yes", "no")), separate[1]))(events)


@pytest.mark.parametrize(
    "batch",
    [
        np.arange(12).reshape(6, 2),
        torch.arange(12).view(6, 2),
        pd.DataFrame({"a": range(6)}, index=list("uvwxyz")),
        list("abcdef"),
        scipy.sparse.csr_array(np.eye(6)),
        {"tokens": np.arange(6), "texts": tuple("abcdef")},
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_rows_of_any_batch(batch):
    assert count_rows(batch) == 6
    for rows in (np.array([1, 4]), torch.tensor([1, 4])):
        taken = take_rows(batch, rows)
        assert count_rows(taken) == 2
        assert type(taken) is type(batch)
        if isinstance(batch, list):
            assert taken == ["b", "e"]
        if isinstance(batch, pd.DataFrame):
            assert taken.index.tolist() == ["v", "y"]
        if isinstance(batch, dict):
            assert taken["texts"] == ["b", "e"]
        if isinstance(batch, np.ndarray):
            assert taken.tolist() == [[2, 3], [8, 9]]


def test_a_calibrated_gate_around_any_callable():
    inflated = 1 / (1 + (1 / FAST - 1) ** 3)
    need, accept = RNG.random(500) < FAST[:, 0], RNG.random(500) < FAST[:, 1]
    calibrator = PairCalibrator().fit(*inflated.T, need, accept)
    decision = DualProcessGate(GATE, Recorder(inflated), delta_slow=0, calibrator=calibrator)(ROWS)
    assert np.allclose(decision.p_acc, calibrator.acceptance_.transform(inflated[:, 1]))
    assert np.abs(decision.p_acc - FAST[:, 1]).mean() < np.abs(inflated[:, 1] - FAST[:, 1]).mean() / 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DualProcessGate(GATE, Recorder(FAST), Recorder(SLOW), -0.1), ValueError, "delta_slow must be 0"),
        (lambda: DualProcessGate(GATE, Recorder(FAST), None, 0.1), ValueError, "delta_slow>0 needs a slow model"),
        (lambda: DualProcessGate(GATE, Recorder(FAST)), ValueError, "delta_slow>0 needs a slow model"),
        (lambda: DualProcessGate(GATE, "fast", delta_slow=0), TypeError, "a model must be a callable"),
        (
            lambda: DualProcessGate(GATE, Recorder(FAST), lambda rows: ([0.5], [0.5]))(ROWS),
            RuntimeError,
            r"slow model was given \d\d+ rows and returned 1",
        ),
        (
            lambda: DualProcessGate(GATE, Recorder(FAST), delta_slow=0)(ROWS.reshape(250, 2)),
            ValueError,
            "one probability an event",
        ),
        (
            lambda: DualProcessGate(GATE, lambda rows: ([0.5], [0.5]), delta_slow=0)(ROWS),
            RuntimeError,
            "fast model was given 500 rows and returned 1",
        ),
        (
            lambda: DualProcessGate(GATE, lambda rows: (FAST[:, 0] * 5, FAST[:, 1]), delta_slow=0)(ROWS),
            ValueError,
            "p_need must be probabilities",
        ),
        (
            lambda: DualProcessGate(GATE, Recorder(FAST), lambda rows: (SLOW[rows, 0], SLOW[rows, 1] - 1))(ROWS),
            ValueError,
            "p_acc must be probabilities",
        ),
        (
            lambda: DualProcessGate(GATE, lambda rows: {"p_need": [0.1], "p": [0.1]}, delta_slow=0)([0]),
            TypeError,
            "exactly p_need, p_acc",
        ),
        (lambda: as_pass(lambda rows: np.zeros((3, 3)))([0]), TypeError, r"\(events, 2\); got \(3, 3\)"),
        (lambda: as_pass(lambda rows: 0.5)([0]), TypeError, "must return"),
        (lambda: as_pass(lambda rows: ([0.1], [0.2], []))([0]), ValueError, "one proposal an event; got 0 for 1"),
        (lambda: as_pass(lambda rows: ([0.1], [0.2, 0.3]))([0]), ValueError, r"p_need \(1,\), p_acc \(2,\)"),
        (lambda: take_rows("text", np.array([0])), TypeError, "cannot take rows of a str"),
        (lambda: count_rows({"a": [1], "b": [1, 2]}), ValueError, "same number of rows"),
        (
            lambda: DualProcessGate(GATE, Recorder(FAST), delta_slow=0)(ROWS).audit(["one"]),
            ValueError,
            "each of the 500 events",
        ),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
