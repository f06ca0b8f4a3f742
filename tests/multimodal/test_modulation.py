"""The baselines: what each does to which gradient and when, by hand; their state; what they refuse."""

import copy
import math

import pytest
import torch
from torch import nn

from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.modulation import MSES, MSLR, OGMGE, held_out, unimodal_predictions
from interplay.multimodal.training import HeldOut, JointTraining
from interplay.testing import check_mechanism, check_refused

MODALITIES = ["audio", "visual"]


def network(head: nn.Module | None = None) -> FusionNet:
    torch.manual_seed(0)
    encoders = {"audio": nn.Sequential(nn.Conv1d(1, 4, 3), nn.Flatten()), "visual": nn.Linear(5, 6)}
    return FusionNet(encoders, LinearFusion([4, 6], 3) if head is None else head)


def batch(samples: int = 8) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "audio": torch.randn(samples, 1, 3, generator=generator),
        "visual": torch.randn(samples, 5, generator=generator),
    }
    return inputs, torch.arange(samples) % 3


def gradients(method, *, adjusted: bool = True) -> dict[str, torch.Tensor]:
    method.zero_grad()
    method.loss(*batch()).backward()
    if adjusted:
        method.adjust_gradients()
    return {name: parameter.grad.clone() for name, parameter in method.net.named_parameters()}


def measured(audio: float, visual: float) -> dict[str, HeldOut]:
    """The same number as accuracy and as loss."""
    return {"audio": HeldOut(audio, audio), "visual": HeldOut(visual, visual)}


def test_ogm_slows_the_encoder_that_is_ahead_by_the_published_factor():
    net = network()
    inputs, target = batch()
    latents = net.encode(inputs)
    weight, bias = net.head.readout.weight, net.head.readout.bias
    sure = [
        (latents[name] @ part.T + bias / 2).softmax(1)[torch.arange(8), target].sum().item()
        for name, part in zip(MODALITIES, (weight[:, :4], weight[:, 4:]), strict=True)
    ]
    ahead = int(sure[1] > sure[0])
    factor = 1 - math.tanh(0.3 * sure[ahead] / sure[1 - ahead])
    method = OGMGE(net, alpha=0.3, noise=False)
    plain, changed = gradients(method, adjusted=False), gradients(method)
    for name, gradient in plain.items():
        slowed = name.startswith(f"encoders.{MODALITIES[ahead]}") and gradient.ndim > 1
        torch.testing.assert_close(changed[name], gradient * factor if slowed else gradient)
    assert method.diagnostics()[f"factor_{MODALITIES[ahead]}"] == pytest.approx(factor, abs=1e-6)


def test_ogm_noise_has_the_spread_of_the_gradient_and_a_seed():
    wide = FusionNet({"audio": nn.Linear(3, 400), "visual": nn.Linear(5, 400)}, LinearFusion([400, 400], 3))
    inputs = {"audio": torch.randn(8, 3), "visual": torch.randn(8, 5)}

    def noisy(seed: int | None) -> torch.Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        method = OGMGE(wide, alpha=0.3, noise=seed is not None, generator=generator)
        wide.zero_grad()
        method.loss(inputs, torch.arange(8) % 3).backward()
        spread = wide.encoders["visual"].weight.grad.std()
        method.adjust_gradients()
        return wide.encoders["visual"].weight.grad / spread

    difference = noisy(3) - noisy(None)
    assert difference.std() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(noisy(3), noisy(3))
    assert not torch.equal(noisy(3), noisy(4))


def test_ogm_rests_outside_its_epochs():
    method = OGMGE(network(), alpha=0.3, start=1)
    method.start_epoch(0)
    for name, gradient in gradients(method, adjusted=False).items():
        assert torch.equal(gradients(method)[name], gradient)
    method.start_epoch(1)
    assert not torch.equal(
        gradients(method)["encoders.visual.weight"], gradients(method, adjusted=False)["encoders.visual.weight"]
    )


def test_mslr_scales_what_belongs_to_each_modality_and_follows_accuracy():
    method = MSLR(network(), factors={"audio": 1.3, "visual": 0.7})
    plain, changed = gradients(method, adjusted=False), gradients(method)
    torch.testing.assert_close(changed["encoders.audio.0.bias"], 1.3 * plain["encoders.audio.0.bias"])
    torch.testing.assert_close(changed["encoders.visual.weight"], 0.7 * plain["encoders.visual.weight"])
    columns = torch.tensor([1.3] * 4 + [0.7] * 6)
    torch.testing.assert_close(changed["head.readout.weight"], columns * plain["head.readout.weight"])
    torch.testing.assert_close(changed["head.readout.bias"], plain["head.readout.bias"])
    for epoch in range(5):
        method.end_epoch(measured(0.1 * (epoch + 1), 0.5))
        assert method.rates.tolist() == pytest.approx([1.3, 0.7])
    method.end_epoch(measured(0.6, 0.4))
    assert method.rates.tolist() == pytest.approx([1.3 * 0.6 / 0.3, 0.7 * 0.4 / 0.5])
    method.end_epoch(measured(0.6, 0.4))  # the first epoch has left the window
    assert method.rates.tolist() == pytest.approx([1.3 * 0.6 / 0.4, 0.7 * 0.4 / 0.48])


