"""The card of a weight file: how it was made, what it reached, and what may be claimed with it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from interplay.assets.organisms.gates import Gate

__all__ = ["CLAIM", "Card"]

CLAIM = (
    "This organism shows whether a tool finds what is known to be there; it does not show that a larger model, trained "
    "on human text, behaves so."
)


@dataclass(frozen=True)
class Card:
    """What belongs to one weight file.

    Parameters
    ----------
    organism, variant, seed
        Which one it is.
    model
        The architecture's settings.
    recipe
        The optimiser's settings.
    corpus
        Number of documents and tokens, and the SHA-256 of the text.
    steps, tokens_seen
        Optimiser steps and tokens that training took.
    ended_by
        "gates" (passed early) or "schedule".
    seconds, threads
        Processor time of the training with its evaluations, per thread, and the threads it had.
    versions
        Of Python, PyTorch and Transformers.
    gates
        All gates on the split test, measured after the cast to float16.
    weights_sha256
        Of the safetensors file.
    claim
        The sentence on what may be claimed.
    base
        The card of the weights that training started from, None where they were random. Its gates were measured on
        those weights.
    """

    organism: str
    variant: str
    seed: int
    model: dict[str, Any]
    recipe: dict[str, Any]
    corpus: dict[str, Any]
    steps: int
    tokens_seen: int
    ended_by: str
    seconds: float
    threads: int
    versions: dict[str, str]
    gates: tuple[Gate, ...]
    weights_sha256: str
    claim: str = CLAIM
    base: Card | None = None

    def write(self, path: Path) -> None:
        """Write the card as JSON; infinite bounds of a gate become null."""
        path.write_text(json.dumps(_without_infinities(asdict(self)), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read a card that `write` wrote."""
        return cls._of(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Card:
        gates = []
        for gate in content.pop("gates"):
            minimum = -math.inf if gate["minimum"] is None else gate["minimum"]
            maximum = math.inf if gate["maximum"] is None else gate["maximum"]
            gates.append(Gate(**{**gate, "minimum": minimum, "maximum": maximum}))
        base = content.pop("base", None)
        return cls(**content, gates=tuple(gates), base=None if base is None else cls._of(base))


def _without_infinities(card: dict[str, Any]) -> dict[str, Any]:
    for gate in card["gates"]:
        for bound in ("minimum", "maximum"):
            gate[bound] = gate[bound] if math.isfinite(gate[bound]) else None
    if card["base"] is not None:
        _without_infinities(card["base"])
    return card
