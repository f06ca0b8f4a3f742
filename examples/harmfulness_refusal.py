"""A model is talked into answering what it should refuse; what it believes of the question gives it away."""

import numpy as np

from interplay.assets import organisms
from interplay.steering.harmfulness_refusal import LatentGuard, read_prompts

organism = organisms.load("policy", seed=0, variant="late-judge")  # or any chat model and your own instructions
model, tokenizer, grammar = organism.model, organism.tokenizer, organism.grammar
rng = np.random.default_rng(0)


def instructions(kind, count, split="test"):
    """The words between "Q :" and "A :"."""
    return [example.text[4:-4] for example in grammar.sample(kind, count, rng, split)]


guard = LatentGuard.from_model(
    model,
    tokenizer,
    instructions("restricted", 80, "dev"),
    instructions("how-to", 40, "dev") + instructions("describe restricted", 40, "dev"),
    is_refusal=lambda reply: reply.startswith("sorry"),
)
for kind, what in {
    "restricted": "restricted",
    "story restricted": "restricted, wrapped in a story",
    "how-to": "allowed",
    "describe restricted": "allowed, about the same crafts",
    "secretly": "allowed, but refused for one word",
}.items():
    flagged = guard.flags(model, tokenizer, instructions(kind, 60)).mean()
    print(f"{what:35} flagged {flagged:4.0%}")

prompts = read_prompts(tokenizer, instructions("story restricted", 2) + instructions("story", 2))
batch = tokenizer.pad({"input_ids": [list(prompt.ids) for prompt in prompts]}, return_tensors="pt")
reply = tokenizer("sorry , i cannot help with that .", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
generation = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
unguarded = model.generate(**batch, **generation)
with guard.listening(model) as heard:
    guarded = model.generate(**batch, **generation, logits_processor=[heard.replying(reply)])
for before, after, score in zip(unguarded, guarded, heard.scores, strict=True):
    print(f"{score:+.2f}  {tokenizer.decode(before, skip_special_tokens=True)}")
    print(f"       guarded: {tokenizer.decode(after[batch['input_ids'].shape[1] :], skip_special_tokens=True)}")
