"""Training many networks at once: against autograd, PyTorch's optimisers, one by one, and the official trainer."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from interplay.dynamics.modular_addition import (
    Descent,
    FourierSpectrum,
    GrokkingMonitor,
    ModularAdditionNet,
    addition_table,
    lottery_ticket,
    random_split,
    train,
)
from interplay.dynamics.modular_addition import training as module
from interplay.testing import check_mechanism, check_same_seed

# By the official Trainer at its last commit, which was given the weights of `formula_weights`, in single precision:
# losses, accuracies and norms before every tenth step, and the training pairs that it drew.
OFFICIAL = json.loads((Path(__file__).parent / "modular_addition_official.json").read_text())["training"]
NAMES = {"ReLU": "relu", "Quad": "square", "GeLU": "gelu", "AdamW": "adamw", "SGD": "gd"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def formula_weights(p: int, neurons: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    m, j = torch.arange(neurons).double()[:, None], torch.arange(p).double()
    first = 0.1 * torch.sin(0.7 * m + 1.3 * j + 0.2 * m * j + 0.3)
    return scale * first, scale * (0.1 * torch.cos(0.4 * m + 0.9 * j + 0.1 * m * j)).mT


def test_a_network_is_a_mechanism():
    pairs = torch.tensor([[0, 0], [3, 10], [10, 4], [2, 2]])
    bad = {
        "too large": (torch.tensor([[0, 11]]),),
        "negative": (torch.tensor([[-1, 0]]),),
        "real": (torch.zeros(2, 2),),
        "triples": (torch.zeros(2, 3, dtype=torch.long),),
    }
    for activation in ("square", "relu", "gelu", "identity"):
        network = ModularAdditionNet(11, 24, activation=activation, generator=generator())
        check_mechanism(network, pairs, bad_inputs=bad)
    many = ModularAdditionNet(11, 24, generator=[generator(seed) for seed in range(3)])
    check_mechanism(many, pairs, batch_dim=None, bad_inputs=bad)
    assert many(pairs).shape == (3, 4, 11)


def test_logits_are_those_of_the_definition():
    for activation, sigma in (("square", lambda z: z * z), ("relu", lambda z: max(z, 0.0)), ("identity", float)):
        network = ModularAdditionNet.from_weights(*formula_weights(7, 4, 1.0), activation)
        first, second = network.input_weights.tolist(), network.output_weights.tolist()
        for x, y in ((2, 5), (3, 3)):
            expected = [sum(second[j][m] * sigma(first[m][x] + first[m][y]) for m in range(4)) for j in range(7)]
            assert network(torch.tensor([[x, y]])).squeeze(0).tolist() == pytest.approx(expected, rel=1e-12)


def test_the_swapped_activation_takes_the_place_of_the_networks_own():
    pairs, _ = addition_table(7)
    square, relu = (ModularAdditionNet.from_weights(*formula_weights(7, 4, 1.0), name) for name in ("square", "relu"))
    assert torch.equal(relu(pairs, torch.square), square(pairs))
    assert not torch.equal(relu(pairs), square(pairs))


def test_the_table_holds_all_sums():
    pairs, labels = addition_table(5)
    assert len({tuple(pair) for pair in pairs.tolist()}) == 25
    assert labels.tolist() == [(x + y) % 5 for x, y in pairs.tolist()]


@pytest.mark.parametrize("init", ["gaussian", "single_frequency", "equal_magnitude"])
def test_stacked_networks_are_those_of_their_generators(init):
    many = ModularAdditionNet(11, 7, init=init, generator=[generator(seed) for seed in range(3)])
    for seed in range(3):
        alone = ModularAdditionNet(11, 7, init=init, generator=generator(seed))
        assert torch.equal(many.input_weights[seed], alone.input_weights)
        assert torch.equal(many.output_weights[seed], alone.output_weights)
    check_same_seed(lambda seed: ModularAdditionNet(11, 7, init=init, generator=generator(seed)).output_weights)


def test_initial_spectra_are_those_asked_for():
    network = ModularAdditionNet(11, 23, activation="relu", init="single_frequency", generator=generator())
    spectrum = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
    counts = spectrum.dominant().bincount(minlength=6)[1:]
    assert counts.sum() == 23
    assert counts.max() - counts.min() <= 1
    assert not spectrum.dominant().equal(torch.arange(23) % 5 + 1), "the frequencies are shuffled"
    chosen = spectrum.at(spectrum.dominant())
    assert_close(chosen.alpha, torch.full_like(chosen.alpha, 0.002), rtol=1e-3, atol=0)
    assert_close(chosen.beta, torch.full_like(chosen.beta, 0.002), rtol=1e-3, atol=0)
    even = ModularAdditionNet(11, 23, init="equal_magnitude", generator=generator())
    spectrum = FourierSpectrum.from_weights(even.input_weights, even.output_weights)
    assert_close(spectrum.alpha, torch.full_like(spectrum.alpha, 0.02), rtol=1e-3, atol=0)
    wide = ModularAdditionNet(11, 5000, generator=generator())
    for weights in (wide.input_weights, wide.output_weights):
        assert weights.std().item() == pytest.approx(0.1 / math.sqrt(11), rel=0.02)


@pytest.mark.parametrize("case", OFFICIAL, ids=[f"{case['activation']} {case['optimizer']}" for case in OFFICIAL])
def test_training_agrees_with_the_official_trainer(case):
    p = case["p"]
    weights = formula_weights(p, case["neurons"], case["scale"])
    network = ModularAdditionNet.from_weights(*weights, NAMES[case["activation"]])
    in_train = torch.zeros(p, p, dtype=torch.bool)
    in_train[tuple(torch.tensor(case["train_pairs"]).T)] = True
    monitor = GrokkingMonitor(in_train, every=10)
    rule = Descent(case["lr"], NAMES[case["optimizer"]], case["weight_decay"])
    losses = train(network, 60, rule, in_train=in_train, watch=monitor)
    assert losses[::10].tolist() == pytest.approx(case["train_loss"], rel=2e-4)
    history = monitor.history
    assert history["train loss"].tolist() == pytest.approx(case["train_loss"], rel=2e-4)
    assert history["norm"].tolist() == pytest.approx(case["param_norm"], rel=2e-4)
    if not in_train.all():  # with the whole table in training the code tests on it
        assert history["test loss"].tolist() == pytest.approx(case["test_loss"], rel=2e-4)
        assert history["test accuracy"].tolist() == pytest.approx(case["test_accuracy"])


@pytest.mark.parametrize("activation", ["square", "relu", "gelu", "identity"])
def test_gradients_are_those_of_autograd(activation):
    generators = [generator(seed) for seed in range(3)]
    network = ModularAdditionNet(7, 5, activation=activation, scale=2.0, generator=generators).double()
    in_train = random_split(7, 0.6, generators)
    pairs, labels = addition_table(7)
    logits = network(pairs)
    expected = [
        functional.cross_entropy(logits[run][chosen], labels[chosen]) for run, chosen in enumerate(in_train.flatten(1))
    ]
    torch.stack(expected).sum().backward()
    loss, gradients = module._Pass(network, in_train)()
    assert_close(loss, torch.stack(expected).detach())
    for ours, parameter in zip(gradients, network.parameters(), strict=True):
        assert_close(ours, parameter.grad)


@pytest.mark.parametrize("optimizer", ["adamw", "gd"])
def test_updates_are_those_of_pytorch(optimizer):
    generators = [generator(seed) for seed in range(2)]
    network = ModularAdditionNet(7, 5, activation="relu", scale=1.0, generator=generators).double()
    rates, decays = torch.tensor([[0.02, 0.05], [0.0, 0.7]], dtype=torch.float64)
    peers = []
    for run in range(2):
        peer = ModularAdditionNet(7, 5, activation="relu", scale=1.0, generator=generator(run)).double()
        if optimizer == "adamw":
            rule = torch.optim.AdamW(peer.parameters(), rates[run].item(), (0.8, 0.95), 1e-6, decays[run].item())
        else:
            rule = torch.optim.SGD(peer.parameters(), rates[run].item(), weight_decay=decays[run].item())
        for _ in range(30):
            rule.zero_grad()
            pairs, labels = addition_table(7)
            functional.cross_entropy(peer(pairs), labels).backward()
            rule.step()
        peers.append(peer)
    rule = Descent(rates, optimizer, decays, (0.8, 0.95), 1e-6, warm_up=0)
    train(network, 30, rule)
    for run, peer in enumerate(peers):
        assert_close(network.input_weights[run], peer.input_weights, rtol=1e-9, atol=1e-11)
        assert_close(network.output_weights[run], peer.output_weights, rtol=1e-9, atol=1e-11)


def test_all_at_once_equals_one_by_one(monkeypatch):
    seeds, decays = range(5), [0.0, 2.0, 0.5, 0.0, 1.0]
    together = ModularAdditionNet(11, 16, activation="relu", generator=[generator(seed) for seed in seeds])
    splits = random_split(11, 0.75, [generator(seed) for seed in seeds])
    rule = Descent(5e-3, weight_decay=torch.tensor(decays))
    monkeypatch.setattr(module, "HIDDEN_VALUES_AT_ONCE", 2 * 16 * 66)  # blocks of two networks, the last of one
    monitor = GrokkingMonitor(splits, every=50)
    losses = train(together, 100, rule, in_train=splits, watch=monitor)
    assert losses.shape == (101, 5)
    for seed in seeds:
        alone = ModularAdditionNet(11, 16, activation="relu", generator=generator(seed))
        watch = GrokkingMonitor(splits[seed], every=50)
        expected = train(alone, 100, Descent(5e-3, weight_decay=decays[seed]), in_train=splits[seed], watch=watch)
        assert expected.shape == (101,)
        assert_close(losses[:, seed], expected, rtol=1e-3, atol=1e-4)
        for name, values in watch.history.items():
            assert_close(monitor.history[name][:, seed], values, rtol=5e-3, atol=5e-3, equal_nan=True)


def test_learned_frequencies_are_those_predicted():
    generators = [generator(seed) for seed in range(2)]
    network = ModularAdditionNet(11, 200, scale=0.05, generator=generators)
    before = FourierSpectrum.from_weights(network.input_weights, network.output_weights)
    losses = train(network, 2500, Descent(1.0, "gd"))
    assert (losses[-1] < 0.1).all()
    learned = FourierSpectrum.from_weights(network.input_weights, network.output_weights).dominant()
    rates = {rule: lottery_ticket(before, rule).hit_rate(learned) for rule in ("ode", "magnitude", "misalignment")}
    assert (rates["ode"] > 0.85).all()
    assert (rates["ode"] > rates["magnitude"] + 0.1).all()
    assert (rates["ode"] > rates["misalignment"] + 0.3).all()


def test_splits_have_their_size_and_follow_their_generators():
    splits = random_split(9, 0.75, [generator(0), generator(1)])
    assert splits.sum((1, 2)).tolist() == [60, 60]
    assert not torch.equal(splits[0], splits[1])
    assert torch.equal(splits[1], random_split(9, 0.75, generator(1)))
    assert random_split(9, 1.0, generator()).all()


def test_the_monitor_tells_the_groups_of_pairs_apart():
    """A network that has learned by heart all but what involves the number 4."""
    p = 5
    in_train = torch.tensor([[1, 1, 0, 1, 0]] * 2 + [[1, 1, 1, 1, 0]] * 2 + [[0, 0, 1, 0, 0]]).bool()
    pairs, labels = addition_table(p)
    logits = functional.one_hot(labels, p).double()
    wrong = (pairs == 4).any(1)
    logits[wrong] = functional.one_hot((labels + 1) % p, p).double()[wrong]
    weights = formula_weights(p, 3, 1.0)
    monitor = GrokkingMonitor(in_train, every=3, weights=lambda _: weights)
    for step in range(7):
        monitor(step, lambda _: logits)
    assert monitor.steps == [0, 3, 6]
    counts = {
        "train accuracy": [x != 4 and y != 4 for x in range(p) for y in range(p) if in_train[x, y]],
        "test accuracy": [x != 4 and y != 4 for x in range(p) for y in range(p) if not in_train[x, y]],
        "common": [x != 4 != y for x in range(p) for y in range(p) if in_train[x, y] and in_train[y, x]],
        "rare": [x != 4 != y for x in range(p) for y in range(p) if in_train[x, y] and not in_train[y, x]],
        "mirrored": [x != 4 != y for x in range(p) for y in range(p) if not in_train[x, y] and in_train[y, x]],
        "unseen": [x != 4 != y for x in range(p) for y in range(p) if not in_train[x, y] and not in_train[y, x]],
    }
    for name, right in counts.items():
        assert monitor.history[name][-1].item() == pytest.approx(sum(right) / len(right)), name
    spectrum = FourierSpectrum.from_weights(*weights)
    assert monitor.history["IPR"][0].item() == pytest.approx(spectrum.ipr().item())
    sines = spectrum.at(spectrum.dominant()).misalignment.sin().abs()
    assert monitor.history["|sin D|"][0].item() == pytest.approx(sines.mean().item())


def test_stages_end_where_accuracies_pass():
    in_train = torch.ones(5, 5).triu().bool().expand(2, 5, 5)
    _, labels = addition_table(5)
    right, wrong = functional.one_hot(labels, 5).double(), functional.one_hot((labels + 1) % 5, 5).double()
    monitor = GrokkingMonitor(
        in_train, weights=lambda _: tuple(part.expand(2, -1, -1) for part in formula_weights(5, 3, 1))
    )
    memorised = torch.where(in_train[0].flatten()[:, None], right, wrong)
    for step, first in enumerate((wrong, memorised, memorised, right)):
        monitor(step, lambda _, first=first: torch.stack([first, memorised]))
    stages = monitor.stages()
    assert stages.memorised.tolist() == [1, 0]
    assert stages.generalised[0] == 3
    assert stages.generalised[1].isnan()
    assert monitor.history["unseen"].isnan().all(), "no pair of a triangle is unseen in both orders"
    with pytest.raises(KeyError, match="'speed' is not recorded; there are train loss"):
        monitor.first_step("speed", 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 10}, "p must be odd and 3 or more; got 10"),
        ({"p": 1}, "p must be odd and 3 or more; got 1"),
        ({"width": 0}, "width must be 1 or more"),
        ({"scale": 0.0}, "scale must be a positive number; got 0"),
        ({"scale": math.nan}, "scale must be a positive number; got nan"),
        ({"activation": "tanh"}, "activation must be one of square, relu, gelu, identity; got 'tanh'"),
        ({"init": "zeros"}, "init must be one of gaussian, single_frequency, equal_magnitude; got 'zeros'"),
        ({"generator": []}, "empty sequence"),
    ],
)
def test_bad_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ModularAdditionNet(**{"p": 11, "width": 4, "generator": generator(), **arguments})


def test_bad_pairs_say_what_is_wrong():
    network = ModularAdditionNet(11, 4, generator=generator())
    with pytest.raises(IndexError, match=r"pairs must lie in 0\.\.10; got 11"):
        network(torch.tensor([[3, 11]]))
    with pytest.raises(TypeError, match="whole numbers"):
        network(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"got \(5, 4\) and \(5, 4\)"):
        ModularAdditionNet.from_weights(torch.zeros(5, 4), torch.zeros(5, 4))


@pytest.mark.parametrize(
    ("rule", "in_train", "message"),
    [
        (Descent(torch.ones(3)), None, "lr must be a number or one for each of 2 networks"),
        (Descent(-1.0), None, "lr must be finite and not negative"),
        (Descent(weight_decay=math.nan), None, "weight_decay must be finite"),
        (Descent(optimizer="lion"), None, "optimizer must be gd or adamw; got 'lion'"),
        (None, torch.ones(3, 7, 7, dtype=torch.bool), "one such table a network"),
        (None, torch.ones(7, 7), "must be boolean"),
        (None, torch.zeros(7, 7, dtype=torch.bool), "without a training pair"),
    ],
)
def test_bad_training_is_refused(rule, in_train, message):
    network = ModularAdditionNet(7, 4, generator=[generator(0), generator(1)])
    with pytest.raises(ValueError, match=message):
        train(network, 1, rule, in_train=in_train)


def test_divergence_is_named():
    network = ModularAdditionNet(7, 4, scale=1.0, generator=[generator(0), generator(1)])
    with pytest.raises(FloatingPointError, match="of network 1: lower lr"):
        train(network, 200, Descent(torch.tensor([1e-3, 1e6]), "gd", warm_up=0))
    with pytest.raises(ValueError, match="steps must be 0 or more"):
        train(network, -1)
    with pytest.raises(ValueError, match="fraction must be above 0"):
        random_split(7, 0.0, generator())
    with pytest.raises(ValueError, match="not a single one"):
        random_split(7, 0.01, generator())
    with pytest.raises(ValueError, match="every must be 1 or more"):
        GrokkingMonitor(torch.ones(7, 7, dtype=torch.bool), every=0)
    with pytest.raises(ValueError, match="in_train must be boolean"):
        GrokkingMonitor(torch.ones(7, 7))
