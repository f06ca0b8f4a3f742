"""A language model reads a false statement, and one attention head decides whether it believes it."""

import numpy as np
import torch

from interplay.assets import organisms
from interplay.circuits.factual_recall import CHOICES, ConflictSet, ContextMemoryDial, known_facts, resolve_conflict

organism = organisms.load("capitals", seed=0, attn_implementation="sdpa")  # or any Hugging Face causal language model
model, tokenizer = organism.model, organism.tokenizer
conflicts = ConflictSet.from_organism(organism)  # or from_facts, with facts of your own

rng = np.random.default_rng(0)
fitting, reporting = known_facts(model, conflicts).split(rng)
development, test = fitting.prompts(100, rng), reporting.prompts(200, rng)
print(f"{'':18}" + "".join(f"{choice:>12}" for choice in CHOICES))


def show(label: str) -> None:
    """One row of rates on countries and cities that the dials never saw."""
    rates = resolve_conflict(model, test).rates
    print(f"{label:18}" + "".join(f"{rates[choice].rate:12.0%}" for choice in CHOICES))


show("no dial")
for target in ("in-context", "memorized"):
    dial = ContextMemoryDial(target, max_other=1.0, gains=(-4, -2, 0, 1, 2, 4)).fit(model, development)
    with dial.apply(model):
        show(f"head {dial.head_} x {dial.alpha_:g}")

prompt = "the capital of France is Sydney . Q : what is the capital of France ? A :"
inputs = tokenizer(prompt, return_tensors="pt")
with dial.apply(model), torch.inference_mode():
    answer = model.generate(**inputs, max_new_tokens=1, do_sample=False, pad_token_id=tokenizer.pad_token_id)
print(tokenizer.decode(answer[0]))
