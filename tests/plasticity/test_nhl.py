"""NHL: against patches laid out, a step worked out by hand, the authors' TENT, and what must never change."""

from __future__ import annotations

import copy
import itertools
import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from interplay.plasticity.nhl import (
    NHL,
    BatchNormAdapt,
    ChannelAffine,
    HardNHL,
    HebbOnly,
    OnlineAdapter,
    PseudoLabel,
    SoftHebb,
    SourceOnly,
    Tent,
    evaluate_online,
    soft_hebbian_delta,
    soft_hebbian_free_energy,
)
from interplay.testing import check_mechanism

from .digit_like import batches, classifier

ADAPTERS = (SourceOnly, BatchNormAdapt, Tent, PseudoLabel, HebbOnly, HardNHL, NHL)
LEARNERS = (Tent, PseudoLabel, HebbOnly, HardNHL, NHL)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


# --- the local rule -------------------------------------------------------------------------------------------------


def delta_over_patches(weight: Tensor, x: Tensor, tau: float, competition: str, groups: int, **geometry: int) -> Tensor:
    """The rule as it is written: every patch laid out, every channel and location summed."""
    out_per_group, in_per_group = len(weight) // groups, weight.shape[1]
    deltas = []
    for group in range(groups):
        rows = weight[group * out_per_group : (group + 1) * out_per_group].flatten(1)
        part = x[:, group * in_per_group : (group + 1) * in_per_group]
        patches = functional.unfold(part, weight.shape[2:], **geometry)
        drive = torch.einsum("kd,bdp->bkp", rows, patches)
        if competition == "softmax":
            activity = (drive / tau).exp() / (drive / tau).exp().sum(1, keepdim=True)
        else:
            activity = functional.one_hot(drive.argmax(1), out_per_group).movedim(-1, 1).to(drive)
        hebb = torch.einsum("bkp,bdp->kd", activity, patches)
        deltas.append(hebb - torch.einsum("bkp,bkp->k", activity, drive)[:, None] * rows)
    return torch.cat(deltas).view_as(weight)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.integers(1, 3),
    tau=st.floats(0.2, 3.0),
    competition=st.sampled_from(["softmax", "hard"]),
    seed=st.integers(0, 1000),
)
def test_delta_is_the_rule_over_all_patches(kernel, stride, padding, dilation, groups, tau, competition, seed) -> None:
    geometry = {"stride": stride, "padding": padding, "dilation": dilation}
    assume(all(9 + 2 * padding >= dilation * (side - 1) + 1 for side in kernel))
    x = randn(3, 2 * groups, 9, 11, seed=seed)
    weight = randn(3 * groups, 2, *kernel, seed=seed + 1) / 2
    expected = delta_over_patches(weight, x, tau, competition, groups, **geometry)
    delta = soft_hebbian_delta(weight, x, groups=groups, tau=tau, competition=competition, **geometry)
    assert_close(delta, expected, atol=1e-9, rtol=1e-9)
    single = soft_hebbian_delta(weight.float(), x.float(), groups=groups, tau=tau, **geometry)
    assert single.dtype == torch.float32
    if competition == "softmax":
        assert_close(single, expected.float(), atol=1e-5 * expected.abs().max().item(), rtol=1e-5)


def test_delta_of_a_linear_layer_and_of_one_and_three_dimensions() -> None:
    x, weight = randn(5, 7, 6), randn(4, 6, seed=1) / 2
    expected = delta_over_patches(weight[:, :, None, None], x.flatten(0, 1)[:, :, None, None], 1.0, "softmax", 1)
    assert_close(soft_hebbian_delta(weight, x), expected[:, :, 0, 0])

    x, weight = randn(3, 2, 9), randn(4, 2, 3, seed=1) / 2
    expected = delta_over_patches(weight[:, :, None], x[:, :, None], 1.0, "softmax", 1, stride=(1, 2))
    assert_close(soft_hebbian_delta(weight, x, stride=2), expected[:, :, 0])

    x, weight = randn(3, 2, 1, 6, 7), randn(4, 2, 1, 3, 2, seed=1) / 2
    expected = delta_over_patches(weight[:, :, 0], x[:, :, 0], 1.0, "softmax", 1)
    assert_close(soft_hebbian_delta(weight, x), expected[:, :, None])


def test_delta_with_padding_by_name_and_mean_over_locations() -> None:
    x, weight = randn(3, 2, 8, 9), randn(4, 2, 3, 2, seed=1) / 2
    padded = functional.pad(x, (0, 1, 1, 1))
    expected = delta_over_patches(weight, padded, 1.0, "softmax", 1)
    assert_close(soft_hebbian_delta(weight, x, padding="same"), expected)
    assert_close(soft_hebbian_delta(weight, x, padding="same", reduction="mean"), expected / (3 * 8 * 9))
    assert_close(soft_hebbian_delta(weight, padded, padding="valid"), expected)


