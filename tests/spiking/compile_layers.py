"""E-I layers under torch.compile, without a graph break: run as a script, since pytest checks the shapes in signatures
at run time here, and PyTorch cannot trace the checks.
"""

import torch
from torch import nn
from torch.testing import assert_close

from interplay.spiking.ei_snn import EIConv2d, EILinear, ei_mlp


def gradients(call: nn.Module, layer: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    layer.zero_grad()
    call(x).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}


def check(layer: nn.Module, x: torch.Tensor, backend: str) -> None:
    layer(x)
    expected, wanted = layer(x), gradients(layer, layer, x)
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    assert_close(compiled(x), expected)
    found = gradients(compiled, layer, x)
    for name, gradient in wanted.items():
        assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def main() -> None:
    torch.manual_seed(0)
    x = (torch.rand(8, 20) < 0.2).float()
    images = (torch.rand(6, 3, 5, 4) < 0.2).float()
    for backend in ("eager", "aot_eager"):
        check(EILinear(20, 12), x, backend)
        check(EIConv2d(3, 8, 3, padding=1), images, backend)
        check(ei_mlp(4, in_features=30, hidden=(48, 48, 48)), torch.rand(20, 30), backend)
    layer = EILinear(20, 12)
    layer(x)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        layer.weight.sub_(layer.weight.mean())
    compiled(x)
    assert layer.weight.min() == 0, "the compiled layer sets negative weights to zero"


if __name__ == "__main__":
    main()
