"""Baselines of unimodal training: what is added, what is kept apart, what stands still; the min-norm point."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interplay.multimodal.fusion import FusionNet, LinearFusion
from interplay.multimodal.mmpareto import MMPareto, min_norm_weight
from interplay.multimodal.training import JointTraining
from interplay.multimodal.unimodal import FrozenEncoders, MultiLossTraining, UnimodalEnsemble, load_encoders
from interplay.primitives.randomness import generator_of, initialised_from

TARGET = torch.tensor([0, 1, 2, 0, 1, 2])
ENTROPY = nn.functional.cross_entropy


def net(seed: int = 0, *, heads: bool = True) -> FusionNet:
    with initialised_from(generator_of(seed)):
        encoders = {
            "a": nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
            "b": nn.Sequential(nn.Linear(2, 4), nn.Tanh()),
        }
        unimodal = {name: nn.Linear(4, 3) for name in encoders} if heads else None
        return FusionNet(encoders, LinearFusion([4, 4], 3), unimodal)


def batch() -> dict[str, torch.Tensor]:
    generator = generator_of(2)
    return {"a": torch.randn(6, 5, generator=generator), "b": torch.randn(6, 2, generator=generator)}


def gradients(method) -> dict[str, torch.Tensor]:
    method.zero_grad()
    method.loss(batch(), TARGET).backward()
    method.adjust_gradients()
    return {n: p.grad.clone() for n, p in method.net.named_parameters() if p.grad is not None}


def test_multi_loss_adds_the_weighted_losses_of_all_heads():
    method = MultiLossTraining(net().eval(), unimodal_weight=0.3)
    alone = method.net.unimodal_logits(method.net.encode(batch())).values()
    expected = ENTROPY(method.net(batch()), TARGET) + 0.3 * sum(ENTROPY(logits, TARGET) for logits in alone)
    torch.testing.assert_close(method.loss(batch(), TARGET), expected)


def test_the_ensemble_trains_each_modality_as_if_alone():
    together = gradients(UnimodalEnsemble(net().eval(), largest_norm=0.1))
    for name in ("a", "b"):
        model = net().eval()
        ENTROPY(model.unimodal_heads[name](model.encoders[name](batch()[name])), TARGET).backward()
        own = [*model.encoders[name].parameters(), *model.unimodal_heads[name].parameters()]
        assert nn.utils.clip_grad_norm_(own, 0.1) > 0.1
        for part in ("encoders", "unimodal_heads"):
            for which, parameter in getattr(model, part)[name].named_parameters():
                torch.testing.assert_close(together[f"{part}.{name}.{which}"], parameter.grad)
    assert not any(name.startswith("head") for name in together)


def test_the_ensemble_predicts_the_mean_probability():
    method = UnimodalEnsemble(net().eval())
    alone = method.net.unimodal_logits(method.net.encode(batch())).values()
    expected = torch.stack([logits.softmax(-1) for logits in alone]).mean(0)
    torch.testing.assert_close(method.logits(batch()).exp(), expected)


def test_frozen_encoders_stand_still_in_weights_statistics_and_dropout():
    method = FrozenEncoders(net()).train()
    state = {name: value.clone() for name, value in method.net.encoders.state_dict().items()}
    first, second = method.loss(batch(), TARGET), method.loss(batch(), TARGET)
    assert first == second
    assert {name.split(".")[0] for name in gradients(method)} == {"head"}
    assert all(torch.equal(value, state[name]) for name, value in method.net.encoders.state_dict().items())
    assert all(part.training for part in method.net.encoders.modules())


def test_a_net_starts_from_trained_encoders_with_a_head_of_its_own():
    start, trained = net(0), net(1)
    head = start.head.readout.weight.clone()
    assert load_encoders(start, trained) is start
    for name, parameter in trained.named_parameters():
        same = torch.equal(parameter, dict(start.named_parameters())[name])
        assert same == (not name.startswith("head"))
    assert torch.equal(start.head.readout.weight, head)
    load_encoders(net(0, heads=False), trained)
    with pytest.raises(ValueError, match="trained must have the modalities"):
        load_encoders(start, FusionNet({"x": nn.Identity(), "y": nn.Identity()}, nn.Identity()))


@given(seed=st.integers(0, 500), scale=st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_the_min_norm_point_is_the_shortest_of_the_segment_and_descends_both(seed, scale):
    generator = generator_of(seed)
    first, second = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    second = second * scale
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    norms = (grid * first + (1 - grid) * second).norm(dim=1)
    weight = min_norm_weight(first, second)
    assert weight.item() == pytest.approx(grid[norms.argmin(), 0].item(), abs=1e-3)
    point = weight * first + (1 - weight) * second
    assert point @ first >= -1e-9
    assert point @ second >= -1e-9
    assert min_norm_weight(first, first) == 0.5


@pytest.mark.parametrize("unimodal_weight", [1.0, 0.3])
def test_mmpareto_without_conflict_is_multi_loss_training_stretched(unimodal_weight):
    model = net().eval()
    with torch.no_grad():
        for name, weight in zip(model.encoders, model.head.readout.weight.split([4, 4], dim=1), strict=True):
            model.unimodal_heads[name].weight.copy_(weight)
    plain = gradients(MultiLossTraining(model, unimodal_weight=unimodal_weight))
    method = MMPareto(model, stretch=2.0, unimodal_weight=unimodal_weight)
    stretched = gradients(method)
    assert set(method.diagnostics().values()) == {0.5}
    for name, gradient in plain.items():
        expected = gradient * 2 if name.startswith("encoders") else gradient
        torch.testing.assert_close(stretched[name], expected, rtol=1e-4, atol=1e-7)


def test_bad_input_is_refused():
    bare = net(heads=False)
    for method in (MultiLossTraining, UnimodalEnsemble, MMPareto):
        with pytest.raises(ValueError, match="no unimodal_heads"):
            method(bare)
    with pytest.raises(ValueError, match="unimodal_weight"):
        MultiLossTraining(net(), unimodal_weight=-1)
    with pytest.raises(ValueError, match="stretch"):
        MMPareto(net(), stretch=0)
    with pytest.raises(RuntimeError, match="call loss and backward first"):
        MMPareto(net()).adjust_gradients()
    assert JointTraining(bare).loss(batch(), TARGET).isfinite()
