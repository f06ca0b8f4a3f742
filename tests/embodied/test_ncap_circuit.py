"""The circuit: official numbers, a loop over neurons, its parts, and what it refuses.

`ncap_official.json` holds what the official module returned (github.com/nikhilxb/ncap at 5be8171) for the weights that
stand beside the outputs and for inputs of the closed formula `wave` below: all rows at once with a time step each, and
row by row with the module's own count set. Its imports of Garage and Tonic, which the module does not use, were
replaced by empty modules.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interplay.embodied.ncap import (
    NavigationHead,
    NCAPActor,
    NCAPSwimmer,
    ReciprocalInhibition,
    SignConstrained,
    SquareWaveOscillator,
    ncap_actor,
    transfer,
)
from interplay.testing import check_mechanism, check_refused, check_same_seed

OFFICIAL = json.loads((Path(__file__).parent / "ncap_official.json").read_text())
TOLERANCE = {"rtol": 0, "atol": 1e-6}


def wave(count: int, pace: float, start: float) -> torch.Tensor:
    return torch.tensor([1.4 * math.sin(pace * k + start) for k in range(count)], dtype=torch.float64).float()


def filled(case: dict) -> NCAPSwimmer:
    """Our circuit with the weights of an official one."""
    module = NCAPSwimmer(
        case["n_joints"],
        oscillator_period=case["oscillator_period"],
        share_weights=case["share_weights"],
        sign_constraints=case["sign_constraints"],
        proprioception=case["parts"] != "no proprioception",
        head_oscillator=case["parts"] != "no oscillator",
        speed_control=case["controls"],
        turn_control=case["controls"],
        n_turn_joints=case["n_turn_joints"],
    )
    ours = {
        "prop": module.proprioception,
        "osc": module.oscillator,
        "speed": module.speed,
        "turn": module.turn,
        "ipsi": module.muscles.ipsilateral,
        "contra": module.muscles.contralateral,
    }
    with torch.no_grad():
        for name, value in case["raw"].items():
            part, *rest = name.split("_")[1:]
            if case["share_weights"]:
                ours[part].raw.fill_(value)
                continue
            if name.startswith("muscle"):  # muscle_<side of the muscle>_<side of the neuron>_<joint>
                kind, joint = ("ipsi" if part == rest[0] else "contra"), int(rest[1])
            else:  # bneuron_<side>_<kind>_<joint>
                kind, joint = rest[0], int(rest[1])
            raw = ours[kind].raw[{"d": 0, "v": 1}[part]]
            if kind == "osc":
                raw.fill_(value)
            else:
                raw[joint - (kind == "prop")] = value
    return module


def controls_of(case: dict) -> dict[str, torch.Tensor]:
    names = ("right", "left", "speed") if case["controls"] else ()
    return {name: wave(6, 1.1, index) * 0.7 + 0.4 for index, name in enumerate(names)}


@pytest.mark.parametrize("case", OFFICIAL["cases"])
def test_torques_agree_with_the_official_module(case):
    module = filled(case)
    joints = wave(6 * case["n_joints"], 0.73, case["n_joints"]).view(6, -1)
    controls = controls_of(case)
    batched = module(joints, timestep=torch.arange(6) * 13 + 0.3, **controls)
    torch.testing.assert_close(batched, torch.tensor(case["batched"]), **TOLERANCE)
    for row in range(6):
        module.reset()
        module._step = 13 * row
        one = module(joints[row], **{name: value[row] for name, value in controls.items()})
        torch.testing.assert_close(one, torch.tensor(case["counted"][row]), **TOLERANCE)


@pytest.mark.parametrize("case", [case for case in OFFICIAL["cases"] if case["head_torque_at_rest"]])
def test_the_module_counts_time_as_the_official_one(case):
    module = filled(case)
    still = {"right": torch.zeros(()), "left": torch.zeros(()), "speed": torch.ones(())} if case["controls"] else {}
    for _ in range(2):
        module.reset()
        torques = [module(torch.zeros(case["n_joints"]), **still)[0].item() for _ in range(70)]
        np.testing.assert_allclose(torques, case["head_torque_at_rest"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", OFFICIAL["cases"])
def test_numpy_agrees_with_torch(case):
    module = filled(case).double()
    joints = wave(6 * case["n_joints"], 0.73, case["n_joints"]).view(6, -1).double()
    controls = {name: value.double() for name, value in controls_of(case).items()}
    steps = torch.arange(6) * 13
    expected = module(joints, timestep=steps, **controls).detach().numpy()
    arrays = {name: value.numpy() for name, value in controls.items()}
    circuit = module.numpy()
    np.testing.assert_allclose(circuit(joints.numpy(), steps.numpy(), **arrays), expected, rtol=0, atol=1e-14)
    one = circuit(joints[3].numpy(), 39, **{name: value[3] for name, value in arrays.items()})
    np.testing.assert_allclose(one, expected[3], rtol=0, atol=1e-14)


def test_official_policies_and_their_actor_with_time():
    for policy in OFFICIAL["policies"]:
        observations = wave(6 * 26, 0.37, 0.2).view(6, 26) * 0.9
        observations[:, 5:7] *= 0.2
        actor = ncap_actor(5, episode_steps=None, navigation=policy["navigation"])
        for row, expected in enumerate(policy["torques"]):
            actor.circuit._step = 11 * row
            torch.testing.assert_close(actor(observations[row]), torch.tensor(expected), **TOLERANCE)
    observations = wave(6 * 24, 0.37, 0.2).view(6, 24)
    observations[:, -1] = torch.tensor([-1, -0.95, -0.5, 0.001, 0.7, 1.0])
    torch.testing.assert_close(ncap_actor(5)(observations), torch.tensor(OFFICIAL["actor_with_time"]), **TOLERANCE)


def by_neurons(q, step, period, prop, osc, ipsi, contra):
    """The shared circuit, one neuron after the other."""
    clip = lambda value: min(max(value, 0.0), 1.0)  # noqa: E731
    torques = []
    for joint in range(len(q)):
        dorsal = ventral = 0.0
        if joint > 0:
            dorsal += prop * clip(q[joint - 1])
            ventral += prop * clip(-q[joint - 1])
        elif step % period < period // 2:
            dorsal += osc
        else:
            ventral += osc
        dorsal, ventral = clip(dorsal), clip(ventral)
        torques.append(clip(ipsi * dorsal + contra * ventral) - clip(ipsi * ventral + contra * dorsal))
    return torques


@settings(max_examples=60, deadline=None)
@given(
    joints=st.lists(st.floats(-2, 2), min_size=2, max_size=8),
    step=st.integers(0, 500),
    period=st.sampled_from([2, 8, 60]),
    weights=st.tuples(*[st.floats(0, 2)] * 3, st.floats(-2, 0)),
)
def test_it_is_the_circuit_neuron_by_neuron(joints, step, period, weights):
    module = NCAPSwimmer(len(joints), oscillator_period=period).double()
    circuit = module.numpy().with_parameters(np.array(weights))
    expected = by_neurons(joints, step, period, *weights)
    np.testing.assert_allclose(circuit(np.array(joints), step), expected, rtol=0, atol=1e-12)
    mirrored = circuit(-np.array(joints), step + period // 2)
    np.testing.assert_allclose(mirrored, [-torque for torque in expected], rtol=0, atol=1e-12)


def test_weights_are_as_many_as_published():
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    assert count(NCAPSwimmer(5)) == 4
    assert count(NCAPSwimmer(5, speed_control=True, turn_control=True)) == 6
    assert count(NCAPSwimmer(5, share_weights=False)) == 30
    assert count(NCAPSwimmer(14)) == 4


class WithTime(nn.Module):
    """A circuit whose time step and controls are inputs like others."""

    def __init__(self, circuit: NCAPSwimmer) -> None:
        super().__init__()
        self.circuit = circuit

    def forward(self, joints: torch.Tensor, timestep: torch.Tensor, *controls: torch.Tensor) -> torch.Tensor:
        named = dict(zip(("speed", "left", "right"), controls, strict=False))
        return self.circuit(joints, timestep=timestep, **named)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.empty(shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share_weights", [True, False])
@pytest.mark.parametrize("parametrisation", ["clamp", "softplus"])
def test_circuits_pass_the_battery(share_weights, parametrisation):
    circuit = NCAPSwimmer(
        5,
        init="uniform",
        share_weights=share_weights,
        parametrisation=parametrisation,
        speed_control=True,
        turn_control=True,
        n_turn_joints=5,
        generator=torch.Generator().manual_seed(0),
    )
    joints, steps, controls = drawn(1, 64, 5), torch.arange(64) * 7, drawn(2, 3, 64).abs().unbind()
    check_mechanism(
        WithTime(circuit),
        joints,
        steps,
        *controls,
        bad_inputs={
            "four joints": (joints[:, :4], steps, *controls),
            "NaN": (joints * torch.nan, steps, *controls),
            "a control is missing": (joints, steps, *controls[:2]),
        },
    )


def test_actors_and_parts_pass_the_battery():
    observations = drawn(1, 64, 26)
    actor = ncap_actor(5, init="uniform", generator=torch.Generator().manual_seed(4))
    check_mechanism(actor, observations, gradients=False, bad_inputs={"five entries": (observations[:, :5],)})
    steered = ncap_actor(5, navigation="learned", init="uniform", generator=torch.Generator().manual_seed(4))
    check_mechanism(steered, observations)
    check_mechanism(ReciprocalInhibition(init="uniform"), observations, observations.flip(0))
    check_mechanism(NavigationHead("learned"), observations[:, :2])


def test_inhibition_between_the_sides_acts_only_where_both_are_driven():
    """Without controls one side of a joint at most is driven, and what inhibition leaves there is clipped at zero."""
    joints, steps = drawn(1, 64, 5), torch.arange(64)
    plain = NCAPSwimmer(5)
    plain(joints, timestep=steps).square().sum().backward()
    gradients = {name: parameter.grad.item() for name, parameter in plain.named_parameters()}
    assert gradients.pop("muscles.contralateral.raw") == 0
    assert all(gradients.values())
    cut = plain.numpy().without("muscles.contralateral")
    np.testing.assert_array_equal(cut(joints.numpy(), steps.numpy()), plain.numpy()(joints.numpy(), steps.numpy()))
    turning = NCAPSwimmer(5, turn_control=True)
    turning(joints, timestep=steps, left=drawn(2, 64), right=drawn(3, 64)).square().sum().backward()
    assert turning.muscles.contralateral.raw.grad.item() != 0


def test_activities_explain_the_torque():
    module = NCAPSwimmer(5)
    joints = torch.tensor([0.5, -0.25, 0.0, 2.0, -3.0])
    activity = module.explain(joints, timestep=0)
    assert activity["oscillator"].tolist() == [1, 0]
    assert activity["stretch"].tolist() == [[0.5, 0, 0, 1, 0], [0, 0.25, 0, 0, 1]]
    assert activity["b_neuron"].tolist() == [[1, 0.5, 0, 0, 1], [0, 0, 0.25, 0, 0]]
    assert activity["muscle"].tolist() == activity["b_neuron"].tolist()
    assert activity["torque"].tolist() == [1, 0.5, -0.25, 0, 1]
    assert torch.equal(module(joints), activity["torque"])
    module.explain(joints)
    assert module._step == 1, "explaining must not let time pass"


def test_the_oscillator_is_a_square_wave_and_rounds():
    oscillator = SquareWaveOscillator(6)
    assert oscillator(torch.arange(12))[:, 0].tolist() == [1, 1, 1, 0, 0, 0] * 2
    assert oscillator(torch.tensor([2.4, 2.6, 8.5])).tolist() == [[1, 0], [0, 1], [1, 0]]
    with pytest.warns(UserWarning, match="dorsal half lasts 3 steps, the ventral one 4"):
        odd = SquareWaveOscillator(7)
    assert odd(torch.arange(7)).sum(0).tolist() == [3, 4]


def test_inhibition_is_reciprocal():
    part = ReciprocalInhibition()
    a, b = part(torch.tensor([1.0, 0.6, 0.0]), torch.tensor([0.0, 0.4, 3.0]))
    torch.testing.assert_close(a, torch.tensor([1.0, 0.2, 0.0]))
    torch.testing.assert_close(b, torch.tensor([0.0, 0.0, 1.0]))
    check_refused(lambda: part(torch.zeros(3), torch.zeros(4)), "two shapes")


@pytest.mark.parametrize(("sign", "low", "high"), [("excitatory", 0, 1), ("inhibitory", -1, 0), ("unsigned", -1, 1)])
def test_weights_keep_their_sign(sign, low, high):
    drawn = SignConstrained((4000,), sign, init="uniform", generator=torch.Generator().manual_seed(0))()
    assert low <= drawn.min() < low + 0.01
    assert high - 0.01 < drawn.max() <= high
    constant = SignConstrained((4000,), sign, generator=torch.Generator().manual_seed(0))()
    assert constant.mean().item() == pytest.approx({"excitatory": 1, "inhibitory": -1, "unsigned": 0}[sign], abs=0.06)
    assert (constant.abs() == 1).all()
    check_same_seed(
        lambda seed: SignConstrained((9,), sign, init="uniform", generator=torch.Generator().manual_seed(seed))()
    )
    soft = SignConstrained((9,), sign, parametrisation="softplus", generator=torch.Generator().manual_seed(0))()
    torch.testing.assert_close(soft, constant[:9])


def test_a_clamped_weight_beyond_zero_is_dead_and_a_soft_one_is_not():
    for parametrisation, alive in (("clamp", False), ("softplus", True)):
        weight = SignConstrained((2,), "excitatory", parametrisation=parametrisation)
        with torch.no_grad():
            weight.raw.copy_(torch.tensor([-0.5, 0.5]))
        weight().sum().backward()
        assert (weight.raw.grad[0] != 0).item() is alive
        assert weight.raw.grad[1] != 0
        assert (weight()[0] > 0).item() is alive


def test_populations_are_their_members():
    module = NCAPSwimmer(4, share_weights=False, init="uniform", generator=torch.Generator().manual_seed(0)).double()
    circuit = module.numpy()
    assert np.array_equal(circuit.parameters, nn.utils.parameters_to_vector(module.parameters()).detach().numpy())
    generator = np.random.default_rng(0)
    members = generator.normal(0, 1, (6, circuit.parameters.size))
    joints = generator.uniform(-1, 1, (6, 4))
    together = circuit.with_parameters(members)(joints, 31)
    for row, member in enumerate(members):
        nn.utils.vector_to_parameters(torch.from_numpy(member), module.parameters())
        alone = module(torch.from_numpy(joints[row]), timestep=31).detach().numpy()
        np.testing.assert_allclose(together[row], alone, rtol=0, atol=1e-14)
    with pytest.raises(ValueError, match="parameters must have 24 entries"):
        circuit.with_parameters(members[:, 1:])


def test_cut_synapses_are_parts_that_were_never_there():
    joints = np.linspace(-1, 1, 20).reshape(4, 5)
    full = NCAPSwimmer(5, init="uniform", generator=torch.Generator().manual_seed(0)).numpy()
    for synapse, switch in (("proprioception", "proprioception"), ("oscillator", "head_oscillator")):
        less = NCAPSwimmer(5, **{switch: False}).double().numpy()
        kept = [value for value, (name, _) in zip(full.parameters, full._synapses, strict=True) if name != synapse]
        expected = less.with_parameters(np.array(kept))(joints, 3)
        np.testing.assert_allclose(full.without(synapse)(joints, 3), expected, rtol=0, atol=1e-14)
        assert not np.allclose(full(joints, 3), expected)
    with pytest.raises(ValueError, match="no synapse 'turn'"):
        full.without("turn")


def test_weights_move_to_other_bodies():
    module = NCAPSwimmer(5, init="uniform", speed_control=True, generator=torch.Generator().manual_seed(0)).double()
    longer = transfer(module, 14)
    assert longer.weights() == module.weights()
    joints = torch.linspace(-1, 1, 14).double()
    speed = torch.tensor(0.5).double()
    expected = module(joints[:5], timestep=3, speed=speed)
    torch.testing.assert_close(longer(joints, timestep=3, speed=speed)[:5], expected)
    with torch.no_grad():
        longer.oscillator.raw.fill_(9)
    assert module.oscillator.raw.item() != 9, "the weights must be a copy"
    with pytest.raises(ValueError, match="only shared weights transfer"):
        transfer(NCAPSwimmer(5, share_weights=False), 7)


def test_one_shared_phase_warns_once():
    module = NCAPSwimmer(3)
    with pytest.warns(UserWarning, match="share one phase"):
        module(torch.zeros(2, 3))
    module(torch.zeros(2, 3))
    NCAPSwimmer(3)(torch.zeros(1, 3))


def test_it_compiles_without_a_break():
    module = NCAPSwimmer(5)
    joints, steps = torch.linspace(-1, 1, 20).view(4, 5), torch.arange(4) * 20
    program = torch.export.export(WithTime(module), (joints, steps))
    torch.testing.assert_close(program.module()(joints, steps), module(joints, timestep=steps))


REFUSED = {
    "n_joints must be an integer of 2": lambda: NCAPSwimmer(1),
    "oscillator_period must be an integer of 2": lambda: NCAPSwimmer(5, oscillator_period=1),
    "n_turn_joints must be between 1 and": lambda: NCAPSwimmer(5, n_turn_joints=6),
    "init must be one of constant, uniform": lambda: NCAPSwimmer(5, init="normal"),
    "sign must be one of": lambda: SignConstrained((1,), "positive"),
    r"joint_pos must have n_joints = 5 .*got shape \(2, 6\)": lambda: NCAPSwimmer(5)(torch.zeros(2, 6)),
    "joint_pos holds NaN": lambda: NCAPSwimmer(2)(torch.tensor([0.0, torch.nan])),
    "timestep must have one entry": lambda: NCAPSwimmer(2)(torch.zeros(3, 2), timestep=torch.zeros(3, 1)),
    "speed must be passed .*speed_control=True": lambda: NCAPSwimmer(2, speed_control=True)(torch.zeros(2)),
    "right must be passed .*turn_control=True": lambda: NCAPSwimmer(2, turn_control=True)(torch.zeros(2)),
    "speed must have the shape": lambda: NCAPSwimmer(2, speed_control=True)(torch.zeros(2), speed=torch.zeros(1)),
    "right must be passed to a circuit": lambda: NCAPSwimmer(2, turn_control=True).numpy()(np.zeros(2), 0),
    "kind must be": lambda: NavigationHead("clever"),
    "noise must be a positive": lambda: ncap_actor(5, noise=0.0),
    "episode_steps must be": lambda: ncap_actor(5, episode_steps=0),
    "joint_limit must be": lambda: ncap_actor(5, joint_limit=-1.0),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_refused(message):
    with pytest.raises(ValueError, match=message):
        REFUSED[message]()


def test_infinite_angles_are_clipped():
    module = NCAPSwimmer(3)
    infinite = torch.tensor([math.inf, -math.inf, 0.0])
    torch.testing.assert_close(module(infinite), NCAPSwimmer(3)(infinite.clamp(-1, 1)))


def test_an_actor_with_noise_is_a_distribution_around_the_torques():
    observations = torch.linspace(-1, 1, 48).view(2, 24)
    distribution = ncap_actor(5, noise=0.1)(observations)
    assert torch.equal(distribution.mean, ncap_actor(5)(observations))
    assert (distribution.stddev == 0.1).all()
    circuit = NCAPSwimmer(5)
    bent = NCAPActor(circuit, joint_limit=0.5)
    torch.testing.assert_close(bent(observations), circuit(observations[:, :5] * 2, timestep=torch.tensor([0, 1000])))
