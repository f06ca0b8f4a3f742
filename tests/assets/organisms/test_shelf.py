"""Organisms are found by name, checked before use, and refused with a way out."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from interplay.assets import organisms
from interplay.assets.organisms import shelf
from interplay.assets.organisms.capitals import KIND
from interplay.assets.organisms.card import Card
from interplay.assets.organisms.gates import Gate
from interplay.assets.organisms.training import Recipe

SHIPPED = Path(shelf.__file__).parent / "weights"


@pytest.fixture(scope="module")
def capitals() -> organisms.Organism:
    return organisms.load("capitals")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the shipped seed 0 that may be damaged."""
    return Path(shutil.copytree(SHIPPED / "capitals" / "main-seed0", tmp_path / "main-seed0"))


def test_available_lists_what_is_shipped() -> None:
    found = {(info.name, info.variant): info for info in organisms.available()}
    assert 0 in found["capitals", "main"].shipped_seeds
    for info in found.values():
        for seed in info.shipped_seeds:
            assert organisms.load(info.name, seed, info.variant).card.seed == seed


def test_shipped_weights_are_small_and_half_precision() -> None:
    from safetensors import safe_open

    for path in SHIPPED.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 30e6


def test_the_shipped_organism_passes_its_gates_again(capitals: organisms.Organism) -> None:
    report = organisms.verify("capitals")
    assert report.passed, str(report)
    for measured, recorded in zip(report.gates, capitals.card.gates, strict=True):
        assert (measured.name, measured.n) == (recorded.name, recorded.n)
        assert measured.value == pytest.approx(recorded.value, abs=0.02)


def test_the_organism_answers_through_the_hugging_face_interface(capitals: organisms.Organism) -> None:
    grammar = capitals.grammar
    country = max(grammar.f_country, key=grammar.f_country.get)
    prompt = capitals.tokenizer(f"Q : what is the capital of {country} ? A :", return_tensors="pt")
    said = capitals.model.generate(**prompt, max_new_tokens=2, do_sample=False)
    assert capitals.tokenizer.decode(said[0, -2:]) == f"{grammar.capital_of[country]} ."
    assert tuple(prompt.input_ids[0].tolist()) == grammar.question(country).input_ids


def test_the_model_has_attention_weights_only_when_eager(capitals: organisms.Organism) -> None:
    ids = torch.tensor([capitals.grammar.question("France").input_ids])
    attentions = capitals.model(ids, output_attentions=True).attentions
    assert len(attentions) == 4
    assert attentions[0].shape == (1, 6, ids.shape[1], ids.shape[1])
    fused = organisms.load("capitals", attn_implementation="sdpa").model
    torch.testing.assert_close(fused(ids).logits, capitals.model(ids).logits, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="needs attn_implementation='eager'"):
        fused(ids, output_attentions=True)


