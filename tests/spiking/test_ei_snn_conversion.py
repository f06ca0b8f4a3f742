"""Conversion of networks with batch normalisation: what is replaced, what is kept, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from interplay.primitives.neurons import LIF, MultiStep
from interplay.spiking.ei_snn import EIConv2d, EILinear, constrain, convert_bn_to_ei


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kinds(model: nn.Module) -> list[str]:
    return [type(part).__name__ for part in model.modules() if not list(part.children())]


class SeqToANN(nn.Module):
    """As in SpikingJelly: time is folded into the batch around some layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class MultiStepConv2d(nn.Conv2d):
    """As in SpikingJelly: a subclass of PyTorch's layer that takes (time, batch, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class MultiStepBatchNorm2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Residual(nn.Module):
    """Attributes out of the order of their calls, as they often are."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.conv2, self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.norm1(self.conv1(x)).relu()
        return self.head((self.norm2(self.conv2(first)).relu() + first).mean((-2, -1)))


def spiking(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, MultiStep(LIF()), nn.Flatten(2), MultiStep(nn.Linear(8 * 36, 4)))


MODELS = {
    "plain": (
        lambda: nn.Sequential(
            *(nn.Linear(30, 32), nn.BatchNorm1d(32), nn.ReLU()),
            *(nn.Linear(32, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU()),
            nn.Linear(16, 4),
        ),
        (20, 30),
        ["EILinear", "Identity", "ReLU", "EILinear", "Identity", "ReLU", "EILinear"],
    ),
    "residual": (Residual, (20, 3, 6, 6), ["Identity", "Identity", "EIConv2d", "EIConv2d", "EILinear"]),
    "folded": (
        lambda: spiking(SeqToANN(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8))),
        (4, 20, 3, 6, 6),
        ["EIConv2d", "Identity", "LIF", "Flatten", "EILinear"],
    ),
    "multi-step layers": (
        lambda: spiking(MultiStepConv2d(3, 8, 3, padding=1), MultiStepBatchNorm2d(8)),
        (4, 20, 3, 6, 6),
        ["EIConv2d", "Identity", "LIF", "Flatten", "EILinear"],
    ),
    "each folded alone": (
        lambda: spiking(MultiStep(nn.Conv2d(3, 8, 3, padding=1)), MultiStep(nn.BatchNorm2d(8))),
        (4, 20, 3, 6, 6),
        ["EIConv2d", "Identity", "LIF", "Flatten", "EILinear"],
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_pairs_are_found_by_what_flows_and_replaced(case):
    make, shape, expected = MODELS[case]
    model = make()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    batch = torch.rand(*shape, generator=generator())
    converted = convert_bn_to_ei(model, batch, generator=generator(1))
    assert kinds(converted) == expected
    layers = [part for part in converted.modules() if isinstance(part, EILinear | EIConv2d)]
    assert all(layer.is_initialized for layer in layers)
    assert [layer.output_layer for layer in layers] == [False] * (len(layers) - 1) + [True]
    assert converted(batch).shape == model(batch).shape
    for name, value in model.eval().state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, state[name]), "the model given is not changed"


def test_the_given_model_keeps_its_running_statistics():
    model = MODELS["plain"][0]()
    convert_bn_to_ei(model, torch.rand(20, 30))
    assert model[1].num_batches_tracked == 0


def test_a_converted_network_learns():
    model = MODELS["plain"][0]()
    labels = torch.arange(200) % 4
    prototypes = torch.rand(4, 30, generator=generator())
    images = 0.5 * prototypes[labels] + 0.5 * torch.rand(200, 30, generator=generator(2))
    converted = convert_bn_to_ei(model, images, generator=generator(1))
    optimizer = torch.optim.SGD(converted.parameters(), lr=0.003, momentum=0.9)
    constrain(optimizer, converted)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(converted(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_geometry_and_place_are_kept():
    convolution = nn.Conv2d(3, 12, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 1)).double()
    model = nn.Sequential(convolution, nn.BatchNorm2d(12).double())
    converted = convert_bn_to_ei(model, torch.rand(8, 3, 9, 9, dtype=torch.float64), ei_ratio=3, output_layer=False)
    layer = converted[0]
    assert (layer.kernel_size, layer.stride, layer.padding, layer.inhibitory) == ((3, 5), (2, 1), (1, 2), 4)
    assert layer.weight.dtype == torch.float64
    x = torch.rand(2, 3, 9, 9, dtype=torch.float64)
    assert converted(x).shape == model(x).shape


def test_the_head_stays_where_it_is_told_to_or_has_too_few_units():
    model, batch = MODELS["plain"][0](), torch.rand(20, 30)
    kept = convert_bn_to_ei(model, batch, output_layer=False)
    assert type(kept[-1]) is nn.Linear
    assert_close(kept[-1].weight, model[-1].weight)
    assert type(convert_bn_to_ei(model, batch, ei_ratio=8)[-1]) is nn.Linear


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(ValueError, match="nothing to convert"):
        convert_bn_to_ei(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.BatchNorm1d(8)), torch.rand(5, 3))
    grouped = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8))
    with pytest.raises(ValueError, match="0: a convolution with groups"):
        convert_bn_to_ei(grouped, torch.rand(5, 4, 6, 6))
    with pytest.raises(ValueError, match=r"EILinear\(30, 32, inhibitory=8\) '0': its input must not be negative"):
        convert_bn_to_ei(MODELS["plain"][0](), torch.randn(20, 30))
