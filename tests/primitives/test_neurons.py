import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap

from interplay.primitives.neurons import (
    LIF,
    ATanSurrogate,
    FastSigmoidSurrogate,
    MultiStep,
    SigmoidSurrogate,
    SpikingNeuron,
    TriangleSurrogate,
    spike,
)
from interplay.testing import check_mechanism, check_refused

SURROGATES = [SigmoidSurrogate(4.0), ATanSurrogate(2.0), FastSigmoidSurrogate(25.0), TriangleSurrogate(0.8)]
SETTINGS = list(itertools.product(["subtract", "zero", "none"], [True, False], [True, False]))


def currents(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype) + 0.4


def stepwise(neuron, current, state=None):
    """The obvious loop, differentiated by autograd."""
    return SpikingNeuron._run(neuron, current, neuron.initial_state(current[0]) if state is None else state)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda surrogate: type(surrogate).__name__)
def test_derivative_of_a_surrogate_is_that_of_its_smooth_function(surrogate):
    x = torch.linspace(-1.5, 1.5, 301, dtype=torch.float64) + 1e-3
    finite = (surrogate.smooth(x + 1e-6) - surrogate.smooth(x - 1e-6)) / 2e-6
    torch.testing.assert_close(surrogate.derivative(x), finite, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("surrogate", SURROGATES, ids=lambda surrogate: type(surrogate).__name__)
def test_spike_steps_forward_and_follows_the_surrogate_backward(surrogate):
    x = torch.tensor([-0.3, -1e-9, 0.0, 0.2], dtype=torch.float64, requires_grad=True)
    spikes = spike(x, surrogate)
    assert spikes.tolist() == [0, 0, 1, 1]
    upstream = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    spikes.backward(upstream)
    torch.testing.assert_close(x.grad, upstream * surrogate.derivative(x.detach()))


def test_constant_current_fires_at_the_period_of_the_closed_form():
    # From rest u_t = I (1 - decay^t) / (1 - decay): the first crossing is at t = log(1 - (1 - decay) / I) / log(decay).
    decay, current = 0.9, 0.25
    period = math.ceil(math.log(1 - (1 - decay) / current) / math.log(decay))
    spikes, _ = LIF(decay, reset="zero").sequence(torch.full((5 * period, 1, 1), current, dtype=torch.float64))
    assert spikes.flatten().nonzero().flatten().tolist() == [period * k - 1 for k in range(1, 6)]


def test_without_reset_the_membrane_is_a_geometric_sum():
    current = currents(7, 2, 3)
    _, potential = LIF(0.8, reset="none").sequence(current)
    weights = 0.8 ** torch.arange(6, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(potential, torch.einsum("t,tbn->bn", weights, current))


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 17])
@pytest.mark.parametrize(("reset", "detach_reset", "smooth"), SETTINGS)
def test_the_fused_sequence_equals_the_loop_over_steps(reset, detach_reset, smooth, steps):
    settings = {"reset": reset, "detach_reset": detach_reset, "smooth": smooth, "threshold": 0.7}
    decay = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    results = []
    for run in (LIF.sequence, stepwise):
        neuron = LIF(decay, learn_decay=True, **settings)
        current = currents(steps, 2, 3).requires_grad_()
        initial = currents(2, 3, seed=1).requires_grad_()
        spikes, potential = run(neuron, current, initial)
        (spikes * currents(steps, 2, 3, seed=2)).sum().add((potential**2).sum()).backward()
        results.append([spikes, potential, current.grad, initial.grad, neuron.decay_logit.grad])
    for fused, loop in zip(*results, strict=True):
        torch.testing.assert_close(fused, loop, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reset", ["subtract", "zero", "none"])
def test_gradient_of_the_smooth_neuron_is_exact(reset):
    neuron = LIF(0.6, reset=reset, smooth=True, detach_reset=False, surrogate=SigmoidSurrogate(3.0)).double()
    assert torch.autograd.gradcheck(neuron.sequence, (currents(5, 2, 2).requires_grad_(),))


PEERS = json.loads((Path(__file__).parent / "data" / "lif_of_peers.json").read_text())
AS_PEERS = {
    "spikingjelly LIFNode subtract detached": LIF(0.5),
    "spikingjelly LIFNode subtract attached": LIF(0.5, detach_reset=False),
    "spikingjelly LIFNode zero detached": LIF(0.5, reset="zero"),
    "spikingjelly LIFNode zero attached": LIF(0.5, reset="zero", detach_reset=False),
    "spikingjelly ParametricLIFNode": LIF(0.5, reset="zero", surrogate=ATanSurrogate(2.0), learn_decay=True),
    "snntorch Leaky subtract": LIF(torch.tensor(0.9), surrogate=FastSigmoidSurrogate(25.0), detach_reset=False),
    "snntorch Leaky zero": LIF(
        torch.tensor(0.9), reset="zero", surrogate=FastSigmoidSurrogate(25.0), detach_reset=False
    ),
}


@pytest.mark.parametrize("peer", PEERS["cases"])
def test_spikes_and_gradients_are_those_of_the_peers(peer):
    # Recorded by running the peers (versions in the file) on this input; snnTorch with reset_delay=False.
    index = torch.arange(72, dtype=torch.float64)
    current = (0.35 + 0.5 * torch.sin(0.7 * index)).view(12, 2, 3).requires_grad_()
    neuron, recorded = AS_PEERS[peer].double(), PEERS["cases"][peer]
    spikes, _ = neuron.sequence(current)
    (spikes * torch.cos(0.3 * index).view(12, 2, 3)).sum().backward()
    assert spikes.flatten().tolist() == recorded["spikes"]
    torch.testing.assert_close(current.grad.flatten().tolist(), recorded["gradient"])
    if "decay_gradient" in recorded:
        assert neuron.decay_logit.grad.item() == pytest.approx(recorded["decay_gradient"])


def test_a_sequence_can_be_cut_anywhere():
    neuron, current = LIF(0.7), currents(9, 2, 3)
    whole, last = neuron.sequence(current)
    first, state = neuron.sequence(current[:4])
    second, state = neuron.sequence(current[4:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=0, atol=0)
    torch.testing.assert_close(state, last, rtol=0, atol=0)


@pytest.mark.parametrize("decay", [0.7, torch.tensor([0.2, 0.5, 0.9])], ids=["one", "each"])
def test_steps_and_sequence_agree_to_the_bit(decay):
    neuron, current = LIF(decay), currents(50, 8, 3, dtype=torch.float32)
    for fused, loop in zip(neuron.sequence(current), stepwise(neuron, current), strict=True):
        torch.testing.assert_close(fused, loop, rtol=0, atol=0)


def test_one_gradient_may_be_missing():
    for pick in (0, 1):
        grads = []
        for run in (LIF.sequence, stepwise):
            current = currents(6, 2, 3).requires_grad_()
            run(LIF(0.7), current)[pick].sum().backward()
            grads.append(current.grad)
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("decay", [0.6, torch.tensor(0.6), torch.tensor([0.2, 0.5, 0.9])], ids=["fixed", "one", "each"])
def test_networks_side_by_side_equal_networks_one_by_one(decay):
    learn = isinstance(decay, torch.Tensor)
    torch.manual_seed(0)
    nets = [
        nn.Sequential(MultiStep(nn.Linear(4, 3)), MultiStep(LIF(decay, learn_decay=learn, reset="zero"))).double()
        for _ in range(3)
    ]
    with torch.no_grad():
        for shift, net in enumerate(nets):
            for parameter in net[1].parameters():
                parameter.add_(0.1 * shift)
    parameters, buffers = stack_module_state(nets)
    inputs, weights = currents(5, 2, 4), currents(5, 2, 3, seed=3)

    def loss(parameters, buffers, inputs):
        return (functional_call(nets[0], (parameters, buffers), (inputs,)) * weights).sum()

    together = vmap(grad(loss), in_dims=(0, 0, None))(parameters, buffers, inputs)
    for index, net in enumerate(nets):
        net.zero_grad()
        loss(dict(net.named_parameters()), dict(net.named_buffers()), inputs).backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(together[name][index], parameter.grad)

    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    vmap(loss, in_dims=(0, 0, None))(leaves, buffers, inputs).sum().backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, together[name])


def test_multi_step_folds_time_for_layers_and_keeps_state_on_demand():
    inputs = currents(6, 2, 3, dtype=torch.float32)
    linear = nn.Linear(3, 5)
    torch.testing.assert_close(MultiStep(linear)(inputs), linear(inputs))

    stream = MultiStep(LIF(0.7), keep_state=True)
    pieces = torch.cat([stream(inputs[:2]), stream(inputs[2:])])
    torch.testing.assert_close(pieces, MultiStep(LIF(0.7))(inputs), rtol=0, atol=0)
    stream.reset()
    torch.testing.assert_close(stream(inputs), MultiStep(LIF(0.7))(inputs), rtol=0, atol=0)


def test_detach_cuts_the_gradient_between_windows():
    stream = MultiStep(LIF(0.7, reset="none"), keep_state=True)
    first = currents(3, 2, 2).requires_grad_()
    second = currents(3, 2, 2, seed=1).requires_grad_()
    stream(first)
    stream.detach()
    stream(second).sum().backward()
    assert first.grad is None
    assert second.grad is not None


@pytest.mark.parametrize("learn", [True, False])
def test_lif_passes_the_battery(learn):
    neuron = LIF(torch.tensor([0.5, 0.8]), learn_decay=learn)
    bad = {"integers": (torch.ones(3, 4, 2, dtype=torch.long),), "no time": (torch.ones(0, 4, 2),)}
    check_mechanism(
        MultiStep(neuron), currents(5, 4, 2, dtype=torch.float32), batch_dim=1, gradients=learn, bad_inputs=bad
    )
    check_mechanism(neuron, currents(4, 2, dtype=torch.float32), gradients=False)  # from rest nothing decays yet


def test_half_precision_stays_half():
    neuron, current = LIF(torch.tensor([0.5, 0.8])), currents(5, 4, 2, dtype=torch.bfloat16)
    for spikes, state in (neuron.sequence(current), neuron(current[0])):
        assert spikes.dtype == state.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch's own tracing
def test_compiles_without_a_break():
    current = currents(5, 2, 3, dtype=torch.float32)
    compiled = torch.compile(LIF(0.7).sequence, backend="aot_eager", fullgraph=True)
    for one, other in zip(compiled(current), LIF(0.7).sequence(current), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("what", "call", "says"),
    [
        ("decay of one", lambda: LIF(1.0), "decay must lie in (0, 1)"),
        ("threshold zero", lambda: LIF(threshold=0.0), "threshold must be"),
        ("unknown reset", lambda: LIF(reset="hard"), "subtract, zero, none"),
        ("negative slope", lambda: SigmoidSurrogate(-1.0), "slope of SigmoidSurrogate"),
        ("state of another batch", lambda: LIF()(torch.ones(2, 3), torch.ones(4, 3)), "(2, 3)"),
        ("state of another dtype", lambda: LIF()(torch.ones(2, 3), torch.ones(2, 3).double()), "float64"),
        ("two states", lambda: LIF()(torch.ones(2, 3), (torch.ones(2, 3),) * 2), "must be 1 tensors"),
        ("no batch", lambda: LIF().sequence(torch.ones(5)), "(time, batch, ...)"),
        ("integers", lambda: LIF()(torch.ones(2, 3, dtype=torch.int32)), ".float()"),
        ("stream of a layer", lambda: MultiStep(nn.Linear(2, 2), keep_state=True), "has no state"),
    ],
)
def test_bad_input_is_refused_with_a_reason(what, call, says):
    assert says in check_refused(call, what)
