"""Watch a training run and name the groups of samples that pull it to opposite sides."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interplay.dynamics.opposing_signals.curvature import Sharpness, gradient_opposition, group_curvature, sharpness
from interplay.dynamics.opposing_signals.groups import find_opposing_groups
from interplay.dynamics.opposing_signals.probe import Forward, Loss, Probe
from interplay.dynamics.opposing_signals.recorder import LossChangeRecorder
from interplay.dynamics.opposing_signals.report import Diagnosis, as_rows

__all__ = ["OpposingSignalsMonitor", "diagnose"]


class OpposingSignalsMonitor:
    """Records the losses of a probe set along a run, measures the sharpness now and then, and reports.

    Call `observe` after every step of your own loop, and `report` at the end or whenever you want to know. Nothing of
    the run is changed: neither parameters nor buffers nor gradients nor the mode of the model nor random numbers.

    Parameters
    ----------
    model
        The model in training.
    loss
        (outputs, targets) in, a loss for each sample out: `reduction="none"`.
    data
        The probe set, fixed samples in a fixed order; see `Probe`. Samples of training, since what is diagnosed is the
        training. With minibatches a few thousand are plenty.
    forward, batch_size
        As of `Probe`.
    window
        Steps over which groups are sought, the last ones.
    every
        Observe every so many steps; odd, as a see-saw of period two looks still at every second step.
    sharpness_every
        Measure the sharpness every so many steps; 0 for never.
    iterations
        Most Hessian-vector products for one measurement of sharpness.
    step_size
        Learning rate of plain gradient descent, for the edge of stability at 2 / step_size; None draws no edge. With
        momentum beta it is 2 (1 + beta) / step_size: give step_size / (1 + beta).
    mode
        "eval" takes losses and curvature without dropout and with BatchNorm's running statistics; "train" takes the
        model as it trains.

    Raises
    ------
    ValueError
        Numbers out of range, or a probe set that `Probe` refuses.

    Examples
    --------
    >>> from torch.nn.functional import mse_loss
    >>> model, inputs, targets = nn.Linear(2, 1), torch.randn(8, 2), torch.randn(8, 1)
    >>> monitor = OpposingSignalsMonitor(model, nn.MSELoss(reduction="none"), (inputs, targets), window=5)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> for step in range(10):
    ...     optimizer.zero_grad()
    ...     mse_loss(model(inputs), targets).backward()
    ...     optimizer.step()
    ...     monitor.observe(step)
    >>> monitor.report().groups.found
    False
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        data: Any,
        *,
        forward: Forward | None = None,
        batch_size: int = 1024,
        window: int = 200,
        every: int = 1,
        sharpness_every: int = 20,
        iterations: int = 40,
        step_size: float | None = None,
        mode: str = "eval",
    ) -> None:
        if every < 1 or every % 2 == 0:
            raise ValueError(
                f"every must be odd, since a see-saw of period two stands still at every second step; got {every}"
            )
        if sharpness_every < 0 or iterations < 1:
            raise ValueError(
                f"sharpness_every must be zero or more and iterations 1 or more; got {sharpness_every}, {iterations}"
            )
        if step_size is not None and not step_size > 0:
            raise ValueError(f"step_size must be above 0, or None; got {step_size}")
        if mode not in ("eval", "train"):
            raise ValueError(f'mode must be "eval" or "train"; got {mode!r}')
        self.model = model
        self.probe = Probe(data, loss, forward=forward, batch_size=batch_size)
        self.window, self.every, self.sharpness_every, self.iterations = window, every, sharpness_every, iterations
        self.step_size, self.mode = step_size, mode
        self._recorder: LossChangeRecorder | None = None
        self._mean_losses: list[tuple[int, float]] = []
        self._sharpness: list[tuple[int, float]] = []
        self._top: Sharpness | None = None

    def observe(self, step: int, losses: Tensor | None = None) -> None:
        """Record the probe set after a step.

        Parameters
        ----------
        step
            Its number, growing.
        losses
            (N,) losses of the probe set in order, where the loop has them anyway (full-batch training): no forward pass
            is spent then.
        """
        if step % self.every == 0:
            with self._in_mode():
                found = self.probe.losses(self.model) if losses is None else losses.detach()
            if self._recorder is None:
                self._recorder = LossChangeRecorder(found.numel(), self.window)
            self._recorder.update(found, step=step)
            if self._recorder.stopped_at is None:
                self._mean_losses.append((step, float(found.mean())))
        if self.sharpness_every and step % self.sharpness_every == 0 and not self.stopped:
            self._sharpness.append((step, self._measure().value))

    @property
    def stopped(self) -> bool:
        """Whether recording has ended at a loss that is not finite."""
        return self._recorder is not None and self._recorder.stopped_at is not None

    def report(self, top: float = 0.02, *, shuffles: int = 199, seed: int = 0) -> Diagnosis:
        """The diagnosis of the last `window` steps; gradients and curvature are those of the present parameters.

        Parameters
        ----------
        top, shuffles, seed
            As of `find_opposing_groups`.

        Raises
        ------
        ValueError
            Fewer than three observations.
        """
        if self._recorder is None or len(self._recorder.steps()) < 2:
            seen = len(self._mean_losses)
            if self._recorder is not None and self.stopped:
                raise ValueError(
                    f"the losses are not finite at step {self._recorder.stopped_at}, after {seen} observations, and "
                    "two changes are needed: look at the data, or lower the step size"
                )
            raise ValueError(f"two changes of the losses are needed, three observations or more; got {seen}")
        delta = self._recorder.matrix().double().cpu().numpy()
        groups = find_opposing_groups(delta, top, shuffles=shuffles, seed=seed)
        cosine, norms, parts, top_value = math.nan, {}, {}, math.nan
        if len(groups.index_a) and len(groups.index_b) and not self.stopped:
            rest = np.setdiff1d(np.arange(delta.shape[1]), np.concatenate([groups.index_a, groups.index_b]))
            members = {"A": groups.index_a, "B": groups.index_b, "rest": rest}
            with self._in_mode():
                opposition = gradient_opposition(
                    self.model, self.probe, groups.index_a, groups.index_b, per_parameter=False
                )
                against_rest = gradient_opposition(self.model, self.probe, groups.index_a, rest, per_parameter=False)
                cosine = opposition.cosine
                norms = {"A": opposition.norm_a, "B": opposition.norm_b, "rest": against_rest.norm_b}
                if self.sharpness_every:
                    top_found = self._measure()
                    top_value = top_found.value
                    parts = group_curvature(self.model, self.probe, top_found.vector, members)
        return Diagnosis(
            groups=groups,
            delta=delta,
            losses=self._recorder.losses().double().cpu().numpy(),
            steps=np.array(self._recorder.steps()),
            mean_loss=as_rows(self._mean_losses),
            sharpness=as_rows(self._sharpness),
            step_size=self.step_size,
            gradient_cosine=cosine,
            gradient_norm=norms,
            curvature=parts,
            top_curvature=top_value,
            stopped_at=self._recorder.stopped_at,
        )

    def _measure(self) -> Sharpness:
        start = None if self._top is None else self._top.restart
        with self._in_mode():
            self._top = sharpness(self.model, self.probe, iterations=self.iterations, start=start)
        return self._top

    @contextmanager
    def _in_mode(self) -> Iterator[None]:
        modes = {module: module.training for module in self.model.modules()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()} if self.mode == "train" else {}
        self.model.train(self.mode == "train")
        try:
            with torch.random.fork_rng(devices=_accelerators(self.model)), warnings.catch_warnings():
                if self.mode == "train":  # asked for
                    warnings.filterwarnings("ignore", message=".*BatchNorm in training mode")
                yield
        finally:
            for module, training in modes.items():
                module.training = training
            with torch.no_grad():
                for name, buffer in self.model.named_buffers():
                    if name in buffers:
                        buffer.copy_(buffers[name])


def diagnose(
    model: nn.Module,
    loss: Loss,
    data: Any,
    train_step: Callable[[int], object],
    steps: int,
    *,
    top: float = 0.02,
    **options: Any,
) -> Diagnosis:
    """Train for some steps under watch and say which groups of samples had opposing signals.

    Parameters
    ----------
    model, loss, data
        As of `OpposingSignalsMonitor`.
    train_step
        Called with the number of the step; trains `model` in place, with an optimiser of your own.
    steps
        How many; groups are sought in the last `window` of them.
    top
        Fraction of the samples taken for outliers.
    **options
        Of `OpposingSignalsMonitor`.

    Returns
    -------
    Diagnosis
        With `.summary()`, `.table()`, `.spikes()` and `.figure()`.

    Raises
    ------
    ValueError
        Fewer than three steps.
    """
    if steps < 3:
        raise ValueError(f"steps must be 3 or more, for two changes of the losses; got {steps}")
    monitor = OpposingSignalsMonitor(model, loss, data, **options)
    for step in range(steps):
        train_step(step)
        monitor.observe(step)
        if monitor.stopped:
            break
    return monitor.report(top)


def _accelerators(model: nn.Module) -> list[torch.device]:
    return list({parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"})
