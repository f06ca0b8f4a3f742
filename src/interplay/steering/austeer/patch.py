"""A sparse patch: k single dimensions of a model, each scaled by a factor of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site
from interplay.primitives.decoders import Decoder
from interplay.steering.austeer.momentum import (
    Momentum,
    Ranking,
    Score,
    TieBreak,
    momentum,
    momentum_of_classes,
    rank_units,
    warn_of_few,
)
from interplay.steering.austeer.pairs import balanced, check_pairs
from interplay.steering.austeer.units import UnitSite, check_site, collect_units, sites_of, unit_widths
from interplay.steering.interface import ModelShape, Steering, Strength, by_row

__all__ = ["Folded", "SemanticsAdaptivePatch", "UnitPatch"]


class UnitPatch(Steering):
    """x_i <- x_i + strength * gain_i * x_i at k units of a model, at all tokens; nothing else is touched.

    Parameters
    ----------
    shape
        Of the model.
    k
        How many units.
    site
        Where they lie.

    Attributes
    ----------
    layers, units : Tensor
        Which, [k], int64; buffers.
    gains : Tensor
        gamma_i = alpha * beta_i, [k], float32; a buffer.

    Raises
    ------
    ValueError
        A k below 1, or an unknown site.
    """

    method = "austeer"
    default_score: ClassVar[Score] = "momentum"
    layers: Int[Tensor, " k"]
    units: Int[Tensor, " k"]
    gains: Float[Tensor, " k"]

    def __init__(self, shape: ModelShape, k: int, site: UnitSite = "ffn") -> None:
        super().__init__(shape)
        if k < 1:
            raise ValueError(f"k must be one unit or more, got {k}")
        self.k, self.site = int(k), check_site(site)
        self.register_buffer("layers", torch.zeros(self.k, dtype=torch.long))
        self.register_buffer("units", torch.zeros(self.k, dtype=torch.long))
        self.register_buffer("gains", torch.zeros(self.k))

    @classmethod
    def of_ranking(cls, model: nn.Module, site: UnitSite, ranking: Ranking, k: int, alpha: float) -> Self:
        """The first k units of a ranking, with gains alpha times the ranking's.

        Raises
        ------
        ValueError
            A k that is below 1 or above the number of units, an alpha that is not positive, or a ranking of another
            model's units.
        """
        if not 1 <= k <= len(ranking):
            raise ValueError(f"k must be between 1 and the {len(ranking)} units of site {site!r}, got {k}")
        if not alpha > 0 or alpha == float("inf"):
            raise ValueError(f"alpha must be positive and finite, got {alpha}; a negative strength steers away")
        if len(ranking) != sum(unit_widths(model, check_site(site, model))):
            raise ValueError(
                f"the ranking has {len(ranking)} units, the model has {sum(unit_widths(model, site))} at site {site!r}"
            )
        patch = cls(ModelShape.of(model), k, site)
        patch.layers, patch.units = ranking.layers[:k].clone(), ranking.units[:k].clone()
        patch.gains = (alpha * ranking.gains[:k]).float()
        return patch

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        tokenizer: Any,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        site: UnitSite = "ffn",
        k: int = 16,
        alpha: float = 1.0,
        score: Score | None = None,
        tie_break: TieBreak = "effect",
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Rank units by two sets of prompts, read at the prompts' last tokens, where nothing pairs the sets.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positive, negative
            Prompts that show the behaviour, and that do not, chat template applied.
        site
            Where units lie.
        k, alpha
            How many, and how hard.
        score, tie_break
            By what they are ranked.
        seed
            For the score "random".
        **options
            Those of `collect_activations`.
        """
        check_site(site, model)
        pos, neg = (collect_units(model, tokenizer, texts, [site], **options)[site] for texts in (positive, negative))
        ranking = cls._ranked(momentum_of_classes(pos, neg), score, tie_break, seed)
        return cls.of_ranking(model, site, ranking, k, alpha)

    @classmethod
    def fit_outcomes(
        cls,
        model: nn.Module,
        tokenizer: Any,
        prompts: Sequence[str],
        right: Sequence[str],
        wrong: Sequence[str],
        *,
        site: UnitSite = "ffn",
        k: int = 16,
        alpha: float = 1.0,
        score: Score | None = None,
        tie_break: TieBreak = "effect",
        balance: bool = True,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """Rank units by right and wrong answers, read at the answers' last tokens, as the paper does.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        prompts
            Texts.
        right, wrong
            Of every prompt a right and a wrong answer, with the space before them where the tokenizer needs one.
        site, k, alpha, score, tie_break, seed
            As in `fit`.
        balance
            Leave out prompts until every answer is right as often as it is wrong. Otherwise the difference at the last
            token is that of two words: nearly all units are then perfectly consistent.
        **options
            Those of `collect_activations`.

        Warns
        -----
        UserWarning
            Few pairs, or answers that cannot be balanced.
        """
        check_site(site, model)
        check_pairs(prompts, right, wrong)
        kept = balanced(prompts, right, wrong) if balance else list(range(len(prompts)))
        found = outcome_momentum(
            model,
            tokenizer,
            [prompts[i] for i in kept],
            [right[i] for i in kept],
            [wrong[i] for i in kept],
            [site],
            **options,
        )[site]
        return cls.of_ranking(model, site, cls._ranked(found, score, tie_break, seed), k, alpha)

    @classmethod
    def _ranked(cls, found: Momentum, score: Score | None, tie_break: TieBreak, seed: int) -> Ranking:
        generator = torch.Generator().manual_seed(seed)
        return rank_units(found, score or cls.default_score, tie_break=tie_break, generator=generator)

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        places = sites_of(model, self.site)
        found = {}
        for layer in self.layers.unique().tolist():
            here = self.layers == layer
            found[places[layer]] = _scaling(self.units[here], self.gains[here], strength, self.site == "attention")
        return found

    def settings(self) -> dict[str, Any]:
        return {"k": self.k, "site": self.site}

    def to_table(self) -> pd.DataFrame:
        """One row a unit: layer, unit, gain."""
        columns = {"layer": self.layers, "unit": self.units, "gain": self.gains}
        return pd.DataFrame({name: tensor.cpu().numpy() for name, tensor in columns.items()})

    def fold(self, model: nn.Module, strength: float = 1.0) -> Folded:
        """Write the patch into the weights, so that it costs nothing at inference.

        "attention" scales columns of the output projection, "ffn" rows of the down-projection and its bias.

        Returns
        -------
        Folded
            Holds what was there; its `undo` puts that back, bit for bit.

        Raises
        ------
        ValueError
            Site "layer", whose units no single weight writes, or weights that are quantised or shared.
        """
        self.check_fits(model)
        if self.site == "layer":
            raise ValueError(
                "site 'layer' cannot be folded: the residual stream after a layer is a sum, no one weight's"
            )
        decoder = Decoder(model)
        owners: dict[int, int] = {}
        for module in model.modules():
            for parameter in module._parameters.values():
                if parameter is not None:
                    owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        changes: list[_Change] = []
        for layer in self.layers.unique().tolist():
            here = self.layers == layer
            projection = decoder.attention_output(layer) if self.site == "attention" else decoder.mlp_output(layer)
            weight = projection.weight
            if not isinstance(weight, nn.Parameter) or not weight.is_floating_point():
                raise ValueError(f"layer {layer}: a quantised weight cannot be folded into; apply the patch instead")
            if owners.get(id(weight), 0) > 1:
                raise ValueError(f"layer {layer}: a weight that several modules share cannot be folded into")
            inputs_first = not hasattr(projection, "in_features")  # as GPT-2's Conv1D stores it
            units = self.units[here].to(weight.device)
            factors = 1 + strength * self.gains[here].to(weight.device, torch.float32)
            changes.append(_Change(weight, int((self.site == "attention") != inputs_first), units, factors))
            bias = getattr(projection, "bias", None)
            if self.site == "ffn" and isinstance(bias, Tensor):
                changes.append(_Change(bias, 0, units, factors))
        return Folded(changes)


class SemanticsAdaptivePatch(UnitPatch):
    """SADI: the units with the largest mean difference, all with the same positive gain."""

    method = "sadi"
    default_score: ClassVar[Score] = "sadi"


class _Change(NamedTuple):
    """Entries of a parameter along an axis, and their factors."""

    parameter: Tensor
    axis: int
    units: Int[Tensor, " unit"]
    factors: Float[Tensor, " unit"]


class Folded:
    """A patch that is written into weights.

    Parameters
    ----------
    changes
        Made at once.
    """

    def __init__(self, changes: Sequence[_Change]) -> None:
        self._kept: list[tuple[_Change, Tensor]] = []
        with torch.no_grad():
            for change in changes:
                parameter, axis, units, factors = change
                before = parameter.index_select(axis, units)
                self._kept.append((change, before))
                shaped = factors.reshape([-1 if dim == axis else 1 for dim in range(parameter.ndim)])
                parameter.index_copy_(axis, units, (before.float() * shaped).to(parameter.dtype))

    def undo(self) -> None:
        """Put back what was there; further calls do nothing."""
        with torch.no_grad():
            for change, before in self._kept:
                change.parameter.index_copy_(change.axis, change.units, before)
        self._kept.clear()


def outcome_momentum(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    right: Sequence[str],
    wrong: Sequence[str],
    sites: Sequence[UnitSite],
    **options: Any,
) -> Mapping[UnitSite, Momentum]:
    """Momentum of right against wrong answers at their last tokens, for several sites in one pass a side.

    Raises
    ------
    ValueError
        Lists of different lengths, none, an empty answer or two equal ones; the message names the row.
    """
    check_pairs(prompts, right, wrong)
    sides = [
        collect_units(
            model,
            tokenizer,
            [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
            sites,
            **options,
        )
        for answers in (right, wrong)
    ]
    found = {site: momentum(sides[0][site], sides[1][site]) for site in sites}
    units = max(one.n_pos.numel() for one in found.values())
    warn_of_few(len(prompts), units, stacklevel=4)
    return found


def _scaling(units: Tensor, gains: Tensor, strength: Strength, by_head: bool) -> Edit:
    """Scale some dimensions of an activation; the others are copied."""
    known: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def scale(h: Tensor) -> Tensor:
        if h.device not in known:
            # Tensors made under the inference mode of `generate` could serve no backward pass later.
            with torch.inference_mode(False):
                known[h.device] = (units.to(h.device), gains.detach().to(h.device))
        own_units, own_gains = known[h.device]
        flat = h.flatten(-2) if by_head else h
        chosen = flat.index_select(-1, own_units)
        factors = 1 + by_row(strength, chosen.float()) * own_gains
        return flat.index_copy(-1, own_units, (chosen * factors).to(h.dtype)).view_as(h)

    return scale
