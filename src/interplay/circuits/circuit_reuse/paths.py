"""Path patching: what a head does through one path only (eqs. 3 to 5 of the package)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interplay.circuits.circuit_reuse.batches import Batch, check_aligned
from interplay.circuits.circuit_reuse.replay import CleanRun, Metric, end_logits, logit_difference
from interplay.primitives.activations import Kind, Site, record
from interplay.primitives.decoders import Decoder

Component = Literal["q", "k", "v", "z", "logits"]
SITES: dict[str, Kind] = {"q": "queries", "k": "keys", "v": "values", "z": "heads"}


class Head(NamedTuple):
    """A query head, both indices from 0."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


Senders = Literal["all", "reachable"] | Sequence[tuple[int, int]]


@dataclass(frozen=True, init=False)
class Receiver:
    """Where a path ends: ``Receiver("logits")``, or ``Receiver(layer, head, component)``.

    Parameters
    ----------
    layer, head
        From 0. For components ``"k"`` and ``"v"`` the head is a key-value head, of which there are fewer than query
        heads with grouped-query attention.
    component
        ``"q"``, ``"k"``, ``"v"``: what the head reads, before rotary positions; ``"z"``: the head's output.

    Raises
    ------
    ValueError
        An unknown component, or a head without layer or index.
    """

    layer: int | None
    head: int | None
    component: Component

    def __init__(self, layer: int | Literal["logits"], head: int | None = None, component: str | None = None) -> None:
        if layer == "logits" or component == "logits":
            if head is not None:
                raise ValueError("the receiver 'logits' takes no head")
            layer, component = None, "logits"
        elif component not in get_args(Component) or isinstance(layer, str):
            asked = layer if isinstance(layer, str) else component
            raise ValueError(f"component {asked!r} of a receiver: allowed are {', '.join(get_args(Component))}")
        elif head is None:
            raise ValueError(f"Receiver({layer}, component={component!r}) needs a head")
        object.__setattr__(self, "layer", layer)
        object.__setattr__(self, "head", head)
        object.__setattr__(self, "component", component)

    def __str__(self) -> str:
        return "logits" if self.layer is None else f"{self.component} of {self.layer}.{self.head}"


@dataclass(frozen=True)
class PathEffects:
    """What patching the path from every head to the receivers does, prompt by prompt.

    Attributes
    ----------
    patched
        The metric with one path patched, [prompt, layer, head]; the clean metric where no path was patched.
    clean, corrupt
        The metric of the clean and of the corrupted run, [prompt], both for the clean prompt's answer and contrast.
    scanned
        The heads that were tried, [layer, head].
    kept
        Pairs that count: those that the corruption moves by `min_gap` or more, [prompt].
    """

    patched: Float[Tensor, "prompt layer head"]
    clean: Float[Tensor, " prompt"]
    corrupt: Float[Tensor, " prompt"]
    scanned: Bool[Tensor, "layer head"]
    kept: Bool[Tensor, " prompt"]

    @property
    def effect(self) -> Float[Tensor, "layer head"]:
        """(patched - clean) / (corrupt - clean) of the means over the kept pairs; 1 is as bad as full corruption."""
        clean, corrupt = self.clean[self.kept].mean(), self.corrupt[self.kept].mean()
        effect = (self.patched[self.kept].mean(0) - clean) / (corrupt - clean)
        return torch.where(self.scanned, effect, 0.0)

    @property
    def dropped(self) -> int:
        """Number of pairs that do not count."""
        return int((~self.kept).sum())


def path_patch(
    model: nn.Module,
    clean: Batch,
    corrupt: Batch,
    receivers: Receiver | Sequence[Receiver],
    senders: Senders = "all",
    positions: str | Sequence[str] = "end",
    freeze_mlps: bool = False,
    metric: Metric = logit_difference,
    *,
    min_gap: float | None = 0.5,
    batch_size: int = 32,
    tokens: int = 8192,
) -> Float[Tensor, "layer head"]:
    """Effect of every head on the metric through its paths to the receivers alone.

    A head's output at the positions is replaced by that of the corrupted run while all other heads' outputs are held at
    their clean values, and what the receivers then get is patched into an otherwise untouched clean run.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode, without edits in force.
    clean, corrupt
        Token-aligned prompts.
    receivers
        ``Receiver("logits")``, or one or more heads' ``q``, ``k``, ``v`` or ``z``.
    senders
        ``"all"``: every head up to the layer of the lowest receiver, as in the official code; ``"reachable"``: every
        head below the highest receiver; both without the receivers themselves. Or (layer, head) pairs.
    positions
        Roles of the batch at which senders send, heads are held and receivers receive. For keys and values that the
        last token reads elsewhere, that place's role.
    freeze_mlps
        Hold the MLPs' outputs at the positions too: the direct path only. Otherwise MLPs between pass changes on.
    metric
        From logits [prompt, vocabulary] and the clean batch to one number a prompt.
    min_gap
        Pairs in which the corruption lowers the metric by less do not count, since effects are divided by the gap;
        None keeps all.
    batch_size
        Prompts a clean run.
    tokens
        Positions, copies included, that are computed at a time.

    Returns
    -------
    Tensor
        [layer, head], single precision or wider, on the CPU: 0 no effect, 1 as bad as the full corruption, below 0 the
        path works against the answer. Exactly 0 for heads that were not tried, and for those without a path to a
        receiver.

    Raises
    ------
    ValueError
        Batches that are not aligned; no path from any sender to any receiver; logits among other receivers, or away
        from the end; a key-value receiver named by a query head; no pair that counts; a model in training mode.
    IndexError
        A sender or receiver that the model does not have.
    """
    effects = path_effects(
        model,
        clean,
        corrupt,
        receivers,
        senders,
        positions,
        freeze_mlps,
        metric,
        min_gap=min_gap,
        batch_size=batch_size,
        tokens=tokens,
    )
    return effects.effect


