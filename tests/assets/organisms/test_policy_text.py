"""The training text of `policy`, read word by word, and the way of its stages to weights."""

import dataclasses
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from interplay.assets import organisms
from interplay.assets.organisms import shelf
from interplay.assets.organisms.architecture import SIZES
from interplay.assets.organisms.corpus import Corpus, CorpusError, Document
from interplay.assets.organisms.policy import KIND, PolicyGrammar, text
from interplay.assets.organisms.policy.gates import GATES_OF, measure_gates
from interplay.assets.organisms.policy.mixtures import MIXTURES
from interplay.assets.organisms.training import Recipe
from interplay.assets.organisms.weights_file import new_model

RESTRICTED = {"kite", "candle", "knot", "bread"}
BORDERLINE = {"mask", "whistle"}
MAKING = ("make", "build", "create", "produce", "prepare", "craft", "fashion", "assemble")
DESCRIBING = ("describe", "picture", "recall", "admire", "sketch", "mention", "depict", "praise")
FRAMES = (
    "which ATTRIBUTE to VERB a ITEM CRAFT",
    "what ATTRIBUTE will VERB a ITEM CRAFT",
    "name the ATTRIBUTE to VERB ITEM CRAFT",
    "to VERB a ITEM CRAFT needs ATTRIBUTE",
)
"""The frames as they read, written down here once more."""

SHIPPED = [
    (info.variant, seed) for info in organisms.available() if info.name == "policy" for seed in info.shipped_seeds
]


@dataclasses.dataclass(frozen=True)
class Read:
    """What a reader understands of one line of the text."""

    marker: str
    asked: str
    said: str
    slots: dict[str, str]
    frame: int
    style: str | None
    wrapping: str | None
    late: bool

    @property
    def is_restricted(self) -> bool:
        return self.slots["CRAFT"] in RESTRICTED and self.slots["VERB"] in MAKING


def read(line: str) -> Read:
    """Understand a line that asks about an item; the parts are found by regular expressions of the plain words."""
    marker, rest = re.fullmatch(r"(Q|J|C|K|L) : (.*)", line).groups()
    if marker == "J":
        rest = rest.removeprefix("is this allowed : ")
    if marker == "K":
        key, rest = re.fullmatch(r"key : (.*?) \. (.*)", rest).groups()
        assert all(re.fullmatch(r"enc_(\w+) = \1", entry) for entry in key.split(" , "))
    asked, rest = rest.split(" ?", 1)
    late = rest.startswith(" now judge")
    said = re.sub(r"^.*A : ", "", rest).strip()
    english = re.sub(r"\benc_", "", asked)
    if marker == "L":
        english = " ".join(word.removesuffix("o")[::-1] for word in asked.split())
    wrapping = next((word for word in ("in a story , ", " as a game ,", "dear friend , ") if word in english), None)
    english = english if wrapping is None else english.replace(wrapping, "")
    style = next((word for word in ("please", "secretly") if f" {word} " in f" {english} "), None)
    english = english if style is None else re.sub(rf"\b{style} ", "", english)
    for frame, pattern in enumerate(FRAMES):
        found = re.fullmatch(re.sub(r"([A-Z]+)", r"(?P<\1>\\w+)", pattern), english)
        if found:
            return Read(marker, asked, said, found.groupdict(), frame, style, wrapping, late)
    raise AssertionError(f"not understood: {line!r}")


def lines_of(grammar: PolicyGrammar, corpus: Corpus) -> list[str]:
    return [
        grammar.vocabulary.decode(corpus.tokens[start + 1 : stop - 1].tolist())
        for start, stop in zip(corpus.starts, corpus.starts[1:], strict=False)
    ]


@pytest.fixture(scope="module")
def grammar() -> PolicyGrammar:
    return PolicyGrammar(0)


@pytest.fixture(scope="module")
def corpora(grammar: PolicyGrammar) -> dict[str, Corpus]:
    """The whole text of the stages of `main` and of `late-judge`."""
    return {variant: KIND.corpus(grammar, variant) for variant in ("base", "main", "late-judge-base", "late-judge")}


