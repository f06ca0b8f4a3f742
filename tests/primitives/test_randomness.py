import pytest
import torch
from torch import nn

from interplay.primitives.randomness import generator_of, initialised_from


def test_purposes_of_a_seed_are_apart_and_repeatable():
    draws = [torch.rand(4, generator=generator_of(*key)) for key in [(0, 1), (0, 2), (1, 1), (0, 1, 0), (0, 1)]]
    assert torch.equal(draws[0], draws[4])
    for index, one in enumerate(draws[:4]):
        assert not any(torch.equal(one, other) for other in draws[index + 1 : 4])


def test_layers_follow_the_generator_and_nothing_else_does():
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)
    generator = generator_of(7, 0)
    torch.rand(2, generator=generator)  # how far a generator has come does not matter
    with initialised_from(generator):
        first = nn.Linear(3, 2)
    assert torch.equal(torch.rand(3), undisturbed)
    with initialised_from(generator_of(7, 0)):
        second = nn.Linear(3, 2)
    assert torch.equal(first.weight, second.weight)


def test_the_global_generator_is_put_back_after_an_error():
    def fail():
        with initialised_from(generator_of(0)):
            nn.Linear(3, -1)

    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_negative_seeds_are_refused():
    with pytest.raises(ValueError, match="non-negative"):
        generator_of(-1)
