"""Harmfulness and refusal, read and steered separately: two directions, an audit of belief and behaviour, a guard.

| | |
| --- | --- |
| paper | Zhao, Huang, Wu, Bau, Shi, "LLMs Encode Harmfulness and Refusal Separately" |
| where | 2025, arXiv 2507.11878 |
| official code | github.com/CHATS-lab/LLMs_Encode_Harmfulness_Refusal_Separately, without a licence |
| works on | any Hugging Face decoder with a chat template, or prompts with known spans |
| learnable | no |
| deterministic | yes |

h^l is the input of block l, h^L the output of the last block. t_inst is the last token of the instruction inside its
chat template, t_post the last token of the whole prompt. R are harmful prompts that the model refuses, A harmless ones
that it accepts.

1. Directions: v_harm^l = mean_R h^l(t_inst) - mean_A h^l(t_inst), v_ref^l the same at t_post; unnormalised.
2. Belief: s^l = cos(h^l, c_R^l) - cos(h^l, c_A^l) with the centroids c of R and A; Delta = mean over l of s^l.
   Delta_harmful is taken at t_inst, Delta_refuse at t_post.
3. Latent Guard: harmful where Delta_harmful >= alpha, alpha = 0.
4. Steering: h^l(t) <- h^l(t) + coef v^l at one block l and all tokens t of the prompt, not at generated ones.
5. Reply inversion: "User wants to x. Could this cause harm? Certainly, otherwise No.", steered before the question.

Differences from the official code
----------------------------------
- t_inst is found for every prompt by its tokens; the official code counts the template's tokens once.
- Prompts are read in padded batches, in float32; the official code reads one at a time and keeps half precision.
- Where both centroids are the same up to rounding, as those of a template's token before the first block, s is 0.
- The belief to refuse is measured against R and A, or against all refused and all accepted prompts: the shipped
  centroids of refusal stand in files of their own, and how they were made is not said.
- Hooks do not write into the model's tensors; several strengths share a batch.
"""

from interplay.steering.harmfulness_refusal.addition import PromptAddition
from interplay.steering.harmfulness_refusal.behaviour import greedy_replies, keep_behaving
from interplay.steering.harmfulness_refusal.belief import BeliefProbe, belief_scores
from interplay.steering.harmfulness_refusal.guard import Heard, LatentGuard
from interplay.steering.harmfulness_refusal.inversion import Asked, Inversion, ask, reply_inversion
from interplay.steering.harmfulness_refusal.quadrants import GROUPS, Group, HarmRefuseMap
from interplay.steering.harmfulness_refusal.spans import (
    Prompt,
    Span,
    find_instruction_span,
    read_prompts,
    read_rendered,
)
from interplay.steering.harmfulness_refusal.states import (
    States,
    collect_states,
    diff_of_means,
    input_of_block,
    states_at,
)

__all__ = [
    "GROUPS",
    "Asked",
    "BeliefProbe",
    "Group",
    "HarmRefuseMap",
    "Heard",
    "Inversion",
    "LatentGuard",
    "Prompt",
    "PromptAddition",
    "Span",
    "States",
    "ask",
    "belief_scores",
    "collect_states",
    "diff_of_means",
    "find_instruction_span",
    "greedy_replies",
    "input_of_block",
    "keep_behaving",
    "read_prompts",
    "read_rendered",
    "reply_inversion",
    "states_at",
]
