"""The set-point rule on numbers, arrays and tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interplay.primitives.homeostasis import regulated_offset, regulated_strength

rates = st.floats(0, 1)
strengths = st.floats(0, 10)


@given(strengths, rates, rates, st.floats(0, 5))
def test_numbers_arrays_and_tensors_agree(strength, activity, target, rate):
    expected = max(0.0, strength + rate * (activity - target))
    assert regulated_strength(strength, activity, target, rate) == expected
    as_arrays = [np.array([value]) for value in (strength, activity, target)]
    assert regulated_strength(*as_arrays, rate).item() == expected
    as_tensors = [torch.tensor([value], dtype=torch.float64) for value in (strength, activity, target)]
    assert regulated_strength(*as_tensors, rate).item() == expected


@given(st.floats(-10, 10), rates, rates, st.floats(0, 5))
def test_an_offset_may_take_either_sign(offset, activity, target, rate):
    assert regulated_offset(offset, activity, target, rate) == offset + rate * (activity - target)


def test_a_unit_is_driven_to_its_set_point():
    # activity = drive - strength: the fixed point of the rule is strength = drive - target.
    strength = np.zeros(3)
    drive, target = np.array([1.0, 0.6, 0.2]), np.array([0.5, 0.5, 0.5])
    for _ in range(500):
        strength = regulated_strength(strength, drive - strength, target, 0.1)
    np.testing.assert_allclose(strength, [0.5, 0.1, 0.0], atol=1e-12)


def test_arguments_broadcast_and_are_not_changed():
    strength, activity = np.full((2, 3), 0.5), np.array([[0.9], [0.1]])
    moved = regulated_strength(strength, activity, np.array([[0.5]]), 1.0)
    np.testing.assert_allclose(moved, [[0.9] * 3, [0.1] * 3])
    assert (strength == 0.5).all()


def test_gradients_pass_where_the_strength_is_above_zero():
    activity = torch.tensor([0.9, 0.1], dtype=torch.float64, requires_grad=True)
    strength, target = torch.tensor([0.1, 0.1], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    regulated_strength(strength, activity, target, 0.5).sum().backward()
    np.testing.assert_array_equal(activity.grad, [0.5, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    strength = torch.ones(2, dtype=dtype)
    assert regulated_strength(strength, strength / 2, strength / 4, 0.1).dtype == dtype
