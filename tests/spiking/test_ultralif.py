"""UltraLIF and its baselines: against the official code, snnTorch, slow loops, finite differences and closed forms.

`data/official_ultralif.json` holds what the forward passes of the official code and snnTorch gave for an input of
closed form; its fields say which.
"""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.testing import assert_close

from interplay.primitives.neurons import LIF, MultiStep, SigmoidSurrogate, SpikingNeuron
from interplay.spiking.ultralif import (
    PLIF,
    AdaLIF,
    DSpike,
    SigmaLIF,
    UltraDLIF,
    UltraLIF,
    hard_spikes,
    soft_lif,
)
from interplay.testing import check_mechanism

RECORDED = json.loads((Path(__file__).parent / "data" / "official_ultralif.json").read_text(encoding="utf-8"))
OFFICIAL_DECAY = 1 / (1 + math.exp(-0.9))
NEURONS = {
    "UltraLIF": lambda: UltraLIF(),
    "UltraLIF, eps 0.3": lambda: UltraLIF(eps=0.3),
    "UltraPLIF": lambda: UltraLIF(learn_decay=True),
    "UltraLIF_DS": lambda: UltraLIF(spike_scale=2.5),
    "UltraPLIF_DS": lambda: UltraLIF(eps=0.5, learn_decay=True, spike_scale=1.0),
    "UltraDLIF": lambda: UltraDLIF(4),
    "UltraDLIF, eps 0.3": lambda: UltraDLIF(4, eps=0.3, learn_eps=False),
    "UltraDPLIF": lambda: UltraDLIF(4, OFFICIAL_DECAY, learn_decay=True),
    "ablation UltraLIF": lambda: UltraLIF(threshold=1.0, learn_eps=False),
    "ablation UltraPLIF": lambda: UltraLIF(
        eps=2.0, threshold=1.0, learn_decay=True, decay_range=(math.exp(-2.3), math.exp(-0.01))
    ),
    "ablation UltraDLIF": lambda: UltraDLIF(4, None, threshold=1.0, order="lse_then_input"),
    "ablation UltraDPLIF": lambda: UltraDLIF(4, 0.9, threshold=1.0, order="lse_then_input", learn_decay=True),
    "LIF": lambda: soft_lif(),
    "PLIF": lambda: PLIF(),
    "FullPLIF": lambda: PLIF(threshold=1 / (1 + math.exp(-0.5)), learn_threshold=True),
    "AdaLIF": lambda: AdaLIF(),
    "DSpike": lambda: DSpike(),
    "DSpike+": lambda: DSpike(OFFICIAL_DECAY, learn_decay=True),
    "SigmaLIF": lambda: SigmaLIF(),
}
every_neuron = pytest.mark.parametrize("name", NEURONS)
FUSED = {
    **{name: NEURONS[name] for name in ("UltraLIF", "UltraPLIF", "UltraLIF_DS", "UltraPLIF_DS")},
    **{name: NEURONS[name] for name in ("ablation UltraLIF", "ablation UltraPLIF", "UltraDLIF", "UltraDPLIF")},
    "UltraDPLIF, threshold": lambda: UltraDLIF(4, learn_decay=True, threshold=0.4),
}


def closed_form(units: int, steps: int = 50) -> torch.Tensor:
    step, unit = torch.arange(steps, dtype=torch.float64)[:, None], torch.arange(units, dtype=torch.float64)
    return (1.5 * torch.sin(0.7 * step + 1.3 * unit) + torch.cos(0.31 * step * (unit + 1))).unsqueeze(1)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loop(neuron: SpikingNeuron, current: torch.Tensor, state=None):
    spikes = []
    for now in current:
        fired, state = neuron(now, state)
        spikes.append(fired)
    return torch.stack(spikes), state


# --- agreement --------------------------------------------------------------------------------------------------------


@every_neuron
def test_potentials_and_spikes_are_those_of_the_official_code(name):
    neuron, state = NEURONS[name]().double(), None
    recorded = RECORDED["neurons"][name]
    for now, spikes, potential in zip(closed_form(4), recorded["spikes"], recorded["potential"], strict=True):
        fired, state = neuron(now, state)
        held = state[0] if isinstance(state, tuple) else state
        assert_close(fired[0], torch.tensor(spikes, dtype=torch.float64), atol=1e-6, rtol=0)
        assert_close(held[0], torch.tensor(potential, dtype=torch.float64), atol=1e-6, rtol=0)
    sequence, _ = neuron.sequence(closed_form(4))
    assert_close(sequence[:, 0], torch.tensor(recorded["spikes"], dtype=torch.float64), atol=1e-6, rtol=0)


