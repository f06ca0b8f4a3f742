"""Completion: against the official code's numbers, autograd, runs one by one; the switch; the flow of the product."""

import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from interplay.dynamics.critical_periods import (
    CompletionTask,
    DeepMatrixFactorization,
    completion_task,
    product_velocity,
    singular_value_velocity,
    train_completion,
)
from interplay.testing import check_mechanism, check_same_seed

# The official functions `get_e2e`, `get_train_loss` and `get_test_loss` (commit c3c1f47) in the loop of `main.py`, with
# SGD at lr=2 in double precision, from the factors and tasks below: losses on the second task and the product's
# diagonal after the last step. It continued for 80 steps after a switch at 0, for 50 after one at 30.
OFFICIAL = json.loads((Path(__file__).parent / "critical_periods_official.json").read_text())["completion"]
N = 12
INDEX = torch.arange(N, dtype=torch.float64)


def official_task(number):
    target = torch.outer(torch.cos(number * INDEX), torch.sin(INDEX + number)) + torch.outer(
        torch.sin(2 * number * INDEX + 1), torch.cos(INDEX)
    )
    return CompletionTask(target, 7 * torch.arange(60) % N**2)


def official_factors(depth, runs=1):
    wave = [torch.sin(1.7 * INDEX[:, None] * (k + 1) + 2.3 * INDEX[None] + k) for k in range(depth)]
    factors = [0.4 * part / N**0.5 + 0.3 * torch.eye(N, dtype=torch.float64) for part in wave]
    return DeepMatrixFactorization([factor.expand(runs, -1, -1) for factor in factors])


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(("switch", "further"), [(0, 80), (30, 50)])
def test_training_agrees_with_the_official_code(depth, switch, further):
    products = official_factors(depth)
    # There the second task begins one step after the switch, and the run ends when it would have ended without delay.
    run = train_completion(products, [official_task(1)], [official_task(2)], [switch + 1], further=further - 1, lr=2.0)
    recorded = OFFICIAL[f"depth {depth}, switch {switch}"]
    assert run.error.item() == pytest.approx(recorded["test"], rel=1e-10)
    assert run.train_loss.item() == pytest.approx(recorded["train"], rel=1e-10)
    diagonal = products()[0].detach().diagonal()
    assert_close(diagonal, torch.tensor(recorded["diagonal"], dtype=torch.float64), atol=1e-8, rtol=0)


def plain_loop(products, first, then, switch, further, lr):
    """One run by autograd."""
    optimizer = torch.optim.SGD(products.parameters(), lr=lr)
    made = {"first": 0, "then": 0}
    for step in range(switch + further):
        name, task = ("first", first) if step < switch else ("then", then)
        made[name] += 1
        seen = products()[0].flatten()[task.observed] - task.target.flatten()[task.observed]
        optimizer.zero_grad()
        (seen.square().mean() / 2).backward()
        optimizer.step()
    assert made == {"first": switch, "then": further}
    return products


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_runs_with_other_switches_tasks_and_seeds_in_one_batch_are_plain_loops(depth):
    switches, seeds = [0, 25, 7, 40, 7], [0, 1, 0, 2, 3]
    then = [completion_task(8, 2, 30, seed, dtype=torch.float64) for seed in seeds]
    first = [completion_task(8, 3, 30, seed, draw=1, dtype=torch.float64) for seed in seeds]
    first[4] = then[4].first(12)
    together = DeepMatrixFactorization.gaussian(8, depth, seeds=seeds, scale=0.1, dtype=torch.float64)
    run = train_completion(together, first, then, switches, further=20, lr=1.0, record_every=9, kept=3)
    for index, seed in enumerate(seeds):
        alone = DeepMatrixFactorization.gaussian(8, depth, seeds=[seed], scale=0.1, dtype=torch.float64)
        plain_loop(alone, first[index], then[index], switches[index], 20, 1.0)
        product = alone().detach()[0]
        assert_close(together()[index].detach(), product, rtol=1e-9, atol=1e-12)
        assert run.error[index].item() == pytest.approx(float((product - then[index].target).square().mean()))
        last = max(position for position, step in enumerate(run.steps) if step <= switches[index] + 20)
        assert run.errors[: last + 1, index].isfinite().all()
        assert run.errors[last + 1 :, index].isnan().all()
        assert run.singular_values[last + 1 :, index].isnan().all()
    assert run.steps == [0, 9, 18, 27, 36, 45, 54, 60]
    assert_close(run.errors[-1, 3], run.error[3])
    assert_close(run.singular_values[-1, 3], torch.linalg.svdvals(together()[3].detach())[:3])


def test_a_run_without_a_first_task_never_sees_it():
    then, other = official_task(2), official_task(1)
    results = []
    for first in (other, then):
        products = official_factors(2)
        train_completion(products, [first], [then], [0], further=30, lr=1.0)
        results.append(products()[0])
    assert torch.equal(*results)


