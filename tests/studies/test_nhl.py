"""What is special about the study of NHL: fair tuning, an honest control, and folders of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interplay.plasticity.nhl import NHL, SourceOnly
from interplay.primitives.randomness import generator_of
from interplay.studies.nhl import study, with_random_signs
from interplay.studies.nhl.worlds import digit_world


@pytest.fixture(scope="module")
def config():
    return study.configure("smoke")


@pytest.fixture(scope="module")
def measurements(config):
    return study.run_trial(config, 0)


def small_world(seed: int = 0):
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 10)
        )

    device = torch.device("cpu")
    return digit_world(seed, build, epochs=1, training_images=100, stream_images=60, device=device)


def test_no_reported_corruption_chooses_a_step_size():
    for preset in ("smoke", "cpu", "paper"):
        config = study.configure(preset)
        assert not set(config.held_out) & set(config.corruptions)
        assert set(config.sweep_corruptions) <= set(config.corruptions)
    assert len(study.configure("cpu").corruptions) >= 8
    assert study.configure("cpu").severity == 5


def test_every_tuned_method_takes_its_best_held_out_rate_from_the_same_grid(measurements, config):
    tuning = measurements[measurements["metric"] == "held-out error"]
    for name in ("TENT", "PL", "NHL", "HardNHL"):
        rows = tuning[tuning["condition"] == name]
        assert tuple(rows["x"]) == config.rates
        chosen = measurements[(measurements["metric"] == "chosen step size") & (measurements["condition"] == name)]
        assert chosen["value"].item() == rows.loc[rows["value"].idxmin(), "x"]


def test_every_condition_meets_every_corruption(measurements, config):
    errors = measurements[measurements["metric"] == "online error"]
    assert set(errors["item"]) == set(config.corruptions)
    assert (errors.groupby("condition")["item"].nunique() == len(config.corruptions)).all()
    assert errors["condition"].nunique() == 12
    assert errors["value"].between(0, 1).all()


def test_streams_are_disjoint_from_training_paired_between_corruptions_and_sorted_on_demand():
    world = small_world()
    clean = list(world.stream("clean", 5, 20, False))
    assert [len(labels) for _, labels in clean] == [20, 20, 20]
    noisy = list(world.stream("noise", 5, 20, False))
    for (images, labels), (corrupted, same_labels) in zip(clean, noisy, strict=True):
        assert torch.equal(labels, same_labels)
        assert not torch.equal(images, corrupted)
    in_order = torch.cat([labels for _, labels in world.stream("noise", 5, 20, True)])
    assert torch.equal(in_order, torch.cat([labels for _, labels in noisy]).sort().values)
    again = list(small_world().stream("noise", 5, 20, False))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(noisy, again, strict=True))
    with pytest.raises(ValueError, match=r"'snow' is none of noise, .* folders of images"):
        world.stream("snow", 5, 20, False)


def test_the_source_network_depends_on_its_seed_alone():
    torch.manual_seed(1)
    one = small_world(seed=3).network.state_dict()
    torch.manual_seed(2)
    other, third = small_world(seed=3).network.state_dict(), small_world(seed=4).network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["0.weight"], third["0.weight"])


def test_random_signs_change_as_much_as_the_rule_in_other_directions():
    network = small_world().network
    images = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    plain, control = NHL(network), with_random_signs(NHL, generator_of(0, 1), network)
    rule, random = plain.hebb.delta(images), control.hebb.delta(images)
    assert torch.equal(rule.abs(), random.abs())
    assert 0 < (rule.sign() != random.sign()).double().mean() < 1
    control(images)
    assert not torch.equal(control.model[0].weight, network[0].weight)


def test_a_checkpoint_and_folders_of_images_take_the_same_path(tmp_path):
    import transformers

    transformers.utils.logging.disable_progress_bar()
    checkpoint = tmp_path / "checkpoint"
    settings = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], num_labels=3)
    transformers.ResNetForImageClassification(settings).save_pretrained(checkpoint)
    transformers.ConvNextImageProcessorPil(size={"shortest_edge": 32}).save_pretrained(checkpoint)
    noise = np.random.default_rng(0)
    for root in ("clean", "fog/5", "fog/1", "snow/5"):
        for position in range(12):
            path = tmp_path / "images" / root / "abc"[position % 3] / f"{position}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(path)
    folders = {
        **{"images": tmp_path / "images", "checkpoint": checkpoint, "corruptions": ("fog",), "held_out": ("snow",)},
        **{"sweep_corruptions": ("fog",), "batch_size": 4, "batch_sizes": (3,), "transformer_epochs": 0},
    }
    measurements = study.run_trial(study.configure("smoke", folders), 0)
    assert measurements["value"].notna().all()
    assert {"NHL", "source", "NHL, second convolution"} <= set(measurements["condition"])

    with pytest.raises(ValueError, match="images and checkpoint go together"):
        study.run_trial(study.configure("smoke", {**folders, "checkpoint": None}), 0)
    with pytest.raises(FileNotFoundError, match="holds no images; expected"):
        study.run_trial(study.configure("smoke", {**folders, "corruptions": ("frost",)}), 0)


def test_the_source_condition_is_the_trained_network_itself():
    world = small_world()
    images, _ = world.stream("fog", 5, 60, False)[0]
    assert torch.equal(SourceOnly(world.network)(images), world.network.eval()(images))
