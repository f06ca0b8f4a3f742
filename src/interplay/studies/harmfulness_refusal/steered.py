"""What adding a direction does: to answers in a chat, and to the answer whether there is harm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from interplay.evidence import Measurement
from interplay.steering.harmfulness_refusal import PromptAddition, ask
from interplay.studies.harmfulness_refusal.groups import ANSWER_TOKENS, question_of
from interplay.studies.steered_answers import answers

__all__ = ["chat", "equal_norms", "inversion"]

GRAMMATICAL = 0.9
"""So many of the answers must be sentences of the policy or values for a setting to count."""

Directions = Mapping[str, Float[Tensor, "state d_model"]]


def equal_norms(directions: Directions, rng: np.random.Generator) -> dict[str, Float[Tensor, "state d_model"]]:
    """The two directions and a random one, in every state as long as v_harm is; where v_ref is zero it stays so."""
    harm = directions["v_harm"]
    chance = torch.from_numpy(rng.standard_normal(harm.shape)).to(harm)
    length = harm.norm(dim=-1, keepdim=True)
    return {
        name: vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-6) * length
        for name, vectors in (*directions.items(), ("random", chance))
    }


def chat(
    organism: Any,
    directions: Directions,
    chosen_on: Sequence[Any],
    tests: Sequence[Any],
    coefs: Sequence[float],
    suffix: str,
) -> Iterator[Measurement]:
    """Refusals of harmless prompts, over blocks and coefficients; the setting is chosen on prompts of its own."""

    def sweep(vectors: Float[Tensor, "state d_model"], examples: Sequence[Any]) -> pd.DataFrame:
        rows = []
        for block in _blocks(vectors):
            addition = PromptAddition.along(organism.model, vectors, block)
            found = answers(organism, examples, partial(addition.applied, organism.model), coefs, ANSWER_TOKENS)
            rows += zip(repeat(block), coefs, found.share("refusal"), 1 - found.share("other"))
        return pd.DataFrame(rows, columns=["block", "coef", "rate", "grammatical"])

    for name, vectors in directions.items():
        dev, test = sweep(vectors, chosen_on), sweep(vectors, tests)
        allowed = dev[dev["grammatical"] >= GRAMMATICAL]
        best = test.loc[allowed["rate"].idxmax()] if len(allowed) else None
        condition = f"{name}{suffix}"
        sane = best is not None and best["grammatical"] >= GRAMMATICAL
        yield Measurement(condition, "refusals of harmless prompts", float(best["rate"]) if sane else 0.0)
        for row in test.itertuples():
            yield Measurement(condition, "refusal rate", row.rate, step=row.block, x=row.coef)
            yield Measurement(condition, "grammatical answers", row.grammatical, step=row.block, x=row.coef)


def inversion(
    organism: Any,
    directions: Directions,
    chosen_on: Sequence[Any],
    tests: Sequence[Any],
    harmful: Sequence[Any],
    coefs: Sequence[float],
    judged: Sequence[float],
    suffix: str,
) -> Iterator[Measurement]:
    """Answers "no" to the question about harm: the drop on harmless prompts, the rise on harmful ones in reverse.

    Block and coefficient are chosen on prompts of their own, for each direction alike, among the `judged` coefficients.
    """
    grammar = organism.grammar
    ids = grammar.vocabulary.id_of

    def rates(
        vectors: Float[Tensor, "state d_model"], block: int, examples: Sequence[Any], sign: float, span: str
    ) -> tuple[NDArray, NDArray]:
        asked = [question_of(grammar, example) for example in examples]
        if span == "all":
            asked = [one._replace(question=len(one.ids)) for one in asked]
        several = torch.tensor([0.0, *(sign * coef for coef in coefs)])
        found = ask(organism.model, organism.tokenizer, asked, vectors, block, several, answers=(ids["yes"], ids["no"]))
        return found.says_no.float().mean(1).numpy(), found.says_yes.float().mean(1).numpy()

    def sweep(
        vectors: Float[Tensor, "state d_model"], examples: Sequence[Any], sign: float = 1.0, span: str = "before"
    ) -> pd.DataFrame:
        rows = []
        for block in _blocks(vectors):
            no, yes = rates(vectors, block, examples, sign, span)
            rows += [(block, coef, no[0], no[at], yes[at]) for at, coef in enumerate(coefs, start=1)]
        return pd.DataFrame(rows, columns=["block", "coef", "base", "no", "yes"])

    for name, vectors in directions.items():
        condition = f"{name}{suffix}"
        for span in ("before", "all"):
            dev, test = sweep(vectors, chosen_on, span=span), sweep(vectors, tests, span=span)
            best = test.loc[_largest(dev["base"] - dev["no"], dev["coef"], judged)]
            where = "before the question" if span == "before" else "everywhere"
            yield Measurement(condition, f"drop of no, steered {where}", float(best["base"] - best["no"]))
            if span == "before":
                yield Measurement(condition, "block of the largest drop", float(best["block"]))
                yield Measurement(condition, "no without steering", float(best["base"]))
                for row in test.itertuples():
                    yield Measurement(condition, "no rate", row.no, step=row.block, x=row.coef)
                    yield Measurement(condition, "yes rate", row.yes, step=row.block, x=row.coef)
        reverse = sweep(vectors, harmful, -1.0)
        rise = (reverse["no"] - reverse["base"])[reverse["coef"].isin(judged)]
        yield Measurement(condition, "largest rise of no on harmful prompts, in reverse", float(rise.max()))


def _largest(values: pd.Series, coefs: pd.Series, judged: Sequence[float]) -> int:
    return int(values[coefs.isin(judged)].idxmax())


def _blocks(vectors: Float[Tensor, "state d_model"]) -> range:
    """All blocks but the first: before it a template's token is the same in all prompts, and v_ref is zero."""
    return range(1, len(vectors) - 1)
