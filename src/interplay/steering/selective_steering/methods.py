"""Steering in one plane at the outputs of norms: by an angle, to an angle, and the baselines that use its direction."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple, Self

import pandas as pd
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site, edit
from interplay.primitives.positions import Positions
from interplay.steering.collection import collect_activations
from interplay.steering.comparison import compare
from interplay.steering.interface import Applied, ModelShape, Steering, Strength
from interplay.steering.selective_steering.norms import NORMS, norm_sites
from interplay.steering.selective_steering.plane import Second, SteeringPlane
from interplay.steering.selective_steering.rotations import (
    Angle,
    Mode,
    ablation,
    addition,
    check_angle,
    in_plane,
    placement,
    rotation,
)

__all__ = [
    "AngularSteering",
    "DirectionAddition",
    "DirectionalAblation",
    "Layers",
    "PlaneSteering",
    "SelectiveSteering",
]

Layers = Literal["discriminative", "all"] | Sequence[int]
"""Which blocks: those where the classes lie on opposite sides, all, or their numbers from 0."""


class PlaneSteering(Steering):
    """What the methods of one plane share: the sites, the choice of blocks, the fit.

    Parameters
    ----------
    shape
        Of the model.
    sites
        Module paths of the norms.
    layers
        Which blocks are steered.

    Attributes
    ----------
    plane : SteeringPlane
        The plane and how the classes lie in it.
    """

    def __init__(self, shape: ModelShape, sites: Sequence[str], layers: Layers) -> None:
        super().__init__(shape)
        self.plane = SteeringPlane(self.shape.d_model, sites)
        self.layers = self._checked(layers)

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        tokenizer: Any,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        norms: Sequence[str] = NORMS,
        second: Second = "pca",
        seed: int = 0,
        tokens_per_batch: int = 2048,
        **settings: Any,
    ) -> Self:
        """Fit the plane at the last token of every prompt.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positive, negative
            Prompts that show the behaviour, and that do not, chat template with generation prompt applied.
        norms
            Parts of the names of the blocks' norms.
        second, seed
            Those of `SteeringPlane.fit`.
        tokens_per_batch
            Largest number of positions of a forward pass.
        **settings
            Those of the method.

        Warns
        -----
        UserWarning
            Discriminative blocks are to be steered and there is none; the message shows how the classes lie.
        """
        sites = norm_sites(model, norms)
        steering = cls(ModelShape.of(model), [str(site.path) for site in sites], **settings)
        classes = [
            {
                str(site.path): activations
                for site, activations in collect_activations(
                    model, tokenizer, prompts, sites, tokens_per_batch=tokens_per_batch
                ).items()
            }
            for prompts in (positive, negative)
        ]
        steering.plane = SteeringPlane.fit(*classes, second=second, seed=seed)
        if steering.layers == "discriminative" and not steering.plane.discriminative_blocks:
            warnings.warn(
                "no block is discriminative, so there is nothing to steer by default: at all its norms, the mean "
                f"cosines of the two classes with b1 would have to differ in sign\n{steering.report().to_string()}",
                stacklevel=2,
            )
        return steering

    @classmethod
    def on_plane(cls, shape: ModelShape, plane: SteeringPlane, **settings: Any) -> Self:
        """This method in a plane that was fitted before, which is shared and not copied."""
        steering = cls(shape, plane.sites, **settings)
        if plane.d_model != steering.shape.d_model:
            raise ValueError(f"the plane lies in {plane.d_model} dimensions, the model has {steering.shape.d_model}")
        steering.plane = plane
        return steering

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        operator = self.operator(strength.detach() if isinstance(strength, Tensor) else strength)
        return {Site("module", path=site): operator for site in self.steered_sites()}

    @abstractmethod
    def operator(self, strength: Strength) -> Edit:
        """What is done to activations at a strength, at every site that is steered."""

    def settings(self) -> dict[str, Any]:
        return {"sites": list(self.plane.sites), "layers": self.layers}

    def steered_sites(self, layers: Layers | None = None) -> list[str]:
        """The sites of the blocks that are steered.

        Raises
        ------
        ValueError
            A block that the model does not have.
        RuntimeError
            Discriminative blocks, and there is none.
        """
        layers = self.layers if layers is None else self._checked(layers)
        if layers == "all":
            return list(self.plane.sites)
        blocks = self.plane.discriminative_blocks if layers == "discriminative" else layers
        if not blocks:
            raise RuntimeError("no block is discriminative; choose layers='all' or numbers, and look at report()")
        return [site for site, block in zip(self.plane.sites, self.plane.blocks, strict=True) if block in blocks]

    def report(self) -> pd.DataFrame:
        """One row a site: block, m+ and m-, the classes' mean cosines with b1, and whether it is discriminative."""
        plane = self.plane
        columns = {"m+": plane.m_pos.values(), "m-": plane.m_neg.values(), "discriminative": plane.mask.values()}
        return pd.DataFrame({"block": plane.blocks, **columns}, index=pd.Index(plane.sites, name="site"))

    def _checked(self, layers: Layers) -> Literal["discriminative", "all"] | list[int]:
        if isinstance(layers, str):
            if layers not in {"discriminative", "all"}:
                raise ValueError(f"layers must be 'discriminative', 'all' or numbers of blocks, got {layers!r}")
            return layers  # type: ignore[return-value]
        blocks = set(self.plane.blocks)
        if not layers or len(set(layers)) < len(layers) or not set(layers) <= blocks:
            raise ValueError(f"layers must be different blocks of {sorted(blocks)}; got {list(layers)}")
        return [int(layer) for layer in layers]


