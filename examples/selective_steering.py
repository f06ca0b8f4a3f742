"""A model refuses some questions by a rule; a dial turns its activations in one plane, and shows what follows."""

import numpy as np

from interplay.assets import organisms
from interplay.steering.selective_steering import SelectiveSteering

organism = organisms.load("policy", seed=0, attn_implementation="sdpa")  # or any Hugging Face decoder
model, tokenizer, grammar = organism.model, organism.tokenizer, organism.grammar
rng = np.random.default_rng(0)


def texts(kind: str, n: int, split: str) -> list[str]:
    """Prompts of a kind; this organism's restricted questions are harmless how-to questions about four crafts."""
    return [example.text for example in grammar.sample(kind, n, rng, split)]


steering = SelectiveSteering.fit(model, tokenizer, texts("restricted", 200, "train"), texts("how-to", 200, "train"))
print(steering.report().round(3).to_string())

print(f"\n{'theta':>6}{'refused, restricted':>22}{'refused, allowed':>20}")
thetas = list(range(0, 361, 30))
rates = {}
for kind in ("restricted", "how-to"):
    table = steering.sweep(model, tokenizer, texts(kind, 30, "test"), thetas, max_new_tokens=8)
    rates[kind] = table.groupby("theta")["refusal"].mean()
for theta in thetas:
    print(f"{theta:>6}{rates['restricted'][theta]:>22.0%}{rates['how-to'][theta]:>20.0%}")
