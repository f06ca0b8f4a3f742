"""Two (or more) pathways whose outputs add, many networks at once along a leading run axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.dynamics.critical_periods.chains import Nonlinearity, activities_of
from interplay.primitives.gates import scale_gradient
from interplay.primitives.randomness import generator_of

__all__ = ["TargetModes", "TwoPathwayLinear", "hierarchy", "target_modes"]


class TargetModes(NamedTuple):
    """Singular modes of a map: left (outputs, modes), values (modes,) in falling order, right (inputs, modes)."""

    left: Tensor
    values: Tensor
    right: Tensor


def hierarchy(dtype: torch.dtype = torch.float32) -> tuple[Float[Tensor, "8 8"], Float[Tensor, "8 15"]]:
    """The published task: 8 items, one-hot, and 15 features, the nodes of the binary tree above each item.

    The singular values of the map from items to features are sqrt(15), sqrt(7), sqrt(3) twice and 1 four times.
    """
    items = torch.arange(8)
    features = [(items // width == node) for width in (8, 4, 2, 1) for node in range(8 // width)]
    return torch.eye(8, dtype=dtype), torch.stack(features, 1).to(dtype)


def target_modes(x: Float[Tensor, "points inputs"], y: Float[Tensor, "points outputs"]) -> TargetModes:
    """Singular modes of y^T x, the map that linear networks learn from white inputs."""
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
        raise ValueError(
            f"x and y must be (points, features) of the same points; got {tuple(x.shape)}, {tuple(y.shape)}"
        )
    left, values, right = torch.linalg.svd(y.mT @ x, full_matrices=False)
    return TargetModes(left, values, right.mT)


class TwoPathwayLinear(nn.Module):
    """Networks y = sum over pathways of W_D ... W_2 W_1 x, without biases.

    Parameters
    ----------
    weights
        One tensor a layer, (runs, paths, receivers, senders), from the inputs on; their number is the depth D.
    nonlinearity
        After every layer, the last one included, as in the official code.

    Raises
    ------
    ValueError
        No layers, or shapes that do not chain.

    Examples
    --------
    >>> x, y = hierarchy()
    >>> network = TwoPathwayLinear.balanced(target_modes(x, y), depth=3, seeds=range(5))
    >>> network(x).shape
    torch.Size([5, 8, 15])
    """

    def __init__(
        self, weights: Sequence[Float[Tensor, "runs paths receivers senders"]], *, nonlinearity: Nonlinearity = "linear"
    ) -> None:
        super().__init__()
        if nonlinearity not in get_args(Nonlinearity):
            raise ValueError(f"nonlinearity must be one of {', '.join(get_args(Nonlinearity))}; got {nonlinearity!r}")
        if len(weights) < 1:
            raise ValueError("depth must be 1 or more; got no weights")
        for layer, weight in enumerate(weights):
            if weight.dim() != 4 or weight.shape[:2] != weights[0].shape[:2]:
                raise ValueError(
                    f"weights must be (runs, paths, receivers, senders), the first two alike; layer {layer} has "
                    f"{tuple(weight.shape)}, layer 0 {tuple(weights[0].shape)}"
                )
            if layer and weight.shape[3] != weights[layer - 1].shape[2]:
                raise ValueError(
                    f"layer {layer} takes {weight.shape[3]} numbers and layer {layer - 1} gives "
                    f"{weights[layer - 1].shape[2]}"
                )
        self.weights = nn.ParameterList([nn.Parameter(weight.detach().clone()) for weight in weights])
        self.nonlinearity = nonlinearity

    @classmethod
    def balanced(
        cls,
        modes: TargetModes,
        *,
        depth: int,
        seeds: Sequence[int],
        width: int = 100,
        paths: int = 2,
        scale: float = 0.01,
        noise: float = 0.1,
        nonlinearity: Nonlinearity = "linear",
    ) -> TwoPathwayLinear:
        """Start in the singular basis of the target, all layers with the same singular values, all pathways alike.

        The product of a pathway's layers has the values `scale * (1 + noise * N(0, 1))`, sorted. With their D-th roots
        on the diagonal of A, R random orthogonal, the layers are R A V^T, R A R^T, ..., U A R^T.

        Parameters
        ----------
        modes
            Of the target, from `target_modes`. The first min(modes, width) are given.
        depth
            D, the number of matrices of a pathway.
        seeds
            One a run. A seed that comes twice starts two runs alike, as deficits that are to be compared should.
        width
            Number of hidden units of each pathway.
        """
        _check_sizes(depth, seeds, width=width, paths=paths)
        if scale <= 0:
            raise ValueError(f"scale must be positive, 0 is a saddle for depth >= 2; got {scale}")
        left, _, right = modes
        rank = min(left.shape[1], width)
        left, right = left[:, :rank], right[:, :rank]
        drawn = {seed: _balanced_layers(seed, left, right, depth, width, scale, noise) for seed in dict.fromkeys(seeds)}
        return cls(_stacked([drawn[seed] for seed in seeds], paths), nonlinearity=nonlinearity)

    @classmethod
    def gaussian(
        cls,
        inputs: int,
        outputs: int,
        *,
        depth: int,
        seeds: Sequence[int],
        width: int = 100,
        paths: int = 2,
        scale: float = 0.01,
        nonlinearity: Nonlinearity = "linear",
        dtype: torch.dtype = torch.float32,
    ) -> TwoPathwayLinear:
        """Start from independent normal weights of variance scale^(2 / depth) / senders; pathways differ."""
        _check_sizes(depth, seeds, width=width, paths=paths, inputs=inputs, outputs=outputs)
        sizes = [inputs, *[width] * (depth - 1), outputs]
        drawn = {}
        for seed in dict.fromkeys(seeds):
            generator = generator_of(seed)
            drawn[seed] = [
                torch.randn(paths, receivers, senders, generator=generator, dtype=dtype)
                * (scale ** (1 / depth) / senders**0.5)
                for senders, receivers in pairwise(sizes)
            ]
        return cls(
            [torch.stack(layer) for layer in zip(*(drawn[seed] for seed in seeds), strict=True)],
            nonlinearity=nonlinearity,
        )

    @property
    def depth(self) -> int:
        """Number of matrices of a pathway."""
        return len(self.weights)

    @property
    def runs(self) -> int:
        """Number of networks."""
        return self.weights[0].shape[0]

    @property
    def paths(self) -> int:
        """Number of pathways of each network."""
        return self.weights[0].shape[1]

    def forward(
        self, x: Float[Tensor, "points inputs"], learning: Float[Tensor, "runs paths"] | None = None
    ) -> Float[Tensor, "runs points outputs"]:
        """Outputs of all networks.

        Parameters
        ----------
        x
            Inputs, shared.
        learning
            Factor on the gradient that comes back into each pathway of each run: 0 freezes it, 1 (the default) lets it
            learn. The outputs are the same whatever it is.
        """
        outputs = self.path_outputs(x)
        if learning is not None:
            outputs = scale_gradient(outputs, learning[:, :, None, None])
        return outputs.sum(1)

    def path_outputs(self, x: Float[Tensor, "points inputs"]) -> Float[Tensor, "runs paths points outputs"]:
        """What each pathway adds to the output."""
        inputs = self.weights[0].shape[3]
        if x.dim() != 2 or x.shape[1] != inputs:
            raise ValueError(f"x must have shape (points, {inputs}); got {tuple(x.shape)}")
        output = activities_of(list(self.weights), x.mT, self.nonlinearity)[-1]
        assert output is not None
        return output.mT

    def maps(self) -> Float[Tensor, "runs paths outputs inputs"]:
        """Omega of each pathway: its outputs for the unit vectors, the product of its layers if it is linear."""
        output = activities_of(list(self.weights), None, self.nonlinearity)[-1]
        assert output is not None
        return output

    def pathway_modes(
        self, left: Float[Tensor, "outputs modes"], right: Float[Tensor, "inputs modes"]
    ) -> Float[Tensor, "runs paths modes"]:
        """K = u^T Omega v of each pathway and mode: how much of the mode it carries."""
        return modes_of(self.maps(), left, right)

    def select(self, runs: Sequence[int]) -> TwoPathwayLinear:
        """A copy of some of the networks, by index; an index may come more than once."""
        return TwoPathwayLinear([weight[list(runs)] for weight in self.weights], nonlinearity=self.nonlinearity)

    def extra_repr(self) -> str:
        """Sizes in one line."""
        return f"runs={self.runs}, paths={self.paths}, depth={self.depth}, nonlinearity={self.nonlinearity}"


def modes_of(maps: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Diagonal of left^T maps right."""
    return (left * (maps @ right)).sum(-2)


