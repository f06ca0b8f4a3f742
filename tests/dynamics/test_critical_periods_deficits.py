"""Schedules and hooks: what learns and what does not, on which steps, in any model."""

import copy

import pytest
import torch
from torch import nn

from interplay.dynamics.critical_periods import DeficitSchedule, deficit_hooks


class TwoEncoders(nn.Module):
    """Two encoders whose outputs add."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({"image": nn.Linear(4, 3), "sound": nn.Linear(4, 3)})
        self.head = nn.Linear(3, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.encoders["image"](x) + self.encoders["sound"](x)))


X = torch.linspace(-1, 1, 20).view(5, 4)


def steps_that_change(model, path, schedule, steps, make=torch.optim.Adam, count=True):
    """On which steps the parameters of the encoder for sound change, and those of the one for images."""
    optimizer = make(model.parameters())
    changed = {"image": [], "sound": []}
    with deficit_hooks(model, path, schedule, optimizer=optimizer if count else None, steps=steps) as deficit:
        for step in range(steps):
            before = copy.deepcopy(model.encoders)
            optimizer.zero_grad()
            (model(X) - 1).square().mean().backward()
            optimizer.step()
            if not count:
                deficit.advance()
            assert deficit.step == step + 1
            for name, steps_of in changed.items():
                if not torch.equal(before[name].weight, model.encoders[name].weight):
                    steps_of.append(step)
    return changed


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1),
    ],
)
@pytest.mark.parametrize("count", [True, False])
def test_a_frozen_module_stands_still_in_its_window_under_momentum_and_decay(make, count):
    changed = steps_that_change(TwoEncoders(), "encoders.sound", DeficitSchedule(3, 4), 10, make, count)
    assert changed["sound"] == [0, 1, 2, 7, 8, 9]
    assert changed["image"] == list(range(10))


def test_freezing_leaves_the_output_and_all_other_gradients_alone():
    model = TwoEncoders()
    model(X).sum().backward()
    plain = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    output = model(X)
    model.zero_grad()
    with deficit_hooks(model, "encoders.sound", DeficitSchedule(0, 1)):
        frozen = model(X)
        frozen.sum().backward()
    assert torch.equal(frozen, output)
    for name, parameter in model.named_parameters():
        if "sound" in name:
            assert parameter.grad is None
        else:
            assert torch.equal(parameter.grad, plain[name])


def test_hooks_are_gone_and_evaluation_is_untouched():
    model = TwoEncoders()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    plain = model(X)
    zeros = DeficitSchedule(0, 10, "callable", transform=torch.zeros_like)
    with deficit_hooks(model, "encoders.sound", zeros):
        without = model.head(torch.tanh(model.encoders["image"](X)))
        assert torch.equal(model(X), without)
        model.eval()
        assert torch.equal(model(X), plain)
        model.train()
    assert torch.equal(model(X), plain)
    with pytest.raises(RuntimeError), deficit_hooks(model, "encoders.sound", zeros):
        model(X[:, :1])
    assert torch.equal(model(X), plain)
    with deficit_hooks(model, "encoders.sound", zeros, optimizer=optimizer) as deficit:
        pass
    model(X).sum().backward()
    optimizer.step()
    assert deficit.step == 0


def test_a_step_taken_from_a_checkpoint_counts():
    model = TwoEncoders()
    with deficit_hooks(
        model, "encoders.sound", DeficitSchedule(5, 1, "callable", transform=torch.zeros_like)
    ) as active:
        outputs = []
        for step in (4, 5, 6):
            active.step = step
            outputs.append(model(X))
    assert torch.equal(outputs[0], outputs[2])
    assert not torch.equal(outputs[0], outputs[1])


def test_masking_a_mode_projects_it_out():
    basis = torch.linalg.qr(torch.randn(6, 3, generator=torch.Generator().manual_seed(0))).Q
    schedule = DeficitSchedule(0, 1, "mask_mode", mode=1)
    output = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    masked = schedule.apply(output, 0, basis=basis)
    expected = (output @ basis) * torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(masked @ basis, expected)
    rest = torch.eye(6) - basis @ basis.T
    torch.testing.assert_close(masked @ rest, output @ rest)
    assert schedule.apply(output, 1, basis=basis) is output
    with pytest.raises(ValueError, match="needs basis"):
        schedule.apply(output, 0)


def test_the_coin_falls_as_often_as_asked_and_the_same_for_all_who_ask():
    schedule = DeficitSchedule(100, 2000, "bernoulli", prob=0.9, seed=4)
    falls = [schedule.acts(step) for step in range(2200)]
    assert not any(falls[:100])
    assert not any(falls[2100:])
    share = sum(falls) / 2000
    assert abs(share - 0.9) < 4 * (0.9 * 0.1 / 2000) ** 0.5
    assert falls == [schedule.acts(step) for step in range(2200)]
    other = DeficitSchedule(100, 2000, "bernoulli", prob=0.9, seed=5)
    assert falls != [other.acts(step) for step in range(2200)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": -1, "length": 5}, "start=-1, length=5"),
        ({"start": 0, "length": -5}, "length=-5"),
        ({"start": 0, "length": 5, "kind": "blur"}, "kind must be one of"),
        ({"start": 0, "length": 5, "kind": "bernoulli", "prob": 1.5}, "prob must be a probability"),
        ({"start": 0, "length": 5, "prob": 0.5}, "goes with kind 'bernoulli'"),
        ({"start": 0, "length": 5, "kind": "mask_mode"}, "mode and kind 'mask_mode' go together"),
        ({"start": 0, "length": 5, "mode": 1}, "mode and kind 'mask_mode' go together"),
        ({"start": 0, "length": 5, "kind": "mask_mode", "mode": -1}, "index from 0"),
        ({"start": 0, "length": 5, "kind": "callable"}, "transform and kind 'callable' go together"),
    ],
)
def test_bad_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeficitSchedule(**arguments)


def test_hooks_refuse_what_is_not_there():
    model = TwoEncoders()
    with (
        pytest.raises(ValueError, match=r"no module 'encoders.soud'; the names closest to it are encoders.sound"),
        deficit_hooks(model, "encoders.soud", DeficitSchedule(0, 1)),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"ends at step 12 \(start 5 \+ length 7\), after the last of 10 steps"),
        deficit_hooks(model, "head", DeficitSchedule(5, 7), steps=10),
    ):
        pass
    with (
        pytest.raises(ValueError, match="mode 3 is out of range: there are 2"),
        deficit_hooks(model, "head", DeficitSchedule(5, 7, "mask_mode", mode=3), basis=torch.eye(3)[:, :2]),
    ):
        pass
