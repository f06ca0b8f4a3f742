"""Random streams, event selection, Poisson draws, neighbour tables and active lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from interplay.primitives import stochastic
from interplay.primitives.stochastic import (
    compiled,
    exponential,
    first_event,
    insert_site,
    move_site,
    neighbour,
    neighbour_table,
    next_uint64,
    poisson,
    random_stream,
    remove_site,
    spawn_seeds,
    uniform,
)


@compiled
def draw_uniforms(stream, out):
    for i in range(out.shape[0]):
        out[i] = uniform(stream)


@compiled
def draw_exponentials(stream, out):
    for i in range(out.shape[0]):
        out[i] = exponential(stream)


@compiled
def draw_poissons(stream, mean, out):
    for i in range(out.shape[0]):
        out[i] = poisson(stream, mean)


def stream_of(seed):
    return random_stream(np.random.SeedSequence(seed))


def test_xoshiro_follows_its_published_vectors():
    # State 1, 2, 3, 4: the first outputs of the authors' reference implementation.
    stream = np.array([1, 2, 3, 4], np.uint64)
    expected = [
        41943041,
        58720359,
        3588806011781223,
        3591011842654386,
        9228616714210784205,
        9973669472204895162,
        14011001112246962877,
        12406186145184390807,
        15849039046786891736,
        10450023813501588000,
    ]
    assert [int(next_uint64(stream)) for _ in expected] == expected


def test_uniforms_and_exponentials_have_their_distributions():
    out = np.empty(100_000)
    draw_uniforms(stream_of(1), out)
    assert out.min() >= 0
    assert out.max() < 1
    assert stats.kstest(out, "uniform").pvalue > 1e-3
    draw_exponentials(stream_of(2), out)
    assert stats.kstest(out, "expon").pvalue > 1e-3


@pytest.mark.parametrize("mean", [0.0, 0.3, 4.0, 9.9, 10.1, 60.0, 3000.0])
def test_poisson_has_its_distribution(mean):
    out = np.empty(100_000, np.int64)
    draw_poissons(stream_of(3), mean, out)
    if mean == 0.0:
        assert not out.any()
        return
    values = np.arange(out.max() + 2)
    expected = len(out) * stats.poisson.pmf(values, mean)
    keep = expected > 10
    observed = np.bincount(out, minlength=len(values))
    chi2 = (((observed - expected) ** 2 / np.maximum(expected, 1e-300))[keep]).sum()
    assert stats.chi2.sf(chi2, keep.sum() - 1) > 1e-3


def test_first_event_selects_in_proportion_to_the_rates():
    rates = np.array([0.0, 2.0, 0.0, 1.0, 3.0, 0.0])
    chosen = [first_event(rates, u) for u in (np.arange(600) + 0.5) / 100]
    assert np.bincount(chosen, minlength=6).tolist() == [0, 200, 0, 100, 300, 0]


def test_first_event_never_selects_the_impossible():
    rates = np.array([0.0, 1.0, 0.0])
    assert first_event(rates, 0.0) == 1
    assert first_event(rates, 1.0) == 1  # rounding can carry the threshold to the sum
    assert first_event(np.zeros(3), 0.0) == -1


def test_seeds_are_independent_and_repeatable():
    first, again = spawn_seeds(7, 3), spawn_seeds(7, 3)
    states = [tuple(random_stream(seed)) for seed in first]
    assert states == [tuple(random_stream(seed)) for seed in again]
    assert len(set(states)) == 3
    # The first children of a longer list are the children of a shorter one.
    assert [tuple(random_stream(seed)) for seed in spawn_seeds(7, 5)[:3]] == states


def test_a_seed_sequence_is_not_advanced():
    root = np.random.SeedSequence(7)
    first = [tuple(random_stream(seed)) for seed in spawn_seeds(root, 2)]
    assert [tuple(random_stream(seed)) for seed in spawn_seeds(root, 2)] == first
    assert root.n_children_spawned == 0


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)])
def test_bad_seeds_are_refused(seed, error):
    with pytest.raises(error, match="seed"):
        spawn_seeds(seed, 2)


@pytest.mark.parametrize("count", [0, -1, 2.5, True])
def test_bad_counts_are_refused(count):
    with pytest.raises(ValueError, match="count"):
        spawn_seeds(1, count)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 4, 5)])
def test_neighbours_agree_with_coordinates(shape):
    table = neighbour_table(shape)
    for site in range(np.prod(shape)):
        here = np.array(np.unravel_index(site, shape))
        expected = set()
        for axis in range(len(shape)):
            for step in (1, -1):
                there = here.copy()
                there[axis] = (there[axis] + step) % shape[axis]
                expected.add(int(np.ravel_multi_index(tuple(there), shape)))
        assert set(table[site].tolist()) == expected
        assert [neighbour(table, site, direction) for direction in range(2 * len(shape))] == table[site].tolist()
        assert len(expected) == 2 * len(shape)


@pytest.mark.parametrize("shape", [(), (2,), (5, 2)])
def test_small_lattices_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        neighbour_table(shape)


@given(st.lists(st.tuples(st.sampled_from("irm"), st.integers(0, 9), st.integers(0, 9)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_active_list_behaves_like_a_set(steps):
    active, slot, count = np.empty(10, np.int32), np.empty(10, np.int32), 0
    expected: set[int] = set()
    for action, site, target in steps:
        if action == "i" and site not in expected:
            count = insert_site(active, slot, count, site)
            expected.add(site)
        elif action == "r" and site in expected:
            count = remove_site(active, slot, count, site)
            expected.remove(site)
        elif action == "m" and site in expected and target not in expected:
            move_site(active, slot, site, target)
            expected.remove(site)
            expected.add(target)
        assert set(active[:count].tolist()) == expected
        assert all(active[slot[member]] == member for member in expected)


def test_all_names_are_documented():
    assert all(getattr(stochastic, name).__doc__ for name in stochastic.__all__)
