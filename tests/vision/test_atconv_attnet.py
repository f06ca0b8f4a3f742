"""The family of classifiers: published sizes and costs, timm's methods, weights in and out, decay and depth."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from interplay.testing import check_mechanism
from interplay.vision.atconv import (
    SIZES,
    ATConv2d,
    ATConvTokens,
    AttNet,
    AttNetBlock,
    atconv_macs,
    attnet,
    attnet_macs,
    count_macs,
    count_parameters,
    parameter_groups,
)
from interplay.vision.atconv.blocks import ChannelLayerNorm, ChannelRMSNorm, DropPath

TINY = {"depths": (1, 1), "dims": (8, 12), "expansions": (3, 3), "num_classes": 5}
PUBLISHED = {  # parameters with 1,000 classes; multiply-accumulates at 224 x 224 in units of 10^9
    "xxs": (2_853_556, 0.53),
    "xs": (5_554_902, 1.00),
    "s": (7_681_316, 1.33),
    "t1": (13_714_900, 2.42),
    "t2": (27_010_782, 5.09),
    "t3": (49_175_682, 9.38),
    "t4": (87_320_214, 16.73),
}


def made(seed=0, **settings):
    torch.manual_seed(seed)
    return AttNet(**{**TINY, **settings})


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_have_their_parameters_and_operations(size):
    parameters, giga = PUBLISHED[size]
    with torch.device("meta"):
        network, image = attnet(size), torch.empty(1, 3, 224, 224)
    assert count_parameters(network) == parameters
    assert round(attnet_macs(size) / 1e9, 2) == giga
    assert count_macs(network, image, as_published=True) == attnet_macs(size)
    assert count_macs(network, image) == attnet_macs(size, pooled_first=True) < attnet_macs(size)


@pytest.mark.parametrize("pixels", [(12, 12), (3, 4), (1, 1)])
def test_operations_of_a_layer_follow_the_closed_form(pixels):
    count = pixels[0] * pixels[1]
    x, tokens = torch.empty(2, 8, *pixels), torch.empty(2, count, 8)
    for layer, given in ((ATConv2d(8), x), (ATConvTokens(8, pixels), tokens)):
        assert count_macs(layer, given) == 2 * atconv_macs(8, count, pooled_first=True)
        assert count_macs(layer, given, as_published=True) == 2 * atconv_macs(8, count)
        assert not layer._forward_pre_hooks


def test_other_images_classes_and_channels_are_counted_too():
    network = attnet("xxs", 10, 1).eval()
    x = torch.zeros(1, 1, 50, 50)
    assert count_macs(network, x, as_published=True) == attnet_macs("xxs", image_size=50, num_classes=10, in_chans=1)


@pytest.mark.parametrize("settings", [{}, {"layer_scale": False, "norm": False}, {"depthwise": False}], ids=str)
def test_networks_keep_what_users_expect(settings):
    network = made(**settings)
    if settings.get("layer_scale", True):
        for name, parameter in network.named_parameters():
            if name.endswith("scale.factor"):  # at 1e-6 branches are nearly off
                nn.init.ones_(parameter)
    check_mechanism(network, images(3, 3, 33, 40), stateful=True)


def test_initial_weights_are_as_published():
    network = made(dims=(64, 96), depths=(2, 2))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if module.weight.numel() > 500:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.15)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, ATConv2d):
            assert not module.gate.any()
    factors = [value for name, value in network.named_parameters() if name.endswith("scale.factor")]
    assert len(factors) == 8
    assert all((factor == 1e-6).all() for factor in factors)


def test_channel_norms_agree_with_their_formulas():
    x = images(2, 6, 3, 4).double()
    layer, rms = ChannelLayerNorm(6).double(), ChannelRMSNorm(6).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(rms.weight)
    centred = x - x.mean(1, keepdim=True)
    variance = x.var(1, correction=0, keepdim=True)
    assert torch.allclose(layer(x), centred / (variance + 1e-6).sqrt() * layer.weight.view(-1, 1, 1))
    assert torch.allclose(rms(x), x / (x.square().mean(1, keepdim=True) + 1e-6).sqrt() * rms.weight.view(-1, 1, 1))


def test_stochastic_depth_rises_to_its_maximum_and_keeps_the_mean():
    network = made(depths=(2, 3), drop_path_rate=0.4)
    rates = [module.rate for module in network.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    torch.manual_seed(0)
    layer = DropPath(0.25)
    kept = layer(torch.ones(4000, 1, 1, 1))
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.04)  # four standard errors
    assert torch.equal(layer.eval()(kept), kept)


def test_methods_of_timm():
    network, x = made().eval(), images(2, 3, 32, 48)
    final = network.forward_features(x)
    assert final.shape == (2, 12, 4, 6)
    assert torch.equal(network.forward_head(final), network(x))
    pooled = network.forward_head(final, pre_logits=True)
    assert torch.equal(network.get_classifier()(pooled), network(x))
    last, maps = network.forward_intermediates(x)
    assert [tuple(part.shape) for part in maps] == [(2, 8, 8, 12), (2, 12, 4, 6)]
    assert torch.equal(last, final)
    assert torch.equal(maps[-1], final)
    early, (only,) = network.forward_intermediates(x, [0], stop_early=True)
    assert torch.equal(early, only)
    assert torch.equal(only, maps[0])
    (end,) = network.forward_intermediates(x, 1, intermediates_only=True)
    assert torch.equal(end, final)
    network.reset_classifier(3)
    assert network(x).shape == (2, 3)
    network.reset_classifier(0)
    assert torch.equal(network(x), pooled)
    with pytest.raises(ValueError, match="stages 0 to 1; got 2"):
        network.forward_intermediates(x, [2])


def test_checkpointed_gradients_are_the_same():
    gradients = []
    for enabled in (False, True):
        network = made(layer_scale=False)
        network.set_grad_checkpointing(enabled)
        network(images(2, 3, 32, 32)).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients, strict=True))


def test_gates_and_other_vectors_do_not_decay():
    network = made()
    gates = network.no_weight_decay()
    assert gates == {"stages.0.0.position_mixer.gate", "stages.1.0.position_mixer.gate"}
    decayed, kept = parameter_groups(network, 0.05)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    named = dict(network.named_parameters())
    in_kept = {id(parameter) for parameter in kept["params"]}
    assert all(id(named[name]) in in_kept for name in gates)
    assert len(decayed["params"]) + len(kept["params"]) == len(named)
    optimizer = torch.optim.SGD(parameter_groups(network, 0.5), lr=1.0)
    for name in gates:
        nn.init.ones_(named[name])
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    weight = network.head.weight.clone()
    optimizer.step()
    assert all((named[name] == 1).all() for name in gates)
    assert torch.allclose(network.head.weight, weight / 2)


def test_another_mixer_may_take_the_place():
    network = made(mixer=lambda dim: nn.Identity(), layer_scale=False)
    assert isinstance(network.stages[0][0].position_mixer, nn.Identity)
    assert network.no_weight_decay() == set()
    block, x = AttNetBlock(6, 3, mixer=nn.Identity).eval(), images(2, 6, 4, 4)
    after = x + block.position_norm(x)
    assert torch.allclose(block(x), after + block.channel_mixer(block.channel_norm(after)))


def test_official_weights_come_from_a_mapping_or_a_safetensors_file(tmp_path):
    source, target = made(0).eval(), made(1).eval()
    official = {}
    backwards = {"position_mixer": "token_mixer", "kernel_projection": "kernel_proj", "kernel_generator": "kernel_gen"}
    backwards |= {"value_projection": "x_proj", "output_projection": "proj", "gate": "difference_control"}
    backwards |= {"position_norm": "norm_1", "channel_norm": "norm_2", "position_scale": "layer_scale_1"}
    backwards |= {"channel_scale": "layer_scale_2", "factor": "gamma", "expand": "fc1", "depthwise": "dwconv"}
    backwards |= {"contract": "fc2", "downsamplers": "downsample_layers"}
    for name, value in source.state_dict().items():
        parts = [backwards.get(part, part) for part in name.split(".")]
        if "channel_mixer" in parts:
            parts = ["norm_layer" if part == "norm" else part for part in parts]
        official[".".join(parts)] = value.contiguous()
    x = images(2, 3, 32, 32)
    target.load_official_state_dict({f"module.{name}": value for name, value in official.items()})
    assert torch.equal(target(x), source(x))
    save_file(official, tmp_path / "weights.safetensors")
    target = made(1).eval()
    target.load_official_state_dict(tmp_path / "weights.safetensors")
    assert torch.equal(target(x), source(x))
    with pytest.raises(ValueError, match=r"weights.pth: read it yourself by torch.load\(path, weights_only=True\)"):
        target.load_official_state_dict(tmp_path / "weights.pth")
    with pytest.raises(RuntimeError, match="Missing key"):
        target.load_official_state_dict({"head.weight": official["head.weight"]})


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="size must be one of xxs, xs, s, t1, t2, t3, t4; got 'T9'"):
        attnet("T9")
    with pytest.raises(ValueError, match="same stages; got 2, 3 and 2"):
        made(dims=(8, 12, 16))
    with pytest.raises(ValueError, match="num_classes must be 0 or more"):
        made(num_classes=-1)
    with pytest.raises(ValueError, match=r"stochastic depth must lie in \[0, 1\)"):
        made(drop_path_rate=1.0)
