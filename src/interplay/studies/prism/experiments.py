"""The study's data, its trained networks, and what is measured on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import expit, logit
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss
from torch import Tensor
from torch.nn import functional

from interplay.agents.prism import (
    CostGate,
    DualProcessGate,
    GateAlignedLoss,
    PairCalibrator,
    RDCSelector,
    UserWorld,
    burden_curve,
    proactive_metrics,
    reliability,
)
from interplay.agents.prism.world import HISTORY, WorldKind
from interplay.evidence import Measurement
from interplay.primitives.randomness import generator_of
from interplay.studies.prism.students import Students, judge, next_event_loss, train

WORLD, EVENTS, LOGGER, TEACHER, CORRUPTION, SELECTION, FAST, SLOW, IMITATION, INFLATION, ROUTING, EXACT = range(12)
SPLITS = ("train", "calibration", "test")
TEACHER_SHARPNESS, TEACHER_NOISE, EAGERNESS = 1.8, 0.6, 2.5
SELECTIONS = ("all", "random", "published ranking", "stratified ranking", "bottom")
Labels = Bool[np.ndarray, " events"]
Pairs = Float[np.ndarray, "events pair=2"]


@dataclass(frozen=True)
class Training:
    """How every network of the study is trained."""

    fast_events: int
    fast_hidden: int
    slow_hidden: int
    steps: int
    batch_size: int
    lr: float
    networks: int


class Split(NamedTuple):
    """Streams of twelve events, labels at the last, the event after it, the exact pair, and a logger's offers."""

    tokens: Int[Tensor, "events history tokens=2"]
    next_tokens: Int[Tensor, "events tokens=2"]
    y_need: Labels
    y_accept: Labels
    exact: Pairs
    teacher: Pairs
    spoke: Labels
    propensity: Float[np.ndarray, " events"]


def stream(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=purpose))


def draw_splits(seed: int, kind: WorldKind, gate: CostGate, sizes: tuple[int, int, int]) -> dict[str, Split]:
    """Training, calibration and test events of one world.

    The teacher has the exact probabilities, sharpened and blurred. The logger mostly follows the teacher's gate and
    makes an offer with a probability between 0.1 and 0.9, so that acceptance is seen more where it is likely.
    """
    world = UserWorld.draw(kind, generator=stream(seed, WORLD))
    splits = {}
    for index, (name, size) in enumerate(zip(SPLITS, sizes, strict=True)):
        episodes = world.sample(size, HISTORY + 1, generator=stream(seed, EVENTS, index))
        exact = np.stack(world.judge(episodes.tokens[:, :HISTORY]), axis=1)
        noise = stream(seed, TEACHER, index).normal(scale=TEACHER_NOISE, size=exact.shape)
        teacher = expit(TEACHER_SHARPNESS * logit(exact) + noise)
        propensity = 0.1 + 0.8 * expit(gate.margin(*teacher.T) / 0.1)
        splits[name] = Split(
            torch.from_numpy(episodes.tokens[:, :HISTORY]),
            torch.from_numpy(episodes.tokens[:, HISTORY]),
            episodes.y_need[:, HISTORY - 1],
            episodes.y_accept[:, HISTORY - 1],
            exact,
            teacher,
            stream(seed, LOGGER, index).random(size) < propensity,
            propensity,
        )
    return splits


class Judged(NamedTuple):
    """One network's raw pair on calibration and test events, and its calibrator."""

    calibration: Pairs
    test: Pairs
    calibrator: PairCalibrator

    @property
    def calibrated(self) -> Pairs:
        return np.stack(self.calibrator.transform(*self.test.T), axis=1)


