"""Adaptive gradient modulation: Shapley's axioms, the official code's numbers, the backward signal, refusals.

`data/agm_official.json` holds what the official code (lihong2303/AGM_ICCV2023 at 5a65542) computes in float64: its
`GradMod` of AV-MNIST (two modalities, without and with batch normalisation) and of UR-Funny (three, cap 7), around the
small networks below, trained by its own `train` functions for three steps of SGD at rate 0.05 and momentum 0.9. Weights
and inputs follow `wave`. "competition" is what its `test_compute_weight` makes of the features of `test_conflict.py`.
"""

import copy
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interplay.multimodal.agm import AGM, ShapleyShares, mono_modal_concepts, relative_standing, share_scores
from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.training import JointTraining
from interplay.testing import check_mechanism, check_refused

OFFICIAL = json.loads((Path(__file__).parent / "data" / "agm_official.json").read_text(encoding="utf-8"))
WIDTHS = {"audio": 3, "text": 4, "visual": 2}


def wave(shape: tuple[int, ...], start: float) -> torch.Tensor:
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 1.7 + start).view(shape)


def network(modalities: list[str], *, norm: bool = False) -> FusionNet:
    """The network of the recording, in float64."""
    encoders = {}
    for name in modalities:
        middle = nn.BatchNorm1d(4) if norm else nn.Identity()
        encoders[name] = nn.Sequential(nn.Linear(WIDTHS[name], 4), middle, nn.Tanh())
    head = nn.Sequential(nn.Linear(4 * len(modalities), 6), nn.Tanh(), nn.Linear(6, 3))
    net = FusionNet(encoders, ConcatenationFusion(head)).double()
    with torch.no_grad():
        for position, parameter in enumerate(net.parameters()):
            parameter.copy_(0.3 * wave(parameter.shape, 0.1 * (position + 1)))
    return net


def batch(modalities: list[str], step: int = 0) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    starts = {"audio": 0.0, "text": 0.9, "visual": 0.5}
    inputs = {name: wave((5, WIDTHS[name]), step + starts[name]) for name in modalities}
    return inputs, torch.arange(5) * (step + 1) % 3


