"""The driven network: against ReservoirPy's states, plain loops, and itself in batches, CSR, dense and PyTorch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import expit

from interplay.reservoirs.adaptive_reservoir import EIReservoir, EIReservoirCell, Reservoir, targets
from interplay.reservoirs.adaptive_reservoir.dynamics import CompressedRows
from interplay.reservoirs.adaptive_reservoir.kernels import activate, sparse_product
from interplay.reservoirs.adaptive_reservoir.weights import spectral_radius_of
from interplay.testing import check_mechanism, check_same_seed

from . import closed_form_network as formulas

# States of `reservoirpy.nodes.Reservoir(W=, Win=, bias=, lr=, activation=).run(inputs)`, version 0.4.2, on the network
# and the series of closed_form_network.py, at the listed steps.
RECORDED = json.loads((Path(__file__).parent / "data" / "reservoirpy_states.json").read_text())


@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_array, sparse.coo_matrix])
@pytest.mark.parametrize("leak_rate", [1.0, 0.3])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_states_equal_those_of_reservoirpy(activation, leak_rate, storage):
    reservoir = Reservoir(
        storage(formulas.weights()),
        formulas.input_weights(),
        threshold=-formulas.bias(),
        activation=activation,
        leak_rate=leak_rate,
    )
    states = reservoir.run(formulas.inputs())
    np.testing.assert_allclose(
        states[RECORDED["steps"]], RECORDED[f"{activation} {leak_rate}"], rtol=0, atol=1e-10, strict=True
    )


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("connectivity", [0.1, 0.6])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_a_batch_equals_a_loop_over_steps_of_each_series(activation, connectivity, batch):
    rng = np.random.default_rng(0)
    reservoir = EIReservoir(
        40,
        2,
        connectivity=connectivity,
        activation=activation,
        threshold=0.1,
        leak_rate=rng.uniform(0.2, 1, 40),
        seed=1,
    )
    assert sparse.issparse(reservoir.weights) == (connectivity < 0.25)
    inputs, start = rng.normal(size=(15, batch, 2)), rng.uniform(size=(batch, 40))
    states = reservoir.run(inputs, start)
    matrix = reservoir.links().toarray()
    squash = expit if activation == "sigmoid" else np.tanh
    for b in range(batch):
        x = start[b]
        for t in range(15):
            new = squash(matrix @ x + reservoir.input_weights @ inputs[t, b] - 0.1)
            x = (1 - reservoir.leak_rate) * x + reservoir.leak_rate * new
            np.testing.assert_allclose(states[t, b], x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(reservoir.run(inputs[:, 0], start[0]), states[:, 0], rtol=0, atol=1e-12)


def test_steps_equal_a_run():
    reservoir = EIReservoir(30, 2, seed=0)
    inputs = np.random.default_rng(0).normal(size=(5, 2))
    state = None
    for row, expected in zip(inputs, reservoir.run(inputs), strict=True):
        state = reservoir.step(row, state)
        np.testing.assert_array_equal(state, expected)
    assert reservoir.step(inputs[:3]).shape == (3, 30)


@pytest.mark.parametrize("connectivity", [0.1, 0.6])
def test_single_precision_stays_single_and_close(connectivity):
    single = EIReservoir(60, connectivity=connectivity, gain=2.0, dtype=np.float32, seed=0)
    double = EIReservoir(60, connectivity=connectivity, gain=2.0, seed=0)
    inputs = np.random.default_rng(0).uniform(-1, 1, size=(50, 20, 1))
    for one in (inputs, inputs[:, 0]):
        states = single.run(one)
        assert states.dtype == np.float32
        np.testing.assert_allclose(states, double.run(one), rtol=0, atol=1e-5)
    single.adapt(inputs[:, 0], 0.4, mode="one_step")
    assert single.run(inputs).dtype == np.float32


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50), st.booleans())
def test_activations_are_accurate_everywhere(drive, sigmoid):
    drive = np.array(drive)
    expected = expit(drive) if sigmoid else np.tanh(drive)
    activate(drive, np.empty_like(drive), sigmoid)
    np.testing.assert_allclose(drive, expected, rtol=0, atol=4.5e-16)


@given(st.integers(1, 30), st.floats(0, 1), st.integers(0, 10**6))
def test_the_sparse_product_is_the_matrix_product(units, density, seed):
    rng = np.random.default_rng(seed)
    matrix = sparse.random_array((units, units), density=density, rng=rng, format="csr")
    x, y = rng.normal(size=units), np.empty(units)
    sparse_product(*CompressedRows.of(matrix), x, y)
    np.testing.assert_allclose(y, matrix.toarray() @ x, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(20, 80),
    st.floats(0.3, 0.9),
    st.floats(0.2, 1),
    st.floats(0.5, 8),
    st.floats(0.3, 3),
    st.integers(0, 999),
)
def test_draws_obey_dales_law_and_the_settings(units, fraction, connectivity, gain, balance, seed):
    reservoir = EIReservoir(
        units, excitatory_fraction=fraction, connectivity=connectivity, gain=gain, balance=balance, seed=seed
    )
    matrix = reservoir.links().toarray()
    excitatory = round(fraction * units)
    assert reservoir.excitatory.sum() == excitatory
    assert (matrix[:, :excitatory] >= 0).all()
    assert (matrix[:, excitatory:] <= 0).all()
    assert (np.diag(matrix) == 0).all()
    balanced = matrix / np.where(reservoir.excitatory, 1, balance)
    assert np.abs(np.linalg.eigvals(balanced)).max() == pytest.approx(gain, rel=1e-6)
    refixed = reservoir.rescaled(spectral_radius=gain).links().toarray()
    assert np.abs(np.linalg.eigvals(refixed)).max() == pytest.approx(gain, rel=1e-6)
    np.testing.assert_allclose(refixed * (matrix.max() / refixed.max()), matrix, atol=1e-9 * matrix.max())


def test_the_balanced_start_has_rows_that_sum_to_about_zero():
    matrix = EIReservoir(2000, connectivity=0.3, seed=0).links()
    rows = np.asarray(matrix.sum(axis=1))
    strength = np.asarray(abs(matrix).sum(axis=1))
    assert abs(rows.mean()) < 0.01 * strength.mean()
    reservoir = EIReservoir(500, balance=1.4, seed=0)
    assert np.nanmedian(reservoir.balance_per_node()) == pytest.approx(1.4, rel=0.1)


@pytest.mark.parametrize("kind", ["plain", "balanced"])
def test_the_largest_eigenvalue_by_iteration_is_that_of_the_dense_solver(kind):
    if kind == "plain":
        matrix = Reservoir.random(1100, connectivity=0.02, seed=0).weights
    else:
        matrix = EIReservoir(1100, connectivity=0.02, gain=1.0, seed=0).weights
    assert spectral_radius_of(matrix) == pytest.approx(spectral_radius_of(matrix.toarray()), rel=1e-4)


def test_a_plain_network_has_the_spectral_radius_asked_for():
    reservoir = Reservoir.random(80, spectral_radius=0.7, connectivity=0.2, bias_scaling=0.3, seed=3)
    assert spectral_radius_of(reservoir.weights) == pytest.approx(0.7)
    assert 0.15 < np.abs(reservoir.threshold).max() <= 0.3


def test_seeds_and_states():
    check_same_seed(lambda seed: EIReservoir(30, seed=seed).run(formulas.inputs()[:, :1]))
    check_same_seed(lambda seed: Reservoir.random(30, seed=seed).run(formulas.inputs()[:, :1]))
    reservoir = EIReservoir(30, 2, seed=0)
    inputs = formulas.inputs()
    again = reservoir.run(inputs)
    np.testing.assert_array_equal(reservoir.run(inputs), again)
    np.testing.assert_array_equal(inputs, formulas.inputs())
    np.testing.assert_allclose(reservoir.rates(inputs, washout=10), again[10:].mean(axis=0))


def test_the_cell_is_the_reservoir():
    reservoir = EIReservoir(40, 2, leak_rate=0.5, threshold=0.2, seed=0)
    reservoir.adapt(formulas.inputs(), 0.4, mode="one_step")
    cell = EIReservoirCell.from_reservoir(reservoir)
    inputs = np.random.default_rng(0).normal(size=(20, 3, 2))
    states, last = cell(torch.from_numpy(inputs))
    np.testing.assert_allclose(states.detach(), reservoir.run(inputs), atol=1e-12)
    torch.testing.assert_close(states[-1], last)
    resumed, _ = cell(torch.from_numpy(inputs[8:]), states[7])
    torch.testing.assert_close(resumed, states[8:])


def test_the_cell_behaves_as_a_mechanism():
    cell = EIReservoirCell(20, 3, leak_rate=0.7, gain=2.0, connectivity=0.3, dtype=np.float32, seed=0)
    check_mechanism(
        cell,
        torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0)),
        batch_dim=1,
        bad_inputs={
            "one series without a batch": (torch.randn(6, 3),),
            "wrong channels": (torch.randn(6, 4, 2),),
            "no steps": (torch.randn(0, 4, 3),),
            "integers": (torch.ones(6, 4, 3, dtype=torch.int64),),
            "state of another batch": (torch.randn(6, 4, 3), torch.zeros(3, 20)),
        },
    )


def test_the_cells_gradients_are_those_of_finite_differences():
    cell = EIReservoirCell(6, 2, connectivity=0.6, gain=2.0, leak_rate=0.8, seed=0)
    inputs = torch.randn(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    names = [name for name, _ in cell.named_parameters()]

    def last(*parameters):
        return torch.func.functional_call(cell, dict(zip(names, parameters, strict=True)), (inputs,))[1]

    # Away from absent links: there the modulus has a corner, and the mask makes the strength matter to nothing.
    start = [parameter.detach().clone() for parameter in cell.parameters()]
    start[0] = torch.where(cell.links, start[0], torch.ones_like(start[0])).requires_grad_()
    assert torch.autograd.gradcheck(last, [start[0], *(p.requires_grad_() for p in start[1:])])


def test_an_optimiser_cannot_break_dales_law_or_make_links():
    cell = EIReservoirCell(30, 1, gain=2.0, connectivity=0.2, dtype=np.float32, seed=0)
    before = cell.weights.detach().clone()
    optimizer = torch.optim.SGD(cell.parameters(), lr=5.0)
    inputs = torch.randn(10, 4, 1, generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        optimizer.zero_grad()
        (cell(inputs)[0] - 0.9).square().sum().backward()
        optimizer.step()
    after = cell.weights.detach()
    assert not torch.equal(before, after)
    assert (after[~cell.links] == 0).all()
    assert (after * cell.sign >= 0).all()


def test_seeds_at_once_equal_seeds_one_by_one():
    cells = [EIReservoirCell(20, 1, leak_rate=0.6, seed=seed) for seed in range(4)]
    inputs = torch.randn(12, 3, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameters, buffers = torch.func.stack_module_state(cells)

    def run(parameters, buffers):
        return torch.func.functional_call(cells[0], (parameters, buffers), (inputs,))[0]

    together = torch.func.vmap(run)(parameters, buffers)
    torch.testing.assert_close(together, torch.stack([cell(inputs)[0] for cell in cells]))


def test_targets():
    generator = np.random.default_rng(0)
    assert (targets.homogeneous(5, 0.3) == 0.3).all()
    drawn = targets.beta(100_000, 0.3, 8.0, generator=generator)
    assert drawn.mean() == pytest.approx(0.3, abs=0.003)
    assert drawn.var() == pytest.approx(0.3 * 0.7 / 9, rel=0.02)
    drawn = targets.lognormal(100_000, 0.2, 0.4, generator=generator)
    assert drawn.mean() == pytest.approx(0.2, abs=0.002)
    assert np.log(drawn).std() == pytest.approx(0.4, rel=0.02)
    for extreme in (
        targets.beta(1000, 0.5, 0.1, generator=generator),
        targets.lognormal(1000, 0.5, 3, generator=generator),
    ):
        assert (extreme.min(), extreme.max()) == (0.02, 0.98)


BAD_RESERVOIRS = {
    "excitatory_fraction leaves no inhibitory unit": {"excitatory_fraction": 1.0},
    "excitatory_fraction must be in": {"excitatory_fraction": 0.0},
    "excitatory_fraction leaves no excitatory unit": {"excitatory_fraction": 0.01},
    "connectivity must be in": {"connectivity": 1.5},
    "no closed loop of links": {"connectivity": 0.002},
    "units must be 1 or more": {"units": 0},
    "gain must be a positive": {"gain": 0.0},
    "balance must be a positive": {"balance": -1.0},
    "spectral_radius must be a positive": {"spectral_radius": float("nan")},
    "input_scaling must be a positive": {"input_scaling": float("inf")},
    "dtype must be float32 or float64": {"dtype": np.int64},
    "leak_rate must be in": {"leak_rate": 0.0},
    "threshold must be one number": {"threshold": [0.0, 0.1]},
    "threshold must be finite": {"threshold": float("nan")},
    "activation must be one of": {"activation": "relu"},
}


@pytest.mark.parametrize("message", BAD_RESERVOIRS)
def test_impossible_reservoirs_are_refused(message):
    with pytest.raises(ValueError, match=message):
        EIReservoir(**{"units": 20, "seed": 0, **BAD_RESERVOIRS[message]})


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.zeros(5), ValueError, r"reshape one channel with inputs\[:, None\]"),
        (np.zeros((5, 2)), ValueError, r"inputs must be \(time, 1\)"),
        (np.zeros((0, 1)), ValueError, "at least one step"),
        (np.array([[0.0], [np.nan], [0.0]]), ValueError, r"got nan at index \(1, 0\)"),
        (np.array([["a"]]), TypeError, "inputs must be real numbers"),
    ],
)
def test_bad_inputs_are_refused(inputs, error, message):
    with pytest.raises(error, match=message):
        EIReservoir(20, seed=0).run(inputs)


def test_bad_states_and_weights_are_refused():
    with pytest.raises(ValueError, match=r"state must have shape \(20,\)"):
        EIReservoir(20, seed=0).run(np.zeros((5, 1)), np.zeros(3))
    with pytest.raises(ValueError, match="washout must be at least 0"):
        EIReservoir(20, seed=0).rates(np.zeros((5, 1)), washout=5)
    with pytest.raises(ValueError, match="square matrix"):
        Reservoir(np.zeros((3, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="weights must be finite"):
        Reservoir(np.full((3, 3), np.inf), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="input_weights must be"):
        Reservoir(np.eye(3), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"column 0 \(1 in all\).*both excite and inhibit"):
        EIReservoir.from_weights([[0, 1, -1], [1, 0, -1], [-1, 1, 0]], np.zeros((3, 1)))
    with pytest.raises(ValueError, match="sigmoid rates"):
        EIReservoirCell(20, activation="tanh", seed=0)
