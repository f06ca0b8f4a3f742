"""What only the study has: the synthetic task and its ideal observer, starts that are shared, routing, cost."""

import math

import numpy as np
import pytest
import torch

from interplay.evidence.study import tabulate
from interplay.primitives.randomness import generator_of
from interplay.studies.audio_visual import accuracy
from interplay.studies.mcr.experiments import Methods, operations, routing
from interplay.studies.mcr.synthetic import CLASSES, EMBEDDING_NORM, UniqueAndShared, perceptron_pair


def test_samples_are_informative_where_their_kind_says():
    task = UniqueAndShared.draw((0.2, 0.3), generator_of(0))
    assert task.embeddings.norm(dim=-1).numpy() == pytest.approx(np.full((2, CLASSES), EMBEDDING_NORM), rel=1e-5)
    samples, hidden = task.sample(20_000, generator_of(1))
    torch.testing.assert_close(samples.inputs["second"], hidden[1] @ task.transforms[1])
    # The projection on the class's own direction has mean 2.2 times the share of informative samples.
    for modality, share in ((0, 0.7), (1, 0.8)):
        own = task.embeddings[modality][samples.labels] / EMBEDDING_NORM
        assert (hidden[modality] * own).sum(1).mean().item() == pytest.approx(share * EMBEDDING_NORM, abs=0.05)


def test_the_ideal_observer_is_bayes_rule_over_kinds_and_classes():
    task = UniqueAndShared.draw((0.2, 0.3), generator_of(2))
    _, hidden = task.sample(6, generator_of(3))
    found = task.ideal(hidden).double().softmax(1)
    for index in range(6):
        h = hidden[:, index].double().numpy()
        joint = np.zeros(CLASSES)
        for label in range(CLASSES):
            for chance, informative in ((0.2, (1, 0)), (0.3, (0, 1)), (0.5, (1, 1))):
                means = [on * task.embeddings[m, label].double().numpy() for m, on in enumerate(informative)]
                joint[label] += chance * math.exp(-sum(((h[m] - means[m]) ** 2).sum() for m in (0, 1)) / 2)
        np.testing.assert_allclose(found[index].numpy(), joint / joint.sum(), rtol=1e-4)


def test_no_observer_of_another_task_does_better_than_the_ideal_one():
    task = UniqueAndShared.draw((0.7, 0.1), generator_of(4))
    samples, hidden = task.sample(20_000, generator_of(5))
    best = accuracy(task.ideal(hidden), samples.labels)
    for wrong in ((0.1, 0.1), (0.1, 0.7), (0.0, 0.0)):
        assert accuracy(task._replace(unique=wrong).ideal(hidden), samples.labels) < best


def test_methods_start_from_the_same_stream_of_pairs_and_differ():
    net = perceptron_pair(generator_of(6))
    task = UniqueAndShared.draw((0.4, 0.1), generator_of(7))
    samples, _ = task.sample(64, generator_of(8))
    made = Methods(0, 4).common()
    again = Methods(0, 4).common()
    losses = {name: maker(net).loss(*samples).item() for name, maker in made.items()}
    assert losses == {name: maker(net).loss(*samples).item() for name, maker in again.items()}
    gradients = {}
    for name in ("multi-loss", "MCR, weight 1", "MCR, weight 0.1", "MCR, reference regime"):
        net.zero_grad()
        made[name](net).loss(*samples).backward()
        gradients[name] = net.encoders["first"][0].weight.grad.clone()
    names = list(gradients)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not torch.allclose(gradients[one], gradients[other], rtol=1e-3)


def test_routing_splits_accuracy_by_the_number_of_models_that_are_right():
    labels = torch.zeros(8, dtype=torch.long)
    right = {"audio": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), "visual": torch.tensor([0, 0, 1, 1, 0, 1, 1, 1])}
    joined = torch.tensor([0, 1, 0, 1, 0, 0, 1, 1])
    table = tabulate(routing("any", right, joined, labels), 0).set_index("metric")["value"]
    assert table.tolist() == pytest.approx([1 / 2, 2 / 3, 1 / 3])
    nobody = tabulate(routing("any", dict.fromkeys(right, labels), joined, labels), 0)["value"]
    assert nobody.isna().tolist() == [False, True, True]


def test_operations_are_those_of_the_products():
    samples, permutations = 20, 2
    counted = tabulate(operations(0, samples, permutations), 0).set_index("condition")["value"]
    # A weight costs two operations a sample forward, two for its own gradient and two for that of its input; inputs of
    # the first layers and of convolutions want none.
    dense = 784 * 128 * 4 + (128 * 64 + 125 * 64) * 6
    convolution = 19 * 25 * 5 * 4 + (10 + 5) * 25 * 25 * 3 * 6
    heads = 2 * (64 * 10 * 6) * 2
    assert counted["multi-loss"] == samples * (dense + convolution + heads)
    # The linear head's parts once more, in two products a modality: for the encoders, and for the weights.
    assert counted["MCR"] - counted["multi-loss"] == samples * 2 * 64 * 10 * (4 + 4)
    assert counted["MCR on permuted inputs"] > (1 + permutations / 2) * counted["multi-loss"]
