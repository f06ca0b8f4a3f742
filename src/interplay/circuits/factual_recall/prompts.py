"""Conflict prompts: a known fact, a false context, and the question between them (eq. 1 of the package)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interplay.circuits.factual_recall.batches import Batch, Questions

STATEMENT = "The capital of {subject} is {object}."
QUESTION = "Q: What is the capital of {subject}? A:"


class Fact(NamedTuple):
    """A subject, its true object, and a statement with the slots ``{subject}`` and ``{object}``."""

    subject: str
    object: str
    statement: str = STATEMENT


class Text(Protocol):
    """A prompt in words."""

    @property
    def text(self) -> str: ...


class Grammar(Protocol):
    """What an organism knows about its own facts: the organism `capitals` has such a grammar."""

    capital_of: Mapping[str, str]
    other_cities: Sequence[str]

    def question(self, country: str) -> Text: ...

    def context(self, country: str, city: str, template: int = 0) -> Text: ...


class Organism(Protocol):
    """A language model's tokenizer and the ground truth of the text that it was trained on."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def grammar(self) -> Any: ...


class ConflictSet:
    """Every known subject crossed with every offered answer that is not its own.

    Build one with `from_facts`; `split` and `select` give smaller ones.

    Attributes
    ----------
    facts
        The facts, of which the model should know the answers.
    answers
        What the context may offer.
    pairs
        [pair, 2]: indices into `facts` and `answers`.
    dropped
        Number of pairs that were left out because both answers start with the same token.
    """

    def __init__(
        self,
        facts: Sequence[Fact],
        answers: Sequence[str],
        tokenizer: Any,
        question: str,
        prefix: str,
        ids: Mapping[str, int],
        pairs: Int[np.ndarray, "pair 2"],
        dropped: int,
    ) -> None:
        self.facts, self.answers, self.pairs, self.dropped = tuple(facts), tuple(answers), pairs, dropped
        self._tokenizer, self._question, self._prefix, self._ids = tokenizer, question, prefix, ids

    @classmethod
    def from_facts(
        cls,
        facts: Sequence[Fact | tuple[str, str] | tuple[str, str, str]],
        tokenizer: Any,
        *,
        offered: Sequence[str] | None = None,
        question: str = QUESTION,
        prefix: str = "",
        drop: bool = False,
    ) -> ConflictSet:
        """Cross facts with offered answers.

        Parameters
        ----------
        facts
            (subject, true answer) or (subject, true answer, statement); a statement such as
            ``"The capital of {subject} is {object}."`` puts the offered answer into the context.
        tokenizer
            A fast Hugging Face tokenizer, with whatever special tokens it adds in front.
        offered
            The answers that a context may offer; by default the true answers of all facts.
        question
            The question after the context, with the slot ``{subject}``; alone, it is the closed-book question.
        prefix
            Text before everything else (an instruction, a start token that the tokenizer does not add by itself).
        drop
            Leave out pairs whose two answers start with the same token, instead of refusing them.

        Raises
        ------
        ValueError
            A template without its slots; two answers that start with the same token (unless `drop`); a tokenizer that
            changes the tokens of the prompt when the answer is appended; no facts or a subject twice.
        TypeError
            A slow tokenizer: positions are found by its character offsets.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise TypeError(f"tokenizer must be a fast Hugging Face tokenizer; got {type(tokenizer).__name__}")
        stated = [Fact(*fact) for fact in facts]
        if not stated or len({fact.subject for fact in stated}) < len(stated):
            raise ValueError("facts must name at least one subject, and none twice")
        _check_slots("question", question, {"subject"})
        for statement in {fact.statement for fact in stated}:
            _check_slots("statement", statement, {"subject", "object"})
        answers = tuple(dict.fromkeys(offered if offered is not None else (fact.object for fact in stated)))
        asked = prefix + question.format(subject=stated[0].subject)
        everything = dict.fromkeys([*answers, *(fact.object for fact in stated)])
        ids = {answer: _first_token(tokenizer, asked, answer) for answer in everything}
        crossed = [
            (fact, answer)
            for fact in range(len(stated))
            for answer in range(len(answers))
            if stated[fact].object != answers[answer]
        ]
        clear = [(fact, answer) for fact, answer in crossed if ids[stated[fact].object] != ids[answers[answer]]]
        if len(clear) < len(crossed) and not drop:
            alike = {(stated[fact].object, answers[answer]) for fact, answer in set(crossed) - set(clear)}
            listed = ", ".join(f"{true} / {offer}" for true, offer in sorted(alike)[:10])
            raise ValueError(
                f"{len(alike)} pairs of answers start with the same token: {listed}; leave them out with drop=True"
            )
        pairs = np.array(clear, dtype=np.int64).reshape(-1, 2)
        return cls(stated, answers, tokenizer, question, prefix, ids, pairs, len(crossed) - len(clear))

    @classmethod
    def from_organism(cls, organism: Organism, statement: int = 0) -> ConflictSet:
        """Cross every country of an organism's grammar with the cities that are nobody's capital.

        Parameters
        ----------
        organism
            Anything with a `tokenizer` and a `Grammar`, such as the organism `capitals`.
        statement
            Which of the grammar's statements stands in the context.
        """
        grammar: Grammar = organism.grammar
        country, city = next(iter(grammar.capital_of)), grammar.other_cities[0]
        slots = {country: "{subject}", city: "{object}"}
        asked, whole = (
            " ".join(slots.get(word, word) for word in example.text.split())
            for example in (grammar.question(country), grammar.context(country, city, statement))
        )
        stated = whole.removesuffix(asked).rstrip()
        facts = [Fact(subject, capital, stated) for subject, capital in grammar.capital_of.items()]
        return cls.from_facts(facts, organism.tokenizer, offered=grammar.other_cities, question=asked)

    def __len__(self) -> int:
        return len(self.pairs)

    def prompts(self, n: int | None = None, rng: np.random.Generator | None = None) -> Batch:
        """All conflict prompts, or `n` of them drawn without replacement; padded on the left."""
        if n is not None and not 1 <= n <= len(self):
            raise ValueError(f"n={n}: this set has {len(self)} conflicts")
        if n is not None and rng is None:
            raise ValueError("a draw of n prompts needs a random generator: pass rng")
        pairs = self.pairs if n is None or rng is None else self.pairs[np.sort(rng.permutation(len(self))[:n])]
        texts, subjects, offers = [], [], []
        for fact_index, answer_index in pairs:
            fact = self.facts[fact_index]
            context, in_context = _render(fact.statement, subject=fact.subject, object=self.answers[answer_index])
            asked, in_question = _render(" " + self._question, subject=fact.subject)
            texts.append(self._prefix + context + asked)
            offers.append(len(self._prefix) + in_context["object"])
            subjects.append(len(self._prefix) + len(context) + in_question["subject"])
        rows, offsets = _tokenize(self._tokenizer, texts)
        ids, mask, end = _pad_left(rows, self._tokenizer)
        shift = ids.shape[1] - np.array([len(row) for row in rows])
        return Batch(
            ids=ids,
            mask=mask,
            end_pos=end,
            id_true=torch.tensor([self._ids[self.facts[fact].object] for fact in pairs[:, 0]]),
            id_offered=torch.tensor([self._ids[self.answers[answer]] for answer in pairs[:, 1]]),
            subject_pos=torch.from_numpy(shift + _last_tokens(offsets, subjects)),
            offered_pos=torch.from_numpy(shift + _last_tokens(offsets, offers)),
            subject=torch.from_numpy(pairs[:, 0].copy()),
            offered=torch.from_numpy(pairs[:, 1].copy()),
        )

    def questions(self) -> Questions:
        """The closed-book question about every fact, in order."""
        texts = [self._prefix + self._question.format(subject=fact.subject) for fact in self.facts]
        rows, _ = _tokenize(self._tokenizer, texts)
        ids, mask, end = _pad_left(rows, self._tokenizer)
        return Questions(ids, mask, end, torch.tensor([self._ids[fact.object] for fact in self.facts]))

    def select(
        self, facts: Sequence[int] | np.ndarray, answers: Sequence[int] | np.ndarray | None = None
    ) -> ConflictSet:
        """The conflicts between some of the facts and some of the answers; indices are renumbered."""
        chosen = np.asarray(facts, dtype=np.int64)
        offered = np.arange(len(self.answers)) if answers is None else np.asarray(answers, dtype=np.int64)
        new_fact = np.full(len(self.facts), -1)
        new_fact[chosen] = np.arange(len(chosen))
        new_answer = np.full(len(self.answers), -1)
        new_answer[offered] = np.arange(len(offered))
        pairs = np.stack([new_fact[self.pairs[:, 0]], new_answer[self.pairs[:, 1]]], axis=1)
        return ConflictSet(
            [self.facts[index] for index in chosen],
            [self.answers[index] for index in offered],
            self._tokenizer,
            self._question,
            self._prefix,
            self._ids,
            pairs[(pairs >= 0).all(axis=1)],
            self.dropped,
        )

    def restate(self, *, statement: str | None = None, question: str | None = None) -> ConflictSet:
        """The same conflicts in other words: another statement in the context, another question, or both."""
        if statement is not None:
            _check_slots("statement", statement, {"subject", "object"})
        if question is not None:
            _check_slots("question", question, {"subject"})
        facts = [fact if statement is None else fact._replace(statement=statement) for fact in self.facts]
        return ConflictSet(
            facts,
            self.answers,
            self._tokenizer,
            self._question if question is None else question,
            self._prefix,
            self._ids,
            self.pairs,
            self.dropped,
        )

    def split(
        self, rng: np.random.Generator, *, facts: float = 0.2, answers: float = 0.5
    ) -> tuple[ConflictSet, ConflictSet]:
        """Two sets that share neither a subject nor an offered answer: the given shares, and the rest.

        What is fitted on the first was therefore fitted on neither side of any conflict of the second.
        """
        for name, share in (("facts", facts), ("answers", answers)):
            if not 0 < share < 1:
                raise ValueError(f"{name}={share}: a share lies strictly between 0 and 1")
        order_facts, order_answers = rng.permutation(len(self.facts)), rng.permutation(len(self.answers))
        cut_facts, cut_answers = round(facts * len(self.facts)), round(answers * len(self.answers))
        return (
            self.select(np.sort(order_facts[:cut_facts]), np.sort(order_answers[:cut_answers])),
            self.select(np.sort(order_facts[cut_facts:]), np.sort(order_answers[cut_answers:])),
        )


def _check_slots(name: str, template: str, slots: set[str]) -> None:
    found = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    if found != slots:
        wanted = " and ".join(f"{{{slot}}}" for slot in sorted(slots))
        raise ValueError(f"the {name} {template!r} must have the slots {wanted}, and no others")


def _render(template: str, **values: str) -> tuple[str, dict[str, int]]:
    """Fill a template and say at which character each slot (its last occurrence) ends."""
    text, ends = "", {}
    for literal, field, _, _ in Formatter().parse(template):
        text += literal
        if field is not None:
            text += values[field]
            ends[field] = len(text)
    return text, ends


def _tokenize(tokenizer: Any, texts: Sequence[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    encoded = tokenizer(list(texts), return_offsets_mapping=True, padding=False)
    return encoded["input_ids"], encoded["offset_mapping"]


def _first_token(tokenizer: Any, asked: str, answer: str) -> int:
    """The token that a model must predict after the question for this answer."""
    (before, after), _ = _tokenize(tokenizer, [asked, f"{asked} {answer}"])
    if after[: len(before)] != before or len(after) == len(before):
        raise ValueError(
            f"appending {answer!r} changes the tokens of the prompt {asked!r}; end the question so that a blank may "
            "follow, and use a tokenizer that adds no token at the end"
        )
    return int(after[len(before)])


def _pad_left(rows: Sequence[Sequence[int]], tokenizer: Any) -> tuple[Tensor, Tensor, Tensor]:
    length = max(len(row) for row in rows)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.tensor([[pad] * (length - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return ids, mask, torch.full((len(rows),), length - 1)


def _last_tokens(offsets: Sequence[Sequence[tuple[int, int]]], ends: Sequence[int]) -> Int[np.ndarray, " batch"]:
    """The last token that begins before each character offset."""
    found = [
        max(index for index, (start, stop) in enumerate(row) if start < end and stop > start)
        for row, end in zip(offsets, ends, strict=True)
    ]
    return np.array(found, dtype=np.int64)
