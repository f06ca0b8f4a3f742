"""Factual recall: context against memory in a language model, and one attention head as the dial between them.

| | |
| --- | --- |
| paper | Yu, Merullo, Pavlick, "Characterizing Mechanisms for Factual Recall in Language Models" |
| where | EMNLP 2023, arXiv 2310.15910 |
| official code | none found |
| works on | any Hugging Face decoder with a fast tokenizer |
| learnable | no |
| deterministic | yes, given the random generator of the prompts |

A model that has learnt "the capital of Poland is Warsaw" is told "The capital of Poland is London" and then asked.

1. Conflict prompt for subject c with true answer k(c) and offered answer x != k(c): ``statement(c, x) question(c)``.
2. Outcome by the greedy next token: *in-context* (x), *memorized* (k(c)), or *other*. Only facts that the model answers
   rightly closed-book take part.
3. P(in-context) = sigmoid(b0 + b1 log2 f_c + b2 log2 g_x + b3 log2 f_c log2 g_x), f_c counting the subject's fact and
   g_x the offered answer in the training text; both logarithms are centred: b1 and b2 are effects at the other's mean.
4. Direct attribution of head (l, h) at the last prompt token, with z its output before the output projection W_O:
   s[l, h] = (W_U[x] - W_U[k(c)]) . N(W_O^h z[l, h]). *Memory head*: argmin of the mean of s; *in-context head*: argmax.
5. Dial: z[l, h] <- alpha z[l, h], which is the paper's scaling of the value vector, since attention is linear in the
   values. alpha is chosen on development prompts to maximise the target's rate with at most 10 % other answers.

Differences from the paper, or what it leaves open
--------------------------------------------------
- The paper's figure describes dot products with the unembedding; whether after the final norm is not said.
  ``norm="linear"`` (default) freezes it, and the scores add up to the logit difference; ``norm="raw"`` leaves it out.
- With grouped-query attention the query head's output is scaled, not the value vector that several heads share.
- The regression, the bound on other answers, the grid of gains and the report of collateral cost are ours.
"""

from interplay.circuits.factual_recall.attribution import Attribution, Head, head_attribution
from interplay.circuits.factual_recall.batches import Batch, Questions
from interplay.circuits.factual_recall.capitals import CAPITALS
from interplay.circuits.factual_recall.controls import STRENGTHS, SteeringVector, steering_vector
from interplay.circuits.factual_recall.dial import (
    GAINS,
    Collateral,
    ContextMemoryDial,
    DialPoint,
    HeadScaler,
    choose_gain,
    cross_entropy,
    scan_gains,
)
from interplay.circuits.factual_recall.outcomes import (
    CHOICES,
    Effect,
    FrequencyEffects,
    Outcome,
    Rate,
    answered_right,
    frequency_effects,
    known_facts,
    resolve_conflict,
    wilson,
)
from interplay.circuits.factual_recall.prompts import QUESTION, STATEMENT, ConflictSet, Fact

__all__ = [
    "CAPITALS",
    "CHOICES",
    "GAINS",
    "QUESTION",
    "STATEMENT",
    "STRENGTHS",
    "Attribution",
    "Batch",
    "Collateral",
    "ConflictSet",
    "ContextMemoryDial",
    "DialPoint",
    "Effect",
    "Fact",
    "FrequencyEffects",
    "Head",
    "HeadScaler",
    "Outcome",
    "Questions",
    "Rate",
    "SteeringVector",
    "answered_right",
    "choose_gain",
    "cross_entropy",
    "frequency_effects",
    "head_attribution",
    "known_facts",
    "resolve_conflict",
    "scan_gains",
    "steering_vector",
    "wilson",
]