def train_on_labels(
    seed: int, worlds: Mapping[str, dict[str, Split]], gate: CostGate, training: Training, *, slow: bool
) -> dict[str, list[Judged]]:
    """Students trained by the gate-aligned loss on what the logger saw, several in each world."""
    purpose = SLOW if slow else FAST
    owners = [name for name in worlds for _ in range(training.networks)]
    hidden = training.slow_hidden if slow else training.fast_hidden
    students = Students(len(owners), hidden, counterfactual=slow, generator=generator_of(seed, purpose, 0))
    seen = HISTORY if slow else training.fast_events
    data = [worlds[owner] for owner in owners]
    losses = GateAlignedLoss(gate)
    targets = [
        tuple(
            torch.from_numpy(np.asarray(values, dtype=np.float32))
            for values in (own["train"].y_need, own["train"].y_accept, own["train"].spoke, own["train"].propensity)
        )
        for own in data
    ]

    def loss(network: int, rows: Tensor, pair: tuple[Tensor, Tensor], upcoming: Tensor | None) -> Tensor:
        own = [values[rows] for values in targets[network]]
        total = losses(*pair, *own)["loss"]
        if upcoming is None:
            return total
        return total + next_event_loss(upcoming, own[2].long(), data[network]["train"].next_tokens[rows])

    train(
        students,
        [own["train"].tokens[:, -seen:] for own in data],
        loss,
        steps=training.steps,
        batch_size=training.batch_size,
        lr=training.lr,
        generator=generator_of(seed, purpose, 1),
    )
    judged: dict[str, list[Judged]] = {name: [] for name in worlds}
    pairs = {name: judge(students, [own[name].tokens[:, -seen:] for own in data]) for name in SPLITS[1:]}
    for network, owner in enumerate(owners):
        judged[owner].append(_calibrated(pairs, network, worlds[owner]["calibration"]))
    return judged


def _calibrated(pairs: Mapping[str, Float[np.ndarray, "networks events pair=2"]], network: int, split: Split) -> Judged:
    raw, test = pairs["calibration"][network], pairs["test"][network]
    return Judged(raw, test, PairCalibrator().fit(*raw.T, split.y_need, split.y_accept))


def outcomes(condition: str, speak: Labels, test: Split, gate: CostGate, **where: str) -> Iterator[Measurement]:
    """What a rule's decisions achieve on the test events."""
    metrics = proactive_metrics(speak, test.y_need, test.y_accept)
    world = where.pop("world", "")
    for name, value in (
        ("false alarm", metrics.false_alarm),
        ("F1", metrics.f1),
        ("recall", metrics.recall),
        ("accuracy", metrics.accuracy),
        ("cost per event", float(gate.realised_cost(speak, test.y_need, test.y_accept).mean())),
        ("speak rate", float(speak.mean())),
    ):
        yield Measurement(condition, f"{name}{world}", value, **where)


def gates(judged: Judged, gate: CostGate) -> dict[str, Labels]:
    """The four gates around one student, and the student without a gate."""
    p_need, p_acc = judged.calibrated.T
    return {
        "acceptance only": gate.decide(np.ones_like(p_acc), p_acc),
        "need only": p_need >= 0.5,
        "dual, uncalibrated": gate.decide(*judged.test.T),
        "dual": gate.decide(p_need, p_acc),
        "ungated": p_acc >= 0.5,
    }


def four_gates(world: str, students: list[Judged], test: Split, gate: CostGate) -> Iterator[Measurement]:
    """One student under four gates; how far apart they are in this world."""
    suffix = "" if world == "coupled" else f", {world} world"
    gaps: dict[str, list[float]] = {}
    for network, judged in enumerate(students):
        rows = []
        for name, speak in gates(judged, gate).items():
            rows += list(outcomes(name, speak, test, gate, item=f"network {network}", world=suffix))
        yield from rows
        found = {(row.condition, row.metric.removesuffix(suffix)): row.value for row in rows}
        for metric, sign in (("false alarm", 1), ("F1", -1)):
            for more, less in (("acceptance only", "need only"), ("need only", "dual")):
                gap = sign * (found[more, metric] - found[less, metric])
                gaps.setdefault(f"{metric} gap of {more} and {less}", []).append(gap)
    for name, values in gaps.items():
        yield Measurement(world, name, float(np.mean(values)))


def calibration(students: list[Judged], test: Split) -> Iterator[Measurement]:
    """Calibration errors and reliability of both probabilities, before and after."""
    for network, judged in enumerate(students):
        for condition, pairs in (("uncalibrated", judged.test), ("calibrated", judged.calibrated)):
            yield from _calibration_of(condition, pairs, test, f"network {network}")
        for head, scaler in (("need", judged.calibrator.need_), ("acceptance", judged.calibrator.acceptance_)):
            yield Measurement("dual", f"temperature of {head}", scaler.temperature_, item=f"network {network}")


