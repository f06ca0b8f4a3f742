"""A closed vocabulary in which every word is one token, and its Hugging Face tokenizer."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

__all__ = ["ClosedTokenizer", "Vocabulary"]

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<unk>")


class Vocabulary:
    """Words and their token ids: the special tokens `<pad> <bos> <eos> <unk>` first, then the words in the given order.

    Parameters
    ----------
    words
        Distinct words without white space.
    chat_template
        Jinja template with which the tokenizer renders a message, for organisms that are spoken to.
    """

    def __init__(self, words: Iterable[str], chat_template: str | None = None) -> None:
        self.chat_template = chat_template
        self.words: tuple[str, ...] = (*SPECIAL_TOKENS, *words)
        self.id_of: dict[str, int] = {word: index for index, word in enumerate(self.words)}
        if len(self.id_of) != len(self.words):
            raise ValueError("words must be distinct and must not contain the special tokens")
        self.pad_id, self.bos_id, self.eos_id, self.unk_id = range(len(SPECIAL_TOKENS))

    def __len__(self) -> int:
        return len(self.words)

    @property
    def sha256(self) -> str:
        """SHA-256 of the words in their order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    def encode(self, words: str | Sequence[str]) -> list[int]:
        """Token ids of a text (split at white space) or of a sequence of words; no special token is added.

        Raises
        ------
        ValueError
            A word is not in the vocabulary; the message names the nearest entries.
        """
        if isinstance(words, str):
            words = words.split()
        try:
            return [self.id_of[word] for word in words]
        except KeyError:
            word = next(word for word in words if word not in self.id_of)
            raise ValueError(self._unknown(word)) from None

    def decode(self, ids: Iterable[int]) -> str:
        """The words of the ids, joined by spaces."""
        return " ".join(self.words[index] for index in ids)

    def _unknown(self, word: str) -> str:
        nearest = difflib.get_close_matches(word, self.words, n=3, cutoff=0.5)
        if word.capitalize() in self.id_of:
            nearest = [word.capitalize(), *(other for other in nearest if other != word.capitalize())]
        hint = f"the nearest entries are {', '.join(nearest)}" if nearest else "nothing in it is near"
        return f"the word {word!r} is not in the vocabulary of {len(self)} words; {hint}"

    def tokenizer(self) -> ClosedTokenizer:
        """The Hugging Face tokenizer: `<bos>` in front, padding on the left, unknown words refused."""
        words = Tokenizer(models.WordLevel(self.id_of, unk_token="<unk>"))
        words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        words.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", self.bos_id)])
        tokenizer = ClosedTokenizer(
            tokenizer_object=words,
            pad_token="<pad>",
            bos_token="<bos>",
            eos_token="<eos>",
            unk_token="<unk>",
            padding_side="left",
            model_input_names=["input_ids", "attention_mask"],
            clean_up_tokenization_spaces=False,
        )
        tokenizer.closed_vocabulary = self
        tokenizer.chat_template = self.chat_template
        return tokenizer


class ClosedTokenizer(PreTrainedTokenizerFast):
    """A word tokenizer that raises ValueError for a word it does not know, instead of writing `<unk>`."""

    closed_vocabulary: Vocabulary

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        self._refuse_unknown_words(text)
        return super().__call__(text, *args, **kwargs)

    def encode(self, text: Any, *args: Any, **kwargs: Any) -> list[int]:
        self._refuse_unknown_words(text)
        return super().encode(text, *args, **kwargs)

    def tokenize(self, text: str, *args: Any, **kwargs: Any) -> list[str]:
        self._refuse_unknown_words(text)
        return super().tokenize(text, *args, **kwargs)

    def _refuse_unknown_words(self, text: Any) -> None:
        if isinstance(text, str):
            self.closed_vocabulary.encode(text)
        elif isinstance(text, Sequence):
            for part in text:
                self._refuse_unknown_words(part)