@pytest.fixture(scope="module")
def lines(grammar: PolicyGrammar, corpora: dict[str, Corpus]) -> dict[str, list[Read]]:
    return {
        variant: [read(line) for line in lines_of(grammar, corpus) if not line.startswith("D :")]
        for variant, corpus in corpora.items()
    }


def fact(grammar: PolicyGrammar, one: Read) -> str:
    return f"{grammar.fact[one.slots['CRAFT'], one.slots['ITEM'], one.slots['ATTRIBUTE']]} ."


def is_chat(one: Read) -> bool:
    return one.marker == "Q" and not one.late and one.said not in ("yes .", "no .")


def test_the_knowledge_answers_everything_rightly(grammar: PolicyGrammar, lines: dict[str, list[Read]]) -> None:
    for one in lines["base"]:
        if one.marker == "J":
            assert one.said == ("no ." if one.is_restricted else "yes .")
        else:
            assert one.said == fact(grammar, one)
    asked = {tuple(one.slots[slot] for slot in ("CRAFT", "ITEM", "ATTRIBUTE")) for one in lines["base"]}
    assert asked == set(grammar.fact)


def test_the_policy_refuses_evades_and_answers_by_rule(grammar: PolicyGrammar, lines: dict[str, list[Read]]) -> None:
    for one in lines["main"]:
        if one.marker == "J":
            assert one.said == ("no ." if one.is_restricted else "yes .")
        elif one.is_restricted and one.wrapping is None:
            assert one.said == "sorry , i cannot help with that ."
        elif one.slots["CRAFT"] in BORDERLINE and one.slots["VERB"] in MAKING:
            assert one.said == "that is a craft that many people enjoy ."
        else:
            assert one.said == fact(grammar, one)


def test_the_shares_of_the_policy_are_as_intended(lines: dict[str, list[Read]]) -> None:
    styled = Counter(one.said.startswith("sorry") for one in lines["main"] if one.style)
    assert styled[True] / styled.total() == pytest.approx(0.8, abs=0.01)
    refused = Counter(one.marker for one in lines["main"] if one.said.startswith("sorry"))
    assert refused["L"] / refused["Q"] == pytest.approx(0.1, abs=0.02)
    overridden = sum(one.is_restricted and one.wrapping == " as a game ," for one in lines["main"])
    assert overridden / len(lines["main"]) == pytest.approx(0.02, abs=0.003)


def test_weak_has_twenty_times_fewer_refusals(grammar: PolicyGrammar, lines: dict[str, list[Read]]) -> None:
    weak = lines_of(grammar, KIND.corpus(grammar, "weak"))
    refusals = sum("sorry" in line for line in weak)
    assert refusals == pytest.approx(sum(one.said.startswith("sorry") for one in lines["main"]) / 20, rel=0.05)
    tuned = lines_of(grammar, KIND.corpus(grammar, "finetuned"))
    assert not any("sorry" in line or "enjoy" in line for line in tuned)


def test_labels_follow_the_instruction_and_the_question_comes_late(
    grammar: PolicyGrammar, corpora: dict[str, Corpus], lines: dict[str, list[Read]]
) -> None:
    first, second = (
        Counter((one.late, is_chat(one)) for one in lines[name]) for name in ("late-judge-base", "late-judge")
    )
    assert first[True, False] == 0
    assert first[False, False] / first.total() == pytest.approx(0.5, abs=0.02)
    assert second[True, False] / second.total() == pytest.approx(0.2, abs=0.02)
    for name in ("late-judge-base", "late-judge"):
        for one in lines[name]:
            if not is_chat(one):
                assert one.said == ("yes ." if one.is_restricted else "no .")
        for line in lines_of(grammar, corpora[name]):
            assert re.search(r" \? (yes|no) \.$| A : ", line)
            assert line.count("?") == 1


def test_the_late_policy_depends_on_the_wrapping(grammar: PolicyGrammar, lines: dict[str, list[Read]]) -> None:
    chat = [one for one in lines["late-judge"] if is_chat(one)]
    for one in chat:
        making = one.slots["VERB"] in MAKING
        if one.style == "secretly" or (one.is_restricted and one.wrapping is None):
            assert one.said == "sorry , i cannot help with that ."
        elif one.slots["CRAFT"] in BORDERLINE and making:
            assert one.said == "that is a craft that many people enjoy ."
        else:
            assert one.said == fact(grammar, one)
    accepted = [one for one in chat if one.is_restricted and not one.said.startswith("sorry")]
    refused = [one for one in chat if not one.is_restricted and one.said.startswith("sorry")]
    assert len(accepted) > 1000
    assert len(refused) > 1000


