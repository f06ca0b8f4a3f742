"""AUSteer: rescale a handful of single dimensions of a language model, chosen over all its layers.

| | |
| --- | --- |
| paper | Feng, Li, Zhu, Zhou, Qian, Zhang, Chua, Mak, Ng, Mao, "Fine-Grained Activation Steering" |
| where | ICLR 2026, arXiv 2602.04428 |
| official code | github.com/zijian678/AUSteer |
| works on | any Hugging Face decoder |
| input, output | activations of one sort of site, of the same shape |
| learnable | no |
| deterministic | yes |

x[l, i] is the value of unit i of layer l at the last token of a text, + of a text with the right answer, - with a wrong
one, n a pair of such texts.

1. D_n = x+_n - x-_n; P = number of pairs with D > 0, M with D < 0.
2. Momentum: beta = max(P, M) / N, positive where P >= M and negative elsewhere.
3. The k units of the whole model with the largest |beta|.
4. x_i <- x_i + gamma_i x_i with gamma_i = alpha beta_i, at all tokens.

Differences from the official code
----------------------------------
- Counting is vectorised and streams over batches; the official code loops over layers and units.
- Equal scores are parted by |mean| / standard deviation of D; `tie_break="official"` takes the lowest layer, then the
  lowest unit. Where answers are always the same words, most units tie and the rule alone decides.
- Two sets of prompts that nothing pairs are compared in all their pairs.
- Units of "ffn" are scaled before a norm that follows the MLP in some models, as the official file for Gemma does.
- `fold` writes a patch into the weights, so that it costs nothing.
"""

from interplay.steering.austeer.momentum import (
    Momentum,
    Ranking,
    Score,
    TieBreak,
    expected_chance_ties,
    momentum,
    momentum_of_classes,
    rank_units,
)
from interplay.steering.austeer.pairs import balanced
from interplay.steering.austeer.patch import Folded, SemanticsAdaptivePatch, UnitPatch, outcome_momentum
from interplay.steering.austeer.profiles import heterogeneity, unit_token_profile, writing_directions
from interplay.steering.austeer.tuning import Tuned, tune
from interplay.steering.austeer.units import UnitSite, collect_units, sites_of, unit_widths

__all__ = [
    "Folded",
    "Momentum",
    "Ranking",
    "Score",
    "SemanticsAdaptivePatch",
    "TieBreak",
    "Tuned",
    "UnitPatch",
    "UnitSite",
    "balanced",
    "collect_units",
    "expected_chance_ties",
    "heterogeneity",
    "momentum",
    "momentum_of_classes",
    "outcome_momentum",
    "rank_units",
    "sites_of",
    "tune",
    "unit_token_profile",
    "unit_widths",
    "writing_directions",
]
