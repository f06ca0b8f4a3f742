"""The gate: the derived rule, its consequences, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV

from interplay.agents.prism import CostGate
from interplay.agents.prism.gate import BLOCK

PROBABILITY = st.floats(0, 1)
GATE = CostGate(1.0, 2.0)


def test_the_threshold_at_points_worked_out_by_hand():
    assert GATE.threshold([0.0, 0.25, 0.5, 1.0]).tolist() == pytest.approx([1, 2 / 3, 1 / 2, 1 / 3])
    assert CostGate(3.0, 0.0).threshold([0.0, 0.4, 1.0]).tolist() == [1, 1, 1]
    assert float(CostGate(4, 2).threshold(0.5)) == pytest.approx(0.8)


@given(PROBABILITY, PROBABILITY, st.floats(0.01, 100), st.floats(0, 100))
def test_it_speaks_exactly_where_speaking_risks_no_more(p_need, p_acc, c_fa, c_fn):
    gate = CostGate(c_fa, c_fn)
    risk_of_speaking = c_fa * (1 - p_acc)
    risk_of_silence = c_fn * p_need * p_acc
    if abs(risk_of_speaking - risk_of_silence) > 1e-9 * (c_fa + c_fn):
        assert bool(gate.decide(p_need, p_acc)) == (risk_of_speaking < risk_of_silence)
    assert gate.expected_cost(True, p_need, p_acc) == pytest.approx(risk_of_speaking)
    assert gate.expected_cost(False, p_need, p_acc) == pytest.approx(risk_of_silence)


@given(PROBABILITY, PROBABILITY, st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.1, 10))
def test_the_threshold_falls_in_need_and_in_the_cost_of_a_miss_and_knows_only_the_ratio(one, other, c_fa, c_fn, scale):
    low, high = sorted((one, other))
    gate = CostGate(c_fa, c_fn)
    assert gate.threshold(high) <= gate.threshold(low)
    assert CostGate(c_fa, c_fn * (1 + scale)).threshold(one) <= gate.threshold(one)
    assert CostGate(c_fa * (1 + scale), c_fn).threshold(one) >= gate.threshold(one)
    assert CostGate(c_fa * scale, c_fn * scale).threshold(one) == pytest.approx(gate.threshold(one))


def test_equality_speaks_and_the_next_number_below_does_not():
    tau = CostGate(1.0, 1.0).threshold(1.0)
    assert tau == 0.5
    assert CostGate(1.0, 1.0).decide(1.0, 0.5)
    assert not CostGate(1.0, 1.0).decide(1.0, np.nextafter(0.5, 0))
    assert GATE.decide(0.0, 1.0)
    assert not GATE.decide(0.0, np.nextafter(1.0, 0))


def test_neither_a_product_nor_a_half_would_do():
    p_need, p_acc = np.array([0.1, 1.0]), np.array([0.7, 0.4])
    assert GATE.decide(p_need, p_acc).tolist() == [False, True]
    assert (p_acc >= 0.5).tolist() == [True, False]


def test_costs_that_came_about():
    speak, need, accept = (np.array(list(bits)) == "1" for bits in ("11110000", "11001100", "10101010"))
    expected = [0, 3, 0, 3, 5, 0, 0, 0]  # refused offers cost 3, needed and acceptable offers that were not made 5
    assert CostGate(3, 5).realised_cost(speak, need, accept).tolist() == expected


def test_costs_are_expectations_of_costs_that_came_about():
    rng = np.random.default_rng(0)
    p_need, p_acc = rng.random(400_000), rng.random(400_000)
    need, accept = rng.random(400_000) < p_need, rng.random(400_000) < p_acc
    for speak in (np.zeros(400_000, bool), np.ones(400_000, bool), GATE.decide(p_need, p_acc)):
        realised = GATE.realised_cost(speak, need, accept) - GATE.expected_cost(speak, p_need, p_acc)
        assert abs(realised.mean()) < 4 * realised.std() / 400_000**0.5


def test_no_decision_of_a_grid_search_costs_less():
    rng = np.random.default_rng(1)
    p_need, p_acc = rng.random(2000), rng.random(2000)
    ours = GATE.expected_cost(GATE.decide(p_need, p_acc), p_need, p_acc).sum()
    best = np.minimum(
        GATE.expected_cost(np.ones(2000), p_need, p_acc), GATE.expected_cost(np.zeros(2000), p_need, p_acc)
    )
    assert ours == pytest.approx(best.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_give_tensors_of_their_type_with_gradients(dtype):
    p_need = torch.rand(3, 5, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    p_acc = torch.rand(3, 5, dtype=dtype, generator=torch.Generator().manual_seed(1)).requires_grad_()
    margin = GATE.margin(p_need, p_acc)
    assert margin.dtype == dtype
    assert margin.shape == (3, 5)
    margin.sum().backward()
    assert torch.allclose(p_acc.grad, torch.ones_like(p_acc))
    assert torch.allclose(p_need.grad, 2 / (1 + 2 * p_need.detach()) ** 2)
    arrays = GATE.margin(p_need.detach().numpy(), p_acc.detach().numpy())
    assert isinstance(arrays, np.ndarray)
    assert arrays.dtype == p_need.detach().numpy().dtype
    assert np.allclose(arrays, margin.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 4), (0,)])
def test_shapes_are_kept(shape):
    p_need, p_acc = np.full(shape, 0.5), np.full(shape, 0.5)
    assert GATE.threshold(p_need).shape == shape
    assert GATE.decide(p_need, p_acc).shape == shape
    assert all(part.shape == shape for part in GATE.route(p_need, p_acc, 0.1))


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_routing_in_blocks_agrees_with_the_whole(count):
    rng = np.random.default_rng(count)
    p_need, p_acc = rng.random(count), rng.random(count)
    before = p_need.copy(), p_acc.copy()
    speak, near = GATE.route(p_need, p_acc, 0.1)
    margin = p_acc - 1 / (1 + 2 * p_need)
    assert (speak == (margin >= 0)).all()
    assert (near == (np.abs(margin) <= 0.1)).all()
    assert (p_need == before[0]).all()
    assert (p_acc == before[1]).all()


class _Second(ClassifierMixin, BaseEstimator):
    """A classifier whose only feature is its probability."""

    def __init__(self):
        self.classes_ = np.array([0, 1])

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return np.column_stack([1 - X[:, 0], X[:, 0]])


def test_where_need_is_certain_it_is_the_threshold_that_scikit_learn_tunes():
    rng = np.random.default_rng(0)
    p_acc = rng.random(60_000)
    accept = rng.random(60_000) < p_acc
    need = np.ones(60_000, dtype=bool)

    def saved(y, speak):
        return -GATE.realised_cost(speak, np.ones(len(y)), y).mean()

    everything = np.arange(60_000)
    tuned = TunedThresholdClassifierCV(
        FrozenEstimator(_Second()),
        scoring=make_scorer(saved),
        cv=[(everything, everything)],
        thresholds=np.linspace(0.2, 0.5, 31),
    ).fit(p_acc[:, None], accept.astype(int))
    assert tuned.best_threshold_ == pytest.approx(float(GATE.threshold(1.0)), abs=0.03)
    theirs = GATE.realised_cost(tuned.predict(p_acc[:, None]), need, accept).mean()
    assert GATE.realised_cost(GATE.decide(need, p_acc), need, accept).mean() == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: CostGate(0.0, 1.0), ValueError, "c_fa.*above 0; got 0.0"),
        (lambda: CostGate(1.0, -0.1), ValueError, "c_fn.*0 or more; got -0.1"),
        (lambda: CostGate(float("nan"), 1.0), ValueError, "c_fa must be finite"),
        (lambda: CostGate(1.0, float("inf")), ValueError, "c_fn must be finite"),
        (lambda: CostGate("1", 1.0), TypeError, "c_fa must be a number"),
        (lambda: GATE.threshold([0.1, 1.2, -3]), ValueError, r"p_need.*got 1.2 at index 1"),
        (lambda: GATE.decide([0.1, 0.2], [0.1, float("nan")]), ValueError, r"p_acc.*got nan at index 1"),
        (lambda: GATE.margin(torch.tensor([[0.1], [-0.2]]), torch.zeros(2, 1)), ValueError, r"index \(1, 0\)"),
        (lambda: GATE.decide([0.1], [0.1, 0.2]), ValueError, r"p_need \(1,\), p_acc \(2,\)"),
        (lambda: GATE.decide(torch.tensor([0.1]), np.array([0.1])), TypeError, "all as tensors"),
        (lambda: GATE.decide(["a"], [0.1]), TypeError, "p_need must be numbers"),
        (lambda: GATE.realised_cost([1], [2], [0]), ValueError, "y_need must be labels 0 or 1; got 2 at index 0"),
        (lambda: GATE.realised_cost([1, 0], [1], [0]), ValueError, r"speak \(2,\), y_need \(1,\)"),
        (lambda: GATE.expected_cost([0.5], [0.1], [0.1]), ValueError, "speak must be labels"),
        (lambda: GATE.route(np.r_[np.zeros(2 * BLOCK), 2.0], np.zeros(2 * BLOCK + 1), 0.1), ValueError, str(2 * BLOCK)),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
