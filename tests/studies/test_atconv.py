"""What only the study has: the filtering task, fair comparisons, costs, distances, what would refute the claims."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from interplay.assets.cluttered_digits import cluttered_digits
from interplay.assets.images import ImageSet
from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.primitives.randomness import generator_of
from interplay.studies.atconv import study
from interplay.studies.atconv.classification import Design, MicroAttNet, Recipe, accuracy, trained_classifier
from interplay.studies.atconv.costs import costs_by_side, sizes_of_networks
from interplay.studies.atconv.diffusion import MicroSiT, Schedule, frechet_distance, generate, train_generator
from interplay.studies.atconv.filtering import OFFSETS, CuedFiltering, learn_filtering
from interplay.studies.atconv.mixers import MIXERS, AttentionMixer, PoolingMixer, mixer_of
from interplay.vision.atconv import ATConvTokens, count_macs, count_parameters

TINY = Schedule(width=16, depth=2, heads=2, patch=4, steps=3, samples=4, sampling_steps=2)


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_cue_chooses_the_filter_of_the_noise():
    task = CuedFiltering(3, 6)
    x, y = task.draw(200, generator_of(0, 0))
    cues = x.mean((1, 2, 3))
    nearest = torch.tensor(OFFSETS)[(cues[:, None] - torch.tensor(OFFSETS)).abs().argmin(1)]
    sure = (cues - nearest).abs() < 0.2
    assert sure.sum() > 100
    for image, target, offset in zip(x[sure], y[sure], nearest[sure], strict=True):
        which = OFFSETS.index(offset.item())
        expected = functional.conv2d(image[None] - offset, task.filters[which : which + 1], padding=1)[0]
        assert torch.allclose(target, expected, atol=1e-5)
    assert task.filters.flatten(1).norm(dim=1).tolist() == pytest.approx([1] * 4)


def test_the_best_fixed_kernel_leaves_the_error_that_theory_gives():
    """For noise with unit variance and filters w, the mean filter is best, with error 1 - |mean w|^2 / mean |w|^2.

    The cue shifts images, which one convolution cannot undo at the border, so the trained network may do worse.
    """
    curve = learn_filtering(0, "static", dim=8, side=12, steps=300, batch_size=32, rate=1e-2, test=512, looks=3)
    filters = CuedFiltering(0, 12).filters.flatten(1)
    bound = 1 - float(filters.mean(0).square().sum() / filters.square().sum(1).mean())
    assert curve.errors[-1] > bound - 0.05
    assert curve.errors[-1] < bound + 0.05


@pytest.mark.parametrize("condition", MIXERS)
def test_every_mixer_keeps_the_map_and_learns_in_all_its_parts(condition):
    mixer, x = mixer_of(condition, 8, 6), images(2, 8, 6, 6)
    mixed = mixer(x)
    assert mixed.shape == x.shape
    if list(mixer.parameters()):
        (mixed * images(2, 8, 6, 6, seed=1)).sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in mixer.parameters())


def test_attention_agrees_with_its_formula():
    mixer, x = AttentionMixer(32, 3).double(), images(1, 32, 3, 3).double()
    q, k, v = mixer.inputs(x + mixer.positions).flatten(2)[0].chunk(3)
    heads = []
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        weights = (q[part].T @ k[part] / math.sqrt(8)).softmax(-1)
        heads.append(weights @ v[part].T)
    expected = mixer.output(torch.cat(heads, 1).T.view(1, 32, 3, 3))
    assert torch.allclose(mixer(x), expected)
    assert not PoolingMixer()(torch.ones(1, 2, 4, 4)).any()


def test_conditions_differ_in_their_mixer_alone_and_see_the_same_order():
    networks = {name: MicroAttNet(name, 16, Design((8, 16), (1, 1))) for name in ("atconv", "static", "identity")}
    shapes = [
        {name: value.shape for name, value in network.state_dict().items() if "position_mixer" not in name}
        for network in networks.values()
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    assert not any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in networks["identity"].modules())
    assert (
        "stages.1.channel_mixer.depthwise.weight"
        in MicroAttNet("identity", 16, Design((8,), (1,), depthwise=True)).state_dict()
    )


def test_training_repeats_and_learns():
    data = cluttered_digits(200, 50, pieces=0, generator=np.random.default_rng(0))
    design, recipe = Design((8, 16), (1, 1)), Recipe(epochs=12, batch_size=20)
    network = trained_classifier(0, "atconv", data.train, design, recipe)
    again = trained_classifier(0, "atconv", data.train, design, recipe)
    assert torch.equal(network(data.test.images), again(data.test.images))
    assert accuracy(network, data.train) > 0.4  # chance is 0.1
    shuffled = ImageSet(data.train.images, data.train.labels[torch.randperm(200, generator=generator_of(0, 1))])
    assert accuracy(network, shuffled) < 0.3


def test_costs_of_attention_grow_with_the_square_and_the_sizes_are_as_published():
    table = tabulate(costs_by_side((16, 24, 32, 64), 8), 0)
    counted = table[table["metric"] == "operations / million"].set_index(["condition", "x"])["value"]
    for side in (16, 64):
        pixels = side**2
        assert counted["attention", pixels] == (4 * 8**2 * pixels + 2 * 8 * pixels**2) / 1e6
        assert counted["static", pixels] == (2 * 8**2 + 9 * 8) * pixels / 1e6
    slopes = table[table["metric"] == "slope of operations"].set_index("condition")["value"]
    assert slopes["static"] == pytest.approx(1)
    assert slopes["attention"] > 1.9
    sizes = tabulate(sizes_of_networks(0, ("xxs",)), 0).set_index("metric")["value"]
    assert sizes["sizes with the published counts"] == 7
    assert sizes["forward at 224 x 224 works"] == 1


def test_the_transformer_with_attentive_convolution_has_no_attention_and_no_positions():
    attention, atconv = (MicroSiT(name, 32, TINY) for name in ("attention", "atconv"))
    assert attention.pos_embed.any()
    assert not atconv.pos_embed.any()
    assert sum(isinstance(module, ATConvTokens) for module in atconv.modules()) == 2
    names = ["SelfAttention" in {type(module).__name__ for module in net.modules()} for net in (attention, atconv)]
    assert names == [True, False]
    inputs = torch.zeros(1, 1, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.long)
    assert count_macs(atconv, *inputs) < count_macs(attention, *inputs)
    assert count_parameters(atconv) < 1.1 * count_parameters(attention)


def test_sampling_follows_the_velocity_back_in_time():
    class Straight(nn.Module):
        """The exact velocity from any point to one target, noise - x = (x_t - x) / t."""

        def forward(self, x, times, labels):
            return (x - labels.view(-1, 1, 1, 1)) / times.view(-1, 1, 1, 1)

    labels = torch.tensor([0, 3, 5])
    drawn = generate(Straight(), images(3, 1, 4, 4), labels, 7)
    assert torch.allclose(drawn, labels.view(-1, 1, 1, 1).expand(3, 1, 4, 4).float(), atol=1e-5)


def test_generators_repeat():
    digits = ImageSet(torch.rand(40, 1, 32, 32, generator=generator_of(0, 9)), torch.arange(40) % 10)
    one, again = (train_generator(0, "atconv", digits, digits, TINY) for _ in range(2))
    other = train_generator(1, "atconv", digits, digits, TINY)
    assert one.loss == again.loss
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)


def test_frechet_distance_of_normals_with_known_moments():
    basis = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]) * math.sqrt(1.5)  # covariance of the sample is 1
    moved = basis * torch.tensor([2.0, 3.0]) + torch.tensor([3.0, 4.0])
    assert frechet_distance(basis, basis) == pytest.approx(0, abs=1e-6)
    # |mean|^2 + (2 - 1)^2 + (3 - 1)^2 for commuting covariances
    assert frechet_distance(basis, moved) == pytest.approx(25 + 1 + 4, rel=1e-5)


def judged(claim, rows):
    tables = [
        tabulate([Measurement(name, metric, value + 1e-4 * seed) for name, metric, value in rows], seed)
        for seed in range(5)
    ]
    return study.claims[claim].judge(pd.concat(tables, ignore_index=True))[0]


def test_what_refutes_the_claims():
    error = "normalised error"
    good = [("atconv", error, 0.4), ("static", error, 0.8), ("attention", error, 0.9)]
    assert judged("routing-filters", good) is Verdict.HOLDS
    assert judged("routing-filters", [good[0], ("static", error, 0.55), good[2]]) is Verdict.FAILS
    assert judged("routing-filters", [*good[:2], ("attention", error, 0.3)]) is Verdict.FAILS
    slope = "slope of operations"
    assert judged("linear-cost", [("atconv", slope, 1.9), ("attention", slope, 1.9)]) is Verdict.FAILS
    right = "test accuracy"
    assert judged("beats-static", [("atconv", right, 0.6), ("static", right, 0.62)]) is Verdict.FAILS
    metrics = ("velocity loss", "frechet distance", "operations of a sample / million")
    worse = [(name, metric, 1.1 if name == "atconv" else 1.0) for metric in metrics for name in ("atconv", "attention")]
    assert judged("diffusion-no-worse", worse) is Verdict.FAILS
    assert judged("diffusion-better", worse) is Verdict.FAILS
