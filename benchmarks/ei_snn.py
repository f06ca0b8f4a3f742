"""E-I layers against `Linear` or `Conv2d` with batch normalisation: a training step of an MLP, layers, seeds at once.

The products of an E-I layer of n units, a quarter of them again inhibitory, with n inputs take 1 + 1/4 + 2/4 times
those of `Linear`: subtractive and divisive inhibition have the same weights, but not the same right-hand side.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from measure import HEADER, compare
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from interplay.spiking.ei_snn import EIConv2d, EILinear, constrain, ei_mlp

SEEDS = 5


def training_step(network: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    network(images)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)
    if any(isinstance(module, EILinear) for module in network.modules()):
        constrain(optimizer, network)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def forward_and_backward(layer: nn.Module, x: Tensor) -> None:
    layer.zero_grad()
    x.grad = None
    layer(x).square().sum().backward()


def gradients_of(networks: list[nn.Module], images: Tensor, labels: Tensor) -> dict[str, Callable[[], None]]:
    """The gradients of several seeds, as one batch of networks and one after the other."""
    for network in networks:
        network(images)
    parameters, buffers = stack_module_state(networks)
    parameters = {name: value.detach() for name, value in parameters.items()}

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        logits = functional_call(networks[0], (parameters, buffers), (images,))
        return nn.functional.cross_entropy(logits, labels)

    def one_by_one() -> None:
        for network in networks:
            network.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()

    return {
        f"{len(networks)} seeds at once": lambda: vmap(grad(loss))(parameters, buffers),
        f"{len(networks)} seeds one by one": one_by_one,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    timed = partial(compare, repeats=arguments.repeats, warm_up=arguments.warm_up)

    rows = [HEADER]
    images = torch.rand(128, 784) * (torch.rand(128, 784) < 0.25)
    labels = torch.randint(10, (128,))
    for hidden, widths in ((None, "the paper's widths"), ([128] * 7, "128 units a layer")):
        networks = {
            name: training_step(ei_mlp(8, hidden=hidden, circuit=circuit), images, labels)
            for name, circuit in (("E-I", "ei"), ("batch norm", "batch-norm"), ("no norm", "plain"))
        }
        rows += timed(f"a training step, 8 layers, {widths}, batch 128, T = 4", networks).rows()

    spikes = (torch.rand(512, 500) < 0.2).float().requires_grad_()
    normalised = nn.Sequential(nn.Linear(500, 500, bias=False), nn.BatchNorm1d(500))
    layers = {"E-I": EILinear(500, 500), "Linear, BatchNorm1d": normalised}
    works = {name: partial(forward_and_backward, layer, spikes) for name, layer in layers.items()}
    rows += timed("a layer, 500 to 500, 512 rows, forward and backward", works).rows()

    maps = (torch.rand(32, 64, 16, 16) < 0.2).float().requires_grad_()
    normalised = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64))
    layers = {"E-I": EIConv2d(64, 64, 3, padding=1), "Conv2d, BatchNorm2d": normalised}
    works = {name: partial(forward_and_backward, layer, maps) for name, layer in layers.items()}
    rows += timed("a 3 x 3 convolution, 64 to 64, 32 maps of 16 x 16, forward and backward", works).rows()

    for width, batch in ((32, 20), (128, 100)):
        networks = [ei_mlp(4, hidden=[width] * 3) for _ in range(SEEDS)]
        work = f"gradients of {SEEDS} networks, 4 layers of {width}, batch {batch}"
        rows += timed(work, gradients_of(networks, images[:batch], labels[:batch])).rows()
    print("\n".join(rows))


if __name__ == "__main__":
    main()