def test_k_winners_interpolate_between_hard_and_soft() -> None:
    x, weight = randn(3, 2, 6, 6), randn(4, 2, 3, 3, seed=1) / 2
    delta = lambda competition, winners=None: soft_hebbian_delta(weight, x, competition=competition, winners=winners)  # noqa: E731
    assert_close(delta("kwta", 1), delta("hard"))
    assert_close(delta("kwta", 4), delta("softmax"))
    assert not torch.allclose(delta("kwta", 2), delta("softmax"))


def test_at_equilibrium_filters_have_unit_length_and_are_their_own_posterior_means() -> None:
    x, weight = randn(40, 1, 6, 6).abs(), randn(3, 1, 2, 2, seed=1) / 4
    for _ in range(4000):
        weight = weight + 0.1 * soft_hebbian_delta(weight, x, tau=0.5, reduction="mean")
    assert_close(weight.flatten(1).norm(dim=1), torch.ones(3, dtype=torch.float64), atol=1e-6, rtol=0)
    patches = functional.unfold(x, 2)
    drive = torch.einsum("kd,bdp->bkp", weight.flatten(1), patches)
    activity = (drive / 0.5).softmax(1)
    mean = torch.einsum("bkp,bdp->kd", activity, patches) / (activity * drive).sum((0, 2))[:, None]
    assert_close(weight.flatten(1), mean, atol=1e-6, rtol=0)


def test_free_energy_is_that_of_the_mixture_written_out() -> None:
    x, weight = randn(2, 2, 4, 4), randn(3, 2, 3, 3, seed=1)
    energies = []
    for patch in functional.unfold(x, 3).movedim(1, -1).flatten(0, 1):
        drives = [float(patch @ row) for row in weight.flatten(1)]
        total = sum(math.exp(u / 0.8) for u in drives)
        activity = [math.exp(u / 0.8) / total for u in drives]
        log_joint = [u / float(row.norm()) / 0.8 for u, row in zip(drives, weight, strict=True)]
        energies.append(sum(y * (math.log(y) - p) for y, p in zip(activity, log_joint, strict=True)))
    assert soft_hebbian_free_energy(weight, x, tau=0.8).item() == pytest.approx(np.mean(energies), rel=1e-9)

    unit = weight / weight.flatten(1).norm(dim=1)[:, None, None, None]
    evidence = (functional.conv2d(x, unit) / 0.8).logsumexp(1).mean()
    assert_close(soft_hebbian_free_energy(unit, x, tau=0.8), -evidence)
    assert_close(soft_hebbian_free_energy(3 * unit, x, tau=1e-3), soft_hebbian_free_energy(unit, x, tau=1e-3))


@pytest.mark.parametrize("preserve_norm", [True, False])
def test_free_energy_falls_under_small_steps_and_not_under_their_reverse(preserve_norm: bool) -> None:
    falls = {1: [], -1: []}
    for seed, sign in itertools.product(range(20), falls):
        x = torch.rand(8, 1, 10, 10, generator=torch.Generator().manual_seed(seed))
        layer = nn.Conv2d(1, 6, 3)
        with torch.no_grad():
            layer.weight.copy_(functional.normalize(randn(6, 9, seed=seed)).view(6, 1, 3, 3))
        rule = SoftHebb(layer, lr=1e-3, preserve_norm=preserve_norm)
        rule.lr *= sign
        before = soft_hebbian_free_energy(layer.weight, x)
        assert rule.step(x)
        falls[sign].append((soft_hebbian_free_energy(layer.weight, x) < before).item())
    assert np.mean(falls[1]) > 0.9
    assert np.mean(falls[-1]) < 0.1


def test_step_sizes_follow_the_normalisation() -> None:
    x = randn(4, 1, 8, 8).abs()
    changes = {}
    for normalize in ("max", "mean", "none"):
        layer = nn.Conv2d(1, 4, 3).double()
        with torch.no_grad():
            layer.weight.copy_(randn(4, 1, 3, 3, seed=1) / 3)
        before = layer.weight.detach().clone()
        SoftHebb(layer, lr=1e-3, normalize=normalize, preserve_norm=False).step(x)
        changes[normalize] = layer.weight.detach() - before
    full = soft_hebbian_delta(before, x)
    assert_close(changes["max"], 1e-3 * full / full.abs().max())
    assert changes["max"].abs().max().item() == pytest.approx(1e-3)
    assert_close(changes["mean"], 1e-3 * full / (4 * 6 * 6))
    assert_close(changes["none"], 1e-3 * full)


