"""Send a concluded run to an MLflow server as well. The ledger stays the record; MLflow holds a copy."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from interplay.evidence.runner import Run
from interplay.evidence.study import StudyError


def mlflow_tracker() -> Callable[[Run], None]:
    """A function that sends a run to the server (or store) that MLFLOW_TRACKING_URI names.

    One MLflow run in the experiment `<slug>`: settings as parameters, the mean over seeds of every condition's metric,
    verdicts as tags, the run's files as artifacts.

    Raises
    ------
    StudyError
        If MLflow is not installed.
    """
    if find_spec("mlflow") is None:
        raise StudyError("--track mlflow needs the extra 'mlflow': pip install 'interplay[mlflow]'")
    return _send


def _send(run: Run) -> None:
    import mlflow

    outcome = run.outcome
    mlflow.set_experiment(outcome.slug)
    with mlflow.start_run(run_name=run.folder.path.name):
        mlflow.log_params({"preset": outcome.preset, "seeds": outcome.seeds, **outcome.config})
        mlflow.set_tags({f"claim.{claim.id}": claim.verdict.value for claim in outcome.claims})
        mlflow.set_tag("fingerprint", outcome.fingerprint)
        for name, value in _means(run).items():
            mlflow.log_metric(name, value)
        mlflow.log_artifacts(str(run.folder.path))


def _means(run: Run) -> dict[str, float]:
    """Mean of every condition's metric at its last step; undefined ones are left out, as MLflow takes numbers only."""
    rows = run.folder.measurements()
    last = rows[rows["step"].isna() | (rows["step"] == rows.groupby(["condition", "metric"])["step"].transform("max"))]
    means = last.groupby(["condition", "metric"], as_index=False)["value"].mean().dropna()
    names = means["condition"] + "/" + means["metric"]
    return {_allowed(name): float(value) for name, value in zip(names, means["value"], strict=True)}


def _allowed(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
