"""Lattice models against exact solutions, slow references and conservation laws; exponents coarsely; bad input."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import expm

from interplay.kinetics.reaction_kinetics import (
    BirthDeathCoagulation,
    BondPercolation,
    ContactProcess,
    Lattice,
    LotkaVolterra,
    MayLeonard,
    PairAnnihilation,
    RockPaperScissors,
    TwoSpeciesAnnihilation,
    separated,
)
from interplay.kinetics.reaction_kinetics.exponents import DIRECTED_PERCOLATION, fit_power_law
from interplay.kinetics.reaction_kinetics.observables import front_gaps, front_positions, interparticle_gaps, spread

RING = Lattice((5,))


def exact_distribution(transitions, start, states, time):
    """Law at `time` of a continuous-time chain on a list of configurations, by the matrix exponential."""
    index = {state: number for number, state in enumerate(states)}
    generator = np.zeros((len(states), len(states)))
    for state in states:
        for target, rate in transitions(state):
            generator[index[target], index[state]] += rate
            generator[index[state], index[state]] -= rate
    return expm(generator * time)[:, index[start]]


def all_states(sites, codes):
    return [tuple(state) for state in np.ndindex(*[codes] * sites)]


def changed(state, changes):
    copy = list(state)
    for site, code in changes.items():
        copy[site] = code
    return tuple(copy)


def bonds(state):
    """Ordered pairs of neighbours on a ring."""
    size = len(state)
    return [(i, (i + step) % size) for i in range(size) for step in (1, -1)]


def contact_transitions(state, birth=2.0, death=0.7):
    for i, j in bonds(state):
        if state[i] and not state[j]:
            yield changed(state, {j: 1}), birth / 2
    for i in range(len(state)):
        if state[i]:
            yield changed(state, {i: 0}), death


def annihilation_transitions(state, hop=1.3):
    for i, j in bonds(state):
        if state[i]:
            yield changed(state, {i: 0, j: 1 - state[j]}), hop / 2


def coagulation_transitions(state, hop=1.3):
    for i, j in bonds(state):
        if state[i]:
            yield changed(state, {i: 0, j: 1}), hop / 2


def slow_reaction_transitions(state, hop=1.3, rate=0.6):
    """Hops into empty sites; every unordered pair of occupied neighbours reacts at `rate`."""
    for i, j in bonds(state):
        if state[i] and not state[j]:
            yield changed(state, {i: 0, j: 1}), hop / 2
    for i in range(len(state)):
        j = (i + 1) % len(state)
        if state[i] and state[j]:
            yield changed(state, {i: 0, j: 0}), rate


def two_species_transitions(state, hops=(1.3, 0.4)):
    for i, j in bonds(state):
        if state[i] and not state[j]:
            yield changed(state, {i: 0, j: state[i]}), hops[state[i] - 1] / 2
        elif state[i] and state[j] and state[i] != state[j]:
            yield changed(state, {i: 0, j: 0}), hops[state[i] - 1] / 2


def predator_transitions(state, predation=1.5, death=0.6, birth=0.9, hop=0.5):
    for i, j in bonds(state):
        if state[i] == 1 and state[j] == 2:
            yield changed(state, {j: 1}), predation / 2
        if state[i] == 2 and state[j] == 0:
            yield changed(state, {j: 2}), birth / 2
        if state[i] != state[j]:
            yield changed(state, {i: state[j], j: state[i]}), hop / 2
    for i in range(len(state)):
        if state[i] == 1:
            yield changed(state, {i: 0}), death


def cyclic_transitions(state, conserving, selection=1.1, reproduction=0.8, exchange=0.5):
    for i, j in bonds(state):
        here, there = state[i], state[j]
        if here and there == here % 3 + 1:
            yield changed(state, {j: here if conserving else 0}), selection / 2
        if here and not there and not conserving:
            yield changed(state, {j: here}), reproduction / 2
        if here != there:
            yield changed(state, {i: there, j: here}), exchange / 2


MODELS = {
    "contact": (ContactProcess(RING, 2.0, 0.7), contact_transitions, (1, 0, 1, 0, 0), 2),
    "annihilation": (PairAnnihilation(RING, hop=1.3), annihilation_transitions, (1, 1, 0, 1, 1), 2),
    "coagulation": (PairAnnihilation(RING, "A", hop=1.3), coagulation_transitions, (1, 1, 0, 1, 1), 2),
    "slow reaction": (
        PairAnnihilation(RING, hop=1.3, reaction_rate=0.6),
        slow_reaction_transitions,
        (1, 1, 0, 1, 1),
        2,
    ),
    "two species": (TwoSpeciesAnnihilation(RING, 1.3, 0.4), two_species_transitions, (1, 2, 0, 1, 2), 3),
    "predators": (LotkaVolterra(RING, 1.5, 0.6, 0.9, 0.5), predator_transitions, (1, 2, 0, 2, 2), 3),
    "rock-paper-scissors": (
        RockPaperScissors(RING, 1.1, 0.5),
        lambda state: cyclic_transitions(state, True),
        (1, 2, 3, 0, 2),
        4,
    ),
    "May-Leonard": (
        MayLeonard(RING, 1.1, 0.8, 0.5),
        lambda state: cyclic_transitions(state, False),
        (1, 2, 3, 0, 2),
        4,
    ),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_the_law_is_that_of_the_master_equation(name):
    """The whole distribution over configurations of five sites, clock included, by the matrix exponential."""
    model, transitions, start, codes = MODELS[name]
    states, time, runs = all_states(5, codes), 0.8, 8000
    exact = exact_distribution(transitions, start, states, time)
    seen = model.run([time], np.array(start), {"state": np.copy}, n_runs=runs, seed=11).observed["state"][:, 0]
    observed = np.bincount(np.ravel_multi_index(seen.T, (codes,) * 5), minlength=len(states))
    expected = runs * exact
    assert not observed[exact < 1e-14].any(), "a configuration that cannot be reached"
    common = expected > 5
    observed = np.append(observed[common], observed[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    chi2 = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert stats.chi2.sf(chi2, len(expected) - 1) > 1e-4


def test_birth_death_coagulation_has_the_law_of_its_master_equation():
    birth, death, coagulation, hop, most = 0.8, 1.0, 0.5, 0.6, 6
    lattice = Lattice((3,), restricted=False)
    model = BirthDeathCoagulation(lattice, birth, death, coagulation, hop)

    def transitions(state):
        for i, n in enumerate(state):
            if n and sum(state) < most:
                yield changed(state, {i: n + 1}), birth * n
            if n:
                yield changed(state, {i: n - 1}), death * n + coagulation * n * (n - 1)
            for j in {(i + 1) % 3, (i - 1) % 3} if n else ():
                yield changed(state, {i: n - 1, j: state[j] + 1}), hop * n / 2

    states = [state for state in np.ndindex(*[most + 1] * 3) if sum(state) <= most]
    exact = exact_distribution(transitions, (2, 0, 1), states, 0.5)
    runs = model.run([0.5], np.array([2, 0, 1]), {"state": np.copy}, n_runs=8000, seed=12)
    observed: dict[tuple[int, ...], int] = {}
    for state in runs.observed["state"][:, 0].tolist():
        observed[tuple(state)] = observed.get(tuple(state), 0) + 1
    counted = [(observed.get(state, 0), 8000 * p) for state, p in zip(states, exact, strict=True) if 8000 * p > 8]
    seen, expected = np.array(counted).T
    assert stats.chi2.sf(((seen - expected) ** 2 / expected).sum(), len(seen) - 1) > 1e-4


def test_a_population_that_outgrows_its_buffer_keeps_its_particles():
    lattice = Lattice((64,), restricted=False)
    model = BirthDeathCoagulation(lattice, birth=4.0, death=0.1, coagulation=0.05, hop=1.0)
    runs = model.run([0.0, 4.0], "seed", {"sum": np.sum}, seed=3)
    assert runs.counts[0, 1, 0] > 1024
    assert runs.observed["sum"][0].tolist() == runs.counts[0, :, 0].tolist()


def test_birth_death_coagulation_relaxes_to_its_mean_field_when_well_stirred():
    # With many particles a site and fast hops a* = (birth - death) / coagulation.
    lattice = Lattice((100,), restricted=False)
    model = BirthDeathCoagulation(lattice, birth=3.0, death=1.0, coagulation=0.02, hop=5.0)
    density = model.run([20.0, 30.0], 50.0, seed=4).density()[0]
    np.testing.assert_allclose(density, 100.0, rtol=0.03)


def test_annihilation_has_its_exact_amplitude():
    times = np.array([30.0, 100.0, 300.0])
    for product, factor in (("0", 8.0), ("A", 2.0)):
        model = PairAnnihilation(Lattice((400_000,)), product)
        density = model.run(times, 1.0, seed=5).density()[0]
        np.testing.assert_allclose(density * np.sqrt(factor * np.pi * model.diffusion * times), 1.0, atol=0.03)


def test_coagulation_leaves_gaps_of_the_known_distribution():
    model = PairAnnihilation(Lattice((400_000,)), "A")
    state = model.run([300.0], 1.0, {"state": np.copy}, seed=6).observed["state"][0, 0]
    gaps = interparticle_gaps(state)
    x = gaps * (len(gaps) / len(state))
    assert gaps.sum() == len(state)
    # p(x) = (pi x / 2) exp(-pi x^2 / 4) has the distribution function 1 - exp(-pi x^2 / 4).
    assert stats.kstest(x, lambda v: 1 - np.exp(-np.pi * v**2 / 4)).statistic < 0.02


def test_two_species_decay_slower_and_conserve_the_charge():
    times = np.geomspace(10, 1000, 12)
    runs = TwoSpeciesAnnihilation(Lattice((100_000,))).run(times, 1.0, seed=7)
    charge = runs.counts[0, :, 0] - runs.counts[0, :, 1]
    assert (charge == charge[0]).all()
    slope = fit_power_law(times, runs.density("A")[0], (100, 1000)).value
    assert -0.29 < slope < -0.22


def test_unequal_densities_leave_the_majority():
    runs = TwoSpeciesAnnihilation(Lattice((20_000,))).run([1.0, 3000.0], {"A": 0.5, "B": 0.2}, seed=8)
    assert runs.counts[0, 1, 1] == 0
    assert runs.counts[0, 1, 0] == runs.counts[0, 0, 0] - runs.counts[0, 0, 1]
    assert 1.0 < runs.absorbed_at[0] < 3000.0


@pytest.mark.parametrize("kind", ["contact process", "bond percolation"])
def test_critical_spreading_on_the_line_has_the_exponents_of_directed_percolation(kind):
    times = np.arange(20, 301, 10) if kind == "bond percolation" else np.geomspace(20, 300, 16)
    lattice = Lattice((1024,))
    model = (
        ContactProcess(lattice, ContactProcess.critical_rate[1])
        if kind == "contact process"
        else BondPercolation(lattice, BondPercolation.critical_probability[1])
    )
    seen = spread(model.run(times, "seed", n_runs=4000, seed=9))
    exact = DIRECTED_PERCOLATION[1]
    window = (20, 300)
    assert fit_power_law(times, seen.number, window).value == pytest.approx(exact["theta"], abs=0.04)
    assert fit_power_law(times, seen.survival, window).value == pytest.approx(-exact["delta"], abs=0.03)
    assert fit_power_law(times, seen.radius_squared, window).value == pytest.approx(2 / exact["z"], abs=0.06)


def test_critical_bond_percolation_in_the_plane():
    times = np.arange(10, 121, 5)
    model = BondPercolation(Lattice((256, 256)), BondPercolation.critical_probability[2])
    seen = spread(model.run(times, "seed", n_runs=6000, seed=10))
    exact = DIRECTED_PERCOLATION[2]
    assert fit_power_law(times, seen.number, (10, 120)).value == pytest.approx(exact["theta"], abs=0.06)
    assert fit_power_law(times, seen.survival, (10, 120)).value == pytest.approx(-exact["delta"], abs=0.06)


def test_bond_percolation_agrees_with_a_slow_reference():
    size, probability, generations, runs = 9, 0.6, 4, 6000
    counts = (
        BondPercolation(Lattice((size,)), probability).run(range(generations + 1), "seed", n_runs=runs, seed=13).counts
    )
    generator = np.random.default_rng(14)
    reference = np.zeros((runs, generations + 1), int)
    for run in range(runs):
        active = {size // 2}
        for generation in range(generations + 1):
            reference[run, generation] = len(active)
            active = {(i + step) % size for i in active for step in (1, -1) if generator.random() < probability}
    for generation in range(1, generations + 1):
        table = np.stack([np.bincount(c[:, generation], minlength=size + 1) for c in (counts[:, :, 0], reference)])
        table = table[:, table.sum(axis=0) > 20]
        assert stats.chi2_contingency(table).pvalue > 1e-4


def test_a_single_particle_diffuses_with_the_stated_constant():
    times = np.array([5.0, 20.0])
    for shape in ((401,), (101, 101), (31, 31, 31)):
        model = PairAnnihilation(Lattice(shape), hop=1.5)
        seen = spread(model.run(times, "seed", n_runs=3000, seed=15))
        expected = 2 * len(shape) * model.diffusion * times
        np.testing.assert_allclose(seen.radius_squared, expected, rtol=0.1)
        assert (seen.number == 1).all()


def test_exchange_moves_an_individual_twice_as_often_as_it_attempts():
    # A pair of neighbours is attempted from both sides, so a lone predator among prey hops at rate 2 * hop.
    model = LotkaVolterra(Lattice((101, 101)), predation=0.0, death=0.0, birth=0.0, hop=0.5)
    seen = spread(model.run([10.0], "seed", n_runs=2000, seed=16))
    np.testing.assert_allclose(seen.radius_squared, 10.0, rtol=0.1)


def test_separated_reactants_meet_in_the_middle():
    lattice = Lattice((300,))
    times = np.array([0.0, 50.0, 200.0])
    runs = TwoSpeciesAnnihilation(lattice, record_reactions=True).run(
        times, separated(lattice, 0.7), {"gap": front_gaps}, n_runs=60, seed=17
    )
    assert len(runs.reactions) == 60
    lost = runs.counts[:, 0, 0] - runs.counts[:, 2, 0]
    assert [len(reactions) for reactions in runs.reactions] == lost.tolist()
    positions = np.concatenate([front_positions(reactions, 300) for reactions in runs.reactions])
    assert abs(positions.mean()) < 4 * positions.std() / np.sqrt(len(positions) / 5)
    assert np.abs(positions).max() < 60
    gaps = runs.observed["gap"].mean(axis=(0, 2))
    assert gaps[0] < gaps[1] < gaps[2]
    for reactions in runs.reactions:
        assert (np.diff(reactions[:, 0]) > 0).all()


def test_rock_paper_scissors_conserves_particles_and_may_leonard_does_not():
    lattice = Lattice((24, 24))
    conserved = RockPaperScissors(lattice).run([0.0, 3.0, 10.0], 0.8, seed=18).counts.sum(axis=2)[0]
    assert len(set(conserved.tolist())) == 1
    free = MayLeonard(lattice).run([0.0, 3.0, 10.0], 0.8, seed=18).counts.sum(axis=2)[0]
    assert len(set(free.tolist())) > 1
    assert MayLeonard(lattice, exchange=2.88).mobility == pytest.approx(0.01)


def test_counts_agree_with_configurations():
    model = MayLeonard(Lattice((16, 16)))
    runs = model.run([0.0, 1.0, 5.0], 0.6, {"codes": lambda c: np.bincount(c.ravel(), minlength=4)[1:]}, 3, seed=19)
    np.testing.assert_array_equal(runs.observed["codes"], runs.counts)


@pytest.mark.parametrize(
    "model",
    [
        ContactProcess(Lattice((64,)), 1.0),
        BondPercolation(Lattice((64,)), 0.2),
        BirthDeathCoagulation(Lattice((64,), restricted=False), 0.5),
        PairAnnihilation(Lattice((64,)), hop=0.0),
        LotkaVolterra(Lattice((8, 8)), 0.1),
        RockPaperScissors(Lattice((6, 6))),
        MayLeonard(Lattice((6, 6))),
    ],
    ids=lambda model: type(model).__name__,
)
def test_absorption_ends_a_run_early_and_is_reported(model):
    runs = model.run([0.0, 2000.0, 1e12], 0.5, n_runs=3, seed=20)
    assert np.isfinite(runs.absorbed_at).all()
    np.testing.assert_array_equal(runs.counts[:, -1], runs.counts[:, -2])


def test_annihilation_leaves_the_odd_one_and_goes_on_hopping():
    runs = PairAnnihilation(Lattice((64,))).run([0.0, 5000.0], 0.5, n_runs=12, seed=20)
    np.testing.assert_array_equal(runs.counts[:, 1, 0], runs.counts[:, 0, 0] % 2)
    assert (np.isnan(runs.absorbed_at) == (runs.counts[:, 1, 0] == 1)).all()


def test_an_empty_lattice_is_absorbed_at_once():
    runs = ContactProcess(Lattice((8,)), 3.0).run([0.0, 1.0], 0.0)
    assert runs.absorbed_at.tolist() == [0.0]
    assert runs.events.tolist() == [0]
    assert not runs.counts.any()


def test_results_do_not_depend_on_workers_or_on_the_number_of_runs():
    model, times = ContactProcess(Lattice((200,)), 3.3), np.geomspace(1, 50, 6)
    alone = model.run(times, 0.5, {"sum": np.sum}, n_runs=6, seed=21)
    shared = model.run(times, 0.5, {"sum": np.sum}, n_runs=6, seed=21, workers=2)
    fewer = model.run(times, 0.5, n_runs=2, seed=21)
    np.testing.assert_array_equal(alone.counts, shared.counts)
    np.testing.assert_array_equal(alone.observed["sum"], shared.observed["sum"])
    np.testing.assert_array_equal(alone.counts[:2], fewer.counts)
    assert not np.array_equal(alone.counts, model.run(times, 0.5, n_runs=6, seed=22).counts)


def test_the_requested_times_do_not_change_the_run():
    model = PairAnnihilation(Lattice((500,)))
    coarse = model.run([50.0], 1.0, seed=23).counts[0, 0, 0]
    fine = model.run(np.linspace(0, 50, 51), 1.0, seed=23).counts[0, -1, 0]
    assert coarse == fine


def test_initial_conditions():
    lattice = Lattice((40, 50))
    model = LotkaVolterra(lattice, 1.0)
    seeded = model.run([0.0], "seed").counts[0, 0]
    assert seeded.tolist() == [1, 1999]
    mixed = model.run([0.0], {"predator": 0.3, "prey": 0.3}, n_runs=20).density()
    assert mixed.mean() == pytest.approx(0.6, abs=0.02)
    full = MayLeonard(lattice).run([0.0], 1.0).counts[0, 0]
    assert full.sum() == 2000
    given = np.zeros(lattice.shape, int)
    given[3, 4] = 2
    before = given.copy()
    assert model.run([0.0, 1.0], given).counts[0, 0].tolist() == [0, 1]
    np.testing.assert_array_equal(given, before)
    poisson = BirthDeathCoagulation(Lattice((5000,), restricted=False), 1.0).run([0.0], 2.5).density()[0, 0]
    assert poisson == pytest.approx(2.5, abs=0.12)


def test_frames_are_tidy_and_survival_counts_runs():
    runs = ContactProcess(Lattice((64,)), 1.5).run([0.0, 2.0, 40.0], "seed", n_runs=50, seed=24)
    frame = runs.to_frame()
    assert frame.columns.tolist() == ["run", "time", "species", "count"]
    alive = frame[frame["time"] == 2.0]["count"].gt(0).mean()
    assert runs.survival()[1] == alive
    assert runs.survival("A")[0] == 1.0
    with pytest.raises(ValueError, match="species must be one of A"):
        runs.density("B")


@pytest.mark.parametrize("shape", [(2,), (5, 2), (), (3, 3, 3, 3), (4.5,), (-4,)])
def test_bad_lattices_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        Lattice(shape)


def test_huge_lattices_are_refused():
    with pytest.raises(ValueError, match="at most 2"):
        Lattice((100_000, 100_000))


@pytest.mark.parametrize(
    ("initial", "error", "message"),
    [
        (1.5, ValueError, "between 0 and 1"),
        (-0.1, ValueError, "between 0 and 1"),
        (float("nan"), ValueError, "between 0 and 1"),
        ({"A": 0.6, "B": 0.6}, ValueError, "between 0 and 1"),
        ({"C": 0.5}, ValueError, "'C'"),
        ("full", ValueError, "'seed'"),
        (np.zeros(4, int), ValueError, "lattice's shape"),
        (np.full(8, 3), ValueError, "codes 0 to 2"),
        (np.zeros(8), TypeError, "integer codes"),
        (lambda generator: np.zeros(3, int), ValueError, "lattice's shape"),
    ],
)
def test_bad_initial_conditions_are_refused(initial, error, message):
    with pytest.raises(error, match=message):
        TwoSpeciesAnnihilation(Lattice((8,))).run([1.0], initial)


def test_bad_models_and_calls_are_refused():
    lattice = Lattice((8,))
    with pytest.raises(TypeError, match="lattice must be a Lattice"):
        ContactProcess((8,), 1.0)
    with pytest.raises(ValueError, match="restricted=True"):
        ContactProcess(Lattice((8,), restricted=False), 1.0)
    with pytest.raises(ValueError, match="restricted=False"):
        BirthDeathCoagulation(lattice, 1.0)
    with pytest.raises(ValueError, match="birth must be finite and not negative"):
        ContactProcess(lattice, -1.0)
    with pytest.raises(ValueError, match="exchange must be finite"):
        MayLeonard(lattice, exchange=np.inf)
    with pytest.raises(ValueError, match="probability must lie"):
        BondPercolation(lattice, 1.2)
    with pytest.raises(ValueError, match="product"):
        PairAnnihilation(lattice, "2A")
    with pytest.raises(ValueError, match="reaction_rate"):
        PairAnnihilation(lattice, reaction_rate=-1.0)
    with pytest.raises(ValueError, match="coagulation must be positive"):
        BirthDeathCoagulation(Lattice((8,), restricted=False), 1.0, coagulation=0.0)
    with pytest.raises(ValueError, match="t must increase"):
        ContactProcess(lattice, 1.0).run([2.0, 1.0], "seed")
    with pytest.raises(ValueError, match="count must be"):
        ContactProcess(lattice, 1.0).run([1.0], "seed", n_runs=0)
    with pytest.raises(ValueError, match="density must be"):
        separated(lattice, 0.0)


def test_lists_of_times_are_recorded_in_order():
    runs = PairAnnihilation(Lattice((300,))).run(np.linspace(0, 30, 16), 1.0, seed=25)
    assert all(later <= earlier for earlier, later in pairwise(runs.counts[0, :, 0].tolist()))
