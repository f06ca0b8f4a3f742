"""Counter-current learning against numbers of the published code.

`data/official_counter_current.json` holds, for each of the published networks, the loss of every level and for every
weight and bias the norm of its gradient and the gradient's product with `wave(frequency=.7)`. They were computed in
float64 by https://github.com/IandRover/CCL-NeurIPS24 at commit 789a8e4 with the weights and inputs that the formulas
here give. The convolutional networks are put together from the published layers with the few channels named here; the
multi-layer perceptron has the published widths.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from interplay.plasticity.counter_current import (
    CCConv2d,
    CCFlatten,
    CCLinear,
    CounterCurrentNet,
    LocalLosses,
    convolutional_autoencoder,
    counter_current_loss,
)

from .digit_like import wave

OFFICIAL = json.loads((Path(__file__).parent / "data" / "official_counter_current.json").read_text())
CHANNELS = (3, 6, 8, 8, 10, 12)
COSINE = {"kind": "cosine", "scale": 1.0, "decorrelation": 0.5, "mask_confident": 0.1}


def perceptron() -> nn.Sequential:
    hidden = [
        module
        for inputs, outputs in itertools.pairwise([784] + [256] * 5)
        for module in (nn.Linear(inputs, outputs, bias=False), nn.ELU())
    ]
    return nn.Sequential(*hidden, nn.Linear(256, 10, bias=False))


def pooled() -> nn.Sequential:
    blocks = [
        nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.ELU(), nn.MaxPool2d(2))
        for inputs, outputs in itertools.pairwise(CHANNELS)
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(12, 10, bias=False))


def strided() -> nn.Sequential:
    blocks = [
        nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.ELU()) for inputs, outputs in itertools.pairwise(CHANNELS)
    ]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(12, 10, bias=False))


def weights_of(net: CounterCurrentNet) -> list[nn.Parameter]:
    """Weights and biases of F_1 to F_L, then of G_1 to G_L; not those of normalisations."""
    kinds = (nn.Linear, nn.Conv2d)
    sides = ("forward_module", "feedback_module")
    parts = [part for side in sides for pair in net.pairs for part in getattr(pair, side).modules()]
    return [parameter for part in parts if isinstance(part, kinds) for parameter in part.parameters()]


def filled(net: CounterCurrentNet) -> CounterCurrentNet:
    net.double()
    with torch.no_grad():
        for position, parameter in enumerate(weights_of(net)):
            scale = 2 / parameter[0].numel() ** 0.5
            parameter.copy_(wave(*parameter.shape, frequency=1.3 + position / 7, scale=scale))
        top = net.pairs[-1].forward_module
        if isinstance(top, nn.Linear) and top.in_features == 12:
            top.weight.mul_(6)  # confident enough for the mask
    return net


def check_against(name: str, net: CounterCurrentNet, losses: LocalLosses) -> None:
    official = OFFICIAL[name]
    losses.total.backward()
    assert_close([float(loss.detach()) for loss in losses.per_level], official["losses"], rtol=1e-6, atol=1e-9)
    assert losses.total.item() == pytest.approx(sum(official["losses"]), rel=1e-6)
    gradients = [parameter.grad for parameter in weights_of(net)]
    assert len(gradients) == len(official["gradients"])
    for gradient, (norm, product) in zip(gradients, official["gradients"], strict=True):
        assert gradient.norm().item() == pytest.approx(norm, rel=1e-6, abs=1e-12)
        probe = wave(*gradient.shape, frequency=0.7, scale=1.0)
        assert (gradient * probe).sum().item() == pytest.approx(product, rel=1e-6, abs=1e-6 * norm + 1e-12)


def images(*shape: int) -> Tensor:
    return wave(*shape, frequency=0.9, scale=1.0)


def test_the_perceptron_has_the_published_losses_and_gradients() -> None:
    net = filled(CounterCurrentNet.from_sequential(perceptron()))
    labels = torch.arange(16) * 7 % 10
    signals = net.signals(torch.eye(10, dtype=torch.float64))
    check_against("mlp", net, counter_current_loss(net.activations(images(16, 784)), signals, labels))


def test_with_one_row_a_sample_it_is_the_published_loss_between_samples() -> None:
    net = filled(CounterCurrentNet.from_sequential(perceptron()))
    labels = torch.arange(16) * 7 % 10
    signals = net.signals(torch.eye(10, dtype=torch.float64)[labels])
    check_against("mlp_rows", net, counter_current_loss(net.activations(images(16, 784)), signals, labels))


@pytest.mark.parametrize(("name", "build"), [("cnn_pool", pooled), ("cnn_stride", strided)])
def test_convolutional_networks_have_the_published_losses_and_gradients(name, build) -> None:
    net = filled(CounterCurrentNet.from_sequential(build(), (3, 32, 32)))
    labels = torch.tensor(OFFICIAL[name]["labels"])
    activations, signals = net.activations(images(6, 3, 32, 32)), net.signals(torch.eye(10, dtype=torch.float64))
    sure = activations[-1].softmax(1)[range(6), labels] > 0.9
    assert sure.any(), "the mask must do something"
    assert not sure.all()
    check_against(name, net, counter_current_loss(activations, signals, labels, **COSINE))


def test_the_autoencoder_has_the_published_losses_and_gradients() -> None:
    net = filled(CounterCurrentNet.from_sequential(convolutional_autoencoder((2, 4, 6, 8, 10)), (2, 32, 32)))
    x = images(5, 2, 32, 32)
    check_against(
        "autoencoder", net, counter_current_loss(net.activations(x), net.signals(x), kind="reconstruction", scale=1.0)
    )


@pytest.mark.parametrize(
    ("build", "make", "shape"),
    [
        (perceptron, lambda: [CCLinear(784, 256), *(CCLinear(256, 256) for _ in range(4)), CCLinear(256, 10)], (784,)),
        (
            pooled,
            lambda: [
                *(CCConv2d(i, o, 3, down="pool") for i, o in itertools.pairwise(CHANNELS)),
                CCFlatten(12, 1, 1),
                CCLinear(12, 10),
            ],
            (3, 32, 32),
        ),
        (
            strided,
            lambda: [
                *(CCConv2d(i, o, 3) for i, o in itertools.pairwise(CHANNELS)),
                CCFlatten(12, 1, 1),
                CCLinear(12, 10),
            ],
            (3, 32, 32),
        ),
    ],
)
def test_pairs_put_together_by_hand_are_the_mirrored_network(build, make, shape) -> None:
    mirrored, by_hand = (
        filled(CounterCurrentNet.from_sequential(build(), shape)),
        filled(CounterCurrentNet(make())),
    )
    x, codes = images(4, *shape), torch.eye(10, dtype=torch.float64)
    assert_close(by_hand(x), mirrored(x))
    for one, other in zip(by_hand.activations(x), mirrored.activations(x), strict=True):
        assert_close(one, other)
    for one, other in zip(by_hand.signals(codes), mirrored.signals(codes), strict=True):
        assert_close(one, other)