def test_lengths_are_kept_unless_batch_normalisation_follows() -> None:
    x = torch.rand(8, 1, 12, 12)
    followed = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    bare = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.BatchNorm2d(4))
    for model, kept in ((followed, False), (bare, True)):
        rule = SoftHebb(model[0], lr=1e-2, within=model)
        before = model[0].weight.detach().flatten(1).norm(dim=1)
        weight = model[0].weight.detach().clone()
        rule.step(x)
        assert rule.preserve_norm is kept
        assert torch.allclose(model[0].weight.flatten(1).norm(dim=1), before, atol=1e-6) is kept
        assert not torch.equal(model[0].weight, weight)
    assert SoftHebb(followed[0]).preserve_norm


def test_the_layer_s_own_padding_is_what_the_filters_see() -> None:
    x = randn(3, 2, 8, 8)
    for mode, padding in (("reflect", 2), ("circular", "same"), ("zeros", "same")):
        layer = nn.Conv2d(2, 4, 3, padding=padding, padding_mode=mode).double()
        amount = 1 if padding == "same" else padding
        padded = functional.pad(x, [amount] * 4, mode="constant" if mode == "zeros" else mode)
        expected = delta_over_patches(layer.weight.detach(), padded, 1.0, "softmax", 1)
        assert_close(SoftHebb(layer, normalize="none").delta(x), expected)


def test_patches_are_never_laid_out() -> None:
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            result = operator(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple) else (result,):
                self.elements = max(self.elements, tensor.numel() if isinstance(tensor, Tensor) else 0)
            return result

    x, weight = torch.rand(2, 3, 64, 64), torch.randn(8, 3, 7, 7) / 10
    with Largest() as largest:
        soft_hebbian_delta(weight, x, stride=2, padding=3)
    drive, patches = 2 * 8 * 32 * 32, 2 * 32 * 32 * 3 * 49
    assert largest.elements == drive < patches / 10


def test_channel_affine_starts_as_the_identity() -> None:
    z = torch.randn(4, 3, 5, 5)
    affine = ChannelAffine(3)
    assert torch.equal(affine(z), z)
    with torch.no_grad():
        affine.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        affine.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
    assert_close(affine(z)[:, 2], 3 * z[:, 2] - 1)
    check_mechanism(affine, z, bad_inputs={"wrong channels": (torch.randn(4, 2, 5, 5),)})
    last = ChannelAffine(3, dim=-1)
    check_mechanism(last, torch.randn(4, 7, 3))


# --- NHL and its baselines ------------------------------------------------------------------------------------------


def forward_by_hand(network: nn.Sequential, first: Tensor, gains: list[Tensor], images: Tensor) -> Tensor:
    """The classifier with batch statistics, written out."""

    def normalised(z: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        mean = z.mean((0, 2, 3), keepdim=True)
        variance = (z - mean).square().mean((0, 2, 3), keepdim=True)
        return (z - mean) / (variance + 1e-5).sqrt() * gain.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)

    z = functional.conv2d(images, first, network[0].bias.detach())
    z = functional.max_pool2d(normalised(z, gains[0], gains[1]).relu(), 2)
    z = functional.conv2d(z, network[4].weight.detach(), network[4].bias.detach())
    z = normalised(z, gains[2], gains[3]).relu().flatten(1)
    return z @ network[8].weight.detach().T + network[8].bias.detach()


