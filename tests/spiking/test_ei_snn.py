"""E-I layers: against the official code's numbers, loops over units, the moments that E-I Init promises."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.testing import assert_close

from interplay.primitives.neurons import LIF, MultiStep
from interplay.spiking.ei_snn import (
    DirectCoding,
    EIConv2d,
    EILinear,
    EIProp,
    constrain,
    ei_circuit,
    ei_mlp,
    ei_vgg,
    sew_ei_resnet18,
)
from interplay.testing import check_mechanism, check_same_seed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spikes(*shape: int, rate: float = 0.3, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(*shape, generator=generator(seed)) < rate).to(dtype)


def initialised(layer: EILinear | EIConv2d, x: Tensor) -> EILinear | EIConv2d:
    layer.initialize_(x)
    return layer


def linear(seed: int = 0, **settings) -> EILinear:
    layer = EILinear(20, 12, generator=generator(seed), **settings)
    return initialised(layer, spikes(40, 20, seed=1))


def convolution(seed: int = 0, **settings) -> EIConv2d:
    layer = EIConv2d(3, 8, 3, padding=1, generator=generator(seed), **settings)
    return initialised(layer, spikes(6, 3, 5, 4, seed=1))


# --- the circuit ----------------------------------------------------------------------------------------------------


def wave(*shape: int, frequency: float, phase: float = 0.0) -> Tensor:
    return torch.sin(frequency * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape)


def of_closed_form(layer: EILinear | EIConv2d) -> EILinear | EIConv2d:
    """The weights that the official layers were given; unit 3 gets no inhibition at all."""
    layer = layer.double()
    weight_ei = wave(*layer.weight_ei.shape, frequency=0.9, phase=0.3).clamp(min=0)
    weight_ei[3] = 0
    state = {
        "weight": torch.cat(
            [
                wave(*layer.weight_ee.shape, frequency=1.1).abs(),
                wave(*layer.weight_ie.shape, frequency=0.7).abs(),
            ]
        ),
        "weight_ei": weight_ei,
        "is_initialized": torch.tensor(True),
    }
    if not layer.output_layer:
        state["gain_i"] = wave(2, frequency=0.5, phase=0.4).abs()
        state["gain_e"] = wave(8, frequency=0.6, phase=0.2).abs()
        state["bias"] = wave(8, frequency=0.8)
    layer.load_state_dict(state)
    return layer


OFFICIAL = {
    "linear": (lambda: EILinear(6, 8), (5, 6), 1.3, 2),
    "linear output layer": (lambda: EILinear(6, 8, output_layer=True), (5, 6), 1.3, 2),
    "convolution": (lambda: EIConv2d(2, 8, 3, padding=1), (3, 2, 5, 4), 1.7, 1),
}


@pytest.mark.parametrize("case", OFFICIAL)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_outputs_and_gradients_are_those_of_the_official_code(case, dtype):
    """The official modules were given the same closed-form weights and inputs, one sample of which is silent."""
    recorded = json.loads((Path(__file__).parent / "data" / "ei_snn_official.json").read_text())[case]
    make, shape, frequency, silent = OFFICIAL[case]
    layer = of_closed_form(make()).to(dtype)
    x = wave(*shape, frequency=frequency).clamp(min=0)
    x[silent] = 0
    x = x.to(dtype).requires_grad_()
    output = layer(x)
    (output * wave(*output.shape, frequency=0.37, phase=1.0)).sum().backward()
    found = {"x": x.grad, "weight_ei": layer.weight_ei.grad}
    found |= dict(zip(("weight_ee", "weight_ie"), layer.weight.grad.split((8, 2)), strict=True))
    if not layer.output_layer:
        found |= {name: getattr(layer, name).grad for name in ("gain_i", "gain_e", "bias")}
    # Single precision cancels in the sums over positions, relative to the largest entry of a gradient.
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for name, values in {"output": recorded["output"], **recorded["gradients"]}.items():
        expected = torch.tensor(values, dtype=torch.float64)
        ours = (output if name == "output" else found.pop(name)).detach().double().flatten()
        assert_close(ours, expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
    assert not found


@pytest.mark.parametrize("case", ["linear", "convolution"])
def test_initial_scales_are_those_of_the_official_code(case):
    recorded = json.loads((Path(__file__).parent / "data" / "ei_snn_official.json").read_text())[case]["initial"]
    make, shape, frequency, silent = OFFICIAL[case]
    x = wave(*shape, frequency=frequency).clamp(min=0).float()
    x[silent] = 0
    layer = make()
    assert layer.initialize_(x).scale == pytest.approx(recorded["scale"], rel=1e-6)
    assert_close(layer.gain_i, torch.full_like(layer.gain_i, recorded["gain_i"]))
    assert_close(layer.weight_ei, torch.full_like(layer.weight_ei, recorded["weight_ei"]))


def by_hand(layer: EILinear, x: list[float]) -> list[float]:
    """One sample, unit by unit, as the equations are written."""
    weight_ee, weight_ie, weight_ei = (w.tolist() for w in (layer.weight_ee, layer.weight_ie, layer.weight_ei))
    inhibitors = [sum(w * value for w, value in zip(row, x, strict=True)) for row in weight_ie]
    balanced = [
        sum(w * value for w, value in zip(row, x, strict=True))
        - sum(w * i for w, i in zip(lateral, inhibitors, strict=True))
        for row, lateral in zip(weight_ee, weight_ei, strict=True)
    ]
    gains = layer.gain_i.tolist()
    divisive = [sum(w * g * i for w, g, i in zip(row, gains, inhibitors, strict=True)) for row in weight_ei]
    smallest = min((value for value in divisive if value), default=math.inf)
    return [
        g * b / (d or smallest) + bias
        for g, b, d, bias in zip(layer.gain_e.tolist(), balanced, divisive, layer.bias.tolist(), strict=True)
    ]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), rate=st.sampled_from([0.0, 0.05, 0.5]))
def test_a_layer_computes_the_equations(seed, rate):
    layer = linear(seed).double()
    with torch.no_grad():
        layer.weight_ei.mul_(spikes(12, 3, rate=0.6, seed=seed))
        layer.gain_e.uniform_(0, 2, generator=generator(seed))
        layer.bias.uniform_(-1, 1, generator=generator(seed))
    x = spikes(4, 20, rate=rate, seed=seed, dtype=torch.float64)
    assert_close(layer(x), torch.tensor([by_hand(layer, row) for row in x.tolist()], dtype=torch.float64))


def test_a_convolution_is_the_linear_layer_at_every_position():
    layer = convolution().double()
    x = spikes(2, 3, 5, 4, rate=0.7, seed=3, dtype=torch.float64)
    currents = layer.currents(x)
    assert (currents.divisive > 0).all()  # the samples' minima, which span positions, are not in play
    patches = nn.functional.unfold(x, 3, padding=1).transpose(1, 2)  # (batch, positions, 27)
    flat = EILinear(27, 8).double()
    state = layer.state_dict()
    flat.load_state_dict({**state, "weight": state["weight"].flatten(1)})
    assert_close(layer(x).flatten(2).transpose(1, 2), flat(patches))


def test_currents_make_up_the_output():
    layer, x = linear(), spikes(5, 20, seed=3)
    currents = layer.currents(x)
    assert_close(currents.balanced, currents.excitation - currents.subtractive)
    assert_close(layer.gain_e * currents.balanced / currents.divisive + layer.bias, layer(x))
    output = linear(output_layer=True)
    assert_close(output.currents(x).balanced, output(x))
    assert output.currents(x).divisive.isnan().all()


def test_a_silent_sample_gives_the_bias():
    layer = linear()
    with torch.no_grad():
        layer.bias.copy_(torch.linspace(-1, 1, 12))
    x = torch.stack([torch.zeros(20), torch.ones(20)]).requires_grad_()
    out = layer(x)
    assert torch.equal(out[0], layer.bias)
    out.sum().backward()
    assert layer.weight.grad.isfinite().all()
    assert x.grad.isfinite().all()


# --- E-I Prop -------------------------------------------------------------------------------------------------------


def gradients(layer: EILinear | EIConv2d, x: Tensor) -> dict[str, Tensor]:
    layer.zero_grad()
    output = layer(x)
    (output * wave(*output.shape, frequency=0.7).to(output.dtype)).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in layer.named_parameters()}


@pytest.mark.parametrize("make", [linear, convolution])
def test_the_gradient_is_the_derivative_except_where_it_is_meant_not_to_be(make):
    """Finite differences, on inputs without zero denominators."""
    layer = make().double()
    shape = (4, 20) if isinstance(layer, EILinear) else (3, 3, 5, 4)
    x = spikes(*shape, rate=0.9, seed=5, dtype=torch.float64)
    names = [name for name, _ in layer.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
    exact = make(ei_prop=EIProp(scale_gradient=False)).double()

    def run(*parameters: Tensor) -> Tensor:
        return functional_call(exact, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, values)
    exact.load_state_dict(layer.state_dict())
    as_meant, derivative = gradients(layer, x), gradients(exact, x)
    for name in names:
        scale = 1 / layer.fan_in if name == "weight_ei" else 1.0
        assert_close(as_meant[name], derivative[name] * scale)


def test_weight_decay_is_not_scaled_with_the_gradient():
    layer = linear()
    before = layer.weight_ei.detach().clone()
    gradient = gradients(layer, spikes(4, 20, seed=2))["weight_ei"]
    torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=0.5).step()
    assert_close(layer.weight_ei, before - 0.1 * (gradient + 0.5 * before))


def test_the_ablation_without_straight_through_adds_a_constant():
    layer, x = linear(ei_prop=EIProp(straight_through=False, epsilon=0.5)), spikes(5, 20, seed=3)
    with torch.no_grad():
        layer.weight_ei[3] = 0
    currents = layer.currents(x)
    assert_close(layer(x), layer.gain_e * currents.balanced / (currents.divisive + 0.5) + layer.bias)
    full = linear()
    full.load_state_dict(layer.state_dict())
    assert not torch.allclose(layer(x), full(x))
    assert linear(ei_prop=False).ei_prop == EIProp(scale_gradient=False, straight_through=False)


# --- E-I Init -------------------------------------------------------------------------------------------------------


def test_initialisation_balances_and_sets_the_gain():
    """For independent inputs: mean 0, standard deviation sqrt(q / (q + v)), divisive current sqrt(v)."""
    x = spikes(1000, 400, rate=0.3)
    layer = EILinear(400, 4000, generator=generator())
    found = layer.initialize_(x)
    q, v = 0.3, 0.3 * 0.7
    assert (found.mean, found.variance, found.second_moment) == pytest.approx((0.3, v, q), rel=0.02)
    currents = layer.currents(x)
    assert currents.divisive.mean().item() == pytest.approx(math.sqrt(v), rel=0.02)
    assert currents.excitation.var().item() == pytest.approx(v, rel=0.1)
    out = layer(x)
    assert abs(out.mean().item()) < 4 / math.sqrt(1000)  # what is left is the draw of the 1,000 inhibitory units
    assert out.std().item() == pytest.approx(math.sqrt(q / (q + v)), rel=0.05)


def test_weights_are_exponential_of_the_scale_and_inhibition_is_uniform():
    layer = EILinear(300, 200, generator=generator())
    found = layer.initialize_(spikes(50, 300))
    weights = layer.weight.detach().flatten()
    assert found.scale == pytest.approx(
        math.sqrt(found.variance / (300 * (found.second_moment + found.variance))), rel=1e-6
    )
    quantiles = torch.tensor([0.1, 0.5, 0.9])
    assert_close(weights.quantile(quantiles), -found.scale * (1 - quantiles).log(), rtol=0.02, atol=0)
    assert torch.equal(layer.weight_ei, torch.full((200, 50), 1 / 50))
    assert torch.equal(layer.gain_i, torch.full((50,), found.inhibitory_gain))
    assert torch.equal(layer.gain_e, torch.ones(200))
    assert torch.equal(layer.bias, torch.zeros(200))


def test_the_variance_is_over_the_batch_and_not_over_features():
    x = torch.zeros(40, 20)
    x[:, :10] = 1.0  # a constant border: large variance between features, none over the batch
    x[:, 10:] = spikes(40, 10)
    expected = x.var(0).mean().item()
    assert EILinear(20, 8).initialize_(x).variance == pytest.approx(expected)
    assert expected < 0.5 * x.var().item()
    images = x.reshape(40, 1, 4, 5)
    assert EIConv2d(1, 8, 3).initialize_(images).variance == pytest.approx(expected)


def test_the_first_call_initialises_and_time_counts_as_batch():
    sequence = spikes(4, 10, 20)
    lazy, folded = EILinear(20, 8, generator=generator()), EILinear(20, 8, generator=generator())
    assert not lazy.is_initialized
    folded.initialize_(sequence.flatten(0, 1))
    out = lazy(sequence)
    assert lazy.is_initialized
    assert torch.equal(out, folded(sequence))
    assert torch.equal(lazy(sequence), out)


def test_layers_above_are_initialised_by_what_the_layers_below_send():
    network = ei_mlp(4, in_features=50, hidden=(32, 32, 32), generator=generator())
    network(torch.rand(64, 50, generator=generator(1)))
    layers = [module for module in network.modules() if isinstance(module, EILinear)]
    assert [layer.name for layer in layers] == ["layer 1", "layer 2", "layer 3", "layer 4"]
    assert all(layer.is_initialized for layer in layers)
    scales = [layer.weight.mean().item() for layer in layers[1:]]
    raw = layers[1].fan_in
    assert all(0 < scale < 1 / math.sqrt(raw) for scale in scales)
    assert len(set(scales)) == 3


def test_without_ei_init_the_scales_are_constants():
    layer = EILinear(400, 100, ei_init=False, generator=generator())
    assert layer.is_initialized
    assert layer.weight.mean().item() == pytest.approx(1 / 400, rel=0.02)
    assert torch.equal(layer.gain_i, torch.full((25,), 1 / 20))


def test_the_same_seed_gives_the_same_layer():
    check_same_seed(lambda seed: EILinear(5, 8, generator=generator(seed)).weight.detach())
    layer = EILinear(5, 8)
    layer.reset_parameters(generator(3))
    assert torch.equal(layer.weight, EILinear(5, 8, generator=generator(3)).weight)


def test_reset_waits_for_another_batch():
    layer = linear()
    with pytest.raises(ValueError, match="is initialised already; call reset_parameters"):
        layer.initialize_(spikes(9, 20))
    layer.reset_parameters()
    assert not layer.is_initialized
    layer(spikes(9, 20))
    assert layer.is_initialized


# --- the sign constraint --------------------------------------------------------------------------------------------


def smallest_constrained(model: nn.Module) -> float:
    return min(parameter.min().item() for name, parameter in model.named_parameters() if not name.endswith("bias"))


@pytest.mark.parametrize("optimiser", [torch.optim.SGD, torch.optim.Adam])
def test_weights_stay_non_negative_under_any_optimiser(optimiser):
    network = ei_mlp(4, in_features=20, hidden=(16, 16, 16), generator=generator())
    x, labels = torch.rand(30, 20, generator=generator(1)), torch.arange(30) % 10
    network(x)
    optimizer = optimiser(network.parameters(), lr=0.1)
    handle = constrain(optimizer, network)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), labels).backward()
        optimizer.step()
        assert smallest_constrained(network) == 0.0  # the constraint binds
    assert min(p.min().item() for name, p in network.named_parameters() if name.endswith("bias")) < 0
    handle.remove()
    optimizer.step()
    assert smallest_constrained(network) < 0


def test_forward_sets_negative_weights_to_zero_and_says_so_once():
    layer = linear()
    with torch.no_grad():
        layer.weight.sub_(layer.weight.mean())
    negative = layer.weight < 0
    with pytest.warns(UserWarning, match=r"of the weights of EILinear\(20, 12.*constrain\(optimizer, model\)"):
        layer(spikes(3, 20))
    assert (layer.weight[negative] == 0).all()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            layer.weight.sub_(1)
            layer(spikes(3, 20))


def test_an_optimiser_that_does_not_project_is_found_late_too():
    layer, x = linear(), spikes(3, 20)
    for _ in range(7):
        layer(x)
    with torch.no_grad():
        layer.weight.sub_(layer.weight.mean())
    with pytest.warns(UserWarning, match="constrain"):
        layer(x)


def test_a_network_runs_step_by_step_in_one_graph():
    """As in snnTorch: the same layers are called at every step, before one backward pass through all of them."""
    first, neuron, second = linear(), LIF(), EILinear(12, 8, output_layer=True, generator=generator(2))
    sequence = spikes(5, 30, 20, rate=0.6, seed=3)
    second.initialize_(spikes(30, 12))
    together = nn.Sequential(first, MultiStep(neuron), second)
    together(sequence).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in together.parameters()]
    together.zero_grad()
    state, total = None, 0.0
    for now in sequence:
        out, state = neuron(first(now), state)
        total = total + second(out).square().sum()
    total.backward()
    for parameter, grad in zip(together.parameters(), expected, strict=True):
        assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-5)


def test_constrain_wants_a_model_with_such_layers():
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="Linear has no E-I layer to constrain"):
        constrain(torch.optim.SGD(model.parameters(), lr=0.1), model)


# --- as PyTorch users expect ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [linear, convolution])
@pytest.mark.parametrize("output_layer", [False, True])
def test_the_layers_behave(make, output_layer):
    layer = make(output_layer=output_layer, check=True)
    shape = (6, 20) if make is linear else (6, 3, 5, 4)
    x = spikes(*shape, seed=4)
    check_mechanism(
        layer,
        x,
        bad_inputs={
            "negative": (x - 0.5,),
            "NaN": (torch.full_like(x, math.nan),),
            "integers": (x.long(),),
            "features": (x[..., :-1] if make is linear else x[:, :-1],),
        },
    )


@pytest.mark.parametrize(
    ("network", "images"),
    [
        (lambda: ei_mlp(4, in_features=48, hidden=(32, 32, 16), generator=generator()), (12, 3, 4, 4)),
        (lambda: ei_vgg(8, generator=generator()), (4, 3, 32, 32)),
        (lambda: sew_ei_resnet18(widths=(8, 8, 16, 16), generator=generator()), (6, 3, 16, 16)),
    ],
    ids=["mlp", "vgg", "resnet"],
)
def test_the_networks_behave(network, images):
    model = network()
    x = torch.rand(*images, generator=generator(1))
    assert model(x).shape == (len(x), 10)
    check_mechanism(model, x, dtypes=(torch.float32,))


def test_the_published_networks_have_the_published_shapes():
    def excitatory(network: nn.Module) -> list[int]:
        return [m.excitatory for m in network.modules() if isinstance(m, EILinear | EIConv2d)]

    assert excitatory(ei_mlp(8)) == [500, 500, 300, 300, 300, 100, 100, 10]
    assert excitatory(ei_mlp(16)) == [500] * 5 + [300] * 5 + [100] * 5 + [10]
    assert len(excitatory(ei_vgg(16))) == 13 + 1
    assert len(excitatory(ei_vgg(19))) == 16 + 1
    resnet = excitatory(sew_ei_resnet18())
    assert len(resnet) == 1 + 16 + 3 + 1
    assert resnet[-2:] == [512, 10]
    assert [m.inhibitory for m in ei_mlp(4, out_features=2).modules() if isinstance(m, EILinear)] == [125, 125, 75, 1]
    layer = next(m for m in ei_vgg(8, out_features=5).modules() if isinstance(m, EILinear))
    assert (layer.in_features, layer.inhibitory, layer.output_layer) == (512, 1, True)


@pytest.mark.parametrize("circuit", ["ei", "batch-norm", "plain"])
def test_direct_coding_is_the_image_at_every_step(circuit):
    images = torch.rand(6, 30, generator=generator(2))
    shown = ei_mlp(4, in_features=30, hidden=(48, 48, 48), time_steps=3, circuit=circuit)
    shown(images)
    streamed = ei_mlp(4, in_features=30, hidden=(48, 48, 48), time_steps=None, circuit=circuit)
    streamed.load_state_dict(dict(zip(streamed.state_dict(), shown.state_dict().values(), strict=True)))
    assert_close(shown.eval()(images), streamed.eval()(images.expand(3, 6, 30)))
    with pytest.raises(ValueError, match="time_steps must be 1 or more"):
        DirectCoding(nn.Linear(2, 2), time_steps=0)


def test_a_batch_of_one_gives_what_it_gives_in_a_batch():
    """No statistics anywhere: a sample does not know of its batch, in training neither."""
    network = ei_mlp(4, in_features=30, hidden=(48, 48, 48), generator=generator()).double().train()
    images = torch.rand(20, 30, generator=generator(1), dtype=torch.float64)
    whole = network(images)
    assert_close(torch.cat([network(image[None]) for image in images]), whole, rtol=1e-12, atol=1e-12)
    assert not [name for name in network.state_dict() if "running" in name or "num_batches" in name]


def test_layers_compile_without_a_graph_break():
    script = Path(__file__).parent / "compile_layers.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_seeds_at_once_equal_seeds_one_by_one():
    """A training step of three stacked networks: losses, gradients, projected weights."""
    images, labels = torch.rand(20, 30, generator=generator(1)), torch.arange(20) % 10
    networks = [ei_mlp(4, in_features=30, hidden=(48, 48, 48), generator=generator(seed)) for seed in range(3)]
    for network in networks:
        network(images)
        with torch.no_grad():
            network[3].module.weight[0, :3] = -1.0
    parameters, buffers = stack_module_state(networks)
    base = copy.deepcopy(networks[0]).to("meta")

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(functional_call(base, (parameters, buffers), (images,)), labels)

    parameters = {name: value.detach() for name, value in parameters.items()}
    together, losses = vmap(torch.func.grad_and_value(loss))(parameters, buffers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, network in enumerate(networks):
            alone = nn.functional.cross_entropy(network(images), labels)
            alone.backward()
            assert_close(losses[index], alone)
            for name, parameter in network.named_parameters():
                assert_close(together[name][index], parameter.grad, rtol=1e-4, atol=1e-6)
                assert torch.equal(parameters[name][index], parameter)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(8, 20) - 0.5, "input must not be negative.*scale pixels to"),
        (torch.full((8, 20), 0.5), "batch variance of its input is 0.*fall silent"),
        (torch.zeros(8, 20), "batch variance of its input is 0.*fall silent"),
        (torch.full((8, 20), math.nan), "NaN or infinite"),
        (torch.rand(1, 20), "batch of two or more"),
        (torch.rand(20), "batch of two or more"),
        (torch.rand(8, 19), "must have 20 entries along dim -1"),
    ],
)
def test_a_batch_that_cannot_initialise_is_refused_by_the_layers_name(x, message):
    with pytest.raises(ValueError, match=rf"EILinear\(20, 8, inhibitory=2\) 'layer 3'.*{message}"):
        EILinear(20, 8, name="layer 3")(x)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="ei_ratio must be between 1 and the 3 excitatory units"):
        EILinear(5, 3)
    with pytest.raises(TypeError, match="must be floating point"):
        linear()(torch.ones(2, 20, dtype=torch.long))
    with pytest.raises(ValueError, match="must have 3 entries along dim -3"):
        convolution()(torch.rand(2, 4, 5, 4))
    with pytest.raises(ValueError, match="depth must be one of 4, 8, 12, 16; got 5"):
        ei_mlp(5)
    with pytest.raises(ValueError, match="hidden must name the widths of 4 layers for depth 5, got 1"):
        ei_mlp(5, hidden=(16,))
    with pytest.raises(ValueError, match="depth must be one of 8, 11, 16, 19; got 13"):
        ei_vgg(13)
    with pytest.raises(ValueError, match="image_size must be a multiple of 32"):
        ei_vgg(8, image_size=28)
    with pytest.raises(ValueError, match="circuit must be one of ei, batch-norm, plain; got 'bn'"):
        ei_mlp(4, circuit="bn")
    with pytest.raises(ValueError, match="ei_ratio: only for circuit='ei'"):
        ei_mlp(4, circuit="plain", ei_ratio=2)


def test_the_state_of_a_layer_that_waits_is_loaded_with_a_warning():
    waiting, other = EILinear(20, 8, generator=generator()), linear()
    target = EILinear(20, 8, ei_init=False)
    with pytest.warns(UserWarning, match="not initialised yet; its next batch will do it"):
        target.load_state_dict(waiting.state_dict())
    assert not target.is_initialized
    x = spikes(30, 20)
    assert torch.equal(target(x), waiting(x))
    assert other.state_dict()["is_initialized"]


def test_the_functional_circuit_is_that_of_the_layer():
    layer, x = linear(), spikes(5, 20, seed=3)
    drive, inhibition = layer.feedforward(x).split((12, 3), dim=-1)
    out = ei_circuit(drive, inhibition, layer.weight_ei, layer.gain_i, layer.gain_e, layer.bias)
    assert torch.equal(out, layer(x))


@pytest.mark.parametrize("make", [linear, convolution])
@pytest.mark.parametrize("leading", [(), (1,), (2, 3), (2, 1, 3)])
def test_leading_dimensions_are_all_batch(make, leading):
    layer = make()
    shape = (20,) if make is linear else (3, 5, 4)
    x = spikes(*leading, *shape, rate=0.8, seed=9)
    folded = x.reshape(-1, *shape)
    expected, wanted = layer(folded), gradients(layer, folded)
    assert_close(layer(x), expected.reshape(*leading, *expected.shape[1:]), rtol=1e-4, atol=1e-5)
    layer.zero_grad()
    (layer(x).flatten() * wave(expected.numel(), frequency=0.7).float()).sum().backward()
    for name, parameter in layer.named_parameters():
        assert_close(parameter.grad, wanted[name], rtol=1e-3, atol=1e-4)