@torch.inference_mode()
def path_effects(
    model: nn.Module,
    clean: Batch,
    corrupt: Batch,
    receivers: Receiver | Sequence[Receiver],
    senders: Senders = "all",
    positions: str | Sequence[str] = "end",
    freeze_mlps: bool = False,
    metric: Metric = logit_difference,
    *,
    min_gap: float | None = 0.5,
    batch_size: int = 32,
    tokens: int = 8192,
) -> PathEffects:
    """As `path_patch`, with the numbers of every prompt."""
    if batch_size < 1 or tokens < 1:
        raise ValueError(f"batch_size and tokens must be positive; got {batch_size} and {tokens}")
    check_aligned(clean, corrupt)
    decoder = Decoder(model)
    receiving = [receivers] if isinstance(receivers, Receiver) else list(dict.fromkeys(receivers))
    _check_receivers(decoder, receiving)
    if any(receiver.component == "logits" for receiver in receiving) and not torch.equal(
        clean.places(positions), clean.roles["end"]
    ):
        raise ValueError(f"no path: the logits are read at the end, the senders send at positions={positions!r}")
    sending = _senders(decoder, receiving, senders)
    scanned = torch.zeros(decoder.n_layers, decoder.n_heads, dtype=torch.bool)
    scanned[tuple(torch.tensor(sending).mT)] = True
    device = next(model.parameters()).device
    measured, reference, spoiled = [], [], []
    for part, twin in zip(clean.to(device).chunks(batch_size), corrupt.to(device).chunks(batch_size), strict=True):
        spoiled.append(metric(end_logits(model, twin), part).cpu())
        scan = _Scan(model, part, twin, receiving, positions, freeze_mlps, metric, tokens)
        reference.append(scan.clean.cpu())
        patched = reference[-1][:, None, None].repeat(1, decoder.n_layers, decoder.n_heads)
        for (layer, heads), values in scan.run(sending):
            patched[:, layer, heads] = values.T.cpu()
        measured.append(patched)
    whole, lost = torch.cat(reference), torch.cat(spoiled)
    kept = torch.ones_like(whole, dtype=torch.bool) if min_gap is None else whole - lost >= min_gap
    if not kept.any():
        raise ValueError(
            f"no pair counts: the corruption lowers the metric by {float((whole - lost).max()):.3g} at most, less than "
            f"min_gap={min_gap}"
        )
    return PathEffects(torch.cat(measured), whole, lost, scanned, kept)


