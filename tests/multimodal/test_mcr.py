"""The regulariser and its method: terms that add up, modules held still, diagnoses in closed form, refusals by name."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from interplay.multimodal.fusion import ConcatenationFusion, FusionNet, LinearFusion
from interplay.multimodal.mcr import (
    MCR,
    CompetitionRegularizer,
    ConditionalBottleneck,
    error_routing,
    influence_game,
    influence_report,
    latent_permutations,
    supervised_contrastive,
)
from interplay.multimodal.unimodal import MultiLossTraining
from interplay.primitives.randomness import generator_of, initialised_from
from interplay.testing import check_mechanism, check_same_seed

CLASSES, WIDTH, SAMPLES = 3, 4, 12
TARGET = torch.arange(SAMPLES) % CLASSES


def net(head: nn.Module | None = None, *, heads: bool = True) -> FusionNet:
    with initialised_from(generator_of(1)):
        encoders = {name: nn.Sequential(nn.Linear(size, WIDTH), nn.Tanh()) for name, size in (("a", 5), ("b", 2))}
        unimodal = {name: nn.Linear(WIDTH, CLASSES) for name in encoders}
        return FusionNet(encoders, head or LinearFusion([WIDTH, WIDTH], CLASSES), unimodal if heads else None)


def batch(samples: int = SAMPLES) -> dict[str, torch.Tensor]:
    generator = generator_of(2)
    return {"a": torch.randn(samples, 5, generator=generator), "b": torch.randn(samples, 2, generator=generator)}


class ByPosition(nn.Module):
    """The loss as a module of two tensors, for the battery."""

    def __init__(self, **options):
        super().__init__()
        self.method = MCR(net(), influence_weight=1.0, selection="rsi", **options)

    def forward(self, a, b):
        return (
            self.method.loss({"a": a, "b": b}, TARGET[: len(a)])
            if len(a) > 1
            else self.method.logits({"a": a, "b": b}).logsumexp(1).mean()
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 0.5},
        {"contrastive_weight": 0.3},
        {"bottleneck_weight": 0.1, "bottleneck": ConditionalBottleneck(CLASSES, [WIDTH, WIDTH])},
        {"regime": "reference"},
    ],
    ids=lambda options: " ".join(options) or "default",
)
def test_the_method_passes_the_battery(options):
    check_mechanism(ByPosition(**options), *batch().values())


def test_the_total_is_the_weighted_sum_of_the_terms():
    bottleneck = ConditionalBottleneck(CLASSES, [WIDTH, WIDTH])
    weights = {"influence_weight": 0.7, "contrastive_weight": 0.3, "bottleneck_weight": 0.2, "unimodal_weight": 0.5}
    method = MCR(net(), k=1.0, bottleneck=bottleneck, generator=generator_of(3), **weights)
    total = method.loss(batch(), TARGET)
    terms, model = method.last, method.net
    latents = model.encode(batch())
    ordered, logits = list(latents.values()), model(batch())
    entropy = nn.functional.cross_entropy
    torch.testing.assert_close(terms.task, entropy(logits, TARGET))
    unimodal = sum(entropy(each, TARGET) for each in model.unimodal_logits(latents).values())
    torch.testing.assert_close(terms.unimodal, unimodal)
    torch.testing.assert_close(terms.contrastive, supervised_contrastive(ordered, TARGET))
    pairs = latent_permutations(SAMPLES, 8, TARGET, "rsl", generator=generator_of(3))
    game = influence_game(model.head, ordered, pairs, k=1.0)
    torch.testing.assert_close(terms.influences, game.influences)
    expected = terms.task + 0.7 * game.loss + 0.3 * terms.contrastive + 0.2 * terms.bottleneck + 0.5 * unimodal
    torch.testing.assert_close(total, expected)
    names = {"total", "task", "unimodal", "contrastive", "bottleneck", "influence of a", "influence of b"}
    assert set(method.diagnostics()) == names


def test_without_the_game_it_is_multi_loss_training_and_without_heads_joint_training():
    plain = MCR(net(), influence_weight=0.0)
    torch.testing.assert_close(plain.loss(batch(), TARGET), MultiLossTraining(net()).loss(batch(), TARGET))
    assert plain.last.influences.isnan().all()
    bare = MCR(net(heads=False), influence_weight=0.0, unimodal_weight=0.0)
    expected = nn.functional.cross_entropy(bare.net(batch()), TARGET)
    torch.testing.assert_close(bare.loss(batch(), TARGET), expected)


def test_the_bottleneck_moves_encoders_and_itself_but_not_the_logits():
    bottleneck = ConditionalBottleneck(CLASSES, [3, 2], hidden=7)
    latents = [torch.randn(5, width, requires_grad=True) for width in (3, 2)]
    logits = torch.randn(5, CLASSES, requires_grad=True)
    loss = bottleneck(latents, logits)
    loss.backward()
    told = (logits @ bottleneck.reconstruct[0].weight.T).clamp(min=0) @ bottleneck.reconstruct[2].weight.T
    torch.testing.assert_close(loss, (torch.cat(latents, 1) - told).square().mean())
    assert logits.grad is None
    assert all(parameter.grad.abs().sum() > 0 for parameter in [*latents, *bottleneck.parameters()])


def test_contrastive_agrees_with_a_loop_over_pairs():
    generator = generator_of(4)
    latents = [torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    labels = [0, 1, 1, 0, 2]
    rows = [latent[i] / latent[i].norm() for latent in latents for i in range(5)]
    every = labels * 3
    losses = []
    for i, left in enumerate(rows):
        repelling = sum(math.exp(left @ rows[n] / 0.2) for n in range(15) if every[n] != every[i])
        for p, right in enumerate(rows):
            if p != i and every[p] == every[i]:
                pull = math.exp(left @ right / 0.2)
                losses.append(-math.log(pull / (pull + repelling)))
    assert supervised_contrastive(latents, torch.tensor(labels), 0.2).item() == pytest.approx(np.mean(losses))


def test_contrastive_of_one_label_has_nothing_to_tell_apart():
    latents = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    loss = supervised_contrastive(latents, torch.zeros(4, dtype=torch.long))
    loss.backward()
    assert loss == 0
    assert (latents[0].grad == 0).all()


def test_dropout_and_batch_statistics_of_the_head_stay_out_of_the_influence():
    layers = nn.Sequential(nn.BatchNorm1d(2 * WIDTH), nn.Dropout(0.5), nn.Linear(2 * WIDTH, CLASSES))
    method = MCR(net(ConcatenationFusion(layers)), influence_weight=1.0, generator=generator_of(5)).train()
    state = {name: value.clone() for name, value in layers.state_dict().items()}
    with torch.no_grad():
        ordered = list(method.net.encode(batch()).values())
        logits = method.net.head(ordered)
        once = {name: value.clone() for name, value in layers.state_dict().items()}
        found = method.regularizer(ordered, logits, TARGET, [logits, logits]).influences
    assert not torch.equal(once["0.running_mean"], state["0.running_mean"])
    assert all(torch.equal(value, once[name]) for name, value in layers.state_dict().items())
    assert all(part.training for part in layers.modules())
    layers.eval()
    pairs = latent_permutations(SAMPLES, 8, TARGET, "rsl", generator=generator_of(5))
    torch.testing.assert_close(found, influence_game(method.net.head, ordered, pairs).influences)


def test_a_step_against_the_others_lowers_their_influence():
    """What each strategy descends: the own loss, minus the other's, plus the other's."""
    latents = [torch.randn(40, WIDTH, generator=generator_of(6, side), dtype=torch.float64) for side in (0, 1)]
    with initialised_from(generator_of(6)):
        head = LinearFusion([WIDTH, WIDTH], CLASSES).double()
    pairs = latent_permutations(40, 8, selection="rsi", generator=generator_of(7))
    start = influence_game(head, latents, pairs).influences

    def after(k: float) -> torch.Tensor:
        first = latents[0].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(influence_game(head, [first, latents[1]], pairs, k=k).loss, first)
        return influence_game(head, [latents[0] - 0.3 * gradient, latents[1]], pairs).influences

    greedy, alone, together = after(-1.0), after(0.0), after(1.0)
    assert alone[0] > start[0]
    assert greedy[1] < alone[1] < together[1]
    assert together.sum() > start.sum()
    assert greedy[0] - greedy[1] > start[0] - start[1]


def test_permutations_come_from_the_generator():
    def loss(seed):
        return MCR(net(), influence_weight=1.0, k=1.0, generator=generator_of(seed)).loss(batch(), TARGET)

    check_same_seed(loss)
    one, other = (MCR(net(), k=1.0, generator=generator_of(seed)) for seed in (4, 5))
    one.loss(batch(), TARGET)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one.loss(batch(), TARGET), other.loss(batch(), TARGET), rtol=0, atol=0)


def test_a_regression_needs_no_labels():
    method = MCR(net(), selection="rsi", contrastive_weight=0.1, criterion=lambda y, t: (y[:, 0] - t).square().mean())
    assert method.loss(batch(), torch.linspace(0, 1, SAMPLES)).isfinite()
    with pytest.raises(ValueError, match="give a target"):
        MCR(net(), criterion=lambda y, t: (y[:, 0] - t).square().mean()).loss(batch(), torch.linspace(0, 1, SAMPLES))


class TestReports:
    def test_influence_report_covers_the_exact_influence_and_leaves_the_model_as_it_was(self):
        model = net().train()
        inputs, target = batch(600), torch.arange(600) % CLASSES
        loader = [
            ({name: values[i : i + 60] for name, values in inputs.items()}, target[i : i + 60])
            for i in range(0, 600, 60)
        ]
        report = influence_report(model, loader, permutations=4, generator=generator_of(1))
        assert model.training
        assert report.index.tolist() == ["a", "b"]
        pairs = latent_permutations(600, 1, target, "difflabel")
        with torch.no_grad():
            exact = influence_game(model.head, list(model.encode(inputs).values()), pairs).influences
        assert (report["low"] < exact.numpy()).all()
        assert (report["high"] > exact.numpy()).all()
        assert (report["high"] - report["low"] < 0.3 * report["influence"]).all()
        wide = influence_report(model, loader, permutations=4, confidence=0.999, generator=generator_of(1))
        assert (wide["high"] - wide["low"] > report["high"] - report["low"]).all()

    def test_influence_report_of_a_model_blind_to_one_modality(self):
        model = net()
        with torch.no_grad():
            model.head.readout.weight[:, WIDTH:] = 0
        report = influence_report(model, [(batch(), TARGET)])
        assert report.loc["b", "influence"] == pytest.approx(0, abs=1e-6)
        assert report.loc["a", "influence"] > 1e-3
        with pytest.raises(ValueError, match="no batch"):
            influence_report(model, [])

    def test_error_routing_counts_every_sample_once(self):
        target = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
        unimodal = {"a": torch.tensor([0, 0, 0, 1, 1, 0, 0, 0]), "b": torch.tensor([0, 0, 1, 0, 0, 1, 0, 0])}
        joined = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1])
        table = error_routing(unimodal, joined, target)
        assert table.index.tolist() == ["a + b", "a", "b", "none"]
        assert table["samples"].tolist() == [2, 2, 2, 2]
        assert table["accuracy"].tolist() == [0.5, 1.0, 0.0, 0.5]
        assert (table["accuracy"] * table["share"]).sum() == (joined == target).float().mean()
        three = error_routing({**unimodal, "c": target}, joined, target)
        assert len(three) == 8
        assert math.isnan(three.loc["none", "accuracy"])
        with pytest.raises(ValueError, match="'joined': \\(7,\\)"):
            error_routing(unimodal, joined[:7], target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"influence_weight": -0.1}, "influence_weight must be zero or more"),
        ({"contrastive_weight": math.nan}, "contrastive_weight must be zero or more"),
        ({"k": 2}, r"k must lie in \[-1, 1\]"),
        ({"bottleneck_weight": 0.1}, "give a ConditionalBottleneck"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MCR(net(), **options)


def test_bad_batches_are_refused():
    regularizer = CompetitionRegularizer(net().head)
    latents = list(net().encode(batch()).values())
    logits = torch.zeros(SAMPLES, CLASSES)
    with pytest.raises(ValueError, match="not finite"):
        regularizer(latents, logits * torch.inf, TARGET, [logits, logits])
    with pytest.raises(ValueError, match="give unimodal_logits"):
        regularizer(latents, logits, TARGET)
    with pytest.raises(ValueError, match="same samples"):
        regularizer([latents[0], latents[1][:5]], logits, TARGET, [logits, logits])
    with pytest.raises(ValueError, match="different labels in this batch of 12"):
        regularizer(latents, logits, TARGET * 0, [logits, logits])
    with pytest.raises(ValueError, match="batch of 1"):
        regularizer([z[:1] for z in latents], logits[:1], TARGET[:1], [logits[:1], logits[:1]])
    with pytest.raises(ValueError, match="unimodal_heads"):
        MCR(net(heads=False))
    with pytest.raises(ValueError, match="project them first"):
        supervised_contrastive([torch.zeros(3, 2), torch.zeros(3, 4)])
    with pytest.raises(ValueError, match="temperature"):
        supervised_contrastive(latents, TARGET, 0.0)
