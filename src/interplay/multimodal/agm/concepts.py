"""What each modality alone has learned: the reference against which the strength of competition is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from interplay.primitives.modes import evaluating

__all__ = ["mono_modal_concepts"]


def mono_modal_concepts(
    models: Mapping[str, nn.Module] | Callable[[str], nn.Module],
    inputs: Mapping[str, Tensor],
    *,
    modalities: Iterable[str] | None = None,
    batch_size: int = 1024,
) -> dict[str, Tensor]:
    """The outputs C_m(x) of models that were trained on one modality each, in evaluation mode and without gradient.

    Hand them to `interplay.primitives.conflict.competition_strength` together with the fused features.

    Parameters
    ----------
    models
        By modality, a trained module that takes this modality's input; or a function that gives it for a name.
    inputs
        By modality, (sample, ...).
    modalities
        Which ones; None for those of `models`, or of `inputs` where `models` is a function.
    batch_size
        Samples of one pass.

    Returns
    -------
    dict
        By modality (sample, output).

    Raises
    ------
    KeyError
        A modality without a model or without an input.
    """
    given = isinstance(models, Mapping)
    names = list(models if given else inputs) if modalities is None else list(modalities)
    unknown = [name for name in names if name not in inputs or (given and name not in models)]
    if unknown:
        raise KeyError(f"no model or no input for {unknown}; models and inputs must be of the same modalities")
    return {name: _outputs(models[name] if given else models(name), inputs[name], batch_size) for name in names}


@torch.no_grad()
def _outputs(model: nn.Module, values: Tensor, batch_size: int) -> Tensor:
    with evaluating(model):
        return torch.cat([model(part) for part in values.split(batch_size)])