def nhl_by_hand(lr_hebb: float, lr_mod: float) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Logits before and after each step, and the last first-layer weight, with Adam written out."""
    network = classifier()
    first = network[0].weight.detach().clone()
    gains = [network[i].__getattr__(name).detach().clone() for i in (1, 5) for name in ("weight", "bias")]
    first_moments, second_moments = [[torch.zeros_like(gain) for gain in gains] for _ in range(2)]
    logits_before, logits_after = [], []
    for step, images in enumerate(batches(), start=1):
        delta = delta_over_patches(first, images, 1.0, "softmax", 1)
        first = first + lr_hebb * delta / delta.abs().max()
        free = [gain.requires_grad_() for gain in gains]
        logits = forward_by_hand(network, first, free, images)
        p = logits.softmax(1)
        gradients = torch.autograd.grad(-(p * p.log()).sum(1).mean(), free)
        gains = []
        for i, gradient in enumerate(gradients):
            first_moments[i] = 0.9 * first_moments[i] + 0.1 * gradient
            second_moments[i] = 0.999 * second_moments[i] + 0.001 * gradient**2
            corrected = first_moments[i] / (1 - 0.9**step)
            scale = (second_moments[i] / (1 - 0.999**step)).sqrt() + 1e-8
            gains.append((free[i] - lr_mod * corrected / scale).detach())
        logits_before.append(logits.detach())
        logits_after.append(forward_by_hand(network, first, gains, images))
    return logits_before, logits_after, first


@pytest.mark.parametrize("lr_hebb", [0.0, 5e-3])
def test_nhl_does_the_steps_written_out_in_their_order(lr_hebb: float) -> None:
    before, after, first = nhl_by_hand(lr_hebb, lr_mod=1e-2)
    for predict, expected in (("before", before), ("after", after)):
        adapter = NHL(classifier(), lr_hebb=lr_hebb, lr_mod=1e-2, predict=predict)
        for images, logits in zip(batches(), expected, strict=True):
            assert_close(adapter(images), logits, atol=1e-7, rtol=1e-7)
        assert_close(adapter.model[0].weight.detach(), first, atol=1e-9, rtol=0)
    assert max((a - b).abs().max() for a, b in zip(before, after, strict=True)) > 1e-3


def test_tent_gives_the_logits_of_the_authors_code() -> None:
    """The numbers come from tent.py of github.com/DequanWang/tent at commit e9e926a, run once on `digit_like`.

    `configure_model`, `collect_params` and `Tent` of that file, with Adam at 1e-2, betas (0.9, 0.999), no weight decay
    and one step a batch, in float64; the logits that it returned for each of ten batches are in the file, rounded to
    nine digits.
    """
    recorded = json.loads((Path(__file__).parent / "data" / "official_tent.json").read_text())["logits"]
    adapter = Tent(classifier(), lr_mod=1e-2, predict="before")
    for images, logits in zip(batches(), recorded, strict=True):
        assert_close(adapter(images), torch.tensor(logits, dtype=torch.float64), atol=1e-7, rtol=0)
    by_hand, _, _ = nhl_by_hand(0.0, lr_mod=1e-2)
    assert_close(by_hand[-1], torch.tensor(recorded[-1], dtype=torch.float64), atol=1e-7, rtol=0)


def test_ablations_are_nhl_with_a_part_switched_off() -> None:
    def logits(adapter: nn.Module) -> Tensor:
        return torch.stack([adapter(images) for images in batches()])

    nhl = logits(NHL(classifier(), lr_hebb=5e-3, lr_mod=1e-2))
    assert_close(logits(NHL(classifier(), lr_hebb=0.0, lr_mod=1e-2)), logits(Tent(classifier(), lr_mod=1e-2)))
    assert_close(logits(NHL(classifier(), lr_hebb=5e-3, lr_mod=0.0)), logits(HebbOnly(classifier(), lr_hebb=5e-3)))
    assert_close(logits(NHL(classifier(), lr_hebb=0.0, lr_mod=0.0)), logits(BatchNormAdapt(classifier())))
    hard = logits(HardNHL(classifier(), lr_hebb=5e-3, lr_mod=1e-2))
    assert_close(hard, logits(NHL(classifier(), lr_hebb=5e-3, lr_mod=1e-2, competition="kwta", winners=1)))
    others = [logits(make(classifier(), lr_mod=1e-2)) for make in (Tent, PseudoLabel)]
    others += [hard, logits(HebbOnly(classifier(), lr_hebb=5e-3)), logits(SourceOnly(classifier()))]
    for one, other in itertools.combinations([nhl, *others], 2):
        assert (one - other).abs().max() > 1e-4


def test_source_only_is_the_network_in_evaluation_and_batch_norm_adapt_the_one_in_training() -> None:
    images = batches()[0]
    assert torch.equal(SourceOnly(classifier())(images), classifier().eval()(images))
    assert_close(BatchNormAdapt(classifier())(images), classifier().train()(images).detach())


def test_pseudo_labels_move_the_gains_down_their_cross_entropy() -> None:
    network, images = classifier(), batches()[0]
    adapter = PseudoLabel(network, lr_mod=1e-3, optimizer=torch.optim.SGD)
    adapter(images)
    network.train()
    logits = network(images)
    functional.cross_entropy(logits, logits.argmax(1)).backward()
    for index in (1, 5):
        for name in ("weight", "bias"):
            parameter = getattr(network[index], name)
            expected = parameter.detach() - 1e-3 * parameter.grad
            assert_close(getattr(adapter.model[index], name).detach(), expected)


def test_entropy_reaches_the_gains_alone() -> None:
    adapter = NHL(classifier(), lr_hebb=0.0, lr_mod=1e-2)
    before = snapshot(adapter)
    adapter(batches()[0])
    gains = {f"model.{i}.{name}" for i in (1, 5) for name in ("weight", "bias")}
    assert {name for name, tensor in adapter.state_dict().items() if not torch.equal(tensor, before[name])} == gains
    assert {name for name, parameter in adapter.named_parameters() if parameter.requires_grad} == gains
    assert adapter.model[0].weight.grad is None
    assert set(adapter.adapted_parameters()) == gains | {"model.0.weight"}


@pytest.mark.parametrize("make", LEARNERS)
def test_reset_forgets_everything(make) -> None:
    adapter = make(classifier())
    before = snapshot(adapter)
    first = [adapter(images) for images in batches()]
    assert not same(snapshot(adapter), before)
    adapter.reset()
    assert same(snapshot(adapter), before)
    assert all(torch.equal(adapter(images), logits) for images, logits in zip(batches(), first, strict=True))


@pytest.mark.parametrize("make", LEARNERS)
def test_episodic_adapters_know_nothing_of_earlier_batches(make) -> None:
    adapter = make(classifier(), episodic=True)
    forward = [adapter(images) for images in batches(4)]
    backward = [adapter(images) for images in reversed(batches(4))][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    continual = make(classifier())
    assert not torch.equal([continual(images) for images in batches(4)][-1], forward[-1])


@pytest.mark.parametrize("make", ADAPTERS)
def test_the_caller_s_model_is_not_touched_and_running_statistics_do_not_move(make) -> None:
    model = classifier()
    before, modes = snapshot(model), [module.training for module in model.modules()]
    adapter = make(model)
    statistics = {name: tensor.clone() for name, tensor in adapter.named_buffers()}
    for images in batches():
        adapter(images)
    assert same(snapshot(model), before)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert same(dict(adapter.named_buffers()), statistics)
    check_mechanism(make(model.float()), batches()[0].float(), batch_dim=None, gradients=False, stateful=True)


def test_in_place_adaptation_changes_the_model_itself_and_reset_undoes_it() -> None:
    model = classifier()
    before = snapshot(model)
    adapter = NHL(model, inplace=True)
    assert adapter.model is model
    adapter(batches()[0])
    assert not torch.equal(model[0].weight, before["0.weight"])
    adapter.reset()
    assert same(snapshot(model), before)


def test_without_adaptation_nothing_changes_and_the_learnt_state_predicts() -> None:
    adapter = NHL(classifier(), lr_mod=1e-2)
    after = adapter(batches()[0])
    learnt = snapshot(adapter)
    with adapter.no_adapt() as frozen:
        assert_close(frozen(batches()[0]), after)
        with torch.inference_mode():
            frozen(batches()[1])
    assert same(snapshot(adapter), learnt)
    adapter(batches()[1])
    assert not same(snapshot(adapter), learnt)


def test_training_and_evaluation_mode_make_no_difference() -> None:
    model = classifier()
    model.insert(8, nn.Dropout(0.9))
    expected = Tent(classifier())(batches()[0])
    assert torch.equal(Tent(model)(batches()[0]), expected)
    assert torch.equal(Tent(model).train()(batches()[0]), expected)
    assert torch.equal(Tent(model).eval()(batches()[0]), expected)


def test_several_steps_are_several_passes_over_the_batch() -> None:
    twice, once = NHL(classifier(), steps=2), NHL(classifier())
    images = batches()[0]
    once(images)
    assert torch.equal(twice(images), once(images))


def test_a_copy_adapts_on_its_own() -> None:
    adapter = NHL(classifier())
    adapter(batches()[0])
    other = copy.deepcopy(adapter)
    before = snapshot(adapter)
    expected = other(batches()[1])
    assert same(snapshot(adapter), before)
    assert torch.equal(adapter(batches()[1]), expected)


def test_modulators() -> None:
    first = NHL(classifier(), modulator="first")
    assert set(first.adapted_parameters()) == {"model.0.weight", "model.1.weight", "model.1.bias"}
    second = NHL(classifier(), hebb_layer="4", modulator="first")
    assert set(second.adapted_parameters()) == {"model.4.weight", "model.5.weight", "model.5.bias"}

    inserted = NHL(classifier(), modulator="inserted", lr_hebb=0.0, lr_mod=1e-2, predict="before")
    gains = {"inserted.weight", "inserted.bias"}
    assert set(inserted.adapted_parameters()) == gains | {"model.0.weight"}
    images = batches()[0]
    assert torch.equal(inserted(images), classifier()(images))
    assert (inserted.inserted.weight != 1).any()
    model, z = inserted.model, inserted.model[0](images)
    modulated = z * inserted.inserted.weight.view(1, -1, 1, 1) + inserted.inserted.bias.view(1, -1, 1, 1)
    with inserted.no_adapt():
        assert_close(inserted(images), model[1:](modulated).detach())

    both = NHL(classifier(), modulator=("inserted", "bn"))
    assert gains < set(both.adapted_parameters())
    assert len(both.adapted_parameters()) == 7


def test_the_second_layer_can_learn_and_sees_its_own_input() -> None:
    model, images = classifier(), batches()[0]
    adapter = HebbOnly(model, model[4], lr_hebb=1e-3)
    adapter(images)
    inputs = BatchNormAdapt(model).model[:4](images).detach()
    delta = delta_over_patches(model[4].weight.detach(), inputs, 1.0, "softmax", 1)
    assert_close(adapter.model[4].weight.detach(), model[4].weight.detach() + 1e-3 * delta / delta.abs().max())


def test_a_layer_that_is_used_twice_learns_once_a_pass() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(self.conv(x))).mean((2, 3)))

    x = torch.rand(4, 2, 6, 6)
    adapter = HebbOnly(Twice(), lr_hebb=1e-2, preserve_norm=False)
    weight = adapter.model.conv.weight.detach().clone()
    adapter(x)
    change = soft_hebbian_delta(weight, x, padding=1)
    assert_close(adapter.model.conv.weight.detach(), weight + 1e-2 * change / change.abs().max())


def test_entropy_threshold_and_diversity() -> None:
    images = batches()[0]
    logits = BatchNormAdapt(classifier())(images)
    entropies = -(logits.softmax(1) * logits.log_softmax(1)).sum(1) / math.log(5)
    threshold = entropies.sort().values[3:5].mean().item()
    kept = entropies <= threshold

    def stepped(**options: float) -> Tent:
        adapter = Tent(classifier(), lr_mod=1e-3, optimizer=torch.optim.SGD, **options)
        adapter(images)
        return adapter

    def expected(loss) -> Tensor:
        network = classifier().train()
        loss(network(images)).backward()
        return network[5].weight.detach() - 1e-3 * network[5].weight.grad

    def mean_entropy(logits: Tensor) -> Tensor:
        return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()

    def with_diversity(logits: Tensor) -> Tensor:
        mean = logits.softmax(1).mean(0)
        return mean_entropy(logits) + 0.5 * (mean * mean.log()).sum()

    def of_the_certain(logits: Tensor) -> Tensor:
        return mean_entropy(logits[kept])

    assert 0 < kept.sum() < len(kept)
    assert_close(stepped(entropy_threshold=threshold).model[5].weight.detach(), expected(of_the_certain))
    assert_close(stepped(diversity=0.5).model[5].weight.detach(), expected(with_diversity))

    adapter = Tent(classifier(), lr_mod=1e-3)
    adapter(images)
    moved = snapshot(adapter)
    adapter.objective = Tent(classifier(), entropy_threshold=1e-6).objective
    adapter(images)
    assert same(snapshot(adapter), moved), "without a sample that is certain enough, Adam's momentum must rest too"


# --- models of other libraries --------------------------------------------------------------------------------------


def test_hugging_face_classifiers_keep_their_output_type() -> None:
    import transformers

    resnet = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=4)
    )
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    )
    images = torch.rand(4, 3, 32, 32)
    for model, layer, modulator in ((resnet, "convolution", "bn"), (vit, "projection", ("inserted", "bn"))):
        adapter = NHL(model, modulator=modulator, lr_mod=1e-2)
        assert any(name.endswith(f"{layer}.weight") for name in adapter.adapted_parameters())
        before = snapshot(adapter)
        for output in (adapter(pixel_values=images), adapter(images)):
            assert type(output) is type(model(images))
            assert output.logits.shape == (4, model.config.num_labels)
            assert not output.logits.requires_grad
        changed = {name for name, tensor in adapter.state_dict().items() if not torch.equal(tensor, before[name])}
        assert changed == set(adapter.adapted_parameters())
        assert adapter.hebb.preserve_norm is (model is vit)
        run = evaluate_online(adapter, [({"pixel_values": images}, torch.zeros(4, dtype=torch.int64))])
        assert 0 <= run.error <= 1


# --- measuring ------------------------------------------------------------------------------------------------------


def test_online_error_counts_samples_and_keeps_the_adapter_s_state() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[0.0, math.log(3.0)]]).expand(len(images), 2)

    stream = [(torch.zeros(4, 1), torch.tensor([1, 1, 0, 1])), (torch.zeros(1, 1), torch.tensor([0]))]
    run = evaluate_online(Constant(), stream)
    assert run.errors == [0.25, 1.0]
    assert run.sizes == [4, 1]
    assert run.error == pytest.approx(2 / 5)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert run.entropies == pytest.approx([entropy, entropy])
    assert all(seconds >= 0 for seconds in run.seconds)
    assert run.milliseconds_per_sample == pytest.approx(1e3 * sum(run.seconds) / 5)
    assert math.isnan(evaluate_online(Constant(), []).error)
    with pytest.raises(ValueError, match="4 predictions and 3 labels"):
        evaluate_online(Constant(), [(torch.zeros(4, 1), torch.zeros(3))])


def test_adaptation_repairs_a_shift_of_the_input() -> None:
    """A classifier of bright against dark blobs meets inputs of a tenth of the contrast on a bright ground."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (600,), generator=generator)
    clean = torch.randn(600, 1, 8, 8, generator=generator) + (2.0 * labels - 1).view(-1, 1, 1, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-2)
    for _ in range(60):
        optimizer.zero_grad()
        functional.cross_entropy(network(clean[:300]), labels[:300]).backward()
        optimizer.step()
    stream = [
        (5 + 0.1 * images, target) for images, target in zip(clean[300:].split(50), labels[300:].split(50), strict=True)
    ]
    errors = {make: evaluate_online(make(network), stream).error for make in (SourceOnly, BatchNormAdapt, NHL)}
    assert errors[SourceOnly] > 0.3
    assert errors[BatchNormAdapt] < 0.1
    assert errors[NHL] < 0.1