def test_tasks_are_of_the_rank_and_norm_and_share_their_entries():
    task, other = completion_task(20, 3, 90, 5), completion_task(20, 7, 90, 5, draw=1)
    assert torch.linalg.matrix_rank(task.target, rtol=1e-5) == 3
    assert torch.linalg.matrix_rank(other.target, rtol=1e-5) == 7
    assert float(task.target.norm()) == pytest.approx(20, rel=1e-5)
    assert torch.equal(task.observed, other.observed)
    assert len(task.observed.unique()) == 90
    assert not torch.equal(task.observed, completion_task(20, 3, 90, 6).observed)
    more = completion_task(20, 3, 200, 5)
    assert torch.equal(more.first(90).observed, task.observed)
    assert torch.equal(more.target, task.target)
    assert task.weights().sum() == pytest.approx(1)
    assert task.weights().count_nonzero() == 90
    assert task.weights().flatten()[task.observed].min() > 0
    swapped = task.at_same_entries(other.target)
    assert torch.equal(swapped.target, other.target)
    assert torch.equal(swapped.observed, task.observed)
    check_same_seed(lambda seed: completion_task(20, 3, 90, seed).target)


def test_starts_have_the_scale():
    for depth in (1, 3):
        products = DeepMatrixFactorization.gaussian(60, depth, seeds=[0, 1, 0], scale=1e-3)
        assert float(products.weights[0].detach().std()) == pytest.approx(1e-3 ** (1 / depth) / 60**0.5, rel=0.05)
        norm = products().detach().norm(dim=(1, 2))
        assert_close(norm / (1e-3 * 60**0.5), torch.ones(3), atol=0.1, rtol=0)
        assert torch.equal(products()[0], products()[2])
        assert not torch.equal(products()[0], products()[1])


def test_the_factorisation_is_a_mechanism():
    check_mechanism(DeepMatrixFactorization.gaussian(5, 3, seeds=[0, 1], scale=1.0), batch_dim=None)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_product_moves_as_balanced_factors_do(depth):
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q for _ in range(2))
    values = torch.tensor([3.0, 2.2, 1.4, 0.9, 0.5, 0.2], dtype=torch.float64)
    root = values ** (1 / depth)
    inner = [torch.diag(root)] * (depth - 2)
    factors = [left * values @ right.T] if depth == 1 else [root[:, None] * right.T, *inner, left * root]
    target = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    products = DeepMatrixFactorization([factor[None] for factor in factors])
    before = products()[0].detach().clone()
    gradient = before - target
    task = CompletionTask(target, torch.arange(36))
    rate = 1e-7
    train_completion(products, [task], [task], [0], further=1, lr=36 * rate)
    after = products()[0].detach()
    assert_close((after - before) / rate, product_velocity(before, gradient, depth), rtol=1e-4, atol=1e-4)
    moved = (torch.linalg.svdvals(after) - torch.linalg.svdvals(before)) / rate
    assert_close(moved, singular_value_velocity(before, gradient, depth), rtol=1e-4, atol=1e-4)


TASK = official_task(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: completion_task(5, 2, 26, 0), "entries must be 1 to n^2=25; got 26"),
        (lambda: completion_task(5, 6, 20, 0), "rank must be 1 to n=5; got 6"),
        (lambda: completion_task(0, 1, 1, 0), "n must be 1 or more"),
        (lambda: TASK.first(61), "entries must be 1 to 60"),
        (lambda: TASK.at_same_entries(torch.ones(3, 3)), "must have shape"),
        (lambda: DeepMatrixFactorization.gaussian(5, 0, seeds=[0]), "must be 1 or more; got 5 and 0"),
        (lambda: DeepMatrixFactorization.gaussian(5, 2, seeds=[]), "seeds must name one run"),
        (lambda: DeepMatrixFactorization.gaussian(5, 2, seeds=[0], scale=0.0), "0 is a saddle"),
        (lambda: DeepMatrixFactorization([]), "depth must be 1 or more"),
        (lambda: DeepMatrixFactorization([torch.ones(1, 3, 4)]), "factors must be"),
        (lambda: train_completion(official_factors(2), [TASK], [TASK], [-1], further=1, lr=1.0), "switch must be 0"),
        (lambda: train_completion(official_factors(2), [TASK], [TASK] * 2, [0], further=1, lr=1.0), "then must have"),
        (lambda: train_completion(official_factors(2), [TASK], [TASK], [0], further=-1, lr=1.0), "further must be 0"),
        (
            lambda: train_completion(
                DeepMatrixFactorization.gaussian(5, 2, seeds=[0]), [TASK], [TASK], [0], further=1, lr=1.0
            ),
            "task of shape",
        ),
        (lambda: product_velocity(torch.ones(3, 3), torch.ones(2, 2), 2), "square and alike"),
        (lambda: singular_value_velocity(torch.ones(3, 3), torch.ones(3, 3), 0), "depth must be 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message.replace("^", r"\^")):
        call()


def test_divergence_names_run_step_and_step_size():
    with pytest.raises(FloatingPointError, match=r"loss of run 1 is not finite at step \d+.*lr=4000.0"):
        train_completion(official_factors(2, 2), [TASK] * 2, [TASK] * 2, [0, 300], further=0, lr=4000.0)
