"""Well-mixed solvers against closed forms, against one another, and on bad input."""

import numpy as np
import pytest
from scipy import stats

from interplay.kinetics.reaction_kinetics import ReactionNetwork, Trajectories, noise_spectrum, simulate
from interplay.kinetics.reaction_kinetics.observables import spectral_peak

BIRTH_DEATH = ReactionNetwork.from_string("A -> 2A @ birth; A -> 0 @ death", {"birth": 0.1, "death": 0.11})
IMMIGRATION_DEATH = ReactionNetwork.from_string("0 -> A @ 1; A -> 0 @ 0.1")
# 2P <-> P2 with propensities 0.001 P (P - 1) / 2 and 0.01 P2: case 003-01 of the Discrete Stochastic Model Test Suite.
DIMERISATION = ReactionNetwork.from_string("2P -> P2 @ 0.001; P2 -> 2P @ 0.01", convention="combinatorial")
TIMES = np.array([0.0, 5.0, 20.0, 50.0])


def close_in_mean(samples, mean, deviation, sigmas=4.5):
    return np.all(np.abs(samples.mean(axis=0) - mean) < sigmas * deviation / np.sqrt(len(samples)) + 1e-12)


def close_in_deviation(samples, deviation, sigmas=5.0):
    # Relative standard error of a variance, from the samples' own fourth moment.
    centred = samples - samples.mean(axis=0)
    error = np.sqrt((centred**4).mean(axis=0) / len(samples))
    return np.all(np.abs(samples.var(axis=0, ddof=1) - deviation**2) < sigmas * error + 1e-12)


@pytest.mark.parametrize("method", ["ssa", "tau"])
def test_birth_death_has_its_closed_moments_and_extinction(method):
    paths = simulate(BIRTH_DEATH, [100], TIMES, method, n_paths=4000 if method == "ssa" else 1000, seed=1)
    b, d, g = 0.1, 0.11, -0.01
    growth = np.exp(g * TIMES)
    mean, variance = 100 * growth, 100 * (b + d) / g * growth * (growth - 1)
    counts = paths.counts[:, :, 0].astype(float)
    assert close_in_mean(counts, mean, np.sqrt(variance))
    # Leaps of the size that epsilon allows shift the variance by a few percent at most.
    if method == "ssa":
        assert close_in_deviation(counts, np.sqrt(variance))
    else:
        np.testing.assert_allclose(paths.cov()[1:, 0, 0], variance[1:], rtol=0.2)


def test_extinction_probability_of_a_growing_population():
    b, d, t = 1.0, 0.7, 6.0
    paths = simulate(ReactionNetwork.from_string("A -> 2A @ 1; A -> 0 @ 0.7"), [2], [0.0, t], n_paths=3000, seed=2)
    growth = np.exp((b - d) * t)
    probability = (d * (growth - 1) / (b * growth - d)) ** 2  # tends to (d / b)^2
    extinct = int((paths.counts[:, -1, 0] == 0).sum())
    assert stats.binomtest(extinct, 3000, probability).pvalue > 1e-4
    assert paths.survival()[-1] == pytest.approx(1 - extinct / 3000)
    assert np.isfinite(paths.absorbed_at).sum() == extinct


def test_immigration_death_is_poisson():
    # Mean and variance (k / m)(1 - exp(-m t)), from nothing.
    paths = simulate(IMMIGRATION_DEATH, [0], TIMES, n_paths=4000, seed=3)
    expected = 10 * (1 - np.exp(-0.1 * TIMES))
    counts = paths.counts[:, :, 0].astype(float)
    assert close_in_mean(counts, expected, np.sqrt(expected))
    assert close_in_deviation(counts[:, 1:], np.sqrt(expected[1:]))


def test_dimerisation_agrees_with_the_master_equation():
    exact = simulate(DIMERISATION, {"P": 100}, TIMES, "master", box=[100, 50])
    paths = simulate(DIMERISATION, {"P": 100}, TIMES, n_paths=4000, seed=4)
    deviation = np.sqrt(exact.cov()[:, 0, 0])
    assert close_in_mean(paths.counts[:, :, 0].astype(float), exact.mean()[:, 0], deviation)
    assert close_in_deviation(paths.counts[:, 1:, 0].astype(float), deviation[1:])
    # Atoms are conserved, path by path and in the solution.
    assert (paths.counts @ np.array([1, 2]) == 100).all()
    np.testing.assert_allclose(exact.mean() @ [1, 2], 100, rtol=1e-9)
    # The suite's published figures at t = 50.
    assert exact.mean()[-1, 0] == pytest.approx(28.5, abs=0.1)


