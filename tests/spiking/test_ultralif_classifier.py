"""The spiking classifier against its layers by hand, the rate coder's statistics, and the penalty's arithmetic."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from interplay.spiking.ultralif import (
    SpikingClassifier,
    UltraDLIF,
    UltraLIF,
    rate_code,
    soft_lif,
    sparsity_penalty,
)
from interplay.testing import check_mechanism, check_same_seed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator())


@pytest.mark.parametrize("residual", [False, True])
def test_logits_are_those_of_the_layers_step_by_step(residual):
    network = SpikingClassifier(6, [4, 4, 4], 3, lambda units: UltraLIF(), residual=residual)
    x, states, logits = randn(5, 2, 6), [None] * 3, []
    for now in x:
        total, signal = 0.0, now
        for layer in range(3):
            fired, states[layer] = network.neurons[layer].module(network.currents[layer].module(signal), states[layer])
            signal = total = fired + total if residual else fired
        logits.append(network.readout(signal))
    assert_close(network(x), torch.stack(logits).mean(0))


def test_each_layer_has_a_neuron_of_its_own_and_of_its_size():
    network = SpikingClassifier(6, [5, 4], 3, UltraDLIF)
    assert [neuron.module.size for neuron in network.neurons] == [5, 4]
    assert [layer.shape for layer in network.spikes(randn(7, 2, 6))] == [(7, 2, 5), (7, 2, 4)]


@pytest.mark.parametrize("settings", [{}, {"batch_norm": True}, {"residual": True}])
def test_mechanism(settings):
    network = SpikingClassifier(6, [4, 4], 3, lambda units: UltraLIF(learn_decay=True), **settings).eval()
    check_mechanism(network, randn(5, 3, 6), batch_dim=1)


def test_it_learns_which_channel_is_louder():
    torch.manual_seed(0)
    labels = torch.randint(3, (60,), generator=generator())
    counts = torch.poisson(1 + 20 * functional.one_hot(labels, 3).float(), generator=generator()).expand(2, -1, -1)
    for neuron in (lambda units: UltraLIF(), UltraDLIF, lambda units: soft_lif(smooth=False)):
        network = SpikingClassifier(3, [16], 3, neuron)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
        for _ in range(60):
            optimizer.zero_grad()
            functional.cross_entropy(network(counts), labels).backward()
            optimizer.step()
        assert (network(counts).argmax(1) == labels).float().mean() > 0.95


def test_rate_code_fires_at_the_rates_given_anew_in_every_step():
    rates = torch.tensor([[0.0, 0.2, 1.0]])
    spikes = rate_code(rates.expand(500, -1), 40, generator=generator())
    assert spikes.shape == (40, 500, 3)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    means = spikes.mean((0, 1))
    assert (means[0], means[2]) == (0, 1)
    assert means[1].item() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / 20_000))
    assert not torch.equal(spikes[0], spikes[1])
    check_same_seed(lambda seed: rate_code(torch.full((4, 9), 0.5), 3, generator=generator(seed)))


def test_rates_out_of_range_are_refused_or_clamped():
    rates = torch.tensor([[-0.5, 2.0]])
    with pytest.raises(ValueError, match=r"rates must lie in \[0, 1\], got -0.5 to 2; scale them or set clamp=True"):
        rate_code(rates, 1, generator=generator())
    assert torch.equal(rate_code(rates, 1, generator=generator(), clamp=True), torch.tensor([[[0.0, 1.0]]]))
    with pytest.raises(ValueError, match="steps must be one or more"):
        rate_code(rates, 0, generator=generator(), clamp=True)
    with pytest.raises(TypeError, match=r"call \.float\(\) and scale them"):
        rate_code(torch.ones(2, 3, dtype=torch.uint8), 1, generator=generator())


def test_the_penalty_weighs_layers_alike():
    spikes = [torch.full((2, 3, 100), 0.2), torch.full((2, 3, 4), 0.6)]
    assert sparsity_penalty(spikes, 0.5).item() == pytest.approx(0.2)
    with pytest.raises(ValueError, match="at least one layer"):
        sparsity_penalty([], 1.0)


@pytest.mark.parametrize(
    ("sizes", "settings", "message"),
    [
        ((6, [], 3), {}, "one or more hidden sizes must be positive"),
        ((0, [4], 3), {}, "must be positive"),
        ((6, [4, 0], 3), {}, "must be positive"),
        ((6, [4, 5], 3), {"residual": True}, "hidden layers of one size"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, settings, message):
    with pytest.raises(ValueError, match=message):
        SpikingClassifier(*sizes, lambda units: UltraLIF(), **settings)


def test_layers_fit_into_a_sequential():
    from interplay.primitives.neurons import MultiStep

    network = nn.Sequential(MultiStep(nn.Linear(6, 4)), MultiStep(UltraDLIF(4)), MultiStep(nn.Linear(4, 3)))
    assert network(randn(5, 2, 6)).shape == (5, 2, 3)
