"""What only the study has: what is planted where, what ablations share, what would refute the claims."""

import numpy as np
import pandas as pd
import pytest
import torch

from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.studies.opposing_signals import study
from interplay.studies.opposing_signals.experiments import (
    Run,
    ablated,
    amplified,
    detection,
    digits_with_frames,
    network,
    sgd,
    train,
    weak_frames,
    with_one_group,
)


@pytest.fixture(scope="module")
def task():
    return digits_with_frames(3, 300, 0.03, 3.0, 6)


def test_frames_sit_on_nine_of_each_class_and_nowhere_else(task):
    plain = digits_with_frames(3, 300, 0.03, 0.0, 6)
    added = (task.x - plain.x).view(-1, 28, 28)
    assert task.y[task.group_a].tolist() == [4] * 9
    assert task.y[task.group_b].tolist() == [9] * 9
    frame = torch.zeros(28, 28)
    frame[:6] = frame[-6:] = 3.0
    for sample in range(300):
        expected = frame if sample in task.loud else torch.zeros(28, 28)
        torch.testing.assert_close(added[sample], expected)
    torch.testing.assert_close(plain.x.mean(0), torch.zeros(784), atol=1e-6, rtol=0)


def test_ablations_keep_the_other_images(task):
    tasks = ablated(task, 0)
    assert len(tasks["groups dropped"].loud) == 0
    for changed in tasks.values():
        assert len(changed.y) == 282
        assert set(changed.origin.tolist()) < set(task.origin.tolist())
    kept = tasks["random dropped"]
    assert torch.equal(kept.x[kept.group_a], task.x[task.group_a])
    assert torch.equal(kept.x[kept.group_b], task.x[task.group_b])


def test_amplitudes_and_single_groups_change_the_frames_alone(task):
    plain = digits_with_frames(3, 300, 0.03, 0.0, 6)
    torch.testing.assert_close(amplified(task, 3.0, 0.0, 6).x, plain.x)
    single = with_one_group(task, 3.0, 6)
    torch.testing.assert_close(single.x[task.group_a], task.x[task.group_a])
    torch.testing.assert_close(single.x[task.group_b], plain.x[task.group_b])


def test_networks_with_and_without_normalisation_start_from_the_same_weights():
    plain, normalised = network(1, 8), network(1, 8, normalised=True)
    assert torch.equal(plain[0].weight, normalised[0].weight)
    assert torch.equal(plain[4].weight, normalised[6].weight)
    assert not torch.equal(plain[0].weight, network(2, 8)[0].weight)


def test_a_run_is_full_batch_descent_and_weights_of_one_change_nothing(task):
    run = train(network(0, 8), task, sgd(0.1), 6, 3)
    weighted = train(network(0, 8), task, sgd(0.1), 6, 3, weights=torch.ones(300))
    np.testing.assert_allclose(run.losses, weighted.losses, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run.sharpness, weighted.sharpness, rtol=1e-2)
    model = network(0, 8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(6):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(task.x), task.y).backward()
        optimizer.step()
    with torch.no_grad():
        final = torch.nn.functional.cross_entropy(model(task.x), task.y)
    assert run.losses[-1].mean() == pytest.approx(final.item(), rel=1e-5)
    assert run.checks.tolist() == [0, 3, 6]


def test_the_control_has_two_classes():
    control = weak_frames(0, 100, 0.03, 0.3, 6)
    assert set(control.y.tolist()) == {0, 1}
    assert len(control.loud) == 6


def test_detection_counts_hits(task):
    time = np.arange(41)
    losses = np.tile(3 - 0.01 * time[:, None], (1, 300)) + 1e-3 * np.random.default_rng(0).normal(size=(41, 300))
    swing = np.cumsum((-1.0) ** time * (1.2 + np.sin(time)))
    losses[:, task.group_a.numpy()] += swing[:, None]
    losses[:, task.group_b.numpy()[:-1]] -= 0.9 * swing[:, None]  # one of the planted samples stays quiet
    nothing = np.zeros(1)
    run = Run(task, losses, np.zeros(1, dtype=int), nothing, nothing, nothing, nothing)
    table = tabulate(detection(run, "planted", 18 / 300), 0).set_index("metric")["value"]
    assert table["groups found"] == 1
    assert table["precision"] == pytest.approx(17 / 18)
    assert table["purity"] >= 17 / 18
    assert table["alternation"] > 0.9
    assert run.increases() == pytest.approx(np.diff(losses.mean(1)).clip(0).sum())


def judged(claim: str, values: dict[str, float]) -> Verdict:
    """The verdict if every part of a claim had its value of `values`, on all seeds but a trace of noise."""
    rows = []
    for part in study.claims[claim].test.parts:
        metric, _, condition = part.description.removeprefix("seeds with ").partition(": ")
        for seed in range(5):
            value = values[condition if condition in values else metric]
            noise = 0 if value in (0, 1) else 1e-6 * seed
            rows += [
                tabulate([Measurement(name, metric, value_of + noise)], seed)
                for name, value_of in _sides(condition, value)
            ]
    return study.claims[claim].judge(pd.concat(rows, ignore_index=True).drop_duplicates())[0]


def _sides(condition: str, value: float) -> list[tuple[str, float]]:
    numerator, slash, denominator = condition.partition(" / ")
    return [(numerator, value), (denominator, 1.0)] if slash else [(condition, value)]


def test_a_detector_that_finds_groups_in_the_control_is_refuted():
    good = {"AUROC": 0.99, "precision": 0.95, "opposition": -0.8, "alternation": 0.9, "weak frames": 0}
    assert judged("names-the-groups", good) is Verdict.HOLDS
    assert judged("names-the-groups", {**good, "weak frames": 1}) is Verdict.FAILS
    assert judged("names-the-groups", {**good, "opposition": 0.9}) is Verdict.FAILS
    assert judged("names-the-groups", {**good, "AUROC": 0.5}) is Verdict.FAILS