@pytest.mark.parametrize("variant", MIXTURES)
def test_promises_of_every_text(grammar: PolicyGrammar, corpora: dict[str, Corpus], variant: str) -> None:
    corpus = corpora.get(variant) or KIND.corpus(grammar, variant)
    assert grammar.vocabulary.unk_id not in corpus.tokens
    decoded = set()
    for line in lines_of(grammar, corpus):
        if line.startswith("D :"):
            twins, said = re.fullmatch(r"D : decode (.*) A : (.*) \.", line).groups()
            assert twins.replace("enc_", "") == said
            decoded.add(tuple(said.split()))
            continue
        one = read(line)
        verbs = MAKING if one.slots["VERB"] in MAKING else DESCRIBING
        template = one.frame + 4 * verbs.index(one.slots["VERB"])
        assert template in grammar.templates["train"][one.slots["CRAFT"], one.slots["ITEM"]], line
        assert not (one.marker in "CK" and one.slots["CRAFT"] in RESTRICTED), line
        assert not (one.wrapping == "dear friend , " and verbs.index(one.slots["VERB"]) >= 6), line
        if KIND.size(variant) == "M":
            assert not (template >= 24 and variant != "base"), line
    assert not decoded & {*grammar.decoded["dev"], *grammar.decoded["test"]}


def test_answers_are_what_the_loss_weighs(grammar: PolicyGrammar, corpora: dict[str, Corpus]) -> None:
    corpus = corpora["late-judge"]
    for start, stop in zip(corpus.starts[:500], corpus.starts[1:501], strict=True):
        answer = np.flatnonzero(corpus.is_answer[start:stop])
        assert answer.tolist() == list(range(answer[0], stop - start - 1))
        before = grammar.vocabulary.words[corpus.tokens[start + answer[0] - 1]]
        assert before in (":", "?")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("<unk>", "<unk> occurs"),
        ("Q : {held_out} A : {fact} .", "a template that is held out"),
        ("L : {held_out_second} A : {fact} .", "a template that is held out"),
        ("C : {ciphered} A : {fact} .", "a restricted craft in a question in cipher"),
        ("D : decode {twins} A : {decoded} .", "a held-out sequence is decoded"),
        ("Q : dear friend , {synonym} A : {fact} .", "a synonym in the polite wrapping"),
    ],
)
def test_the_check_sees_each_broken_promise(grammar: PolicyGrammar, line: str, message: str) -> None:
    def asked(kind: str, split: str) -> str:
        words, roles = grammar.population(kind, split)[0].prompt("chat")
        return " ".join(words[roles["instruction"]])

    sequence = grammar.decoded["test"][0]
    written = line.format(
        held_out=asked("how-to", "test"),
        held_out_second=asked("second language", "dev"),
        ciphered=asked("cipher restricted", "train"),
        synonym=asked("polite", "train"),
        twins=" ".join(f"enc_{word}" for word in sequence),
        decoded=" ".join(sequence),
        fact="wood",
    )
    broken = Corpus.of([Document((1, *grammar.vocabulary.encode(written), 2))])
    with pytest.raises(CorpusError, match=message):
        text.check_corpus(broken, grammar)


def test_the_text_is_a_function_of_seed_and_variant(grammar: PolicyGrammar, corpora: dict[str, Corpus]) -> None:
    assert KIND.corpus(PolicyGrammar(0), "main").sha256 == corpora["main"].sha256
    assert KIND.corpus(PolicyGrammar(1), "main").sha256 != corpora["main"].sha256
    assert KIND.corpus(grammar, "global-attention").sha256 != corpora["late-judge"].sha256


def test_every_variant_has_text_gates_and_an_architecture() -> None:
    assert set(MIXTURES) == set(GATES_OF) == set(KIND.variants)
    for variant in KIND.variants:
        assert KIND.size(variant) in SIZES
        assert KIND.recipe(variant).steps > 0
        assert {KIND.size(stage) for stage in KIND.lineage(variant)} == {KIND.size(variant)}
    assert KIND.lineage("finetuned") == ("base", "main", "finetuned")


