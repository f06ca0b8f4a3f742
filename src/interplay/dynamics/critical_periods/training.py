"""Gradient descent of many pathway networks at once, each with deficits of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interplay.dynamics.critical_periods.chains import activities_of, descend
from interplay.dynamics.critical_periods.deficits import DeficitSchedule, check_mode
from interplay.dynamics.critical_periods.pathways import TargetModes, TwoPathwayLinear, modes_of, target_modes

__all__ = ["Deficits", "PathwayRun", "train_pathways"]

Deficits = Mapping[int, DeficitSchedule | Sequence[DeficitSchedule]]
"""What is wrong with one network: by pathway, one schedule or several."""
CHECK_EVERY = 50


@dataclass(frozen=True)
class PathwayRun:
    """What happened to the networks.

    Attributes
    ----------
    steps
        Steps made at each record; the first record is the start, the last one the end.
    loss
        (records, runs): half the sum of squared errors over points and outputs, under the deficits of the step.
    modes
        (records, runs, paths, modes): K of each pathway, without the deficits.
    """

    steps: Tensor
    loss: Float[Tensor, "records runs"]
    modes: Float[Tensor, "records runs paths modes"]

    @property
    def share(self) -> Float[Tensor, "records runs paths modes"]:
        """Share of each pathway in what all of them carry of a mode."""
        return self.modes / self.modes.sum(2, keepdim=True)


@torch.no_grad()
def train_pathways(
    network: TwoPathwayLinear,
    x: Float[Tensor, "points inputs"],
    y: Float[Tensor, "points outputs"],
    *,
    steps: int,
    lr: float,
    deficits: Sequence[Deficits] | None = None,
    modes: TargetModes | None = None,
    record_every: int = 1,
) -> PathwayRun:
    """Train all networks in place on half the sum of squared errors, by full-batch gradient descent.

    Windows differ from run to run and still share one batch: a frozen pathway is one whose step has the factor 0.

    Parameters
    ----------
    network
        Its weights change.
    x, y
        Inputs and targets, shared by all runs.
    steps, lr
        Number and size of the steps.
    deficits
        One mapping a run from pathways to their schedules, of kinds "freeze", "bernoulli" and "mask_mode"; an empty one
        is no deficit. With "mask_mode" what a linear pathway adds to the output lacks the row and the column of the
        mode while the deficit acts, P_u Omega P_v with P_u = 1 - u u^T and P_v = 1 - v v^T.
    modes
        Basis of what is recorded and masked; the singular modes of the targets, if not given.
    record_every
        Steps between records.

    Raises
    ------
    ValueError
        Deficits that do not fit the networks or the training.
    FloatingPointError
        If the loss is not finite; names the run, the step and the step size.
    """
    if steps < 1 or record_every < 1:
        raise ValueError(f"steps and record_every must be 1 or more; got {steps} and {record_every}")
    if modes is None:
        modes = target_modes(x, y)
    runs, paths = network.runs, network.paths
    plan = _Plan(network, deficits, modes, steps)
    weights = [weight.data.flatten(0, 1) for weight in network.weights]
    inputs = x.mT.expand(runs * paths, -1, -1)
    identity = bool(torch.equal(x, torch.eye(len(x), dtype=x.dtype, device=x.device)))
    records: list[tuple[int, Tensor, Tensor]] = []
    for step in range(steps + 1):
        masks = plan.masks(step)
        seen = inputs if masks is None else masks.right @ inputs
        activities = activities_of(weights, seen, network.nonlinearity)
        output = activities[-1]
        assert output is not None
        if step % record_every == 0 or step == steps:
            maps = output if identity and masks is None else network.maps().flatten(0, 1)
            carried = modes_of(maps, modes.left, modes.right).view(runs, paths, -1)
        if masks is not None:
            output = masks.left @ output
        error = output.view(runs, paths, *output.shape[1:]).sum(1) - y.mT
        if step % record_every == 0 or step == steps:
            records.append((step, error.square().sum((1, 2)) / 2, carried))
        if step % CHECK_EVERY == 0 or step == steps:
            _check_finite(error, step, lr)
        if step == steps:
            break
        change = (error[:, None] * (plan.learning(step) * -lr)).flatten(0, 1)
        if masks is not None:
            change = masks.left @ change
        descend(weights, activities, change, network.nonlinearity)
    made, losses, carried_at = zip(*records, strict=True)
    return PathwayRun(torch.tensor(made), torch.stack(losses), torch.stack(carried_at))


@dataclass(frozen=True)
class _Masks:
    """Projectors on what masks leave, one a run and pathway: on outputs, (networks, outputs, outputs), on inputs."""

    left: Tensor
    right: Tensor


class _Plan:
    """The deficits of all runs, step by step."""

    def __init__(
        self, network: TwoPathwayLinear, deficits: Sequence[Deficits] | None, modes: TargetModes, steps: int
    ) -> None:
        self.shape = (network.runs, network.paths)
        self.like = network.weights[0]
        self.modes = modes
        self.frozen: list[tuple[int, int, DeficitSchedule]] = []
        self.masked: list[tuple[int, int, DeficitSchedule]] = []
        self.last_masks: tuple[tuple[tuple[int, int, int], ...], _Masks | None] = ((), None)
        self.last_frozen: tuple[list[tuple[int, int]], Tensor] | None = None
        if deficits is None:
            return
        if len(deficits) != network.runs:
            raise ValueError(f"deficits must be one mapping a run: got {len(deficits)} for {network.runs} runs")
        for run, of_run in enumerate(deficits):
            for path, given in of_run.items():
                if not 0 <= path < network.paths:
                    raise ValueError(f"run {run} has no pathway {path!r}; there are {network.paths}, from 0")
                for schedule in [given] if isinstance(given, DeficitSchedule) else given:
                    self._add(run, path, schedule, network, steps)

    def _add(self, run: int, path: int, schedule: DeficitSchedule, network: TwoPathwayLinear, steps: int) -> None:
        schedule.check_fits(steps)
        if schedule.kind == "callable":
            raise ValueError(
                "deficits of kind 'callable' need automatic differentiation: put them on a model of your own by "
                "deficit_hooks"
            )
        if schedule.mode is None:
            self.frozen.append((run, path, schedule))
            return
        check_mode(schedule.mode, self.modes.left.shape[1])
        if network.nonlinearity != "linear":
            raise ValueError(f"'mask_mode' is defined for linear pathways; these are {network.nonlinearity}")
        self.masked.append((run, path, schedule))

    def learning(self, step: int) -> Tensor:
        """(runs, paths, 1, 1): 0 where a pathway is frozen, else 1."""
        frozen = [(run, path) for run, path, schedule in self.frozen if schedule.acts(step)]
        if self.last_frozen is None or self.last_frozen[0] != frozen:
            factor = torch.ones(self.shape, dtype=self.like.dtype)
            for run, path in frozen:
                factor[run, path] = 0
            self.last_frozen = frozen, factor.to(self.like.device)[:, :, None, None]
        return self.last_frozen[1]

    def masks(self, step: int) -> _Masks | None:
        """The projectors of a step; None where nothing is masked."""
        acting = tuple((run, path, s.mode) for run, path, s in self.masked if s.mode is not None and s.acts(step))
        if acting != self.last_masks[0]:
            self.last_masks = acting, self._projectors(acting) if acting else None
        return self.last_masks[1]

    def _projectors(self, acting: tuple[tuple[int, int, int], ...]) -> _Masks:
        projectors = []
        for side in (self.modes.left, self.modes.right):
            whole = torch.eye(len(side), dtype=side.dtype, device=side.device).repeat(*self.shape, 1, 1)
            for run, path, mode in acting:
                whole[run, path] -= torch.outer(side[:, mode], side[:, mode])
            projectors.append(whole.flatten(0, 1))
        return _Masks(*projectors)


def _check_finite(error: Tensor, step: int, lr: float) -> None:
    if not error.isfinite().all():
        run = int((~error.isfinite()).flatten(1).any(1).nonzero()[0])
        raise FloatingPointError(
            f"the loss of run {run} is not finite at step {step} or up to {CHECK_EVERY - 1} steps earlier, with "
            f"lr={lr}: lower it"
        )
