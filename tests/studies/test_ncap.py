"""What only the study has: networks as populations, running moments, training, exact shares, and cut circuits."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from interplay.evidence import Measurement, Verdict
from interplay.evidence.study import tabulate
from interplay.studies.ncap import study
from interplay.studies.ncap.comparisons import fisher_exact, share
from interplay.studies.ncap.experiments import Plan, parameter_counts, trained
from interplay.studies.ncap.swimming import (
    Circuit,
    Perceptron,
    Search,
    Swimmers,
    evaluate,
    stream,
    swim,
    torch_stream,
    train,
)

SEARCH = Search(population=4, sigma=0.1, lr=0.1, budget=480)
PLAN = Plan(6, (64, 64), False, 60, 100, 2, 240, SEARCH, SEARCH._replace(budget=960))


def test_a_population_of_networks_is_its_members_in_torch():
    network = Perceptron((23, 8, 6, 5), np.random.default_rng(0))
    members = np.random.default_rng(1).normal(0, 1, (4, network.initial.size))
    observations = np.random.default_rng(2).normal(0, 1, (4, 23))
    together = network.act(members)(observations, 0)
    for member, observation, torques in zip(members, observations, together, strict=True):
        layers = nn.Sequential(nn.Linear(23, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5)).double()
        nn.utils.vector_to_parameters(torch.from_numpy(member), layers.parameters())
        expected = layers(torch.from_numpy(observation)).clamp(-1, 1).detach().numpy()
        np.testing.assert_allclose(torques, expected, atol=1e-12)


def test_running_moments_are_those_of_all_that_was_seen():
    network = Perceptron((3, 4, 2), np.random.default_rng(0))
    seen = np.random.default_rng(1).normal([5, -2, 0], [3, 0.1, 1], (60, 3))
    for chunk in np.split(seen, [7, 30]):
        network.watch(chunk)
    normalised = (seen - seen.mean(0)) / seen.std(0)
    plain = Perceptron((3, 4, 2), np.random.default_rng(0), normalised=False)
    plain.watch(seen)
    parameters = network.initial[None]
    np.testing.assert_allclose(network.act(parameters)(seen, 0), plain.act(parameters)(normalised, 0), atol=1e-9)


def test_parameters_are_counted_as_published():
    counts = {row.condition: row.value for row in parameter_counts(PLAN, (256, 256))}
    assert counts["constant"] == counts["uniform"] == counts["unsigned uniform"] == 4
    assert counts["unshared"] == 30
    assert counts["network"] == 6021
    assert counts["wide network"] == 73_221


def test_controllers_are_evaluated_in_the_same_poses():
    act = swim(Circuit(5, torch_stream(0)).numpy)
    full, half = Swimmers(2, 200), Swimmers(2, 100)
    assert evaluate(act, full, 3) == evaluate(act, full, 3) != evaluate(act, full, 4)
    assert evaluate(act, half, 3) == pytest.approx(half.returns(act, stream(3, 3)).mean() * 10)


def test_training_improves_a_circuit_and_keeps_to_its_budget():
    search = Search(population=8, sigma=0.1, lr=0.1, budget=12_000)
    controller = Circuit(5, torch_stream(1), init="uniform")
    parameters, curve = train(controller, search, 1, episode=125, every=4000, swimmers=Swimmers(2, 250))
    assert [point.steps for point in curve] == [0, 4000, 8000, 12_000]
    assert curve[-1].mean_return > curve[0].mean_return + 100
    assert not np.array_equal(parameters, controller.initial)


def test_a_controller_that_misses_the_goal_counts_the_whole_budget():
    rows, _ = trained(PLAN, 0, "unsigned uniform")
    values = {row.metric: row.value for row in rows}
    assert values["reaches 800"] == 0
    assert values["steps to 800"] == 960, "the network's budget, not that of the circuit"


def table(condition, values):
    rows = [tabulate([Measurement(condition, "reaches 800", value)], seed) for seed, value in enumerate(values)]
    return pd.concat(rows, ignore_index=True)


def test_shares_and_fishers_test_are_exact():
    rows = pd.concat([table("uniform", [1] * 8), table("unsigned uniform", [1, 1, 1, 0, 0, 0, 0, 0])])
    (finding,) = share("reaches 800", "unsigned uniform").below(0.5).judge(rows)
    assert (finding.estimate.effect, finding.estimate.units, finding.verdict) == (0.375, 8, Verdict.HOLDS)
    (finding,) = fisher_exact("reaches 800", "uniform", "unsigned uniform").below(0.05).judge(rows)
    assert finding.estimate.effect == pytest.approx(stats.fisher_exact([[8, 0], [3, 5]]).pvalue)
    assert finding.verdict is Verdict.HOLDS
    (finding,) = fisher_exact("reaches 800", "uniform", "nobody").below(0.05).judge(rows)
    assert finding.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(("reached", "verdict"), [(3, Verdict.HOLDS), (4, Verdict.FAILS), (8, Verdict.FAILS)])
def test_unsigned_circuits_that_learn_refute_the_claim(reached, verdict):
    rows = pd.concat([table("uniform", [1] * 8), table("unsigned uniform", [1] * reached + [0] * (8 - reached))])
    assert study.claims["signs-are-crucial"].judge(rows)[0] is verdict
