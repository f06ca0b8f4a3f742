"""When the controller reads, and what it said: the state of one context."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site, edit, record
from interplay.primitives.decoders import Decoder
from interplay.primitives.positions import Progress
from interplay.steering.interface import Applied, Strength, by_row
from interplay.steering.weighted_steering.controller import Controller

if TYPE_CHECKING:
    from interplay.steering.weighted_steering.method import WeightedSteering

__all__ = ["Reading", "Schedule", "Traced"]

Schedule = Literal["two-pass", "previous-step", "same-pass", "prefix"]
"""When the controller reads.

"two-pass": the prompt is run once unsteered, no further than the last input layer; what the controller says then holds
for the prompt's last token and all that is generated. "previous-step": each token is steered by what the controller
read at an earlier one; the prompt is not steered. "same-pass": the controller reads in every pass and steers the layers
from its last input on, as the official code does. "prefix": the same, with all inputs before all steered layers.
"""

_ENTERED = itertools.count()
_READERS: WeakKeyDictionary[nn.Module, Reading] = WeakKeyDictionary()
"""Who is just now having a prompt run before it is steered. What was entered earlier steers that run, nothing else."""


class Reading:
    """What the controller says of the rows that are being read.

    Parameters
    ----------
    steering
        Whose alpha, norms, directions and schedule.
    controller
        Its controller, on the model's device.
    strength
        One, or one a row.

    Attributes
    ----------
    s, w
        What the controller said last, [batch] and [batch, layer]; None before it read anything.
    entered
        Grows from context to context.
    """

    def __init__(self, steering: WeightedSteering, controller: Controller, strength: Strength) -> None:
        self.steering, self.controller, self.strength = steering, controller, strength
        self.s: Float[Tensor, " batch"] | None = None
        self.w: Float[Tensor, "batch layer"] | None = None
        self._amounts: Float[Tensor, "layer batch"] | None = None
        self._directions: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        self._last: Mapping[Site, Tensor] | None = None
        self._passes = 0
        self._body: nn.Module | None = None
        self.entered = 0

    def hear(self, states: Mapping[Site, Float[Tensor, "batch d_model"]]) -> None:
        """Let the controller read the states of all input layers.

        Raises
        ------
        ValueError
            States that are not finite; the message names the layer.
        """
        for site, state in states.items():
            if not bool(state.isfinite().all()):
                raise ValueError(f"activations at {site} are not finite; load the model in bfloat16 or float32")
        weight = self.controller.inner.weight
        device = weight.device
        with torch.no_grad():
            x = torch.cat([states[Site("residual", layer)].to(device) for layer in self.steering.input_layers], 1)
            self.s, self.w = self.controller(x.to(weight.dtype))
            amounts = self.steering.amounts(self.s, self.w)
            self._amounts = (amounts * by_row(self.strength, amounts)).T.contiguous()

    def edits(self) -> dict[Site, Edit]:
        """One for every steered layer; None, nothing, before the controller has read."""
        return {Site("residual", layer): self._edit(index) for index, layer in enumerate(self.steering.steered_layers)}

    def _edit(self, index: int) -> Edit:
        def add(h: Tensor) -> Tensor | None:
            reader = _READERS.get(self._body) if self._body is not None else None
            if self._amounts is None or (reader is not None and reader.entered <= self.entered):
                return None
            amount = self._amounts[index].to(h)
            return torch.addcmul(h, by_row(amount, h), self._direction(index, h))  # type: ignore[arg-type]

        return add

    def _direction(self, index: int, h: Tensor) -> Tensor:
        key = (h.dtype, h.device)
        if key not in self._directions:
            # Tensors made under the inference mode of `generate` could serve no backward pass later.
            with torch.inference_mode(False):
                self._directions[key] = self.steering.directions.detach().to(h.device, h.dtype)
        return self._directions[key][index]

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Hook the reading in, by the steering's schedule."""
        progress, schedule = Progress(), self.steering.schedule
        self._body, self.entered = Decoder(model).body, next(_ENTERED)
        body = self._body
        sites = [Site("residual", layer) for layer in self.steering.input_layers]

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if body in _READERS:
                return
            progress.observe(module, args, kwargs)
            if progress.start == 0:
                _check_padding(progress, kwargs)
                self.s = self.w = self._amounts = self._last = None
                self._passes = 0
                if schedule == "two-pass":
                    self._read_first(model, module, sites, args, kwargs)
            elif schedule == "two-pass" and self._amounts is None:
                raise RuntimeError(
                    "the key-value cache holds a prompt that was read outside of the context; enter it before that"
                )
            elif schedule == "previous-step" and self._last is not None:
                if self._passes % self.steering.refresh == 0:
                    self.hear(self._last)
                self._passes += 1
            if schedule in ("same-pass", "prefix"):
                self._amounts = None

        with ExitStack() as stack:
            stack.callback(body.register_forward_pre_hook(before, with_kwargs=True).remove)
            if schedule != "two-pass":
                stack.enter_context(_listening(model, sites, self._keep if schedule == "previous-step" else self._hear))
            yield

    def _read_first(
        self, model: nn.Module, body: nn.Module, sites: list[Site], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Run the prompt once without steering, as far as the last input layer."""
        _READERS[body] = self
        try:
            with torch.no_grad(), record(model, sites, positions="last", stop=True) as seen:
                body(*args, **{**kwargs, "past_key_values": None, "use_cache": False})
        finally:
            del _READERS[body]
        self.hear(seen)

    def _hear(self, states: Mapping[Site, Tensor]) -> None:
        if self._body not in _READERS:
            self.hear(states)

    def _keep(self, states: Mapping[Site, Tensor]) -> None:
        if self._body not in _READERS:
            self._last = states


class Traced(Applied):
    """For each site the number of tokens that were steered so far, and what the controller said of the last batch."""

    def __init__(self, counts: Mapping[Site, int], reading: Reading) -> None:
        super().__init__(counts)
        self._reading = reading

    @property
    def s(self) -> Float[Tensor, " batch"]:
        """Gated strengths [batch]; LookupError before the controller has read."""
        return self._said()[0]

    @property
    def w(self) -> Float[Tensor, "batch layer"]:
        """Weights of the steered layers, [batch, layer]."""
        return self._said()[1]

    @property
    def lengths(self) -> Float[Tensor, "batch layer"]:
        """Length of what is added to each token at each steered layer, negative where it points away."""
        amounts = self._reading.steering.amounts(*self._said())
        return amounts * by_row(self._reading.strength, amounts)

    def _said(self) -> tuple[Tensor, Tensor]:
        if self._reading.s is None or self._reading.w is None:
            raise LookupError("the controller has read nothing yet: run the model inside the context first")
        return self._reading.s, self._reading.w


@contextmanager
def _listening(model: nn.Module, sites: list[Site], hear: Callable[[Mapping[Site, Tensor]], None]) -> Iterator[None]:
    """Call `hear` in every forward pass with the last token's states, as soon as all sites were seen."""
    seen: dict[Site, Tensor] = {}

    def listener(site: Site) -> Edit:
        def listen(activation: Tensor) -> None:
            seen[site] = activation.detach()
            if len(seen) == len(sites):
                states = dict(seen)
                seen.clear()
                hear(states)

        return listen

    with edit(model, {site: listener(site) for site in sites}, positions="last"):
        yield


def _check_padding(progress: Progress, kwargs: Mapping[str, Any]) -> None:
    """Refuse right padding where a cache is filled: what is generated would follow the padding."""
    if kwargs.get("past_key_values") is not None and progress.mask is not None and not bool(progress.mask[:, -1].all()):
        raise ValueError("the batch is padded on the right; set tokenizer.padding_side = 'left' to generate from it")
