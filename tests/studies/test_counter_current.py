"""What is special about the study of counter-current learning: one loop for all rules, and honest selection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from interplay.plasticity.counter_current import Backpropagation, CounterCurrent, DifferenceTargetPropagation
from interplay.studies.counter_current import study
from interplay.studies.counter_current.experiments import (
    OCCLUDED,
    Run,
    Training,
    compete,
    digit_images,
    generator_of,
    mirrored,
    perceptron,
)
from interplay.studies.counter_current.inside import operations, spectral_centroid

SIZES = (120, 30, 40)


@pytest.fixture(scope="module")
def config():
    return study.configure("smoke")


@pytest.fixture(scope="module")
def measurements(config):
    return study.run_trial(config, 0)


def network(seed: int = 0, hidden=(8,)):
    data = digit_images(seed, SIZES)
    return mirrored(lambda: perceptron(data, hidden), data, seed)


def test_the_data_are_split_without_overlap_and_standardised_by_what_trains() -> None:
    data = digit_images(3, SIZES)
    assert [len(split.inputs) for split in data] == list(SIZES)
    rows = {tuple(image.flatten().tolist()) for split in data for image in split.inputs}
    assert len(rows) == sum(SIZES)
    assert abs(float(data.train.inputs.mean())) < 1e-5
    assert float(data.train.inputs.std()) == pytest.approx(1, abs=1e-4)
    again, other = digit_images(3, SIZES), digit_images(4, SIZES)
    assert torch.equal(data.test.inputs, again.test.inputs)
    assert not torch.equal(data.test.targets, other.test.targets)


def test_the_hard_set_shows_the_same_digits_with_a_hole() -> None:
    clean, hard = digit_images(0, SIZES), digit_images(0, SIZES, hard=True)
    assert all(torch.equal(one.targets, other.targets) for one, other in zip(clean, hard, strict=True))
    black = (hard.train.inputs == hard.train.inputs.min()).float()
    holes = functional.avg_pool2d(black, OCCLUDED, stride=1).amax((1, 2, 3))
    assert (holes == 1).all()
    assert not torch.allclose(clean.test.inputs, hard.test.inputs)


def test_all_rules_start_from_the_same_weights_and_global_randomness_is_left_alone() -> None:
    torch.manual_seed(5)
    one = network()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1)), "the global generator was moved"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), network().parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(network(1).parameters()))


def test_a_run_reports_the_test_accuracy_of_its_best_validation_epoch() -> None:
    data = digit_images(0, SIZES)
    training = Training(epochs=4, race=1, rates=(0.1,), batch_size=30, clip=1.0)
    scores = iter([0.2, 0.91, 0.5, 0.92, 0.8, 0.93, float("nan"), 0.94, 0.7, 0.95])
    run = Run(Backpropagation(network()), 0.1, data, training, 0, score=lambda net, split: next(scores))
    run.train(4)
    assert (run.best, run.test, run.last) == (0.8, 0.93, 0.95)
    assert run.step == 16
    assert [step for step, _ in run.curve] == [0, 4, 8, 12, 16]


def test_the_race_goes_on_with_the_best_step_size_as_if_it_had_run_alone() -> None:
    data = digit_images(0, SIZES)
    training = Training(epochs=3, race=1, rates=(1e-4, 0.3), batch_size=30, clip=1.0)
    winner, race = compete(lambda: CounterCurrent(network()), data, training, 0)
    assert set(race) == {1e-4, 0.3}
    assert winner.rate == max(race, key=race.__getitem__)
    alone, _ = compete(lambda: CounterCurrent(network()), data, training._replace(rates=(winner.rate,)), 0)
    assert winner.curve == alone.curve
    assert len(winner.curve) == 4


def test_every_rule_is_tuned_on_the_same_grid_for_the_same_number_of_steps(measurements, config) -> None:
    races = measurements[measurements["metric"] == "validation accuracy in the race"]
    rules = set(races["condition"])
    assert {"CCL", "BP", "FA", "DTP", "DRTP", "frozen feedback", "top layer only"} == rules
    for _, rows in races.groupby("condition"):
        assert tuple(rows["x"]) == config.rates
    curves = measurements[measurements["metric"] == "test accuracy by step"]
    steps = -(-config.training_images // config.batch_size) * config.epochs
    assert set(curves.groupby("condition")["step"].max()) == {steps}
    assert study.configure("cpu").epochs * -(-3600 // study.configure("cpu").batch_size) >= 2500


def test_the_levels_of_the_claims_are_those_of_the_curves(measurements) -> None:
    table = measurements.set_index("metric")
    last = table.loc["weight cosine by step"]
    last = last[last["step"] == last["step"].max()].sort_values("x")["value"].to_numpy()
    assert len(last) == len(study.configure("smoke").hidden) + 1
    assert table.loc["weight cosine at the top", "value"] == last[-1]
    assert table.loc["smallest weight cosine", "value"] == last.min()
    similarity = table.loc["CKA by step"]
    similarity = similarity[similarity["x"].between(1, len(last) - 1)].pivot(index="x", columns="step", values="value")
    gains = similarity[similarity.columns.max()] - similarity[0]
    assert table.loc["smallest gain of CKA", "value"] == gains.min()


def test_operations_are_counted_as_by_hand() -> None:
    data = digit_images(0, SIZES)
    net = network(hidden=(8, 6))
    first, rest, last = 784 * 8, 8 * 6, 6 * 10
    both_ways = 2 * (2 * (first + rest + last) + rest + last)  # values and weights; errors not down to the images
    assert operations(Backpropagation(net), data.train, 20) == both_ways
    levels = 10 * (2 * 784 + 3 * 8 + 3 * 6)  # inner products, and their slopes for what learns
    membership = 10 * 10
    rows = 10 / 20
    local = 2 * (2 * (first + rest + last) + rows * 2 * (first + rest + last) + levels + membership)
    assert operations(CounterCurrent(net), data.train, 20) == pytest.approx(local, rel=0.02)
    target = DifferenceTargetPropagation(net, generator=generator_of(0, 0))
    assert operations(target, data.train, 20) > operations(Backpropagation(net), data.train, 20)


def test_spectral_centroids_of_known_waves() -> None:
    place = torch.arange(32)
    for cycles in (2, 5, 16):
        wave = torch.cos(2 * np.pi * cycles * place / 32).expand(1, 1, 32, 32)
        assert spectral_centroid(wave) == pytest.approx(cycles / 32)
    assert spectral_centroid(torch.ones(1, 1, 32, 32)) == pytest.approx(0, abs=1e-9)
    smooth = torch.tensor([1.0, 2.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, smooth), torch.outer(smooth, torch.tensor([1.0, -2.0, 1.0]))])
    assert spectral_centroid(kernels[:1]) < spectral_centroid(kernels[1:])


def test_images_in_folders_take_the_same_path(tmp_path) -> None:
    draw = np.random.default_rng(0)
    for name, count in (("train", 24), ("test", 8)):
        for position in range(count):
            path = tmp_path / name / "ab"[position % 2] / f"{position}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    settings = {"images": tmp_path, "validation_images": 6, "batch_size": 6, "channel_batch": 6}
    measurements = study.run_trial(study.configure("smoke", settings), 0)
    assert measurements["value"].notna().all()
    accuracies = measurements[measurements["metric"] == "test accuracy"]
    assert (accuracies["value"] * 8 % 1 == 0).all(), "eight test images"
    assert "test accuracy, hard images" not in set(measurements["metric"])
