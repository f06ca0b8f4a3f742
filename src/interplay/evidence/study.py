"""A study: its settings, its trial, its claims, its figure.

A study module reads top to bottom as the experiment would be told to a colleague::

    class Config(StudyConfig):
        hidden: PositiveInt = Field(50, description="hidden units")

    study = Study("curl-descent", Config, presets={"smoke": {"hidden": 5}, "cpu": {}, "paper": {"hidden": 500}},
                  seeds={"smoke": 2, "cpu": 5, "paper": 20})

    @study.trial
    def trial(config: Config, seed: int) -> Iterator[Measurement]:
        yield Measurement("flipped", "test loss", 0.1)

    study.claim("stable", "Flipped neurons leave the loss alone.", paper="sec. 4",
                test=ratio("test loss", "flipped", "plain").below(1.2))

    @study.figure
    def figure(measurements: DataFrame) -> Figure: ...
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

import pandas as pd
from matplotlib.figure import Figure
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from interplay.evidence.claims import Claim, ClaimTest, Label

Preset = Literal["smoke", "cpu", "paper"]
PRESETS: tuple[Preset, ...] = get_args(Preset)


class StudyError(ValueError):
    """The study was declared or called wrongly; the message says what and how to mend it."""


def _known_device(name: str) -> str:
    if name not in {"auto", "cpu", "mps"} and not name.startswith("cuda"):
        raise ValueError("allowed are auto, cpu, mps, cuda and cuda:N")
    return name


Device = Annotated[str, AfterValidator(_known_device)]
"""Type of the settings field `device` of a study that can use an accelerator."""


class StudyConfig(BaseModel):
    """Settings of a study: every field typed, bounded and described; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Measurement(NamedTuple):
    """One tidy row of what a trial saw.

    Parameters
    ----------
    condition
        What is compared: the method, a baseline, an ablation.
    metric
        What was measured, with its unit where it has one.
    value
        The number; NaN says "measured, but undefined here".
    step, x, item
        Optional coordinates: a training step, a real number (time, frequency, distance), a label (a corruption).
    """

    condition: str
    metric: str
    value: float
    step: int | None = None
    x: float | None = None
    item: str | None = None


TrialFunction = Callable[[Any, int], Iterable[Measurement]]
FigureFunction = Callable[[pd.DataFrame], Figure]

_COLUMNS = {
    "condition": "string",
    "metric": "string",
    "value": "float64",
    "step": "Int64",
    "x": "float64",
    "item": "string",
}


def averaged(rows: Iterable[Measurement]) -> list[Measurement]:
    """The mean of measurements that differ in nothing but their value, as repetitions inside a trial do.

    They come in the order of first appearance.
    """
    values: dict[Measurement, list[float]] = {}
    for row in rows:
        values.setdefault(row._replace(value=0.0), []).append(row.value)
    return [row._replace(value=sum(several) / len(several)) for row, several in values.items()]


def tabulate(measurements: Iterable[Measurement], seed: int) -> pd.DataFrame:
    """Collect one trial's measurements into a tidy table with a leading column `seed`."""
    rows = []
    for row in measurements:
        if not isinstance(row, Measurement):
            raise StudyError(f"a trial must yield Measurement, got {type(row).__name__}: {row!r}")
        if math.isinf(value := float(row.value)):
            raise StudyError(
                f"measurement {row.metric!r} of {row.condition!r} is infinite; yield a finite value or NaN"
            )
        rows.append(row._replace(value=value))
    frame = pd.DataFrame(rows, columns=list(_COLUMNS)).astype(_COLUMNS)
    frame.insert(0, "seed", seed)
    return frame


class Study:
    """The runnable experiment about one system.

    Parameters
    ----------
    slug
        The system's name in the catalog.
    config
        Its `StudyConfig` class.
    presets
        For each of smoke, cpu and paper the settings that differ from the defaults.
    seeds
        For each preset the number of trials.
    caveat
        One sentence printed with the verdicts, where the reader must know what the setting cannot show.
    """

    def __init__(
        self,
        slug: str,
        config: type[StudyConfig],
        *,
        presets: Mapping[Preset, Mapping[str, Any]],
        seeds: Mapping[Preset, int],
        caveat: str = "",
    ) -> None:
        for name, mapping in (("presets", presets), ("seeds", seeds)):
            if set(mapping) != set(PRESETS):
                raise StudyError(
                    f"{slug}: {name} must name exactly {', '.join(PRESETS)}; got {', '.join(mapping) or 'none'}"
                )
        self.slug = slug
        self.config = config
        self.presets = presets
        self.seeds = seeds
        self.caveat = caveat
        self.claims: dict[str, Claim] = {}
        self._trial: TrialFunction | None = None
        self._figure: FigureFunction | None = None

    def trial(self, function: TrialFunction) -> TrialFunction:
        """Declare the trial: `(config, seed)` in, measurements out; all its randomness comes from the seed."""
        self._trial = function
        return function

    def figure(self, function: FigureFunction) -> FigureFunction:
        """Declare the figure: the table of all trials in, a matplotlib figure out."""
        self._figure = function
        return function

    def claim(self, id: str, sentence: str, *, paper: str, test: ClaimTest, label: Label | None = None) -> None:
        """Declare a claim: a sentence of the paper, what the paper reports, and the test that can refute it."""
        if id in self.claims:
            raise StudyError(f"{self.slug}: two claims are called {id!r}")
        self.claims[id] = Claim(id=id, sentence=sentence, paper=paper, test=test, label=label)

    def configure(self, preset: str = "cpu", overrides: Mapping[str, Any] | None = None) -> StudyConfig:
        """Settings of a preset with overrides on top (strings are parsed by the field's type).

        Raises
        ------
        StudyError
            Unknown preset, unknown setting, or a value out of its bounds, in one line.
        """
        if preset not in PRESETS:
            raise StudyError(f"unknown preset {preset!r}; allowed are {', '.join(PRESETS)}")
        settings = {**self.presets[preset], **(overrides or {})}
        if unknown := sorted(set(settings) - set(self.config.model_fields)):
            allowed = ", ".join(self.config.model_fields)
            raise StudyError(f"{self.slug} has no setting {unknown[0]!r}; its settings are {allowed}")
        try:
            return self.config.model_validate(settings)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise StudyError(f"{self.slug}: setting {name}={first['input']!r}: {first['msg']}") from None

    @property
    def trial_function(self) -> TrialFunction:
        """The declared trial."""
        if self._trial is None:
            raise StudyError(f"{self.slug} declares no trial")
        return self._trial

    def run_trial(self, config: StudyConfig, seed: int) -> pd.DataFrame:
        """One trial as a tidy table."""
        return tabulate(self.trial_function(config, seed), seed)

    def draw(self, measurements: pd.DataFrame) -> Figure:
        """The figure of a table of measurements."""
        if self._figure is None:
            raise StudyError(f"{self.slug} declares no figure")
        return self._figure(measurements)

    def __reduce__(self) -> Any:
        # A worker imports the study by name where it can: claims are closures, and shipping them with every trial would
        # cost more than a short trial does.
        module = self.trial_function.__module__
        for name, value in vars(sys.modules.get(module, object)).items():
            if value is self and module != "__main__" and importlib.util.find_spec(module):
                return _by_name, (module, name)
        return super().__reduce__()


def _by_name(module: str, name: str) -> Study:
    study: Study = getattr(importlib.import_module(module), name)
    return study
