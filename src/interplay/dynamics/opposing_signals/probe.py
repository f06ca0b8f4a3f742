"""A fixed set of samples, and the loss of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

__all__ = ["Forward", "Loss", "Probe", "sequence_loss"]

Loss = Callable[[Any, Tensor], Tensor]
"""(outputs, targets) in, a loss for each sample out, shape (B,)."""
Forward = Callable[[nn.Module, Any], tuple[Any, Any]]
"""(model, batch) in, (outputs, targets) out."""


class Probe:
    """A fixed set of samples in a fixed order, in batches, with the loss of each sample.

    Parameters
    ----------
    data
        A pair of tensors (inputs, targets), a `Dataset`, or an iterable of batches that gives the same samples in the
        same order every time: a loader without shuffling, a list of batches. Large sets stay on disk: only one batch is
        held at a time.
    loss
        (outputs, targets) in, one loss a sample out: a loss with `reduction="none"`. What it returns beyond the first
        dimension, as for pixels or tokens, is averaged.
    forward
        (model, batch) in, (outputs, targets) out. By default a batch is a pair (inputs, targets) or a mapping with the
        targets under "labels", as Hugging Face has them; outputs with `.logits` become these.
    batch_size
        Samples in a batch where `data` does not come in batches.

    Raises
    ------
    ValueError
        Data that is shuffled, empty, or cannot be iterated over twice.
    """

    def __init__(self, data: Any, loss: Loss, *, forward: Forward | None = None, batch_size: int = 1024) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
        if not callable(loss):
            raise TypeError(f"loss must be a function of (outputs, targets); got {type(loss).__name__}")
        if getattr(loss, "reduction", "none") != "none":
            raise ValueError(f'loss must give one number a sample; {loss!r} reduces: pass reduction="none"')
        self.batches = _batches(data, batch_size)
        self.loss = loss
        self.forward = forward or _plain_forward

    def __iter__(self) -> Iterator[Any]:
        yield from self.batches

    def batch_losses(self, model: nn.Module, batch: Any) -> Tensor:
        """Losses of the samples of one batch, shape (B,), with gradient."""
        outputs, targets = self.forward(model, _moved(batch, _device_of(model)))
        losses = self.loss(outputs, targets)
        if not isinstance(losses, Tensor) or losses.dim() == 0:
            raise ValueError(
                'loss must give one number a sample, shape (B,), but gave a single one: pass reduction="none", for '
                'example functools.partial(functional.cross_entropy, reduction="none")'
            )
        return losses.flatten(1).mean(1) if losses.dim() > 1 else losses

    @torch.no_grad()
    def losses(self, model: nn.Module) -> Tensor:
        """Losses of all samples in order, shape (N,), without gradient."""
        parts = [self.batch_losses(model, batch) for batch in self]
        if not parts:
            raise ValueError("the probe set is empty; give it samples that can be iterated over more than once")
        return torch.cat(parts)


def sequence_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the next token in every sequence of a causal language model, shape (B,).

    Parameters
    ----------
    logits
        (B, T, vocabulary).
    labels
        (B, T); -100 is left out. The shift by one happens here.
    """
    shifted = labels[:, 1:]
    loss = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), shifted, reduction="none", ignore_index=-100)
    return loss.sum(1) / (shifted != -100).sum(1).clamp(min=1)


def _batches(data: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(data, DataLoader):
        if isinstance(data.sampler, RandomSampler):
            raise ValueError(
                "data is a shuffled loader, so that samples have no fixed place; give a loader with shuffle=False"
            )
        return data
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size)
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        inputs, targets = data
        if len(inputs) != len(targets) or not len(inputs):
            raise ValueError(
                f"data must hold as many inputs as targets, one or more; got {len(inputs)}, {len(targets)}"
            )
        return list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))
    if isinstance(data, Iterator) or not isinstance(data, Iterable):
        raise ValueError(
            f"data must be (inputs, targets), a Dataset, or batches that can be iterated over many times; got "
            f"{type(data).__name__}: make a list of it"
        )
    return data


def _plain_forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Mapping):
        if "labels" not in batch:
            raise ValueError(f"a batch that is a mapping must hold labels; got {', '.join(batch)}: give forward")
        outputs = model(**{name: value for name, value in batch.items() if name != "labels"})
        return getattr(outputs, "logits", outputs), batch["labels"]
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"a batch must be (inputs, targets) or a mapping; got {type(batch).__name__}: give forward")
    outputs = model(batch[0])
    return getattr(outputs, "logits", outputs), batch[1]


def _device_of(model: nn.Module) -> torch.device:
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _moved(value, device) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return [_moved(value, device) for value in batch]
    return batch