def test_conventions_differ_by_the_factorial():
    halved = ReactionNetwork.from_string("2P -> P2 @ 0.0005; P2 -> 2P @ 0.01")
    one = simulate(halved, {"P": 40}, TIMES, "master", box=[40, 20]).probabilities
    other = simulate(DIMERISATION, {"P": 40}, TIMES, "master", box=[40, 20]).probabilities
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_master_equation_of_birth_death_is_the_closed_distribution():
    # From one particle the law is a geometric one with an atom at zero.
    b, d, t = 1.0, 0.6, 1.5
    network = ReactionNetwork.from_string("A -> 2A @ 1; A -> 0 @ 0.6")
    solution = simulate(network, [1], [t], "master", box=[200])
    growth = np.exp((b - d) * t)
    alpha, beta = d * (growth - 1) / (b * growth - d), b * (growth - 1) / (b * growth - d)
    n = np.arange(1, 60)
    assert solution.probabilities[0, 0] == pytest.approx(alpha, abs=1e-10)
    np.testing.assert_allclose(solution.probabilities[0, 1:60], (1 - alpha) * (1 - beta) * beta ** (n - 1), atol=1e-10)
    assert solution.leaked[0] < 1e-8


def test_linear_networks_have_exact_linear_noise():
    lna = simulate(IMMIGRATION_DEATH, [0], TIMES, "lna")
    expected = 10 * (1 - np.exp(-0.1 * TIMES))
    np.testing.assert_allclose(lna.mean()[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(lna.cov()[:, 0, 0], expected, rtol=1e-5, atol=1e-8)


def test_linear_noise_approaches_the_master_equation_with_size():
    errors = []
    for size in (50, 200):
        network = ReactionNetwork.from_string("0 -> A @ in; 2A -> A @ k", {"in": size / 1.0, "k": 1 / size})
        exact = simulate(network, [size], [5.0], "master", box=[3 * size])
        lna = simulate(network, [size], [5.0], "lna")
        errors.append(abs(lna.cov()[0, 0, 0] / exact.cov()[0, 0, 0] - 1))
    assert errors[0] < 0.05
    assert errors[1] < errors[0] / 2


def test_rate_equation_of_pair_annihilation_is_solved():
    network = ReactionNetwork.from_string("2A -> 0 @ 0.002")
    ode = simulate(network, [500], TIMES, "ode")
    np.testing.assert_allclose(ode.mean()[:, 0], 500 / (1 + 2 * 0.002 * 500 * TIMES), rtol=1e-5)
    assert not ode.cov().any()


def test_lotka_volterra_conserves_its_first_integral():
    network = ReactionNetwork.from_string("A -> 0 @ 0.5; B -> 2B @ 1; A + B -> 2A @ 0.01")
    a, b = simulate(network, {"A": 40, "B": 90}, np.linspace(0, 30, 200), "ode").mean().T
    integral = 0.01 * (a + b) - np.log(a) - 0.5 * np.log(b)
    np.testing.assert_allclose(integral, integral[0], rtol=1e-5)


def test_noise_spectrum_peaks_where_the_paths_do_and_integrates_to_the_variance():
    size = 4000
    network = ReactionNetwork.from_string(
        "A -> 0 @ 0.2; B -> 2B @ 1; 2B -> B @ k; A + B -> A @ k; A + B -> 2A @ k", {"k": 1 / size}
    )
    fixed = np.array([0.4 * size, 0.2 * size])  # the order of species is A, B
    w = np.linspace(-60, 60, 400_001)
    spectrum = noise_spectrum(network, fixed, w)
    jacobian, strength = network.jacobian(fixed), network.diffusion(fixed)
    # The variance solves the Lyapunov equation; Wiener-Khinchin ties it to the spectrum.
    identity = np.eye(2)
    variance = np.linalg.solve(np.kron(jacobian, identity) + np.kron(identity, jacobian), -strength.ravel())
    np.testing.assert_allclose(
        np.trapezoid(spectrum, w, axis=0) / (2 * np.pi), variance.reshape(2, 2).diagonal(), rtol=2e-3
    )
    paths = simulate(network, fixed.astype(int), np.arange(0, 1000.0), n_paths=6, seed=5)
    seen = spectral_peak(paths.counts[:, 200:, 0], 1.0, smoothing=2)
    assert seen.frequency == pytest.approx(abs(w[np.argmax(spectrum[:, 0])]), abs=0.05)


def test_tau_leaping_leaps_over_many_particles_and_says_so():
    paths = simulate(DIMERISATION, {"P": 20_000}, [1.0], "tau", n_paths=20, seed=6)
    ode = simulate(DIMERISATION, {"P": 20_000}, [1.0], "ode")
    np.testing.assert_allclose(paths.mean(), ode.mean(), rtol=0.03)
    assert (paths.info["leaps"] > 0).all()
    # Exact stepping would have taken an event per dimer.
    assert (paths.info["leaps"] + paths.info["exact_steps"] < 1000).all()
    assert (paths.counts >= 0).all()
    assert (paths.counts @ np.array([1, 2]) == 20_000).all()


def test_tau_leaping_falls_back_to_exact_steps_with_few_particles():
    paths = simulate(BIRTH_DEATH, [5], [1.0], "tau", n_paths=50, seed=7)
    assert (paths.info["leaps"] == 0).all()
    assert (paths.info["exact_steps"] > 0).any()


def test_results_do_not_depend_on_workers_or_on_the_number_of_paths():
    alone = simulate(BIRTH_DEATH, [20], TIMES, n_paths=600, seed=8)
    spread = simulate(BIRTH_DEATH, [20], TIMES, n_paths=600, seed=8, workers=2)
    fewer = simulate(BIRTH_DEATH, [20], TIMES, n_paths=10, seed=8)
    np.testing.assert_array_equal(alone.counts, spread.counts)
    np.testing.assert_array_equal(alone.counts[:10], fewer.counts)
    assert not np.array_equal(alone.counts, simulate(BIRTH_DEATH, [20], TIMES, n_paths=600, seed=9).counts)


def test_zero_rates_give_constant_paths_with_the_time_of_absorption():
    silent = simulate(ReactionNetwork.from_string("A -> 0 @ 0"), [3], TIMES, n_paths=2)
    assert (silent.counts == 3).all()
    assert silent.absorbed_at.tolist() == [0.0, 0.0]
    single = simulate(ReactionNetwork.from_string("2A -> 0 @ 1"), [3], [0.0, 100.0], n_paths=4)
    assert (single.counts[:, -1] == 1).all()
    assert (single.absorbed_at > 0).all()
    for method in ("tau", "master", "ode"):
        assert simulate(ReactionNetwork.from_string("A -> 0 @ 0"), [3], TIMES, method).mean()[-1, 0] == 3


def test_frames_are_tidy():
    frame = simulate(DIMERISATION, {"P": 10}, TIMES, n_paths=3).to_frame()
    assert frame.columns.tolist() == ["path", "time", "species", "count"]
    assert len(frame) == 3 * len(TIMES) * 2
    one = frame[(frame["path"] == 1) & (frame["time"] == 5.0)].set_index("species")["count"]
    assert one["P"] + 2 * one["P2"] == 10


def test_covariance_of_one_path_is_undefined():
    paths = simulate(BIRTH_DEATH, [5], TIMES)
    assert isinstance(paths, Trajectories)
    assert np.isnan(paths.cov()).all()


def test_a_small_box_leaks_with_a_warning():
    with pytest.warns(RuntimeWarning, match=r"left the box \[6\].*box=\[14\]"):
        leaky = simulate(ReactionNetwork.from_string("0 -> A @ 1"), [0], [5.0], "master", box=[6])
    assert leaky.leaked[0] == pytest.approx(stats.poisson.sf(6, 5.0), rel=1e-6)


def test_the_default_box_is_large_enough():
    solution = simulate(IMMIGRATION_DEATH, [0], TIMES, "master")
    assert solution.leaked[-1] < 1e-8
    np.testing.assert_allclose(solution.mean()[:, 0], 10 * (1 - np.exp(-0.1 * TIMES)), rtol=1e-6, atol=1e-9)
    assert solution.survival()[0] == 0
    assert solution.survival()[-1] == pytest.approx(1 - np.exp(-10 * (1 - np.exp(-5.0))), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": [0.0, 2.0, 1.0]}, "t must increase strictly"),
        ({"t": [1.0, 1.0]}, "t must increase strictly"),
        ({"t": [-1.0, 1.0]}, "t must increase strictly and start at 0"),
        ({"t": [0.0, np.inf]}, "t must be one or more finite"),
        ({"t": []}, "t must be one or more finite"),
        ({"method": "euler"}, "method must be one of ssa, tau"),
        ({"n_paths": 0}, "count must be a positive integer"),
        ({"epsilon": 0.0, "method": "tau"}, "epsilon"),
        ({"box": [3], "method": "master"}, "box must hold"),
        ({"box": [10**7], "method": "master"}, "smaller box"),
        ({"n0": [1.5]}, "n0 must hold whole"),
        ({"n0": [-1]}, "n0 must not be negative"),
    ],
)
def test_bad_calls_are_refused(arguments, message):
    call = {"network": BIRTH_DEATH, "n0": [5], "t": TIMES, **arguments}
    with pytest.raises(ValueError, match=message):
        simulate(**call)


def test_a_string_is_not_a_network():
    with pytest.raises(TypeError, match="network must be a ReactionNetwork"):
        simulate("A -> 0 @ 1", [5], TIMES)
