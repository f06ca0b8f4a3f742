"""Sorting algorithms run by the elements themselves: what do they tolerate, where do they detour, how do they cluster?

One seed repeats the paper's experiments: so many runs of each condition, on the same shuffled arrays. What is compared
is cells of one or several algotypes, the textbook sorts on the same arrays with the same broken cells, and, for
clustering, cells of one algotype with labels that mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from pydantic import Field, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, mean, ratio, tally
from interplay.evidence.claims import ClaimTest
from interplay.studies.self_sorting import experiments
from interplay.studies.self_sorting.experiments import ALL, PAIRS, PURE


class Config(StudyConfig):
    cells: int = Field(100, ge=10, description="cells of an array; they hold the values 0, 1, ...")
    runs: PositiveInt = Field(100, description="runs of every condition on one seed")
    burst: PositiveInt = Field(7, description="consecutive activations of a cell drawn, the judged schedule")
    bursts: tuple[PositiveInt, ...] = Field((1, 2, 4, 7, 12), description="bursts of the sweep, not judged")
    frozen: PositiveInt = Field(3, description="most broken cells")
    copies: PositiveInt = Field(10, description="cells that share a value, where there are duplicates")
    most_swaps: PositiveInt = Field(15_000, description="swaps after which cells with opposite goals are stopped")
    sizes: tuple[PositiveInt, ...] = Field((30, 300), description="further numbers of cells, not judged")
    runs_of_sizes: PositiveInt = Field(5, description="runs of each further size on one seed")


study = Study(
    "self-sorting",
    Config,
    presets={
        "smoke": {"cells": 20, "runs": 5, "copies": 4, "most_swaps": 300, "sizes": (10,), "runs_of_sizes": 2},
        "cpu": {},
        "paper": {"runs": 1000},
    },
    seeds={"smoke": 2, "cpu": 5, "paper": 5},
    caveat="The published runs were scheduled by an operating system; bursts of seven stand for that.",
)


@study.trial
def trial(config: Config, seed: int) -> Iterator[Measurement]:
    for experiment in experiments.IN_ORDER:
        yield from experiment(config, np.random.SeedSequence(seed))


def never(what: str, condition: str) -> ClaimTest:
    """No run of any seed shows it."""
    return tally(f"some run {what}", condition).below(0.5)


study.claim(
    "Z1",
    "Every cell-view sort, and every mixture of them, sorts every array.",
    paper="all reach 100 %",
    test=all_of(*(never("ends unsorted", name) for name in ALL)),
)
study.claim(
    "Z2",
    "Bubble and insertion cells take exactly as many swaps as there are inversions, as top-down; selection cells take "
    "about eleven times as many as top-down.",
    paper="z-tests not significant for bubble (0.73) and insertion (1.26); 11 times for selection",
    test=all_of(
        never("takes other swaps than inversions", "bubble"),
        never("takes other swaps than inversions", "insertion"),
        ratio("swaps", "selection", "classical selection").between(8, 14),
    ),
)
for _suffix, _accounting, _sentence in (
    ("", "paper", "counted as in the paper, where only the top-down sorts add their swaps"),
    ("-symmetric", "symmetric", "with swaps added on both sides"),
    ("-all-reads", "all reads", "with every value looked at counted"),
):
    study.claim(
        f"Z3{_suffix}",
        f"Bubble and insertion cells take fewer steps than top-down, selection cells slightly more, {_sentence}.",
        paper="1.5 times fewer, 2.03 times fewer, 1.17 times more",
        test=all_of(
            ratio(f"steps, {_accounting}", "classical bubble", "bubble").between(1.3, 1.7),
            ratio(f"steps, {_accounting}", "classical insertion", "insertion").between(1.8, 2.2),
            ratio(f"steps, {_accounting}", "selection", "classical selection").between(1.05, 1.3),
        ),
    )
study.claim(
    "Z4",
    "Cells end with fewer errors than top-down where one, two or three of them are frozen: bubble with movable ones, "
    "selection with both kinds.",
    paper="errors of cells, movable: bubble 0, 0.8, 2.64, selection 2.24, 4.36, 13.24; immovable: selection 1.0, 1.96, "
    "2.91; top-down higher",
    test=all_of(
        *(
            difference("monotonicity error", sort, f"classical {sort}", where={"item": kind, "x": float(count)}).below(
                0
            )
            for sort, kind in (("bubble", "movable"), ("selection", "movable"), ("selection", "immovable"))
            for count in (1, 2, 3)
        )
    ),
)
study.claim(
    "Z4-ties",
    "Behind immovable cells, bubble and insertion end with as many errors as top-down in every run: both sort the "
    "segments in between.",
    paper="cells lower (bubble 1.91, 3.72, 5.37)",
    test=all_of(*(never("has other errors than top-down", sort) for sort in ("bubble", "insertion"))),
)
study.claim(
    "Z5",
    "Delayed gratification rises with every immovable cell for bubble, from none to three for insertion, and not for "
    "selection.",
    paper="bubble 0.24, 0.29, 0.32, 0.37; insertion 1.10, 1.13, 1.15, 1.19",
    test=all_of(
        *(mean("rise of delayed gratification", "bubble", where={"x": float(count)}).above(0) for count in (1, 2, 3)),
        mean("slope of delayed gratification", "bubble").above(0.02),
        mean("rise of delayed gratification, first to last", "insertion").above(0),
        mean("slope of delayed gratification", "selection").below(0),
    ),
)
study.claim(
    "Z6",
    "Bubble cells backtrack more than top-down, insertion cells about as much, selection cells less.",
    paper="bubble +0.16, insertion 0.03, selection -2.77",
    test=all_of(
        difference("delayed gratification", "bubble", "classical bubble", where={"x": 0.0}).between(0.1, 0.25),
        difference("delayed gratification", "insertion", "classical insertion", where={"x": 0.0}).between(-0.1, 0.1),
        difference("delayed gratification", "selection", "classical selection", where={"x": 0.0}).below(0),
    ),
)
study.claim(
    "Z7",
    "Cells of two algotypes cluster on the way although no rule sees algotypes: the highest aggregation of a run "
    "exceeds that of meaningless labels under either rule alone; it begins and ends at chance.",
    paper="peaks 0.72 (bubble + selection), 0.65 (bubble + insertion), 0.69 (selection + insertion); controls 0.61 to "
    "0.65",
    test=all_of(
        *(difference("peak aggregation", pair, f"{pair}, higher control").above(0.03) for pair in PAIRS),
        *(mean(f"aggregation at the {end}", pair).between(0.475, 0.515) for pair in PAIRS for end in ("start", "end")),
    ),
)
study.claim(
    "Z8",
    "Where values repeat, clusters stay: aggregation ends high with selection cells in the mixture, at chance without.",
    paper="final 0.65 (bubble + selection), 0.70 (selection + insertion)",
    test=all_of(
        mean("aggregation at the end", "bubble + selection, duplicates").above(0.6),
        mean("aggregation at the end", "selection + insertion, duplicates").above(0.6),
        mean("aggregation at the end", "bubble + insertion, duplicates").below(0.53),
    ),
)
study.claim(
    "Z9",
    "Two algotypes with opposite goals end in a compromise.",
    paper="sortedness 42.5 (bubble down, selection up), 73.73 (bubble up, insertion down), 38.31 (selection down, "
    "insertion up)",
    test=all_of(
        mean("final sortedness", "bubble down, selection up").between(36.5, 48.5),
        mean("final sortedness", "bubble up, insertion down").between(67.73, 79.73),
        mean("final sortedness", "selection down, insertion up").between(32.31, 44.31),
    ),
)
study.claim(
    "Z10",
    "Mixtures take swaps between those of their algotypes alone.",
    paper="1740.9 (bubble + selection), 2476.0 (bubble + insertion), 1534.8 (selection + insertion)",
    test=all_of(
        difference("swaps", "bubble + selection", "bubble").below(0),
        difference("swaps", "bubble + selection", "selection").above(0),
        difference("swaps", "selection + insertion", "insertion").below(0),
        difference("swaps", "selection + insertion", "selection").above(0),
        never("takes other swaps than inversions", "bubble + insertion"),
        mean("swaps", "bubble + selection").between(0.9 * 1740.9, 1.1 * 1740.9),
        mean("swaps", "bubble + insertion").between(0.9 * 2476.0, 1.1 * 2476.0),
        mean("swaps", "selection + insertion").between(0.9 * 1534.8, 1.1 * 1534.8),
    ),
)


@study.figure
def figure(measurements: DataFrame) -> Figure:
    from interplay.studies.self_sorting import panels

    drawing = Figure(figsize=(13, 16), layout="constrained")
    axes = drawing.subplot_mosaic(
        [
            ["order", "steps", "burst"],
            ["movable", "immovable", "detours"],
            ["clusters", "peaks", "duplicates"],
            ["algotypes", "values", "compromise"],
        ]
    )
    panels.draw_order(axes["order"], measurements, PURE)
    panels.draw_steps(axes["steps"], measurements, PURE)
    panels.draw_bursts(axes["burst"], measurements)
    panels.draw_errors(axes["movable"], measurements, PURE, "movable")
    panels.draw_errors(axes["immovable"], measurements, PURE, "immovable")
    panels.draw_detours(axes["detours"], measurements)
    panels.draw_clusters(axes["clusters"], measurements, PAIRS)
    panels.draw_peaks(axes["peaks"], measurements, PAIRS)
    panels.draw_duplicates(axes["duplicates"], measurements, PAIRS)
    panels.draw_space_time(axes["algotypes"], axes["values"])
    panels.draw_compromise(axes["compromise"], measurements)
    return drawing