# --- bad input ------------------------------------------------------------------------------------------------------


def without_norm() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))


def test_networks_that_cannot_adapt_are_refused() -> None:
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        NHL(classifier)
    with pytest.raises(ValueError, match="no convolution and no linear layer"):
        NHL(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    with pytest.raises(ValueError, match="Sequential has none; use NHL with modulator='inserted'"):
        NHL(without_norm())
    with pytest.raises(ValueError, match="modulator='inserted'"):
        Tent(without_norm())
    assert NHL(without_norm(), modulator="inserted").double()(batches()[0]).shape == (8, 5)
    with pytest.raises(ValueError, match="depthwise or single-channel"):
        NHL(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3)))
    with torch.inference_mode():
        frozen = classifier()
    with pytest.raises(ValueError, match=r"built under torch\.inference_mode"):
        NHL(frozen)
    with pytest.raises(ValueError, match="'inserted' stands behind the layer that learns"):
        OnlineAdapter(classifier(), modulator=("inserted",))
    parametrised = classifier()
    nn.utils.parametrizations.weight_norm(parametrised[0])
    with pytest.raises(ValueError, match="remove_parametrizations"):
        NHL(parametrised)


def test_a_network_whose_first_layer_is_registered_late_asks_for_its_name() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = nn.Conv2d(4, 4, 3), nn.Conv2d(1, 4, 3)
            self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.second(self.first(x))).mean((2, 3)))

    images = torch.rand(4, 1, 12, 12)
    with pytest.raises(ValueError, match=r"layer 'first' runs before .* pass hebb_layer='first'"):
        NHL(Late())(images)
    adapter = NHL(Late(), hebb_layer="first")
    adapter(images)
    assert "model.first.weight" in adapter.adapted_parameters()


