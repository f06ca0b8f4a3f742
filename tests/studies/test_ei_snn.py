"""What is special about the study of E-I networks: disjoint parts, one sweep for all, honest controls."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interplay.primitives.randomness import generator_of
from interplay.spiking.ei_snn import EILinear, EIProp
from interplay.studies.ei_snn import TUNING_SEED, best_rate, constraints_kept, data_of, made, study, sweep
from interplay.studies.ei_snn.networks import (
    CONDITIONS,
    activity,
    balance,
    ei_layers,
    smallest_constrained,
    spikes_per_image,
)
from interplay.studies.ei_snn.training import (
    Part,
    accuracy,
    digits,
    folders,
    rate_factor,
    shifted_and_mirrored,
    train,
)


@pytest.fixture(scope="module")
def config():
    grids = {"ei_rates": (0.003, 0.01), "ablation_rates": (0.001, 0.003, 0.01), "other_rates": (0.02, 0.05)}
    return study.configure("smoke", grids)


@pytest.fixture(scope="module")
def measurements(config):
    return study.run_trial(config, 0)


def test_parts_are_disjoint_stratified_and_always_the_same():
    data = digits(3000, 1000, 1000)
    flat = torch.cat([part.images for part in data]).flatten(1)
    assert len(flat) == 5000
    assert len({tuple(row) for row in flat[:, 200:600].tolist()}) > 4990  # hardly any image looks like another
    for part, count in zip(data, (300, 100, 100), strict=True):
        assert part.labels.bincount().tolist() == [count] * 10
    assert torch.equal(digits.__wrapped__(3000, 1000, 1000).test.images, data.test.images)
    with pytest.raises(ValueError, match="at most 5000 images"):
        digits(4000, 1000, 1000)


def test_every_condition_takes_its_best_rate_of_one_sweep(config, measurements):
    scores = measurements[(measurements["metric"] == "validation accuracy") & (measurements["item"] == "depth 4")]
    chosen = measurements[measurements["metric"] == "chosen rate"].set_index("condition")["value"]
    for name, condition in CONDITIONS.items():
        rows = scores[scores["condition"] == name]
        expected = config.ablation_rates if condition.circuit == "ei" else config.other_rates
        assert tuple(rows["x"]) == (config.ei_rates if name == "E-I" else expected)
        assert chosen[name] == rows.loc[rows["value"].idxmax(), "x"] == best_rate(config, name, 4)
    assert sweep(config) is sweep(config)
    for preset in study.presets:  # no ablation has fewer rates to choose from than the method
        assert set(study.configure(preset).ei_rates) <= set(study.configure(preset).ablation_rates)
    assert all(study.seeds[preset] < TUNING_SEED for preset in study.seeds)


def test_the_sweep_sees_no_test_image(config, monkeypatch):
    data = data_of(config)
    hidden = data._replace(test=Part(torch.full_like(data.test.images, math.nan), data.test.labels))
    monkeypatch.setattr("interplay.studies.ei_snn.data_of", lambda _: hidden)
    assert sweep.__wrapped__(config) == sweep(config)


def test_conditions_differ_by_what_they_say(config):
    data = data_of(config)
    networks = {name: made(config, data, name, 4, 0) for name in CONDITIONS}
    reference = ei_layers(networks["E-I"])[1]
    for name in ("no gradient scale", "no straight-through"):
        layer = ei_layers(networks[name])[1]
        assert torch.equal(layer.weight, reference.weight), "the same start"
    assert ei_layers(networks["no gradient scale"])[1].ei_prop == EIProp(scale_gradient=False)
    assert ei_layers(networks["no straight-through"])[1].ei_prop == EIProp(straight_through=False, epsilon=1e-5)
    constant = ei_layers(networks["constant init"])[1]
    assert_close(constant.gain_i, torch.full_like(constant.gain_i, constant.fan_in**-0.5))
    wide = ei_layers(networks["constant init, 1/√d"])[1]
    assert_close(wide.weight, constant.weight * wide.fan_in**0.5)
    assert not any(ei_layers(networks[name]) for name in ("batch norm", "no norm", "no norm, LSUV"))
    norms = [isinstance(module, nn.BatchNorm1d) for module in networks["batch norm"].modules()]
    assert sum(norms) == 3
    again = made(config, data, "E-I", 4, 0)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), networks["E-I"].parameters(), strict=True))


def test_lsuv_gives_orthogonal_weights_and_unit_variance(config):
    data = data_of(config)
    network = made(config, data, "no norm, LSUV", 4, 0)
    layers = activity(network, data.train.images[: config.batch_size])
    assert [layer.deviation for layer in layers] == pytest.approx([1.0] * 3, abs=1e-3)
    weight = next(module for module in network.modules() if isinstance(module, nn.Linear)).weight
    product = weight @ weight.t()
    assert_close(product, product[0, 0] * torch.eye(len(product)), atol=1e-4, rtol=0)


def test_activity_and_balance_are_those_of_the_layers(config):
    data = data_of(config)
    network, batch = made(config, data, "E-I", 4, 0), data.test.images[:10]
    first = ei_layers(network)[0]
    current = first(batch.flatten(1))
    found = activity(network, batch)[0]
    assert (found.mean, found.deviation) == pytest.approx((current.mean().item(), current.std().item()), rel=1e-3)
    potential, spikes = torch.zeros_like(current), 0.0
    for _ in range(4):
        potential = 0.5 * potential + current
        fired = (potential >= 1).float()
        potential, spikes = potential - fired, spikes + fired.sum().item()
    assert found.rate == pytest.approx(spikes / (4 * current.numel()))
    layers = activity(network, batch)
    assert spikes_per_image(network, batch) == pytest.approx(sum(layer.rate * 4 * 48 for layer in layers), rel=1e-5)
    excitation, subtractive = balance(network, batch)[0]
    assert_close(excitation - subtractive, first.currents(batch.flatten(1)).balanced)


class LessBatchMean(nn.Module):
    """Samples that interact."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


