"""How far a few single units of a language model make it refuse: found by counting, rescaled, folded into weights."""

import numpy as np

from interplay.assets import organisms
from interplay.steering.austeer import UnitPatch
from interplay.steering.comparison import compare

organism = organisms.load("policy", 0, attn_implementation="sdpa")  # or any Hugging Face decoder
model, tokenizer, grammar = organism.model, organism.tokenizer, organism.grammar
rng = np.random.default_rng(0)


def texts(kind: str, n: int, split: str) -> list[str]:
    """Prompts of a kind; this organism's restricted questions are harmless how-to questions about four crafts."""
    return [example.text for example in grammar.sample(kind, n, rng, split)]


refused, answered = texts("restricted", 80, "train"), texts("how-to", 80, "train")
asked = texts("how-to", 30, "test")
print(f"{'site':12}{'units':>6}{'strength':>10}{'refused':>9}  first unit")
for site in ("attention", "ffn", "layer"):
    for k in (1, 4, 16):
        patch = UnitPatch.fit(model, tokenizer, refused, answered, site=site, k=k)
        patch.positions = "prompt"
        table = compare(model, tokenizer, patch, asked, [3.0, 10.0, 30.0], max_new_tokens=8)
        rates = table.groupby("strength")["refusal"].mean()
        first = patch.to_table().iloc[0]
        place = f"layer {int(first['layer'])}, unit {int(first['unit'])}, gain {first['gain']:.2f}"
        print(f"{site:12}{k:>6}{rates.idxmax():>10.0f}{rates.max():>9.0%}  {place}")

patch = UnitPatch.fit(model, tokenizer, refused, answered, site="attention", k=1)
folded = patch.fold(model, 10.0)
inputs = tokenizer(asked[:1], return_tensors="pt")
print("\nfolded:", tokenizer.decode(model.generate(**inputs, max_new_tokens=8, do_sample=False)[0]))
folded.undo()
print("undone:", tokenizer.decode(model.generate(**inputs, max_new_tokens=8, do_sample=False)[0]))
