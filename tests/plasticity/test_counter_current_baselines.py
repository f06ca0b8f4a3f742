"""The rules that counter-current learning competes with: each against a formula, or a rule that it must turn into."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from interplay.plasticity.counter_current import (
    Backpropagation,
    CCLinear,
    CounterCurrent,
    CounterCurrentNet,
    CounterCurrentObjective,
    CreditRule,
    DifferenceTargetPropagation,
    DirectRandomTargetProjection,
    FeedbackAlignment,
    TopLayerOnly,
)

from .digit_like import wave

CLASSES, SIZE = 3, 6
WIDTHS = (5, 4, 6, 7, CLASSES)


def network(seed: int = 0, *, by_hand: bool = False) -> CounterCurrentNet:
    torch.manual_seed(seed)
    if by_hand:
        return CounterCurrentNet(CCLinear(*widths) for widths in itertools.pairwise(WIDTHS)).double()
    layers = [layer for i, o in itertools.pairwise(WIDTHS) for layer in (nn.Linear(i, o, bias=False), nn.ELU())]
    return CounterCurrentNet.from_sequential(nn.Sequential(*layers[:-1])).double()


def convolutional() -> CounterCurrentNet:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ELU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, CLASSES)),
    )
    return CounterCurrentNet.from_sequential(model, (1, 10, 10)).double()


def batch(*shape: int) -> tuple[Tensor, Tensor]:
    return wave(SIZE, *shape, frequency=0.9, scale=1.0), torch.arange(SIZE) * 2 % CLASSES


def weights(net: CounterCurrentNet) -> list[nn.Parameter]:
    return [parameter for parameter in net.forward_parameters() if parameter.ndim > 1]


def gradients(rule: CreditRule, x: Tensor, labels: Tensor) -> list[np.ndarray | None]:
    rule.zero_grad()
    rule(x, labels).backward()
    return [None if p.grad is None else p.grad.numpy().copy() for p in weights(rule.net)]


def elu(z: np.ndarray) -> np.ndarray:
    return np.where(z > 0, z, np.expm1(z))


def slope(z: np.ndarray) -> np.ndarray:
    return np.where(z > 0, 1.0, np.exp(z))


def forward(net: CounterCurrentNet, x: Tensor) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Activities of levels 0 to L and drives of levels 1 to L, in NumPy."""
    activities, drives = [x.numpy()], []
    matrices = [weight.detach().numpy() for weight in weights(net)]
    for level, matrix in enumerate(matrices, 1):
        drives.append(activities[-1] @ matrix.T)
        activities.append(drives[-1] if level == len(matrices) else elu(drives[-1]))
    return activities, drives


