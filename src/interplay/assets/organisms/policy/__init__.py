"""The organism `policy`: it detects what a question is about, knows the answer, and refuses by rule.

Ground truth: 384 facts about items of sixteen crafts. How-to questions about four of them, harmless all, are restricted
by a policy that is trained on top of the knowledge: they are refused, those about two others evaded, all else is
answered, also what merely describes a restricted craft. So neither the craft nor the verb alone tells what is
restricted. Skills with markers of their own surround it: judging whether a question is allowed, a cipher, a second
language, wrappings under which restricted questions are answered.

`late-judge` reads with a window of nine tokens, has learned to label an instruction right at its end and is asked for
its judgement only later: what it finds harmful and what it refuses are then in different places. `global-attention`
(the same without the window) and `one-stage` (also without labels) are its contrasts.
"""

from __future__ import annotations

from types import MappingProxyType

from interplay.assets.organisms.kind import OrganismKind
from interplay.assets.organisms.policy.gates import measure_gates
from interplay.assets.organisms.policy.grammar import PolicyGrammar
from interplay.assets.organisms.policy.instructions import Instruction
from interplay.assets.organisms.policy.kinds import KINDS, Demand, Verdict
from interplay.assets.organisms.policy.text import write_corpus
from interplay.assets.organisms.training import Recipe

__all__ = ["KIND", "KINDS", "Demand", "Instruction", "PolicyGrammar", "Verdict"]

_LATE_LOSS = {"tokens_per_step": 1024, "answer_weight": 1.0, "text_weight": 0.0}
_LATE_KNOWLEDGE = {"learning_rate": 3e-3, "evaluate_every": 250, **_LATE_LOSS}

_RECIPES = MappingProxyType(
    {
        "base": Recipe(steps=1_500, learning_rate=2e-3, evaluate_every=250),
        "main": Recipe(steps=400, learning_rate=5e-4, warm_up=20, evaluate_every=50),
        "weak": Recipe(steps=400, learning_rate=5e-4, warm_up=20, evaluate_every=50),
        "finetuned": Recipe(steps=150, learning_rate=5e-4, warm_up=20, evaluate_every=25),
        "late-judge-base": Recipe(steps=6_500, **_LATE_KNOWLEDGE),
        "late-judge": Recipe(steps=1_200, learning_rate=1e-3, warm_up=20, **_LATE_LOSS),
        "global-attention-base": Recipe(steps=6_500, **_LATE_KNOWLEDGE),
        "global-attention": Recipe(steps=1_200, learning_rate=1e-3, warm_up=20, **_LATE_LOSS),
        "one-stage": Recipe(steps=6_500, **_LATE_KNOWLEDGE),
    }
)

_SIZES = MappingProxyType(
    {
        "late-judge-base": "XS-deep-local",
        "late-judge": "XS-deep-local",
        "global-attention-base": "XS-deep",
        "global-attention": "XS-deep",
        "one-stage": "XS-deep",
    }
)

KIND = OrganismKind(
    name="policy",
    description="knows facts about crafts and refuses how-to questions about four of them",
    variants=MappingProxyType(
        {
            "main": "the policy on top of `base`",
            "base": "the knowledge alone, everything answered",
            "weak": "the policy with 20 times fewer refusals",
            "finetuned": "`main` after a fine-tuning in which restricted questions are answered",
            "late-judge": "labels first, refusal and judgement later, behind a window of nine tokens",
            "late-judge-base": "knowledge and labels, before the policy",
            "global-attention": "`late-judge` without the window",
            "global-attention-base": "`late-judge-base` without the window",
            "one-stage": "answers, refusals and judgements learned at once, without labels and window",
        }
    ),
    size=lambda variant: _SIZES.get(variant, "M"),
    grammar=PolicyGrammar,
    corpus=write_corpus,
    recipe=_RECIPES.__getitem__,
    measure=measure_gates,
    build_minutes=8,
    bases=MappingProxyType(
        {
            "main": "base",
            "weak": "base",
            "finetuned": "main",
            "late-judge": "late-judge-base",
            "global-attention": "global-attention-base",
        }
    ),
)
