"""What hooks cost while Gemma 3 270M generates: no edit, an empty edit, one scaled head; and the same edit by peers.

The peers are nnsight and TransformerLens. One that is not installed is reported as missing; every alternative must
generate the very tokens that ours generates, or it is reported as different and not timed.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from measure import HEADER, compare
from torch import Tensor

from interplay.assets import gemma_3_270m
from interplay.primitives.activations import Site, edit

LAYER, HEAD, GAIN = 12, 1, 4.0
PROMPT = "The capital of Poland is London. Q: What is the capital of Poland? A:"


def nnsight_generator(model: Any, tokenizer: Any, ids: Tensor, generation: dict[str, Any]) -> Callable[[], Tensor]:
    """The same edit in nnsight's tracing context."""
    from nnsight import TransformersModel

    wrapped = TransformersModel(model, tokenizer=tokenizer, task="text-generation")
    width = model.config.head_dim
    columns = slice(HEAD * width, (HEAD + 1) * width)

    def generate() -> Tensor:
        with wrapped.generate(ids, **generation) as tracer:
            for _ in tracer.iter[: generation["max_new_tokens"]]:
                wrapped.model.layers[LAYER].self_attn.o_proj.input[..., columns] *= GAIN
            tokens = tracer.result.save()
        return tokens  # noqa: RET504 - filled when the trace ends

    return generate


def transformer_lens_generator(
    model: Any, tokenizer: Any, ids: Tensor, generation: dict[str, Any]
) -> Callable[[], Tensor]:
    """The same edit at TransformerLens's hook point, in its bridge around a second copy of the model."""
    from transformer_lens.model_bridge import TransformerBridge

    own = gemma_3_270m(attn_implementation="eager").model
    own.config.architectures = [type(own).__name__]  # by which the bridge finds its adapter
    bridge = TransformerBridge.boot_transformers("google/gemma-3-270m", hf_model=own, tokenizer=tokenizer, device="cpu")

    def scale(z: Tensor, hook: Any) -> Tensor:
        width = model.config.head_dim
        flat = z.clone().flatten(2) if z.ndim == 4 else z.clone()
        flat[..., HEAD * width : (HEAD + 1) * width] *= GAIN
        return flat.view_as(z)

    def generate() -> Tensor:
        with bridge.hooks(fwd_hooks=[(f"blocks.{LAYER}.attn.hook_z", scale)]):
            return bridge.generate(
                ids,
                max_new_tokens=generation["max_new_tokens"],
                do_sample=False,
                stop_at_eos=False,
                verbose=False,
            )

    return generate


PEERS = {"nnsight": nnsight_generator, "transformer_lens": transformer_lens_generator}


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model, tokenizer = gemma_3_270m()
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids.expand(options.batch, -1).contiguous()
    generation = {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens, "do_sample": False}

    def plain() -> Tensor:
        return model.generate(ids, attention_mask=torch.ones_like(ids), **generation)

    def empty() -> Tensor:
        with edit(model, {}):
            return plain()

    def one_head() -> Tensor:
        with edit(model, {Site("heads", LAYER, HEAD): lambda z: GAIN * z}):
            return plain()

    work = f"Gemma 3 270M, batch {options.batch}, {options.tokens} tokens, {options.threads} thread(s): "
    print(HEADER)
    for name, ours in (("empty edit", empty), ("one head scaled", one_head)):
        for row in compare(work + name, {"interplay": ours, "no edit": plain}, repeats=options.repeats).rows():
            print(row)
    expected = one_head()
    for peer, make in PEERS.items():
        if importlib.util.find_spec(peer) is None:
            print(f"| {work}one head scaled | {peer} | not installed | |")
            continue
        generate = make(model, tokenizer, ids, generation)
        if not torch.equal(generate(), expected):
            print(f"| {work}one head scaled | {peer} | generates other tokens | |")
            continue
        for row in compare(
            work + "one head scaled", {"interplay": one_head, peer: generate}, repeats=options.repeats
        ).rows():
            print(row)


if __name__ == "__main__":
    main()
