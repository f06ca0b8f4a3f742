"""Weighted activation steering: a small network decides, prompt by prompt, how hard and where to steer.

| | |
| --- | --- |
| paper | Hegazy, Elhoushi, Alanwar, "Guiding Giants: Lightweight Controllers for Weighted Activation Steering" |
| where | 2025, arXiv 2505.20309 |
| official code | github.com/Amr-Hegazy1/GuidingGiantsWAS |
| works on | any Hugging Face decoder |
| input, output | the residual stream after each steered layer, of the same shape |
| learnable | the controller |
| deterministic | yes, given a seed |

h_l is the residual stream after block l, p the prompt's last token, d_l a unit vector, n_l the median norm of h_l[p]
over prompts that are left alone.

1. x = [h_l[p] for l in the input layers], of the unsteered prompt.
2. (s, z) = W2 relu(W1 x + b1) + b2; s is gated, w_l = sigmoid(z_l).
3. h_l <- h_l + s w_l alpha n_l d_l at p and at every generated token, for every steered layer l.
4. Published training: BCE(s, 1) + 0.1 (mean |w - 0.5| + 0.01 mean w) on prompts to be steered, BCE(s, 0) on others.
5. End to end, ours: cross entropy of a given opener on prompts to be steered, KL(unsteered || steered) of what the
   unsteered model writes on others, and 0.01 mean s w, through the frozen model.

Differences from the official code
----------------------------------
- There the controller reads the last four layers and steers in the same pass, so that only the last layer is ever
  steered; that is `schedule="same-pass"`, with a warning. By default the prompt is read once before it is steered.
- There s is the logit itself (`gate="raw"`): prompts that are to be left alone are pushed the other way.
- There alpha is absolute (`alpha_units="abs"`), 4.
- There no task's gradient reaches z, and the loss holds all w at 0.5; training end to end is what can teach them.
- There the weights of the best epoch are meant to be kept, but the copy follows the training, so the last are. Here
  the best are.
- One call of the controller for all rows of a batch, in one context's state; no state survives the context.
"""

from interplay.steering.weighted_steering.controller import Controller, Gate, Logits
from interplay.steering.weighted_steering.directions import ANSWERING, REFUSING, DirectionKind, refusal_direction
from interplay.steering.weighted_steering.method import Train, WeightedSteering
from interplay.steering.weighted_steering.reading import Schedule, Traced
from interplay.steering.weighted_steering.training import benign_loss, harmful_loss, train_on_states

__all__ = [
    "ANSWERING",
    "REFUSING",
    "Controller",
    "DirectionKind",
    "Gate",
    "Logits",
    "Schedule",
    "Traced",
    "Train",
    "WeightedSteering",
    "benign_loss",
    "harmful_loss",
    "refusal_direction",
    "train_on_states",
]
