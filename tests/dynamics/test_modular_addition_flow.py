"""The race of frequencies: closed form against integration, integration against the network's gradient and the code."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch.nn import functional
from torch.testing import assert_close

from interplay.dynamics.modular_addition import (
    FourierSpectrum,
    ModularAdditionNet,
    addition_table,
    decoupled_flow,
    dominance_time,
    lottery_ticket,
)

# By the official code at its last commit: `euler` from _run_decouple_simulation in double precision, some of its steps.
OFFICIAL = json.loads((Path(__file__).parent / "modular_addition_official.json").read_text())


def polar_rates(state: np.ndarray, p: int) -> np.ndarray:
    """The equations of alpha, beta, phi, psi for the mean loss, written out."""
    alpha, beta, phi, psi = state
    d = 2 * phi - psi
    return np.array(
        [
            2 * alpha * beta * np.cos(d) / p,
            alpha**2 * np.cos(d) / p,
            -2 * beta * np.sin(d) / p,
            alpha**2 / beta * np.sin(d) / p,
        ]
    )


def test_the_equations_are_the_networks_gradient_at_small_weights():
    p = 11
    network = ModularAdditionNet(p, 6, init="equal_magnitude", generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():  # magnitudes of their own for all frequencies
        for weight in network.parameters():
            weight.mul_(torch.linspace(0.5, 1.5, p)[:, None] if weight.shape[0] == p else torch.linspace(0.5, 1.5, p))
            weight.sub_(weight.mean(0 if weight.shape[0] == p else 1, keepdim=True)).mul_(1e-3)
    pairs, labels = addition_table(p)
    functional.cross_entropy(network(pairs), labels).backward()
    before = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
    step = 1e-4
    after = FourierSpectrum.from_weights(
        network.input_weights - step * network.input_weights.grad,
        network.output_weights - step * network.output_weights.grad,
    )
    state = [getattr(before, name).numpy() for name in ("alpha", "beta", "phi", "psi")]
    for name, expected in zip(("alpha", "beta", "phi", "psi"), polar_rates(np.array(state), p), strict=True):
        rate = (getattr(after, name) - getattr(before, name)) / step
        assert_close(rate, torch.from_numpy(expected), rtol=1e-3, atol=1e-3 * float(np.abs(expected).max()))


@pytest.mark.parametrize("case", OFFICIAL["euler"], ids=["aligned late", "aligned early"])
def test_trajectories_agree_with_the_official_simulation(case):
    """The code takes Euler steps of one; the same steps of our equations give its numbers, and the flow their limit."""
    p, every = case["p"], case["every"]

    def euler(lr: float) -> np.ndarray:
        state = np.array([case["amplitude"] * np.exp(1j * case["phi"]), case["amplitude"] * np.exp(1j * case["psi"])])
        rows = [state]
        for _ in range(int(every * (len(case["beta"]) - 1) / lr)):
            a, b = state
            state = state + lr / p * np.array([2 * b * a.conj(), a**2])
            rows.append(state)
        return np.array(rows)[:: int(every / lr)]

    coarse, fine = euler(1.0), euler(0.5)
    d = np.angle(coarse[:, 0] ** 2 * coarse[:, 1].conj())
    for ours, name in ((abs(coarse[:, 0]), "alpha"), (abs(coarse[:, 1]), "beta"), (d, "misalignment")):
        np.testing.assert_allclose(ours, case[name], rtol=1e-7, atol=1e-9)
    times = np.arange(len(case["beta"])) * float(every)
    start = case["amplitude"], case["amplitude"], case["misalignment"][0]
    flow = decoupled_flow(*start, p, times)
    # The first-order errors of the two Euler runs cancel.
    np.testing.assert_allclose(flow.alpha, 2 * abs(fine[:, 0]) - abs(coarse[:, 0]), rtol=5e-4)
    np.testing.assert_allclose(flow.beta, 2 * abs(fine[:, 1]) - abs(coarse[:, 1]), rtol=5e-4)
    np.testing.assert_allclose(flow.beta, case["beta"], rtol=2e-2)
    turned = np.angle(coarse[:, 0] / coarse[0, 0])
    np.testing.assert_allclose(flow.phi, turned, atol=5e-3)


STARTS = {
    "aligned": (0.02, 0.01, 0.0),
    "ahead": (0.02, 0.01, 1.0),
    "behind": (0.01, 0.03, 2.5),
    "negative angle": (0.015, 0.02, -2.9),
    "opposite": (0.02, 0.01, math.pi),
    "nearly opposite": (0.01, 0.02, math.pi - 1e-3),
    "no output": (0.02, 0.0, 2.0),
    "large output": (0.01, 0.3, 0.4),
}


def integrated(start: tuple[float, float, float], p: int, cap: float) -> float:
    def rates(_, y):
        a, b = complex(y[0], y[1]), complex(y[2], y[3])
        da, db = 2 / p * b * a.conjugate(), a * a / p
        return [da.real, da.imag, db.real, db.imag]

    def reached(_, y):
        return math.hypot(y[2], y[3]) - cap

    reached.terminal, reached.direction = True, 1
    a = start[0] * np.exp(0.5j * start[2])
    path = solve_ivp(rates, (0, 1e6), [a.real, a.imag, start[1], 0.0], "DOP853", events=reached, rtol=1e-12, atol=1e-18)
    return path.t[-1]


@pytest.mark.parametrize("name", STARTS)
def test_the_closed_form_is_the_integrated_time(name):
    start = STARTS[name]
    for p, cap in ((23, 0.5), (11, 0.35)):
        assert dominance_time(*start, p, beta_cap=cap).item() == pytest.approx(integrated(start, p, cap), rel=1e-7)


def test_the_aligned_race_is_an_arctangent():
    """D = 0 and alpha^2 > 2 beta^2 leave beta' = (c + 2 beta^2) / p with c = alpha^2 - 2 beta^2."""
    p, alpha, beta, cap = 23, 0.03, 0.01, 0.5
    c = alpha**2 - 2 * beta**2
    angles = [math.atan(math.sqrt(2 / c) * value) for value in (cap, beta)]
    expected = p * (angles[0] - angles[1]) / math.sqrt(2 * c)
    assert dominance_time(alpha, beta, 0.0, p).item() == pytest.approx(expected, rel=1e-12)
    whole = p * (math.pi / 2 - angles[1]) / math.sqrt(2 * c)
    assert dominance_time(alpha, beta, 0.0, p, beta_cap=math.inf).item() == pytest.approx(whole, rel=1e-12)


