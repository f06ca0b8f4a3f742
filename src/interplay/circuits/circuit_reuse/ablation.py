"""Take heads away, and see what the rest still does (claim R1: a circuit is what suffices)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.circuits.circuit_reuse.batches import Batch
from interplay.circuits.circuit_reuse.replay import Metric, end_logits, logit_difference
from interplay.primitives.activations import Edit, Site, edit, record
from interplay.primitives.decoders import Decoder


class Recovery(NamedTuple):
    """What a circuit does without the other heads, as means of the metric over the prompts.

    Attributes
    ----------
    full, kept, none
        Of the whole model, of the model with the heads outside the circuit at their means, and with all heads so.
    """

    full: float
    kept: float
    none: float

    @property
    def share(self) -> float:
        """(kept - none) / (full - none)."""
        return (self.kept - self.none) / (self.full - self.none)


@torch.inference_mode()
def mean_heads(
    model: nn.Module, batch: Batch, positions: str | Sequence[str] = "end", *, batch_size: int = 64
) -> Float[Tensor, "layer place head width"]:
    """The heads' mean outputs z over the prompts, place by place of the roles.

    With the prompts of a task this keeps what all of them have in common and removes what tells them apart.
    """
    decoder, sums = Decoder(model), []
    sites = [Site("heads", layer) for layer in range(decoder.n_layers)]
    for part in batch.to(next(model.parameters()).device).chunks(batch_size):
        rows, places = torch.arange(len(part), device=part.ids.device)[:, None], part.places(positions)
        with record(model, sites, stop=True) as seen:
            end_logits(model, part)
        sums.append(torch.stack([seen[site][rows, places].float().sum(0) for site in sites]))
    return torch.stack(sums).sum(0) / len(batch)


@torch.inference_mode()
def metric_without(
    model: nn.Module,
    batch: Batch,
    heads: Iterable[tuple[int, int]],
    means: Float[Tensor, "layer place head width"],
    positions: str | Sequence[str] = "end",
    metric: Metric = logit_difference,
    *,
    batch_size: int = 64,
) -> Float[Tensor, " prompt"]:
    """The metric of every prompt with some heads' outputs at the positions replaced by their means.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode.
    batch
        The prompts.
    heads
        (layer, head) pairs.
    means
        From `mean_heads`, at the same positions.
    positions
        Roles of the batch.
    metric
        From logits [prompt, vocabulary] and batch to one number a prompt.
    batch_size
        Prompts a forward pass.

    Raises
    ------
    IndexError
        A head that the model does not have.
    ValueError
        An unknown role, or means of other positions.
    """
    decoder = Decoder(model)
    by_layer: dict[int, list[int]] = {}
    for layer, head in sorted(set(heads)):
        decoder.check(layer, head)
        by_layer.setdefault(layer, []).append(head)
    count = batch.places(positions).shape[1]
    if means.ndim != 4 or means.shape[:3] != (decoder.n_layers, count, decoder.n_heads):
        raise ValueError(
            f"means must be [{decoder.n_layers} layers, {count} places, {decoder.n_heads} heads, width] as mean_heads "
            f"gives them for positions={positions!r}; got {list(means.shape)}"
        )
    parts = []
    for part in batch.to(next(model.parameters()).device).chunks(batch_size):
        rows, places = torch.arange(len(part), device=part.ids.device)[:, None], part.places(positions)

        def average(layer: int, chosen: list[int], rows: Tensor = rows, places: Tensor = places) -> Edit:
            def replace(z: Tensor) -> Tensor:
                changed = z.clone()
                for head in chosen:
                    changed[rows, places, head] = means[layer, :, head].to(z)
                return changed

            return replace

        edits = {Site("heads", layer): average(layer, chosen) for layer, chosen in by_layer.items()}
        with edit(model, edits):
            parts.append(metric(end_logits(model, part), part).float().cpu())
    return torch.cat(parts)


def recovery(
    model: nn.Module,
    batch: Batch,
    circuit: Iterable[tuple[int, int]],
    means: Float[Tensor, "layer place head width"] | None = None,
    positions: str | Sequence[str] = "end",
    metric: Metric = logit_difference,
    *,
    batch_size: int = 64,
) -> Recovery:
    """How much of the metric a circuit recovers when all other heads stand at their means at the positions.

    Parameters
    ----------
    model, batch, positions, metric, batch_size
        As in `metric_without`.
    circuit
        The heads that keep their outputs.
    means
        From `mean_heads`; by default over this batch.

    Raises
    ------
    IndexError, ValueError
        As in `metric_without`.
    """
    decoder, kept = Decoder(model), {(int(layer), int(head)) for layer, head in circuit}
    for layer, head in kept:
        decoder.check(layer, head)
    everything = {(layer, head) for layer in range(decoder.n_layers) for head in range(decoder.n_heads)}
    if means is None:
        means = mean_heads(model, batch, positions, batch_size=batch_size)
    full, without_others, without_all = (
        float(metric_without(model, batch, heads, means, positions, metric, batch_size=batch_size).mean())
        for heads in ((), everything - kept, everything)
    )
    return Recovery(full, without_others, without_all)
