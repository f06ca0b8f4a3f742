"""The plane in which activations are turned, and the sites where the two classes lie on opposite sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from torch import Tensor, nn

from interplay.steering.selective_steering.norms import block_of

__all__ = ["PlaneCoordinates", "Second", "SteeringPlane", "plane_of_directions", "select_direction"]

Second = Literal["pca", "random"] | Tensor
"""What spans the plane beside the direction."""

_EPSILON = 1e-8  # of the published normalisations
_PARALLEL = 1e-4


class SteeringPlane(nn.Module):
    """One plane for all sites, and how the two classes lie along its first axis at each.

    Parameters
    ----------
    d_model
        Width of the activations.
    sites
        Module paths with the number of the block, such as ``model.layers.3.input_layernorm``.

    Attributes
    ----------
    b1, b2 : Tensor
        Orthonormal axes, [d_model], float32 whatever the module is cast to. b1 points to the positive class.
    alignments : Tensor
        Mean cosine with b1 of the positive and of the negative class at every site, [2, site].
    norms : Tensor
        Median norm of all activations at every site, [site].
    sites : tuple of str
        The sites.

    Notes
    -----
    Candidates are the differences of the class means, one a site. b1 is the candidate with the largest mean cosine to
    all candidates; b2 the first principal component of all candidates, made orthogonal to b1. The sign of a
    principal component is arbitrary, and with it which of theta and -theta is which: here the mean of the positive
    class at b1's site has a positive coordinate along b2, or, where that is zero to four digits, b2's largest entry is
    positive.
    """

    b1: Float[Tensor, " d_model"]
    b2: Float[Tensor, " d_model"]
    alignments: Float[Tensor, "2 site"]
    norms: Float[Tensor, " site"]

    def __init__(self, d_model: int, sites: Sequence[str]) -> None:
        super().__init__()
        if d_model < 2 or not sites or len(set(sites)) < len(sites):
            raise ValueError(
                f"a plane needs d_model of at least 2 and different sites; got {d_model} and {list(sites)}"
            )
        self.sites = tuple(sites)
        self.blocks = [block_of(site) for site in self.sites]
        self.register_buffer("b1", torch.zeros(d_model))
        self.register_buffer("b2", torch.zeros(d_model))
        self.register_buffer("alignments", torch.zeros(2, len(self.sites)))
        self.register_buffer("norms", torch.zeros(len(self.sites)))

    @classmethod
    def fit(
        cls,
        pos: Mapping[str, Float[Tensor, "positive d_model"]],
        neg: Mapping[str, Float[Tensor, "negative d_model"]],
        *,
        second: Second = "pca",
        seed: int = 0,
    ) -> Self:
        """The plane of two classes.

        Parameters
        ----------
        pos, neg
            For every site the activations of the class that shows the behaviour, and of the one that does not.
        second
            What spans the plane beside the direction: "pca", the published way; "random", a random direction; or a
            vector [d_model].
        seed
            Of the random direction.

        Raises
        ------
        ValueError
            Different or no sites, an empty class, shapes that do not fit, activations that are not finite, classes
            with the same mean everywhere, or a second direction parallel to the first.
        """
        _check_classes(pos, neg)
        means = [torch.stack([_double(part[site]).mean(0) for site in pos]) for part in (pos, neg)]
        axes = plane_of_directions(means[0] - means[1], second=second, seed=seed, towards=means[0])
        plane = cls(len(axes.b1), list(pos))
        plane.b1.copy_(axes.b1)
        plane.b2.copy_(axes.b2)
        for index, site in enumerate(pos):
            both = [_double(part[site]) for part in (pos, neg)]
            sizes = [activations.norm(dim=-1) for activations in both]
            for row, (activations, size) in enumerate(zip(both, sizes, strict=True)):
                plane.alignments[row, index] = (activations @ axes.b1 / (size + _EPSILON)).mean()
            plane.norms[index] = torch.cat(sizes).median()
        return plane

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return len(self.b1)

    @property
    def m_pos(self) -> dict[str, float]:
        """Mean cosine of the positive class with b1 at every site, the paper's m+."""
        return dict(zip(self.sites, self.alignments[0].tolist(), strict=True))

    @property
    def m_neg(self) -> dict[str, float]:
        """Mean cosine of the negative class with b1 at every site, the paper's m-."""
        return dict(zip(self.sites, self.alignments[1].tolist(), strict=True))

    @property
    def mask(self) -> dict[str, bool]:
        """Whether a site belongs to a discriminative block: at *all* sites of the block, m+ and m- differ in sign."""
        opposite = (self.alignments[0] * self.alignments[1] < 0).tolist()
        spoilt = {block for block, found in zip(self.blocks, opposite, strict=True) if not found}
        return {site: block not in spoilt for site, block in zip(self.sites, self.blocks, strict=True)}

    @property
    def discriminative_blocks(self) -> list[int]:
        """The blocks whose sites are in the mask."""
        return sorted({block_of(site) for site, chosen in self.mask.items() if chosen})

    def basis(
        self, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> Float[Tensor, "d_model 2"]:
        """b1 and b2 as columns, orthonormal to the precision of `dtype`."""
        b1, b2 = (axis.detach().to(device or axis.device, dtype) for axis in (self.b1, self.b2))
        b1 = b1 / b1.norm()
        b2 = b2 - (b2 @ b1) * b1
        return torch.stack([b1, b2 / b2.norm()], 1)

    def forward(self, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "... 2"]:
        """Coordinates in the plane."""
        self.check(h)
        basis = self.basis(torch.promote_types(h.dtype, torch.float32), h.device)
        return (h.to(basis.dtype) @ basis).to(h.dtype)

    def angle_of(self, h: Float[Tensor, "... d_model"]) -> Float[Tensor, "..."]:
        """Angle in the plane in degrees, between -180 and 180; 0 is along b1, 90 along b2."""
        coordinates = self(h)
        return torch.atan2(coordinates[..., 1], coordinates[..., 0]).rad2deg()

    def check(self, h: Tensor) -> None:
        """Refuse activations of another width, with a ValueError, and of no floating type, with a TypeError."""
        if not h.is_floating_point():
            raise TypeError(f"activations must be floating, these are {h.dtype}")
        if h.ndim < 1 or h.shape[-1] != self.d_model:
            raise ValueError(f"activations of shape {list(h.shape)} do not fit a plane in {self.d_model} dimensions")

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, with the sites as JSON in its header."""
        from safetensors.torch import save_file

        tensors = {name: buffer.detach().cpu().contiguous() for name, buffer in self.state_dict().items()}
        save_file(tensors, path, metadata={"interplay plane": json.dumps(self.sites)})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        FileNotFoundError
            No such file.
        ValueError
            Not a file of a plane.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"no plane at {path}")
        try:
            with safe_open(path, framework="pt") as file:
                sites = json.loads((file.metadata() or {})["interplay plane"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            plane = cls(len(tensors["b1"]), sites)
            plane.load_state_dict(tensors)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path} holds no steering plane ({error})") from error
        return plane

    def extra_repr(self) -> str:
        return f"d_model={self.d_model}, sites={len(self.sites)}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Follow moves between devices, not casts: in half precision the axes would not be orthonormal.
        def move(buffer: Tensor) -> Tensor:
            return buffer.to(fn(buffer[..., :0]).device)

        return super()._apply(move, recurse)


class Axes(NamedTuple):
    """Of a plane, in float64, and the site whose candidate is b1."""

    b1: Float[Tensor, " d_model"]
    b2: Float[Tensor, " d_model"]
    selected: int


def select_direction(candidates: Float[Tensor, "site d_model"]) -> int:
    """The site whose candidate has the largest mean cosine to all, itself included; the first of equals.

    A candidate that is zero has cosine 0 with all.
    """
    units = candidates / candidates.norm(dim=1, keepdim=True).clamp(min=_EPSILON)
    return int(np.argmax((units @ units.T).mean(1).numpy()))


def plane_of_directions(
    differences: Float[Tensor, "site d_model"],
    *,
    second: Second = "pca",
    seed: int = 0,
    towards: Float[Tensor, "site d_model"] | None = None,
) -> Axes:
    """Axes from the differences of class means; `towards` are points with a positive coordinate along b2."""
    candidates = _double(differences)
    candidates = candidates / (candidates.norm(dim=1, keepdim=True) + _EPSILON)
    selected = select_direction(candidates)
    b1 = candidates[selected]
    if b1.norm() < 0.5:  # the candidate vanished against epsilon
        raise ValueError("both classes have the same mean at every site: there is no direction between them")
    b1 = b1 / b1.norm()
    other = _second(candidates, second, seed)
    b2 = other - (other @ b1) * b1
    if b2.norm() < _PARALLEL:
        hint = "" if second == "random" else "; pass second='random' or a vector"
        raise ValueError(f"the plane's second direction is parallel to the first, or zero{hint}")
    b2 = b2 / b2.norm()
    b2 = b2 - (b2 @ b1) * b1
    b2 = b2 / b2.norm()
    reference = b2[b2.abs().argmax()]
    if towards is not None:
        point = _double(towards)[selected]
        if (point @ b2).abs() > _PARALLEL * point.norm():
            reference = point @ b2
    return Axes(b1, b2 * reference.sign(), selected)


class PlaneCoordinates(TransformerMixin, BaseEstimator):
    """A fitted plane as a step of a scikit-learn pipeline: activations to their two coordinates.

    Parameters
    ----------
    plane : SteeringPlane
        Fitted before; `fit` learns nothing.
    """

    def __init__(self, plane: SteeringPlane) -> None:
        self.plane = plane

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the width of the activations."""
        self.plane.check(torch.as_tensor(np.asarray(X, dtype=np.float64)))
        self.n_features_in_ = self.plane.d_model
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Coordinates [sample, 2]."""
        return self.plane(torch.as_tensor(np.asarray(X, dtype=np.float64))).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """b1 and b2."""
        return np.array(["b1", "b2"], dtype=object)


def _second(candidates: Float[Tensor, "site d_model"], second: Second, seed: int) -> Float[Tensor, " d_model"]:
    width = candidates.shape[1]
    if isinstance(second, Tensor):
        vector = _double(second)
        if vector.shape != (width,) or not bool(vector.isfinite().all()) or vector.norm() == 0:
            raise ValueError(f"second must be a finite vector of {width} entries that is not zero, got {second!r}")
        return vector / vector.norm()
    if second == "random":
        return torch.from_numpy(np.random.default_rng(seed).standard_normal(width))
    if second == "pca":
        _, spread, components = torch.linalg.svd(candidates - candidates.mean(0), full_matrices=False)
        return components[0] * (spread[0] > _PARALLEL)  # equal candidates have no principal component
    raise ValueError(f"second must be 'pca', 'random' or a vector, got {second!r}")


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _check_classes(pos: Mapping[str, Tensor], neg: Mapping[str, Tensor]) -> None:
    if not pos or pos.keys() != neg.keys():
        differing = sorted(pos.keys() ^ neg.keys())
        raise ValueError(f"pos and neg must hold the same sites, one or more; only one of them holds {differing}")
    width = next(iter(pos.values())).shape[-1:]
    for site, one in pos.items():
        other = neg[site]
        shapes = f"{list(one.shape)} and {list(other.shape)}"
        if one.ndim != 2 or other.ndim != 2 or not len(one) or not len(other):
            raise ValueError(f"activations at {site} must be [prompt, d_model] with one prompt or more; got {shapes}")
        if not one.shape[-1:] == other.shape[-1:] == width:
            raise ValueError(f"activations at {site} have shapes {shapes}; all sites must have the width {list(width)}")
        if not bool(one.isfinite().all() and other.isfinite().all()):
            raise ValueError(f"activations at {site} are not finite")