@settings(deadline=None)
@given(st.floats(1e-3, 0.1), st.floats(1e-3, 0.1), st.floats(0, 3.1), st.floats(0.1, 10))
def test_times_scale_and_grow_with_misalignment(alpha, beta, d, factor):
    time = dominance_time(alpha, beta, d, 23, beta_cap=0.5)
    scaled = dominance_time(alpha * factor, beta * factor, d, 23, beta_cap=0.5 * factor)
    assert scaled.item() * factor == pytest.approx(time.item(), rel=1e-6)
    assert dominance_time(alpha, beta, -d, 23).item() == pytest.approx(time.item(), rel=1e-9)
    assert dominance_time(alpha, beta, d + 0.03, 23) > time * (1 - 1e-9)
    assert dominance_time(alpha, beta, d, 23, mean_loss=False).item() == pytest.approx(time.item() / 23**2, rel=1e-9)


def test_races_that_are_over_and_races_that_never_start():
    assert dominance_time(0.1, 0.6, 3.0, 11).item() == 0
    assert dominance_time(0.0, 0.1, 0.0, 11).item() == math.inf
    assert dominance_time(torch.tensor([0.0, 0.1]), torch.tensor([0.0, 0.0]), 0.0, 11).isinf().tolist() == [True, False]


def test_trajectories_keep_both_invariants_and_end_at_the_time_to_dominance():
    random = np.random.default_rng(0)
    start = random.uniform(0.01, 0.03, (2, 40)), random.uniform(-math.pi, math.pi, 40)
    alpha, beta, d = (torch.from_numpy(part) for part in (*start[0], start[1]))
    times = torch.linspace(0, 3000, 61, dtype=torch.float64)
    flow = decoupled_flow(alpha, beta, d, 23, times)
    assert_close(flow.alpha[0], alpha)
    assert_close(flow.misalignment[0], d)
    running = times[:, None] < flow.dominance
    assert torch.equal(~flow.beta.isnan(), running)
    assert 0 < running.float().mean() < 1
    energy = (flow.alpha**2 - 2 * flow.beta**2)[running]
    assert_close(energy, (alpha**2 - 2 * beta**2).expand_as(running)[running], rtol=1e-5, atol=1e-9)
    area = (flow.alpha**2 * flow.beta * flow.misalignment.sin())[running]
    assert_close(area, (alpha**2 * beta * d.sin()).expand_as(running)[running], rtol=1e-5, atol=1e-12)
    # Just before its time each is just below the cap, seen by integration alone.
    for index in range(3):
        end = flow.dominance[index].item()
        last = decoupled_flow(alpha[index], beta[index], d[index], 23, [end * (1 - 1e-7)])
        assert 0.499 < last.beta.item() < 0.5


