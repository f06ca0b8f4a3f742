"""Fusion networks: parts that add up, heads that see what they should, inputs refused by name."""

import pytest
import torch
from torch import nn

from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.training import JointTraining
from interplay.testing import check_mechanism


def two_modalities(head: nn.Module, **options) -> FusionNet:
    return FusionNet({"audio": nn.Linear(3, 4), "visual": nn.Linear(5, 6)}, head, **options)


def batch(samples: int = 7) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "audio": torch.randn(samples, 3, generator=generator),
        "visual": torch.randn(samples, 5, generator=generator),
    }


def test_the_parts_of_late_fusion_add_up_to_its_logits():
    net, inputs = two_modalities(LinearFusion([4, 6], 2)), batch()
    latents = net.encode(inputs)
    parts = net.head.parts([latents["audio"], latents["visual"]])
    torch.testing.assert_close(sum(parts), net(inputs))
    by_hand = latents["visual"] @ net.head.readout.weight[:, 4:].T + net.head.readout.bias / 2
    torch.testing.assert_close(parts[1], by_hand)


def test_the_head_gets_the_latents_in_the_order_of_the_encoders():
    net, inputs = two_modalities(ConcatenationFusion(nn.Identity())), batch()
    expected = torch.cat([net.encoders["audio"](inputs["audio"]), net.encoders["visual"](inputs["visual"])], dim=1)
    shuffled = {"visual": inputs["visual"], "audio": inputs["audio"]}
    torch.testing.assert_close(net(shuffled), expected, rtol=0, atol=0)


def test_joint_training_is_the_loss_of_the_prediction_and_passes_the_battery():
    net, inputs, target = two_modalities(LinearFusion([4, 6], 2)), batch(), torch.tensor([0, 1, 1, 0, 0, 1, 0])
    method = JointTraining(net)
    assert method.modalities == ("audio", "visual")
    expected = nn.functional.cross_entropy(net(inputs), target)
    torch.testing.assert_close(method.loss(inputs, target), expected)
    torch.testing.assert_close(method(labels=target, **inputs)["loss"], expected)
    assert set(method.eval()(inputs, target)) == {"loss", "logits"}

    class ByPosition(nn.Module):
        def __init__(self):
            super().__init__()
            self.method = JointTraining(net)

        def forward(self, audio, visual):
            return self.method.logits({"audio": audio, "visual": visual})

    check_mechanism(ByPosition(), inputs["audio"], inputs["visual"])


def test_a_model_with_a_signature_of_its_own_is_called_as_told():
    class Keywords(nn.Module):
        def forward(self, text, image):
            return {"logits": text - image}

    method = JointTraining(Keywords(), ["text", "image"], call=lambda net, inputs: net(**inputs)["logits"])
    torch.testing.assert_close(method.logits({"image": torch.ones(2, 3), "text": torch.zeros(2, 3)}), -torch.ones(2, 3))


def test_bad_input_is_refused():
    net = two_modalities(LinearFusion([4, 6], 2), unimodal_heads=None)
    with pytest.raises(ValueError, match="touch"):
        net({**batch(), "touch": torch.zeros(7, 1)})
    with pytest.raises(ValueError, match=r"'audio': 7, 'visual': 3"):
        net({"audio": batch()["audio"], "visual": batch(3)["visual"]})
    with pytest.raises(RuntimeError, match="unimodal_heads"):
        net.unimodal_logits(net.encode(batch()))
    with pytest.raises(ValueError, match="two modalities"):
        FusionNet({"audio": nn.Identity()}, nn.Identity())
    with pytest.raises(ValueError, match="unimodal_heads"):
        two_modalities(nn.Identity(), unimodal_heads={"audio": nn.Identity()})
    with pytest.raises(ValueError, match="different names"):
        JointTraining(net, ["audio", "audio"])
    with pytest.raises(ValueError, match="Identity has no attribute modalities"):
        JointTraining(nn.Identity())
