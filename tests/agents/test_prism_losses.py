"""The student's loss against a loop, its gradient against differences, and what it must not read."""

import math

import pytest
import torch

from interplay.agents.prism import CostGate, GateAlignedLoss
from interplay.testing import check_mechanism

GATE = CostGate(1.0, 2.0)


def events(count=40, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    p_need, p_acc, propensity, *draws = torch.rand(6, count, generator=generator, dtype=dtype)
    y_need, y_accept, spoke = (
        (draw < level).to(dtype) for draw, level in zip(draws, (p_need, p_acc, propensity), strict=True)
    )
    return p_need, p_acc, y_need, y_accept, spoke, propensity.clamp(min=0.01)


def by_hand(p_need, p_acc, y_need, y_accept, spoke, propensity):
    total = need = acceptance = false_alarms = slow = 0.0
    for pn, pa, yn, ya, s, e in zip(
        *(tensor.tolist() for tensor in (p_need, p_acc, y_need, y_accept, spoke, propensity)), strict=True
    ):
        margin = pa - 1 / (1 + 2 * pn)
        need -= math.log(pn if yn else 1 - pn) / len(p_need)
        slow += math.exp(-((margin / 0.1) ** 2)) / len(p_need)
        if s:
            weight = 1 / max(e, 0.05)
            total += weight
            acceptance -= weight * math.log(pa if ya else 1 - pa)
            false_alarms += weight * (1 - ya) / (1 + math.exp(-margin / 0.05))
    return need, acceptance / total, 0.5 * false_alarms / total + 0.05 * slow


def test_agrees_with_a_loop_over_events():
    given = events()
    parts = GateAlignedLoss(GATE)(*given)
    need, acceptance, burden = by_hand(*given)
    assert parts["need"].item() == pytest.approx(need)
    assert parts["acceptance"].item() == pytest.approx(acceptance)
    assert parts["burden"].item() == pytest.approx(burden)
    assert parts["loss"].item() == pytest.approx(need + acceptance + burden)


def test_gradients_agree_with_differences():
    p_need, p_acc, *rest = events(8)
    loss = GateAlignedLoss(GATE)
    pair = p_need.clamp(0.1, 0.9).requires_grad_(), p_acc.clamp(0.1, 0.9).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, *rest)["loss"], pair)


def test_acceptance_of_events_that_nobody_spoke_to_is_not_read():
    p_need, p_acc, y_need, y_accept, spoke, propensity = events()
    unseen = torch.where(spoke.bool(), y_accept, torch.nan)
    one = GateAlignedLoss(GATE)(p_need, p_acc, y_need, y_accept, spoke, propensity)
    other = GateAlignedLoss(GATE)(p_need, p_acc, y_need, unseen, spoke, propensity)
    assert one == other
    leaf = p_acc.clone().requires_grad_()
    GateAlignedLoss(GATE, slow_weight=0)(p_need, leaf, y_need, unseen, spoke, propensity)["loss"].backward()
    assert ((leaf.grad != 0) == spoke.bool()).all()


def test_weights_undo_the_choice_of_the_logger():
    """Minimised by a constant, the acceptance term finds the rate of all events, not that of those spoken to."""
    generator = torch.Generator().manual_seed(0)
    receptive = torch.rand(200_000, generator=generator) < 0.5
    y_accept = torch.rand(200_000, generator=generator) < torch.where(receptive, 0.9, 0.1)
    propensity = torch.where(receptive, 0.8, 0.1)
    spoke = torch.rand(200_000, generator=generator) < propensity
    loss = GateAlignedLoss(GATE, false_alarm_weight=0, slow_weight=0)
    need = torch.full((200_000,), 0.5)
    rates = torch.linspace(0.3, 0.9, 61)
    values = [loss(need, need * 0 + rate, y_accept, y_accept, spoke, propensity)["acceptance"] for rate in rates]
    assert rates[int(torch.stack(values).argmin())].item() == pytest.approx(0.5, abs=0.02)
    assert y_accept[spoke].float().mean() > 0.75


def test_a_batch_in_which_nobody_spoke():
    p_need, p_acc, y_need, y_accept, spoke, propensity = events()
    parts = GateAlignedLoss(GATE, slow_weight=0)(
        p_need, p_acc.requires_grad_(), y_need, y_accept, torch.zeros_like(spoke), propensity
    )
    assert parts["acceptance"] == parts["burden"] == 0
    parts["loss"].backward()
    assert p_acc.grad.abs().sum() == 0


def test_behaves_as_a_module():
    given = tuple(tensor.float() for tensor in events())
    check_mechanism(
        GateAlignedLoss(GATE),
        *given,
        gradients=False,  # it has no parameters
        bad_inputs={
            "logits": (given[0] * 5, *given[1:]),
            "NaN": (given[0], given[1] * float("nan"), *given[2:]),
            "shape": (given[0][1:], *given[1:]),
        },
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({5: torch.zeros(40)}, r"propensity must lie in \(0, 1\]; got 0"),
        ({5: torch.full((40,), 1.5)}, r"propensity must lie in \(0, 1\]"),
        ({5: torch.full((40,), torch.nan)}, "propensity must lie"),
        ({2: torch.full((40,), 0.5)}, "y_need must be labels"),
        ({3: torch.full((40,), 2.0)}, "y_accept, where an offer was made, must be labels"),
        ({4: torch.full((40,), 2.0)}, "spoke must be labels"),
        ({1: torch.rand(39)}, "shapes must agree"),
    ],
)
def test_bad_input_is_refused(changes, message):
    given = list(events())
    for position, value in changes.items():
        given[position] = value
    with pytest.raises(ValueError, match=message):
        GateAlignedLoss(GATE)(*given)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("delta_slow", 0),
        ("gate_temperature", -1),
        ("false_alarm_weight", -1),
        ("slow_weight", float("nan")),
        ("propensity_floor", 0),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        GateAlignedLoss(GATE, **{name: value})