def test_hard_spikes_are_those_of_snntorch():
    expected = torch.tensor([[int(spike) for spike in row] for row in RECORDED["snntorch"]["spikes"]])
    spikes, _ = soft_lif(smooth=False).sequence(closed_form(40))
    assert torch.equal(spikes[:, 0].long(), expected)
    assert 0.1 < expected.double().mean() < 0.5


# --- what the equations say -------------------------------------------------------------------------------------------


def test_ultralif_against_scalar_arithmetic():
    neuron = UltraLIF(0.8, 0.6, learn_eps=False, threshold=0.2).double()
    current, potential = closed_form(1, 20), 0.0
    spikes, _ = neuron.sequence(current)
    for now, fired in zip(current.flatten().tolist(), spikes.flatten().tolist(), strict=True):
        potential = 0.6 * math.log(math.exp((potential + math.log(0.8)) / 0.6) + math.exp(now / 0.6))
        spike = 1 / (1 + math.exp(-(potential - 0.2) / 0.6))
        assert fired == pytest.approx(spike, abs=1e-12)
        potential *= 1 - spike


def test_ultradlif_against_a_loop_over_units():
    neuron, current = UltraDLIF(5, 0.7, 0.4, learn_eps=False).double(), closed_form(5, 10)
    spikes, _ = neuron.sequence(current)
    potential = [0.0] * 5
    for now, fired in zip(current[:, 0].tolist(), spikes[:, 0].tolist(), strict=True):
        potential = [0.7 * v + i for v, i in zip(potential, now, strict=True)]
        for unit in range(5):
            around = [potential[(unit + offset) % 5] for offset in (-1, 0, 1)]
            coupled = 0.4 * math.log(sum(math.exp(v / 0.4) for v in around))
            assert fired[unit] == pytest.approx(1 / (1 + math.exp(-coupled / 0.4)), abs=1e-12)
        potential = [v * (1 - s) for v, s in zip(potential, fired, strict=True)]


def test_the_ring_couples_units_and_not_the_batch():
    neuron, current = UltraDLIF(6).double(), randn(3, 6)
    kicked = current.clone()
    kicked[1, 2] += 1.0
    changed = neuron(kicked)[0] != neuron(current)[0]
    assert torch.equal(changed.nonzero(), torch.tensor([[1, 1], [1, 2], [1, 3]]))
    turned, _ = neuron.sequence(closed_form(6).roll(2, -1))
    assert_close(turned, neuron.sequence(closed_form(6))[0].roll(2, -1))


def test_a_table_of_neighbours_can_be_a_ring():
    units = torch.arange(5)
    table = torch.stack(((units - 1) % 5, (units + 1) % 5), 1)
    for order in ("leak_then_lse", "lse_then_input"):
        by_table = UltraDLIF(5, coupling=table, order=order).double().sequence(closed_form(5))
        ring = UltraDLIF(5, order=order).double().sequence(closed_form(5))
        assert_close(by_table, ring)


def test_without_coupling_ultradlif_is_sigmalif():
    alone = UltraDLIF(4, coupling="none").double().sequence(closed_form(4))
    assert_close(alone, SigmaLIF().double().sequence(closed_form(4)), rtol=0, atol=0)
    assert not torch.allclose(alone[0], UltraDLIF(4).double().sequence(closed_form(4))[0], atol=0.1)


def test_at_one_step_a_learned_decay_makes_no_difference_on_a_ring():
    current = closed_form(4, 1)
    fixed, learned = UltraDLIF(4, 0.9), UltraDLIF(4, OFFICIAL_DECAY, learn_decay=True)
    assert torch.equal(fixed.sequence(current)[0], learned.sequence(current)[0])
    assert not torch.equal(fixed.sequence(closed_form(4))[0], learned.sequence(closed_form(4))[0])


