"""The Latent Guard: what the model believes of an instruction, read off the pass that it makes anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site, edit
from interplay.steering.harmfulness_refusal.behaviour import keep_behaving
from interplay.steering.harmfulness_refusal.belief import BeliefProbe, Layers, belief_scores
from interplay.steering.harmfulness_refusal.spans import Instruction, Prompt, read_prompts
from interplay.steering.harmfulness_refusal.states import state_sites, states_at
from interplay.steering.interface import ModelShape

__all__ = ["Heard", "LatentGuard"]

Position = Literal["inst", "post"]


class Heard:
    """What a guard heard while the model read a batch of prompts; of the latest batch, if there were several.

    Attributes
    ----------
    threshold
        Where a prompt is flagged.
    """

    def __init__(self, layers: Sequence[int], threshold: float) -> None:
        self.threshold = threshold
        self._layers = layers
        self._scores: dict[int, Tensor] = {}

    @property
    def scores(self) -> Float[Tensor, " batch"]:
        """Belief that each prompt is harmful.

        Raises
        ------
        LookupError
            No prompt was read to its end yet.
        """
        if len(self._scores) < len(self._layers):
            raise LookupError("the guard heard nothing: no prompt was read inside its context")
        return torch.stack([self._scores[layer] for layer in self._layers]).mean(0)

    @property
    def flagged(self) -> Bool[Tensor, " batch"]:
        """Which prompts reach the threshold."""
        return self.scores >= self.threshold

    def replying(
        self, reply: Sequence[int]
    ) -> Callable[[Int[Tensor, "row position"], Float[Tensor, "row vocabulary"]], Float[Tensor, "row vocabulary"]]:
        """A logits processor that makes `generate` say a fixed reply after the prompts that were flagged.

        Parameters
        ----------
        reply
            Its token ids, the end of the sequence included if it is to end there; afterwards the model goes on.
        """
        tokens = [int(token) for token in reply]
        if not tokens:
            raise ValueError("reply is empty; pass the token ids of what is to be said")
        prompt_length: list[int] = []

        def process(ids: Tensor, logits: Tensor) -> Tensor:
            prompt_length[:] = prompt_length or [ids.shape[1]]
            step = ids.shape[1] - prompt_length[0]
            if step >= len(tokens):
                return logits
            flagged = self.flagged
            if len(logits) % len(flagged):
                raise ValueError(f"the guard heard {len(flagged)} prompts, the logits have {len(logits)} rows")
            rows = flagged.repeat_interleave(len(logits) // len(flagged)).to(logits.device)
            said = torch.full_like(logits, -torch.inf)
            said[:, tokens[step]] = 0
            return torch.where(rows[:, None], said, logits)

        return process

    def _hear(self, layer: int, towards: Tensor, away: Tensor, after: int) -> Edit:
        def listen(states: Tensor) -> None:
            if states.shape[1] <= after:
                raise ValueError(f"the prompt has {states.shape[1]} tokens, {after} of them behind the instruction")
            self._scores[layer] = belief_scores(states[:, -1 - after].detach(), towards, away)

        return listen


class LatentGuard:
    """A classifier of instructions that costs no pass of its own.

    Parameters
    ----------
    probe
        A fitted probe.
    shape
        Of the model that it was fitted on.
    position
        Where it reads: "inst", the instruction's last token, or "post", the prompt's.
    after
        How many tokens of the template follow every instruction; None where that differs.
    template
        What instructions are put into, None: the tokenizer's chat template.
    """

    def __init__(
        self,
        probe: BeliefProbe,
        shape: ModelShape,
        position: Position = "inst",
        after: int | None = None,
        template: str | None = None,
    ) -> None:
        if position not in get_args(Position):
            raise ValueError(f"position must be one of {', '.join(get_args(Position))}, got {position!r}")
        self.probe = probe
        self.shape = ModelShape(*shape)
        self.position: Position = position
        self.after = after
        self.template = template

    @classmethod
    def from_model(
        cls,
        model: nn.Module,
        tokenizer: Any,
        positives: Sequence[Instruction | Prompt],
        negatives: Sequence[Instruction | Prompt],
        *,
        position: Position = "inst",
        layers: Layers = "all",
        threshold: float = 0.0,
        template: str | None = None,
        is_refusal: Callable[[str], bool] | None = None,
        **options: Any,
    ) -> Self:
        """Fit on instructions that the model refuses because they are harmful, and on harmless ones that it accepts.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positives, negatives
            Instructions, chats or prompts with spans; accepted harmful and refused harmless ones do not belong here.
        position, template
            As in the constructor.
        layers, threshold
            Those of `BeliefProbe`.
        is_refusal
            Whether a reply is a refusal. If given, the model's replies are checked and prompts that do not behave as
            they should are left out.
        **options
            Those of `collect_activations`.

        Warns
        -----
        UserWarning
            Prompts that are left out, or few of a kind.

        Raises
        ------
        ValueError
            Less than half of a kind behave as they should, fewer than two, or what `read_prompts` refuses.
        """
        groups = [read_prompts(tokenizer, given, template=template) for given in (positives, negatives)]
        if is_refusal is not None:
            for at, (group, refused) in enumerate((("positives", True), ("negatives", False))):
                kept = keep_behaving(model, tokenizer, groups[at], refused=refused, is_refusal=is_refusal, group=group)
                groups[at] = [groups[at][index] for index in kept]
        prompts = [*groups[0], *groups[1]]
        counts = {prompt.span.after for prompt in prompts}
        guard = cls(
            BeliefProbe(layers=layers, threshold=threshold),
            ModelShape.of(model),
            position,
            counts.pop() if len(counts) == 1 else None,
            template,
        )
        labels = torch.cat([torch.ones(len(groups[0])), torch.zeros(len(groups[1]))])
        guard.probe.fit(guard._states(model, tokenizer, prompts, **options), labels)
        return guard

    def score(
        self, model: nn.Module, tokenizer: Any, prompts: Sequence[Instruction | Prompt], **options: Any
    ) -> NDArray[np.floating[Any]]:
        """Belief that each prompt is harmful, [prompt]; `options` are those of `collect_activations`."""
        self._check_fits(model)
        read = read_prompts(tokenizer, prompts, template=self.template)
        return self.probe.decision_function(self._states(model, tokenizer, read, **options))

    def flags(
        self, model: nn.Module, tokenizer: Any, prompts: Sequence[Instruction | Prompt], **options: Any
    ) -> NDArray[np.bool_]:
        """Which prompts reach the threshold, [prompt]."""
        flagged: NDArray[np.bool_] = self.score(model, tokenizer, prompts, **options) >= self.probe.threshold_
        return flagged

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[Heard]:
        """A context in which the guard hears every batch of prompts that the model reads.

        Prompts are padded on the left and end with the template, as `generate` wants them. The scores are there as soon
        as the prompt was read, before the first token is chosen: `Heard.replying` acts on them.

        Raises
        ------
        ValueError
            A model of another shape, or a guard at "inst" whose template does not end in the same number of tokens
            behind every instruction.
        """
        self._check_fits(model)
        if self.position == "inst" and self.after is None:
            raise ValueError(
                "the number of tokens behind the instruction differed in the fit, so that listening does not know "
                "where instructions end; use score"
            )
        after = (self.after or 0) if self.position == "inst" else 0
        heard = Heard(self.probe.layers_, self.probe.threshold_)
        away, towards = torch.from_numpy(self.probe.centroids_).to(next(model.parameters()).device)
        sites = state_sites(model)
        listeners: dict[Site, Edit] = {
            sites[layer]: heard._hear(layer, towards[layer], away[layer], after) for layer in self.probe.layers_
        }
        with edit(model, listeners, positions="prompt"):
            yield heard

    def _states(self, model: nn.Module, tokenizer: Any, prompts: Sequence[Prompt], **options: Any) -> Tensor:
        read = [(prompt.span.t_inst if self.position == "inst" else prompt.span.t_post,) for prompt in prompts]
        return states_at(model, tokenizer, prompts, read, **options)[:, 0]

    def _check_fits(self, model: nn.Module) -> None:
        if (shape := ModelShape.of(model)) != self.shape:
            raise ValueError(f"this guard was fitted on {self.shape}; the model is {shape}")
