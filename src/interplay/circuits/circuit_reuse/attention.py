"""Read and overwrite where heads look (eq. 6 of the package)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.circuits.circuit_reuse.batches import Batch
from interplay.circuits.circuit_reuse.replay import end_logits
from interplay.primitives.activations import Edit, Site, edit
from interplay.primitives.decoders import Decoder
from interplay.primitives.positions import Progress


class AttentionEdit:
    """Make heads look elsewhere: at the query position their attention falls on given places, inside a context.

    A'[h, query, :] = (1 - mass) A[h, query, :] + mass * target, where the target is even over the places. Since a
    head's output is linear in its attention row, this is done to the output; the attention weights that the layer
    returns are changed alike. Inside `generate` the prompt is edited, the tokens after it are not.

    It knows where to look because somebody tells it: a diagnosis, not a fix that could be deployed.

    Parameters
    ----------
    model
        A Hugging Face decoder, loaded with ``attn_implementation="eager"``.
    targets
        {(layer, head): places}; columns of the batch [prompt, place], or [place] for all prompts alike.
    mass
        Share of the row that is moved, from 0 (nothing is changed) to 1.
    query
        ``"end"``, the last token of every prompt, or its column: an int, or one a prompt.

    Raises
    ------
    RuntimeError
        A model whose attention is not eager, or one that treats its values before it mixes them.
    ValueError
        A mass outside [0, 1], no place, a negative one; from the forward pass, places outside the prompt or after the
        query, or another number of rows than prompts.
    IndexError
        A head that the model does not have.

    Examples
    --------
    ::

        wrong = batch.roles["wrong"]
        with AttentionEdit(model, {(3, 1): wrong, (4, 0): wrong}):
            logits = end_logits(model, batch)
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Mapping[tuple[int, int], Int[Tensor, "prompt place"] | Sequence[int]],
        mass: float = 1.0,
        query: Literal["end"] | int | Int[Tensor, " prompt"] = "end",
    ) -> None:
        require_eager(model)
        decoder = Decoder(model)
        if not 0 <= mass <= 1:
            raise ValueError(f"mass={mass}: the share of the row that is moved lies in [0, 1]")
        if isinstance(query, str) and query != "end":
            raise ValueError(f"query={query!r}: allowed are 'end', a column, or one column a prompt")
        self._layers: dict[int, dict[int, Tensor]] = {}
        for (layer, head), places in targets.items():
            decoder.check(layer, head)
            columns = torch.as_tensor(places)
            if columns.is_floating_point() or columns.ndim not in (1, 2) or not columns.shape[-1]:
                raise ValueError(
                    f"the target of head {layer}.{head} must be columns [prompt, place] or [place]; got {places!r}"
                )
            if (columns < 0).any():
                raise ValueError(f"the target of head {layer}.{head} has a negative column: {int(columns.min())}")
            self._layers.setdefault(layer, {})[head] = columns
        self._model, self._decoder, self._mass, self._query = model, decoder, mass, query
        self._progress = Progress()
        self._values: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensor] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self._mass == 0 or not self._layers:
            return self
        sites: dict[Site, Edit] = {}
        for layer in self._layers:
            sites[Site("values", layer)] = self._see(layer)
            sites[Site("heads", layer)] = self._rewrite(layer)
        with ExitStack() as stack:
            body = self._decoder.body
            stack.callback(body.register_forward_pre_hook(self._progress.observe, with_kwargs=True).remove)
            stack.enter_context(edit(self._model, sites))
            for layer in self._layers:
                attention = self._decoder.attention(layer)
                stack.callback(attention.register_forward_hook(self._show(layer)).remove)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._values.clear()
        self._outputs.clear()

    def _see(self, layer: int) -> Edit:
        def see(values: Float[Tensor, "prompt position head width"]) -> None:
            self._values[layer] = values

        return see

    def _rewrite(self, layer: int) -> Edit:
        def rewrite(z: Float[Tensor, "prompt position head width"]) -> Tensor | None:
            if self._progress.start:
                return None
            self._outputs[layer] = z
            rows, query = self._rows_and_query(z)
            changed = z.clone()
            for head, places in self._places(layer, rows, query).items():
                values = self._values[layer][:, :, self._shared(head)]
                target = values[rows[:, None], places].mean(1)
                changed[rows, query, head] = (1 - self._mass) * z[rows, query, head] + self._mass * target
            return changed

        return rewrite

    def _show(self, layer: int) -> Any:
        def show(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
            if self._progress.start:
                return None
            weights = _weights_of(output, module)
            rows, query = self._rows_and_query(self._outputs[layer])
            changed = weights.clone()
            for head, places in self._places(layer, rows, query).items():
                row = weights[rows, head, query]
                values = self._values[layer][:, :, self._shared(head)]
                self._check_linear(torch.einsum("rt,rtw->rw", row, values), self._outputs[layer][rows, query, head])
                target = torch.zeros_like(row).scatter_add_(1, places, torch.full_like(row, 1 / places.shape[1]))
                changed[rows, head, query] = (1 - self._mass) * row + self._mass * target
            return (output[0], changed, *output[2:])

        return show

    def _shared(self, head: int) -> int:
        return head * self._decoder.n_kv_heads // self._decoder.n_heads

    def _check_linear(self, expected: Tensor, seen: Tensor) -> None:
        if not torch.allclose(expected, seen, rtol=2e-2, atol=2e-2 * float(seen.detach().abs().max())):
            raise RuntimeError(
                f"{type(self._model).__name__} treats its values before it mixes them; its attention cannot be edited"
            )

    def _rows_and_query(self, z: Tensor) -> tuple[Tensor, Tensor]:
        prompts, length = z.shape[:2]
        rows = torch.arange(prompts, device=z.device)
        mask = self._progress.mask
        if isinstance(self._query, str):
            if mask is None:
                return rows, torch.full_like(rows, length - 1)
            columns = torch.arange(length, device=z.device)
            return rows, torch.where(mask[:, :length].to(z.device).bool(), columns, -1).amax(1)
        query = torch.as_tensor(self._query, device=z.device).expand(prompts)
        if ((query < 0) | (query >= length)).any():
            raise ValueError(f"query={self._query!r} is outside the prompts of {length} columns")
        return rows, query

    def _places(self, layer: int, rows: Tensor, query: Tensor) -> dict[int, Tensor]:
        places = {}
        for head, columns in self._layers[layer].items():
            columns = columns.to(rows.device)
            if columns.ndim == 2 and len(columns) != len(rows):
                raise ValueError(f"the target of head {layer}.{head} has {len(columns)} rows for {len(rows)} prompts")
            columns = columns.expand(len(rows), columns.shape[-1])
            late = (columns > query[:, None]).any(1)
            if late.any():
                row = int(late.nonzero()[0])
                raise ValueError(
                    f"the target of head {layer}.{head} for prompt {row} is at {columns[row].tolist()}, after the "
                    f"query at {int(query[row])}, where attention cannot look"
                )
            mask = self._progress.mask
            if mask is not None and not mask.to(rows.device).gather(1, columns).all():
                raise ValueError(f"the target of head {layer}.{head} points at padding")
            places[head] = columns
        return places


@torch.inference_mode()
def attention_to(
    model: nn.Module, batch: Batch, heads: Iterable[tuple[int, int]], role: str, *, batch_size: int = 64
) -> Float[Tensor, "prompt head"]:
    """How much of the attention from the last token falls on the places of a role, summed over them.

    Edits in force are seen, also by the heads that an `AttentionEdit` overwrites.

    Parameters
    ----------
    model
        A Hugging Face decoder in evaluation mode, loaded with ``attn_implementation="eager"``.
    batch
        Prompts with the role.
    heads
        (layer, head) pairs.
    role
        A role of the batch.
    batch_size
        Prompts a forward pass; all at once while an `AttentionEdit` for these prompts is in force.

    Raises
    ------
    RuntimeError
        A model whose attention is not eager.
    ValueError
        An unknown role, no heads.
    IndexError
        A head that the model does not have.
    """
    require_eager(model)
    decoder, wanted = Decoder(model), [(int(layer), int(head)) for layer, head in heads]
    if not wanted:
        raise ValueError("heads is empty; pass (layer, head) pairs")
    for layer, head in wanted:
        decoder.check(layer, head)
    batch.places(role)
    parts = []
    for part in batch.to(next(model.parameters()).device).chunks(batch_size):
        looks = _looks(model, decoder, part, {layer for layer, _ in wanted}, part.places(role))
        parts.append(torch.stack([looks[layer][:, head] for layer, head in wanted], dim=1).float().cpu())
    return torch.cat(parts)


def _looks(
    model: nn.Module, decoder: Decoder, batch: Batch, layers: set[int], places: Tensor
) -> dict[int, Float[Tensor, "prompt head"]]:
    """By layer, the attention of every head from the end to the places."""
    rows = torch.arange(len(batch), device=batch.ids.device)
    seen: dict[int, Tensor] = {}

    def see(layer: int) -> Any:
        def hook(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
            row = _weights_of(output, module)[rows, :, batch.end]
            seen[layer] = row.gather(2, places[:, None].expand(-1, row.shape[1], -1)).sum(2)

        return hook

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(decoder.attention(layer).register_forward_hook(see(layer)).remove)
        end_logits(model, batch)
    return seen


def require_eager(model: nn.Module) -> None:
    """Refuse models that do not show their attention weights.

    Raises
    ------
    RuntimeError
        Saying how to load the model.
    """
    kind = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if kind not in (None, "eager"):
        raise RuntimeError(
            f"the attention of {type(model).__name__} is {kind!r} and cannot be seen; load with "
            "attn_implementation='eager'"
        )


def _weights_of(output: Any, module: nn.Module) -> Tensor:
    if not isinstance(output, tuple) or len(output) < 2 or not isinstance(output[1], Tensor):
        raise RuntimeError(
            f"{type(module).__name__} returns no attention weights; load with attn_implementation='eager'"
        )
    return output[1]