@pytest.mark.parametrize(
    ("settings_", "error", "message"),
    [
        ({"hebb_layer": "9"}, ValueError, "hebb_layer must be a layer of the model, such as 0, 4, 8; got '9'"),
        ({"hebb_layer": nn.Conv2d(1, 2, 3)}, ValueError, "hebb_layer must be a layer of the model"),
        ({"hebb_layer": "1"}, TypeError, "one of Conv1d, Conv2d, Conv3d, Linear, got BatchNorm2d"),
        ({"modulator": "gain"}, ValueError, "modulator must be one or several of bn, first, inserted, got 'gain'"),
        ({"modulator": ()}, ValueError, "modulator must be one or several"),
        ({"lr_hebb": -1.0}, ValueError, "lr must be a number of at least 0, got -1.0"),
        ({"lr_mod": math.nan}, ValueError, "lr_mod must be a number of at least 0, got nan"),
        ({"tau": 0.0}, ValueError, "tau must be a positive number, got 0.0"),
        ({"steps": 0}, ValueError, "steps must be an integer of at least 1, got 0"),
        ({"predict": "never"}, ValueError, "predict must be 'before' or 'after', got 'never'"),
        ({"competition": "soft"}, ValueError, "competition must be one of softmax, hard, kwta, got 'soft'"),
        ({"competition": "kwta"}, ValueError, "winners belongs to competition='kwta'"),
        ({"winners": 2}, ValueError, "winners belongs to competition='kwta'"),
        ({"normalize": "l2"}, ValueError, "normalize must be one of max, mean, none, got 'l2'"),
        ({"preserve_norm": "never"}, ValueError, "preserve_norm must be True, False or 'auto'"),
        ({"entropy_threshold": 1.5}, ValueError, r"entropy_threshold .* must be in \(0, 1\], got 1.5"),
        ({"diversity": -1.0}, ValueError, "diversity must be a number of at least 0, got -1.0"),
    ],
)
def test_bad_settings_are_refused(settings_, error, message) -> None:
    with pytest.raises(error, match=message):
        NHL(classifier(), **settings_)