def test_plif_is_lif_with_a_learned_decay():
    lif = LIF(
        OFFICIAL_DECAY,
        0.5,
        reset="zero",
        surrogate=SigmoidSurrogate(10.0),
        detach_reset=False,
        smooth=True,
        learn_decay=True,
    )
    assert_close(PLIF().double().sequence(closed_form(4)), lif.double().sequence(closed_form(4)))


def test_a_large_adaptation_silences():
    loud = torch.ones(30, 1, 1).double()
    plain, adapted = AdaLIF(strength=0.0).double().sequence(loud)[0], AdaLIF(strength=3.0).double().sequence(loud)[0]
    assert_close(plain, soft_lif().double().sequence(loud)[0])
    assert adapted.mean() < 0.7 * plain.mean()


def test_a_learned_decay_beyond_one_is_used_and_shown_unless_clamped():
    current = closed_form(3)
    free, clamped = UltraLIF(learn_decay=True).double(), UltraLIF(learn_decay=True, decay_range=(0.01, 0.99)).double()
    for neuron in (free, clamped):
        neuron.learned_log_decay.data.fill_(0.2)
    assert free.decay.item() == pytest.approx(math.exp(0.2))
    assert clamped.decay.item() == pytest.approx(0.99)
    assert_close(clamped.sequence(current), UltraLIF(0.99).double().sequence(current))
    assert (free.sequence(current)[0] > clamped.sequence(current)[0]).all()


def test_temperatures_are_clamped_as_they_learn():
    for neuron in (UltraLIF(), UltraDLIF(3), SigmaLIF()):
        for log_eps, expected in ((-9.0, 0.1), (9.0, 20.0), (0.3, math.exp(0.3))):
            neuron.temperature.log_eps.data.fill_(log_eps)
            assert neuron.eps.item() == pytest.approx(expected)
    assert UltraLIF(eps=0.01, learn_eps=False).eps == 0.01


# --- steps, sequences, gradients --------------------------------------------------------------------------------------


@every_neuron
def test_a_sequence_is_its_steps_and_can_be_cut(name):
    neuron, current = NEURONS[name]().double(), randn(7, 3, 4)
    expected, last = loop(neuron, current)
    spikes, state = neuron.sequence(current)
    assert_close((spikes, state), (expected, last))
    first, between = neuron.sequence(current[:4])
    second, end = neuron.sequence(current[4:], between)
    assert_close((torch.cat((first, second)), end), (expected, last))
    with hard_spikes(neuron):
        assert_close(neuron.sequence(current), loop(neuron, current))


@every_neuron
def test_gradients_are_those_of_finite_differences(name):
    neuron, current = NEURONS[name]().double(), randn(4, 2, 4).requires_grad_()
    parameters = dict(neuron.named_parameters())
    state = neuron.initial_state(current[0])
    if isinstance(state, torch.Tensor):
        state = (state + 0.1).detach().requires_grad_()

    def run(current, state, *values):
        spikes, last = functional_call(
            Sequence(neuron), dict(zip((f"neuron.{n}" for n in parameters), values, strict=True)), (current, state)
        )
        return spikes, *(last if isinstance(last, tuple) else (last,))

    if isinstance(state, tuple):
        inputs = (current, None, *parameters.values())
    else:
        inputs = (current, state, *parameters.values())
    assert torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-6)


class Sequence(nn.Module):
    """A neuron whose call is a whole sequence, as functional_call wants it."""

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, current, state=None):
        return self.neuron.sequence(current, state)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(list(FUSED)),
    steps=st.integers(1, 6),
    scale=st.sampled_from([0.1, 3.0, 100.0]),
    wanted=st.sampled_from(["spikes", "state", "both"]),
    seed=st.integers(0, 100),
)
def test_the_fused_sequence_has_the_gradients_of_the_plain_loop(name, steps, scale, wanted, seed):
    def gradients(run):
        neuron = FUSED[name]().double()
        current = (scale * randn(steps, 2, 4, seed=seed)).requires_grad_()
        state = randn(2, 4, seed=seed + 1).requires_grad_()
        spikes, last = run(neuron, current, state)
        loss = 0.0
        if wanted != "state":
            loss = loss + (spikes * randn(steps, 2, 4, seed=seed + 2)).sum()
        if wanted != "spikes":
            loss = loss + (last * randn(2, 4, seed=seed + 3)).sum()
        loss.backward()
        return current.grad, state.grad, [p.grad for p in neuron.parameters()]

    fused = gradients(lambda neuron, current, state: neuron.sequence(current, state))
    assert_close(fused, gradients(loop), rtol=1e-8, atol=1e-9)


