"""Curl descent as an optimiser: against PyTorch's own, against the rule written out, against the stacked simulation."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from interplay.dynamics.curl_descent import CurlDescent, flip_plan


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(4, 6, 3, groups=2), nn.Tanh(), nn.Conv2d(6, 3, 3)),
        *(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)),
    ).double()


def images(seed: int = 1) -> torch.Tensor:
    return torch.randn(8, 4, 6, 6, generator=generator(seed), dtype=torch.float64)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[float]:
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(images(step)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


PAIRS = {
    "plain": ({}, lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": ({"momentum": 0.9}, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "decay": ({"weight_decay": 0.1}, lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1)),
    "both": (
        {"weight_decay": 0.1, "momentum": 0.9},
        lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1, momentum=0.9),
    ),
    "ascent": (
        {"maximize": True, "weight_decay": 0.1, "momentum": 0.5},
        lambda p: torch.optim.SGD(p, 0.1, maximize=True, weight_decay=0.1, momentum=0.5),
    ),
    "adam": ({"base": "adam"}, lambda p: torch.optim.Adam(p, 0.1)),
    "adamw": ({"base": "adam", "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1)),
}


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_gains_of_one_give_pytorchs_optimisers(name, foreach):
    options, peer = PAIRS[name]
    ours, theirs = network(), network()
    ones = {parameter: torch.ones_like(parameter) for parameter in list(ours.parameters())[::2]}
    side = "post"  # so that biases may have gains
    mine = train(ours, CurlDescent(ours.parameters(), 0.1, signs=ones, side=side, foreach=foreach, **options))
    assert mine == pytest.approx(train(theirs, peer(theirs.parameters())), rel=1e-10)
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close(parameter, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_a_step_multiplies_the_update_by_the_gains(base):
    model = network()
    start = copy.deepcopy(model)
    plan = flip_plan(model, {"2": 2, "4": 0.5, "6": [0, 3]}, generator=generator())
    train(model, CurlDescent(model.parameters(), 0.1, signs=plan, base=base), steps=1)
    plain = copy.deepcopy(start)
    train(plain, CurlDescent(plain.parameters(), 0.1, base=base), steps=1)
    for parameter, plainly, before in zip(model.parameters(), plain.parameters(), start.parameters(), strict=True):
        gains = plan.get(parameter, torch.ones(()))
        assert_close(parameter - before, (plainly - before) * gains, rtol=1e-8, atol=1e-14)


def test_weight_decay_is_not_flipped():
    weight = nn.Parameter(torch.tensor([[2.0, -3.0]]))
    weight.grad = torch.zeros(1, 2)
    CurlDescent([weight], 0.1, signs={weight: torch.tensor([-1.0, 1.0])}, weight_decay=0.5).step()
    assert_close(weight.detach(), torch.tensor([[1.9, -2.85]]))


def test_vectors_of_gains_follow_the_side():
    for side, expected in (("pre", [[1.0, 1.0], [-1.0, -1.0]]), ("post", [[1.0, -1.0], [1.0, -1.0]])):
        weight = nn.Parameter(torch.zeros(2, 2))
        weight.grad = torch.ones(2, 2)
        CurlDescent([weight], 1.0, signs={weight: torch.tensor([-1.0, 1.0])}, side=side).step()
        assert weight.T.tolist() == expected


def test_norms_stay_at_their_initial_values_and_biases_are_free():
    model = network()
    norms = [parameter.norm().item() for parameter in model.parameters()]
    train(model, CurlDescent(model.parameters(), 0.5, renorm="init_frobenius", momentum=0.9))
    for parameter, norm in zip(model.parameters(), norms, strict=True):
        assert (parameter.norm().item() == pytest.approx(norm, rel=1e-12)) is (parameter.dim() > 1)


def test_closures_schedulers_and_groups():
    model = network()
    optimizer = CurlDescent([{"params": model[0].parameters()}, {"params": model[6].parameters(), "lr": 0.0}], lr=0.5)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    first, last = model[0].weight.detach().clone(), model[6].weight.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = model(images()).square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(model_loss(network()))
    moved = model[0].weight.detach() - first
    assert moved.abs().max() > 0
    assert torch.equal(model[6].weight, last)
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.0])


def model_loss(model: nn.Module) -> float:
    return model(images()).square().mean().item()


@pytest.mark.parametrize("options", [{"momentum": 0.9, "renorm": "init_frobenius"}, {"base": "adam"}])
def test_state_goes_on_where_it_was_saved(options):
    model = network()
    plan = flip_plan(model, {"4": 3, "6": 1}, generator=generator())
    optimizer = CurlDescent(model.parameters(), 0.05, signs=plan, **options)
    train(model, optimizer, 3)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    expected = train(model, optimizer, 3)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = network(seed=7)
    fresh = CurlDescent(resumed.parameters(), 0.05, **options)
    resumed.load_state_dict(saved["model"])
    fresh.load_state_dict(saved["optimizer"])
    assert train(resumed, fresh, 3) == expected


def test_a_copied_optimiser_takes_new_groups():
    layer, added = nn.Linear(3, 2), nn.Linear(2, 1)
    optimizer = copy.deepcopy(CurlDescent(layer.parameters(), 0.1))
    optimizer.add_param_group({"params": added.weight}, signs={added.weight: torch.tensor([-1.0, 1.0])})
    before = added.weight.detach().clone()
    added.weight.grad = torch.ones(1, 2)
    optimizer.step()
    assert_close(added.weight - before, torch.tensor([[0.1, -0.1]]))


@given(st.floats(0, 1), st.integers(0, 100))
def test_a_fraction_flips_so_many_whole_fan_outs(fraction, seed):
    model = nn.Sequential(nn.Linear(13, 4), nn.Conv1d(10, 6, 3, groups=2))
    plan = flip_plan(model, {"0": fraction, "1": fraction}, generator=generator(seed))
    for layer, senders in ((model[0], 13), (model[1], 10)):
        gains = plan[layer.weight].expand_as(layer.weight)
        assert ((gains == 1) | (gains == -1)).all()
        share = (gains < 0).double().mean().item()
        assert share == pytest.approx(int(fraction * senders + 0.5) / senders)


LAYERS = {
    "linear": (nn.Linear(6, 4), (2, 6)),
    "convolution": (nn.Conv2d(6, 4, 3), (2, 6, 5, 5)),
    "grouped": (nn.Conv2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
    "depthwise": (nn.Conv1d(6, 6, 3, groups=6), (2, 6, 5)),
    "transposed": (nn.ConvTranspose2d(6, 4, 3, groups=2), (2, 6, 5, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_presynaptic_flips_are_what_negating_a_senders_own_gradient_gives(name):
    """An input channel whose synapses invert: the gradient with that channel's activity negated, weights untouched."""
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=generator())
    post = torch.randn(layer(x).shape, generator=generator(1))
    gains = flip_plan(nn.Sequential(layer), {"0": [1, 4]})[layer.weight]
    channel = 1
    mask = torch.ones(x.shape[channel]).index_fill_(0, torch.tensor([1, 4]), -1.0)
    plain = torch.autograd.grad((layer(x) * post).sum(), layer.weight)[0]
    flipped_x = x * mask.view(1, -1, *[1] * (x.dim() - 2))
    flipped = torch.autograd.grad((layer(flipped_x) * post).sum(), layer.weight)[0]
    assert_close(plain * gains, flipped)


