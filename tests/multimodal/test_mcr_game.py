"""The game's gradients against finite differences and a slow reference, player by player; influence in closed form."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from interplay.multimodal.fusion import ConcatenationFusion, LinearFusion
from interplay.multimodal.mcr import (
    LatentPairs,
    influence_game,
    latent_permutations,
    permutation_influence,
    perturbed_logits,
)
from interplay.primitives.randomness import generator_of, initialised_from

SAMPLES, CLASSES, WIDTHS = 6, 3, (4, 2, 3)


def jsd(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """From probabilities, as in a textbook."""
    p, q = first.softmax(-1), second.softmax(-1)
    mean = (p + q) / 2
    return ((p * (p / mean).log()).sum(-1) + (q * (q / mean).log()).sum(-1)) / 2


def latents_of(modalities: int) -> list[torch.Tensor]:
    generator = generator_of(3, modalities)
    return [
        torch.randn(SAMPLES, width, generator=generator, dtype=torch.float64, requires_grad=True)
        for width in WIDTHS[:modalities]
    ]


def heads(modalities: int) -> dict[str, object]:
    """A linear head, a network that mixes modalities, and the same network hidden in a function."""
    with initialised_from(generator_of(4)):
        linear = LinearFusion(WIDTHS[:modalities], CLASSES).double()
        hidden = nn.Linear(sum(WIDTHS[:modalities]), 5)
        mixing = ConcatenationFusion(nn.Sequential(hidden, nn.Tanh(), nn.Linear(5, CLASSES))).double()
    return {"linear": linear, "mixing": mixing, "function": lambda latents: mixing(latents)}


def parameters_of(kind: str, modalities: int) -> tuple[object, list[nn.Parameter]]:
    made = heads(modalities)
    owner = made["mixing" if kind == "function" else kind]
    return made[kind] if kind != "function" else owner.__call__, list(owner.parameters())


def payoff(head, player: int, latents: list[torch.Tensor], fixed: list[torch.Tensor], pairs: LatentPairs, k: float):
    """T_i of the paper, sample by sample, where only the player's own latent is not held constant."""
    z = [
        latent if position == player else other
        for position, (latent, other) in enumerate(zip(latents, fixed, strict=True))
    ]
    total = 0.0
    for changed in range(len(z)):
        losses = []
        for row, source in zip(pairs.rows.tolist(), pairs.sources.tolist(), strict=True):
            taken = [part[source if position == changed else row][None] for position, part in enumerate(z)]
            losses.append(-jsd(head([part[row][None] for part in z]), head(taken))[0])
        total = total + (1.0 if changed == player else k) * torch.stack(losses).mean()
    return total


@pytest.mark.parametrize("kind", ["linear", "mixing", "function"])
@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("k", [-1.0, 0.0, 1.0, -0.5])
def test_every_player_follows_the_finite_differences_of_its_own_payoff(kind, modalities, k):
    head, parameters = parameters_of(kind, modalities)
    latents = latents_of(modalities)
    fixed = [latent.detach().clone() for latent in latents]
    pairs = latent_permutations(SAMPLES, 2, selection="rsi", generator=generator_of(5))
    game = influence_game(head, latents, pairs, k=k)
    gradients = torch.autograd.grad(game.loss, [*latents, *parameters], allow_unused=True, materialize_grads=True)

    def differences(tensor: torch.Tensor, value) -> torch.Tensor:
        flat, result = tensor.detach().view(-1), []
        for index in range(flat.numel()):
            before, step = flat[index].item(), 1e-5
            flat[index] = before + step
            above = value()
            flat[index] = before - step
            below = value()
            flat[index] = before
            result.append((above - below) / (2 * step))
        return torch.stack(result).view_as(tensor)

    with torch.no_grad():
        for player in range(modalities):
            expected = differences(
                latents[player], lambda player=player: payoff(head, player, latents, fixed, pairs, k)
            )
            torch.testing.assert_close(gradients[player], expected, rtol=1e-6, atol=1e-8)

        def everyone() -> torch.Tensor:
            return sum(payoff(head, player, latents, fixed, pairs, k) for player in range(modalities))

        torch.testing.assert_close(game.loss.detach(), everyone())
        for parameter, gradient in zip(parameters[:1], gradients[modalities:], strict=False):
            torch.testing.assert_close(gradient, differences(parameter, everyone), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["linear", "mixing", "function"])