def _calibration_of(condition: str, pairs: Pairs, test: Split, item: str) -> Iterator[Measurement]:
    for head, p, y in zip(("need", "acceptance"), pairs.T, (test.y_need, test.y_accept), strict=True):
        bins = reliability(p, y)
        yield Measurement(condition, f"ECE of {head}", bins.expected_calibration_error, item=item)
        yield Measurement(condition, f"Brier score of {head}", brier_score_loss(y, p), item=item)
        for index, (observed, count) in enumerate(zip(bins.observed, bins.count, strict=True)):
            if count >= 20:
                yield Measurement(condition, f"reliability of {head}", observed, x=(index + 0.5) / 15, item=item)


def best_threshold(score: Float[np.ndarray, " events"], y_need: Labels, y_accept: Labels, gate: CostGate) -> float:
    """The threshold on a score with the least realised cost, exactly: all events from some rank on are spoken to."""
    order = np.argsort(score)
    missed = np.append(0.0, np.cumsum(gate.c_fn * (y_need & y_accept)[order]))
    refused = np.append(np.cumsum(gate.c_fa * ~y_accept[order][::-1])[::-1], 0.0)
    ordered = np.append(score[order], np.inf)
    first = np.append(True, ordered[1:] > ordered[:-1])  # equal scores are decided alike
    return float(ordered[first][np.argmin((missed + refused)[first])])


def inflated(
    seed: int, students: list[Judged], splits: Mapping[str, Split], gate: CostGate, inflation: float, noise: float
) -> Iterator[Measurement]:
    """An over-confident, noisy student: a fixed threshold against the gate, before and after calibration."""
    held_out, test = splits["calibration"], splits["test"]
    for network, judged in enumerate(students):
        draws = stream(seed, INFLATION, network)
        raw, shown = (
            expit(inflation * logit(pairs) + draws.normal(scale=noise, size=pairs.shape))
            for pairs in (judged.calibration, judged.test)
        )
        calibrator = PairCalibrator().fit(*raw.T, held_out.y_need, held_out.y_accept)
        fixed = best_threshold(raw[:, 1], held_out.y_need, held_out.y_accept, gate)
        item = f"network {network}"
        yield from outcomes("inflated, fixed threshold", shown[:, 1] >= fixed, test, gate, item=item)
        yield from outcomes("inflated, dynamic", gate.decide(*shown.T), test, gate, item=item)
        calibrated = np.stack(calibrator.transform(*shown.T), axis=1)
        yield from outcomes("inflated and calibrated, dynamic", gate.decide(*calibrated.T), test, gate, item=item)
        yield from _calibration_of("inflated", shown, test, item)
        yield from _calibration_of("inflated and calibrated", calibrated, test, item)


def deliberation(
    seed: int,
    fast: list[Judged],
    slow: list[Judged],
    test: Split,
    gate: CostGate,
    deltas: tuple[float, ...],
    main: float,
    draws: int,
) -> Iterator[Measurement]:
    """Slow everywhere, nowhere, near the margin, and on as many events chosen at random."""
    events = np.arange(len(test.y_need))
    routed_share: dict[float, list[float]] = {}
    cost: dict[str, list[float]] = {}
    for network, (quick, thorough) in enumerate(zip(fast, slow, strict=True)):
        quick_pair, thorough_pair, item = quick.calibrated, thorough.calibrated, f"network {network}"
        slow_speaks = gate.decide(*thorough_pair.T)
        rows = [*outcomes("fast only", gate.decide(*quick_pair.T), test, gate, item=item)]
        rows += outcomes("slow only", slow_speaks, test, gate, item=item)
        for delta in deltas:
            agent = DualProcessGate(
                gate,
                fast=lambda rows, judged=quick: tuple(judged.test[rows].T),
                slow=lambda rows, judged=thorough: tuple(judged.test[rows].T),
                delta_slow=delta,
                calibrator=quick.calibrator,
                slow_calibrator=thorough.calibrator,
            )
            decision = agent(events)
            routed_share.setdefault(delta, []).append(decision.n_slow / len(events))
            for row in outcomes("near the margin", decision.speak, test, gate, item=item):
                yield row._replace(metric=f"{row.metric} by delta", x=delta)
                if delta == main:
                    rows.append(row)
            generator = stream(seed, ROUTING, network, deltas.index(delta))
            random = [
                outcomes("random routing", _randomly(decision, slow_speaks, quick_pair, gate, generator), test, gate)
                for _ in range(draws)
            ]
            for same in zip(*random, strict=True):
                row = same[0]._replace(value=float(np.mean([each.value for each in same])), item=item)
                yield row._replace(metric=f"{row.metric} by delta", x=delta)
                if delta == main:
                    rows.append(row)
        yield from rows
        for row in rows:
            if row.metric == "cost per event":
                cost.setdefault(row.condition, []).append(row.value)
    for delta, shares in routed_share.items():
        yield Measurement("near the margin", "slow-call rate", float(np.mean(shares)), x=delta)
    mean = {name: float(np.mean(values)) for name, values in cost.items()}
    gain = (mean["fast only"] - mean["near the margin"]) / (mean["fast only"] - mean["slow only"])
    share = float(np.mean(routed_share[main]))
    yield Measurement("near the margin", "share of the slow gain", gain)
    yield Measurement("near the margin", "share of the slow gain / share routed", gain / share if share else np.nan)


