"""Matrix completion by products of matrices, many at once, with a switch from one task to another.

P = W_D ... W_1 is trained by gradient descent on half the mean squared error over observed entries. For as long as the
deficit lasts, T_c steps, these are entries of another matrix, or fewer of them; then come equally many steps of the
real task whatever T_c was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.dynamics.critical_periods.chains import activities_of, descend
from interplay.primitives.randomness import generator_of

__all__ = ["CompletionRun", "CompletionTask", "DeepMatrixFactorization", "completion_task", "train_completion"]

TARGET, ENTRIES = range(2)  # streams of randomness of a task
CHECK_EVERY = 50


@dataclass(frozen=True)
class CompletionTask:
    """A matrix of low rank and the entries of it that are seen.

    Attributes
    ----------
    target
        (n, n).
    observed
        Flat indices row * n + column of the seen entries, in the order in which they were drawn.
    """

    target: Float[Tensor, "n n"]
    observed: Int[Tensor, " entries"]

    def first(self, entries: int) -> CompletionTask:
        """The same matrix, of which only the entries drawn first are seen: the deficit of fewer examples."""
        if not 1 <= entries <= len(self.observed):
            raise ValueError(f"entries must be 1 to {len(self.observed)}, those of the whole task; got {entries}")
        return replace(self, observed=self.observed[:entries])

    def at_same_entries(self, target: Float[Tensor, "n n"]) -> CompletionTask:
        """Another matrix, seen at the same entries: the deficit of another task."""
        if target.shape != self.target.shape:
            raise ValueError(f"target must have shape {tuple(self.target.shape)}; got {tuple(target.shape)}")
        return replace(self, target=target)

    def weights(self) -> Float[Tensor, "n n"]:
        """1 / entries at those that are seen, 0 elsewhere: weights of a mean."""
        weights = torch.zeros_like(self.target).flatten()
        weights[self.observed] = 1 / len(self.observed)
        return weights.view_as(self.target)


def completion_task(
    n: int, rank: int, entries: int, seed: int, *, draw: int = 0, dtype: torch.dtype = torch.float32
) -> CompletionTask:
    """Draw a matrix U V^T with normal U and V, (n, rank), scaled to Frobenius norm n, and the entries that are seen.

    Parameters
    ----------
    n, rank
        Size and rank of the matrix; entries are of order one.
    entries
        Number of entries that are seen, drawn without replacement.
    seed
        Of everything. The entries depend on it alone, so that fewer of them are the first of more.
    draw
        Other numbers give other matrices seen at the same entries.

    Raises
    ------
    ValueError
        More entries than the matrix has, or a rank above its size.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more; got {n}")
    if not 1 <= rank <= n:
        raise ValueError(f"rank must be 1 to n={n}; got {rank}")
    if not 1 <= entries <= n * n:
        raise ValueError(f"entries must be 1 to n^2={n * n}; got {entries}")
    generator = generator_of(seed, TARGET, draw)
    left, right = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for _ in range(2))
    product = left @ right.mT
    order = torch.randperm(n * n, generator=generator_of(seed, ENTRIES))
    return CompletionTask((product * (n / product.norm())).to(dtype), order[:entries])


class DeepMatrixFactorization(nn.Module):
    """Products of D square matrices, one a run.

    Parameters
    ----------
    weights
        One tensor a factor, (runs, n, n), the first one applied first.

    Raises
    ------
    ValueError
        No factors, or shapes that differ.
    """

    def __init__(self, weights: Sequence[Float[Tensor, "runs n n"]]) -> None:
        super().__init__()
        if len(weights) < 1:
            raise ValueError("depth must be 1 or more; got no factors")
        first = tuple(weights[0].shape)
        if len(first) != 3 or first[1] != first[2] or any(tuple(weight.shape) != first for weight in weights):
            raise ValueError(
                f"factors must be (runs, n, n), all alike; got {[tuple(weight.shape) for weight in weights]}"
            )
        self.weights = nn.ParameterList([nn.Parameter(weight.detach().clone()) for weight in weights])

    @classmethod
    def gaussian(
        cls,
        n: int,
        depth: int,
        *,
        seeds: Sequence[int],
        scale: float = 1e-3,
        dtype: torch.dtype = torch.float32,
    ) -> DeepMatrixFactorization:
        """Normal factors of standard deviation scale^(1 / depth) / sqrt(n): the product's entries are of order scale.

        A seed that comes twice starts two runs alike.
        """
        if n < 1 or depth < 1:
            raise ValueError(f"n and depth must be 1 or more; got {n} and {depth}")
        if len(seeds) < 1:
            raise ValueError("seeds must name one run or more; got none")
        if scale <= 0:
            raise ValueError(f"scale must be positive, 0 is a saddle for depth >= 2; got {scale}")
        deviation = scale ** (1 / depth) / n**0.5
        drawn = {
            seed: torch.randn(depth, n, n, generator=generator_of(seed, depth), dtype=dtype) * deviation
            for seed in dict.fromkeys(seeds)
        }
        return cls(list(torch.stack([drawn[seed] for seed in seeds], 1)))

    @property
    def depth(self) -> int:
        """Number of factors."""
        return len(self.weights)

    def forward(self) -> Float[Tensor, "runs n n"]:
        """The products."""
        product = activities_of(list(self.weights), None)[-1]
        assert product is not None
        return product