class SelectiveSteering(PlaneSteering):
    """Turn activations by an angle, in the blocks where the two classes lie on opposite sides (SS).

    Parameters
    ----------
    shape, sites
        Of the model.
    layers
        Which blocks are steered.
    degrees
        By how much strength 1 turns. A quarter turn takes what lay along the direction out of it. A half turn mirrors
        it, for both classes: the negative one may take on the behaviour.
    """

    method = "selective"

    def __init__(
        self, shape: ModelShape, sites: Sequence[str], layers: Layers = "discriminative", degrees: float = 90.0
    ) -> None:
        super().__init__(shape, sites, layers)
        self.degrees = float(check_angle(degrees, "degrees"))

    def operator(self, strength: Strength) -> Edit:
        return rotation(self.plane, strength * self.degrees)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "degrees": self.degrees}

    @contextmanager
    def at(
        self,
        model: nn.Module,
        theta: Angle,
        *,
        mode: Mode = "ss",
        layers: Layers | None = None,
        positions: Positions | None = None,
    ) -> Iterator[Applied]:
        """A context in which the model is steered at an angle, as `applied` steers it at a strength.

        Parameters
        ----------
        model
            The model that it was fitted on, or one of the same shape.
        theta
            Degrees; a tensor [batch] gives each row of the batch an angle of its own.
        mode
            "ss" turns by theta, "sas" to theta, "aas" to theta where an activation lies on the side of b1.
        layers
            Which blocks; None: the steering's own. The published "sas" and "aas" take all.
        positions
            Which tokens; None: all.

        Raises
        ------
        RuntimeError
            This steering is applied to the model already, or no block is discriminative.
        ValueError
            An angle that is not finite or does not fit the batch, an unknown mode, block or position.
        """
        turn = in_plane(self.plane, theta.detach() if isinstance(theta, Tensor) else theta, mode)
        edits = {Site("module", path=site): turn for site in self.steered_sites(layers)}
        positions = self.positions if positions is None else positions
        with self.entered(model), edit(model, edits, positions=positions) as counts:
            yield Applied(counts)

    def sweep(
        self,
        model: nn.Module,
        tokenizer: Any,
        prompts: Sequence[str],
        thetas: Sequence[float],
        scorer: Callable[[str, str], float] | None = None,
        *,
        mode: Mode = "ss",
        layers: Layers | None = None,
        positions: Positions | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """Continue every prompt greedily at every angle; all angles share batches.

        Parameters
        ----------
        model, tokenizer
            The model and its tokenizer.
        prompts
            Texts, chat template applied where there is one.
        thetas
            Degrees.
        scorer
            Gives a prompt and its continuation a number.
        mode, layers, positions
            Those of `at`.
        **options
            Those of `interplay.steering.comparison.compare`.

        Returns
        -------
        DataFrame
            The columns of `compare` with theta in place of strength, and score.
        """
        angled = _Angled(self, mode, layers, positions)
        table = compare(model, tokenizer, angled, prompts, thetas, **options)  # type: ignore[arg-type]
        table = table.rename(columns={"strength": "theta"})
        if scorer is not None:
            table["score"] = [scorer(*pair) for pair in zip(table["prompt"], table["text"], strict=True)]
        return table


class _Angled(NamedTuple):
    """A steering whose dial is the angle."""

    steering: SelectiveSteering
    mode: Mode
    layers: Layers | None
    positions: Positions | None

    def applied(self, model: nn.Module, theta: Angle) -> AbstractContextManager[Applied]:
        return self.steering.at(model, theta, mode=self.mode, layers=self.layers, positions=self.positions)


class AngularSteering(PlaneSteering):
    """Turn activations to an angle, wherever they were (SAS), in all blocks.

    The strength is how far along the shorter arc: 0 is the identity, 1 the published operator; norms are kept between.

    Parameters
    ----------
    shape, sites
        Of the model.
    layers
        Which blocks are steered.
    target
        The angle in degrees: 0 is along b1, where the positive class lies. None: 0, or 180 if adaptive.
    adaptive
        Only turn activations on the side of b1, which show the behaviour (AAS).
    """

    method = "angular"

    def __init__(
        self,
        shape: ModelShape,
        sites: Sequence[str],
        layers: Layers = "all",
        target: float | None = None,
        adaptive: bool = False,
    ) -> None:
        super().__init__(shape, sites, layers)
        self.adaptive = bool(adaptive)
        self.target = float(check_angle((180.0 if adaptive else 0.0) if target is None else target, "target"))

    def operator(self, strength: Strength) -> Edit:
        return placement(self.plane, self.target, fraction=strength, adaptive=self.adaptive)

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "target": self.target, "adaptive": self.adaptive}