def _randomly(
    decision: object, slow_speaks: Labels, quick_pair: Pairs, gate: CostGate, generator: np.random.Generator
) -> Labels:
    """The fast decisions with as many events, chosen at random, decided by the slow pass."""
    speak = gate.decide(*quick_pair.T)
    rows = generator.permutation(len(speak))[: decision.n_slow]  # type: ignore[attr-defined]
    speak[rows] = slow_speaks[rows]
    return speak


def curation(
    seed: int, splits: Mapping[str, Split], gate: CostGate, training: Training, fraction: float
) -> Iterator[Measurement]:
    """Students that imitate an over-eager teacher on all of its traces or on some, by how these are chosen."""
    lesson, held_out, test = (splits[name] for name in SPLITS)
    corrupt = stream(seed, CORRUPTION).random(len(lesson.y_need)) < 0.5
    eager = expit(logit(lesson.teacher) + EAGERNESS * corrupt[:, None])
    chosen = _selections(seed, eager, lesson, fraction)
    for name, rows in chosen.items():
        yield Measurement(name, "share of corrupted traces, eager teacher", float(corrupt[rows].mean()))
        yield Measurement(name, "share of accepted traces, eager teacher", float(lesson.y_accept[rows].mean()))
    yield from _noisy_teacher(seed, lesson, fraction)

    owners = [name for name in SELECTIONS for _ in range(training.networks)]
    students = Students(len(owners), training.fast_hidden, generator=generator_of(seed, IMITATION, 0))
    recent = lesson.tokens[:, -training.fast_events :]
    targets = [torch.from_numpy(eager[chosen[name]].astype(np.float32)) for name in owners]

    def loss(network: int, rows: Tensor, pair: tuple[Tensor, Tensor], upcoming: Tensor | None) -> Tensor:
        need, acceptance = targets[network][rows].unbind(-1)
        return functional.binary_cross_entropy(pair[0], need) + functional.binary_cross_entropy(pair[1], acceptance)

    train(
        students,
        [recent[torch.from_numpy(chosen[name].copy())] for name in owners],
        loss,
        steps=training.steps,
        batch_size=training.batch_size,
        lr=training.lr,
        generator=generator_of(seed, IMITATION, 1),
    )
    pairs = {
        name: judge(students, [splits[name].tokens[:, -training.fast_events :]] * len(owners)) for name in SPLITS[1:]
    }
    for network, name in enumerate(owners):
        judged = _calibrated(pairs, network, held_out)
        item = f"network {network % training.networks}"
        yield from outcomes(f"imitates {name}", gate.decide(*judged.calibrated.T), test, gate, item=item)
        for row in outcomes(f"imitates {name}", gate.decide(*judged.test.T), test, gate, item=item):
            yield row._replace(metric=f"{row.metric}, uncalibrated")
        if name == "all":
            yield from outcomes("ungated SFT", judged.test[:, 1] >= 0.5, test, gate, item=item)


