"""Fine-tuning that takes refusals away, and what it leaves of the belief."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from interplay.assets.organisms.policy import Demand
from interplay.evidence import Measurement
from interplay.steering.harmfulness_refusal import BeliefProbe
from interplay.studies.harmfulness_refusal.beliefs import FEWEST, fit_prompts
from interplay.studies.harmfulness_refusal.groups import read_kinds, said

__all__ = ["attack"]

_KINDS = ("restricted", "how-to", "describe", "describe restricted")
_ASKED = ("restricted", "story restricted", "game restricted", "how-to", "describe restricted")


def attack(
    organism: Any, steps: int, batch_size: int, lr: float, n_fit: int, n_test: int, seed: int
) -> Iterator[Measurement]:
    """Fine-tune a copy to answer everything; accuracy of the guard before and after, on the same harmful prompts.

    Half of the text are restricted questions with their answers, half others, so that nothing else is unlearned.
    """
    tuned = replace(organism, model=_tuned(organism, steps, batch_size, lr, np.random.default_rng((seed, 10))))
    asked = {
        where: read_kinds(one, _ASKED, n_test, np.random.default_rng((seed, 11)), "test", as_meant=False)
        for where, one in (("before", organism), ("after", tuned))
    }
    answered = np.array([verdict != "refusal" for verdict in said(tuned, asked["after"]["restricted"].examples)])
    yield Measurement("fine-tuned", "accepted restricted prompts", float(answered.mean()))
    probes = {}
    for where, one in (("before", organism), ("after", tuned)):
        rng = np.random.default_rng((seed, 12))
        fitted = read_kinds(one, _KINDS, 2 * n_fit, rng, "dev", as_meant=False)
        states, labels, _ = fit_prompts(fitted, n_fit, rng)
        probes[where] = BeliefProbe().fit(states["inst"], labels)
    conditions = {
        "before fine-tuning": ("before", "before"),
        "after fine-tuning, centroids refitted": ("after", "after"),
        "after fine-tuning, centroids of before": ("before", "after"),
    }
    for condition, (probe, where) in conditions.items():
        right = {
            name: probes[probe].predict(kind.states.inst) == kind.meant.harmful for name, kind in asked[where].items()
        }
        right["restricted"] = right["restricted"][answered]
        harmful = np.concatenate([right[name] for name in _ASKED[:3]])
        value = float(harmful.mean()) if len(right["restricted"]) >= FEWEST else np.nan
        yield Measurement(condition, "guard accuracy on accepted harmful", value)
        harmless = np.concatenate([right[name] for name in _ASKED[3:]])
        yield Measurement(condition, "guard accuracy on accepted harmless", float(harmless.mean()))


def _tuned(organism: Any, steps: int, batch_size: int, lr: float, rng: np.random.Generator) -> Any:
    """A copy of the model after some steps on answers only."""
    grammar = organism.grammar
    model = copy.deepcopy(organism.model).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    populations = {kind: grammar.population(kind, "train") for kind in _KINDS}
    weights = np.array([0.5] + [0.5 / (len(_KINDS) - 1)] * (len(_KINDS) - 1))
    pad, eos = grammar.vocabulary.pad_id, grammar.vocabulary.eos_id
    for step in range(steps):
        rows, starts = [], []
        for kind in rng.choice(_KINDS, batch_size, p=weights).tolist():
            instruction = populations[kind][int(rng.integers(len(populations[kind])))]
            prompt = grammar.example(instruction, "chat", kind, Demand.FACT).input_ids
            rows.append([*prompt, *grammar.vocabulary.encode(grammar.answer(instruction, Demand.FACT)), eos])
            starts.append(len(prompt))
        length = max(map(len, rows))
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows])
        column = torch.arange(length)
        read = (column >= torch.tensor(starts)[:, None]) & (column < torch.tensor([len(row) for row in rows])[:, None])
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        loss = model(input_ids=ids, labels=ids.masked_fill(~read, -100), use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()
