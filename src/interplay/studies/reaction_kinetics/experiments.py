"""The nine experiments of the study, each a function of the settings and a seed that yields measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from interplay.evidence import Measurement
from interplay.kinetics.reaction_kinetics import (
    BirthDeathCoagulation,
    ContactProcess,
    Lattice,
    LotkaVolterra,
    MayLeonard,
    PairAnnihilation,
    ReactionNetwork,
    RockPaperScissors,
    TwoSpeciesAnnihilation,
    separated,
    simulate,
)
from interplay.kinetics.reaction_kinetics.exponents import fit_power_law, local_slope, scan_critical
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

if TYPE_CHECKING:
    from interplay.studies.reaction_kinetics import Config

CRITICAL_MOBILITY = 4.5e-4  # Reichenbach, Mobilia and Frey 2007, at selection = reproduction = 1
PREDATOR_DEATH = 0.2
MEAN_FIELD_FREQUENCY = float(0.1 * np.sqrt(15.0))  # predators and prey at predation = birth = capacity = 1, death = 0.2


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
    yield Measurement("well-mixed SSA", "theta", _exponent(times, mixed.mean()[:, 0], early))
    yield Measurement("well-mixed SSA", "delta", -_exponent(times, mixed.survival(), early))


def inhibition(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K2: threshold and survival exponent with pair coagulation on an unrestricted lattice.

    The threshold is located anew from the decay of a full lattice; the exponent is measured at the more precise value
    that the model keeps.
    """
    branches = iter(seed.spawn(len(config.inhibition_scan) + 1))
    times, window = np.geomspace(1.0, config.inhibition_time, 27), (20.0, config.inhibition_time)
    wide = Lattice((config.inhibition_sites,), restricted=False)

    def decay(birth: float) -> tuple[ArrayLike, ArrayLike]:
        return times, BirthDeathCoagulation(wide, birth).run(times, 1.0, seed=next(branches)).density()[0]

    yield Measurement("birth-death-coagulation", "critical birth", _threshold(decay, config.inhibition_scan, window))
    lattice = Lattice((_light_cone(config.inhibition_time),), restricted=False)
    model = BirthDeathCoagulation(lattice, BirthDeathCoagulation.critical_rate[1])
    seen = spread(model.run(times, "seed", n_runs=config.inhibition_runs, seed=next(branches)))
    yield from _exponents("birth-death-coagulation", times, seen, window)
    yield from _curve("birth-death-coagulation", "P(t)", times, seen.survival)


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
    yield Measurement("A + A", "decay exponent", _exponent(times, density, window))
    late = np.array([window[1]])
    reach = 200
    seen = model.run(late, 1.0, {"g": lambda c: pair_correlation(c, reach)}, seed=branches[1]).observed["g"][0, 0]
    yield from _curve("A + A", "g(r)", np.arange(1, reach + 1), seen[1:])

    # The well-mixed lattice: each of N (N - 1) ordered pairs meets at the rate that gives da/dt = -a^2 a site.
    particles = 100_000
    network = ReactionNetwork.from_string("2A -> 0 @ k", {"k": 0.5 / particles})
    mixed = simulate(network, [particles], times, seed=branches[1]).mean()[:, 0] / particles
    yield from _curve("well-mixed SSA", "density", times, mixed)
    yield Measurement("well-mixed SSA", "decay exponent", _exponent(times, mixed, (30.0, 300.0)))


