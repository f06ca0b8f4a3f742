"""The theory of curl descent: against brute-force maxima, tabulated values, random matrices and trajectories."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from interplay.dynamics.curl_descent import (
    LearningRule,
    TwoLayerTeacherStudent,
    critical_fraction_readout_flips,
    critical_ratio_input_flips,
    is_stable,
    phase_diagram,
    simulate,
    stability_matrix,
    toy_update,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def signs(neurons: int, flipped: int) -> torch.Tensor:
    return torch.cat([-torch.ones(flipped), torch.ones(neurons - flipped)]).double()


def test_limits_of_the_critical_ratio():
    assert critical_ratio_input_flips(1e-10) == pytest.approx(2 / 3, rel=1e-4)
    assert critical_ratio_input_flips(1.0) == pytest.approx(1 / 4, rel=1e-12)
    assert critical_ratio_input_flips(0.0) == np.inf


def test_values_of_the_critical_fraction():
    measured = critical_fraction_readout_flips(np.array([0.1, 0.5, 1.0, 2.0]))
    assert measured == pytest.approx([0.2446, 0.0973, 0.0551, 0.0293], abs=5e-5)
    assert critical_fraction_readout_flips(1e-10) == pytest.approx(0.5, rel=1e-4)
    assert critical_fraction_readout_flips(1e4) == pytest.approx(1 / 16e4, rel=1e-3)


@given(st.floats(1e-3, 1.0))
def test_the_critical_ratio_is_the_maximum_of_its_formula(fraction):
    v = 1 + np.geomspace(1e-6, 10, 20_000)
    brute = (1 / (v * (1 + (1 - fraction) / (v + 1) + fraction / (v - 1)))).max()
    assert critical_ratio_input_flips(fraction) == pytest.approx(brute, rel=1e-6)


@given(st.floats(1e-3, 1e3))
def test_the_critical_fraction_is_the_maximum_of_its_formula(ratio):
    u = np.linspace(1e-5, 1, 20_001)[:-1]
    brute = ((1 - u) / 2 * (1 - ratio * (1 - u**2) / u)).max()
    found = critical_fraction_readout_flips(ratio)
    assert found >= brute - 1e-12
    assert found == pytest.approx(brute, rel=1e-3 if ratio < 100 else 1e-1)


@pytest.mark.parametrize("fraction", [0.1, 0.3, 1.0])
def test_large_random_networks_change_stability_where_the_curve_for_inputs_says(fraction):
    for factor, stable in ((0.85, True), (1.18, False)):
        hidden = 900
        inputs = round(hidden * factor * critical_ratio_input_flips(fraction))
        network = TwoLayerTeacherStudent.draw(inputs, hidden, generator=generator()).at_teacher(0)
        d1, d2 = signs(inputs, round(fraction * inputs)), torch.ones(hidden).double()
        assert is_stable(network.weight1, network.weight2, d1, d2).item() is stable


@pytest.mark.parametrize("ratio", [0.1, 0.5, 2.0])
def test_large_random_networks_change_stability_where_the_curve_for_the_readout_says(ratio):
    for factor, stable in ((0.8, True), (1.25, False)):
        hidden = 1600 if ratio < 1 else 800
        inputs = round(hidden * ratio)
        network = TwoLayerTeacherStudent.draw(inputs, hidden, generator=generator()).at_teacher(0)
        d2 = signs(hidden, round(factor * critical_fraction_readout_flips(ratio) * hidden))
        assert is_stable(network.weight1, network.weight2, torch.ones(inputs).double(), d2).item() is stable


def test_the_phase_diagram_is_bounded_by_the_curves():
    ratios, fractions = [0.2, 0.3, 0.5, 1.0], [0.0, 0.05, 0.1, 0.5, 1.0]
    by_inputs = phase_diagram(ratios, fractions, "input")
    assert by_inputs.shape == (4, 5)
    assert by_inputs[0].all(), "below 1/4 any number of flipped inputs is harmless"
    assert by_inputs[:, 0].all(), "gradient descent is stable"
    assert not by_inputs[3, 1:].any()
    assert phase_diagram(ratios, fractions, "readout").sum(1).tolist() == [3, 3, 2, 2]


def test_the_stability_matrix_is_its_formula_written_out():
    network = TwoLayerTeacherStudent.draw(5, 3, batch=2, generator=generator())
    d1, d2 = torch.tensor([1.0, -1, 0.5, 1, 1]).double(), torch.tensor([[1.0, -1, 1], [0, 1, 2]]).double()
    matrix = stability_matrix(network.weight1, network.weight2, d1, d2)
    for index in range(2):
        w1, w2 = network.weight1[index], network.weight2[index]
        expected = w1.T @ torch.diag(d2[index]) @ w1 + (w2 @ w2.T) * torch.diag(d1)
        assert_close(matrix[index], expected)
    smallest = torch.linalg.eigvalsh(matrix)[:, 0]
    assert torch.equal(is_stable(network.weight1, network.weight2, d1, d2), smallest > 0)


def test_the_error_obeys_the_matrix_along_the_trajectory():
    network = TwoLayerTeacherStudent.draw(6, 4, batch=3, generator=generator())
    d1, d2 = signs(6, 2), signs(4, 1)
    target = network.teacher_weight2 @ network.teacher_weight1
    lr = 1e-6
    simulate(network, 0.5, 20, LearningRule(gains1=d1, gains2=d2, renormalise=False))
    before = (network.weight2 @ network.weight1 - target).detach()
    matrix = stability_matrix(network.weight1.detach(), network.weight2.detach(), d1, d2)
    simulate(network, 0.5, 1, LearningRule(lr, d1, d2, renormalise=False))
    slope = (network.weight2 @ network.weight1 - target - before).detach() / lr
    assert_close(slope, -0.5 * before @ matrix, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("inputs_flipped", "hidden_flipped"), [(5, 0), (0, 1), (0, 6)])
def test_training_from_the_teacher_does_what_the_matrix_says(inputs_flipped, hidden_flipped):
    """While the error is small it is multiplied by 1 - eta sigma^2 K at every step, be K positive or not."""
    network = TwoLayerTeacherStudent.draw(12, 18, batch=4, generator=generator(3)).at_teacher(1e-8)
    d1, d2 = signs(12, inputs_flipped), signs(18, hidden_flipped)
    matrix = stability_matrix(network.weight1.detach(), network.weight2.detach(), d1, d2)
    assert (torch.linalg.eigvalsh(matrix)[:, 0] < 0).any() == (inputs_flipped + hidden_flipped > 1)
    target = network.teacher_weight2 @ network.teacher_weight1
    error = (network.weight2 @ network.weight1 - target).detach()
    run = simulate(network, 0.5, 1500, LearningRule(0.02, d1, d2, renormalise=False))
    step = torch.eye(12).double() - 0.02 * 0.5 * matrix
    for time in (100, 500, 1500):
        expected = 0.25 * (error @ torch.linalg.matrix_power(step, time)).square().sum((1, 2))
        assert_close(run.loss[time], expected, rtol=1e-3, atol=1e-26)


def test_without_renormalisation_the_flow_keeps_its_invariants():
    """|W1[i]|^2 - d_i w2_i^2 under flipped hidden units; W1 D1 W1^T - W2^T W2 under flipped inputs."""
    for d1, d2 in ((signs(6, 0), signs(5, 2)), (signs(6, 2), signs(5, 0))):
        network = TwoLayerTeacherStudent.draw(6, 5, batch=2, generator=generator())

        def by_unit(network=network, d2=d2):
            return network.weight1.detach().square().sum(2) - d2 * network.weight2.detach().square()[:, 0]

        def as_matrix(network=network, d1=d1):
            return (network.weight1 * d1) @ network.weight1.mT - network.weight2.mT @ network.weight2

        kept = by_unit if (d2 < 0).any() else as_matrix
        before, start = kept().detach(), network.weight1.detach().clone()
        simulate(network, 0.5, 20_000, LearningRule(1e-3, d1, d2, renormalise=False))
        assert (network.weight1 - start).abs().max() > 0.05
        assert_close(kept().detach(), before, rtol=0, atol=2e-4)


def test_the_toy_network_is_the_rule_for_one_input_and_one_hidden_unit():
    network = TwoLayerTeacherStudent(*(torch.tensor([[[value]]]).double() for value in (0.7, -0.4, 1.0, 0.9)))
    step1, step2 = toy_update(np.array(0.7), np.array(-0.4), target=0.9, hidden_sign=-1)
    rule = LearningRule(1.0, gains2=torch.tensor([-1.0]).double(), renormalise=False)
    simulate(network, 1.0, 1, rule)
    assert network.weight1.item() == pytest.approx(0.7 + step1)
    assert network.weight2.item() == pytest.approx(-0.4 + step2)
    assert 0.7 * step1 - 0.4 * step2 == pytest.approx(0, abs=1e-15), "orbits stay on circles"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: critical_ratio_input_flips(1.2), r"fraction must lie in \[0, 1\]; got 1.2"),
        (lambda: critical_ratio_input_flips(float("nan")), "fraction must lie in"),
        (lambda: critical_fraction_readout_flips(0.0), "must be positive and finite; got 0.0"),
        (lambda: phase_diagram([1.0], [0.5], "output"), "layer must be 'input' or 'readout'; got 'output'"),
        (
            lambda: stability_matrix(torch.ones(3, 4), torch.ones(1, 3), torch.ones(3), torch.ones(3)),
            r"input_signs must have length 4; got shape \(3,\)",
        ),
        (
            lambda: stability_matrix(torch.ones(3, 4), torch.ones(2, 3), torch.ones(4), torch.ones(3)),
            "weight2 must have one output",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
