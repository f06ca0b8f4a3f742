"""Curvature against dense Hessians, finite differences, PyHessian's recorded numbers, and batches of any size."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.testing import assert_close

from interplay.dynamics.opposing_signals import (
    Curvature,
    Probe,
    gradient_opposition,
    group_curvature,
    lanczos,
    sharpness,
)
from tests.dynamics.opposing_signals_network import (
    closed_form_network,
    closed_form_samples,
    cross_entropy,
    descend,
)

# PyHessian 0.1, `hessian(network, CrossEntropyLoss(), data=(x, y), cuda=False).eigenvalues(maxIter=2000, tol=1e-9)` in
# float64 with default seed 0, on the networks of `opposing_signals_network` after `steps` of descent at 0.2.
PYHESSIAN = json.loads(Path(__file__).with_name("opposing_signals_pyhessian.json").read_text())


def trained(widths=(4, 6, 3), samples=40, steps=100):
    network = closed_form_network(*widths)
    x, y = closed_form_samples(samples, widths[0], widths[-1])
    descend(network, x, y, steps, 0.2)
    return network, x, y


def dense_hessian(network, x, y, weights=None):
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    flat = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    def loss(vector):
        pieces = vector.split([shape.numel() for shape in shapes.values()])
        named = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        losses = cross_entropy(functional_call(network, named, (x,)), y)
        return losses.mean() if weights is None else losses @ weights

    return hessian(loss, flat)


@pytest.mark.parametrize("batch_size", [1000, 7])
def test_products_are_those_of_the_dense_hessian(batch_size):
    network, x, y = trained()
    matrix = dense_hessian(network, x, y)
    curvature = Curvature(network, Probe((x, y), cross_entropy, batch_size=batch_size))
    for column in (0, 11, len(matrix) - 1):
        assert_close(curvature.product(torch.eye(len(matrix)).double()[column]), matrix[column])
    weights = torch.linspace(0, 1, 40).double()
    vector = torch.linspace(-1, 1, len(matrix)).double()
    assert_close(curvature.product(vector, weights), dense_hessian(network, x, y, weights) @ vector)


@pytest.mark.parametrize("batch_size", [1000, 7])
def test_sharpness_is_the_largest_algebraic_eigenvalue(batch_size):
    network, x, y = trained()
    probe = Probe((x, y), cross_entropy, batch_size=batch_size)
    values, vectors = torch.linalg.eigh(dense_hessian(network, x, y))
    found = sharpness(network, probe, tolerance=1e-6)
    assert found.value == pytest.approx(float(values[-1]), rel=1e-6)
    assert abs(float(found.vector @ vectors[:, -1])) == pytest.approx(1, abs=1e-6)
    assert found.residual <= 1e-6 * found.value
    weights = torch.linspace(0, 1 / 20, 40).double()
    weighted = torch.linalg.eigvalsh(dense_hessian(network, x, y, weights))[-1]
    assert sharpness(network, probe, tolerance=1e-6, weights=weights).value == pytest.approx(float(weighted), rel=1e-6)


def test_sharpness_where_the_eigenvalue_of_largest_size_is_negative():
    spectrum = torch.cat([torch.tensor([-26.0, 3.0]), torch.linspace(-1, 2, 58)]).double()
    rotation = torch.linalg.qr(torch.randn(60, 60, generator=torch.Generator().manual_seed(0)).double()).Q
    matrix = rotation @ torch.diag(spectrum) @ rotation.T
    found = lanczos(lambda vector: matrix @ vector, torch.ones(60).double(), tolerance=1e-6)
    assert found.value == pytest.approx(3.0, rel=1e-6)


def test_lanczos_ends_where_the_space_does():
    found = lanczos(lambda vector: 2 * vector, torch.ones(5), iterations=40)
    assert (found.value, found.products) == (pytest.approx(2.0), 1)
    assert lanczos(lambda vector: 0 * vector, torch.ones(3)).value == 0
    assert lanczos(lambda vector: torch.tensor([1.0, 3.0]) * vector, torch.ones(2)).value == pytest.approx(3.0)


@pytest.mark.parametrize("case", list(PYHESSIAN))
def test_sharpness_agrees_with_pyhessian(case):
    recorded = PYHESSIAN[case]
    network, x, y = trained(recorded["widths"], recorded["samples"], recorded["steps"])
    found = sharpness(network, Probe((x, y), cross_entropy))
    assert found.value == pytest.approx(recorded["top_eigenvalue"], rel=0.01)
    tight = sharpness(network, Probe((x, y), cross_entropy), iterations=200, tolerance=1e-6)
    assert tight.value == pytest.approx(recorded["top_eigenvalue"], rel=1e-5)  # where its power iteration had stopped


def test_a_warm_start_needs_fewer_products_and_does_not_stick():
    network, x, y = trained((20, 48, 48, 5), 200, 50)
    probe = Probe((x, y), cross_entropy)
    cold = sharpness(network, probe, tolerance=1e-5)
    warm = sharpness(network, probe, tolerance=1e-5, start=cold.restart)
    assert warm.products < cold.products
    assert warm.value == pytest.approx(cold.value, rel=1e-5)
    spectrum = torch.linspace(0, 1, 2000).double()
    spectrum[:2] = torch.tensor([5.0, 4.0])
    before = lanczos(lambda vector: spectrum * vector, torch.ones(2000).double())
    spectrum[:2] = torch.tensor([4.0, 4.1])
    after = lanczos(lambda vector: spectrum * vector, before.restart)
    assert (before.value, after.value) == (pytest.approx(5.0, rel=1e-4), pytest.approx(4.1, rel=1e-4))


def test_parts_of_groups_add_up_to_the_sharpness():
    network, x, y = trained()
    probe = Probe((x, y), cross_entropy, batch_size=16)
    top = sharpness(network, probe, tolerance=1e-8)
    groups = {"A": [0, 3, 20], "B": [7, 39], "rest": np.setdiff1d(np.arange(40), [0, 3, 20, 7, 39])}
    parts = group_curvature(network, probe, top.vector, groups)
    assert sum(parts.values()) == pytest.approx(top.value)
    weights = torch.zeros(40).double()
    weights[[0, 3, 20]] = 1 / 40
    assert parts["A"] == pytest.approx(float(top.vector @ dense_hessian(network, x, y, weights) @ top.vector))


def test_opposition_of_gradients_by_hand():
    model = nn.Linear(1, 1)
    x = torch.tensor([[1.0], [-2.0], [1.0], [1.0]])
    # d/dw and d/db of (w x + b - y)^2 at w = b = 0 are -2 y x and -2 y.
    y = torch.tensor([[1.0], [-1.0], [-1.0], [-3.0]])
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
    found = gradient_opposition(model, Probe((x, y), nn.MSELoss(reduction="none")), [0], [2, 3])
    assert found.cosine == pytest.approx(-1, abs=1e-6)
    assert found.norm_a == pytest.approx(np.hypot(2, 2))
    assert found.norm_b == pytest.approx(np.hypot(4, 4))
    assert set(found.by_parameter) == {"weight", "bias"}
    crossed = gradient_opposition(model, Probe((x, y), nn.MSELoss(reduction="none")), [0], [1])
    assert crossed.by_parameter == {"weight": pytest.approx(1), "bias": pytest.approx(-1)}
    assert crossed.cosine == pytest.approx((8 - 4) / (np.hypot(2, 2) * np.hypot(4, 2)))


def test_normalisation_in_training_mode_is_named_and_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = closed_form_samples(20, 4, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match=r"1 is BatchNorm in training mode.*model.eval\(\) first"):
        sharpness(model, Probe((x, y), cross_entropy))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sharpness(model.eval(), Probe((x, y), cross_entropy))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_frozen_and_unused_parameters():
    network, x, y = trained()
    network[0].requires_grad_(False)
    inner = sharpness(network, Probe((x, y), cross_entropy), tolerance=1e-8)
    size = sum(parameter.numel() for parameter in network[0].parameters())
    block = dense_hessian(network, x, y)[size:, size:]
    assert inner.value == pytest.approx(float(torch.linalg.eigvalsh(block)[-1]), rel=1e-6)
    network.register_parameter("idle", nn.Parameter(torch.ones(2).double()))
    idle = sharpness(network, Probe((x, y), cross_entropy), tolerance=1e-8)
    assert idle.value == pytest.approx(inner.value, rel=1e-6)


LAYERS = {
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    "batch statistics": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(40, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh(), nn.Linear(6, 40),
        nn.Unflatten(1, (5, 8)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(LAYERS))
def test_products_are_differences_of_gradients(kind):
    torch.manual_seed(0)
    layer = LAYERS[kind]().double().eval()
    x = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0)).double()
    probe = Probe((x, torch.zeros_like(x)), nn.MSELoss(reduction="none"))
    curvature = Curvature(layer, probe)
    vector = torch.randn(curvature._size(), generator=torch.Generator().manual_seed(1)).double()
    product, eps = curvature.product(vector), 1e-5
    moved = []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, piece in zip(layer.parameters(), curvature._split(vector), strict=True):
                parameter += sign * eps * piece
        moved.append(curvature.gradient())
        with torch.no_grad():
            for parameter, piece in zip(layer.parameters(), curvature._split(vector), strict=True):
                parameter -= sign * eps * piece
    assert_close(product, (moved[0] - moved[1]) / (2 * eps), rtol=1e-5, atol=1e-7)


def test_bad_input_is_refused():
    network, x, y = trained()
    probe = Probe((x, y), cross_entropy)
    with pytest.raises(ValueError, match="iterations must be 1 or more; got 0"):
        sharpness(network, probe, iterations=0)
    with pytest.raises(ValueError, match="start must hold a number for each of 51 parameters"):
        sharpness(network, probe, start=torch.ones(3))
    with pytest.raises(ValueError, match=r"weights must be \(40,\)"):
        sharpness(network, probe, weights=torch.ones(3))
    with pytest.raises(ValueError, match="group_a must hold the indices of one sample"):
        gradient_opposition(network, probe, [], [1])
    with pytest.raises(ValueError, match=r"A must lie in \[0, 39\].*got 3 to 40"):
        group_curvature(network, probe, torch.ones(51), {"A": [3, 40]})
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        sharpness(network.requires_grad_(False), probe)


class TestProbe:
    def test_batches_of_any_kind_give_the_same_losses(self):
        network, x, y = trained()
        expected = cross_entropy(network(x), y)
        dataset = torch.utils.data.TensorDataset(x, y)
        loader = torch.utils.data.DataLoader(dataset, 9)
        mappings = [{"input": x[:25], "labels": y[:25]}, {"input": x[25:], "labels": y[25:]}]
        for data in ((x, y), dataset, loader, mappings):
            assert_close(Probe(data, cross_entropy, batch_size=11).losses(network), expected.detach())

    def test_losses_of_pixels_are_averaged_over_a_sample(self):
        model = nn.Conv2d(1, 3, 1)
        x, y = torch.randn(5, 1, 4, 4), torch.zeros(5, 4, 4, dtype=torch.long)
        found = Probe((x, y), cross_entropy).losses(model)
        assert_close(found, cross_entropy(model(x), y).mean((1, 2)).detach())

    @pytest.mark.parametrize("loss", [nn.functional.cross_entropy, lambda o, t: cross_entropy(o, t).mean()])
    def test_a_reduced_loss_is_refused(self, loss):
        network, x, y = trained()
        with pytest.raises(ValueError, match='pass reduction="none"'):
            Probe((x, y), loss).losses(network)

    def test_what_cannot_be_a_fixed_set_is_refused(self):
        _, x, y = trained()
        dataset = torch.utils.data.TensorDataset(x, y)
        with pytest.raises(ValueError, match="shuffle=False"):
            Probe(torch.utils.data.DataLoader(dataset, 9, shuffle=True), cross_entropy)
        with pytest.raises(ValueError, match="make a list of it"):
            Probe(iter([(x, y)]), cross_entropy)
        with pytest.raises(ValueError, match='pass reduction="none"'):
            Probe((x, y), nn.CrossEntropyLoss())
        with pytest.raises(ValueError, match="as many inputs as targets"):
            Probe((x, y[:3]), cross_entropy)
        with pytest.raises(ValueError, match="the probe set is empty"):
            Probe([], cross_entropy).losses(nn.Linear(4, 3).double())
        with pytest.raises(ValueError, match="must hold labels"):
            Probe([{"input": x}], cross_entropy).losses(nn.Linear(4, 3).double())
        with pytest.raises(ValueError, match="batch_size must be 1 or more"):
            Probe((x, y), cross_entropy, batch_size=0)
