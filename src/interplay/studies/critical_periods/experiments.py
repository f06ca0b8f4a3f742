"""The experiments of the study: pathways with deficits early and late, and completion after another task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from interplay.dynamics.critical_periods import (
    CompletionRun,
    CompletionTask,
    DeepMatrixFactorization,
    DeficitSchedule,
    TargetModes,
    TwoPathwayLinear,
    completion_task,
    final_share,
    hierarchy,
    pathway_race,
    target_modes,
    train_completion,
    train_pathways,
)
from interplay.dynamics.critical_periods.chains import Nonlinearity
from interplay.dynamics.critical_periods.training import Deficits, PathwayRun
from interplay.evidence import Measurement
from interplay.primitives.randomness import generator_of

# Streams of randomness within a seed.
RANDOM_ONSET, COIN, DRAW = 20, 21, 22
JUDGED_MODES = 4
POINTS = 100
"""Points of a trajectory that are kept for the figure."""
SHARE = "share of B"
LARGEST = "largest share of B, modes 1 to 4"
FROM_HALF = "largest distance of B's share from 1/2, modes 1 to 4"


@dataclass(frozen=True)
class Pathways:
    """Two pathways, A and B, on the published task from one balanced start; deficits hit B unless said otherwise."""

    seed: int
    width: int
    steps: int
    lr: float
    length: int

    def start(
        self, modes: TargetModes, depth: int, runs: int, nonlinearity: Nonlinearity, **options: float
    ) -> TwoPathwayLinear:
        seeds = [self.seed] * runs
        return TwoPathwayLinear.balanced(
            modes, depth=depth, seeds=seeds, width=self.width, nonlinearity=nonlinearity, **options
        )

    def train(
        self,
        depth: int,
        deficits: Sequence[Deficits],
        *,
        nonlinearity: Nonlinearity = "linear",
        slower: int = 1,
        records: int = 1,
    ) -> PathwayRun:
        """One run a deficit; `slower` divides the step size and multiplies all steps."""
        x, y = hierarchy()
        modes = target_modes(x, y)
        network = self.start(modes, depth, len(deficits), nonlinearity)
        steps = self.steps * slower
        return train_pathways(
            network,
            x,
            y,
            steps=steps,
            lr=self.lr / slower,
            deficits=deficits,
            modes=modes,
            record_every=max(steps // records, 1),
        )

    def windows(self, onsets: Mapping[str, int]) -> dict[str, Deficits]:
        """Early, middle and late deficits, one at a random time, one that acts nine times in ten, and none."""
        generator = generator_of(self.seed, RANDOM_ONSET)
        random = int(torch.randint(self.steps - self.length + 1, (), generator=generator))
        coin = DeficitSchedule(
            0, self.length, "bernoulli", 0.9, seed=int(generator_of(self.seed, COIN).initial_seed()) % 2**31
        )
        return {
            **{name: {1: DeficitSchedule(onset, self.length)} for name, onset in onsets.items()},
            "random": {1: DeficitSchedule(random, self.length)},
            "early, 9 of 10 steps": {1: coin},
            "no deficit": {},
        }


def deficits_by_onset(track: Pathways, depth: int, onsets: Mapping[str, int]) -> Iterator[Measurement]:
    """What B is left with, mode by mode, and how both got there."""
    windows = track.windows(onsets)
    run = track.train(depth, list(windows.values()), records=POINTS)
    for index, name in enumerate(windows):
        share = run.share[-1, index, 1]
        for mode, value in enumerate(share.tolist(), 1):
            yield Measurement(name, SHARE, value, item=f"mode {mode}")
        judged = share[:JUDGED_MODES]
        yield Measurement(name, LARGEST, float(judged.max()))
        yield Measurement(name, FROM_HALF, float((judged - 0.5).abs().max()))
        if name in onsets:
            at = int((run.steps <= onsets[name]).sum()) - 1
            yield Measurement(name, "loss at onset / at start", float(run.loss[at, index] / run.loss[0, index]))
            for record, step in enumerate(run.steps.tolist()):
                for path, letter in enumerate("AB"):
                    yield Measurement(
                        name, f"K of {letter}, mode 1", float(run.modes[record, index, path, 0]), step=step
                    )


def onset_curve(track: Pathways, depths: Sequence[int], onsets: Sequence[int]) -> Iterator[Measurement]:
    """B's share of the first four modes against the onset of the deficit."""
    for depth in depths:
        run = track.train(depth, [{1: DeficitSchedule(onset, track.length)} for onset in onsets])
        for onset, share in zip(onsets, run.share[-1, :, 1, :JUDGED_MODES].mean(1).tolist(), strict=True):
            yield Measurement(f"depth {depth}", "share of B by onset", share, x=float(onset))


