"""AttNet: the published family of image classifiers whose blocks mix positions by attentive convolution.

A stem of two strided convolutions takes the image to a quarter of its sides; four stages of blocks follow, with a
strided convolution between them; then the mean over positions, a layer norm and a linear head. The methods are those of
timm's models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from interplay.vision.atconv.blocks import AttNetBlock, ConvBN, LayerScale, Mixer
from interplay.vision.atconv.layers import ATConv2d, AttentiveConvolution

__all__ = ["SIZES", "AttNet", "attnet", "parameter_groups", "renamed_from_official"]

_SMALL = {"expansions": (8, 8, 4, 4), "norm": False}
_LARGE = {"expansions": (8, 8, 4, 4), "norm": True, "layer_scale": True}
SIZES: dict[str, dict[str, Any]] = {
    "xxs": {"depths": (2, 2, 4, 2), "dims": (32, 64, 128, 240), "layer_scale": False, **_SMALL},
    "xs": {"depths": (2, 2, 7, 2), "dims": (40, 80, 160, 320), "layer_scale": True, **_SMALL},
    "s": {"depths": (2, 3, 10, 3), "dims": (40, 80, 160, 320), "layer_scale": False, **_SMALL},
    "t1": {"depths": (2, 3, 12, 3), "dims": (48, 96, 224, 384), **_LARGE},
    "t2": {"depths": (3, 3, 16, 3), "dims": (64, 128, 288, 512), **_LARGE},
    "t3": {"depths": (4, 4, 26, 4), "dims": (72, 144, 320, 576), **_LARGE},
    "t4": {"depths": (5, 5, 28, 5), "dims": (96, 192, 384, 768), **_LARGE},
}
"""Settings of the seven published sizes; with 1,000 classes they have 2,853,556, 5,554,902, 7,681,316, 13,714,900,
27,010,782, 49,175,682 and 87,320,214 parameters."""


class AttNet(nn.Module):
    """Stages of `AttNetBlock`; see `attnet` for the published sizes.

    Parameters
    ----------
    depths, dims, expansions
        Blocks, channels and expansion of the channel mixer, one a stage.
    num_classes
        Outputs of the head; 0 for the pooled features themselves.
    in_chans
        Channels of the image.
    kernel_size
        Of the attentive convolution, odd.
    depthwise, norm, layer_scale
        Of all blocks.
    drop_path_rate
        Stochastic depth of the last block; it rises linearly from 0 at the first.
    mixer
        Makes the mixer of positions from the number of channels, for comparisons; default `ATConv2d`.
    """

    def __init__(
        self,
        depths: Sequence[int],
        dims: Sequence[int],
        expansions: Sequence[float],
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        kernel_size: int = 3,
        depthwise: bool = True,
        norm: bool = True,
        layer_scale: bool = True,
        drop_path_rate: float = 0.0,
        mixer: Mixer | None = None,
    ) -> None:
        super().__init__()
        if not len(depths) == len(dims) == len(expansions) >= 1:
            raise ValueError(
                f"depths, dims and expansions must name the same stages; got {len(depths)}, {len(dims)} and "
                f"{len(expansions)} of them"
            )
        if num_classes < 0 or in_chans < 1:
            raise ValueError(f"num_classes must be 0 or more, in_chans 1 or more; got {num_classes} and {in_chans}")
        self.num_classes = num_classes
        self.num_features = dims[-1]
        self.grad_checkpointing = False
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        mixer = mixer or (lambda dim: ATConv2d(dim, kernel_size))
        stem = nn.Sequential(ConvBN(in_chans, dims[0] // 2), nn.GELU(), ConvBN(dims[0] // 2, dims[0]))
        self.downsamplers = nn.ModuleList([stem, *(ConvBN(before, after) for before, after in pairwise(dims))])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    AttNetBlock(
                        dim,
                        expansion,
                        depthwise=depthwise,
                        norm=norm,
                        layer_scale=layer_scale,
                        drop_path=next(rates),
                        mixer=mixer,
                    )
                    for _ in range(depth)
                )
            )
            for depth, dim, expansion in zip(depths, dims, expansions, strict=True)
        )
        self.norm = nn.LayerNorm(self.num_features, eps=1e-5)
        self.head: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Every convolution and linear map truncated normal of deviation 0.02 with biases 0; norms 1 and 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm | AttentiveConvolution):
                module.reset_parameters()
            elif isinstance(module, LayerScale):
                nn.init.constant_(module.factor, 1e-6)

    def forward_features(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch feature h w"]:
        """The map after the last stage; unlike the official method of this name, neither pooled nor normalised."""
        for downsampler, stage in zip(self.downsamplers, self.stages, strict=True):
            x = self._through(stage, downsampler(x))
        return x

    def forward_head(
        self, x: Float[Tensor, "batch feature h w"], pre_logits: bool = False
    ) -> Float[Tensor, "batch output"]:
        """Logits of a final map; the pooled and normalised features with `pre_logits` or without classes."""
        x = self.norm(x.mean((-2, -1)))
        return x if pre_logits else self.head(x)

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch output"]:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Float[Tensor, "batch channel height width"],
        indices: int | Sequence[int] | None = None,
        *,
        stop_early: bool = False,
        intermediates_only: bool = False,
    ) -> tuple[Tensor, list[Tensor]] | list[Tensor]:
        """The final map and the maps after some stages, for detection and segmentation.

        Parameters
        ----------
        indices
            Stages from 0, negative ones from the end; a number n takes the last n; None all.
        stop_early
            Leave out stages after the last one that is asked for; then the first answer is the map of that one.
        intermediates_only
            Return the list alone.
        """
        count = len(self.stages)
        if indices is None:
            indices = range(count)
        elif isinstance(indices, int):
            indices = range(count - indices, count)
        if wrong := [index for index in indices if not -count <= index < count]:
            raise ValueError(f"indices must name stages 0 to {count - 1}; got {wrong[0]}")
        wanted = {index % count for index in indices}
        maps = []
        for index, (downsampler, stage) in enumerate(zip(self.downsamplers, self.stages, strict=True)):
            if stop_early and index > max(wanted, default=-1):
                break
            x = self._through(stage, downsampler(x))
            if index in wanted:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def get_classifier(self) -> nn.Module:
        """The linear head."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A new head, freshly drawn; 0 classes for none."""
        self.num_classes = num_classes
        if num_classes == 0:
            self.head = nn.Identity()
            return
        reference = self.norm.weight
        self.head = nn.Linear(self.num_features, num_classes, device=reference.device, dtype=reference.dtype)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only what enters each block for the backward pass and compute the rest again."""
        self.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the gates of all attentive convolutions."""
        return {
            f"{path}.{name}"
            for path, module in self.named_modules()
            if isinstance(module, AttentiveConvolution)
            for name in module.no_weight_decay()
        }

    def load_official_state_dict(self, weights: Mapping[str, Tensor] | str | Path) -> None:
        """Take weights under the names of the authors' code.

        Parameters
        ----------
        weights
            A mapping, such as `torch.load(file, weights_only=True)["model"]`, or the path of a safetensors file.
            Other files are not opened: a pickle can run any code.

        Raises
        ------
        ValueError
            If the path does not end in .safetensors.
        RuntimeError
            If names or shapes are not those of this size.
        """
        self.load_state_dict(renamed_from_official(_read(weights)))

    def _through(self, stage: nn.Module, x: Tensor) -> Tensor:
        for block in stage:
            x = checkpoint(block, x, use_reentrant=False) if self.grad_checkpointing and self.training else block(x)
        return x


