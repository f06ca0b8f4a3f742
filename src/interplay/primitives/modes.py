"""Training and evaluation mode of modules, for the while of a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["evaluating"]


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Hold modules in evaluation mode: dropout is off, batch statistics are neither used nor changed.

    Afterwards every submodule is in the mode that it was in, which may differ from that of the whole; so it is after an
    error, too.
    """
    modes = [(part, part.training) for module in modules for part in module.modules()]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training