@pytest.mark.parametrize("modalities", [2, 3])
def test_the_strategies_really_differ_and_one_of_them_is_the_summed_loss(kind, modalities):
    head, parameters = parameters_of(kind, modalities)
    latents = latents_of(modalities)
    pairs = latent_permutations(SAMPLES, 3, selection="rsi", generator=generator_of(6))
    by_k = {
        k: torch.autograd.grad(influence_game(head, latents, pairs, k=k).loss, [*latents, *parameters])
        for k in (-1, 0, 1)
    }
    summed = -permutation_influence(head, latents, pairs).mean(1).sum()
    torch.testing.assert_close(by_k[1][:modalities], torch.autograd.grad(summed, latents))
    for player in range(modalities):
        assert not torch.allclose(by_k[1][player], by_k[0][player])
        torch.testing.assert_close(by_k[0][player] * 2, by_k[1][player] + by_k[-1][player])
    if modalities == 2:
        assert all((gradient == 0).all() for gradient in by_k[-1][2:]), "two greedy players leave the head alone"


@pytest.mark.parametrize("kind", ["linear", "mixing"])
def test_perturbed_logits_are_those_of_the_head_on_swapped_latents(kind):
    head, latents = heads(3)[kind], latents_of(3)
    pairs = latent_permutations(SAMPLES, 4, selection="rand", generator=generator_of(7))
    found = perturbed_logits(head, latents, pairs)
    assert found.shape == (3, 4 * SAMPLES, CLASSES)
    for modality in range(3):
        for pair, (row, source) in enumerate(zip(*[index.tolist() for index in pairs], strict=True)):
            taken = [z[source if position == modality else row][None] for position, z in enumerate(latents)]
            torch.testing.assert_close(found[modality, pair], head(taken)[0])


@pytest.mark.parametrize("kind", ["mixing", "function"])
def test_all_perturbed_heads_are_one_call(kind):
    calls = []
    head, _ = parameters_of("mixing", 3)
    head.network.register_forward_hook(lambda *_: calls.append(1))
    pairs = latent_permutations(SAMPLES, 8, selection="rsi", generator=generator_of(8))
    perturbed_logits(head, latents_of(3), pairs)
    assert len(calls) == 1
    influence_game(head if kind == "mixing" else lambda z: head(z), latents_of(3), pairs)
    assert len(calls) == (2 if kind == "mixing" else 3)


def test_a_linear_head_is_not_called_for_perturbed_logits(monkeypatch):
    head = heads(2)["linear"]
    monkeypatch.setattr(head, "forward", lambda latents: pytest.fail("the head was computed again"))
    pairs = latent_permutations(SAMPLES, 8, selection="rsi", generator=generator_of(8))
    perturbed_logits(head, latents_of(2), pairs)
    influence_game(head, latents_of(2), pairs)


def test_a_modality_that_the_head_ignores_has_no_influence_and_one_that_decides_has_ln_2():
    head = LinearFusion([3, 3], 3)
    with torch.no_grad():
        head.readout.weight.copy_(torch.cat([torch.eye(3) * 200, torch.zeros(3, 3)], dim=1))
    latents = [torch.eye(3), torch.randn(3, 3, generator=generator_of(9))]
    pairs = latent_permutations(3, 5, selection="rsi", generator=generator_of(9))
    influence = permutation_influence(head, latents, pairs).mean(1)
    assert influence.tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)


@given(scale=st.floats(0, 50), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_influence_is_bounded(scale, seed):
    generator = generator_of(seed)
    head, latents = heads(2)["linear"], [scale * latent.detach() for latent in latents_of(2)]
    pairs = latent_permutations(SAMPLES, 3, selection="rand", generator=generator)
    influence = permutation_influence(head, latents, pairs)
    assert (influence >= -1e-12).all()
    assert (influence <= math.log(2) + 1e-12).all()


def test_many_games_at_once_are_the_games_one_by_one():
    latents = [torch.stack([latent.detach() * scale for scale in (0.5, 1, 2)]) for latent in latents_of(2)]
    head, k = heads(2)["linear"], torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    pairs = latent_permutations(SAMPLES, 2, selection="rsi", generator=generator_of(10))

    def loss(first, second, k):
        return influence_game(head, [first, second], pairs, k=k).loss

    at_once = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1)))(*latents, k)
    for run in range(3):
        alone = torch.func.grad(loss, argnums=(0, 1))(latents[0][run], latents[1][run], float(k[run]))
        torch.testing.assert_close([gradient[run] for gradient in at_once], list(alone))


