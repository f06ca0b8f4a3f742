"""Read, edit and patch what flows through a model, by forward hooks, without touching the model.

A `Site` names a place: the residual stream after a layer, the outputs of a layer's attention heads (before the output
projection, one slice a *query* head), their queries, keys and values, the neurons of an MLP, or the output of any
module by path::

    with record(model, [Site("residual", 8)], positions="last") as seen:
        model(**inputs)
    with edit(model, {Site("heads", 15, 7): lambda z: 0.0 * z}):
        model.generate(**inputs)

What holds for all three context managers:

- The hooks are gone when the context is left, by whichever door, and the model computes bit for bit what it did before.
- An edit that returns its argument, or None, changes nothing, bit for bit; an empty edit installs nothing.
- Contexts nest. Hooks run in the order in which the contexts were entered: a later one sees what an earlier one wrote.
- `positions` count columns of the batch from the first token of the sequence, padding included, also while `generate`
  feeds one token a time to a model with a key-value cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interplay.primitives.decoders import Decoder, find_decoder
from interplay.primitives.positions import Positions, Progress, check_positions, index_of

Kind = Literal["residual", "heads", "queries", "keys", "values", "neurons", "embedding", "module"]
PER_HEAD = ("heads", "queries", "keys", "values")
Edit = Callable[[Tensor], "Tensor | None"]


@dataclass(frozen=True)
class Site:
    """A place in a model where activations can be seen and changed.

    Parameters
    ----------
    kind
        ``"residual"``: the residual stream after a decoder layer, [batch, position, d_model].
        ``"heads"``: the attention heads' outputs z before the output projection, [batch, position, head, width], or
        [batch, position, width] with `head`. With grouped-query attention the heads are the query heads.
        ``"queries"``, ``"keys"``, ``"values"``: what the heads read, as the projections give it, [batch, position,
        head, width] or [batch, position, width] with `head`: before rotary positions and before a norm of queries and
        keys. Keys and values are counted in key-value heads, which with grouped-query attention are fewer.
        ``"neurons"``: the MLP's neurons after their non-linearity, before the down-projection, [batch, position,
        neuron].
        ``"embedding"``: what enters the first decoder layer, [batch, position, d_model].
        ``"module"``: the output of the module at `path`, of any model; of a tuple, its first tensor.
    layer, head
        From 0.
    path
        A dotted path as in `nn.Module.get_submodule`; ``""`` is the model itself.
    """

    kind: Kind
    layer: int | None = None
    head: int | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown kind of site {self.kind!r}; allowed are {', '.join(get_args(Kind))}")
        layered = self.kind in {"residual", *PER_HEAD, "neurons"}
        if layered != (self.layer is not None) or (self.kind == "module") != (self.path is not None):
            raise ValueError(
                f"{self}: residual, {', '.join(PER_HEAD)} and neurons need a layer, module needs a path, "
                "neither goes with the others"
            )
        if self.head is not None and self.kind not in PER_HEAD:
            raise ValueError(f"{self}: only sites of kind {', '.join(PER_HEAD)} take a head")

    def __str__(self) -> str:
        parts = [self.kind, *(str(part) for part in (self.layer, self.head) if part is not None)]
        return " ".join(parts) if self.path is None else f"{self.kind} {self.path!r}"


class Recording(Mapping[Site, Tensor]):
    """What was seen at each site.

    `recording[site]` is one tensor: that of the only forward pass, or of several, concatenated along the batch axis.
    `recording.passes(site)` lists them one a forward pass, as `generate` needs. With one position a row (``"last"``, an
    int, one index a row) the position axis is gone.
    """

    def __init__(self, sites: Iterable[Site]) -> None:
        self._seen: dict[Site, list[Tensor]] = {site: [] for site in sites}

    def passes(self, site: Site) -> Sequence[Tensor]:
        """The activations at the site, one tensor a forward pass that came by the positions."""
        if site not in self._seen:
            raise KeyError(f"{site} was not recorded; the sites are {', '.join(map(str, self._seen))}")
        return self._seen[site]

    def __getitem__(self, site: Site) -> Tensor:
        passes = self.passes(site)
        if not passes:
            raise LookupError(f"nothing was seen at {site}: no forward pass came by it at these positions")
        return passes[0] if len(passes) == 1 else torch.cat(list(passes))

    def __iter__(self) -> Iterator[Site]:
        return iter(self._seen)

    def __len__(self) -> int:
        return len(self._seen)


@contextmanager
def record(
    model: nn.Module,
    sites: Iterable[Site],
    *,
    positions: Positions = "all",
    detach: bool = True,
    stop: bool = False,
) -> Iterator[Recording]:
    """Keep the activations at `sites` of every forward pass inside the context.

    Parameters
    ----------
    model
        A Hugging Face decoder, or any module if all sites are paths.
    sites
        The places to read.
    positions
        Which columns: see `interplay.primitives.positions`.
    detach
        Cut the tensors off the autograd graph. The tensors share memory with the model's own where they can.
    stop
        End the forward pass, and with it the context's body, as soon as every site was seen: what lies behind is not
        computed.

    Yields
    ------
    Recording
        A mapping from site to tensor.

    Raises
    ------
    IndexError
        A layer or head that the model does not have.
    ValueError
        An unknown layout or path, parameters on the meta device, malformed positions.
    """
    recording = Recording(sites)
    waiting = set(recording)

    def visitor(site: Site) -> Edit:
        def see(activation: Tensor) -> None:
            recording._seen[site].append(activation.detach() if detach else activation)
            waiting.discard(site)
            if stop and not waiting:
                raise _Enough(recording)

        return see

    handles = _attach(model, {site: visitor(site) for site in recording}, positions)
    try:
        yield recording
    except _Enough as signal:
        if signal.recording is not recording:
            raise
    finally:
        _remove(handles)


@contextmanager
def edit(model: nn.Module, edits: Mapping[Site, Edit], *, positions: Positions = "all") -> Iterator[Mapping[Site, int]]:
    """Replace the activations at sites by functions of them, in every forward pass inside the context.

    Parameters
    ----------
    model
        A Hugging Face decoder, or any module if all sites are paths.
    edits
        For each site a function from the activation (at the selected positions, shaped as `record` shows it) to its
        replacement of the same shape, which is cast to the activation's dtype; None, or the argument itself, leaves
        everything untouched. A function must not change its argument in place.
    positions
        As in `record`.

    Yields
    ------
    Mapping
        For each site the number of positions (rows x columns) that its function replaced so far.

    Raises
    ------
    IndexError, ValueError
        As in `record`; ValueError also from the forward pass if a replacement has another shape.
    """
    applied = dict.fromkeys(edits, 0)

    def visitor(site: Site, function: Edit) -> Edit:
        trailing = 1 if site.kind not in PER_HEAD or site.head is not None else 2

        def change(activation: Tensor) -> Tensor | None:
            new = function(activation)
            if new is not None and new is not activation:
                applied[site] += activation.shape[:-trailing].numel()
            return new

        return change

    handles = _attach(model, {site: visitor(site, function) for site, function in edits.items()}, positions)
    try:
        yield applied
    finally:
        _remove(handles)


@contextmanager
def patch(
    model: nn.Module, values: Mapping[Site, Tensor], *, positions: Positions = "all"
) -> Iterator[Mapping[Site, int]]:
    """Overwrite the activations at sites by given tensors, for instance by what `record` saw on another prompt.

    Each value is broadcast to the activation at the selected positions; the rest is as in `edit`.
    """

    def overwrite(site: Site, value: Tensor) -> Edit:
        def replace(activation: Tensor) -> Tensor:
            try:
                return value.to(activation).expand_as(activation)
            except RuntimeError:
                raise ValueError(
                    f"the patch of {site} has shape {list(value.shape)}, "
                    f"which does not broadcast to {list(activation.shape)}"
                ) from None

        return replace

    edits = {site: overwrite(site, value) for site, value in values.items()}
    with edit(model, edits, positions=positions) as applied:
        yield applied


class _Enough(Exception):
    """Ends a forward pass once all sites of a recording were seen."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording


