"""Neuro-modulated Hebbian learning around a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from interplay.plasticity.nhl.adapter import OnlineAdapter
from interplay.plasticity.nhl.modulator import Modulator, checked_modulators, entropy_objective
from interplay.plasticity.nhl.rule import CONVOLUTIONS, HEBBIAN_LAYERS, Competition, Normalisation, SoftHebb

__all__ = ["NHL", "chosen_entropy", "local_rule"]


class NHL(OnlineAdapter):
    """Neuro-modulated Hebbian learning: the first layer learns by competition, the gains by entropy, on every batch.

    Parameters
    ----------
    model
        Classifier that returns logits (batch, classes), or a Hugging Face image classifier. It is copied, unless
        `inplace`.
    hebb_layer
        Layer that learns by the local rule, by name or as a module of `model`. None: the first convolution, without
        one the first linear layer, in the order in which modules are registered.
    modulator
        Which gains follow the entropy, one or several of: "bn", affine parameters of all normalisation layers, with
        batch normalisation on batch statistics; "first", only those of the normalisation layer after `hebb_layer`;
        "inserted", a new `ChannelAffine` behind `hebb_layer`, with batch normalisation left on the statistics of
        training.
    lr_hebb, tau, competition, winners, normalize, preserve_norm
        The local rule, as in `SoftHebb`.
    lr_mod, optimizer
        Step size of the gains, and what makes their optimiser: called with a list of parameters and `lr`.
    steps
        Adaptation steps per batch.
    predict
        "after": predict again when the batch has been learnt. "before": return the logits that the entropy was taken
        from, one forward pass cheaper; the layer has learnt by then, the gains have not.
    episodic
        Reset before each batch.
    inplace
        Work on `model` itself instead of a copy: its weights, its training mode and its `requires_grad` change.
    entropy_threshold, diversity
        `threshold` and `diversity` of the entropy objective; not in the paper, off by default.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> classifier = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    >>> adapter = NHL(classifier)
    >>> adapter(torch.zeros(8, 1, 8, 8)).shape
    torch.Size([8, 10])
    >>> sorted(adapter.adapted_parameters())
    ['model.0.weight', 'model.1.bias', 'model.1.weight']
    """

    def __init__(
        self,
        model: nn.Module,
        hebb_layer: str | nn.Module | None = None,
        modulator: Modulator | Sequence[Modulator] = "bn",
        lr_hebb: float = 1e-3,
        lr_mod: float = 1e-3,
        tau: float = 1.0,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        steps: int = 1,
        predict: Literal["before", "after"] = "after",
        episodic: bool = False,
        *,
        inplace: bool = False,
        competition: Competition = "softmax",
        winners: int | None = None,
        normalize: Normalisation = "max",
        preserve_norm: bool | Literal["auto"] = "auto",
        entropy_threshold: float | None = None,
        diversity: float = 0.0,
    ) -> None:
        modulators = checked_modulators(modulator)
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
            modulator=modulators,
            objective=chosen_entropy(entropy_threshold, diversity),
            batch_statistics=modulators != ("inserted",),
            lr=lr_mod,
            optimizer=optimizer,
            steps=steps,
            predict=predict,
            episodic=episodic,
            inplace=inplace,
        )


def local_rule(
    model: nn.Module, hebb_layer: str | nn.Module | None, **settings: Any
) -> Callable[[nn.Module], SoftHebb]:
    """What makes the rule for `hebb_layer` in a copy of `model`."""
    name = _layer_name(model, hebb_layer)
    return lambda own: SoftHebb(own.get_submodule(name), within=own, **settings)


def chosen_entropy(threshold: float | None, diversity: float) -> Callable[[Tensor], Tensor]:
    """The entropy objective with its options checked."""
    if threshold is not None and not 0 < threshold <= 1:
        raise ValueError(f"entropy_threshold is a share of ln C and must be in (0, 1], got {threshold!r}")
    if not (math.isfinite(diversity) and diversity >= 0):
        raise ValueError(f"diversity must be a number of at least 0, got {diversity!r}")
    return lambda logits: entropy_objective(logits, threshold=threshold, diversity=diversity)


def _layer_name(model: nn.Module, hebb_layer: str | nn.Module | None) -> str:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    modules = dict(model.named_modules())
    if hebb_layer is None:
        for kinds in (CONVOLUTIONS, (nn.Linear,)):
            for name, module in modules.items():
                if isinstance(module, kinds):
                    return name
        raise ValueError(
            f"{type(model).__name__} has no convolution and no linear layer that could learn; NHL needs one"
        )
    known = [name for name, module in modules.items() if isinstance(module, HEBBIAN_LAYERS)]
    if isinstance(hebb_layer, str) and hebb_layer in modules:
        return hebb_layer
    for name, module in modules.items():
        if module is hebb_layer:
            return name
    raise ValueError(f"hebb_layer must be a layer of the model, such as {', '.join(known[:5])}; got {hebb_layer!r}")