def _balanced_layers(
    seed: int, left: Tensor, right: Tensor, depth: int, width: int, scale: float, noise: float
) -> list[Tensor]:
    generator = generator_of(seed)
    spread = torch.randn(width, generator=generator, dtype=left.dtype)
    values = (scale * (1 + noise * spread)).sort(descending=True).values
    if values[-1] <= 0:
        raise ValueError(f"noise={noise} makes a singular value negative: take less than about 0.25")
    rank = left.shape[1]
    root = values ** (1 / depth)
    if depth == 1:
        return [left * root[:rank] @ right.mT]
    rotation, triangle = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=left.dtype))
    rotation = rotation * triangle.diagonal().sign()
    inner = rotation * root @ rotation.mT
    thin = rotation[:, :rank] * root[:rank]
    return [thin @ right.mT, *[inner] * (depth - 2), left @ thin.mT]


def _stacked(drawn: Sequence[Sequence[Tensor]], paths: int) -> list[Tensor]:
    return [torch.stack(layer).unsqueeze(1).expand(-1, paths, -1, -1) for layer in zip(*drawn, strict=True)]


def _check_sizes(depth: int, seeds: Sequence[int], **sizes: int) -> None:
    for name, number in {"depth": depth, **sizes}.items():
        if number < 1:
            raise ValueError(f"{name} must be 1 or more; got {number}")
    if len(seeds) < 1:
        raise ValueError("seeds must name one run or more; got none")