def test_mses_stops_a_modality_at_its_best_and_lets_the_other_go_on():
    net = network()
    method = MSES(net, patience=2)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    own, snapshots = ["encoders.visual.weight", "encoders.visual.bias"], []
    # Smoothed over two epochs: 1.0, 0.8, 0.6, 0.76, 0.9, 1.0. The best is the third.
    for loss in (1.0, 0.5, 0.75, 0.75, 1.0, 1.0, 1.0, 1.0):
        for _ in range(3):
            optimizer.zero_grad()
            method.loss(*batch()).backward()
            method.adjust_gradients()
            optimizer.step()
        method.end_epoch(measured(1.0 - 0.1 * len(snapshots), loss))
        snapshots.append(copy.deepcopy(net.state_dict()))
    assert method.rates.tolist() == [1.0, 0.0]
    for late in (5, 6, 7):
        for name in own:
            assert torch.equal(snapshots[late][name], snapshots[2][name])
        columns = [snapshots[epoch]["head.readout.weight"][:, 4:] for epoch in (late, 2)]
        assert torch.equal(*columns)
    assert not torch.equal(snapshots[4][own[0]], snapshots[2][own[0]])
    assert not torch.equal(snapshots[7]["encoders.audio.0.weight"], snapshots[6]["encoders.audio.0.weight"])


def test_mses_resumes_from_its_state():
    one = MSES(network(), patience=1)
    for loss in (1.0, 0.5, 0.9):
        one.end_epoch(measured(0.5, loss))
    other = MSES(network(), patience=1)
    other.load_state_dict(one.state_dict())
    for method in (one, other):
        with torch.no_grad():
            method.net.encoders["visual"].weight.add_(1.0)
        for _ in range(2):
            method.end_epoch(measured(0.5, 0.9))
    assert one.rates.tolist() == other.rates.tolist() == [0.0, 0.0]
    for name, values in one.state_dict().items():
        assert torch.equal(values, other.state_dict()[name])


def test_ogm_resumes_with_the_noise_that_would_have_come():
    one = OGMGE(network(), generator=torch.Generator().manual_seed(3))
    gradients(one)
    other = OGMGE(network(), generator=torch.Generator().manual_seed(9))
    other.load_state_dict(one.state_dict())
    ours, theirs = gradients(one), gradients(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", [OGMGE, MSLR, MSES])
def test_every_loss_is_the_joint_one_and_passes_the_battery(method):
    wrapped = method(network())
    inputs, target = batch()
    torch.testing.assert_close(wrapped.loss(inputs, target), JointTraining(wrapped.net).loss(inputs, target))

    class Called(nn.Module):
        def __init__(self):
            super().__init__()
            self.method = wrapped

        def forward(self, audio, visual, target):
            return self.method.loss({"audio": audio, "visual": visual}, target)

    check_mechanism(Called(), inputs["audio"], inputs["visual"], target)


def test_predictions_of_one_modality_are_parts_in_late_fusion_and_shares_in_any_other():
    inputs, _ = batch()
    late = JointTraining(network())
    parts = unimodal_predictions(late, inputs)
    torch.testing.assert_close(parts["audio"] + parts["visual"], late.logits(inputs))
    weight, bias = late.net.head.readout.weight, late.net.head.readout.bias
    visual = late.net.encoders["visual"](inputs["visual"])
    torch.testing.assert_close(parts["visual"], visual @ weight[:, 4:].T + bias / 2)
    early = JointTraining(network(ConcatenationFusion(nn.Sequential(nn.Tanh(), nn.Linear(10, 3)))))
    zeros = {name: torch.zeros_like(values) for name, values in inputs.items()}
    alone = {name: early.logits({**zeros, name: inputs[name]}) for name in MODALITIES}
    expected = (early.logits(inputs) + alone["audio"] - alone["visual"]) / 2
    torch.testing.assert_close(unimodal_predictions(early, inputs)["audio"], expected)


def test_held_out_data_is_measured_over_batches_of_any_size():
    inputs, target = batch()
    method = JointTraining(network())
    halves = [
        ({name: values[part] for name, values in inputs.items()}, target[part]) for part in (slice(3), slice(3, 8))
    ]
    found = held_out(method, halves)
    logits = unimodal_predictions(method, inputs)["visual"]
    assert found["visual"].accuracy == pytest.approx((logits.argmax(1) == target).float().mean().item())
    assert found["visual"].loss == pytest.approx(nn.functional.cross_entropy(logits, target).item(), rel=1e-5)
    assert method.training
    with pytest.raises(ValueError, match="batches are empty"):
        held_out(method, [])


def test_bad_input_is_refused_by_name():
    early = network(ConcatenationFusion(nn.Linear(10, 3)))
    assert "AGM takes any fusion" in check_refused(lambda: OGMGE(early), "OGM on early fusion")
    three = FusionNet({name: nn.Linear(2, 2) for name in "abc"}, LinearFusion([2] * 3, 2))
    assert "two modalities" in check_refused(lambda: OGMGE(three), "OGM on three modalities")
    assert "alpha" in check_refused(lambda: OGMGE(network(), alpha=0.0), "alpha")
    assert "factors" in check_refused(lambda: MSLR(network(), factors={"audio": 1.0}), "factors")
    assert "window" in check_refused(lambda: MSLR(network(), window=0), "window")
    assert "patience" in check_refused(lambda: MSES(network(), patience=0), "patience")
    assert "encoders" in check_refused(lambda: MSLR(nn.Linear(2, 2), ["a", "b"]), "no encoders")
    for method in (MSLR(network()), MSES(network())):
        assert "held_out" in check_refused(method.end_epoch, "no validation")