def _selections(seed: int, teacher: Pairs, lesson: Split, fraction: float) -> dict[str, Int[np.ndarray, " kept"]]:
    """Rows of the traces that each student imitates."""
    traces = dict(zip(("q_need", "q_acc"), teacher.T, strict=True), y_need=lesson.y_need, y_accept=lesson.y_accept)
    everything = np.arange(len(lesson.y_need))
    published = RDCSelector().fit(traces)
    kept = published.select(fraction)
    chosen = (
        everything,
        stream(seed, SELECTION).permutation(everything)[: len(kept)],
        kept,
        RDCSelector(stratify=True).fit(traces).select(fraction),
        published.select(len(everything))[len(everything) - len(kept) :],
    )
    return dict(zip(SELECTIONS, chosen, strict=True))


def _noisy_teacher(seed: int, lesson: Split, fraction: float) -> Iterator[Measurement]:
    """How much of a teacher's pure noise, a fifth of its traces, the selections let through."""
    draws = stream(seed, CORRUPTION, 1)
    corrupt = draws.random(len(lesson.y_need)) < 0.2
    noisy = np.where(corrupt[:, None], draws.random(lesson.teacher.shape), lesson.teacher)
    for name, rows in _selections(seed, noisy, lesson, fraction).items():
        yield Measurement(name, "share of corrupted traces, noisy teacher", float(corrupt[rows].mean()))


def knobs(students: list[Judged], slow: list[Judged], test: Split) -> Iterator[Measurement]:
    """Benefit and burden as the ratio of the costs is swept, for all gates around the same student."""
    grid = np.linspace(0, 1, 41)
    for network, (judged, thorough) in enumerate(zip(students, slow, strict=True)):
        item = f"network {network}"
        for name, pairs, rule in (
            ("dual", judged.calibrated, CostGate.decide),
            ("dual, uncalibrated", judged.test, CostGate.decide),
            ("acceptance only", judged.calibrated, lambda gate, p, q: gate.decide(np.ones_like(q), q)),
            ("need only", judged.calibrated, lambda gate, p, q: p >= gate.threshold(1.0)),
            ("slow only", thorough.calibrated, CostGate.decide),
        ):
            curve = burden_curve(*pairs.T, test.y_need, test.y_accept, rule=rule)
            yield Measurement(name, "AUDBC", curve.audbc, item=item)
            relative = curve.burden / curve.always_burden
            for x in grid:
                within = curve.benefit[relative <= x]
                yield Measurement(name, "benefit by burden", float(within.max(initial=0.0)), x=x, item=item)
            if name == "dual":
                monotone = spearmanr(curve.ratios, curve.speak_rate).statistic
                yield Measurement(name, "rank correlation of cost ratio and speak rate", monotone, item=item)
                for ratio, rate in zip(curve.ratios, curve.speak_rate, strict=True):
                    yield Measurement(name, "speak rate by cost ratio", rate, x=ratio, item=item)
    need, acceptance = students[0].calibrated.T
    share, edges, _ = np.histogram2d(need, acceptance, bins=20, range=((0, 1), (0, 1)))
    centres = (edges[:-1] + edges[1:]) / 2
    for row, column in np.argwhere(share > 0):
        label = f"{centres[column]:.3f}"
        yield Measurement("dual", "share of events", share[row, column] / share.sum(), x=centres[row], item=label)


def exact_probabilities(seed: int, gate: CostGate, events: int) -> Iterator[Measurement]:
    """Need and acceptance independent, exact probabilities: the gate against the best thresholds in hindsight."""
    world = UserWorld.draw("independent", generator=stream(seed, WORLD))
    episodes = world.sample(events, generator=stream(seed, EXACT))
    need, accept = episodes.y_need[:, -1], episodes.y_accept[:, -1]
    p_need, p_acc = world.judge(episodes.tokens)
    rules = {"gate": gate.decide(p_need, p_acc)}
    for name, score in (("acceptance", p_acc), ("need", p_need), ("their product", p_need * p_acc)):
        rules[f"best threshold on {name}"] = score >= best_threshold(score, need, accept, gate)
    for name, speak in rules.items():
        cost = float(gate.realised_cost(speak, need, accept).mean())
        yield Measurement(name, "cost per event, exact probabilities", cost)
