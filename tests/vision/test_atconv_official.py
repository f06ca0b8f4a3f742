"""Agreement with the authors' code, to 1e-6 in double precision.

`atconv_official.json` holds what https://github.com/price112/Attentive-Convolution at commit f4f5a39 (models/AttNet.py
and generation/SiT/models.py) computes with timm 1.0.31 in float64, where every input and parameter is a wave: the n-th
number of a tensor is sin(0.37 n^1.1 + k), scaled as in `wave_weights`, with k the place of the parameter among the
sorted names of the state dict, or 100 for inputs. "parameters" are the sizes of the seven published models as that code
makes them with 1,000 classes.
"""

import json
from pathlib import Path

import pytest
import torch

from interplay.vision.atconv import (
    SIZES,
    ATConv2d,
    ATConvTokens,
    AttNet,
    attnet,
    count_parameters,
    renamed_from_official,
)

OFFICIAL = json.loads(Path(__file__).with_name("atconv_official.json").read_text())
SMALL = {"depths": (1, 2, 1, 1), "dims": (8, 12, 16, 20), "expansions": (3, 3, 2, 2), "num_classes": 7}
MODULES = {
    "ATConv": lambda: ATConv2d(6),
    "ATConv, kernel 5, one pixel high": lambda: ATConv2d(4, 5),
    "ATConv, no bias": lambda: ATConv2d(4, bias=False),
    "ATConv of SiT": lambda: ATConvTokens(6),
    "AttNet": lambda: AttNet(**SMALL),
    "AttNet, no LayerScale, no GLU norm": lambda: AttNet(**SMALL, layer_scale=False, norm=False),
}


def wave(shape, phase: int) -> torch.Tensor:
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(0.37 * numbers**1.1 + phase).view(shape)


def wave_weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    weights = {}
    for phase, name in enumerate(sorted(shapes)):
        values = wave(shapes[name], phase)
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(0)
        elif name.endswith("running_var"):
            weights[name] = 1 + 0.5 * values
        elif values.dim() == 1 and not name.endswith("bias"):
            weights[name] = values if "difference" in name else 1 + 0.3 * values
        else:
            weights[name] = values * 0.5 / (values[0].numel() if values.dim() > 1 else 1) ** 0.5
    return weights


def with_official_weights(name: str) -> torch.nn.Module:
    module = MODULES[name]().double().eval()
    weights = wave_weights(OFFICIAL[name]["parameters"])
    if isinstance(module, AttNet):
        module.load_official_state_dict(weights)
    else:
        module.load_state_dict(renamed_from_official(weights))
    return module


@pytest.mark.parametrize("name", list(MODULES))
def test_outputs_agree(name):
    recorded = OFFICIAL[name]
    with torch.no_grad():
        output = with_official_weights(name)(wave(recorded["input"], 100))
    assert list(output.shape) == recorded["shape"]
    expected = torch.tensor(recorded["output"], dtype=torch.float64)
    assert torch.allclose(output.flatten()[:: recorded["stride"]], expected, rtol=0, atol=1e-6)


def test_gradients_agree():
    module = with_official_weights("ATConv")
    x = wave(OFFICIAL["ATConv"]["input"], 100).requires_grad_()
    output = module(x)
    (output * wave(output.shape, 7)).sum().backward()
    recorded = {
        name: torch.tensor(values, dtype=torch.float64) for name, values in OFFICIAL["gradients of ATConv"].items()
    }
    ours = {"input": x.grad, **{name: parameter.grad for name, parameter in module.named_parameters()}}
    expected = renamed_from_official(recorded)
    assert set(ours) == set(expected)
    for name, gradient in ours.items():
        assert torch.allclose(gradient.flatten(), expected[name], rtol=0, atol=1e-6), name


def test_all_sizes_have_the_parameters_of_the_official_models():
    with torch.device("meta"):
        ours = {size: count_parameters(attnet(size)) for size in SIZES}
    assert ours == OFFICIAL["parameters"]
