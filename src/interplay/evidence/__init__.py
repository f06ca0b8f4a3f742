"""The harness: studies, trials, measurements, claims, verdicts. It knows no system."""

from interplay.evidence.claims import (
    Claim,
    ClaimTest,
    Estimate,
    Verdict,
    all_of,
    difference,
    mean,
    proportion,
    ratio,
    tally,
)
from interplay.evidence.study import Device, Measurement, Study, StudyConfig, StudyError

__all__ = [
    "Claim",
    "ClaimTest",
    "Device",
    "Estimate",
    "Measurement",
    "Study",
    "StudyConfig",
    "StudyError",
    "Verdict",
    "all_of",
    "difference",
    "mean",
    "proportion",
    "ratio",
    "tally",
]
