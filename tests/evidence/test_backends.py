"""The same study on real local clusters, and in a real MLflow store."""

import math

import pandas as pd
import pytest

from interplay.evidence import Ledger, StudyError, run
from interplay.evidence import tracking as tracking_module

from .coin_study import study


@pytest.fixture(scope="module")
def measurements(tmp_path_factory):
    return run(study, Ledger(tmp_path_factory.mktemp("loky")), jobs=2).folder.measurements()


@pytest.mark.filterwarnings("ignore")  # Ray and distributed warn about their own internals
@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_clusters_give_the_numbers_of_one_machine(backend, tmp_path, measurements):
    if backend == "ray":
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        outcome, folder = run(study, Ledger(tmp_path), jobs=2, backend=backend, overrides={"raises_at": 4})
    finally:
        if backend == "ray":
            ray.shutdown()
    assert [failure.seed for failure in outcome.failures] == [4]
    expected = measurements[measurements["seed"] != 4].reset_index(drop=True)
    pd.testing.assert_frame_equal(folder.measurements(), expected)


@pytest.mark.parametrize("backend", ["ray", "dask"])
def test_a_missing_backend_says_what_to_install(backend, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=rf"pip install 'interplay\[{backend}\]'"):
        run(study, Ledger(tmp_path), jobs=2, backend=backend)


@pytest.mark.filterwarnings("ignore")  # MLflow warns about its own internals
def test_a_run_arrives_in_mlflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'store.db'}")
    mlflow.create_experiment("coin", artifact_location=(tmp_path / "artifacts").as_uri())
    result = run(study, Ledger(tmp_path / "ledger"), jobs=1)
    tracking_module.mlflow_tracker()(result)
    [stored] = mlflow.search_runs(experiment_names=["coin"], output_format="list")
    assert stored.data.params["tosses"] == "50"
    assert stored.data.tags["claim.C1"] == "holds"
    mean = result.folder.measurements().query("condition == 'biased'")["value"].mean()
    assert math.isclose(stored.data.metrics["biased/heads"], mean)
    assert (tmp_path / "artifacts" / stored.info.run_id / "artifacts" / "outcome.json").exists()


def test_missing_mlflow_says_what_to_install(monkeypatch):
    monkeypatch.setattr(tracking_module, "find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"pip install 'interplay\[mlflow\]'"):
        tracking_module.mlflow_tracker()
