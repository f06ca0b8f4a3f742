"""How much each modality moves the prediction, and the game that the encoders play about it.

Z_m are the latents, f_c the fusion head, sigma pairs of samples (`permutations`). The influence of modality m is the
Jensen-Shannon divergence of the prediction and the one in which only Z_m comes from another sample,

    MIPD_m = mean JSD(f_c(Z), f_c(Z with Z_m[sigma])) in [0, ln 2],                                (1)

a surrogate of what m alone knows, I(X_m; Y | the others), and L_m = -MIPD_m its loss. Encoder i follows

    grad_i L_i + k sum over j != i of grad_i L_j                                                    (2)

(paper: equations 12 and 13): k = 1 all raise all influences together, k = 0 each raises its own, k = -1 each also
lowers that of the others. A single summed loss is always k = 1: the players differ in the gradient alone.

`regime="paper"` is (2) for any head and any number of modalities. With T_i = L_i + k sum_j L_j in which every Z_j, j
!= i, is held constant, the value is sum_i T_i, encoder i gets grad_i T_i, and the head the gradient of the sum, that is
1 + k (M - 1) times that of sum_j L_j: nothing where two players are greedy.

`regime="reference"` is what the official code does for two modalities and a linear head: one part W_m Z_m of the
permuted logits is held constant, its weights included, and the unpermuted logits keep their gradient. For k = -1 the
reported value is zero and the gradients through the unpermuted logits cancel; those through the permuted ones act.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.multimodal.fusion import LinearFusion
from interplay.multimodal.mcr.permutations import LatentPairs
from interplay.primitives.conflict import jensen_shannon_divergence
from interplay.primitives.gates import scale_gradient

__all__ = ["Fusion", "GameLoss", "Regime", "influence_game", "permutation_influence", "perturbed_logits"]

Fusion = Callable[[Sequence[Tensor]], Tensor]
"""A head: from the latents of all modalities, (sample, features) each, to logits, (sample, class)."""
Regime = Literal["paper", "reference"]


class GameLoss(NamedTuple):
    """`loss`: scalar, to go backward from. `influences`: MIPD of each modality, (modality,), without gradient."""

    loss: Float[Tensor, ""]
    influences: Float[Tensor, " modality"]


def perturbed_logits(
    fusion: Fusion, latents: Sequence[Tensor], pairs: LatentPairs
) -> Float[Tensor, "modality pair class"]:
    """Logits with the latent of one modality from another sample, for all modalities and pairs in one call of the head.

    A linear head is not called at all: its parts are permuted.

    Parameters
    ----------
    fusion
        The head.
    latents
        (sample, features) of each modality.
    pairs
        Who takes the latent of whom.
    """
    _check(latents)
    rows, sources = pairs
    if isinstance(fusion, LinearFusion):
        parts = fusion.parts(latents)
        return torch.stack([_others(parts, own)[rows] + part[sources] for own, part in enumerate(parts)])
    stacked = [
        latent[torch.cat([sources if player == own else rows for player in range(len(latents))])]
        for own, latent in enumerate(latents)
    ]
    return _logits(fusion, stacked).unflatten(0, (len(latents), len(rows)))


def permutation_influence(
    fusion: Fusion, latents: Sequence[Tensor], pairs: LatentPairs, logits: Tensor | None = None
) -> Float[Tensor, "modality pair"]:
    """JSD of each pair and modality; its mean over pairs is MIPD, equation (1). Differentiable in everything.

    Parameters
    ----------
    fusion, latents, pairs
        As in `perturbed_logits`.
    logits
        The head's logits of the latents, where they are known.
    """
    logits = _logits(fusion, latents) if logits is None else logits
    return jensen_shannon_divergence(logits[pairs.rows], perturbed_logits(fusion, latents, pairs))


def influence_game(
    fusion: Fusion,
    latents: Sequence[Tensor],
    pairs: LatentPairs,
    *,
    k: float | Tensor = -1.0,
    regime: Regime = "paper",
) -> GameLoss:
    """The loss whose gradient lets every encoder play its side of the game, equation (2).

    Parameters
    ----------
    fusion
        The head. A module's own parameters get their gradient from one call; any other callable is called twice. Layers
        that treat a batch as a whole (batch normalisation in training) would mix permuted with true rows: `MCR` holds
        them at their running statistics.
    latents
        (sample, features) of each modality, two or more, with gradient.
    pairs
        Who takes the latent of whom.
    k
        What an encoder makes of the others' influence, in [-1, 1]; the paper plays 1, 0 and -1. A scalar tensor lets
        `torch.vmap` play many games.
    regime
        "paper" or "reference"; the latter for `LinearFusion` of two modalities and k in {-1, 0, 1}.

    Raises
    ------
    ValueError
        k outside [-1, 1]; latents of one modality, of different batches or not (sample, features); an unknown regime,
        or "reference" where it is not defined.
    """
    _check(latents)
    if not isinstance(k, Tensor) and not -1 <= k <= 1:
        raise ValueError(f"k must lie in [-1, 1] (the paper plays -1, 0 and 1), got {k!r}")
    if regime == "reference":
        return _reference_game(fusion, latents, pairs, k)
    if regime != "paper":
        raise ValueError(f"regime must be 'paper' or 'reference', got {regime!r}")
    share = 1 + k * (len(latents) - 1)
    if isinstance(fusion, LinearFusion):
        divergences = _linear_players(fusion, latents, pairs, k, share)
    elif isinstance(fusion, nn.Module):
        gated = {name: scale_gradient(parameter, share) for name, parameter in fusion.named_parameters()}
        divergences = _players(lambda z: torch.func.functional_call(fusion, gated, (z,)), latents, pairs, k)
    else:
        divergences = _players(fusion, latents, pairs, k)
        if isinstance(share, Tensor) or share != 1:
            # The players' pass has given the head one share of its gradient; this one, blind to the encoders, the rest.
            head = -_players(fusion, [latent.detach() for latent in latents], pairs, k).sum()
            return GameLoss((share - 1) * head - divergences.sum(), divergences.detach())
    loss = -divergences.sum()
    # The gates have set every gradient; the value alone is still to be made that of sum_i T_i.
    return GameLoss(loss + (share - 1) * loss.detach(), divergences.detach())


def _players(fusion: Fusion, latents: Sequence[Tensor], pairs: LatentPairs, k: float | Tensor) -> Tensor:
    """MIPD of each modality; through that of j, encoder i gets its gradient once if i = j, else k times."""
    rows, sources = pairs
    everyone = torch.arange(len(latents[0]), device=rows.device)
    blocks = range(len(latents))
    stacked = []
    for own, latent in enumerate(latents):
        chosen = torch.cat([torch.cat([sources if block == own else rows, everyone]) for block in blocks])
        ones = latent.new_ones(len(rows) + len(everyone), 1)
        gate = torch.cat([ones if block == own else ones * k for block in blocks])
        stacked.append(scale_gradient(latent[chosen], gate))
    logits = _logits(fusion, stacked).unflatten(0, (len(latents), len(rows) + len(everyone)))
    permuted, clean = logits[:, : len(rows)], logits[:, len(rows) :]
    return jensen_shannon_divergence(clean[:, rows], permuted).mean(1)


def _linear_players(
    fusion: LinearFusion, latents: Sequence[Tensor], pairs: LatentPairs, k: float | Tensor, share: float | Tensor
) -> Tensor:
    """The same for a linear head, whose parts are permuted: weights and latents get their gradient each by its gate."""
    rows, sources = pairs
    weights = fusion.readout.weight.detach().split(fusion.features, dim=1)
    learned = fusion.parts([latent.detach() for latent in latents])
    own, other = [], []
    for latent, weight, part in zip(latents, weights, learned, strict=True):
        signal = nn.functional.linear(latent, weight)
        value = scale_gradient(part, share)
        own.append(value + (signal - signal.detach()))
        gated = scale_gradient(signal, k)
        other.append(value + (gated - gated.detach()))
    others = [_others(other, player) for player in range(len(own))]
    clean = torch.stack([rest + part for rest, part in zip(others, own, strict=True)])
    permuted = torch.stack([rest[rows] + part[sources] for rest, part in zip(others, own, strict=True)])
    return jensen_shannon_divergence(clean[:, rows], permuted).mean(1)


def _reference_game(fusion: Fusion, latents: Sequence[Tensor], pairs: LatentPairs, k: float | Tensor) -> GameLoss:
    if not isinstance(fusion, LinearFusion) or len(latents) != 2:
        raise ValueError(
            f"regime 'reference' is defined for LinearFusion of two modalities; got {type(fusion).__name__} of "
            f"{len(latents)}: take regime 'paper'"
        )
    if isinstance(k, Tensor) or k not in (-1, 0, 1):
        raise ValueError(f"regime 'reference' plays k = -1, 0 or 1, got {k!r}: take regime 'paper'")
    rows, sources = pairs
    weights = fusion.readout.weight.split(fusion.features, dim=1)
    parts = [nn.functional.linear(latent, weight) for latent, weight in zip(latents, weights, strict=True)]
    clean = (parts[0] + parts[1] + fusion.readout.bias)[rows]

    def divergence(permuted: int, attached: Sequence[int]) -> Tensor:
        kept = [part if position in attached else part.detach() for position, part in enumerate(parts)]
        logits = kept[permuted][sources] + kept[1 - permuted][rows] + fusion.readout.bias
        return jensen_shannon_divergence(clean, logits).mean()

    if k == 1:
        influences = torch.stack([divergence(player, (0, 1)) for player in (0, 1)])
        return GameLoss(-influences.sum(), influences.detach())
    influences = torch.stack([divergence(player, (player,)) for player in (0, 1)])
    loss = -influences.sum()
    if k == -1:
        loss = loss + divergence(0, (1,)) + divergence(1, (0,))
    return GameLoss(loss, influences.detach())


def _others(parts: Sequence[Tensor], own: int) -> Tensor:
    rest = [part for position, part in enumerate(parts) if position != own]
    return rest[0] if len(rest) == 1 else torch.stack(rest).sum(0)


def _logits(fusion: Fusion, latents: Sequence[Tensor]) -> Tensor:
    try:
        logits = fusion(latents)
    except TypeError as error:
        raise TypeError(f"fusion must take one list of latents, (sample, features) each: {error}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(latents[0]):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"fusion must give logits, (sample, class), of the {len(latents[0])} samples; got {got}")
    return logits


def _check(latents: Sequence[Tensor]) -> None:
    if len(latents) < 2:
        raise ValueError(f"latents must be of two modalities or more, got {len(latents)}")
    shapes = [tuple(latent.shape) for latent in latents]
    if any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"latents must be (sample, features) of the same samples; got shapes {shapes}")