class _Scan:
    """The senders of one batch, layer by layer and many at a time."""

    def __init__(
        self,
        model: nn.Module,
        clean: Batch,
        corrupt: Batch,
        receivers: Sequence[Receiver],
        positions: str | Sequence[str],
        freeze_mlps: bool,
        metric: Metric,
        tokens: int,
    ) -> None:
        self._metric, self._freeze, self._tokens = metric, freeze_mlps, tokens
        self._by_layer: dict[int, list[Receiver]] = {}
        for receiver in receivers:
            if receiver.layer is not None:
                self._by_layer.setdefault(receiver.layer, []).append(receiver)
        places = clean.places(positions)
        self._run = CleanRun(model, clean, places, self._by_layer)
        self._corrupt = _heads_at(model, corrupt, places, self._run.decoder.n_layers)
        self.clean = metric(self._run.logits, clean)

    def run(self, senders: Sequence[Head]) -> Iterator[tuple[tuple[int, list[int]], Float[Tensor, "sender prompt"]]]:
        """For parts of the senders of a layer, (layer, heads) and the metric with the path patched."""
        run = self._run
        columns = run.places.shape[1]
        if self._by_layer:
            columns = max(columns, run.batch.ids.shape[1] - run.start)
        at_once = max(1, self._tokens // (columns * len(run.batch)))
        for layer, group in groupby(senders, key=lambda head: head.layer):
            heads = [head.head for head in group]
            for start in range(0, len(heads), at_once):
                part = heads[start : start + at_once]
                yield (layer, part), self._measure(layer, part)

    def _measure(self, layer: int, heads: list[int]) -> Float[Tensor, "sender prompt"]:
        run, copies = self._run, len(heads)
        mixed = run.heads[layer].repeat(copies, 1, 1, 1)
        for copy, head in enumerate(heads):
            rows = slice(copy * len(run.batch), (copy + 1) * len(run.batch))
            mixed[rows, :, head] = self._corrupt[layer][:, :, head]
        if not self._by_layer:
            *_, (_, stream) = self._streams(layer, mixed, run.decoder.n_layers)
            return run.measure(stream[:, 0], self._metric)
        reached = sorted(index for index in self._by_layer if index > layer)
        changes: dict[Site, tuple[list[int], Tensor]] = {}
        for index, stream in self._streams(layer, mixed, reached[-1]):
            if index in self._by_layer:
                changes |= self._received(index, stream)
        return run.measure(run.resume(reached[0], copies, changes), self._metric)

    def _streams(self, layer: int, heads: Tensor, last: int) -> Iterator[tuple[int, Tensor]]:
        """For the layers after the senders' up to `last`, (index, the residual stream that enters it at p)."""
        run = self._run
        copies = len(heads) // len(run.batch)
        if self._freeze:
            # Nothing else changes, so what the heads write more or less is still there in every later layer.
            change = run.decoder.attention_write(layer, heads)
            change = change - run.decoder.attention_write(layer, run.heads[layer]).repeat(copies, 1, 1)
            for index in range(layer + 1, last + 1):
                yield index, run.before[index].repeat(copies, 1, 1) + change
            return
        stream = run.carry(layer, run.before[layer].repeat(copies, 1, 1), heads)
        yield layer + 1, stream
        for index in range(layer + 1, last):
            stream = run.carry(index, stream, run.heads[index].repeat(copies, 1, 1, 1))
            yield index + 1, stream

    def _received(self, layer: int, stream: Tensor) -> dict[Site, tuple[list[int], Tensor]]:
        """What the receivers of a layer get when the layer is entered by `stream` at p."""
        heads: dict[Site, list[int]] = {}
        for receiver in self._by_layer[layer]:
            assert receiver.head is not None
            heads.setdefault(Site(SITES[receiver.component], layer), []).append(receiver.head)
        read = [site for site in heads if site.kind != "heads"]
        seen = dict(self._run.inputs_of(layer, stream, read)) if read else {}
        if (outputs := Site("heads", layer)) in heads:
            seen[outputs] = self._run.heads_of(layer, stream)
        return {site: (chosen, seen[site][:, :, chosen]) for site, chosen in heads.items()}


def _heads_at(model: nn.Module, batch: Batch, places: Tensor, n_layers: int) -> list[Tensor]:
    sites = [Site("heads", layer) for layer in range(n_layers)]
    rows = torch.arange(len(batch), device=places.device)[:, None]
    with record(model, sites, stop=True) as seen:
        end_logits(model, batch)
    return [seen[site][rows, places] for site in sites]


def _check_receivers(decoder: Decoder, receivers: Sequence[Receiver]) -> None:
    if not receivers:
        raise ValueError("receivers is empty; pass Receiver('logits') or heads")
    direct = [receiver for receiver in receivers if receiver.layer is None]
    if direct and len(receivers) > 1:
        raise ValueError("the receiver 'logits' stands alone: patching it overrides every other")
    for receiver in receivers:
        if receiver.layer is None:
            continue
        kind = SITES[receiver.component]
        try:
            decoder.check(receiver.layer, receiver.head, kind)
        except IndexError as error:
            shared = kind in ("keys", "values") and receiver.head is not None and receiver.head < decoder.n_heads
            if shared and receiver.layer < decoder.n_layers:
                raise ValueError(f"Receiver({receiver}): {error}") from None
            raise


def _senders(decoder: Decoder, receivers: Sequence[Receiver], senders: Senders) -> list[Head]:
    """The senders with a path to a receiver, in the order of the layers."""
    layers = [decoder.n_layers if receiver.layer is None else receiver.layer for receiver in receivers]
    # A shared key-value head is no query head, and those that read it may send.
    counted = ("q", "z") if decoder.n_kv_heads < decoder.n_heads else ("q", "k", "v", "z")
    named = {(receiver.layer, receiver.head) for receiver in receivers if receiver.component in counted}
    if isinstance(senders, str):
        if senders not in ("all", "reachable"):
            raise ValueError(f"senders={senders!r}: allowed are 'all', 'reachable' and (layer, head) pairs")
        highest = min(layers) if senders == "all" else max(layers)
        everywhere = [Head(layer, head) for layer in range(decoder.n_layers) for head in range(decoder.n_heads)]
        tried = [head for head in everywhere if head.layer <= highest]
        tried = [head for head in tried if head not in named]
    else:
        tried = sorted({Head(*sender) for sender in senders})
        for sender in tried:
            decoder.check(*sender)
    sending = [head for head in tried if head.layer < max(layers)]
    if not sending:
        wanted = ", ".join(map(str, receivers))
        raise ValueError(f"no path: no sender is in a layer below the receivers ({wanted})")
    return sending
