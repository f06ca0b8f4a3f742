"""What AUSteer costs: counting against loops over units; generation with a patch, with an empty hook, and folded."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from measure import HEADER, compare
from torch import Tensor

from interplay.assets import gemma_3_270m
from interplay.primitives.activations import edit
from interplay.steering.austeer import UnitPatch, momentum, sites_of

NOUNS = ("river", "garden", "engine", "letter", "window", "winter", "market", "bridge")
FORMAL = [f"I would be most grateful if you could kindly describe the {noun}." for noun in NOUNS]
PLAIN = [f"hey, what's the {noun} like?" for noun in NOUNS]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--layers", type=int, default=18)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--units", type=int, nargs="+", default=[16, 100])
    parser.add_argument("--tokens", type=int, default=32, help="tokens to generate; 0 leaves Gemma 3 out")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADER)
    for row in counting(options.pairs, options.layers, options.width, options.repeats):
        print(row)
    if options.tokens:
        model, tokenizer = gemma_3_270m()
        for units in options.units:
            for row in generation(model, tokenizer, units, options.tokens, options.repeats):
                print(row)


def counting(pairs: int, layers: int, width: int, repeats: int) -> list[str]:
    """Momentum of all units at once, and unit by unit as published."""
    generator = torch.Generator().manual_seed(0)
    pos, neg = (torch.randn(pairs, layers, width, generator=generator) for _ in range(2))

    def looped() -> list[float]:
        scores = []
        for layer in range(layers):
            one, other = pos[:, layer], neg[:, layer]
            for unit in range(width):
                difference = one[:, unit : unit + 1] - other[:, unit : unit + 1]
                larger, smaller = (difference > 0).sum(0), (difference < 0).sum(0)
                share = torch.max(larger, smaller) / len(difference)
                scores.append(float(-share if larger < smaller else share))
        return scores

    torch.testing.assert_close(momentum(pos, neg).beta.flatten(), torch.tensor(looped()))
    work = f"momentum of {layers * width} units, {pairs} pairs"
    return compare(work, {"interplay": lambda: momentum(pos, neg).beta, "unit by unit": looped}, repeats=repeats).rows()


def generation(model: Any, tokenizer: Any, units: int, tokens: int, repeats: int) -> list[str]:
    """Generation by Gemma 3 270M."""
    patch = UnitPatch.fit(model, tokenizer, FORMAL, PLAIN, site="ffn", k=units, alpha=0.5)
    inputs = tokenizer(PLAIN[:1], return_tensors="pt")
    places = sites_of(model, "ffn")
    nothing = {places[layer]: lambda h: h for layer in patch.layers.unique().tolist()}

    def generate() -> Tensor:
        return model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def within(context: Callable[[], Any]) -> Callable[[], Tensor]:
        def generated() -> Tensor:
            with context():
                return generate()

        return generated

    def folded() -> Tensor:
        written = patch.fold(model)
        try:
            return generate()
        finally:
            written.undo()

    assert torch.equal(within(lambda: patch.applied(model))(), folded())
    alternatives = {
        "interplay": within(lambda: patch.applied(model)),
        "empty hooks at the same places": within(lambda: edit(model, nothing)),
        "interplay, folded": folded,
        "not steered": generate,
    }
    work = f"Gemma 3 270M, {tokens} tokens, {units} units in {len(nothing)} layers"
    return compare(work, alternatives, repeats=repeats).rows()


if __name__ == "__main__":
    main()
