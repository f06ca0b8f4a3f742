"""A model refuses some questions by a rule; a dial turns its activations in one plane, and shows what follows."""

import numpy as np

from interplay.assets import organisms
from interplay.steering.selective_steering import SelectiveSteering

# Or any Hugging Face decoder. Seed 2 decides to refuse behind its first block, which is never steered by default.
organism = organisms.load("policy", seed=2, attn_implementation="sdpa")
model, tokenizer, grammar = organism.model, organism.tokenizer, organism.grammar
rng = np.random.default_rng(0)


def texts(kind: str, n: int, split: str) -> list[str]:
    """Prompts of a kind; this organism's restricted questions are harmless how-to questions about four crafts."""
    return [example.text for example in grammar.sample(kind, n, rng, split)]


steering = SelectiveSteering.fit(model, tokenizer, texts("restricted", 200, "train"), texts("how-to", 200, "train"))
print(steering.report().round(3).to_string())

facts = {
    example.text: example.meta["fact"]
    for kind in ("restricted", "how-to")
    for example in grammar.sample(kind, 30, np.random.default_rng(1))
}


def is_right(prompt: str, answer: str) -> float:
    """Nothing refused is not yet an answer."""
    return float(answer.split()[:1] == [facts[prompt]])


print(f"\n{'theta':>6}{'restricted: refused':>22}{'right':>8}{'allowed: refused':>20}{'right':>8}")
prompts, thetas = list(facts), list(range(0, 361, 30))
table = steering.sweep(model, tokenizer, prompts, thetas, is_right, max_new_tokens=8)
table["restricted"] = table["prompt"].isin(prompts[:30])
rates = table.groupby(["theta", "restricted"])[["refusal", "score"]].mean()
for theta in thetas:
    restricted, allowed = rates.loc[(theta, True)], rates.loc[(theta, False)]
    print(
        f"{theta:>6}{restricted['refusal']:>22.0%}{restricted['score']:>8.0%}"
        f"{allowed['refusal']:>20.0%}{allowed['score']:>8.0%}"
    )
