"""Local models only, no pickles; Gemma arrives whole and knows its capitals."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from interplay import assets
from interplay.assets import language_models


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>").save_pretrained(folder)
    return folder


def test_a_local_folder_loads_in_evaluation_mode(tiny_folder: Path) -> None:
    loaded = assets.load_language_model(tiny_folder, dtype=torch.bfloat16, attn_implementation="eager")
    assert not loaded.model.training
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.model.config._attn_implementation == "eager"
    assert loaded.tokenizer("a b a").input_ids == [2, 3, 2]


def test_the_users_progress_bars_come_back(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    assert logging.is_progress_bar_enabled()
    assets.load_language_model(tiny_folder)
    assert logging.is_progress_bar_enabled()
    assert capfd.readouterr().err == ""


def test_pickles_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"neither \.safetensors nor \.gguf.*pickled weights .* are not read"):
        assets.load_language_model(tmp_path)
    with pytest.raises(ValueError, match=r"is a file; allowed are a folder or a \.gguf"):
        assets.load_language_model(tmp_path / "pytorch_model.bin")


def test_remote_code_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    for file in tiny_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = {"model_type": "crafted", "auto_map": {"AutoModelForCausalLM": "crafted.Model", "AutoConfig": "crafted.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "crafted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    with pytest.raises(ValueError, match="custom code"):
        assets.load_language_model(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_missing_paths_and_ambiguous_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; models are read from the local disk only"):
        assets.load_language_model(tmp_path / "nowhere")
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ValueError, match=r"holds 2 \.gguf files; name the one"):
        assets.load_language_model(tmp_path)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(language_models, "_GEMMA_PACKAGE", "no_such_gemma")
    with pytest.raises(assets.MissingExtraError, match=r"no_such_gemma_part1 is missing.*interplay\[llm\]"):
        language_models._assemble_gemma(tmp_path / "joined.gguf")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(assets.MissingExtraError, match=r"interplay\[llm\]"):
        assets.load_language_model(tmp_path)


def test_parts_with_another_checksum_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(language_models, "_GEMMA_SHA256", "0" * 64)
    with pytest.raises(RuntimeError, match=r"join to SHA-256 .* expected 000"):
        language_models._assemble_gemma(tmp_path / "joined.gguf")


def test_gemma_knows_its_capitals_and_loads_fast_again() -> None:
    """The first run on a machine converts the weights into the cache, which takes about a minute."""
    assets.gemma_3_270m()
    start = time.perf_counter()
    model, tokenizer = assets.gemma_3_270m(attn_implementation="eager")
    assert time.perf_counter() - start < 10
    assert sum(parameter.numel() for parameter in model.parameters()) == 268_098_176
    assert not hasattr(model.config, "quantization_config")

    def next_token_logits(text: str) -> torch.Tensor:
        prompt = tokenizer(text, return_tensors="pt")
        assert prompt.input_ids[0, 0] == tokenizer.bos_token_id
        with torch.inference_mode():
            return model(**prompt).logits[0, -1]

    assert tokenizer.decode(next_token_logits("Paris is the capital of").argmax()) == " France"
    # A base model may go on with " the" or " a": what it knows shows in which city it prefers.
    capitals = {"France": " Paris", "Germany": " Berlin", "Japan": " Tokyo", "Italy": " Rome", "Russia": " Moscow"}
    ids = [tokenizer(city, add_special_tokens=False).input_ids[0] for city in capitals.values()]
    for rank, country in enumerate(capitals):
        assert next_token_logits(f"The capital of {country} is")[ids].argmax() == rank