def test_bad_batches_are_refused() -> None:
    adapter, images = NHL(classifier()), batches()[0]
    before = snapshot(adapter)
    with pytest.raises(TypeError, match=r"images must be floating point, got torch\.uint8"):
        adapter((255 * images).to(torch.uint8))
    with pytest.raises(TypeError, match="pass the batch of images as a tensor"):
        adapter([images])
    with pytest.raises(ValueError, match=r"variance over a batch of one .* 8 or more, .*'inserted'"):
        adapter(images[:1])
    with (
        pytest.raises(RuntimeError, match=r"modulator needs gradients, which torch\.inference_mode"),
        torch.inference_mode(),
    ):
        adapter(images)
    with torch.inference_mode():
        made_inside = images.clone()
    with pytest.raises(RuntimeError, match="images made outside of it"):
        adapter(made_inside)
    assert same(snapshot(adapter), before)
    with torch.no_grad():
        assert torch.equal(adapter(images), NHL(classifier())(images))
    local = HebbOnly(classifier())
    with torch.inference_mode():
        inferred = local(images)
    assert torch.equal(inferred, HebbOnly(classifier())(images))
    assert NHL(classifier(), modulator="inserted")(images[:1]).shape == (1, 5)


def test_models_that_return_no_logits_are_refused_and_hooks_do_not_stay() -> None:
    adapter = NHL(classifier()[:6], modulator=("inserted", "bn"))
    with pytest.raises(TypeError, match=r"must return logits \(batch, classes\), .* got shape \(8, 8, 3, 3\)"):
        adapter(batches()[0])
    with pytest.raises(ValueError, match="1 channels, got shape"):
        adapter(torch.rand(4, 3, 12, 12, dtype=torch.float64))
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in adapter.modules()]
    assert not any(hooks)


