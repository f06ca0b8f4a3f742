"""ITI moves the heads whose probes are best, along the difference of means, by its spread."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interplay.primitives.activations import Site, record
from interplay.steering.collection import collect_activations
from interplay.steering.inference_time_intervention import InferenceTimeIntervention, probe_accuracies
from tests.steering.conftest import prompts

GOOD, BAD = prompts("good", 12), prompts("bad", 12, seed=1)


def test_probes_find_the_head_that_parts_the_classes():
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(30, 2, 3, 4, generator=generator), torch.randn(30, 2, 3, 4, generator=generator)
    pos[:, 1, 2] += 4.0
    accuracies = probe_accuracies(pos, neg)
    assert np.unravel_index(accuracies.argmax(), accuracies.shape) == (1, 2)
    assert accuracies[1, 2] > 0.95
    assert np.delete(accuracies.flatten(), 5).mean() < 0.7


def test_it_adds_sigma_theta_at_the_chosen_heads(any_language):
    model, tokenizer = any_language
    steering = InferenceTimeIntervention.fit(model, tokenizer, GOOD, BAD, k=3, alpha=2.0)
    sites = [Site("heads", layer) for layer in range(4)]
    pos, neg = (list(collect_activations(model, tokenizer, texts, sites).values()) for texts in (GOOD, BAD))
    for layer, head, vector in zip(steering.layers, steering.heads, steering.vectors, strict=True):
        one, other = pos[layer][:, head], neg[layer][:, head]
        theta = one.mean(0) - other.mean(0)
        theta = theta / theta.norm()
        spread = (torch.cat([one, other]) @ theta).std(correction=0)
        torch.testing.assert_close(vector, 2.0 * spread * theta, rtol=1e-3, atol=1e-4)
    first = int(steering.layers.min())
    batch = tokenizer(GOOD, return_tensors="pt", padding=True)
    with torch.inference_mode(), record(model, [Site("heads", first)]) as before:
        model(**batch)
    with torch.inference_mode(), steering.applied(model, 0.5), record(model, [Site("heads", first)]) as after:
        model(**batch)
    expected = before[Site("heads", first)].clone()
    for layer, head, vector in zip(steering.layers, steering.heads, steering.vectors, strict=True):
        if layer == first:
            expected[:, :, head] += 0.5 * vector
    torch.testing.assert_close(after[Site("heads", first)], expected, rtol=1e-5, atol=1e-5)


def test_bad_input_is_refused(llama):
    for k in (0, 17):
        with pytest.raises(ValueError, match="between 1 and the model's 16 heads"):
            InferenceTimeIntervention.fit(llama.model, llama.tokenizer, GOOD, BAD, k=k)
    with pytest.raises(ValueError, match="two prompts or more"):
        InferenceTimeIntervention.fit(llama.model, llama.tokenizer, GOOD[:1], BAD)
