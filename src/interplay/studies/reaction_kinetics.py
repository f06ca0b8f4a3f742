"""Reaction kinetics: what rate equations miss when particles and populations fluctuate in space.

Nine experiments, each next to what mean field says: spreading at the extinction threshold under site exclusion (K1) and
under pair coagulation (K2), pair annihilation (K3), two-species annihilation (K4) and its front (K5), predators and prey
(K6, K7), cyclic competition (K8, K9). A trial runs all of them once; the interval is over trials.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from pandas import DataFrame
from pydantic import Field, PositiveFloat, PositiveInt

from interplay.evidence.claims import all_of, difference, mean, proportion, ratio
from interplay.evidence.study import Measurement, Study, StudyConfig
from interplay.kinetics.reaction_kinetics import (
    BirthDeathCoagulation,
    ContactProcess,
    Lattice,
    LatticeModel,
    LotkaVolterra,
    MayLeonard,
    PairAnnihilation,
    ReactionNetwork,
    RockPaperScissors,
    TwoSpeciesAnnihilation,
    separated,
    simulate,
)
from interplay.kinetics.reaction_kinetics.exponents import CriticalPoint, fit_power_law, local_slope, scan_critical
from interplay.kinetics.reaction_kinetics.mean_field_front import mean_field_front
from interplay.kinetics.reaction_kinetics.observables import (
    Spread,
    correlation_length,
    front_gaps,
    front_positions,
    front_profile,
    pair_correlation,
    segregation_index,
    spectral_peak,
    spread,
    structure_factor,
)

CRITICAL_MOBILITY = 4.5e-4  # Reichenbach, Mobilia and Frey 2007, at selection = reproduction = 1
PREDATOR_DEATH = 0.2
LV_MEAN_FIELD_FREQUENCY = 0.1 * np.sqrt(15.0)  # predation = birth = 1, death = 0.2, capacity 1
SPECIES_COLOURS = ListedColormap(["#ffffff", "#0072b2", "#d55e00", "#009e73"])


class Config(StudyConfig):
    """Sizes of the nine experiments, for one trial."""

    spreading_runs: PositiveInt = Field(4000, description="K1: contact processes from one seed")
    spreading_time: PositiveFloat = Field(1000.0, gt=100, description="K1: last time")
    inhibition_runs: PositiveInt = Field(1000, description="K2: runs at each birth rate of the scan (4 x at the threshold)")
    inhibition_time: PositiveFloat = Field(400.0, gt=60, description="K2: last time")
    inhibition_scan: tuple[float, ...] = Field((3.06, 3.10, 3.14, 3.18, 3.22), description="K2: birth rates; death = 1")
    annihilation_sites: PositiveInt = Field(1_000_000, description="K3: sites in one dimension")
    annihilation_time: PositiveFloat = Field(3000.0, gt=50, description="K3, K4: last time in one dimension")
    mixture_sites: PositiveInt = Field(200_000, description="K4: sites in one dimension")
    mixture_side: PositiveInt = Field(768, description="K4: side in two dimensions")
    front_runs: PositiveInt = Field(100, description="K5: runs, with two fronts each")
    front_sites: PositiveInt = Field(1000, description="K5: sites")
    front_time: PositiveFloat = Field(2000.0, gt=100, description="K5: last time on the lattice")
    predation_side: PositiveInt = Field(64, description="K6: side")
    predation_time: PositiveInt = Field(1000, gt=300, description="K6: last time; the first 200 are left out")
    predation_runs: PositiveInt = Field(8, description="K6: runs for a spectrum")
    invasion_side: PositiveInt = Field(256, description="K7: side")
    invasion_runs: PositiveInt = Field(2000, description="K7: runs at each predation rate of the scan (2 x at the threshold)")
    invasion_time: PositiveFloat = Field(1000.0, gt=150, description="K7: last time")
    invasion_scan: tuple[float, ...] = Field((0.377, 0.381, 0.385, 0.389, 0.393), description="K7: predation rates")
    cyclic_side: PositiveInt = Field(256, description="K8: side")
    cyclic_time: PositiveFloat = Field(300.0, description="K8: last time; lengths average over its second half")
    diversity_side: PositiveInt = Field(64, description="K9: side; runs last side^2 / 10")
    diversity_runs: PositiveInt = Field(12, description="K9: runs at each mobility")
    mobilities: tuple[float, ...] = Field((0.2, 0.5, 1.0, 2.0, 5.0), description="K9: in units of the critical one")
    claims: tuple[str, ...] = Field(
        ("K1", "K2", "K3", "K4", "K5", "K6", "K7", "K8", "K9"), description="experiments to run"
    )


study = Study(
    "reaction-kinetics",
    Config,
    presets={
        "smoke": {
            "spreading_runs": 200,
            "spreading_time": 101.0,
            "annihilation_sites": 20_000,
            "annihilation_time": 100.0,
            "claims": ("K1", "K3"),
        },
        "cpu": {},
        "paper": {
            "spreading_runs": 100_000,
            "spreading_time": 10_000.0,
            "inhibition_runs": 20_000,
            "inhibition_time": 4000.0,
            "annihilation_sites": 16_000_000,
            "annihilation_time": 30_000.0,
            "mixture_sites": 16_000_000,
            "mixture_side": 4096,
            "front_runs": 4000,
            "front_sites": 8000,
            "front_time": 100_000.0,
            "predation_side": 256,
            "predation_time": 4000,
            "predation_runs": 64,
            "invasion_side": 2048,
            "invasion_runs": 100_000,
            "invasion_time": 10_000.0,
            "cyclic_side": 512,
            "cyclic_time": 3000.0,
            "diversity_side": 200,
            "diversity_runs": 100,
        },
    },
    seeds={"smoke": 2, "cpu": 5, "paper": 20},
    caveat="Exponents come from windows of two to three decades in time; corrections to scaling are part of what is measured.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    """Run the experiments one after the other, each from its own branch of the seed."""
    experiments = {
        "K1": spreading,
        "K2": inhibition,
        "K3": annihilation,
        "K4": segregation,
        "K5": fronts,
        "K6": oscillations,
        "K7": invasion,
        "K8": patterns,
        "K9": diversity,
    }
    for number, (name, experiment) in enumerate(experiments.items()):
        if name in config.claims:
            yield from experiment(config, np.random.SeedSequence([seed, number]))


def spreading(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K1: the critical contact process from one seed, and the well-mixed critical birth-death process."""
    branches = seed.spawn(2)
    times = np.geomspace(1.0, config.spreading_time, 31)
    lattice = Lattice((_light_cone(config.spreading_time),))
    model = ContactProcess(lattice, birth=ContactProcess.critical_rate[1])
    seen = spread(model.run(times, "seed", n_runs=config.spreading_runs, seed=branches[0]))
    window = (30.0, config.spreading_time)
    yield from _exponents("contact process", times, seen, window)
    yield from _curve("contact process", "N(t)", times, seen.number)
    yield from _curve("contact process", "P(t)", times, seen.survival)
    for metric, values in (("slope of N", seen.number), ("slope of P", seen.survival)):
        yield from _curve("contact process", metric, *local_slope(times, values, 5.0))

    network = ReactionNetwork.from_string("A -> 2A @ 1; A -> 0 @ 1")
    mixed = simulate(network, [1], times, n_paths=config.spreading_runs, seed=branches[1])
    yield from _curve("well-mixed SSA", "N(t)", times, mixed.mean()[:, 0])
    yield from _curve("well-mixed SSA", "P(t)", times, mixed.survival())
    early = (3.0, 100.0)
    yield Measurement("well-mixed SSA", "theta", fit_power_law(times, mixed.mean()[:, 0], early).value)
    yield Measurement("well-mixed SSA", "delta", -fit_power_law(times, mixed.survival(), early).value)


