"""The regulariser: all terms of the loss together, for any encoders and head, and as a method of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.multimodal.fusion import FusionNet
from interplay.multimodal.mcr.game import Fusion, Regime, influence_game
from interplay.multimodal.mcr.permutations import Selection, latent_permutations
from interplay.multimodal.mcr.shared_information import ConditionalBottleneck, supervised_contrastive
from interplay.multimodal.training import TrainingMethod
from interplay.primitives.modes import evaluating

__all__ = ["MCR", "CompetitionLoss", "CompetitionRegularizer"]


class CompetitionLoss(NamedTuple):
    """The loss of a batch and its terms, unweighted.

    Attributes
    ----------
    total
        To go backward from.
    task, unimodal, contrastive, bottleneck
        The loss of the joined prediction; the sum of those of the unimodal heads; the two terms about what is shared. A
        term of weight zero is not computed and is 0.
    influences
        MIPD of each modality, (modality,), without gradient; NaN where its weight is zero.
    """

    total: Float[Tensor, ""]
    task: Float[Tensor, ""]
    unimodal: Float[Tensor, ""]
    contrastive: Float[Tensor, ""]
    bottleneck: Float[Tensor, ""]
    influences: Float[Tensor, " modality"]


class CompetitionRegularizer(nn.Module):
    """L = L_task + w_u sum_m L_task(u_m(Z_m)) + w_i game + w_c contrastive + w_b bottleneck (paper: algorithm 1).

    For models that are no `FusionNet`: call it with latents and logits, and go backward from `total`.

    Parameters
    ----------
    fusion
        The head: a module or function from a list of latents to logits.
    k
        What encoders make of the others' influence: -1 lower it (default), 0 ignore it, 1 raise it too.
    influence_weight, contrastive_weight, bottleneck_weight, unimodal_weight
        Weights of the terms, zero or more. The bottleneck is for encoders with self-supervised pre-training.
    permutations, selection
        Pairs of samples over which the influence is measured: `latent_permutations`.
    temperature
        Of the contrastive term.
    regime
        "paper" or "reference": `influence_game`.
    bottleneck
        The module of that term; needed where its weight is above zero.
    criterion
        The loss of logits and targets, averaged over the batch.
    generator
        Draws the permutations. None: PyTorch's global generator. Its state is part of the `state_dict`.

    Raises
    ------
    ValueError
        Negative weights, k outside [-1, 1], or a bottleneck weight without a bottleneck.
    """

    def __init__(
        self,
        fusion: Fusion,
        *,
        k: float = -1.0,
        influence_weight: float = 0.1,
        contrastive_weight: float = 0.0,
        bottleneck_weight: float = 0.0,
        unimodal_weight: float = 1.0,
        permutations: int = 8,
        selection: Selection = "rsl",
        temperature: float = 0.5,
        regime: Regime = "paper",
        bottleneck: ConditionalBottleneck | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        weights = {
            "influence_weight": influence_weight,
            "contrastive_weight": contrastive_weight,
            "bottleneck_weight": bottleneck_weight,
            "unimodal_weight": unimodal_weight,
        }
        for name, weight in weights.items():
            if not weight >= 0:
                raise ValueError(f"{name} must be zero or more, got {weight!r}")
        if not -1 <= k <= 1:
            raise ValueError(f"k must lie in [-1, 1] (the paper plays -1, 0 and 1), got {k!r}")
        if bottleneck_weight > 0 and bottleneck is None:
            raise ValueError(
                "bottleneck_weight is above zero: give a ConditionalBottleneck, whose layers are trained too"
            )
        self.fusion = fusion
        self.k = k
        self.influence_weight = influence_weight
        self.contrastive_weight = contrastive_weight
        self.bottleneck_weight = bottleneck_weight
        self.unimodal_weight = unimodal_weight
        self.permutations = permutations
        self.selection: Selection = selection
        self.temperature = temperature
        self.regime: Regime = regime
        self.bottleneck = bottleneck
        self.criterion = criterion
        self.generator = generator

    def forward(
        self,
        latents: Sequence[Float[Tensor, "sample features"]],
        logits: Float[Tensor, "sample class"],
        target: Int[Tensor, " sample"],
        unimodal_logits: Sequence[Float[Tensor, "sample class"]] | None = None,
    ) -> CompetitionLoss:
        """All terms of one batch.

        Parameters
        ----------
        latents
            Of each modality, in the order that the head wants.
        logits
            What the head says of them.
        target
            Labels; numbers for a regression, whose `selection` cannot look at labels.
        unimodal_logits
            Of each unimodal head, where `unimodal_weight` is above zero.

        Raises
        ------
        ValueError
            Logits that are not finite, latents of different batches, no unimodal logits where their weight asks for
            them, a batch in which no pairs can be chosen.
        """
        if not logits.isfinite().all():
            raise ValueError(
                "logits hold values that are not finite: the training has diverged; lower the learning rate or "
                f"influence_weight ({self.influence_weight:g})"
            )
        zero = logits.new_zeros(())
        total = task = self.criterion(logits, target)
        unimodal = contrastive = bottleneck = zero
        influences = logits.new_full((len(latents),), torch.nan)
        if self.unimodal_weight > 0:
            if unimodal_logits is None:
                raise ValueError("unimodal_weight is above zero: give unimodal_logits, one a modality, or weight 0")
            unimodal = torch.stack([self.criterion(each, target) for each in unimodal_logits]).sum()
            total = total + self.unimodal_weight * unimodal
        if self.influence_weight > 0:
            labels = None if target.is_floating_point() else target
            pairs = latent_permutations(
                len(logits),
                self.permutations,
                labels,
                self.selection,
                generator=self.generator,
                device=logits.device,
            )
            # Dropout and batch statistics stay out of it: a change of the logits is then the permutation's alone.
            with evaluating(*([self.fusion] if isinstance(self.fusion, nn.Module) else [])):
                game = influence_game(self.fusion, latents, pairs, k=self.k, regime=self.regime)
            total, influences = total + self.influence_weight * game.loss, game.influences
        if self.contrastive_weight > 0:
            labels = None if target.is_floating_point() else target
            contrastive = supervised_contrastive(latents, labels, self.temperature)
            total = total + self.contrastive_weight * contrastive
        if self.bottleneck_weight > 0 and self.bottleneck is not None:
            bottleneck = self.bottleneck(latents, logits)
            total = total + self.bottleneck_weight * bottleneck
        return CompetitionLoss(total, task, unimodal, contrastive, bottleneck, influences)

    def get_extra_state(self) -> Tensor:
        return torch.empty(0, dtype=torch.uint8) if self.generator is None else self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        if self.generator is not None and len(state):
            self.generator.set_state(state.cpu())


class MCR(TrainingMethod):
    """Multimodal competition regularisation of a `FusionNet`, as a method of training.

    Parameters
    ----------
    net
        With unimodal heads, unless `unimodal_weight` is zero.
    criterion
        The loss of logits and targets, averaged over the batch.
    bottleneck
        See `ConditionalBottleneck`; its layers are then parameters of this method: give `method.parameters()` to the
        optimiser.
    **options
        Those of `CompetitionRegularizer`.

    Attributes
    ----------
    last
        The terms of the last batch, a `CompetitionLoss`.

    Raises
    ------
    ValueError
        Options that `CompetitionRegularizer` refuses, or a unimodal weight for a net without unimodal heads.
    """

    def __init__(
        self,
        net: FusionNet,
        *,
        criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
        **options: object,
    ) -> None:
        super().__init__(net, criterion=criterion)
        self.regularizer = CompetitionRegularizer(net.head, criterion=criterion, **options)  # type: ignore[arg-type]
        if self.regularizer.unimodal_weight > 0 and net.unimodal_heads is None:
            raise ValueError("unimodal_weight is above zero: make the FusionNet with unimodal_heads, or set it to 0")
        self.last: CompetitionLoss | None = None

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        latents = self.net.encode(inputs)
        alone = list(self.net.unimodal_logits(latents).values()) if self.regularizer.unimodal_weight > 0 else None
        ordered = [latents[name] for name in self.modalities]
        terms = self.regularizer(ordered, self.net.fuse(latents), target, alone)
        self.last = CompetitionLoss(*(term.detach() for term in terms))
        return terms.total

    def diagnostics(self) -> dict[str, float]:
        """Terms of the last batch by name, and the influence of each modality."""
        if self.last is None:
            return {}
        terms = {name: float(value) for name, value in self.last._asdict().items() if name != "influences"}
        influences = zip(self.modalities, self.last.influences.tolist(), strict=True)
        return terms | {f"influence of {name}": value for name, value in influences}
