"""Every word is one token, and a word that is not known is refused in every way in."""

import pytest

from interplay.assets.organisms.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(["the", "capital", "of", "France", "is", "Paris", "."])


def test_ids_follow_the_given_order_after_the_special_tokens(vocabulary: Vocabulary) -> None:
    assert vocabulary.words[:4] == ("<pad>", "<bos>", "<eos>", "<unk>")
    assert vocabulary.encode("the capital of France") == [4, 5, 6, 7]
    assert vocabulary.decode([4, 5, 6, 7]) == "the capital of France"
    with pytest.raises(ValueError, match="distinct"):
        Vocabulary(["twice", "twice"])


def test_the_tokenizer_agrees_and_pads_on_the_left(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer()
    assert tokenizer("the capital").input_ids == [1, 4, 5]
    batch = tokenizer(["the capital of France", "Paris"], return_tensors="pt", padding=True)
    assert batch.input_ids.tolist() == [[1, 4, 5, 6, 7], [0, 0, 0, 1, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1], [0, 0, 0, 1, 1]]
    assert tokenizer.decode([7, 8, 9], skip_special_tokens=True) == "France is Paris"


@pytest.mark.parametrize("way", ["__call__", "encode", "tokenize"])
def test_unknown_words_are_refused_with_the_nearest_entries(vocabulary: Vocabulary, way: str) -> None:
    tokenizer = vocabulary.tokenizer()
    with pytest.raises(ValueError, match=r"'france' is not in the vocabulary of 11 words; the nearest .* France"):
        getattr(tokenizer, way)("the capital of france")
    with pytest.raises(ValueError, match=r"'xyzzyq' is not in the vocabulary .* nothing in it is near"):
        vocabulary.encode(["xyzzyq"])


def test_unknown_words_in_a_batch_are_refused(vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="'Berlin' is not in the vocabulary"):
        vocabulary.tokenizer()(["the capital", "of Berlin"])
