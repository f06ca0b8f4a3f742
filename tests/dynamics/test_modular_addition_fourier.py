"""Spectra, phases and votes: against the definitions, closed forms and the official code."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from interplay.dynamics.modular_addition import (
    FourierSpectrum,
    ModularAdditionNet,
    addition_table,
    fit_flawed_indicator,
    flawed_indicator,
    fourier_basis,
    phase_symmetry,
    voting_logits,
)
from interplay.dynamics.modular_addition.fourier import wrapped
from interplay.testing import check_refused, check_same_seed

# By the official code at its last commit, run in double precision on the weights of `formula_weights`: `decode` from
# get_fourier_basis, decode_weights, decode_scales_phis and _ipr_at_checkpoint.
OFFICIAL = json.loads((Path(__file__).parent / "modular_addition_official.json").read_text())
ODD = st.integers(1, 24).map(lambda half: 2 * half + 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def formula_weights(p: int, neurons: int) -> tuple[torch.Tensor, torch.Tensor]:
    m, j = torch.arange(neurons).double()[:, None], torch.arange(p).double()
    first = 0.1 * torch.sin(0.7 * m + 1.3 * j + 0.2 * m * j + 0.3)
    return first, (0.1 * torch.cos(0.4 * m + 0.9 * j + 0.1 * m * j)).mT


def random_weights(p: int, neurons: int, *runs: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    source = generator(seed)
    first = torch.randn(*runs, neurons, p, generator=source, dtype=torch.float64)
    return first, torch.randn(*runs, p, neurons, generator=source, dtype=torch.float64)


def test_decoding_agrees_with_the_official_code():
    record = OFFICIAL["decode"]
    first, second = formula_weights(record["p"], record["neurons"])
    basis = fourier_basis(record["p"])
    assert_close(basis, torch.tensor(record["basis"]).double(), rtol=0, atol=1e-6)
    for rows, name in ((first, "input_decoded"), (second.mT, "output_decoded")):
        assert_close(rows @ basis.mT, torch.tensor(record[name]).double(), rtol=0, atol=1e-6)
    spectrum = FourierSpectrum.from_weights(first, second)
    for name in ("alpha", "phi", "psi"):
        assert_close(getattr(spectrum, name), torch.tensor(record[name]).double(), rtol=0, atol=1e-6)
    assert spectrum.ipr().item() == pytest.approx(record["ipr"], abs=1e-6)


@given(ODD)
def test_the_basis_is_orthonormal(p):
    basis = fourier_basis(p)
    assert_close(basis @ basis.mT, torch.eye(p, dtype=torch.float64), rtol=0, atol=1e-12)
    assert fourier_basis(p, torch.float32).dtype == torch.float32


@given(ODD, st.integers(0, 100))
def test_weights_are_rebuilt_from_their_spectrum(p, seed):
    first, second = random_weights(p, 3, 2, seed=seed)
    spectrum = FourierSpectrum.from_weights(first, second)
    omega = 2 * math.pi / p * torch.arange(1, p // 2 + 1).double()[:, None] * torch.arange(p).double()
    for rows, size, phase in (
        (first, spectrum.alpha, spectrum.phi),
        (second.mT, spectrum.beta, spectrum.psi),
    ):
        waves = size.unsqueeze(-1) * (omega + phase.unsqueeze(-1)).cos()
        assert_close(waves.sum(-2) + rows.mean(-1, keepdim=True), rows)


def test_magnitudes_are_those_of_the_orthonormal_coefficients():
    first, second = random_weights(13, 4)
    spectrum = FourierSpectrum.from_weights(first, second)
    cosine, sine = (first @ fourier_basis(13).mT)[:, 1:].unflatten(1, (-1, 2)).unbind(-1)
    assert_close(spectrum.alpha, math.sqrt(2 / 13) * torch.hypot(cosine, sine))
    assert_close(spectrum.phi, torch.atan2(-sine, cosine))


@given(st.floats(-50, 50))
def test_wrapped_angles_are_the_same_angles(angle):
    result = wrapped(torch.tensor(angle, dtype=torch.float64)).item()
    assert -math.pi < result <= math.pi
    assert math.cos(result - angle) == pytest.approx(1)


def test_pi_itself_is_kept():
    assert wrapped(torch.tensor([math.pi, -math.pi], dtype=torch.float64)).tolist() == [math.pi, math.pi]


def test_networks_along_leading_axes_are_decoded_as_alone():
    first, second = random_weights(11, 5, 2, 3)
    together = FourierSpectrum.from_weights(first, second)
    alone = FourierSpectrum.from_weights(first[1, 2], second[1, 2])
    assert together.ipr().shape == (2, 3)
    assert torch.equal(together.dominant()[1, 2], alone.dominant())
    assert_close(together.misalignment[1, 2], alone.misalignment)
    assert_close(together.ipr()[1, 2], alone.ipr())
    chosen = together.at(together.dominant())
    assert_close(chosen.alpha[1, 2, 4, 0], together.alpha[1, 2, 4, together.dominant()[1, 2, 4] - 1])


def test_embeddings_are_decoded_in_the_layout_of_transformers():
    first, second = random_weights(11, 5)
    assert torch.equal(
        FourierSpectrum.from_embeddings(first.mT, second.mT).alpha, FourierSpectrum.from_weights(first, second).alpha
    )


def test_concentration_of_one_and_of_all_frequencies():
    for init, expected in (("single_frequency", 1.0), ("equal_magnitude", 1 / 11)):
        network = ModularAdditionNet(23, 40, init=init, generator=generator())
        spectrum = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
        assert spectrum.ipr().item() == pytest.approx(expected, rel=1e-4)


def test_a_constant_does_not_count_as_a_frequency():
    first, second = random_weights(11, 5)
    shifted = FourierSpectrum.from_weights(first + 7, second - 3)
    assert_close(shifted.ipr(), FourierSpectrum.from_weights(first, second).ipr())


def test_a_silent_neuron_has_no_frequency():
    first, second = random_weights(11, 3)
    first[1] = 0
    spectrum = FourierSpectrum.from_weights(first, second)
    with pytest.warns(UserWarning, match="1 of 3 neurons have no frequency"):
        dominant = spectrum.dominant()
    assert dominant[1] == -1
    assert (dominant[[0, 2]] > 0).all()
    assert spectrum.ipr().isfinite()
    assert spectrum.at(dominant).alpha.isnan().squeeze(-1).tolist() == [False, True, False]


def test_tiny_weights_keep_their_winner():
    first, second = random_weights(11, 3)
    small = FourierSpectrum.from_weights(first.float() * 1e-30, second.float() * 1e-30)
    assert torch.equal(small.dominant(), FourierSpectrum.from_weights(first, second).dominant())


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((4, 10), (10, 4)), "p must be odd and 3 or more; got 10"),
        (((4, 1), (1, 4)), "p must be odd and 3 or more; got 1"),
        (((4, 11), (4, 11)), r"got \(4, 11\) and \(4, 11\)"),
        (((4, 11), (2, 11, 4)), r"got \(4, 11\) and \(2, 11, 4\)"),
    ],
)
def test_bad_weights_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        FourierSpectrum.from_weights(*(torch.ones(shape) for shape in shapes))


def test_weights_that_are_not_finite_are_refused():
    first, second = random_weights(11, 3)
    second[0, 0] = math.nan
    with pytest.raises(ValueError, match="output_weights has 1 entries that are not finite"):
        FourierSpectrum.from_weights(first, second)
    with pytest.raises(ValueError, match="p must be odd"):
        fourier_basis(12)


def spread(frequencies: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    phases = torch.arange(count).double() * (2 * math.pi / count)
    return torch.arange(1, frequencies + 1).repeat_interleave(count), phases.repeat(frequencies)


@pytest.mark.parametrize("count", [3, 5, 6, 8, 12])
def test_even_phases_vote_for_the_flawed_indicator(count):
    pairs, _ = addition_table(11)
    x, y = pairs.T
    logits = voting_logits(x, y, 11, *spread(5, count), amplitude=0.7)
    assert_close(logits, flawed_indicator(x, y, 11, 0.7, count), rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_too_few_phases_leave_noise(count):
    pairs, _ = addition_table(11)
    x, y = pairs.T
    difference = voting_logits(x, y, 11, *spread(5, count)) - flawed_indicator(x, y, 11, 1.0, count)
    assert difference.abs().max() > 0.5


def test_the_indicators_heights_are_those_of_the_paper():
    p, (x, y) = 23, (torch.tensor([3, 5]), torch.tensor([9, 5]))
    heights = flawed_indicator(x, y, p, 2.0, 6) / 6
    assert heights[0, 12].item() == pytest.approx(p / 2 - 1)
    assert heights[0, 6].item() == heights[0, 18].item() == pytest.approx(p / 4 - 1)
    assert heights[0, 0].item() == pytest.approx(-1)
    assert heights[1, 10].item() == pytest.approx(p - 1)


def test_votes_are_the_logits_of_a_network_of_such_neurons():
    p, (frequencies, phases) = 11, spread(5, 3)
    omega = torch.outer(frequencies.double(), torch.arange(p).double()) * (2 * math.pi / p)
    first = (omega + phases[:, None]).cos()
    second = (omega + 2 * phases[:, None]).cos().mT
    pairs, _ = addition_table(p)
    for name, activation in (("square", torch.square), ("relu", torch.relu)):
        network = ModularAdditionNet.from_weights(first, second, name)
        votes = voting_logits(*pairs.T, p, frequencies, phases, activation=activation)
        assert_close(votes, network(pairs).detach())
    spectrum = FourierSpectrum.from_weights(first, second)
    assert torch.equal(spectrum.dominant(), frequencies)
    assert spectrum.at(frequencies).misalignment.abs().max() < 1e-12


def test_the_fit_finds_the_heights_and_what_is_noise():
    p = 11
    x, y = torch.arange(p)[:, None], torch.arange(p)[None, :]
    clean = flawed_indicator(x, y, p, 0.4, 10)
    fit = fit_flawed_indicator(torch.stack([clean, 3 * clean + 5]))
    assert_close(fit.truth, torch.tensor([1.0, 3.0]).double() * (0.4 * 10 / 2 * p / 2))
    assert_close(fit.ghost / fit.truth, torch.full((2,), 0.5, dtype=torch.float64))
    assert_close(fit.r_squared, torch.ones(2, dtype=torch.float64))
    noise = torch.randn(clean.shape, generator=generator(), dtype=torch.float64) * clean.std()
    assert fit_flawed_indicator(clean + noise).r_squared.item() == pytest.approx(0.5, abs=0.05)


def test_bad_votes_are_refused():
    frequencies, phases = spread(5, 3)
    one = torch.tensor(1)
    for call in (voting_logits, flawed_indicator):
        extra = (frequencies, phases) if call is voting_logits else ()
        with pytest.raises(ValueError, match="p must be odd"):
            call(one, one, 12, *extra)
        with pytest.raises(IndexError, match=r"y must lie in 0\.\.10; got 11"):
            call(one, torch.tensor(11), 11, *extra)
    with pytest.raises(ValueError, match=r"frequencies must lie in 1\.\.5"):
        voting_logits(one, one, 11, frequencies + 1, phases)
    with pytest.raises(ValueError, match="shape"):
        fit_flawed_indicator(torch.zeros(11, 11))


def spectrum_with(phases: torch.Tensor, frequencies: torch.Tensor, p: int = 11) -> FourierSpectrum:
    omega = torch.outer(frequencies.double(), torch.arange(p).double()) * (2 * math.pi / p)
    return FourierSpectrum.from_weights((omega + phases[:, None]).cos(), (omega + 2 * phases[:, None]).cos().mT)


def test_resultants_of_even_equal_and_paired_phases():
    frequencies, even = spread(2, 6)
    symmetry = phase_symmetry(spectrum_with(even, frequencies), generator=generator())
    assert symmetry.count.tolist() == [6, 6, 0, 0, 0]
    assert symmetry.resultant[:, :2].abs().max() < 1e-12
    assert symmetry.resultant[:, 2:].isnan().all()
    assert (symmetry.mean_resultant < symmetry.mean_null).all()
    equal = phase_symmetry(spectrum_with(torch.full((12,), 0.7).double(), frequencies), generator=generator())
    assert_close(equal.mean_resultant, torch.ones(3, dtype=torch.float64))
    assert (equal.mean_resultant > equal.mean_null_quantile).all()
    # Opposite phases cancel at odd orders only.
    paired = torch.tensor([0.3, 0.3 + math.pi]).double().repeat(6)
    assert_close(
        phase_symmetry(spectrum_with(paired, frequencies), generator=generator()).mean_resultant,
        torch.tensor([0.0, 1.0, 1.0]).double(),
    )


def test_the_null_is_that_of_rayleigh():
    frequencies = torch.ones(200, dtype=torch.long)
    symmetry = phase_symmetry(
        spectrum_with(torch.zeros(200).double(), frequencies), draws=20_000, generator=generator()
    )
    assert symmetry.null_quantile[0].item() == pytest.approx(math.sqrt(-math.log(0.05) / 200), rel=0.03)
    assert symmetry.mean_null.item() == pytest.approx(math.sqrt(math.pi / 800), rel=0.02)


def test_symmetry_of_many_networks_is_that_of_each():
    first, second = random_weights(11, 30, 3)
    together = phase_symmetry(FourierSpectrum.from_weights(first, second), generator=generator())
    for run in range(3):
        alone = phase_symmetry(FourierSpectrum.from_weights(first[run], second[run]), generator=generator())
        assert_close(together.mean_resultant[run], alone.mean_resultant)
        assert_close(together.null_quantile[run], alone.null_quantile, equal_nan=True)
        assert_close(together.mean_null_quantile[run], alone.mean_null_quantile)
    check_same_seed(
        lambda seed: (
            phase_symmetry(FourierSpectrum.from_weights(first, second), draws=50, generator=generator(seed)).mean_null
        )
    )
    spectrum = FourierSpectrum.from_weights(first, second)
    check_refused(lambda: phase_symmetry(spectrum, quantile=1.0, generator=generator()), "quantile")
    check_refused(lambda: phase_symmetry(spectrum, orders=(0,), generator=generator()), "order of zero")
