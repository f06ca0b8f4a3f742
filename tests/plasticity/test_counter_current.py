"""Counter-current learning: its losses written out, its locality, the networks it mirrors, and what it learns."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional
from torch.testing import assert_close

from interplay.assets import digits
from interplay.plasticity.counter_current import (
    CCLinear,
    CounterCurrentClassifier,
    CounterCurrentNet,
    CounterCurrentObjective,
    CounterCurrentPair,
    CounterCurrentTrainer,
    alignment,
    centralize_gradients,
    convolutional_autoencoder,
    counter_current_loss,
    initialize_autoencoder,
    update_cosine_to_backpropagation,
)
from interplay.plasticity.counter_current import losses as losses_module
from interplay.testing import check_mechanism

from .digit_like import wave

CLASSES = 4
EYE = torch.eye(CLASSES, dtype=torch.float64)


def perceptron(*widths: int, activation: type[nn.Module] = nn.ELU) -> nn.Sequential:
    pairs = list(itertools.pairwise(widths))
    hidden = [layer for i, o in pairs[:-1] for layer in (nn.Linear(i, o, bias=False), activation())]
    return nn.Sequential(*hidden, nn.Linear(*pairs[-1], bias=False))


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ELU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 4, 3, 2, 1), nn.ELU(), nn.Flatten(), nn.Linear(16, CLASSES)),
    )


def autoencoder() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ELU(), nn.Conv2d(3, 4, 3, 2, 1), nn.ELU()),
        *(nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, 1, 1), nn.BatchNorm2d(3), nn.ELU()),
        *(nn.Upsample(scale_factor=2), nn.Conv2d(3, 1, 3, 1, 1)),
    )


def network(build=lambda: perceptron(6, 5, 7, CLASSES), shape=None, seed: int = 0) -> CounterCurrentNet:
    torch.manual_seed(seed)
    return CounterCurrentNet.from_sequential(build(), shape).double()


def batch(*shape: int, size: int = 9) -> tuple[Tensor, Tensor]:
    return wave(size, *shape, frequency=0.9, scale=1.0), torch.arange(size) * 3 % CLASSES


CASES = {
    "perceptron": (network, (6,), "inner"),
    "convolutional": (lambda: network(convolutional, (1, 8, 8)), (1, 8, 8), "cosine"),
    "autoencoder": (lambda: network(autoencoder, (1, 8, 8)), (1, 8, 8), "reconstruction"),
}
each_case = pytest.mark.parametrize("case", CASES)


def objective_of(case: str) -> tuple[CounterCurrentObjective, Tensor, Tensor]:
    make, shape, kind = CASES[case]
    x, labels = batch(*shape)
    settings = {"decorrelation": 0.5} if kind == "cosine" else {}
    return CounterCurrentObjective(make(), kind, **settings), x, x if kind == "reconstruction" else labels


# --- as modules -----------------------------------------------------------------------------------------------------


@each_case
def test_it_is_a_well_behaved_module(case) -> None:
    objective, x, targets = objective_of(case)
    objective, x = objective.float().eval(), x.float()
    targets = targets.float() if targets.is_floating_point() else targets
    bad = {"integer input": (torch.ones(2, *x.shape[1:], dtype=torch.int64),), "width": (torch.ones(2, 5),)}
    forward_alone = copy.deepcopy(objective.net)
    for parameter in forward_alone.feedback_parameters():
        parameter.requires_grad_(False)
    check_mechanism(forward_alone, x, bad_inputs=bad)
    check_mechanism(objective, x, targets)  # the local losses reach every parameter of both networks


@each_case
def test_inference_is_the_forward_network_itself(case) -> None:
    _, shape, _ = CASES[case]
    build = {"perceptron": lambda: perceptron(6, 5, 7, CLASSES), "convolutional": convolutional}.get(case, autoencoder)
    model = build().double()
    net = CounterCurrentNet.from_sequential(model, None if case == "perceptron" else shape).eval()
    x, _ = batch(*shape)
    assert torch.equal(net(x), model.eval()(x))
    assert torch.equal(net.activations(x)[-1], net(x))
    assert {id(p) for p in net.forward_parameters()} == {id(p) for p in model.parameters()}, "the model itself learns"


@each_case
def test_no_gradient_crosses_a_layer(case) -> None:
    """loss_l moves F_l and G_{l+1}, the top loss F_L; nothing else, and each of them."""
    objective, x, targets = objective_of(case)
    net = objective.net
    top = len(net.pairs)
    sides = {f"F{level}": list(pair.forward_module.parameters()) for level, pair in enumerate(net.pairs, 1)}
    sides |= {f"G{level}": list(pair.feedback_module.parameters()) for level, pair in enumerate(net.pairs, 1)}
    for level in range(top + 1):
        moved = {f"F{level}", f"G{level + 1}"} & set(sides)
        loss = objective(x, targets).per_level[level]
        for name, parameters in sides.items():
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            if name in moved:
                assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
                assert any(gradient.abs().sum() > 0 for gradient in gradients), (
                    f"{name} gets nothing from level {level}"
                )
            else:
                assert all(gradient is None for gradient in gradients), f"level {level} reaches {name}"
    levels = net.activations(x.clone().requires_grad_())
    assert all(torch.autograd.grad(level.sum(), levels[0], allow_unused=True)[0] is None for level in levels[1:])


@each_case
def test_gradients_are_finite_differences_of_each_level_s_own_loss(case) -> None:
    objective, x, targets = objective_of(case)
    objective.eval()
    net = objective.net
    objective(x, targets).total.backward()
    draw = np.random.default_rng(0)
    for level, pair in enumerate(net.pairs, 1):
        for side, own in ((pair.forward_module, level), (pair.feedback_module, level - 1)):
            for parameter in side.parameters():
                place = tuple(int(draw.integers(size)) for size in parameter.shape)
                values = []
                for shift in (1e-5, -1e-5):
                    with torch.no_grad():
                        parameter[place] += shift
                        values.append(objective(x, targets).per_level[own].item())
                        parameter[place] -= shift
                slope = (values[0] - values[1]) / 2e-5
                assert parameter.grad[place].item() == pytest.approx(slope, rel=1e-4, abs=1e-7)


# --- the losses -----------------------------------------------------------------------------------------------------


def levels_of(*widths: int, rows: int, frequency: float) -> list[Tensor]:
    return [wave(rows, width, frequency=frequency + i / 5, scale=0.8) for i, width in enumerate(widths)]


def test_inner_products_written_out() -> None:
    activities, labels = levels_of(6, 5, CLASSES, rows=9, frequency=0.4), batch(6)[1]
    codes = [*levels_of(6, 5, rows=CLASSES, frequency=1.1), EYE]
    total, per_level = counter_current_loss(activities, codes, labels, scale=0.3, width_norm=64)
    for level, width in enumerate((6, 5)):
        expected = 0.0
        for b, c in itertools.product(range(9), range(CLASSES)):
            product = sum(float(activities[level][b, i] * codes[level][c, i]) for i in range(width))
            expected += (product - float(labels[b] == c)) ** 2 / (9 * CLASSES)
        assert per_level[level].item() == pytest.approx(0.3 * 64 / width * expected)
    top = -sum(float(activities[2][b].log_softmax(0)[labels[b]]) for b in range(9)) / 9
    assert per_level[2].item() == pytest.approx(top)
    assert total.item() == pytest.approx(sum(float(loss) for loss in per_level))


def test_cosines_written_out() -> None:
    activities, labels = levels_of(6, CLASSES, rows=3, frequency=0.4), torch.tensor([2, 0, 2])
    codes = [*levels_of(6, rows=CLASSES, frequency=1.1), EYE]
    _, (loss, _) = counter_current_loss(activities, codes, labels, kind="cosine", decorrelation=0.25)
    cosine = lambda p, q: float(p @ q / p.norm() / q.norm())  # noqa: E731
    (a, _), (c, _) = activities, codes
    match = np.mean([(cosine(a[b], c[k]) - (labels[b] == k).item()) ** 2 for b in range(3) for k in range(CLASSES)])
    apart = [
        np.mean([(cosine(rows[i], rows[j]) - (i == j)) ** 2 for i in range(len(rows)) for j in range(len(rows))])
        for rows in (a, c)
    ]
    assert loss.item() == pytest.approx(match + 0.25 * sum(apart), abs=1e-6)


def test_reconstruction_written_out() -> None:
    shapes = [(4, 2, 6, 5), (4, 3, 3, 2), (4, 2, 6, 5)]
    activities = [wave(*shape, frequency=0.4, scale=0.8) for shape in shapes]
    signals = [wave(*shape, frequency=0.9, scale=0.8) for shape in shapes]
    _, per_level = counter_current_loss(activities, signals, kind="reconstruction")
    assert per_level[0].item() == pytest.approx(6 * float(((activities[0] - signals[0]) ** 2).mean()))
    maps = []
    for level in (activities[1], signals[1]):
        unit = torch.empty_like(level)
        for b, channel in itertools.product(range(4), range(3)):
            centred = level[b, channel] - level[b, channel].mean()
            unit[b, channel] = centred / centred.norm()
        maps.append(unit)
    expected = ((activities[1] - signals[1]) ** 2).mean() + ((maps[0] - maps[1]) ** 2).mean()
    assert per_level[1].item() == pytest.approx(3 * float(expected))

    vectors = [levels_of(6, 5, 6, rows=4, frequency=f) for f in (0.4, 0.9)]
    _, per_level = counter_current_loss(*vectors, kind="reconstruction")
    unit = [functional.normalize(level[1] - level[1].mean(1, keepdim=True)) for level in vectors]
    expected = ((vectors[0][1] - vectors[1][1]) ** 2).mean() + ((unit[0] - unit[1]) ** 2).mean()
    assert per_level[1].item() == pytest.approx(float(expected))


def test_probabilities_do_as_well_as_classes() -> None:
    net, (x, labels) = network(), batch(6)
    hard = CounterCurrentObjective(net)(x, labels)
    soft = CounterCurrentObjective(net)(x, EYE[labels])
    assert_close(hard.total, soft.total)
    half = (EYE[labels] + EYE[(labels + 1) % CLASSES]) / 2
    levels = net.activations(x), net.signals(EYE)
    membership = levels[0][1] @ levels[1][1].T - half
    assert_close(CounterCurrentObjective(net)(x, half).per_level[1], 0.5 * 256 / 5 * membership.square().mean())


def test_confident_samples_take_part_at_the_top_alone() -> None:
    activities, labels = levels_of(6, 5, CLASSES, rows=9, frequency=0.4), batch(6)[1]
    activities[-1] = activities[-1] + 9 * EYE[labels] * (torch.arange(9) % 3 == 0)[:, None]
    codes = [*levels_of(6, 5, rows=CLASSES, frequency=1.1), EYE]
    masked = counter_current_loss(activities, codes, labels, mask_confident=0.1).per_level
    silent = [level * (torch.arange(9) % 3 != 0)[:, None] for level in activities[:2]]
    expected = counter_current_loss([*silent, activities[-1]], codes, labels).per_level
    assert_close(masked, expected)
    assert not torch.allclose(masked[0], counter_current_loss(activities, codes, labels).per_level[0])


def test_bad_levels_and_labels_are_refused(monkeypatch) -> None:
    net, (x, labels) = network(), batch(6)
    activities, codes = net.activations(x), net.signals(EYE)
    refused = lambda match: pytest.raises((ValueError, TypeError), match=match)  # noqa: E731
    with refused("labels must lie in 0 to 3, got 0 to 4"):
        counter_current_loss(activities, codes, labels + (labels == 3).long())
    with refused("got -100 to"):
        counter_current_loss(activities, codes, labels.where(labels > 0, -100))
    with refused("one class a sample"):
        counter_current_loss(activities, codes, labels[:3])
    with refused("integer classes or probabilities, got torch.bool"):
        counter_current_loss(activities, codes, labels > 1)
    with refused("regression take kind='reconstruction'"):
        counter_current_loss(activities, codes, wave(9, CLASSES, frequency=1.0, scale=3.0))
    with refused("regression take kind='reconstruction'"):
        counter_current_loss(activities, codes, wave(9, 1, frequency=1.0, scale=3.0))
    with refused("labels are needed"):
        counter_current_loss(activities, codes)
    with refused(r"level 1 .* does not mirror .* \(9, 5\), signals \(4, 8\)"):
        counter_current_loss(activities, [codes[0], torch.zeros(4, 8), *codes[2:]], labels)
    with refused(r"level 0 .* \(9, 6\), signals \(4, 6\)"):
        counter_current_loss(activities, codes, kind="reconstruction")
    with refused("same levels, 0 to L; got 4 and 3"):
        counter_current_loss(activities, codes[1:], labels)
    for bad in ({"kind": "outer"}, {"scale": -1.0}, {"decorrelation": 0.5}):
        with refused(f"{next(iter(bad))}"):
            CounterCurrentObjective(net, **bad)
    with refused("no setting is called 'loudness'"):
        CounterCurrentObjective(net, loudness=1.0)
    with refused("x must be floating point, got torch.int64"):
        net(torch.ones(2, 6, dtype=torch.int64))
    with refused("use the rows of torch.eye"):
        net.signals(torch.arange(4))
    monkeypatch.setattr(losses_module, "MANY_CLASSES", 3)
    with pytest.warns(UserWarning, match="runs on 4 rows"):
        counter_current_loss(activities, codes, labels)


# --- many networks at once ------------------------------------------------------------------------------------------


@each_case
def test_seeds_at_once_are_seeds_one_by_one(case) -> None:
    objectives = []
    for seed in range(3):
        objective, x, targets = objective_of(case)
        torch.manual_seed(seed)
        for module in objective.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        objectives.append(objective.double().eval())
    parameters, buffers = stack_module_state(objectives)
    skeleton = copy.deepcopy(objectives[0]).to("meta")

    def total(weights, state, x, targets):
        return functional_call(skeleton, (weights, state), (x, targets)).total

    together = vmap(torch.func.grad_and_value(total), in_dims=(0, 0, None, None))(parameters, buffers, x, targets)
    if case == "perceptron":  # every network its own batch
        repeated = [tensor.expand(3, *tensor.shape) for tensor in (x, targets)]
        again = vmap(torch.func.grad_and_value(total))(parameters, buffers, *repeated)
        assert_close(again, together)
    gradients, values = together
    for position, objective in enumerate(objectives):
        loss = objective(x, targets).total
        loss.backward()
        assert_close(values[position], loss.detach())
        for name, parameter in objective.named_parameters():
            assert_close(gradients[name][position], parameter.grad, atol=1e-9, rtol=1e-7)


@each_case
def test_it_compiles_into_one_graph(case) -> None:
    objective, x, targets = objective_of(case)
    compiled = torch.compile(objective, backend="eager", fullgraph=True)
    expected = objective(x, targets).total
    found = compiled(x, targets).total
    assert_close(found, expected)
    found.backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())


# --- mirrors --------------------------------------------------------------------------------------------------------

SHAPES = {1: (2, 17), 2: (2, 13, 11), 3: (2, 7, 6, 9)}
KINDS = {
    1: (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d),
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AdaptiveAvgPool3d),
}


@st.composite
def stacks(draw) -> tuple[nn.Sequential, tuple[int, ...]]:
    """Any stack of layers that `from_sequential` promises to mirror."""
    space = draw(st.integers(1, 3))
    plain, transposed, norm, pool, adaptive = KINDS[space]
    modules: list[nn.Module] = []
    channels = 2
    for _ in range(draw(st.integers(1, 3))):
        outputs = 2 * draw(st.integers(1, 2))
        geometry = {"stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, 1))}
        if draw(st.integers(0, 3)) == 0:
            modules.append(transposed(channels, outputs, 3, **geometry))
        else:
            if draw(st.integers(0, 3)) == 0:
                modules.append(nn.Upsample(scale_factor=2))
            kernel = draw(st.integers(1, 3))
            geometry["padding"] = 1
            modules.append(
                plain(
                    channels,
                    outputs,
                    kernel,
                    groups=draw(st.sampled_from([1, 2])),
                    bias=draw(st.booleans()),
                    **geometry,
                )
            )
        tail = [norm(outputs), nn.ReLU(), pool(2, 1), nn.Dropout(0.1), nn.GELU(), nn.GroupNorm(2, outputs)]
        modules += [module for module in tail if draw(st.booleans())]
        channels = outputs
    if draw(st.booleans()):
        modules.append(adaptive(2))
        modules += [nn.Flatten(), nn.Linear(channels * 2**space, 6), nn.Tanh(), nn.LayerNorm(6), nn.Linear(6, CLASSES)]
    nested = draw(st.integers(0, len(modules)))
    return nn.Sequential(nn.Sequential(*modules[:nested]), *modules[nested:]), SHAPES[space]


@settings(max_examples=40, deadline=None)
@given(stack=stacks())
def test_any_stack_is_mirrored_level_by_level(stack) -> None:
    model, shape = stack
    net = CounterCurrentNet.from_sequential(model, shape).double()
    x = wave(3, *shape, frequency=0.9, scale=1.0)
    activities = net.activations(x)
    targets = wave(*activities[-1].shape, frequency=0.7, scale=1.0)
    signals = net.signals(targets)
    assert [level.shape for level in signals] == [level.shape for level in activities]
    counter_current_loss(activities, signals, kind="reconstruction").total.backward()
    weights = [*net.forward_parameters(), *net.feedback_parameters()]
    assert all(weight.grad is not None for weight in weights)
    learns = [p for p in weights if p.ndim > 1]
    kinds = (nn.Linear, *(kind for space in KINDS.values() for kind in space[:2]))
    assert len(learns) == 2 * sum(isinstance(module, kinds) for module in model.modules())


def test_a_level_s_signal_ends_in_the_level_s_own_normalisation_and_activation() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4))
    net = CounterCurrentNet.from_sequential(model)
    c0, c1, c2, _ = net.signals(torch.eye(4) * 10)
    assert (c2 >= 0).all()
    assert c1.abs().max() <= 1
    assert c0.min() < 0
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == 2
    assert norms[0].weight is not norms[1].weight
    both = {id(p) for p in [*net.forward_parameters(), *net.feedback_parameters()]}
    assert both == {id(p) for p in net.parameters()}, "parameters of normalisations are trained too"


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.PReLU(), nn.Linear(3, 2)), None, "layer '1' .PReLU.* has a state"),
        (nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.LSTM(3, 2))), None, "layer '1.0' .LSTM.* has a state"),
        (nn.Sequential(nn.TransformerEncoderLayer(4, 1)), (3, 4), "layer '0' .* has layers inside"),
        (nn.Sequential(nn.Linear(4, 3), nn.ELU(), nn.Linear(5, 2)), None, r"layer '2' .* not fit samples of shape .3,"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 2)), (3, 9, 9), r"layer '0' .* not fit samples of shape .3, 9"),
        (nn.Sequential(nn.Conv2d(1, 2, 3)), None, "input_shape is needed, since the model begins with Conv2d"),
        (nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.Linear(3, 2)), None, r"layer '1' .* turns \(6,\) into \(3,\)"),
        (nn.Sequential(nn.Flatten()), (2, 2), "nothing to learn"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.LayerNorm([2, 6, 6]), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3)),
            (1, 8, 8),
            r"feedback of layer '3' does not fit samples of shape \(2, 1, 1\)",
        ),
    ],
)
def test_what_cannot_be_mirrored_is_named(model, shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        CounterCurrentNet.from_sequential(model, shape)


def test_pairs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"leads from 4 to 3, and .* from 3 to 5"):
        CounterCurrentPair(nn.Linear(4, 3), nn.Linear(3, 5))
    with pytest.raises(ValueError, match="no state of its own"):
        CounterCurrentPair(nn.Linear(4, 3), nn.Linear(3, 4), nn.PReLU())
    with pytest.raises(TypeError, match="pair 1 is Linear"):
        CounterCurrentNet([CCLinear(3, 2), nn.Linear(2, 3)])
    with pytest.raises(ValueError, match="at least one"):
        CounterCurrentNet([])
    with pytest.raises(TypeError, match=r"torch.nn.Sequential, got Linear"):
        CounterCurrentNet.from_sequential(nn.Linear(3, 2))


# --- training -------------------------------------------------------------------------------------------------------


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_a_step_is_clipped_gradient_descent_for_each_network_by_itself() -> None:
    net, (x, labels) = network(), batch(6)
    trainer = CounterCurrentTrainer(copy.deepcopy(net), 0.5, 0.25, clip=0.1)
    returned = trainer.step(x, labels)
    losses = CounterCurrentObjective(net)(x, labels)
    losses.total.backward()
    assert_close(returned.total, losses.total.detach())
    for parameters, updated, rate in (
        (net.forward_parameters(), trainer.objective.net.forward_parameters(), 0.5),
        (net.feedback_parameters(), trainer.objective.net.feedback_parameters(), 0.25),
    ):
        parameters = list(parameters)
        norm = torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()
        assert norm > 0.1, "the limit must be felt"
        for before, after in zip(parameters, updated, strict=True):
            assert_close(after.detach(), before.detach() - rate * before.grad * 0.1 / norm, atol=1e-7, rtol=1e-5)


def test_warm_up_centring_and_no_limit() -> None:
    net, (x, labels) = network(), batch(6)
    CounterCurrentObjective(net)(x, labels).total.backward()
    trainer = CounterCurrentTrainer(copy.deepcopy(net), 1.0, clip=None, warm_up=4, centralize=True)
    trainer.step(x, labels)
    for before, after in zip(net.parameters(), trainer.objective.net.parameters(), strict=True):
        centred = before.grad - before.grad.mean(1, keepdim=True)
        assert_close(after.detach(), before.detach() - centred / 4)
    bias = nn.Linear(3, 2)
    bias(torch.ones(1, 3)).sum().backward()
    centralize_gradients(bias.parameters())
    assert_close(bias.bias.grad, torch.ones(2))
    for bad in ({"clip": 0.0}, {"warm_up": -1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            CounterCurrentTrainer(net, **bad)


@pytest.mark.parametrize(
    ("optimizer", "rate"), [(torch.optim.Adam, 1e-2), (torch.optim.RMSprop, 3e-3), (torch.optim.Adagrad, 5e-2)]
)
@each_case
def test_any_optimizer_lowers_every_level_s_loss(case, optimizer, rate) -> None:
    objective, x, targets = objective_of(case)
    chosen = optimizer(objective.parameters(), lr=rate)
    before = objective(x, targets)
    for _ in range(150):
        chosen.zero_grad()
        objective(x, targets).total.backward()
        chosen.step()
    after = objective(x, targets)
    assert after.total < 0.8 * before.total
    assert all(later < earlier for later, earlier in zip(after.per_level[1:], before.per_level[1:], strict=True))


def test_it_learns_digits_with_its_hidden_layers_and_draws_them() -> None:
    data = digits()
    inputs, labels = (data.images.flatten(1) - 0.3) / 0.37, data.labels
    torch.manual_seed(0)
    net = CounterCurrentNet.from_sequential(perceptron(64, 64, 64, 10))
    start = state(net)
    trainer = CounterCurrentTrainer(net)
    order = torch.Generator().manual_seed(0)
    for _ in range(15):
        for rows in torch.randperm(1300, generator=order).split(50):
            trainer.step(inputs[rows], labels[rows])
    accuracy = (net(inputs[1300:]).argmax(1) == labels[1300:]).double().mean()
    assert accuracy > 0.88
    assert all(not torch.equal(start[name], tensor) for name, tensor in net.state_dict().items())
    features = net.activations(inputs)[2].detach()
    within = torch.stack([features[labels == digit].var(0) for digit in range(10)]).mean()
    assert features.var(0).mean() > 3 * within, "classes are apart in the last hidden level"
    means = torch.stack([inputs[:1300][labels[:1300] == digit].mean(0) for digit in range(10)])
    templates = net.generate(torch.eye(10))
    assert templates.shape == (10, 64)
    resemblance = torch.corrcoef(torch.cat([templates, means - means.mean(0)]))[:10, 10:]
    assert (resemblance.argmax(1) == torch.arange(10)).double().mean() >= 0.8, "templates look like their digits"


def test_autoencoders_start_orthogonal_with_quiet_generating_halves() -> None:
    torch.manual_seed(0)
    net = CounterCurrentNet.from_sequential(convolutional_autoencoder((1, 3, 5, 4)), (1, 8, 8)).double()
    assert initialize_autoencoder(net, 3) is net
    sides = [(pair.forward_module, pair.feedback_module) for pair in net.pairs]
    convolutions = [[next(m for m in side.modules() if isinstance(m, nn.Conv2d)) for side in pair] for pair in sides]
    for level, layers in enumerate(convolutions, 1):
        for side, layer in enumerate(layers):
            weight = layer.weight.detach()
            if (level, side) in ((1, 1), (6, 0)):
                assert not weight.any(), "the layers that put out images are zero"
                continue
            rows = (weight if weight.shape[0] >= weight.shape[1] else weight.transpose(0, 1)).flatten(1)
            gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
            gain = 1e-3 if (level > 3) == (side == 0) else 1.0
            assert_close(gram, gain**2 * torch.eye(len(gram), dtype=torch.float64))
    assert all(not forward.bias.any() for forward, _ in convolutions)
    for wrong in (0, 6):
        with pytest.raises(ValueError, match="level from 1 to 5"):
            initialize_autoencoder(net, wrong)
    with pytest.raises(ValueError, match="one level or more"):
        convolutional_autoencoder((3,))


# --- looking inside -------------------------------------------------------------------------------------------------


def without_offset(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x) - layer(torch.zeros_like(x))


def test_alignment_is_one_where_feedback_is_the_adjoint_of_the_forward_layer() -> None:
    """The feedback weights are solved for, so that G y is the adjoint of F at y for random y."""
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False), nn.ELU(), nn.ConvTranspose2d(4, 3, 3, padding=1)),
        *(nn.Flatten(), nn.Linear(75, 6), nn.ELU(), nn.Linear(6, 3)),
    )
    net = CounterCurrentNet.from_sequential(model, (2, 5, 5)).double()
    assert alignment(net).abs().max() < 0.9
    for pair, shape in zip(net.pairs, [(2, 5, 5), (4, 5, 5), (75,), (6,)], strict=True):
        forward, feedback = (
            next(part for part in side.modules() if hasattr(part, "weight"))
            for side in (pair.forward_module, pair.feedback_module)
        )
        x = torch.zeros(20, *shape, dtype=torch.float64)
        y = torch.randn(without_offset(forward, x).shape, generator=torch.Generator().manual_seed(0)).double()
        adjoint = torch.autograd.functional.vjp(lambda x, layer=forward: without_offset(layer, x), x, y)[1]

        def returned(weight: Tensor, layer=feedback, y=y) -> Tensor:
            return without_offset(lambda signal: functional_call(layer, {"weight": weight}, (signal,)), y).flatten()

        slopes = torch.autograd.functional.jacobian(returned, feedback.weight.detach())
        solution = torch.linalg.lstsq(slopes.flatten(1), adjoint.reshape(-1, 1))
        with torch.no_grad():
            feedback.weight.copy_(solution.solution.view_as(feedback.weight))
        assert_close(without_offset(feedback, y), adjoint)
    assert_close(alignment(net), torch.ones(4, dtype=torch.float64))
    with torch.no_grad():
        feedback.weight.neg_()
    assert_close(alignment(net)[-1].item(), -1.0)


def test_alignment_is_undefined_for_kernels_of_different_size() -> None:
    net = CounterCurrentNet.from_sequential(
        nn.Sequential(nn.Conv2d(1, 2, 4), nn.Flatten(), nn.Linear(50, 3)), (1, 8, 8)
    )
    first, second = alignment(net)
    assert first.isnan()
    assert not second.isnan()


@each_case
def test_update_cosine_is_that_of_the_two_gradients_and_changes_nothing(case) -> None:
    objective, x, targets = objective_of(case)
    net = objective.net
    before = state(net)
    cosines = update_cosine_to_backpropagation(net, x, targets, objective.kind, **objective.settings)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert cosines[-1].item() == pytest.approx(1.0), "at the top the two are the same"
    local, through = copy.deepcopy(net), copy.deepcopy(net)
    CounterCurrentObjective(local, objective.kind, **objective.settings)(x, targets).total.backward()
    loss = functional.mse_loss if case == "autoencoder" else functional.cross_entropy
    loss(through(x), targets).backward()
    for level, cosine in enumerate(cosines):
        one, other = (
            torch.cat([p.grad.flatten() for p in side.pairs[level].forward_module.parameters()])
            for side in (local, through)
        )
        assert cosine.item() == pytest.approx(float(functional.cosine_similarity(one, other, dim=0)), abs=1e-9)


# --- the classifier of tables ---------------------------------------------------------------------------------------


def test_the_classifier_keeps_scikit_learn_s_contract() -> None:
    results = check_estimator(CounterCurrentClassifier((32,), epochs=20, random_state=0), on_skip=None, on_fail="raise")
    assert sum(result["status"] == "passed" for result in results) > 40


def test_the_classifier_depends_on_its_seed_alone_and_draws_in_the_features_own_units() -> None:
    draw = np.random.default_rng(0)
    centres = np.array([[1000.0, 0.001], [1010.0, 0.003], [990.0, 0.005]])
    labels = np.repeat(["ash", "birch", "oak"], 60)
    table = np.repeat(centres, 60, axis=0) + draw.normal(size=(180, 2)) * [1.0, 1e-4]
    make = lambda seed: CounterCurrentClassifier((16,), epochs=60, random_state=seed).fit(table, labels)  # noqa: E731
    torch.manual_seed(1)
    one = make(3)
    torch.manual_seed(2)
    assert np.array_equal(one.predict_proba(table), make(3).predict_proba(table))
    assert not np.array_equal(one.predict_proba(table), make(4).predict_proba(table))
    assert one.score(table, labels) > 0.98
    assert one.loss_curve_[-1] < one.loss_curve_[0]
    oak = one.generate(["oak"])[0]
    assert np.linalg.norm((oak - centres) / centres.std(0), axis=1).argmin() == 2
    with pytest.raises(ValueError, match="got 'elm'"):
        one.generate(["elm"])
    for bad in ({"epochs": 0}, {"batch_size": 1.5}, {"hidden": (3, -1)}, {"activation": "sigma"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            CounterCurrentClassifier(**bad).fit(table, labels)
