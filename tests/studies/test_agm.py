"""What only the study has: fair starts, choice on validation data, controls that are what they say, what is noted."""

import numpy as np
import pytest
import torch

from interplay.multimodal.agm import AGM
from interplay.multimodal.training import JointTraining
from interplay.primitives.randomness import generator_of
from interplay.studies.agm import study
from interplay.studies.agm.runs import (
    MODALITIES,
    ConstantAGM,
    RecordedAGM,
    Trained,
    World,
    best,
    fused_features,
    preference,
)
from interplay.studies.audio_visual import Optimisation, accuracy, fusion_net, shuffled_batches, train, unimodal_net


@pytest.fixture(scope="module")
def world() -> World:
    return World.draw(0, (200, 50, 100), 1.0, Optimisation(epochs=2), 120 / 7000)


def test_every_method_starts_from_the_same_weights_and_sees_the_same_batches(world):
    one, other = world.fusion("late"), world.fusion("late")
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)
    early = world.fusion("early")
    for name, values in one.encoders.state_dict().items():
        assert torch.equal(values, early.encoders.state_dict()[name])
    alone = unimodal_net("visual", generator_of(0, 1))
    for left, right in zip(alone[0].parameters(), one.encoders["visual"].parameters(), strict=True):
        assert torch.equal(left, right)
    # Without modulation AGM is joint training: only rounding may differ after the same batches.
    joint = world.run(JointTraining(one)).method.logits(world.data.test.inputs)
    idle = world.run(AGM(other, alpha=0.0)).method.logits(world.data.test.inputs)
    torch.testing.assert_close(joint, idle, rtol=1e-3, atol=1e-3)


def test_batches_are_full_and_take_no_sample_twice():
    batches = list(shuffled_batches(100, 32, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [32, 32, 32]
    assert len(torch.cat(batches).unique()) == 96
    assert [len(batch) for batch in shuffled_batches(20, 32, torch.Generator().manual_seed(0))] == [20]


def test_training_calls_the_method_in_order_and_clips(world):
    calls = []

    class Noted(JointTraining):
        def loss(self, inputs, target):
            calls.append("loss")
            return 1e6 * super().loss(inputs, target)

        def adjust_gradients(self):
            calls.append("adjust")

        def start_epoch(self, epoch):
            calls.append(f"start {epoch}")

        def end_epoch(self, validation=None):
            calls.append("end")

    net = world.fusion("late")
    before = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    settings = Optimisation(epochs=1, lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=200, clip=0.5)
    train(Noted(net), world.data.train, settings, torch.Generator().manual_seed(0))
    assert calls == ["start 0", "loss", "adjust", "end"]
    after = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.1 * 0.5, rel=1e-3)


def test_the_constant_control_scales_by_the_mean_of_the_recorded_coefficients(world):
    recorded = RecordedAGM(world.fusion("late"), alpha=1.5)
    seen = []
    for start in (0, 50, 100):
        inputs, labels = world.data.train.take(slice(start, start + 50))
        recorded.loss(inputs, labels)
        seen.append(recorded.coefficients.clone())
    torch.testing.assert_close(recorded.mean_coefficients, torch.stack(seen).mean(0))
    constant = ConstantAGM(world.fusion("late"), recorded.mean_coefficients)
    for start in (0, 50):
        constant.loss(*world.data.train.take(slice(start, start + 50)))
        torch.testing.assert_close(constant.coefficients, recorded.mean_coefficients)


def test_candidates_are_chosen_without_the_test_set():
    method = JointTraining(fusion_net("late", generator_of(0)))
    candidates = {"good on test": Trained(method, 0.5, 0.9), "chosen": Trained(method, 0.6, 0.1)}
    assert best(candidates)[0] == "chosen"


def test_features_are_what_enters_the_last_layer(world):
    for kind, width in (("late", 128), ("early", 128)):
        net = world.fusion(kind)
        features = fused_features(net, world.data.test)
        assert features.shape == (100, width)
        last = net.head.readout if kind == "late" else net.head.network[-1]
        torch.testing.assert_close(last(features), net(world.data.test.inputs))


def test_preference_is_for_the_modality_whose_concept_is_there(world):
    net = world.fusion("late")
    # One concept is a linear map of the features, the other one of noise that the network does not see.
    torch.manual_seed(0)
    known = torch.nn.Sequential(net.encoders["visual"], torch.nn.Linear(64, 10))
    unknown = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Tanh(), torch.nn.Linear(40, 10))
    method = JointTraining(net)
    alone = {"audio": Trained(JointTraining(net), 0, 0.9), "visual": Trained(JointTraining(net), 0, 0.1)}
    alone["audio"].method.net, alone["visual"].method.net = unknown, known
    rows = {(row.metric, row.item): row.value for row in preference(world, 1.0, Trained(method, 0, 0), alone)}
    assert rows["competition strength by noise", "visual"] < rows["competition strength by noise", "audio"]
    assert rows["preferred modality is the more accurate one", None] == 0.0
    assert rows["gap between competition strengths", None] == pytest.approx(
        rows["competition strength by noise", "audio"] - rows["competition strength by noise", "visual"]
    )


def test_learning_is_seen_where_there_is_some(world):
    better = World(0, world.data, Optimisation(epochs=10), world.ridge)
    learned = better.alone("visual")
    with torch.no_grad():
        on_train = accuracy(learned.method.logits(world.data.train.inputs), world.data.train.labels)
    assert on_train > 0.9
    assert learned.test > 0.2


def test_the_course_of_shares_and_coefficients_is_noted_each_epoch():
    table = study.run_trial(study.configure("smoke"), 3)
    for condition, metric in (("joint", "share accuracy"), ("AGM", "share accuracy"), ("AGM", "coefficient")):
        rows = table[(table["condition"] == condition) & (table["metric"] == metric)]
        assert sorted(zip(rows["step"], rows["item"], strict=True)) == [(e, m) for e in (1, 2) for m in MODALITIES]
    last = table[(table["metric"] == "share accuracy") & (table["step"] == 2)].set_index(["condition", "item"])["value"]
    final = table[table["metric"] == "final share accuracy"].set_index(["condition", "item"])["value"]
    for condition in ("joint", "AGM"):
        for name in MODALITIES:
            assert last[condition, name] == final[condition, name]
    assert np.isfinite(table["value"]).all()
