"""Layers for maps and tokens: contracts, the published steps, ablations that equal simpler models, bad input."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from interplay.testing import check_mechanism, check_same_seed
from interplay.vision.atconv import ATConv2d, ATConvTokens, atconv_parameters, count_parameters

OPTIONS = [
    {},
    {"inhibition": "none"},
    {"inhibition": "full"},
    {"inhibition": "softmax"},
    {"pool": "grid"},
    {"kernel_source": "static"},
    {"kernel_source": "static", "inhibition": "none"},
    {"kernel_size": 5, "bias": False, "act": "silu"},
]


def made(kind, dim, seed=0, **options):
    torch.manual_seed(seed)
    layer = kind(dim, **options)
    if layer.gate is not None:
        nn.init.normal_(layer.gate)
    return layer


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_maps_keep_what_users_expect(options):
    check_mechanism(
        made(ATConv2d, 6, **options),
        images(3, 6, 7, 5),
        bad_inputs={"tokens": (images(3, 35, 6),), "channels": (images(3, 5, 7, 5),)},
    )


@pytest.mark.parametrize("options", [*OPTIONS, {"prefix_tokens": 2}, {"grid_size": (2, 8)}], ids=str)
def test_tokens_keep_what_users_expect(options):
    tokens = images(3, 16 + options.get("prefix_tokens", 0), 6)
    check_mechanism(
        made(ATConvTokens, 6, **options),
        tokens,
        bad_inputs={"a map": (images(3, 6, 4, 4),), "features": (images(3, 16, 5),)},
    )


def test_the_seed_of_the_weights_decides():
    check_same_seed(lambda seed: made(ATConv2d, 4, seed)(images(2, 4, 5, 5)))


def as_published(layer: ATConv2d, x: torch.Tensor) -> torch.Tensor:
    """The steps in the published order: project every pixel, then pool; image by image and channel by channel."""
    size = layer.kernel_size
    queries = functional.adaptive_avg_pool1d(layer.kernel_projection(x).flatten(2), size**2)
    kernels = layer.kernel_generator(functional.gelu(queries))
    kernels = kernels - torch.sigmoid(layer.gate)[:, None] * kernels.mean(-1, keepdim=True)
    values = layer.value_projection(x)
    rows = [
        torch.cat(
            [
                functional.conv2d(values[b : b + 1, c : c + 1], kernels[b, c].view(1, 1, size, size), padding=size // 2)
                for c in range(layer.dim)
            ],
            1,
        )
        for b in range(len(x))
    ]
    return layer.output_projection(torch.cat(rows))


@pytest.mark.parametrize(("size", "kernel_size"), [((7, 5), 3), ((2, 2), 3), ((1, 1), 3), ((6, 6), 5), ((9, 4), 1)])
def test_pooling_first_is_the_published_function(size, kernel_size):
    layer = made(ATConv2d, 4, kernel_size=kernel_size).double()
    x = images(3, 4, *size).double()
    assert torch.allclose(layer(x), as_published(layer, x), atol=1e-12)


def test_tokens_and_maps_are_one_operator():
    on_maps = made(ATConv2d, 6, act="gelu_tanh").double()
    on_tokens = made(ATConvTokens, 6, seed=1, grid_size=(3, 5)).double()
    on_tokens.load_state_dict(
        {name: value.flatten(1) if value.dim() == 4 else value for name, value in on_maps.state_dict().items()}
    )
    x = images(2, 6, 3, 5).double()
    expected = on_maps(x).flatten(2).mT
    assert torch.allclose(on_tokens(x.flatten(2).mT), expected, atol=1e-12)


def test_prefix_tokens_read_the_image_and_are_not_read():
    layer = made(ATConvTokens, 4, prefix_tokens=1)
    tokens = images(2, 10, 4)
    changed = tokens.clone()
    changed[:, 0] = 9
    assert torch.equal(layer(tokens), layer(changed))
    without = made(ATConvTokens, 4)
    without.load_state_dict(layer.state_dict())
    assert torch.allclose(layer(tokens)[:, 1:], without(tokens[:, 1:]), atol=1e-6)
    changed = tokens.clone()
    changed[:, 5] += 1
    assert (layer(tokens)[:, 0] - layer(changed)[:, 0]).abs().min() > 0
    assert torch.allclose(layer(tokens)[:, 0], without(tokens[:, 1:]).mean(1), atol=1e-6)


def test_kernels_follow_the_image_and_only_its_own():
    layer, x = made(ATConv2d, 4), images(3, 4, 6, 6)
    changed = x.clone()
    changed[1] += images(4, 6, 6, seed=5)
    before, after = layer.kernels(x), layer.kernels(changed)
    assert before.shape == (3, 4, 3, 3)
    assert (before[1] - after[1]).abs().min() > 0
    assert torch.equal(before[[0, 2]], after[[0, 2]])


def test_static_kernels_are_a_depthwise_convolution_between_projections():
    layer = made(ATConv2d, 5, kernel_source="static", inhibition="none")
    x = images(3, 5, 6, 7)
    values = functional.conv2d(layer.value_projection(x), layer.static_kernels[:, None], padding=1, groups=5)
    assert torch.allclose(layer(x), layer.output_projection(values), atol=1e-6)


def test_inhibition_is_half_at_the_start_and_each_choice_is_a_limit_of_the_learned_one():
    learned, x = ATConv2d(4).double(), images(2, 4, 6, 6).double()
    assert learned.strength.tolist() == [0.5] * 4
    raw = learned.raw_kernels(x)
    assert torch.allclose(learned.kernels(x).mean((-2, -1)), raw.mean((-2, -1)) / 2, atol=1e-12)
    for inhibition, gate in (("none", -60.0), ("full", 60.0)):
        fixed = ATConv2d(4, inhibition=inhibition).double()
        fixed.load_state_dict({name: value for name, value in learned.state_dict().items() if name != "gate"})
        nn.init.constant_(learned.gate, gate)
        assert torch.allclose(fixed(x), learned(x), atol=1e-10)
        assert fixed.no_weight_decay() == set()
    assert learned.no_weight_decay() == {"gate"}
    softmax = ATConv2d(4, inhibition="softmax")
    shared = softmax.kernels(x.float())
    assert shared.min() > 0
    assert torch.allclose(shared.sum((-2, -1)), torch.ones(2, 4))


def test_gates_are_one_a_channel():
    layer, x = made(ATConv2d, 4), images(2, 4, 6, 6)
    before = layer.kernels(x)
    with torch.no_grad():
        layer.gate[2] += 1
    changed = (layer.kernels(x) - before).abs().amax((0, 2, 3))
    assert changed[2] > 0
    assert changed[[0, 1, 3]].max() == 0


@pytest.mark.parametrize(("dim", "kernel_size"), [(1, 3), (6, 3), (16, 5), (3, 1)])
def test_parameters_follow_the_closed_form(dim, kernel_size):
    for kind in (ATConv2d, ATConvTokens):
        assert count_parameters(kind(dim, kernel_size=kernel_size)) == atconv_parameters(dim, kernel_size)


@pytest.mark.parametrize("kind", [ATConv2d, ATConvTokens])
def test_bad_options_are_refused(kind):
    for options, message in (
        ({"kernel_size": 4}, "kernel_size must be odd.*got 4: take 3 or 5"),
        ({"kernel_size": 0}, "kernel_size must be a whole number"),
        ({"inhibition": True}, "inhibition must be one of learned, none, full, softmax"),
        ({"pool": "max"}, "pool must be one of strip, grid"),
        ({"kernel_source": "global"}, "kernel_source must be one of context, static"),
        ({"act": "gelo"}, "act must be one of gelu"),
    ):
        with pytest.raises(ValueError, match=message):
            kind(8, **options)
    with pytest.raises(ValueError, match="dim must be a whole number"):
        kind(0)
    with pytest.raises(TypeError, match=r"act must make an nn.Module"):
        kind(8, act=lambda: functional.gelu)


def test_bad_maps_and_tokens_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"got \(2, 16, 8\): use ATConvTokens"):
        ATConv2d(8)(torch.zeros(2, 16, 8))
    with pytest.raises(ValueError, match="x has 6 channels, this layer 8"):
        ATConv2d(8)(torch.zeros(2, 6, 4, 4))
    with pytest.raises(ValueError, match=r"N=12 is not a square; pass grid_size=\(h, w\)"):
        ATConvTokens(8)(torch.zeros(2, 12, 8))
    with pytest.raises(ValueError, match=r"N=12 image tokens do not fill grid_size=\(3, 5\), which has 15"):
        ATConvTokens(8, (3, 5))(torch.zeros(2, 12, 8))
    with pytest.raises(ValueError, match="tokens have 6 features, this layer 8"):
        ATConvTokens(8)(torch.zeros(2, 16, 6))
    with pytest.raises(ValueError, match="use ATConv2d for maps"):
        ATConvTokens(8)(torch.zeros(2, 8, 4, 4))
    with pytest.raises(ValueError, match="grid_size must be"):
        ATConvTokens(8, (0, 5))


def test_an_empty_batch_and_a_map_of_one_pixel_pass():
    assert ATConv2d(8)(torch.zeros(0, 8, 4, 4)).shape == (0, 8, 4, 4)
    assert ATConvTokens(8)(torch.zeros(0, 16, 8)).shape == (0, 16, 8)
    layer, x = made(ATConv2d, 8), images(2, 8, 1, 1)
    centre = layer.kernels(x)[:, :, 1:2, 1:2]  # all other taps fall outside the image
    assert torch.allclose(layer(x), layer.output_projection(layer.value_projection(x) * centre), atol=1e-6)
