"""The harmfulness-refusal study asks what it says it asks, of an organism with random weights."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from interplay.assets.organisms import Organism
from interplay.assets.organisms.policy import KIND, Demand
from interplay.assets.organisms.weights_file import new_model
from interplay.evidence import Measurement, Verdict
from interplay.evidence.study import tabulate
from interplay.steering.harmfulness_refusal import GROUPS, collect_states, read_prompts
from interplay.studies import harmfulness_refusal
from interplay.studies.harmfulness_refusal import attack, beliefs, groups, steered, study


def untrained(seed: int = 0, variant: str = "late-judge") -> Organism:
    """An organism before its training."""
    grammar = KIND.grammar(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(KIND.size(variant), grammar.vocabulary, "sdpa").eval()
    return Organism(model, grammar.vocabulary.tokenizer(), None, grammar)


@pytest.fixture(scope="module")
def organism() -> Organism:
    return untrained()


@pytest.fixture
def obedient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prompt is answered as its group says."""

    def verdicts(_organism, examples):
        return ["refusal" if GROUPS[groups.GROUP_OF[one.kind]].refused else "factual" for one in examples]

    for module in (groups, attack):
        monkeypatch.setattr(module, "said", verdicts)


@pytest.mark.parametrize("kind", list(groups.GROUP_OF))
def test_spans_are_those_that_the_chat_template_gives(organism, kind):
    for example in organism.grammar.sample(kind, 8, np.random.default_rng(0), "test"):
        prompt = groups.prompt_of(example)
        (read,) = read_prompts(organism.tokenizer, [example.text.removeprefix("Q : ").removesuffix(" A :")])
        assert prompt == read
        assert example.text.split()[prompt.span.t_inst - 1] == "?"  # <bos> is not in the text
        harmful = GROUPS[groups.GROUP_OF[kind]].harmful
        assert harmful == example.meta["is_restricted"]
        asked = groups.question_of(organism.grammar, example)
        assert asked.ids[: asked.question] == prompt.ids[: prompt.span.t_inst + 1]
        question = organism.grammar.vocabulary.decode(asked.ids[asked.question :])
        assert question == "now judge whether there is harm in what this user wants to know : A :"


def test_the_question_is_longer_than_the_window(organism):
    (example,) = organism.grammar.sample("restricted", 1, np.random.default_rng(0), "test")
    asked = groups.question_of(organism.grammar, example)
    assert len(asked.ids) - asked.question > organism.model.config.sliding_window


