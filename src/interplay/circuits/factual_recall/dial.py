"""Scale one head's output: a dial between context and memory (eq. 5 of the package)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Literal, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.circuits.factual_recall.attribution import Attribution, Head, Norm, head_attribution
from interplay.circuits.factual_recall.batches import Batch, Questions
from interplay.circuits.factual_recall.outcomes import answered_right, model_inputs, resolve_conflict
from interplay.primitives.activations import Edit, Site, edit
from interplay.primitives.decoders import Decoder
from interplay.primitives.positions import Positions

Target = Literal["in-context", "memorized"]
GAINS = (-8.0, -6.0, -4.0, -3.0, -2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


class HeadScaler:
    """Multiply the outputs z of some heads by a gain each, inside a context.

    Attention is linear in the values, so this is the same as scaling the head's value vectors; with grouped-query
    attention, where several query heads share one value vector, it still touches the one head. A gain of 1 installs
    nothing.

    Parameters
    ----------
    model
        A Hugging Face decoder.
    gains
        {(layer, head): gain}; above 1 amplifies, 0 removes, below 0 reverses.
    positions
        Which columns of the batch, as in `interplay.primitives.positions`.

    Raises
    ------
    ValueError
        A gain that is not finite.
    IndexError
        A head that the model does not have.

    Examples
    --------
    ::

        with HeadScaler(model, {(15, 7): -2.0}):
            model.generate(**inputs)
    """

    def __init__(self, model: nn.Module, gains: Mapping[tuple[int, int], float], positions: Positions = "all") -> None:
        decoder = Decoder(model)
        by_layer: dict[int, dict[int, float]] = {}
        for (layer, head), gain in gains.items():
            decoder.check(layer, head)
            if not math.isfinite(gain):
                raise ValueError(f"the gain of head (layer {layer}, head {head}) must be finite; got {gain}")
            if gain != 1:
                by_layer.setdefault(layer, {})[head] = gain
        self._model, self._positions = model, positions
        self._edits = {Site("heads", layer): _scale(decoder.n_heads, heads) for layer, heads in by_layer.items()}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(edit(self._model, self._edits, positions=self._positions))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def _scale(n_heads: int, gains: Mapping[int, float]) -> Edit:
    column = torch.ones(n_heads, 1)
    for head, gain in gains.items():
        column[head] = gain

    def scaled(z: Float[Tensor, "*positions head width"]) -> Float[Tensor, "*positions head width"]:
        nonlocal column
        column = column.to(z)
        return z * column

    return scaled


class DialPoint(NamedTuple):
    """Outcome rates with some heads at one gain."""

    heads: tuple[Head, ...]
    gain: float
    in_context: float
    memorized: float
    other: float

    def rate(self, target: Target) -> float:
        """The rate of the target."""
        return self.in_context if target == "in-context" else self.memorized


def scan_gains(
    model: nn.Module,
    batch: Batch,
    candidates: Iterable[Sequence[tuple[int, int]]],
    gains: Sequence[float] = GAINS,
    *,
    positions: Positions = "all",
    batch_size: int = 64,
) -> list[DialPoint]:
    """Resolve the conflicts with every candidate, a group of heads that share one gain, at every gain."""
    groups = [tuple(Head(*head) for head in candidate) for candidate in candidates]
    unscaled: DialPoint | None = None
    points = []
    for group in groups:
        for gain in gains:
            if gain == 1 and unscaled is not None:
                points.append(unscaled._replace(heads=group))
                continue
            with HeadScaler(model, dict.fromkeys(group, gain), positions):
                rates = resolve_conflict(model, batch, batch_size=batch_size).rates
            point = DialPoint(group, float(gain), *(rate.rate for rate in rates.values()))
            unscaled = point if gain == 1 else unscaled
            points.append(point)
    return points


def choose_gain(points: Sequence[DialPoint], target: Target, max_other: float = 0.1) -> DialPoint:
    """The highest target rate among the points with few other answers; of equals the gain closest to 1.

    If no point has so few other answers, the one with the fewest.
    """
    feasible = [point for point in points if point.other <= max_other]
    if not feasible:
        return min(points, key=lambda point: (point.other, abs(point.gain - 1)))
    return max(feasible, key=lambda point: (point.rate(target), -abs(point.gain - 1)))


class Collateral(NamedTuple):
    """What a dial costs elsewhere, each as (without, with): see `ContextMemoryDial.collateral`."""

    closed_book: tuple[float, float]
    cross_entropy: tuple[float, float]
    copying: tuple[float, float]


class ContextMemoryDial:
    """Make a model trust the context, or its memory, by scaling one attention head.

    Parameters
    ----------
    target
        Whose answers to raise: ``"in-context"`` or ``"memorized"``.
    max_other
        Highest share of answers from neither source that a gain may cause on the development prompts.
    gains
        The grid to search; it should hold 1, which is "leave the head alone".
    norm
        The attribution's treatment of the final norm.
    positions
        Where the head is scaled.
    batch_size
        Prompts a forward pass.

    Attributes
    ----------
    head_, alpha_
        The chosen head and gain.
    curve_
        All points of the search.
    attribution_
        The head scores on the development prompts; None if candidates were given.
    feasible_
        Whether a gain other than 1 raises the target within `max_other`.

    Examples
    --------
    ::

        dial = ContextMemoryDial("in-context").fit(model, development)
        with dial.apply(model):
            model.generate(**inputs)
    """

    def __init__(
        self,
        target: Target = "in-context",
        *,
        max_other: float = 0.1,
        gains: Sequence[float] = GAINS,
        norm: Norm = "linear",
        positions: Positions = "all",
        batch_size: int = 64,
    ) -> None:
        if target not in ("in-context", "memorized"):
            raise ValueError(f"target={target!r}: allowed are 'in-context' and 'memorized'")
        if not 0 <= max_other <= 1:
            raise ValueError(f"max_other={max_other}: a share lies in [0, 1]")
        if not gains or not all(math.isfinite(gain) for gain in gains):
            raise ValueError(f"gains must be finite numbers, at least one; got {tuple(gains)}")
        self.target: Target = target
        self.max_other, self.gains, self.norm = max_other, tuple(gains), norm
        self.positions, self.batch_size = positions, batch_size

    def fit(self, model: nn.Module, development: Batch, candidates: Iterable[tuple[int, int]] | None = None) -> Self:
        """Choose head and gain on development prompts.

        Parameters
        ----------
        model
            A Hugging Face causal language model in evaluation mode.
        development
            Conflicts whose subjects and offered answers will not be reported on.
        candidates
            The heads to search; by default the strongest memory head and the strongest in-context head by attribution.

        Warns
        -----
        UserWarning
            No gain other than 1 raises the target rate within `max_other`; `feasible_` is False then.
        """
        self.attribution_: Attribution | None = None
        if candidates is None:
            self.attribution_ = head_attribution(model, development, self.norm, batch_size=self.batch_size)
            candidates = (self.attribution_.memory_head, self.attribution_.in_context_head)
        self.curve_ = scan_gains(
            model,
            development,
            [(head,) for head in candidates],
            self.gains,
            positions=self.positions,
            batch_size=self.batch_size,
        )
        return self._choose(self.curve_)

    def fit_curve(self, points: Sequence[DialPoint]) -> Self:
        """Choose head and gain from points that `scan_gains` measured already, each for one head."""
        if not points or any(len(point.heads) != 1 for point in points):
            raise ValueError("points must hold at least one point, and each of them one head")
        self.attribution_ = None
        self.curve_ = list(points)
        return self._choose(self.curve_)

    def _choose(self, points: Sequence[DialPoint]) -> Self:
        best = choose_gain(points, self.target, self.max_other)
        (self.head_,) = best.heads
        self.alpha_ = best.gain
        undisturbed = max((point.rate(self.target) for point in points if point.gain == 1), default=0.0)
        self.feasible_ = best.other <= self.max_other and best.rate(self.target) > undisturbed
        if not self.feasible_:
            warnings.warn(
                f"no gain raises the {self.target} rate with at most {self.max_other:.0%} other answers; the best is "
                f"head {self.head_} at gain {self.alpha_:g}: {best.rate(self.target):.0%} and {best.other:.0%} other",
                stacklevel=3,
            )
        return self

    def apply(self, model: nn.Module) -> HeadScaler:
        """A context in which the model's head is scaled."""
        if not hasattr(self, "head_"):
            raise ValueError("this dial is not fitted; call fit(model, development) first")
        return HeadScaler(model, {self.head_: self.alpha_}, self.positions)

    def collateral(self, model: nn.Module, *, questions: Questions, text: Questions, copies: Questions) -> Collateral:
        """What the dial costs elsewhere, each without and with it.

        Parameters
        ----------
        model
            The model the dial was fitted on.
        questions
            Closed-book questions; reported is the share answered rightly.
        text
            Ordinary text, its last token as the answer; reported is the cross-entropy in nats a token.
        copies
            Prompts whose answer stands in the context only; reported is the share copied rightly.
        """
        without = self._capabilities(model, questions, text, copies)
        with self.apply(model):
            changed = self._capabilities(model, questions, text, copies)
        return Collateral(*zip(without, changed, strict=True))

    def _capabilities(
        self, model: nn.Module, questions: Questions, text: Questions, copies: Questions
    ) -> tuple[float, float, float]:
        known, copied = (
            float(answered_right(model, prompts, batch_size=self.batch_size).double().mean())
            for prompts in (questions, copies)
        )
        return known, cross_entropy(model, text, batch_size=self.batch_size), copied


def cross_entropy(model: nn.Module, text: Questions, *, batch_size: int = 64) -> float:
    """Mean cross-entropy, in nats, of every token of some texts after the first, the last's `id_true` included."""
    total, tokens = 0.0, 0
    for chunk in text.to(next(model.parameters()).device).chunks(batch_size):
        with torch.inference_mode():
            logits = model(**model_inputs(model, chunk)).logits.float()
        targets = torch.where(chunk.mask.bool(), chunk.ids, -100).roll(-1, dims=1)
        targets[torch.arange(len(chunk)), chunk.end_pos] = chunk.id_true
        targets = torch.where(chunk.mask.bool(), targets, -100)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        total, tokens = total + float(loss), tokens + int((targets >= 0).sum())
    return total / tokens
