"""Steering Gemma 3 270M against repeng and steering-vectors: time to fit, tokens a second, peak memory.

The peers add the same vector after the same layer and must generate the very tokens that ours generates, or they are
reported as different and not timed. One that is not installed is reported as missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy
import torch
from measure import HEADER, compare, peak_megabytes
from torch import Tensor

from interplay.assets import gemma_3_270m
from interplay.steering.activation_addition import ActivationAddition

LAYER = 9
WORDS = (
    "the a small large old new river mountain city teacher child garden letter winter morning found lost wrote saw "
    "built near under between quickly slowly and but because while one two many red green quiet loud"
)
Context = Callable[[], AbstractContextManager[object]]


def prompts_of_many_lengths(count: int, opening: str, seed: int) -> list[str]:
    """Word salad between 5 and 60 words, as uneven as prompts are."""
    draw = random.Random(seed)
    return [f"{opening} {' '.join(draw.choices(WORDS.split(), k=draw.randint(5, 60)))}." for _ in range(count)]


def steering_vectors_peer(model: Any, tokenizer: Any, vector: Tensor) -> tuple[Callable[..., object], Context]:
    """Fit in batches of 16; apply to all tokens."""
    import steering_vectors

    def fit(positive: list[str], negative: list[str]) -> object:
        pairs = list(zip(positive, negative, strict=True))
        return steering_vectors.train_steering_vector(model, tokenizer, pairs, layers=[LAYER], batch_size=16)

    applied = steering_vectors.SteeringVector({LAYER: vector}, "decoder_block")
    return fit, lambda: applied.apply(model)


def repeng_peer(model: Any, tokenizer: Any, vector: Tensor) -> tuple[Callable[..., object], Context]:
    """Its own method, a principal component of differences, in its default batches of 32; layers are wrapped."""
    numpy.float64 = numpy.float64  # version 0.4 asks NumPy for a name that NumPy 2 has dropped
    import repeng

    direction = repeng.ControlVector("gemma3_text", {LAYER: vector.numpy()})

    def fit(positive: list[str], negative: list[str]) -> object:
        entries = [repeng.DatasetEntry(*pair) for pair in zip(positive, negative, strict=True)]
        return repeng.ControlVector.train(model, tokenizer, entries, hidden_layers=[LAYER])

    @contextmanager
    def applied() -> Any:
        wrapped = repeng.ControlModel(model, [LAYER])
        wrapped.set_control(direction, 1.0)
        try:
            yield
        finally:
            wrapped.unwrap()

    return fit, applied


PEERS = {"steering_vectors": steering_vectors_peer, "repeng": repeng_peer}


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fits", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)

    model, tokenizer = gemma_3_270m()
    positive = prompts_of_many_lengths(options.prompts, "What a wonderful day!", 0)
    negative = prompts_of_many_lengths(options.prompts, "What a terrible day.", 1)
    steering = ActivationAddition.fit(model, tokenizer, positive, negative, layers=[LAYER])
    peers, missing = {}, []
    for name, make in PEERS.items():
        if importlib.util.find_spec(name) is None:
            missing.append(name)
        else:
            peers[name] = make(model, tokenizer, steering.vectors[0])

    print(HEADER)
    fits: dict[str, Callable[[], object]] = {
        "interplay": lambda: ActivationAddition.fit(model, tokenizer, positive, negative, layers=[LAYER])
    }
    for name, (fit, _) in peers.items():
        fits[name] = lambda fit=fit: fit(positive, negative)
    work = f"fit on {options.prompts} + {options.prompts} prompts, layer {LAYER} of 18"
    print("\n".join(compare(work, fits, repeats=options.fits).rows()))

    different = []
    for batch in (1, 8):
        ids = tokenizer("The weather today is", return_tensors="pt").input_ids.expand(batch, -1).contiguous()
        generation = {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens, "do_sample": False}

        def unsteered(ids: Tensor = ids, generation: dict[str, Any] = generation) -> Tensor:
            return model.generate(ids, attention_mask=torch.ones_like(ids), **generation)

        def within(context: Context, generate: Callable[[], Tensor] = unsteered) -> Callable[[], Tensor]:
            def generated() -> Tensor:
                with context():
                    return generate()

            return generated

        alternatives = {"interplay": within(lambda: steering.applied(model)), "unsteered": unsteered}
        expected = alternatives["interplay"]()
        for name, (_, context) in peers.items():
            if torch.equal(within(context)(), expected):
                alternatives[name] = within(context)
            else:
                different.append(f"{name} generates other tokens at batch {batch}: not timed")
        work = f"batch {batch}, {options.tokens} tokens, one layer steered"
        print("\n".join(compare(work, alternatives, repeats=options.repeats).rows()))

    print("\n| fit | peak memory beyond the model |\n| --- | --- |")
    for name, fit in fits.items():
        print(f"| {name} | {peak_megabytes(fit):.0f} MB |")
    for line in different + [f"{name} was not there: pip install {name.replace('_', '-')}" for name in missing]:
        print(f"\n{line}")


if __name__ == "__main__":
    main()
