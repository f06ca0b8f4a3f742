"""Two ways to train the controller: on cached states, and through the frozen model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from interplay.primitives.activations import Edit, Site, edit
from interplay.primitives.prompts import batches_by_length, model_inputs, pad_left, token_ids
from interplay.steering.weighted_steering.controller import Controller, Logits

if TYPE_CHECKING:
    from interplay.steering.weighted_steering.method import WeightedSteering

__all__ = ["FrozenModel", "benign_loss", "harmful_loss", "train_on_states", "train_through_model"]

BALANCE_WEIGHT = 0.1
SPARSITY_WEIGHT = 0.01
CLIP = 1.0
EFFORT_WEIGHT = 1e-2


def harmful_loss(logits: Logits) -> Float[Tensor, ""]:
    """Of prompts that are to be steered: the strength's cross entropy, and a pull of all weights towards 0.5.

    BCE(s, 1) + 0.1 (mean |w - 0.5| + 0.01 mean w), with w the layers' sigmoids.
    """
    w = logits.layers.sigmoid()
    pull = (w - 0.5).abs().mean() + SPARSITY_WEIGHT * w.mean()
    target = torch.ones_like(logits.strength)
    return functional.binary_cross_entropy_with_logits(logits.strength, target) + BALANCE_WEIGHT * pull


def benign_loss(logits: Logits) -> Float[Tensor, ""]:
    """Of prompts that are to be left alone: BCE(s, 0)."""
    return functional.binary_cross_entropy_with_logits(logits.strength, torch.zeros_like(logits.strength))


def train_on_states(
    controller: Controller,
    positive: Float[Tensor, "prompt in_dim"],
    negative: Float[Tensor, "prompt in_dim"],
    generator: torch.Generator,
    epochs: int,
    batch: int,
    learning_rate: float,
) -> list[float]:
    """The official training: in each epoch all harmful batches, then all benign ones; the best epoch is kept.

    Parameters
    ----------
    controller
        Trained in place.
    positive, negative
        States of the two sorts of prompts.
    generator
        Draws the order.
    epochs, batch, learning_rate
        Of AdamW.

    Returns
    -------
    list of float
        Mean loss of each epoch.
    """
    optimiser = torch.optim.AdamW(controller.parameters(), lr=learning_rate)
    history: list[float] = []
    best = copy.deepcopy(controller.state_dict())
    for _ in range(epochs):
        losses = []
        for states, loss_of in ((positive, harmful_loss), (negative, benign_loss)):
            for rows in torch.randperm(len(states), generator=generator).split(batch):
                loss = loss_of(controller.logits(states[rows.to(states.device)].to(controller.inner.weight)))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(controller.parameters(), CLIP)
                optimiser.step()
                losses.append(loss.detach())
        history.append(float(torch.stack(losses).mean()))
        if history[-1] == min(history):
            best = copy.deepcopy(controller.state_dict())
    controller.load_state_dict(best)
    return history


class Replies(NamedTuple):
    """Of each prompt what follows it, all of one length.

    Attributes
    ----------
    ids
        [prompt, token].
    real
        Which of them count.
    """

    ids: Int[Tensor, "prompt token"]
    real: Bool[Tensor, "prompt token"]


class FrozenModel:
    """A model that is steered by a controller in training; only the controller gets gradients.

    Parameters
    ----------
    model, tokenizer
        In evaluation mode; unchanged.
    steering
        Whose layers, norms, directions and controller.
    positive, negative
        Prompts to be steered, and to be left alone.
    states
        Of both, what the controller reads, [prompt, in_dim].
    opener
        What a steered prompt is to be answered with.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        steering: WeightedSteering,
        positive: Sequence[str],
        negative: Sequence[str],
        states: Sequence[Float[Tensor, "prompt in_dim"]],
        opener: str,
    ) -> None:
        opening = tokenizer(opener, add_special_tokens=False)["input_ids"]
        if not opening:
            raise ValueError(f"opener has no token: {opener!r}")
        self.model, self.steering, self.states = model, steering, list(states)
        self.pad = tokenizer.pad_token_id
        self.prompts = [token_ids(tokenizer, texts) for texts in (positive, negative)]
        opened = torch.tensor(opening).expand(len(positive), -1)
        self.replies = [
            Replies(opened, torch.ones_like(opened, dtype=torch.bool)),
            self._unsteered(tokenizer, len(opening)),
        ]
        self.directions = steering.directions.to(states[0].device)

    def loss(self, rows: Sequence[Int[Tensor, " row"]]) -> Float[Tensor, ""]:
        """Cross entropy of the opener, divergence from the unsteered model where nothing is to change, and effort.

        Parameters
        ----------
        rows
            Of each sort of prompts, which.
        """
        x = torch.cat([states[part.to(states.device)] for states, part in zip(self.states, rows, strict=True)])
        s, w = self.steering.controller(x.to(self.steering.controller.inner.weight))
        amounts = self.steering.amounts(s, w)
        prompts = [self.prompts[sort][row] for sort, part in enumerate(rows) for row in part.tolist()]
        tails = torch.cat([replies.ids[part] for replies, part in zip(self.replies, rows, strict=True)])
        ids, mask = pad_left([[*prompt, *tail] for prompt, tail in zip(prompts, tails.tolist(), strict=True)], self.pad)
        length = tails.shape[1]
        with edit(self.model, self._edits(amounts, length)):
            steered = self._tail(ids, mask, length)
        count = len(rows[0])
        wanted = functional.cross_entropy(steered[:count].flatten(0, 1), tails[:count].flatten().to(steered.device))
        with torch.no_grad():
            plain = self._tail(ids[count:], mask[count:], length)
        divergence = functional.kl_div(
            steered[count:].log_softmax(-1), plain.log_softmax(-1), log_target=True, reduction="none"
        )
        real = self.replies[1].real[rows[1]].to(divergence)
        kept = (divergence.sum(-1) * real).sum() / real.sum()
        return wanted + kept + EFFORT_WEIGHT * (s[:, None] * w).mean()

    def _edits(self, amounts: Float[Tensor, "row layer"], length: int) -> Mapping[Site, Edit]:
        """At the prompt's last token, and from there on if replies are steered."""
        first = -length - 1
        behind = -length if self.steering.positions == "prompt-end" else None

        def adding(index: int) -> Edit:
            def add(h: Tensor) -> Tensor:
                added = (amounts[:, index, None] * self.directions[index]).to(h)
                changed = h.clone()
                changed[:, first:behind] += added[:, None]
                return changed

            return add

        return {Site("residual", layer): adding(index) for index, layer in enumerate(self.steering.steered_layers)}

    def _tail(self, ids: Tensor, mask: Tensor, length: int) -> Float[Tensor, "row token vocabulary"]:
        """Logits of the last `length` tokens, each from what stands before it."""
        inputs = model_inputs(self.model, ids, mask)
        logits: Tensor = self.model(**inputs, use_cache=False, logits_to_keep=length + 1).logits[:, :-1]
        return logits.float()

    @torch.no_grad()
    def _unsteered(self, tokenizer: Any, length: int) -> Replies:
        """What the unsteered model writes greedily behind the prompts that are to be left alone."""
        end = tokenizer.eos_token_id
        found = torch.zeros(len(self.prompts[1]), length, dtype=torch.long)
        for batch in batches_by_length(self.prompts[1], self.pad):
            inputs = model_inputs(self.model, batch.ids, batch.mask)
            inputs.pop("position_ids", None)  # `generate` counts them itself
            options = {
                "max_new_tokens": length,
                "do_sample": False,
                "pad_token_id": end if self.pad is None else self.pad,
            }
            written = self.model.generate(**inputs, **options)[:, batch.ids.shape[1] :]  # type: ignore[operator]
            found[torch.tensor(batch.rows), : written.shape[1]] = written.cpu()
        ended = torch.zeros_like(found) if end is None else (found == end).cumsum(1)
        # The first token counts even where the model ends at once.
        return Replies(found, (ended - (found == (-1 if end is None else end)).long()) == 0)


def train_through_model(
    frozen: FrozenModel, generator: torch.Generator, steps: int, batch: int, learning_rate: float
) -> list[float]:
    """Train the steering's controller end to end; half of each batch are prompts to be steered.

    Returns
    -------
    list of float
        The loss of each step.
    """
    parameters = list(frozen.steering.controller.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate)
    history = []
    for _ in range(steps):
        rows = [torch.randperm(len(states), generator=generator)[: max(1, batch // 2)] for states in frozen.states]
        loss = frozen.loss(rows)
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
        history.append(float(loss.detach()))
    return history