def test_loading_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    organisms.load("capitals")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_dtype_is_kept() -> None:
    model = organisms.load("capitals", dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training


def test_a_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['transformers'] = None\n"
        "from interplay import assets\n"
        "try:\n"
        "    assets.organisms\n"
        "except assets.MissingExtraError as error:\n"
        "    assert 'interplay[llm]' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(KeyError, match="unknown organism 'capital'; available are capitals"):
        organisms.load("capital")
    with pytest.raises(KeyError, match="no variant 'heavy'; available are main, ctx-heavy, ctx-light"):
        organisms.load("capitals", variant="heavy")
    with pytest.raises(KeyError, match=r"neither a folder with card\.json nor one of capitals"):
        organisms.verify("nowhere")


def test_a_seed_that_is_not_shipped_names_the_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERPLAY_CACHE", str(tmp_path))
    command = r"interplay organisms build capitals --seed 99 --variant main` \(about \d+ minutes"
    with pytest.raises(organisms.NotBuiltError, match=command):
        organisms.load("capitals", seed=99)


def test_weights_that_are_not_those_of_the_card_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    with pytest.raises(RuntimeError, match=r"SHA-256 of .* is not the one on its card; .* rebuild"):
        organisms.verify(copy)
    monkeypatch.setattr(shelf, "find_folder", lambda *_: copy)
    with pytest.raises(RuntimeError, match="SHA-256"):
        organisms.load("capitals")


def test_a_card_with_a_failed_gate_or_another_vocabulary_is_refused(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "find_folder", lambda *_: copy)
    card = Card.read(copy / "card.json")
    replace(card, gates=(replace(card.gates[0], value=0.1), *card.gates[1:])).write(copy / "card.json")
    with pytest.raises(RuntimeError, match=r"shows a failed gate:\n(.|\n)*FAIL  closed-book"):
        organisms.load("capitals")
    replace(card, corpus={**card.corpus, "vocabulary_sha256": "0"}).write(copy / "card.json")
    with pytest.raises(RuntimeError, match="trained with another vocabulary"):
        organisms.load("capitals")


def test_a_card_survives_its_file(capitals: organisms.Organism, tmp_path: Path) -> None:
    capitals.card.write(tmp_path / "card.json")
    assert Card.read(tmp_path / "card.json") == capitals.card
    assert "does not show that a larger model" in capitals.card.claim


def test_the_shipped_text_can_be_written_again(capitals: organisms.Organism) -> None:
    corpus = KIND.corpus(KIND.grammar(0), "main")
    assert corpus.sha256 == capitals.card.corpus["sha256"]


def shortened(monkeypatch: pytest.MonkeyPatch, *, gate: float) -> None:
    """`capitals` with six steps and one gate, so that the way of a build can be walked."""
    kind = replace(
        KIND,
        recipe=lambda variant: Recipe(steps=6, tokens_per_step=256, evaluate_every=3, warm_up=2),
        measure=lambda model, grammar, variant, split: [Gate("made up", gate, 10, 0.0, 1.0, 0.5, 1.0)],
    )
    monkeypatch.setitem(shelf.KINDS, "capitals", kind)


def test_a_build_is_found_in_the_cache_and_repeats_bit_for_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shortened(monkeypatch, gate=1.0)
    monkeypatch.setenv("INTERPLAY_CACHE", str(tmp_path / "cache"))
    steps = []
    card = organisms.build("capitals", seed=77, threads=1, progress=lambda state: steps.append(state.step))
    assert steps == [1, 2, 3, 4, 5, 6]
    assert organisms.build("capitals", seed=77, threads=1, progress=lambda state: steps.append(state.step)) == card
    assert len(steps) == 6
    loaded = organisms.load("capitals", seed=77)
    assert loaded.card == card
    [info] = [info for info in organisms.available() if (info.name, info.variant) == ("capitals", "main")]
    assert info.built_seeds == (77,)
    elsewhere = organisms.build("capitals", seed=77, threads=1, out_dir=tmp_path / "again")
    assert elsewhere.weights_sha256 == card.weights_sha256
    assert sorted(file.name for file in (tmp_path / "again" / "main-seed77").iterdir()) == [
        "card.json",
        "model.safetensors",
    ]


def test_a_failed_gate_fails_the_build_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shortened(monkeypatch, gate=0.25)
    with pytest.raises(organisms.BuildError, match=r"capitals main seed 3: .*\n.*FAIL  made up: 0\.250"):
        organisms.build("capitals", seed=3, threads=1, out_dir=tmp_path)
    assert not (tmp_path / "main-seed3").exists()


def test_log_probabilities_do_not_depend_on_the_batch(capitals: organisms.Organism) -> None:
    rng = np.random.default_rng(0)
    mixed = [capitals.grammar.sample(kind, 3, rng)[i] for kind in capitals.grammar.kinds for i in range(3)]
    together = organisms.next_token_log_probabilities(capitals.model, mixed)
    alone = torch.cat([organisms.next_token_log_probabilities(capitals.model, [example]) for example in mixed])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(len(mixed)))
