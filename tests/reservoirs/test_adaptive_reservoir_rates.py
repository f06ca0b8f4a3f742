"""What sets the rates: against its closed form, the plain rule in a loop, and what must never change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.special import expit, logit
from sklearn.exceptions import ConvergenceWarning

from interplay.primitives.homeostasis import regulated_offset, regulated_strength
from interplay.reservoirs.adaptive_reservoir import EIReservoir, EIReservoirCell, one_step_design, targets

from . import closed_form_network as formulas


def noise(steps, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=(steps, 1))


def small(seed=0, **settings):
    return EIReservoir(40, connectivity=0.3, **{"gain": 2.0, "seed": seed, **settings})


@given(st.integers(0, 10**6), st.floats(-1, 1), st.floats(-1, 1))
def test_the_design_puts_every_mean_drive_where_the_target_is(seed, mean_input, threshold):
    rng = np.random.default_rng(seed)
    units = 20
    magnitudes = rng.uniform(size=(units, units)) * (rng.uniform(size=(units, units)) < 0.4)
    wanted, input_weights = rng.uniform(0.05, 0.95, units), rng.normal(size=units)
    current = input_weights * mean_input - threshold
    excitation, inhibition = magnitudes[:, :15] @ wanted[:15], magnitudes[:, 15:] @ wanted[15:]
    factors, infeasible = one_step_design(excitation, inhibition, current, wanted)
    rates = expit(excitation - factors * inhibition + current)
    np.testing.assert_allclose(rates[~infeasible], wanted[~infeasible], atol=1e-10)
    # Where it cannot be met, inhibition is already at zero, or there is none, and the rate is still too low.
    linked = inhibition > 0
    assert (infeasible[~linked]).all()
    assert (factors[infeasible & linked] == 0).all()
    assert (rates[infeasible & linked] < wanted[infeasible & linked]).all()


def test_the_design_is_exact_where_there_is_no_mean_field_to_approximate():
    # Constant input: the designed rates are a fixed point of the dynamics itself.
    reservoir = small(threshold=0.1, leak_rate=0.5)
    wanted = targets.beta(40, 0.4, 20, generator=np.random.default_rng(0))
    report = reservoir.adapt(np.full((300, 1), 0.7), wanted, mode="one_step")
    feasible = reservoir.incoming_inhibition() > 0
    assert report.n_infeasible == (~feasible).sum() < 5
    moved = reservoir.step([0.7], wanted)
    np.testing.assert_allclose(moved[feasible], wanted[feasible], atol=1e-12)


def test_the_design_uses_the_mean_of_the_input():
    inputs = noise(1000) + 2.0
    with_mean, without = small(input_scaling=1.0), small(input_scaling=1.0)
    with_mean.adapt(inputs, 0.4, mode="one_step")
    without.adapt(inputs - inputs.mean(), 0.4, mode="one_step")
    error = [np.abs(each.rates(inputs) - 0.4).mean() for each in (with_mean, without)]
    assert error[0] < 0.5 * error[1]


def test_one_step_out_of_reach_is_counted_and_does_what_it_can():
    # A threshold of 30 leaves no unit enough drive for a rate of 0.9.
    reservoir = small(threshold=30.0)
    report = reservoir.adapt(noise(300), 0.9, mode="one_step")
    assert report.n_infeasible == 40
    assert (reservoir.incoming_inhibition() == 0).all()
    assert report.rate_error > 0.5


def plain_rule(reservoir, inputs, wanted, rate, steps):
    """Equations (1) and (2), entry by entry, with the primitive."""
    matrix = reservoir.links().toarray()
    links = matrix != 0
    state = np.zeros(len(matrix))
    for t in range(steps):
        drive = matrix @ state + reservoir.input_weights @ inputs[t % len(inputs)] - reservoir.threshold
        state = (1 - reservoir.leak_rate) * state + reservoir.leak_rate * expit(drive)
        for i, j in np.argwhere(links):
            if not reservoir.excitatory[j]:
                matrix[i, j] = -regulated_strength(-matrix[i, j], state[i], wanted[i], rate)
    return matrix


@pytest.mark.parametrize("connectivity", [0.15, 0.5])
def test_the_online_rule_is_the_rule_in_a_plain_loop(connectivity):
    settings = {"connectivity": connectivity, "gain": 3.0, "leak_rate": 0.7, "threshold": 0.1, "seed": 0}
    inputs, wanted = noise(35), targets.beta(30, 0.9, generator=np.random.default_rng(0))
    reservoir = EIReservoir(30, **settings)
    before = reservoir.links()
    with pytest.warns(ConvergenceWarning):
        report = reservoir.adapt(inputs, wanted, rate=0.5, max_steps=90, window=30, tolerance=1e-9)
    expected = plain_rule(EIReservoir(30, **settings), inputs, wanted, 0.5, 90)
    assert (expected == 0).sum() > before.shape[0] ** 2 - before.nnz, "nothing was clipped"
    np.testing.assert_allclose(reservoir.links().toarray(), expected, atol=1e-10)
    assert (report.steps, len(report.history), report.window) == (90, 3, 30)


def test_the_threshold_rule_is_the_rule_in_a_plain_loop():
    reservoir, inputs = small(), noise(35)
    matrix, state, threshold = reservoir.links().toarray(), np.zeros(40), np.zeros(40)
    for t in range(60):
        state = expit(matrix @ state + reservoir.input_weights @ inputs[t % 35] - threshold)
        threshold = regulated_offset(threshold, state, np.full(40, 0.3), 0.05)
    with pytest.warns(ConvergenceWarning):
        report = reservoir.adapt_threshold(inputs, 0.3, rate=0.05, max_steps=60, window=60, tolerance=1e-9)
    np.testing.assert_allclose(reservoir.threshold, threshold, atol=1e-10)
    np.testing.assert_array_equal(reservoir.links().toarray(), matrix)
    assert report.mode == "threshold"


def test_the_cells_rule_is_the_reservoirs():
    reservoir, inputs = small(leak_rate=0.8), noise(50)
    cell = EIReservoirCell.from_reservoir(reservoir)
    errors = cell.adapt(torch.from_numpy(inputs[:, None]), 0.3, rate=0.05)
    with pytest.warns(ConvergenceWarning):
        report = reservoir.adapt(inputs, 0.3, rate=0.05, max_steps=50, window=50, tolerance=1e-9)
    np.testing.assert_allclose(cell.weights.detach(), reservoir.links().toarray(), atol=1e-12)
    assert errors.shape == (50,)
    assert report.history[0] <= errors.mean() + 1e-12  # the error of means is at most the mean of errors
    with pytest.raises(ValueError, match="targets must be in"):
        cell.adapt(torch.from_numpy(inputs[:, None]), 1.0)


@pytest.mark.parametrize("mode", ["online", "one_step"])
@pytest.mark.parametrize("rate", [0.3, 0.5])
def test_rates_meet_their_targets_on_inputs_not_seen(mode, rate):
    reservoir = EIReservoir(200, gain=1.5, seed=0)
    before = np.abs(reservoir.rates(noise(1200, 1)) - rate).mean()
    report = reservoir.adapt(noise(2000), rate, mode=mode, max_steps=12_000)
    after = np.abs(reservoir.rates(noise(1200, 1)) - rate).mean()
    assert after < 0.05
    assert after < 0.7 * before
    assert report.rate_error == pytest.approx(after, abs=0.01)
    if mode == "online":
        assert report.converged
        assert report.history[-1] < 0.02 < report.history[0]


def test_targets_that_differ_are_met_unit_by_unit():
    reservoir = EIReservoir(200, gain=1.5, seed=0)
    wanted = targets.beta(200, 0.4, generator=np.random.default_rng(0))
    with pytest.warns(ConvergenceWarning):
        reservoir.adapt(noise(2000), wanted, rate=0.02, tolerance=1e-3, max_steps=20_000)
    error = np.abs(reservoir.rates(noise(1200, 1)) - wanted)
    assert np.median(error) < 0.02
    assert np.median(np.abs(wanted - 0.4)) > 0.08, "targets hardly differ"


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["online", "one_step"]),
    st.floats(0.01, 0.99),
    st.floats(0.001, 5),
    st.floats(0.5, 8),
    st.integers(0, 99),
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_dales_law_links_and_excitation_survive_adaptation(mode, target, rate, gain, seed):
    reservoir = small(seed=seed, gain=gain)
    before = reservoir.links()
    reservoir.adapt(noise(60, seed), target, mode=mode, rate=rate, max_steps=100, window=25)
    after = reservoir.links()
    np.testing.assert_array_equal(after.indptr, before.indptr)
    np.testing.assert_array_equal(after.indices, before.indices)
    assert (after.data[~reservoir.excitatory[after.indices]] <= 0).all()
    np.testing.assert_array_equal(after.toarray()[:, :32], before.toarray()[:, :32])
    assert np.isfinite(after.data).all()


@settings(deadline=None, max_examples=30)
@given(st.permutations(range(formulas.UNITS)), st.sampled_from(["online", "one_step"]), st.floats(0.1, 0.9))
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_adaptation_commutes_with_renaming_the_units(order, mode, rate):
    order = np.array(order)
    wanted = np.clip(rate + 0.1 * np.cos(np.arange(formulas.UNITS)), 0.05, 0.95)
    inhibits = np.arange(formulas.UNITS) % 5 == 4

    def adapted(order):
        reservoir = EIReservoir.from_weights(
            sparse.csr_array(formulas.dale_weights()[np.ix_(order, order)]),
            formulas.input_weights()[order],
            excitatory=~inhibits[order],
            threshold=formulas.bias()[order],
        )
        reservoir.adapt(formulas.inputs(), wanted[order], mode=mode, rate=0.1, max_steps=80, window=40, tolerance=1e-9)
        return reservoir.links().toarray()

    plain = adapted(np.arange(formulas.UNITS))
    np.testing.assert_allclose(adapted(order), plain[np.ix_(order, order)], atol=1e-9)


def test_links_that_came_to_zero_can_grow_again():
    reservoir = small(gain=1.0)
    links = reservoir.links().nnz
    with pytest.warns(ConvergenceWarning, match="40 units cannot meet their target by inhibition"):
        reservoir.adapt(noise(200), 0.97, rate=1.0, max_steps=200)
    assert (reservoir.incoming_inhibition() == 0).all()
    assert reservoir.links().nnz == links
    with pytest.warns(ConvergenceWarning):
        reservoir.adapt(noise(200), 0.02, rate=0.01, max_steps=50)
    linked = small(gain=1.0).incoming_inhibition() > 0
    assert linked.sum() > 30
    assert (reservoir.incoming_inhibition()[linked] > 0).all()


def test_too_large_a_rate_is_called_by_its_name():
    with pytest.warns(ConvergenceWarning, match="rates oscillate around their targets: lower rate"):
        small().adapt(np.zeros((50, 1)), 0.4, rate=8.0, max_steps=51, window=1)


def test_too_few_steps_are_called_by_their_name():
    with pytest.warns(
        ConvergenceWarning, match=r"after 200 steps with a mean rate error of 0\.\d+.*raise max_steps or rate"
    ):
        report = small().adapt(noise(200), 0.3, rate=1e-5, max_steps=200)
    assert report.converged is False


def test_adaptation_stops_when_it_has_converged_and_leaves_frozen_weights():
    reservoir = EIReservoir(200, gain=1.5, seed=0)
    report = reservoir.adapt(noise(2000), 0.5, max_steps=20_000)
    assert report.converged
    assert report.steps < 20_000
    frozen = reservoir.links().data
    reservoir.run(noise(500, 1))
    np.testing.assert_array_equal(reservoir.links().data, frozen)


def test_rescaling_starts_from_strengths_before_adaptation():
    reservoir = small()
    untouched = reservoir.links().toarray()
    reservoir.adapt(noise(200), 0.3, mode="one_step")
    assert not np.allclose(reservoir.links().toarray(), untouched)
    np.testing.assert_allclose(reservoir.rescaled().links().toarray(), untouched)
    np.testing.assert_allclose(reservoir.rescaled(gain=6.0).links().toarray(), 3 * untouched)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_rescaling_starts_from_thresholds_before_adaptation():
    reservoir = small(threshold=0.2)
    for rate in (0.3, 0.6):
        reservoir.adapt_threshold(noise(200), rate, max_steps=200)
    assert np.abs(reservoir.threshold - 0.2).max() > 0.01
    np.testing.assert_allclose(reservoir.rescaled(gain=1.0).threshold, 0.2, atol=1e-12)


def test_inhibition_can_be_dealt_out_by_hand():
    reservoir = small()
    factors = np.random.default_rng(0).uniform(0, 3, 40)
    moved = reservoir.with_inhibition(factors)
    np.testing.assert_allclose(moved.incoming_inhibition(), factors * reservoir.incoming_inhibition())
    np.testing.assert_allclose(moved.balance_per_node(), factors * reservoir.balance_per_node())
    with pytest.raises(ValueError, match="factors must be 40 numbers"):
        reservoir.with_inhibition(-factors)


def test_balance_counts_strengths_row_by_row():
    matrix = np.array([[0, 2.0, -3.0], [1.0, 0, -0.5], [0, 0, 0]])
    reservoir = EIReservoir.from_weights(matrix, np.ones((3, 1)), excitatory=np.array([True, True, False]))
    np.testing.assert_allclose(reservoir.balance_per_node(), [1.5, 0.5, np.nan])


def test_the_design_of_a_single_unit_in_closed_form():
    # One excitatory and one inhibitory link: Omega = (e rho_1 + w <u> - theta - logit rho) / (h rho_2).
    matrix = np.array([[0, 2.0, -1.5], [1.0, 0, -1.0], [1.0, 0.5, 0]])
    reservoir = EIReservoir.from_weights(
        matrix, [[0.3], [0.1], [0.2]], excitatory=np.array([True, True, False]), threshold=0.05
    )
    wanted = np.array([0.4, 0.55, 0.3])
    with_mean = np.full((10, 1), 0.5)
    report = reservoir.adapt(with_mean, wanted, mode="one_step")
    omega = (2.0 * 0.55 + 0.3 * 0.5 - 0.05 - logit(0.4)) / (1.5 * 0.3)
    assert reservoir.links().toarray()[0, 2] == pytest.approx(-1.5 * omega)
    assert report.n_infeasible == 1  # the third unit has no inhibitory input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.adapt(noise(50), 0.0), r"targets must be in \(0, 1\)"),
        (lambda r: r.adapt(noise(50), np.nan), r"targets must be in \(0, 1\)"),
        (lambda r: r.adapt(noise(50), np.full(3, 0.5)), "one for each of the 40 units"),
        (lambda r: r.adapt(noise(50), 0.5, mode="hebbian"), "mode must be 'online' or 'one_step'"),
        (lambda r: r.adapt(noise(50), 0.5, rate=-1.0), "rate must be a positive"),
        (lambda r: r.adapt(noise(50), 0.5, max_steps=0), "max_steps must be a positive"),
        (lambda r: r.adapt(noise(50)[:, None], 0.5), "adaptation takes one series"),
        (lambda r: r.adapt(noise(50)[:, 0], 0.5), r"inputs\[:, None\]"),
        (lambda r: small(activation="tanh").adapt(noise(50), 0.5), "target rates belong to activation='sigmoid'"),
        (lambda r: targets.homogeneous(3, 1.0), r"rate must be in \(0, 1\)"),
        (lambda r: targets.beta(3, 0.5, 0.0, generator=np.random.default_rng(0)), "concentration must be"),
        (lambda r: targets.lognormal(3, 0.5, -1.0, generator=np.random.default_rng(0)), "spread must be"),
    ],
)
def test_bad_calls_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(small())