def attnet(
    size: str, num_classes: int = 1000, in_chans: int = 3, drop_path_rate: float = 0.0, **options: Any
) -> AttNet:
    """One of the published sizes: xxs, xs, s, t1, t2, t3 or t4.

    Parameters
    ----------
    drop_path_rate
        The published runs took 0, .02, .05, .1, .2, .4 and .5.
    **options
        Further arguments of `AttNet`.

    Raises
    ------
    ValueError
        For an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}; got {size!r}")
    settings = {"num_classes": num_classes, "in_chans": in_chans, "drop_path_rate": drop_path_rate}
    return AttNet(**{**SIZES[size], **settings, **options})


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimiser, of any model with attentive convolutions: weights decay, vectors do not.

    Vectors are biases, norms, scales, and the gates, which decay would draw to half inhibition.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.dim() > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.dim() <= 1], "weight_decay": 0.0},
    ]


_OFFICIAL = {
    "downsample_layers": "downsamplers",
    "token_mixer": "position_mixer",
    "kernel_proj": "kernel_projection",
    "kernel_gen": "kernel_generator",
    "x_proj": "value_projection",
    "proj": "output_projection",
    "difference_control": "gate",
    "norm_1": "position_norm",
    "norm_2": "channel_norm",
    "layer_scale_1": "position_scale",
    "layer_scale_2": "channel_scale",
    "gamma": "factor",
    "fc1": "expand",
    "dwconv": "depthwise",
    "norm_layer": "norm",
    "fc2": "contract",
}


def renamed_from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the authors' AttNet, or of one of its layers, under the names that modules here have."""
    return {
        ".".join(_OFFICIAL.get(part, part) for part in name.removeprefix("module.").split(".")): tensor
        for name, tensor in weights.items()
    }


def _read(weights: Mapping[str, Tensor] | str | Path) -> Mapping[str, Tensor]:
    if isinstance(weights, Mapping):
        return weights
    path = Path(weights)
    if path.suffix != ".safetensors":
        raise ValueError(
            f"weights must be a mapping or a .safetensors file; got {path.name}: read it yourself by "
            "torch.load(path, weights_only=True) and pass the mapping of names to tensors"
        )
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise ImportError("reading safetensors needs safetensors: pip install 'interplay[llm]'") from error
    return load_file(path)