def test_broken_constraints_are_noticed(config):
    data = data_of(config)
    network = made(config, data, "E-I", 4, 0)
    assert constraints_kept(network, data, [0.0, 0.1])
    assert not constraints_kept(network, data, [0.0, -1e-9])
    with torch.no_grad():
        ei_layers(network)[0].gain_i[0] = -0.5
    assert smallest_constrained(network) == -0.5
    mixing = nn.Sequential(nn.Flatten(), EILinear(784, 8, ei_init=False), LessBatchMean())
    assert not constraints_kept(mixing, data, [0.0])
    other_ratio = nn.Sequential(nn.Flatten(), EILinear(784, 8, ei_init=False, ei_ratio=2))
    assert not constraints_kept(other_ratio, data, [0.0])


def test_training_learns_and_the_rate_rises_then_falls():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    images = 0.3 * torch.rand(200, 1, 4, 4, generator=generator)
    images.flatten(1)[torch.arange(200), labels] = 1.0
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    part = Part(images, labels)
    settings = {"batch_size": 20, "warm_up": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "augment": False}
    epochs = []
    train(network, part, rate=0.5, epochs=5, generator=generator, after_epoch=lambda: epochs.append(1), **settings)
    assert len(epochs) == 5
    assert accuracy(network, part) > 0.95
    factors = [rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.001
    with torch.no_grad():
        network[1].weight.fill_(math.nan)
    assert accuracy(network, part) == 0.0


def test_augmentation_shifts_mirrors_and_cuts():
    images = torch.rand(50, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.1
    made = shifted_and_mirrored(images, generator_of(0, 1))
    assert made.shape == images.shape
    assert torch.equal(made, shifted_and_mirrored(images, generator_of(0, 1)))
    assert ((made == 0).all(1).flatten(1).sum(1) >= 64).all(), "a hole of 8 x 8 in each"
    padded = nn.functional.pad(images, (4,) * 4)
    for index in (0, 1, 2):
        crops = [padded[index, :, row : row + 32, left : left + 32] for row in range(9) for left in range(9)]
        windows = [*crops, *(crop.flip(-1) for crop in crops)]
        kept = made[index] > 0
        assert any(torch.equal(made[index][kept], window[kept]) for window in windows)


def test_folders_of_images_take_the_same_path(tmp_path):
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for part in ("train", "test"):
        for position in range(12):
            path = tmp_path / part / "abc"[position % 3] / f"{position}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    settings = {
        **{"architecture": "vgg", "depth": 8, "images": tmp_path, "validation_images": 4, "batch_size": 4},
        **{"epochs": 1, "initial_depths": (8,), "further_depths": (), "depth_seeds": 0, "augment": True},
        **{"time_steps": 1, "ei_rates": (0.001,)},
    }
    data = folders(tmp_path, 4, "cpu")
    assert (len(data.train.labels), len(data.validation.labels), len(data.test.labels)) == (8, 4, 12)
    assert 0 <= data.train.images.min() < data.train.images.max() <= 1
    config = study.configure("smoke", settings)
    network = made(config, data, "E-I", 8, 0)
    assert network(data.test.images).shape == (12, 3)
    with pytest.raises(ValueError, match="architecture=vgg needs colour images: --set images=FOLDER"):
        data_of(study.configure("paper"))
    with pytest.raises(ValueError, match="validation must leave some of the 12 training images"):
        folders(tmp_path, 12, "cpu")
