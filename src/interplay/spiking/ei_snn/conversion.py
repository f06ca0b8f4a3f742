"""From a network with batch normalisation to one with E-I layers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from interplay.spiking.ei_snn.circuit import EIProp
from interplay.spiking.ei_snn.layer import EILayer
from interplay.spiking.ei_snn.layers import EIConv2d, EILinear

__all__ = ["convert_bn_to_ei"]

_WEIGHTED = (nn.Linear, nn.Conv2d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def convert_bn_to_ei(
    model: nn.Module,
    example_batch: Tensor,
    *,
    ei_ratio: int = 4,
    ei_prop: EIProp | bool = True,
    output_layer: bool = True,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Put an E-I layer in the place of every `Linear` or `Conv2d` whose output goes straight into batch normalisation.

    Which those are is seen on a run of `example_batch`, so it does not matter where in the model they sit, nor whose
    multi-step wrappers are around them (SpikingJelly's layers count: they are subclasses of PyTorch's). The weights are
    drawn anew and initialised by the batch: a signed layer has no counterpart of one sign, so the result must be
    trained. Batch normalisation becomes `Identity`.

    Parameters
    ----------
    model
        Any PyTorch model; it is not changed. Neurons that remember, as SpikingJelly's, are at rest in the copy only if
        they are at rest here.
    example_batch
        Input of the model, two samples or more, not negative (pixels in [0, 1], spikes).
    ei_ratio, ei_prop, generator
        As in `EILinear`.
    output_layer
        Whether the last `Linear`, if no batch normalisation follows it, becomes an E-I output layer too. Where it has
        fewer units than `ei_ratio` it stays as it is.

    Returns
    -------
    Module
        A converted copy, initialised, in training mode if `model` is. `constrain` its optimiser.

    Raises
    ------
    ValueError
        No such pair is found, a convolution has groups or padding other than zeros, or a layer would see negative
        inputs.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    >>> converted = convert_bn_to_ei(net, torch.rand(32, 20))
    >>> [type(part).__name__ for part in converted]
    ['EILinear', 'Identity', 'ReLU', 'EILinear']
    """
    pairs, calls = _trace(model, example_batch)
    if not pairs:
        raise ValueError("no Linear or Conv2d whose output goes straight into batch normalisation: nothing to convert")
    names = {module: name for name, module in model.named_modules()}
    converted = copy.deepcopy(model)
    layers: dict[str, EILayer] = {}
    for module, norm in pairs.items():
        layers[names[module]] = _counterpart(module, names[module], ei_ratio, ei_prop, generator, output_layer=False)
        _replace(converted, names[norm], nn.Identity())
    last = calls[-1]
    if output_layer and isinstance(last, nn.Linear) and last not in pairs and last.out_features >= ei_ratio:
        layers[names[last]] = _counterpart(last, names[last], ei_ratio, ei_prop, generator, output_layer=True)
    for name, layer in layers.items():
        converted = _replace(converted, name, layer)
    # The run that initialises happens in a copy, so that neurons with a memory stay at rest in the result.
    probe = copy.deepcopy(converted)
    with torch.no_grad():
        probe(example_batch)
    for name, layer in layers.items():
        layer.load_state_dict(probe.get_submodule(name).state_dict())
    return converted


def _trace(model: nn.Module, example_batch: Tensor) -> tuple[dict[nn.Module, nn.Module], list[nn.Module]]:
    """Weighted layers with the batch normalisation that they feed, and weighted layers in the order of their calls."""
    probe = copy.deepcopy(model)
    original = dict(zip(probe.modules(), model.modules(), strict=True))
    produced: list[tuple[Tensor, nn.Module]] = []
    pairs: dict[nn.Module, nn.Module] = {}

    def weighted(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        produced.append((output, original[module]))

    def normalised(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        for output, source in reversed(produced):
            # SeqToANN containers fold time in and out, which makes another tensor on the same memory.
            if output is inputs[0] or (
                output.data_ptr() == inputs[0].data_ptr() and output.numel() == inputs[0].numel()
            ):
                pairs[source] = original[module]
                return

    for module in probe.modules():
        if isinstance(module, _WEIGHTED):
            module.register_forward_hook(weighted)
        elif isinstance(module, _BATCH_NORMS):
            module.register_forward_pre_hook(normalised)
    with torch.no_grad():
        probe(example_batch)
    return pairs, [module for _, module in produced]


def _counterpart(
    module: nn.Module,
    name: str,
    ei_ratio: int,
    ei_prop: EIProp | bool,
    generator: torch.Generator | None,
    *,
    output_layer: bool,
) -> EILayer:
    assert isinstance(module, _WEIGHTED)
    settings = {
        "ei_ratio": ei_ratio,
        "ei_prop": ei_prop,
        "generator": generator,
        "output_layer": output_layer,
        "name": name,
        "device": module.weight.device,
        "dtype": module.weight.dtype,
    }
    if isinstance(module, nn.Linear):
        return EILinear(module.in_features, module.out_features, **settings)
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        raise ValueError(
            f"{name}: a convolution with groups, or padding other than a number of zeros, has no E-I counterpart; "
            f"got {module}"
        )
    return EIConv2d(
        module.in_channels,
        module.out_channels,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        **settings,
    )


def _replace(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Set the submodule of that name; the model itself if the name is empty."""
    if not name:
        return module
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
    return model