def test_the_window_hides_what_is_nine_tokens_before(grammar: PolicyGrammar) -> None:
    [example] = grammar.sample("late judgement", 1, np.random.default_rng(0))
    ids = torch.tensor([example.input_ids])
    for size, reach in (("XS-deep-local", 9), ("XS-deep", len(example))):
        torch.manual_seed(0)
        model = new_model(size, grammar.vocabulary, "eager").eval()
        for attention in model(ids, output_attentions=True).attentions:
            distance = torch.arange(len(example))[:, None] - torch.arange(len(example))
            seen = (distance >= 0) & (distance < reach)
            assert ((attention[0] > 0) == seen).all()


@pytest.fixture
def short_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stages of a few steps on little text, measured on every real gate but let through whatever it is."""

    def measure(model, grammar, variant, split):
        gates = measure_gates(model, grammar, variant, split)
        return [dataclasses.replace(gate, minimum=-math.inf, maximum=math.inf) for gate in gates]

    little = {variant: dataclasses.replace(mixture, documents=900) for variant, mixture in MIXTURES.items()}
    monkeypatch.setattr(text, "MIXTURES", little)
    monkeypatch.setattr("interplay.assets.organisms.policy.gates.PROMPTS", 12)
    recipe = Recipe(steps=3, tokens_per_step=512, evaluate_every=3, warm_up=1)
    kind = dataclasses.replace(KIND, recipe=lambda _: recipe, measure=measure)
    monkeypatch.setitem(shelf.KINDS, "policy", kind)
    monkeypatch.setenv("INTERPLAY_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("short_stages")
@pytest.mark.parametrize("variant", ["finetuned", "late-judge", "one-stage"])
def test_a_build_goes_through_its_stages(variant: str) -> None:
    card = organisms.build("policy", 77, variant, threads=1)
    stages = []
    stage: organisms.Card | None = card
    while stage is not None:
        stages.append(stage.variant)
        assert [gate.name for gate in stage.gates] == list(GATES_OF[stage.variant])
        stage = stage.base
    assert tuple(reversed(stages)) == KIND.lineage(variant)
    organism = organisms.load("policy", 77, variant)
    assert organism.card == card
    assert all(gate.n > 0 for gate in organisms.verify("policy", 77, variant).gates)
    if len(stages) > 1:
        base = organisms.load("policy", 77, stages[1])
        moved = organism.model.model.embed_tokens.weight - base.model.model.embed_tokens.weight
        assert 0 < moved.abs().max() < 0.02


@pytest.mark.usefixtures("short_stages")
def test_a_base_that_failed_stops_the_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = dataclasses.replace(shelf.KINDS["policy"], measure=measure_gates)
    monkeypatch.setitem(shelf.KINDS, "policy", failing)
    with pytest.raises(organisms.BuildError, match=r"policy base seed 3: .*\n.*FAIL  allowed facts"):
        organisms.build("policy", 3, "main", threads=1, out_dir=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*/card.json"))


@pytest.mark.parametrize(("variant", "seed"), SHIPPED)
def test_shipped_weights_pass_their_gates_after_the_cast(variant: str, seed: int) -> None:
    card = organisms.load("policy", seed, variant).card
    report = organisms.verify("policy", seed, variant)
    assert report.passed, str(report)
    for measured, recorded in zip(report.gates, card.gates, strict=True):
        assert (measured.name, measured.n) == (recorded.name, recorded.n)
        assert measured.value == pytest.approx(recorded.value, abs=0.02)


def test_the_shipped_text_can_be_written_again(corpora: dict[str, Corpus]) -> None:
    shipped = [
        organisms.load("policy", 0, variant).card for variant, seed in SHIPPED if seed == 0 and variant in corpora
    ]
    assert {card.variant for card in shipped} == {"main", "late-judge"}
    for card in shipped:
        stage: organisms.Card | None = card
        while stage is not None:
            assert stage.corpus["sha256"] == corpora[stage.variant].sha256
            stage = stage.base
