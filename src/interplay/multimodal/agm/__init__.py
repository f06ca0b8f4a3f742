"""Adaptive gradient modulation (AGM): train any multimodal model so that no modality is starved by a faster one.

Li, Li, Hu, Lei, Li and Zhou, "Boosting multi-modal model performance with adaptive gradient modulation", ICCV 2023.
"""

from interplay.multimodal.agm.concepts import mono_modal_concepts
from interplay.multimodal.agm.method import AGM, relative_standing, share_scores
from interplay.multimodal.agm.shapley import ShapleyShares, Shares

__all__ = ["AGM", "ShapleyShares", "Shares", "mono_modal_concepts", "relative_standing", "share_scores"]
