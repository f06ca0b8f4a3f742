"""A study of a biased coin: small, with every feature of the harness, and breakable on demand."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, PositiveInt

from interplay.evidence import Measurement, Study, StudyConfig, all_of, difference, proportion


class Config(StudyConfig):
    tosses: PositiveInt = Field(50, description="tosses a trial")
    bias: float = Field(0.8, ge=0, le=1, description="probability of heads")
    raises_at: int = Field(-1, description="seed that raises")
    kills_at: int = Field(-1, description="seed that kills the whole run once")
    diary: str = Field("", description="file where every computed seed is written down")


study = Study(
    "coin",
    Config,
    presets={"smoke": {"tosses": 4}, "cpu": {}, "paper": {"tosses": 1000}},
    seeds={"smoke": 2, "cpu": 6, "paper": 20},
    caveat="A coin is not a brain.",
)


@study.trial
def trial(config: Config, seed: int):
    if config.diary:
        with Path(config.diary).open("a", encoding="utf-8") as diary:
            diary.write(f"{seed}\n")
    if seed == config.raises_at:
        raise ZeroDivisionError("the coin fell on its edge")
    if seed == config.kills_at and (marker := Path(config.diary + ".killed")) and not marker.exists():
        marker.touch()
        time.sleep(1.5)
        os.kill(os.getppid() if os.environ.get("COIN_KILLS_PARENT") else os.getpid(), signal.SIGKILL)
        time.sleep(60)
    generator = np.random.default_rng(seed)
    heads = generator.random(config.tosses) < config.bias
    for step, (biased, fair) in enumerate(zip(heads, generator.random(config.tosses) < 0.5, strict=True)):
        yield Measurement("biased", "heads", float(biased), x=float(step))
        yield Measurement("fair", "heads", float(fair), x=float(step))


study.claim(
    "C1",
    "A biased coin shows more heads than a fair one.",
    paper="direction",
    test=difference("heads", "biased", "fair").above(0),
    label="trained-in",
)
study.claim(
    "C2",
    "The biased coin shows mostly heads and beats the fair one.",
    paper="80 %",
    test=all_of(proportion("heads", "biased").above(0.5), difference("heads", "biased", "fair").above(0.1)),
)


@study.figure
def figure(measurements: pd.DataFrame) -> Figure:
    drawing = Figure(figsize=(3, 2), layout="constrained")
    axes = drawing.subplots()
    axes.plot(measurements.groupby("x")["value"].mean())
    axes.set(xlabel="toss", ylabel="heads")
    return drawing