def inhibition(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K2: threshold and survival exponent with pair coagulation on an unrestricted lattice."""
    lattice = Lattice((_light_cone(config.inhibition_time),), restricted=False)
    times, window = np.geomspace(1.0, config.inhibition_time, 27), (20.0, config.inhibition_time)
    critical, final = _at_threshold(
        lambda birth: BirthDeathCoagulation(lattice, birth),
        config.inhibition_scan, times, window, config.inhibition_runs, 4 * config.inhibition_runs, seed,
    )  # fmt: skip
    yield Measurement("birth-death-coagulation", "critical birth", critical.value)
    yield from _exponents("birth-death-coagulation", times, final, window)
    yield from _curve("birth-death-coagulation", "P(t)", times, final.survival)


def annihilation(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K3: A + A -> 0 in one dimension against the exact density and against mean field."""
    branches = seed.spawn(2)
    times = np.geomspace(1.0, config.annihilation_time, 41)
    model = PairAnnihilation(Lattice((config.annihilation_sites,)))
    density = model.run(times, 1.0, seed=branches[0]).density()[0]
    exact = (8 * np.pi * model.diffusion * times) ** -0.5
    window = (30.0, min(1000.0, config.annihilation_time))
    yield from _curve("A + A", "density", times, density)
    yield from _curve("A + A", "density / exact", times, density / exact)
    yield Measurement("A + A", "decay exponent", fit_power_law(times, density, window).value)
    late = np.array([window[1]])
    reach = 200
    seen = model.run(late, 1.0, {"g": lambda c: pair_correlation(c, reach)}, seed=branches[1]).observed["g"][0, 0]
    yield from _curve("A + A", "g(r)", np.arange(1, reach + 1), seen[1:])

    # The well-mixed lattice: each of N (N - 1) ordered pairs meets at the rate that gives da/dt = -a^2 a site.
    particles = 10_000
    network = ReactionNetwork.from_string("2A -> 0 @ k", {"k": 0.5 / particles})
    mixed = simulate(network, [particles], times, seed=branches[1]).mean()[:, 0] / particles
    yield from _curve("well-mixed SSA", "density", times, mixed)
    yield Measurement("well-mixed SSA", "decay exponent", fit_power_law(times, mixed, (30.0, 300.0)).value)


def segregation(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K4: A + B -> 0 from an even mixture, and A + A -> 0 on the same lattice."""
    line, plane = Lattice((config.mixture_sites,)), Lattice((config.mixture_side, config.mixture_side))
    for lattice, times, window in (
        (line, np.geomspace(1.0, config.annihilation_time, 41), (100.0, config.annihilation_time)),
        (plane, np.geomspace(1.0, 300.0, 31), (10.0, 300.0)),
    ):
        first, second = seed.spawn(2)
        name = f"d={lattice.dimensions}"
        mixture = TwoSpeciesAnnihilation(lattice).run(times, 1.0, {"index": segregation_index}, seed=first)
        alone = PairAnnihilation(lattice).run(times, 1.0, seed=second).density()[0]
        density = mixture.density("A")[0]
        diffusion = 0.5 / lattice.dimensions
        yield Measurement(f"A + B, {name}", "decay exponent", fit_power_law(times, density, window).value)
        yield Measurement(f"A + A, {name}", "decay exponent", fit_power_law(times, alone, window).value)
        yield Measurement(f"A + B, {name}", "segregation index", float(mixture.observed["index"][0, -1]))
        yield from _curve(f"A + B, {name}", "density", times, density)
        yield from _curve(f"A + A, {name}", "density", times, alone)
        formula = np.sqrt(0.5 / np.pi) * (8 * np.pi * diffusion * times) ** (-lattice.dimensions / 4)
        yield from _curve(f"A + B, {name}", "density / formula", times, density / formula)


def fronts(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K5: the front between separated A and B, on the lattice and in mean field."""
    lattice = Lattice((config.front_sites,))
    model = TwoSpeciesAnnihilation(lattice, record_reactions=True)
    times = np.geomspace(10.0, config.front_time, 19)
    runs = model.run(times, separated(lattice, 0.5), {"gap": front_gaps}, n_runs=config.front_runs, seed=seed)
    gap = runs.observed["gap"].mean(axis=(0, 2))
    window = (30.0, config.front_time)
    yield from _curve("front, d=1", "gap", times, gap)
    yield Measurement("front, d=1", "gap exponent", fit_power_law(times, gap, window).value)

    reactions = np.concatenate(runs.reactions)
    edges = np.geomspace(30.0, config.front_time, 9)
    profile = front_profile(reactions[:, 0], front_positions(reactions, config.front_sites), edges)
    middle = np.sqrt(edges[1:] * edges[:-1])
    yield from _curve("front, d=1", "width of the profile", middle, profile.width)
    yield from _curve("front, d=1", "reactions", middle, profile.reactions / np.diff(edges))
    yield Measurement("front, d=1", "width exponent", fit_power_law(middle, profile.width, window).value)

    long = np.geomspace(100.0, 10_000.0, 21)
    mean_field = mean_field_front(long, density=0.5)
    yield from _curve("mean field", "width of the profile", long, mean_field.width)
    yield Measurement("mean field", "width exponent", fit_power_law(long, mean_field.width, (1000.0, 10_000.0)).value)


def oscillations(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K6: spectra of the predators on the lattice, with and without mixing, well mixed, and the damped rate equation."""
    lattice = Lattice((config.predation_side, config.predation_side))
    times, start = np.arange(1.0, config.predation_time + 1), {"predator": 0.3, "prey": 0.3}
    branches = seed.spawn(6)
    for number, (predation, hop) in enumerate(((1.0, 0.0), (2.0, 0.0), (1.0, 2.0))):
        model = LotkaVolterra(lattice, predation, death=PREDATOR_DEATH, hop=hop)
        runs = model.run(times, start, n_runs=config.predation_runs, seed=branches[number])
        name = f"predation {predation:g}, hop {hop:g}"
        yield from _spectrum(name, runs.density("predator"))
        if number == 0:
            yield from _curve(name, "predators", times, runs.density("predator")[0])
            yield from _curve(name, "prey", times, runs.density("prey")[0])
    network = _well_mixed_predators(lattice.sites)
    n0 = {"A": int(0.3 * lattice.sites), "B": int(0.3 * lattice.sites)}
    mixed = simulate(network, n0, times, n_paths=config.predation_runs, seed=branches[3])
    yield from _spectrum("well-mixed SSA", mixed.counts[:, :, network.species.index("A")] / lattice.sites)
    ode = simulate(network, n0, times, "ode").mean() / lattice.sites
    yield from _curve("rate equation", "predators", times, ode[:, network.species.index("A")])
    yield from _curve("rate equation", "prey", times, ode[:, network.species.index("B")])
    large = Lattice((2 * config.predation_side, 2 * config.predation_side))
    for number, predation in enumerate((0.3, 0.4, 0.5)):
        model = LotkaVolterra(large, predation, death=PREDATOR_DEATH)
        runs = model.run([config.predation_time], start, seed=branches[4].spawn(3)[number])
        yield Measurement("lattice", "predator density", float(runs.density("predator")[0, 0]), x=predation)
        yield Measurement("rate equation", "predator density", _coexistence(predation), x=predation)


def invasion(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K7: one predator in a lattice full of prey, at the threshold."""
    lattice = Lattice((config.invasion_side, config.invasion_side))
    times, window = np.geomspace(2.0, config.invasion_time, 28), (50.0, config.invasion_time)
    critical, final = _at_threshold(
        lambda predation: LotkaVolterra(lattice, predation, death=PREDATOR_DEATH),
        config.invasion_scan, times, window, config.invasion_runs, 2 * config.invasion_runs, seed,
    )  # fmt: skip
    yield Measurement("predators", "critical predation", critical.value)
    yield from _exponents("predators", times, final, window)
    yield from _curve("predators", "P(t)", times, final.survival)


def patterns(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K8: correlation lengths and structure factors of both cyclic games at equal rates."""
    lattice = Lattice((config.cyclic_side, config.cyclic_side))
    times = config.cyclic_time * np.linspace(0.5, 1.0, 6)
    crop = min(96, config.cyclic_side)
    observables = {
        "length": lambda c: correlation_length(c, species=1),
        "power": lambda c: structure_factor(c, 1).power,
        "picture": lambda c: c[:crop, :crop].copy(),
    }
    wave_numbers = structure_factor(np.zeros(lattice.shape, np.int8)).wave_number
    for branch, exchange in zip(seed.spawn(2), (1.0, 4.0), strict=True):
        for model, start in (
            (RockPaperScissors(lattice, exchange=exchange), 1.0),
            (MayLeonard(lattice, exchange=exchange), 0.75),
        ):
            name = f"{type(model).__name__}, exchange {exchange:g}"
            seen = model.run(times, start, observables, seed=branch).observed
            power = seen["power"][0].mean(axis=0)
            yield Measurement(name, "correlation length", float(seen["length"].mean()))
            yield Measurement(name, "peak wave number / smallest", float(np.argmax(power) + 1))
            yield from _curve(name, "S(k)", wave_numbers, power)
            if exchange == 1.0:
                yield from _curve(name, "picture", np.arange(crop * crop), seen["picture"][0, -1].ravel())


def diversity(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K9: is a species lost by t = L^2 / 10?"""
    lattice = Lattice((config.diversity_side, config.diversity_side))
    for branch, factor in zip(seed.spawn(len(config.mobilities)), config.mobilities, strict=True):
        exchange = factor * CRITICAL_MOBILITY * config.diversity_side**2 / 2
        model = MayLeonard(lattice, exchange=exchange)
        runs = model.run([config.diversity_side**2 / 10], 0.75, n_runs=config.diversity_runs, seed=branch)
        for number, lost in enumerate((runs.counts[:, 0] == 0).any(axis=1)):
            yield Measurement(f"mobility {factor:g} Mc", "species lost", float(lost), x=factor, item=str(number))
