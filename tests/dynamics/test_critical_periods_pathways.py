"""Pathway networks: against the official code's numbers, autograd, networks one by one, and the equation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from interplay.dynamics.critical_periods import (
    DeficitSchedule,
    TargetModes,
    TwoPathwayLinear,
    hierarchy,
    pathway_race,
    target_modes,
    train_pathways,
)
from interplay.testing import check_mechanism, check_same_seed

# Modes K of both pathways and loss at every hundredth step of the official `MPNAnalysis.train_mcn` (commit c3c1f47),
# timesteps=1001, lr=0.01, in double precision, for the two-pathway nets and schedules that the names say, width 100.
# `kDiagInit` was 0.01 (1 + 0.1 cos i), sorted, and `torch.nn.init.orthogonal_` was replaced by a discrete cosine
# transform, so that the start is a closed formula. `left` and `right` are its singular vectors of the targets.
OFFICIAL = json.loads((Path(__file__).parent / "critical_periods_official.json").read_text())
X, Y = hierarchy(torch.float64)
MODES = target_modes(X, Y)
WIDTH = 100


def official_start(depth, nonlinearity="linear"):
    """The layers of the recorded runs."""
    left, right = (torch.tensor(OFFICIAL[side], dtype=torch.float64) for side in ("left", "right"))
    index = torch.arange(WIDTH, dtype=torch.float64)
    rotation = torch.cos(math.pi * (index[None] + 0.5) * index[:, None] / WIDTH) * (2 / WIDTH) ** 0.5
    rotation[0] /= 2**0.5
    root = (0.01 * (1 + 0.1 * torch.cos(index))).sort(descending=True).values ** (1 / depth)
    thin = rotation[:, :8] * root[:8]
    inner = [rotation * root @ rotation.T] * (depth - 2)
    layers = [layer.expand(1, 2, -1, -1) for layer in (thin @ right.T, *inner, left @ thin.T)]
    modes = TargetModes(left, MODES.values, right)
    return TwoPathwayLinear(layers, nonlinearity=nonlinearity), modes


def window(start, length, *more):
    return {1: DeficitSchedule(start, length), **dict(more)}


@pytest.mark.parametrize(
    ("name", "depth", "nonlinearity", "deficit"),
    [
        ("depth 4, onset 0", 4, "linear", window(0, 150)),
        ("depth 4, onset 400", 4, "linear", window(400, 150)),
        ("depth 4, onset 750", 4, "linear", window(750, 150)),
        ("depth 2, onset 40", 2, "linear", window(40, 50)),
        ("depth 3, mask 1", 3, "linear", window(0, 200, (0, DeficitSchedule(0, 200, "mask_mode", mode=1)))),
        ("depth 3, mask 1 for good", 3, "linear", window(0, 200, (0, DeficitSchedule(0, 1001, "mask_mode", mode=1)))),
        ("depth 3, tanh", 3, "tanh", window(0, 150)),
        ("depth 3, relu", 3, "relu", window(0, 150)),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-5)])
def test_training_agrees_with_the_official_code(name, depth, nonlinearity, deficit, dtype, tolerance):
    network, modes = official_start(depth, nonlinearity)
    modes = TargetModes(*(part.to(dtype) for part in modes))
    run = train_pathways(
        network.to(dtype),
        X.to(dtype),
        Y.to(dtype),
        steps=1001,
        lr=0.01,
        deficits=[deficit],
        modes=modes,
        record_every=100,
    )
    recorded = OFFICIAL[name]
    assert run.steps[:-1].tolist() == list(range(0, 1001, 100))
    assert_close(run.modes[:-1, 0], torch.tensor(recorded["modes"], dtype=dtype), atol=tolerance, rtol=0)
    assert_close(run.loss[:-1, 0], torch.tensor(recorded["loss"], dtype=dtype), atol=20 * tolerance, rtol=0)


def test_singular_values_of_the_hierarchy_are_those_published():
    assert_close(MODES.values, torch.tensor([15, 7, 3, 3, 1, 1, 1, 1], dtype=torch.float64).sqrt())
    left, values, right = MODES
    assert_close(left * values @ right.T, Y.T @ X)


def all_deficits():
    return [
        {},
        {1: DeficitSchedule(5, 20)},
        {0: DeficitSchedule(3, 30, "bernoulli", prob=0.5, seed=3)},
        {1: [DeficitSchedule(0, 10), DeficitSchedule(30, 5)], 0: DeficitSchedule(2, 40, "mask_mode", mode=2)},
        {0: DeficitSchedule(40, 20), 1: DeficitSchedule(10, 15, "mask_mode", mode=0)},
    ]


def start(seeds, depth=3, nonlinearity="linear", width=12):
    return TwoPathwayLinear.gaussian(
        8, 15, depth=depth, seeds=seeds, width=width, scale=0.3, nonlinearity=nonlinearity, dtype=torch.float64
    )


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("nonlinearity", ["linear", "tanh", "relu"])
def test_one_step_is_that_of_autograd_with_the_gate(depth, nonlinearity):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    y = torch.randn(20, 15, generator=generator, dtype=torch.float64)
    network = start([0, 1], depth, nonlinearity)
    other = network.select([0, 1])
    learning = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    loss = (other(x, learning) - y).square().sum((1, 2)) / 2
    loss.sum().backward()
    assert not any(weight.grad[0, 1].any() for weight in other.weights)
    run = train_pathways(network, x, y, steps=1, lr=0.01, deficits=[{1: DeficitSchedule(0, 1)}, {}])
    assert_close(run.loss[0], loss.detach())
    for trained, weight in zip(network.weights, other.weights, strict=True):
        assert_close(trained.detach(), weight.detach() - 0.01 * weight.grad)


def test_the_mask_is_that_of_autograd_through_the_masked_map():
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    network, mode = start([0]), 2
    other = network.select([0])
    left, _, right = MODES
    keep_left = torch.eye(15, dtype=torch.float64) - torch.outer(left[:, mode], left[:, mode])
    keep_right = torch.eye(8, dtype=torch.float64) - torch.outer(right[:, mode], right[:, mode])
    first, second = other.maps()[0]
    y = torch.ones(20, 15, dtype=torch.float64)
    (((keep_left @ first @ keep_right + second) @ x.T - y.T).square().sum() / 2).backward()
    deficits = [{0: DeficitSchedule(0, 1, "mask_mode", mode=mode)}]
    train_pathways(network, x, y, steps=1, lr=0.01, deficits=deficits, modes=MODES)
    for trained, weight in zip(network.weights, other.weights, strict=True):
        assert_close(trained.detach(), weight.detach() - 0.01 * weight.grad)


def test_runs_of_other_seeds_and_windows_in_one_batch_are_those_one_by_one():
    seeds, deficits = [3, 3, 5, 7, 5], all_deficits()
    together = start(seeds)
    run = train_pathways(together, X, Y, steps=60, lr=0.02, deficits=deficits, record_every=7)
    for index, (seed, deficit) in enumerate(zip(seeds, deficits, strict=True)):
        alone = start([seed])
        single = train_pathways(alone, X, Y, steps=60, lr=0.02, deficits=[deficit], record_every=7)
        assert_close(run.modes[:, index], single.modes[:, 0], rtol=1e-10, atol=1e-12)
        assert_close(run.loss[:, index], single.loss[:, 0], rtol=1e-10, atol=1e-12)
        for many, one in zip(together.weights, alone.weights, strict=True):
            assert_close(many[index], one[0], rtol=1e-10, atol=1e-12)
    distinct = {tuple(modes.flatten().tolist()) for modes in run.modes[-1]}
    assert len(distinct) == 5


def test_a_window_freezes_exactly_its_steps():
    network = start([0])
    before = [weight.detach().clone() for weight in network.weights]
    train_pathways(network, X, Y, steps=4, lr=0.01, deficits=[{1: DeficitSchedule(0, 4)}])
    for weight, old in zip(network.weights, before, strict=True):
        assert torch.equal(weight[:, 1], old[:, 1])
        assert not torch.equal(weight[:, 0], old[:, 0])
    network = start([0])
    train_pathways(network, X, Y, steps=5, lr=0.01, deficits=[{1: DeficitSchedule(0, 4)}])
    assert not any(torch.equal(weight[:, 1], old[:, 1]) for weight, old in zip(network.weights, before, strict=True))


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_balanced_network_is_the_equation_in_euler_steps(depth):
    network = TwoPathwayLinear.balanced(MODES, depth=depth, seeds=[11], scale=0.02)
    p0 = network.pathway_modes(MODES.left, MODES.right)[0].detach().numpy() ** (1 / depth)
    run = train_pathways(network, X, Y, steps=400, lr=0.01, deficits=[{1: DeficitSchedule(30, 60)}])
    times = 0.01 * np.arange(401)
    race = pathway_race(MODES.values.numpy(), depth, p0, times, {1: (0.3, 0.9)}, dt=0.01)
    np.testing.assert_allclose(run.modes[:, 0].numpy(), race, atol=1e-9)


def test_balanced_starts_are_balanced_and_alike_for_both_pathways():
    network = TwoPathwayLinear.balanced(MODES, depth=4, seeds=[0, 1, 0], width=20, scale=0.05)
    assert_close(network.weights[1][0], network.weights[1][2])
    assert not torch.allclose(network.weights[1][0], network.weights[1][1])
    for weight in network.weights:
        assert_close(weight[:, 0], weight[:, 1])
    inner, outer = network.weights[1].detach(), network.weights[2].detach()
    assert_close(inner @ inner.mT, outer.mT @ outer)
    maps = MODES.left.T @ network.maps().detach() @ MODES.right
    carried = maps.diagonal(dim1=-2, dim2=-1)
    assert_close(maps, torch.diag_embed(carried), atol=1e-12, rtol=0)
    assert (carried.diff() <= 0).all()  # sorted
    assert ((carried / 0.05 - 1).abs() < 0.5).all()
    exact = TwoPathwayLinear.balanced(MODES, depth=4, seeds=[0], width=20, scale=0.05, noise=0.0)
    assert_close(exact.pathway_modes(MODES.left, MODES.right), torch.full((1, 2, 8), 0.05, dtype=torch.float64))


def test_gaussian_starts_have_the_scale():
    network = TwoPathwayLinear.gaussian(60, 60, depth=3, width=60, seeds=range(4), scale=0.008)
    for weight in network.weights:
        assert float(weight.detach().std()) == pytest.approx(0.2 / 60**0.5, rel=0.05)
    assert not torch.equal(network.weights[0][:, 0], network.weights[0][:, 1])


def test_the_network_is_a_mechanism():
    network = TwoPathwayLinear.gaussian(4, 3, depth=3, seeds=[0, 1], width=5, scale=1.0)
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    bad = {"wrong width": (x[:, :3],), "a vector": (x[0],), "integers": (torch.ones(2, 4, dtype=torch.int64),)}
    check_mechanism(network, x, bad_inputs=bad, batch_dim=None)
    assert network(x[:1]).shape == (2, 1, 3)
    check_same_seed(lambda seed: TwoPathwayLinear.gaussian(4, 3, depth=3, seeds=[seed])(x).detach())
    check_same_seed(lambda seed: TwoPathwayLinear.balanced(MODES, depth=3, seeds=[seed]).weights[0].detach())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TwoPathwayLinear.balanced(MODES, depth=0, seeds=[0]), "depth must be 1 or more; got 0"),
        (lambda: TwoPathwayLinear.balanced(MODES, depth=2, seeds=[]), "seeds must name one run"),
        (lambda: TwoPathwayLinear.balanced(MODES, depth=2, seeds=[0], scale=0.0), "0 is a saddle"),
        (lambda: TwoPathwayLinear.balanced(MODES, depth=2, seeds=[0], noise=5.0), "negative"),
        (lambda: TwoPathwayLinear.gaussian(8, 15, depth=2, seeds=[0], width=0), "width must be 1 or more"),
        (lambda: TwoPathwayLinear([]), "depth must be 1 or more"),
        (lambda: TwoPathwayLinear([torch.ones(1, 2, 3, 4), torch.ones(1, 2, 5, 4)]), "takes 4 numbers"),
        (lambda: TwoPathwayLinear([torch.ones(1, 2, 3, 4)], nonlinearity="gelu"), "nonlinearity must be one of"),
        (lambda: target_modes(X, Y[:3]), "of the same points"),
        (lambda: deficit({1: DeficitSchedule(90, 20)}), r"ends at step 110 \(start 90 \+ length 20\).*100 steps"),
        (lambda: deficit({2: DeficitSchedule(0, 20)}), "no pathway 2; there are 2"),
        (lambda: deficit({0: DeficitSchedule(0, 2, "mask_mode", mode=8)}), "mode 8 is out of range: there are 8"),
        (lambda: deficit({0: DeficitSchedule(0, 2, "callable", transform=torch.sin)}), "deficit_hooks"),
        (lambda: deficit({0: DeficitSchedule(0, 2, "mask_mode", mode=1)}, "tanh"), "defined for linear pathways"),
        (lambda: deficit({}, steps=0), "steps and record_every must be 1 or more"),
        (lambda: train_pathways(start([0]), X, Y, steps=5, lr=0.1, deficits=[{}, {}]), "got 2 for 1 runs"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def deficit(schedules, nonlinearity="linear", steps=100):
    network = start([0], nonlinearity=nonlinearity)
    return train_pathways(network, X, Y, steps=steps, lr=0.01, deficits=[schedules])


def test_divergence_names_run_step_and_step_size():
    with pytest.raises(FloatingPointError, match=r"loss of run 0 is not finite at step \d+.*lr=3.0"):
        train_pathways(start([0]), X, Y, steps=100, lr=3.0)