def against_the_equation(
    track: Pathways, depth: int, onsets: Sequence[int], slower: Sequence[int]
) -> Iterator[Measurement]:
    """Largest distance in K of the network from the equation, over all modes, both pathways and all onsets.

    The equation is taken as a flow, and in Euler steps of the size of the network's, as the published figure has it.
    """
    x, y = hierarchy()
    modes = target_modes(x, y)
    start = track.start(modes, depth, 1, "linear").pathway_modes(modes.left, modes.right)[0].detach().double().numpy()
    every = max(track.steps // 200, 1)
    times = track.lr * np.arange(0, track.steps + 1, every)

    def race(onset: int, dt: float | None) -> np.ndarray:
        window = track.lr * onset, track.lr * (onset + track.length)
        return pathway_race(modes.values.double().numpy(), depth, start ** (1 / depth), times, {1: window}, dt=dt)

    flows = [race(onset, None) for onset in onsets]
    for factor in slower:
        deficits = [{1: DeficitSchedule(onset * factor, track.length * factor)} for onset in onsets]
        run = track.train(depth, deficits, slower=factor, records=track.steps // every)
        network = run.modes[: len(times)].double().numpy().transpose(1, 0, 2, 3)
        steps = [race(onset, track.lr / factor) for onset in onsets]
        for name, races in (("flow", flows), ("equation in steps", steps)):
            worst = max(float(np.abs(net - path).max()) for net, path in zip(network, races, strict=True))
            yield Measurement(f"step size / {factor}", f"largest distance in K from the {name}", worst)


def depth_effect(
    track: Pathways, depths: Sequence[int], p0: float, value: float, duration: float, lr: float, horizon: float
) -> Iterator[Measurement]:
    """B's share after the same short deficit from the same p0, by the equation and in networks of noisy starts."""
    x, y = hierarchy()
    left, _, right = target_modes(x, y)
    modes = TargetModes(left, torch.full((left.shape[1],), value), right)
    for depth in depths:
        network = track.start(modes, depth, 1, "linear", scale=p0**depth)
        run = train_pathways(
            network,
            x,
            (left * value @ right.mT).mT,
            steps=round(horizon / lr),
            lr=lr,
            deficits=[{1: DeficitSchedule(0, round(duration / lr))}],
            modes=modes,
            record_every=round(horizon / lr),
        )
        yield Measurement(f"depth {depth}", "share of B from the same p0, network", float(run.share[-1, 0, 1].mean()))
        share = final_share([value], depth, [[p0], [p0]], {1: (0.0, duration)})[1, 0]
        yield Measurement(f"depth {depth}", "share of B from the same p0, equation", float(share))
        for short in (0.2, 1.0):
            same = np.full((2, 1), 0.01 ** (1 / depth))
            share = final_share([3.0], depth, same, {1: (0.0, short)})[1, 0]
            yield Measurement(f"depth {depth}", f"share of B from the same K, deficit of {short:g}", float(share))


def masked_mode(track: Pathways, depth: int, mode: int, length: int) -> Iterator[Measurement]:
    """Does B get the mode that A cannot see while B is frozen, and only that one?"""
    frozen = DeficitSchedule(0, length)
    masks = {"freeze": 0, "freeze and mask": length, "freeze, mask for good": track.steps}
    deficits: list[Deficits] = [
        {1: frozen, **({0: DeficitSchedule(0, until, "mask_mode", mode=mode)} if until else {})}
        for until in masks.values()
    ]
    run = track.train(depth, deficits)
    for name, share in zip(masks, run.share[-1, :, 1], strict=True):
        others = torch.cat([share[:mode], share[mode + 1 :]])
        yield Measurement(name, "share of B in the masked mode", float(share[mode]))
        yield Measurement(name, "largest share of B in another mode", float(others.max()))


def nonlinear_pathways(track: Pathways, depth: int, early: int, late: int) -> Iterator[Measurement]:
    """The same with tanh and ReLU after every layer."""
    kinds: tuple[Nonlinearity, ...] = ("linear", "tanh", "relu")
    for nonlinearity in kinds:
        deficits = [{1: DeficitSchedule(onset, track.length)} for onset in (early, late)]
        run = track.train(depth, deficits, nonlinearity=nonlinearity)
        share = run.share[-1, :, 1, :JUDGED_MODES]
        yield Measurement(
            nonlinearity, "smallest gain of B, late over early, modes 1 to 4", float((share[1] - share[0]).min())
        )
        for when, value in zip(("early", "late"), share.mean(1).tolist(), strict=True):
            yield Measurement(nonlinearity, f"share of B, modes 1 to 4, {when}", value)


@dataclass(frozen=True)
class Completion:
    """Completion of one matrix after another task, all from one start a depth."""

    seed: int
    n: int
    rank: int
    further: int
    lr: float
    scale: float

    def seed_of(self, draw: int) -> int:
        """Seed of a further draw of matrices and starts."""
        return int(generator_of(self.seed, DRAW, draw).initial_seed()) % 2**31

    def task(self, rank: int, entries: int, draw: int = 0) -> CompletionTask:
        return completion_task(self.n, rank, entries, self.seed, draw=draw)

    def train(
        self,
        depth: int,
        pairs: Sequence[tuple[CompletionTask, CompletionTask]],
        switches: Sequence[int],
        seeds: Sequence[int] | None = None,
        *,
        record_every: int | None = None,
    ) -> CompletionRun:
        seeds = [self.seed] * len(pairs) if seeds is None else seeds
        products = DeepMatrixFactorization.gaussian(self.n, depth, seeds=seeds, scale=self.scale)
        first, then = zip(*pairs, strict=True)
        return train_completion(
            products, first, then, switches, further=self.further, lr=self.lr, record_every=record_every
        )


def completion_by_switch(
    track: Completion, depths: Sequence[int], switches: Sequence[int], rank: int, entries: int, shown: int
) -> Iterator[Measurement]:
    """Error against T_c for each depth, and how singular values move around one switch."""
    pair = (track.task(rank, entries, draw=1), track.task(track.rank, entries))
    worst = 0.0
    for depth in depths:
        run = track.train(depth, [pair] * len(switches), switches)
        worst = max(worst, float(run.train_loss.max()))
        yield Measurement(f"depth {depth}", "spread of the error over T_c", float(run.error.max() - run.error.min()))
        for switch, error in zip(switches, run.error.tolist(), strict=True):
            spell = "no first task" if switch == switches[0] else "longest" if switch == switches[-1] else "between"
            yield Measurement(f"depth {depth}, {spell}", "error", error, x=float(switch), item=f"depth {depth}")
    yield Measurement("all runs", "largest train loss", worst)
    every = max((shown + track.further) // POINTS, 1)
    run = track.train(max(depths), [pair] * 2, (0, shown), record_every=every)
    for index, switch in enumerate((0, shown)):
        kept = run.singular_values[:, index]
        for step, values, error in zip(run.steps, kept.tolist(), run.errors[:, index].tolist(), strict=True):
            if np.isfinite(error):
                for order, value in enumerate(values, 1):
                    name = "after a first task" if switch else "second task alone"
                    yield Measurement(name, "singular value", value, step=step, x=float(switch), item=f"{order:02d}")


def structure_of_the_first_task(
    track: Completion,
    depth: int,
    switch: int,
    ranks: Sequence[int],
    numbers: Sequence[int],
    rank: int,
    entries: int,
    draws: int,
) -> Iterator[Measurement]:
    """Error after a long first task by its rank, and by the number of entries that are seen.

    The first draw of matrices and starts is that of the other experiments; further ones are independent.
    """
    settings = [(r, entries) for r in ranks] + [(rank, number) for number in numbers]
    tracks = [track, *(replace(track, seed=track.seed_of(draw)) for draw in range(1, draws))]
    pairs = [(own.task(r, number, draw=1), own.task(own.rank, number)) for own in tracks for r, number in settings]
    seeds = [own.seed for own in tracks for _ in settings]
    run = track.train(depth, pairs, [switch] * len(pairs), seeds)
    for index, error in enumerate(run.error.tolist()):
        draw, place = divmod(index, len(settings))
        r, number = settings[place]
        if place < len(ranks):
            name, metric, x = f"rank {place + 1}", "error by rank of the first task", r
        else:
            name, metric, x = f"entries {place - len(ranks) + 1}", "error by number of entries", number
        yield Measurement(name, metric, error, x=float(x), item=f"draw {draw}")


def fewer_examples(
    track: Completion, depth: int, switches: Sequence[int], few: int, full: Sequence[int]
) -> Iterator[Measurement]:
    """Error after a first phase on a part of the entries of the same matrix."""
    runs = [(number, switch) for number in full for switch in switches]
    whole = {number: track.task(track.rank, number) for number in full}
    run = track.train(depth, [(whole[n].first(few), whole[n]) for n, _ in runs], [switch for _, switch in runs])
    for (number, switch), error in zip(runs, run.error.tolist(), strict=True):
        amount = "many" if number == full[0] else "few"
        name = f"{amount} entries, {'fewer before' if switch else 'all along'}"
        yield Measurement(name, "error after fewer entries", error, x=float(switch), item=f"{number} entries")
