"""Recompute a clean run from any layer on, at few positions, for many changed copies of it at once.

What a changed residual stream at the places p can alter is less than a whole forward pass, and both parts are exact:

- While every head's output at p is held, attention carries nothing from place to place: the layers are computed at p
  alone (`CleanRun.carry`).
- What a layer reads before the first place of p is as in the clean run: its keys and values are kept, and only the
  columns from there on are computed (`CleanRun.resume`).

The model's own layers do the work, called with the arguments that the model gave them, so that norms, rotary positions,
soft caps and sliding windows are its own. Both parts are checked against the clean run before they are used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.circuits.circuit_reuse.batches import Batch
from interplay.primitives.activations import Edit, Site, edit, record
from interplay.primitives.decoders import Decoder
from interplay.primitives.prompts import forward_arguments

Metric = Callable[[Tensor, Batch], Tensor]


def logit_difference(logits: Float[Tensor, "prompt vocabulary"], batch: Batch) -> Float[Tensor, " prompt"]:
    """logit(answer) - logit(contrast), in single precision or wider."""
    pair = _wide(logits.gather(1, torch.stack([batch.answer, batch.contrast], dim=1)))
    return pair[:, 0] - pair[:, 1]


class CleanRun:
    """A model's run on a batch, which can be taken up again from changed activations.

    Tensors of copies are [copy x prompt, ...], the prompts of one copy side by side.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode.
    batch
        The prompts, on the model's device.
    places
        p: columns of every prompt.
    resumable
        Layers from which `resume` will be asked to go on.

    Attributes
    ----------
    before
        The residual stream that enters each layer, and after them the one that leaves the last, at p.
    heads
        The heads' outputs z of each layer, at p.
    logits
        At the last token.
    start
        The first column that `resume` computes.

    Raises
    ------
    ValueError
        A model that does not compute the same when it is taken up again.
    """

    def __init__(
        self, model: nn.Module, batch: Batch, places: Int[Tensor, "prompt place"], resumable: Iterable[int] = ()
    ) -> None:
        self.decoder, self.batch, self.places, self._model = Decoder(model), batch, places, model
        self._rows = torch.arange(len(batch), device=places.device)
        self._arguments: list[dict[str, Any]] = []
        streams, heads, self.logits = self._observe()
        self.before = [self._at(stream) for stream in streams]
        self.heads = [self._at(z) for z in heads]
        self.last = streams[-1][self._rows, batch.end]
        resumable = sorted(set(resumable))
        self.start = int(places.min()) if resumable and self._sliceable() else 0
        self._streams: dict[int, Tensor] = {}
        self._prefixes: dict[int, tuple[Tensor, Tensor]] = {}
        if resumable:
            self._keep(streams, resumable)
        self._check_carry()

    def carry(
        self, layer: int, stream: Float[Tensor, "row place d_model"], heads: Float[Tensor, "row place head width"]
    ) -> Float[Tensor, "row place d_model"]:
        """The residual stream at p after a layer whose heads' outputs are held at `heads`."""
        arguments = {name: self._trim(name, value) for name, value in self._arguments[layer].items()}
        with edit(self._model, {Site("heads", layer): lambda _: heads}):
            return _stream(self.decoder.layer(layer)(stream, **arguments))

    def inputs_of(
        self, layer: int, stream: Float[Tensor, "row place d_model"], sites: Iterable[Site]
    ) -> Mapping[Site, Float[Tensor, "row place width"]]:
        """Queries, keys and values at p of a layer that is entered by `stream` there."""
        arguments = {name: self._trim(name, value) for name, value in self._arguments[layer].items()}
        with record(self._model, sites, stop=True) as seen:
            self.decoder.layer(layer)(stream, **arguments)
        return seen

    def heads_of(self, layer: int, stream: Float[Tensor, "row place d_model"]) -> Float[Tensor, "row place head width"]:
        """The heads' outputs at p of a layer that is entered by `stream` there, and by the clean one elsewhere."""
        copies = len(stream) // len(self.batch)
        whole = self._streams[layer].repeat(copies, 1, 1)
        rows, columns = self._index(copies)
        whole[rows, columns] = stream
        site = Site("heads", layer)
        with record(self._model, [site], stop=True) as seen:
            self._call(layer, whole, copies)
        return seen[site][rows, columns]

    def resume(
        self, layer: int, copies: int, changes: Mapping[Site, tuple[list[int], Float[Tensor, "row place head width"]]]
    ) -> Float[Tensor, "row d_model"]:
        """The residual stream at the end, after the last layer, when heads' inputs or outputs change at p.

        Parameters
        ----------
        layer
            The first layer with a change.
        copies
            How many copies of the batch are computed.
        changes
            For a site the heads that change, and their new activations.
        """
        rows, columns = self._index(copies)

        def change(heads: list[int], new: Tensor) -> Edit:
            def overwrite(activation: Tensor) -> Tensor:
                changed = activation.clone()
                for place, head in enumerate(heads):
                    changed[rows, columns, head] = new[:, :, place].to(activation)
                return changed

            return overwrite

        stream = self._streams[layer].repeat(copies, 1, 1)
        with edit(self._model, {site: change(heads, new) for site, (heads, new) in changes.items()}):
            for index in range(layer, self.decoder.n_layers):
                stream = self._call(index, stream, copies)
        return stream[torch.arange(len(stream), device=stream.device), self.batch.end.repeat(copies) - self.start]

    def measure(self, last: Float[Tensor, "row d_model"], metric: Metric) -> Float[Tensor, "copy prompt"]:
        """The metric of copies of the batch whose residual stream at the end is `last`."""
        copies = len(last) // len(self.batch)
        normed = self.decoder.final_norm(last)
        head = self._model.get_output_embeddings()
        if metric is logit_difference:
            pair = torch.stack([self.batch.answer, self.batch.contrast], dim=1)
            bias = getattr(head, "bias", None)
            logits = torch.einsum("crd,rpd->crp", normed.view(copies, len(self.batch), -1), head.weight[pair])
            logits = _wide(self._cap(logits if bias is None else logits + bias[pair]))
            return logits[..., 0] - logits[..., 1]
        measured = [metric(self._cap(head(copy)), self.batch) for copy in normed.view(copies, len(self.batch), -1)]
        return _wide(torch.stack(measured))

    def _observe(self) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Streams around the layers and heads' outputs at all columns, and the end's logits; keeps the arguments."""
        layers, batch = self.decoder.layers, self.batch
        handles = [layer.register_forward_pre_hook(self._remember, with_kwargs=True) for layer in layers]
        sites = [Site("embedding"), *(Site("residual", layer) for layer in range(len(layers)))]
        heads = [Site("heads", layer) for layer in range(len(layers))]
        try:
            with record(self._model, [*sites, *heads]) as seen:
                logits = end_logits(self._model, batch)
        finally:
            for handle in handles:
                handle.remove()
        return [seen[site] for site in sites], [seen[site] for site in heads], logits

    def _remember(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(layer.forward).bind(*args, **kwargs)
        arguments = {**bound.arguments, **bound.arguments.get(_rest_of(bound.signature), {})}
        arguments.pop(_rest_of(bound.signature), None)
        arguments.pop(next(iter(bound.signature.parameters)))
        self._arguments.append({**arguments, **({"past_key_values": None} if "past_key_values" in arguments else {})})

    def _at(self, activation: Tensor) -> Tensor:
        return activation[self._rows[:, None], self.places]

    def _index(self, copies: int) -> tuple[Tensor, Tensor]:
        rows = torch.arange(copies * len(self.batch), device=self.places.device)[:, None]
        return rows, self.places.repeat(copies, 1) - self.start

    def _sliceable(self) -> bool:
        """Whether the attention masks are such that rows of them can be computed alone."""
        masks = [arguments.get("attention_mask") for arguments in self._arguments]
        kind = getattr(getattr(self._model, "config", None), "_attn_implementation", None)
        return kind in ("eager", "sdpa") and all(mask is None or mask.ndim == 4 for mask in masks)

    def _keep(self, streams: list[Tensor], resumable: list[int]) -> None:
        """The clean streams of the layers where `resume` starts, and the clean keys and values of all after them."""
        for layer in range(resumable[0], self.decoder.n_layers):
            cache = _Recorder()
            try:
                again = _stream(
                    self.decoder.layer(layer)(streams[layer], **{**self._arguments[layer], "past_key_values": cache})
                )
            except (AttributeError, TypeError):
                again = None
            if again is None or cache.seen is None:
                self.start = 0
                again = _stream(self.decoder.layer(layer)(streams[layer], **self._arguments[layer]))
            elif self.start:
                keys, values = cache.seen
                self._prefixes[layer] = keys[:, :, : self.start].clone(), values[:, :, : self.start].clone()
            self._check_same(again, streams[layer + 1], layer)
        for layer in resumable:
            self._streams[layer] = streams[layer][:, self.start :].clone()

    def _call(self, layer: int, stream: Tensor, copies: int) -> Tensor:
        arguments = {name: self._spread(name, value, copies) for name, value in self._arguments[layer].items()}
        if self.start:
            keys, values = (part.repeat(copies, 1, 1, 1) for part in self._prefixes[layer])
            arguments["past_key_values"] = _Prefix(keys, values)
            if arguments.get("attention_mask") is None and stream.shape[1] > 1:
                columns = torch.arange(self.start + stream.shape[1], device=stream.device)
                arguments["attention_mask"] = (columns <= columns[self.start :, None])[None, None]
        return _stream(self.decoder.layer(layer)(stream, **arguments))

    def _spread(self, name: str, value: Any, copies: int) -> Any:
        """An argument of a layer for several copies of the batch, from column `start` on."""
        if isinstance(value, tuple):
            return tuple(self._spread(name, part, copies) for part in value)
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        if name == "cache_position":
            return value[self.start :]
        value = value[:, :, self.start :] if name == "attention_mask" else value[:, self.start :]
        return value.repeat(copies, *[1] * (value.ndim - 1)) if len(value) == len(self.batch) > 1 else value

    def _trim(self, name: str, value: Any) -> Any:
        """An argument of a layer computed at p alone: only its shape counts, since what attention gives is held."""
        if isinstance(value, tuple):
            return tuple(self._trim(name, part) for part in value)
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        if name == "attention_mask":
            return None
        width = self.places.shape[1]
        return value[:width] if name == "cache_position" else value[:1, :width]

    def _cap(self, logits: Tensor) -> Tensor:
        config = getattr(self._model, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        cap = getattr(text, "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def _check_carry(self) -> None:
        stream = self.before[0]
        for layer, heads in enumerate(self.heads):
            stream = self.carry(layer, stream, heads)
            self._check_same(stream, self.before[layer + 1], layer)
        again, model = self.measure(self.last, logit_difference)[0], logit_difference(self.logits, self.batch)
        if not torch.allclose(again, model, rtol=1e-2, atol=_tolerance(self.logits)):
            raise ValueError(f"the logits of {type(self._model).__name__} are not its unembedding of its final norm")

    def _check_same(self, again: Tensor, clean: Tensor, layer: int) -> None:
        real = self.batch.mask.bool() if again.shape[1] == self.batch.ids.shape[1] else slice(None)
        if not torch.allclose(again[real], clean[real], rtol=1e-2, atol=_tolerance(clean[real])):
            raise ValueError(
                f"layer {layer} of {type(self._model).__name__} does not compute the same when it is taken up again"
            )


class _Recorder:
    """Stands where a key-value cache would, and sees the keys and values go by."""

    def __init__(self) -> None:
        self.seen: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.seen = keys, values
        return keys, values


class _Prefix:
    """Stands where a key-value cache would, and holds one layer's clean keys and values of the first columns."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys, self._values = keys, values

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self._keys, keys], dim=2), torch.cat([self._values, values], dim=2)


def end_logits(model: nn.Module, batch: Batch) -> Float[Tensor, "prompt vocabulary"]:
    """Logits at the last token of every prompt, of one forward pass."""
    known = forward_arguments(model)
    at_last = bool((batch.end == batch.ids.shape[1] - 1).all())
    options: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
    if at_last and "logits_to_keep" in known:
        options["logits_to_keep"] = 1
    logits: Tensor = model(**batch.inputs(model), **options).logits
    return logits[:, -1] if at_last else logits[torch.arange(len(batch), device=logits.device), batch.end]


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _stream(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _rest_of(signature: inspect.Signature) -> str:
    """The name of the parameter that takes further keywords, such as `kwargs`."""
    rest = [name for name, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_KEYWORD]
    return rest[0] if rest else ""


def _tolerance(values: Tensor) -> float:
    """Rounding that a few layers may leave on values of this size and dtype."""
    return 256 * torch.finfo(values.dtype).eps * float(values.abs().max())