@dataclass(frozen=True)
class CompletionRun:
    """What happened to the runs.

    Attributes
    ----------
    error
        (runs,): mean squared error to the second task's matrix over all its entries, at the end.
    train_loss
        (runs,): half the mean squared error over the second task's observed entries, at the end.
    steps
        Steps at which the following were recorded; none without `record_every`.
    errors
        (records, runs): the error on the way; NaN after a run's end.
    singular_values
        (records, runs, kept): largest singular values of the products, falling; NaN after a run's end.
    """

    error: Float[Tensor, " runs"]
    train_loss: Float[Tensor, " runs"]
    steps: list[int]
    errors: Float[Tensor, "records runs"]
    singular_values: Float[Tensor, "records runs kept"]


@torch.no_grad()
def train_completion(
    factorization: DeepMatrixFactorization,
    first: Sequence[CompletionTask],
    then: Sequence[CompletionTask],
    switch: Sequence[int],
    *,
    further: int,
    lr: float,
    record_every: int | None = None,
    kept: int = 10,
) -> CompletionRun:
    """Train each run for `switch` steps on its first task and for `further` steps on its second one.

    Exactly so: step number `switch` (from 0) is the first one on the second task. The official code switches one step
    later and leaves out the last step. Runs leave the batch when they are done.

    Parameters
    ----------
    factorization
        Its factors change.
    first, then
        Tasks of each run.
    switch
        T_c of each run; 0 trains on the second task alone.
    further
        Steps on the second task, the same for all.
    lr
        Step size.
    record_every, kept
        Steps between records, if any, and the number of singular values in one.

    Raises
    ------
    ValueError
        Lengths that differ, negative steps, tasks of another size.
    FloatingPointError
        If the loss is not finite; names the run, the step and the step size.
    """
    runs, n, _ = factorization.weights[0].shape
    _check_tasks(runs, n, first, then, switch)
    if further < 0 or (record_every is not None and record_every < 1):
        raise ValueError(f"further must be 0 or more, record_every 1 or more; got {further} and {record_every}")
    like = factorization.weights[0]
    # The longest run comes first, so that those that go on are always a leading part of the batch.
    order = sorted(range(runs), key=lambda run: -switch[run])
    lasts = [switch[run] + further for run in order]
    weights = [weight.data[order] for weight in factorization.weights]
    target = torch.stack([first[run].target for run in order]).to(like)
    rate = torch.stack([first[run].weights() for run in order]).to(like) * -lr
    goal = torch.stack([task.target for task in then]).to(like)
    records: list[tuple[int, Tensor, Tensor]] = []
    going = runs
    for step in range(lasts[0] + 1):
        for position, run in enumerate(order):
            if switch[run] == step:
                target[position] = goal[run]
                rate[position] = then[run].weights().to(like) * -lr
        while going and lasts[going - 1] == step:
            going -= 1
        recording = record_every is not None and (step % record_every == 0 or step == lasts[0])
        alive = [weight[:going] for weight in weights]
        if recording:
            # Runs that end on this step are as they will stay.
            at_hand = sum(last >= step for last in lasts)
            products = activities_of([weight[:at_hand] for weight in weights], None)[-1]
            assert products is not None
            records.append((step, *_record(products, goal, order[:at_hand], kept)))
        if going == 0:
            break
        activities = activities_of(alive, None)
        product = activities[-1]
        assert product is not None
        change = (product - target[:going]).mul_(rate[:going])
        if step % CHECK_EVERY == 0:
            _check_finite(change, order, step, lr)
        descend(alive, activities, change)
    for weight, trained in zip(factorization.weights, weights, strict=True):
        weight.data[order] = trained
    residual = (factorization() - goal).square()
    _check_finite(residual, list(range(runs)), lasts[0], lr)
    seen = torch.stack([task.weights() for task in then]).to(like)
    made, errors, values = zip(*records, strict=True) if records else ((), (), ())
    return CompletionRun(
        residual.mean((1, 2)),
        (residual * seen).sum((1, 2)) / 2,
        list(made),
        torch.stack(errors) if errors else residual.new_empty(0, runs),
        torch.stack(values) if values else residual.new_empty(0, runs, min(kept, n)),
    )


def _record(products: Tensor, goal: Tensor, order: Sequence[int], kept: int) -> tuple[Tensor, Tensor]:
    runs, n, _ = goal.shape
    errors = goal.new_full((runs,), torch.nan)
    values = goal.new_full((runs, min(kept, n)), torch.nan)
    errors[order] = (products - goal[order]).square().mean((1, 2))
    values[order] = torch.linalg.svdvals(products)[:, :kept]
    return errors, values


def _check_tasks(
    runs: int, n: int, first: Sequence[CompletionTask], then: Sequence[CompletionTask], switch: Sequence[int]
) -> None:
    for name, given in (("first", first), ("then", then), ("switch", switch)):
        if len(given) != runs:
            raise ValueError(f"{name} must have one entry a run, {runs}; got {len(given)}")
    for name, tasks in (("first", first), ("then", then)):
        for run, task in enumerate(tasks):
            if task.target.shape != (n, n):
                raise ValueError(f"{name}[{run}] is a task of shape {tuple(task.target.shape)}; factors are {(n, n)}")
    if min(switch) < 0:
        raise ValueError(f"switch must be 0 or more steps; got {min(switch)}")


def _check_finite(values: Tensor, order: Sequence[int], step: int, lr: float) -> None:
    if not values.isfinite().all():
        run = order[int((~values.isfinite()).flatten(1).any(1).nonzero()[0])]
        raise FloatingPointError(
            f"the loss of run {run} is not finite at step {step} or up to {CHECK_EVERY - 1} steps earlier, with "
            f"lr={lr}: lower it"
        )