class DirectionalAblation(PlaneSteering):
    """Take the component along b1 away: a fraction `strength` of it, all at 1.

    Parameters
    ----------
    shape, sites
        Of the model.
    layers
        Which blocks are steered.
    """

    method = "ablation"

    def __init__(self, shape: ModelShape, sites: Sequence[str], layers: Layers = "all") -> None:
        super().__init__(shape, sites, layers)

    def operator(self, strength: Strength) -> Edit:
        return ablation(self.plane, strength)


class DirectionAddition(PlaneSteering):
    """Add `strength` times b1, the same for every token (ActAdd at the norms).

    Parameters
    ----------
    shape, sites
        Of the model.
    layers
        Which blocks are steered.
    scale
        "norm": the strength counts in median norms of each site's activations. "none": in absolute units, the same at
        all sites.
    """

    method = "actadd"

    def __init__(
        self,
        shape: ModelShape,
        sites: Sequence[str],
        layers: Layers = "all",
        scale: Literal["norm", "none"] = "norm",
    ) -> None:
        super().__init__(shape, sites, layers)
        if scale not in {"norm", "none"}:
            raise ValueError(f"scale must be 'norm' or 'none', got {scale!r}")
        self.scale = scale

    def operator(self, strength: Strength) -> Edit:
        return addition(self.plane, strength)

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        if self.scale == "none":
            return super().edits(model, strength)
        units = dict(zip(self.plane.sites, self.plane.norms.tolist(), strict=True))
        return {Site("module", path=site): self.operator(strength * units[site]) for site in self.steered_sites()}

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "scale": self.scale}
