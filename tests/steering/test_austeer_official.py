"""Scores and chosen units of the official code (commit d657387) on differences with many ties, and ours.

The counting loop of `MFU_screening` and `set_MFU`, with k = 6 and alpha = 5, ran unchanged on the activations below.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from interplay.steering.austeer import momentum, rank_units

RECORDED = json.loads((Path(__file__).parent / "data" / "austeer.json").read_text())


def test_scores_and_units_agree():
    steps = torch.arange(12 * 3 * 8, dtype=torch.float64).reshape(12, 3, 8)
    pos, neg = torch.round(3 * torch.sin(1.3 * steps)).float(), torch.round(2 * torch.cos(0.7 * steps)).float()
    pos[:, 1, 3], pos[:, 2, 5], pos[:, 0, 6] = neg[:, 1, 3] + 1, neg[:, 2, 5] - 2, neg[:, 0, 6] + 0.5
    found = momentum(pos, neg)
    torch.testing.assert_close(found.beta, torch.tensor(RECORDED["scores"]))
    ranking = rank_units(found, tie_break="official")
    mask = torch.zeros(3, 8)
    mask[ranking.layers[:6], ranking.units[:6]] = 5.0 * ranking.gains[:6]
    torch.testing.assert_close(mask, torch.tensor(RECORDED["mask"]))
    assert ranking.ties(6) > 1, "a tie at the border is what the rule is for"
