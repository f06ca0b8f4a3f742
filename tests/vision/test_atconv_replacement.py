"""Layers put into models that exist: ConvNeXt- and MobileNet-like blocks, SiT-like blocks, Hugging Face's ViT."""

import pytest
import torch
from torch import nn

from interplay.vision.atconv import ATConv2d, ATConvTokens, replace_attention, replace_convolutions


class ConvNeXtBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.GroupNorm(1, dim)
        self.pwconv1 = nn.Conv2d(dim, 4 * dim, 1)
        self.pwconv2 = nn.Conv2d(4 * dim, dim, 1)

    def forward(self, x):
        return x + self.pwconv2(nn.functional.gelu(self.pwconv1(self.norm(self.dwconv(x)))))


def inverted_residual(dim, stride):
    """A MobileNet-like block."""
    return nn.Sequential(
        nn.Conv2d(dim, 3 * dim, 1, bias=False),
        nn.BatchNorm2d(3 * dim),
        nn.ReLU6(),
        nn.Conv2d(3 * dim, 3 * dim, 3, stride, 1, groups=3 * dim, bias=False),
        nn.BatchNorm2d(3 * dim),
        nn.ReLU6(),
        nn.Conv2d(3 * dim, dim, 1, bias=False),
    )


class Attention(nn.Module):
    """As timm's: tokens in, tokens out."""

    def __init__(self, dim):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.proj(nn.functional.scaled_dot_product_attention(q, k, v))


class SiTBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim)

    def forward(self, x):
        return x + self.attn(self.norm1(x))


class SiT(nn.Module):
    def __init__(self, dim=8, tokens=16, depth=4):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, dim))
        self.blocks = nn.ModuleList(SiTBlock(dim) for _ in range(depth))

    def forward(self, x):
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return x


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_depthwise_convolutions_of_a_network_are_swapped_and_it_still_learns():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), ConvNeXtBlock(8), inverted_residual(8, 1), inverted_residual(8, 2), ConvNeXtBlock(8)
    )
    x = images(4, 3, 32, 32)
    shape = network(x).shape
    assert replace_convolutions(network, kernel_size=3) == ["1.dwconv", "2.3", "4.dwconv"]  # not the strided 3.3
    assert network[1].dwconv.kernel_size == 3
    assert network[1].dwconv.value_projection.bias is not None
    assert network[2][3].value_projection.bias is None
    assert network[2][3].dim == 24
    assert network(x).shape == shape
    target = images(*shape, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (network(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_replacement_keeps_width_kernel_bias_dtype_and_training_mode():
    convolution = nn.Conv2d(6, 6, 5, padding="same", groups=6, bias=False, dtype=torch.float64)
    layer = ATConv2d.replacing(convolution, inhibition="full")
    assert (layer.dim, layer.kernel_size, layer.inhibition) == (6, 5, "full")
    assert layer.value_projection.bias is None
    assert layer(images(2, 6, 4, 4).double()).dtype == torch.float64
    network = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, groups=6)).eval()
    replace_convolutions(network)
    assert not network[0].training


@pytest.mark.parametrize(
    ("convolution", "message"),
    [
        (nn.Conv2d(6, 6, 3, 2, 1), "needs stride 1"),
        (nn.Conv2d(6, 8, 3, 1, 1), "needs channels in and out"),
        (nn.Conv2d(6, 6, 4, 1, 1), "needs an odd square kernel"),
        (nn.Conv2d(6, 6, 3, 1, 0), "needs zero padding of half the kernel"),
        (nn.Conv2d(6, 6, 3, 1, 1, padding_mode="reflect"), "needs zero padding"),
        (nn.Conv2d(6, 6, 3, 1, 2, dilation=2), "needs dilation 1"),
    ],
)
def test_convolutions_that_change_the_map_are_refused(convolution, message):
    with pytest.raises(ValueError, match=message):
        ATConv2d.replacing(convolution)


def test_what_cannot_be_replaced_is_said():
    with pytest.raises(TypeError, match=r"must be an nn.Conv2d; got Linear"):
        ATConv2d.replacing(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="no module of the model was chosen"):
        replace_convolutions(nn.Sequential(nn.Conv2d(3, 8, 3)))
    with pytest.raises(ValueError, match="no module of the model was chosen"):
        replace_attention(nn.Sequential(nn.Linear(3, 3)))
    model = SiT()
    del model.pos_embed
    with pytest.raises(ValueError, match="found no position embedding"):
        replace_attention(model, drop_position_embedding=True)
    assert isinstance(model.blocks[0].attn, Attention), "a refused call changes nothing"
    first, last = Attention(8), nn.PReLU()
    blocks = nn.ModuleDict({"first": first, "last": last})
    with pytest.raises(ValueError, match=r"cannot read the width of tokens off last .*pass dim="):
        replace_attention(blocks, lambda path, module: True)
    assert blocks["first"] is first, "nothing is swapped before all can be"


def test_all_attention_of_a_diffusion_transformer_goes_and_positions_with_it():
    model = SiT()
    assert replace_attention(model, grid_size=(2, 8), drop_position_embedding=True) == [
        f"blocks.{index}.attn" for index in range(4)
    ]
    assert not model.pos_embed.any()
    assert not model.pos_embed.requires_grad
    assert all(block.attn.mixer.grid_size == (2, 8) for block in model.blocks)
    x = images(2, 16, 8)
    mixer = model.blocks[0].attn.mixer
    assert torch.equal(model.blocks[0](x), x + mixer(model.blocks[0].norm1(x)))
    assert model(x).shape == (2, 16, 8)
    with pytest.raises(ValueError, match="no module of the model was chosen"):
        replace_attention(model)


def test_the_hybrid_keeps_attention_in_every_other_block_and_positions():
    model = SiT()
    before = model.pos_embed.clone()
    replace_attention(model, lambda path, module: path.endswith("attn") and int(path.split(".")[1]) % 2 == 1)
    kinds = [isinstance(block.attn, Attention) for block in model.blocks]
    assert kinds == [True, False, True, False]
    assert torch.equal(model.pos_embed, before)
    model(images(2, 16, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_vit_of_transformers_runs_learns_and_no_longer_knows_positions_by_name():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    settings = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=24, patch_size=4
    )
    model = ViTForImageClassification(settings).eval()
    swapped = replace_attention(model, prefix_tokens=1, drop_position_embedding=True)
    assert len(swapped) == 2
    assert sum(isinstance(module, ATConvTokens) for module in model.modules()) == 2
    assert not model.vit.embeddings.position_embeddings.any()
    x = images(2, 3, 24, 24)
    logits = model(pixel_values=x).logits
    assert logits.shape == (2, 2)
    moved = x.clone()
    moved[:, :, 16:, 16:] += 1  # the class token must see a far corner
    assert (model(pixel_values=moved).logits - logits).abs().max() > 1e-6
    model.train()
    model(pixel_values=x, labels=torch.tensor([0, 1])).loss.backward()
    mixers = [module for module in model.modules() if isinstance(module, ATConvTokens)]
    assert all(parameter.grad.abs().sum() > 0 for mixer in mixers for parameter in mixer.parameters())


def test_pytorchs_own_attention_answers_a_pair():
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, batch_first=True)})
    replace_attention(model)
    x = images(2, 9, 8)
    mixed, weights = model["attention"](x, x, x, need_weights=False)
    assert mixed.shape == x.shape
    assert weights is None
