"""Observables and exponents on configurations and curves whose answers are known."""

import numpy as np
import pytest

from interplay.kinetics.reaction_kinetics import ContactProcess, Lattice
from interplay.kinetics.reaction_kinetics.exponents import (
    DIRECTED_PERCOLATION,
    collapse,
    curvature,
    fit_power_law,
    local_slope,
    scan_critical,
)
from interplay.kinetics.reaction_kinetics.mean_field_front import mean_field_front
from interplay.kinetics.reaction_kinetics.observables import (
    autocorrelation,
    correlation_length,
    density,
    front_gaps,
    front_positions,
    front_profile,
    interparticle_gaps,
    pair_correlation,
    segregation_index,
    spectral_peak,
    spread,
    structure_factor,
    survival,
)

TIMES = np.geomspace(1.0, 1000.0, 31)


def random_codes(shape, density, species=1, seed=1):
    generator = np.random.default_rng(seed)
    return np.where(generator.random(shape) < density, generator.integers(1, species + 1, shape), 0).astype(np.int8)


def test_density_counts_codes_and_occupation_numbers():
    codes = np.array([0, 1, 2, 2], np.int8)
    assert density(codes) == 0.75
    assert density(codes, 2) == 0.5
    assert density(np.array([0, 3, 5, 0], np.int32)) == 2.0


@pytest.mark.parametrize("shape", [(24,), (12, 9), (6, 8, 7)])
def test_pair_correlation_agrees_with_a_loop(shape):
    codes = random_codes(shape, 0.4)
    reach = min(shape) // 2
    expected = np.zeros(reach + 1)
    for r in range(reach + 1):
        for axis in range(len(shape)):
            expected[r] += (codes * np.roll(codes, -r, axis)).mean() / len(shape)
    np.testing.assert_allclose(pair_correlation(codes, reach), expected / codes.mean() ** 2, atol=1e-12)


def test_independent_particles_have_no_structure():
    codes = random_codes((256, 256), 0.3)
    np.testing.assert_allclose(pair_correlation(codes, 20)[1:], 1.0, atol=0.02)
    assert structure_factor(codes).power[10:].mean() == pytest.approx(0.3 * 0.7, rel=0.03)


def test_pair_correlation_of_nothing_is_undefined_and_its_reach_is_checked():
    assert np.isnan(pair_correlation(np.zeros(10, np.int8), 3)).all()
    with pytest.raises(ValueError, match="half the shortest side, 5; got 6"):
        pair_correlation(np.zeros(10, np.int8), 6)


