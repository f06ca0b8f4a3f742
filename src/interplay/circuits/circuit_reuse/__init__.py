"""Circuit reuse: do two tasks use the same attention heads, and does the difference explain the errors of one of them?

| | |
| --- | --- |
| paper | Merullo, Eickhoff, Pavlick, "Circuit Component Reuse Across Tasks in Transformer Language Models" |
| where | ICLR 2024, arXiv 2310.08744 |
| official code | github.com/jmerullo/circuit_reuse |
| works on | any Hugging Face decoder; attention is read and edited with eager attention only |
| learnable | no |
| deterministic | yes, given the random generator of the prompts |

Two tasks (`IndirectObject`, `ColoredObjects`) give prompts with corrupted twins, token for token aligned. With LD =
logit(answer) - logit(contrast) at the last token, averaged over prompts:

1. "When Mary and John went to the store, John gave a drink to" -> Mary against John. The twin lets Mary give.
2. "... there is a red pen, a blue cup, and a green jug. What color is the cup? A:" -> Blue. The twin asks for the pen.
3. Path patching from sender head (l, h) to receivers R at positions p, where z is a head's output before the output
   projection: on the clean prompt set z[l, h] at p to its corrupted value, hold the z of every other head at its clean
   value, let MLPs be recomputed (or hold them: ``freeze_mlps``), and record what R gets at p: a head's query, key or
   value, its z, or the residual stream before the final norm.
4. Run the clean prompt once more with nothing held, and only what R got patched in at p: LD_patched.
5. effect[l, h] = (LD_patched - LD_clean) / (LD_corrupt - LD_clean). In stages: R = logits finds the movers, R = the
   movers' queries finds inhibition heads and content gatherers, R = the values of these finds duplicate-token and
   induction heads. The circuit is the union of the top 2 % of each stage by absolute effect.
6. Repair: in chosen heads the attention row of the last token is overwritten, A' = (1 - m) A + m target, with the
   target even over the two *wrong* colors, so that inhibition heads inhibit what should not be copied.
7. Two circuits' overlap (Jaccard, overlap coefficient, or weighted by effects) stands next to what heads exchanged at
   random within their layers give.

How the cost is kept down, exactly and not approximately, is told in `interplay.circuits.circuit_reuse.replay`.

Differences from the official code
----------------------------------
- It prints -100 times the effect, averaged over batches of 25; here the means are taken over all pairs. Pairs that the
  corruption hardly moves are dropped and counted (``min_gap=None`` keeps them).
- It centres and folds weights before; effects do not depend on that.
- Its receivers share one component and its senders lie no higher than the lowest receiver. Here receivers may mix
  components, and ``senders="reachable"`` looks at every head below the highest receiver.
- With a head's z as receiver it gives zeros, since it records z after holding it; here z is recorded before.
- It holds heads at p alone, here they are held everywhere. That is the same except for z received at several places.
- Keys and values are received at the place that is read (the second subject, the queried object), by a role's name.
- With grouped-query attention key and value receivers are key-value heads.
- Which overlap the paper's 78 % is, is not known; the chance level and the mean ablation are ours.
"""

from interplay.circuits.circuit_reuse.ablation import Recovery, mean_heads, metric_without, recovery
from interplay.circuits.circuit_reuse.attention import AttentionEdit, attention_to
from interplay.circuits.circuit_reuse.batches import Batch, Prompt, TaskPairs
from interplay.circuits.circuit_reuse.finder import STAGES, CircuitFinder, Stage
from interplay.circuits.circuit_reuse.overlap import Overlap, circuit_overlap
from interplay.circuits.circuit_reuse.paths import Head, PathEffects, Receiver, path_effects, path_patch
from interplay.circuits.circuit_reuse.replay import end_logits, logit_difference
from interplay.circuits.circuit_reuse.tasks import ColoredObjects, IndirectObject

__all__ = [
    "STAGES",
    "AttentionEdit",
    "Batch",
    "CircuitFinder",
    "ColoredObjects",
    "Head",
    "IndirectObject",
    "Overlap",
    "PathEffects",
    "Prompt",
    "Receiver",
    "Recovery",
    "Stage",
    "TaskPairs",
    "attention_to",
    "circuit_overlap",
    "end_logits",
    "logit_difference",
    "mean_heads",
    "metric_without",
    "path_effects",
    "path_patch",
    "recovery",
]