def test_the_fused_sequence_keeps_its_inputs_and_refuses_a_second_derivative():
    for neuron in (UltraLIF(), UltraDLIF(4)):
        current, state = torch.randn(3, 2, 4).requires_grad_(), torch.zeros(2, 4)
        before = current.detach().clone()
        spikes, _ = neuron.sequence(current, state)
        (first,) = torch.autograd.grad(spikes.sum(), current, create_graph=True)
        assert torch.equal(current.detach(), before)
        assert not state.any()
        with pytest.raises(RuntimeError, match=r"no second derivative; loop over step\(\)"):
            first.sum().backward()


def test_counts_of_thousands_leave_everything_finite():
    for neuron in (UltraLIF(eps=0.1, learn_decay=True), UltraDLIF(8, eps=0.1, learn_decay=True), SigmaLIF(eps=0.1)):
        current = (3000 * torch.randn(5, 4, 8, generator=torch.Generator().manual_seed(0))).requires_grad_()
        spikes, state = neuron.sequence(current)
        (spikes.sum() + state.sum()).backward()
        for tensor in (spikes, state, current.grad, *(p.grad for p in neuron.parameters())):
            assert tensor.isfinite().all()


@pytest.mark.parametrize("name", ["UltraLIF", "UltraPLIF_DS", "ablation UltraPLIF", "UltraDPLIF", "SigmaLIF", "LIF"])
def test_networks_at_once_are_networks_one_by_one(name):
    networks = []
    for seed in range(3):
        torch.manual_seed(seed)
        network = nn.Sequential(MultiStep(nn.Linear(5, 4)), MultiStep(NEURONS[name]())).double()
        for parameter in network[1].parameters():
            parameter.data += 0.1 * seed
        networks.append(network)
    parameters, buffers = stack_module_state(networks)
    template = copy.deepcopy(networks[0]).to("meta")
    current = randn(6, 2, 5)

    def loss(parameters, buffers, current):
        return functional_call(template, (parameters, buffers), (current,)).square().sum()

    together = vmap(grad(loss), (0, 0, None))(parameters, buffers, current)
    through = torch.autograd.grad(
        vmap(loss, (0, 0, None))(parameters, buffers, current).sum(), list(parameters.values())
    )
    for at, network in enumerate(networks):
        network(current).square().sum().backward()
        for (key, parameter), outside in zip(network.named_parameters(), through, strict=True):
            assert_close(together[key][at], parameter.grad, msg=key)
            assert_close(outside[at], parameter.grad, msg=key)


def test_currents_at_once_are_currents_one_by_one():
    currents = randn(3, 5, 2, 4)
    for neuron in (UltraLIF(learn_decay=True).double(), UltraDLIF(4, learn_decay=True).double()):
        spikes, states = vmap(neuron.sequence)(currents)
        for current, fired, state in zip(currents, spikes, states, strict=True):
            assert_close((fired, state), neuron.sequence(current))


# --- the house's rules ------------------------------------------------------------------------------------------------


@every_neuron
def test_mechanism(name):
    current = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    check_mechanism(
        NEURONS[name](),
        current,
        gradients=False,
        dtypes=(torch.float32, torch.float64, torch.bfloat16),
        bad_inputs={
            "integers": (torch.ones(2, 4, dtype=torch.long),),
            "a state of another shape": (torch.zeros(2, 4), torch.zeros(3, 4)),
            "a state of another dtype": (torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.float64)),
        },
    )
    layer = nn.Sequential(MultiStep(nn.Linear(4, 4)), MultiStep(NEURONS[name]()))
    check_mechanism(layer, torch.stack((current, -current, current)), batch_dim=1)


