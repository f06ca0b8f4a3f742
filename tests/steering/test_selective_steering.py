"""Selective and angular steering of tiny models: sites, fit, which blocks, angles against dense matrices by hand."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from interplay.primitives.activations import Site, record
from interplay.steering.selective_steering import (
    AngularSteering,
    DirectionAddition,
    DirectionalAblation,
    SelectiveSteering,
    SteeringPlane,
    norm_sites,
)
from tests.steering.conftest import SHAPE, language, prompts

GOOD, BAD = prompts("good"), prompts("bad", seed=1)
LLAMA_NORMS = [f"model.layers.{block}.{name}_layernorm" for block in range(4) for name in ("input", "post_attention")]


@pytest.fixture
def steering(llama) -> SelectiveSteering:
    return SelectiveSteering.fit(llama.model, llama.tokenizer, GOOD, BAD)


def batch(kind, texts=GOOD):
    return kind.tokenizer(list(texts), return_tensors="pt", padding=True)


def logits(kind):
    return kind.model(**batch(kind)).logits


@contextmanager
def by_hand(model: nn.Module, sites, change):
    """Change the outputs of modules with plain hooks."""
    with ExitStack() as stack:
        for site in sites:
            module = model.get_submodule(site)
            stack.enter_context(module.register_forward_hook(lambda module, inputs, output: change(output)))
        yield


def dense(plane: SteeringPlane, degrees: float) -> torch.Tensor:
    """The rotation as the d x d matrix that the paper writes down."""
    b1, b2 = plane.b1.double(), plane.b2.double()
    angle = torch.tensor(degrees).double().deg2rad()
    inside = torch.outer(b1, b1) + torch.outer(b2, b2)
    turned = angle.cos() * inside + angle.sin() * (torch.outer(b2, b1) - torch.outer(b1, b2))
    return (torch.eye(len(b1)) - inside + turned).float()


def test_sites_are_the_norms_of_the_blocks_and_no_others(llama):
    assert [site.path for site in norm_sites(llama.model)] == LLAMA_NORMS
    gemma = norm_sites(language("gemma").model)
    assert [site.path for site in gemma[:4]] == [
        f"model.layers.0.{name}_layernorm"
        for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")
    ]
    assert len(gemma) == 16
    qwen = Qwen3ForCausalLM(Qwen3Config(**SHAPE))
    assert any("q_norm" in name for name, _ in qwen.named_modules())
    assert [site.path for site in norm_sites(qwen)] == LLAMA_NORMS
    assert len(norm_sites(language("gpt2").model, ("LN_",))) == 8
    with pytest.raises(ValueError, match=r"block 0 of GPT2LMHeadModel has no norm.*ln_1, ln_2.*pass norms="):
        norm_sites(language("gpt2").model)
    with pytest.raises(ValueError, match="norms must be"):
        norm_sites(llama.model, "layernorm")


def keep_last(rows):
    return lambda module, inputs, output: rows.append(output[0, -1].detach())


def test_the_fit_reads_the_last_token_of_every_prompt(any_language):
    model, tokenizer = any_language
    norms = ("ln_",) if model.config.model_type == "gpt2" else ("layernorm",)
    steering = SelectiveSteering.fit(model, tokenizer, GOOD, BAD, norms=norms)
    classes = []
    for texts in (GOOD, BAD):
        seen = {site: [] for site in steering.plane.sites}
        for text in texts:
            with ExitStack() as stack:
                for site, rows in seen.items():
                    stack.enter_context(model.get_submodule(site).register_forward_hook(keep_last(rows)))
                model(**tokenizer(text, return_tensors="pt"))
        classes.append({site: torch.stack(rows) for site, rows in seen.items()})
    plane = SteeringPlane.fit(*classes)
    torch.testing.assert_close(steering.plane.b1, plane.b1, rtol=0, atol=1e-4)
    torch.testing.assert_close(steering.plane.b2, plane.b2, rtol=0, atol=1e-3)
    assert steering.plane.mask == plane.mask


@pytest.mark.parametrize("theta", [35.0, 180.0, -60.0])
def test_it_generates_what_dense_matrices_in_the_discriminative_blocks_generate(steering, llama, theta):
    matrix = dense(steering.plane, theta)
    steered = [site for site in LLAMA_NORMS if steering.plane.mask[site]]
    assert 0 < len(steered) < len(LLAMA_NORMS)
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with by_hand(llama.model, steered, lambda h: h @ matrix.T):
        expected = llama.model.generate(**batch(llama), **options)
        read = logits(llama)
    with steering.at(llama.model, theta) as applied:
        found = llama.model.generate(**batch(llama), **options)
    assert {site.path for site in applied} == set(steered)
    assert torch.equal(found.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-4)
    with steering.applied(llama.model, theta / 90):
        torch.testing.assert_close(logits(llama), read, rtol=1e-4, atol=1e-4)


def test_which_blocks(steering, llama):
    blocks = steering.plane.discriminative_blocks
    assert steering.steered_sites() == [site for site in LLAMA_NORMS if int(site.split(".")[2]) in blocks]
    assert steering.steered_sites("all") == LLAMA_NORMS
    assert steering.steered_sites([1]) == LLAMA_NORMS[2:4]
    plain = logits(llama)
    with steering.at(llama.model, 90.0, layers=[1]):
        assert not torch.allclose(logits(llama), plain)
    for layers in ([4], [1, 1], [], "some"):
        with pytest.raises(ValueError, match="layers must be"):
            steering.steered_sites(layers)
        with pytest.raises(ValueError, match="layers must be"):
            SelectiveSteering.fit(llama.model, llama.tokenizer, GOOD, BAD, layers=layers)


def test_angles(steering, llama):
    plain = logits(llama)
    for nothing in (0.0, 360.0, torch.zeros(len(GOOD))):
        with steering.at(llama.model, nothing):
            assert torch.equal(logits(llama), plain)
    with steering.at(llama.model, 0.0, mode="sas", layers="all"):
        assert not torch.allclose(logits(llama), plain)
    with steering.at(llama.model, 90.0):
        quarter = logits(llama)
    with steering.at(llama.model, 450.0):
        torch.testing.assert_close(logits(llama), quarter)
    thetas = torch.tensor([0.0, 30, 90, 180, 250, -40])
    for mode in ("ss", "sas", "aas"):
        with steering.at(llama.model, thetas, mode=mode):
            together = logits(llama)
        for row, theta in enumerate(thetas.tolist()):
            with steering.at(llama.model, theta, mode=mode):
                torch.testing.assert_close(together[row], logits(llama)[row], rtol=1e-4, atol=1e-4)


def test_positions(steering, llama):
    with steering.at(llama.model, 90.0, positions="generated") as applied:
        llama.model.generate(**batch(llama), max_new_tokens=4, do_sample=False)
    assert set(applied.values()) == {3 * len(GOOD)}


def test_a_sweep_is_one_generation_an_angle(steering, llama):
    thetas = [0.0, 90.0, 200.0]
    options = {"mode": "sas", "layers": "all", "positions": "generated"}
    table = steering.sweep(
        llama.model, llama.tokenizer, GOOD, thetas, lambda prompt, text: len(prompt + text),
        max_new_tokens=5, rows_per_batch=4, **options,
    )  # fmt: skip
    assert list(table["theta"]) == thetas * len(GOOD)
    for row in table.itertuples():
        inputs = llama.tokenizer([row.prompt], return_tensors="pt")
        with steering.at(llama.model, row.theta, **options):
            sequence = llama.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        assert row.text == llama.tokenizer.decode(sequence[0, inputs["input_ids"].shape[1] :])
        assert row.score == len(row.prompt + row.text)
    assert "score" not in steering.sweep(llama.model, llama.tokenizer, GOOD[:1], [0.0], max_new_tokens=1)


def test_the_other_methods_share_the_plane(steering, llama):
    """Strength 1 of each is its published operator."""
    plane, shape = steering.plane, steering.shape
    for adaptive, mode, target in ((False, "sas", 0.0), (True, "aas", 180.0)):
        angular = AngularSteering.on_plane(shape, plane, adaptive=adaptive)
        with angular.applied(llama.model):
            found = logits(llama)
        with steering.at(llama.model, target, mode=mode, layers="all"):
            assert torch.equal(logits(llama), found)
    b1 = plane.b1
    with DirectionalAblation.on_plane(shape, plane).applied(llama.model):
        found = logits(llama)
    with by_hand(llama.model, LLAMA_NORMS, lambda h: h - (h @ b1)[..., None] * b1):
        torch.testing.assert_close(logits(llama), found, rtol=1e-4, atol=1e-4)
    with DirectionAddition.on_plane(shape, plane, scale="none").applied(llama.model, -1.5):
        found = logits(llama)
    with by_hand(llama.model, LLAMA_NORMS, lambda h: h - 1.5 * b1):
        torch.testing.assert_close(logits(llama), found, rtol=1e-4, atol=1e-4)


def test_scaled_addition_counts_in_norms_of_the_site(steering, llama):
    first = Site("module", path=LLAMA_NORMS[0])
    with record(llama.model, [first]) as plain:
        logits(llama)
    addition = DirectionAddition.on_plane(steering.shape, steering.plane)
    with addition.applied(llama.model, 0.5), record(llama.model, [first]) as seen:
        logits(llama)
    moved = seen[first] - plain[first]
    torch.testing.assert_close(moved, (0.5 * steering.plane.norms[0] * steering.plane.b1).expand_as(moved))


def test_a_strength_is_an_angle_that_can_be_set(llama):
    steering = SelectiveSteering.fit(llama.model, llama.tokenizer, GOOD, BAD, degrees=30)
    with steering.applied(llama.model, 2.0):
        found = logits(llama)
    with steering.at(llama.model, 60.0):
        torch.testing.assert_close(logits(llama), found)


def test_the_report_and_what_happens_without_discriminative_blocks(steering, llama):
    report = steering.report()
    assert list(report.index) == LLAMA_NORMS
    assert dict(report["discriminative"]) == steering.plane.mask
    agreeing = ((report["m+"] * report["m-"]) < 0).groupby(report["block"]).all()
    assert dict(report["discriminative"].groupby(report["block"]).all()) == dict(agreeing)
    # A common offset much larger than the difference puts both classes on one side everywhere.
    offset = llama.model.model.layers[0].input_layernorm.weight.new_ones(24)
    handles = [
        llama.model.get_submodule(site).register_forward_hook(lambda module, inputs, output: output + 50 * offset)
        for site in LLAMA_NORMS
    ]
    with pytest.warns(UserWarning, match=r"(?s)no block is discriminative.*model.layers.3.post_attention_layernorm"):
        alike = SelectiveSteering.fit(llama.model, llama.tokenizer, GOOD, BAD)
    for handle in handles:
        handle.remove()
    for context in (alike.applied(llama.model), alike.at(llama.model, 90.0)):
        with pytest.raises(RuntimeError, match="no block is discriminative; choose layers='all'"):
            context.__enter__()
    with alike.at(llama.model, 90.0, layers="all"):
        logits(llama)


def test_bad_input_is_refused(steering, llama):
    for outer in (steering.at, steering.applied):
        for inner in (steering.at, steering.applied):
            with outer(llama.model, 10.0), pytest.raises(RuntimeError, match="already applied"):
                inner(llama.model, 20.0).__enter__()
    with pytest.raises(ValueError, match="theta must be"):
        steering.at(llama.model, float("nan")).__enter__()
    with steering.at(llama.model, torch.zeros(2)), pytest.raises(ValueError, match=r"2 angles.*6 rows"):
        logits(llama)
    with pytest.raises(ValueError, match="mode must be"):
        steering.at(llama.model, 1.0, mode="spin").__enter__()
    with pytest.raises(ValueError, match="fitted on llama"):
        steering.at(language("gpt2").model, 1.0).__enter__()
    with pytest.raises(ValueError, match="meta device"):
        steering.at(language().model.to("meta"), 1.0).__enter__()
    with pytest.raises(ValueError, match="degrees must be"):
        SelectiveSteering.on_plane(steering.shape, steering.plane, degrees=float("inf"))
    with pytest.raises(ValueError, match="target must be"):
        AngularSteering.on_plane(steering.shape, steering.plane, target=float("nan"))
    with pytest.raises(ValueError, match="scale must be"):
        DirectionAddition.on_plane(steering.shape, steering.plane, scale="big")
    with pytest.raises(ValueError, match="plane lies in 5 dimensions, the model has 24"):
        SelectiveSteering.on_plane(steering.shape, SteeringPlane(5, LLAMA_NORMS))
