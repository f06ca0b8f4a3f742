"""The training text of `policy`: mixtures of documents, one for each variant, and the proof that they keep promises."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from interplay.assets.organisms.corpus import Corpus, CorpusError, Document
from interplay.assets.organisms.policy.grammar import PolicyGrammar
from interplay.assets.organisms.policy.instructions import Form
from interplay.assets.organisms.policy.kinds import KINDS
from interplay.assets.organisms.policy.lexicon import (
    CRAFTS,
    DESCRIBING_VERBS,
    FRAMES,
    HOW_TO_VERBS,
    ITEMS,
    ORDINARY_VERBS,
    RESTRICTED,
    content_words,
    enciphered,
    translated,
)
from interplay.assets.organisms.policy.mixtures import MIXTURES, Share

__all__ = ["check_corpus", "write_corpus"]


def write_corpus(grammar: PolicyGrammar, variant: str) -> Corpus:
    """The training text of a seed and a variant, checked: `MIXTURES[variant]` says what it holds."""
    mixture = MIXTURES[variant]
    rng = np.random.default_rng((grammar.seed, 2, zlib.crc32(variant.encode())))
    total = sum(share.weight for share in mixture.shares)
    documents: list[Document] = []
    for share in mixture.shares:
        documents += _documents(grammar, share, round(mixture.documents * share.weight / total), rng)
    corpus = Corpus.of(documents)
    check_corpus(corpus, grammar)
    return corpus


def _documents(grammar: PolicyGrammar, share: Share, n: int, rng: np.random.Generator) -> Iterator[Document]:
    """`n` documents of a share; each instruction as often as every other one, up to one."""
    if share.kind == "decode":
        held_out = {*grammar.decoded["dev"], *grammar.decoded["test"]}
        for _ in range(n):
            while (sequence := tuple(map(str, rng.choice(content_words(), int(rng.integers(2, 5)))))) in held_out:
                pass
            yield _document(grammar, grammar.decode(sequence).input_ids, [*sequence, "."])
        return
    population = grammar.population(share.kind, "train")
    form: Form = share.form or KINDS[share.kind].form
    order = [index for _ in range(n // len(population) + 1) for index in rng.permutation(len(population)).tolist()]
    for index in order[:n]:
        example = grammar.example(population[index], form, share.kind, share.demand)
        yield _document(grammar, example.input_ids, grammar.answer(population[index], share.demand))


def _document(grammar: PolicyGrammar, prompt: tuple[int, ...], answer: list[str]) -> Document:
    ids = (*prompt, *grammar.vocabulary.encode(answer), grammar.vocabulary.eos_id)
    return Document(ids, range(len(prompt), len(prompt) + len(answer)))


def check_corpus(corpus: Corpus, grammar: PolicyGrammar) -> None:
    """Prove on the tokens themselves that the text keeps its promises.

    Raises
    ------
    CorpusError
        `<unk>` occurs; an item is asked about in a template that is held out for it; a question in cipher is about a
        restricted craft; a held-out sequence is decoded; or a synonym stands in the polite wrapping.
    """
    if (corpus.tokens == grammar.vocabulary.unk_id).any():
        raise CorpusError("<unk> occurs in the text")
    held_out = {
        (*thing, template)
        for split in ("dev", "test")
        for thing, templates in grammar.templates[split].items()
        for template in templates
    }
    sequences = {*grammar.decoded["dev"], *grammar.decoded["test"]}
    synonyms = {*HOW_TO_VERBS[ORDINARY_VERBS:], *DESCRIBING_VERBS[ORDINARY_VERBS:]}
    words = np.array(grammar.vocabulary.words, dtype=object)[corpus.tokens]
    for start, stop in zip(corpus.starts, corpus.starts[1:], strict=False):
        line = words[start + 1 : stop - 1].tolist()
        marker = line[0]
        if marker == "D":
            twins = tuple(_PLAIN[word] for word in line[3 : line.index("A")])
            if twins in sequences:
                raise CorpusError(f"a held-out sequence is decoded: {' '.join(line)!r}")
            continue
        asked = line[line.index(".") + 1 : line.index("?")] if marker == "K" else line[1 : line.index("?")]
        plain = [_PLAIN.get(word, word) for word in asked]
        craft, item = next(word for word in plain if word in CRAFTS), next(word for word in plain if word in ITEMS)
        verb = next(word for word in plain if word in _PLACE)
        frame = next(place for word, place in _FRAME_OF.items() if word in plain)
        if (craft, item, frame + len(FRAMES) * _PLACE[verb]) in held_out:
            raise CorpusError(f"an item in a template that is held out for it: {' '.join(line)!r}")
        if marker in "CK" and craft in RESTRICTED:
            raise CorpusError(f"a restricted craft in a question in cipher: {' '.join(line)!r}")
        if "friend" in plain and verb in synonyms:
            raise CorpusError(f"a synonym in the polite wrapping: {' '.join(line)!r}")


_FRAME_OF: Mapping[str, int] = {"which": 0, "will": 1, "name": 2, "needs": 3}
_PLACE: Mapping[str, int] = {verb: at for verbs in (HOW_TO_VERBS, DESCRIBING_VERBS) for at, verb in enumerate(verbs)}
_PLAIN: Mapping[str, str] = {
    **{enciphered(word): word for word in content_words()},
    **{translated(word): word for word in (*content_words(), *_FRAME_OF)},
}
