"""What NHL is compared with: the same interface with parts left out or exchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from interplay.plasticity.nhl.adapter import OnlineAdapter
from interplay.plasticity.nhl.modulator import pseudo_label_objective
from interplay.plasticity.nhl.neuromodulated import NHL, chosen_entropy, local_rule
from interplay.plasticity.nhl.rule import Competition, Normalisation

__all__ = ["BatchNormAdapt", "HardNHL", "HebbOnly", "PseudoLabel", "SourceOnly", "Tent"]


class SourceOnly(OnlineAdapter):
    """The classifier as it was trained; nothing adapts."""

    def __init__(self, model: nn.Module, *, inplace: bool = False) -> None:
        super().__init__(model, batch_statistics=False, inplace=inplace)


class BatchNormAdapt(OnlineAdapter):
    """Batch normalisation on the statistics of each test batch; nothing is learnt."""

    def __init__(self, model: nn.Module, *, inplace: bool = False) -> None:
        super().__init__(model, batch_statistics=True, inplace=inplace)


class Tent(OnlineAdapter):
    """TENT (Wang et al., ICLR 2021): entropy moves the gains of normalisation layers, under batch statistics.

    The same as NHL without its local rule. With `predict="before"` it gives the logits of the authors' code
    (DequanWang/tent, MIT) for networks whose normalisation layers are `BatchNorm2d`; theirs leaves dropout on.

    Parameters
    ----------
    model, lr_mod, optimizer, steps, predict, episodic, inplace, entropy_threshold, diversity
        As in `NHL`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr_mod: float = 1e-3,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        steps: int = 1,
        predict: Literal["before", "after"] = "after",
        episodic: bool = False,
        *,
        inplace: bool = False,
        entropy_threshold: float | None = None,
        diversity: float = 0.0,
    ) -> None:
        super().__init__(
            model,
            modulator=("bn",),
            objective=chosen_entropy(entropy_threshold, diversity),
            lr=lr_mod,
            optimizer=optimizer,
            steps=steps,
            predict=predict,
            episodic=episodic,
            inplace=inplace,
        )


class PseudoLabel(OnlineAdapter):
    """Cross-entropy against the own most likely class moves the affine parameters, under batch statistics (Lee, 2013).

    Parameters
    ----------
    model, lr_mod, optimizer, steps, predict, episodic, inplace
        As in `NHL`.
    """

    def __init__(
        self,
        model: nn.Module,
        lr_mod: float = 1e-3,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        steps: int = 1,
        predict: Literal["before", "after"] = "after",
        episodic: bool = False,
        *,
        inplace: bool = False,
    ) -> None:
        super().__init__(
            model,
            modulator=("bn",),
            objective=pseudo_label_objective,
            lr=lr_mod,
            optimizer=optimizer,
            steps=steps,
            predict=predict,
            episodic=episodic,
            inplace=inplace,
        )


class HebbOnly(OnlineAdapter):
    """NHL without its neuro-modulator: the layer learns by the local rule, under batch statistics.

    Parameters
    ----------
    model, hebb_layer, lr_hebb, tau, steps, episodic, inplace, competition, winners, normalize, preserve_norm
        As in `NHL`.
    """

    def __init__(
        self,
        model: nn.Module,
        hebb_layer: str | nn.Module | None = None,
        lr_hebb: float = 1e-3,
        tau: float = 1.0,
        steps: int = 1,
        episodic: bool = False,
        *,
        inplace: bool = False,
        competition: Competition = "softmax",
        winners: int | None = None,
        normalize: Normalisation = "max",
        preserve_norm: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(
            model,
            rule=local_rule(
                model,
                hebb_layer,
                lr=lr_hebb,
                tau=tau,
                competition=competition,
                winners=winners,
                normalize=normalize,
                preserve_norm=preserve_norm,
            ),
            verify_order=hebb_layer is None,
            steps=steps,
            episodic=episodic,
            inplace=inplace,
        )


class HardNHL(NHL):
    """NHL whose competition is winner-take-all: only the strongest channel learns at each location."""

    def __init__(self, model: nn.Module, hebb_layer: str | nn.Module | None = None, **settings: Any) -> None:
        super().__init__(model, hebb_layer, competition="hard", **settings)