def test_structure_factor_finds_stripes():
    stripes = np.zeros((64, 64), np.int8)
    stripes[:, (np.arange(64) // 4) % 2 == 0] = 1
    k, power = structure_factor(stripes)
    assert k[np.argmax(power)] == pytest.approx(2 * np.pi / 8)
    assert k[0] == pytest.approx(2 * np.pi / 64)


def gaussian_field(length, side=512):
    """A field of correlation exp(-r / length) on a line, thresholded into occupation."""
    k = 2 * np.pi * np.fft.fftfreq(side * 64)
    amplitude = np.sqrt(1 / (1 + (2 * np.sin(k / 2) * length) ** 2))
    noise = np.random.default_rng(2).normal(size=side * 64)
    return np.fft.ifft(amplitude * np.fft.fft(noise)).real


def test_correlation_lengths_follow_the_field():
    for length in (4.0, 8.0):
        field = gaussian_field(length)
        occupation = np.round(20 * (field - field.min())).astype(np.int32)
        assert correlation_length(occupation) == pytest.approx(length, rel=0.15)
    # One mode of known strength: Ornstein-Zernike from the two smallest wave numbers.
    codes = random_codes((128, 128), 0.5)
    assert correlation_length(codes) < 1.0
    assert np.isnan(correlation_length(np.ones((16, 16), np.int8)))


def test_second_moment_length_inverts_ornstein_zernike():
    side, length = 4096, 60.0
    k = 2 * np.pi * np.fft.fftfreq(side)
    power = 1 / (1 + (2 * np.sin(k / 2) * length) ** 2)
    phases = np.random.default_rng(3).uniform(0, 2 * np.pi, side // 2 - 1)
    spectrum = np.zeros(side, complex)
    spectrum[1 : side // 2] = np.sqrt(power[1 : side // 2]) * np.exp(1j * phases)
    spectrum[side // 2 + 1 :] = spectrum[1 : side // 2][::-1].conj()
    field = np.fft.ifft(spectrum).real
    occupation = np.round(1e6 * (field - field.min()) / np.ptp(field)).astype(np.int32)
    assert correlation_length(occupation, "second_moment") == pytest.approx(length, rel=1e-3)
    with pytest.raises(ValueError, match="kind must be"):
        correlation_length(occupation, "half")


def test_survival_and_spread_average_over_all_runs():
    counts = np.array([[[1], [2], [0]], [[1], [0], [0]]])
    assert survival(counts).tolist() == [1.0, 0.5, 0.0]
    runs = ContactProcess(Lattice((64,)), 1.0).run([0.0, 3.0, 200.0], "seed", n_runs=40, seed=4)
    seen = spread(runs)
    assert seen.number[0] == 1.0
    assert seen.radius_squared[0] == 0.0
    assert seen.survival[2] == 0.0
    assert np.isnan(seen.radius_squared[2])
    assert seen.number[1] == runs.counts[:, 1, 0].mean()
    with pytest.raises(ValueError, match="initial='seed'"):
        spread(ContactProcess(Lattice((64,)), 1.0).run([0.0], 0.5))


def test_segregation_index_has_its_extremes():
    assert segregation_index(np.array([1, 0, 1, 0, 0, 2, 0], np.int8)) == pytest.approx((1 - 2) / 3)
    assert segregation_index(np.array([1, 2, 1, 2], np.int8)) == -1.0
    halves = np.repeat([1, 2], 500).astype(np.int8)
    assert segregation_index(halves) == pytest.approx(1 - 2 * 2 / 1000)
    assert abs(segregation_index(random_codes((300, 300), 0.2, species=2))) < 0.03
    assert np.isnan(segregation_index(np.array([0, 1, 0], np.int8)))
    one_line = np.zeros((3, 4), np.int8)
    one_line[1] = [1, 0, 1, 2]
    assert segregation_index(one_line) == pytest.approx((1 - 2) / 3)


def test_front_measures_know_the_ring():
    ring = np.zeros(20, np.int8)
    ring[[1, 7]] = 1
    ring[[13, 18]] = 2
    assert front_gaps(ring).tolist() == [3.0, 6.0]
    shifted = np.roll(ring, -2)  # an A beyond the boundary belongs to the front at 0
    assert front_gaps(shifted).tolist() == [3.0, 6.0]
    assert np.isnan(front_gaps(np.zeros(20, np.int8))).all()
    # Sites 9 and 10 lie left and right of the middle interface, 19 and 0 of the other one.
    reactions = np.array([[1.0, 9, 10], [2.0, 10, 9], [3.0, 19, 0], [4.0, 12, 11], [5.0, 1, 2]])
    np.testing.assert_allclose(front_positions(reactions, 20), [0.0, 0.0, 0.0, 2.0, 2.0])


def test_front_profile_takes_moments_window_by_window():
    times = np.array([1.0, 1.5, 2.5, 2.6, 9.0])
    positions = np.array([-1.0, 1.0, 4.0, 6.0, 50.0])
    profile = front_profile(times, positions, [1.0, 2.0, 4.0, 8.0])
    assert profile.reactions.tolist() == [2, 2, 0]
    np.testing.assert_allclose(profile.centre, [0.0, 5.0, np.nan])
    np.testing.assert_allclose(profile.width, [np.sqrt(2), np.sqrt(2), np.nan])
    # Two runs whose fronts sit at +-10: within a run the profile is narrow.
    wandering = front_profile(np.ones(4), [9.0, 11.0, -9.0, -11.0], [0.5, 2.0])
    within = front_profile(np.ones(4), [9.0, 11.0, -9.0, -11.0], [0.5, 2.0], group=[0, 0, 1, 1])
    assert wandering.width[0] > 10
    assert within.width[0] == pytest.approx(np.sqrt(2))


def test_gaps_close_the_ring():
    assert interparticle_gaps(np.array([0, 1, 0, 0, 1, 1], np.int8)).tolist() == [3, 1, 2]
    with pytest.raises(ValueError, match="one dimension"):
        interparticle_gaps(np.ones((3, 3), np.int8))
    with pytest.raises(ValueError, match="one dimension"):
        front_gaps(np.ones((3, 3), np.int8))


def test_autocorrelation_of_an_autoregressive_series():
    series = np.zeros((40, 4000))
    noise = np.random.default_rng(5).normal(size=series.shape)
    for step in range(1, series.shape[1]):
        series[:, step] = 0.8 * series[:, step - 1] + noise[:, step]
    np.testing.assert_allclose(autocorrelation(series)[:10], 0.8 ** np.arange(10), atol=0.02)


def test_spectral_peak_finds_a_frequency_and_tells_noise_from_oscillation():
    t = np.arange(0, 2000, 0.5)
    noise = np.random.default_rng(6).normal(size=(4, len(t)))
    peak = spectral_peak(np.sin(0.7 * t) + noise, 0.5, smoothing=1)
    assert peak.frequency == pytest.approx(0.7, abs=0.01)
    assert peak.ratio > 50
    smooth = np.cumsum(noise, axis=1)[:, ::10]
    assert not spectral_peak(smooth, 5.0, smoothing=3).ratio > 2
    # Parseval: the density integrates to the variance.
    assert np.trapezoid(peak.power, peak.frequencies) / np.pi == pytest.approx(1.5, rel=0.05)


def test_local_slopes_and_fits_recover_powers():
    y = 3.0 * TIMES**-0.25
    where, slopes = local_slope(TIMES, y, 5.0)
    np.testing.assert_allclose(slopes, -0.25)
    assert where[0] == pytest.approx(np.sqrt(5))
    fit = fit_power_law(TIMES, y, (10, 1000))
    assert fit.value == pytest.approx(-0.25)
    assert fit.amplitude == pytest.approx(3.0)
    assert np.isnan(fit.ci).all()


def test_fits_average_runs_before_the_logarithm_and_bootstrap_them():
    generator = np.random.default_rng(7)
    runs = TIMES**-0.5 * generator.exponential(size=(400, 1)) * (generator.random((400, len(TIMES))) < 0.5)
    fit = fit_power_law(TIMES, runs, (1, 1000), bootstrap=200, seed=1)
    assert fit.ci[0] < -0.5 < fit.ci[1]
    assert 0 < fit.ci[1] - fit.ci[0] < 0.1
    assert fit.amplitude == pytest.approx(0.5, rel=0.2)  # the mean of the logarithms is undefined
    assert fit_power_law(TIMES, runs, (1, 1000), bootstrap=200, seed=1) == fit


def test_curvature_tells_the_side_of_a_transition():
    window = (1, 1000)
    assert curvature(TIMES, TIMES**0.3, window) == pytest.approx(0.0, abs=1e-12)
    assert curvature(TIMES, TIMES**0.3 * np.exp(TIMES / 1000), window) > 0.001
    assert curvature(TIMES, TIMES**0.3 * np.exp(-TIMES / 1000), window) < -0.001


def scaling_curve(parameter, critical=2.5):
    return TIMES, TIMES**-0.16 * np.exp(0.2 * (parameter - critical) * TIMES ** (1 / 1.73))


def test_scan_finds_the_critical_point_whatever_the_exponent():
    found = scan_critical(scaling_curve, [2.4, 2.45, 2.5, 2.58], (10, 1000))
    assert found.value == pytest.approx(2.5, abs=1e-6)
    assert found.error < 1e-6
    assert list(found.curvatures) == [2.4, 2.45, 2.5, 2.58]
    with pytest.raises(ValueError, match="move the range up"):
        scan_critical(scaling_curve, [2.0, 2.1, 2.2], (10, 1000))
    with pytest.raises(ValueError, match="move the range down"):
        scan_critical(scaling_curve, [2.8, 2.9, 3.0], (10, 1000))
    with pytest.raises(ValueError, match="at least three"):
        scan_critical(scaling_curve, [2.4, 2.6], (10, 1000))


def test_scan_locates_the_contact_process():
    lattice, times = Lattice((30_000,)), np.geomspace(2, 600, 25)

    def decay(rate):
        return times, ContactProcess(lattice, rate).run(times, 1.0, seed=8).density()[0]

    found = scan_critical(decay, [3.24, 3.28, 3.32, 3.36], (20, 600))
    assert found.value == pytest.approx(ContactProcess.critical_rate[1], abs=0.03)


def test_collapse_prefers_the_right_exponents():
    curves = {p: scaling_curve(p) for p in (2.52, 2.55, 2.6)}
    right = collapse(curves, 2.5, decay=0.16, nu_par=1.73)
    assert right.spread < 1e-4
    assert collapse(curves, 2.5, decay=0.5, nu_par=1.73).spread > 100 * right.spread
    assert collapse(curves, 2.45, decay=0.16, nu_par=1.73).spread > 100 * right.spread
    with pytest.raises(ValueError, match="one side"):
        collapse({2.4: scaling_curve(2.4), 2.6: scaling_curve(2.6)}, 2.5, 0.16, 1.73)


def test_bad_curves_are_refused():
    with pytest.raises(ValueError, match="factor"):
        local_slope(TIMES, TIMES, 1.0)
    with pytest.raises(ValueError, match="equal length"):
        local_slope(TIMES, TIMES[1:], 2.0)
    with pytest.raises(ValueError, match="positive"):
        fit_power_law(TIMES, np.zeros(31), (1, 1000))
    with pytest.raises(ValueError, match="at least three of the times"):
        fit_power_law(TIMES, TIMES, (2000, 3000))
    with pytest.raises(ValueError, match="bootstrap resamples runs"):
        fit_power_law(TIMES, TIMES, (1, 1000), bootstrap=10)


@pytest.mark.parametrize("exponents", DIRECTED_PERCOLATION.values(), ids=list(map(str, DIRECTED_PERCOLATION)))
def test_the_table_of_exponents_obeys_the_scaling_relations(exponents):
    assert exponents["delta"] == pytest.approx(exponents["beta"] / exponents["nu_par"], abs=0.01)
    assert exponents["z"] == pytest.approx(exponents["nu_par"] / exponents["nu_perp"], abs=0.02)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
def test_hyperscaling_ties_the_spreading_exponents(dimension):
    # theta = d / z - 2 delta, up to and including the upper critical dimension.
    table = DIRECTED_PERCOLATION[dimension]
    assert table["theta"] == pytest.approx(dimension / table["z"] - 2 * table["delta"], abs=0.02)


def test_the_mean_field_front_widens_and_weakens_as_known():
    times = np.geomspace(100, 3000, 12)
    front = mean_field_front(times, density=0.5)
    assert fit_power_law(times, front.width, (500, 3000)).value == pytest.approx(1 / 6, abs=0.003)
    assert fit_power_law(times, front.production, (500, 3000)).value == pytest.approx(-0.5, abs=0.01)
    # All that diffuses to the front reacts there: production tends to rho sqrt(D / (pi t)).
    assert front.production[-1] == pytest.approx(0.5 * np.sqrt(0.5 / (np.pi * 3000)), rel=0.02)
    for arguments, name in (
        ({"density": 0.0}, "density"),
        ({"density": 0.5, "diffusion": 0.0}, "diffusion"),
        ({"density": 0.5, "rate": -1.0}, "rate"),
    ):
        with pytest.raises(ValueError, match=name):
            mean_field_front([1.0], **arguments)