def test_alignment_attracts_and_its_opposite_repels():
    flow = decoupled_flow(0.02, 0.01, torch.tensor([0.5, 3.0]), 23, torch.linspace(0, 900, 20), beta_cap=2.0)
    assert (flow.misalignment.diff(dim=0) < 0).all()


def test_integration_agrees_with_the_polar_equations():
    start = np.array([0.02, 0.01, 0.4, -1.5])
    path = solve_ivp(lambda _, y: polar_rates(y, 23), (0, 800), start, rtol=1e-10, atol=1e-14)
    flow = decoupled_flow(start[0], start[1], 2 * start[2] - start[3], 23, [800.0])
    alpha, beta, phi, psi = path.y[:, -1]
    for ours, theirs in ((flow.alpha, alpha), (flow.beta, beta), (flow.phi, phi - 0.4)):
        assert ours.item() == pytest.approx(theirs, rel=1e-6)
    assert math.cos(flow.misalignment.item() - (2 * phi - psi)) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 0.1, 0.0, 11), "alpha must be finite and not negative; got -0.1"),
        ((0.1, math.nan, 0.0, 11), "beta must be finite and not negative; got nan"),
        ((0.1, 0.1, math.inf, 11), "misalignment must be finite; got inf"),
        ((0.1, 0.1, 0.0, 2), "p must be 3 or more"),
    ],
)
def test_bad_starts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        dominance_time(*arguments)
    with pytest.raises(ValueError, match=message):
        decoupled_flow(*arguments, [1.0])


def test_bad_times_and_caps_are_refused():
    with pytest.raises(ValueError, match="increasing"):
        decoupled_flow(0.1, 0.1, 0.0, 11, [1.0, 1.0])
    with pytest.raises(ValueError, match="tolerance"):
        decoupled_flow(0.1, 0.1, 0.0, 11, [1.0], tolerance=0.0)
    with pytest.raises(ValueError, match="beta_cap must be positive"):
        dominance_time(0.1, 0.1, 0.0, 11, beta_cap=0.0)


def gaussian(*seeds: int) -> FourierSpectrum:
    network = ModularAdditionNet(11, 20, generator=[torch.Generator().manual_seed(seed) for seed in seeds])
    return FourierSpectrum.from_weights(network.input_weights, network.output_weights)


@pytest.mark.parametrize("rule", ["ode", "magnitude", "misalignment"])
def test_winners_have_the_lowest_cost_and_the_lead_says_by_how_much(rule):
    spectrum = gaussian(0, 1)
    ticket = lottery_ticket(spectrum, rule)
    ordered = ticket.cost.sort(-1).values
    assert torch.equal(ticket.winner - 1, ticket.cost.argmin(-1))
    assert_close(ticket.lead, 1 - ordered[..., 0] / ordered[..., 1])
    alone = lottery_ticket(gaussian(1), rule)
    assert torch.equal(alone.winner, ticket.winner[1:])
    assert_close(alone.cost, ticket.cost[1:], rtol=1e-3, atol=1e-4)


def test_costs_are_those_of_the_rules():
    spectrum = gaussian(0)
    start = [part[0, 3, 2].item() for part in (spectrum.alpha, spectrum.beta, spectrum.misalignment)]
    assert lottery_ticket(spectrum).cost[0, 3, 2].item() == pytest.approx(integrated(tuple(start), 11, 0.5), rel=1e-5)
    assert lottery_ticket(spectrum, "magnitude").cost[0, 3, 2] == dominance_time(start[0], start[1], 0.0, 11)
    assert lottery_ticket(spectrum, "misalignment").cost[0, 3, 2].item() == abs(start[2])


def test_with_equal_magnitudes_the_best_aligned_frequency_wins():
    network = ModularAdditionNet(23, 50, init="equal_magnitude", generator=torch.Generator().manual_seed(0)).double()
    spectrum = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
    assert torch.equal(lottery_ticket(spectrum).winner, spectrum.misalignment.abs().argmin(-1) + 1)


def test_neurons_without_weights_and_the_smallest_modulus():
    spectrum = FourierSpectrum.from_weights(torch.tensor([[0.0, 0, 0], [1, 2, 4]]), torch.ones(3, 2))
    ticket = lottery_ticket(spectrum)
    assert ticket.winner.tolist() == [-1, 1]
    assert ticket.lead.tolist() == [0, 1]
    assert ticket.hit_rate(torch.tensor([-1, 1])).item() == 1
    assert ticket.hit_rate(torch.tensor([1, 1])).item() == 0.5
    with pytest.raises(ValueError, match=r"learned must have the shape \(2,\)"):
        ticket.hit_rate(torch.tensor([1]))
    with pytest.raises(ValueError, match="rule must be one of ode, magnitude, misalignment"):
        lottery_ticket(spectrum, "coin")