def top_error(outputs: np.ndarray, labels: Tensor) -> np.ndarray:
    """Of the mean cross-entropy, with respect to the outputs."""
    odds = np.exp(outputs - outputs.max(1, keepdims=True))
    return (odds / odds.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / len(labels)


@pytest.mark.parametrize("by_hand", [False, True])
def test_backpropagation_is_the_chain_rule(by_hand) -> None:
    net, (x, labels) = network(by_hand=by_hand), batch(5)
    activities, drives = forward(net, x)
    matrices = [weight.detach().numpy() for weight in weights(net)]
    error, expected = top_error(activities[-1], labels), []
    for level in range(len(matrices), 0, -1):
        expected.insert(0, error.T @ activities[level - 1])
        if level > 1:
            error = error @ matrices[level - 1] * slope(drives[level - 2])
    for found, wanted in zip(gradients(Backpropagation(net), x, labels), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("by_hand", [False, True])
def test_feedback_alignment_sends_errors_through_its_own_matrices(by_hand) -> None:
    net, (x, labels) = network(by_hand=by_hand), batch(5)
    rule = FeedbackAlignment(net)
    activities, drives = forward(net, x)
    carriers = [carrier.weight.numpy() for carrier in rule.carriers]
    assert [carrier.shape for carrier in carriers] == [tuple(weight.shape) for weight in weights(net)[1:]]
    error, expected = top_error(activities[-1], labels), []
    for level in range(len(carriers) + 1, 0, -1):
        expected.insert(0, error.T @ activities[level - 1])
        if level > 1:
            error = error @ carriers[level - 2] * slope(drives[level - 2])
    for found, wanted in zip(gradients(rule, x, labels), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)
    assert all(carrier.weight.grad is None for carrier in rule.carriers)
    assert not set(rule.carriers.parameters()) & {parameter for group in rule.groups() for parameter in group}


@pytest.mark.parametrize("make", [network, convolutional])
def test_feedback_alignment_through_the_forward_weights_is_backpropagation(make) -> None:
    net = make()
    x, labels = batch(5) if make is network else batch(1, 10, 10)
    rule = FeedbackAlignment(net)
    plain = gradients(Backpropagation(net), x, labels)
    assert_close(rule(x, labels), Backpropagation(net)(x, labels))
    assert not np.allclose(gradients(rule, x, labels)[0], plain[0])
    with torch.no_grad():
        for carrier, weight in zip(rule.carriers, weights(net)[1:], strict=True):
            carrier.weight.copy_(weight)
    for found, wanted in zip(gradients(rule, x, labels), plain, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_random_projections_of_the_label_move_the_hidden_layers() -> None:
    net, (x, labels) = network(), batch(5)
    rule = DirectRandomTargetProjection(net, x[:1], CLASSES)
    activities, drives = forward(net, x)
    expected = []
    for level in range(1, len(WIDTHS) - 1):
        projection = getattr(rule, f"projection_{level}").numpy()
        error = np.eye(CLASSES)[labels] @ projection * slope(drives[level - 1]) / SIZE
        expected.append(error.T @ activities[level - 1])
    expected.append(top_error(activities[-1], labels).T @ activities[-2])
    for found, wanted in zip(gradients(rule, x, labels), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_target_propagation_is_lee_s_rule() -> None:
    net, (x, labels) = network(), batch(5)
    rule = DifferenceTargetPropagation(net, step=0.7, noise=0.2, generator=torch.Generator().manual_seed(3))
    found = gradients(rule, x, labels)
    inverses = [next(pair.feedback_module.parameters()) for pair in net.pairs]
    found_inverses = [weight.grad for weight in inverses]

    activities, drives = forward(net, x)
    top = weights(net)[-1].detach().numpy()
    error = top_error(activities[-1], labels)
    expected = {4: error.T @ activities[3]}
    target = activities[3] - 0.7 * SIZE * error @ top
    draw = torch.Generator().manual_seed(3)
    for level in (3, 2, 1):
        gap = 2 * (activities[level] - target) * slope(drives[level - 1]) / SIZE
        expected[level] = gap.T @ activities[level - 1]
        if level > 1:
            back = inverses[level - 1].detach().numpy()
            noise = torch.empty(SIZE, WIDTHS[level - 1], dtype=torch.float64).normal_(0, 0.2, generator=draw).numpy()
            noisy = activities[level - 1] + noise
            image = elu(noisy @ weights(net)[level - 1].detach().numpy().T)
            drive = image @ back.T
            gap = 2 * (elu(drive) - noisy) * slope(drive) / SIZE
            np.testing.assert_allclose(found_inverses[level - 1], gap.T @ image, rtol=1e-9, atol=1e-12)
            target = activities[level - 1] - elu(activities[level] @ back.T) + elu(target @ back.T)
    for level in (1, 2, 3, 4):
        np.testing.assert_allclose(found[level - 1], expected[level], rtol=1e-9, atol=1e-12)
    assert found_inverses[0] is None
    assert found_inverses[3] is None
    trained = {parameter for group in rule.groups() for parameter in group}
    assert [weight in trained for weight in inverses] == [False, True, True, False]


def test_target_propagation_with_orthogonal_layers_and_exact_inverses_is_backpropagation() -> None:
    """For f_l = Q_l without activation, g_l = Q_l' carries the top error exactly; eta = 1/2 gives its size."""
    torch.manual_seed(0)
    net = CounterCurrentNet(CCLinear(4, 4, act=None) for _ in range(4)).double()
    with torch.no_grad():
        for pair in net.pairs:
            nn.init.orthogonal_(pair.forward_module.weight)
            pair.feedback_module.weight.copy_(pair.forward_module.weight.T)
    x, labels = batch(4)
    rule = DifferenceTargetPropagation(net, generator=torch.Generator().manual_seed(0))
    for found, wanted in zip(gradients(rule, x, labels), gradients(Backpropagation(net), x, labels), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_the_top_layer_alone() -> None:
    net, (x, labels) = network(), batch(5)
    rule = TopLayerOnly(net)
    *hidden, top = gradients(rule, x, labels)
    assert hidden == [None] * 3
    np.testing.assert_allclose(top, gradients(Backpropagation(net), x, labels)[-1])
    assert [len(group) for group in rule.groups()] == [1]


def test_ablations_of_counter_current_learning() -> None:
    net, (x, labels) = network(), batch(5)
    objective = CounterCurrentObjective(net)
    objective(x, labels).total.backward()
    expected = [parameter.grad.clone() for parameter in net.parameters()]

    def found(**ablation) -> list[Tensor | None]:
        rule = CounterCurrent(copy.deepcopy(net), **ablation)
        rule(x, labels).backward()
        return [parameter.grad for parameter in rule.net.parameters()]

    for one, other in zip(found(), expected, strict=True):
        assert_close(one, other)
    frozen = CounterCurrent(net, feedback=False)
    assert {id(p) for group in frozen.groups() for p in group} == {id(p) for p in net.forward_parameters()}
    assert [len(group) for group in CounterCurrent(net).groups()] == [4, 4]

    without = found(input_level=False)
    template = [name for name, _ in net.named_parameters()].index("pairs.0.feedback_module.weight")
    for position, (one, other) in enumerate(zip(without, expected, strict=True)):
        if position == template:
            assert one is None, "the loss of level 0 trains the templates"
        else:
            assert_close(one, other)


def test_each_sample_against_its_own_code() -> None:
    net, (x, labels) = network(), batch(5)
    with torch.no_grad():
        activities, codes = net.activations(x), net.signals(torch.eye(CLASSES, dtype=torch.float64))
    expected = functional.cross_entropy(activities[-1], labels).item()
    for b, level in itertools.product(range(SIZE), range(len(WIDTHS) - 1)):
        expected += float(((activities[level][b] - codes[level][labels[b]]) ** 2).sum()) / SIZE
    assert CounterCurrent(net, per_sample=True)(x, labels).item() == pytest.approx(expected)
    first = float((activities[0] - codes[0][labels]).square().sum()) / SIZE
    without = CounterCurrent(net, per_sample=True, input_level=False)(x, labels).item()
    assert without == pytest.approx(expected - first)


@pytest.mark.parametrize(
    "make",
    [
        Backpropagation,
        FeedbackAlignment,
        lambda net: DirectRandomTargetProjection(net, torch.zeros(1, 1, 10, 10).double(), CLASSES),
        lambda net: DifferenceTargetPropagation(net, generator=torch.Generator().manual_seed(0)),
        lambda net: CounterCurrent(net, kind="cosine"),
        TopLayerOnly,
    ],
)
def test_every_rule_runs_on_a_convolutional_network_and_lowers_its_cross_entropy(make) -> None:
    net, (x, labels) = convolutional(), batch(1, 10, 10)
    rule = make(net)
    groups = rule.groups()
    optimizer = torch.optim.SGD([parameter for group in groups for parameter in group], lr=0.05)
    before = functional.cross_entropy(net(x), labels).item()
    for _ in range(200):
        optimizer.zero_grad()
        rule(x, labels).backward()
        for group in groups:
            nn.utils.clip_grad_norm_(group, 1.0)
        optimizer.step()
    assert functional.cross_entropy(net(x), labels).item() < before
