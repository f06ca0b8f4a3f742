"""What the tools of factual recall cost on Gemma 3 270M: head attribution and a turned dial, against plain work."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from measure import HEADER, compare

from interplay.assets import gemma_3_270m
from interplay.circuits.factual_recall import CAPITALS, ConflictSet, HeadScaler, head_attribution
from interplay.circuits.factual_recall.outcomes import model_inputs


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model, tokenizer = gemma_3_270m()
    conflicts = ConflictSet.from_facts(list(CAPITALS.items()), tokenizer, drop=True)
    batch = conflicts.prompts(options.prompts, np.random.default_rng(0))
    inputs = model_inputs(model, batch)

    def forward(**keep: int) -> torch.Tensor:
        with torch.inference_mode():
            return model(**inputs, **keep).logits

    def attribute() -> torch.Tensor:
        return head_attribution(model, batch, batch_size=len(batch)).per_prompt

    def generate() -> torch.Tensor:
        prompt = {"input_ids": batch.ids[:1], "attention_mask": batch.mask[:1]}
        return model.generate(**prompt, max_new_tokens=options.tokens, min_new_tokens=options.tokens, do_sample=False)

    def dialled() -> torch.Tensor:
        with HeadScaler(model, {(12, 1): 4.0}):
            return generate()

    where = f"Gemma 3 270M, {options.threads} thread(s): "
    attribution = {
        "interplay": attribute,
        "forward pass, last logits": lambda: forward(logits_to_keep=1),
        "forward pass, all logits": forward,
    }
    print(HEADER)
    for row in compare(f"{where}attribution of {len(batch)} prompts", attribution, repeats=options.repeats).rows():
        print(row)
    dial = {"interplay": dialled, "no dial": generate}
    for row in compare(f"{where}{options.tokens} tokens with a dial", dial, repeats=options.repeats).rows():
        print(row)


if __name__ == "__main__":
    main()
