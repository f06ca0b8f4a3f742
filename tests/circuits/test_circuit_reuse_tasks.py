"""The task generators, their roles and the batches that they make."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interplay.circuits.circuit_reuse import Batch, ColoredObjects, IndirectObject, Prompt, TaskPairs, path_patch
from interplay.circuits.circuit_reuse.paths import Receiver
from interplay.circuits.circuit_reuse.wording import (
    COLORS,
    GIFTS,
    NAMES,
    OPENINGS,
    PLACES,
    SENTENCES,
    SURFACES,
    THINGS,
)
from interplay.testing import check_same_seed
from tests.circuits.conftest import shaken, tiny_gpt2

WORDS = re.findall(r"\w+|[^\w\s]", " ".join([*SENTENCES, *OPENINGS, "Q: On the, a an and. What color is the?\nA:"]))
KNOWN = [*WORDS, *SURFACES, *THINGS, *COLORS, *(color.capitalize() for color in COLORS), *NAMES, *PLACES, *GIFTS]


def tokenizer_of(words: list[str]) -> PreTrainedTokenizerFast:
    """Words and punctuation marks are tokens, and what is not known is spelt by its letters."""
    letters = [*"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(["<pad>", "<unk>", *words, *letters]))}
    spelt = {letter: vocabulary[letter] for letter in letters}
    continuing = {f"##{letter}": len(vocabulary) + index for index, letter in enumerate(spelt)}
    tokenizer = Tokenizer(models.WordPiece({**vocabulary, **continuing}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\n"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


TOKENIZER = tokenizer_of(KNOWN)
SPACED = [False, True]


def words_at(batch: Batch, role: str, row: int) -> list[str]:
    return TOKENIZER.convert_ids_to_tokens(batch.ids[row, batch.roles[role][row]].tolist())


def test_the_sizes_are_those_of_the_paper() -> None:
    assert [len(set(words)) for words in (THINGS, COLORS, SURFACES, OPENINGS)] == [17, 8, 3, 3]
    assert [len(set(words)) for words in (SENTENCES, NAMES, PLACES, GIFTS)] == [15, 60, 20, 20]


@pytest.mark.parametrize("spaced", SPACED)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.sampled_from(["ABBA", "BABA", "mixed"]))
def test_indirect_objects(spaced: bool, seed: int, order: str) -> None:
    pairs = IndirectObject(TOKENIZER, order=order, spaced=spaced).pairs(12, np.random.default_rng(seed))
    clean, corrupt = pairs.clean, pairs.corrupt
    assert (len(pairs), pairs.source) == (12, "s2")
    turns = []
    for row in range(12):
        (io,), (s1,), (s2,) = (words_at(clean, role, row) for role in ("io", "s1", "s2"))
        assert io != s1 == s2
        assert TOKENIZER.convert_ids_to_tokens([clean.answer[row], clean.contrast[row]]) == [io, s2]
        assert words_at(corrupt, "s2", row) == [io]
        assert TOKENIZER.convert_ids_to_tokens([corrupt.answer[row], corrupt.contrast[row]]) == [s1, io]
        different = (clean.ids[row] != corrupt.ids[row]).nonzero()[:, 0]
        assert different.tolist() == clean.roles["s2"][row].tolist()
        assert words_at(clean, "end", row) == ["to"]
        turns.append("ABBA" if clean.roles["io"][row] < clean.roles["s1"][row] else "BABA")
    assert set(turns) == ({"ABBA", "BABA"} if order == "mixed" else {order})


@pytest.mark.parametrize("spaced", SPACED)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), shots=st.integers(0, 2))
def test_colored_objects(spaced: bool, seed: int, shots: int) -> None:
    pairs = ColoredObjects(TOKENIZER, shots=shots, spaced=spaced).pairs(12, np.random.default_rng(seed))
    clean, corrupt = pairs.clean, pairs.corrupt
    for row in range(12):
        objects, colors = (words_at(clean, role, row) for role in ("objects", "colors"))
        assert len(set(objects)) == len(set(colors)) == 3
        assert (clean.roles["objects"][row] - clean.roles["colors"][row]).tolist() == [1, 1, 1]
        (query,), (other,) = words_at(clean, "query", row), words_at(corrupt, "query", row)
        color_of = dict(zip(objects, colors, strict=True))
        right, wrong = words_at(clean, "right", row), words_at(clean, "wrong", row)
        assert right == [color_of[query]]
        assert sorted(right + wrong) == sorted(colors)
        answer, contrast = TOKENIZER.convert_ids_to_tokens([clean.answer[row], clean.contrast[row]])
        assert (answer, contrast) == (color_of[query].capitalize(), color_of[other].capitalize())
        assert [corrupt.answer[row], corrupt.contrast[row]] == [clean.contrast[row], clean.answer[row]]
        assert TOKENIZER.convert_ids_to_tokens(clean.options[row].tolist()) == [color.capitalize() for color in colors]
        different = (clean.ids[row] != corrupt.ids[row]).nonzero()[:, 0]
        assert different.tolist() == clean.roles["query"][row].tolist()
        assert words_at(clean, "end", row) == [":"]
        text = TOKENIZER.convert_ids_to_tokens(clean.ids[row].tolist())
        things = [word for word in text if word in THINGS]
        assert len(set(things)) == 3 * (shots + 1)
        assert sum(word.lower() in COLORS and word[0].isupper() for word in text) == shots


def test_spaced_text_is_the_same_text_with_its_words_apart() -> None:
    for task in (IndirectObject, ColoredObjects):
        plain, spaced = (
            task(TOKENIZER, spaced=apart).prompts(50, np.random.default_rng(0))[0] for apart in (False, True)
        )
        for one, two in zip(plain, spaced, strict=True):
            assert " ".join(re.findall(r"\w+|[^\w\s]", one.text)) == two.text
            for prompt in (one, two):
                for spans in prompt.roles.values():
                    assert all(re.fullmatch(r"\w+", prompt.text[start:stop]) for start, stop in spans)


def test_the_shown_example_and_the_articles() -> None:
    prompts, _ = ColoredObjects(TOKENIZER).prompts(300, np.random.default_rng(0))
    for prompt in prompts:
        shot, question = prompt.text.split("\nQ: ")
        assert re.fullmatch(r"Q: On the \w+, [\w ]+ an? .*\. What color is the \w+\?\nA: [A-Z]\w+", shot)
        solved, asked = re.search(r"is the (\w+)\?\nA: (\w+)", shot).groups()
        assert f"{asked.lower()} {solved}" in shot
        assert "a orange" not in prompt.text
        assert question.endswith("?\nA:")
    openings = Counter(re.search(r"\nQ: On the \w+, (\w+ \w+) a", prompt.text)[1] for prompt in prompts)
    assert set(openings) == set(OPENINGS)


def test_generators_are_seeded_and_do_not_repeat_themselves() -> None:
    for task in (IndirectObject(TOKENIZER), ColoredObjects(TOKENIZER)):
        check_same_seed(lambda seed, task=task: task.pairs(8, np.random.default_rng(seed)).clean.ids)
        texts = [prompt.text for prompt in task.prompts(400, np.random.default_rng(3))[0]]
        assert len(set(texts)) == 400


def test_own_words_and_sentences() -> None:
    task = IndirectObject(
        TOKENIZER, names=["Mary", "John"], sentences=["Then {first} and {second} met and {giver} gave to"]
    )
    prompts, _ = task.prompts(4, np.random.default_rng(0))
    assert {prompt.text for prompt in prompts} == {
        f"Then {first} and {second} met and {giver} gave to"
        for first, second in (("Mary", "John"), ("John", "Mary"))
        for giver in ("Mary", "John")
    }
    with pytest.raises(ValueError, match="gave only 4 different prompts"):
        task.prompts(5, np.random.default_rng(0))


def test_labelled_prompts_as_the_paper_stores_them() -> None:
    clean = [("is the cup?\nA:", " Blue"), ("is the jug?\nA:", " Red")]
    corrupt = [("is the pen?\nA:", " Red"), ("is the cup?\nA:", " Green")]
    pairs = TaskPairs.from_labelled(TOKENIZER, clean, corrupt)
    assert TOKENIZER.convert_ids_to_tokens(pairs.clean.contrast.tolist()) == ["Red", "Green"]
    assert TOKENIZER.convert_ids_to_tokens(pairs.corrupt.answer.tolist()) == ["Red", "Green"]
    assert pairs.source == "end"
    with pytest.raises(ValueError, match="clean has 2 prompts, corrupt 1"):
        TaskPairs.from_labelled(TOKENIZER, clean, corrupt[:1])


def test_batches_can_be_cut_and_put_together() -> None:
    pairs = IndirectObject(TOKENIZER).pairs(7, np.random.default_rng(0))
    for rows in (slice(2, 5), [2, 3, 4], np.array([2, 3, 4]), torch.tensor([2, 3, 4])):
        part = pairs[rows]
        assert torch.equal(part.clean.ids, pairs.clean.ids[2:5])
        assert torch.equal(part.corrupt.roles["s2"], pairs.corrupt.roles["s2"][2:5])
        assert torch.equal(part.clean.options, pairs.clean.options[2:5])
    assert [len(part) for part in pairs.clean.chunks(3)] == [3, 3, 1]
    assert pairs.clean.places(["io", "end"]).shape == (7, 2)
    assert torch.equal(pairs.clean.to("cpu").ids, pairs.clean.ids)


def test_left_padding_moves_the_roles() -> None:
    roles = {"what": [(4, 7)]}
    batch = Batch.from_prompts(
        TOKENIZER, [Prompt("the cup", "Red", "Blue", roles), Prompt("the pen is", "Red", "Blue", roles)]
    )
    assert batch.mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert batch.roles["what"].tolist() == [[2], [1]]
    assert batch.end.tolist() == [2, 2]
    assert TOKENIZER.convert_ids_to_tokens(batch.options[0].tolist()) == ["Red", "Blue"]


# Bad input


def test_answers_and_words_of_several_tokens_are_refused() -> None:
    unknown = [word for word in KNOWN if word != "Purple"]
    with pytest.raises(ValueError, match=r"the answer 'Purple' is 6 tokens long \(P ##u ##r ##p ##l ##e\)"):
        ColoredObjects(tokenizer_of(unknown)).pairs(50, np.random.default_rng(0))
    unknown = [word for word in KNOWN if word != "necklace"]
    with pytest.raises(ValueError, match="'necklace' is 8 tokens"):
        ColoredObjects(tokenizer_of(unknown)).pairs(50, np.random.default_rng(0))
    unknown = [word for word in KNOWN if word != "Mary"]
    with pytest.raises(ValueError, match="'Mary' is 4 tokens"):
        IndirectObject(tokenizer_of(unknown), names=["Mary", "John"]).pairs(2, np.random.default_rng(0))
    two = Prompt("the necklace is", "Red", "Blue", {"what": [(4, 12)]})
    assert Batch.from_prompts(tokenizer_of([word for word in KNOWN if word != "necklace"]), [two]).roles[
        "what"
    ].tolist() == [[8]]


def test_an_answer_that_melts_into_the_prompt_is_refused() -> None:
    class Greedy:
        is_fast = True
        pad_token_id = 0

        def __call__(self, text, **kwargs):
            rows = [[len(part)] for part in ([text] if isinstance(text, str) else text)]
            ids = rows[0] if isinstance(text, str) else rows
            return {"input_ids": ids, "offset_mapping": [[(0, len(part))] for part in text]}

    with pytest.raises(ValueError, match="changes the tokens of the prompt"):
        Batch.from_prompts(Greedy(), [Prompt("a", "b", "c")])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "AABB"}, "allowed are 'mixed', 'ABBA' and 'BABA'"),
        ({"names": ["Mary"]}, "names must be at least 2 different words"),
        ({"names": "Mary"}, "names must be"),
        ({"places": []}, "places must be"),
        ({"gifts": ["ring", "ring"]}, "gifts must be"),
        ({"sentences": ["{first} met {second}, {first} gave to"]}, "each of the slots"),
        ({"sentences": ["{first} {second} {giver} {color}"]}, "no unknown one"),
    ],
)
def test_malformed_indirect_objects(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IndirectObject(TOKENIZER, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": -1}, "shots must not be negative"),
        ({"things": THINGS[:5]}, "things must be at least 6 different words"),
        ({"colors": COLORS[:2]}, "colors must be at least 3"),
        ({"surfaces": []}, "surfaces must be"),
        ({"openings": []}, "openings must be"),
        ({"question": "What color is the {query}?"}, "each of the slots"),
    ],
)
def test_malformed_colored_objects(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColoredObjects(TOKENIZER, **arguments)


def test_malformed_batches() -> None:
    ids, mask, answer = torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.long), torch.tensor([1, 2])
    mask[0, 0] = 0
    for arguments, message in (
        ((ids[0], mask, answer, answer), r"ids and mask must be \[prompt, position\]"),
        ((ids, mask[:1], answer, answer), "ids and mask"),
        ((ids, mask, answer[:1], answer), r"answer has shape \[1\] for 2 prompts"),
        ((ids, mask, answer, answer, {"s": torch.tensor([0, 1])}), "role 's' of prompt 0 points at padding"),
        ((ids, mask, answer, answer, {"s": torch.tensor([1, 4])}), "role 's' of prompt 1 points at padding or outside"),
        ((ids, mask, answer, answer, {"s": torch.tensor([1])}), r"role 's' must be \[prompt\]"),
        ((ids, mask, answer, answer, {"end": torch.tensor([[1, 2], [1, 2]])}), "'end' must be one place"),
        ((ids, mask, answer, answer, {}, answer[:1, None]), "options has 1 rows for 2 prompts"),
    ):
        with pytest.raises(ValueError, match=message):
            Batch(*arguments)
    with pytest.raises(TypeError, match="must be a fast Hugging Face tokenizer; got object"):
        Batch.from_prompts(object(), [Prompt("a", "b", "c")])
    with pytest.raises(ValueError, match="prompts is empty"):
        Batch.from_prompts(TOKENIZER, [])
    with pytest.raises(ValueError, match=r"prompt 1 has roles \[\], prompt 0 has \['s'\]"):
        Batch.from_prompts(TOKENIZER, [Prompt("the", "Red", "Red", {"s": [(0, 3)]}), Prompt("the", "Red", "Red")])
    with pytest.raises(ValueError, match="no token holds ' '"):
        Batch.from_prompts(TOKENIZER, [Prompt("the cup", "Red", "Red", {"s": [(3, 4)]})])
    with pytest.raises(ValueError, match="n=0: ask for one pair or more"):
        IndirectObject(TOKENIZER).pairs(0, np.random.default_rng(0))


def test_twins_that_are_not_aligned_are_refused_by_the_first_bad_pair() -> None:
    def batch(rows: int = 3, length: int = 6, empty: tuple[int, ...] = (), **roles: list[int]) -> Batch:
        ids, mask, answer = torch.ones(rows, length).long(), torch.ones(rows, length).long(), torch.ones(rows).long()
        for row in empty:
            mask[row, 0] = 0
        return Batch(ids, mask, answer, answer + 1, {name: torch.tensor(places) for name, places in roles.items()})

    model = shaken(tiny_gpt2)
    for clean, corrupt, message in (
        (batch(3), batch(2), "clean has 3 prompts, corrupt 2: pair 2 has no twin"),
        (batch(), batch(empty=(1, 2)), "pair 1: clean has 6 tokens, corrupt 5"),
        (batch(length=7, empty=(0, 1, 2)), batch(), "pair 0: clean and corrupt are padded differently"),
        (batch(s=[1, 2, 3]), batch(), r"pair 0: clean has the roles \['end', 's'\]"),
        (batch(s=[1, 2, 3]), batch(s=[1, 2, 4]), r"pair 2: role 's' is at \[3\], in corrupt at \[4\]"),
        (batch(s=[1, 2, 3]), batch(s=[[1, 2]] * 3), "pair 0: role 's' has 1 places, in corrupt 2"),
    ):
        with pytest.raises(ValueError, match=message):
            TaskPairs(clean, corrupt)
        with pytest.raises(ValueError, match=message):
            path_patch(model, clean, corrupt, Receiver("logits"))
    with pytest.raises(ValueError, match="the roles of this batch are end"):
        TaskPairs(batch(), batch(), source="s2")
