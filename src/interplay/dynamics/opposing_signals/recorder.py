"""How much the loss of every sample changes from step to step."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = ["LossChangeRecorder"]


class LossChangeRecorder:
    """Changes delta_i(t) = l_i(t) - l_i(t - 1) of the losses of N samples, from losses that a run computes anyway.

    A step may arrive in pieces (chunks of a large set, minibatches of an epoch); its row is closed by the first piece
    of the next step. Samples that a step leaves out have no change in its row and keep their last loss.

    Parameters
    ----------
    n_samples
        N; indices run from 0 to N - 1.
    window
        Rows kept, the oldest are forgotten: memory O(window N). None keeps none but the running mean of the absolute
        change of every sample: memory O(N).
    dtype
        Of what is kept.

    Attributes
    ----------
    stopped_at
        The step at which a loss was not finite; recording has ended there. None while all is well.

    Raises
    ------
    ValueError
        Fewer than two samples or fewer than two rows.

    Examples
    --------
    >>> recorder = LossChangeRecorder(3)
    >>> for step, losses in enumerate(([1.0, 1.0, 1.0], [0.5, 1.5, 0.9])):
    ...     recorder.update(torch.tensor(losses), step=step)
    >>> [round(change, 2) for change in recorder.matrix()[0].tolist()]
    [-0.5, 0.5, -0.1]
    """

    def __init__(self, n_samples: int, window: int | None = 200, dtype: torch.dtype = torch.float32) -> None:
        if n_samples < 2:
            raise ValueError(f"n_samples must be 2 or more, so that groups can oppose each other; got {n_samples}")
        if window is not None and window < 2:
            raise ValueError(f"window must be 2 or more steps, or None for running means alone; got {window}")
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be a floating point type; got {dtype}")
        self.n_samples, self.window = n_samples, window
        self.stopped_at: int | None = None
        self.last_loss = torch.full((n_samples,), torch.nan, dtype=dtype)
        self._row = torch.full((n_samples,), torch.nan, dtype=dtype)
        self._seen = torch.zeros(n_samples, dtype=torch.bool)
        self._step: int | None = None
        self._rows = torch.full((0 if window is None else window, n_samples), torch.nan, dtype=dtype)
        self._steps: list[int] = []
        self._total = torch.zeros(n_samples, dtype=dtype)
        self._count = torch.zeros(n_samples, dtype=torch.int64)

    def update(self, loss: Tensor, index: Tensor | None = None, *, step: int) -> None:
        """Record the losses of some samples, or of all in order, at a step.

        Parameters
        ----------
        loss
            (B,) losses, each of its own sample.
        index
            (B,) integers, which samples these are; None for all N in order.
        step
            Number of the step, never smaller than the last one. For minibatches the number of the epoch, so that a row
            holds every sample once.

        Raises
        ------
        ValueError
            A reduced loss, indices that do not fit or repeat within the step, or a step in the past.

        Warns
        -----
        RuntimeWarning
            A loss is not finite: recording stops, `stopped_at` says where.
        """
        if self.stopped_at is not None:
            return
        if loss.dim() != 1:
            raise ValueError(
                f"loss must hold one number a sample, shape (B,); got shape {tuple(loss.shape)}: make it with "
                'reduction="none"'
            )
        loss = loss.detach().to(self.last_loss)
        chosen = self._checked(index, len(loss))
        if self._step is None or step > self._step:
            self._close()
            self._step = step
        elif step < self._step:
            raise ValueError(f"step must not decrease; got {step} after {self._step}")
        if not loss.isfinite().all():
            self._stop(step, loss, chosen)
            return
        if self._seen[chosen].any():
            raise ValueError(f"index repeats samples within step {step}; give every sample once a step")
        self._seen[chosen] = True
        self._row[chosen] = loss - self.last_loss[chosen]
        self.last_loss[chosen] = loss

    def matrix(self) -> Tensor:
        """The changes in the window, shape (W, N), oldest step first; NaN where a step had left out a sample.

        Raises
        ------
        ValueError
            The recorder keeps running means alone.
        """
        if self.window is None:
            raise ValueError("a recorder with window=None keeps no rows; give it a window, or ask for score()")
        kept = min(len(self._steps), self.window)
        order = [position % self.window for position in range(len(self._steps) - kept, len(self._steps))]
        rows = self._rows[order]
        return torch.cat([rows, self._row[None]])[-self.window :].clone() if self._open() else rows.clone()

    def steps(self) -> list[int]:
        """The step of every row of the matrix."""
        steps = [*self._steps, self._step] if self._open() and self._step is not None else self._steps
        return list(steps[-(self.window or 0) :]) if self.window else []

    def score(self) -> Tensor:
        """Mean absolute change of every sample since the recorder was made, shape (N,); NaN where none was seen."""
        change = self._row.abs().nan_to_num() if self._open() else torch.zeros_like(self._total)
        counted = self._count + (~self._row.isnan() if self._open() else torch.zeros_like(self._seen))
        return (self._total + change) / counted

    def losses(self) -> Tensor:
        """Losses at the steps of `matrix`, shape (W, N), for samples that every step of the window has seen."""
        changes = self.matrix()
        later = changes.flip(0).cumsum(0).flip(0) - changes
        return self.last_loss - later

    def _open(self) -> bool:
        """Whether the present step has a row worth showing: the first losses of all are no changes yet."""
        return bool((~self._row.isnan()).any())

    def _close(self) -> None:
        if self._open():
            if self.window is not None and self._step is not None:
                self._rows[len(self._steps) % self.window] = self._row
                self._steps.append(self._step)
            changed = ~self._row.isnan()
            self._total[changed] += self._row[changed].abs()
            self._count += changed
        self._row.fill_(torch.nan)
        self._seen.fill_(False)

    def _stop(self, step: int, loss: Tensor, chosen: Tensor) -> None:
        sample = int(chosen[int((~loss.isfinite()).nonzero()[0])])
        self._row.fill_(torch.nan)
        self.stopped_at = step
        warnings.warn(
            f"the loss of sample {sample} is not finite at step {step}: recording stops here, the steps before are "
            "kept",
            RuntimeWarning,
            stacklevel=3,
        )

    def _checked(self, index: Tensor | None, length: int) -> Tensor:
        if index is None:
            if length != self.n_samples:
                raise ValueError(
                    f"loss has {length} samples, the recorder {self.n_samples}; give index to record some of them"
                )
            return torch.arange(length)
        if index.shape != (length,) or index.is_floating_point() or index.dtype == torch.bool:
            raise ValueError(
                f"index must be integers of shape ({length},), as loss; got {index.dtype} of {tuple(index.shape)}"
            )
        index = index.detach().cpu().long()
        if length and (int(index.min()) < 0 or int(index.max()) >= self.n_samples):
            raise ValueError(
                f"index must lie in [0, {self.n_samples - 1}]; got {int(index.min())} to {int(index.max())}"
            )
        if len(index.unique()) < length:
            raise ValueError("index repeats samples within a step; give every sample once a step")
        return index
