"""The experiments of the study: races of frequencies, trained features, ideal votes, grokking."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional

from interplay.dynamics.modular_addition import (
    Descent,
    FourierSpectrum,
    GrokkingMonitor,
    ModularAdditionNet,
    addition_table,
    fit_flawed_indicator,
    lottery_ticket,
    phase_symmetry,
    random_split,
    train,
    voting_logits,
)
from interplay.evidence import Measurement
from interplay.primitives.randomness import generator_of

RACE, FEATURES, NULL, SPLIT, GROKKING = range(5)
LOSS_OF_THE_RACE = 2.9
RULES = {"flow": "ode", "magnitude alone": "magnitude", "misalignment alone": "misalignment"}
STARTS = {
    "quad GD": "gaussian",
    "quad GD, equal magnitudes": "equal_magnitude",
    "quad GD, single frequencies": "single_frequency",
}
SWAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "|x|": torch.abs,
    "x^2": torch.square,
    "x^4": lambda drive: drive**4,
    "softplus(2x)": lambda drive: functional.softplus(2 * drive),
    "exp(x)": torch.exp,
    "x": torch.clone,
    "x^3": lambda drive: drive**3,
}
# Mean cross-entropies over all pairs, and over all choices of so many frequencies, of the official analysis.
PUBLISHED_LOSSES = {
    "1 frequency": 1.642745,
    "2 frequencies": 0.602362,
    "4 frequencies": 0.028781,
    "phases within 0.4 pi": 4.815338,
    "phases within 0.8 pi": 0.002001,
}


def spectrum_of(network: ModularAdditionNet) -> FourierSpectrum:
    return FourierSpectrum.from_weights(network.input_weights, network.output_weights)


def logits_of(network: ModularAdditionNet) -> Tensor:
    """(..., x, y, answer)."""
    pairs, _ = addition_table(network.p)
    with torch.no_grad():
        return network(pairs).unflatten(-2, (network.p, network.p))


def races(seed: int, p: int, neurons: int, lr: float, steps: int) -> Iterator[Measurement]:
    """Quadratic networks by gradient descent from three kinds of start, in one batch; who was predicted to win?"""
    starts = [
        ModularAdditionNet(p, neurons, init=init, generator=generator_of(seed, RACE, index))
        for index, init in enumerate(STARTS.values())
    ]
    network = ModularAdditionNet.from_weights(
        torch.stack([start.input_weights for start in starts]), torch.stack([start.output_weights for start in starts])
    )
    before = spectrum_of(network)
    tickets = {name: lottery_ticket(before, rule) for name, rule in RULES.items()}
    # A neuron like most: the lead of its predicted winner is the median one.
    lead = tickets["flow"].lead[0]
    neuron = int((lead - lead.median()).abs().argmin())
    looks = {round(steps * part / 75) for part in range(76)}
    rows: list[Measurement] = []
    early: list[Tensor] = []

    def watch(step: int, network: ModularAdditionNet, loss: Tensor) -> None:
        if not early and loss[1] < LOSS_OF_THE_RACE:
            early.append(spectrum_of(network).dominant()[1])
        if step in looks:
            spectrum = spectrum_of(network)
            for what, values in (("magnitude alpha", spectrum.alpha), ("misalignment / rad", spectrum.misalignment)):
                rows.extend(
                    Measurement("quad GD", what, value, step=step, item=str(index + 1))
                    for index, value in enumerate(values[0, neuron].tolist())
                )
            rows.extend(indicator_rows(list(STARTS), logits_of(network), step))

    losses = train(network, steps, Descent(lr, "gd"), watch=watch)
    yield from rows
    yield Measurement("quad GD", "predicted winner of the neuron", tickets["flow"].winner[0, neuron].item())
    after = spectrum_of(network)
    learned = after.dominant()
    for name, ticket in tickets.items():
        ends = ticket.hit_rate(learned).tolist()
        yield Measurement(name, "hit rate", ends[0])
        yield Measurement(name, "hit rate at the end, equal magnitudes", ends[1])
        first = ticket.hit_rate(torch.stack([learned[0], *early, learned[2]]))[1].item() if early else math.nan
        yield Measurement(name, f"hit rate at a loss of {LOSS_OF_THE_RACE}, equal magnitudes", first)
    yield Measurement("chance", "hit rate", 1 / before.alpha.shape[-1])
    for index, name in enumerate(STARTS):
        yield Measurement(name, "IPR at the start", before.ipr()[index].item())
        yield Measurement(name, "IPR", after.ipr()[index].item())
        yield Measurement(name, "final loss", losses[-1, index].item())
        yield Measurement(name, "median |D| / rad", after.at(learned).misalignment[index].abs().median().item())


def indicator_rows(names: list[str], logits: Tensor, step: int | None = None) -> Iterator[Measurement]:
    fit = fit_flawed_indicator(logits)
    for index, name in enumerate(names):
        yield Measurement(name, "ghost / truth", (fit.ghost[index] / fit.truth[index]).item(), step=step)
        yield Measurement(name, "R^2 of the flawed indicator", fit.r_squared[index].item(), step=step)


def features(seed: int, p: int, neurons: int, lr: float, steps: int, null_draws: int) -> Iterator[Measurement]:
    """Networks trained by AdamW on the whole table, taken apart; then ReLU goes on for as many steps again."""
    for index, (name, activation) in enumerate((("quad AdamW", "square"), ("ReLU AdamW", "relu"))):
        network = ModularAdditionNet(p, neurons, activation=activation, generator=generator_of(seed, FEATURES, index))
        before = spectrum_of(network)
        losses = train(network, steps, Descent(lr))
        after = spectrum_of(network)
        winner = after.dominant()
        chosen = after.at(winner)
        logits = logits_of(network)
        yield Measurement(name, "IPR at the start", before.ipr().item())
        yield Measurement(name, "IPR", after.ipr().item())
        yield Measurement(name, "final loss", losses[-1].item())
        yield Measurement(name, "median |D| / rad", chosen.misalignment.abs().median().item())
        yield Measurement(name, "hit rate of the flow", lottery_ticket(before).hit_rate(winner).item())
        yield from indicator_rows([name], logits.unsqueeze(0))
        for turned, psi in zip((2 * chosen.phi).flatten().tolist(), chosen.psi.flatten().tolist(), strict=True):
            yield Measurement(name, "output phase / rad", psi, x=math.remainder(turned, 2 * math.pi))
        for answer, row in enumerate(logits[0].mT.tolist()):
            for y, value in enumerate(row):
                yield Measurement(name, "logit at x = 0", value, x=y, item=str(answer))
        symmetry = phase_symmetry(after, draws=null_draws, generator=generator_of(seed, NULL, index))
        for order, length in zip(symmetry.orders, symmetry.mean_resultant.tolist(), strict=True):
            yield Measurement(name, "mean resultant length", length, x=order)
            chance = (("95 % of chance", symmetry.mean_null_quantile), ("mean of chance", symmetry.mean_null))
            for what, value in chance:
                yield Measurement(f"{name}, {what}", "mean resultant length", value.item(), x=order)
        for frequency, count in enumerate(symmetry.count.tolist(), start=1):
            yield Measurement(name, "neurons of a frequency", count, x=frequency)
        if activation == "relu":
            yield from swap_rows(network, "accuracy after the swap")
            train(network, steps, Descent(lr))
            yield from swap_rows(network, "accuracy after the swap, trained on")


def swap_rows(network: ModularAdditionNet, metric: str) -> Iterator[Measurement]:
    pairs, labels = addition_table(network.p)
    for name, activation in SWAPS.items():
        with torch.no_grad():
            right = network(pairs, activation).argmax(-1) == labels
        yield Measurement(name, metric, right.double().mean().item())


def diversification(p: int, neurons: int) -> Iterator[Measurement]:
    """Mean loss of ideal neurons that have only some frequencies, or phases from only a part of the circle."""
    pairs, labels = addition_table(p)
    top = p // 2
    counts = [neurons // top + (index < neurons % top) for index in range(top)]

    def votes(span: float) -> Tensor:
        """(frequency, pair, answer)."""
        parts = []
        for frequency, count in enumerate(counts, start=1):
            phases = torch.arange(count, dtype=torch.float64) * (span / max(count, 1))
            parts.append(voting_logits(*pairs.T, p, torch.full((count,), frequency), phases))
        return torch.stack(parts)

    def loss(logits: Tensor) -> float:
        # As a sum over wrong answers, so that losses far below rounding of one survive.
        right = logits.gather(-1, labels[:, None])
        margins = (logits - right).scatter(-1, labels[:, None], -math.inf)
        return margins.logsumexp(-1).exp().log1p().mean().item()

    full = votes(2 * math.pi)
    for number in (*(number for number in (1, 2, 4, 8) if number < top), top):
        of_all = [loss(full[list(chosen)].sum(0)) for chosen in combinations(range(top), number)]
        name = "1 frequency" if number == 1 else f"{number} frequencies"
        yield Measurement(name, "mean loss of the vote", sum(of_all) / len(of_all), x=number, item="frequencies")
    for part in (0.4, 0.8, 1.2, 1.6, 2.0):
        value = loss(votes(part * math.pi).sum(0))
        yield Measurement(f"phases within {part:g} pi", "mean loss of the vote", value, x=part, item="phases")


def grokking(
    seed: int,
    p: int,
    neurons: int,
    lr: float,
    steps: int,
    decays: tuple[float, float],
    fraction: float,
    every: int,
) -> Iterator[Measurement]:
    """The same ReLU network on the same training pairs with weight decay and without, in one batch."""
    conditions = ("weight decay", "no decay")
    in_train = random_split(p, fraction, generator_of(seed, SPLIT))
    generators = [generator_of(seed, GROKKING) for _ in conditions]
    network = ModularAdditionNet(p, neurons, activation="relu", generator=generators)
    monitor = GrokkingMonitor(in_train, every=every)
    train(network, steps, Descent(lr, weight_decay=torch.tensor(decays)), in_train=in_train, watch=monitor)
    history, stages = monitor.history, monitor.stages()
    perfect = monitor.first_step("train accuracy", 1.0)
    quick = monitor.first_step("test accuracy", 0.9)
    for index, condition in enumerate(conditions):
        for metric, values in history.items():
            for step, value in zip(monitor.steps, values[:, index].tolist(), strict=True):
                yield Measurement(condition, metric, value, step=step)
        plateau = math.nan
        if not perfect[index].isnan():
            plateau = history["test accuracy"][monitor.steps.index(int(perfect[index])), index].item()
        yield Measurement(condition, "test accuracy when training is first perfect", plateau)
        # A run that does not get there counts as one that takes all steps; if neither does, there is nothing to tell.
        needed = math.nan if quick.isnan().all() else quick[index].nan_to_num(steps).item()
        yield Measurement(condition, "steps to 0.9 test accuracy", needed)
        yield Measurement(condition, "step at which memorising ends", stages.memorised[index].item())
        yield Measurement(condition, "step at which generalising ends", stages.generalised[index].item())