def test_half_precision_is_computed_in_single():
    current = torch.randn(20, 4, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    for neuron in (UltraLIF(), UltraDLIF(8)):
        spikes, state = neuron.sequence(current)
        assert spikes.dtype == state.dtype == torch.bfloat16
        assert_close(spikes.float(), neuron.sequence(current.float())[0], atol=0.02, rtol=0)


def test_hard_spikes_are_zeros_and_ones_and_end_with_the_block():
    network = nn.Sequential(MultiStep(nn.Linear(5, 6)), MultiStep(UltraLIF()), MultiStep(UltraDLIF(6)))
    network.append(MultiStep(soft_lif(smooth=False)))
    current = torch.randn(4, 3, 5)
    graded = network[:2](current)
    with hard_spikes(network):
        assert set(network[:3](current).unique().tolist()) <= {0.0, 1.0}
    with pytest.raises(RuntimeError, match="mat1 and mat2"), hard_spikes(network):
        network(current[:, :, 1:])
    assert torch.equal(network[:2](current), graded)
    assert [module.smooth for module in network.modules() if isinstance(module, SpikingNeuron)] == [True, True, False]


@every_neuron
def test_hard_spikes_fire_where_the_graded_ones_reach_one_half(name):
    neuron, current = NEURONS[name]().double(), 2 * randn(40, 4)
    graded, _ = neuron(current)
    with hard_spikes(neuron):
        spikes, state = neuron(current)
    assert torch.equal(spikes, (graded >= 0.5).double())
    held = state[0] if isinstance(state, tuple) else state
    assert (held[spikes == 1] == 0).all()
    assert 0 < spikes.mean() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UltraLIF(eps=0.0), "eps must be a positive number"),
        (lambda: UltraDLIF(4, eps=-1.0), "eps must be a positive number"),
        (lambda: UltraLIF(eps=0.05), r"a learned eps must start within \[0.1, 20.0\].*learn_eps=False"),
        (lambda: UltraLIF(1.0), r"decay must be a number in \(0, 1\), got 1.0"),
        (lambda: UltraDLIF(4, 0.0), r"decay must be a number in \(0, 1\), got 0.0"),
        (lambda: SigmaLIF(1.5), r"decay must be a number in \(0, 1\), got 1.5"),
        (lambda: UltraLIF(0.9, decay_range=(0.95, 0.99)), "decay_range must be"),
        (lambda: UltraLIF(spike_scale=0.01), r"spike_scale must lie within \[0.1, 50.0\]"),
        (lambda: UltraLIF(threshold=math.nan), "threshold must be a finite number"),
        (lambda: UltraDLIF(2), "a ring needs three units or more, got size=2; use coupling='none'"),
        (lambda: UltraDLIF(0), "size must be a positive number"),
        (lambda: UltraDLIF(4, coupling="grid"), "coupling must be 'ring', 'none' or a table"),
        (lambda: UltraDLIF(4, order="input"), "order must be one of leak_then_lse, lse_then_input"),
        (lambda: UltraDLIF(4, None), "decay=None needs order"),
        (lambda: UltraDLIF(4, coupling=torch.zeros(4, 2)), "must hold integers"),
        (lambda: UltraDLIF(4, coupling=torch.zeros(3, 2, dtype=torch.long)), r"must be \(4, neighbours\)"),
        (lambda: UltraDLIF(2, coupling=torch.tensor([[1], [2]])), "neighbours must be units 0 to 1, got 1 to 2"),
        (lambda: UltraDLIF(2, coupling=torch.tensor([[1], [1]])), "a term of its own soft maximum already"),
        (lambda: PLIF(threshold=2.0, learn_threshold=True), r"a learned threshold must start in \(0, 1\)"),
        (lambda: DSpike(threshold=0.0), "threshold must be a positive number"),
        (lambda: AdaLIF(memory=1.0), r"memory must lie in \(0, 1\)"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_currents_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the last dimension of current must hold the layer's 4 units"):
        UltraDLIF(4)(torch.zeros(4, 5))
    for neuron in (UltraLIF(), UltraDLIF(4), AdaLIF()):
        with pytest.raises(ValueError, match="at least one time step"):
            neuron.sequence(torch.zeros(0, 2, 4))
        with pytest.raises(TypeError, match=r"call \.float\(\) on it"):
            neuron.sequence(torch.zeros(1, 2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="state must be 2 tensors, got 1"):
        AdaLIF()(torch.zeros(2, 4), torch.zeros(2, 4))
