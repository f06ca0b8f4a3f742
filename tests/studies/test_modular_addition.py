"""What only the study has: ideal votes, what races share, what would refute the claims."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from interplay.dynamics.modular_addition import Descent, FourierSpectrum, ModularAdditionNet, lottery_ticket, train
from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.primitives.randomness import generator_of
from interplay.studies.modular_addition import study
from interplay.studies.modular_addition.experiments import (
    PUBLISHED_LOSSES,
    RACE,
    diversification,
    features,
    grokking,
    races,
)


def values(rows, metric: str) -> dict[str, float]:
    """Last value of a metric by condition."""
    return {row.condition: row.value for row in rows if row.metric == metric}


def slow_vote(p: int, counts: list[int], chosen: tuple[int, ...], span: float) -> float:
    losses = []
    for x, y in itertools.product(range(p), repeat=2):
        logits = np.zeros(p)
        for index in chosen:
            omega = 2 * math.pi * (index + 1) / p
            for phase in np.linspace(0, span, counts[index], endpoint=False):
                vote = (math.cos(omega * x + phase) + math.cos(omega * y + phase)) ** 2
                logits += np.cos(omega * np.arange(p) + 2 * phase) * vote
        losses.append(np.log(np.exp(logits - logits[(x + y) % p]).sum()))
    return float(np.mean(losses))


def test_losses_of_the_vote_are_those_of_a_loop():
    p, counts = 7, [5, 5, 4]
    found = values(diversification(p, sum(counts)), "mean loss of the vote")
    for number, name in ((1, "1 frequency"), (2, "2 frequencies"), (3, "3 frequencies")):
        slow = [slow_vote(p, counts, chosen, 2 * math.pi) for chosen in itertools.combinations(range(3), number)]
        assert found[name] == pytest.approx(np.mean(slow), rel=1e-9)
    for part in (0.4, 1.2):
        slow = slow_vote(p, counts, (0, 1, 2), part * math.pi)
        assert found[f"phases within {part:g} pi"] == pytest.approx(slow, rel=1e-9)


def test_the_whole_vote_has_the_tiny_loss_that_was_published():
    found = values(diversification(23, 128), "mean loss of the vote")
    assert found["11 frequencies"] == found["phases within 2 pi"] == pytest.approx(7.41e-15, rel=0.02)
    assert found["8 frequencies"] == pytest.approx(2.99e-8, rel=0.02)
    assert found["phases within 1.2 pi"] == pytest.approx(1.19e-9, rel=0.02)


def test_races_share_a_batch_and_keep_their_own_starts():
    rows = list(races(3, 11, 32, 1.0, 60))
    starts = values(rows, "IPR at the start")
    assert starts["quad GD, equal magnitudes"] == pytest.approx(1 / 5, rel=1e-3)
    assert starts["quad GD, single frequencies"] == pytest.approx(1, rel=1e-3)
    network = ModularAdditionNet(11, 32, generator=generator_of(3, RACE, 0))
    before = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
    losses = train(network, 60, Descent(1.0, "gd"))
    after = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
    assert values(rows, "final loss")["quad GD"] == pytest.approx(losses[-1].item(), rel=1e-4)
    expected = lottery_ticket(before).hit_rate(after.dominant()).item()
    assert values(rows, "hit rate")["flow"] == pytest.approx(expected, abs=1 / 32)


def test_an_undecided_race_is_undefined():
    rows = list(races(0, 23, 16, 1e-3, 5))
    assert math.isnan(values(rows, "hit rate at a loss of 2.9, equal magnitudes")["flow"])


def test_without_decay_both_grokkers_are_the_same():
    rows = list(grokking(0, 7, 16, 1e-3, 60, (0.0, 0.0), 0.75, 20))
    for metric in ("train loss", "test accuracy", "IPR", "norm"):
        found = values(rows, metric)
        assert found["weight decay"] == found["no decay"]
    rows = list(grokking(0, 7, 16, 1e-3, 60, (2.0, 0.0), 0.75, 20))
    first = [row.value for row in rows if row.metric == "train loss" and row.step == 0]
    assert first[0] == first[1]
    assert values(rows, "norm")["weight decay"] < values(rows, "norm")["no decay"]
    assert math.isnan(values(rows, "steps to 0.9 test accuracy")["weight decay"]), "neither gets there: no tie"
    assert math.isnan(values(rows, "test accuracy when training is first perfect")["weight decay"])


def test_untrained_networks_show_nothing():
    """The measures that the claims use are not met by chance."""
    rows = list(features(0, 11, 64, 1e-3, 0, 200))
    for network in ("quad AdamW", "ReLU AdamW"):
        assert values(rows, "IPR")[network] < 0.4
        assert values(rows, "median |D| / rad")[network] > 0.8
        assert values(rows, "R^2 of the flawed indicator")[network] < 0.1
    assert all(value < 0.3 for value in values(rows, "accuracy after the swap").values())


def judged(claim: str, found: dict[tuple[str, str], float], shift: float = 0.0) -> Verdict:
    tables = []
    for seed in range(6):
        rows = [
            Measurement(condition, metric, value + shift + 1e-6 * seed, x=2.0)
            for (condition, metric), value in found.items()
        ]
        tables.append(tabulate([*rows, *(row._replace(x=4.0) for row in rows if "resultant" in row.metric)], seed))
    return study.claims[claim].judge(pd.concat(tables, ignore_index=True))[0]


def test_claims_can_fail():
    ring = "mean resultant length"
    even = {
        (name + end, ring): value
        for name in ("quad AdamW", "ReLU AdamW")
        for end, value in (("", 0.1), (", 95 % of chance", 0.16))
    }
    assert judged("phases-no-less-even-than-chance", even) is Verdict.HOLDS
    assert judged("phases-no-less-even-than-chance", {**even, ("ReLU AdamW", ring): 0.3}) is Verdict.FAILS
    votes = {(name, "mean loss of the vote"): value for name, value in PUBLISHED_LOSSES.items()}
    assert judged("diversification", votes) is Verdict.HOLDS
    assert judged("diversification", votes, shift=0.05) is Verdict.FAILS
    hits = {("flow", "hit rate"): 0.93, ("magnitude alone", "hit rate"): 0.6, ("misalignment alone", "hit rate"): 0.2}
    assert judged("predicted-winner", hits) is Verdict.HOLDS
    assert judged("predicted-winner", {**hits, ("magnitude alone", "hit rate"): 0.9}) is Verdict.FAILS