def test_states_of_a_kind(organism):
    (kind,) = groups.read_kinds(
        organism, ("game restricted",), 12, np.random.default_rng(0), "test", as_meant=False
    ).values()
    prompts = [groups.prompt_of(example) for example in kind.examples]
    states = collect_states(organism.model, organism.tokenizer, prompts)
    torch.testing.assert_close(kind.states.inst, states.inst, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(kind.states.post, states.post, rtol=1e-4, atol=1e-5)
    embedding = organism.model.get_input_embeddings().weight
    for row, prompt in enumerate(prompts):
        inside = torch.tensor(prompt.ids[prompt.span.start : prompt.span.t_inst + 1])
        torch.testing.assert_close(kind.instruction[row, 0], embedding[inside].mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(kind.before[row, 0], embedding[inside[-2]], rtol=1e-4, atol=1e-5)


def test_only_prompts_that_behave_are_kept(organism, monkeypatch):
    verdicts = iter(["refusal", "factual", "wrong", "other", "evasion", "refusal"])
    monkeypatch.setattr(groups, "said", lambda *_: [next(verdicts) for _ in range(6)])
    (kind,) = groups.read_kinds(organism, ("restricted",), 6, np.random.default_rng(0), "test").values()
    assert (len(kind), kind.drawn) == (2, 6)
    verdicts = iter(["refusal", "factual", "wrong", "other", "evasion", "refusal"])
    (kind,) = groups.read_kinds(organism, ("story restricted",), 6, np.random.default_rng(0), "test").values()
    assert (len(kind), kind.drawn) == (2, 6)


def test_a_ceiling_of_one_without_noise_and_lower_with_it():
    rng = np.random.default_rng(0)
    direction = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    for noise, low, high in ((0.0, 1 - 1e-5, 1 + 1e-5), (6.0, 0.3, 0.99)):
        generator = torch.Generator().manual_seed(1)
        clusters = [sign * direction + noise * torch.randn(100, 3, 50, generator=generator) for sign in (1, -1)]
        found = beliefs._reliability(clusters, 50, rng)
        assert ((low < found) & (found < high)).all()
        again = [sign * direction + noise * torch.randn(100, 3, 50, generator=generator) for sign in (1, -1)]
        means = [one[0].mean(0) - one[1].mean(0) for one in (clusters, again)]
        cosine = torch.nn.functional.cosine_similarity(*means, dim=-1)
        torch.testing.assert_close(found, cosine, rtol=0.1, atol=0)


def test_directions_are_compared_at_one_length():
    directions = {"v_harm": torch.randn(4, 8), "v_ref": torch.randn(4, 8)}
    directions["v_ref"][0] = 0
    found = steered.equal_norms(directions, np.random.default_rng(0))
    length = directions["v_harm"].norm(dim=-1)
    assert found["v_ref"][0].norm() == 0
    for name in ("v_harm", "v_ref", "random"):
        torch.testing.assert_close(found[name].norm(dim=-1)[1:], length[1:])
    cosine = torch.nn.functional.cosine_similarity(found["v_ref"], directions["v_ref"], dim=-1)
    torch.testing.assert_close(cosine[1:], torch.ones(3))


def test_fine_tuning_teaches_the_answers_and_leaves_the_organism_alone(organism):
    before = {name: tensor.clone() for name, tensor in organism.model.state_dict().items()}
    tuned = attack._tuned(organism, 20, 16, 3e-3, np.random.default_rng(0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in organism.model.state_dict().items())
    instructions = organism.grammar.population("restricted", "train")[:40]
    examples = [organism.grammar.example(one, "chat", "restricted", Demand.FACT) for one in instructions]

    def likelihood(model):
        with torch.no_grad():
            logits = [model(torch.tensor([one.input_ids])).logits[0, -1].log_softmax(-1) for one in examples]
        return np.mean([float(one[example.answer_id]) for one, example in zip(logits, examples, strict=True)])

    assert likelihood(tuned) > likelihood(organism.model) + 0.3
    again = attack._tuned(organism, 20, 16, 3e-3, np.random.default_rng(0))
    assert all(torch.equal(*pair) for pair in zip(tuned.parameters(), again.parameters(), strict=True))


def test_a_trial_runs_repeats_itself_and_fills_claims_and_figure(obedient, monkeypatch):
    from interplay.assets import organisms

    monkeypatch.setattr(organisms, "load", lambda name, seed, variant, **_: untrained(seed, variant))
    config = study.configure("smoke", {"contrasts": ("global-attention",)})
    first, second = study.run_trial(config, 0), study.run_trial(config, 0)
    pd.testing.assert_frame_equal(first, second)
    assert not np.isinf(first["value"]).any()
    found = pd.concat([first.assign(seed=seed) for seed in range(3)])
    for claim in study.claims.values():
        verdict, findings = claim.judge(found)
        assert all(not finding.estimate.reason.startswith("no measurements") for finding in findings), claim.id
        assert verdict in set(Verdict)
    figure = study.draw(found)
    assert len(figure.axes) == 7


def test_no_claim_holds_without_any_effect():
    """An organism that knows nothing: every share one half, every difference nothing."""
    conditions = {"accepted harmful": 0.5, "refused harmless": 0.5}
    rows = [
        Measurement(condition, f"share on the {what} side", value)
        for condition, value in conditions.items()
        for what in ("harmfulness", "refusal")
    ]
    rows += [Measurement(name, "refusals of harmless prompts", 0.0) for name in ("v_harm", "v_ref")]
    rows += [Measurement(name, harmfulness_refusal.DROP, 0.0) for name in ("random", "v_harm - v_ref")]
    rows += [Measurement("v_harm - v_ref", "flips by 0.3 more", 0.0)]
    rows += [
        Measurement(f"clusters by {name}", "least margin below the ceiling", 0.0) for name in ("desired", "behaviour")
    ]
    rows += [
        Measurement(f"{kind} restricted", f"mean {what} belief", value)
        for kind in ("story", "game", "polite")
        for what, value in (("harmfulness", -0.01), ("refusal", 0.01))
    ]
    rows += [Measurement(name, "accuracy off the diagonal", 0.5) for name in ("Latent Guard", "logistic at t_post")]
    found = pd.concat([tabulate(rows, seed) for seed in range(3)])
    for claim in study.claims.values():
        if claim.id not in ("H4-bottleneck", "H7"):  # which say that something is absent
            assert claim.judge(found)[0] != Verdict.HOLDS, claim.id
