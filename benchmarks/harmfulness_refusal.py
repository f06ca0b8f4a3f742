"""What the Latent Guard costs inside generation, and what reading states costs against one prompt at a time.

The official extraction reads prompts one by one with two kinds of hooks; a loop of that shape stands for it. A guard
model of its own would read every prompt once more: the plain pass is that price, for a guard as small as the model.
"""

from __future__ import annotations

import argparse

import torch
from measure import HEADER, compare
from torch import Tensor

from interplay.assets import gemma_3_270m
from interplay.primitives.decoders import Decoder
from interplay.steering.harmfulness_refusal import LatentGuard, Prompt, collect_states, read_prompts

TEMPLATE = "<start_of_turn>user\n{instruction}<end_of_turn>\n<start_of_turn>model\n"
SUBJECTS = ("soup", "bread", "a bridge", "the moon", "a violin", "chess", "rain", "a garden")


def one_by_one(model: torch.nn.Module, prompts: list[Prompt]) -> Tensor:
    """States at both tokens with a pre-hook on every block and a hook on the last, one prompt a pass, kept in half."""
    layers = Decoder(model).layers
    seen: list[list[Tensor]] = [[] for _ in range(len(layers) + 1)]
    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, at=at: seen[at].append(inputs[0].half()))
        for at, layer in enumerate(layers)
    ]
    handles.append(
        layers[-1].register_forward_hook(
            lambda _, inputs, output: seen[-1].append((output if isinstance(output, Tensor) else output[0]).half())
        )
    )
    with torch.inference_mode():
        for prompt in prompts:
            model(torch.tensor([prompt.ids]))
    for handle in handles:
        handle.remove()
    read = [torch.tensor([prompt.span.t_inst, prompt.span.t_post]) for prompt in prompts]
    return torch.stack([torch.stack([h[0, at] for h, at in zip(layer, read, strict=True)]) for layer in seen], 2)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=32, help="length of the prompt in which the guard listens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(HEADER)

    model, tokenizer = gemma_3_270m()
    texts = [f"Tell me something about {SUBJECTS[at % 8]} in {at} words." for at in range(options.prompts)]
    prompts = read_prompts(tokenizer, texts, template=TEMPLATE)
    guard = LatentGuard.from_model(model, tokenizer, texts[:20], texts[20:40], template=TEMPLATE)
    ids = torch.randint(5, 1000, (1, options.tokens), generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def plain() -> Tensor:
        return model(ids, logits_to_keep=1).logits

    def guarded() -> Tensor:
        with guard.listening(model) as heard:
            plain()
        return heard.flagged

    def second_pass() -> Tensor:
        plain()
        return plain()

    work = f"Gemma 3 270M reads {options.tokens} tokens, {options.threads} thread(s)"
    alternatives = {"with the guard": guarded, "alone": plain, "with a second pass": second_pass}
    for row in compare(work, alternatives, repeats=options.repeats).rows():
        print(row)

    work = f"states at t_inst and t_post of {options.prompts} prompts, {options.threads} thread(s)"
    alternatives = {
        "interplay": lambda: collect_states(model, tokenizer, prompts),
        "one prompt a pass": lambda: one_by_one(model, prompts),
    }
    for row in compare(work, alternatives, repeats=min(3, options.repeats)).rows():
        print(row)


if __name__ == "__main__":
    main()
