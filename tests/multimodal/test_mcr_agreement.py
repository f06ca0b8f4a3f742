"""Agreement with the official code of MCR and of MMPareto, and with pytorch-metric-learning, on recorded numbers.

How they were obtained, in float64 on the inputs of `waves`:

- `mcr_official.json`, "game": `MCR_Model._forward_main` with the linear classifier, `js_divergence` and the three
  forms of `Bias_Infusion_MCR.before_backward` (regby greedy, ind, colab; l = 1) of github.com/kkontras/MCR at commit
  338d370, on latents in the place of encoders and on the pairs of `pairs`, which are selected as `shuffle_ids` selects
  for "rsl".
- "contrastive": `NTXentLoss(temperature=0.5)` of pytorch-metric-learning 2.9.0, as that code calls it.
- `mmpareto_official.json`: `train_epoch` of github.com/GeWu-Lab/MMPareto_ICML2024 at commit a339db3, one batch, SGD of
  rate 0.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from interplay.multimodal.fusion import FusionNet, LinearFusion
from interplay.multimodal.mcr import LatentPairs, influence_game, permutation_influence, supervised_contrastive
from interplay.multimodal.mmpareto import MMPareto

HERE = Path(__file__).parent / "data"
OFFICIAL = json.loads((HERE / "mcr_official.json").read_text(encoding="utf-8"))
MMPARETO = json.loads((HERE / "mmpareto_official.json").read_text(encoding="utf-8"))
SAMPLES, CLASSES, WIDTH = 8, 4, 5
LABELS = torch.arange(SAMPLES) % CLASSES
K = {"greedy": -1, "ind": 0, "colab": 1}


def waves(*shape: int, phase: float) -> torch.Tensor:
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 1.7 + phase).view(shape)


def pairs() -> LatentPairs:
    rows = torch.arange(SAMPLES).repeat(3)
    sources = torch.cat([(3 * torch.arange(SAMPLES) + shift) % SAMPLES for shift in (1, 2, 3)])
    kept = LABELS[rows] != LABELS[sources]
    return LatentPairs(rows[kept], sources[kept])


def latents() -> list[torch.Tensor]:
    return [waves(SAMPLES, WIDTH, phase=phase).requires_grad_() for phase in (0.1, 0.7)]


def head() -> LinearFusion:
    made = LinearFusion([WIDTH, WIDTH], CLASSES).double()
    with torch.no_grad():
        made.readout.weight.copy_(torch.cat([waves(CLASSES, WIDTH, phase=phase) for phase in (0.3, 0.9)], dim=1))
        made.readout.bias.copy_(waves(CLASSES, phase=2.0))
    return made


def as_recorded(values: list[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view_as(like)


@pytest.mark.parametrize("strategy", ["greedy", "ind", "colab"])
def test_the_reference_regime_has_the_official_value_and_gradients(strategy):
    expected, fusion, z = OFFICIAL["game"][strategy], head(), latents()
    game = influence_game(fusion, z, pairs(), k=K[strategy], regime="reference")
    game.loss.backward()
    assert game.loss.item() == pytest.approx(expected["loss"], abs=1e-10)
    torch.testing.assert_close(game.influences, as_recorded(expected["jsd"], game.influences), rtol=0, atol=1e-10)
    weights = fusion.readout.weight.grad.split([WIDTH, WIDTH], dim=1)
    for name, gradient in {
        "latent_0": z[0].grad,
        "latent_1": z[1].grad,
        "weight_0": weights[0],
        "weight_1": weights[1],
        "bias": fusion.readout.bias.grad,
    }.items():
        recorded = as_recorded(expected[name], gradient)
        torch.testing.assert_close(gradient, recorded, rtol=1e-8, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


def test_all_players_together_are_the_official_collaboration_in_the_paper_regime_too():
    z = latents()
    influence_game(head(), z, pairs(), k=1, regime="paper").loss.backward()
    for latent, name in zip(z, ("latent_0", "latent_1"), strict=True):
        torch.testing.assert_close(latent.grad, as_recorded(OFFICIAL["game"]["colab"][name], latent))


def test_influence_is_the_official_divergence():
    influence = permutation_influence(head(), latents(), pairs()).mean(1)
    torch.testing.assert_close(influence, as_recorded(OFFICIAL["game"]["colab"]["jsd"], influence), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("case", "target"), [("label", LABELS), ("identity", None)])
def test_the_contrastive_term_is_that_of_pytorch_metric_learning(case, target):
    expected, z = OFFICIAL["contrastive"][case], latents()
    loss = supervised_contrastive(z, target, 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-10)
    for latent, name in zip(z, ("latent_0", "latent_1"), strict=True):
        torch.testing.assert_close(latent.grad, as_recorded(expected[name], latent), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("case", "sign"), [("agreeing", 1.0), ("conflicting", -1.0)])
def test_mmpareto_hands_the_optimiser_the_official_gradients(case, sign):
    audio, visual, unimodal = nn.Linear(4, WIDTH), nn.Linear(3, WIDTH), [nn.Linear(WIDTH, CLASSES) for _ in range(2)]
    fusion = LinearFusion([WIDTH, WIDTH], CLASSES)
    named = {"audio_net": audio, "visual_net": visual, "head": fusion.readout}
    named |= {"head_audio": unimodal[0], "head_video": unimodal[1]}
    parameters = {f"{name}.{which}": p for name, layer in named.items() for which, p in layer.named_parameters()}
    for position, parameter in enumerate(parameters.values()):
        parameter.data = 0.3 * waves(*parameter.shape, phase=0.37 * position)
    for part, layer in zip(fusion.readout.weight.data.split([WIDTH, WIDTH], dim=1), unimodal, strict=True):
        layer.weight.data = sign * part
    net = FusionNet({"audio": audio, "visual": visual}, fusion, {"audio": unimodal[0], "visual": unimodal[1]})
    method = MMPareto(net)
    inputs = {"audio": waves(SAMPLES, 4, phase=0.2), "visual": waves(SAMPLES, 3, phase=1.1)}
    method.loss(inputs, LABELS).backward()
    method.adjust_gradients()
    weights = [method.diagnostics()[f"weight of joined, {name}"] for name in ("audio", "visual")]
    assert all((weight == 0.5) == (case == "agreeing") for weight in weights)
    for name, parameter in parameters.items():
        recorded = as_recorded(MMPARETO[case][name], parameter)
        torch.testing.assert_close(parameter.grad, recorded, rtol=1e-8, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