def _attach(model: nn.Module, visitors: Mapping[Site, Edit], positions: Positions) -> list[RemovableHandle]:
    """Install one hook a site, and one that follows the sequence if positions are asked for. All or none."""
    check_positions(positions)
    if not visitors:
        return []
    _check_materialised(model)
    decoder = None if all(site.kind == "module" for site in visitors) else Decoder(model)
    progress = Progress()
    handles: list[RemovableHandle] = []
    try:
        if not (isinstance(positions, str) and positions == "all"):
            follower = decoder or find_decoder(model)
            body = model if follower is None else follower.body
            handles.append(body.register_forward_pre_hook(progress.observe, with_kwargs=True))
        for site, visit in visitors.items():
            handles.append(_hook(model, decoder, site, visit, positions, progress))
    except BaseException:
        _remove(handles)
        raise
    return handles


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()


def _hook(
    model: nn.Module, decoder: Decoder | None, site: Site, visit: Edit, positions: Positions, progress: Progress
) -> RemovableHandle:
    # From the activation to a view of the site's part of it; None where that is all of it, as it is.
    view: Callable[[Tensor], Tensor] | None = None
    if decoder is None or site.kind == "module":
        target, before = _module_at(model, site.path or ""), False
    elif site.kind == "embedding":
        target, before = decoder.layer(0), True
    else:
        layer = site.layer or 0
        decoder.check(layer, site.head, site.kind)
        if site.kind == "residual":
            target, before = decoder.layer(layer), False
        elif site.kind == "neurons":
            target, before = decoder.mlp_output(layer), True
        elif site.kind == "heads":
            target, before = decoder.attention_output(layer), True
            heads = (decoder.n_heads, decoder.head_width(layer))

            def view(z: Tensor) -> Tensor:
                return z.view(*z.shape[:-1], *heads)

        else:
            inputs = decoder.attention_input(layer, site.kind)
            target, before, view = inputs.module, False, inputs.view

    def part_of(activation: Tensor) -> Tensor:
        shaped = activation if view is None else view(activation)
        return shaped if site.head is None else shaped[..., site.head, :]

    def through(activation: Tensor) -> Tensor | None:
        whole = part_of(activation)
        index = index_of(positions, progress, whole)
        if index is None:
            return None
        seen = whole[index] if index else whole
        new = visit(seen)
        if new is None or new is seen:
            return None
        if not isinstance(new, Tensor) or new.shape != seen.shape:
            got = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
            raise ValueError(f"the edit of {site} must return a tensor of shape {list(seen.shape)} or None; got {got}")
        new = new.to(activation.dtype)
        if not index and new.numel() == activation.numel():
            return new.reshape(activation.shape)
        changed = activation.clone(memory_format=torch.contiguous_format)
        part_of(changed)[index or ...] = new
        return changed

    if before:

        def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            name = None if args else next(iter(kwargs))
            new = through(args[0] if name is None else kwargs[name])
            if new is None:
                return None
            return ((new, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: new})

        return target.register_forward_pre_hook(on_input, with_kwargs=True)

    def on_output(module: nn.Module, _: tuple[Any, ...], output: Any) -> Any:
        first = output[0] if isinstance(output, tuple) else output
        if not isinstance(first, Tensor):
            raise ValueError(
                f"{site}: {type(module).__name__} returns {type(first).__name__}, not a tensor or a tuple of tensors"
            )
        new = through(first)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return target.register_forward_hook(on_output)


def _check_materialised(model: nn.Module) -> None:
    # Offloaded models keep their parameters on the meta device on purpose and bring them in by accelerate's own hooks.
    if any(parameter.is_meta for parameter in model.parameters()) and not any(
        hasattr(module, "_hf_hook") for module in model.modules()
    ):
        raise ValueError(f"{type(model).__name__} has parameters on the meta device; load its weights first")


def _module_at(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        parent = path
        while parent:
            parent = parent.rpartition(".")[0]
            try:
                children = [name for name, _ in model.get_submodule(parent).named_children()]
                break
            except AttributeError:
                continue
        raise ValueError(
            f"{type(model).__name__} has no module at {path!r}; {parent!r} holds {', '.join(children) or 'nothing'}"
        ) from None
