"""The outcome of a run: which claims hold, by which figures, from which settings and versions. Stored as JSON."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict

from interplay.evidence.claims import Estimate, Finding, Label, Verdict
from interplay.evidence.study import Preset, Study, StudyConfig

# What a number may depend on besides the project's own code.
_NUMERIC_PACKAGES = ("torch", "numpy", "scipy", "numba", "scikit-learn", "transformers")


class _Record(BaseModel):
    # JSON has no NaN; an undefined interval end is the string "NaN", which reads back as the float.
    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")


class JudgedPart(_Record):
    """One part of a claim: the figure with its interval, the threshold, the verdict."""

    description: str
    threshold: str
    regions: tuple[tuple[float, float], ...]
    effect: float
    low: float
    high: float
    units: int
    kind: str
    reason: str
    verdict: Verdict

    @property
    def measured(self) -> str:
        """Figure and interval as text."""
        return str(Estimate(self.effect, self.low, self.high, self.units, self.kind))


class JudgedClaim(_Record):
    """A claim with its verdict and the parts behind it."""

    id: str
    sentence: str
    paper: str
    label: Label | None
    verdict: Verdict
    parts: list[JudgedPart]


class Failure(_Record):
    """A trial (or the figure, with seed None) that raised."""

    seed: int | None
    error: str
    traceback: str


class Environment(_Record):
    """Where the numbers were made."""

    python: str
    packages: dict[str, str]
    system: str
    cores: int

    @classmethod
    def here(cls) -> Environment:
        """The environment of this interpreter."""
        packages = {}
        for name in ("interplay", *_NUMERIC_PACKAGES):
            try:
                packages[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
        system = f"{platform.system()} {platform.machine()}"
        return cls(python=platform.python_version(), packages=packages, system=system, cores=os.cpu_count() or 1)


class Outcome(_Record):
    """What a study showed."""

    slug: str
    preset: Preset
    seeds: int
    config: dict[str, Any]
    caveat: str
    claims: list[JudgedClaim]
    failures: list[Failure]
    environment: Environment
    fingerprint: str
    finished: datetime
    trial_seconds: float

    @property
    def succeeded(self) -> bool:
        """Whether no claim fails and no trial raised."""
        return not self.failures and all(claim.verdict is not Verdict.FAILS for claim in self.claims)


def conclude(
    study: Study,
    config: StudyConfig,
    preset: Preset,
    measurements: pd.DataFrame,
    *,
    seeds: int,
    failures: list[Failure],
    environment: Environment,
    fingerprint: str,
    trial_seconds: float,
) -> Outcome:
    """Judge every claim of the study (at preset smoke: estimate, but do not judge)."""
    claims = []
    for claim in study.claims.values():
        verdict, findings = claim.judge(measurements)
        judged = preset != "smoke"
        claims.append(
            JudgedClaim(
                id=claim.id,
                sentence=claim.sentence,
                paper=claim.paper,
                label=claim.label,
                verdict=verdict if judged else Verdict.NOT_JUDGED,
                parts=[_part(finding, judged) for finding in findings],
            )
        )
    return Outcome(
        slug=study.slug,
        preset=preset,
        seeds=seeds,
        config=config.model_dump(mode="json"),
        caveat=study.caveat,
        claims=claims,
        failures=failures,
        environment=environment,
        fingerprint=fingerprint,
        finished=datetime.now(UTC).replace(microsecond=0),
        trial_seconds=round(trial_seconds, 2),
    )


def _part(finding: Finding, judged: bool) -> JudgedPart:
    estimate = finding.estimate
    return JudgedPart(
        description=finding.description,
        threshold=finding.threshold,
        regions=finding.regions,
        effect=estimate.effect,
        low=estimate.low,
        high=estimate.high,
        units=estimate.units,
        kind=estimate.kind,
        reason=estimate.reason,
        verdict=finding.verdict if judged else Verdict.NOT_JUDGED,
    )
