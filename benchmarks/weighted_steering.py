"""What a controller costs: generation by Gemma 3 270M with it, a bare addition, loops over rows; and its training."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from measure import HEADER, compare
from torch import Tensor, nn

from interplay.assets import gemma_3_270m
from interplay.primitives.activations import Site, edit
from interplay.primitives.decoders import Decoder
from interplay.steering.weighted_steering import Controller, WeightedSteering, train_on_states

NOUNS = ("river", "garden", "engine", "letter", "window", "winter", "market", "bridge")
FORMAL = [f"I would be most grateful if you could kindly describe the {noun}." for noun in NOUNS]
PLAIN = [f"hey, what's the {noun} like?" for noun in NOUNS]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=1000, help="states on which a controller is trained")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = gemma_3_270m()
    steering = WeightedSteering.fit(model, tokenizer, FORMAL, PLAIN, epochs=1, alpha=0.02)
    print(HEADER)
    for batch in options.batches:
        for row in generation(model, tokenizer, steering, batch, options.tokens, options.repeats):
            print(row)
    share = sum(p.numel() for p in steering.controller.parameters()) / sum(p.numel() for p in model.parameters())
    seconds = training(steering, options.prompts)
    print(f"\nThe controller has {share:.1%} of the model's parameters; 10 epochs on {options.prompts} cached states")
    print(f"of width {steering.controller.in_dim} take {seconds:.1f} s.")


def generation(
    model: Any, tokenizer: Any, steering: WeightedSteering, batch: int, tokens: int, repeats: int
) -> list[str]:
    """Greedy generation in five ways."""
    inputs = tokenizer(PLAIN[:batch], return_tensors="pt", padding=True, padding_side="left")

    def generate() -> Tensor:
        return model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def within(context: Callable[[], Any]) -> Callable[[], Tensor]:
        def generated() -> Tensor:
            with context():
                return generate()

        return generated

    depth = steering.shape.n_layers
    early = WeightedSteering.with_controller(
        model,
        Controller(4 * steering.shape.d_model, depth - 4),
        steering.directions[4:],
        steering.norms[4:],
        input_layers=range(4),
        schedule="prefix",
        alpha=0.02,
    )
    amounts = (0.005 * steering.norms[:, None] * steering.directions).detach()
    bare = {Site("residual", layer): lambda h, vector=vector: h + vector.to(h) for layer, vector in enumerate(amounts)}
    work = f"{tokens} tokens, batch {batch}, all {depth} layers steered"
    alternatives = {
        "interplay": within(lambda: steering.applied(model)),
        "not steered": generate,
        "a constant added to every layer": within(lambda: edit(model, bare, positions="last")),
        "interplay, schedule prefix": within(lambda: early.applied(model)),
        "loops over rows, as published": within(lambda: looped(model, steering)),
    }
    return compare(work, alternatives, repeats=repeats).rows()


@contextmanager
def looped(model: Any, steering: WeightedSteering) -> Iterator[None]:
    """Two hooks a layer; in each of them every row on its own, and the controller for one row at a time."""
    layers = Decoder(model).layers
    held: dict[tuple[int, int], Tensor] = {}
    said: dict[int, tuple[Tensor, Tensor]] = {}

    def capture(layer: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            for row in range(len(states)):
                held[row, layer] = states[row, -1].detach().clone()

        return hook

    def apply(layer: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            rows = []
            for row in range(len(states)):
                if row not in said and all((row, one) in held for one in steering.input_layers):
                    x = torch.cat([held.pop((row, one)) for one in steering.input_layers])
                    said[row] = steering.controller(x[None].float())
                changed = states[row].clone()
                if row in said:
                    s, w = said[row]
                    changed[-1] += s[0] * w[0, layer] * steering.alpha * steering.directions[layer]
                rows.append(changed)
            if layer == len(layers) - 1:
                held.clear()
                said.clear()
            stacked = torch.stack(rows)
            return (stacked, *output[1:]) if isinstance(output, tuple) else stacked

        return hook

    with torch.no_grad():
        handles = [layers[layer].register_forward_hook(capture(layer)) for layer in steering.input_layers]
        handles += [block.register_forward_hook(apply(layer)) for layer, block in enumerate(layers)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def training(steering: WeightedSteering, prompts: int) -> float:
    """Seconds of the published training on states that are there already."""
    states = torch.randn(prompts, steering.controller.in_dim, generator=torch.Generator().manual_seed(0))
    controller = Controller(steering.controller.in_dim, steering.controller.n_layers)
    start = time.perf_counter()
    train_on_states(controller, states[: prompts // 2] + 0.1, states[prompts // 2 :], torch.Generator(), 10, 8, 5e-5)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