@pytest.mark.parametrize("name", LAYERS)
def test_postsynaptic_flips_are_what_negating_a_receivers_error_gives(name):
    layer, shape = LAYERS[name]
    x = torch.randn(shape, generator=generator())
    post = torch.randn(layer(x).shape, generator=generator(1))
    plan = flip_plan(nn.Sequential(layer), {"0": [0, 3]}, side="post")
    mask = torch.ones(post.shape[1]).index_fill_(0, torch.tensor([0, 3]), -1.0)
    flipped = (layer(x) * post * mask.view(1, -1, *[1] * (post.dim() - 2))).sum()
    plain = (layer(x) * post).sum()
    parameters = [layer.weight, layer.bias]
    for parameter, ours, theirs in zip(
        parameters, torch.autograd.grad(plain, parameters), torch.autograd.grad(flipped, parameters), strict=True
    ):
        assert_close(ours * plan[parameter], theirs)


def test_the_same_generator_flips_the_same_neurons():
    model = nn.Sequential(nn.Linear(20, 4))
    plans = [flip_plan(model, {"0": 0.5}, generator=generator(seed))[model[0].weight] for seed in (1, 1, 2)]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])


def test_training_under_vmap_equals_training_one_by_one():
    """Stacked parameters of several networks, each with its own gains, in one optimiser."""
    models = [nn.Linear(4, 3).double() for _ in range(3)]
    gains = torch.tensor([[1.0, -1, 1, 1], [1, 1, 0, -1], [-1, 1, 1, 1]]).double()
    x = torch.randn(6, 4, generator=generator(), dtype=torch.float64)
    weight = nn.Parameter(torch.stack([model.weight.detach() for model in models]))
    bias = nn.Parameter(torch.stack([model.bias.detach() for model in models]))
    together = CurlDescent([weight, bias], 0.1, signs={weight: gains[:, None, :]}, momentum=0.5)
    apart = [
        CurlDescent(model.parameters(), 0.1, signs={model.weight: gain}, momentum=0.5)
        for model, gain in zip(models, gains, strict=True)
    ]

    def one(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(models[0], {"weight": weight, "bias": bias}, (x,)).square().mean()

    for _ in range(4):
        together.zero_grad()
        torch.vmap(one)(weight, bias).sum().backward()
        together.step()
        for model, optimizer in zip(models, apart, strict=True):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    assert_close(weight.detach(), torch.stack([model.weight.detach() for model in models]))


linear = nn.Linear(3, 2)
BAD = {
    "held": (lambda: CurlDescent([linear.bias], signs={linear.weight: torch.ones(3)}), r"shape \(2, 3\) .* not hold"),
    "length": (
        lambda: CurlDescent([linear.weight], signs={linear.weight: torch.ones(2)}),
        r"\(2, 3\) must have length 3",
    ),
    "broadcast": (
        lambda: CurlDescent([linear.weight], signs={linear.weight: torch.ones(3, 2)}),
        r"signs of shape \(3, 2\) do not broadcast against a parameter of shape \(2, 3\)",
    ),
    "bias": (lambda: CurlDescent([linear.bias], signs={linear.bias: torch.ones(2)}), "a bias has no sender"),
    "norm": (
        lambda: CurlDescent([nn.Parameter(torch.zeros(2, 2))], renorm="init_frobenius"),
        r"shape \(2, 2\) is zero, so that renorm cannot keep its norm",
    ),
    "side": (lambda: CurlDescent([linear.weight], side="row"), "side must be one of"),
    "renorm": (lambda: CurlDescent([linear.weight], renorm="unit"), "renorm must be one of"),
    "base": (lambda: CurlDescent([linear.weight], base="lion"), "base must be one of"),
    "lr": (lambda: CurlDescent([linear.weight], lr=-1.0), "lr must be zero or more; got -1.0"),
    "betas": (lambda: CurlDescent([linear.weight], base="adam", betas=(0.9, 1.0)), "betas must lie in"),
    "momentum": (lambda: CurlDescent([linear.weight], base="adam", momentum=0.9), "momentum is for base='sgd'"),
    "fraction": (lambda: flip_plan(nn.Sequential(linear), {"0": 1.5}), r"must lie in \[0, 1\]; got 1.5"),
    "count": (lambda: flip_plan(nn.Sequential(linear), {"0": 4}), "has 3 neurons on this side; got 4"),
    "index": (lambda: flip_plan(nn.Sequential(linear), {"0": [3]}), r"must lie in 0 to 2; got \[3\]"),
    "generator": (lambda: flip_plan(nn.Sequential(linear), {"0": 1}), "pass a generator"),
    "plan side": (lambda: flip_plan(nn.Sequential(linear), {"0": 1}, side="both"), "side must be 'pre' or 'post'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_has_no_neurons_to_flip_is_refused():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    with pytest.raises(TypeError, match="layer '0' is Embedding; only linear layers and convolutions"):
        flip_plan(model, {"0": 0.5})
    with pytest.raises(TypeError, match="flips must say by name of the layer"):
        flip_plan(model, 0.1)
    with pytest.raises(KeyError, match="no layer 'head'; those that can be flipped are: 1"):
        flip_plan(model, {"head": 0.5})


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = CurlDescent(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"shape \(5, 3\) is sparse; .* sparse=False"):
        optimizer.step()
