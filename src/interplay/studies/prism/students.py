"""Recurrent students of one shape, trained together: all networks of a trial in one batched product a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from interplay.agents.prism.world import NEED_TOKENS, RECEPTIVITY_TOKENS

Tokens = Int[Tensor, "networks batch events tokens=2"]
Pair = tuple[Float[Tensor, "networks batch"], Float[Tensor, "networks batch"]]
INPUTS = NEED_TOKENS + RECEPTIVITY_TOKENS
ACTIONS = 2


class Students(nn.Module):
    """GRUs that read event tokens and end in two logits, as many as asked for, each with weights of its own.

    Parameters
    ----------
    networks, hidden
        How many, and units of each.
    counterfactual
        Adds what the slow pass does: the stream is continued once by SPEAK and once by SILENT, the next event is
        predicted in each case, and both entropies and their difference join what the head reads.
    generator
        Draws the weights, uniform within 1 / sqrt(hidden) as PyTorch's own GRU.
    """

    def __init__(self, networks: int, hidden: int, *, counterfactual: bool = False, generator: torch.Generator) -> None:
        super().__init__()
        bound = hidden**-0.5

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(networks, *shape, generator=generator) * 2 - 1) * bound)

        self.inputs = drawn(INPUTS + ACTIONS * counterfactual, 3 * hidden)
        self.input_bias = drawn(1, 3 * hidden)
        self.recurrent = drawn(hidden, 3 * hidden)
        self.recurrent_bias = drawn(1, 3 * hidden)
        self.head = drawn(hidden + 3 * counterfactual, 2)
        self.head_bias = drawn(1, 2)
        self.next_event = drawn(hidden, INPUTS) if counterfactual else None
        self.hidden = hidden

    def forward(self, tokens: Tokens) -> tuple[Pair, Float[Tensor, "actions networks batch inputs"] | None]:
        """Probabilities of need and acceptance, and the next event's logits after either action."""
        networks, batch, events, _ = tokens.shape
        shown = torch.cat(
            [
                functional.one_hot(tokens[..., 0], NEED_TOKENS),
                functional.one_hot(tokens[..., 1], RECEPTIVITY_TOKENS),
            ],
            dim=-1,
        ).to(self.inputs.dtype)
        gates = shown.transpose(1, 2).reshape(networks, events * batch, INPUTS) @ self.inputs[:, :INPUTS]
        gates = (gates + self.input_bias).view(networks, events, batch, -1)
        state = gates.new_zeros(networks, batch, self.hidden)
        for event in range(events):
            state = self._step(state, gates[:, event])
        read, next_logits = state, None
        if self.next_event is not None:
            after = [
                self._step(state, (self.inputs[:, INPUTS + action, None] + self.input_bias).expand(-1, batch, -1))
                for action in range(ACTIONS)
            ]
            next_logits = torch.stack([state @ self.next_event for state in after])
            silent, speak = _entropy(next_logits).detach()
            read = torch.cat([state, torch.stack([silent, speak, speak - silent], dim=-1)], dim=-1)
        pair = torch.sigmoid(read @ self.head + self.head_bias)
        return (pair[..., 0], pair[..., 1]), next_logits

    def _step(
        self, state: Float[Tensor, "networks batch hidden"], gates: Float[Tensor, "networks batch three_hidden"]
    ) -> Float[Tensor, "networks batch hidden"]:
        recurrent = torch.baddbmm(self.recurrent_bias, state, self.recurrent)
        both = torch.sigmoid(gates[..., : 2 * self.hidden] + recurrent[..., : 2 * self.hidden])
        reset, update = both.chunk(2, dim=-1)
        new = torch.tanh(torch.addcmul(gates[..., 2 * self.hidden :], reset, recurrent[..., 2 * self.hidden :]))
        return torch.lerp(new, state, update)


LossOfNetwork = Callable[[int, Int[Tensor, " batch"], Pair, Float[Tensor, "actions batch inputs"] | None], Tensor]


def train(
    students: Students,
    tokens: Sequence[Int[Tensor, "events_seen events tokens=2"]],
    loss: LossOfNetwork,
    *,
    steps: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> None:
    """Adam with a cosine schedule; every network draws its minibatches from its own tokens.

    Parameters
    ----------
    tokens
        For each network what it learns from.
    loss
        (network, rows, its probabilities of these, its predictions of the next event) to a scalar.
    """
    optimizer = torch.optim.Adam(students.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = [torch.randint(len(own), (batch_size,), generator=generator) for own in tokens]
        (p_need, p_acc), upcoming = students(
            torch.stack([own[chosen] for own, chosen in zip(tokens, rows, strict=True)])
        )
        losses = [
            loss(network, chosen, (p_need[network], p_acc[network]), None if upcoming is None else upcoming[:, network])
            for network, chosen in enumerate(rows)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def judge(
    students: Students, tokens: Sequence[Int[Tensor, "count events tokens=2"]], at_a_time: int = 2000
) -> Float[np.ndarray, "networks count pair=2"]:
    """Both probabilities of every network for its tokens, as many for each."""
    stacked = torch.stack(list(tokens))
    parts = [torch.stack(students(part)[0], dim=-1) for part in stacked.split(at_a_time, dim=1)]
    return torch.cat(parts, dim=1).double().numpy()


def next_event_loss(
    logits: Float[Tensor, "actions batch inputs"],
    spoke: Int[Tensor, " batch"],
    next_tokens: Int[Tensor, "batch tokens=2"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the event that followed, after the action that the logger took."""
    taken = logits[spoke, torch.arange(len(spoke))]
    need, receptivity = taken.split((NEED_TOKENS, RECEPTIVITY_TOKENS), dim=-1)
    return functional.cross_entropy(need, next_tokens[:, 0]) + functional.cross_entropy(receptivity, next_tokens[:, 1])


def _entropy(logits: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch"]:
    """Entropy of the predicted event in nats; its two tokens are independent given the stream."""
    parts = logits.split((NEED_TOKENS, RECEPTIVITY_TOKENS), dim=-1)
    logs = [part.log_softmax(-1) for part in parts]
    return -sum(((log.exp() * log).sum(-1) for log in logs), start=torch.zeros(()))
