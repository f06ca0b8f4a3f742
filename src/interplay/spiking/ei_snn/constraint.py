"""The sign constraint (Dale's law): weights and gains never turn negative while a network trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from interplay.spiking.ei_snn.layer import EILayer

__all__ = ["constrain"]


def constrain(optimizer: torch.optim.Optimizer, model: nn.Module) -> RemovableHandle:
    """Set negative weights and gains of all E-I layers to zero after every step of any PyTorch optimiser.

    Parameters
    ----------
    optimizer
        Trains `model`, or a part of it.
    model
        Holds the E-I layers.

    Returns
    -------
    RemovableHandle
        `handle.remove()` ends it.

    Raises
    ------
    ValueError
        `model` has no E-I layer.

    Examples
    --------
    >>> from interplay.spiking.ei_snn import EILinear
    >>> layer = EILinear(8, 4)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    >>> handle = constrain(optimizer, layer)
    """
    layers = [module for module in model.modules() if isinstance(module, EILayer)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no E-I layer to constrain; build it of EILinear or EIConv2d")

    def project(*_: Any) -> None:
        for layer in layers:
            layer.project_()

    return optimizer.register_step_post_hook(project)
