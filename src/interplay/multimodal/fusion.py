"""Models of several modalities: an encoder each, and a head that joins what the encoders say.

Late fusion adds one linear read-out a modality (`LinearFusion`); intermediate fusion lets a network see the joined
latents (`ConcatenationFusion`). Any other head will do that takes the latents as a list, in the order of the encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["ConcatenationFusion", "FusionNet", "LinearFusion", "checked_inputs"]


class FusionNet(nn.Module):
    """Encoders by the name of their modality, and a head on the list of their latents.

    Parameters
    ----------
    encoders
        Two or more modules by name; each takes the input of that name, (sample, ...), and gives (sample, features).
    head
        Takes the list of latents in the order of `encoders` and gives the logits, (sample, class).
    unimodal_heads
        One read-out of the latents a modality, where a method wants them; the prediction does not use them.

    Raises
    ------
    ValueError
        Fewer than two encoders, or heads of other modalities than the encoders.
    """

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        head: nn.Module,
        unimodal_heads: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if len(encoders) < 2:
            raise ValueError(f"encoders must be of two modalities or more, got {sorted(encoders)}")
        if unimodal_heads is not None and set(unimodal_heads) != set(encoders):
            raise ValueError(
                f"unimodal_heads must be of the modalities {sorted(encoders)}, got {sorted(unimodal_heads)}"
            )
        self.encoders = nn.ModuleDict(encoders)
        self.head = head
        self.unimodal_heads = None if unimodal_heads is None else nn.ModuleDict(unimodal_heads)

    @property
    def modalities(self) -> tuple[str, ...]:
        """The names of the modalities, in the order in which the head gets their latents."""
        return tuple(self.encoders)

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The latent of each modality, (sample, features).

        Raises
        ------
        ValueError
            Inputs of other modalities than the encoders, or of different numbers of samples.
        """
        checked_inputs(inputs, self.modalities)
        return {name: encoder(inputs[name]) for name, encoder in self.encoders.items()}

    def fuse(self, latents: Mapping[str, Tensor]) -> Float[Tensor, "sample class"]:
        """Logits from the latents of all modalities."""
        return self.head([latents[name] for name in self.modalities])

    def unimodal_logits(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each unimodal head says of its latent, (sample, class).

        Raises
        ------
        RuntimeError
            The network was made without unimodal heads.
        """
        if self.unimodal_heads is None:
            raise RuntimeError("this FusionNet has no unimodal heads; give unimodal_heads when you make it")
        return {name: head(latents[name]) for name, head in self.unimodal_heads.items()}

    def forward(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "sample class"]:
        """Logits of a batch: inputs by modality."""
        return self.fuse(self.encode(inputs))


class LinearFusion(nn.Module):
    """Late fusion: the logits are a sum of one linear read-out a modality, sum_m W_m z_m + b.

    The same as one linear layer on the joined latents, drawn as that layer is; each modality's part can be seen alone.

    Parameters
    ----------
    features
        Width of each latent, in the order of the encoders.
    classes
        Number of logits.
    """

    def __init__(self, features: Sequence[int], classes: int) -> None:
        super().__init__()
        self.features = tuple(features)
        self.readout = nn.Linear(sum(self.features), classes)

    def parts(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """W_m z_m + b / M of each modality, (sample, class): they add up to the logits."""
        weights = self.readout.weight.split(self.features, dim=1)
        bias = self.readout.bias / len(self.features)
        return [nn.functional.linear(latent, weight, bias) for latent, weight in zip(latents, weights, strict=True)]

    def forward(self, latents: Sequence[Tensor]) -> Float[Tensor, "sample class"]:
        return self.readout(torch.cat(list(latents), dim=-1))


class ConcatenationFusion(nn.Module):
    """Intermediate fusion: any network on the joined latents, so that modalities mix before the read-out.

    Parameters
    ----------
    network
        Takes (sample, sum of the latents' widths) and gives (sample, class).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Sequence[Tensor]) -> Float[Tensor, "sample class"]:
        return self.network(torch.cat(list(latents), dim=-1))


def checked_inputs(inputs: Mapping[str, Tensor], modalities: Sequence[str]) -> int:
    """The number of samples of inputs that are of these modalities and of one batch.

    Raises
    ------
    ValueError
        Naming the modalities that are missing or unknown, or the batch sizes that differ.
    """
    if set(inputs) != set(modalities):
        raise ValueError(f"inputs must be of the modalities {list(modalities)}, got {list(inputs)}")
    sizes = {name: len(values) for name, values in inputs.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"inputs must be of the same samples; the batch sizes are {sizes}")
    return next(iter(sizes.values()))
