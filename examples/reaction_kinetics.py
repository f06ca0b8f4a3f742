"""What rate equations miss: pair annihilation well mixed (exactly, by leaps, by ODE) and on a line."""

import numpy as np

from interplay.kinetics.reaction_kinetics import Lattice, PairAnnihilation, ReactionNetwork, simulate
from interplay.kinetics.reaction_kinetics.exponents import fit_power_law

times = np.geomspace(1.0, 300.0, 12)

# Well mixed: 2A -> 0 at rate k, a(t) = a0 / (1 + 2 k a0 t).
network = ReactionNetwork.from_string("2A -> 0 @ k", {"k": 0.5e-4})
exact_paths = simulate(network, {"A": 10_000}, times, "ssa", n_paths=50, seed=1)
leaps = simulate(network, {"A": 10_000}, times, "tau", n_paths=50, seed=1)
ode = simulate(network, {"A": 10_000}, times, "ode")

# On a line the survivors have emptied their surroundings.
line = PairAnnihilation(Lattice((100_000,)))
density = line.run(times, initial=1.0, seed=1).density()[0]
theory = (8 * np.pi * line.diffusion * times) ** -0.5

print("   time   rate eq.  well-mixed SSA   tau-leaping   on a line   (8 pi D t)^-1/2")
for k, t in enumerate(times):
    mixed = [solution.mean()[k, 0] / 10_000 for solution in (ode, exact_paths, leaps)]
    print(f"{t:7.1f} {mixed[0]:10.5f} {mixed[1]:15.5f} {mixed[2]:13.5f} {density[k]:11.5f} {theory[k]:17.5f}")

slope = fit_power_law(times, density, window=(10, 300)).value
print(f"\ndecay exponent on the line {slope:.3f}: -1/2 from depletion zones, where rate equations say -1")
