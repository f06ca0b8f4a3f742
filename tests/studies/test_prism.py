"""What only the study has: stacked students against PyTorch's GRU, thresholds against brute force, who learns what."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

from interplay.agents.prism import CostGate, UserWorld
from interplay.evidence import Verdict
from interplay.evidence.study import Measurement, tabulate
from interplay.primitives.randomness import generator_of
from interplay.studies.prism import study
from interplay.studies.prism.experiments import (
    SELECTIONS,
    Training,
    _selections,
    best_threshold,
    deliberation,
    draw_splits,
    train_on_labels,
)
from interplay.studies.prism.students import Students, judge, next_event_loss, train

GATE = CostGate(1.0, 2.0)
TRAINING = Training(3, 8, 8, 30, 32, 5e-3, 2)


def tokens_of(networks, batch, events, seed=0):
    generator = torch.Generator().manual_seed(seed)
    need = torch.randint(0, 8, (networks, batch, events), generator=generator)
    receptivity = torch.randint(0, 5, (networks, batch, events), generator=generator)
    return torch.stack([need, receptivity], dim=-1)


def torch_gru(students, network):
    """PyTorch's GRU with one network's weights; its gates stand in the same order: reset, update, new."""
    gru = nn.GRU(13, students.hidden, batch_first=True)
    gru.weight_ih_l0.data = students.inputs[network, :13].detach().T.clone()
    gru.weight_hh_l0.data = students.recurrent[network].detach().T.clone()
    gru.bias_ih_l0.data = students.input_bias[network, 0].detach().clone()
    gru.bias_hh_l0.data = students.recurrent_bias[network, 0].detach().clone()
    return gru


def test_every_student_is_a_gru_of_its_own():
    students, tokens = Students(3, 6, generator=generator_of(0)), tokens_of(3, 5, 4)
    (p_need, p_acc), upcoming = students(tokens)
    assert upcoming is None
    for network in range(3):
        shown = torch.cat(
            [functional.one_hot(tokens[network, ..., 0], 8), functional.one_hot(tokens[network, ..., 1], 5)], dim=-1
        ).float()
        state = torch_gru(students, network)(shown)[1][0]
        expected = torch.sigmoid(state @ students.head[network] + students.head_bias[network])
        assert torch.allclose(torch.stack([p_need[network], p_acc[network]], -1), expected, atol=1e-6)


def test_the_slow_pass_asks_what_follows_either_action():
    students, tokens = Students(2, 6, counterfactual=True, generator=generator_of(1)), tokens_of(2, 5, 4)
    (p_need, _), upcoming = students(tokens)
    assert upcoming.shape == (2, 2, 5, 13)
    network = 1
    gru = torch_gru(students, network)
    shown = torch.cat(
        [functional.one_hot(tokens[network, ..., 0], 8), functional.one_hot(tokens[network, ..., 1], 5)], dim=-1
    ).float()
    state = gru(shown)[1]
    entropies = []
    for action in range(2):
        cell = nn.GRU(1, 6, batch_first=True)
        cell.load_state_dict({**gru.state_dict(), "weight_ih_l0": students.inputs[network, 13 + action, :, None]})
        after = cell(torch.ones(5, 1, 1), state)[1][0]
        logits = after @ students.next_event[network]
        assert torch.allclose(upcoming[action, network], logits, atol=1e-6)
        needs, moods = logits[:, :8].softmax(-1), logits[:, 8:].softmax(-1)
        joint = (needs[:, :, None] * moods[:, None, :]).flatten(1)
        entropies.append(-(joint * joint.log()).sum(-1))
    silent, speak = entropies
    read = torch.cat([state[0], torch.stack([silent, speak, speak - silent], -1)], -1)
    expected = torch.sigmoid(read @ students.head[network] + students.head_bias[network])[:, 0]
    assert torch.allclose(p_need[network], expected, atol=1e-5)


def test_the_next_event_counts_after_the_action_taken():
    logits = torch.randn(2, 4, 13, generator=generator_of(2))
    spoke, following = torch.tensor([0, 1, 1, 0]), tokens_of(1, 4, 1)[0, :, 0]
    expected = 0.0
    for row in range(4):
        taken = logits[spoke[row], row]
        expected -= taken[:8].log_softmax(0)[following[row, 0]] + taken[8:].log_softmax(0)[following[row, 1]]
    assert next_event_loss(logits, spoke, following).item() == pytest.approx(expected.item() / 4, rel=1e-5)


def test_students_learn_from_their_own_tokens():
    """Two networks, opposite lessons about the same token."""
    tokens = tokens_of(1, 400, 2)[0]
    high = (tokens[:, -1, 0] >= 4).float()
    lessons = [high, 1 - high]
    students = Students(2, 8, generator=generator_of(3))

    def loss(network, rows, pair, upcoming):
        return sum(functional.binary_cross_entropy(p, lessons[network][rows]) for p in pair)

    train(students, [tokens] * 2, loss, steps=150, batch_size=64, lr=0.02, generator=generator_of(4))
    pairs = judge(students, [tokens] * 2, at_a_time=150)
    assert pairs.shape == (2, 400, 2)
    for lesson, pair in zip(lessons, pairs, strict=True):
        assert ((pair > 0.5) == lesson.bool().numpy()[:, None]).mean() > 0.98


@pytest.mark.parametrize("seed", range(4))
def test_the_tuned_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 12, 60) / 12  # with ties
    need, accept = rng.random(60) < 0.6, rng.random(60) < score

    def cost(threshold):
        return GATE.realised_cost(score >= threshold, need, accept).sum()

    ours = best_threshold(score, need, accept, GATE)
    assert cost(ours) == min(cost(threshold) for threshold in [*np.unique(score), np.inf])


def test_splits_differ_and_labels_belong_to_the_last_of_twelve_events():
    splits = draw_splits(0, "coupled", GATE, (4000, 3000, 4000))
    assert splits["train"].tokens.shape == (4000, 12, 2)
    assert not torch.equal(splits["train"].tokens, splits["test"].tokens)
    test = splits["test"]
    for p, y in zip(test.exact.T, (test.y_need, test.y_accept), strict=True):
        assert np.corrcoef(p, y)[0, 1] > 0.45
        assert abs(p.mean() - y.mean()) < 0.03
    assert (test.propensity >= 0.1).all()
    assert (test.propensity <= 0.9).all()
    assert test.y_accept[test.spoke].mean() > test.y_accept.mean() + 0.1, "the logger prefers those who accept"
    control = draw_splits(0, "control", GATE, (100, 100, 4000))["test"]
    assert torch.equal(control.tokens, test.tokens), "the control world shows itself alike"
    assert (control.y_need == control.y_accept).all()


def test_selections_have_one_size_and_the_published_one_has_one_class():
    lesson = draw_splits(1, "coupled", GATE, (3000, 100, 100))["train"]
    chosen = _selections(1, lesson.teacher, lesson, 0.27)
    assert tuple(chosen) == SELECTIONS
    assert [len(rows) for rows in chosen.values()] == [3000, 810, 810, 810, 810]
    assert lesson.y_accept[chosen["published ranking"]].mean() == 1
    assert lesson.y_accept[chosen["bottom"]].mean() < 0.1
    stratified = lesson.y_accept[chosen["stratified ranking"]].mean()
    assert stratified == pytest.approx(lesson.y_accept.mean(), abs=0.002)


def test_routing_spends_the_same_at_random_as_near_the_margin():
    worlds = {"coupled": draw_splits(2, "coupled", GATE, (500, 300, 800))}
    fast, slow = (train_on_labels(2, worlds, GATE, TRAINING, slow=kind)["coupled"] for kind in (False, True))
    assert len(fast) == len(slow) == 2
    test = worlds["coupled"]["test"]
    table = tabulate(deliberation(2, fast, slow, test, GATE, (0.0, 0.1, 1.0), 0.1, 3), 2)
    cost = table[table["metric"] == "cost per event by delta"].groupby(["condition", "x"])["value"].mean()
    ends = table[table["metric"] == "cost per event"].groupby("condition")["value"].mean()
    for routing in ("near the margin", "random routing"):
        assert cost[routing, 0.0] == pytest.approx(ends["fast only"])
        assert cost[routing, 1.0] == pytest.approx(ends["slow only"])
    rate = table[table["metric"] == "slow-call rate"].set_index("x")["value"]
    assert rate[0.0] == 0
    assert 0 < rate[0.1] < rate[1.0] == 1
    gain = table[table["metric"] == "share of the slow gain"]["value"].iloc[0]
    by_hand = (ends["fast only"] - ends["near the margin"]) / (ends["fast only"] - ends["slow only"])
    assert gain == pytest.approx(by_hand)


def test_exact_probabilities_are_the_worlds():
    split = draw_splits(3, "independent", GATE, (50, 50, 50))["train"]
    world = UserWorld.draw("independent", generator=np.random.default_rng(np.random.SeedSequence(3, spawn_key=(0,))))
    assert np.array_equal(split.exact, np.stack(world.judge(split.tokens.numpy()), axis=1))


def verdict_of(claim, values):
    """The verdict if every seed measured `values` by (condition, metric), a little blurred."""
    rows = []
    for seed in range(5):
        blur = 1e-4 * (seed - 2)
        measured = [
            Measurement(condition, metric, value + blur * (condition != "dual"))
            for (condition, metric), value in values.items()
        ]
        rows.append(tabulate(measured, seed))
    return study.claims[claim].judge(pd.concat(rows, ignore_index=True))[0]


def test_claims_can_be_refuted():
    alarms = {"acceptance only": 0.6, "need only": 0.4, "dual": 0.3}
    rows = {(name, "false alarm"): alarm for name, alarm in alarms.items()}
    rows |= {(name, "F1"): 1 - alarm for name, alarm in alarms.items()}
    assert verdict_of("both-signals", rows) is Verdict.HOLDS
    assert verdict_of("both-signals", {**rows, ("need only", "false alarm"): 0.7}) is Verdict.FAILS
    metric = "rank correlation of cost ratio and speak rate"
    table = pd.concat([tabulate([Measurement("dual", metric, 1.0)], seed) for seed in range(3)])
    assert study.claims["knobs"].judge(table)[0] is Verdict.HOLDS
    table.loc[table["seed"] == 1, "value"] = 0.999
    assert study.claims["knobs"].judge(table)[0] is not Verdict.HOLDS