def plain_shapley(net: FusionNet, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The definition, one coalition after another, the empty one included."""
    names = list(inputs)

    def f(coalition: tuple[str, ...]) -> torch.Tensor:
        return net({name: x if name in coalition else torch.zeros_like(x) for name, x in inputs.items()})

    shares = {}
    for name in names:
        others = [other for other in names if other != name]
        share = f(()) / len(names)
        for size in range(len(others) + 1):
            weight = math.factorial(size) * math.factorial(len(others) - size) / math.factorial(len(names))
            for coalition in itertools.combinations(others, size):
                share = share + weight * (f((*coalition, name)) - f(coalition))
        shares[name] = share
    return shares


@pytest.mark.parametrize(
    ("case", "modalities", "cap"),
    [
        ("two", ["audio", "visual"], math.inf),
        ("two with batch norm", ["audio", "visual"], math.inf),
        ("three", ["audio", "text", "visual"], 7.0),
    ],
)
def test_three_steps_agree_with_the_official_code(case, modalities, cap):
    recorded = OFFICIAL[case]
    net = network(modalities, norm="norm" in case)
    method = AGM(net, alpha=recorded["alpha"], cap=cap).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step, expected in enumerate(recorded["steps"]):
        inputs, target = batch(modalities, step)
        # A copy, since a pass in training mode moves batch statistics.
        shares = ShapleyShares(copy.deepcopy(net))(inputs).by_modality
        for name, values in expected["shares"].items():
            torch.testing.assert_close(shares[name].flatten().tolist(), values, rtol=0, atol=1e-8)
        optimizer.zero_grad()
        method.loss(inputs, target).backward()
        coefficients = dict(zip(modalities, method.coefficients.tolist(), strict=True))
        for name in modalities:
            assert coefficients[name] == pytest.approx(expected["coefficients"][name[0]], abs=1e-8)
        theirs = expected["gradients"].values()
        for (name, parameter), values in zip(net.named_parameters(), theirs, strict=True):
            gradient = parameter.grad.flatten().tolist()
            torch.testing.assert_close(
                gradient, values, rtol=0, atol=1e-8, msg=lambda text, name=name: f"{name} {text}"
            )
        optimizer.step()
    for name, score in zip(modalities, method.reference_scores.tolist(), strict=True):
        assert score == pytest.approx(recorded["reference_scores"][name], abs=1e-8)
    for parameter, values in zip(net.parameters(), recorded["parameters"].values(), strict=True):
        torch.testing.assert_close(parameter.flatten().tolist(), values, rtol=0, atol=1e-8)
    for buffer, values in zip(net.buffers(), recorded["buffers"].values(), strict=True):
        assert buffer.flatten().tolist() == pytest.approx(values, abs=1e-8)


@pytest.mark.parametrize("modalities", [["audio", "visual"], ["audio", "text", "visual"]])
@pytest.mark.parametrize("batched", [True, False])
def test_shares_are_the_definition_and_add_up(modalities, batched):
    net, (inputs, _) = network(modalities), batch(modalities)
    shares = ShapleyShares(net, batched=batched)(inputs)
    for name, expected in plain_shapley(net, inputs).items():
        torch.testing.assert_close(shares.by_modality[name], expected)
    torch.testing.assert_close(sum(shares.by_modality.values()), net(inputs))
    torch.testing.assert_close(shares.total, net(inputs))


def test_a_modality_without_influence_has_an_even_share_of_the_empty_prediction():
    net, (inputs, _) = network(["audio", "visual"]), batch(["audio", "visual"])
    with torch.no_grad():
        net.encoders["visual"][0].weight.zero_()
    empty = net({name: torch.zeros_like(x) for name, x in inputs.items()})
    torch.testing.assert_close(ShapleyShares(net)(inputs).by_modality["visual"], empty / 2)


def test_all_passes_carry_gradients():
    net, (inputs, _) = network(["audio", "visual"]), batch(["audio", "visual"])
    shares = ShapleyShares(net)(inputs).by_modality["audio"]
    ours = torch.autograd.grad(shares.square().sum(), list(net.parameters()))
    theirs = torch.autograd.grad(plain_shapley(net, inputs)["audio"].square().sum(), list(net.parameters()))
    torch.testing.assert_close(ours, theirs)


@settings(max_examples=20, deadline=None)
@given(modalities=st.integers(2, 5), orders=st.integers(1, 4), seed=st.integers(0, 2**20))
def test_sampled_shares_add_up_and_are_exact_for_additive_models(modalities, orders, seed):
    names = [f"m{position}" for position in range(modalities)]
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(3, 2, generator=generator, dtype=torch.float64) for name in names}
    sampled = {"sampling": "permutations", "orders": orders, "generator": generator}

    def interacting(net: nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.tanh(sum(given.values())) + math.prod(x + 1 for x in given.values())

    shares = ShapleyShares(nn.Identity(), names, call=interacting, **sampled)(inputs)
    torch.testing.assert_close(sum(shares.by_modality.values()), interacting(nn.Identity(), inputs))

    def additive(net: nn.Module, given: dict[str, torch.Tensor]) -> torch.Tensor:
        return sum((position + 1) * x for position, x in enumerate(given.values())) + 5.0

    shares = ShapleyShares(nn.Identity(), names, call=additive, **sampled)(inputs)
    for position, name in enumerate(names):
        torch.testing.assert_close(shares.by_modality[name], (position + 1) * inputs[name] + 5.0 / modalities)


def test_sampled_shares_come_near_the_exact_ones_with_many_orders():
    net, (inputs, _) = network(["audio", "text", "visual"]), batch(["audio", "text", "visual"])
    generator = torch.Generator().manual_seed(0)
    exact = ShapleyShares(net)(inputs).by_modality
    sampled = ShapleyShares(net, sampling="permutations", orders=400, generator=generator)(inputs).by_modality
    for name in exact:
        # Two cyclic orders exist; their frequencies have a standard error of 0.025.
        torch.testing.assert_close(sampled[name], exact[name], rtol=0, atol=0.1 * exact[name].abs().max().item())


def test_masks_by_mean_and_by_function_replace_what_is_absent():
    net, (inputs, _) = network(["audio", "visual"]), batch(["audio", "visual"])
    mean = {name: x.mean(0, keepdim=True).expand_as(x) for name, x in inputs.items()}
    expected = (net(inputs) + net({**mean, "audio": inputs["audio"]}) - net({**mean, "visual": inputs["visual"]})) / 2
    torch.testing.assert_close(ShapleyShares(net, masks="mean")(inputs).by_modality["audio"], expected)
    by_function = ShapleyShares(net, masks=lambda name, x: mean[name])(inputs)
    torch.testing.assert_close(by_function.by_modality["audio"], expected)


def test_masked_passes_leave_batch_statistics_and_modes_alone():
    net, (inputs, _) = network(["audio", "visual"], norm=True), batch(["audio", "visual"])
    net.encoders["audio"].eval()  # a frozen part of a network in training
    once = copy.deepcopy(net)
    once(inputs)
    ShapleyShares(net)(inputs)
    for ours, expected in zip(net.buffers(), once.buffers(), strict=True):
        torch.testing.assert_close(ours, expected)
    assert [module.training for module in net.modules()] == [module.training for module in once.modules()]


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.LSTM(3, 4, num_layers=2, dropout=0.5), nn.BatchNorm1d(3)])
def test_networks_that_draw_or_mix_samples_are_not_batched(layer):
    sizes = []

    class Net(nn.Module):
        modalities = ("audio", "visual")

        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, inputs):
            sizes.append(len(inputs["audio"]))
            return inputs["audio"] + inputs["visual"]

    net, inputs = Net(), {name: torch.ones(4, 3) for name in ("audio", "visual")}
    ShapleyShares(net)(inputs)
    assert sizes == [4, 4, 4]
    sizes.clear()
    ShapleyShares(net.eval())(inputs)
    assert sizes == [12]


def test_inputs_that_are_no_modality_are_passed_on():
    def call(net, inputs):
        return inputs["image"].sum(1, keepdim=True) * inputs["weight"] + inputs["text"].sum(1, keepdim=True)

    inputs = {"image": torch.ones(2, 3), "text": torch.ones(2, 4), "weight": torch.tensor([[2.0], [3.0]])}
    shares = ShapleyShares(nn.Identity(), ["image", "text"], call=call)(inputs).by_modality
    assert shares["image"].tolist() == [[6.0], [9.0]]


def test_only_the_backward_signal_is_scaled():
    modalities = ["audio", "visual"]
    net, (inputs, target) = network(modalities), batch(modalities)
    method = AGM(net, alpha=2.0).double()
    loss = method.loss(inputs, target)
    assert loss.item() == pytest.approx(JointTraining(net).loss(inputs, target).item(), abs=1e-12)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    assert method.coefficients.min() < 1 < method.coefficients.max()
    # By hand: k_m times the gradient that each share gets from the loss, sent back through the plain definition.
    shares = plain_shapley(net, inputs)
    logits = sum(share.detach() for share in shares.values()).requires_grad_()
    (signal,) = torch.autograd.grad(nn.functional.cross_entropy(logits, target), logits)
    steered = sum(
        (factor * signal * share).sum() for factor, share in zip(method.coefficients, shares.values(), strict=True)
    )
    torch.testing.assert_close(gradients, torch.autograd.grad(steered, list(net.parameters())))


def test_without_strength_it_is_joint_training():
    net, (inputs, target) = network(["audio", "visual"]), batch(["audio", "visual"])
    ours = torch.autograd.grad(AGM(net, alpha=0.0).double().loss(inputs, target), list(net.parameters()))
    joint = torch.autograd.grad(JointTraining(net).loss(inputs, target), list(net.parameters()))
    torch.testing.assert_close(ours, joint)


def test_the_modality_that_is_ahead_of_its_usual_standing_is_slowed():
    method = AGM(network(["audio", "visual"]), alpha=1.0).double()
    method.reference_scores.copy_(torch.tensor([2.0, 2.0]))
    slowed, sped = method.coefficients_of(torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert slowed == pytest.approx(math.exp(1 - math.e))
    assert sped == pytest.approx(math.exp(1 - 1 / math.e))
    # The same lead is no news to a modality that always has it.
    method.reference_scores.copy_(torch.tensor([1.0, 2.0]))
    assert method.coefficients_of(torch.tensor([1.0, 2.0], dtype=torch.float64)).tolist() == [1.0, 1.0]


def test_cap_reference_and_epochs_limit_the_modulation():
    net, (inputs, target) = network(["audio", "visual"]), batch(["audio", "visual"])
    capped = AGM(net, alpha=1.0, cap=0.5).double()
    capped.reference_scores.copy_(torch.tensor([0.0, 3.0]))
    assert capped.coefficients_of(torch.tensor([3.0, 0.0], dtype=torch.float64)).max() == pytest.approx(math.exp(0.5))
    without = AGM(net, reference="none").double()
    without.reference_scores.copy_(torch.tensor([1.0, 2.0]))
    assert without.coefficients_of(torch.ones(2, dtype=torch.float64)).tolist() == [1.0, 1.0]
    assert without.coefficients_of(torch.tensor([1.0, 2.0], dtype=torch.float64))[0] < 1
    windowed = AGM(net, alpha=2.0, start=1, end=1).double()
    moved = []
    for epoch in range(3):
        windowed.start_epoch(epoch)
        windowed.loss(inputs, target)
        moved.append(bool((windowed.coefficients != 1).any()))
        windowed.reference_scores.add_(torch.tensor([0.3, 0.0]))
    assert moved == [False, True, False]
    assert windowed.iterations == 3


def test_the_reference_is_the_mean_of_earlier_scores():
    net = network(["audio", "visual"])
    method, seen = AGM(net).double(), []
    for step in range(4):
        inputs, target = batch(["audio", "visual"], step)
        expected = torch.stack(seen).mean(0) if seen else torch.zeros(2, dtype=torch.float64)
        torch.testing.assert_close(method.reference_scores, expected)
        usual, now = relative_standing(expected), method.loss(inputs, target)
        torch.testing.assert_close(method.coefficients, torch.exp(usual - relative_standing(method.scores)))
        assert now.isfinite()
        seen.append(method.scores.clone())


def test_scores_are_mean_cross_entropies_with_a_floor():
    shares = torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[50.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    target = torch.tensor([1, 0])
    expected = nn.functional.cross_entropy(shares[0], target).item()
    found = share_scores(shares, target)
    assert found[0].item() == pytest.approx(expected)
    assert found[1].item() == pytest.approx((-math.log(1e-8) + math.log(2)) / 2)


def test_regression_takes_scores_of_its_own():
    net, (inputs, _) = network(["audio", "visual"]), batch(["audio", "visual"])
    target = wave((5, 3), 0.2)
    method = AGM(net, score=nn.functional.mse_loss, criterion=nn.functional.mse_loss).double()
    method.loss(inputs, target).backward()
    shares = plain_shapley(net, inputs)
    expected = [nn.functional.mse_loss(shares[name], target).item() for name in shares]
    assert method.scores.tolist() == pytest.approx(expected)


def test_state_resumes_and_the_network_stands_once_in_it():
    def steps(method, first, last):
        optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
        for step in range(first, last):
            optimizer.zero_grad()
            method.loss(*batch(["audio", "visual"], step)).backward()
            optimizer.step()

    whole = AGM(network(["audio", "visual"]), alpha=2.0).double()
    steps(whole, 0, 6)
    half = AGM(network(["audio", "visual"]), alpha=2.0).double()
    steps(half, 0, 3)
    state = half.state_dict()
    assert len({values.data_ptr() for values in state.values()}) == len(state)
    resumed = AGM(network(["audio", "visual"]), alpha=2.0).double()
    resumed.load_state_dict(state)
    steps(resumed, 3, 6)
    for name, values in whole.state_dict().items():
        assert torch.equal(values, resumed.state_dict()[name]), name


class Called(nn.Module):
    """A method's loss as a module that takes tensors."""

    def __init__(self, method: nn.Module) -> None:
        super().__init__()
        self.method = method

    def forward(self, audio: torch.Tensor, visual: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.method.loss({"audio": audio, "visual": visual}, target)


@pytest.mark.parametrize("late", [True, False])
def test_it_passes_the_battery(late):
    torch.manual_seed(0)
    encoders = {"audio": nn.Linear(3, 4), "visual": nn.Linear(2, 4)}
    head = LinearFusion([4, 4], 3) if late else ConcatenationFusion(nn.Sequential(nn.Tanh(), nn.Linear(8, 3)))
    inputs, target = batch(["audio", "visual"])
    tensors = inputs["audio"].float(), inputs["visual"].float(), target
    bad = {
        "two batch sizes": (tensors[0][:3], tensors[1], target),
        "a target for each output": (tensors[0], tensors[1], torch.zeros(5, 3)),
        "an undefined share": (tensors[0] * math.nan, tensors[1], target),
    }
    errors = {"an undefined share"}
    check_mechanism(
        Called(AGM(FusionNet(encoders, head))),
        *tensors,
        stateful=True,
        bad_inputs={what: values for what, values in bad.items() if what not in errors},
    )


def test_an_undefined_share_is_named_with_its_iteration():
    net = network(["audio", "visual"])
    method = AGM(net).double()
    inputs, target = batch(["audio", "visual"])
    method.loss(inputs, target)
    with pytest.raises(FloatingPointError, match=r"share of \['audio', 'visual'\] is not a number at iteration 1"):
        method.loss({**inputs, "audio": inputs["audio"] * math.nan}, target)


def test_bad_input_is_refused_by_name():
    net, (inputs, target) = network(["audio", "visual"]), batch(["audio", "visual"])
    assert "radar" in check_refused(lambda: AGM(net, ["audio", "radar"]).loss(inputs, target), "unknown modality")
    assert "batch sizes" in check_refused(
        lambda: AGM(net).loss({**inputs, "audio": inputs["audio"][:2]}, target), "batch sizes"
    )
    assert "two or more" in check_refused(lambda: AGM(net, ["audio"]), "one modality")
    seven = [f"m{position}" for position in range(7)]
    assert "sampling='permutations'" in check_refused(lambda: AGM(net, seven), "seven modalities")
    AGM(net, seven, sampling="permutations")
    assert "one class for each" in check_refused(lambda: AGM(net).loss(inputs, target[:2]), "target shape")
    for setting in ({"alpha": -1.0}, {"cap": 0.0}, {"start": 2, "end": 1}, {"reference": "mean"}, {"masks": "noise"}):
        assert next(iter(setting)) in check_refused(lambda setting=setting: AGM(net, **setting), str(setting))
    check_refused(lambda: ShapleyShares(net, orders=0), "no orders")
    check_refused(lambda: ShapleyShares(nn.Linear(2, 2)), "no modalities")
    check_refused(lambda: ShapleyShares(net, masks=lambda name, x: x[:1])(inputs), "a mask of another shape")
    ids = {name: x.long() for name, x in inputs.items()}
    assert "has no mean" in check_refused(lambda: ShapleyShares(net, masks="mean")(ids), "mean of integers")


def test_concepts_are_outputs_in_evaluation_mode():
    models = {"audio": nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), "visual": nn.Linear(2, 2)}
    inputs = {"audio": torch.randn(7, 3), "visual": torch.randn(7, 2)}
    concepts = mono_modal_concepts(models, inputs, batch_size=3)
    torch.testing.assert_close(concepts["audio"], models["audio"][0](inputs["audio"]))
    assert not concepts["visual"].requires_grad
    assert models["audio"].training
    by_function = mono_modal_concepts(models.__getitem__, inputs)
    torch.testing.assert_close(by_function["visual"], concepts["visual"])
    with pytest.raises(KeyError, match="text"):
        mono_modal_concepts(models, inputs, modalities=["text"])