class TestPairs:
    LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 2])

    def test_rand_keeps_whole_permutations(self):
        pairs = latent_permutations(5, 4, selection="rand", generator=generator_of(0))
        assert pairs.rows.tolist() == list(range(5)) * 4
        assert (pairs.sources.view(4, 5).sort(1).values == torch.arange(5)).all()
        assert len({tuple(order) for order in pairs.sources.view(4, 5).tolist()}) > 1

    def test_rsi_never_meets_itself_and_rsl_never_its_label(self):
        rows, sources = latent_permutations(7, 50, self.LABELS, "rsi", generator=generator_of(1))
        assert (rows != sources).all()
        assert (self.LABELS[rows] == self.LABELS[sources]).any()
        rows, sources = latent_permutations(7, 50, self.LABELS, "rsl", generator=generator_of(1))
        assert (self.LABELS[rows] != self.LABELS[sources]).all()
        assert len(rows) == pytest.approx(50 * 7 * (1 - 17 / 49), rel=0.15)  # 17 of 49 ordered pairs share a label

    @pytest.mark.parametrize(("selection", "number"), [("samelabel", 10), ("difflabel", 32), ("alllabel", 42)])
    def test_lists_hold_every_ordered_pair_once(self, selection, number):
        rows, sources = latent_permutations(7, 1, self.LABELS, selection)
        assert len({*zip(rows.tolist(), sources.tolist(), strict=True)}) == len(rows) == number
        same = self.LABELS[rows] == self.LABELS[sources]
        assert {"samelabel": same.all(), "difflabel": (~same).all(), "alllabel": True}[selection]

    def test_a_batch_of_two_always_has_a_pair(self):
        for seed in range(20):
            for selection, labels in (("rsi", None), ("rsl", torch.tensor([1, 0]))):
                rows, sources = latent_permutations(2, 1, labels, selection, generator=generator_of(seed))
                assert {*zip(rows.tolist(), sources.tolist(), strict=True)} == {(0, 1), (1, 0)}

    def test_the_generator_decides(self):
        one, again, other = (latent_permutations(9, 2, selection="rsi", generator=generator_of(s)) for s in (1, 1, 2))
        assert torch.equal(one.sources, again.sources)
        assert not torch.equal(one.sources, other.sources)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((1, 4, torch.tensor([0]), "rsl"), "batch of 1"),
            ((4, 0, None, "rsi"), "permutations must be 1"),
            ((4, 1, None, "rsx"), "selection must be one of"),
            ((4, 1, None, "rsl"), "give a target"),
            ((4, 1, torch.zeros(4, dtype=torch.long), "rsl"), "no two samples of different labels in this batch of 4"),
            ((4, 1, torch.arange(4), "samelabel"), "no two samples of one label"),
            ((4, 1, torch.zeros(4), "rsl"), "for regression"),
            ((4, 1, torch.zeros(5, dtype=torch.long), "rsl"), "4 samples, got 5"),
        ],
    )
    def test_bad_input_is_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            latent_permutations(*arguments)


class TestRefusals:
    PAIRS = latent_permutations(SAMPLES, 1, selection="rsi", generator=generator_of(0))

    @pytest.mark.parametrize("k", [1.5, -2, math.nan])
    def test_k_outside_the_range(self, k):
        with pytest.raises(ValueError, match=r"k must lie in \[-1, 1\]"):
            influence_game(heads(2)["linear"], latents_of(2), self.PAIRS, k=k)

    def test_latents(self):
        first, second = latents_of(2)
        with pytest.raises(ValueError, match="same samples"):
            influence_game(heads(2)["linear"], [first, second[:3]], self.PAIRS)
        with pytest.raises(ValueError, match="two modalities"):
            influence_game(heads(2)["linear"], [first], self.PAIRS)

    def test_a_head_that_takes_no_list(self):
        with pytest.raises(TypeError, match="one list of latents"):
            influence_game(lambda first, second: first, latents_of(2), self.PAIRS)
        with pytest.raises(ValueError, match="fusion must give logits"):
            influence_game(lambda latents: latents, latents_of(2), self.PAIRS)

    def test_the_reference_regime_where_it_is_not_defined(self):
        with pytest.raises(ValueError, match="LinearFusion of two modalities"):
            influence_game(heads(2)["mixing"], latents_of(2), self.PAIRS, regime="reference")
        with pytest.raises(ValueError, match="k = -1, 0 or 1"):
            influence_game(heads(2)["linear"], latents_of(2), self.PAIRS, k=0.5, regime="reference")
        with pytest.raises(ValueError, match="regime must be"):
            influence_game(heads(2)["linear"], latents_of(2), self.PAIRS, regime="official")


def test_the_reference_regime_is_zero_in_value_for_greedy_players_and_still_moves_them():
    head, latents = heads(2)["linear"], latents_of(2)
    game = influence_game(head, latents, TestRefusals.PAIRS, k=-1, regime="reference")
    assert game.loss.item() == pytest.approx(0, abs=1e-15)
    gradients = torch.autograd.grad(game.loss, latents)
    paper = torch.autograd.grad(influence_game(head, latents, TestRefusals.PAIRS, k=-1).loss, latents)
    assert all(np.linalg.norm(gradient) > 1e-3 for gradient in gradients)
    assert not torch.allclose(gradients[0], paper[0])
