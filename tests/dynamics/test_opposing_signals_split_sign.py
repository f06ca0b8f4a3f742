"""SplitSign against its rule written out and against PyTorch's optimisers at its two ends."""

import copy
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from interplay.dynamics.opposing_signals import SplitSign


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()


def train(model, optimizer, steps=5, first=0):
    losses = []
    for step in range(first, first + steps):
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        optimizer.zero_grad()
        loss = model(inputs).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_the_rule_written_out():
    model, twin = network(), network()
    optimizer = SplitSign(model.parameters(), lr=0.1, lr_sign=0.01, q=0.2, beta1=0.7)
    momentum = np.zeros(sum(parameter.numel() for parameter in twin.parameters()))
    for step in range(6):
        train(model, optimizer, 1, step)
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        gradients = torch.autograd.grad(twin(inputs).square().sum(1).mean(), list(twin.parameters()))
        momentum = 0.7 * momentum + 0.3 * np.concatenate([g.flatten().numpy() for g in gradients])
        plain_count = len(momentum) - round(0.2 * len(momentum))
        large = np.ones(len(momentum), dtype=bool)
        large[np.argsort(np.abs(momentum))[:plain_count]] = False
        update = np.where(large, 0.01 * np.sign(momentum), 0.1 * momentum)
        position = 0
        with torch.no_grad():
            for parameter in twin.parameters():
                piece = update[position : position + parameter.numel()]
                parameter -= torch.from_numpy(piece).view_as(parameter)
                position += parameter.numel()
    for ours, written in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(ours, written)


def test_without_sign_steps_it_is_sgd_with_averaged_momentum():
    model, twin = network(), network()
    train(model, SplitSign(model.parameters(), lr=0.1, q=0.0, beta1=0.9))
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9)  # (1 - 0.9) of 0.1, since SGD adds up
    train(twin, optimizer)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(ours, theirs)


def test_with_sign_steps_alone_it_is_adam_without_memory():
    model, twin = network(), network()
    train(model, SplitSign(model.parameters(), lr=5.0, lr_sign=0.01, q=1.0, beta1=0.0))
    train(twin, torch.optim.Adam(twin.parameters(), lr=0.01, betas=(0.0, 0.0), eps=1e-30))
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert_close(ours, theirs)


def test_a_saved_state_goes_on_as_if_nothing_had_happened():
    model = network()
    optimizer = SplitSign(model.parameters(), lr=0.1)
    train(model, optimizer)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = network(1)
    other.load_state_dict(saved["model"])
    resumed = SplitSign(other.parameters(), lr=9.0)
    resumed.load_state_dict(saved["optimizer"])
    assert train(model, optimizer, first=5) == train(other, resumed, first=5)


def test_groups_have_options_of_their_own_and_share_the_quantile():
    small, large = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(5))
    optimizer = SplitSign([{"params": [small], "lr": 2.0}, {"params": [large], "lr_sign": 0.5}], q=0.5, beta1=0.0)
    small.grad, large.grad = torch.full((5,), 0.1), torch.full((5,), -7.0)
    optimizer.step()
    assert_close(small.detach(), torch.full((5,), -0.2))
    assert_close(large.detach(), torch.full((5,), 0.5))


def test_a_closure_is_evaluated_with_gradients():
    weight = nn.Parameter(torch.ones(3))
    optimizer = SplitSign([weight], lr=0.5, q=0.0, beta1=0.0)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3
    assert_close(weight.detach(), torch.zeros(3))


def test_parameters_without_gradient_stay_and_copies_are_independent():
    model = network()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    train(model, SplitSign(model.parameters()))
    assert torch.equal(model[0].weight, before["0.weight"])
    assert not torch.equal(model[2].weight, before["2.weight"])
    assert SplitSign(model.parameters()).step() is None


def test_bad_input_is_refused():
    parameter = nn.Parameter(torch.ones(3))
    for options, message in (
        ({"lr": -1.0}, "lr must be zero or more; got -1"),
        ({"lr_sign": float("nan")}, "lr_sign must be zero or more; got nan"),
        ({"q": 1.5}, r"q must lie in \[0, 1\]; got 1.5"),
        ({"beta1": 1.0}, r"beta1 must lie in \[0, 1\); got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            SplitSign([parameter], **options)
    optimizer = SplitSign([parameter])
    with pytest.raises(ValueError, match="q must lie"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "q": -0.1})
    assert len(optimizer.param_groups) == 1
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = SplitSign(table.parameters())
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="no sparse gradients"):
        optimizer.step()
