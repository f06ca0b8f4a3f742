"""Where organisms are kept and found: shipped with the package, or built once into the cache."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from interplay.assets.cache import cache_directory, file_sha256, make_whole
from interplay.assets.organisms import capitals
from interplay.assets.organisms.card import Card
from interplay.assets.organisms.corpus import Corpus
from interplay.assets.organisms.gates import GateReport
from interplay.assets.organisms.grammar import Grammar
from interplay.assets.organisms.kind import OrganismKind, llama
from interplay.assets.organisms.training import BuildError, Progress, one_machine, train
from interplay.assets.organisms.vocabulary import ClosedTokenizer, Vocabulary

__all__ = ["NotBuiltError", "Organism", "OrganismInfo", "available", "build", "load", "verify"]

_KINDS: dict[str, OrganismKind] = {kind.name: kind for kind in (capitals.KIND,)}
_SHIPPED = Path(__file__).parent / "weights"
_WEIGHTS, _CARD = "model.safetensors", "card.json"


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
    for kind in _KINDS.values():
        for variant, description in kind.variants.items():
            shipped, built = (_seeds_in(root / kind.name, variant) for root in (_SHIPPED, _built()))
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
    kind = _kind(name, variant)
    folder = _find(kind, seed, variant)
    card = Card.read(folder / _CARD)
    _check_card(folder, card)
    grammar = kind.grammar(seed)
    if card.corpus["vocabulary_sha256"] != _sha256_of(grammar.vocabulary):
        raise RuntimeError(
            f"{folder} was trained with another vocabulary; rebuild it with `{_command(kind, seed, variant)}`"
        )
    model = _new_model(kind, grammar.vocabulary, attn_implementation)
    _load_weights(model, folder / _WEIGHTS)
    if attn_implementation != "eager":
        model.register_forward_pre_hook(_refuse_attention_weights, with_kwargs=True)
    return Organism(model.to(dtype).eval(), grammar.vocabulary.tokenizer(), card, grammar)


def build(
    name: str,
    seed: int = 0,
    variant: str = "main",
    out_dir: str | Path | None = None,
    threads: int = 2,
    budget_s: float = 600.0,
    progress: Callable[[Progress], None] | None = None,
) -> Card:
    """Train an organism from its seed, unless it is there already, and return its card.

    The same seed gives the same bits on the same type of machine with the same PyTorch and number of threads; elsewhere
    the gates are the contract. A build that is killed goes on from its last evaluation when it is called again.

    Parameters
    ----------
    name, seed, variant
        Which one; see `available`.
    out_dir
        Where its folder `<variant>-seed<seed>` goes; into the cache, where `load` finds it, if None.
    threads
        Threads of PyTorch during the training.
    budget_s
        Wall time in seconds, interrupted runs included.
    progress
        Called after every step.

    Raises
    ------
    KeyError
        Unknown name or variant.
    BuildError
        The budget does not suffice or is spent, or a gate fails; the message lists the failed gates. After a spent
        budget, a call with a larger one goes on where training ended.
    """
    kind = _kind(name, variant)
    parent = _built() / name if out_dir is None else Path(out_dir)
    folder = parent / f"{variant}-seed{seed}"
    checkpoint = parent / f".{folder.name}.checkpoint"

    def make(temporary: Path) -> None:
        _train_into(temporary, checkpoint, kind, seed, variant, threads, budget_s, progress)

    make_whole(folder, make)
    checkpoint.unlink(missing_ok=True)
    card = Card.read(folder / _CARD)
    _check_card(folder, card)
    return card


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
    if isinstance(path_or_name, Path) or str(path_or_name) not in _KINDS:
        folder = Path(path_or_name)
        if not (folder / _CARD).is_file():
            raise KeyError(f"{str(path_or_name)!r} is neither a folder with {_CARD} nor one of {', '.join(_KINDS)}")
        card = Card.read(folder / _CARD)
        kind, seed, variant = _kind(card.organism, card.variant), card.seed, card.variant
    else:
        kind = _kind(str(path_or_name), variant)
        folder = _find(kind, seed, variant)
        card = Card.read(folder / _CARD)
    _check_hash(folder, card)
    grammar = kind.grammar(seed)
    model = _new_model(kind, grammar.vocabulary, "sdpa")
    _load_weights(model, folder / _WEIGHTS)
    gates = kind.measure(model.eval(), grammar, variant, "test")
    return GateReport(f"{card.organism} {variant} seed {seed}", tuple(gates))


def _train_into(
    folder: Path,
    checkpoint: Path,
    kind: OrganismKind,
    seed: int,
    variant: str,
    threads: int,
    budget_s: float,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Train, cast to float16, measure on the split test, and write weights and card if every gate is passed."""
    grammar = kind.grammar(seed)
    corpus = kind.corpus(grammar, variant)
    recipe = kind.recipe(variant)
    label = f"{kind.name} {variant} seed {seed}"
    with one_machine(threads, seed):
        model = _new_model(kind, grammar.vocabulary, "sdpa", reseed=False)
        record = train(
            model,
            corpus,
            recipe,
            seed=seed,
            pad_id=grammar.vocabulary.pad_id,
            budget_seconds=budget_s,
            measure=lambda trained: kind.measure(trained, grammar, variant, "dev"),
            checkpoint=checkpoint,
            progress=progress,
        )
        if record.ended_by == "budget":
            failed = "\n".join(str(gate) for gate in record.gates if not gate.passed)
            raise BuildError(
                f"{label}: the budget of {budget_s:.0f} s is spent after {record.steps} steps; failed when measured "
                f"last:\n{failed}"
            )
        halves = {name: tensor.half() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
        save_file(halves, folder / _WEIGHTS, metadata={"format": "pt"})
        _load_weights(model, folder / _WEIGHTS)
        report = GateReport(label, tuple(kind.measure(model, grammar, variant, "test")))
    if not report.passed:
        checkpoint.unlink(missing_ok=True)
        failed = "\n".join(str(gate) for gate in report.failed)
        raise BuildError(f"{label}: training ended by its {record.ended_by}, but not every gate is passed:\n{failed}")
    Card(
        organism=kind.name,
        variant=variant,
        seed=seed,
        model={"size": kind.size, **{key: getattr(model.config, key) for key in _SHAPE}},
        recipe=asdict(recipe),
        corpus={**_describe(corpus), "vocabulary_sha256": _sha256_of(grammar.vocabulary)},
        steps=record.steps,
        tokens_seen=record.tokens,
        ended_by=record.ended_by,
        seconds=round(record.seconds, 1),
        threads=threads,
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        gates=report.gates,
        weights_sha256=file_sha256(folder / _WEIGHTS),
    ).write(folder / _CARD)


_SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def _describe(corpus: Corpus) -> dict[str, int | str]:
    return {"documents": len(corpus), "tokens": len(corpus.tokens), "sha256": corpus.sha256}


def _new_model(
    kind: OrganismKind, vocabulary: Vocabulary, attn_implementation: str, reseed: bool = True
) -> PreTrainedModel:
    """A model with random weights; unless they are to be trained, the global generator is left as it was."""
    config = llama(kind.size, vocabulary)
    options = {"attn_implementation": attn_implementation, "dtype": torch.float32}
    if not reseed:
        return AutoModelForCausalLM.from_config(config, **options)
    with torch.random.fork_rng(devices=[]):
        return AutoModelForCausalLM.from_config(config, **options)


def _load_weights(model: PreTrainedModel, path: Path) -> None:
    """Put float16 weights into a float32 model; the tied output layer is the embedding."""
    weights = {name: tensor.float() for name, tensor in load_file(path).items()}
    found = model.load_state_dict(weights, strict=False)
    if found.unexpected_keys or set(found.missing_keys) != {"lm_head.weight"}:
        raise RuntimeError(f"{path} does not fit the architecture: {found}")


def _refuse_attention_weights(model: PreTrainedModel, args: tuple, kwargs: dict) -> None:
    if kwargs.get("output_attentions"):
        raise ValueError(
            "output_attentions=True needs attn_implementation='eager'; load the organism with that (its default)"
        )


def _kind(name: str, variant: str) -> OrganismKind:
    if name not in _KINDS:
        raise KeyError(f"unknown organism {name!r}; available are {', '.join(_KINDS)}")
    kind = _KINDS[name]
    if variant not in kind.variants:
        raise KeyError(f"{name} has no variant {variant!r}; available are {', '.join(kind.variants)}")
    return kind


def _built() -> Path:
    return cache_directory() / "organisms"


def _find(kind: OrganismKind, seed: int, variant: str) -> Path:
    places = [root / kind.name / f"{variant}-seed{seed}" for root in (_SHIPPED, _built())]
    for place in places:
        if (place / _CARD).is_file():
            return place
    raise NotBuiltError(
        f"{kind.name} {variant} seed {seed} is not shipped; build it once with `{_command(kind, seed, variant)}` "
        f"(about {kind.build_minutes:g} minutes on two cores)"
    )


def _command(kind: OrganismKind, seed: int, variant: str) -> str:
    return f"interplay organisms build {kind.name} --seed {seed} --variant {variant}"


def _seeds_in(folder: Path, variant: str) -> tuple[int, ...]:
    prefix = f"{variant}-seed"
    return tuple(sorted(int(card.parent.name.removeprefix(prefix)) for card in folder.glob(f"{prefix}*/{_CARD}")))


def _check_hash(folder: Path, card: Card) -> None:
    if file_sha256(folder / _WEIGHTS) != card.weights_sha256:
        raise RuntimeError(
            f"the SHA-256 of {folder / _WEIGHTS} is not the one on its card; reinstall the package, or remove {folder} "
            f"and rebuild with `{_command(_KINDS[card.organism], card.seed, card.variant)}`"
        )


def _check_card(folder: Path, card: Card) -> None:
    _check_hash(folder, card)
    report = GateReport(f"{card.organism} {card.variant} seed {card.seed}", card.gates)
    if not report.passed:
        raise RuntimeError(f"the card in {folder} shows a failed gate:\n{report}")


def _sha256_of(vocabulary: Vocabulary) -> str:
    return hashlib.sha256("\n".join(vocabulary.words).encode()).hexdigest()
