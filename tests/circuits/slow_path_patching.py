"""Path patching as it is defined: one sender at a time, three whole forward passes, plain hooks. Slow on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from interplay.circuits.circuit_reuse import Batch, Receiver

Change = Callable[[Tensor], "Tensor | None"]


class Anatomy:
    """The modules of a GPT-2, or of a model with Llama's names, and where a head's part of their tensors is."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.fused = hasattr(model, "transformer")
        body = model.transformer if self.fused else model.model
        self.layers = body.h if self.fused else body.layers
        self.final_norm = body.ln_f if self.fused else body.norm
        config = model.config
        self.n_heads = config.num_attention_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.n_heads

    def mix(self, layer: int) -> nn.Module:
        block = self.layers[layer]
        return block.attn.c_proj if self.fused else block.self_attn.o_proj

    def mlp(self, layer: int) -> nn.Module:
        return self.layers[layer].mlp

    def projection(self, layer: int, component: str) -> nn.Module:
        block = self.layers[layer]
        return block.attn.c_attn if self.fused else getattr(block.self_attn, f"{component}_proj")

    def part(self, component: str, head: int) -> slice:
        before = "qkv".index(component) * self.n_heads if self.fused and component in "qkv" else 0
        return slice((before + head) * self.width, (before + head + 1) * self.width)


def on_input(module: nn.Module, change: Change):
    def hook(_: nn.Module, args: tuple[Tensor, ...]):
        new = change(args[0])
        return None if new is None else (new, *args[1:])

    return module.register_forward_pre_hook(hook)


def on_output(module: nn.Module, change: Change):
    return module.register_forward_hook(lambda _module, _args, output: change(output))


def keep(store: dict, key: object) -> Change:
    def see(activation: Tensor) -> None:
        store[key] = activation.clone()

    return see


def put(columns: Tensor, parts: Sequence[tuple[slice, Tensor]]) -> Change:
    """Overwrite features of the activation at the columns by those of other whole activations."""

    def change(activation: Tensor) -> Tensor:
        changed = activation.clone()
        rows = torch.arange(len(activation))[:, None]
        for features, source in parts:
            changed[rows, columns, features] = source[rows, columns, features]
        return changed

    return change


def slow_effect(
    model: nn.Module,
    clean: Batch,
    corrupt: Batch,
    receivers: Sequence[Receiver],
    sender: tuple[int, int],
    positions: str | Sequence[str] = "end",
    freeze_mlps: bool = False,
) -> float:
    """The effect of one sender."""
    body, columns = Anatomy(model), clean.places(positions)
    everywhere = torch.arange(clean.ids.shape[1]).expand_as(clean.ids)
    layers = range(len(body.layers))

    def run(batch: Batch, *hooks) -> float:
        with ExitStack() as stack, torch.no_grad():
            for make, module, change in hooks:
                stack.callback(make(module, change).remove)
            logits = model(**batch.inputs(model)).logits[torch.arange(len(batch)), batch.end]
        # The answer and contrast are those of the clean prompts in every run.
        return float((logits.gather(1, clean.answer[:, None]) - logits.gather(1, clean.contrast[:, None])).mean())

    z, spoiled, mlps = {}, {}, {}
    reference = run(
        clean,
        *((on_input, body.mix(layer), keep(z, layer)) for layer in layers),
        *((on_output, body.mlp(layer), keep(mlps, layer)) for layer in layers),
    )
    corrupted = run(corrupt, *((on_input, body.mix(layer), keep(spoiled, layer)) for layer in layers))

    received: dict[Receiver, Tensor] = {}
    hooks = []
    for receiver in receivers:
        if receiver.layer is None:
            hooks.append((on_input, body.final_norm, keep(received, receiver)))
        elif receiver.component == "z":
            hooks.append((on_input, body.mix(receiver.layer), keep(received, receiver)))
        else:
            hooks.append((on_output, body.projection(receiver.layer, receiver.component), keep(received, receiver)))
    for layer in layers:
        hooks.append((on_input, body.mix(layer), put(everywhere, [(slice(None), z[layer])])))
        if layer == sender[0]:
            hooks.append((on_input, body.mix(layer), put(columns, [(body.part("z", sender[1]), spoiled[layer])])))
        if freeze_mlps:
            hooks.append((on_output, body.mlp(layer), put(columns, [(slice(None), mlps[layer])])))
    run(clean, *hooks)

    hooks = []
    for receiver, seen in received.items():
        if receiver.layer is None:
            hooks.append((on_input, body.final_norm, put(columns, [(slice(None), seen)])))
        elif receiver.component == "z":
            hooks.append((on_input, body.mix(receiver.layer), put(columns, [(body.part("z", receiver.head), seen)])))
        else:
            part = body.part(receiver.component, receiver.head)
            hooks.append((on_output, body.projection(receiver.layer, receiver.component), put(columns, [(part, seen)])))
    return (run(clean, *hooks) - reference) / (corrupted - reference)