@pytest.mark.parametrize("make", LEARNERS)
def test_batches_that_are_not_finite_leave_nothing_behind(make) -> None:
    adapter, images = make(classifier()), batches()[0]
    poisoned = images.clone()
    poisoned[0, 0, 5, 5] = math.nan
    adapter(images)
    before = snapshot(adapter)
    with pytest.warns(RuntimeWarning, match="nothing was learnt"):
        adapter(poisoned)
    assert same(snapshot(adapter), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapter(poisoned)
        assert adapter.skipped == 2
        assert adapter(images).isfinite().all()
        adapter(poisoned)
        adapter(poisoned)
    with pytest.raises(FloatingPointError, match="3 batches in a row"):
        adapter(poisoned)
    adapter.reset()
    assert adapter.skipped == 0

    episodic = make(classifier(), episodic=True)
    with pytest.warns(RuntimeWarning, match="nothing was learnt"):
        episodic(poisoned)
    episodic(poisoned)
    with pytest.raises(FloatingPointError, match="3 batches in a row"):
        episodic(poisoned)


def test_a_large_gain_that_overflows_does_not_take_the_filters_along() -> None:
    adapter = NHL(classifier(), lr_hebb=1e-2)
    with torch.no_grad():
        adapter.model[8].bias.fill_(math.inf)
    before = snapshot(adapter)
    with pytest.warns(RuntimeWarning, match="not finite"):
        adapter(batches()[0])
    assert same(snapshot(adapter), before)


def test_the_rule_refuses_inputs_that_do_not_fit() -> None:
    weight = torch.randn(4, 2, 3, 3)
    with pytest.raises(ValueError, match="x must have 4 dimensions and 2 channels"):
        soft_hebbian_delta(weight, torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="x must end in 5 features"):
        soft_hebbian_delta(torch.randn(3, 5), torch.rand(2, 4))
    with pytest.raises(TypeError, match="floating point"):
        soft_hebbian_delta(weight, torch.ones(1, 2, 8, 8, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 to 5 dimensions"):
        soft_hebbian_delta(torch.randn(4), torch.rand(4))
    with pytest.raises(ValueError, match="groups must divide the 4 output channels"):
        soft_hebbian_delta(weight, torch.rand(1, 6, 8, 8), groups=3)
    with pytest.raises(ValueError, match="padding must be numbers"):
        soft_hebbian_delta(weight, torch.rand(1, 2, 8, 8), padding="half")
    with pytest.raises(ValueError, match="reduction must be"):
        soft_hebbian_delta(weight, torch.rand(1, 2, 8, 8), reduction="max")
    with pytest.raises(TypeError, match=r"layer must be one of Conv1d, .* got ConvTranspose2d"):
        SoftHebb(nn.ConvTranspose2d(2, 4, 3))
    with pytest.raises(ValueError, match="num_channels must be at least 1"):
        ChannelAffine(0)
