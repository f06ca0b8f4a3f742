"""Operators in the plane: the matrix exponential, what is kept and what is not, rows, types, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from interplay.steering.selective_steering import Rotate, SteeringPlane, ablation, addition, placement, rotation
from interplay.testing import check_mechanism

WIDTH = 12
MODES = ("ss", "sas", "aas")
ANGLES = st.floats(-1000, 1000)


def plane_of(seed: int = 0) -> SteeringPlane:
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((WIDTH, 2)))[0]
    plane = SteeringPlane(WIDTH, ["layers.0.norm"])
    plane.b1.copy_(torch.from_numpy(axes[:, 0]))
    plane.b2.copy_(torch.from_numpy(axes[:, 1]))
    return plane


def activations(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(3 * np.random.default_rng(seed).standard_normal((*shape, WIDTH))).to(dtype)


def angular_distance(a: torch.Tensor, b: float) -> float:
    return float(((a - b + 180).remainder(360) - 180).abs().max())


@pytest.mark.parametrize("mode", MODES)
def test_it_is_a_sound_mechanism(mode):
    check_mechanism(
        Rotate(plane_of(), mode),
        activations(3, 4, dtype=torch.float32),
        torch.tensor([0.0, 40.0, 300.0]),
        batch_dim=0,
        gradients=False,
        bad_inputs={
            "another width": (torch.ones(3, 4, WIDTH + 1), torch.zeros(3)),
            "angles of two rows for three": (torch.ones(3, 4, WIDTH), torch.zeros(2)),
            "an angle that is not finite": (torch.ones(3, 4, WIDTH), torch.tensor([0.0, 1.0, math.inf])),
            "no floating activations": (torch.ones(3, 4, WIDTH).int(), torch.zeros(3)),
        },
    )


@settings(deadline=None, max_examples=40)
@given(theta=ANGLES)
def test_rotation_is_the_exponential_of_its_generator(theta):
    plane, h = plane_of(), activations(2, 3)
    b1, b2 = plane.basis(torch.float64).numpy().T
    generator = np.outer(b2, b1) - np.outer(b1, b2)
    expected = h.numpy() @ expm(math.radians(theta) * generator).T
    np.testing.assert_allclose(Rotate(plane)(h, theta).numpy(), expected, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(theta=ANGLES, mode=st.sampled_from(MODES), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_norms_are_kept_by_all_and_distances_by_the_rotation(theta, mode, dtype):
    h = activations(64, dtype=dtype)
    turned = Rotate(plane_of(), mode)(h, theta)
    precision = {torch.float32: 1e-6, torch.float64: 1e-13}[dtype]
    assert ((turned.norm(dim=-1) / h.norm(dim=-1)) - 1).abs().max() < precision
    if mode == "ss":
        torch.testing.assert_close(torch.pdist(turned), torch.pdist(h), rtol=4 * precision, atol=0)


def test_the_published_placement_collapses_angles_and_is_no_isometry():
    plane, h = plane_of(), activations(200)
    turned = Rotate(plane, "sas")(h, 70.0)
    assert angular_distance(plane.angle_of(turned), 70) < 1e-6
    ratios = torch.pdist(turned) / torch.pdist(h)
    assert ratios.min() < 0.9


def test_angle_zero_is_the_identity_of_the_rotation_only():
    plane, h = plane_of(), activations(5, dtype=torch.float32)
    for theta in (0.0, 360.0, -720.0, torch.zeros(5), torch.tensor(360.0)):
        assert torch.equal(Rotate(plane)(h, theta), h)
    for mode in ("sas", "aas"):
        assert not torch.allclose(Rotate(plane, mode)(h, 0.0), h)
    torch.testing.assert_close(Rotate(plane)(h, 450.0), Rotate(plane)(h, 90.0))
    torch.testing.assert_close(Rotate(plane)(Rotate(plane)(h, 50.0), -50.0), h)


def test_angles_grow_from_the_first_axis_to_the_second():
    plane = plane_of()
    torch.testing.assert_close(Rotate(plane)(plane.b1, 90.0), plane.b2)
    torch.testing.assert_close(Rotate(plane, "sas")(5 * plane.b1, 90.0), 5 * plane.b2)
    torch.testing.assert_close(Rotate(plane)(plane.b2, 90.0), -plane.b1)


def test_the_adaptive_mode_turns_one_side_only():
    plane, h = plane_of(), activations(100)
    side = h @ plane.basis(torch.float64)[:, 0] > 0
    assert side.any()
    assert (~side).any()
    adaptive, all_of_them = Rotate(plane, "aas")(h, 200.0), Rotate(plane, "sas")(h, 200.0)
    torch.testing.assert_close(adaptive[side], all_of_them[side])
    assert torch.equal(adaptive[~side], h[~side])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2)])
def test_each_row_gets_its_angle(mode, shape):
    turn, h = Rotate(plane_of(), mode), activations(*shape)
    thetas = torch.tensor([10.0, 0.0, -50.0, 400.0])
    together = turn(h, thetas)
    for row, theta in enumerate(thetas.tolist()):
        torch.testing.assert_close(together[row], turn(h[row], theta), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(target=st.floats(0, 360), fraction=st.floats(-2, 2))
def test_a_fraction_goes_that_part_of_the_shorter_arc(target, fraction):
    plane, h = plane_of(), activations(50)
    arc = (target - plane.angle_of(h) + 180).remainder(360) - 180
    turned = placement(plane, target, fraction=fraction)(h)
    expected = plane.angle_of(h) + fraction * arc
    assert angular_distance(plane.angle_of(turned) - expected, 0) < 1e-6
    torch.testing.assert_close(turned.norm(dim=-1), h.norm(dim=-1))
    rest = torch.eye(WIDTH, dtype=torch.float64) - (basis := plane.basis(torch.float64)) @ basis.T
    torch.testing.assert_close(turned @ rest, h @ rest)


def test_the_ends_of_the_arc_are_the_identity_and_the_published_operator():
    plane, h = plane_of(), activations(4, 5)
    assert torch.equal(placement(plane, 30.0, fraction=0.0)(h), h)
    whole = torch.tensor([1.0, 0.0, 1.0, 1.0])
    turned, published = placement(plane, 30.0, fraction=whole)(h), Rotate(plane, "sas")(h, 30.0)
    torch.testing.assert_close(turned[whole == 1], published[whole == 1])
    assert torch.equal(turned[1], h[1])
    nothing = torch.zeros(2, WIDTH)
    assert torch.equal(placement(plane, 30.0, fraction=0.5)(nothing), nothing)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision_rounds_once(mode, dtype):
    turn, h = Rotate(plane_of(), mode).to(dtype), activations(500, dtype=dtype)
    turned, exact = turn(h, 130.0), turn(h.double(), 130.0)
    assert turned.dtype == dtype
    half_a_step = torch.finfo(dtype).eps / 2
    assert ((turned.double() - exact).abs() <= 1.001 * half_a_step * exact.abs() + 1e-5).all()


def test_gradients_of_activation_and_angle():
    turn = {mode: Rotate(plane_of(), mode) for mode in MODES}
    h = activations(3, 2).requires_grad_()
    theta = torch.tensor([20.0, 100.0, 250.0], dtype=torch.float64, requires_grad=True)
    for mode in MODES:
        assert torch.autograd.gradcheck(turn[mode], (h, theta))


def test_ablation_and_addition():
    plane, h = plane_of(), activations(3, 4)
    b1 = plane.basis(torch.float64)[:, 0]
    gone = ablation(plane)(h)
    assert (gone @ b1).abs().max() < 1e-12
    torch.testing.assert_close(ablation(plane)(gone), gone)
    rows = torch.tensor([0.0, 0.5, 2.0])
    torch.testing.assert_close(ablation(plane, rows)(h) @ b1, (h @ b1) * (1 - rows)[:, None])
    torch.testing.assert_close(addition(plane, rows)(h) - h, rows[:, None, None] * b1.expand_as(h))
    assert torch.equal(addition(plane, 0.0)(h), h)


def test_bad_input_is_refused():
    plane, h = plane_of(), activations(3, 4)
    for theta in (math.nan, math.inf, torch.ones(2, 2), torch.tensor([1, 2, 3])):
        with pytest.raises(ValueError, match="theta must be a finite number"):
            rotation(plane, theta)
    with pytest.raises(ValueError, match=r"2 angles or strengths.*3 rows"):
        Rotate(plane)(h, torch.zeros(2))
    with pytest.raises(ValueError, match="no rows"):
        Rotate(plane)(h[0, 0], torch.zeros(2))
    with pytest.raises(ValueError, match="mode must be one of ss, sas, aas"):
        Rotate(plane, "spin")
    with pytest.raises(ValueError, match=r"\[3, 5\] do not fit a plane in 12"):
        Rotate(plane)(torch.ones(3, 5), 1.0)
