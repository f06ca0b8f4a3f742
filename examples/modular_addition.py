"""Which frequency will each neuron learn? Predict it, train, and see how the network adds."""

import torch

from interplay.dynamics.modular_addition import (
    Descent,
    FourierSpectrum,
    ModularAdditionNet,
    addition_table,
    fit_flawed_indicator,
    lottery_ticket,
    phase_symmetry,
    train,
)

P = 17
generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
network = ModularAdditionNet(P, 256, scale=0.1, generator=generators)
before = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
tickets = {rule: lottery_ticket(before, rule) for rule in ("ode", "magnitude", "misalignment")}

losses = train(network, 1200, Descent(lr=1.0, optimizer="gd"))
after = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
learned = after.dominant()

print(f"{'four networks of 256 neurons, p = 17':44}" + "".join(f"{f'net {run}':>9}" for run in range(4)))
rows = {
    "loss": losses[-1],
    "concentration (IPR), before": before.ipr(),
    "concentration (IPR), after": after.ipr(),
    "median misalignment |D|, rad": after.at(learned).misalignment.abs().flatten(1).median(1).values,
    **{f"winners predicted by {rule}": ticket.hit_rate(learned) for rule, ticket in tickets.items()},
}
pairs, _ = addition_table(P)
fit = fit_flawed_indicator(network(pairs).unflatten(1, (P, P)))
rows["height of ghosts / right answer"] = fit.ghost / fit.truth
symmetry = phase_symmetry(after, generator=torch.Generator().manual_seed(0))
rows["unevenness of phases, order 2"] = symmetry.mean_resultant[:, 1]
rows["95 % of random phases stay below"] = symmetry.mean_null_quantile
for name, values in rows.items():
    print(f"{name:44}" + "".join(f"{value:9.3f}" for value in values.tolist()))
