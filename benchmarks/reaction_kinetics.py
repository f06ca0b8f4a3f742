"""Reaction kinetics: exact paths against GillesPy2's solvers, lattice updates against plain Python, events per second.

GillesPy2 is optional (`pip install gillespy2`; its C++ solver needs a compiler and make). Without it, its rows are left
out and the script says so.
"""

from __future__ import annotations

import importlib.util
import random
import shutil
import time

import numpy as np
from measure import HEADER, compare

from interplay.kinetics.reaction_kinetics import (
    ContactProcess,
    Lattice,
    LatticeModel,
    LotkaVolterra,
    MayLeonard,
    PairAnnihilation,
    ReactionNetwork,
    TwoSpeciesAnnihilation,
    simulate,
)

# name -> (reactions, named rates, initial counts, last time)
NETWORKS = {
    "birth-death": ("A -> 2A @ birth; A -> 0 @ death", {"birth": 0.1, "death": 0.11}, {"A": 100}, 50.0),
    "dimerisation": ("2P -> D @ join; D -> 2P @ split", {"join": 0.0005, "split": 0.01}, {"P": 100, "D": 0}, 50.0),
    "Lotka-Volterra with capacity": (
        "A -> 0 @ death; B -> 2B @ birth; 2B -> B @ crowd; A + B -> A @ crowd; A + B -> 2A @ crowd",
        {"death": 0.2, "birth": 1.0, "crowd": 0.001},
        {"A": 300, "B": 300},
        20.0,
    ),
}


def gillespy_model(name: str):
    """The same network for GillesPy2, with the propensities written out."""
    import gillespy2

    text, rates, counts, last = NETWORKS[name]
    network = ReactionNetwork.from_string(text, rates)
    model = gillespy2.Model(name=name.replace("-", "_").replace(" ", "_"))
    species = [gillespy2.Species(name=s, initial_value=counts[s]) for s in network.species]
    model.add_species(species)
    for r, rate in enumerate(network.rates):
        factors = [repr(float(rate))]
        for s, m in enumerate(network.reactants[r]):
            factors += [f"({network.species[s]} - {used})" if used else network.species[s] for used in range(m)]
        products = network.reactants[r] + network.stoichiometry[r]
        model.add_reaction(
            gillespy2.Reaction(
                name=f"r{r}",
                reactants={species[s]: int(m) for s, m in enumerate(network.reactants[r]) if m},
                products={species[s]: int(m) for s, m in enumerate(products) if m},
                propensity_function=" * ".join(factors),
            )
        )
    model.timespan(gillespy2.TimeSpan.linspace(t=last, num_points=11))
    return model


def well_mixed() -> None:
    """Paths of three small networks."""
    present = importlib.util.find_spec("gillespy2") is not None
    compiler = shutil.which("g++") and shutil.which("make")
    if not present:
        print("GillesPy2 is not installed: its rows are left out (pip install gillespy2).\n")
    elif not compiler:
        print("No C++ compiler or make: the rows of GillesPy2's C++ solver are left out.\n")
    for name, (text, rates, counts, last) in NETWORKS.items():
        network = ReactionNetwork.from_string(text, rates)
        times = np.linspace(0.0, last, 11)

        def ours(paths: int, network=network, counts=counts, times=times):
            return simulate(network, counts, times, n_paths=paths, seed=1)

        solvers = {}
        if present:
            import gillespy2

            model = gillespy_model(name)
            numpy_solver = gillespy2.NumPySSASolver(model=model)
            solvers["GillesPy2 NumPySSASolver"] = (numpy_solver, 20)
            if compiler:
                solvers["GillesPy2 SSACSolver (C++)"] = (gillespy2.SSACSolver(model=model), 2000)
        for label, (solver, paths) in solvers.items():
            work = f"SSA, {name}, {paths} paths"
            theirs = {label: lambda s=solver, p=paths: s.run(number_of_trajectories=p, seed=1)}
            print(*compare(work, {"interplay": lambda p=paths: ours(p), **theirs}, repeats=5).rows(), sep="\n")
            agree(ours(2000), solver.run(number_of_trajectories=paths, seed=1), network.species)
        started = time.perf_counter()
        events = int(ours(5000).info["events"].sum())
        rate = events / (time.perf_counter() - started)
        print(f"| SSA, {name}, 5000 paths | interplay | {rate:.3g} events/s on one core | |")


def agree(ours, theirs, species) -> None:
    """Stop where the two disagree about the final means by more than five standard errors."""
    for s, name in enumerate(species):
        mine, other = ours.counts[:, -1, s], np.array([path[name][-1] for path in theirs])
        error = np.sqrt(mine.var() / len(mine) + other.var() / len(other))
        if abs(mine.mean() - other.mean()) > 5 * error + 1e-9:
            raise SystemExit(f"means of {name} disagree: {mine.mean()} and {other.mean()}, standard error {error}")


def plain_annihilation(sites: int, last: float, seed: int = 1) -> int:
    """A + A -> 0 on a full ring with lists and the standard library: same dynamics, one event a step of the loop."""
    draw = random.Random(seed)
    state, particles, slot = [1] * sites, list(range(sites)), list(range(sites))
    now = 0.0

    def remove(site: int) -> None:
        final = particles.pop()
        if final != site:
            particles[slot[site]] = final
            slot[final] = slot[site]

    while particles:
        now += draw.expovariate(len(particles))
        if now > last:
            break
        site = particles[draw.randrange(len(particles))]
        target = (site + (1 if draw.random() < 0.5 else -1)) % sites
        state[site] = 0
        if state[target]:
            state[target] = 0
            remove(site)
            remove(target)
        else:
            state[target] = 1
            particles[slot[site]] = target
            slot[target] = slot[site]
    return len(particles)


def lattices() -> None:
    """A ring against plain Python, then events per second of each model."""
    sites, last = 20_000, 30.0
    model = PairAnnihilation(Lattice((sites,)))
    mine = {"interplay": lambda: model.run([last], 1.0, seed=1)}
    plain = {"plain Python lists": lambda: plain_annihilation(sites, last)}
    print(*compare(f"A + A -> 0, {sites} sites to t = {last:g}", {**mine, **plain}, repeats=5).rows(), sep="\n")
    plane = Lattice((256, 256))
    cases: list[tuple[str, LatticeModel, object, float]] = [
        ("A + A -> 0, ring of 200,000", PairAnnihilation(Lattice((200_000,))), 1.0, 3000.0),
        ("A + A -> 0, ring of 4,000,000", PairAnnihilation(Lattice((4_000_000,))), 1.0, 100.0),
        ("A + B -> 0, ring of 200,000", TwoSpeciesAnnihilation(Lattice((200_000,))), 1.0, 300.0),
        ("contact process, ring of 200,000", ContactProcess(Lattice((200_000,)), 3.5), 1.0, 30.0),
        ("Lotka-Volterra, 256 x 256", LotkaVolterra(plane, 1.0), {"predator": 0.3, "prey": 0.3}, 100.0),
        ("May-Leonard, 256 x 256", MayLeonard(plane), 0.75, 100.0),
    ]
    for name, one, start, until in cases:
        one.run([0.01], start, seed=1)
        rates = []
        for _ in range(3):
            started = time.perf_counter()
            runs = one.run([until], start, seed=1)
            rates.append(int(runs.events.sum()) / (time.perf_counter() - started))
        print(f"| {name} to t = {until:g} | interplay | {max(rates):.3g} changes of the lattice/s on one core | |")


def main() -> None:
    """Print the rows."""
    print(HEADER)
    well_mixed()
    lattices()


if __name__ == "__main__":
    main()
