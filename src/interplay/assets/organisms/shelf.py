"""Where organisms are kept and found: shipped with the package, or built once into the cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from interplay.assets.cache import cache_directory, file_sha256
from interplay.assets.organisms import capitals, policy
from interplay.assets.organisms.card import Card
from interplay.assets.organisms.gates import GateReport
from interplay.assets.organisms.grammar import Grammar
from interplay.assets.organisms.kind import OrganismKind
from interplay.assets.organisms.vocabulary import ClosedTokenizer
from interplay.assets.organisms.weights_file import WEIGHTS, load_weights, new_model, refuse_attention_weights

__all__ = ["NotBuiltError", "Organism", "OrganismInfo", "available", "load", "verify"]

KINDS: dict[str, OrganismKind] = {kind.name: kind for kind in (capitals.KIND, policy.KIND)}
"""Every organism by its name."""

CARD = "card.json"
_SHIPPED = Path(__file__).parent / "weights"


class NotBuiltError(LookupError):
    """The organism is neither shipped nor in the cache; the message says how to build it and how long that takes."""


@dataclass(frozen=True)
class OrganismInfo:
    """One variant of an organism, and the seeds that can be loaded at once."""

    name: str
    variant: str
    description: str
    shipped_seeds: tuple[int, ...]
    built_seeds: tuple[int, ...]
    """Seeds in the cache of this machine."""
    build_minutes: float


@dataclass(frozen=True)
class Organism:
    """A trained organism with everything that is known about it."""

    model: PreTrainedModel
    tokenizer: ClosedTokenizer
    card: Card
    grammar: Grammar


def available() -> list[OrganismInfo]:
    """Every variant of every organism, with its shipped and its cached seeds."""
    found = []
    for kind in KINDS.values():
        for variant, description in kind.variants.items():
            shipped, built = (_seeds_in(root / kind.name, variant) for root in (_SHIPPED, built_folder()))
            found.append(
                OrganismInfo(
                    name=kind.name,
                    variant=variant,
                    description=f"{kind.description}; {description}",
                    shipped_seeds=shipped,
                    built_seeds=built,
                    build_minutes=kind.build_minutes,
                )
            )
    return found


def load(
    name: str,
    seed: int = 0,
    variant: str = "main",
    dtype: torch.dtype = torch.float32,
    attn_implementation: str = "eager",
) -> Organism:
    """Load an organism: its model in evaluation mode, its tokenizer, its card and its grammar.

    Parameters
    ----------
    name, seed, variant
        Which one; see `available`.
    dtype
        Type of the parameters; the files hold float16.
    attn_implementation
        "eager", which gives attention weights, or "sdpa", which does not.

    Raises
    ------
    KeyError
        Unknown name or variant.
    NotBuiltError
        The seed is neither shipped nor built yet.
    RuntimeError
        The weights are not those of the card, or the card shows a failed gate, or this version of the package has
        another vocabulary than the one that the organism was trained with.
    """
    kind = find_kind(name, variant)
    folder = find_folder(kind, seed, variant)
    card = Card.read(folder / CARD)
    check_card(folder, card)
    grammar = kind.grammar(seed)
    if card.corpus["vocabulary_sha256"] != grammar.vocabulary.sha256:
        raise RuntimeError(
            f"{folder} was trained with another vocabulary; rebuild it with `{_command(kind, seed, variant)}`"
        )
    model = _read_model(kind, variant, grammar, folder, attn_implementation)
    if attn_implementation != "eager":
        model.register_forward_pre_hook(refuse_attention_weights, with_kwargs=True)
    return Organism(model.to(dtype), grammar.vocabulary.tokenizer(), card, grammar)


def verify(path_or_name: str | Path, seed: int = 0, variant: str = "main") -> GateReport:
    """Measure every gate of an organism again, on the split test.

    Parameters
    ----------
    path_or_name
        Name of an organism, or the folder of one (then `seed` and `variant` come from its card).

    Raises
    ------
    KeyError, NotBuiltError, RuntimeError
        As in `load`.
    """
    if isinstance(path_or_name, Path) or str(path_or_name) not in KINDS:
        folder = Path(path_or_name)
        if not (folder / CARD).is_file():
            raise KeyError(f"{str(path_or_name)!r} is neither a folder with {CARD} nor one of {', '.join(KINDS)}")
        card = Card.read(folder / CARD)
        kind, seed, variant = find_kind(card.organism, card.variant), card.seed, card.variant
    else:
        kind = find_kind(str(path_or_name), variant)
        folder = find_folder(kind, seed, variant)
        card = Card.read(folder / CARD)
    _check_hash(folder, card)
    grammar = kind.grammar(seed)
    model = _read_model(kind, variant, grammar, folder, "sdpa")
    gates = kind.measure(model, grammar, variant, "test")
    return GateReport(f"{card.organism} {variant} seed {seed}", tuple(gates))


def _read_model(
    kind: OrganismKind, variant: str, grammar: Grammar, folder: Path, attn_implementation: str
) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        model = new_model(kind.size(variant), grammar.vocabulary, attn_implementation)
    load_weights(model, folder / WEIGHTS)
    return model.eval()


def find_kind(name: str, variant: str) -> OrganismKind:
    """The organism of a name that has the variant; KeyError lists the known ones."""
    if name not in KINDS:
        raise KeyError(f"unknown organism {name!r}; available are {', '.join(KINDS)}")
    kind = KINDS[name]
    if variant not in kind.variants:
        raise KeyError(f"{name} has no variant {variant!r}; available are {', '.join(kind.variants)}")
    return kind


def built_folder() -> Path:
    """Where the organisms are that this machine has built."""
    return cache_directory() / "organisms"


def find_folder(kind: OrganismKind, seed: int, variant: str, *others: Path) -> Path:
    """Where an organism is: in one of the `others`, shipped, or in the cache; NotBuiltError if in none of them."""
    places = [root / f"{variant}-seed{seed}" for root in (*others, _SHIPPED / kind.name, built_folder() / kind.name)]
    for place in places:
        if (place / CARD).is_file():
            return place
    minutes = kind.build_minutes * len(kind.lineage(variant))
    raise NotBuiltError(
        f"{kind.name} {variant} seed {seed} is not shipped; build it once with `{_command(kind, seed, variant)}` "
        f"(about {minutes:g} minutes on two cores)"
    )


def _command(kind: OrganismKind, seed: int, variant: str) -> str:
    return f"interplay organisms build {kind.name} --seed {seed} --variant {variant}"


def _seeds_in(folder: Path, variant: str) -> tuple[int, ...]:
    prefix = f"{variant}-seed"
    return tuple(sorted(int(card.parent.name.removeprefix(prefix)) for card in folder.glob(f"{prefix}*/{CARD}")))


def _check_hash(folder: Path, card: Card) -> None:
    if file_sha256(folder / WEIGHTS) != card.weights_sha256:
        raise RuntimeError(
            f"the SHA-256 of {folder / WEIGHTS} is not the one on its card; reinstall the package, or remove {folder} "
            f"and rebuild with `{_command(KINDS[card.organism], card.seed, card.variant)}`"
        )


def check_card(folder: Path, card: Card) -> None:
    """RuntimeError unless the weights are those of the card and its gates are passed, as are those of its bases."""
    _check_hash(folder, card)
    stage: Card | None = card
    while stage is not None:
        report = GateReport(f"{stage.organism} {stage.variant} seed {stage.seed}", stage.gates)
        if not report.passed:
            raise RuntimeError(f"the card in {folder} shows a failed gate:\n{report}")
        stage = stage.base
