"""A model answers forbidden questions when told as a story; a controller refuses those and leaves the rest alone."""

import numpy as np

from interplay.assets import organisms
from interplay.steering.comparison import compare
from interplay.steering.weighted_steering import WeightedSteering, refusal_direction

organism = organisms.load("policy", 0, "late-judge", attn_implementation="sdpa")  # or any Hugging Face decoder
model, tokenizer, grammar = organism.model, organism.tokenizer, organism.grammar
rng = np.random.default_rng(0)


def texts(kind: str, n: int, split: str) -> list[str]:
    """Prompts of a kind; this organism's restricted questions are harmless how-to questions about four crafts."""
    return [example.text for example in grammar.sample(kind, n, rng, split)]


refused, answered = texts("restricted", 100, "train"), texts("how-to", 100, "train")
direction = refusal_direction(model, tokenizer, "activations", refusing=refused, answering=answered)
forbidden = [*refused, *texts("story restricted", 100, "train")]
allowed = [*answered, *texts("story", 50, "train"), *texts("describe restricted", 50, "train")]  # same crafts
settings = {"direction": direction, "positions": "prompt-end"}  # steered while it writes too, it repeats its apology
steering = WeightedSteering.fit(model, tokenizer, forbidden, allowed, **settings)

dev = texts("story restricted", 20, "dev"), [*texts("story", 20, "dev"), *texts("describe restricted", 20, "dev")]
print(steering.calibrate(model, tokenizer, *dev, max_new_tokens=8).to_string(index=False))
print(f"alpha: {steering.alpha}\n")

print(f"{'':24}{'strength s':>12}{'refused before':>16}{'refused after':>15}")
for kind in ("restricted", "story restricted", "how-to", "story", "describe restricted"):
    prompts = texts(kind, 30, "test")
    table = compare(model, tokenizer, steering, prompts, [0.0, 1.0], max_new_tokens=8)
    before, after = table.groupby("strength")["refusal"].mean()
    strength = steering.score(model, tokenizer, prompts).sigmoid().mean()
    print(f"{kind:24}{float(strength):>12.2f}{before:>16.0%}{after:>15.0%}")
