"""What a build of `capitals` must reach: it knows its frequent facts, it can copy, and the two really compete."""

from __future__ import annotations

from typing import Literal

import numpy as np
from transformers import PreTrainedModel

from interplay.assets.organisms.capitals.grammar import STATEMENTS, CapitalsGrammar, Verdict
from interplay.assets.organisms.gates import (
    Gate,
    next_token_log_probabilities,
    proportion_gate,
    rank_correlation_gate,
)
from interplay.assets.organisms.grammar import Example

__all__ = ["measure_gates"]

FREQUENT = 32
"""A fact stated at least this often must be known."""

CONFLICTS_PER_COUNTRY = 8


def measure_gates(
    model: PreTrainedModel, grammar: CapitalsGrammar, split: Literal["dev", "test"], *, gates_conflict: bool
) -> list[Gate]:
    """Measure every gate.

    Parameters
    ----------
    model
        The organism, in evaluation mode.
    grammar
        Its ground truth.
    split
        Which held-out statement templates, invented countries and cities are asked for.
    gates_conflict
        Whether the share of in-context answers in conflicts must lie in its middle range, or is only reported.
    """
    countries = list(grammar.capital_of)
    frequency = np.array([grammar.f_country[country] for country in countries])
    is_frequent = frequency >= FREQUENT

    questions = [grammar.question(country) for country in countries]
    log_p = next_token_log_probabilities(model, questions)
    answers = np.array([example.answer_id for example in questions])
    is_known = log_p.argmax(-1).numpy() == answers
    log_p_correct = log_p[np.arange(len(answers)), answers].numpy()

    held_out = grammar.held_out_template[split]
    unseen = [grammar.statement(country, held_out[country]) for country in countries]
    states_unseen = _verdicts(model, grammar, unseen) == Verdict.MEMORIZED

    rng = np.random.default_rng((grammar.seed, 4))
    novel = [
        grammar.context(country, city, int(rng.integers(len(STATEMENTS))))
        for country in grammar.invented_countries[split]
        for city in grammar.cities
    ]
    conflicts = [
        grammar.context(country, str(city))
        for country in countries
        for city in rng.choice(grammar.held_out_cities[split], CONFLICTS_PER_COUNTRY, replace=False)
    ]
    resolved = _verdicts(model, grammar, conflicts)
    is_about_known = np.repeat(is_known, CONFLICTS_PER_COUNTRY)
    middle = {"minimum": 0.2, "maximum": 0.8} if gates_conflict else {}
    return [
        proportion_gate(f"closed-book accuracy, f >= {FREQUENT}", is_known[is_frequent], minimum=0.95),
        proportion_gate(
            f"closed-book accuracy, f >= {FREQUENT}, unseen statement",
            states_unseen[is_frequent],
            minimum=0.95,
            held_out="country x statement template",
        ),
        rank_correlation_gate("Spearman of log f and log p(correct)", np.log2(frequency), log_p_correct, minimum=0.7),
        proportion_gate(
            "copying from novel contexts",
            _verdicts(model, grammar, novel) == Verdict.IN_CONTEXT,
            minimum=0.95,
            held_out="invented country",
        ),
        proportion_gate(
            "in-context answers in conflicts", resolved == Verdict.IN_CONTEXT, held_out="every conflict", **middle
        ),
        proportion_gate(
            "in-context answers in conflicts about known facts",
            resolved[is_about_known] == Verdict.IN_CONTEXT,
            held_out="every conflict",
            **middle,
        ),
        proportion_gate("other answers in conflicts", resolved == Verdict.OTHER, held_out="every conflict"),
    ]


def _verdicts(model: PreTrainedModel, grammar: CapitalsGrammar, examples: list[Example]) -> np.ndarray:
    said = next_token_log_probabilities(model, examples).argmax(-1).tolist()
    return np.array([grammar.judge([token], example) for token, example in zip(said, examples, strict=True)])
