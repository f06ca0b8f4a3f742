"""The harness: studies, trials, measurements, claims, verdicts. It knows no system."""

from interplay.evidence.claims import (
    Claim,
    ClaimTest,
    Estimate,
    Finding,
    Verdict,
    all_of,
    difference,
    mean,
    proportion,
    ratio,
    tally,
)
from interplay.evidence.ledger import Ledger, LedgerError, RunFolder
from interplay.evidence.outcome import Outcome
from interplay.evidence.runner import Progress, Run, run, run_all
from interplay.evidence.study import Device, Measurement, Study, StudyConfig, StudyError, averaged

__all__ = [
    "Claim",
    "ClaimTest",
    "Device",
    "Estimate",
    "Finding",
    "Ledger",
    "LedgerError",
    "Measurement",
    "Outcome",
    "Progress",
    "Run",
    "RunFolder",
    "Study",
    "StudyConfig",
    "StudyError",
    "Verdict",
    "all_of",
    "averaged",
    "difference",
    "mean",
    "proportion",
    "ratio",
    "run",
    "run_all",
    "tally",
]
