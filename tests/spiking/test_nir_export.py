"""Export to NIR: against an interpreter of the graph that integrates NIR's equations by the forward Euler method."""

from __future__ import annotations

import nir
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from interplay.primitives.neurons import LIF, MultiStep
from interplay.spiking.ei_snn import EIConv2d, EILinear, ei_mlp
from interplay.spiking.nir_export import to_nir

DT = 1e-4


def interpret(graph: nir.NIRGraph, sequence: NDArray[np.float64], dt: float = DT) -> NDArray[np.float64]:
    """Run a graph without branches on (time, ...) as NIR's documentation defines its nodes."""
    following = dict(graph.edges)
    name = "input"
    while (name := following[name]) != "output":
        node = graph.nodes[name]
        match node:
            case nir.LIF():
                potential, outputs = np.zeros(node.tau.shape), []
                for current in sequence:
                    potential = potential + dt / node.tau * (node.v_leak - potential + node.r * current)
                    fired = potential > node.v_threshold
                    potential = np.where(fired, node.v_reset, potential)
                    outputs.append(fired.astype(float))
                sequence = np.stack(outputs)
            case nir.Affine():
                sequence = sequence @ node.weight.T + node.bias
            case nir.Linear():
                sequence = sequence @ node.weight.T
            case nir.Conv2d():
                tensors = (torch.from_numpy(array.astype(float)) for array in (sequence, node.weight, node.bias))
                geometry = [np.array(value).tolist() for value in (node.stride, node.padding, node.dilation)]
                sequence = nn.functional.conv2d(*tensors, *geometry, node.groups).numpy()
            case nir.AvgPool2d():
                kernel, stride = node.kernel_size.tolist(), node.stride.tolist()
                sequence = nn.functional.avg_pool2d(torch.from_numpy(sequence), kernel, stride).numpy()
            case nir.Flatten():
                sequence = sequence.reshape(len(sequence), -1)
            case _:
                raise AssertionError(f"unexpected node {node}")
    return sequence


def run(network: nn.Module, sequence: torch.Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        return network(sequence[:, None]).squeeze(1).numpy()


def currents(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded(make: type[nn.Module], *sizes: int, **settings: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*sizes, **settings).double()


def test_a_linear_network_spikes_as_its_graph_says(tmp_path):
    network = nn.Sequential(
        MultiStep(seeded(nn.Linear, 12, 20)),
        MultiStep(LIF(torch.linspace(0.3, 0.95, 20, dtype=torch.float64), 0.8, reset="zero")),
        seeded(nn.Linear, 20, 6, bias=False),
        MultiStep(LIF(0.9, 0.2, reset="zero")),
    )
    sequence = currents(30, 12)
    expected = run(network, sequence)
    assert 0.02 < expected.mean() < 0.9
    graph = to_nir(network, (12,))
    np.testing.assert_array_equal(interpret(graph, sequence.numpy()), expected)
    nir.write(tmp_path / "network.nir", graph)
    np.testing.assert_array_equal(interpret(nir.read(tmp_path / "network.nir"), sequence.numpy()), expected)
    another_step = to_nir(network, (12,), dt=1e-3)
    np.testing.assert_array_equal(interpret(another_step, sequence.numpy(), dt=1e-3), expected)


def test_a_convolutional_network_spikes_as_its_graph_says():
    network = nn.Sequential(
        MultiStep(seeded(nn.Conv2d, 2, 6, 3, stride=2, padding=1)),
        MultiStep(LIF(0.8, 0.3, reset="zero")),
        MultiStep(nn.AvgPool2d(2)),
        nn.Flatten(2),
        MultiStep(seeded(nn.Linear, 24, 5)),
    )
    sequence = currents(8, 2, 8, 8)
    graph = to_nir(network, (2, 8, 8))
    np.testing.assert_allclose(interpret(graph, sequence.numpy()), run(network, sequence), rtol=1e-6, atol=1e-6)


def test_decay_and_time_constant():
    node = to_nir(MultiStep(LIF(0.75, 2.0, reset="zero")), (3,), dt=1e-3).nodes["module"]
    np.testing.assert_allclose(node.tau, np.full(3, 4e-3))
    np.testing.assert_allclose(node.r, np.full(3, 4.0))
    np.testing.assert_array_equal(node.v_threshold, np.full(3, 2.0))
    np.testing.assert_array_equal(node.v_reset, np.zeros(3))


def test_subtraction_is_approximated_only_on_demand_and_then_fires_less():
    neuron = MultiStep(LIF(0.9, reset="subtract"))
    with pytest.raises(ValueError, match=r"cannot subtract the threshold.*approximate_reset=True"):
        to_nir(neuron, (50,))
    sequence = currents(40, 50)
    exported = interpret(to_nir(neuron, (50,), approximate_reset=True), sequence.numpy())
    np.testing.assert_array_equal(exported, run(MultiStep(LIF(0.9, reset="zero")), sequence))
    assert exported.sum() < run(neuron, sequence).sum()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (EILinear(12, 8, output_layer=True), (12,)),
        (EIConv2d(2, 8, 3, stride=2, padding=1, output_layer=True), (2, 7, 6)),
    ],
)
def test_subtractive_inhibition_is_linear(layer, shape):
    layer(currents(20, *shape).float())
    layer = layer.double()
    sequence = currents(5, *shape, seed=1)
    np.testing.assert_allclose(interpret(to_nir(layer, shape), sequence.numpy()), run(layer, sequence), atol=1e-12)


def test_divisive_inhibition_has_no_node():
    network = ei_mlp(4, in_features=30, hidden=(48, 48, 48))
    network(torch.rand(20, 30, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match=r"'layer 1' divides one current by another, for which NIR has no node"):
        to_nir(network, (30,))


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), TypeError, "1: BatchNorm1d has no NIR node"),
        (nn.Softmax(dim=-1), TypeError, "Softmax has no NIR node.*network\\[:-1\\]"),
        (LIF(reset="none"), ValueError, "reset='none' has no node"),
        (LIF(reset="zero", smooth=True), ValueError, "graded spikes"),
        (nn.Conv2d(3, 3, 3, padding_mode="circular"), ValueError, "zeros only"),
        (EILinear(3, 4, output_layer=True), ValueError, "is not initialised; run a batch"),
        (nn.AvgPool2d(2, ceil_mode=True), ValueError, "ceil_mode"),
    ],
)
def test_what_nir_cannot_say_is_refused(network, error, message):
    with pytest.raises(error, match=message):
        to_nir(network, (3,) if not isinstance(network, nn.Conv2d | nn.AvgPool2d) else (3, 6, 6))


def test_the_step_is_a_time():
    with pytest.raises(ValueError, match="dt must be a positive number of seconds, got 0"):
        to_nir(nn.Linear(3, 3), (3,), dt=0)
