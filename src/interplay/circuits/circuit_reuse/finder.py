"""Find the circuit of a task, stage by stage (eq. 5 of the package)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.circuits.circuit_reuse.batches import TaskPairs
from interplay.circuits.circuit_reuse.paths import Head, PathEffects, Receiver, Senders, path_effects
from interplay.circuits.circuit_reuse.replay import Metric, logit_difference
from interplay.primitives.decoders import Decoder


@dataclass(frozen=True)
class Stage:
    """One iteration of path patching.

    Parameters
    ----------
    name
        What the heads that it finds are called.
    components
        What the receivers receive: ``("logits",)``, or some of ``"q"``, ``"k"``, ``"v"``, ``"z"``.
    receivers
        The stage whose heads receive; None for the logits.
    positions
        A role, or ``"source"``: the role that the task names as its source.
    """

    name: str
    components: tuple[str, ...] = ("logits",)
    receivers: str | None = None
    positions: str = "end"


STAGES = (
    Stage("movers"),
    Stage("inhibition", ("q",), "movers"),
    Stage("induction", ("v",), "inhibition", "source"),
)


class CircuitFinder:
    """Path patching in stages: who writes to the logits, who sets these heads' queries, who sets those heads' values.

    The circuit is the union over the stages of the heads with the largest absolute effects. By default stage 2 finds
    what the paper calls inhibition heads in indirect object identification and content gatherers in colored objects,
    stage 3 the duplicate-token and induction heads.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode.
    top
        Share of all heads that a stage may keep.
    n_min
        The least that it keeps, if so many have an effect.
    stages
        Each after the stage whose heads receive.
    senders
        As in `path_patch`. Where the first stage keeps a head of a low layer, ``"reachable"`` still looks at the layers
        between it and its companions.
    freeze_mlps, metric, min_gap, batch_size, tokens
        As in `path_patch`.
    noise
        Effects up to this are none.

    Attributes
    ----------
    stages_
        Effects of every head, [layer, head], one tensor a stage; 0 where no path was patched.
    circuit_
        The heads that were kept, (layer, head).
    roles_
        For every head of the circuit the names of the stages that kept it.
    effects_
        By the name of a stage, `PathEffects` with the numbers of every prompt; missing where no head could receive.
    dropped_
        Number of pairs that did not count.

    Raises
    ------
    ValueError
        Parameters outside their ranges, or a stage that receives from none before it.
    """

    def __init__(
        self,
        model: nn.Module,
        top: float = 0.02,
        n_min: int = 1,
        stages: Sequence[Stage] = STAGES,
        *,
        senders: Senders = "all",
        freeze_mlps: bool = False,
        metric: Metric = logit_difference,
        min_gap: float | None = 0.5,
        noise: float = 1e-4,
        batch_size: int = 32,
        tokens: int = 8192,
    ) -> None:
        if not 0 < top <= 1:
            raise ValueError(f"top={top}: a share of the heads lies in (0, 1]")
        if n_min < 1 or noise < 0:
            raise ValueError(f"n_min must be positive and noise not negative; got {n_min} and {noise}")
        _check_stages(stages)
        self.model, self.top, self.n_min, self.stages = model, top, n_min, tuple(stages)
        self.senders, self.freeze_mlps, self.metric = senders, freeze_mlps, metric
        self.min_gap, self.noise, self.batch_size, self.tokens = min_gap, noise, batch_size, tokens
        self._decoder = Decoder(model)

    def fit(self, pairs: TaskPairs) -> Self:
        """Find the circuit of a task.

        Raises
        ------
        RuntimeError
            No head has an effect on the logits beyond the noise.
        ValueError
            As in `path_patch`.
        """
        decoder = self._decoder
        size = max(self.n_min, round(self.top * decoder.n_layers * decoder.n_heads))
        self.stages_: list[Float[Tensor, "layer head"]] = []
        self.roles_: dict[Head, list[str]] = {}
        self.effects_: dict[str, PathEffects] = {}
        self.dropped_ = 0
        kept: dict[str, list[Head]] = {}
        for stage in self.stages:
            effect = torch.zeros(decoder.n_layers, decoder.n_heads)
            if receivers := self._receivers(stage, kept):
                found = path_effects(
                    self.model,
                    pairs.clean,
                    pairs.corrupt,
                    receivers,
                    self.senders,
                    pairs.source if stage.positions == "source" else stage.positions,
                    self.freeze_mlps,
                    self.metric,
                    min_gap=self.min_gap,
                    batch_size=self.batch_size,
                    tokens=self.tokens,
                )
                self.effects_[stage.name], self.dropped_ = found, found.dropped
                effect = found.effect
            self.stages_.append(effect)
            kept[stage.name] = self._largest(effect, size)
            for head in kept[stage.name]:
                self.roles_.setdefault(head, []).append(stage.name)
        if not self.roles_:
            largest = max(float(effect.abs().max()) for effect in self.stages_)
            raise RuntimeError(
                f"the circuit is empty: the largest effect of a head is {largest:.2g}, not above noise={self.noise:.2g}"
            )
        self.circuit_: set[tuple[int, int]] = {tuple(head) for head in self.roles_}
        return self

    def heads(self, role: str) -> list[Head]:
        """The heads that a stage kept, the strongest first."""
        index = [stage.name for stage in self.stages].index(role)
        found = [head for head, roles in self.roles_.items() if role in roles]
        return sorted(found, key=lambda head: -abs(float(self.stages_[index][head])))

    def _receivers(self, stage: Stage, kept: dict[str, list[Head]]) -> list[Receiver]:
        """The stage's receivers; none where no head was kept before, or where all are too low to be sent to."""
        if stage.receivers is None:
            return [Receiver("logits")]
        heads, shared = kept[stage.receivers], self._decoder.n_kv_heads
        lowest = (max if self.senders == "reachable" else min)((head.layer for head in heads), default=0)
        if lowest == 0:
            return []
        return list(
            dict.fromkeys(
                Receiver(layer, head * shared // self._decoder.n_heads if part in ("k", "v") else head, part)
                for layer, head in heads
                for part in stage.components
            )
        )

    def _largest(self, effect: Float[Tensor, "layer head"], size: int) -> list[Head]:
        order = effect.abs().flatten().argsort(descending=True, stable=True)[:size].tolist()
        heads = [Head(*divmod(index, effect.shape[1])) for index in order]
        return [head for head in heads if float(effect[head].abs()) > self.noise]


def _check_stages(stages: Sequence[Stage]) -> None:
    if not stages:
        raise ValueError("stages is empty; pass one or more")
    before: set[str] = set()
    for stage in stages:
        if stage.name in before:
            raise ValueError(f"two stages are called {stage.name!r}")
        if (stage.receivers is None) != (stage.components == ("logits",)):
            raise ValueError(f"stage {stage.name!r}: components ('logits',) go with no receivers, all others with some")
        if stage.receivers is not None and stage.receivers not in before:
            raise ValueError(f"stage {stage.name!r} receives by {stage.receivers!r}, which is no stage before it")
        before.add(stage.name)