def segregation(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K4: A + B -> 0 from an even mixture, and A + A -> 0 on the same lattice."""
    line, plane = Lattice((config.mixture_sites,)), Lattice((config.mixture_side, config.mixture_side))
    for lattice, times, window in (
        (
            line,
            np.geomspace(1.0, config.annihilation_time, 41),
            (min(100.0, config.annihilation_time / 3), config.annihilation_time),
        ),
        (plane, np.geomspace(1.0, 300.0, 31), (10.0, 300.0)),
    ):
        first, second = seed.spawn(2)
        name = f"d={lattice.dimensions}"
        mixture = TwoSpeciesAnnihilation(lattice).run(times, 1.0, {"index": segregation_index}, seed=first)
        alone = PairAnnihilation(lattice).run(times, 1.0, seed=second).density()[0]
        density = mixture.density("A")[0]
        diffusion = 0.5 / lattice.dimensions
        yield Measurement(f"A + B, {name}", "decay exponent", _exponent(times, density, window))
        yield Measurement(f"A + A, {name}", "decay exponent", _exponent(times, alone, window))
        yield Measurement(f"A + B, {name}", "segregation index", float(mixture.observed["index"][0, -1]))
        yield from _curve(f"A + B, {name}", "density", times, density)
        yield from _curve(f"A + A, {name}", "density", times, alone)
        formula = np.sqrt(0.5 / np.pi) * (8 * np.pi * diffusion * times) ** (-lattice.dimensions / 4)
        yield from _curve(f"A + B, {name}", "density / formula", times, density / formula)

    strip = Lattice((128,))
    moments = np.linspace(0.0, 320.0, 81)
    picture = TwoSpeciesAnnihilation(strip).run(moments, 1.0, {"picture": np.copy}, seed=seed.spawn(1)[0]).observed
    codes = picture["picture"][0]
    yield from _curve("A + B, d=1", "space-time", np.arange(codes.size), codes.ravel())


def fronts(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K5: the front between separated A and B, on the lattice and in mean field."""
    lattice = Lattice((config.front_sites,))
    model = TwoSpeciesAnnihilation(lattice, record_reactions=True)
    times = np.geomspace(10.0, config.front_time, 19)
    runs = model.run(times, separated(lattice, 0.5), {"gap": front_gaps}, n_runs=config.front_runs, seed=seed)
    gap = runs.observed["gap"].mean(axis=(0, 2))
    window = (30.0, config.front_time)
    yield from _curve("front, d=1", "gap", times, gap)
    yield Measurement("front, d=1", "gap exponent", _exponent(times, gap, window))

    reactions = np.concatenate(runs.reactions)
    edges = np.geomspace(30.0, config.front_time, 9)
    profile = front_profile(reactions[:, 0], front_positions(reactions, config.front_sites), edges)
    middle = np.sqrt(edges[1:] * edges[:-1])
    yield from _curve("front, d=1", "width of the profile", middle, profile.width)
    yield from _curve("front, d=1", "reactions", middle, profile.reactions / np.diff(edges))
    yield Measurement("front, d=1", "width exponent", _exponent(middle, profile.width, window))

    long = np.geomspace(100.0, 10_000.0, 21)
    mean_field = mean_field_front(long, density=0.5)
    yield from _curve("mean field", "width of the profile", long, mean_field.width)
    yield Measurement("mean field", "width exponent", _exponent(long, mean_field.width, (1000.0, 10_000.0)))


def oscillations(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K6: spectra of the predators on the lattice and well mixed, and the damped rate equation."""
    lattice = Lattice((config.predation_side, config.predation_side))
    times, start = np.arange(1.0, config.predation_time + 1), {"predator": 0.3, "prey": 0.3}
    branches = seed.spawn(4)
    for number, (predation, hop) in enumerate(((1.0, 0.0), (1.0, 2.0))):
        model = LotkaVolterra(lattice, predation, death=PREDATOR_DEATH, hop=hop)
        runs = model.run(times, start, n_runs=config.predation_runs, seed=branches[number])
        name = f"predation {predation:g}, hop {hop:g}"
        yield from _spectrum(name, runs.density("predator"))
        if number == 0:
            yield from _curve(name, "predators", times, runs.density("predator")[0])
            yield from _curve(name, "prey", times, runs.density("prey")[0])
    network = _well_mixed_predators(lattice.sites)
    n0 = {"A": int(0.3 * lattice.sites), "B": int(0.3 * lattice.sites)}
    mixed = simulate(network, n0, times, n_paths=config.predation_runs, seed=branches[2])
    yield from _spectrum("well-mixed SSA", mixed.counts[:, :, network.species.index("A")] / lattice.sites)
    ode = simulate(network, n0, times, "ode").mean() / lattice.sites
    yield from _curve("rate equation", "predators", times, ode[:, network.species.index("A")])
    yield from _curve("rate equation", "prey", times, ode[:, network.species.index("B")])
    large = Lattice((2 * config.predation_side, 2 * config.predation_side))
    for number, predation in enumerate((0.3, 0.4, 0.5)):
        model = LotkaVolterra(large, predation, death=PREDATOR_DEATH)
        runs = model.run([config.predation_time], start, seed=branches[3].spawn(3)[number])
        yield Measurement("lattice", "predator density", float(runs.density("predator")[0, 0]), x=predation)
        yield Measurement("rate equation", "predator density", _coexistence(predation), x=predation)


def invasion(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K7: one predator in a lattice full of prey: the threshold first, then the exponents from fresh runs there."""
    branches = iter(seed.spawn(len(config.invasion_scan) + 1))
    lattice = Lattice((config.invasion_side, config.invasion_side))
    times, window = np.geomspace(2.0, config.invasion_time, 28), (50.0, config.invasion_time)

    def invade(predation: float, runs: int) -> Spread:
        model = LotkaVolterra(lattice, predation, death=PREDATOR_DEATH)
        return spread(model.run(times, "seed", n_runs=runs, seed=next(branches)))

    critical = _threshold(
        lambda predation: (times, invade(predation, config.invasion_runs).number), config.invasion_scan, window
    )
    yield Measurement("predators", "critical predation", critical)
    predation = float(np.median(config.invasion_scan)) if np.isnan(critical) else critical
    seen = invade(predation, 2 * config.invasion_runs)
    yield from _exponents("predators", times, seen, window)
    yield from _curve("predators", "P(t)", times, seen.survival)


def patterns(config: Config, seed: np.random.SeedSequence) -> Iterator[Measurement]:
    """K8: correlation lengths and structure factors of both cyclic games at equal rates."""
    lattice = Lattice((config.cyclic_side, config.cyclic_side))
    times = config.cyclic_time * np.linspace(0.5, 1.0, 16)
    crop = min(96, config.cyclic_side)
    observables = {
        "length": lambda c: correlation_length(c, species=1),
        "power": lambda c: structure_factor(c, 1).power,
        "picture": lambda c: c[:crop, :crop].copy(),
    }
    wave_numbers = structure_factor(np.zeros(lattice.shape, np.int8)).wave_number
    games = (
        (RockPaperScissors(lattice, exchange=1.0), 1.0),
        (MayLeonard(lattice, exchange=1.0), 0.75),
        (MayLeonard(lattice, exchange=4.0), 0.75),
    )
    for (model, start), branch in zip(games, seed.spawn(len(games)), strict=True):
        name = f"{type(model).__name__}, exchange {model.rates['exchange']:g}"
        seen = model.run(times, start, observables, seed=branch).observed
        power = seen["power"][0].mean(axis=0)
        yield Measurement(name, "correlation length", float(seen["length"].mean()))
        yield Measurement(name, "peak wave number / smallest", float(np.argmax(power) + 1))
        yield from _curve(name, "S(k)", wave_numbers, power)
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


def _light_cone(time: float) -> int:
    """Sites that a cluster from one seed does not outgrow: critical DP spreads as t^(1/z), far below this."""
    return 256 + 16 * int(np.ceil(time ** (1 / 1.5807)))


def _threshold(
    run: Callable[[float], tuple[ArrayLike, ArrayLike]], parameters: Sequence[float], window: tuple[float, float]
) -> float:
    """Where the curve is straight in log-log; undefined where the scan is too small to bracket that."""
    try:
        return scan_critical(run, parameters, window).value
    except ValueError:
        return float("nan")


def _exponent(times: NDArray[np.float64], values: NDArray[np.float64], window: tuple[float, float]) -> float:
    """Slope in log-log; undefined where a value in the window is zero or undefined itself."""
    inside = (times >= window[0]) & (times <= window[1])
    return fit_power_law(times, values, window).value if (values[inside] > 0).all() else float("nan")


def _exponents(
    condition: str, times: NDArray[np.float64], seen: Spread, window: tuple[float, float]
) -> Iterator[Measurement]:
    """Theta, delta and 2/z of spreading."""
    yield Measurement(condition, "theta", _exponent(times, seen.number, window))
    yield Measurement(condition, "delta", -_exponent(times, seen.survival, window))
    yield Measurement(condition, "2/z", _exponent(times, seen.radius_squared, window))


def _curve(condition: str, metric: str, x: ArrayLike, values: ArrayLike) -> Iterator[Measurement]:
    for coordinate, value in zip(np.asarray(x).tolist(), np.asarray(values).tolist(), strict=True):
        yield Measurement(condition, metric, float(value), x=float(coordinate))


def _spectrum(condition: str, densities: NDArray[np.float64]) -> Iterator[Measurement]:
    """Averaged spectrum of the predators after the first fifth, its highest peak and the plateau below."""
    peak = spectral_peak(densities[:, densities.shape[1] // 5 :], 1.0, smoothing=2)
    yield Measurement(condition, "peak / plateau", peak.ratio)
    yield Measurement(condition, "peak frequency", peak.frequency)
    low = peak.frequencies < 1.0
    yield from _curve(condition, "spectrum", peak.frequencies[low], peak.power[low])


def _well_mixed_predators(sites: int) -> ReactionNetwork:
    """Predation = birth = 1 with carrying capacity `sites`: A predators, B prey."""
    return ReactionNetwork.from_string(
        "A -> 0 @ death; B -> 2B @ 1; 2B -> B @ crowding; A + B -> A @ crowding; A + B -> 2A @ crowding",
        {"death": PREDATOR_DEATH, "crowding": 1 / sites},
    )


def _coexistence(predation: float) -> float:
    """Predators a site at the mean-field fixed point with birth = capacity = 1; none below predation = death."""
    return max(0.0, (1 - PREDATOR_DEATH / predation) / (predation + 1))


IN_ORDER = (spreading, inhibition, annihilation, segregation, fronts, oscillations, invasion, patterns, diversity)
