"""Networks: the parser, propensities in both conventions, rate equations, Jacobians, bad input."""

import numpy as np
import pytest
from scipy.special import comb

from interplay.kinetics.reaction_kinetics import ReactionNetwork

LOTKA_VOLTERRA = ReactionNetwork.from_string("A -> 0 @ 0.2; B -> 2B @ 1; A + B -> 2A @ 0.01")


def test_parser_reads_reactants_products_and_rates():
    network = ReactionNetwork.from_string(
        """A -> 2A @ birth
        2 A -> A @ 0.5
        A + B -> 0 @ 1e-3; 0 -> B @ birth""",
        {"birth": 2.0},
    )
    assert network.species == ("A", "B")
    assert network.reactants.tolist() == [[1, 0], [2, 0], [1, 1], [0, 0]]
    assert network.stoichiometry.tolist() == [[1, 0], [-1, 0], [-1, -1], [0, 1]]
    assert network.stoichiometry.dtype == np.int64
    assert network.rates.tolist() == [2.0, 0.5, 1e-3, 2.0]
    assert network.order.tolist() == [1, 2, 2, 0]


def test_a_species_named_twice_on_a_side_is_added_up():
    assert ReactionNetwork.from_string("A + A -> 0 @ 1").reactants.tolist() == [[2]]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 17])
def test_propensities_count_pairs_by_convention(n):
    falling = ReactionNetwork.from_string("2A -> 0 @ 3; 3A -> A @ 2")
    combinatorial = ReactionNetwork.from_string("2A -> 0 @ 3; 3A -> A @ 2", convention="combinatorial")
    assert falling.propensities([n]).tolist() == [3 * n * (n - 1), 2 * n * (n - 1) * (n - 2)]
    np.testing.assert_allclose(combinatorial.propensities([n]), [3 * comb(n, 2), 2 * comb(n, 3)])


def test_propensities_broadcast_over_leading_axes():
    n = np.random.default_rng(0).integers(0, 50, (4, 5, 2))
    together = LOTKA_VOLTERRA.propensities(n)
    assert together.shape == (4, 5, 3)
    np.testing.assert_array_equal(together[2, 3], LOTKA_VOLTERRA.propensities(n[2, 3]))


def test_rate_equation_of_pair_annihilation():
    # da/dt = -2 k a^2 in the falling convention, -k a^2 in the other.
    for convention, expected in (("falling", -2 * 0.5 * 49.0), ("combinatorial", -0.5 * 49.0)):
        network = ReactionNetwork.from_string("2A -> 0 @ 0.5", convention=convention)
        assert network.rate_equation()(0.0, np.array([7.0]))[0] == pytest.approx(expected)


def test_jacobian_agrees_with_finite_differences():
    network = ReactionNetwork.from_string(
        "A -> 0 @ 0.2; B -> 2B @ 1; A + B -> 2A @ 0.01; 2B -> B @ 0.03; 3A -> B @ 1e-4"
    )
    n, step = np.array([11.0, 23.0]), 1e-5
    right_hand_side = network.rate_equation()
    columns = [
        (right_hand_side(0.0, n + step * unit) - right_hand_side(0.0, n - step * unit)) / (2 * step)
        for unit in np.eye(2)
    ]
    np.testing.assert_allclose(network.jacobian(n), np.stack(columns, axis=1), rtol=1e-6)


def test_lotka_volterra_centre_has_the_frequency_sqrt_mu_sigma():
    # Fixed point b* = mu / lambda, a* = sigma / lambda; eigenvalues +- i sqrt(mu sigma).
    eigenvalues = np.linalg.eigvals(LOTKA_VOLTERRA.jacobian([1 / 0.01, 0.2 / 0.01]))
    np.testing.assert_allclose(sorted(eigenvalues.imag), [-np.sqrt(0.2), np.sqrt(0.2)], rtol=1e-12)
    np.testing.assert_allclose(eigenvalues.real, 0, atol=1e-12)


