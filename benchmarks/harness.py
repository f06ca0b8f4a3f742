"""The harness's own cost: 200 trivial trials on two cores, after the workers are up; against joblib alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import joblib
from measure import HEADER, compare

from interplay.evidence import Ledger, Measurement, Study, StudyConfig, difference, run

TRIALS = 200
study = Study(
    "trivial",
    StudyConfig,
    presets={"smoke": {}, "cpu": {}, "paper": {}},
    seeds={"smoke": 2, "cpu": TRIALS, "paper": TRIALS},
)


@study.trial
def trial(config: StudyConfig, seed: int):
    """Two numbers."""
    yield Measurement("a", "m", float(seed))
    yield Measurement("b", "m", float(seed % 7))


study.claim("C", "a exceeds b", paper="by construction", test=difference("m", "a", "b").above(0))


@study.figure
def figure(measurements):
    """One line."""
    from matplotlib.figure import Figure

    drawing = Figure()
    drawing.subplots().plot(measurements["value"])
    return drawing


def trivial(seed: int) -> int:
    """What joblib alone is timed with."""
    return seed


def main() -> None:
    """Print the rows."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = iter(range(1000))
        comparison = compare(
            f"{TRIALS} trivial trials, 2 workers, warm",
            {
                "interplay run": lambda: run(study, Ledger(Path(folder) / str(next(fresh))), jobs=2),
                "joblib alone": lambda: joblib.Parallel(2)(joblib.delayed(trivial)(seed) for seed in range(TRIALS)),
            },
        )
    print(HEADER, *comparison.rows(), sep="\n")


if __name__ == "__main__":
    main()
