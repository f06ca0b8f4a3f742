"""Organisms: small language models that the project trains itself, so that the ground truth is known.

::

    organism = organisms.load("capitals", seed=0)
    conflict = organism.grammar.context("France", "Sydney")
    logits = organism.model(torch.tensor([conflict.input_ids])).logits[0, conflict.roles["end"]]

Shipped seeds load at once; `build` trains others into the cache. An organism shows whether a tool finds what is known
to be there. It does not show that a larger model, trained on human text, behaves so.
"""

from __future__ import annotations

from interplay.assets.language_models import MissingExtraError, how_to_install

try:
    from interplay.assets.organisms.building import build as build
    from interplay.assets.organisms.card import CLAIM as CLAIM
    from interplay.assets.organisms.card import Card as Card
    from interplay.assets.organisms.gates import Gate as Gate
    from interplay.assets.organisms.gates import GateReport as GateReport
    from interplay.assets.organisms.gates import next_token_log_probabilities as next_token_log_probabilities
    from interplay.assets.organisms.grammar import Example as Example
    from interplay.assets.organisms.grammar import Grammar as Grammar
    from interplay.assets.organisms.shelf import NotBuiltError as NotBuiltError
    from interplay.assets.organisms.shelf import Organism as Organism
    from interplay.assets.organisms.shelf import OrganismInfo as OrganismInfo
    from interplay.assets.organisms.shelf import available as available
    from interplay.assets.organisms.shelf import load as load
    from interplay.assets.organisms.shelf import verify as verify
    from interplay.assets.organisms.training import BuildError as BuildError
    from interplay.assets.organisms.training import Progress as Progress
except ModuleNotFoundError as error:
    raise MissingExtraError(how_to_install(error.name or "transformers")) from error
