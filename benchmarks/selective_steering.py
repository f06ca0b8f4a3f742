"""What turning activations in a plane costs: rank two against dense matrices, and steered against plain generation."""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from measure import HEADER, compare

from interplay.assets import gemma_3_270m
from interplay.steering.selective_steering import SelectiveSteering, SteeringPlane, rotation

NOUNS = ("river", "garden", "engine", "letter", "window", "winter", "market", "bridge")
FORMAL = [f"I would be most grateful if you could kindly describe the {noun}." for noun in NOUNS]
PLAIN = [f"hey, what's the {noun} like?" for noun in NOUNS]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[640, 2048])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--tokens", type=int, default=32, help="tokens to generate; 0 leaves Gemma 3 out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(HEADER)
    for width in options.widths:
        for length in options.lengths:
            for row in operators(width, length, options.repeats):
                print(row)
    if options.tokens:
        for row in generation(options.tokens, options.repeats):
            print(row)


@torch.inference_mode()
def operators(width: int, length: int, repeats: int) -> list[str]:
    """One site: the published formula with its two dense matrices, the two merged into one, and rank two."""
    rng = np.random.default_rng(0)
    axes = torch.from_numpy(np.linalg.qr(rng.standard_normal((width, 2)))[0]).float()
    plane = SteeringPlane(width, ["layers.0.norm"])
    plane.b1.copy_(axes[:, 0])
    plane.b2.copy_(axes[:, 1])
    cosine, sine = math.cos(math.radians(120)), math.sin(math.radians(120))
    projection = axes @ axes.T
    turn = axes @ torch.tensor([[cosine, -sine], [sine, cosine]]) @ axes.T
    merged = torch.eye(width) - projection + turn
    h = torch.from_numpy(rng.standard_normal((1, length, width))).float()
    rotate = rotation(plane, 120.0)  # once an application, as the angles of the official code
    torch.testing.assert_close(rotate(h), h - h @ projection.T + h @ turn.T, rtol=0, atol=1e-5)
    calls = max(1, 20_000_000 // (width * width * length))

    def many(function):  # type: ignore[no-untyped-def]
        return lambda: [function() for _ in range(calls)]

    alternatives = {
        "interplay": many(lambda: rotate(h)),
        "two dense matrices": many(lambda: h - h @ projection.T + h @ turn.T),
        "one dense matrix": many(lambda: h @ merged.T),
    }
    work = f"{calls} rotations of {length} token(s), width {width}"
    return compare(work, alternatives, repeats=repeats).rows()


def generation(tokens: int, repeats: int) -> list[str]:
    """Generation by Gemma 3 270M with every norm of every block turned, and without."""
    model, tokenizer = gemma_3_270m()
    steering = SelectiveSteering.fit(model, tokenizer, FORMAL, PLAIN, layers="all")
    inputs = tokenizer(PLAIN[:1], return_tensors="pt")

    def plain() -> torch.Tensor:
        return model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False)

    def steered() -> torch.Tensor:
        with steering.at(model, 60.0):
            return plain()

    work = f"Gemma 3 270M, {tokens} tokens, {len(steering.plane.sites)} norms turned"
    return compare(work, {"interplay": steered, "not steered": plain}, repeats=repeats).rows()


if __name__ == "__main__":
    main()
