"""What only the study has: how runs are named, what they share, what would refute the claims."""

import numpy as np
import pandas as pd
import pytest
import torch

from interplay.dynamics.critical_periods import DeficitSchedule
from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.studies.critical_periods import study
from interplay.studies.critical_periods.experiments import (
    Completion,
    Pathways,
    against_the_equation,
    completion_by_switch,
    fewer_examples,
    masked_mode,
    structure_of_the_first_task,
)

TRACK = Pathways(seed=3, width=10, steps=300, lr=0.02, length=60)
PRODUCTS = Completion(seed=3, n=12, rank=2, further=60, lr=2.0, scale=0.05)


def test_random_windows_lie_within_training_and_differ_by_seed():
    onsets = set()
    for seed in range(30):
        windows = Pathways(seed, 10, 300, 0.02, 60).windows({"early": 0, "late": 240})
        schedule = windows["random"][1]
        assert isinstance(schedule, DeficitSchedule)
        schedule.check_fits(300)
        onsets.add(schedule.start)
        assert windows["early"][1].start == 0
        assert windows["late"][1].end == 300
        assert not windows["no deficit"]
        assert windows["early, 9 of 10 steps"][1].seed >= 0
    assert len(onsets) > 20
    assert max(onsets) - min(onsets) > 120


def test_slower_training_covers_the_same_time():
    deficits = [{1: DeficitSchedule(10, 60)}]
    slower = [{1: DeficitSchedule(40, 240)}]
    fast = TRACK.train(3, deficits, records=10)
    slow = TRACK.train(3, slower, slower=4, records=10)
    assert slow.steps.tolist() == [4 * step for step in fast.steps.tolist()]
    assert (fast.modes - slow.modes).abs().max() < 0.5
    distances = {(row.condition, row.metric): row.value for row in against_the_equation(TRACK, 3, [0, 100], [1, 2])}
    flow = "largest distance in K from the flow"
    steps = "largest distance in K from the equation in steps"
    assert distances["step size / 2", flow] < 0.7 * distances["step size / 1", flow]
    assert max(distances[name, steps] for name in ("step size / 1", "step size / 2")) < 1e-3


def test_masks_are_on_a_and_freezes_on_b():
    rows = {(row.condition, row.metric): row.value for row in masked_mode(TRACK, 3, 0, 100)}
    masked = "share of B in the masked mode"
    assert rows["freeze", masked] < 0.05
    assert rows["freeze and mask", masked] == pytest.approx(0.5, abs=0.05)
    assert rows["freeze, mask for good", masked] > 0.9


def test_the_second_task_alone_is_the_same_run_in_every_experiment():
    by_switch = list(completion_by_switch(PRODUCTS, (2,), (0, 30), rank=4, entries=70, shown=20))
    alone = next(row for row in by_switch if row.condition == "depth 2, no first task")
    longest = next(row for row in by_switch if row.condition == "depth 2, longest")
    structure = list(structure_of_the_first_task(PRODUCTS, 2, 30, (1, 4), (40, 70), rank=4, entries=70, draws=2))
    same = [row for row in structure if row.condition in ("rank 2", "entries 2")]
    assert [row.value for row in same if row.item == "draw 0"] == pytest.approx([longest.value] * 2, rel=1e-4)
    assert len({row.value for row in same if row.item == "draw 1"} - {longest.value}) == 1
    fewer = {row.condition: row.value for row in fewer_examples(PRODUCTS, 2, (0, 30), 40, (70, 50))}
    assert fewer["many entries, all along"] == pytest.approx(alone.value, rel=1e-4)
    assert len(set(fewer.values())) == 4


def test_singular_values_are_kept_until_the_end_of_either_run():
    rows = tabulate(completion_by_switch(PRODUCTS, (1, 2), (0, 30), rank=4, entries=70, shown=20), 0)
    rows = rows[rows["metric"] == "singular value"]
    last = rows.groupby("condition")["step"].max()
    assert last["second task alone"] <= 60 < last["after a first task"] == 80
    assert (rows.groupby(["condition", "step"]).size() == 10).all()


def judged(claim: str, rows: list[list[Measurement]]) -> Verdict:
    table = pd.concat([tabulate(of_seed, seed) for seed, of_seed in enumerate(rows)], ignore_index=True)
    return study.claims[claim].judge(table)[0]


def test_a_first_task_that_does_not_hurt_refutes_the_period():
    def rows(harm: float) -> list[list[Measurement]]:
        noise = np.exp(0.1 * torch.randn(16, generator=torch.Generator().manual_seed(0)).numpy())
        return [
            [
                Measurement("depth 1", "spread of the error over T_c", 1e-6),
                Measurement("all runs", "largest train loss", 1e-5),
                *(Measurement(f"depth {d}, no first task", "error", 1e-3 * factor) for d in (2, 3)),
                *(Measurement(f"depth {d}, longest", "error", 1e-3 * harm) for d in (2, 3)),
            ]
            for factor in noise.tolist()
        ]

    assert judged("depth-makes-the-period", rows(300.0)) is Verdict.HOLDS
    assert judged("depth-makes-the-period", rows(30.0)) is Verdict.FAILS