@pytest.mark.parametrize("predation", [0.5, 1.0, 2.0, 0.21])
def test_lotka_volterra_with_capacity_has_the_derived_eigenvalues(predation):
    sigma, mu, rho = 1.0, 0.2, 1.0
    network = ReactionNetwork.from_string(
        "A -> 0 @ mu; B -> 2B @ sigma; 2B -> B @ crowd; A + B -> A @ crowd; A + B -> 2A @ lambda",
        {"mu": mu, "sigma": sigma, "crowd": sigma / rho, "lambda": predation},
    )
    a = sigma * (1 - mu / (predation * rho)) / (predation + sigma / rho)
    fixed = np.array([a, mu / predation])
    np.testing.assert_allclose(network.rate_equation()(0.0, fixed), 0, atol=1e-14)
    root = np.sqrt(complex(1 - 4 * predation * rho / sigma * (predation * rho / mu - 1)))
    expected = -sigma * mu / (2 * predation * rho) * np.array([1 + root, 1 - root])
    np.testing.assert_allclose(
        np.sort_complex(np.linalg.eigvals(network.jacobian(fixed)).astype(complex)),
        np.sort_complex(expected),
        rtol=1e-9,
    )


def test_may_leonard_fixed_point_is_an_unstable_spiral_of_known_frequency():
    mu, sigma = 1.3, 0.7
    # Empty sites as a fourth species keep the reproduction bimolecular.
    network = ReactionNetwork.from_string(
        "A + B -> A + E @ s; B + C -> B + E @ s; C + A -> C + E @ s; A + E -> 2A @ m; B + E -> 2B @ m; C + E -> 2C @ m",
        {"s": sigma, "m": mu},
    )
    species = mu / (3 * mu + sigma)
    fixed = np.array([1 - 3 * species if name == "E" else species for name in network.species])
    np.testing.assert_allclose(network.rate_equation()(0.0, fixed), 0, atol=1e-14)
    eigenvalues = np.linalg.eigvals(network.jacobian(fixed))
    spiral = eigenvalues[np.abs(eigenvalues.imag) > 1e-9]
    np.testing.assert_allclose(np.abs(spiral.imag), np.sqrt(3) * mu * sigma / (2 * (3 * mu + sigma)))
    assert (spiral.real > 0).all()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A -> 2A", "'A -> 2A'"),
        ("A -> 2A @ 1 @ 2", "2A @ 1 @ 2"),
        ("A 2A @ 1", "A 2A"),
        ("A -> 2? @ 1", "'2[?]'"),
        ("0A -> A @ 1", "'0A'"),
        ("A -> @ 1", "''"),
        ("A -> 0 @ rate", "'rate'"),
        ("", "no reaction"),
        ("0 -> 0 @ 1", "no species"),
    ],
)
def test_unreadable_reactions_are_shown_with_an_example(text, shown):
    with pytest.raises(ValueError, match=shown) as error:
        ReactionNetwork.from_string(text)
    assert "A -> 2A" in str(error.value) or "rates={" in str(error.value)


def test_bad_rates_orders_and_conventions_are_refused():
    with pytest.raises(ValueError, match="birth must be finite and not negative; got -1"):
        ReactionNetwork.from_string("A -> 2A @ birth", {"birth": -1.0})
    with pytest.raises(ValueError, match="not negative"):
        ReactionNetwork.from_string("A -> 2A @ -0.5")
    with pytest.raises(TypeError, match="birth must be a number"):
        ReactionNetwork.from_string("A -> 2A @ birth", {"birth": "fast"})
    with pytest.raises(ValueError, match="which no reaction uses"):
        ReactionNetwork.from_string("A -> 2A @ 1", {"death": 1.0})
    with pytest.raises(ValueError, match="allow_high_order=True"):
        ReactionNetwork.from_string("4A -> 0 @ 1")
    assert ReactionNetwork.from_string("4A -> 0 @ 1", allow_high_order=True).order.tolist() == [4]
    with pytest.raises(ValueError, match="convention"):
        ReactionNetwork.from_string("A -> 0 @ 1", convention="powers")
    with pytest.raises(ValueError, match="shape"):
        ReactionNetwork(("A",), np.ones((1, 2), int), np.ones((1, 1), int), np.ones(1))
    with pytest.raises(ValueError, match="use up more"):
        ReactionNetwork(("A",), np.array([[1]]), np.array([[-2]]), np.ones(1))


@pytest.mark.parametrize(
    ("n0", "message"),
    [
        ([1], "one count for each of A, B"),
        ([1.5, 2], "whole numbers"),
        ([float("nan"), 2], "whole numbers"),
        ([-1, 2], "not be negative"),
        ({"C": 1}, "'C'"),
    ],
)
def test_bad_counts_are_refused(n0, message):
    with pytest.raises(ValueError, match=message):
        LOTKA_VOLTERRA.counts(n0)


def test_counts_by_name_default_to_zero():
    assert LOTKA_VOLTERRA.counts({"B": 3}).tolist() == [0, 3]
