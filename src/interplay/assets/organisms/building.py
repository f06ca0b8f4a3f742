"""Building an organism: train, cast to float16, measure, and keep it only if every gate is passed."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import transformers

from interplay.assets.cache import file_sha256, make_whole
from interplay.assets.organisms.architecture import described
from interplay.assets.organisms.card import Card
from interplay.assets.organisms.corpus import Corpus
from interplay.assets.organisms.gates import GateReport
from interplay.assets.organisms.kind import OrganismKind
from interplay.assets.organisms.shelf import CARD, NotBuiltError, built_folder, check_card, find_folder, find_kind
from interplay.assets.organisms.training import BuildError, Progress, one_machine, train
from interplay.assets.organisms.weights_file import WEIGHTS, load_weights, new_model, save_weights

__all__ = ["build"]


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

    A variant that continues from the weights of another one takes them from where they are, or builds them first.

    The same seed gives the same bits on the same type of machine with the same PyTorch and number of threads; elsewhere
    the gates are the contract. A build that is killed goes on from its last evaluation when it is called again.

    Parameters
    ----------
    name, seed, variant
        Which one; see `available`.
    out_dir
        Where its folder `<variant>-seed<seed>` goes, and that of a base that is nowhere yet; into the cache, where
        `load` finds it, if None.
    threads
        Threads of PyTorch during the training.
    budget_s
        Processor time per thread in seconds for each variant that is trained, interrupted runs included: the wall time
        on a machine that does nothing else.
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
    kind = find_kind(name, variant)
    parent = built_folder() / name if out_dir is None else Path(out_dir)
    folder = parent / f"{variant}-seed{seed}"
    checkpoint = parent / f".{folder.name}.checkpoint"

    def make(temporary: Path) -> None:
        base = kind.bases.get(variant)
        start = None
        if base is not None:
            try:
                start = find_folder(kind, seed, base, parent)
            except NotBuiltError:
                build(name, seed, base, out_dir, threads, budget_s, progress)
                start = parent / f"{base}-seed{seed}"
            check_card(start, Card.read(start / CARD))
        _train_into(temporary, checkpoint, kind, seed, variant, start, threads, budget_s, progress)

    make_whole(folder, make)
    checkpoint.unlink(missing_ok=True)
    card = Card.read(folder / CARD)
    check_card(folder, card)
    return card


def _train_into(
    folder: Path,
    checkpoint: Path,
    kind: OrganismKind,
    seed: int,
    variant: str,
    start: Path | None,
    threads: int,
    budget_s: float,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Train, cast to float16, measure on the split test, and write weights and card if every gate is passed.

    Training starts from the weights in the folder `start`, or from random ones where it is None.
    """
    grammar = kind.grammar(seed)
    corpus = kind.corpus(grammar, variant)
    recipe = kind.recipe(variant)
    label = f"{kind.name} {variant} seed {seed}"
    with one_machine(threads, seed):
        model = new_model(kind.size(variant), grammar.vocabulary, "sdpa")
        if start is not None:
            load_weights(model, start / WEIGHTS)
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
        save_weights(model, folder / WEIGHTS)
        load_weights(model, folder / WEIGHTS)
        report = GateReport(label, tuple(kind.measure(model, grammar, variant, "test")))
    if not report.passed:
        checkpoint.unlink(missing_ok=True)
        failed = "\n".join(str(gate) for gate in report.failed)
        raise BuildError(f"{label}: training ended by its {record.ended_by}, but not every gate is passed:\n{failed}")
    Card(
        organism=kind.name,
        variant=variant,
        seed=seed,
        model=described(kind.size(variant), grammar.vocabulary),
        recipe=asdict(recipe),
        corpus={**_describe(corpus), "vocabulary_sha256": grammar.vocabulary.sha256},
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
        weights_sha256=file_sha256(folder / WEIGHTS),
        base=None if start is None else Card.read(start / CARD),
    ).write(folder / CARD)


def _describe(corpus: Corpus) -> dict[str, int | str]:
    return {"documents": len(corpus), "tokens": len(corpus.tokens), "sha256": corpus.sha256}
