"""MCR: multimodal training as a game between encoders about their influence on the prediction.

Paper: Kontras, Strypsteen, Chatzichristos, Liang, Blaschko, De Vos, "Balancing Multimodal Training Through
Game-Theoretic Regularization", 2024, arXiv 2411.07335. Official code: github.com/kkontras/MCR, MIT licence; read and
run for comparison, not copied.

A model of several modalities needs what each of them knows alone, what they share about the label, and nothing else
that they share. One term each: `game` (every encoder fights for the influence of its modality, measured by permuting
latents within the batch, so that no encoder runs twice), `supervised_contrastive` and `ConditionalBottleneck`,
together with the losses of unimodal heads in `CompetitionRegularizer`; `MCR` is that for a `FusionNet`.
`influence_report` and `error_routing` are diagnoses of any trained model.

Differences from the official code
----------------------------------
- The game's gradient is that of the paper's equations 12 and 13 by default; the official regime is
  `regime="reference"`.
- Latents of the batch are used again; the official code computes them once more with encoders in evaluation mode.
- A head with dropout or batch normalisation is held in evaluation mode while influence is measured.
- If chance leaves no pair after selection, a cycle through the batch takes its place; the official code draws again.
- For a regression the contrastive term pairs samples by identity over the whole batch, not over thirty slices of it.
"""

from interplay.multimodal.mcr.game import (
    GameLoss,
    influence_game,
    permutation_influence,
    perturbed_logits,
)
from interplay.multimodal.mcr.method import MCR, CompetitionLoss, CompetitionRegularizer
from interplay.multimodal.mcr.permutations import LatentPairs, latent_permutations
from interplay.multimodal.mcr.report import error_routing, influence_report
from interplay.multimodal.mcr.shared_information import ConditionalBottleneck, supervised_contrastive

__all__ = [
    "MCR",
    "CompetitionLoss",
    "CompetitionRegularizer",
    "ConditionalBottleneck",
    "GameLoss",
    "LatentPairs",
    "error_routing",
    "influence_game",
    "influence_report",
    "latent_permutations",
    "permutation_influence",
    "perturbed_logits",
    "supervised_contrastive",
]
